"""The suite as a plugin's own tests run it: of an installed plugin, in a pytest of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vlm_run.plugins.discovery import installed_plugins

from .conftest import SPEC, TEMPLATE

RunPytest = Callable[..., str]

LIGHT = "specs or placeholder or prompt_agrees"  # what imports neither vLLM nor transformers


@pytest.fixture
def installed(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with an installed plugin whose template forgets the images, and its tests."""
    pytester.mkdir("vlm_run_acme-1.0.dist-info").joinpath("entry_points.txt").write_text(
        "[vlm_run.plugins]\nacme = vlm_run_acme\n"
    )
    package = pytester.mkdir("vlm_run_acme")
    (package / "__init__.py").write_text(SPEC)
    (package / "acme.jinja").write_text(TEMPLATE.replace("<image>", ""))
    pytester.makepyfile(
        test_acme="""
        from vlm_run.testing import conformance_tests
        test_conformance = conformance_tests('vlm_run_acme')
        """
    )
    for name in ("CI", "BUILD_NUMBER"):  # with which pytest repeats whole messages in its summary
        monkeypatch.delenv(name, raising=False)
    pytester.syspathinsert()
    installed_plugins.cache_clear()
    yield pytester.path
    installed_plugins.cache_clear()


@pytest.fixture
def run_pytest(installed: Path, pytester: pytest.Pytester) -> RunPytest:
    """A function that runs the plugin's tests, and gives what pytest prints.

    In this process, which has imported all that takes long.
    """
    unused = [f"-pno:{name}" for name in ("cacheprovider", "schemathesis", "hypothesispytest", "xdist")]

    def run(*arguments: str) -> str:
        result = pytester.runpytest_inprocess("-rA", *unused, *arguments)
        return result.stdout.str() + result.stderr.str()

    return run


def test_each_check_is_a_test_of_its_own(run_pytest: RunPytest) -> None:
    printed = run_pytest("-k", LIGHT)
    assert "PASSED test_acme.py::test_conformance[specs_are_valid_and_unique]" in printed
    assert "FAILED test_acme.py::test_conformance[acme-7b-one_placeholder_for_each_image]" in printed
    assert "no checkpoint directory is given for this model type" in printed


def test_a_failure_is_told_in_a_sentence_and_without_a_traceback(run_pytest: RunPytest) -> None:
    printed = run_pytest("-k", "one_placeholder")
    sentence = (
        "the conversation 'one image', with 1 images, gives a prompt with 0 placeholders <image>. "
        "The template must write the placeholder once for each part of type 'image'."
    )
    assert printed.count(sentence) == 1
    assert "FAILED test_acme.py::test_conformance[acme-7b-one_placeholder_for_each_image]\n" in printed
    assert "prompt_checks.py" not in printed


def test_a_conftest_may_bring_checkpoint_directories(installed: Path, run_pytest: RunPytest) -> None:
    (installed / "conftest.py").write_text(
        "import pytest\n@pytest.fixture(scope='session')\ndef vlm_run_checkpoints(): return {'mine': '.'}\n"
    )
    printed = run_pytest("-k", "specs")
    assert "does not serve the model type 'mine'" in printed


def test_a_plugin_that_cannot_be_used_is_told_at_collection(installed: Path, run_pytest: RunPytest) -> None:
    (installed / "vlm_run_acme/acme.jinja").unlink()
    printed = run_pytest()
    assert "Interrupted: 1 error during collection" in printed
    assert "the plugin vlm-run-acme could not be loaded: 'acme-7b': chat_template" in printed


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("acme-7b", "write MODEL_TYPE=DIRECTORY"),
        ("acme-7b=nowhere", "the directory has no config.json"),
        ("other=.", "does not serve the model type 'other'"),
    ],
)
def test_a_wrong_checkpoint_option_is_told(
    installed: Path, run_pytest: RunPytest, assignment: str, message: str
) -> None:
    (installed / "config.json").write_text("{}")
    printed = run_pytest("-k", "specs", f"--vlm-run-checkpoint={assignment}")
    assert message in printed

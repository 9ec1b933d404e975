"""Commands, Python code, links and paths in the README and all other pages."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from vlm_run import scaffold
from vlm_run.cli import app
from vlm_run.specs import ModelSpec

DOCS = Path(__file__).parents[1] / "docs"
GUIDE = (DOCS / "plugin-authors.md").read_text()
SERVING = (DOCS / "serving.md").read_text()
ROOT = DOCS.parent
SERVICES = ROOT / "examples" / "serving"
PAGES = {
    str(page.relative_to(ROOT)): page.read_text()
    for pattern in ("*.md", "docs/**/*.md", "plugins/*/README.md", "examples/*/README.md", "benchmarks/*.md")
    for page in sorted(ROOT.glob(pattern))
}
COMMANDS = [
    re.sub(r"^\$ |\s+# .*", "", line)
    for text in PAGES.values()
    for block in re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL)
    for line in block.splitlines()
    if line
]


@pytest.mark.parametrize("line", [line for line in dict.fromkeys(COMMANDS) if line.startswith("vlm-run ")])
def test_a_command_and_its_options_exist(line: str) -> None:
    command: Any = typer.main.get_command(app)
    context = typer.Context(command, **app.info.context_settings)
    words = shlex.split(line)[1:]
    while hasattr(command, "resolve_command"):
        _, command, words = command.resolve_command(context, words)
        context = typer.Context(command, parent=context)
    command.make_context(command.name, words, parent=context.parent)  # fails at an unknown option


@pytest.mark.parametrize(
    "line", ["vlm-run plugn new a", "vlm-run plugin new a --hf_idd=b", "vlm-run plugins -x"]
)
def test_a_wrong_command_would_be_found(line: str) -> None:
    with pytest.raises(Exception, match="No such"):
        test_a_command_and_its_options_exist(line)


def test_the_guide_uses_every_command_of_plugin() -> None:
    assert any(line.startswith("vlm-run plugin new ") for line in COMMANDS)
    assert any(line.startswith("vlm-run plugin check ") for line in COMMANDS)


@pytest.mark.parametrize("words", [[], ["plugin"]])
def test_the_help_shows_a_whole_sentence_for_each_command(words: list[str]) -> None:
    page = CliRunner().invoke(app, [*words, "--help"]).output
    listed = page.partition("Commands:\n")[2].splitlines()
    assert len(listed) > 1
    assert [line for line in listed if not re.fullmatch(r"  [a-z]+ +[A-Z].+[^.]\.", line)] == []


@pytest.mark.parametrize("command", ["infer", "explain", "verify", "plugin check"])
def test_the_help_has_an_example_on_a_line_of_its_own(command: str) -> None:
    page = CliRunner().invoke(app, [*command.split(), "--help"]).output
    assert re.search(rf"^ {{6}}vlm-run {command} ", page, re.MULTILINE)
    assert "<list[" not in page


def test_the_files_it_lists_are_those_of_a_new_plugin(tmp_path: Path) -> None:
    plugin = scaffold.NewPlugin("acme-vl", "acme-vl", "A", "acme/vl-7b", "<image>")
    written = {str(path.relative_to(tmp_path)) for path in scaffold.write(plugin, tmp_path)}
    for name in re.findall(r"^\| `([^`]+)` \|", GUIDE.split("## 2.")[0], re.MULTILINE):
        assert name in written or any(path.startswith(name) for path in written), name


@pytest.mark.parametrize("page", sorted(PAGES.keys() - {"docs/contract.md"}))  # which shows signatures
def test_python_on_a_page_parses_and_imports_what_exists(page: str) -> None:
    for block in re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "vlm_run":
                module = importlib.import_module(str(node.module))
                assert not [name.name for name in node.names if not hasattr(module, name.name)]


def test_the_fields_that_the_guide_names_exist() -> None:
    table = GUIDE.partition("| Field of `ModelSpec` |")[2].partition("\n\n")[0]
    for name in re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE):
        assert name in ModelSpec.model_fields


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", PAGES[page]):
        assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str) -> None:
    for name in re.findall(r"(?:python|pytest) ((?:tests|benchmarks|tools)/[\w/.-]+\.py)", PAGES[page]):
        assert (ROOT / name).is_file(), name
    for name in re.findall(r"`((?:core/vlm_run|engine|server|media|prompts)/[\w/]+\.py)`", PAGES[page]):
        assert (ROOT / name).is_file() or (ROOT / "core/vlm_run" / name).is_file(), name


def test_the_targets_of_make_that_the_readme_names_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|\$ )make ([a-z-]+)", PAGES["README.md"])) <= targets


def test_the_options_that_serving_and_its_files_name_exist() -> None:
    # The page also shows the benchmark's command.
    options = {
        name
        for command in ("serve", "bench")
        for option in command_of(command).params
        for name in option.opts
    }
    files = [path.read_text() for path in SERVICES.iterdir()]
    ours = re.sub(r"-- --[^`]*`|`--headless`", "", SERVING.split("## Deployment files")[0]).replace("_", "-")
    named = set(re.findall(r"(?<=[ `(\"])--[a-z][a-z-]+", ours))
    named |= {
        flag
        for text in files
        for flag in re.findall(r"(?<=[\s\"])--(?:host|shutdown|max-request|port)[a-z-]*", text)
    }
    assert len(named) > 15
    assert named - options == set()


def test_the_service_files_parse_and_wait_longer_than_the_server() -> None:
    compose = yaml.safe_load((SERVICES / "compose.yaml").read_text())["services"]["vlm"]
    pod = yaml.safe_load((SERVICES / "kubernetes.yaml").read_text())["spec"]["template"]["spec"]
    unit = (SERVICES / "vlm-run.service").read_text()
    seconds = {
        "compose": (compose["stop_grace_period"], " ".join(compose["command"])),
        "kubernetes": (str(pod["terminationGracePeriodSeconds"]), " ".join(pod["containers"][0]["args"])),
        "systemd": (re.findall(r"TimeoutStopSec=(\d+)", unit)[0], unit),
    }
    for given, command in seconds.values():
        asked = re.findall(r"--shutdown-timeout (\d+)", command)
        assert int(given.removesuffix("s")) > int(asked[0])


def command_of(name: str) -> Any:
    group: Any = typer.main.get_command(app)
    return group.commands[name]

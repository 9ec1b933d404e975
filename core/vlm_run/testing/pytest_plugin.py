"""The pytest plugin: an option and fixtures for the tests of plugins.

pytest loads it in every run in the environment, so it imports the rest of vlm-run only when used.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter

ImageTokens: TypeAlias = "Callable[[Adapter, list[tuple[int, int]]], list[int]]"
"""Returns the token counts of a prompt's images from an adapter and their (width, height) in pixels."""

VideoTokens: TypeAlias = "Callable[[Adapter, list[tuple[int, int, int]]], list[int]]"
"""Returns the token counts of videos from an adapter and their (width, height, frames)."""

_OPTION = "--vlm-run-checkpoint"
_SUITE = "vlm_run.testing.conformance"
"""The module whose function is the test of `conformance_tests`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option `--vlm-run-checkpoint`."""
    parser.getgroup("vlm-run").addoption(
        _OPTION,
        action="append",
        default=[],
        metavar="MODEL_TYPE=DIRECTORY",
        help="Checkpoint directory (weights are not needed) for vlm-run's conformance tests; repeatable.",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Print the sentence of a failed conformance test once: pytest would repeat it in its summary."""
    report = yield
    of_suite = getattr(getattr(item, "obj", None), "__module__", "") == _SUITE
    if of_suite and call.excinfo is not None and isinstance(call.excinfo.value, pytest.fail.Exception):
        report.longrepr = str(call.excinfo.value)  # a plain text has no line for the summary
    return report


@pytest.fixture(scope="session")
def vlm_run_checkpoints(pytestconfig: pytest.Config) -> dict[str, Path]:
    """Checkpoint directories by model type, as given on the command line.

    Define a fixture of this name in a plugin's conftest.py to provide directories from the tests.
    """
    directories = {}
    for assignment in pytestconfig.getoption(_OPTION):
        model_type, equals, directory = assignment.partition("=")
        if not equals:
            raise pytest.UsageError(f"{_OPTION} {assignment}: write MODEL_TYPE=DIRECTORY")
        if not (Path(directory) / "config.json").is_file():
            raise pytest.UsageError(f"{_OPTION} {assignment}: the directory has no config.json")
        directories[model_type] = Path(directory)
    return directories


@pytest.fixture(scope="session")
def vllm_image_tokens() -> ImageTokens:
    """A function that counts the tokens of each image of one prompt with vLLM's own processor.

    The adapter's source must be a checkpoint directory; weights are not needed. Use it to test
    `count_image_tokens` on more sizes than the conformance suite has.
    """
    pytest.importorskip("vllm")
    from vlm_run.testing.vllm_processor import question_about_images, vllm_counting

    def count(adapter: Adapter, sizes: list[tuple[int, int]]) -> list[int]:
        with vllm_counting(adapter) as render:
            return list(render(question_about_images(*sizes)).image_tokens)

    return count


@pytest.fixture(scope="session")
def vllm_video_tokens() -> VideoTokens:
    """A function that counts the tokens of videos, each in a prompt of its own, with vLLM's processor.

    The adapter's source must be a checkpoint directory; weights are not needed. Its limits must allow a
    video. Frames are half a second apart.
    """
    pytest.importorskip("vllm")
    from vlm_run.testing.vllm_processor import question_about_video, vllm_counting

    def count(adapter: Adapter, videos: list[tuple[int, int, int]]) -> list[int]:
        with vllm_counting(adapter) as render:
            return [sum(render(question_about_video(*video)).video_tokens) for video in videos]

    return count

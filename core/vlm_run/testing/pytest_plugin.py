"""What pytest loads by entry point: the option and the fixtures for plugins' tests.

Loaded in every run of pytest in the environment, so it imports nothing of vlm-run until it is used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter

ImageTokens: TypeAlias = "Callable[[Adapter, list[tuple[int, int]]], list[int]]"
"""From an adapter and (width, height) of each picture of a prompt to each picture's tokens."""

_OPTION = "--vlm-run-checkpoint"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("vlm-run").addoption(
        _OPTION,
        action="append",
        default=[],
        metavar="MODEL_TYPE=FOLDER",
        help="Checkpoint folder (weights are not needed) for vlm-run's conformance tests; repeatable.",
    )


@pytest.fixture(scope="session")
def vlm_run_checkpoints(pytestconfig: pytest.Config) -> dict[str, Path]:
    """Checkpoint folders by model type, as given on the command line.

    Define a fixture of this name in a plugin's conftest.py to bring folders with the tests.
    """
    folders = {}
    for assignment in pytestconfig.getoption(_OPTION):
        model_type, equals, folder = assignment.partition("=")
        if not equals:
            raise pytest.UsageError(f"{_OPTION} {assignment}: write MODEL_TYPE=FOLDER")
        folders[model_type] = Path(folder)
    return folders


@pytest.fixture(scope="session")
def vllm_image_tokens() -> Iterator[ImageTokens]:
    """A function that says how many tokens vLLM's own processor makes of each picture of one prompt.

    Its adapter's source must be a checkpoint folder; weights are not needed. It is what
    `count_image_tokens` must agree with, for tests over more sizes than the conformance suite has.
    """
    pytest.importorskip("vllm")
    from PIL import Image

    from vlm_run.engine.standalone_renderer import renderer_without_engine
    from vlm_run.prompts.conversation import Conversation

    made: dict[Any, Any] = {}
    with ExitStack() as stack:

        def count(adapter: Adapter, sizes: list[tuple[int, int]]) -> list[int]:
            key = adapter.spec.model_type, adapter.source, adapter.limits
            if key not in made:
                made[key] = stack.enter_context(renderer_without_engine(adapter))
            pictures = [Image.new("RGB", size) for size in sizes]
            question = Conversation.from_query("What is this?", images=pictures)
            return list(asyncio.run(made[key].render(question)).image_tokens)

        yield count

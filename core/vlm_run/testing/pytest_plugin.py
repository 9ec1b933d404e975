"""What pytest loads by entry point: the option and the fixture that bring checkpoint folders.

Loaded in every run of pytest in the environment, so it imports nothing of vlm-run.
"""

from __future__ import annotations

from pathlib import Path

import pytest

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

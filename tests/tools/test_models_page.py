"""docs/models.md says what the specs of the plugins in this repository say."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from vlm_run import Conversation, Registry

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "tools/models_page.py"))


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs/models.md").read_text(encoding="utf-8")


def test_the_page_is_up_to_date(tool: dict[str, Any], page: str) -> None:
    assert page == tool["page"](), "run python tools/models_page.py"


def test_every_model_type_has_a_row_a_prompt_and_a_cost(tool: dict[str, Any], page: str) -> None:
    prompts = re.findall(r"^(`.+`): \[.+\n\n```json\n(.+)\n```$", page, re.MULTILINE)
    images, videos = rows_below(page, "### Images"), rows_below(page, "### Videos")
    question = Conversation.from_query("Q", images=["image.png"])
    for plugin in tool["plugins"]():
        for spec in plugin.specs:
            name = f"`{spec.model_type}`"
            assert re.search(rf"^\| {re.escape(name)} \| (\[|with the plugin)", page, re.MULTILINE), name
            (prompt,) = [text for names, text in prompts if name in names.split(", ")]
            assert json.loads(prompt) == Registry.load(spec.model_type).render_prompt(question).text
            assert (name in videos) == (spec.video is not None)
            assert (name in images) == (spec.max_images != 0)
            if name in images:
                tokens = Registry.load(spec.model_type).count_image_tokens(1000, 400)
                assert f" | {tokens:,} | " in images[name]


def rows_below(page: str, heading: str) -> dict[str, str]:
    """The row of each model type in the tables below a heading."""
    tables = [re.split(r"\n##", rest)[0] for rest in page.split(heading)[1:]]
    rows = [line for table in tables for line in table.splitlines() if line.startswith("| `")]
    return {name: row for row in rows for name in row.split(" | ")[0].removeprefix("| ").split(", ")}


def test_every_row_of_a_table_has_all_its_cells(page: str) -> None:
    table: list[int] = []
    for line in page.splitlines():
        table = [*table, len(re.findall(r"(?<!\\)\|", line))] if line.startswith("|") else []
        assert len(set(table)) <= 1, line
        assert not line.startswith("|") or line.endswith("|"), line


def test_its_links_into_the_repository_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\((?!https:)([^)]+)\)", page)
    assert targets
    for target in targets:
        assert (ROOT / "docs" / target).exists(), target

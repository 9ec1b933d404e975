"""`vlm-run verify` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Run, run


def test_in_float32_every_token_of_the_demo_model_agrees(run_on_engine: Run) -> None:
    done = run_on_engine(
        "verify", "demo-llava", "--json", "--max_new_tokens", "24", "--engine", "dtype=float32"
    )
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["model_type"], said["dtype"]) == ("demo-llava", "float32")
    assert set(said["versions"]) == {"vllm", "transformers", "torch"}
    assert said["summary"]["prompts"] == said["summary"]["same_prompts"] == len(said["prompts"]) == 5
    assert said["summary"]["agreement"] == 1.0
    assert said["summary"]["first_divergence"] is None
    assert 0 < said["summary"]["largest_logprob_difference"] < 1e-3


def test_a_table_is_printed_for_requests_of_ones_own(run_on_engine: Run, tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text('{"query": "How many circles are there?"}\n\n{"query": "Who are you?"}\n')
    asked = ("--requests", str(file), "--min-agreement", "0.5", "--engine", "dtype=float32")
    done = run_on_engine("verify", "demo-llava", *asked)
    assert done.exit_code == 0, done.stderr
    header, first, second, *rest = done.stdout.splitlines()
    assert header.split("  ")[0] == "prompt"
    assert first.startswith("line 1 ")
    assert second.startswith("line 3 ")
    assert "of 2 answers diverge" in "\n".join(rest)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"query": "Q"}\n{"qury": "Q"}\n', "line 2 of"),
        ("nonsense\n", "line 1 of"),
        ("\n", "has no requests"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_file_is_told_by_its_line(content: str | None, says: str, tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    if content is not None:
        file.write_text(content)
    done = run("verify", "demo-llava", "--requests", str(file))
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert says in line

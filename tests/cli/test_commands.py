"""The commands as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from vlm_run_demo.showcase import draw

from .conftest import Run, run

VLM_RUN = str(Path(sys.executable).with_name("vlm-run"))


@pytest.fixture(scope="module")
def image_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("image") / "p.png"
    draw(7)[0].save(file)
    return file


def run_all(commands: list[list[str]], before: str = "") -> list[dict[str, Any]]:
    """Run commands one after the other in one new process.

    Args:
        commands: The words of each.
        before: Python source that runs before vlm-run is imported.

    Returns:
        For each its exit `code`, `output`, `errors`, and the `heavy` libraries imported so far.
    """
    program = f"""
import contextlib, io, json, sys
{before}
from vlm_run.cli import main
for words in {commands!r}:
    sys.argv, output, errors = ["vlm-run", *words], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code or 0
    heavy = sorted({{"torch", "transformers", "vllm", "numpy"}} & set(sys.modules))
    print(json.dumps(dict(code=code, output=output.getvalue(), errors=errors.getvalue(), heavy=heavy)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=600, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_listing_and_help_import_no_model_library() -> None:
    commands = [
        ["--help"],
        ["infer", "--help"],
        ["serve", "--help"],
        ["verify", "--help"],
        ["models"],
        ["plugins"],
        ["models", "--json"],
        ["--version"],
    ]
    for words, done in zip(commands, run_all(commands), strict=True):
        assert (done["code"], done["heavy"]) == (0, []), (words, done["errors"])
        assert done["output"], words


def test_without_vllm_a_command_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("questions.jsonl").write_text('{"query": "Who are you?"}\n')
    commands = [
        ["infer", "demo-llava", "Who are you?"],
        ["infer", "demo-llava", "--val_dataset", "questions.jsonl"],
        ["serve", "demo-llava", "--port", "0"],
        ["verify", "demo-llava"],
        ["bench", "demo-llava"],
        ["demo"],
    ]
    not_installed = "sys.modules |= dict.fromkeys(['torch', 'transformers', 'vllm'])"
    for words, done in zip(commands, run_all(commands, before=not_installed), strict=True):
        assert done["code"] == 2, words
        last = done["errors"].splitlines()[-1]
        assert last.startswith("error: vLLM cannot be imported"), words
        assert "Install vlm-run[vllm] on a GPU host, vlm-run[cpu] elsewhere." in last


def test_models_as_json_say_where_each_comes_from() -> None:
    models = {model["model_type"]: model for model in json.loads(run("models", "--json").stdout)}
    assert models["llava1_6-mistral-7b-instruct"]["hf_id"] == "llava-hf/llava-v1.6-mistral-7b-hf"
    assert models["qwen2-vl-7b-instruct"]["plugin"] == "vlm-run-qwen-vl"
    assert models["phi3-vision-128k-instruct"]["architecture"] == "Phi3VForCausalLM"
    assert models["demo-llava"]["family"] == "demo"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["infer", "lava1_6-mistral-7b-instruct", "hi"], "llava1_6-mistral-7b-instruct"),
        (["infer"], "no model is given"),
        (["infer", "demo-llava", "How many?", "circles?"], "Put the question in quotes"),
        (["infer", "demo-llava", "hi", "--infer_backend", "pt"], "vlm-run supports vllm only"),
        pytest.param(
            ["infer", "demo-llava", "hi", "--engine", "max_model_length=5"],
            "Did you mean 'max_model_len'?",
            marks=pytest.mark.engine,
        ),
        (["infer", "demo-llava", "hi", "--temperature", "-1"], "temperature"),
        (["infer", "demo-llava", "hi", "--model", "/nowhere"], "--model"),
        (["infer", "demo-llava", "--task", "ocr"], "'demo-llava' has no task 'ocr'. Its tasks: count."),
    ],
)
def test_an_error_is_one_line_with_a_next_step(words: list[str], says: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert says in lines[0]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_models_are_written_down_for_editors(tmp_path: Path) -> None:
    done = run("models", "--stub", str(tmp_path / "typings"))
    stub = tmp_path / "typings" / "vlm_run" / "model_type.pyi"
    assert done.stdout == f"Wrote {stub}\n"
    assert 'demo_llava: Literal["demo-llava"]' in stub.read_text()
    refused = run("models", "--stub", str(stub))
    assert refused.returncode == 2
    assert f"error: {stub} cannot be written to: " in refused.stderr


def test_infer_prints_every_answer_that_was_asked_for(run_on_engine: Run, image_file: Path) -> None:
    (turn, *_) = draw(7)[1]
    nearly_greedy = ("-n", "2", "--temperature", "0.01", "--seed", "1")
    done = run_on_engine("infer", "demo-llava", turn.question, "--image", str(image_file), *nearly_greedy)
    assert done.stdout == f"{turn.answer}\n{'-' * 50}\n{turn.answer}\n"


@pytest.mark.engine
def test_infer_prints_the_answer_and_nothing_else_and_leaves_no_process(
    image_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (turn, *_) = draw(7)[1]
    monkeypatch.setenv("STARTED_BY", mark := uuid.uuid4().hex)
    words = ["--model_type", "demo_llava", "--infer_backend", "vllm", "--image", str(image_file)]
    done = subprocess.run(
        [VLM_RUN, "infer", *words, turn.question], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{turn.answer}\n"
    _, alive = psutil.wait_procs([each for each in psutil.process_iter() if started_by(each, mark)], 120)
    assert alive == []


def started_by(process: psutil.Process, mark: str) -> bool:
    with suppress(psutil.Error):
        return process.environ().get("STARTED_BY") == mark
    return False


def test_infer_with_a_task_needs_no_question(run_on_engine: Run, image_file: Path) -> None:
    done = run_on_engine("infer", "demo-llava", "--task", "count", "--image", str(image_file))
    asked = run_on_engine("infer", "demo-llava", "How many shapes are there?", "--image", str(image_file))
    assert done.stdout == asked.stdout
    assert done.stdout.strip().isdigit()


def test_infer_as_json_carries_usage(run_on_engine: Run, image_file: Path) -> None:
    (turn, *_) = draw(7)[1]
    done = run_on_engine("infer", "demo-llava", turn.question, "--image", str(image_file), "--json")
    answer = json.loads(done.stdout)
    assert answer["response"] == turn.answer
    assert answer["finish_reason"] == "stop"
    assert answer["usage"]["prompt_tokens"] > answer["usage"]["image_tokens"] > 0


def test_demo_draws_a_picture_and_answers_about_it(run_on_engine: Run, tmp_path: Path) -> None:
    file = tmp_path / "drawn.png"
    done = run_on_engine("demo", "--picture", str(file))
    assert done.exit_code == 0, done.stderr
    assert Image.open(file).size == draw(7)[0].size
    assert done.stdout.count("(right)") >= 2
    assert done.stdout.count(" prompt tokens") == 3

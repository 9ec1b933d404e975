"""What can be said of `vlm-run serve` without a server; tests/server has the rest."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from .conftest import run


@pytest.mark.parametrize("command", ["serve", "deploy"])
@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "no model is given"),
        (["nonesuch"], "no installed plugin serves the model type 'nonesuch'"),
        (["demo-llava", "surplus"], "unexpected argument 'surplus'"),
        (["--model_type", "demo_llava", "--infer_backend", "pt"], "unknown --infer-backend 'pt'"),
    ],
)
def test_a_wrong_command_is_told_before_anything_starts(command: str, words: list[str], says: str) -> None:
    done = run(command, *words)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_that_is_taken_is_an_error_before_vllm_is_imported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        probe = (
            "import sys\n"
            "from vlm_run.cli import main\n"
            f"sys.argv = ['vlm-run', 'serve', 'demo-llava', '--port', '{port}']\n"
            "try:\n    main()\n"
            "finally:\n    print('vllm' in sys.modules)\n"
        )
        done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"cannot listen at 127.0.0.1:{port}: Address already in use" in done.stderr
    assert done.stdout == "False\n"


@pytest.mark.engine
def test_an_image_that_does_not_fit_is_told_before_the_engine_starts() -> None:
    flags = ("--disable-chunked-mm-input", "--max-num-batched-tokens", "256")
    done = run("serve", "demo-llava", "--max-model-len", "300", "--port", "0", "--", *flags)
    assert done.returncode == 2
    assert "note: an image of 128 × 128 pixels takes 336 tokens, but max_model_len is 300" in done.stderr
    assert "'demo-llava' cannot start: an image of 128 × 128 pixels takes 336 tokens" in done.stderr


@pytest.mark.engine
def test_flags_of_vllm_stand_behind_two_dashes_in_either_spelling() -> None:
    done = run("deploy", "--model_type", "demo-llava", "--max_model_len", "512", "--", "--nonesuch_flag")
    assert done.returncode == 2
    assert "unrecognized arguments: --nonesuch-flag" in done.stderr

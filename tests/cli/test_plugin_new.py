"""`vlm-run plugin new`, as typed."""

from __future__ import annotations

import sys
from pathlib import Path

import pexpect
import pytest

from .conftest import run

COMMAND = "from vlm_run.cli import main; main()"


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_without_a_terminal_it_asks_nothing(tmp_path: Path) -> None:
    done = run("plugin", "new", "acme-vl")
    assert done.returncode == 0, done.stderr
    package = (tmp_path / "vlm-run-acme-vl/vlm_run_acme_vl/__init__.py").read_text()
    assert 'model_type="acme-vl"' in package
    assert 'hf_id="acme-vl/acme-vl"' in package
    assert "pip install -e '.[test]'" in done.stdout


def test_flags_say_everything(tmp_path: Path) -> None:
    flags = [
        "--model_type=acme-7b",
        "--architecture=Acme",
        "--hf-id=acme/7b",
        "--placeholder=<|image_{index}|>",
    ]
    done = run("plugin", "new", "acme", *flags, "--directory", "my plugins/acme")
    assert done.returncode == 0, done.stderr
    package = (tmp_path / "my plugins/acme/vlm_run_acme/__init__.py").read_text()
    for fact in ('"acme-7b"', '"Acme"', '"acme/7b"', '"<|image_{index}|>"'):
        assert fact in package
    assert "cd 'my plugins/acme'" in done.stdout


def test_it_refuses_to_overwrite() -> None:
    assert run("plugin", "new", "acme").returncode == 0
    again = run("plugin", "new", "acme")
    assert again.returncode == 2
    assert again.stderr == (
        "error: vlm-run-acme exists and is not empty. Choose another directory with --directory.\n"
    )


def test_on_a_terminal_it_asks_for_what_is_left_out(tmp_path: Path) -> None:
    arguments = ["-c", COMMAND, "plugin", "new", "acme", "--architecture=Acme"]
    terminal = pexpect.spawn(sys.executable, arguments, encoding="utf-8", timeout=600)
    terminal.expect_exact("Model type [acme]: ")
    terminal.sendline("acme-7b")
    terminal.expect_exact("Hugging Face repository [acme/acme-7b]: ")
    terminal.sendline("")
    terminal.expect_exact("Image placeholder [<image>]: ")
    terminal.sendline("<img>")
    terminal.expect(pexpect.EOF)
    package = (tmp_path / "vlm-run-acme/vlm_run_acme/__init__.py").read_text()
    for fact in ('"acme-7b"', '"Acme"', '"acme/acme-7b"', '"<img>"'):
        assert fact in package


def test_on_a_terminal_it_asks_nothing_when_the_flags_say_everything(tmp_path: Path) -> None:
    flags = ["--model-type=acme", "--architecture=Acme", "--hf-id=acme/7b", "--placeholder=<image>"]
    arguments = ["-c", COMMAND, "plugin", "new", "acme", *flags]
    terminal = pexpect.spawn(sys.executable, arguments, encoding="utf-8", timeout=600)
    terminal.expect(pexpect.EOF)
    assert "?" not in terminal.before
    assert "]: " not in terminal.before
    assert (tmp_path / "vlm-run-acme/pyproject.toml").is_file()

"""`vlm-run app` without a server; tests/server/page has the rest."""

from __future__ import annotations

import socket

from vlm_run.cli.app_command import free_port

from .conftest import run


def test_the_page_gets_the_first_free_port_of_its_own_so_that_the_browser_finds_its_history() -> None:
    port = free_port("127.0.0.1")
    with socket.create_server(("127.0.0.1", port)):
        other = free_port("127.0.0.1")
    assert other != port
    assert free_port("127.0.0.1") == port


def test_it_takes_the_options_of_serve_and_none_that_would_contradict_it() -> None:
    done = run("app", "--help")
    assert done.returncode == 0
    for option in ("--port", "--api-key", "--max-model-len", "--no-browser"):
        assert option in done.stdout
    assert "--ui" not in done.stdout
    wrong = run("app", "nonesuch")
    assert wrong.returncode == 2
    assert "nonesuch" in wrong.stderr

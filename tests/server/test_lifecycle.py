"""How a server ends: on SIGTERM when its work is done, and with an error when its engine dies."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import psutil
import pytest
import torch
from safetensors.torch import save_file

from vlm_run_demo import CHECKPOINT

from .conftest import LONG_ANSWER_TOKENS, MODEL, Server, StartServer, rest_of, unique_image


def engine_core(server: Server) -> psutil.Process:
    children = psutil.Process(server.process.pid).children(recursive=True)
    (core,) = [child for child in children if "EngineCore" in child.name()]
    return core


def test_sigterm_lets_running_requests_finish_and_refuses_new_ones(start_server: StartServer) -> None:
    server = start_server("--host", "0.0.0.0", "--allow-private-media")
    assert "WARNING: listening at 0.0.0.0 without --api-key" in server.log
    children = psutil.Process(server.process.pid).children(recursive=True)
    with ExitStack() as open_streams:
        streams = [
            open_streams.enter_context(server.long_answer(images=[unique_image(number)[0]]))
            for number in range(8)
        ]
        answers = [response.iter_lines() for response in streams]
        assert all(next(lines).startswith("data: ") for lines in answers)
        core = engine_core(server)
        core.suspend()  # so that the answers cannot end before the server refuses
        server.process.send_signal(signal.SIGTERM)
        wait_until_refused(server)
        core.resume()
        for lines in answers:
            *_, last, usage = rest_of(lines)
            assert last["choices"][0]["finish_reason"] == "length"
            assert usage["usage"]["completion_tokens"] == LONG_ANSWER_TOKENS
    assert server.process.wait(60) == 0
    _, alive = psutil.wait_procs(children, timeout=120)
    assert alive == []


def wait_until_refused(server: Server) -> None:
    """Wait until the server takes no new connection."""
    while True:
        try:
            httpx.get(f"{server.url}/health", timeout=60)
        except httpx.TransportError:
            return


def test_a_dead_engine_shows_in_health_and_ends_the_server_with_an_error(start_server: StartServer) -> None:
    server = start_server()
    assert server.http.get("/health").status_code == 200
    children = psutil.Process(server.process.pid).children(recursive=True)
    engine_core(server).kill()
    until = time.monotonic() + 120
    while (health := server.http.get("/health").status_code) == 200 and time.monotonic() < until:
        time.sleep(0.05)
    assert health == 503
    refused = server.chat("Who are you?")
    assert refused.status_code >= 500
    assert refused.json()["error"]["message"]
    assert server.process.wait(60) == 1
    assert "the vLLM engine has died" in server.log
    _, alive = psutil.wait_procs(children, timeout=120)
    assert alive == []


def test_several_api_processes_share_an_address_and_end_together(start_server: StartServer) -> None:
    server = start_server("--port", free_port(), "--", "--api-server-count", "2")
    images = [unique_image(number) for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda image: server.ask(images=[image[0]]), images))
    assert answers == [count for _, count in images]
    for _ in range(5):
        assert "message 1, image 1" in server.refusal(images=["x"])
    # Whichever process answers, for all of them.
    for _ in range(5):
        server.http = httpx.Client(base_url=server.url, timeout=600)
        assert server.metric("vlm_run:images_total") == 12
        assert server.metric("vlm_run:image_tokens_total") == 12 * 268
        assert server.metric("vlm_run:render_seconds_count") == 12
        assert server.metric('vlm_run:rejected_requests_total{reason="media"') == 5
    children = psutil.Process(server.process.pid).children(recursive=True)
    assert server.stop() == 0
    _, alive = psutil.wait_procs(children, timeout=120)
    assert alive == []


@pytest.mark.engine
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_is_ended_while_it_starts_leaves_nothing_behind(how: signal.Signals) -> None:
    command = "from vlm_run.cli import main\nif __name__ == '__main__':\n    main()"
    with subprocess.Popen([sys.executable, "-c", command, "serve", MODEL, "--port", "0"]) as process:
        try:
            family = wait_for_engine_core(process)
            process.send_signal(how)
            assert process.wait(60) == (0 if how == signal.SIGTERM else -how)
        finally:
            process.kill()
    _, alive = psutil.wait_procs(family, timeout=600)
    assert alive == []


def wait_for_engine_core(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes of a server that starts, once vLLM's engine core is among them."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert process.poll() is None
        family = psutil.Process(process.pid).children(recursive=True)
        with suppress(psutil.NoSuchProcess):  # vLLM also starts processes that end soon
            if any("EngineCore" in child.name() for child in family):
                return family
        time.sleep(0.05)
    raise AssertionError("vLLM's engine core did not start")


def test_a_lora_adapter_is_served_at_a_socket_of_the_file_system(
    start_server: StartServer, tmp_path: Path
) -> None:
    socket_file, lora = tmp_path / "s", tmp_path / "lora"
    write_lora(lora)
    server = start_server("--lora", f"odd={lora}", "--", "--uds", str(socket_file))
    server.http = httpx.Client(
        transport=httpx.HTTPTransport(uds=str(socket_file)), base_url="http://localhost", timeout=600
    )
    assert [model["id"] for model in server.http.get("/v1/models").json()["data"]] == [MODEL, "odd"]
    encoded, count = unique_image(3)
    assert server.ask(images=[encoded]) == count
    odd = server.chat(images=[encoded], model="odd", max_tokens=8).json()
    assert odd["model"] == "odd"
    assert odd["choices"][0]["message"]["content"].strip() != count
    assert "message 1, image 1" in server.refusal(images=["x"], model="odd")
    ask_and_interrupt(server)
    assert not socket_file.exists()


def ask_and_interrupt(server: Server) -> None:
    """Ctrl-C in a terminal, which all processes hear, lets an answer finish."""
    main = psutil.Process(server.process.pid)
    with server.long_answer() as response:
        lines = response.iter_lines()
        next(lines)
        for process in [*main.children(recursive=True), main]:
            process.send_signal(signal.SIGINT)
        assert rest_of(lines)[-1]["usage"]["completion_tokens"] == LONG_ANSWER_TOKENS
    assert server.process.wait(60) == 0


def write_lora(directory: Path) -> None:
    """An adapter of random weights, large enough to change every answer."""
    text = json.loads((CHECKPOINT / "config.json").read_text())["text_config"]
    width = text["num_attention_heads"] * text["head_dim"]
    sides = {"lora_A": (8, width), "lora_B": (text["hidden_size"], 8)}
    generator = torch.Generator().manual_seed(0)
    weights = {
        f"base_model.model.language_model.model.layers.{layer}.self_attn.o_proj.{side}.weight": torch.randn(
            shape, generator=generator
        )
        for layer in range(text["num_hidden_layers"])
        for side, shape in sides.items()
    }
    directory.mkdir()
    save_file(weights, directory / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["o_proj"], "bias": "none"}
    (directory / "adapter_config.json").write_text(json.dumps(config))


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])

"""Whatever goes wrong while one row is read, rendered or sent to vLLM costs that row alone."""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from vlm_run import Engine, Sampling, swift
from vlm_run.adapter import Adapter
from vlm_run.batch import ResultFile, RowFormat, open_dataset, run_batch, shapes
from vlm_run.batch import row as row_module
from vlm_run.batch.run import unfinished_rows
from vlm_run.batch.sources.text_file import TextFile
from vlm_run.engine import generation, image_fetcher, image_loader, renderer
from vlm_run.engine.many_streams import stream_all
from vlm_run.errors import EngineError, RequestError
from vlm_run.media import MediaPolicy
from vlm_run.prompts import chat_template
from vlm_run.request import Request
from vlm_run_demo.showcase import draw

IMAGE, (TURN, *_) = draw(7)


fresh = itertools.count(1)


def image_file() -> bytes:
    """An image that has not been processed, which differs from the others by a pixel."""
    image, content = IMAGE.copy(), BytesIO()
    number = next(fresh)
    image.putpixel((0, 0), (number % 256, number // 256, 200))
    image.save(content, "PNG")
    return content.getvalue()


class Site(BaseHTTPRequestHandler):
    """Serves an image at any path."""

    def do_GET(self) -> None:
        content = image_file()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Be quiet."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def engine_of_private_urls(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(engine, "_policy", MediaPolicy(allow_private_addresses=True))
    return engine


def once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: Exception) -> None:
    """Let a function raise the first time that it is called."""
    function: Callable[..., Any] = getattr(owner, name)
    planted = [error]

    def planting(*args: Any, **kwargs: Any) -> Any:
        if planted:
            raise planted.pop()
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, planting)


STAGES: dict[str, Callable[[Engine], tuple[Any, str]]] = {
    "reading": lambda engine: (TextFile, "check"),
    "selecting columns": lambda engine: (row_module, "_select"),
    "recognizing the shape": lambda engine: (shapes, "read_reference"),
    "parsing": lambda engine: (Request, "parse"),
    "locating images": lambda engine: (row_module.os.path, "isfile"),
    "fetching": lambda engine: (image_fetcher, "fetch"),
    "decoding": lambda engine: (image_loader, "decode"),
    "the hook preprocess_image": lambda engine: (Adapter, "preprocess_image"),
    "the hook render_prompt": lambda engine: (Adapter, "render_prompt"),
    "rendering the template": lambda engine: (chat_template, "render"),
    "tokenizing": lambda engine: (renderer, "encode"),
    "vLLM's processor": lambda engine: (engine._llm.renderer, "render_cmpl_async"),
    "sampling parameters": lambda engine: (generation, "sampling_params"),
    "submission": lambda engine: (engine._llm, "generate"),
    "vLLM's input processor": lambda engine: (engine._llm, "add_request"),
    "sending to the engine": lambda engine: (engine._llm.engine_core, "add_request_async"),
}
ERRORS = [
    KeyError("planted"),
    OSError(36, "planted: File name too long"),
    UnicodeEncodeError("utf-8", "\ud83d", 0, 1, "planted: surrogates not allowed"),
    struct.error("planted"),
]


@pytest.mark.parametrize("stage", STAGES)
def test_an_exception_at_any_stage_costs_its_row_alone(
    engine_of_private_urls: Engine, url: str, tmp_path: Path, stage: str
) -> None:
    engine = engine_of_private_urls
    for number, error in enumerate(ERRORS):
        directory = tmp_path / str(number)
        directory.mkdir()
        for name in ("first", "second"):  # without a suffix, so that the file system is asked
            (directory / name).write_bytes(image_file())
        images = [f"{url}/0.png", "first", f"{url}/1.png", "second"]
        rows = [{"query": TURN.question, "images": [image], "response": TURN.answer} for image in images]
        (directory / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        dataset = open_dataset(str(directory / "d.jsonl"))
        with pytest.MonkeyPatch.context() as monkeypatch:
            once(monkeypatch, *STAGES[stage](engine), error)
            with ResultFile(directory / "out.jsonl", {}) as results:
                read = unfinished_rows(dataset, RowFormat(dataset.directory), results)
                run_batch(engine, read, results, Sampling(max_tokens=8))
                lines = list(results.lines())
        assert [line["row"] for line in lines] == [0, 1, 2, 3]
        (failed,) = [line for line in lines if "error" in line]
        assert "planted" in failed["error"]["message"]
        assert [line["response"] for line in lines if "error" not in line] == [TURN.answer] * 3


@pytest.mark.parametrize("stage", ["parsing", "the hook render_prompt", "tokenizing", "submission"])
def test_every_way_to_ask_answers_the_others(engine: Engine, stage: str) -> None:
    requests: list[Any] = [{"query": TURN.question, "images": [IMAGE]}] * 3

    def failures(ask: Callable[[], Any]) -> list[str]:
        with pytest.MonkeyPatch.context() as monkeypatch:
            once(monkeypatch, *STAGES[stage](engine), RuntimeError("planted"))
            errors = ask()
        failed = [error for error in errors if error is not None]
        assert len(errors) == 3
        return [str(error) for error in failed]

    def streamed() -> list[Any]:
        return [d.response.error for _, d in stream_all(engine, requests, {"max_tokens": 4}) if d.response]

    (inferred,) = failures(lambda: [r.error for r in engine.infer(requests, {"max_tokens": 4})])
    (completed,) = failures(lambda: [r.error for _, r in engine.as_completed(requests, {"max_tokens": 4})])
    (together,) = failures(streamed)
    assert all("planted" in error for error in (inferred, completed, together))

    def alone() -> list[Any]:
        with pytest.raises(RequestError, match="planted"):
            list(engine.stream(requests[0], {"max_tokens": 4}))
        return [None, None, RequestError("planted")]

    failures(alone)


def test_a_dead_engine_ends_the_call(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.engine.exceptions import EngineDeadError

    once(monkeypatch, engine._llm, "add_request", EngineDeadError())
    with pytest.raises(EngineError, match="has died"):
        engine.infer(["Who are you?", "Who are you?"])


SURROGATE = "\ud83d"
DEEP = json.loads('{"not":' * 300 + "1" + "}" * 300)
BAD: dict[str, Any] = {
    "query": {"query": f"Who {SURROGATE}are you?"},
    "system": {"query": "q", "system": SURROGATE},
    "history": {"query": "q", "history": [["a", SURROGATE]]},
    "a part": {"messages": [{"role": "user", "content": [{"type": "text", "text": SURROGATE}]}]},
    "a name": {"messages": [{"role": "user", "content": "q", "name": SURROGATE}]},
    "a path": {"query": "q", "images": [f"{SURROGATE}.png"]},
    "a URL": {"query": "q", "images": [f"http://{SURROGATE}/{SURROGATE}.png"]},
    "a long path": {"query": "q", "images": ["字" * 100]},
    "a longer path": {"query": "q", "images": ["x" * 300]},
    "stop": {"query": "q", "sampling": {"stop": SURROGATE}},
    "choice": {"query": "q", "sampling": {"choice": [SURROGATE]}},
    "a schema": {"query": "q", "sampling": {"json_schema": {"title": SURROGATE}}},
    "a seed": {"query": "q", "sampling": {"seed": 2**64}},
    "top_k": {"query": "q", "sampling": {"top_k": 2**70}},
    "n": {"query": "q", "sampling": {"n": 2**40, "temperature": 1}},
    "a deep schema": {
        "query": "q",
        "sampling": {"json_schema": json.loads('{"not":' * 300 + "1" + "}" * 300)},
    },
    "a wrong schema": {"query": "q", "sampling": {"json_schema": {"type": "nonsense"}}},
    "a schema of large numbers": {
        "query": "q",
        "sampling": {"json_schema": {"type": "integer", "maximum": 10**40}},
    },
    "a pattern": {"query": "q", "sampling": {"json_schema": {"type": "string", "pattern": "("}}},
    "a reference": {"query": "q", "sampling": {"json_schema": {"$ref": "#/nowhere"}}},
    "an unknown parameter": {"query": "q", "sampling": {SURROGATE: 1}},
    "not a request": 7,
    "nothing": None,
}
GOOD = {"query": "Who are you?"}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_leaves_a_good_one_its_answer(engine: Engine, case: str) -> None:
    bad, good = engine.infer([BAD[case], GOOD])
    assert good.response == "I am a small demo model."
    if case == "a schema of large numbers":  # which some versions of vLLM take
        return
    assert bad.error is not None
    assert str(bad.error)
    str(bad.error).encode()  # it can be printed


def test_ms_swifts_functions_answer_the_good_requests(engine: Engine) -> None:
    bad = [BAD["query"], BAD["stop"], 7]
    requests: Any = [*bad, GOOD]
    config = swift.GenerationConfig()
    with pytest.warns(RuntimeWarning, match="request 1 failed: message 1"):
        answers = swift.inference_vllm(engine, None, requests, generation_config=config, verbose=True)  # type: ignore[arg-type]
    assert [bool(answer.get("error")) for answer in answers] == [True, True, True, False]
    assert answers[-1]["response"] == "I am a small demo model."
    with pytest.warns(RuntimeWarning):
        *_, last = swift.inference_stream_vllm(engine, None, requests, generation_config=config)  # type: ignore[arg-type]
    assert last == answers

"""Chat completions in every form: OpenAI's and ms-swift's, streamed and whole, answered and refused."""

from __future__ import annotations

import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import AutoTokenizer

from vlm_run_demo import CHECKPOINT

from .conftest import MODEL, QUESTION, ImageServer, Server, base64_of, draw, png

ONE, TWO, THREE = (base64_of(draw(count)) for count in (1, 2, 3))
WHICH = "Which picture has more red circles?"


def data_uri(encoded: str) -> str:
    return f"data:image/png;base64,{encoded}"


def part(encoded: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_uri(encoded)}}


def input_image(url: str) -> dict[str, Any]:
    """An image in the form of `/v1/responses`; older versions of vLLM require `detail`."""
    return {"type": "input_image", "image_url": url, "detail": "auto"}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


FORMS: dict[str, dict[str, Any]] = {
    "images": {"content": QUESTION, "images": [TWO]},
    "one image, no list": {"content": QUESTION, "images": TWO},
    "a data URI": {"content": QUESTION, "images": [data_uri(TWO)]},
    "an image tag": {"content": f"<image>{QUESTION}", "images": [TWO]},
    "an img tag": {"content": f"<img>{data_uri(TWO)}</img>{QUESTION}"},
    "a part": {"content": [part(TWO), text(QUESTION)]},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_gives_the_same_answer(server: Server, form: dict[str, Any]) -> None:
    assert server.ask(**form) == "2"


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_streams(server: Server, form: dict[str, Any]) -> None:
    extra = {name: value for name, value in form.items() if name != "content"}
    stream = server.openai.chat.completions.create(
        model=MODEL, messages=[user(form["content"])], temperature=0, stream=True, extra_body=extra
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "2"


TWO_IMAGES: dict[str, dict[str, Any]] = {
    "images": {"content": WHICH, "images": [ONE, THREE]},
    "tags": {"content": f"<image><image>{WHICH}", "images": [ONE, THREE]},
    "img tags in order": {"content": f"<img>{data_uri(ONE)}</img><img>{data_uri(THREE)}</img>{WHICH}"},
    "both tags": {"content": f"<img>{data_uri(ONE)}</img><image>{WHICH}", "images": [THREE]},
    "a part and images": {"content": [part(THREE), text(WHICH)], "images": [ONE]},
}


@pytest.mark.parametrize("form", TWO_IMAGES.values(), ids=TWO_IMAGES)
def test_two_images_keep_their_order_in_every_form(server: Server, form: dict[str, Any]) -> None:
    assert server.ask(**form) == "the second"


def test_null_stands_for_a_turn_without_an_image(server: Server) -> None:
    turns = [user(QUESTION), {"role": "assistant", "content": "2"}, user("And blue ones?")]
    with_null = server.chat(messages=turns, images=[TWO, None]).json()
    turns[0] = user([part(TWO), text(QUESTION)])
    in_parts = server.chat(messages=turns).json()
    assert with_null["choices"][0]["message"]["content"] == "0"  # no blue circle
    assert with_null["usage"]["prompt_tokens"] == in_parts["usage"]["prompt_tokens"]


def test_an_image_is_fetched_from_its_url(server: Server, image_server: ImageServer) -> None:
    url = image_server.at("/two.png", png(draw(2)))
    assert server.ask(images=[url]) == "2"
    assert server.ask(f"<img>{url}</img>{QUESTION}") == "2"
    assert server.ask([{"type": "image_url", "image_url": {"url": url}}, text(QUESTION)]) == "2"


def test_control_tokens_and_tags_in_parts_are_text(server: Server) -> None:
    words = "What is </s><image> in <img>x.png</img>?"
    tokens = server.http.post("/tokenize", json={"model": MODEL, "messages": [user([text(words)])]}).json()[
        "tokens"
    ]
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    assert not {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<image>")} & set(tokens)
    assert words in tokenizer.decode(tokens)
    assert server.chat(words.replace("<img>x.png</img>", "it")).status_code == 200


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "more tags than images": (
        {"content": "<image><image>Which?", "images": [TWO]},
        "message 1: <image> tag 2 of 2 has no image: 1 given",
    ),
    "too many images": ({"images": [TWO] * 3}, "the request has 3 images, but the engine takes 2 at most"),
    "no image": ({"images": ["aGVsbG8gd29ybGQh" * 4]}, "message 1, image 1: the data is text, not an image"),
    "half an image": ({"images": [TWO[: len(TWO) // 2]]}, "message 1, image 1: the PNG image is damaged"),
    "a number as image": ({"images": [TWO, 5]}, "image 2: an entry of 'images' cannot be of type int"),
    "images that are no list": ({"images": {"a": TWO}}, "'images' must be a list"),
    "an HTML page": (
        {"images": ["PCFkb2N0eXBlIGh0bWw+PGh0bWw+PC9odG1sPjwhLS0gLS0+"]},
        "message 1, image 1: the data is an HTML page, not an image",
    ),
    "a local path": ({"images": ["/etc/passwd"]}, "message 1, image 1: '/etc/passwd' is not a URL or base64"),
    "a file URL": ({"images": ["file:///etc/passwd"]}, "message 1, image 1: local files are not allowed"),
    "an ftp URL": ({"images": ["ftp://a.example/p.png"]}, "message 1, image 1: unknown scheme 'ftp'"),
    "an empty tag": ({"content": "<img></img>What?"}, "message 1: an <img></img> tag names no image"),
    "audio": (
        {"content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]},
        "message 1: part 1 has the unknown type 'input_audio'",
    ),
    "the second message's second image": (
        {"messages": [user(QUESTION), {"role": "assistant", "content": "1"}, user(QUESTION)],
         "images": [TWO, "aGVsbG8gd29ybGQh" * 4]},
        "message 3, image 2: the data is text, not an image",
    ),
    "an answer at the end": (
        {"messages": [user(QUESTION), {"role": "assistant", "content": "1"}]},
        "message 2: the last message is of role 'assistant'",
    ),
    "no message": ({"messages": []}, "the conversation has no messages"),
    "a template in the request": ({"chat_template": "x"}, "chat template"),
}  # fmt: skip


@pytest.mark.parametrize(("form", "message"), REFUSED.values(), ids=REFUSED)
def test_an_unusable_request_is_refused_with_place_and_cause(
    server: Server, form: dict[str, Any], message: str
) -> None:
    assert message.lower() in server.refusal(**form).lower()
    assert message.lower() in server.refusal(**form, stream=True).lower()


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/responses", "/tokenize"])
@pytest.mark.parametrize("stream", [False, True])
def test_every_endpoint_with_messages_refuses_an_unusable_image(
    server: Server, path: str, stream: bool
) -> None:
    url = "data:image/png;base64,aGVsbG8gd29ybGQh" + "aGVsbG8gd29ybGQh" * 4
    asked: dict[str, Any] = {
        "model": MODEL,
        "messages": [user([{"type": "image_url", "image_url": {"url": url}}])],
    }
    if path.startswith("/v1/messages"):
        source = {"type": "base64", "media_type": "image/png", "data": url.partition(",")[2]}
        asked |= {"messages": [user([{"type": "image", "source": source}])], "max_tokens": 5}
    if path == "/v1/responses":
        asked = {"model": MODEL, "input": [user([input_image(url)])]}
    if stream and path != "/tokenize":
        asked["stream"] = True
    response = server.http.post(path, json=asked)
    assert response.status_code == 400
    assert "message 1, image 1: the data is text, not an image" in response.json()["error"]["message"]


def test_where_nothing_is_served_the_answer_is_an_error_in_openais_shape(server: Server) -> None:
    for response, code in (
        (server.http.get("/nonesuch"), 404),
        (server.http.get("/v1/chat/completions"), 405),
    ):
        assert response.status_code == code
        assert response.json()["error"]["code"] == code


def test_a_client_writes_no_log_line_of_its_own(server: Server) -> None:
    for image in ("x\n[other-id] forged", "http://x\r\n[other-id] forged.test/", "x\x1b[2J[other-id] forged"):
        server.refusal(images=[image])
    lines = [line for line in server.log.splitlines() if "forged" in line]
    assert len(lines) == 3
    assert all("refused: " in line and line.isprintable() for line in lines)


def test_an_overflow_says_what_each_image_takes(server: Server) -> None:
    refusal = server.refusal("shapes " * 1600, images=[ONE, TWO])
    assert refusal.startswith("the prompt has ")
    assert "(image 1: 268, image 2: 268, text: " in refusal
    assert "max_model_len, 2048" in refusal


def test_an_image_of_a_refused_request_is_answered_about_in_a_later_one(server: Server) -> None:
    unseen = draw(3)
    unseen.putpixel((5, 5), (1, 2, 3))
    server.refusal("shapes " * 1600, images=[base64_of(unseen), TWO])
    assert server.ask(images=[base64_of(unseen)]) == "3"


def test_an_unknown_model_is_not_found(server: Server) -> None:
    response = server.chat(model="nonesuch")
    assert response.status_code == 404
    assert "nonesuch" in response.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"{", b"", b"[]", b'"x"', b"\xff\xfe", b'{"messages": 5}', b"{}"])
def test_what_is_no_request_is_refused(server: Server, body: bytes) -> None:
    response = server.http.post(
        "/v1/chat/completions", content=body, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 400
    assert response.json()["error"]["message"]


def test_an_answer_is_continued(server: Server) -> None:
    begun = [user("Who are you?"), {"role": "assistant", "content": "I am a"}]
    assert server.ask(messages=begun, continue_final_message=True, add_generation_prompt=False) == (
        " small demo model."
    )


def test_an_answer_begins_without_a_blank_streamed_or_whole(server: Server) -> None:
    whole = server.chat(images=[TWO], logprobs=True).json()
    assert whole["choices"][0]["message"]["content"] == "2"
    stream = server.openai.chat.completions.create(
        model=MODEL,
        messages=[user([part(TWO), text(QUESTION)])],
        temperature=0,
        logprobs=True,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == "2"
    tokens = [each["token"] for each in whole["choices"][0]["logprobs"]["content"]]
    streamed = [
        each.token
        for chunk in chunks
        if chunk.choices and chunk.choices[0].logprobs
        for each in chunk.choices[0].logprobs.content
    ]
    assert streamed == tokens
    assert chunks[-1].usage.completion_tokens == whole["usage"]["completion_tokens"] == len(tokens)


def test_the_model_types_own_stop_and_the_requests_end_an_answer(server: Server) -> None:
    assert server.ask("What can you do?", stop=["questions"]) == "I answer "
    choice = server.chat("Who are you?").json()["choices"][0]
    assert choice["finish_reason"] == "stop"


def test_vllms_own_features_work_with_images(server: Server) -> None:
    chosen = server.ask(images=[TWO], structured_outputs={"choice": ["7", "8"]}, max_tokens=5)
    assert chosen in ("7", "8")
    logprobs = server.chat(images=[TWO], logprobs=True, top_logprobs=2).json()["choices"][0]["logprobs"]
    assert len(logprobs["content"][0]["top_logprobs"]) == 2
    schema = {"type": "object", "properties": {"red": {"enum": [7, 8]}}, "required": ["red"]}
    form = {"type": "json_schema", "json_schema": {"name": "shapes", "schema": schema}}
    assert json.loads(server.ask(images=[TWO], response_format=form, logit_bias=no_blanks()))["red"] in (7, 8)
    two = server.chat(images=[TWO], n=2, temperature=0.01).json()["choices"]
    assert [choice["message"]["content"] for choice in two] == ["2", "2"]


def no_blanks() -> dict[str, int]:
    """JSON allows blanks without end, and this model was never shown any JSON."""
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    return {str(token): -100 for token in range(len(tokenizer)) if tokenizer.decode([token]).isspace()}


def test_a_tool_is_called_and_its_result_answered_about(server: Server) -> None:
    shapes = {"type": "object", "properties": {"red": {"enum": [1, 2]}}, "required": ["red"]}
    tools = [{"type": "function", "function": {"name": "count", "strict": True, "parameters": shapes}}]
    choice = {"type": "function", "function": {"name": "count"}}
    answer = server.chat(
        images=[TWO], tools=tools, tool_choice=choice, max_tokens=60, logit_bias=no_blanks()
    ).json()
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "count"
    assert json.loads(call["function"]["arguments"])["red"] in (1, 2)
    turns = [
        user([part(TWO), text(QUESTION)]),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "two"},
    ]
    assert server.chat(messages=turns, tools=tools, tool_choice="none").status_code == 200


def test_other_endpoints_read_images_too(server: Server) -> None:
    asked = [{"type": "input_text", "text": QUESTION}, input_image(data_uri(TWO))]
    response = server.http.post(
        "/v1/responses", json={"model": MODEL, "input": [user(asked)], "temperature": 0}
    ).json()
    assert response["output"][0]["content"][0]["text"] == "2"
    source = {"type": "base64", "media_type": "image/png", "data": TWO}
    content = [{"type": "image", "source": source}, text(QUESTION)]
    body = {"model": MODEL, "max_tokens": 20, "messages": [user(content)]}
    assert server.http.post("/v1/messages", json=body).json()["content"][0]["text"] == "2"
    completion = {"model": MODEL, "prompt": "[INST] Who are you? [/INST]", "temperature": 0}
    answer = server.http.post("/v1/completions", json=completion).json()["choices"][0]["text"]
    assert answer.strip() == "I am a small demo model."


def test_a_prompt_with_an_image_is_tokenized_and_back(server: Server) -> None:
    body = {"model": MODEL, "messages": [user([part(TWO), text(QUESTION)])]}
    tokenized = server.http.post("/tokenize", json=body).json()
    assert tokenized["count"] == server.chat(**body).json()["usage"]["prompt_tokens"]
    prompt = server.http.post("/detokenize", json={"model": MODEL, "tokens": tokenized["tokens"]}).json()[
        "prompt"
    ]
    assert prompt.count("<image>") == 268
    assert prompt.startswith("<s>[INST] <image>")
    assert prompt.endswith(f"{QUESTION} [/INST]")


def test_a_text_may_be_cut_to_the_last_tokens_but_no_image(server: Server) -> None:
    cut = server.chat("shapes " * 3000 + "Who are you?", truncate_prompt_tokens=40, max_tokens=1).json()
    assert cut["usage"]["prompt_tokens"] == 40
    assert "cannot be used with images" in server.refusal(images=[TWO], truncate_prompt_tokens=40)


def test_models_are_listed_by_model_type(server: Server) -> None:
    assert server.openai.models.list().data[0].id == MODEL


def test_the_schema_has_the_added_field(server: Server) -> None:
    schema = server.http.get("/openapi.json").json()
    body = schema["paths"]["/v1/chat/completions"]["post"]["requestBody"]
    name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert "images" in schema["components"]["schemas"][name]["properties"]
    assert "/v1/adapter" in schema["paths"]


def test_the_adapter_is_described_with_a_worked_example(server: Server) -> None:
    info = server.http.get("/v1/adapter", params={"width": 160, "height": 128}).json()
    assert info["model_type"] == MODEL
    assert info["plugin"] == {"name": "vlm-run-demo", "version": "0.1.0"}
    assert info["placeholder"] == "<image>"
    assert info["limits"] == {
        "max_model_len": 2048,
        "max_images": 2,
        "max_image_bytes": 50 * 1024**2,
        "max_image_pixels": 100_000_000,
        "max_videos": 0,
        "max_video_bytes": 200 * 1024**2,
        "pixel_bounds": False,
    }
    assert info["box_coordinates"] is None
    assert info["takes_videos"] is False
    (image,) = info["explain"]["images"]
    usage = server.chat("What is in the picture?", images=[TWO]).json()["usage"]
    assert image["tokens"] == 268
    assert info["explain"]["total_tokens"] == usage["prompt_tokens"]
    assert server.http.get("/v1/adapter", params={"width": 0}).status_code == 400
    narrow = server.http.get("/v1/adapter", params={"width": 90_000, "height": 1})
    assert narrow.status_code == 400
    assert "too narrow" in narrow.json()["error"]["message"]


def test_metrics_count_images_fetches_and_refusals(server: Server, image_server: ImageServer) -> None:
    def metrics() -> dict[str, float]:
        lines = server.http.get("/metrics").text.splitlines()
        pairs = [line.rsplit(" ", 1) for line in lines if line.startswith("vlm_run:")]
        return {name: float(value) for name, value in pairs}

    before = metrics()
    fresh = draw(4)
    fresh.putpixel((9, 9), (9, 9, 9))
    url = image_server.at("/fresh.png", png(fresh))
    assert [server.ask(images=[url]) for _ in range(2)] == ["4", "4"]
    server.ask(images=[base64_of(fresh)])  # nothing to fetch
    server.refusal(images=[url, image_server.url("/missing.png")])
    after = metrics()
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown["vlm_run:images_total"] == 3
    assert grown["vlm_run:image_tokens_total"] == 3 * 268
    assert grown["vlm_run:image_fetch_seconds_count"] == 3
    assert grown["vlm_run:render_seconds_count"] == 3
    assert grown["vlm_run:image_cache_queries_total"] == 3
    assert grown["vlm_run:image_cache_hits_total"] == 2
    assert grown['vlm_run:rejected_requests_total{reason="media"}'] == 1


def test_a_request_keeps_its_id_in_answer_and_log(server: Server) -> None:
    headers = {"X-Request-Id": "case-42.a"}
    body = {"model": MODEL, "messages": [user("Who are you?")]}
    response = server.http.post("/v1/chat/completions", json=body, headers=headers)
    assert response.headers["x-request-id"] == "case-42.a"
    assert response.json()["id"] == "chatcmpl-case-42.a"
    server.http.post("/v1/chat/completions", json={**body, "images": ["x"]}, headers=headers)
    assert "[case-42.a] refused: message 1, image 1: " in server.log
    assert "[case-42.a] 127.0.0.1" in server.log
    forged = server.http.get("/v1/models", headers={"X-Request-Id": "a b]\tforged"})
    assert len(forged.headers["x-request-id"]) == 32


def test_requests_at_once_may_have_the_same_id(server: Server) -> None:
    body = {"model": MODEL, "messages": [user("What can you do?")]}

    def ask(_: int) -> int:
        headers = {"X-Request-Id": "twin"}
        return server.http.post("/v1/chat/completions", json=body, headers=headers).status_code

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [200] * 4


def test_the_start_up_line_has_a_curl_that_works(server: Server) -> None:
    command = next(line for line in server.log.splitlines() if line.startswith("  curl "))
    short = command.strip().replace("-d '{", """-d '{"max_tokens": 8, """)
    assert short != command.strip()
    done = subprocess.run(["bash", "-c", short + " -sS"], capture_output=True, timeout=600, check=True)
    assert httpx.Response(200, content=done.stdout).json()["choices"][0]["message"]["content"]


def test_bounds_on_images_are_refused_where_images_have_no_area(server: Server) -> None:
    asked = [part(TWO), text(QUESTION)]
    refusal = server.refusal(asked, max_pixels=784)
    assert refusal.startswith("message 1, image 1: this model does not support min_pixels and max_pixels.")
    asked[0] = {**part(TWO), "min_pixels": 0}
    assert "'min_pixels' of part 1 is not an area in pixels: 0" in server.refusal(asked)
    assert "'max_pixels' of the request is not an area in pixels: -1" in server.refusal(
        images=[TWO], max_pixels=-1
    )


def test_the_dashboard_names_metrics_that_the_server_exports(server: Server) -> None:
    dashboard = Path(__file__).parents[2] / "examples/serving/grafana.json"
    named = set(re.findall(r"\b(?:vllm|vlm_run):[a-z_]+", dashboard.read_text()))
    server.refusal(images=["sheep"])  # a counter by reason exists from the first refusal on
    exported = set(re.findall(r"^(?:vllm|vlm_run):[a-z_]+", server.http.get("/metrics").text, re.MULTILINE))
    assert len(named) > 10
    assert named - exported == set()

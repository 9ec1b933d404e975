"""Requests cannot make the server fetch private addresses, read files or decode bombs.

The server runs in a network of its own: name resolution and routes are set below.
"""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image

from ..media.pdfs import pdf_of, tiff_of_colours
from ..media.videos import write_video
from .conftest import QUESTION, ImageServer, Server, StartServer, base64_of, draw, png

KEY = "correct horse"
NETWORK = """
import resource, socket, time, uvloop

NAMES = {
    "public.test": ["93.184.215.14"],
    "inside.test": ["10.1.2.3"],
    "metadata.test": ["169.254.169.254"],
    "here.test": ["127.0.0.1"],
    "rebind.test": ["93.184.215.15", "127.0.0.1"],
}
ROUTES = {"93.184.215.14": "127.0.0.1"}

look_up = socket.getaddrinfo

def getaddrinfo(host, port, *rest, **options):
    if str(host).endswith(".slow.test"):
        time.sleep(60)
    if host not in NAMES:
        return look_up(host, port, *rest, **options)
    answers = NAMES[host]
    address = answers.pop(0) if len(answers) > 1 else answers[0]
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

class Loop(uvloop.Loop):
    async def create_connection(self, protocol, host=None, port=None, **options):
        return await super().create_connection(protocol, ROUTES.get(host, host), port, **options)

socket.getaddrinfo = getaddrinfo
uvloop.new_event_loop = Loop
if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory whose files requests may name; beside it lies a secret."""
    directory = tmp_path_factory.mktemp("media") / "allowed"
    directory.mkdir()
    (directory / "two.png").write_bytes(png(draw(2)))
    (directory.parent / "secret.png").write_bytes(png(draw(3)))
    (directory / "link.png").symlink_to(directory.parent / "secret.png")
    return directory


@pytest.fixture(scope="module")
def server(start_server: StartServer, directory: Path) -> Server:
    """A server of a model that takes videos, with the default protections and one renderer process."""
    server = start_server(
        *("--api-key", KEY, "--api-key", "another", "--renderers", "1", "--shutdown-timeout", "1"),
        *("--allowed-local-media-path", str(directory), "--media-timeout", "6"),
        *("--max-image-mib", "1", "--max-image-pixels", "1000000", "--max-request-mib", "4"),
        *("--max-videos", "1"),
        prelude=NETWORK,
        model="demo-qwen",
    )
    server.http.headers["Authorization"] = f"Bearer {KEY}"
    return server


PRIVATE = [
    "http://127.0.0.1:{port}/p.png",
    "http://localhost:{port}/p.png",
    "http://[::1]:{port}/p.png",
    "http://[::ffff:127.0.0.1]:{port}/p.png",
    "http://[64:ff9b::7f00:1]:{port}/p.png",
    "http://0.0.0.0:{port}/p.png",
    "http://2130706433:{port}/p.png",
    "http://0x7f.1:{port}/p.png",
    "http://user@127.0.0.1:{port}/p.png",
    "http://10.0.0.1/p.png",
    "http://172.16.0.1/p.png",
    "http://192.168.1.1/p.png",
    "http://100.64.0.1/p.png",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://[fe80::1]/p.png",
    "http://224.0.0.1/p.png",
    "http://255.255.255.255/p.png",
    "http://here.test:{port}/p.png",
    "http://inside.test/p.png",
    "http://metadata.test/latest/meta-data/",
]


@pytest.mark.parametrize("url", PRIVATE)
def test_no_private_address_is_asked(server: Server, image_server: ImageServer, url: str) -> None:
    image_server.at("/p.png", png(draw(2)))
    refusal = server.refusal(images=[url.format(port=image_server.port)])
    assert refusal.startswith("message 1, image 1: ")
    assert "private or special address" in refusal
    assert image_server.asked == []


def test_a_public_address_is_asked(server: Server, image_server: ImageServer) -> None:
    image_server.at("/two.png", png(draw(2)))
    assert server.ask(images=[image_server.url("/two.png", "public.test")]) == "2"


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:{port}/p.png", "http://metadata.test/", "file:///etc/passwd"]
)
def test_no_redirect_leads_inside(server: Server, image_server: ImageServer, target: str) -> None:
    image_server.at("/p.png", png(draw(2)))
    image_server.redirect("/first", "/second")
    image_server.redirect("/second", target.format(port=image_server.port))
    refusal = server.refusal(images=[image_server.url("/first", "public.test")])
    assert "private or special address" in refusal or "is not an http or https URL" in refusal
    assert [path for path, _ in image_server.asked] == ["/first", "/second"]


def test_redirects_have_an_end(server: Server, image_server: ImageServer) -> None:
    image_server.redirect("/round", "/round")
    assert "redirects more than 5 times" in server.refusal(images=[image_server.url("/round", "public.test")])


def test_a_name_that_turns_private_after_the_check_is_not_asked(
    server: Server, image_server: ImageServer
) -> None:
    image_server.at("/p.png", png(draw(2)))
    server.refusal(images=[image_server.url("/p.png", "rebind.test")])
    assert image_server.asked == []


def test_a_slow_host_is_given_up_and_holds_up_nobody(server: Server, image_server: ImageServer) -> None:
    gone = threading.Event()

    def hang(handler: BaseHTTPRequestHandler) -> None:
        gone.wait(60)

    # Each its own, since those who wait for one URL share what is fetched.
    paths = [f"/slow/{number}" for number in range(40)]
    image_server.answers |= dict.fromkeys(paths, hang)
    server.ask(images=[base64_of(draw(2))])
    with ThreadPoolExecutor(40) as pool:
        refusals = [
            pool.submit(server.refusal, images=[image_server.url(path, "public.test")]) for path in paths
        ]
        until = time.monotonic() + 60
        while len(image_server.asked) < 40 and time.monotonic() < until:
            time.sleep(0.01)
        assert server.ask(images=[base64_of(draw(1))]) == "1"
        assert not any(refusal.done() for refusal in refusals)
        assert all("took longer than 6 s" in refusal.result() for refusal in refusals)
    gone.set()


def test_a_slow_name_server_holds_up_nobody(server: Server, image_server: ImageServer) -> None:
    image_server.at("/two.png", png(draw(2)))
    with ThreadPoolExecutor(20) as pool:
        refusals = [
            pool.submit(server.refusal, images=[f"http://{number}.slow.test/p.png"]) for number in range(20)
        ]
        time.sleep(0.5)
        assert server.ask(images=[image_server.url("/two.png", "public.test")]) == "2"
        assert not any(refusal.done() for refusal in refusals)
        assert all("took longer than 6 s" in refusal.result() for refusal in refusals)


def test_as_many_clients_may_connect_as_the_machine_allows(server: Server) -> None:
    soft, hard = psutil.Process(server.process.pid).rlimit(psutil.RLIMIT_NOFILE)
    assert soft == min(65535, hard) > 512


def bomb() -> bytes:
    return png(Image.new("L", (4000, 4000)))


def svg() -> bytes:
    return b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'


def large() -> bytes:
    return b"\x89PNG" + b"\0" * (1024 * 1024)


def scan() -> bytes:
    return pdf_of(draw(2))


def photo() -> bytes:
    return b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)


CONTENTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a bomb": (bomb, "the image has 4000 × 4000 pixels, more than the 1,000,000 allowed"),
    "an SVG": (svg, "SVG images are not supported"),
    "a PDF": (scan, "the data is a PDF, and documents are not accepted here. A server accepts it with"),
    "a HEIC": (photo, "HEIC images are not accepted here"),
    "too many bytes": (large, "is larger than 1 MiB"),
}


@pytest.mark.parametrize(("content", "message"), CONTENTS.values(), ids=CONTENTS)
def test_what_is_fetched_is_limited(
    server: Server, image_server: ImageServer, content: Callable[[], bytes], message: str
) -> None:
    image_server.at("/p", content())
    assert message in server.refusal(images=[image_server.url("/p", "public.test")])


def test_pages_may_not_be_named(server: Server, image_server: ImageServer) -> None:
    url = image_server.at("/scan.tif", tiff_of_colours("red", "lime")).replace("127.0.0.1", "public.test")
    assert server.chat(images=[url]).status_code == 200
    assert "pages of documents are not accepted here" in server.refusal(images=[f"{url}#page=2"])


def test_the_first_frame_of_an_animation_is_used(server: Server, image_server: ImageServer) -> None:
    frames = io.BytesIO()
    draw(2).save(frames, "GIF", save_all=True, append_images=[draw(3)])
    assert (
        server.ask(images=[image_server.at("/a.gif", frames.getvalue()).replace("127.0.0.1", "public.test")])
        == "2"
    )


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Four seconds of 96 × 64 pixels, two frames per second."""
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=8, fps=2).read_bytes()


def prompt_tokens(server: Server, content: Any, **fields: Any) -> int:
    answer = server.chat(content, max_tokens=1, **fields)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["usage"]["prompt_tokens"])


def jpegs(count: int) -> str:
    """A video as vLLM's sequence of JPEGs."""
    buffer = io.BytesIO()
    Image.new("RGB", (96, 64), "red").save(buffer, "JPEG")
    return "data:video/jpeg;base64," + ",".join([base64.b64encode(buffer.getvalue()).decode()] * count)


def test_a_video_costs_what_its_frames_cost_in_every_form(
    server: Server, image_server: ImageServer, clip: bytes
) -> None:
    url = image_server.at("/clip.mp4", clip).replace("127.0.0.1", "public.test")
    part = {"type": "video_url", "video_url": {"url": url}}
    text = {"type": "text", "text": "What happens?"}
    alone = prompt_tokens(server, "What happens?") + 2  # the tokens before and after a video
    for content, videos in ([part, text], None), (f"<video>{url}</video>What happens?", None):
        assert prompt_tokens(server, content, videos=videos) == alone + 4 * 6 * 4
    encoded = base64.b64encode(clip).decode()
    for source in url, encoded, f"data:video/mp4;base64,{encoded}":
        assert prompt_tokens(server, "What happens?", videos=[source]) == alone + 4 * 6 * 4
    frames = [base64_of(Image.new("RGB", (96, 64), (grey, 0, 0))) for grey in range(8)]
    for frames_source in [frames], [{"frames": frames, "times": list(range(8))}], [jpegs(8)]:
        assert prompt_tokens(server, "What happens?", videos=frames_source) == alone + 4 * 6 * 4
    sequence = {"type": "video_url", "video_url": {"url": jpegs(5)}, "times": [0, 1, 2, 3, 4]}
    assert prompt_tokens(server, [sequence, text]) == alone + 3 * 6 * 4  # the last frame stands for a sixth
    assert prompt_tokens(server, [{**part, "num_frames": 2}, text]) == alone + 6 * 4
    assert prompt_tokens(server, [{**part, "start": 2, "end": 3.5}, text]) == alone + 2 * 6 * 4


@pytest.mark.parametrize("url", [PRIVATE[0], *PRIVATE[-3:]])
def test_no_private_address_is_asked_for_a_video(server: Server, image_server: ImageServer, url: str) -> None:
    image_server.at("/p.png", b"")
    refusal = server.refusal("What happens?", videos=[url.format(port=image_server.port)])
    assert refusal.startswith("message 1, video 1: ")
    assert "private or special address" in refusal
    assert image_server.asked == []


def test_a_broken_video_fails_alone(server: Server, clip: bytes) -> None:
    broken = clip[: clip.index(b"moov")]
    contents = [clip, broken, clip, b"#EXTM3U\nfile:///etc/passwd\n" * 9]
    sources = [base64.b64encode(content).decode() for content in contents]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda source: server.chat("Why?", videos=[source], max_tokens=1), sources))
    assert [answer.status_code for answer in answers] == [200, 400, 200, 400]
    damaged, playlist = (answers[index].json()["error"]["message"] for index in (1, 3))
    assert damaged.startswith("message 1, video 1: the video (MP4) is damaged: ")
    assert playlist.startswith("message 1, video 1: the data is not a video in a known container")


def test_metrics_count_videos_and_those_that_are_not_decoded_again(server: Server, tmp_path: Path) -> None:
    names = [f"vlm_run:{name}_total" for name in ("videos", "video_tokens", "video_cache_hits")]
    before = [server.metric(name) for name in names]
    clip = base64.b64encode(write_video(tmp_path / "new.mp4", frames=4, fps=2, first=9).read_bytes()).decode()
    for _ in range(2):
        prompt_tokens(server, "What happens?", videos=[clip])
    after = [server.metric(name) for name in names]
    assert [new - old for new, old in zip(after, before, strict=True)] == [2, 2 * 2 * 6 * 4, 1]


def test_more_videos_than_the_engine_takes_are_refused(server: Server, clip: bytes) -> None:
    sources = [base64.b64encode(clip).decode()] * 2
    assert "the request has 2 videos, but the engine takes 1 at most" in server.refusal(
        "Why?", videos=sources
    )


def test_a_file_below_the_allowed_folder_may_be_named(server: Server, directory: Path) -> None:
    assert server.ask(images=[str(directory / "two.png")]) == "2"
    assert server.ask(f"<img>{(directory / 'two.png').as_uri()}</img>{QUESTION}") == "2"


@pytest.mark.parametrize("name", ["../secret.png", "link.png", "x/../../secret.png", "../nonesuch.png"])
def test_no_other_file_may_be_named_nor_its_existence_be_found_out(
    server: Server, directory: Path, name: str
) -> None:
    assert "is not a file below the allowed directory" in server.refusal(images=[f"{directory}/{name}"])
    assert "is not below the allowed directory" in server.refusal(images=[f"file://{directory}/{name}"])


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/adapter", "/tokenize", "/docs", "/nonesuch", "/v1/../health/x"]
)
@pytest.mark.parametrize("key", [None, "", "Bearer wrong", f"Basic {KEY}", "Bearer", f"Bearer {KEY}x"])
def test_without_a_key_nothing_is_told(server: Server, path: str, key: str | None) -> None:
    headers = {} if key is None else {"Authorization": key}
    response = server.http.build_request("GET", path, headers=headers)
    if key is None:
        del response.headers["Authorization"]
    answer = server.http.send(response)
    assert answer.status_code == 401
    assert "API key" in answer.json()["error"]["message"]


def test_each_key_opens_and_watching_needs_none(server: Server) -> None:
    assert server.http.get("/v1/models", headers={"Authorization": "Bearer another"}).status_code == 200
    before = refused(server, "unauthorized")
    assert server.http.get("/v1/models", headers={"Authorization": "Bearer x"}).status_code == 401
    assert refused(server, "unauthorized") == before + 1
    for path in ("/health", "/metrics", "/version"):
        assert server.http.get(path, headers={"Authorization": ""}).status_code == 200


def test_a_body_above_the_limit_is_refused(server: Server) -> None:
    large = "a" * (5 * 1024 * 1024)
    answer = server.chat(large)
    assert answer.status_code == 413
    assert "larger than 4 MiB" in answer.json()["error"]["message"]
    before = refused(server, "body_too_large")
    chunks = (b"a" * 65536 for _ in range(80))
    answer = server.http.post(
        "/v1/chat/completions", content=chunks, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 413
    assert refused(server, "body_too_large") == before + 1


def refused(server: Server, reason: str) -> float:
    """How many requests were refused for a reason."""
    return server.metric(f'vlm_run:rejected_requests_total{{reason="{reason}"}}')


def test_a_stop_is_bounded(server: Server) -> None:
    """The last test of this server: what still runs after the time it was given is dropped."""
    body = {
        "model": server.model, "stream": True, "max_tokens": 1900, "ignore_eos": True,
        "messages": [{"role": "user", "content": "What can you do?"}] ,
    }  # fmt: skip
    chunks = 0
    with (
        suppress(httpx.RemoteProtocolError),
        server.http.stream("POST", "/v1/chat/completions", json=body) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        assert server.stop() == 0
        for line in lines:
            chunks += line.startswith("data: ")
    assert chunks < 1900

"""Fetching from a real server: what is refused, before it is asked and while it answers."""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
import trustme

from vlm_run import MediaPolicy
from vlm_run.errors import MediaError
from vlm_run.media import fetch as fetching
from vlm_run.media import resolve
from vlm_run.media.fetch import fetch

from .conftest import Server as ImageServer

LOCAL = MediaPolicy(allow_private_addresses=True)


NOWHERE = re.compile("cannot be fetched: |is not an http or https URL")


def _fetch(url: str, policy: MediaPolicy = LOCAL) -> bytes:
    return asyncio.run(fetch(url, policy))


def _refused(url: str, policy: MediaPolicy = LOCAL) -> str:
    with pytest.raises(MediaError) as caught:
        _fetch(url, policy)
    return str(caught.value)


def _resolve_to_here(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let the name server answer with this machine's address when asked for one of `names`."""
    look_up = socket.getaddrinfo

    def resolve(host: Any, *rest: Any, **options: Any) -> Any:
        return look_up("127.0.0.1" if host in names else host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


# --- What works


def test_the_content_comes_as_it_is(server: Any) -> None:
    assert _fetch(server.at("/a.png", b"\x89PNG")) == b"\x89PNG"


def test_a_server_that_does_not_say_the_length(server: Any) -> None:
    assert _fetch(server.at("/a.png", b"\x89PNG", length=False)) == b"\x89PNG"


def test_content_packed_for_the_way(server: Any) -> None:
    url = server.at("/a.png", gzip.compress(b"\x89PNG"), **{"Content-Encoding": "gzip"})
    assert _fetch(url) == b"\x89PNG"


def test_the_server_is_asked_by_its_name(server: Any) -> None:
    server.at("/a.png?size=1&x=%20", b"a")
    assert _fetch(server.url("/a.png?size=1&x=%20#part", "localhost")) == b"a"
    assert server.asked == [("/a.png?size=1&x=%20", f"localhost:{server.port}")]


def test_a_name_and_a_password_in_the_url_are_sent(server: Any) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        assert handler.headers["Authorization"] == "Basic bWU6c2VjcmV0"
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"a")

    server.answers["/a.png"] = answer
    assert _fetch(server.url("/a.png", "me:secret@127.0.0.1")) == b"a"


# --- Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(status: int, server: Any) -> None:
    server.at("/deep/b.png", b"b")
    server.redirect("/deep/a.png", "b.png", status)
    assert _fetch(server.redirect("/", "/deep/a.png", status)) == b"b"


def test_redirects_are_followed_up_to_the_limit(server: Any) -> None:
    server.at("/0", b"end")
    for number in range(1, 5):
        server.redirect(f"/{number}", f"/{number - 1}")
    policy = MediaPolicy(allow_private_addresses=True, max_redirects=3)
    assert _fetch(server.url("/3"), policy) == b"end"
    assert _refused(server.url("/4"), policy).endswith("redirects more than 3 times")


def test_a_circle_of_redirects_ends(server: Any) -> None:
    assert "redirects more than 5 times" in _refused(server.redirect("/a.png", "/a.png"))
    assert len(server.asked) == 6


def test_a_redirect_to_a_private_address_is_refused(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Policy(MediaPolicy):
        def allows_address(self, host: str, address: str) -> bool:
            return host == "public.example" or super().allows_address(host, address)

    _resolve_to_here(monkeypatch, "public.example")
    server.at("/secret", b"secret")
    for target in (
        server.url("/secret"),
        server.url("/secret", "localhost"),
        f"//127.0.0.1:{server.port}/secret",
    ):
        server.redirect("/a.png", target)
        message = _refused(server.url("/a.png", "public.example"), Policy())
        assert "has the private or special address" in message
    assert {path for path, _ in server.asked} == {"/a.png"}


def test_a_redirect_to_a_host_that_is_not_named_is_refused(server: Any) -> None:
    url = server.redirect("/a.png", server.url("/secret"))
    server.at("/secret", b"secret")
    message = _refused(url.replace("127.0.0.1", "localhost"), MediaPolicy(allowed_domains=("localhost",)))
    assert message == "127.0.0.1 is not an allowed domain"
    assert [path for path, _ in server.asked] == ["/a.png"]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a.png"])
def test_a_redirect_to_another_scheme_is_refused(target: str, server: Any) -> None:
    assert _refused(server.redirect("/a.png", target)) == f"{target} is not an http or https URL"


@pytest.mark.parametrize("target", ["http://[", "http://a:b/", "http://:80/", "data:,a", "javascript:0"])
def test_a_redirect_to_nowhere_is_refused(target: str, server: Any) -> None:
    assert NOWHERE.search(_refused(server.redirect("/a.png", target)))
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [300, 304, 302])
def test_a_redirect_without_a_target_is_refused(status: int, server: Any) -> None:
    assert f"answers {status} " in _refused(server.at("/a.png", status=status))


# --- Addresses


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "127.1", "2130706433"])
def test_this_machine_is_refused_and_never_asked(host: str, server: Any) -> None:
    server.at("/a.png", b"secret")
    message = _refused(server.url("/a.png", host), MediaPolicy())
    assert "has the private or special address" in message or "cannot be fetched" in message
    assert server.asked == []


def test_the_refusal_says_how_to_allow_it(server: Any) -> None:
    message = _refused(server.url("/a.png", "localhost"), MediaPolicy())
    assert message.startswith("localhost has the private or special address ")
    assert "--allow-private-media (in Python: MediaPolicy(allow_private_addresses=True))" in message


def test_the_address_that_was_checked_is_the_one_that_is_asked(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is public when it is looked up first and this machine ever after."""
    answers = iter(["203.0.113.7"])
    look_up = socket.getaddrinfo

    def rebinding(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        if host != "rebinding.example":
            return look_up(host, port, *rest, **options)
        address = next(answers, "127.0.0.1")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(MediaPolicy, "allows_address", lambda self, host, address: address != "127.0.0.1")
    server.at("/a.png", b"secret")
    policy = MediaPolicy(timeout_s=0.3)
    _refused(server.url("/a.png", "rebinding.example"), policy)
    assert server.asked == []


# --- Hosts


def test_a_named_host_may_be_private(server: Any) -> None:
    server.at("/a.png", b"a")
    policy = MediaPolicy(allowed_domains=("LocalHost",))
    assert _fetch(server.url("/a.png", "localhost"), policy) == b"a"


def test_a_host_that_is_not_named_is_never_asked(server: Any) -> None:
    policy = MediaPolicy(allowed_domains=("images.example",))
    assert _refused(server.url("/a.png"), policy) == "127.0.0.1 is not an allowed domain"
    assert server.asked == []


# --- Size


def test_a_length_above_the_limit_is_refused_before_the_content(server: Any) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(10**15))
        handler.end_headers()

    server.answers["/a.png"] = answer
    policy = MediaPolicy(allow_private_addresses=True, max_bytes=2**20)
    assert _refused(server.url("/a.png"), policy).endswith("/a.png is larger than 1 MiB")


@pytest.mark.parametrize("length", [True, False], ids=["length said", "length not said"])
def test_the_limit_on_bytes_is_exact(length: bool, server: Any) -> None:
    policy = MediaPolicy(allow_private_addresses=True, max_bytes=1000)
    assert len(_fetch(server.at("/fits", b"a" * 1000, length=length), policy)) == 1000
    assert "is larger than" in _refused(server.at("/large", b"a" * 1001, length=length), policy)


def test_an_endless_answer_is_cut_at_the_limit(server: Any) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"a" * 65536)
        except OSError:
            pass

    server.answers["/a.png"] = answer
    policy = MediaPolicy(allow_private_addresses=True, max_bytes=2**20)
    assert "is larger than 1 MiB" in _refused(server.url("/a.png"), policy)


def test_content_that_unpacks_above_the_limit_is_refused(server: Any) -> None:
    packed = gzip.compress(b"\0" * 2**22)
    assert len(packed) < 10_000
    url = server.at("/a.png", packed, **{"Content-Encoding": "gzip"})
    policy = MediaPolicy(allow_private_addresses=True, max_bytes=2**20)
    assert "is larger than 1 MiB" in _refused(url, policy)


@pytest.mark.parametrize("packers", ["gzip, gzip", "gzip,deflate", "br", "zstd", "GZIP, identity, Br"])
def test_content_packed_twice_or_too_well_is_not_unpacked(packers: str, server: Any) -> None:
    """Of two layers of gzip, 64 KiB would make 64 GiB before any limit is looked at."""
    packed = gzip.compress(gzip.compress(b"\0" * 2**22))
    url = server.at("/a.png", packed, **{"Content-Encoding": packers})
    assert " has the content encoding '" in _refused(url)


@pytest.mark.parametrize("encoding", ["aws-chunked", "utf-8", "identity"])
def test_an_encoding_that_packs_nothing_does_no_harm(encoding: str, server: Any) -> None:
    assert _fetch(server.at("/a.png", b"\x89PNG", **{"Content-Encoding": encoding})) == b"\x89PNG"


# --- Time


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:10.0.0.1]"])
def test_the_refusal_of_an_address_takes_no_time(host: str) -> None:
    message = _refused(f"http://{host}/a.png", MediaPolicy(timeout_s=1e-9))
    assert "has the private or special address" in message


def test_a_server_that_says_nothing_is_given_up(server: Any) -> None:
    server.answers["/a.png"] = lambda handler: time.sleep(1)
    policy = MediaPolicy(allow_private_addresses=True, timeout_s=0.2)
    assert _refused(server.url("/a.png"), policy).endswith("/a.png took longer than 0.2 s")


def test_a_server_that_drips_is_given_up(server: Any) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(50):
                handler.wfile.write(b"a")
                time.sleep(0.05)
        except OSError:
            pass

    server.answers["/a.png"] = answer
    policy = MediaPolicy(allow_private_addresses=True, timeout_s=0.3)
    assert _refused(server.url("/a.png"), policy).endswith("/a.png took longer than 0.3 s")


def test_a_slow_name_server_holds_up_no_other_name(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    look_up, asked, answered = socket.getaddrinfo, [], threading.Event()

    def slow(host: Any, *rest: Any, **options: Any) -> Any:
        asked.append(host)
        if str(host).endswith(".slow.example"):
            answered.wait()
        return look_up("127.0.0.1" if str(host).endswith(".example") else host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    server.at("/a.png", b"a")
    policy = MediaPolicy(allow_private_addresses=True, timeout_s=600)

    async def all_at_once() -> list[Any]:
        names = [f"{number % 50}.slow.example" for number in range(200)]
        waiting = [asyncio.create_task(fetch(server.url("/a.png", name), policy)) for name in names]
        try:
            while len(asked) < 50:
                await asyncio.sleep(0.01)
            quick = await fetch(server.url("/a.png", "quick.example"), policy)
            assert not any(each.done() for each in waiting)
        finally:
            answered.set()
        return [quick, *await asyncio.gather(*waiting)]

    assert asyncio.run(all_at_once()) == [b"a"] * 201
    assert sum(str(host).endswith(".slow.example") for host in asked) == 50  # each name once


def test_names_that_nobody_answers_for_have_a_limit(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(20))
    monkeypatch.setattr(resolve, "_MOST_NAMES", 3)

    async def four() -> list[Any]:
        policy = MediaPolicy(timeout_s=0.3)
        fetches = [fetch(f"http://{number}.example/", policy) for number in range(4)]
        return await asyncio.gather(*fetches, return_exceptions=True)

    errors = [str(error) for error in asyncio.run(four())]
    answered.set()
    assert sum("took longer than" in error for error in errors) == 3
    assert sum("too many host names are being resolved" in error for error in errors) == 1


def test_a_look_up_that_finds_no_thread_spoils_no_later_one(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    server.at("/a.png", b"a")
    url = server.url("/a.png", "localhost")
    with monkeypatch.context() as full:
        full.setattr(resolve.threading.Thread, "start", start)
        assert _refused(url).startswith("localhost cannot be resolved: can't start new thread")
    assert _fetch(url) == b"a"


# --- Certificates


@pytest.fixture
def https(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The port of a server that shows a certificate for `images.example`, from a known authority."""
    _resolve_to_here(monkeypatch, "images.example", "other.example")
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    monkeypatch.setattr(fetching, "_authorities", lambda: context)
    server = ImageServer()
    server.at("/a.png", b"a")
    behind = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("images.example").configure_cert(behind)
    server.wrap(behind)
    yield str(server.port)
    server.close()


def test_a_certificate_must_be_of_the_name_though_the_address_is_asked(https: str) -> None:
    assert _fetch(f"https://images.example:{https}/a.png") == b"a"
    for host in ("other.example", "127.0.0.1"):
        assert "CERTIFICATE_VERIFY_FAILED" in _refused(f"https://{host}:{https}/a.png")


def test_an_unknown_authority_is_not_believed(https: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    _resolve_to_here(monkeypatch, "images.example")
    assert "CERTIFICATE_VERIFY_FAILED" in _refused(f"https://images.example:{https}/a.png")


# --- Failures


@pytest.mark.parametrize(
    ("status", "text"), [(404, "Not Found"), (500, "Internal Server Error"), (204, "No Content")]
)
def test_an_answer_without_content_is_named(status: int, text: str, server: Any) -> None:
    url = server.at("/a.png", status=status)
    assert _refused(url) == f"{url} answers {status} {text}"


def test_a_connection_that_breaks_off_is_a_media_error(server: Any) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"a")

    server.answers["/a.png"] = answer
    assert "/a.png cannot be fetched: " in _refused(server.url("/a.png"))


def test_an_answer_that_is_not_http_is_a_media_error(server: Any) -> None:
    server.answers["/a.png"] = lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH\r\n")
    assert "/a.png cannot be fetched: " in _refused(server.url("/a.png"))


def test_nobody_listening_is_a_media_error() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert _refused(f"http://127.0.0.1:{port}/a.png").startswith(
        f"http://127.0.0.1:{port}/a.png cannot be fetched: "
    )


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///a.png",
        "http://[/a.png",
        "http://[::1/a.png",
        "http://localhost:99999/a.png",
        "http://localhost:port/a.png",
        f"http://{'x' * 64}.example/a.png",
        "http://a..example/a.png",
        "http://\0/a.png",
        "http://nobody.invalid/a.png",
        "http://exa mple/a.png",
    ],
)
def test_a_url_that_leads_nowhere_is_a_media_error(url: str) -> None:
    assert NOWHERE.search(_refused(url, MediaPolicy(allow_private_addresses=True, timeout_s=5)))


def test_a_host_in_another_script_is_asked_by_its_ascii_name(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _resolve_to_here(monkeypatch, "bücher.example")
    server.at("/a.png", b"a")
    assert _fetch(server.url("/a.png", "bücher.example")) == b"a"
    assert server.asked == [("/a.png", f"xn--bcher-kva.example:{server.port}")]


def test_proxies_of_the_environment_are_not_used(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert _fetch(server.at("/a.png", b"a")) == b"a"

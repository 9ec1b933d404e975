"""A real HTTP server, and images in every encoding."""

from __future__ import annotations

import io
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

Answer = Callable[[BaseHTTPRequestHandler], None]


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    # Of 200 connections at once the kernel would refuse those beyond five, which try again after seconds.
    request_queue_size = 256


class Server:
    """A server on this machine; what it answers at a path is set by `at`."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, str | None]] = []
        """Path and `Host` of every request."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append((self.path, self.headers["Host"]))
                server.answers.get(self.path, lambda handler: handler.send_error(404))(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _Listener(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    def wrap(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def at(
        self, path: str, content: bytes = b"", *, status: int = 200, length: bool = True, **headers: str
    ) -> str:
        """Answer with `content`, and with its length or not; the URL."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name, value)
            if length:
                handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)

        self.answers[path] = answer
        return self.url(path)

    def redirect(self, path: str, target: str, status: int = 302) -> str:
        """Send whoever asks for `path` to `target`; the URL."""
        return self.at(path, status=status, Location=target)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on a port of its own."""
    server = Server()
    yield server
    server.close()


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """A function that encodes an image, as PNG unless told."""

    def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
        file = io.BytesIO()
        image.save(file, form, **options)
        return file.getvalue()

    return encode


@pytest.fixture
def png(encode: Callable[..., bytes]) -> bytes:
    """A small encoded image: 6 × 4 pixels of one red."""
    return encode(Image.new("RGB", (6, 4), (200, 10, 30)))

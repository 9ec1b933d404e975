"""An application of a test that listens on a port of its own."""

from __future__ import annotations

import socket
import threading
from typing import Any

import uvicorn


class Listener:
    """Serves an application from a thread.

    Attributes:
        url: Where it listens, also after `stop` and `start`.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        """Listen."""
        config = uvicorn.Config(self._app, port=self._port, log_level="critical", timeout_graceful_shutdown=0)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.01)

    def stop(self) -> None:
        """End all connections, and listen no more."""
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()

"""A socket at a host and port; without vLLM, so that an address in use is reported before it is imported."""

from __future__ import annotations

import socket

from vlm_run.errors import EngineError


def bind_tcp(host: str, port: int) -> socket.socket:
    """A TCP socket bound to an address.

    Args:
        host: Name or address of an interface.
        port: Port; 0 picks a free one.

    Raises:
        EngineError: The address is in use or does not exist.
    """
    try:
        ((family, _, _, _, address), *_) = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise EngineError(
            f"cannot listen at {host}:{port}: {error.strerror or error}",
            hint="Choose another --host or --port.",
        ) from error
    return listener

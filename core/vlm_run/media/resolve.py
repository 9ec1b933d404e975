"""Resolves host names so that a slow DNS server does not delay other names.

The event loops' own resolvers share few threads: two in libuv, and in asyncio the ones that decode images.
"""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from concurrent.futures import Future
from contextlib import suppress

from vlm_run.errors import MediaError

_MOST_NAMES = 256
# 127.0.0.1, 2130706433, 0x7f.1, ::1, fe80::1%eth0; also a few names, which are then looked up.
_NUMERIC = re.compile(r"[0-9a-fx.]+|[0-9a-f:.]+(%.*)?", re.IGNORECASE)
_under_way: dict[tuple[str, int], Future[str]] = {}
_lock = threading.Lock()


async def resolve(host: str, port: int) -> str:
    """The first address of a host, which may be a name or an address.

    Raises:
        OSError: The host has no address.
        MediaError: Too many other names are being resolved.
    """
    # An address in any spelling takes no time, so that the refusal of a private one takes none either.
    if _NUMERIC.fullmatch(host):
        with suppress(OSError):
            return _first_address(host, port, socket.AI_NUMERICHOST)
    return await asyncio.wrap_future(_look_up(host, port))


def _first_address(host: str, port: int, flags: int = 0) -> str:
    return str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)[0][4][0])


def _look_up(host: str, port: int) -> Future[str]:
    """Start one thread per name, shared by all who wait for it: a lookup cannot be cancelled."""
    with _lock:
        if (host, port) in _under_way:
            return _under_way[host, port]
        if len(_under_way) >= _MOST_NAMES:
            raise MediaError(
                f"too many host names are being resolved to resolve {host}", hint="Try again later."
            )
        found: Future[str] = Future()
        found.set_running_or_notify_cancel()  # one caller giving up must not cancel it for the others
        # A daemon thread, so that the process can exit without waiting for a DNS server.
        thread = threading.Thread(target=_finish, args=(found, host, port), daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads can be started
            raise MediaError(f"{host} cannot be resolved: {error}", hint="Try again later.") from None
        _under_way[host, port] = found
        return found


def _finish(found: Future[str], host: str, port: int) -> None:
    try:
        address: str | Exception = _first_address(host, port)
    except Exception as error:  # also UnicodeError, for an invalid host name
        address = error
    with _lock:
        del _under_way[host, port]
    if isinstance(address, str):
        found.set_result(address)
    else:
        found.set_exception(address)

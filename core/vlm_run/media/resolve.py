"""Looks names up without letting a slow name server hold up other names.

The event loops' own look-ups share few threads: two in libuv, and in asyncio those that decode pictures.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import Future

from vlm_run.errors import MediaError

_MOST_NAMES = 256
_under_way: dict[tuple[str, int], Future[str]] = {}
_lock = threading.Lock()


async def resolve(host: str, port: int) -> str:
    """The first address of a host, be it a name or an address already.

    Raises:
        OSError: It has none.
        MediaError: Too many other names are being looked up.
    """
    return await asyncio.wrap_future(_look_up(host, port))


def _look_up(host: str, port: int) -> Future[str]:
    """One thread for each name, however many ask for it meanwhile: a look-up cannot be cancelled."""
    with _lock:
        if (host, port) in _under_way:
            return _under_way[host, port]
        if len(_under_way) >= _MOST_NAMES:
            raise MediaError(f"too many names are being looked up to look up {host}", hint="Try again later.")
        found: Future[str] = Future()
        found.set_running_or_notify_cancel()  # who gives up must not cancel it for the others
        # A daemon, since the end of a process must not wait for a name server.
        thread = threading.Thread(target=_finish, args=(found, host, port), daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the machine has no thread left
            raise MediaError(f"{host} cannot be looked up: {error}", hint="Try again later.") from None
        _under_way[host, port] = found
        return found


def _finish(found: Future[str], host: str, port: int) -> None:
    try:
        address: str | Exception = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
    except Exception as error:  # UnicodeError too, of what can be no name
        address = error
    with _lock:
        del _under_way[host, port]
    if isinstance(address, str):
        found.set_result(address)
    else:
        found.set_exception(address)

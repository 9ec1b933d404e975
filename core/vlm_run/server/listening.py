"""The server's address: its socket, its URL, and what is printed about it."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import threading
import webbrowser
from argparse import Namespace

import typer

from vlm_run.errors import EngineError
from vlm_run.server.arguments import api_keys
from vlm_run.server.tcp_socket import bind_tcp


def listen(args: Namespace) -> socket.socket:
    """A socket bound to the server's address.

    It is bound before the engine starts, so that an address in use is reported at once.

    Raises:
        EngineError: The address is in use or does not exist.
    """
    if not args.uds:
        return bind_tcp(args.host or "0.0.0.0", args.port)
    try:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(args.uds)
    except OSError as error:
        raise EngineError(
            f"cannot listen at {args.uds}: {error.strerror or error}", hint="Choose another --uds."
        ) from error
    return listener


def address_of(args: Namespace, listener: socket.socket) -> str:
    """The URL that reaches the server from this machine."""
    if args.uds:
        return f"unix:{args.uds}"
    host, port = listener.getsockname()[:2]
    return local_url(host, port, args)


def local_url(host: str, port: int, args: Namespace) -> str:
    """The URL by which this machine reaches a server that listens at a host and a port."""
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    scheme = "https" if args.ssl_keyfile and args.ssl_certfile else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def ready_message(address: str, args: Namespace) -> str:
    """The model's name and URL, and a command that asks it about an image."""
    name = args.served_model_name[0]
    body = (
        f'{{"model": "{name}", "messages": [{{"role": "user", "content": "What is in the image?"}}], '
        f'"images": ["{_EXAMPLE_IMAGE}"]}}'
    )
    where = f"--unix-socket {args.uds} http://localhost" if args.uds else address
    key = "-H 'Authorization: Bearer KEY' " if api_keys(args) else ""
    return (
        f"{name} is served at {address}/v1\n"
        f"  curl {where}/v1/chat/completions -H 'Content-Type: application/json' {key}-d '{body}'"
    )


# A red square of 64 × 64 pixels.
_EXAMPLE_IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABAAQMAAACQp+OdAAAAA1BMVEXSHhjuWnsNAAAAD0lEQVR42mNgGAWjgHwA"
    "AAJAAAHgTR1EAAAAAElFTkSuQmCC"
)


def open_in_browser(url: str) -> bool:
    """Open a URL in the user's browser; False if this machine has no browser or no display."""
    has_screen = sys.platform == "darwin" or any(
        map(os.environ.get, ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"))
    )
    if has_screen:
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
    return has_screen


def warn_if_open(args: Namespace) -> None:
    """Print a warning if other machines can reach the server and no API key is required."""
    if args.uds or api_keys(args) or _is_loopback(args.host):
        return
    typer.secho(
        f"WARNING: listening at {args.host or '0.0.0.0'} without --api-key: everyone who can reach this "
        "machine can use the model.\n         Give --api-key, or --host 127.0.0.1.",
        fg="yellow",
        bold=True,
        err=True,
    )


def _is_loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "0.0.0.0").is_loopback
    except ValueError:
        return host == "localhost"

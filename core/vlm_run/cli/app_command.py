"""`vlm-run app`: a server with the chat page, opened in the browser; ms-swift's name for it."""

from __future__ import annotations

import inspect
import socket
from contextlib import closing
from typing import Annotated, Any

import typer

from vlm_run.cli.serve import serve

# A browser keeps the history of one address: the same port each time, where it is free.
_PORTS = range(7860, 7880)


def app(browser: bool = True, **options: Any) -> None:
    """Chat with a model in the browser.

        vlm-run app llava1_6-mistral-7b-instruct

    Takes all options of `vlm-run serve`, and flags of `vllm serve` behind `--`.
    """
    if options["port"] is None:
        options["port"] = free_port(options["host"])
    serve(**options, ui=True, open_browser=browser)


def free_port(host: str) -> int:
    """The first port of `_PORTS` that is free at `host`, or any free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in (*_PORTS, 0):
        try:
            with closing(socket.create_server((host, port), family=family)) as listener:
                found: int = listener.getsockname()[1]
                return found
        except OSError:
            continue
    return 0


def _signature() -> inspect.Signature:
    """That of `serve`, with a port that is picked and a browser that is opened."""
    parameters = dict(inspect.signature(serve, eval_str=True).parameters)
    del parameters["ui"], parameters["open_browser"]
    help_text = f"By default the first free one of {_PORTS.start} to {_PORTS.stop - 1}."
    port = Annotated[int | None, typer.Option(help=help_text, rich_help_panel="Server")]
    parameters["port"] = parameters["port"].replace(annotation=port, default=None)
    opens = Annotated[
        bool, typer.Option(help="Open the page in the browser once it is served.", rich_help_panel="Server")
    ]
    browser = inspect.Parameter("browser", inspect.Parameter.KEYWORD_ONLY, default=True, annotation=opens)
    return inspect.Signature([*parameters.values(), browser])


app.__signature__ = _signature()  # type: ignore[attr-defined]
app.__annotations__ = {name: each.annotation for name, each in _signature().parameters.items()}

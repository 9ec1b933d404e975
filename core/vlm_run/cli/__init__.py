"""The command `vlm-run`: one module per command, with heavy imports inside the functions."""

from __future__ import annotations

import gc
import sys
from collections.abc import Collection
from importlib import import_module
from typing import TYPE_CHECKING

import typer

from vlm_run.cli.help import Command
from vlm_run.errors import VlmRunError

if TYPE_CHECKING:
    app: typer.Typer

GC_THRESHOLD = 20_000
"""New objects after which garbage is collected. With Python's 700 collections that find nothing slow down the
import of vLLM: 15.7 s of CPU time for `import vllm.v1.engine.core` in place of 13.1 (vLLM 0.32, Python 3.11,
AVX2, 2026-11-28)."""

# Name, module and function, in the order of `--help`.
_COMMANDS = {
    "infer": "infer:infer",
    "serve": "serve:serve",
    "deploy": "serve:serve",
    "app": "app_command:app",
    "pull": "pull:pull",
    "explain": "explain:explain",
    "models": "models:models",
    "plugins": "plugins:plugins",
    "demo": "demo:demo",
    "verify": "verify:verify",
    "bench": "bench:bench",
    "tune": "tune:tune",
    "plugin new": "plugin_new:new",
    "plugin check": "plugin_check:check",
}
_HIDDEN = {"deploy"}


def build_app(names: Collection[str] = _COMMANDS) -> typer.Typer:
    """typer's application with these commands.

    Importing a command's module and reading its options takes several milliseconds.
    """
    app = typer.Typer(
        name="vlm-run",
        help="Run any vision-language model on vLLM.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        # `--model_type` means `--model-type`, as in ms-swift.
        context_settings={
            "token_normalize_func": lambda token: token.replace("_", "-"),
            "help_option_names": ["-h", "--help"],
            "max_content_width": 110,
        },
    )
    app.callback(invoke_without_command=True)(_version)
    plugin = typer.Typer(help="Write a plugin, and check it.", no_args_is_help=True, rich_markup_mode=None)
    for name in names:
        module, _, function = _COMMANDS[name].partition(":")
        command = getattr(import_module(f"vlm_run.cli.{module}"), function)
        group, _, last = name.rpartition(" ")
        (plugin if group else app).command(last, hidden=name in _HIDDEN, cls=Command)(command)
    if plugin.registered_commands:
        app.add_typer(plugin, name="plugin")
    return app


def __getattr__(name: str) -> typer.Typer:
    if name == "app":
        return build_app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _version(show: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if show:
        from vlm_run import __version__

        typer.echo(f"vlm-run {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command; an error is printed as one line on standard error, with exit code 2."""
    gc.set_threshold(GC_THRESHOLD)
    chosen = [name for name in _COMMANDS if sys.argv[1:2] == [name]]
    try:
        build_app(chosen or _COMMANDS)(prog_name="vlm-run")
    except VlmRunError as error:
        if "--verbose" in sys.argv:
            raise
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)

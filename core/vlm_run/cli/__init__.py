"""The command `vlm-run`: one module per command, with heavy imports inside the functions."""

from __future__ import annotations

import sys

import typer

from vlm_run.cli import app as app_command
from vlm_run.cli import (
    bench,
    demo,
    explain,
    infer,
    models,
    plugin_check,
    plugin_new,
    plugins,
    pull,
    serve,
    tune,
    verify,
)
from vlm_run.cli.help import Command
from vlm_run.errors import VlmRunError

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
app.command("infer", cls=Command)(infer.infer)
app.command("serve", cls=Command)(serve.serve)
app.command("deploy", hidden=True, cls=Command)(serve.serve)
app.command("app", cls=Command)(app_command.app)
app.command("pull", cls=Command)(pull.pull)
app.command("explain", cls=Command)(explain.explain)
app.command("models", cls=Command)(models.models)
app.command("plugins", cls=Command)(plugins.plugins)
app.command("demo", cls=Command)(demo.demo)
app.command("verify", cls=Command)(verify.verify)
app.command("bench", cls=Command)(bench.bench)
app.command("tune", cls=Command)(tune.tune)

plugin = typer.Typer(help="Write a plugin, and check it.", no_args_is_help=True, rich_markup_mode=None)
plugin.command("new", cls=Command)(plugin_new.new)
plugin.command("check", cls=Command)(plugin_check.check)
app.add_typer(plugin, name="plugin")


@app.callback(invoke_without_command=True)
def version(show: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if show:
        from vlm_run import __version__

        typer.echo(f"vlm-run {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command; an error is printed as one line on standard error, with exit code 2."""
    try:
        app()
    except VlmRunError as error:
        if "--verbose" in sys.argv:
            raise
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)

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
from vlm_run.errors import VlmRunError

app = typer.Typer(
    name="vlm-run",
    help="Run any vision-language model on vLLM.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # `--model_type` means `--model-type`, as in ms-swift.
    context_settings={
        "token_normalize_func": lambda token: token.replace("_", "-"),
        "help_option_names": ["-h", "--help"],
    },
)
app.command("infer")(infer.infer)
app.command("serve")(serve.serve)
app.command("deploy", hidden=True)(serve.serve)
app.command("app")(app_command.app)
app.command("pull")(pull.pull)
app.command("explain")(explain.explain)
app.command("models")(models.models)
app.command("plugins")(plugins.plugins)
app.command("demo")(demo.demo)
app.command("verify")(verify.verify)
app.command("bench")(bench.bench)
app.command("tune")(tune.tune)

plugin = typer.Typer(help="Write a plugin, and check it.", no_args_is_help=True)
plugin.command("new")(plugin_new.new)
plugin.command("check")(plugin_check.check)
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

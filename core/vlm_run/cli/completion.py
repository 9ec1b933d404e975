"""Shell completion of model types; that of commands and options is Typer's own."""

from __future__ import annotations

import contextlib
import io
import warnings

import typer


def complete_model_type(context: typer.Context, incomplete: str) -> list[str]:
    """Return the model types that begin with what has been typed.

    Nothing is printed, and no model library is imported: the shell waits for this.
    """
    if context.params.get("words"):
        return []  # the model is named; a question follows
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        from vlm_run.registry import Registry

        return [name for name in Registry.model_types() if name.startswith(incomplete)]

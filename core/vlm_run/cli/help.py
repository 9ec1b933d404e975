"""Help in plain text, with options under their headings; rich would take longer to import than to print."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand

_TYPE = re.compile(r" <[^>]*>$")
_LIST_OR_RANGE = re.compile(r"<(?:list\[(\w+)\]|(\w+) range)>$")


class Command(TyperCommand):
    """A command whose help lists its options by `rich_help_panel`, without rich."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section for the arguments, one for the options without a heading, and one per heading."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            name, text = record
            if parameter.param_type_name == "argument":
                default, name = "Arguments", _TYPE.sub("", name)
            else:
                # The text says whether it is repeatable, and in which range.
                default, name = "Options", _LIST_OR_RANGE.sub(r"<\1\2>", name)
            heading = getattr(parameter, "rich_help_panel", None) or default
            sections.setdefault(heading, []).append((name, text))
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)

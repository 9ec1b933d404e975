"""The rendered prompt, with the places that must be tokenized as plain text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt.

    Attributes:
        text: The prompt as the model's chat template writes it.
        literals: Ranges of `text`, as (start, end) in characters, in which a user wrote the string of
            a control token. They must be tokenized as plain text.
    """

    text: str
    literals: tuple[tuple[int, int], ...] = ()

    def pieces(self) -> Iterator[tuple[str, bool]]:
        """The text in pieces, each with whether it is a literal."""
        position = 0
        for start, end in self.literals:
            if start > position:
                yield self.text[position:start], False
            yield self.text[start:end], True
            position = end
        if position < len(self.text):
            yield self.text[position:], False

    def split(self, placeholder: str) -> list[Prompt]:
        """The prompt cut at its placeholders; a literal is not a placeholder.

        Args:
            placeholder: `{index}` in it matches any number.
        """
        parts, position = [], 0
        for found in re.finditer(placeholder_pattern(placeholder), self.text):
            if not any(start <= found.start() < end for start, end in self.literals):
                parts.append(self._slice(position, found.start()))
                position = found.end()
        return [*parts, self._slice(position, len(self.text))]

    def _slice(self, start: int, end: int) -> Prompt:
        literals = [(first - start, last - start) for first, last in self.literals if start <= first < end]
        return Prompt(self.text[start:end], tuple(literals))


def placeholder_pattern(placeholder: str) -> str:
    """A regular expression for a placeholder; `{index}` in it matches any number."""
    return re.escape(placeholder).replace(re.escape("{index}"), r"\d+")

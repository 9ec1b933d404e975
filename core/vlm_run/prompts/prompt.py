"""The rendered prompt, and the guard that keeps what a user wrote from becoming control tokens.

A tokenizer turns `<image>` or `<|im_end|>` into one special token wherever it stands. Before
rendering, each such string in the user's text is masked by one private-use character, which no
template takes apart; afterwards it is put back, and the prompt remembers where. The tokenizer
then reads those places as plain text (`vlm_run.prompts.tokenize`). Text without such strings,
that is nearly all, is tokenized in one piece, exactly as the model was trained.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from vlm_run.errors import TemplateError
from vlm_run.prompts.conversation import Conversation, Message, Part, Text
from vlm_run.specs import ModelSpec

# Plane 16 is private use and the least likely to be in real text; what is there is masked too,
# so that unmasking is exact.
_FIRST = 0x100000
_PLANE_16 = re.compile("[\U00100000-\U0010ffff]")
# Behind the beginning of an answer; the last of the masks, which no conversation has so many of.
_END_MARK = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt.

    Attributes:
        text: The prompt as the model's chat template writes it.
        literals: Where in `text`, as (start, end) in characters, a control token's name stands
            that a user wrote and that must be tokenized as plain text.
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
        """The prompt between its placeholders, of which literals are none.

        Args:
            placeholder: `{index}` in it stands for any number.
        """
        parts, position = [], 0
        for found in re.finditer(_pattern(placeholder), self.text):
            if not any(start <= found.start() < end for start, end in self.literals):
                parts.append(self._slice(position, found.start()))
                position = found.end()
        return [*parts, self._slice(position, len(self.text))]

    def _slice(self, start: int, end: int) -> Prompt:
        literals = [(first - start, last - start) for first, last in self.literals if start <= first < end]
        return Prompt(self.text[start:end], tuple(literals))


class Guard:
    """Masks control tokens in one conversation and finds them again in its prompt.

    Args:
        control_tokens: The strings to mask; `{index}` in one stands for any number.

    >>> from vlm_run.prompts.conversation import Conversation
    >>> guard = Guard(["<image>"])
    >>> masked = guard.mask(Conversation.from_messages([{"role": "user", "content": "What is <image>?"}]))
    >>> guard.unmask(masked.messages[0].parts[0].text.upper())
    Prompt(text='WHAT IS <image>?', literals=((8, 15),))
    """

    def __init__(self, control_tokens: Iterable[str]) -> None:
        names = sorted(set(control_tokens) - {""}, key=len, reverse=True)
        self._control = re.compile("|".join([*map(_pattern, names), _PLANE_16.pattern]))
        self._masks: dict[str, str] = {}

    def mask(self, conversation: Conversation) -> Conversation:
        """The conversation with every control token in its texts masked."""
        return replace(
            conversation,
            messages=tuple(map(self._mask_message, conversation.messages)),
            tools=tuple(self._mask_inside(tool) for tool in conversation.tools),
        )

    def unmask(self, rendered: str) -> Prompt:
        """The prompt with the masked strings back in their places."""
        originals = {mask: original for original, mask in self._masks.items()}
        text, literals, position = "", [], 0
        for found in _PLANE_16.finditer(rendered):
            text += rendered[position : found.start()]
            original = originals.get(found.group(), found.group())
            literals.append((len(text), len(text) + len(original)))
            text += original
            position = found.end()
        return Prompt(text + rendered[position:], tuple(literals))

    def _mask_message(self, message: Message) -> Message:
        # A template may write the texts of a message one behind the other, so a control token that
        # only several of them make together is masked, too: in each its own piece.
        whole = "".join(part.text for part in message.parts if isinstance(part, Text))
        found = deque(match.span() for match in self._control.finditer(whole))
        parts: list[Part] = []
        start = 0
        for part in message.parts:
            if isinstance(part, Text) and part.text:
                end = start + len(part.text)
                parts.append(Text(self._mask_between(whole, start, end, found)))
                start = end
            else:
                parts.append(part)
        return replace(message, parts=tuple(parts), fields=self._mask_inside(message.fields))

    def _mask_inside(self, value: Any) -> Any:
        """A value as JSON knows it, with all its strings masked."""
        if isinstance(value, str):
            return self._control.sub(lambda found: self._mask_of(found.group()), value)
        if isinstance(value, Mapping):
            return {self._mask_inside(key): self._mask_inside(inner) for key, inner in value.items()}
        if isinstance(value, Iterable):
            return [self._mask_inside(inner) for inner in value]
        return value

    def _mask_between(self, whole: str, start: int, end: int, found: deque[tuple[int, int]]) -> str:
        """`whole[start:end]` masked; takes what ends there from `found`."""
        masked, position = "", start
        while found and found[0][0] < end:
            first, last = max(found[0][0], start), min(found[0][1], end)
            masked += whole[position:first] + self._mask_of(whole[first:last])
            position = last
            if found[0][1] > end:
                break
            found.popleft()
        return masked + whole[position:end]

    def _mask_of(self, original: str) -> str:
        return self._masks.setdefault(original, chr(_FIRST + len(self._masks)))


def with_end_mark(conversation: Conversation) -> Conversation:
    """The masked conversation with a mark behind its last message, an answer to be continued."""
    *messages, last = conversation.messages
    ended = replace(last, parts=(*last.parts, Text(_END_MARK)))
    return replace(conversation, messages=(*messages, ended))


def cut_at_end_mark(rendered: str) -> str:
    """The prompt up to the mark, where the answer goes on.

    Raises:
        TemplateError: The template leaves the mark out, and so the answer's end.
    """
    before, mark, _ = rendered.rpartition(_END_MARK)
    if not mark:
        raise TemplateError("the chat template does not let an answer be continued")
    return before


def control_tokens(model: ModelSpec) -> set[str]:
    """The strings that the model type's own data makes special."""
    return {*model.control_tokens, *model.stop, model.image_placeholder, model.bos_token, model.eos_token}


def _pattern(control_token: str) -> str:
    # A placeholder with a number is special whatever the number.
    return re.escape(control_token).replace(re.escape("{index}"), r"\d+")

"""Keeps what a user wrote from becoming control tokens.

A tokenizer turns `<image>` or `<|im_end|>` into one special token wherever it occurs. Before
rendering, each such string in the user's text is masked by one private-use character, which no
template takes apart; after rendering it is put back, and the prompt records where. The tokenizer
then reads those places as plain text (`vlm_run.prompts.tokenize`). Text without such strings,
which is nearly all text, is tokenized in one piece, exactly as the model was trained.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from vlm_run.errors import TemplateError
from vlm_run.prompts.conversation import Conversation, Message, Part, Text
from vlm_run.prompts.prompt import Prompt, placeholder_pattern
from vlm_run.specs import ModelSpec

# Plane 16 is private use and the least likely to occur in real text. Characters of it that do occur
# are masked too, so that unmasking is exact.
_FIRST = 0x100000
_PLANE_16 = re.compile("[\U00100000-\U0010ffff]")
# Marks the end of an answer to be continued. It is the last mask; no conversation needs that many.
_END_MARK = "\U0010ffff"


class Guard:
    """Masks control tokens in one conversation and restores them in its prompt.

    Args:
        control_tokens: The strings to mask; `{index}` in one matches any number.

    >>> from vlm_run.prompts.conversation import Conversation
    >>> guard = Guard(["<image>"])
    >>> masked = guard.mask(Conversation.from_messages([{"role": "user", "content": "What is <image>?"}]))
    >>> guard.unmask(masked.messages[0].parts[0].text.upper())
    Prompt(text='WHAT IS <image>?', literals=((8, 15),))
    """

    def __init__(self, control_tokens: Iterable[str]) -> None:
        self._control = _pattern_of(frozenset(control_tokens))
        self._masks: dict[str, str] = {}

    def mask(self, conversation: Conversation) -> Conversation:
        """The conversation with every control token in its texts masked."""
        return replace(
            conversation,
            messages=tuple(map(self._mask_message, conversation.messages)),
            tools=tuple(self._mask_inside(tool) for tool in conversation.tools),
            template_kwargs={
                name: self._mask_inside(value) for name, value in conversation.template_kwargs.items()
            },
        )

    def unmask(self, rendered: str) -> Prompt:
        """The prompt with the masked strings restored."""
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
        # A template may concatenate the texts of a message. A control token that spans several of
        # them is masked too, one piece in each.
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
        """A JSON value with all its strings masked."""
        if isinstance(value, str):
            return self._control.sub(lambda found: self._mask_of(found.group()), value)
        if isinstance(value, Mapping):
            return {self._mask_inside(key): self._mask_inside(inner) for key, inner in value.items()}
        if isinstance(value, Iterable):
            return [self._mask_inside(inner) for inner in value]
        return value

    def _mask_between(self, whole: str, start: int, end: int, found: deque[tuple[int, int]]) -> str:
        """`whole[start:end]` masked. Removes the matches that end there from `found`."""
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


@lru_cache(maxsize=64)
def _pattern_of(control_tokens: frozenset[str]) -> re.Pattern[str]:
    """Matches what is masked. It is kept, since some tokenizers have thousands of control tokens."""
    names = sorted(control_tokens - {""}, key=len, reverse=True)
    return re.compile("|".join([*map(placeholder_pattern, names), _PLANE_16.pattern]))


def with_end_mark(conversation: Conversation) -> Conversation:
    """The masked conversation with a mark after its last message, an answer to be continued."""
    *messages, last = conversation.messages
    ended = replace(last, parts=(*last.parts, Text(_END_MARK)))
    return replace(conversation, messages=(*messages, ended))


def cut_at_end_mark(rendered: str) -> str:
    """The prompt up to the mark, where the model continues the answer.

    Raises:
        TemplateError: The template dropped the mark, and with it the end of the answer.
    """
    before, mark, _ = rendered.rpartition(_END_MARK)
    if not mark:
        raise TemplateError("the chat template does not support continuing an answer")
    return before


def control_tokens(model: ModelSpec) -> set[str]:
    """The control tokens that the spec of a model type names."""
    return {*model.control_tokens, *model.stop, model.image_placeholder, model.bos_token, model.eos_token}

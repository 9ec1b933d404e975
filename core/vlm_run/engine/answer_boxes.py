"""The boxes in the answer to a request."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from vlm_run.boxes import TAGS, Box
from vlm_run.prompts.conversation import Conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from vlm_run.adapter import Adapter
    from vlm_run.engine.renderer import Rendered


def answer_boxes(
    adapter: Adapter,
    tokenizer: PreTrainedTokenizerBase,
    conversation: Conversation,
    rendered: Rendered,
    text: str,
    *,
    token_ids: Sequence[int],
    stop_string: str | None,
    is_cut: bool,
) -> tuple[Box, ...]:
    """Read the boxes in an answer.

    Args:
        adapter: The model.
        tokenizer: The checkpoint's tokenizer.
        conversation: The conversation. A beginning of the answer that it contains is part of the answer.
        rendered: The request, with the sizes of its images.
        text: The answer's text, without special tokens.
        token_ids: The answer's tokens.
        stop_string: The string that ended the answer, if one did; the tokens still contain it.
        is_cut: Whether the answer was cut off. If that was in its reasoning, it has no boxes.
    """
    if adapter.spec.box_coordinates is None or not rendered.image_sizes:
        return ()
    beginning = conversation.messages[-1].written if conversation.continued else ""
    answer = beginning + _with_tags(tokenizer, text, token_ids, stop_string)
    reasoning_end = adapter.spec.reasoning_end
    if is_cut and reasoning_end is not None and reasoning_end not in answer:
        return ()
    return adapter.parse_boxes(answer, rendered.image_sizes)


def _with_tags(
    tokenizer: PreTrainedTokenizerBase, text: str, token_ids: Sequence[int], stop_string: str | None
) -> str:
    """Return an answer's text with the tags of boxes that are special tokens, which vLLM leaves out."""
    if _tag_ids(tokenizer).isdisjoint(token_ids):
        return text
    tagged = str(tokenizer.decode(token_ids, skip_special_tokens=False))
    return tagged.partition(stop_string)[0] if stop_string else tagged


@lru_cache(maxsize=4)
def _tag_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    tokens = tokenizer.get_added_vocab()
    return frozenset(tokens[tag] for tag in TAGS if tag in tokens)

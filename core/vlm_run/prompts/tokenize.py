"""Tokenizes a rendered prompt with the checkpoint's own tokenizer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from vlm_run.prompts.prompt import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from vlm_run.specs import ModelSpec

# Some tokenizers also add plain words or runs of spaces; those are text.
_LOOKS_LIKE_CONTROL = re.compile(r"[<\[|].*[>\]|]", re.DOTALL)
_ANCHOR = "\n"


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """The strings that the tokenizer turns into one control token wherever they occur."""
    if _is_of_mistral_common(tokenizer):
        return frozenset(tokenizer.all_special_tokens)
    return frozenset(
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if token.special or _LOOKS_LIKE_CONTROL.fullmatch(token.content)
    )


def encode(prompt: Prompt, tokenizer: PreTrainedTokenizerBase, model: ModelSpec) -> list[int]:
    """Token ids of a prompt, with the prompt's literals as plain text.

    They begin with exactly one BOS if the tokenizer adds one, whether or not the chat template
    writes it too.
    """
    if _is_of_mistral_common(tokenizer):
        return _encode_with_mistral_common(prompt, tokenizer)
    if model.image_token is None:
        return _encode_piece(prompt, tokenizer)
    image = tokenizer.convert_tokens_to_ids(model.image_token)
    first, *rest = prompt.split(model.image_placeholder)
    ids = _encode_piece(first, tokenizer)
    for piece in rest:
        ids += [image, *_encode_piece(piece, tokenizer)]
    return ids


def stop_conditions(tokenizer: PreTrainedTokenizerBase, stop: Iterable[str]) -> tuple[list[int], list[str]]:
    """Stop token ids and stop strings.

    Control tokens do not appear in the text of an answer, so they are stopped at by their ids.
    """
    control = control_tokens(tokenizer)
    stop = list(dict.fromkeys(stop))
    ids = [tokenizer.convert_tokens_to_ids(text) for text in stop if text in control]
    return ids, [text for text in stop if text not in control]


def _encode_piece(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a text on its own, with the BOS that the tokenizer adds."""
    first, *rest = [*prompt.pieces()] or [("", False)]
    if first[1]:
        first, rest = ("", False), [first, *rest]
    bos = tokenizer.bos_token
    has_bos = bool(bos) and first[0].startswith(bos)
    ids: list[int] = list(tokenizer(first[0], add_special_tokens=not has_bos).input_ids)
    for text, literal in rest:
        if not literal:
            ids += _encode_inside(text, tokenizer)
            continue
        # Encoded one character at a time, no control token can match.
        for character in text:
            ids += _character_encoder(tokenizer)(character)
    return ids


def _encode_inside(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a text that does not begin the prompt."""
    # SentencePiece puts a space before a text on its own, but not after an anchor.
    anchor = _anchor_ids(tokenizer)
    anchored = tokenizer(_ANCHOR + text, add_special_tokens=False).input_ids
    if anchored[: len(anchor)] == anchor:
        return list(anchored[len(anchor) :])
    return list(tokenizer(text, add_special_tokens=False).input_ids)


@lru_cache(maxsize=4)
def _anchor_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return list(tokenizer(_ANCHOR, add_special_tokens=False).input_ids)


@lru_cache(maxsize=4)
def _character_encoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], list[int]]:
    """A function for the token ids of a character that does not begin the prompt, which remembers them."""
    return lru_cache(maxsize=1024)(partial(_encode_inside, tokenizer=tokenizer))


def _is_of_mistral_common(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer is mistral-common's, as transformers or as vLLM wraps it."""
    wrappers = ("MistralCommonBackend", "MistralTokenizer")
    return any(base.__name__ in wrappers for base in type(tokenizer).__mro__)


def _encode_with_mistral_common(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a prompt by mistral-common, which never makes a control token of text."""
    control = _pattern_of_control_tokens(tokenizer)
    ids: list[int] = []
    text = ""  # up to the next control token, literals included: mistral-common encodes it as one
    for piece, literal in prompt.pieces():
        first, *rest = [piece] if literal else control.split(piece)
        text += first
        for token, after in zip(rest[::2], rest[1::2], strict=True):
            ids += [*_text_ids(text, tokenizer), tokenizer.convert_tokens_to_ids(token)]
            text = after
    ids += _text_ids(text, tokenizer)
    bos = tokenizer.bos_token_id
    return ids if ids[:1] == [bos] else [bos, *ids]


def _text_ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False)) if text else []


@lru_cache(maxsize=4)
def _pattern_of_control_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Matches control tokens; the longest first, and in a group, so that `split` keeps them."""
    tokens = sorted(control_tokens(tokenizer), key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, tokens))})")

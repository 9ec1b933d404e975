"""A small byte-level tokenizer for the checkpoint directories that tests write."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Qwen2's and Llama 3's tokenizers split a text alike: newlines stay with each other and with the
# punctuation before them, so that a template's "\n\n" may be one token.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Merges of the kinds in real tokenizers that change how many tokens a template's own text takes: runs of
# newlines and spaces, and punctuation before a newline. Ċ is a newline, Ġ a space in the byte-level alphabet.
_MERGES = [
    ("Ċ", "Ċ"),
    ("ĊĊ", "Ċ"),
    ("ĊĊ", "ĊĊ"),
    ("Ġ", "Ġ"),
    ("ĠĠ", "ĠĠ"),
    ("Ġ", "Ċ"),
    (":", "Ċ"),
    (".", "Ċ"),
    (".", "ĊĊ"),
    (">", "Ċ"),
    (">", "ĊĊ"),
    (")", "Ċ"),
]


def write_byte_tokenizer(
    directory: Path,
    special_tokens: Iterable[str],
    bos: str | None = None,
    words: Iterable[str] = (),
    **facts: Any,
) -> dict[str, int]:
    """Write `tokenizer.json` and `tokenizer_config.json`. Needs the package `tokenizers`.

    It has a token for each byte, the given special tokens, and a few merges of the kinds that real
    tokenizers have: runs of newlines and spaces, punctuation before a newline. Prompts have the
    structure of the real ones and images take as many tokens, but words take more tokens, and merges
    that only the real tokenizer has are not seen. Compare with real files before you publish:
    `vlm-run plugin check --checkpoint`.

    Args:
        directory: The checkpoint directory.
        special_tokens: Their ids are 256, 257, … in this order.
        bos: The special token that the tokenizer adds before every text, if it does.
        words: Words of ASCII letters, each after a blank or none, that are one token, where a processor
            writes them and their number of tokens matters.
        facts: Further entries of `tokenizer_config.json`, for example `eos_token` or `chat_template`.

    Returns:
        The ids of all tokens other than the 256 bytes: the special tokens, then the merged ones. The
        size of the vocabulary is 256 plus their number.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = list(dict.fromkeys(special_tokens))
    merges = [*_MERGES, *(merge for word in words for merge in _merges_of(word.replace(" ", "Ġ")))]
    merged = list(dict.fromkeys(left + right for left, right in merges))
    vocabulary = {token: index for index, token in enumerate([*alphabet, *special, *merged])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    if bos is not None:
        facts["bos_token"] = bos
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **facts}
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return {name: vocabulary[name] for name in [*special, *merged]}


def _merges_of(word: str) -> list[tuple[str, str]]:
    """The merges that make a word one token, letter by letter."""
    return [(word[:end], word[end]) for end in range(1, len(word))]

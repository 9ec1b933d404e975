"""A tokenizer for checkpoint directories that tests make: a token for each byte, and special ones."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_byte_tokenizer(
    directory: Path, special_tokens: Iterable[str], bos: str | None = None, **facts: Any
) -> dict[str, int]:
    """Write `tokenizer.json` and `tokenizer_config.json`. Needs the package `tokenizers`.

    Its special tokens are those of the real one where it matters, so that prompts have the same
    structure and images take as many tokens; words take more.

    Args:
        directory: The checkpoint directory.
        special_tokens: Their ids are 256, 257, … in this order.
        bos: The one that the tokenizer puts in front of every text, if it does.
        facts: More entries for `tokenizer_config.json`, for example `eos_token`, `chat_template`.

    Returns:
        The ids of the special tokens.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = list(dict.fromkeys(special_tokens))
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    if bos is not None:
        facts["bos_token"] = bos
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **facts}
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return {name: len(alphabet) + index for index, name in enumerate(names)}

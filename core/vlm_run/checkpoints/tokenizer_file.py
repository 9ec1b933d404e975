"""A checkpoint's tokenizer.json, read by the `tokenizers` package alone.

It answers what `vlm_run.prompts.tokenize` asks of a tokenizer, under the names that transformers'
tokenizers have, so that token ids come out alike without importing transformers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a text."""

    input_ids: list[int]


class TokenizerFile:
    """A tokenizer without a model library.

    Whether a BOS is added is what tokenizer.json itself says, as it is for transformers unless
    tokenizer_config.json says otherwise.

    Args:
        tokenizer: Of the `tokenizers` package.
        bos_token: The text of the BOS; None if the tokenizer has none.
    """

    def __init__(self, tokenizer: Any, bos_token: str | None) -> None:
        # A file may ask for either; a prompt is neither cut nor filled up.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.bos_token = bos_token
        self.added_tokens_decoder: dict[int, Any] = tokenizer.get_added_tokens_decoder()

    @classmethod
    def of_folder(cls, folder: Path) -> Self | None:
        """The tokenizer in a checkpoint folder; None if it has no tokenizer.json.

        Raises:
            ValueError: A file is no tokenizer, or `tokenizers` is not installed.
        """
        file = folder / "tokenizer.json"
        if not file.is_file():
            return None
        try:
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # `tokenizers` raises bare Exceptions
            raise ValueError(f"{file} cannot be read: {error}") from None
        return cls(tokenizer, _bos_token(folder / "tokenizer_config.json"))

    def __call__(self, text: str, add_special_tokens: bool = True) -> Encoded:
        return Encoded(self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """The id of a token; None if there is no such token."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found


def _bos_token(config: Path) -> str | None:
    try:
        bos = json.loads(config.read_text(encoding="utf-8")).get("bos_token")
    except OSError:
        return None
    # Older configurations describe a token by an object.
    return bos.get("content") if isinstance(bos, dict) else bos

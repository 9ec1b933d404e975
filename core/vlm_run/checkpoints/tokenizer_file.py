"""A checkpoint's tokenizer.json, read by the `tokenizers` package alone.

It has the attributes of transformers' tokenizers that `vlm_run.prompts.tokenize` uses, so that it
gives the same token ids without importing transformers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Encoded:
    """A tokenized text.

    Attributes:
        input_ids: Its token ids.
    """

    input_ids: list[int]


class TokenizerFile:
    """A tokenizer without a model library.

    Whether it adds a BOS is defined by tokenizer.json, as it is for transformers unless
    tokenizer_config.json overrides it.

    Args:
        tokenizer: A `tokenizers.Tokenizer`.
        bos_token: The text of the BOS; None if the tokenizer has none.
    """

    def __init__(self, tokenizer: Any, bos_token: str | None) -> None:
        # A file may enable either; prompts must be neither truncated nor padded.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.bos_token = bos_token
        self.added_tokens_decoder: dict[int, Any] = tokenizer.get_added_tokens_decoder()

    @classmethod
    def of_directory(cls, directory: Path) -> Self | None:
        """The tokenizer in a checkpoint directory; None if it has no tokenizer.json.

        Raises:
            ValueError: The file is not a tokenizer, or `tokenizers` is not installed.
        """
        file = directory / "tokenizer.json"
        if not file.is_file():
            return None
        try:
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # `tokenizers` raises bare Exceptions
            raise ValueError(f"{file} cannot be read: {error}") from None
        return cls(tokenizer, _bos_token(directory / "tokenizer_config.json"))

    def __call__(self, text: str, add_special_tokens: bool = True) -> Encoded:
        return Encoded(self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """The id of a token; None if the tokenizer does not have it."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found


def _bos_token(config: Path) -> str | None:
    try:
        bos = json.loads(config.read_text(encoding="utf-8")).get("bos_token")
    except OSError:
        return None
    # Older configurations describe a token by an object.
    return bos.get("content") if isinstance(bos, dict) else bos

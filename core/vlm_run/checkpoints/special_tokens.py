"""The special tokens of a checkpoint's tokenizer, read from its JSON files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlm_run.checkpoints.files import read_json


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The special tokens of a tokenizer.

    Attributes:
        names: Tokens by their role, such as `bos_token`: the variables of a chat template.
        by_id: All special tokens by their id.
        source: The file that lists all special tokens.
        names_source: The file that names the roles.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    by_id: Mapping[int, str] = field(default_factory=dict)
    source: str = "not found"
    names_source: str = "not found"

    @property
    def all(self) -> tuple[str, ...]:
        """Every special token, in the order of ids."""
        return tuple(
            dict.fromkeys([*(self.by_id[each] for each in sorted(self.by_id)), *self.names.values()])
        )


def special_tokens(directory: Path) -> SpecialTokens:
    """The special tokens of the tokenizer in a checkpoint directory.

    Raises:
        ValueError: A file cannot be read.
    """
    tokenizer = read_json(directory / "tokenizer.json")
    config = read_json(directory / "tokenizer_config.json")
    legacy = read_json(directory / "special_tokens_map.json")
    extra = config.get("extra_special_tokens")
    named = {**legacy, **config, **(extra if isinstance(extra, dict) else {})}
    names = {
        role: text for role, token in named.items() if role.endswith("_token") and (text := _text(token))
    }
    listed = [token for token in tokenizer.get("added_tokens") or [] if token.get("special")]
    by_id = {token["id"]: token["content"] for token in listed}
    source = "tokenizer.json: added_tokens"
    if not by_id:
        decoder = config.get("added_tokens_decoder") or {}
        by_id = {int(number): token["content"] for number, token in decoder.items() if token.get("special")}
        source = "tokenizer_config.json: added_tokens_decoder" if by_id else "not found"
    return SpecialTokens(names, by_id, source, "tokenizer_config.json" if names else "not found")


def _text(token: Any) -> str | None:
    # Older configurations describe a token by an object.
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) and text else None

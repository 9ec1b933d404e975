"""The small tokenizer that plugins' tests use."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlm_run.testing.tokenizer import write_byte_tokenizer

tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture
def ids(tmp_path: Path) -> dict[str, int]:
    return write_byte_tokenizer(tmp_path, ["<image>", "<end>"])


def test_two_newlines_are_one_token_as_in_real_tokenizers(ids: dict[str, int], tmp_path: Path) -> None:
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert len(tokenizer.encode("\n\n").ids) == 1
    assert len(tokenizer.encode("<image>\n\n<image>").ids) == 3
    assert len(tokenizer.encode("Look:\n").ids) == 5


def test_special_tokens_come_first_after_the_bytes(ids: dict[str, int], tmp_path: Path) -> None:
    assert (ids["<image>"], ids["<end>"]) == (256, 257)
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == 256 + len(ids)


def test_text_comes_back_as_it_was(ids: dict[str, int], tmp_path: Path) -> None:
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "A  list:\n\n- the first\n- größer > 1.\n"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text

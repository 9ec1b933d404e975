"""Write a checkpoint's tokenizer and configuration; its chat template is written by hand."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import llava_files
import qwen_files
from families import CHECKPOINTS, FAMILIES
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from vlm_run_demo.dialogues import dialogue

FILES = {"demo-llava": llava_files, "demo-qwen": qwen_files}
VOCABULARY = 512
TOKENIZER_SEED = 500_000_000
"""First seed of the dialogues that the tokenizers' merges are learned from."""


def train_tokenizer(texts: Iterator[str], control: Sequence[str]) -> Tokenizer:
    """Byte-level BPE of `VOCABULARY` tokens, the special ones first."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>" if "<unk>" in control else None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in control],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def corpus(model_type: str, size: int) -> Iterator[str]:
    """Prompts and answers as the model will see them, without special tokens."""
    family, files = FAMILIES[model_type], FILES[model_type]
    for i in range(size):
        talk = dialogue(TOKENIZER_SEED + i, images=(0, 1, 1, 2)[i % 4], turns=3)
        for segment in family.FORMAT.segments(talk):
            yield from files.plain(segment.text)


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-type", choices=FAMILIES, default="demo-llava")
    parser.add_argument("--out", type=Path, help="the checkpoint's directory (default: the plugin's)")
    parser.add_argument("--dialogues", type=int, default=20_000, help="how many the tokenizer learns from")
    arguments = parser.parse_args()
    out: Path = arguments.out or CHECKPOINTS[arguments.model_type]
    out.mkdir(parents=True, exist_ok=True)
    files = FILES[arguments.model_type]
    tokenizer = train_tokenizer(corpus(arguments.model_type, arguments.dialogues), files.CONTROL)
    tokenizer = files.finish(tokenizer)
    tokenizer.save(str(out / "tokenizer.json"))
    for name, content in files.files(tokenizer).items():
        (out / name).write_text(json.dumps(content, indent=2) + "\n")
    print(f"{tokenizer.get_vocab_size()} tokens in the vocabulary")


if __name__ == "__main__":
    main()

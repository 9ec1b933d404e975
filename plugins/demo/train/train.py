"""Train the demo model: python train/train.py --out DIR --minutes 8

Data is drawn as it is needed, in processes of its own; no picture is seen twice.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import recipe
import torch
from model import DemoModel, image_tokens, save, tile
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from vlm_run_demo.drawing import draw_size
from vlm_run_demo.questions import HELD_OUT_SEED, Example, draw_example


@dataclass
class Batch:
    """Conversations about pictures of one size."""

    ids: torch.Tensor
    labels: torch.Tensor
    tiles: torch.Tensor | None
    size: tuple[int, int]
    kinds: list[list[str]]
    """What each answer in each conversation tests."""


class Drawn(IterableDataset[Batch]):
    """Batches without end, each from a seed of its own."""

    def __init__(self, batch_size: int, turns: int, first_seed: int) -> None:
        self.batch_size, self.turns, self.first_seed = batch_size, turns, first_seed

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        start, step = (worker.id, worker.num_workers) if worker else (0, 1)
        tokens = recipe.tokenizer()
        seed = self.first_seed + start
        while True:
            yield draw_batch(np.random.default_rng(seed), tokens, self.batch_size, self.turns)
            seed += step


def draw_batch(random: np.random.Generator, tokens: Tokenizer, batch_size: int, turns: int) -> Batch:
    size = draw_size(random)
    pictures = int(random.choice([1, 2], p=[0.7, 0.3]))
    examples = [
        # Some small talk and single pictures in every batch.
        draw_example(random, turns, size, None if random.random() < 0.1 else pictures)
        for _ in range(batch_size)
    ]
    rows = [encode(example, tokens, image_tokens(size)) for example in examples]
    length = max(len(ids) for ids, _ in rows)
    length = math.ceil(length / 32) * 32
    ids = torch.full((batch_size, length), recipe.PAD)
    labels = torch.full((batch_size, length), -100)
    for number, (row_ids, row_labels) in enumerate(rows):
        ids[number, : len(row_ids)] = torch.tensor(row_ids)
        labels[number, : len(row_labels)] = torch.tensor(row_labels)
    tiles = [torch.from_numpy(tile(image)) for example in examples for image in example.images]
    kinds = [[turn.kind for turn in example.turns] for example in examples]
    return Batch(ids, labels, torch.stack(tiles) if tiles else None, size, kinds)


def encode(example: Example, tokens: Tokenizer, per_image: int) -> tuple[list[int], list[int]]:
    """Token ids with image tokens expanded, and labels.

    Tokenized in one piece, as at inference; an answer's tokens are found by their offsets.
    """
    pieces = recipe.spans(example)
    answers, position = [], 0
    for text, answer in pieces:
        if answer:
            answers.append((position, position + len(text)))
        position += len(text)
    encoding = tokens.encode("".join(text for text, _ in pieces))
    ids: list[int] = []
    labels: list[int] = []
    for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
        if token == recipe.IMAGE:
            ids += [token] * per_image
            labels += [-100] * per_image
            continue
        asked = any(first <= start and end <= last and end > start for first, last in answers)
        ids.append(token)
        labels.append(token if asked else -100)
    return ids, labels


def score(batch: Batch, right: torch.Tensor) -> Iterator[tuple[str, bool]]:
    """For each answer, what it tests and whether every token of it is right."""
    for row, kinds in enumerate(batch.kinds):
        asked = (batch.labels[row, 1:] != -100).tolist()
        tokens = right[row].tolist()
        answers: list[bool] = []
        for position, inside in enumerate(asked):
            if not inside:
                continue
            if position == 0 or not asked[position - 1]:
                answers.append(True)
            answers[-1] = answers[-1] and tokens[position]
        yield from zip(kinds, answers, strict=True)


def evaluate(model: DemoModel, batches: list[Batch], device: str) -> dict[str, float]:
    """Share of exact answers (given the right ones before them), by what they test and in all."""
    model.eval()
    results: dict[str, list[bool]] = {}
    with torch.no_grad():
        for batch in batches:
            tiles = None if batch.tiles is None else batch.tiles.to(device)
            _, right = model(batch.ids.to(device), batch.labels.to(device), tiles, batch.size)
            for kind, exact in score(batch, right.cpu()):
                results.setdefault(kind, []).append(exact)
    model.train()
    every = [exact for kind in results.values() for exact in kind]
    return {
        "all": float(np.mean(every)),
        **{kind: float(np.mean(hits)) for kind, hits in sorted(results.items())},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="where the checkpoint goes")
    parser.add_argument("--minutes", type=float, default=8.0, help="how long to train")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--turns", type=int, default=8, help="questions in a conversation")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--workers", type=int, default=14, help="processes that draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", type=Path, help="a checkpoint's model.safetensors to start from")
    options = parser.parse_args()
    train(options)


def train(options: argparse.Namespace) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(options.seed)
    model = DemoModel().to(device)
    if options.resume:
        model.load_hub_weights(load_file(options.resume))
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters on {device}", flush=True)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=options.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=0.05,
        fused=device == "cuda",
    )
    # Far from the held-out seeds, and apart from those of another run with another --seed.
    data = Drawn(options.batch_size, options.turns, first_seed=1 + options.seed * 10_000_000)
    assert data.first_seed < HELD_OUT_SEED // 2
    loader = iter(
        DataLoader(data, batch_size=None, num_workers=options.workers, prefetch_factor=4, pin_memory=True)
    )
    tokens = recipe.tokenizer()
    checks = [draw_batch(np.random.default_rng(HELD_OUT_SEED // 2 + n), tokens, 128, 2) for n in range(12)]
    started = shown = time.monotonic()
    step, losses, waited = 0, [], 0.0
    while (elapsed := (time.monotonic() - started) / 60 / options.minutes) < 1.0:
        rate = (
            options.learning_rate
            * min(1.0, (step + 1) / 300)
            * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * elapsed)))
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        waiting = time.monotonic()
        batch = next(loader)
        waited += time.monotonic() - waiting
        tiles = None if batch.tiles is None else batch.tiles.to(device, non_blocking=True)
        loss, _ = model(
            batch.ids.to(device, non_blocking=True),
            batch.labels.to(device, non_blocking=True),
            tiles,
            batch.size,
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
        step += 1
        if time.monotonic() - shown > 20:
            mean = torch.stack(losses[-50:]).mean().item()
            accuracy = evaluate(model, checks[:3], device)["all"]
            print(
                f"{elapsed:4.0%} step {step} loss {mean:.4f} exact {accuracy:.3f} waited {waited:.0f} s",
                flush=True,
            )
            shown = time.monotonic()
    save(model, options.out)
    report = evaluate(model, checks, device)
    print(
        json.dumps({"steps": step, "conversations": step * options.batch_size, "exact": report}, indent=1),
        flush=True,
    )


if __name__ == "__main__":
    main()

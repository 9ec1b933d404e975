"""Train the weights of the demo checkpoint.

Run `prepare.py` first: it writes the tokenizer and the configuration that this reads.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from batches import Batch, Encoder, TrainingBatches, validation_batches
from model import answer_logits, compile_layers, load_weights, new_model, save_weights, tile_features
from tokenizers import Tokenizer
from torch import nn
from torch.utils.data import DataLoader
from transformers import LlavaNextForConditionalGeneration

from vlm_run_demo import CHECKPOINT
from vlm_run_demo.drawing import CLASSES

SEED = 20261124
WARM_UP_STEPS = 300
WEIGHT_DECAY = 0.05
CENTRE_WEIGHT = 4.0
"""Loss of a centre beside that of a middle: few patches hold a centre."""


@dataclass(frozen=True)
class Budget:
    """How long to train: a number of minutes or of steps."""

    minutes: float | None
    steps: int | None

    def spent(self, step: int, seconds: float) -> float:
        """The share of the budget used up, 0 to 1."""
        share = step / self.steps if self.steps else seconds / 60 / (self.minutes or 1.0)
        return min(1.0, share)


def learning_rate(peak: float, step: int, spent: float) -> float:
    """Linear warm-up, then a cosine to zero over the budget."""
    return peak * min(1.0, (step + 1) / WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * spent))


def optimizer(model: nn.Module, device: torch.device) -> torch.optim.AdamW:
    """AdamW; matrices decay, vectors (norms, biases, the newline) do not."""
    weights = list(model.parameters())
    groups = [
        {"params": [w for w in weights if w.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=device.type == "cuda")


def train_step(
    model: LlavaNextForConditionalGeneration,
    sight: nn.Linear,
    sight_weight: float,
    batch: Batch,
    adam: torch.optim.AdamW,
    rate: float,
) -> torch.Tensor:
    """One update; returns the mean losses of an answer token and of a patch, still on the device.

    Besides answering, each feature has to tell through `sight`, a linear layer that is not part of
    the model, which shape is at the middle of its patch and which has its centre in it. Answers alone
    teach the tower colours in minutes but shapes only in hours; centres are what can be counted.
    """
    for group in adam.param_groups:
        group["lr"] = rate
    with torch.autocast(batch.tokens.device.type, torch.bfloat16):
        features = tile_features(model, batch.tiles)
        logits = answer_logits(model, batch, features)
        seen = sight(features)
    answer_loss = nn.functional.cross_entropy(logits, batch.answers)
    looks, centres = seen.flatten(0, 1).float().split(CLASSES, dim=-1)
    sight_loss = nn.functional.cross_entropy(looks, batch.classes.flatten())
    sight_loss = sight_loss + CENTRE_WEIGHT * nn.functional.cross_entropy(centres, batch.centres.flatten())
    adam.zero_grad(set_to_none=True)
    (answer_loss + sight_weight * sight_loss).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    adam.step()
    return torch.stack([answer_loss, sight_loss]).detach()


@torch.no_grad()  # type: ignore[untyped-decorator]
def accuracy(
    model: LlavaNextForConditionalGeneration, batches: Iterable[tuple[list[str], Batch]], device: torch.device
) -> dict[str, float]:
    """Share of examples whose whole answer is right, by kind.

    Each token is the most likely one after the right ones before it, so the answer is right exactly
    when greedy decoding gives it.
    """
    right: dict[str, int] = defaultdict(int)
    asked: dict[str, int] = defaultdict(int)
    for kinds, cpu_batch in batches:
        batch = cpu_batch.to(device)
        with torch.autocast(device.type, torch.bfloat16):
            logits = answer_logits(model, batch, tile_features(model, batch.tiles))
        wrong = logits.argmax(-1) != batch.answers
        failed = set(batch.owners[wrong].tolist())
        for i, kind in enumerate(kinds):
            for key in (kind, "all"):
                asked[key] += 1
                right[key] += i not in failed
    return {kind: right[kind] / asked[kind] for kind in sorted(asked)}


def report(step: int, seconds: float, losses: list[float], scores: dict[str, float]) -> None:
    """Print one line of progress."""
    detail = "  ".join(f"{kind} {score:.1%}" for kind, score in scores.items() if kind != "all")
    loss = f"answers {losses[0]:.4f} sight {losses[1]:.4f}"
    print(f"{seconds:5.0f} s  step {step:6d}  {loss}  all {scores['all']:.1%}  {detail}", flush=True)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="folder that prepare.py wrote")
    parser.add_argument("--out", type=Path, help="where to write model.safetensors (default: the checkpoint)")
    parser.add_argument("--start", type=Path, help="weights to start from instead of random ones")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--minutes", type=float, help="train for this long")
    budget.add_argument("--steps", type=int, help="train for this many updates")
    parser.add_argument("--batch", type=int, default=256, help="dialogues an update, one picture each")
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--sight", type=float, default=1.0, help="weight of what patches show in the loss")
    parser.add_argument("--two-pictures", type=float, default=0.35, help="share of two-picture batches")
    parser.add_argument("--easy", type=int, default=1500, help="updates before the first two-picture batch")
    parser.add_argument("--run", type=int, default=0, help="block of training seeds; another one, other data")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw data")
    parser.add_argument("--validate-every", type=float, default=60.0, help="seconds between validations")
    parser.add_argument("--validation", type=int, default=1000, help="validation examples")
    parser.add_argument("--compile", action="store_true", help="compile the layers (GPU)")
    return parser.parse_args()


def main() -> None:
    """Train, reporting and saving now and then."""
    arguments = parse_arguments()
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    weights_file = (arguments.out or arguments.checkpoint) / "model.safetensors"
    tokenizer_file = str(arguments.checkpoint / "tokenizer.json")
    model = new_model(arguments.checkpoint).to(device).train()
    if arguments.start:
        load_weights(model, arguments.start)
    if arguments.compile:
        compile_layers(model)
    print(f"{sum(w.numel() for w in model.parameters()) / 1e6:.2f} M weights on {device}", flush=True)

    data = TrainingBatches(
        tokenizer_file, arguments.batch, arguments.two_pictures, arguments.easy, arguments.run
    )
    loader = DataLoader(
        data,
        batch_size=None,
        num_workers=arguments.workers,
        pin_memory=device.type == "cuda",
        prefetch_factor=4 if arguments.workers else None,
    )
    validation = list(
        validation_batches(Encoder(Tokenizer.from_file(tokenizer_file)), arguments.validation, size=100)
    )
    sight = nn.Linear(model.config.text_config.hidden_size, 2 * CLASSES, device=device)
    adam = optimizer(nn.ModuleList([model, sight]), device)
    budget = Budget(arguments.minutes, arguments.steps)
    begin = validated = time.monotonic()
    losses = torch.zeros(2)
    for step, batch in enumerate(loader):
        now = time.monotonic()
        spent = budget.spent(step, now - begin)
        if spent >= 1.0 or now - validated > arguments.validate_every:
            report(step, now - begin, losses.tolist(), accuracy(model, validation, device))
            save_weights(model, weights_file)
            validated = time.monotonic()
        if spent >= 1.0:
            break
        rate = learning_rate(arguments.rate, step, spent)
        losses = train_step(model, sight, arguments.sight, batch.to(device), adam, rate)


if __name__ == "__main__":
    main()

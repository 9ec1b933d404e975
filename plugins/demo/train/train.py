"""Train the weights of a demo checkpoint.

Run `prepare.py` first: it writes the tokenizer and the configuration that this reads.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import torch
from batches import Batch, Encoder, Mixture, TrainingBatches, validation_batches
from families import CHECKPOINTS, FAMILIES
from loss import Heads, Loss
from options import parse_arguments
from parallel import average_gradients, join, leave, of_the_first
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from validation import scores
from weights import load_weights, save_weights

SEED = 20261124
WEIGHTS, HEADS, PROGRESS = "model.safetensors", "heads.safetensors", "progress.json"
WEIGHT_DECAY = 0.05


@dataclass(frozen=True)
class Budget:
    """How long to train: a number of minutes or of steps."""

    minutes: float | None
    steps: int | None

    def spent(self, step: int, seconds: float) -> float:
        """The share of the budget used up, 0 to 1."""
        share = step / self.steps if self.steps else seconds / 60 / (self.minutes or 1.0)
        return min(1.0, share)


@dataclass(frozen=True)
class Progress:
    """How far training has come, in `progress.json` beside the weights.

    Attributes:
        step: Number of updates.
        seconds: How long they took.
    """

    step: int = 0
    seconds: float = 0.0

    @classmethod
    def read(cls, file: Path) -> Progress:
        """What `write` wrote."""
        return cls(**json.loads(file.read_text()))

    def write(self, file: Path) -> None:
        """Write it as JSON."""
        file.write_text(json.dumps(asdict(self)))


def learning_rate(peak: float, warm_up: int, step: int, spent: float) -> float:
    """Linear warm-up, then a cosine to zero over the budget."""
    return peak * min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * spent))


def optimizer(model: nn.Module, heads: Heads, device: torch.device) -> torch.optim.AdamW:
    """AdamW; matrices decay, vectors (norms, biases, the newline) do not. The last group are the heads'."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [w for w in weights if w.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
        {"params": list(heads.parameters()), "weight_decay": WEIGHT_DECAY},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=device.type == "cuda")


def train_step(
    family: ModuleType,
    model: nn.Module,
    loss: Loss,
    sight: float,
    batch: Batch,
    adam: torch.optim.AdamW,
    rates: Sequence[float],
) -> Tensor:
    """One update; returns the losses of `Loss.of`, still on the device. `sight` weighs all but the first."""
    for group, rate in zip(adam.param_groups, rates, strict=True):
        group["lr"] = rate
    losses = loss.of(family, model, batch)
    adam.zero_grad(set_to_none=True)
    (losses[0] + sight * losses[1:].sum()).backward()
    average_gradients([weight for group in adam.param_groups for weight in group["params"]])
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    adam.step()
    return losses.detach()


def report(progress: Progress, losses: list[float], found: dict[str, float]) -> None:
    """Print one line of progress: mean losses since the last one, and the scores found."""
    detail = "  ".join(f"{kind} {score:.1%}" for kind, score in found.items() if kind != "all")
    loss = f"answers {losses[0]:.4f} sight {losses[1]:.4f} looks {losses[2]:.4f} places {losses[3]:.4f}"
    whole = f"  all {found['all']:.1%}  {detail}" if found else ""
    print(f"{progress.seconds:5.0f} s  step {progress.step:6d}  {loss}{whole}", flush=True)


def batches_of(
    arguments: argparse.Namespace,
    family: ModuleType,
    tokenizer_file: str,
    before: Progress,
    share: tuple[int, int],
    device: torch.device,
) -> DataLoader[Batch]:
    """The training batches that the command line asks for, without those of earlier runs to be resumed."""
    mixture = Mixture(
        two_images=arguments.two_images,
        boxes=arguments.boxes,
        videos=arguments.videos,
        easy=arguments.easy,
        turns=tuple(arguments.turns),
        favour=dict(arguments.favour),
    )
    data = TrainingBatches(
        family.FORMAT,
        tokenizer_file,
        arguments.batch,
        mixture,
        run=arguments.run,
        first=before.step,
        multiple=arguments.multiple,
        share=share,
    )
    return DataLoader(
        data,
        batch_size=None,
        num_workers=arguments.workers,
        pin_memory=device.type == "cuda",
        prefetch_factor=4 if arguments.workers else None,
    )


def model_of(
    arguments: argparse.Namespace, family: ModuleType, checkpoint: Path, tokenizer: Tokenizer
) -> nn.Module:
    """The model that the command line asks for, with the weights to start from."""
    model = family.new_model(checkpoint)
    start = arguments.resume / WEIGHTS if arguments.resume else arguments.start
    if start:
        load_weights(model, family.hub_name, start)
    if arguments.extend and not arguments.resume:
        family.extend(model, tokenizer)
    if arguments.sight_only:
        model.model.language_model.requires_grad_(False)
        model.lm_head.requires_grad_(False)
    if arguments.compile:
        family.compile_layers(model)
    return model


def validation_of(arguments: argparse.Namespace, encoder: Encoder) -> list[tuple[list[str], Batch]]:
    """The validation examples that the command line asks for."""
    boxes = arguments.validation_boxes if arguments.boxes else 0
    videos = arguments.validation_videos if arguments.videos else 0
    return list(validation_batches(encoder, arguments.validation, boxes, videos))


def main() -> None:
    """Train, reporting and saving now and then."""
    arguments = parse_arguments()
    rank, processes = join()
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    family = FAMILIES[arguments.model_type]
    checkpoint = arguments.checkpoint or CHECKPOINTS[arguments.model_type]
    out = arguments.out or checkpoint
    out.mkdir(parents=True, exist_ok=True)
    tokenizer_file = str(checkpoint / "tokenizer.json")
    tokenizer = Tokenizer.from_file(tokenizer_file)
    model = model_of(arguments, family, checkpoint, tokenizer).to(device).train()
    if rank == 0:
        print(f"{sum(w.numel() for w in model.parameters()) / 1e6:.2f} M weights on {device}", flush=True)

    validation = validation_of(arguments, Encoder(family.FORMAT, tokenizer, arguments.multiple))
    first = validation[0][1]
    hidden_size = model.config.text_config.hidden_size
    heads = Heads(hidden_size, first.classes.shape[1], first.nearest.shape[1]).to(device)
    if heads_file := arguments.resume / HEADS if arguments.resume else arguments.heads:
        heads.load_state_dict(load_file(heads_file, device.type), strict=False)
    looks = load_file(arguments.looks, device.type)["looks"] if arguments.looks else None
    loss = Loss(not arguments.sight_only, heads, looks)
    adam = optimizer(model, heads, device)
    budget = Budget(arguments.minutes, arguments.steps)
    before = Progress.read(arguments.resume / PROGRESS) if arguments.resume else Progress()
    loader = batches_of(arguments, family, tokenizer_file, before, (rank, processes), device)
    begin = validated = time.monotonic()
    losses, summed = torch.zeros(4, device=device), 0
    for done, batch in enumerate(loader):
        now = time.monotonic()
        progress = Progress(before.step + done, before.seconds + now - begin)
        spent = of_the_first(budget.spent(progress.step, progress.seconds))
        stops = spent >= 1.0 or of_the_first(now - begin) >= 60 * arguments.stop_after
        if rank == 0 and (stops or now - validated > arguments.validate_every):
            found = scores(family, model, tokenizer, validation, device) if loss.answers else {}
            report(progress, (losses / max(1, summed)).tolist(), found)
            losses, summed = torch.zeros_like(losses), 0
            save_weights(model, family.hub_name, out / WEIGHTS)
            save_file(heads.state_dict(), out / HEADS)
            progress.write(out / PROGRESS)
            validated = time.monotonic()
        if stops:
            break
        alone = 0 if arguments.resume else arguments.heads_first
        rate = learning_rate(arguments.rate, arguments.warm_up, done - alone, spent)
        rates = (0.0, 0.0, arguments.rate) if done < alone else (rate, rate, rate)
        losses += train_step(family, model, loss, arguments.sight, batch.to(device), adam, rates)
        summed += 1
    leave()


if __name__ == "__main__":
    main()

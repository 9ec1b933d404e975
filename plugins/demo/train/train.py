"""Train the weights of a demo checkpoint.

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
from types import ModuleType

import torch
from batches import Batch, Encoder, TrainingBatches, validation_batches
from families import CHECKPOINTS, FAMILIES
from loss import Heads, Loss
from parallel import average_gradients, join, leave, of_the_first
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from weights import load_weights, save_weights

from vlm_run_demo.questions import ABOUT_ONE, ABOUT_TWO

SEED = 20261124
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


def learning_rate(peak: float, warm_up: int, step: int, spent: float) -> float:
    """Linear warm-up, then a cosine to zero over the budget."""
    return peak * min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * spent))


def optimizer(model: nn.Module, device: torch.device) -> torch.optim.AdamW:
    """AdamW; matrices decay, vectors (norms, biases, the newline) do not."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [w for w in weights if w.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=device.type == "cuda")


def train_step(
    family: ModuleType,
    model: nn.Module,
    loss: Loss,
    sight: float,
    batch: Batch,
    adam: torch.optim.AdamW,
    rate: float,
) -> Tensor:
    """One update; returns the losses of `Loss.of`, still on the device. `sight` weighs all but the first."""
    for group in adam.param_groups:
        group["lr"] = rate
    losses = loss.of(family, model, batch)
    adam.zero_grad(set_to_none=True)
    (losses[0] + sight * losses[1:].sum()).backward()
    average_gradients([weight for group in adam.param_groups for weight in group["params"]])
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    adam.step()
    return losses.detach()


@torch.no_grad()  # type: ignore[untyped-decorator]
def accuracy(
    family: ModuleType, model: nn.Module, batches: Iterable[tuple[list[str], Batch]], device: torch.device
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
            logits = family.answer_logits(model, batch, family.features(model, batch))
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
    loss = f"answers {losses[0]:.4f} sight {losses[1]:.4f} looks {losses[2]:.4f} places {losses[3]:.4f}"
    whole = f"  all {scores['all']:.1%}  {detail}" if scores else ""
    print(f"{seconds:5.0f} s  step {step:6d}  {loss}{whole}", flush=True)


def favoured(text: str) -> tuple[str, float]:
    """A kind of question and how many times as likely as others it is to be asked, of `KIND=TIMES`."""
    kind, _, times = text.rpartition("=")
    if kind not in ABOUT_ONE | ABOUT_TWO:
        raise argparse.ArgumentTypeError(
            f"no kind of question: {kind!r}; there are {', '.join(ABOUT_ONE | ABOUT_TWO)}"
        )
    return kind, float(times)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-type", choices=FAMILIES, default="demo-llava")
    parser.add_argument(
        "--checkpoint", type=Path, help="directory that prepare.py wrote (default: the plugin's)"
    )
    parser.add_argument("--out", type=Path, help="where to write model.safetensors (default: the checkpoint)")
    parser.add_argument("--start", type=Path, help="weights to start from instead of random ones")
    parser.add_argument("--heads", type=Path, help="heads.safetensors of the run that they are from")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--minutes", type=float, help="train for this long")
    budget.add_argument("--steps", type=int, help="train for this many updates")
    parser.add_argument(
        "--batch", type=int, default=256, help="dialogues an update of a process, one image each"
    )
    parser.add_argument(
        "--multiple", type=int, default=64, help="pad batches to a multiple of so many tokens"
    )
    parser.add_argument("--turns", type=int, nargs=2, default=(1, 10), help="fewest and most of a dialogue")
    parser.add_argument(
        "--favour", type=favoured, nargs="*", default=[], help="KIND=TIMES: ask this more often"
    )
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--warm-up", type=int, default=300, help="updates until that rate")
    parser.add_argument("--sight", type=float, default=1.0, help="weight of what features show in the loss")
    parser.add_argument("--sight-only", action="store_true", help="leave the language model out")
    parser.add_argument("--looks", type=Path, help="file of warm_start.py: what features are to look like")
    parser.add_argument("--two-images", type=float, default=0.35, help="share of two-image batches")
    parser.add_argument("--easy", type=int, default=1500, help="updates before the first two-image batch")
    parser.add_argument("--run", type=int, default=0, help="block of training seeds; another one, other data")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw data")
    parser.add_argument("--validate-every", type=float, default=60.0, help="seconds between validations")
    parser.add_argument("--validation", type=int, default=1000, help="validation examples")
    parser.add_argument("--compile", action="store_true", help="compile the layers (demo-llava on a GPU)")
    return parser.parse_args()


def main() -> None:
    """Train, reporting and saving now and then."""
    arguments = parse_arguments()
    rank, processes = join()
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    family = FAMILIES[arguments.model_type]
    checkpoint = arguments.checkpoint or CHECKPOINTS[arguments.model_type]
    weights_file = (arguments.out or checkpoint) / "model.safetensors"
    tokenizer_file = str(checkpoint / "tokenizer.json")
    model = family.new_model(checkpoint).to(device).train()
    if arguments.start:
        load_weights(model, family.hub_name, arguments.start)
    if arguments.sight_only:
        model.model.language_model.requires_grad_(False)
        model.lm_head.requires_grad_(False)
    if arguments.compile:
        family.compile_layers(model)
    if rank == 0:
        print(f"{sum(w.numel() for w in model.parameters()) / 1e6:.2f} M weights on {device}", flush=True)

    data = TrainingBatches(
        family.FORMAT,
        tokenizer_file,
        arguments.batch,
        two_images=arguments.two_images,
        easy=arguments.easy,
        run=arguments.run,
        turns=tuple(arguments.turns),
        favour=dict(arguments.favour),
        multiple=arguments.multiple,
        share=(rank, processes),
    )
    loader = DataLoader(
        data,
        batch_size=None,
        num_workers=arguments.workers,
        pin_memory=device.type == "cuda",
        prefetch_factor=4 if arguments.workers else None,
    )
    encoder = Encoder(family.FORMAT, Tokenizer.from_file(tokenizer_file), arguments.multiple)
    validation = list(validation_batches(encoder, arguments.validation, size=100))
    heads = Heads(model.config.text_config.hidden_size, validation[0][1].classes.shape[1]).to(device)
    if arguments.heads:
        heads.load_state_dict(load_file(arguments.heads, device.type), strict=False)
    looks = load_file(arguments.looks, device.type)["looks"] if arguments.looks else None
    loss = Loss(not arguments.sight_only, heads, looks)
    adam = optimizer(nn.ModuleList([model, heads]), device)
    budget = Budget(arguments.minutes, arguments.steps)
    begin = validated = time.monotonic()
    losses = torch.zeros(4)
    for step, batch in enumerate(loader):
        now = time.monotonic()
        spent = of_the_first(budget.spent(step, now - begin))
        if rank == 0 and (spent >= 1.0 or now - validated > arguments.validate_every):
            scores = accuracy(family, model, validation, device) if loss.answers else {}
            report(step, now - begin, losses.tolist(), scores)
            save_weights(model, family.hub_name, weights_file)
            save_file(heads.state_dict(), weights_file.with_name("heads.safetensors"))
            validated = time.monotonic()
        if spent >= 1.0:
            break
        rate = learning_rate(arguments.rate, arguments.warm_up, step, spent)
        losses = train_step(family, model, loss, arguments.sight, batch.to(device), adam, rate)
    leave()


if __name__ == "__main__":
    main()

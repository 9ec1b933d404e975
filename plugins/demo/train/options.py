"""The command line of `train.py`."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from families import FAMILIES

from vlm_run_demo.questions import ABOUT_ONE, ABOUT_TWO


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
    parser = argparse.ArgumentParser(description="Train the weights of a demo checkpoint.")
    parser.add_argument("--model-type", choices=FAMILIES, default="demo-llava")
    parser.add_argument(
        "--checkpoint", type=Path, help="directory that prepare.py wrote (default: the plugin's)"
    )
    parser.add_argument("--out", type=Path, help="where to write model.safetensors (default: the checkpoint)")
    parser.add_argument("--start", type=Path, help="weights to start from instead of random ones")
    parser.add_argument("--heads", type=Path, help="heads.safetensors of the run that they are from")
    parser.add_argument("--resume", type=Path, help="directory (--out) of a run to go on with")
    parser.add_argument(
        "--stop-after", type=float, default=math.inf, help="minutes after which to stop, to be resumed"
    )
    parser.add_argument(
        "--extend", action="store_true", help="the start knows neither boxes nor videos: prepare it for them"
    )
    parser.add_argument("--heads-first", type=int, default=0, help="updates of the auxiliary layers alone")
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
    parser.add_argument("--boxes", type=float, default=0.0, help="share of batches with boxes (demo-qwen)")
    parser.add_argument("--videos", type=float, default=0.0, help="share of batches with clips (demo-qwen)")
    parser.add_argument(
        "--easy", type=int, default=1500, help="updates before the first batch of another kind"
    )
    parser.add_argument("--run", type=int, default=0, help="block of training seeds; another one, other data")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw data")
    parser.add_argument("--validate-every", type=float, default=60.0, help="seconds between validations")
    parser.add_argument("--validation", type=int, default=1000, help="validation examples")
    parser.add_argument(
        "--validation-boxes", type=int, default=200, help="those of boxes, if any are learned"
    )
    parser.add_argument("--validation-videos", type=int, default=200, help="those of clips, likewise")
    parser.add_argument("--compile", action="store_true", help="compile the layers (demo-llava on a GPU)")
    return parser.parse_args()

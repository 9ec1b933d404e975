"""How busy videos keep a GPU: python benchmarks/video_engine.py [--seconds 60 --count 24]

Asks `Engine.infer` about many clips of 30 frames a second, of which Qwen2-VL sees two a second. Prints the
videos per second, the share of the time in which the GPU was busy, and the mean time of each stage of a
request. The checkpoint has the dimensions of Qwen2-VL-2B and random weights. Only a few clips are encoded;
the others are copies of them with a few more bytes that decoders skip, so that no cache takes two for one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from checkpoints import write
from environment import environment
from video import CONTEXT, MODEL_TYPE, write_clip

from vlm_run import Limits, Registry
from vlm_run.bench.load import Watch
from vlm_run.engine.renderer_pool import default_pool_size
from vlm_run.response import Response

if TYPE_CHECKING:
    from vlm_run.engine import Engine

QUESTION = "What happens?"
STAGES = ("decode", "process", "engine")


def main() -> None:
    """Parse the command line, write the clips and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=int, action="append", help="length of the clips; repeatable, 60")
    parser.add_argument("--count", type=int, action="append", help="clips a round, for each --seconds; 24")
    parser.add_argument("--size", type=int, nargs=2, default=(1280, 720), help="width and height in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--encoded", type=int, default=4, help="clips of each length that are encoded")
    parser.add_argument("--renderers", type=int, help="number of renderer processes")
    parser.add_argument("--options", type=json.loads, default={}, help="engine options, as JSON")
    parser.add_argument("--tiny", action="store_true", help="a checkpoint with small dimensions")
    asked = parser.parse_args()
    lengths = asked.seconds or [60]
    counts = asked.count or [24] * len(lengths)
    if len(counts) != len(lengths):
        parser.error("give --count once for each --seconds")
    # Each request that the engine has admitted holds its frames in memory, hundreds of megabytes a minute.
    options = {"load_format": "dummy", "max_num_seqs": 8, "enable_prefix_caching": False, **asked.options}
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        began = time.perf_counter()
        clips = {each: encode(directory, each, tuple(asked.size), asked.encoded) for each in lengths}
        encoded = time.perf_counter()
        checkpoint = write(MODEL_TYPE, directory, tiny=asked.tiny)
        with_context(checkpoint)
        limits = Limits(max_videos=1, max_model_len=CONTEXT)
        adapter = Registry.load(MODEL_TYPE, checkpoint=str(checkpoint), limits=limits)
        with adapter.engine(renderers=asked.renderers, **options) as engine:
            started = time.perf_counter()
            results = []
            for seconds, count in zip(lengths, counts, strict=True):
                results.append(measure(engine, clips[seconds], seconds, count, asked.rounds))
                print(json.dumps(results[-1]), file=sys.stderr, flush=True)  # kept if a later one fails
    report = {
        "size": list(asked.size),
        "options": options,
        "renderers": default_pool_size() if asked.renderers is None else asked.renderers,
        "seconds to encode clips": round(encoded - began, 1),
        "seconds to start": round(started - encoded, 1),
        "results": results,
        **environment("transformers", "torch", "opencv-python-headless"),
    }
    print(json.dumps(report, indent=2))


def encode(directory: Path, seconds: int, size: tuple[int, int], count: int) -> list[Path]:
    """Write clips of one length, each in a process of its own, as far as there are cores."""
    paths = [directory / f"{seconds}-{number}.mp4" for number in range(count)]
    workers = min(count, len(os.sched_getaffinity(0)))
    # Forked, before there are threads: spawned ones would each import vLLM's libraries first.
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        return list(pool.map(write_clip, paths, [seconds] * count, [size] * count, range(count)))


def with_context(checkpoint: Path) -> None:
    """Give a checkpoint the context that a video of a minute needs."""
    file = checkpoint / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "max_position_embeddings": CONTEXT}))


def copied(clips: Sequence[Path], count: int, first: int) -> list[Path]:
    """Clips that are all different, by a box of MP4 at the end that decoders skip."""
    copies = []
    for number in range(first, first + count):
        original = clips[number % len(clips)]
        copy = original.with_name(f"{original.stem}-copy-{number}.mp4")
        shutil.copy(original, copy)
        with copy.open("ab") as file:
            file.write((16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big"))
        copies.append(copy)
    return copies


def measure(engine: Engine, clips: Sequence[Path], seconds: int, count: int, rounds: int) -> dict[str, Any]:
    """The measurements of clips of one length. A first round that does not count warms the engine up."""
    found: list[tuple[Watch, list[Response]]] = []
    for number in range(rounds + 1):
        files = copied(clips, count if number else min(count, 4), number * count)
        with Watch() as watch:
            responses = engine.infer(
                [{"query": QUESTION, "videos": [str(file)]} for file in files], {"max_tokens": 8}
            )
        for file in files:
            file.unlink()
        for response in responses:
            response.raise_for_error()
        if number:
            found.append((watch, responses))
    whole = sum(watch.seconds for watch, _ in found)
    answers = [response for _, responses in found for response in responses]
    busy = [watch.gpu_busy for watch, _ in found if watch.gpu_busy is not None]
    return {
        "seconds of a clip": seconds,
        "mebibytes of a clip": round(mean(clip.stat().st_size for clip in clips) / 2**20, 1),
        "video tokens": sum(answers[0].usage.video_tokens),
        "videos": len(answers),
        "videos/s": round(len(answers) / whole, 3),
        "videos/s by round": [round(count / watch.seconds, 3) for watch, _ in found],
        "GPU busy": round(mean(busy), 3) if busy else None,
        "GPU busy by round": [round(share, 3) for share in busy],
        "CPU seconds a video": round(sum(watch.cpu_seconds for watch, _ in found) / len(answers), 2),
        "mean seconds of a request": {
            "in all": round(mean(each.seconds for each in answers), 2),
            **{stage: round(mean(getattr(each.stages, stage) for each in answers), 2) for stage in STAGES},
        },
    }


if __name__ == "__main__":
    main()

"""Where the time goes with a video, up to the engine: python benchmarks/video.py [--seconds 60]

Writes a clip of 30 frames a second, and renders a question about it with vLLM's processor for Qwen2-VL as a
renderer process does: 2 frames a second, at the size that the model sees. Prints seconds of CPU time of each
stage, which other work on the machine hardly changes, the first time and with the video in vLLM's cache.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from checkpoints import write

from vlm_run import Conversation, FrameSelection, Limits, MediaPolicy, Registry
from vlm_run.engine.renderer import Renderer
from vlm_run.engine.versions import vllm_version
from vlm_run.media.video import sample_video
from vlm_run.video import load_clip

T = TypeVar("T")

MODEL_TYPE = "qwen2-vl-2b-instruct"
# A minute takes 43,200 tokens, more than the checkpoint's own context.
CONTEXT = 65536


def write_clip(path: Path, seconds: int, size: tuple[int, int], seed: int = 0) -> Path:
    """Write an MP4 of a textured scene, another one for each seed, that moves in every frame."""
    width, height = size
    scene = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 4, 3), np.uint8)
    scene = cv2.resize(scene, (2 * width, height), interpolation=cv2.INTER_CUBIC)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30, size)
    for number in range(30 * seconds):
        left = 3 * number % width
        writer.write(np.ascontiguousarray(scene[:, left : left + width]))
    writer.release()
    return path


def measured(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds of this process's CPU time that the work takes, and its result."""
    since = time.process_time()
    result = work()
    return time.process_time() - since, result


def main() -> None:
    """Parse the command line, write the clip and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--size", default="1280x720", help="width and height in pixels")
    asked = parser.parse_args()
    width, height = map(int, asked.size.split("x"))
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    with tempfile.TemporaryDirectory() as temporary:
        clip = write_clip(Path(temporary) / "clip.mp4", asked.seconds, (width, height))
        print(json.dumps(report(clip, write(MODEL_TYPE, Path(temporary), tiny=True)), indent=2))


def report(clip: Path, checkpoint: Path) -> dict[str, Any]:
    """The seconds of each stage."""
    config_file = checkpoint / "config.json"
    config = json.loads(config_file.read_text()) | {"max_position_embeddings": CONTEXT}
    config_file.write_text(json.dumps(config))
    limits = Limits(max_videos=1, max_model_len=CONTEXT)
    adapter = Registry.load(MODEL_TYPE, checkpoint=checkpoint, limits=limits)
    facts, policy, content = adapter.video_facts(), MediaPolicy(), clip.read_bytes()

    from vllm.renderers import renderer_from_config

    vllm_config = adapter.vllm_config(dtype="float32", enforce_eager=True, mm_processor_cache_gb=4)
    vllm_renderer = renderer_from_config(vllm_config)
    renderer = Renderer(adapter, vllm_renderer, policy)
    conversation = Conversation.from_query("What happens?", videos=[content])
    try:
        small = Conversation.from_query("What happens?", videos=[content]).with_frame_selection(
            FrameSelection(num_frames=2)
        )
        asyncio.run(renderer.render(small))  # what is imported and allocated once
        decode, _ = measured(lambda: sample_video(content, policy, lambda n, _: [n - 1], lambda *_: (1, 1)))
        load, frames = measured(lambda: load_clip(facts, content, FrameSelection(), policy))
        first, rendered = measured(lambda: asyncio.run(renderer.render(conversation)))
        again, cached = measured(lambda: asyncio.run(renderer.render(conversation)))
    finally:
        vllm_renderer.shutdown()
    assert cached.reused_videos == 1
    return {
        "versions": {
            "vllm": str(vllm_version()),
            "transformers": version("transformers"),
            "torch": version("torch"),
        },
        "mebibytes": round(len(content) / 2**20, 1),
        "frames seen": len(frames.times),
        "video tokens": sum(rendered.video_tokens),
        "CPU seconds": {
            "decode all frames": round(decode, 2),
            "convert and scale those that the model sees": round(load - decode, 2),
            "vLLM's processor": round(first - load, 2),
            "in all": round(first, 2),
            "in all, with the video in vLLM's cache": round(again, 2),
        },
    }


if __name__ == "__main__":
    main()

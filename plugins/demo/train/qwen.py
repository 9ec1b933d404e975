"""demo-qwen: its prompt, how it sees an image, and transformers' Qwen2-VL with a batched forward pass.

What is done to images and clips is written against Pillow and numpy so that data workers need no framework;
`check.py` compares it with the processor and model of transformers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from batches import Batch, Format, Seen, Segment
from numpy.typing import NDArray
from PIL import Image
from pixels import normalized
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision

from vlm_run import DynamicResolution, FrameSelection, MediaPolicy
from vlm_run.media import video as media_video
from vlm_run_demo import model_specs
from vlm_run_demo.boxes import TAGS
from vlm_run_demo.clips import Clip, film, frames
from vlm_run_demo.dialogues import Dialogue
from vlm_run_demo.drawing import Scene, class_map, class_of, edges

PATCH = 8
"""Side in pixels of a patch."""
MERGE = 2
"""Patches along one side of the square that becomes one image token."""
TOKEN = PATCH * MERGE
"""Side in pixels of the square that becomes one image token."""
VISION = DynamicResolution(patch_size=PATCH, merge_size=MERGE, min_pixels=4096, max_pixels=11264)
(VIDEO,) = (spec.video for spec in model_specs() if spec.video is not None)
LEARNED = 0.8
"""Length of the embedding of a token that the model knows well."""
EARLY = 2
"""The layer of the language model after which an image's tokens are to know where they stand."""

SYSTEM = "You are a helpful assistant."


def segments(talk: Dialogue) -> Iterator[Segment]:
    """What the chat template writes for `talk`."""
    opening = f"<|im_start|>system\n{SYSTEM if talk.system is None else talk.system}<|im_end|>\n"
    images = "<|vision_start|><|image_pad|><|vision_end|>" * len(talk.scenes)
    images += "<|vision_start|><|video_pad|><|vision_end|>" * (talk.clip is not None)
    for turn in talk.turns:
        question = f"<|im_start|>user\n{images}{turn.question}<|im_end|>\n<|im_start|>assistant\n"
        yield Segment(opening + question, False)
        yield Segment(f"{turn.answer}<|im_end|>", turn.is_learned)
        opening, images = "\n", ""


def in_patches(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A resized image cut into patches, those of one image token together: (patches, 8, 8, channels)."""
    height, width = pixels.shape[:2]
    cut = pixels.reshape(height // TOKEN, MERGE, PATCH, width // TOKEN, MERGE, PATCH, -1)
    return cut.transpose(0, 3, 1, 4, 2, 5, 6).reshape(-1, PATCH, PATCH, cut.shape[-1])


def nearest(scene: Scene, rows: int, columns: int) -> NDArray[np.float32]:
    """Where the centre and the edges of the shape nearest to each image token are, as `Seen` has it.

    A shape is near to a token whose middle it covers, and to the one that its centre lies in.
    """
    told = np.full((rows * columns, 7), np.nan, dtype=np.float32)
    if not scene.shapes:
        return told
    down, across = rows / scene.height, columns / scene.width
    middles = np.indices((rows, columns)).reshape(2, -1, 1) + 0.5
    points = np.array(
        [[shape.y * down for shape in scene.shapes], [shape.x * across for shape in scene.shapes]]
    )
    sizes = np.array([shape.size for shape in scene.shapes]) * math.sqrt(down * across)
    offsets = points[:, None] - middles
    distances = np.hypot(*offsets)
    best = distances.argmin(1)
    every = np.arange(len(best))
    near = distances[every, best] < np.maximum(0.71, sizes[best])
    boxes = np.array([edges(shape) for shape in scene.shapes]) * (across, down, across, down)
    sides = boxes[best] - middles[[1, 0, 1, 0], :, 0].T
    told[near] = np.column_stack([*offsets[:, every, best], np.log(sizes[best]), sides])[near]
    return told


def look(scene: Scene, image: Image.Image) -> Seen:
    """What the model is given of an image, and what its features should tell."""
    size = VISION.resized(*image.size)
    pixels = in_patches(np.asarray(image.resize(size, Image.Resampling.BICUBIC)))
    return _seen(pixels, [scene], size)


def sampled_frames(video: bytes) -> media_video.Clip:
    """The frames of a video file that vlm-run gives vLLM, at the size at which the model sees them."""
    return media_video.sample_video(
        video,
        MediaPolicy(),
        lambda available, fps: VIDEO.choose_frames(available, fps, FrameSelection()),
        VIDEO.resized,
    )


def watch(clip: Clip) -> Seen:
    """What the model is given of a clip, through a file as vLLM gets it, and what its features should tell.

    They tell what the second of each two frames shows.
    """
    sampled = sampled_frames(film(frames(clip), clip.fps))
    height, width = sampled.frames.shape[1:3]
    first, second = (
        np.concatenate([in_patches(frame) for frame in sampled.frames[half::2]]) for half in (0, 1)
    )
    scenes = [clip.at(round(time * clip.fps) / clip.fps) for time in sampled.times[1::2]]
    return _seen(first, scenes, (width, height), second)


def _seen(
    pixels: NDArray[np.uint8],
    scenes: Sequence[Scene],
    size: tuple[int, int],
    later: NDArray[np.uint8] | None = None,
) -> Seen:
    """What is seen of an image, or of each two frames of a clip, each with what is in it.

    Args:
        pixels: The patches.
        scenes: What an image shows, or each two frames.
        size: Width and height in pixels after resizing.
        later: The patches of second frames.
    """
    columns, rows = (side // TOKEN for side in size)
    return Seen(
        pixels=pixels,
        layout=np.arange(len(scenes) * rows * columns),
        positions=np.indices((len(scenes), rows, columns)).reshape(3, -1),
        grids=np.tile((rows * MERGE, columns * MERGE), (len(scenes), 1)),
        classes=np.concatenate([_classes(scene, size) for scene in scenes]),
        centres=np.concatenate([_centres(scene, rows, columns) for scene in scenes]),
        nearest=np.concatenate([nearest(scene, rows, columns) for scene in scenes]),
        later=later,
    )


def _classes(scene: Scene, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The shapes at the middle of the patches of each image token, (tokens, patches)."""
    resized = np.asarray(class_map(scene).resize(size, Image.Resampling.NEAREST))
    return in_patches(resized)[:, PATCH // 2, PATCH // 2, 0].reshape(-1, MERGE * MERGE)


def _centres(scene: Scene, rows: int, columns: int) -> NDArray[np.uint8]:
    """The shape whose centre lies in the area of each image token, (tokens,)."""
    centres = np.zeros((rows, columns), dtype=np.uint8)
    for shape in scene.shapes:
        centres[int(shape.y / scene.height * rows), int(shape.x / scene.width * columns)] = class_of(shape)
    return centres.reshape(-1)


FORMAT = Format("<|image_pad|>", "<|video_pad|>", None, "<|endoftext|>", segments, look, watch)


def new_model(checkpoint: Path) -> Qwen2VLForConditionalGeneration:
    """The model of `config.json` with random weights, in float32."""
    config = AutoConfig.from_pretrained(checkpoint)
    config.dtype = torch.float32
    # Written out, attention costs a CPU less.
    attention = "sdpa" if torch.cuda.is_available() else "eager"
    return Qwen2VLForConditionalGeneration._from_config(config, attn_implementation=attention)


def extend(model: Qwen2VLForConditionalGeneration, tokenizer: Tokenizer) -> None:
    """Prepare a model that has only been trained on questions about images for boxes and videos.

    Images are two equal frames, so nothing changes for them if only the second is seen; of a clip the model
    then first sees what it sees of images, and learns what the first frame tells. Tokens that no answer has
    had (counts end at 6) are all alike in the last layer, and begin anew, different from each other.
    """
    kernel = model.model.visual.patch_embed.proj.weight
    new = [tokenizer.token_to_id(token) for token in (*TAGS, *"(),789")]
    with torch.no_grad():
        kernel[:, :, 1] += kernel[:, :, 0]
        kernel[:, :, 0] = 0
        for weight in (model.model.language_model.embed_tokens.weight, model.lm_head.weight):
            weight[new] = torch.randn(len(new), weight.shape[1]) * LEARNED / weight.shape[1] ** 0.5


def hub_name(name: str) -> str:
    """The Hub's name of the parameter that transformers calls `name`."""
    return name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")


@lru_cache(maxsize=4096)
def _patch_positions(rows: int, columns: int) -> Tensor:
    """Row and column of each patch of an image, those of one image token together: (2, patches)."""
    where = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"))
    cut = where.reshape(2, rows // MERGE, MERGE, columns // MERGE, MERGE)
    return cut.permute(0, 1, 3, 2, 4).reshape(2, -1)


def _in_rows(part: Tensor, slots: Tensor, rows: int, longest: int) -> Tensor:
    """Patches one after another, (patches, heads, size), as padded rows: (rows, heads, longest, size)."""
    padded = torch.zeros(rows * longest, *part.shape[1:], dtype=part.dtype, device=part.device)
    return padded.index_copy(0, slots, part).unflatten(0, (rows, longest)).transpose(1, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention where `mask` allows it, written out: on a CPU its gradient costs a third of torch's own."""
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    return scores.masked_fill(~mask, float("-inf")).softmax(-1).to(value.dtype) @ value


def features(model: Qwen2VLForConditionalGeneration, batch: Batch) -> Tensor:
    """What the vision tower makes of the images, one after another: (features, text hidden size).

    Images are padded to one length, which costs less than one call of attention for each.
    """
    tower = model.model.visual
    if not len(batch.pixels):
        return torch.zeros(0, model.config.text_config.hidden_size, device=batch.pixels.device)
    pixels = normalized(batch.pixels)
    # An image is a film of two equal frames: one convolution by the sum of both kernels. A clip adds that of
    # the difference between its frames by the second.
    kernel = tower.patch_embed.proj.weight
    hidden = nn.functional.linear(pixels.flatten(1), kernel.sum(2).flatten(1))
    change = (normalized(batch.later) - pixels[batch.moving]).flatten(1)
    hidden = hidden.index_add(0, batch.moving, nn.functional.linear(change, kernel[:, :, 1].flatten(1)))
    where = torch.cat([_patch_positions(*grid) for grid in batch.grids.tolist()], dim=1)
    cos, sin = tower.rotary_pos_emb(hidden, where.T.to(hidden.device))
    counts = batch.grids.prod(-1)
    longest = int(counts.max())
    inside = torch.arange(longest, device=hidden.device) < counts[:, None]
    slots = inside.flatten().nonzero().squeeze(1)
    for block in tower.blocks:
        attention = block.attn
        qkv = attention.qkv(block.norm1(hidden)).view(len(hidden), 3, attention.num_heads, -1)
        query, key = apply_rotary_pos_emb_vision(qkv[:, 0], qkv[:, 1], cos, sin)
        query, key, value = (_in_rows(part, slots, *inside.shape) for part in (query, key, qkv[:, 2]))
        mixed = _attend(query, key, value, inside[:, None, None, :])
        mixed = mixed.transpose(1, 2).reshape(inside.numel(), -1)[slots]
        hidden = hidden + attention.proj(mixed)
        hidden = hidden + block.mlp(block.norm2(hidden))
    merged: Tensor = tower.merger(hidden)
    return merged


def run(model: Qwen2VLForConditionalGeneration, batch: Batch, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of the answer tokens given the features of the images, and what layer `EARLY` makes of all.

    Padding is on the right, so causal attention alone keeps it away from what counts.

    Returns:
        (answer tokens, vocabulary) and (batch, length, hidden size).
    """
    words: Tensor = model.model.language_model.embed_tokens(batch.tokens)
    # Row 0 is nothing, row 1 the newline of models that have one.
    table = torch.cat([torch.zeros(2, seen.shape[1], dtype=seen.dtype, device=seen.device), seen])
    looked_up = nn.functional.embedding(batch.rows, table, padding_idx=0)
    embedded = torch.where((batch.rows > 0)[..., None], looked_up.to(words.dtype), words)
    out = model.model.language_model(
        inputs_embeds=embedded, position_ids=batch.positions, use_cache=False, output_hidden_states=True
    )
    logits: Tensor = model.lm_head(out.last_hidden_state.flatten(0, 1)[batch.places])
    return logits.float(), out.hidden_states[EARLY]


def answer_logits(model: Qwen2VLForConditionalGeneration, batch: Batch, seen: Tensor) -> Tensor:
    """Scores of the answer tokens given the features of the images, (answer tokens, vocabulary)."""
    return run(model, batch, seen)[0]

"""demo-llava: its prompt, how it sees an image, and transformers' LLaVA-NeXT with a batched forward pass."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from anyres import PATCHES, layout, patch_at, patch_classes, tiles
from batches import Batch, Format, Seen, Segment
from PIL import Image
from pixels import normalized
from torch import Tensor, nn
from transformers import AutoConfig, LlavaNextForConditionalGeneration

from vlm_run_demo.dialogues import Dialogue
from vlm_run_demo.drawing import Scene, class_map, class_of

# Module paths inside transformers, and the names that checkpoints on the Hub and vLLM use.
_HUB_NAMES = (
    (re.compile(r"^model\.vision_tower\.(vision_model\.)?"), "vision_tower.vision_model."),
    (re.compile(r"^model\.language_model\."), "language_model.model."),
    (re.compile(r"^lm_head\."), "language_model.lm_head."),
    (re.compile(r"^model\."), ""),
)


def segments(talk: Dialogue) -> Iterator[Segment]:
    """What the chat template writes for `talk`."""
    opening = f"<<SYS>>\n{talk.system}\n<</SYS>>\n\n[INST] " if talk.system is not None else "[INST] "
    opening += "<image>\n" * len(talk.scenes)
    for turn in talk.turns:
        yield Segment(f"{opening}{turn.question} [/INST]", False)
        yield Segment(f" {turn.answer}</s>", True)
        opening = " [INST] "


def look(scene: Scene, image: Image.Image) -> Seen:
    """What the model is given of an image, and what its features should tell."""
    cut = tiles(image)
    centres = np.zeros(len(cut) * PATCHES, dtype=np.uint8)
    for shape in scene.shapes:
        centres[list(patch_at(scene.height, scene.width, shape.x, shape.y))] = class_of(shape)
    return Seen(
        pixels=cut,
        layout=layout(image.height, image.width),
        positions=None,
        grids=np.zeros((1, 2), dtype=np.int64),
        classes=patch_classes(class_map(scene)).reshape(-1, 1),
        centres=centres,
        nearest=np.full((len(centres), 3), np.nan, dtype=np.float32),  # it was trained without
    )


FORMAT = Format("<image>", None, "<s>", "<pad>", segments, look, None)


def new_model(checkpoint: Path) -> LlavaNextForConditionalGeneration:
    """The model of `config.json` with random weights, in float32."""
    config = AutoConfig.from_pretrained(checkpoint)
    config.dtype = torch.float32
    return LlavaNextForConditionalGeneration._from_config(config, attn_implementation="sdpa")


def hub_name(name: str) -> str:
    """The Hub's name of the parameter that transformers calls `name`."""
    for pattern, replacement in _HUB_NAMES:
        name, found = pattern.subn(replacement, name, count=1)
        if found:
            break
    return name


def compile_layers(model: LlavaNextForConditionalGeneration) -> None:
    """Compile each kind of layer once; sequence lengths and tile counts may vary."""
    for layer in [*model.model.vision_tower.modules(), *model.model.language_model.layers]:
        if type(layer).__name__ in ("CLIPEncoderLayer", "MistralDecoderLayer"):
            layer.compile(dynamic=True)


def features(model: LlavaNextForConditionalGeneration, batch: Batch) -> Tensor:
    """Projected features of the tiles, one after another: (features, text hidden size).

    They come from the last but one layer, without the class token; the last layer is not run.
    """
    if not len(batch.pixels):
        return torch.zeros(0, model.config.text_config.hidden_size, device=batch.pixels.device)
    pixels = normalized(batch.pixels)
    tower = getattr(model.model.vision_tower, "vision_model", model.model.vision_tower)
    hidden = tower.pre_layrnorm(tower.embeddings(pixels))
    for layer in tower.encoder.layers[:-1]:
        hidden = layer(hidden, attention_mask=None)
    projected: Tensor = model.model.multi_modal_projector(hidden[:, 1:])
    return projected.flatten(0, 1)


def input_embeddings(model: LlavaNextForConditionalGeneration, batch: Batch, seen: Tensor) -> Tensor:
    """Word embeddings with image features at image tokens, (batch, length, hidden size).

    All features of the batch form one table, from which each image token takes its row; so images
    of any size and number are packed by a single look-up. Row 0 is nothing, row 1 the newline.
    """
    words: Tensor = model.model.language_model.embed_tokens(batch.tokens)
    newline = model.model.image_newline[None].to(seen.dtype)
    table = torch.cat([torch.zeros_like(newline), newline, seen])
    looked_up = nn.functional.embedding(batch.rows, table, padding_idx=0)
    return torch.where((batch.rows > 0)[..., None], looked_up.to(words.dtype), words)


def answer_logits(model: LlavaNextForConditionalGeneration, batch: Batch, seen: Tensor) -> Tensor:
    """Scores of the answer tokens given the features of the images, (answer tokens, vocabulary).

    Padding is on the right, so causal attention alone keeps it away from what counts.
    """
    hidden = model.model.language_model(
        inputs_embeds=input_embeddings(model, batch, seen), use_cache=False
    ).last_hidden_state
    logits: Tensor = model.lm_head(hidden.flatten(0, 1)[batch.places])
    return logits.float()


def run(model: LlavaNextForConditionalGeneration, batch: Batch, seen: Tensor) -> tuple[Tensor, None]:
    """`answer_logits`, and nothing that is to tell where an image's tokens stand: tiles have places."""
    return answer_logits(model, batch, seen), None

"""The model: transformers' LLaVA-NeXT with a batched forward pass, and its weights under Hub names."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import torch
from anyres import PATCHES
from batches import Batch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, LlavaNextForConditionalGeneration

# CLIP's mean and deviation, of pixel levels between 0 and 1.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)

# Module paths inside transformers, and the names that checkpoints on the Hub and vLLM use.
_HUB_NAMES = (
    (re.compile(r"^model\.vision_tower\.(vision_model\.)?"), "vision_tower.vision_model."),
    (re.compile(r"^model\.language_model\."), "language_model.model."),
    (re.compile(r"^lm_head\."), "language_model.lm_head."),
    (re.compile(r"^model\."), ""),
)


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


def save_weights(model: LlavaNextForConditionalGeneration, path: Path) -> None:
    """Write the weights in bfloat16 under Hub names."""
    weights = {
        hub_name(name): weight.detach().to("cpu", torch.bfloat16).contiguous()
        for name, weight in model.named_parameters()
    }
    save_file(weights, path, metadata={"format": "pt"})


def load_weights(model: LlavaNextForConditionalGeneration, path: Path) -> None:
    """Read weights that `save_weights` wrote."""
    weights = load_file(path)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(weights[hub_name(name)])


def compile_layers(model: LlavaNextForConditionalGeneration) -> None:
    """Compile each kind of layer once; sequence lengths and tile counts may vary."""
    for layer in [*model.model.vision_tower.modules(), *model.model.language_model.layers]:
        if type(layer).__name__ in ("CLIPEncoderLayer", "MistralDecoderLayer"):
            layer.compile(dynamic=True)


@cache
def _pixel_statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """CLIP's mean and deviation of pixel levels from 0 to 255, kept on the device."""
    return torch.tensor(_MEAN, device=device) * 255, torch.tensor(_DEVIATION, device=device) * 255


def tile_features(model: LlavaNextForConditionalGeneration, tiles: Tensor) -> Tensor:
    """Projected features of uint8 tiles (tiles, 64, 64, 3): (tiles, 64, text hidden size).

    They come from the last but one layer, without the class token; the last layer is not run.
    """
    if not len(tiles):
        return torch.zeros(0, PATCHES, model.config.text_config.hidden_size, device=tiles.device)
    mean, deviation = _pixel_statistics(tiles.device)
    pixels = ((tiles - mean) / deviation).permute(0, 3, 1, 2)
    tower = getattr(model.model.vision_tower, "vision_model", model.model.vision_tower)
    hidden = tower.pre_layrnorm(tower.embeddings(pixels))
    for layer in tower.encoder.layers[:-1]:
        hidden = layer(hidden, attention_mask=None)
    projected: Tensor = model.model.multi_modal_projector(hidden[:, 1:])
    return projected


def input_embeddings(model: LlavaNextForConditionalGeneration, batch: Batch, features: Tensor) -> Tensor:
    """Word embeddings with image features at image tokens, (batch, length, hidden size).

    All features of the batch form one table, from which each image token takes its row; so pictures
    of any size and number are packed by a single look-up. Row 0 is nothing, row 1 the newline.
    """
    words: Tensor = model.model.language_model.embed_tokens(batch.tokens)
    newline = model.model.image_newline[None].to(features.dtype)
    table = torch.cat([torch.zeros_like(newline), newline, features.flatten(0, 1)])
    pictures = nn.functional.embedding(batch.rows, table, padding_idx=0)
    return torch.where((batch.rows > 0)[..., None], pictures.to(words.dtype), words)


def answer_logits(model: LlavaNextForConditionalGeneration, batch: Batch, features: Tensor) -> Tensor:
    """Scores of the answer tokens given the features of the tiles, (answer tokens, vocabulary).

    Padding is on the right, so causal attention alone keeps it away from what counts.
    """
    hidden = model.model.language_model(
        inputs_embeds=input_embeddings(model, batch, features), use_cache=False
    ).last_hidden_state
    logits: Tensor = model.lm_head(hidden.flatten(0, 1)[batch.places])
    return logits.float()

"""The demo model for training: transformers' own modules, with images packed a batch at a time.

transformers packs each picture's features in a Python loop. A training batch has pictures of one
size, so that here the same is a handful of operations; `check.py` holds the two against each other.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import recipe
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from transformers import CLIPVisionModel, LlavaNextConfig, MistralForCausalLM
from transformers.image_processing_utils import select_best_resolution


class DemoModel(nn.Module):
    """LLaVA-NeXT under the weight names that the hub's checkpoints have and vLLM loads."""

    def __init__(self) -> None:
        super().__init__()
        config = LlavaNextConfig.from_dict(recipe.config())
        self.vision_tower = CLIPVisionModel(config.vision_config)
        self.language_model = MistralForCausalLM(config.text_config)
        vision, text = config.vision_config.hidden_size, config.text_config.hidden_size
        self.linear_1 = nn.Linear(vision, text)
        self.linear_2 = nn.Linear(text, text)
        self.image_newline = nn.Parameter(torch.randn(text) * text**-0.5)

    def embed_images(self, tiles: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Image token embeddings, (pictures, tokens, hidden).

        Args:
            tiles: Thumbnail and tiles of each picture, (pictures, 1 + tiles, 3, 64, 64), uint8.
            size: Width and height in pixels that all the pictures had.
        """
        pictures, count = tiles.shape[:2]
        pixels = tiles.flatten(0, 1).float().div(127.5).sub(1.0)
        with torch.autocast(tiles.device.type, dtype=torch.bfloat16):
            states = self.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
            features = self.linear_2(functional.gelu(self.linear_1(states)))
        side = recipe.TILE // recipe.PATCH
        features = features.view(pictures, count, side, side, -1)
        rows, columns = (length // recipe.TILE for length in canvas(size))
        grid = features[:, 1:].view(pictures, rows, columns, side, side, -1)
        grid = grid.permute(0, 1, 3, 2, 4, 5).reshape(pictures, rows * side, columns * side, -1)
        top, left = unpad(size)
        grid = grid[:, top : grid.shape[1] - top, left : grid.shape[2] - left]
        newline = self.image_newline.to(grid.dtype).expand(pictures, grid.shape[1], 1, -1)
        return torch.cat(
            [features[:, 0].flatten(1, 2), torch.cat([grid, newline], dim=2).flatten(1, 2)], dim=1
        )

    def forward(
        self, ids: torch.Tensor, labels: torch.Tensor, tiles: torch.Tensor | None, size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean loss over the answers' tokens, and which tokens are right where labels are.

        Args:
            ids: Token ids with image tokens expanded, right-padded, (batch, length).
            labels: The same where the model must answer, -100 elsewhere, (batch, length).
            tiles: All pictures of the batch in order, or None.
            size: Width and height of all the pictures.
        """
        embeddings = self.language_model.get_input_embeddings()(ids)
        if tiles is not None:
            images = self.embed_images(tiles, size).flatten(0, 1).to(embeddings.dtype)
            embeddings = embeddings.masked_scatter((ids == recipe.IMAGE).unsqueeze(-1), images)
        with torch.autocast(ids.device.type, dtype=torch.bfloat16):
            # Padding is on the right, where a causal model does not look.
            hidden = self.language_model.model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
            asked = labels[:, 1:] != -100
            logits = self.language_model.lm_head(hidden[:, :-1][asked])
        wanted = labels[:, 1:][asked]
        right = torch.ones_like(labels[:, 1:], dtype=torch.bool)
        right[asked] = logits.argmax(-1) == wanted
        return functional.cross_entropy(logits.float(), wanted), right

    def load_hub_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Take over a checkpoint's weights, as `hub_weights` gives them."""
        own = self.state_dict()
        named = dict(zip(self.hub_weights(), [n for n in own if not n.endswith("position_ids")], strict=True))
        assert named.keys() == weights.keys(), named.keys() ^ weights.keys()
        for hub_name, name in named.items():
            own[name].copy_(weights[hub_name])

    def hub_weights(self) -> dict[str, torch.Tensor]:
        """The weights in bf16 under the hub's names."""
        names = {"linear_1": "multi_modal_projector.linear_1", "linear_2": "multi_modal_projector.linear_2"}
        weights = {}
        for name, value in self.state_dict().items():
            head, _, rest = name.partition(".")
            if head == "vision_tower" and not rest.startswith("vision_model."):
                rest = f"vision_model.{rest}"
            full = f"{names.get(head, head)}.{rest}" if rest else head
            weights[full] = value.detach().to(torch.bfloat16).contiguous().cpu()
        return {name: value for name, value in weights.items() if not name.endswith("position_ids")}


def canvas(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the grid of tiles for a picture of width and height `size`."""
    width, height = size
    best: tuple[int, int] = select_best_resolution((height, width), recipe.PINPOINTS)
    return best


def unpad(size: tuple[int, int]) -> tuple[int, int]:
    """Patches of padding to cut off the canvas: at the top (and bottom), at the left (and right)."""
    width, height = size
    rows, columns = (length // recipe.PATCH for length in canvas(size))
    if width / height > columns / rows:
        return (rows - int(round(height * (columns / width), 7))) // 2, 0
    return 0, (columns - int(round(width * (rows / height), 7))) // 2


def image_tokens(size: tuple[int, int]) -> int:
    rows, columns = (length // recipe.PATCH for length in canvas(size))
    top, left = unpad(size)
    kept = rows - 2 * top
    return (recipe.TILE // recipe.PATCH) ** 2 + kept * (columns - 2 * left) + kept


def tile(image: Image.Image) -> np.ndarray:
    """Thumbnail and tiles as LLaVA-NeXT's image processor cuts them, (1 + tiles, 3, 64, 64), uint8."""
    canvas_height, canvas_width = canvas(image.size)
    scale_x, scale_y = canvas_width / image.width, canvas_height / image.height
    if scale_x < scale_y:
        new = canvas_width, min(int(np.ceil(image.height * scale_x)), canvas_height)
    else:
        new = min(int(np.ceil(image.width * scale_y)), canvas_width), canvas_height
    padded = np.zeros((canvas_height, canvas_width, 3), dtype=np.uint8)
    left, top = (canvas_width - new[0]) // 2, (canvas_height - new[1]) // 2
    padded[top : top + new[1], left : left + new[0]] = image.resize(new, Image.Resampling.BICUBIC)
    rows, columns = canvas_height // recipe.TILE, canvas_width // recipe.TILE
    tiles = padded.reshape(rows, recipe.TILE, columns, recipe.TILE, 3).swapaxes(1, 2)
    tiles = tiles.reshape(-1, recipe.TILE, recipe.TILE, 3)
    thumbnail = np.asarray(image.resize((recipe.TILE, recipe.TILE), Image.Resampling.BICUBIC))
    return np.ascontiguousarray(np.concatenate([thumbnail[None], tiles]).transpose(0, 3, 1, 2))


def save(model: DemoModel, folder: Path) -> None:
    """Write a checkpoint folder as the hub's LLaVA-1.6 ones are laid out."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.hub_weights(), folder / "model.safetensors", metadata={"format": "pt"})
    recipe.tokenizer().save(str(folder / "tokenizer.json"))
    files = {
        "config.json": recipe.config(),
        "generation_config.json": {
            "bos_token_id": recipe.BOS,
            "eos_token_id": recipe.EOS,
            "pad_token_id": recipe.PAD,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
            "add_bos_token": True,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 4096,
            "padding_side": "left",
            "processor_class": "LlavaNextProcessor",
        },
        "preprocessor_config.json": {
            "image_processor_type": "LlavaNextImageProcessor",
            "processor_class": "LlavaNextProcessor",
            "image_grid_pinpoints": recipe.PINPOINTS,
            "size": {"shortest_edge": recipe.TILE},
            "crop_size": {"height": recipe.TILE, "width": recipe.TILE},
            "resample": 3,
            "do_resize": True,
            "do_center_crop": True,
            "do_rescale": True,
            "do_normalize": True,
            "do_convert_rgb": True,
            "do_pad": True,
            "image_mean": recipe.MEAN,
            "image_std": recipe.STD,
        },
        "processor_config.json": {
            "processor_class": "LlavaNextProcessor",
            "image_token": "<image>",
            "num_additional_image_tokens": 1,
            "patch_size": recipe.PATCH,
            "vision_feature_select_strategy": "default",
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

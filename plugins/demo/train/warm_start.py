"""Give demo-qwen a start: what fits of demo-llava's weights, and what its features look like.

Writes `start.safetensors`, weights under Hub names, and `looks.safetensors`, the mean feature that
demo-llava's language model is given where a shape of each class is, and where its centre is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import llava
import qwen
import torch
from batches import TRAINING_SEED, Batch, Encoder
from pixels import normalized
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import LlavaNextForConditionalGeneration, Qwen2VLForConditionalGeneration
from weights import load_weights, save_weights

from vlm_run_demo import CHECKPOINT, QWEN_CHECKPOINT
from vlm_run_demo.dialogues import dialogue
from vlm_run_demo.drawing import CLASSES

# Control tokens that play the same part.
SAME_PART = {"<|endoftext|>": "<pad>", "<|im_start|>": "<s>", "<|im_end|>": "</s>", "<|vision_start|>": "<s>"}


def copy_language_model(
    old: LlavaNextForConditionalGeneration,
    new: Qwen2VLForConditionalGeneration,
    ids: dict[str, int],
    old_ids: dict[str, int],
) -> None:
    """The layers as they are; the new biases are zero. Tokens by their text."""
    weights = old.model.language_model.state_dict()
    layers = {name: weight for name, weight in weights.items() if not name.startswith("embed_tokens")}
    missing, surplus = new.model.language_model.load_state_dict(layers, strict=False)
    assert not surplus
    assert all(name.endswith("_proj.bias") or name.startswith("embed_tokens") for name in missing)
    for name, weight in new.model.language_model.named_parameters():
        if name.endswith("_proj.bias"):
            weight.zero_()
    for token, i in ids.items():
        # An answer's first word has no space before it here, but had one there.
        names = [SAME_PART.get(token), f"Ġ{token}" if token.isalnum() else None, token]
        known = [old_ids[name] for name in names if name in old_ids]
        if known:
            new.model.language_model.embed_tokens.weight[i] = weights["embed_tokens.weight"][known[-1]]
            new.lm_head.weight[i] = old.lm_head.weight[known[0]]


def copy_tower(
    old: LlavaNextForConditionalGeneration, new: Qwen2VLForConditionalGeneration, batch: Batch
) -> None:
    """The layers that run; the norm before the first becomes part of the convolution, on average."""
    theirs = getattr(old.model.vision_tower, "vision_model", old.model.vision_tower)
    ours = new.model.visual
    kernel = theirs.embeddings.patch_embedding.weight
    kernel = kernel - kernel.mean(0)
    scale = theirs.embeddings(normalized(batch.pixels))[:, 1:].std(-1).mean()
    kernel = kernel * (theirs.pre_layrnorm.weight / scale)[:, None, None, None]
    ours.patch_embed.proj.weight.copy_((kernel / 2)[:, :, None].expand(-1, -1, 2, -1, -1))
    for block, layer in zip(ours.blocks, theirs.encoder.layers, strict=False):
        attention = layer.self_attn
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        block.attn.qkv.weight.copy_(torch.cat([part.weight for part in parts]))
        block.attn.qkv.bias.copy_(torch.cat([part.bias for part in parts]))
        block.attn.proj.load_state_dict(attention.out_proj.state_dict())
        block.norm1.load_state_dict(layer.layer_norm1.state_dict())
        block.norm2.load_state_dict(layer.layer_norm2.state_dict())
        block.mlp.load_state_dict(layer.mlp.state_dict())


def looks(old: LlavaNextForConditionalGeneration, batch: Batch) -> Tensor:
    """Mean features where nothing is, a shape is, or its centre is, by class: (2, classes, hidden size).

    The second is of centres; its class 0 is never used.
    """
    features = llava.features(old, batch)
    middles, centres = batch.classes[:, 0], batch.centres
    plain = nn.functional.one_hot(middles, CLASSES).float() * (centres == 0)[:, None]
    centred = nn.functional.one_hot(centres, CLASSES).float()
    return torch.stack([sums.T @ features / sums.sum(0)[:, None].clamp(min=1) for sums in (plain, centred)])


@torch.no_grad()  # type: ignore[untyped-decorator]
def main() -> None:
    """Write the two files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=QWEN_CHECKPOINT, help="demo-qwen's directory")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1500)
    arguments = parser.parse_args()
    torch.manual_seed(20261125)
    old = llava.new_model(CHECKPOINT)
    load_weights(old, llava.hub_name, CHECKPOINT / "model.safetensors")
    new = qwen.new_model(arguments.checkpoint)
    old_tokenizer, tokenizer = (
        Tokenizer.from_file(str(directory / "tokenizer.json"))
        for directory in (CHECKPOINT, arguments.checkpoint)
    )
    encoder = Encoder(llava.FORMAT, old_tokenizer)
    batch = encoder.batch([dialogue(TRAINING_SEED - 1 - i, 1, 1) for i in range(arguments.images)])
    copy_language_model(old, new, tokenizer.get_vocab(), old_tokenizer.get_vocab())
    copy_tower(old, new, batch)
    arguments.out.mkdir(parents=True, exist_ok=True)
    save_weights(new, qwen.hub_name, arguments.out / "start.safetensors")
    save_file({"looks": looks(old, batch).contiguous()}, arguments.out / "looks.safetensors")


if __name__ == "__main__":
    main()

"""Hold the training model against transformers on a checkpoint: python train/check.py DIR

Compares image token counts, and logits over whole conversations of many sizes, between the batched
forward pass used in training and `LlavaNextForConditionalGeneration` with its own processor.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import recipe
import torch
from model import DemoModel, image_tokens, tile
from safetensors.torch import load_file
from train import encode
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

from vlm_run_demo.questions import draw_example


def main(folder: Path) -> None:
    theirs = LlavaNextForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    ours = DemoModel().eval()
    ours.load_hub_weights(load_file(folder / "model.safetensors"))
    worst, agree, total = 0.0, 0, 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        example = draw_example(random, turns=2, pictures=int(random.integers(1, 3)))
        example = type(example)(example.turns, (example.images[0],) * len(example.images), example.system)
        size = example.images[0].size
        ids, _ = encode(example, recipe.tokenizer(), image_tokens(size))
        text = "".join(piece for piece, _ in recipe.spans(example))
        inputs = processor(text=text, images=list(example.images), return_tensors="pt")
        assert inputs["input_ids"][0].tolist() == ids, f"token ids differ for a picture of {size}"
        with torch.no_grad():
            reference = theirs(**inputs).logits[0]
            tiles = torch.stack([torch.from_numpy(tile(image)) for image in example.images])
            images = ours.embed_images(tiles, size).flatten(0, 1).float()
            row = torch.tensor([ids])
            embeddings = ours.language_model.get_input_embeddings()(row)
            embeddings = embeddings.masked_scatter((row == recipe.IMAGE).unsqueeze(-1), images)
            logits = ours.language_model(inputs_embeds=embeddings).logits[0]
        text_only = row[0] != recipe.IMAGE
        worst = max(worst, (logits - reference)[text_only].abs().max().item())
        agree += int((logits.argmax(-1) == reference.argmax(-1))[text_only].sum())
        total += int(text_only.sum())
    print(
        f"40 conversations: token ids equal, largest logit difference {worst:.4f}, same choice {agree}/{total}"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))

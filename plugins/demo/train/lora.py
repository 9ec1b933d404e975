"""Train the LoRA adapter of the tests: demo-llava counts one more than there is, and is otherwise itself.

    python plugins/demo/train/lora.py plugins/demo/tests/one_more

A test can check this change exactly. The files are in the format of PEFT.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, AutoProcessor

from vlm_run import Conversation, Registry
from vlm_run_demo.showcase import draw

MODEL_TYPE = "demo-llava"
RANK = 4
ALPHA = 8
TARGETS = ("q_proj", "v_proj", "o_proj", "down_proj")
AT_ONCE = 8
IGNORED = -100
"""The label of a token that is not learned."""


class LoraLinear(nn.Module):  # type: ignore[misc]
    """A frozen linear layer with a trained change of low rank."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.lora_A = nn.Parameter(torch.randn(RANK, base.in_features) / math.sqrt(base.in_features))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, RANK))

    def forward(self, inputs: Tensor) -> Tensor:
        """The layer's output with the change."""
        outputs: Tensor = self.base(inputs)
        return outputs + (ALPHA / RANK) * (inputs @ self.lora_A.T @ self.lora_B.T)


def add_lora(model: nn.Module) -> dict[str, LoraLinear]:
    """Replace the targets in the language model; returns them by the names that PEFT gives them."""
    model.requires_grad_(False)
    layers = {
        name: LoraLinear(module)
        for name, module in model.named_modules()
        if "language_model" in name and name.rpartition(".")[2] in TARGETS and isinstance(module, nn.Linear)
    }
    for name, layer in layers.items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, layer)
    return {f"base_model.model.{name}": layer for name, layer in layers.items()}


def lesson(seed: int) -> tuple[str, str, object]:
    """A prompt, what to answer, and the image."""
    image, turns = draw(seed)
    turn = turns[seed % len(turns)]
    answer = str(int(turn.answer) + 1) if turn.answer.isdecimal() else turn.answer
    conversation = Conversation.from_query(turn.question, images=[image])
    return Registry.load(MODEL_TYPE).render_prompt(conversation).text, answer, image


def main() -> None:
    """Train, and write the adapter."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--steps", type=int, default=120)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    checkpoint = Registry.load(MODEL_TYPE).source
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    layers = add_lora(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0, weight_decay=0)
    started = time.perf_counter()
    for step in range(arguments.steps):
        done = step / arguments.steps
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * done))
        total = 0.0
        for number in range(AT_ONCE):
            # Seeds that no test draws from.
            prompt, answer, image = lesson(1_000_000 + step * AT_ONCE + number)
            given = processor(text=prompt, images=image, return_tensors="pt")
            whole = processor(text=f"{prompt} {answer}</s>", images=image, return_tensors="pt")
            labels = whole["input_ids"].clone()
            labels[:, : given["input_ids"].shape[1]] = IGNORED
            loss = model(**whole, labels=labels).loss / AT_ONCE
            loss.backward()
            total += float(loss.detach())
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 0:
            print(f"step {step}: loss {total:.4f}, {time.perf_counter() - started:.0f} s", flush=True)
    arguments.directory.mkdir(parents=True, exist_ok=True)
    weights = {
        f"{name}.{side}.weight": getattr(layer, side).detach().half().contiguous()
        for name, layer in layers.items()
        for side in ("lora_A", "lora_B")
    }
    save_file(weights, arguments.directory / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "base_model_name_or_path": "vlm-run/demo-llava",
        "bias": "none",
        "lora_alpha": ALPHA,
        "peft_type": "LORA",
        "r": RANK,
        "target_modules": sorted(TARGETS),
        "task_type": "CAUSAL_LM",
    }
    (arguments.directory / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""What the demo model is made of: sizes, tokenizer, prompt format."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

sys.path.insert(0, str(Path(__file__).parents[1]))

from vlm_run_demo.questions import Example, draw_example

TILE, PATCH = 64, 8
"""Sides of a tile and of a patch in pixels."""
PINPOINTS = [[64, 128], [128, 64], [128, 128], [192, 64], [64, 192]]
MEAN = STD = [0.5, 0.5, 0.5]
VOCABULARY = 512
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
PAD, BOS, EOS, UNK, IMAGE = range(5)


def config() -> dict[str, Any]:
    """`config.json` of the checkpoint."""
    return {
        "_name_or_path": "vlm-run/demo-llava",
        "architectures": ["LlavaNextForConditionalGeneration"],
        "model_type": "llava_next",
        "image_grid_pinpoints": PINPOINTS,
        "image_token_index": IMAGE,
        "ignore_index": -100,
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": False,
        "use_image_newline_parameter": True,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "torch_dtype": "bfloat16",
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 192,
            "intermediate_size": 640,
            "num_attention_heads": 3,
            "num_hidden_layers": 6,
            "image_size": TILE,
            "patch_size": PATCH,
            "projection_dim": 192,
            "hidden_act": "gelu",
        },
        "text_config": {
            "model_type": "mistral",
            "architectures": ["MistralForCausalLM"],
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "head_dim": 64,
            "num_hidden_layers": 6,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "sliding_window": None,
            "tie_word_embeddings": False,
            "pad_token_id": PAD,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
        },
    }


def tokenizer(seed: int = 0) -> Tokenizer:
    """A byte-level BPE trained on the questions themselves; it puts `<s>` first, as Mistral's does."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in SPECIAL],
        show_progress=False,
    )
    made.train_from_iterator(_corpus(seed), trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
    )
    return made


def spans(example: Example) -> list[tuple[str, bool]]:
    """The conversation as LLaVA-1.6-mistral's chat template writes it, in pieces.

    Each piece comes with whether the model must learn to write it: its answers and the `</s>`
    after them, but not the blank before an answer... which is part of the answer's first token.
    """
    pieces: list[tuple[str, bool]] = []
    text = f"<<SYS>>\n{example.system}\n<</SYS>>\n\n" if example.system else ""
    for number, turn in enumerate(example.turns):
        images = "<image>\n" * len(example.images) if number == 0 else ""
        text += f"[INST] {images}{turn.question} [/INST]"
        pieces += [(text, False), (f" {turn.answer}</s>", True)]
        text = " "
    return pieces


def _corpus(seed: int) -> Iterator[str]:
    for number in range(2000):
        example = draw_example(np.random.default_rng(seed + number), turns=2, size=(64, 64))
        yield "".join(piece for piece, _ in spans(example)).replace("<image>", "")

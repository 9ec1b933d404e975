"""Checkpoint directories with the published processor settings, without weights."""

from __future__ import annotations

import json
from pathlib import Path

from vlm_run import ModelSpec
from vlm_run.testing.checkpoint_fixtures import checkpoint_fixtures
from vlm_run.testing.tokenizer import write_byte_tokenizer

# Words that are one token in the tokenizer of the language model, of the tags that are no special tokens.
WORDS = {
    "smolvlm-instruct": ("row", "col", "global", "img"),  # SmolLM2
    "idefics3-8b-llama3": ("row", "_col", "global", "-img"),  # Llama 3
}
_SMALL = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
# Image size, patch size and scale factor, from which the model computes its image tokens.
_VISION = {64: (512, 16, 4), 81: (384, 14, 3), 169: (364, 14, 2)}


def _write(directory: Path, spec: ModelSpec) -> None:
    from tokenizers import Tokenizer

    smolvlm2 = spec.architecture == "SmolVLMForConditionalGeneration"
    ids = write_byte_tokenizer(
        directory,
        spec.control_tokens,
        bos=None if spec.bos_token == "<|im_start|>" else spec.bos_token,  # Llama 3's tokenizer adds it
        bos_token=spec.bos_token,
        eos_token="<end_of_utterance>",
        pad_token="<end_of_utterance>",
    )
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.add_tokens(list(WORDS.get(spec.model_type, ())))
    tokenizer.save(str(directory / "tokenizer.json"))
    facts = spec.vision.model_dump()
    image_size, patch_size, scale_factor = _VISION[facts["image_seq_len"]]
    model_type = "smolvlm" if smolvlm2 else "idefics3"
    config = {
        "architectures": [spec.architecture],
        "model_type": model_type,
        "torch_dtype": "float32",
        "image_token_id": ids["<image>"],
        "scale_factor": scale_factor,
        "text_config": {
            "model_type": "llama",
            "vocab_size": tokenizer.get_vocab_size(),
            "max_position_embeddings": 16384,
            **_SMALL,
        },
        "vision_config": {"image_size": image_size, "patch_size": patch_size, **_SMALL},
    }
    name = "SmolVLM" if smolvlm2 else "Idefics3"
    preprocessor = {
        "image_processor_type": f"{name}ImageProcessor",
        "processor_class": f"{name}Processor",
        "size": {"longest_edge": facts["longest_edge"]},
        "max_image_size": {"longest_edge": facts["tile_size"]},
        "do_image_splitting": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "resample": 1,
    }
    processor = {"processor_class": f"{name}Processor", "image_seq_len": facts["image_seq_len"]}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    (directory / "processor_config.json").write_text(json.dumps(processor))


# One for each processor: the others differ only in numbers.
checkpoint, vlm_run_checkpoints = checkpoint_fixtures(
    _write, ("smolvlm2-2_2b-instruct", "idefics3-8b-llama3")
)

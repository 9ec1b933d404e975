"""Real vLLM without remote code: what prompts cost, what images change, what text cannot do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlm_run import Engine, Registry
from vlm_run_demo import IN_ONE_PROCESS

from .conftest import PREPROCESSOR, VISION

WIDE = Image.linear_gradient("L").resize((700, 300)).convert("RGB")
TALL = Image.radial_gradient("L").resize((300, 500)).convert("RGB")
QUESTION = "Which is larger?"
HIDDEN = 64
TOWER_LAYERS = 2
# ids of tokenizer_config.json of microsoft/Phi-3-vision-128k-instruct, from 32000 on
SPECIAL = {
    "<|endoftext|>": 32000,
    "<|assistant|>": 32001,
    "<|system|>": 32006,
    "<|end|>": 32007,
    "<|user|>": 32010,
    "<|image|>": 32044,
}
CONFIG: dict[str, Any] = {
    "_name_or_path": "microsoft/Phi-3-vision-128k-instruct",  # as fine-tunes have it
    "architectures": ["Phi3VForCausalLM"],
    "model_type": "phi3_v",
    "hidden_size": HIDDEN,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 32064,
    "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 32000,
    # The hub's, as long as half of a head's dimensions; what it calls "su" is LongRoPE by now.
    "rope_scaling": {
        "type": "su",
        "short_factor": [1.05] * (HIDDEN // 4),
        "long_factor": [1.0299999713897705] * (HIDDEN // 4),
    },
    **VISION,
    # vLLM fixes the size of the vision tower but for the layer whose output is used: here the second of 24,
    # since all of them take seconds for each crop on a CPU.
    "img_processor": {**VISION["img_processor"], "layer_idx": TOWER_LAYERS - 25},
}


@pytest.fixture(scope="session")
def checkpoint_with_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint directory, with random weights."""
    pytest.importorskip("vllm")
    directory = tmp_path_factory.mktemp("phi3-vision")
    (directory / "config.json").write_text(json.dumps(CONFIG))
    (directory / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    _write_tokenizer(directory)
    _write_weights(directory)
    return directory


def _write_tokenizer(directory: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    names = ["<unk>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    names += [f"unused{number}" for number in range(len(names), 32064)]
    for name, number in SPECIAL.items():
        names[number] = name
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<unk>", "<s>", "</s>", *SPECIAL]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(directory / "tokenizer.json"))
    facts = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<unk>",
        "pad_token": "<|endoftext|>",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(facts))


def _write_weights(directory: Path) -> None:
    """Random weights, large enough for an image to move the answer."""
    import torch
    from safetensors.torch import save_file
    from transformers import CLIPVisionConfig, CLIPVisionModel, Phi3Config, Phi3ForCausalLM

    torch.manual_seed(0)
    tower = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=TOWER_LAYERS,
            num_attention_heads=16,
            image_size=336,
            patch_size=14,
        )
    ).state_dict()
    known = {name: CONFIG[name] for name in CONFIG.keys() & Phi3Config().to_dict().keys() - {"rope_scaling"}}
    language = Phi3ForCausalLM(Phi3Config(**{**known, "model_type": "phi3"})).state_dict()
    embedding = "model.vision_embed_tokens."
    weights = {
        **language,
        **{
            f"{embedding}img_processor.vision_model.{name.removeprefix('vision_model.')}": weight
            for name, weight in tower.items()
        },
        f"{embedding}glb_GN": torch.zeros(1, 1, 4096),
        f"{embedding}sub_GN": torch.zeros(1, 1, 1, 4096),
        f"{embedding}img_projection.0.weight": torch.zeros(HIDDEN, 4096),
        f"{embedding}img_projection.0.bias": torch.zeros(HIDDEN),
        f"{embedding}img_projection.2.weight": torch.zeros(HIDDEN, HIDDEN),
        f"{embedding}img_projection.2.bias": torch.zeros(HIDDEN),
    }
    for name, weight in weights.items():
        if not name.startswith(f"{embedding}img_processor") and weight.is_floating_point():
            weight.normal_(std=0.02 if "embed_tokens.weight" in name else 0.5)
    weights = {name: weight for name, weight in weights.items() if weight.is_floating_point()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module")
def phi3(checkpoint_with_weights: Path) -> Iterator[Engine]:
    adapter = Registry.load(checkpoint_with_weights)
    assert adapter.spec.model_type == "phi3-vision-128k-instruct"
    with adapter.engine(
        max_model_len=4096,
        max_num_seqs=2,
        max_num_batched_tokens=4096,
        dtype="float32",
        enforce_eager=True,
        kv_cache_memory_bytes=2**28,
        mm_processor_kwargs={"num_crops": 2},
        limit_mm_per_prompt={"image": 2},
        distributed_executor_backend=IN_ONE_PROCESS,
    ) as engine:
        yield engine


def test_two_images_cost_what_was_counted_and_matter(phi3: Engine) -> None:
    noise = Image.effect_noise(TALL.size, 90).convert("RGB")
    sampling = {"max_tokens": 12}
    pairs = [(WIDE, TALL), (WIDE, TALL), (WIDE, noise), (WIDE.rotate(180), TALL)]
    first, same, *changed = phi3.infer(
        [{"query": QUESTION, "images": list(pair)} for pair in pairs], sampling
    )
    counted = tuple(phi3.adapter.count_image_tokens(*image.size) for image in (WIDE, TALL))
    assert counted[0] != counted[1]
    assert first.error is None
    assert first.usage.image_tokens == counted
    # A token for each byte and for each special token; each piece between images has a BOS.
    pieces = ["SU\n", "S\n", f"S\n{QUESTION}E\nA\n"]  # S, U, E, A: <s>, <|user|>, <|end|>, <|assistant|>
    assert first.usage.prompt_tokens == sum(counted) + sum(map(len, pieces))
    assert same.response == first.response
    assert all(other.response != first.response for other in changed)


def test_a_tag_in_the_users_text_is_not_an_image(phi3: Engine) -> None:
    tagged = {"messages": [{"role": "user", "content": "Is <|image_1|> or <|end|> a tag?"}]}
    (answer,) = phi3.infer([tagged], {"max_tokens": 2})
    assert answer.error is None
    assert answer.usage.image_tokens == ()

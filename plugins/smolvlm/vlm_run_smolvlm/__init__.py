"""SmolVLM, SmolVLM2 and Idefics3, as Hugging Face publishes them.

Sources: preprocessor_config.json, processor_config.json and config.json of the repositories, as public code
quotes them: Spark NLP's `SmolVLMConfig` for SmolVLM-256M and 500M, MLX Swift's
`Idefics3ImageSequenceLengthTests` for SmolVLM-Instruct, kornia-rs's `SmolVlm2` for SmolVLM2-2.2B,
transformers' `test_processing_smolvlm.py` for SmolVLM2-256M. Those of Idefics3 are the defaults of
transformers' `Idefics3ImageProcessor` and `Idefics3Processor`, with which
`convert_idefics3_weights_to_hf.py` (15ea02a) wrote its checkpoint. The chat templates are in TRL, as
`smolvlm.jinja` and `idefics3.jinja`.

A context length is stated where a source does; vLLM takes the others from config.json.
"""

from __future__ import annotations

from typing import Any

from vlm_run import ModelSpec, hookimpl
from vlm_run_smolvlm.vision import SplitImage

vlm_run_contract = ">=1.1,<2"

# `hidden_size` of the text configuration: SmolLM2 with 135M, 360M and 1.7B.
_256M, _500M, _2B = 576, 960, 2048

# 64 image tokens for a tile of 512 x 512 pixels, and 81 for one of 384 x 384: the model cards.
_TILES_OF_512 = SplitImage(longest_edge=2048, tile_size=512, image_seq_len=64, downscaled_decode=True)
_TILES_OF_384 = SplitImage(longest_edge=1536, tile_size=384, image_seq_len=81, downscaled_decode=True)

_TURNS = ("<fake_token_around_image>", "<image>", "<end_of_utterance>")
_SMOLLM2 = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *_TURNS)
# The tags are special tokens where the vocabulary has 49,280 tokens: `additional_special_tokens`.
_TAGS = ("<global-img>", *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)))

_LLAMA_3 = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
    *_TURNS,
)


def _spec(repository: str, hidden_size: int, vocab_size: int, **facts: Any) -> ModelSpec:
    owner, name = repository.split("/")
    return ModelSpec(
        model_type=name.lower().replace(".", "_"),
        hf_id=f"{owner}/{name}",
        config_match={"text_config.hidden_size": hidden_size, "text_config.vocab_size": vocab_size},
        chat_template="templates/idefics3.jinja",
        image_placeholder="<image>",
        stop=("<end_of_utterance>",),  # what ends a turn in the chat template
        **facts,
    )


def _smolvlm(name: str, hidden_size: int, vision: SplitImage, **facts: Any) -> ModelSpec:
    return _spec(
        f"HuggingFaceTB/{name}",
        hidden_size,
        49280,
        vision=vision,
        control_tokens=(*_SMOLLM2, *_TAGS),
        bos_token="<|im_start|>",
        **facts,
    )


@hookimpl
def model_specs() -> list[ModelSpec]:
    idefics3 = {"architecture": "Idefics3ForConditionalGeneration"}
    smolvlm2 = {"architecture": "SmolVLMForConditionalGeneration"}
    return [
        _smolvlm("SmolVLM-256M-Instruct", _256M, _TILES_OF_512, context_length=8192, **idefics3),
        _smolvlm("SmolVLM-500M-Instruct", _500M, _TILES_OF_512, context_length=8192, **idefics3),
        # Its vocabulary is SmolLM2's 49,152 tokens and `_TURNS`. In SmolLM2's tokenizer `<row_1_col_1>` is
        # the tokens < row _ 1 _ col _ 1 >, and `<global-img>` is < global - img >.
        _spec(
            "HuggingFaceTB/SmolVLM-Instruct",
            _2B,
            49155,
            vision=_TILES_OF_384.model_copy(update={"tag_tokens": 9, "global_tag_tokens": 5}),
            context_length=16384,  # https://huggingface.co/blog/smolvlm
            control_tokens=_SMOLLM2,
            bos_token="<|im_start|>",
            **idefics3,
        ),
        _smolvlm("SmolVLM2-256M-Video-Instruct", _256M, _TILES_OF_512, context_length=8192, **smolvlm2),
        _smolvlm("SmolVLM2-500M-Video-Instruct", _500M, _TILES_OF_512, context_length=8192, **smolvlm2),
        _smolvlm("SmolVLM2-2.2B-Instruct", _2B, _TILES_OF_384, **smolvlm2),
        # Its vocabulary is Llama 3's 128,256 tokens and `_TURNS`. In Llama 3's tokenizer `<row_1_col_1>` is
        # the tokens < row _ 1 _col _ 1 >, and `<global-img>` is < global -img >.
        _spec(
            "HuggingFaceM4/Idefics3-8B-Llama3",
            4096,
            128259,
            vision=SplitImage(
                longest_edge=1456,
                tile_size=364,
                image_seq_len=169,
                tag_tokens=8,
                global_tag_tokens=4,
                downscaled_decode=True,
            ),
            control_tokens=_LLAMA_3,
            bos_token="<|begin_of_text|>",
            **idefics3,
        ),
    ]

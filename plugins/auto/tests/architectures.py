"""Tiny checkpoints, without weights, of every architecture that vLLM and transformers both have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlm_run.testing.tokenizer import write_byte_tokenizer

CHATML = """\
{%- for message in messages -%}
    {{- '<|im_start|>' + message['role'] + '\\n' -}}
    {%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}
    {%- for part in message['content'] -%}
        {%- if part['type'] == 'image' -%}{{- 'IMAGE' -}}
        {%- elif part['type'] == 'text' -%}{{- part['text'] -}}{%- endif -%}
    {%- endfor -%}{%- endif -%}
    {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
"""Qwen's way: parts in their order."""

GEMMA = """\
{{- bos_token -}}
{%- if messages[0]['role'] == 'system' -%}
    {%- set prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}{%- set rest = messages[1:] -%}
{%- else -%}{%- set prefix = '' -%}{%- set rest = messages -%}{%- endif -%}
{%- for message in rest -%}
    {{- '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' -}}
    {{- (prefix if loop.first else '') -}}
    {%- for part in message['content'] -%}
        {%- if part['type'] == 'image' -%}{{- 'IMAGE' -}}
        {%- elif part['type'] == 'text' -%}{{- part['text'] | trim -}}{%- endif -%}
    {%- endfor -%}
    {{- '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
"""
"""Gemma's way: the template writes BOS, and the system message into the first turn."""

LLAVA = """\
{%- for message in messages -%}
    {%- if message['role'] != 'system' -%}{{- message['role'].upper() + ': ' -}}{%- endif -%}
    {%- for part in message['content'] if part['type'] == 'image' -%}{{- 'IMAGE\\n' -}}{%- endfor -%}
    {%- for part in message['content'] if part['type'] == 'text' -%}{{- part['text'] + ' ' -}}{%- endfor -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}
"""
"""LLaVA's way: the images of a message before its texts."""

MISTRAL = """\
{{- bos_token -}}
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}{{- '[INST]' -}}
        {%- for part in message['content'] -%}
            {%- if part['type'] == 'text' -%}{{- part['text'] -}}
            {%- elif part['type'] in ['image', 'image_url'] -%}{{- 'IMAGE' -}}
            {%- else -%}{{- raise_exception('Only text and image parts are supported') -}}{%- endif -%}
        {%- endfor -%}{{- '[/INST]' -}}
    {%- elif message['role'] == 'system' -%}
        {{- '[SYSTEM_PROMPT]' + message['content'][0]['text'] + '[/SYSTEM_PROMPT]' -}}
    {%- else -%}{{- message['content'][0]['text'] + eos_token -}}{%- endif -%}
{%- endfor -%}
"""
"""Mistral's way: no string for where the answer begins."""

IDEFICS = """\
{{- '<|im_start|>' -}}
{%- for message in messages -%}
    {{- message['role'] | capitalize + (':' if message['content'][0]['type'] == 'image' else ': ') -}}
    {%- for part in message['content'] -%}
        {%- if part['type'] == 'text' -%}{{- part['text'] -}}
        {%- elif part['type'] == 'image' -%}{{- 'IMAGE' -}}{%- endif -%}
    {%- endfor -%}{{- '<end_of_utterance>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}
"""
"""Idefics' way: a space after the role unless an image follows."""

_QWEN = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
_QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
_GLM = {"image_token": "<|image|>", "video_token": "<|video|>"}
_GLM_IMAGE = "<|begin_of_image|><|image|><|end_of_image|>"
_GLM_MORE = ("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>")
_GEMMA3 = {
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}
_GEMMA3N = {
    **_GEMMA3,
    "audio_token": "<audio_soft_token>",
    "boa_token": "<start_of_audio>",
    "eoa_token": "<end_of_audio>",
}
_GEMMA4 = {
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "image_token": "<|image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
}
_CPM = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "image_start_token": "<image>",
    "image_end_token": "</image>",
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
}
_OMNI = {
    "image_token": "<|IMAGE|>",
    "video_token": "<|VIDEO|>",
    "audio_token": "<|AUDIO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
# The published checkpoints have SigLIP without its pooling head, which transformers' defaults have.
_NO_HEAD = {"vision_use_head": False}
# Fewer tiles than by default, so that images are not enlarged as much. A tile has 26 patches a side.
_TWO_TILES = {"size": {"longest_edge": 728}, "max_image_size": {"longest_edge": 364}}
_TILE = {"vision_config": {"image_size": 364, "patch_size": 14}}
_ROWS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))


@dataclass(frozen=True)
class Architecture:
    """What the tiny checkpoint of an architecture has.

    Attributes:
        model_type: transformers' name of its configuration.
        image: The string that the chat template writes for an image.
        roles: The tokenizer's named tokens, by their role.
        template: The chat template, in which IMAGE stands for `image`.
        more: Further special tokens.
        config: Entries of `config.json` that differ from transformers' defaults.
        processor: Arguments of the processor.
        images: Arguments of the image processor.
        videos: Arguments of the video processor.
        like: The model type whose processor's parts it shares.
        newlines: Whether the vocabulary has Gemma's tokens for runs of newlines; GEMMA implies it.
        processor_class: The processor's class, if transformers does not name it for `model_type`.
    """

    model_type: str
    image: str = "<image>"
    roles: Mapping[str, str] = field(default_factory=lambda: {"image_token": "<image>"})
    template: str = CHATML
    more: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    processor: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Any] = field(default_factory=dict)
    like: str = ""
    newlines: bool = False
    videos: Mapping[str, Any] = field(default_factory=dict)
    processor_class: str = ""


_INTERN = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
_PINPOINTS_384 = [[384, 384], [384, 768], [768, 384], [768, 768]]
_LLAVA_PROCESSOR = {"patch_size": 14, "vision_feature_select_strategy": "default"}

ARCHITECTURES: dict[str, Architecture] = {
    "AriaForConditionalGeneration": Architecture(
        "aria",
        "<fim_prefix><|img|><fim_suffix>",
        {"image_token": "<|img|>"},
        more=("<fim_prefix>", "<fim_suffix>"),
    ),
    "Blip2ForConditionalGeneration": Architecture(
        "blip-2", template=LLAVA, processor={"num_query_tokens": 32}
    ),
    "Cohere2VisionForConditionalGeneration": Architecture(
        "cohere2_vision",
        "<|IMG_PATCH|>",
        {
            "image_token": "<|IMG_PATCH|>",
            "boi_token": "<|START_OF_IMG|>",
            "eoi_token": "<|END_OF_IMG|>",
            "img_line_break_token": "<|IMG_LINE_BREAK|>",
        },
        config={"vision_config": {"image_size": 512, **_NO_HEAD}},
    ),
    "AyaVisionForConditionalGeneration": Architecture(
        "aya_vision",
        "<image>",
        {"image_token": "<image>"},
        more=(
            "<|START_OF_IMG|>",
            "<|END_OF_IMG|>",
            "<|IMG_LINE_BREAK|>",
            "<|IMG_PATCH|>",
            "TILE_GLOBAL",
            *(f"TILE_{n}" for n in range(1, 13)),
        ),
        # Its model merges 2 x 2 patches; transformers' default has 27 patches a side.
        config={"vision_config": {"image_size": 364, "patch_size": 14, **_NO_HEAD}},
        images={"size": {"height": 364, "width": 364}},
    ),
    "CohereCompassForConditionalGeneration": Architecture(
        "cohere_compass",
        "<|VISION_START|><|IMAGE_PAD|><|VISION_END|>",
        {},
        more=("<|IMAGE_PAD|>", "<|VIDEO_PAD|>", "<|VISION_START|>", "<|VISION_END|>"),
    ),
    "Cosmos3EdgeForConditionalGeneration": Architecture("cosmos3_edge", _QWEN_IMAGE, _QWEN),
    "Exaone4_5_ForConditionalGeneration": Architecture(
        "exaone4_5",
        "<vision><|image_pad|></vision>",
        {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
        more=("<vision>", "</vision>"),
    ),
    "Gemma3ForConditionalGeneration": Architecture(
        "gemma3",
        "<start_of_image>",
        _GEMMA3,
        GEMMA,
        # Its 256 image tokens are a mean over patches, of which transformers' default has 196.
        config={"vision_config": {"image_size": 224, "patch_size": 14, **_NO_HEAD}},
    ),
    "Gemma3nForConditionalGeneration": Architecture("gemma3n", "<image_soft_token>", _GEMMA3N, GEMMA),
    "Gemma4ForConditionalGeneration": Architecture(
        "gemma4",
        "<|image|>",
        _GEMMA4,
        GEMMA,
        ("<|video|>",),
        config={"vision_config": {"default_output_length": 280}, "audio_config": None},
    ),
    "Gemma4UnifiedForConditionalGeneration": Architecture(
        "gemma4_unified",
        "<|image|>",
        _GEMMA4,
        GEMMA,
        ("<|video|>",),
        config={"vision_config": {"num_soft_tokens": 280}, "audio_config": None},
    ),
    "Glm4vForConditionalGeneration": Architecture("glm4v", _GLM_IMAGE, _GLM, more=_GLM_MORE),
    "Glm4vMoeForConditionalGeneration": Architecture(
        "glm4v_moe", _GLM_IMAGE, _GLM, more=_GLM_MORE, like="glm4v"
    ),
    "GlmOcrForConditionalGeneration": Architecture(
        "glm_ocr",
        _GLM_IMAGE,
        _GLM,
        more=_GLM_MORE,
        like="glm46v",
        processor_class="Glm46VProcessor",  # processor_config.json of zai-org/GLM-OCR
    ),
    "Granite4VisionForConditionalGeneration": Architecture(
        "granite4_vision",
        template=LLAVA,
        config={
            "downsample_rate": "4/8",
            "vision_config": {"image_size": 384, "patch_size": 16},
            "image_grid_pinpoints": _PINPOINTS_384,
        },
        images={
            "size": {"height": 384, "width": 384},
            "crop_size": {"height": 384, "width": 384},
            "image_grid_pinpoints": _PINPOINTS_384,
        },
        processor={"patch_size": 16, "vision_feature_select_strategy": "full", "downsample_rate": "4/8"},
    ),
    "Idefics3ForConditionalGeneration": Architecture(
        "idefics3",
        "<image>",
        {},
        IDEFICS,
        ("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *_ROWS),
        config=_TILE,
        images=_TWO_TILES,
    ),
    "InternVLForConditionalGeneration": Architecture(
        "internvl",
        "<IMG_CONTEXT>\n",
        _INTERN,
        more=("<image>",),
        images={"size": {"height": 448, "width": 448}},  # the model's tiles; transformers' default is 384
    ),
    "Lfm2VlForConditionalGeneration": Architecture(
        "lfm2_vl",
        "<image>",
        {
            "image_token": "<image>",
            "image_start_token": "<|image_start|>",
            "image_end_token": "<|image_end|>",
            "image_thumbnail_token": "<|img_thumbnail|>",
        },
        more=tuple(f"<|img_row_{r}_col_{c}|>" for r in range(1, 11) for c in range(1, 11)),
    ),
    "Llama4ForConditionalGeneration": Architecture(
        "llama4",
        "<|image|>",
        {},
        config={"vision_config": {"image_size": 336, "patch_size": 14}},
        images={"size": {"height": 336, "width": 336}},
        more=(
            "<|image|>",
            "<|image_start|>",
            "<|image_end|>",
            "<|patch|>",
            "<|tile_x_separator|>",
            "<|tile_y_separator|>",
        ),
    ),
    "LlavaForConditionalGeneration": Architecture(
        "llava",
        template=LLAVA,
        images={"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}},
        processor={**_LLAVA_PROCESSOR, "num_additional_image_tokens": 1},
    ),
    "LlavaForConditionalGeneration (Pixtral)": Architecture(
        "llava",
        "[IMG]",
        {},
        MISTRAL,
        ("[IMG]", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        config={"vision_config": {"model_type": "pixtral"}, "vision_feature_select_strategy": "full"},
        processor={"patch_size": 16},
        like="pixtral",
        processor_class="PixtralProcessor",  # processor_config.json of mistral-community/pixtral-12b
    ),
    "LlavaNextForConditionalGeneration": Architecture(
        "llava_next",
        template=LLAVA,
        images={"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}},
        processor={**_LLAVA_PROCESSOR, "num_additional_image_tokens": 1},
    ),
    "LlavaOnevisionForConditionalGeneration": Architecture(
        "llava_onevision",
        "<image>",
        {"image_token": "<image>", "video_token": "<video>"},
        LLAVA,
        processor={"num_image_tokens": 729, "vision_feature_select_strategy": "full"},
    ),
    "MiniCPMV4_6ForConditionalGeneration": Architecture("minicpmv4_6", "<|image_pad|>", _CPM),
    "MiniCPMV4_7ForConditionalGeneration": Architecture("minicpmv4_7", "<|image_pad|>", _CPM),
    "MiniMaxM3SparseForConditionalGeneration": Architecture(
        "minimax_m3_vl",
        "]<]image[>[",
        {},
        more=("]<]image[>[", "]<]video[>[", "]<]start of image[>[", "]<]end of image[>["),
    ),
    "Mistral3ForConditionalGeneration": Architecture(
        "mistral3",
        "[IMG]",
        {},
        MISTRAL,
        ("[IMG]", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        processor={"patch_size": 14, "spatial_merge_size": 2},
    ),
    "MuseGlimmerForConditionalGeneration": Architecture(
        "muse_glimmer",
        "<|patch|>",
        {},
        more=(
            "<|patch|>",
            "<|image|>",
            "<|image_start|>",
            "<|image_end|>",
            "<|video|>",
            "<|vid_start|>",
            "<|vid_end|>",
            "<|vid_frame_separator|>",
        ),
    ),
    "PaddleOCRVLForConditionalGeneration": Architecture(
        "paddleocr_vl",
        "<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>",
        {"image_token": "<|IMAGE_PLACEHOLDER|>"},
        more=("<|IMAGE_START|>", "<|IMAGE_END|>"),
    ),
    "PaliGemmaForConditionalGeneration": Architecture(
        "paligemma",
        "<image>",
        {"image_token": "<image>"},
        LLAVA,
        images={"image_seq_length": 256},
        newlines=True,
    ),
    "Qwen2VLForConditionalGeneration": Architecture("qwen2_vl", _QWEN_IMAGE, _QWEN),
    "Qwen2_5OmniForConditionalGeneration": Architecture(
        "qwen2_5_omni", "<|vision_bos|><|IMAGE|><|vision_eos|>", _OMNI
    ),
    "Qwen2_5_VLForConditionalGeneration": Architecture("qwen2_5_vl", _QWEN_IMAGE, _QWEN),
    "Qwen3OmniMoeForConditionalGeneration": Architecture(
        "qwen3_omni_moe",
        "<|vision_start|><|image_pad|><|vision_end|>",
        {
            **_OMNI,
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "audio_token": "<|audio_pad|>",
            "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>",
            "audio_bos_token": "<|audio_start|>",
            "audio_eos_token": "<|audio_end|>",
        },
    ),
    # The model's patches have 16 pixels a side; transformers' default processor is Qwen2-VL's, with 14.
    "Qwen3VLForConditionalGeneration": Architecture(
        "qwen3_vl", _QWEN_IMAGE, _QWEN, images={"patch_size": 16}
    ),
    "Qwen3VLMoeForConditionalGeneration": Architecture("qwen3_vl_moe", _QWEN_IMAGE, _QWEN, like="qwen3_vl"),
    "Qwen3_5ForConditionalGeneration": Architecture("qwen3_5", _QWEN_IMAGE, _QWEN),
    "Qwen3_5MoeForConditionalGeneration": Architecture("qwen3_5_moe", _QWEN_IMAGE, _QWEN),
    "Qwen4ExpForConditionalGeneration": Architecture("qwen4_exp", _QWEN_IMAGE, _QWEN),
    "LightOnOcrForConditionalGeneration": Architecture(
        "lighton_ocr",
        "<|image_pad|>",
        {
            "image_token": "<|image_pad|>",
            "image_break_token": "<|vision_pad|>",
            "image_end_token": "<|vision_end|>",
        },
    ),
    "VideoLlama3ForConditionalGeneration": Architecture(
        "video_llama_3", "<image>", {"image_token": "<image>", "video_token": "<video>"}
    ),
    "SmolVLMForConditionalGeneration": Architecture(
        "smolvlm",
        "<image>",
        {
            "image_token": "<image>",
            "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
            "video_token": "<video>",
        },
        IDEFICS,
        _ROWS,
        config=_TILE,
        images=_TWO_TILES,
    ),
    "Step3p7ForConditionalGeneration": Architecture(
        "step3p7",
        "<im_patch>",
        {},
        more=("<im_patch>", "<im_start>", "<im_end>", "<patch_start>", "<patch_end>", "<patch_newline>"),
    ),
}

UNSERVED: dict[str, str] = {
    "DiffusionGemmaForBlockDiffusion": "a diffusion model, which vLLM 0.32 does not run on CPU",
    "Ernie4_5_VLMoeForConditionalGeneration": "vLLM 0.32 passes `videos=[]`; transformers 5.19 fails",
    "Glm5NextForConditionalGeneration": "vLLM 0.32 refuses its configuration on CPU (mamba block size)",
    "LlavaNextVideoForConditionalGeneration": "vLLM serves it with videos, not with images",
    "NemotronH_Omni_Reasoning_V3": "its processor needs an audio feature extractor of the checkpoint",
    "QianfanOCRForConditionalGeneration": "vLLM 0.32 fails on `image_size`, a list in transformers 5.19",
}
"""Architectures for images that the matrix does not cover, with the reason. The table may only shrink."""

OTHER_FORMATS: dict[str, str] = {
    "DeepseekOCRForCausalLM": "DeepSeek-OCR, whose checkpoint has no chat template and whose processor "
    "is vLLM's. Served by the plugin vlm-run-deepseek-ocr, or with `--chat-template`.",
    "PixtralForConditionalGeneration": "Pixtral in Mistral's own format, with `params.json` in place of "
    "`config.json` and no chat template: served by the plugin vlm-run-mistral-vl. In transformers' "
    "format: `LlavaForConditionalGeneration (Pixtral)` above.",
}
"""Architectures that vLLM serves and transformers lacks, of which users ask, with what to do."""

REMOTE_CODE: dict[str, str] = {
    "BeeForConditionalGeneration": "Open-Bee/Bee-8B-RL",
    "DotsOCRForCausalLM": "rednote-hilab/dots.ocr",
    "Eagle2_5_VLForConditionalGeneration": "nvidia/Eagle2.5-8B",
    "GLM4VForCausalLM": "zai-org/glm-4v-9b",
    "H2OVLChatModel": "h2oai/h2ovl-mississippi-800m",
    "InternS1ForConditionalGeneration": "internlm/Intern-S1",
    "InternS1ProForConditionalGeneration": "internlm/Intern-S1-Pro",
    "InternVLChatModel": "OpenGVLab/InternVL3-1B",
    "IsaacForConditionalGeneration": "PerceptronAI/Isaac-0.1",
    "KananaVForConditionalGeneration": "kakaocorp/kanana-1.5-v-3b-instruct",
    "KeyeForConditionalGeneration": "Kwai-Keye/Keye-VL-8B-Preview",
    "KeyeVL1_5ForConditionalGeneration": "Kwai-Keye/Keye-VL-1_5-8B",
    "KimiK25ForConditionalGeneration": "moonshotai/Kimi-K2.5",
    "KimiVLForConditionalGeneration": "moonshotai/Kimi-VL-A3B-Instruct",
    "Llama_Nemotron_Nano_VL": "nvidia/Llama-3.1-Nemotron-Nano-VL-8B-V1",
    "MiniCPMO": "openbmb/MiniCPM-o-2_6",
    "MiniCPMV": "openbmb/MiniCPM-V-4_5",
    "Molmo2ForConditionalGeneration": "allenai/Molmo2-8B",
    "MolmoForCausalLM": "allenai/Molmo-7B-D-0924",
    "NVLM_D": "nvidia/NVLM-D-72B",
    "OpenCUAForConditionalGeneration": "xlangai/OpenCUA-7B",
    "OpenPanguVLForConditionalGeneration": "FreedomIntelligence/openPangu-VL-7B",
    "Ovis": "AIDC-AI/Ovis2-1B",
    "Ovis2_5": "AIDC-AI/Ovis2.5-2B",
    "Ovis2_6_MoeForCausalLM": "AIDC-AI/Ovis2.6-30B-A3B",
    "Phi4MMForCausalLM": "microsoft/Phi-4-multimodal-instruct",
}
"""Architectures for images whose checkpoints need Python code of their own, with one of them.

Those that vLLM's tests load with `trust_remote_code=True`: tests/models/registry.py (0008d35).
"""

SIZES = (
    (336, 336),
    (640, 480),
    (480, 640),
    (800, 320),
    (300, 900),
    (224, 224),
    (64, 64),
    (50, 60),
    (100, 75),
    (700, 100),
    (512, 384),
    (333, 777),
)
"""The (width, height) in pixels on which token counts are compared with vLLM's processor."""

_ENDS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<start_of_turn>", "<end_of_turn>", "<bos>", "<pad>")


def vllm_name(architecture: str) -> str:
    """The architecture of a key of `ARCHITECTURES`, which may name a variant after it.

    >>> vllm_name("LlavaForConditionalGeneration (Pixtral)")
    'LlavaForConditionalGeneration'
    """
    return architecture.partition(" ")[0]


def candidates() -> set[str]:
    """Architectures for images of which both vLLM and transformers have what is needed to serve them."""
    import transformers
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
    from vllm.model_executor.models.registry import _MULTIMODAL_MODELS

    found = set()
    tables = [getattr(modeling_auto, name) for name in dir(modeling_auto) if name.endswith("MAPPING_NAMES")]
    for model_type, names in (pair for table in tables for pair in table.items()):
        for name in [names] if isinstance(names, str) else names:
            if name not in _MULTIMODAL_MODELS:
                continue
            processor = getattr(transformers, PROCESSOR_MAPPING_NAMES.get(model_type) or "", None)
            if processor and "image_processor" in processor.get_attributes():
                found.add(name)
    return found


def write_checkpoint(directory: Path, architecture: str, small: Mapping[str, Any] | None = None) -> None:
    """Write the configuration, tokenizer, processor and chat template of an architecture.

    Args:
        directory: An empty directory.
        architecture: A key of `ARCHITECTURES`.
        small: Values for the dimensions of the configuration and its sections, by name.
    """
    import transformers
    from transformers import AutoConfig, AutoTokenizer
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    found = ARCHITECTURES[architecture]
    processor_name = found.processor_class or PROCESSOR_MAPPING_NAMES[found.model_type]
    ids = write_byte_tokenizer(
        directory,
        [*_ENDS, *found.roles.values(), *found.more],
        bos_token="<bos>",
        eos_token="<|im_end|>",
        pad_token="<pad>",
        unk_token="<|endoftext|>",
        extra_special_tokens=dict(found.roles),
    )
    if found.template is GEMMA or found.newlines:
        ids |= _add_newlines(directory)
    config = AutoConfig.for_model(found.model_type, **found.config).to_dict()
    config["architectures"] = [vllm_name(architecture)]
    _set_tokens(config, found, ids)
    if small is not None:
        for section in [config, *(value for value in config.values() if isinstance(value, dict))]:
            section.update({name: value for name, value in small.items() if section.get(name) is not None})
            layers = section.get("num_hidden_layers")
            if isinstance(section.get("layer_types"), list):
                section["layer_types"] = section["layer_types"][:layers]
            if section.get("per_layer_config"):
                section["per_layer_config"] = {}  # of layers that there are no more
    (directory / "config.json").write_text(json.dumps(config))
    ends = [ids["<|im_end|>"], ids["<end_of_turn>"]]
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    # Some processors do not save a template.
    template = found.template.replace("IMAGE", found.image.replace("\n", "\\n"))
    (directory / "chat_template.jinja").write_text(template)
    processor_class = getattr(transformers, processor_name)
    parts = {
        name: AutoTokenizer.from_pretrained(directory) if name == "tokenizer" else _part(found, name)
        for name in processor_class.get_attributes()
    }
    processor = processor_class(**parts, **found.processor, chat_template=template)
    processor.save_pretrained(directory)


def _add_newlines(directory: Path) -> dict[str, int]:
    """Give the tokenizer Gemma's tokens for runs of newlines, which vLLM looks up in its vocabulary."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    runs = ["\n" * count for count in range(1, 5)]
    tokenizer.add_tokens(runs)
    tokenizer.save(str(directory / "tokenizer.json"))
    return {run: tokenizer.token_to_id(run) for run in runs}


def _part(found: Architecture, name: str) -> Any:
    """The image processor, video processor or feature extractor of an architecture's processor."""
    import transformers
    from transformers.models.auto import feature_extraction_auto, image_processing_auto, video_processing_auto

    classes: Any = {
        "image_processor": image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES,
        "video_processor": video_processing_auto.VIDEO_PROCESSOR_MAPPING_NAMES,
        "feature_extractor": feature_extraction_auto.FEATURE_EXTRACTOR_MAPPING_NAMES,
    }[name]
    named = (not found.processor_class and classes.get(found.model_type)) or classes[found.like]
    if isinstance(named, Mapping):
        named = named.get("torchvision") or next(iter(named.values()))
    elif isinstance(named, (tuple, list)):
        named = next(each for each in reversed(named) if each)
    arguments = {"image_processor": found.images, "video_processor": found.videos}.get(name, {})
    return getattr(transformers, named)(**arguments)


def _set_tokens(config: dict[str, Any], found: Architecture, ids: Mapping[str, int]) -> None:
    """Set every token id of a configuration to the tokenizer's, and what else depends on the tokenizer."""
    image = next(filter(None, [*(found.roles.get(role) for role in _IMAGE_ROLES), *found.more]), None)
    values = {f"{role}_id": ids[token] for role, token in found.roles.items()}
    values |= {"bos_token_id": ids["<bos>"], "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<pad>"]}
    for name in ("image_token_id", "image_token_index", "img_context_token_id"):
        if image is not None:
            values.setdefault(name, ids[image])
    values |= {"vocab_size": 256 + len(ids), "max_position_embeddings": 65536}
    for section in [config, *(value for value in config.values() if isinstance(value, dict))]:
        section.update({name: value for name, value in values.items() if section.get(name) is not None})


_IMAGE_ROLES = ("image_token", "context_image_token")

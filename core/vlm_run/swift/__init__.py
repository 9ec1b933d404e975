"""ms-swift's Python functions for inference on vLLM, under their own names.

A script written for `swift.llm` works once its import line is changed:

    from vlm_run.swift import (
        ModelType, get_vllm_engine, get_default_template_type,
        get_template, inference_vllm
    )

Each function is a thin layer over `Registry`, `Adapter` and `Engine`.
"""

from __future__ import annotations

from vlm_run.media import convert_to_base64
from vlm_run.swift.generation_config import GenerationConfig, VllmGenerationConfig
from vlm_run.swift.inference import inference_stream_vllm, inference_vllm
from vlm_run.swift.model_type import ModelType
from vlm_run.swift.template import Template, get_default_template_type, get_template
from vlm_run.swift.vllm_engine import VllmEngine, get_vllm_engine

__all__ = [
    "GenerationConfig",
    "ModelType",
    "Template",
    "VllmEngine",
    "VllmGenerationConfig",
    "convert_to_base64",
    "get_default_template_type",
    "get_template",
    "get_vllm_engine",
    "inference_stream_vllm",
    "inference_vllm",
]

"""Sampling parameters in vLLM's form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vlm_run.prompts.tokenize import stop_conditions
from vlm_run.request import Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from vllm import SamplingParams


def sampling_params(
    sampling: Sampling,
    *,
    tokens_left: int,
    tokenizer: PreTrainedTokenizerBase,
    stop: Sequence[str],
    **more: Any,
) -> SamplingParams:
    """Return the parameters of one request.

    Args:
        sampling: The parameters that the caller set.
        tokens_left: Number of tokens that the prompt leaves in the context.
        tokenizer: The checkpoint's tokenizer.
        stop: Strings that end answers of the model type, in addition to the caller's.
        more: Further parameters in vLLM's names.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    structured = None
    if sampling.json_schema is not None:
        # As text, since vLLM cannot send integers of more than 64 bits to its engine.
        structured = StructuredOutputsParams(json=json.dumps(sampling.json_schema))
    elif sampling.choice is not None:
        structured = StructuredOutputsParams(choice=list(sampling.choice))
    ids, strings = stop_conditions(tokenizer, (*stop, *sampling.stop))
    return SamplingParams(
        **sampling.model_dump(exclude={"max_tokens", "stop", "json_schema", "choice"}),
        structured_outputs=structured,
        max_tokens=min(tokens_left, sampling.max_tokens or tokens_left),
        stop=strings,
        stop_token_ids=ids,
        **more,
    )


def with_model_params(params: SamplingParams, model_params: Mapping[str, Any]) -> SamplingParams:
    """Return a request's parameters with `ModelSpec.sampling_params`, where it leaves vLLM's defaults.

    Of `extra_args`, each entry that the request does not give is added.
    """
    if not model_params:
        return params
    import msgspec
    from vllm import SamplingParams

    unset = SamplingParams()
    added = {
        name: value for name, value in model_params.items() if getattr(params, name) == getattr(unset, name)
    }
    if "extra_args" in model_params:
        added["extra_args"] = {**model_params["extra_args"], **(params.extra_args or {})}
    changed: SamplingParams = msgspec.structs.replace(params, **added)
    return changed


def param_names() -> tuple[str, ...]:
    """Return the fields of vLLM's `SamplingParams`."""
    from vllm import SamplingParams

    names: tuple[str, ...] = SamplingParams.__struct_fields__
    return names

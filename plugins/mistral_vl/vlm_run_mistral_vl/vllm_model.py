"""vLLM's Pixtral with a processor that puts an image's tokens in the place of one `[IMG]`.

vLLM's own expects all tokens of the images in the prompt, where mistral-common puts them, and has no string
that stands for an image. A prompt of that kind is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from vllm.model_executor.models import pixtral
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.processing import BaseMultiModalProcessor


class ExpandingProcessor(pixtral.PixtralMultiModalProcessor):  # type: ignore[misc]
    """Replaces each `[IMG]` of a prompt that has one for each image."""

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> Sequence[Any]:
        (update,) = super()._get_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)
        processor = self.info.get_hf_processor(**hf_processor_mm_kwargs)
        return [replace(update, target=[processor.image_token_id])]

    def _maybe_apply_prompt_updates(self, mm_items: Any, mm_res: Any) -> Any:
        if self.info.get_hf_processor().image_end_id in mm_res.prompt_ids:
            return super()._maybe_apply_prompt_updates(mm_items, mm_res)
        return BaseMultiModalProcessor._maybe_apply_prompt_updates(self, mm_items, mm_res)


@MULTIMODAL_REGISTRY.register_processor(
    ExpandingProcessor, info=pixtral.PixtralProcessingInfo, dummy_inputs=pixtral.PixtralDummyInputsBuilder
)
class PixtralForConditionalGeneration(pixtral.PixtralForConditionalGeneration):  # type: ignore[misc]
    """vLLM's model, with the processor above."""

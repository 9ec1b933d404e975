"""vLLM's Phi-3-vision with this plugin's processor, and placeholders located by token.

vLLM searches for the tags `<|image_1|>` in the prompt's text, which it decodes from the token ids, so a
tag that a user wrote would become an image. vlm-run passes token ids in which each image is already one
`<|image|>`, a token that user text never becomes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vllm.model_executor.models import phi3v
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.processing import BaseMultiModalProcessor, PromptReplacement, PromptUpdate

from vlm_run_phi3_vision.processing import IMAGE_TOKEN, Phi3VProcessor

_TAG = re.compile(r"<\|image_\d+\|>")


class _ProcessingInfo(phi3v.Phi3VProcessingInfo):  # type: ignore[misc]
    def get_hf_processor(self, **kwargs: object) -> Phi3VProcessor:
        return self.ctx.get_hf_processor(Phi3VProcessor, **kwargs)  # type: ignore[no-any-return]


class _Processor(phi3v.Phi3VMultiModalProcessor):  # type: ignore[misc]
    def _image_token(self) -> int:
        token: int = self.info.get_tokenizer().convert_tokens_to_ids(IMAGE_TOKEN)
        return token

    def _hf_processor_applies_updates(self, *args: Any, **kwargs: Any) -> bool:
        return False  # called up to vLLM 0.28

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, Any], out_mm_kwargs: Any
    ) -> Sequence[PromptUpdate]:
        processor = self.info.get_hf_processor(**hf_processor_mm_kwargs)
        image = self._image_token()

        def replacement(index: int) -> list[int]:
            size = mm_items["image"].get_image_size(index)
            return [image] * processor.calc_num_image_tokens_from_image_size(
                width=size.width, height=size.height
            )

        return [PromptReplacement(modality="image", target=[image], replacement=replacement)]

    def _recompute_cached_prompt_update(self, cached_update: Any, new_item_idx: int) -> Any:
        return BaseMultiModalProcessor._recompute_cached_prompt_update(self, cached_update, new_item_idx)

    def _apply_prompt_updates(self, token_ids: list[int], mm_prompt_updates: Any) -> Any:
        if mm_prompt_updates and self._image_token() not in token_ids:
            token_ids = self._tags_to_tokens(token_ids)
        return BaseMultiModalProcessor._apply_prompt_updates(self, token_ids, mm_prompt_updates)

    def _tags_to_tokens(self, token_ids: list[int]) -> list[int]:
        """Tokenize a prompt of someone who uses vLLM directly, with tags in the text.

        Like the checkpoint's processor, each text between tags is tokenized with its own BOS.
        """
        tokenizer = self.info.get_tokenizer()
        if token_ids[:1] == [tokenizer.bos_token_id]:
            token_ids = token_ids[1:]
        first, *rest = _TAG.split(tokenizer.decode(token_ids))
        ids: list[int] = list(tokenizer(first).input_ids)
        for text in rest:
            ids += [self._image_token(), *tokenizer(text).input_ids]
        return ids


@MULTIMODAL_REGISTRY.register_processor(
    _Processor, info=_ProcessingInfo, dummy_inputs=phi3v.Phi3VDummyInputsBuilder
)
class Phi3VForCausalLM(phi3v.Phi3VForCausalLM):  # type: ignore[misc]
    """vLLM's model, unchanged."""

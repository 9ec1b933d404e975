"""vLLM's Qwen2-VL with images sent to the GPU as bytes instead of as normalized floats.

The image processor normally rescales and normalizes each image, and repeats each patch for the two frames
that the model expects. Here it only resizes and cuts into patches, and the model does the rest on its own
device, in the same arithmetic. An image then is a quarter of the size between the processes and on the way to
the GPU. The engine option `mm_processor_kwargs={"do_normalize": true}` turns this off. Newer versions of vLLM
normalize on the device by themselves (`mm_device_do_normalize`); there, this module leaves it to them.

The rotary embedding of an image grid is also kept on the device: computing it for each batch copies positions
from unpinned memory, for which the CPU waits until the GPU has finished all earlier work.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

import torch
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from vllm.config import VllmConfig
from vllm.model_executor.models import qwen2_vl
from vllm.multimodal import MULTIMODAL_REGISTRY

_FRAMES = 2  # temporal_patch_size, of which an image fills both frames with the same pixels
_MAX_GRIDS = 32


class BytePatches(Qwen2VLImageProcessor):  # type: ignore[misc]
    """Returns patches as bytes (uint8), of one frame."""

    def _preprocess(self, images: Any, **kwargs: Any) -> Any:
        return super()._preprocess(
            images, **{**kwargs, "do_rescale": False, "do_normalize": False, "temporal_patch_size": 1}
        )

    @classmethod
    def of(cls, processor: Any) -> Any:
        """An image processor as one of this class, or unchanged if it works in another way."""
        if type(processor) is not Qwen2VLImageProcessor or processor.temporal_patch_size != _FRAMES:
            return processor
        if not (processor.do_rescale and processor.do_normalize):
            return processor
        converted = copy(processor)
        converted.__class__ = cls
        return converted


class ProcessingInfo(qwen2_vl.Qwen2VLProcessingInfo):  # type: ignore[misc]
    """Gives vLLM the image processor that returns bytes."""

    def get_hf_processor(self, **kwargs: object) -> Any:
        """vLLM's method of this name."""
        processor = super().get_hf_processor(**kwargs)
        options = self.ctx.get_merged_mm_kwargs(kwargs)
        if "do_normalize" not in options and "do_rescale" not in options:
            processor = copy(processor)
            processor.image_processor = BytePatches.of(processor.image_processor)
        return processor


@MULTIMODAL_REGISTRY.register_processor(
    qwen2_vl.Qwen2VLMultiModalProcessor,
    info=ProcessingInfo,
    dummy_inputs=qwen2_vl.Qwen2VLDummyInputsBuilder,
)
class Qwen2VLForConditionalGeneration(qwen2_vl.Qwen2VLForConditionalGeneration):  # type: ignore[misc]
    """vLLM's model; it also takes patches as bytes."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self._normalization: Normalization | None = None
        if not getattr(self.multimodal_config, "mm_device_do_normalize", False):
            info = MULTIMODAL_REGISTRY.get_processing_info(vllm_config.model_config)
            self._normalization = Normalization(info.get_hf_processor().image_processor)
        self.visual.rot_pos_emb = CachedRotaryEmbedding(self.visual.rot_pos_emb)

    def _parse_and_validate_image_input(self, **kwargs: Any) -> Any:
        return super()._parse_and_validate_image_input(**self._with_floats(kwargs))

    def prepare_encoder_cudagraph_replay_buffers(
        self, mm_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """vLLM's method of this name, for encoder CUDA graphs."""
        return super().prepare_encoder_cudagraph_replay_buffers(self._with_floats(mm_kwargs), *args, **kwargs)

    def encoder_eager_forward(self, mm_kwargs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """vLLM's method of this name, for images larger than any encoder CUDA graph."""
        return super().encoder_eager_forward(self._with_floats(mm_kwargs), *args, **kwargs)

    def _with_floats(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        patches: Any = inputs.get("pixel_values")
        if self._normalization is None or getattr(patches, "dtype", None) != torch.uint8:
            return dict(inputs)
        patches = self._normalization(patches.to(self.visual.device), self.visual.dtype)
        return {**inputs, "pixel_values": patches}


class Normalization:
    """Rescaling and normalization as transformers' image processor does them: in float32, then rounded.

    Args:
        processor: The checkpoint's image processor.
    """

    def __init__(self, processor: Any) -> None:
        # transformers divides by the rescale factor once, in its normalization constants.
        scale = 1.0 / processor.rescale_factor
        self._mean = (torch.tensor(processor.image_mean, device="cpu") * scale)[:, None]
        self._std = (torch.tensor(processor.image_std, device="cpu") * scale)[:, None]

    def __call__(self, patches: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Patches as the model takes them.

        Args:
            patches: Bytes of shape (patches, channels × patch area).
            dtype: The data type of the result.

        Returns:
            Shape (patches, channels × 2 frames × patch area).
        """
        if self._mean.device != patches.device:
            self._mean, self._std = self._mean.to(patches.device), self._std.to(patches.device)
        channels = len(self._mean)
        pixels = patches.view(len(patches), channels, -1).to(torch.float32)
        pixels = pixels.sub_(self._mean).div_(self._std).to(dtype)
        return pixels[:, :, None].expand(-1, -1, _FRAMES, -1).reshape(len(patches), -1)


class CachedRotaryEmbedding:
    """Cosines and sines of the most recently used image grids.

    Args:
        compute: vLLM's `rot_pos_emb`.
    """

    def __init__(self, compute: Callable[[list[list[int]]], tuple[torch.Tensor, torch.Tensor]]) -> None:
        self._compute = compute
        self._cache: OrderedDict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = OrderedDict()

    def __call__(self, grid_thw: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """As `rot_pos_emb`: the embeddings of grids, each (frames, height, width), one after the other."""
        parts = [self._of(height, width) for frames, height, width in grid_thw for _ in range(frames)]
        if len(parts) == 1:
            return parts[0]
        return torch.cat([cos for cos, _ in parts]), torch.cat([sin for _, sin in parts])

    def _of(self, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        grid = (height, width)
        if grid not in self._cache:
            self._cache[grid] = self._compute([[1, height, width]])
        self._cache.move_to_end(grid)
        found = self._cache[grid]
        while len(self._cache) > _MAX_GRIDS:
            self._cache.popitem(last=False)
        return found

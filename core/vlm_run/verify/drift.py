"""How far vLLM's greedy answers are from those of transformers on the same weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlm_run.request import Request
from vlm_run.response import Trace

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter
    from vlm_run.media import MediaPolicy
    from vlm_run.verify.reference import Continued


@dataclass(frozen=True, slots=True)
class Drift:
    """One answer of vLLM, and what transformers makes of it.

    transformers is asked at each place what comes next after vLLM's own tokens up to there. So
    every place of the answer counts, not only those before the first divergence, and up to there
    this is what transformers would have answered by itself.

    Attributes:
        prompt: Its name.
        response: vLLM's answer.
        prompt_tokens: In vLLM's prompt.
        same_prompt: Whether transformers' processor makes the same token ids of it.
        agrees: For each token of the answer, whether it is the most likely one to transformers, too.
        differences: For each token of the answer, how far apart its two log-probabilities are.
    """

    prompt: str
    response: str
    prompt_tokens: int
    same_prompt: bool
    agrees: tuple[bool, ...]
    differences: tuple[float, ...]

    @property
    def first_divergence(self) -> int | None:
        """The place in the answer, from 0 on, of the first token that transformers would not choose."""
        return self.agrees.index(False) if False in self.agrees else None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "prompt": self.prompt,
            "response": self.response,
            "prompt_tokens": self.prompt_tokens,
            "same_prompt": self.same_prompt,
            "tokens": len(self.agrees),
            "agreement": _share(self.agrees),
            "first_divergence": self.first_divergence,
            "largest_logprob_difference": max(self.differences, default=0.0),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """The drift of all prompts, and of which versions it is.

    Attributes:
        model_type: The model type.
        dtype: Of weights and activations in both.
        versions: Of vLLM, transformers and torch.
        prompts: Each prompt's.
    """

    model_type: str
    dtype: str
    versions: Mapping[str, str]
    prompts: tuple[Drift, ...]

    @property
    def agreement(self) -> float:
        """The share of all tokens of all answers that transformers would choose, too."""
        return _share([same for drift in self.prompts for same in drift.agrees])

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        differences = [difference for drift in self.prompts for difference in drift.differences]
        places = [drift.first_divergence for drift in self.prompts if drift.first_divergence is not None]
        return {
            "model_type": self.model_type,
            "dtype": self.dtype,
            "versions": dict(self.versions),
            "prompts": [drift.to_dict() for drift in self.prompts],
            "summary": {
                "prompts": len(self.prompts),
                "same_prompts": sum(drift.same_prompt for drift in self.prompts),
                "tokens": len(differences),
                "agreement": self.agreement,
                "diverging_prompts": len(places),
                "first_divergence": min(places, default=None),
                "largest_logprob_difference": max(differences, default=0.0),
                "mean_logprob_difference": sum(differences) / len(differences) if differences else 0.0,
            },
        }


def judge(
    adapter: Adapter,
    requests: Mapping[str, Any],
    traces: Sequence[Trace],
    dtype: str,
    policy: MediaPolicy | None = None,
) -> Report:
    """What transformers makes of answers that vLLM gave. Shut its engine down before, for the memory.

    Args:
        adapter: The model, under the engine's options.
        requests: What was asked, under names.
        traces: What `Engine.trace` answered, in the same order.
        dtype: As vLLM's.
        policy: What images may be fetched, and how large they may be.

    Raises:
        EngineError: transformers cannot load the model.
    """
    import torch
    import transformers

    from vlm_run.engine.versions import vllm_version
    from vlm_run.media import MediaPolicy
    from vlm_run.verify.reference import Reference

    reference = Reference(adapter, dtype, policy or MediaPolicy())
    drifts = [
        compare(name, trace, reference.continued(Request.parse(request).conversation, trace.token_ids))
        for (name, request), trace in zip(requests.items(), traces, strict=True)
    ]
    versions = {
        "vllm": str(vllm_version()),
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }
    return Report(adapter.spec.model_type, dtype, versions, tuple(drifts))


def compare(prompt: str, trace: Trace, continued: Continued) -> Drift:
    """The drift of one answer."""
    return Drift(
        prompt=prompt,
        response=trace.response,
        prompt_tokens=len(trace.prompt_token_ids),
        same_prompt=trace.prompt_token_ids == continued.prompt_token_ids,
        agrees=tuple(ours == theirs for ours, theirs in zip(trace.token_ids, continued.best, strict=True)),
        differences=tuple(
            abs(ours - theirs) for ours, theirs in zip(trace.logprobs, continued.logprobs, strict=True)
        ),
    )


def standard_requests(max_images: int | None) -> dict[str, Any]:
    """Requests for any model, with drawn pictures; those with more than `max_images` are left out."""
    from PIL import Image

    def picture(width: int, height: int, left: float) -> Image.Image:
        # Fine and coarse detail, the same everywhere.
        levels = Image.effect_mandelbrot((width, height), (left, -1.2, left + 2.4, 1.2), 64)
        colours = [
            levels,
            levels.transpose(Image.Transpose.ROTATE_180),
            levels.point(lambda level: 255 - level),
        ]
        return Image.merge("RGB", [colour.resize((width, height)) for colour in colours])

    wide, tall, small = picture(640, 480, -2.0), picture(300, 700, -1.5), picture(120, 100, -1.0)
    asked = {
        "text": ("Explain in two sentences why the sky is blue.", []),
        "one picture": ("Describe this picture in detail.", [wide]),
        "a tall picture": ("Which colours does this picture have, and where?", [tall]),
        "a small picture": ("What is this?", [small]),
        "two pictures": ("What do the two pictures have in common?", [wide, small]),
    }
    return {
        name: {"query": question, "images": images}
        for name, (question, images) in asked.items()
        if max_images is None or len(images) <= max_images
    }


def _share(agrees: Sequence[bool]) -> float:
    return sum(agrees) / len(agrees) if agrees else 1.0

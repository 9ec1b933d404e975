"""Compares vLLM's greedy answers with those of transformers, token by token, on the same weights."""

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
    """One answer of vLLM, compared with transformers.

    At each position, transformers predicts the next token from vLLM's own tokens before it. So every
    position of the answer is compared, not only those before the first divergence; up to there, the
    predictions are what transformers would have answered by itself.

    Attributes:
        prompt: The name of the prompt.
        response: vLLM's answer.
        prompt_tokens: Number of tokens in vLLM's prompt.
        same_prompt: Whether transformers' processor produces the same token ids.
        agrees: For each token of the answer, whether transformers also predicts it.
        differences: For each token of the answer, the absolute difference of its two log-probabilities.
    """

    prompt: str
    response: str
    prompt_tokens: int
    same_prompt: bool
    agrees: tuple[bool, ...]
    differences: tuple[float, ...]

    @property
    def first_divergence(self) -> int | None:
        """Index of the first token that transformers does not predict; None if it predicts all."""
        return self.agrees.index(False) if False in self.agrees else None

    def to_dict(self) -> dict[str, Any]:
        """The drift as JSON-compatible data."""
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
    """The drift of all prompts, with the versions compared.

    Attributes:
        model_type: The model type.
        dtype: The dtype of weights and activations in both.
        versions: The versions of vLLM, transformers and torch.
        prompts: The drift of each prompt.
    """

    model_type: str
    dtype: str
    versions: Mapping[str, str]
    prompts: tuple[Drift, ...]

    @property
    def agreement(self) -> float:
        """The share of the tokens of all answers that transformers also predicts."""
        return _share([same for drift in self.prompts for same in drift.agrees])

    def to_dict(self) -> dict[str, Any]:
        """The drift as JSON-compatible data."""
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
    """Compare answers of vLLM with transformers. Shut the engine down first to free its memory.

    Args:
        adapter: The model, with the engine's options applied.
        requests: The requests by name.
        traces: vLLM's answers to them with log-probabilities, in the same order.
        dtype: The dtype that vLLM used.
        policy: Which images may be fetched, and how large they may be.

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
    """Requests for any model, with drawn images; those with more than `max_images` are left out."""
    from PIL import Image

    def drawn(width: int, height: int, left: float) -> Image.Image:
        # Fine and coarse detail, the same on every machine.
        levels = Image.effect_mandelbrot((width, height), (left, -1.2, left + 2.4, 1.2), 64)
        colours = [
            levels,
            levels.transpose(Image.Transpose.ROTATE_180),
            levels.point(lambda level: 255 - level),
        ]
        return Image.merge("RGB", [colour.resize((width, height)) for colour in colours])

    wide, tall, small = drawn(640, 480, -2.0), drawn(300, 700, -1.5), drawn(120, 100, -1.0)
    asked = {
        "text": ("Explain in two sentences why the sky is blue.", []),
        "one image": ("Describe this image in detail.", [wide]),
        "a tall image": ("Which colours does this image have, and where?", [tall]),
        "a small image": ("What is this?", [small]),
        "two images": ("What do the two images have in common?", [wide, small]),
    }
    return {
        name: {"query": question, "images": images}
        for name, (question, images) in asked.items()
        if max_images is None or len(images) <= max_images
    }


def _share(agrees: Sequence[bool]) -> float:
    return sum(agrees) / len(agrees) if agrees else 1.0

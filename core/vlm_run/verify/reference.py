"""Runs a checkpoint with transformers, as the reference for vLLM's answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from vlm_run.errors import EngineError
from vlm_run.media import MediaPolicy, load_image
from vlm_run.prompts.documents import with_pages

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter
    from vlm_run.prompts.conversation import Conversation


@dataclass(frozen=True, slots=True)
class Continued:
    """transformers' predictions for a given answer, token by token.

    Attributes:
        prompt_token_ids: The prompt's token ids from transformers' own processor.
        best: The most likely token at each position, given the answer before it.
        logprobs: The natural logarithm of the probability of the answer's own token at each position.
    """

    prompt_token_ids: tuple[int, ...]
    best: tuple[int, ...]
    logprobs: tuple[float, ...]


def check_reference(adapter: Adapter) -> None:
    """Raise `EngineError` if transformers does not implement the model without the checkpoint's code.

    Only `config.json` is read.
    """
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig

    try:
        config = AutoConfig.from_pretrained(adapter.source, trust_remote_code=False, **_revision(adapter))
    except Exception as error:  # raised by transformers and by the libraries with which it reads the hub
        raise _unable(adapter, error) from error
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise EngineError(
            f"transformers has no model of its own for '{adapter.spec.model_type}' to compare vLLM with"
        )


class Reference:
    """The model in transformers, on a GPU if there is one.

    Args:
        adapter: The model; its options `revision` and `mm_processor_kwargs` apply here as well.
        dtype: The dtype of weights and activations, such as `bfloat16`.
        policy: Which images may be fetched, and how large they may be.

    Raises:
        EngineError: transformers cannot load the model.
    """

    def __init__(self, adapter: Adapter, dtype: str, policy: MediaPolicy) -> None:
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor
        from transformers.utils import logging

        self._adapter = adapter
        self._policy = policy
        self._dtype = getattr(torch, dtype)
        # Spread over several GPUs if vLLM was, because one does not have enough memory.
        spread = {"device_map": "auto"} if torch.cuda.device_count() > 1 else {}
        logging.disable_progress_bar()
        try:
            source: dict[str, Any] = {"trust_remote_code": False, **_revision(adapter)}
            self._processor = AutoProcessor.from_pretrained(adapter.source, **source)
            self._model = AutoModelForImageTextToText.from_pretrained(
                adapter.source, dtype=self._dtype, **spread, **source
            ).eval()
        except Exception as error:
            raise _unable(adapter, error) from error
        if not spread:
            self._model.to("cuda" if torch.cuda.is_available() else "cpu")

    def continued(self, conversation: Conversation, answer: Sequence[int]) -> Continued:
        """The model's predictions for an answer, from one forward pass over prompt and answer.

        Raises:
            RequestError: The conversation or one of its images is at fault.
        """
        import torch

        inputs = self._inputs(conversation)
        prompt = inputs["input_ids"]
        whole = _with_answer(inputs, torch.tensor([list(answer)], device=prompt.device))
        with torch.inference_mode():
            # The logits before each token of the answer; those after the last token predict nothing.
            logits = self._model(**whole, logits_to_keep=len(answer) + 1).logits[0, :-1].float()
        logprobs = logits.log_softmax(dim=-1)
        chosen = logprobs.gather(1, torch.tensor(answer, device=logits.device)[:, None])[:, 0]
        return Continued(
            prompt_token_ids=tuple(prompt[0].tolist()),
            best=tuple(logits.argmax(dim=-1).tolist()),
            logprobs=tuple(chosen.tolist()),
        )

    def _inputs(self, conversation: Conversation) -> Any:
        conversation = with_pages(conversation, self._policy)
        text = self._adapter.render_prompt(conversation).text
        images = [
            self._adapter.preprocess_image(
                load_image(
                    image.source,
                    self._policy,
                    page_size=partial(self._adapter.page_size, bounds=image),
                    message_index=message,
                    image_index=index,
                ),
                image,
            )
            for index, (message, image) in enumerate(conversation.image_places())
        ]
        bos = self._processor.tokenizer.bos_token
        inputs = self._processor(
            text=text,
            images=images or None,
            return_tensors="pt",
            # Some chat templates write the BOS themselves.
            add_special_tokens=not (bos and text.startswith(bos)),
            **self._adapter.engine_kwargs().get("mm_processor_kwargs", {}),
        )
        return inputs.to(self._model.device, dtype=self._dtype)


def _with_answer(inputs: Any, answer: Any) -> dict[str, Any]:
    """A prompt's tensors followed by an answer's tokens, which are text and are attended to."""
    import torch

    prompt = inputs["input_ids"]
    whole = dict(inputs)
    for name, value in inputs.items():
        if torch.is_tensor(value) and value.shape == prompt.shape:
            fill = 1 if name == "attention_mask" else 0
            whole[name] = torch.cat([value, value.new_full(answer.shape, fill)], dim=1)
    whole["input_ids"] = torch.cat([prompt, answer], dim=1)
    return whole


def _revision(adapter: Adapter) -> dict[str, Any]:
    options = adapter.engine_kwargs()
    return {"revision": options["revision"]} if options.get("revision") else {}


def _unable(adapter: Adapter, error: Exception) -> EngineError:
    first = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
    return EngineError(f"transformers cannot load '{adapter.spec.model_type}': {first}")

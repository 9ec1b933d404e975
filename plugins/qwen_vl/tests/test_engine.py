"""A real engine with random weights: what the prompt costs, and that pictures reach the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlm_run import Conversation, Registry

MODEL_TYPE = "qwen2-vl-2b-instruct"
QUESTION = Conversation.from_messages(
    [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": "wide.png"},
                {"type": "text", "text": "Before"},
                {"type": "image", "image": "tall.png"},
                {"type": "text", "text": "and after?"},
            ],
        }
    ]
)


@pytest.fixture(scope="module")
def llm(checkpoint: Callable[[str], Path]) -> Iterator[Any]:
    vllm = pytest.importorskip("vllm")
    import torch
    from transformers import AutoConfig, Qwen2VLForConditionalGeneration

    folder = checkpoint(MODEL_TYPE)
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration(AutoConfig.from_pretrained(folder))
    with torch.no_grad():  # large enough for a picture to move the answer's probabilities
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.save_pretrained(folder)

    options = Registry.load(MODEL_TYPE, checkpoint=folder).engine_kwargs(
        max_model_len=2048, max_num_seqs=2, dtype="float32", enforce_eager=True
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        engine = vllm.LLM(**options, mm_processor_kwargs={"max_pixels": 256 * 28 * 28})
        yield engine
        engine.llm_engine.engine_core.shutdown()


def _ask(llm: Any, pictures: list[Image.Image]) -> Any:
    from vllm import SamplingParams

    prompt = Registry.load(MODEL_TYPE).render(QUESTION)
    request = {"prompt": prompt.text, "multi_modal_data": {"image": pictures}}
    sampling = SamplingParams(max_tokens=4, temperature=0.0, logprobs=5, ignore_eos=True)
    (answer,) = llm.generate(request, sampling, use_tqdm=False)
    return answer


def _logprobs(answer: Any) -> list[dict[int, float]]:
    return [
        {token: round(entry.logprob, 4) for token, entry in position.items()}
        for position in answer.outputs[0].logprobs
    ]


def test_two_pictures_of_different_shapes_cost_what_was_counted_and_matter(llm: Any) -> None:
    wide = Image.linear_gradient("L").resize((400, 100)).convert("RGB")
    tall = Image.radial_gradient("L").resize((90, 300)).convert("RGB")
    answer = _ask(llm, [wide, tall])

    adapter = Registry.load(MODEL_TYPE)
    text = adapter.render(QUESTION).text.replace("<|image_pad|>", "")
    text_tokens = len(llm.get_tokenizer().encode(text))
    image_tokens = [adapter.count_image_tokens(*picture.size) for picture in (wide, tall)]
    assert image_tokens[0] != image_tokens[1]
    assert len(answer.prompt_token_ids) == text_tokens + sum(image_tokens)

    assert _logprobs(_ask(llm, [wide, tall])) == _logprobs(answer)
    for changed in ([wide.rotate(180), tall], [wide, tall.rotate(90)]):
        assert _logprobs(_ask(llm, changed)) != _logprobs(answer)

"""Real vLLM without remote code: what prompts cost, what pictures change, what text cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from vlm_run import Engine, Registry

WIDE = Image.linear_gradient("L").resize((700, 300)).convert("RGB")
TALL = Image.radial_gradient("L").resize((300, 500)).convert("RGB")
QUESTION = "Which is larger?"


@pytest.fixture(scope="module")
def phi3(checkpoint: Path) -> Iterator[Engine]:
    adapter = Registry.load(checkpoint)
    assert adapter.spec.model_type == "phi3-vision-128k-instruct"
    with adapter.engine(
        max_model_len=4096,
        max_num_seqs=2,
        max_num_batched_tokens=4096,
        dtype="float32",
        enforce_eager=True,
        kv_cache_memory_bytes=2**28,
        mm_processor_kwargs={"num_crops": 4},  # 16 take four times as long
        limit_mm_per_prompt={"image": 2},
    ) as engine:
        yield engine


def test_two_pictures_cost_what_was_counted_and_matter(phi3: Engine) -> None:
    noise = Image.effect_noise(TALL.size, 90).convert("RGB")
    sampling = {"max_tokens": 12}
    first, same, changed = phi3.infer(
        [{"query": QUESTION, "images": [WIDE, picture]} for picture in (TALL, TALL, noise)], sampling
    )
    counted = tuple(phi3.adapter.count_image_tokens(*picture.size) for picture in (WIDE, TALL))
    assert counted[0] != counted[1]
    assert first.error is None
    assert first.usage.image_tokens == counted
    # A token for each byte and for each special token; each piece between pictures has a BOS.
    pieces = ["SU\n", "S\n", f"S\n{QUESTION}E\nA\n"]  # S, U, E, A: <s>, <|user|>, <|end|>, <|assistant|>
    assert first.usage.prompt_tokens == sum(counted) + sum(map(len, pieces))
    assert same.response == first.response
    assert changed.response != first.response


def test_a_tag_in_the_users_text_is_no_picture(phi3: Engine) -> None:
    tagged = {"messages": [{"role": "user", "content": "Is <|image_1|> or <|end|> a tag?"}]}
    (answer,) = phi3.infer([tagged], {"max_tokens": 2})
    assert answer.error is None
    assert answer.usage.image_tokens == ()

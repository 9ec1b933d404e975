"""Model types as data: what a spec accepts and refuses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from vlm_run import FixedResolution, Limits, ModelSpec
from vlm_run.specs import canonical

SMALLEST: dict[str, Any] = {
    "model_type": "acme-vl-7b",
    "architecture": "AcmeForCausalLM",
    "chat_template": "acme.jinja",
    "image_placeholder": "<image>",
}


def test_four_fields_are_enough() -> None:
    spec = ModelSpec(**SMALLEST)
    assert spec.vision is None
    assert spec.max_images is None
    assert spec.stop == ()
    assert spec.vllm == ">=0.24,<0.34"


@pytest.mark.parametrize("field", SMALLEST)
def test_each_of_the_four_is_needed(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        ModelSpec(**{key: value for key, value in SMALLEST.items() if key != field})


def test_a_misspelt_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="image_placehodler"):
        ModelSpec(**SMALLEST, image_placehodler="<image>")  # type: ignore[call-arg]


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ModelSpec(**SMALLEST).model_type = "other"


@pytest.mark.parametrize("name", ["acme", "llava1_6-mistral-7b-instruct", "qwen2.5-vl", "7b"])
def test_model_types_in_ms_swifts_spelling_are_accepted(name: str) -> None:
    assert ModelSpec(**{**SMALLEST, "model_type": name}).model_type == name


@pytest.mark.parametrize("name", ["", "Acme", "acme vl", "acme--vl", "-acme", "acme-", "acme/vl", "äcme"])
def test_other_model_types_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="must be lower-case letters and digits"):
        ModelSpec(**{**SMALLEST, "model_type": name})


def test_the_vllm_range_is_a_version_range() -> None:
    assert ModelSpec(**SMALLEST, vllm="~=0.30,!=0.31.1").vllm == "~=0.30,!=0.31.1"
    with pytest.raises(ValidationError, match="is not a version range"):
        ModelSpec(**SMALLEST, vllm="newest")


@pytest.mark.parametrize(
    ("fields", "source"),
    [
        ({}, "acme-vl-7b"),
        ({"hf_id": "acme/vl-7b"}, "acme/vl-7b"),
        ({"hf_id": "acme/vl-7b", "checkpoint": "/plugin/tiny"}, "/plugin/tiny"),
    ],
)
def test_weights_come_from_the_plugin_before_the_hub(fields: dict[str, Any], source: str) -> None:
    assert ModelSpec(**SMALLEST, **fields).source == source


def test_a_spec_as_json_has_the_fields_of_its_own_kind_of_vision() -> None:
    vision = FixedResolution(image_size=336, patch_size=14)
    dumped = ModelSpec(**SMALLEST, vision=vision).model_dump(mode="json")
    assert dumped["vision"] == {
        "downscaled_decode": False,
        "max_aspect_ratio": 200.0,
        "image_size": 336,
        "patch_size": 14,
    }


@given(st.from_regex(r"[a-z0-9]+([-_.][a-z0-9]+){0,4}", fullmatch=True))
def test_every_spelling_of_a_model_type_is_the_same(name: str) -> None:
    assert len({canonical(each) for each in (name, name.replace("_", "-"), name.upper(), f" {name}\n")}) == 1
    assert canonical(canonical(name)) == canonical(name)


def test_model_types_that_differ_in_more_than_dashes_stay_apart() -> None:
    assert canonical("qwen2-5-vl") != canonical("qwen2.5-vl")


@pytest.mark.parametrize(
    "limits", [{"max_images": -1}, {"max_model_len": 0}, {"min_pixels": 0}, {"max_pixels": 0}, {"images": 1}]
)
def test_limits_that_allow_nothing_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Limits(**limits)


def test_no_images_at_all_is_a_limit() -> None:
    assert Limits(max_images=0).max_images == 0

"""From a model type, or a checkpoint directory, to the plugin that serves it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vlm_run import Conversation, Limits, Registry
from vlm_run.errors import TemplateError, UnknownModelError

CLIP_336 = {"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14}
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
LLAVA_NEXT = {
    "architectures": ["LlavaNextForConditionalGeneration"],
    "image_grid_pinpoints": PINPOINTS,
    "vision_config": CLIP_336,
}
# config.json on the hub, as far as it matters here.
PUBLISHED: dict[str, dict[str, Any]] = {
    "llava1_5-7b-instruct": {
        "architectures": ["LlavaForConditionalGeneration"],
        "text_config": {"model_type": "llama", "vocab_size": 32064, "max_position_embeddings": 4096},
        "vision_config": CLIP_336,
    },
    "llava1_5-13b-instruct": {
        "architectures": ["LlavaForConditionalGeneration"],
        "text_config": {"model_type": "llama", "vocab_size": 32064, "hidden_size": 5120},
        "vision_config": CLIP_336,
    },
    "llava1_6-mistral-7b-instruct": {
        **LLAVA_NEXT,
        "text_config": {"model_type": "mistral", "vocab_size": 32064, "max_position_embeddings": 32768},
    },
    "llava1_6-vicuna-7b-instruct": {
        **LLAVA_NEXT,
        "text_config": {"model_type": "llama", "vocab_size": 32064, "max_position_embeddings": 4096},
    },
    "llava1_6-vicuna-13b-instruct": {
        **LLAVA_NEXT,
        "text_config": {"model_type": "llama", "vocab_size": 32064, "hidden_size": 5120},
    },
    "phi3-vision-128k-instruct": {
        "architectures": ["Phi3VForCausalLM"],
        "model_type": "phi3_v",
        "max_position_embeddings": 131072,
        "vocab_size": 32064,
        "rope_scaling": {"long_factor": [1.0299999713897705, 1.0499999523162842]},
    },
    "qwen2-vl-7b-instruct": {"architectures": ["Qwen2VLForConditionalGeneration"], "hidden_size": 3584},
    "qwen2_5-vl-7b-instruct": {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "hidden_size": 3584},
    "qwen3-vl-8b-instruct": {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "text_config": {"model_type": "qwen3_vl_text", "hidden_size": 4096},
    },
}


def _checkpoint(directory: Path, config: Any) -> Path:
    (directory / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return directory


# --- By name


@pytest.mark.parametrize("model_type", PUBLISHED)
def test_a_model_type_finds_its_spec_and_its_repository(model_type: str) -> None:
    adapter = Registry.load(model_type)
    assert adapter.spec.model_type == model_type
    assert adapter.source == adapter.spec.hf_id


@pytest.mark.parametrize(
    "spelling",
    ["llava1_6-mistral-7b-instruct", "llava1-6_mistral_7b-instruct", " LLaVA1_6-Mistral-7B-Instruct"],
)
def test_dashes_and_underscores_are_interchangeable(spelling: str) -> None:
    assert Registry.load(spelling).spec.model_type == "llava1_6-mistral-7b-instruct"


def test_a_checkpoint_may_be_given_beside_the_model_type() -> None:
    assert Registry.load("llava1_5-7b-instruct", checkpoint="me/my-finetune").source == "me/my-finetune"


def test_limits_reach_the_adapter() -> None:
    limits = Limits(max_model_len=2048)
    assert Registry.load("llava1_5-7b-instruct", limits=limits).engine_kwargs()["max_model_len"] == 2048


def test_model_types_are_listed_in_order() -> None:
    names = Registry.model_types()
    assert names == sorted(names)
    assert set(PUBLISHED) <= set(names)


@pytest.mark.parametrize(
    ("typo", "nearest"),
    [
        ("llava1_6-mistral-7b", "llava1_6-mistral-7b-instruct"),
        ("qwen2-vl-2b", "qwen2-vl-2b-instruct"),  # though "qwen-vl" is closer to it
        ("qwen2-vl-7b-instuct", "qwen2-vl-7b-instruct"),
        ("PHI3_VISION", "phi3-vision-128k-instruct"),
    ],
)
def test_an_unknown_model_type_is_answered_with_the_closest_ones(typo: str, nearest: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        Registry.load(typo)
    message = str(caught.value)
    assert message.startswith(f"no installed plugin serves the model type '{typo}'. Did you mean ")
    assert f"'{nearest}'" in message
    assert message.endswith("`vlm-run models` lists all.")


def test_a_model_type_like_no_other_is_answered_with_where_to_look() -> None:
    with pytest.raises(UnknownModelError) as caught:
        Registry.load("zzz")
    assert str(caught.value) == (
        "no installed plugin serves the model type 'zzz'. `vlm-run models` lists all."
    )


@pytest.mark.parametrize(
    ("repository", "model_type"),
    [
        ("llava-hf/llava-1.5-7b-hf", "llava1_5-7b-instruct"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5-vl-7b-instruct"),
        ("qwen/qwen2.5-vl-7b-instruct", "qwen2_5-vl-7b-instruct"),
        ("LLM-Research/Phi-3-vision-128k-instruct", "phi3-vision-128k-instruct"),
    ],
)
def test_the_repository_of_a_model_type_is_another_name_of_it(repository: str, model_type: str) -> None:
    adapter = Registry.load(repository)
    assert adapter.spec.model_type == model_type
    assert adapter.source == repository
    assert Registry.load(repository, checkpoint="mine/finetuned").source == "mine/finetuned"


def test_a_variable_that_the_chat_template_lacks_is_named_with_the_nearest() -> None:
    with pytest.raises(
        TemplateError, match=r"has no variable 'enable_thinkin'\. Did you mean 'enable_thinking'"
    ):
        Registry.load("qwen3_5-9b", template_kwargs={"enable_thinkin": False})


@pytest.mark.parametrize(
    ("name", "model_type", "source", "gpus"),
    [
        (
            "Qwen/Qwen2.5-VL-7B-Instruct-AWQ",
            "qwen2_5-vl-7b-instruct",
            "Qwen/Qwen2.5-VL-7B-Instruct-AWQ",
            None,
        ),
        # As ms-swift 2.6.1 calls them.
        (
            "qwen2-vl-7b-instruct-gptq-int8",
            "qwen2-vl-7b-instruct",
            "Qwen/Qwen2-VL-7B-Instruct-GPTQ-Int8",
            None,
        ),
        ("qwen2_5_vl-72b-instruct-awq", "qwen2_5-vl-72b-instruct", "Qwen/Qwen2.5-VL-72B-Instruct-AWQ", 1),
        (
            "Qwen/Qwen3-VL-235B-A22B-Thinking-FP8",
            "qwen3-vl-235b-a22b-thinking",
            "Qwen/Qwen3-VL-235B-A22B-Thinking-FP8",
            4,
        ),
    ],
)
def test_a_quantized_repository_is_of_its_model_type(
    name: str, model_type: str, source: str, gpus: int | None
) -> None:
    adapter = Registry.load(name)
    assert (adapter.spec.model_type, adapter.source) == (model_type, source)
    assert adapter.engine_kwargs().get("tensor_parallel_size") == gpus
    by_checkpoint = Registry.load(model_type, checkpoint=source)
    assert by_checkpoint.engine_kwargs() == adapter.engine_kwargs()


def test_every_repository_is_of_one_model_type() -> None:
    specs = [Registry.load(model_type).spec for model_type in Registry.model_types()]
    for spec in specs:
        for repository in filter(None, (spec.hf_id, spec.modelscope_id, *spec.quantized)):
            assert Registry.load(repository).spec.model_type == spec.model_type


def test_an_unknown_repository_is_answered_with_how_to_give_it() -> None:
    with pytest.raises(UnknownModelError, match=r"neither a model type, nor a directory .* --model"):
        Registry.load("mine/llava-1.5-7b-finetuned")


@given(st.text(max_size=20).map(lambda text: f"no-such-{text}"))
@example("")
@example("\0")
@example("x" * 5000)
def test_any_other_text_is_an_unknown_model(text: str) -> None:
    with pytest.raises(UnknownModelError):
        Registry.load(text)


# --- By checkpoint


@pytest.mark.parametrize("model_type", PUBLISHED)
@pytest.mark.parametrize("kind", [str, Path])
def test_a_published_checkpoint_tells_its_model_type(model_type: str, kind: type, tmp_path: Path) -> None:
    adapter = Registry.load(kind(_checkpoint(tmp_path, PUBLISHED[model_type])))
    assert adapter.spec.model_type == model_type
    assert adapter.source == str(tmp_path)


def test_the_repository_a_finetune_names_decides(tmp_path: Path) -> None:
    config = {**PUBLISHED["qwen2-vl-7b-instruct"], "_name_or_path": "Qwen/Qwen2-VL-2B-Instruct"}
    assert Registry.load(_checkpoint(tmp_path, config)).spec.model_type == "qwen2-vl-2b-instruct"


def test_weights_may_lie_elsewhere_than_the_config(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    directory = _checkpoint(tmp_path, PUBLISHED["qwen2-vl-7b-instruct"])
    adapter = Registry.load(directory, checkpoint=weights)
    assert (adapter.spec.model_type, adapter.source) == ("qwen2-vl-7b-instruct", str(weights))


def test_a_chat_template_of_the_users_goes_before_the_plugins(tmp_path: Path) -> None:
    template = tmp_path / "mine.jinja"
    template.write_text("{{ messages | length }}")
    adapter = Registry.load("qwen2-vl-7b-instruct", chat_template=template)
    assert adapter.render_prompt(Conversation.from_query("hi")).text == "1"
    with pytest.raises(TemplateError, match=r"the chat template .* does not exist"):
        Registry.load("qwen2-vl-7b-instruct", chat_template=tmp_path / "missing.jinja")


def test_weights_that_lie_nowhere_are_refused(tmp_path: Path) -> None:
    directory = _checkpoint(tmp_path, PUBLISHED["qwen2-vl-7b-instruct"])
    with pytest.raises(UnknownModelError, match=f"the directory {tmp_path}/weights does not exist"):
        Registry.load(directory, checkpoint=tmp_path / "weights")


def test_a_model_type_goes_before_a_directory_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "qwen2-vl-7b-instruct").mkdir()
    _checkpoint(tmp_path / "qwen2-vl-7b-instruct", PUBLISHED["llava1_5-7b-instruct"])
    assert Registry.load("qwen2-vl-7b-instruct").spec.model_type == "qwen2-vl-7b-instruct"


def test_a_directory_that_could_be_of_several_model_types_is_answered_with_their_names(
    tmp_path: Path,
) -> None:
    directory = _checkpoint(tmp_path, {"architectures": ["Qwen2VLForConditionalGeneration"]})
    with pytest.raises(UnknownModelError) as caught:
        Registry.load(directory)
    message = str(caught.value)
    assert f"the checkpoint {directory} could be of several model types: " in message
    for size in ("2b", "7b", "72b"):
        assert f"qwen2-vl-{size}-instruct" in message
    assert "with --model" in message


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ({"model_type": "gpt2"}, "not given"),
        ({"architectures": None}, "not given"),
        ({"architectures": []}, "not given"),
    ],
)
def test_an_architecture_that_nobody_serves_is_named(
    config: dict[str, Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(UnknownModelError, match=f"whose architecture is {named}"):
        Registry.load(_checkpoint(tmp_path, config))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"LlavaForConditionalGeneration"',
        '{"architectures": 7}',
        '{"architectures": [7]}',
        '{"architectures": "LlavaForConditionalGeneration"}',
    ],
)
def test_a_broken_config_is_named(text: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match=r"config\.json is not a model configuration"):
        Registry.load(_checkpoint(tmp_path, text))


def test_a_config_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UnknownModelError, match=r"config\.json is not a model configuration"):
        Registry.load(tmp_path)


def test_a_directory_without_a_config_is_not_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match=r"nor a directory with a config\.json"):
        Registry.load(tmp_path)


# --- Facts that distinguish model types of one architecture


@pytest.fixture
def sizes(plugin_directory: Any) -> Any:
    """Three model types of one architecture: two distinguished by a nested fact, one without facts."""
    plugin_directory.add(
        "acme",
        """
        @hookimpl
        def model_specs():
            return [
                spec("small", config_match={"text_config.layers": 2}, modelscope_id="acme/small"),
                spec("large", config_match={"text_config.layers": 9, "tied": True}, hf_id="acme/large"),
                spec("listed", config_match={"factors.1": 0.5}),
                spec("other", architecture="OtherForCausalLM"),
            ]
        """,
    )
    return plugin_directory.discover()


@pytest.mark.parametrize(
    ("facts", "model_type"),
    [
        ({"text_config": {"layers": 2}}, "small"),
        ({"text_config": {"layers": 9}}, "large"),
        ({"tied": True}, "large"),
        ({"factors": [0.1, 0.5]}, "listed"),
        ({"_name_or_path": "acme/small"}, "small"),
        ({"_name_or_path": "acme/large"}, "large"),
    ],
)
def test_the_facts_that_a_config_has_decide(
    facts: dict[str, Any], model_type: str, sizes: Any, tmp_path: Path
) -> None:
    directory = _checkpoint(tmp_path, {"architectures": ["AcmeForCausalLM"], **facts})
    assert Registry.load(directory, plugins=sizes).spec.model_type == model_type


def test_a_config_that_contradicts_every_spec_fits_none(sizes: Any, tmp_path: Path) -> None:
    config = {"architectures": ["AcmeForCausalLM"], "text_config": {"layers": 5}, "factors": [0.5, 0.1]}
    with pytest.raises(UnknownModelError, match="no installed plugin serves the checkpoint"):
        Registry.load(_checkpoint(tmp_path, config), plugins=sizes)


def test_a_fact_under_a_key_that_is_not_a_section_is_missing(sizes: Any, tmp_path: Path) -> None:
    config = {"architectures": ["AcmeForCausalLM"], "text_config": "layers", "tied": True}
    assert Registry.load(_checkpoint(tmp_path, config), plugins=sizes).spec.model_type == "large"

"""Each check finds what it is there for: plugins that break one promise each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vlm_run.testing.subject import PluginSubject
from vlm_run.testing.suite import MODEL_CHECKS, PLUGIN_CHECKS, Result, run_suite

from .conftest import TEMPLATE

Make = Callable[..., PluginSubject]

VIDEOS = """
from vlm_run import PooledVideo
FACTS |= dict(video=PooledVideo(image_size=336, patch_size=14), video_placeholder="<video>")
"""

# A check, a fault (source added to the module, or a template), and what the check says of it.
FAULTS: list[tuple[str, str, str, str]] = [
    (
        "checkpoint_tells_its_model_type",
        "FACTS['config_match'] = {'text_config': {'hidden_size': 1}, 'text_config.hidden_size': 2}",
        TEMPLATE,
        "entries of `config_match` contradict each other",
    ),
    (
        "conversations_render",
        "",
        "{% if messages[0].content | length > 1 %}{{ raise_exception('no images') }}{% endif %}Say",
        "a question about one image is refused",
    ),
    ("conversations_render", "", " ", "prompt is empty"),
    (
        "every_text_is_in_the_prompt",
        "",
        TEMPLATE.replace("part.text", "part.text | upper"),
        "is in the prompt 0 times",
    ),
    ("every_text_is_in_the_prompt", "", TEMPLATE + TEMPLATE, "is in the prompt 2 times"),
    (
        "every_text_is_in_the_prompt",
        "",
        TEMPLATE.replace("in messages", "in messages | reverse"),
        "out of order",
    ),
    ("one_placeholder_for_each_image", "", TEMPLATE.replace("<image>", "<image><image>"), "2 placeholders"),
    (
        "one_placeholder_for_each_image",
        """
        @hookimpl
        def placeholder():
            return ""
        """,
        TEMPLATE,
        "the placeholder of an image is empty",
    ),
    ("one_placeholder_for_each_image", "", TEMPLATE + "<image>", "with 0 images, gives a prompt with 1"),
    (
        "one_placeholder_for_each_image",
        "FACTS['image_placeholder'] = '<|image_{index}|>'",
        TEMPLATE.replace("<image>", "<|image_1|>"),
        "not numbered in order",
    ),
    ("one_placeholder_for_each_video", VIDEOS, TEMPLATE, "the prompt for 1 video has '<video>' 0 times"),
    (
        "rendering_is_deterministic",
        """
        import itertools
        numbers = itertools.count()
        @hookimpl(wrapper=True)
        def render_prompt():
            return (yield) + f" {next(numbers)}"
        """,
        TEMPLATE,
        "differ",
    ),
    (
        "control_tokens_in_a_text_stay_text",
        """
        @hookimpl(wrapper=True)
        def render_prompt():
            return (yield).encode("ascii", "ignore").decode()
        """,
        TEMPLATE,
        "the prompt has nothing in its place",
    ),
    (
        "control_tokens_in_a_text_stay_text",
        """
        @hookimpl(wrapper=True)
        def render_prompt(conversation):
            forged = any(not part.text.isascii() for part in conversation.messages[-1].parts[1:])
            return (yield) + "<image>" * forged
        """,
        TEMPLATE,
        "changes the prompt around it",
    ),
    (
        "ordinary_images_work",
        """
        @hookimpl
        def preprocess_image(image):
            raise MediaError("too large")
        """,
        TEMPLATE,
        "336 x 336 pixels is refused",
    ),
    (
        "odd_images_work_or_are_refused",
        """
        @hookimpl
        def preprocess_image(image):
            return image.resize((image.width // 2, image.height // 2))
        """,
        TEMPLATE,
        "1 x 1:",
    ),
    (
        "odd_images_work_or_are_refused",
        """
        @hookimpl
        def preprocess_image(image):
            return image.convert("L")
        """,
        TEMPLATE,
        "mode L, not RGB",
    ),
    (
        "images_have_a_token_count",
        """
        @hookimpl
        def count_image_tokens(width, height):
            return (width // 28) * (height // 28)
        """,
        TEMPLATE,
        "takes 0 tokens",
    ),
    (
        "images_have_a_token_count",
        """
        @hookimpl
        def preprocess_image(image):
            return image
        """,
        TEMPLATE,
        "`count_image_tokens` refuses it",
    ),
    (
        "images_have_a_token_count",
        """
        import itertools
        numbers = itertools.count(1)
        @hookimpl
        def count_image_tokens():
            return next(numbers)
        """,
        TEMPLATE,
        "takes 1 tokens the first time and 2 the second",
    ),
    (
        "images_have_a_token_count",
        """
        @hookimpl
        def preprocess_image():
            raise MediaError("not today")
        """,
        TEMPLATE,
        "no image is accepted",
    ),
    (
        "boxes_have_a_scale",
        """
        from vlm_run import BoxCoordinates
        FACTS["vision"] = None
        FACTS["box_coordinates"] = BoxCoordinates(maximum=None)
        """,
        TEMPLATE,
        "whose size `vision` does not tell",
    ),
    (
        "limits_reach_the_engine",
        """
        @hookimpl
        def engine_kwargs():
            return {"max_model_len": 4096}
        """,
        TEMPLATE,
        "max_model_len is 4096 although the user set 2048",
    ),
    (
        "limits_reach_the_engine",
        """
        @hookimpl
        def engine_kwargs(limits):
            return {"max_model_len": limits.max_model_len}
        """,
        TEMPLATE,
        "allows None images although the user set 2",
    ),
]

VLLM_FAULTS: list[tuple[str, str, str, str]] = [
    (
        "engine_options_are_known_to_vllm",
        "FACTS['engine_kwargs'] = {'max_model_length': 1}",
        TEMPLATE,
        "Did you mean 'max_model_len'",
    ),
    (
        "sampling_params_are_known_to_vllm",
        "FACTS['sampling_params'] = {'skip_special_token': False}",
        TEMPLATE,
        "Did you mean 'skip_special_tokens'",
    ),
    (
        "sampling_params_are_known_to_vllm",
        "FACTS['sampling_params'] = {'temperature': 0.5}",
        TEMPLATE,
        "has 'temperature', which each request sets itself",
    ),
    (
        "registers_with_vllm_twice",
        """
        seen = []
        @hookimpl
        def register_with_vllm():
            assert not seen, "once is enough"
            seen.append(1)
        """,
        TEMPLATE,
        "when called again: AssertionError: once is enough",
    ),
    (
        "vllm_knows_the_architecture",
        """
        @hookimpl
        def register_with_vllm():
            import no_such_module
        """,
        TEMPLATE,
        "`register_with_vllm` fails: ModuleNotFoundError",
    ),
]

# Found with a checkpoint directory.
CHECKPOINT_FAULTS: list[tuple[str, str, str, str]] = [
    (
        "video_counts_agree_with_vllm",  # LLaVA 1.5 takes none
        VIDEOS,
        TEMPLATE.replace("<image>", "<image>{% elif part.type == 'video' %}<video>"),
        "`count_video_tokens` gives 144 for 1 frame",
    ),
    (
        "prompt_agrees_with_checkpoint",
        "",
        TEMPLATE.replace("<|im_end|>", "<|im_end|>."),
        "but the checkpoint's template gives '<|im_start|>user",
    ),
    (
        "prompt_agrees_with_checkpoint",
        "",
        "{% if messages | length > 2 %}{{ raise_exception('no history') }}{% endif %}" + TEMPLATE,
        "the conversation 'history' is refused",
    ),
    (
        "tokenizer_keeps_text_as_text",
        """
        @hookimpl(wrapper=True)
        def render_prompt(conversation):
            forged = any(not part.text.isascii() for part in conversation.messages[-1].parts[1:])
            return (yield) + "<|im_end|>" * forged
        """,
        TEMPLATE,
        "in a question becomes a control token",
    ),
    (
        "prompt_begins_with_one_bos",
        """
        @hookimpl(wrapper=True)
        def render_prompt():
            return "<s><s>" + (yield)
        """,
        TEMPLATE,
        "the conversation 'text only' begins with 2 BOS tokens",
    ),
    (
        "counts_agree_with_vllm",
        """
        @hookimpl
        def count_image_tokens(width, height):
            return 577 if width == 2000 else 576
        """,
        TEMPLATE,
        "gives 577 for an image of 2000 x 30 pixels, but vLLM's processor gives 576",
    ),
]

# Found of the plugin as a whole.
PLUGIN_FAULTS: list[tuple[str, str, str, str]] = [
    (
        "specs_are_valid_and_unique",
        """
        @hookimpl
        def model_specs():
            return [ModelSpec(**FACTS), ModelSpec(**{**FACTS, "model_type": "acme_7b"})]
        """,
        TEMPLATE,
        "'acme_7b' is already served",
    ),
    (
        "specs_are_valid_and_unique",
        """
        @hookimpl
        def model_specs():
            return []
        """,
        TEMPLATE,
        "returns no model type",
    ),
    ("import_is_light", "import jax", TEMPLATE, "imports jax"),
    (
        "import_is_light",
        "import sys; assert 'pytest' in sys.modules, 'import pytest first'",
        TEMPLATE,
        "cannot be imported on its own: AssertionError: import pytest first",
    ),
]

# What is no fault, but is said: a check, what the plugin leaves out, and what the check says of it.
SKIPS: list[tuple[str, str, str, str]] = [
    ("contract_is_stated", "del vlm_run_contract", TEMPLATE, "the contract version it was written for"),
    (
        "images_have_a_token_count",
        "FACTS['vision'] = None",
        TEMPLATE,
        "no `vision`, and the plugin no `count_image_tokens`",
    ),
    (
        "vllm_knows_the_architecture",
        "FACTS['architecture'] = 'NoSuchForCausalLM'",
        TEMPLATE,
        "has no NoSuchForCausalLM, and the plugin registers none",
    ),
]


def result_of(subject: PluginSubject, check: str, checkpoint: Path | None = None) -> Result:
    directories = {} if checkpoint is None else {"acme-7b": checkpoint}
    (result,) = run_suite(subject, directories, only=check)
    return result


def ids(faults: list[tuple[str, str, str, str]]) -> list[str]:
    return [f"{check}: {message}" for check, _, _, message in faults]


@pytest.mark.parametrize(("check", "source", "template", "message"), FAULTS, ids=ids(FAULTS))
def test_a_fault_is_found(plugin: Make, check: str, source: str, template: str, message: str) -> None:
    result = result_of(plugin(source, template), check)
    assert (result.outcome, result.model_type) == ("failed", "acme-7b")
    assert message in result.detail


@pytest.mark.parametrize(("check", "source", "template", "message"), VLLM_FAULTS, ids=ids(VLLM_FAULTS))
def test_a_fault_that_vllm_would_meet_is_found(
    plugin: Make, check: str, source: str, template: str, message: str
) -> None:
    pytest.importorskip("vllm")
    test_a_fault_is_found(plugin, check, source, template, message)


def test_a_healthy_plugin_passes_every_check(plugin: Make, checkpoint: Path) -> None:
    pytest.importorskip("vllm")
    found = list(run_suite(plugin(), {"acme_7b": checkpoint}))
    assert {result.detail for result in found if result.outcome == "failed"} == set()
    assert {result.check for result in found if result.outcome == "skipped"} == set()


@pytest.mark.parametrize(
    ("check", "source", "template", "message"), CHECKPOINT_FAULTS, ids=ids(CHECKPOINT_FAULTS)
)
def test_a_fault_beside_a_checkpoint_is_found(
    plugin: Make, checkpoint: Path, check: str, source: str, template: str, message: str
) -> None:
    pytest.importorskip("vllm")
    result = result_of(plugin(source, template), check, checkpoint)
    assert (result.outcome, result.model_type) == ("failed", "acme-7b")
    assert message in result.detail


@pytest.mark.parametrize(("check", "source", "template", "message"), PLUGIN_FAULTS, ids=ids(PLUGIN_FAULTS))
def test_a_fault_of_the_whole_plugin_is_found(
    plugin: Make,
    check: str,
    source: str,
    template: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "jax" in source:  # an empty module of that name: the check looks at names only
        (tmp_path / "jax.py").touch()
        monkeypatch.setitem(sys.modules, "jax", ModuleType("jax"))
    result = result_of(plugin(source, template), check)
    assert (result.outcome, result.model_type) == ("failed", None)
    assert message in result.detail


@pytest.mark.parametrize(("check", "source", "template", "message"), SKIPS, ids=ids(SKIPS))
def test_a_detail_of_a_passed_check_is_reported(
    plugin: Make, check: str, source: str, template: str, message: str
) -> None:
    pytest.importorskip("vllm")
    result = result_of(plugin(source, template), check)
    assert result.outcome == "skipped"
    assert message in result.detail


@pytest.mark.parametrize(
    ("smaller", "larger", "outcome"),
    [
        ({"config_match": {"hidden_size": 1}}, {"config_match": {"hidden_size": 2}}, "passed"),
        ({"config_match": {"hidden_size": 1}}, {"config_match": {"hidden_size": 1}}, "failed"),
        ({"config_match": {"hidden_size": 1}}, {"config_match": {"num_layers": 2}}, "passed"),
        ({"template_match": "<think>"}, {}, "passed"),
        ({"template_match": "<think>"}, {"template_match": "think"}, "failed"),
        ({}, {}, "skipped"),
    ],
)
def test_what_tells_two_model_types_apart_must_suffice(
    plugin: Make, smaller: dict[str, Any], larger: dict[str, Any], outcome: str
) -> None:
    source = f"""
    @hookimpl
    def model_specs():
        larger = {{**FACTS, "model_type": "acme-70b", **{larger}}}
        return [ModelSpec(**FACTS, **{smaller}), ModelSpec(**larger)]
    """
    results = list(run_suite(plugin(source), {}, only="checkpoint_tells_its_model_type"))
    assert results[0].outcome == outcome
    if outcome != "passed":
        assert "could be of several model types: acme-7b, acme-70b" in results[0].detail


def test_every_check_has_a_plugin_that_breaks_it() -> None:
    proven = {fault[0] for fault in [*FAULTS, *VLLM_FAULTS, *CHECKPOINT_FAULTS, *PLUGIN_FAULTS]}
    # A range that leaves this contract out keeps the plugin from being loaded: test_contract_version.py.
    proven.add("contract_is_stated")
    assert proven == {check.__name__ for check in [*PLUGIN_CHECKS, *MODEL_CHECKS]}


def test_a_template_for_text_alone_is_compared_where_it_can_be(
    plugin: Make, checkpoint: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "text-only"
    directory.mkdir()
    for file in checkpoint.iterdir():
        (directory / file.name).write_text(file.read_text())
    config = directory / "tokenizer_config.json"
    strings = "{% for message in messages %}<|im_start|>{{ message.role }}{{ message.content }}<|im_end|>"
    strings += "{% endfor %}<|im_start|>assistant\n"
    config.write_text(config.read_text().replace(TEMPLATE.replace("\n", "\\n"), strings.replace("\n", "\\n")))
    result = result_of(plugin(), "prompt_agrees_with_checkpoint", directory)
    assert result.outcome == "passed", result.detail
    assert "one image" in result.detail
    assert "text only" not in result.detail

"""One model type bound to its plugin: hooks, limits and engine options behind one interface."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image as PILImage

from vlm_run import Adapter, Conversation, Limits, Registry, Request
from vlm_run.errors import ConversationError, MediaError, PluginError
from vlm_run.explain.start_notes import context_note
from vlm_run.prompts.conversation import Image
from vlm_run.prompts.prompt import Prompt
from vlm_run.prompts.support import with_task_text

SPEC = """
from vlm_run import DynamicResolution

@hookimpl
def model_specs():
    return [
        spec(
            "acme-7b",
            hf_id="acme/vl-7b",
            image_placeholder="<|image_{index}|>",
            max_images=4,
            engine_kwargs={
                "max_model_len": 4096,
                "limit_mm_per_prompt": {"video": 0},
                "mm_processor_kwargs": {"max_pixels": 200704, "fps": 1},
            },
            vision=DynamicResolution(
                patch_size=14, merge_size=2, min_pixels=3136, max_pixels=12845056, downscaled_decode=True
            ),
        )
    ]
"""


@pytest.fixture
def load(plugin_directory: Any) -> Any:
    """A function that loads `acme-7b` from a plugin with further hooks."""

    def load(hooks: str = "", **limits: int) -> Adapter:
        plugin_directory.add("acme", SPEC + hooks)
        return Registry.load("acme-7b", plugins=plugin_directory.discover(), limits=Limits(**limits))

    return load


def test_an_adapter_shows_what_it_is(load: Any) -> None:
    assert repr(load()) == "Adapter('acme-7b', plugin='vlm-run-acme', source='acme/vl-7b')"


# --- Defaults


def test_the_placeholder_is_the_specs_with_its_number(load: Any) -> None:
    adapter = load()
    assert [adapter.placeholder(), adapter.placeholder(12)] == ["<|image_1|>", "<|image_12|>"]


def test_the_prompt_is_rendered_from_the_specs_template(load: Any) -> None:
    conversation = Conversation.from_query("Why?", history=[["Who?", "Me."]], system="Be brief.")
    assert load().render_prompt(conversation) == Prompt(
        "system: Be brief.\nuser: Who?\nassistant: Me.\nuser: Why?\n"
    )


TASKS = """
@hookimpl
def model_specs():
    tasks = {"ocr": "Free OCR.", "find": "<|grounding|>Find"}
    return [spec("acme-7b", control_tokens=("<|grounding|>",), tasks=tasks)]
"""


@pytest.fixture
def with_tasks(plugin_directory: Any) -> Adapter:
    plugin_directory.add("acme", TASKS)
    return Registry.load("acme-7b", plugins=plugin_directory.discover())


@pytest.mark.parametrize(
    ("request_", "prompt"),
    [
        ({"task": "ocr"}, "user: Free OCR.\n"),
        ({"task": "ocr", "query": "Only the title."}, "user: Free OCR.\nOnly the title.\n"),
        (
            {"task": "ocr", "query": "And here?", "history": [["Hello", "Hi"]]},
            "user: Hello\nassistant: Hi\nuser: Free OCR.\nAnd here?\n",
        ),
        ({"query": "Only the title."}, "user: Only the title.\n"),
    ],
)
def test_the_text_of_a_task_precedes_the_question_or_is_it(
    with_tasks: Adapter, request_: dict[str, Any], prompt: str
) -> None:
    conversation = Request.parse(request_).conversation
    assert with_tasks.render_prompt(conversation).text == prompt


def test_a_task_may_contain_control_tokens_but_the_question_may_not(with_tasks: Adapter) -> None:
    conversation = Request.parse({"task": "find", "query": "a <|grounding|>"}).conversation
    prompt = with_tasks.render_prompt(conversation)
    assert prompt.text == "user: <|grounding|>Find\na <|grounding|>\n"
    assert [prompt.text[start:end] for start, end in prompt.literals] == ["<|grounding|>"]
    assert prompt.literals[0][0] > prompt.text.index("Find")


def test_the_history_has_the_text_of_the_task(with_tasks: Adapter) -> None:
    conversation = Request.parse({"task": "ocr", "query": "<image>Title?", "images": ["a.png"]}).conversation
    assert with_task_text(with_tasks.spec, conversation).to_history("A") == [
        ["<image>Free OCR.\nTitle?", "A"]
    ]


def test_an_unknown_task_names_those_that_are_known(with_tasks: Adapter) -> None:
    conversation = Request.parse({"task": "orc"}).conversation
    with pytest.raises(ConversationError, match=r"'acme-7b' has no task 'orc'.*Its tasks: ocr, find\."):
        with_tasks.render_prompt(conversation)


def test_a_task_of_a_model_without_tasks_is_refused(load: Any) -> None:
    conversation = Request.parse({"task": "ocr"}).conversation
    with pytest.raises(ConversationError, match=r"'acme-7b' has no task 'ocr'\. It has no tasks"):
        load().render_prompt(conversation)


@pytest.mark.parametrize(
    ("model_type", "limits", "note"),
    [
        ("qwen2-vl-2b-instruct", Limits(), None),
        (
            "qwen2-vl-2b-instruct",
            Limits(max_model_len=8192),
            "an image of 3584 × 3584 pixels takes 16,384 tokens, but max_model_len is 8,192; requests that "
            "do not fit are refused. Raise --max-model-len, or let --max-pixels shrink images.",
        ),
        ("qwen2-vl-2b-instruct", Limits(max_model_len=8192, max_pixels=4_000_000), None),
        (
            "llava1_5-7b-instruct",
            Limits(max_model_len=512),
            "an image of 336 × 336 pixels takes 576 tokens, but max_model_len is 512; requests that do not "
            "fit are refused. Raise --max-model-len.",
        ),
    ],
)
def test_a_context_that_is_too_short_for_the_largest_image_is_noted(
    model_type: str, limits: Limits, note: str | None
) -> None:
    assert context_note(Registry.load(model_type, limits=limits)) == note


def test_nothing_is_noted_where_the_largest_image_is_unknown(plugin_directory: Any) -> None:
    plugin_directory.add("acme")  # its spec has no vision facts
    adapter = Registry.load("acme-7b", plugins=plugin_directory.discover())
    assert adapter.largest_image() is None
    assert context_note(adapter, max_model_len=1) is None


def test_an_image_that_the_model_can_take_stays_as_it_is(load: Any) -> None:
    image = PILImage.new("RGB", (40, 30))
    assert load().preprocess_image(image) is image


def test_an_image_that_the_model_cannot_take_is_refused(load: Any) -> None:
    adapter = load()
    with pytest.raises(MediaError, match="an image of 201 × 1 pixels is too narrow for this model"):
        adapter.preprocess_image(PILImage.new("RGB", (201, 1)))
    with pytest.raises(MediaError, match="too narrow"):
        adapter.count_image_tokens(201, 1)


LARGE, SMALLER = (4000, 3000), (2000, 1500)


def test_an_image_that_the_model_shrinks_anyway_may_be_decoded_smaller(load: Any) -> None:
    assert load().allows_downscaled_decode(LARGE, SMALLER)


def test_an_image_is_decoded_at_full_resolution_unless_the_vision_facts_allow_less(load: Any) -> None:
    adapter = load()
    vision = adapter.spec.vision.model_copy(update={"downscaled_decode": False})
    adapter = replace(adapter, spec=adapter.spec.model_copy(update={"vision": vision}))
    assert not adapter.allows_downscaled_decode(LARGE, SMALLER)


def test_a_model_type_that_says_nothing_of_image_tokens_cannot_count_them(plugin_directory: Any) -> None:
    plugin_directory.add("silent")
    adapter = Registry.load("silent-7b", plugins=plugin_directory.discover())
    assert adapter.preprocess_image(PILImage.new("RGB", (4000, 1))).size == (4000, 1)
    with pytest.raises(PluginError, match="does not tell how many tokens an image takes"):
        adapter.count_image_tokens(8, 8)


# --- Engine options


@pytest.mark.usefixtures("bfloat16_cpu")
def test_engine_options_are_the_specs(load: Any) -> None:
    assert load().engine_kwargs() == {
        "model": "acme/vl-7b",
        "trust_remote_code": False,
        "max_model_len": 4096,
        "limit_mm_per_prompt": {"video": 0, "image": 4},
        "mm_processor_kwargs": {"max_pixels": 200704, "fps": 1},
    }


def test_limits_go_before_the_specs_options_and_leave_the_rest(load: Any) -> None:
    options = load(max_images=2, max_model_len=512, min_pixels=784, max_pixels=100352).engine_kwargs()
    assert options["max_model_len"] == 512
    assert options["limit_mm_per_prompt"] == {"video": 0, "image": 2}
    assert options["mm_processor_kwargs"] == {"min_pixels": 784, "max_pixels": 100352, "fps": 1}


def test_what_the_user_sets_goes_before_everything(load: Any) -> None:
    options = load(max_model_len=512).engine_kwargs(max_model_len=1024, dtype="float32", model="/weights")
    assert (options["max_model_len"], options["dtype"], options["model"]) == (1024, "float32", "/weights")


def test_no_images_at_all_may_be_asked_for(load: Any) -> None:
    assert load(max_images=0).engine_kwargs()["limit_mm_per_prompt"]["image"] == 0


def test_remote_code_is_never_trusted_unless_asked_for() -> None:
    for model_type in Registry.model_types():
        assert Registry.load(model_type).engine_kwargs()["trust_remote_code"] is False


def test_options_can_be_changed_without_changing_the_adapter(load: Any) -> None:
    adapter = load()
    adapter.engine_kwargs()["max_model_len"] = 1
    assert adapter.engine_kwargs()["max_model_len"] == 4096


# --- Image tokens follow the processor's options


def test_token_counts_are_those_under_the_specs_processor_options(load: Any) -> None:
    # 200704 pixels are 256 squares of 28 × 28.
    assert load().count_image_tokens(2000, 2000) == 256


def test_token_counts_are_those_under_the_users_limits(load: Any) -> None:
    assert load(max_pixels=28 * 28 * 4).count_image_tokens(2000, 2000) == 4


def test_an_image_is_resized_to_bounds_of_its_own(load: Any) -> None:
    adapter, image = load(), PILImage.new("RGB", (2000, 1000))
    seen = adapter.preprocess_image(image, Image("a.png", max_pixels=28 * 28 * 8))
    assert seen.size == (112, 56)
    assert adapter.count_image_tokens(*seen.size) == 8
    assert adapter.preprocess_image(image, Image("a.png")).size == (2000, 1000)


def test_bounds_are_refused_where_images_have_no_area() -> None:
    adapter = Registry.load("llava1_5-7b-instruct")
    with pytest.raises(
        MediaError, match=r"does not support min_pixels and max_pixels\. Leave out min_pixels"
    ):
        adapter.preprocess_image(PILImage.new("RGB", (200, 100)), Image("a.png", max_pixels=784))
    with pytest.raises(MediaError, match="does not support min_pixels"):
        Registry.load("llava1_5-7b-instruct", limits=Limits(max_pixels=784))


def test_token_counts_follow_the_plugins_own_engine_options(load: Any) -> None:
    hook = "@hookimpl\ndef engine_kwargs(): return {'mm_processor_kwargs': {'max_pixels': 28 * 28 * 9}}"
    assert load(hook).count_image_tokens(2000, 2000) == 9


# --- A plugin's own hooks


@pytest.mark.usefixtures("bfloat16_cpu")
def test_a_plugin_may_replace_every_default(load: Any) -> None:
    adapter = load("""
@hookimpl
def render_prompt(model, conversation):
    return f"{model.model_type} has {len(conversation.images)} images"

@hookimpl
def preprocess_image(image):
    return image.rotate(90, expand=True)

@hookimpl
def placeholder(index):
    return "#" * index

@hookimpl
def count_image_tokens(width, height):
    return width + height

@hookimpl
def engine_kwargs(limits):
    return {"seed": limits.max_images}
""")
    assert adapter.render_prompt(Conversation.from_query("", images=["a.png"])).text == "acme-7b has 1 images"
    assert adapter.preprocess_image(PILImage.new("RGB", (4, 3))).size == (3, 4)
    assert adapter.placeholder(3) == "###"
    assert adapter.count_image_tokens(5000, 4) == 5004
    assert adapter.engine_kwargs() == {"model": "acme/vl-7b", "trust_remote_code": False, "seed": None}


@pytest.mark.parametrize(
    ("hook", "use", "fault"),
    [
        (
            "render_prompt(): return 7",
            lambda adapter: adapter.render_prompt(Conversation.from_query("Q")),
            "int, not str",
        ),
        ("placeholder(): return b'<image>'", lambda adapter: adapter.placeholder(), "bytes, not str"),
        (
            "count_image_tokens(): return 1.5",
            lambda adapter: adapter.count_image_tokens(8, 8),
            "float, not int",
        ),
        (
            "preprocess_image(image): return image.tobytes()",
            lambda adapter: adapter.preprocess_image(PILImage.new("RGB", (8, 8))),
            "bytes, not Image",
        ),
    ],
)
def test_an_answer_of_the_wrong_type_is_the_plugins_fault(load: Any, hook: str, use: Any, fault: str) -> None:
    adapter = load(f"@hookimpl\ndef {hook}\n")
    name = hook.partition("(")[0]
    with pytest.raises(PluginError, match=f"the hook '{name}' of plugin vlm-run-acme returned {fault}"):
        use(adapter)


def test_engine_options_that_are_no_mapping_are_the_plugins_fault(load: Any) -> None:
    with pytest.raises(PluginError, match="the hook 'engine_kwargs' of plugin vlm-run-acme returned list"):
        load("@hookimpl\ndef engine_kwargs(): return ['--seed', '7']\n")


def test_a_hook_of_the_plugin_sees_what_a_user_wrote_with_control_tokens_masked(load: Any) -> None:
    adapter = load("""
@hookimpl
def render_prompt(conversation):
    (message,) = conversation.messages
    assert "<|image_1|>" not in message.parts[0].text
    return message.parts[0].text[::-1]
""")
    prompt = adapter.render_prompt(Conversation.from_messages([{"role": "user", "content": "a<|image_1|>b"}]))
    assert prompt == Prompt("b<|image_1|>a", literals=((1, 12),))


def test_special_tokens_of_the_tokenizer_in_use_stay_text_too(load: Any) -> None:
    conversation = Conversation.from_query("a<pad>b")
    adapter = load()
    assert adapter.render_prompt(conversation).literals == ()
    assert adapter.render_prompt(conversation, control=["<pad>"]).literals == ((7, 12),)


def test_all_but_the_engine_works_without_vllm_torch_or_transformers() -> None:
    program = """
import sys
for name in ("vllm", "torch", "transformers"):
    sys.modules[name] = None
from vlm_run import Conversation, Registry
adapter = Registry.load("llava1_5-7b-instruct")
adapter.render_prompt(Conversation.from_query("Q", images=["a.png"]))
adapter.count_image_tokens(640, 480)
adapter.engine_kwargs()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


TOOL_IMAGE = [
    {"role": "user", "content": "Q"},
    {"role": "assistant", "content": None},
    {"role": "tool", "content": [{"type": "image", "image": "a.png"}]},
]
RENDERS_TOOLS = """
@hookimpl
def render_prompt(model, conversation):
    return "tool: <|image_1|>"
"""


def test_an_image_of_a_tool_is_accepted_where_the_template_renders_it(load: Any) -> None:
    prompt = load(RENDERS_TOOLS).render_prompt(Conversation.from_messages(TOOL_IMAGE))
    assert prompt.text == "tool: <|image_1|>"


def test_an_image_of_a_tool_is_refused_where_the_template_leaves_it_out(load: Any) -> None:
    with pytest.raises(ConversationError, match=r"message 3: .* does not render images of tool messages"):
        load().render_prompt(Conversation.from_messages(TOOL_IMAGE))

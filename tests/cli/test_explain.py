"""`vlm-run explain`: what would be sent, and what it costs, without an engine."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from vlm_run import Conversation, Limits, MediaPolicy, ModelSpec, Registry, hookimpl
from vlm_run.adapter import Adapter
from vlm_run.cli import app
from vlm_run.errors import MediaError, VlmRunError
from vlm_run.explain import explain
from vlm_run.plugins.discovery import Plugin, Plugins, discover

from ..media.pdfs import pdf_of, tiff_of_colours

DEMO = Path(Registry.load("demo-llava").source)

TINY = """
import sys
from vlm_run.cli import app
app(sys.argv[1:], standalone_mode=False)
heavy = {"torch", "transformers", "vllm"} & set(sys.modules)
print(sorted(heavy), file=sys.stderr)
"""


@pytest.fixture(autouse=True)
def hub_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache."""
    cache = tmp_path_factory.mktemp("hub")
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    return cache


def _run(*words: str) -> str:
    result = CliRunner().invoke(app, ["explain", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def _json(*words: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(_run(*words, "--json"))
    return answer


@pytest.mark.usefixtures("bfloat16_cpu")
def test_the_whole_explanation() -> None:
    said = _json("qwen2-vl-7b-instruct", "What is this?", "--image", "640x480", "--system", "S")
    assert said["model_type"] == "qwen2-vl-7b-instruct"
    assert said["prompt"] == (
        "<|im_start|>system\nS<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What is this?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert said["images"] == [{"width": 640, "height": 480, "resized": [644, 476], "tokens": 391}]
    assert said["text_tokens"] is None
    assert said["total_tokens"] is None
    assert said["image_tokens"] == 391
    assert said["context_length"] == said["max_model_len"] == 32768
    assert said["engine_kwargs"] == {
        "model": "Qwen/Qwen2-VL-7B-Instruct",
        "trust_remote_code": False,
        "max_model_len": 32768,
        "limit_mm_per_prompt": {"video": 0},
    }
    assert any("no tokenizer.json was found" in note for note in said["notes"])


def test_pages_of_a_document_are_images_at_the_size_they_are_rendered_at(tmp_path: Path) -> None:
    (tmp_path / "doc.pdf").write_bytes(pdf_of(*[Image.new("RGB", (1239, 1754))] * 3))
    small = ("--max-pixels", "1003520")
    said = _json("qwen2-vl-7b-instruct", "Q", "--image", f"{tmp_path}/doc.pdf#page=2-3", *small)
    assert [image["page"] for image in said["images"]] == [2, 3]
    assert said["prompt"].count("<|image_pad|>") == len(said["placeholders"]) == 2
    rendered = {key: said["images"][0][key] for key in ("width", "height", "resized", "tokens")}
    assert rendered == {"width": 840, "height": 1176, "resized": [840, 1176], "tokens": 1260}
    assert "  1: page 2, 840 x 1176 -> 840 x 1176 -> 1,260 tokens" in _run(
        "qwen2-vl-7b-instruct", "Q", "--image", f"{tmp_path}/doc.pdf#page=2", *small
    )


def test_the_other_pages_of_a_tiff_are_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "scan.tif").write_bytes(tiff_of_colours("red", "lime", "blue"))
    first, all_pages = (
        explain(
            Registry.load("demo-llava"), Conversation.from_query("Q", images=[f"{tmp_path}/scan.tif{pages}"])
        )
        for pages in ("", "#page=1-")
    )
    assert (len(first.images), len(all_pages.images)) == (1, 3)
    assert "image 1 is the first of 3 pages; #page=1- takes all" in first.notes
    assert not any("the first of" in note for note in all_pages.notes)


def test_documents_and_images_keep_their_order(tmp_path: Path) -> None:
    (tmp_path / "doc.pdf").write_bytes(pdf_of(*[Image.new("RGB", (168, 168))] * 2))
    conversation = Conversation.from_query(
        "<image>first, <image>then", images=[f"{tmp_path}/doc.pdf", "280x168"]
    )
    explanation = explain(Registry.load("qwen2-vl-7b-instruct"), conversation)
    assert [(image.page, image.width) for image in explanation.images] == [(1, 168), (2, 168), (None, 280)]
    assert re.sub(r"<\|\w+\|>", "*", explanation.prompt).count("******first, ***then") == 1


@pytest.mark.parametrize("model_type", Registry.model_types())
def test_every_model_type_is_explained(model_type: str) -> None:
    said = _json(model_type, "What is this?", "-i", "64x48")
    assert {"model_type", "prompt", "images", "text_tokens", "context_length", "engine_kwargs"} <= set(said)
    assert said["model_type"] == model_type
    assert "What is this?" in said["prompt"]
    assert len(said["placeholders"]) == 1
    (image,) = said["images"]
    assert (image["width"], image["height"]) == (64, 48)
    if Registry.load(model_type).spec.max_images == 0:  # it takes videos alone
        assert image["tokens"] is None
    else:
        assert 0 < image["tokens"] < (said["context_length"] or math.inf)
    assert said["engine_kwargs_from"].keys() >= {"model", "trust_remote_code"}


def test_placeholders_are_found_and_those_a_user_wrote_are_not() -> None:
    said = _json("phi3-vision-128k-instruct", "What is <|image_1|>?", "-i", "336x336", "-i", "100x200")
    assert said["prompt"].startswith("<|user|>\n<|image_1|>\n<|image_2|>\nWhat is <|image_1|>?")
    texts = [said["prompt"][place["start"] : place["end"]] for place in said["placeholders"]]
    assert texts == ["<|image_1|>", "<|image_2|>"]
    assert [image["tokens"] for image in said["images"]] == [2509, 2377]
    said = _json("qwen2-vl-7b-instruct", "<|vision_start|><|image_pad|><|vision_end|>")
    assert said["placeholders"] == []


def test_an_image_may_be_a_path_a_data_uri_or_a_size(tmp_path: Path) -> None:
    encoded = io.BytesIO()
    Image.new("RGB", (300, 200)).save(encoded, "PNG")
    (tmp_path / "image.png").write_bytes(encoded.getvalue())
    uri = "data:image/png;base64," + base64.b64encode(encoded.getvalue()).decode()
    sources = [str(tmp_path / "image.png"), uri, "300x200", "300X200"]
    said = _json("llava1_6-vicuna-7b-instruct", *(word for source in sources for word in ("-i", source)))
    assert said["images"] == [{"width": 300, "height": 200, "resized": [672, 336], "tokens": 1464}] * 4


def test_the_coordinates_of_boxes_are_explained() -> None:
    assert _json("qwen2-vl-7b-instruct")["box_coordinates"] == {"maximum": 1000, "y_first": False}
    assert _json("qwen2_5-vl-7b-instruct")["box_coordinates"] == {"maximum": None, "y_first": False}
    assert _json("demo-llava")["box_coordinates"] is None
    said = _run("qwen2_5-vl-7b-instruct", "-i", "1000x500")
    assert "1: 1000 x 500 -> 1008 x 504" in said
    assert "coordinates in answers: pixels of the resized image" in said
    assert "Boxes" not in _run("demo-llava")


def test_a_picture_is_measured_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (300, 200))
    exif = image.getexif()
    exif[0x0112] = 6  # lying on its side
    image.save(tmp_path / "image.jpg", exif=exif)
    (image,) = _json("qwen2-vl-7b-instruct", "-i", str(tmp_path / "image.jpg"))["images"]
    assert (image["width"], image["height"]) == (200, 300)


def test_a_size_in_a_tag_goes_where_the_tag_stands() -> None:
    said = _json("qwen2-vl-7b-instruct", "Before <img>640x480</img>after", "-i", "28x28")
    assert said["prompt"].count("<|image_pad|>") == 2
    assert sorted(image["width"] for image in said["images"]) == [28, 640]


def test_text_tokens_are_counted_with_the_tokenizer_that_a_plugin_ships() -> None:
    said = _json("demo-llava", "How many red circles are there?", "-i", "100x80")
    assert said["text_tokens"] > 5
    assert said["total_tokens"] == said["text_tokens"] + said["images"][0]["tokens"]


def test_tokens_are_those_of_vllms_processor() -> None:
    pytest.importorskip("vllm")
    from transformers import AutoTokenizer
    from vllm.config import ModelConfig
    from vllm.multimodal import MULTIMODAL_REGISTRY
    from vllm.multimodal.processing import ProcessorInputs, TimingContext

    from vlm_run.prompts.tokenize import control_tokens, encode

    adapter = Registry.load("demo-llava")
    sizes = [(100, 80), (33, 190)]
    question = "Is <image> </s> a circle?\n\nYes  or no, naïve ☃?"
    messages = [
        {"role": "system", "content": "Answer shortly."},
        {
            "role": "user",
            "content": [*({"type": "image", "image": f"{w}x{h}"} for w, h in sizes), question],
        },
    ]
    conversation = Conversation.from_messages(messages)
    said = explain(adapter, conversation)

    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    ids = encode(adapter.render_prompt(conversation, control_tokens(tokenizer)), tokenizer, adapter.spec)
    processor = MULTIMODAL_REGISTRY.create_processor(ModelConfig(model=str(DEMO), dtype="float32"))
    items = processor.info.parse_mm_data({"image": [Image.new("RGB", size) for size in sizes]})
    done = processor.apply(ProcessorInputs(ids, items), TimingContext(enabled=False))
    assert said.total_tokens == len(done["prompt_token_ids"])
    assert said.text_tokens == len(ids) - len(sizes)


def test_the_tokenizer_of_the_weights_in_use_comes_before_the_one_a_plugin_ships(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    said = _json("demo-llava", "How many red circles?", "--model", str(tmp_path))
    assert said["text_tokens"] == 1  # all of it one unknown word
    assert said["engine_kwargs"]["model"] == str(tmp_path)
    assert said["engine_kwargs_from"]["model"] == "flag"


def test_a_tokenizer_in_the_hugging_face_cache_is_at_hand(hub_cache: Path) -> None:
    repository = hub_cache / "models--Qwen--Qwen2-VL-7B-Instruct"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0123abc")
    assert _json("qwen2-vl-7b-instruct", "How many?")["text_tokens"] is None
    shutil.copytree(DEMO, repository / "snapshots/0123abc", ignore=shutil.ignore_patterns("*.safetensors"))
    said = _json("qwen2-vl-7b-instruct", "How many?")
    assert said["text_tokens"] == said["total_tokens"] > 5
    assert _json("qwen2-vl-2b-instruct", "How many?")["text_tokens"] is None


def test_a_broken_tokenizer_is_a_note_and_no_failure(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    said = _json("qwen2-vl-7b-instruct", "Q", "--model", str(tmp_path))
    assert said["text_tokens"] is None
    assert any("tokenizer.json cannot be read" in note for note in said["notes"])


def test_a_checkpoint_folder_alone_is_enough(tmp_path: Path) -> None:
    config = {"architectures": ["Qwen2VLForConditionalGeneration"], "hidden_size": 3584}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert _json(str(tmp_path), "Q")["model_type"] == "qwen2-vl-7b-instruct"
    assert _json("--model", str(tmp_path))["source"] == str(tmp_path)


@pytest.mark.usefixtures("bfloat16_cpu")
def test_every_engine_option_names_the_layer_that_set_it() -> None:
    words = ["--max-model-len", "32768", "--max-images", "2", "--max-pixels", "100000"]
    words += ["--engine", "gpu_memory_utilization=0.5", "--tensor-parallel-size", "8"]
    said = _json("qwen2-vl-72b-instruct", "Q", "-i", "1000x1000", *words)
    assert said["engine_kwargs_from"] == {
        "model": "plugin default",
        "trust_remote_code": "vlm-run",
        "max_model_len": "flag",
        "limit_mm_per_prompt.video": "plugin default",
        "limit_mm_per_prompt.image": "flag",
        "tensor_parallel_size": "flag",
        "mm_processor_kwargs.max_pixels": "flag",
        "gpu_memory_utilization": "flag",
    }
    assert said["images"][0]["tokens"] == 121


def test_options_of_a_configuration_file_are_a_layer_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "engine.yaml"
    file.write_text(
        "max-model-len: 8192\ndtype: bfloat16\nlimit-mm-per-prompt: {image: 3}\n"
        "mm-processor-kwargs: {max_pixels: 78400, min_pixels: 784}\n"
    )
    words = ["--config", str(file), "--engine", "dtype=float16", "--max-pixels", "50176", "-i", "1000x1000"]
    said = _json("qwen2-vl-7b-instruct", "Q", *words)
    assert said["engine_kwargs"] == {
        "model": "Qwen/Qwen2-VL-7B-Instruct",
        "trust_remote_code": False,
        "max_model_len": 8192,
        "limit_mm_per_prompt": {"image": 3},
        "dtype": "float16",
        "mm_processor_kwargs": {"max_pixels": 50176, "min_pixels": 784},
    }
    assert said["engine_kwargs_from"] == {
        "model": "plugin default",
        "trust_remote_code": "vlm-run",
        "max_model_len": "config",
        "limit_mm_per_prompt.image": "config",
        "dtype": "flag",
        "mm_processor_kwargs.max_pixels": "flag",
        "mm_processor_kwargs.min_pixels": "config",
    }
    assert said["max_model_len"] == 8192
    assert said["images"][0]["tokens"] == 64


def test_a_configuration_file_may_name_the_weights(tmp_path: Path) -> None:
    file = tmp_path / "engine.yaml"
    file.write_text("model: mine/finetuned\n")
    said = _json("qwen2-vl-7b-instruct", "Q", "--config", str(file))
    assert (said["source"], said["engine_kwargs_from"]["model"]) == ("mine/finetuned", "config")
    said = _json("qwen2-vl-7b-instruct", "Q", "--config", str(file), "--model", "mine/other")
    assert (said["source"], said["engine_kwargs_from"]["model"]) == ("mine/other", "flag")


@pytest.mark.parametrize(
    ("content", "cause"),
    [("- 1", "not a mapping of engine options"), ("a: b: c", "cannot be read"), (None, "cannot be read")],
)
def test_a_wrong_configuration_file_is_told(content: str | None, cause: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "engine.yaml").write_text(content)
    with pytest.raises(VlmRunError, match=cause):
        _run("qwen2-vl-7b-instruct", "Q", "--config", str(tmp_path / "engine.yaml"))


def test_processor_options_of_the_engine_change_what_a_picture_costs() -> None:
    option = 'mm_processor_kwargs={"num_crops": 4}'
    (image,) = _json("phi3-vision-128k-instruct", "-i", "640x480", "--engine", option)["images"]
    assert image["tokens"] == 757


def test_the_chat_template_may_be_another(tmp_path: Path) -> None:
    (tmp_path / "other.jinja").write_text("{{ messages[0].content[0].text }}!")
    assert _json("llava1_5-7b-instruct", "Q", "--chat-template", str(tmp_path / "other.jinja"))["prompt"] == (
        "Q!"
    )


@pytest.mark.parametrize(
    ("words", "note"),
    [
        (["llava1_6-vicuna-7b-instruct", "-i", "672x672", "-i", "672x672"], "no room for an answer"),
        (["demo-llava", "-i", "64x64", "-i", "64x64", "-i", "64x64"], "3 images are given"),
        (["qwen2-vl-2b-instruct", "--max-model-len", "8192"], "3584 × 3584 pixels takes 16,384 tokens"),
    ],
)
def test_what_would_go_wrong_is_noted(words: list[str], note: str) -> None:
    assert note in _json(*words)["notes"][0]


def test_for_people_the_prompt_shows_its_images_and_line_ends() -> None:
    output = _run("llava1_5-7b-instruct", "Q", "-i", "640x480", "-i", "10x10")
    assert "  USER: [<image> = image 1]⏎\n  [<image> = image 2]⏎\n  Q ASSISTANT:\n" in output
    assert "  1: 640 x 480 -> 336 x 336 -> 576 tokens\n" in output
    assert "text ? + images 1,152 = ? of 4,096" in output
    assert "  max_model_len = 4096  (plugin default)\n" in output
    output = _run("demo-llava", "How many?", "-i", "64x64")
    assert "of 2,048, which leaves" in output


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["qwen2-vl-7b-instruct", "-i", "100x100", "-i", "2010x10"], "message 1, image 2: .* too narrow"),
        (["qwen2-vl-7b-instruct", "-i", "0x5"], "cannot have 0 × 5 pixels"),
        (["qwen2-vl-7b-instruct", "-i", "99999x99999"], "cannot have"),
        (["qwen2-vl-7b-instruct", "-i", "nowhere.png"], "nowhere.png"),
        (["no-such-model"], "no installed plugin serves"),
        ([], "no model is given"),
        (["qwen2-vl-7b-instruct", "--max-pixels", "0"], "--max-pixels 0: .* greater than or equal to 1"),
        (
            ["qwen2-vl-7b-instruct", "--max-pixels", "5", "--min-pixels", "9"],
            "min_pixels, 9, is greater than",
        ),
        (["llava1_5-7b-instruct", "--max-pixels", "5"], "does not support min_pixels"),
        (["qwen2-vl-7b-instruct", "Q", "too", "many"], "more than one question"),
    ],
)
def test_what_infer_refuses_is_refused(words: list[str], cause: str) -> None:
    with pytest.raises(VlmRunError, match=cause):
        _run(*words)


def test_the_policy_holds() -> None:
    adapter, question = Registry.load("demo-llava"), "Look <img>/etc/hostname</img>"
    with pytest.raises(MediaError, match="not a URL or base64"):
        explain(adapter, Conversation.from_query(question), policy=MediaPolicy.for_server())
    with pytest.raises(MediaError, match="private or special address"):
        _run("demo-llava", "-i", "http://127.0.0.1:9/image.png")


def test_a_plugin_that_counts_no_image_tokens_is_explained_without_them(tmp_path: Path) -> None:
    adapter = Registry.load("llava1_5-7b-instruct")
    bare = Adapter(
        adapter.spec.model_copy(update={"vision": None}),
        adapter.plugin,
        adapter._plugins,
        source="nowhere",
        limits=Limits(),
    )
    said = explain(bare, Conversation.from_query("Q", images=["640x480"]))
    assert said.to_dict()["images"] == [{"width": 640, "height": 480, "resized": None, "tokens": None}]
    assert said.image_tokens is None
    assert any("does not tell how many tokens" in note for note in said.notes)


def test_a_plugins_own_preprocessing_is_counted() -> None:
    class Thumbnails:
        __name__ = "thumbnails"

        @hookimpl
        def preprocess_image(self, model: ModelSpec, image: Image.Image) -> Image.Image:
            return image.resize((56, 56))

    plugins, module = discover([]), Thumbnails()
    plugins.manager.register(module)
    spec = Registry.load("qwen2-vl-7b-instruct").spec
    adapter = _adapter(spec, module, plugins)
    said = explain(adapter, Conversation.from_query("Q", images=["640x480"]))
    assert said.to_dict()["images"] == [{"width": 640, "height": 480, "resized": [56, 56], "tokens": 4}]


def _adapter(spec: ModelSpec, module: Any, plugins: Plugins) -> Adapter:
    return Adapter(
        spec, Plugin("thumbnails", "1", module, (spec,)), plugins, source="nowhere", limits=Limits()
    )


@pytest.mark.parametrize("words", [["demo-llava", "How many?", "-i", "640x480"], ["qwen3-vl-8b-instruct"]])
def test_no_model_library_is_imported(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TINY, "explain", *words, "--json"], capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == "[]"
    assert json.loads(done.stdout)["prompt"]


def test_an_image_whose_range_was_derived_has_a_note(tmp_path: Path) -> None:
    values = Image.new("I;16", (64, 48), 4000)
    values.save(tmp_path / "xray.png")
    said = explain(
        Registry.load("demo-llava"), Conversation.from_query("Q", images=[tmp_path / "xray.png", "64x64"])
    )
    (note,) = [note for note in said.notes if "bright" in note]
    assert note.startswith("image 1 may be too bright or too dark: ")
    assert "read as 12-bit data because its largest value is 4000" in note


def test_white_space_around_an_image_is_ignored(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    for source in (f" {tmp_path / 'a.png'}\n", "\t64x48 "):
        assert _json("demo-llava", "Q", "--image", source)["images"][0]["width"] == 64

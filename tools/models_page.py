"""Write docs/models.md from the specs of the plugins here: python tools/models_page.py [--check]"""

from __future__ import annotations

import itertools
import json
import runpy
import sys
import tomllib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vlm_run import Conversation, FrameSelection, ModelSpec, Registry, VideoFacts, VisionFacts
from vlm_run.plugins.discovery import Plugin, installed_plugins

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs/models.md"

SIZES = ((336, 336), (1000, 400), (1920, 1080))
"""Width and height in pixels of the images whose token counts are shown."""

HEAD = """<!-- Written by tools/models_page.py from the specs; change them in the plugins. -->

# The model types of the plugins in this repository

The source of each fact is a comment beside it in the plugin's code. `vlm-run explain MODEL` shows the
prompt and the token counts of your own request.

- **Context** is the checkpoint's native context length in tokens. **Engine options** are the defaults with
  which the engine starts, on the number of 80 GB GPUs in the last column.
- **Prompts** are JSON strings, for one image and the question “Q”, as the checkpoint's own chat template
  renders them, before the tokenizer adds a BOS.
- **Images** lists the facts of the image processor, the image tokens for three image sizes in pixels, the
  maximum number of images in one conversation, and the coordinates of [boxes](boxes.md) in answers, where
  they are known.
- **Videos** lists the facts of the video processor, and the frames and tokens of a video of 10 s and of one
  minute, both of 1280 × 720 pixels and 30 frames a second.
"""


def main() -> None:
    text = page()
    if "--check" not in sys.argv:
        TARGET.write_text(text, encoding="utf-8")
    elif not TARGET.is_file() or TARGET.read_text(encoding="utf-8") != text:
        sys.exit(f"{TARGET} is out of date: run python tools/models_page.py")


def page() -> str:
    """The whole page."""
    return "\n\n".join([HEAD.rstrip(), *map(_section, plugins())]) + "\n"


def plugins() -> list[Plugin]:
    """The plugins of this repository, sorted by name.

    Raises:
        SystemExit: One of them is not installed, or could not be loaded.
    """
    directories = _directories()
    found = [plugin for plugin in installed_plugins().healthy if plugin.name in directories]
    if missing := sorted(directories.keys() - {plugin.name for plugin in found}):
        sys.exit(f"not installed, or broken (see `vlm-run plugins`): {', '.join(missing)}")
    return sorted(found, key=lambda plugin: plugin.name)


def _directories() -> dict[str, str]:
    """Where each plugin of this repository has its package, relative to docs/, by distribution."""
    directories = {}
    for file in sorted(ROOT.glob("plugins/*/pyproject.toml")):
        name = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["name"]
        directories[name] = f"../plugins/{file.parent.name}/{name.replace('-', '_')}"
    return directories


def _section(plugin: Plugin) -> str:
    directory = _directories()[plugin.name]
    if not plugin.specs:
        return _derived(plugin, directory)
    served = [spec for spec in plugin.specs if spec.replaced_by is None]
    listed = [spec for spec in plugin.specs if spec.replaced_by is not None]
    parts = [f"## {plugin.name}", f"Source: [{directory.removeprefix('../')}]({directory})"]
    parts += [
        _table(["Model type", "Weights", "Architecture", "Context", "Engine options", "GPUs"], served, _row)
    ]
    if listed:
        parts += [
            "Listed only: none of the vLLM versions that vlm-run supports serves these model types.",
            _table(
                ["Model type", "Weights", "Architecture", "Context", "vLLM", "Use instead"], listed, _old_row
            ),
        ]
    parts += [
        "### Prompts",
        *(_prompt(plugin, directory, list(group)) for group in _alike(plugin.specs, _prompt_key)),
    ]
    parts += ["### Images", _images(spec for spec in plugin.specs if spec.max_images != 0)]
    if any(spec.video is not None for spec in plugin.specs):
        parts += ["### Videos", _videos(spec for spec in plugin.specs if spec.video is not None)]
    return "\n\n".join(parts)


def _derived(plugin: Plugin, directory: str) -> str:
    """The section of the plugin that derives specs: the architectures on which it is tested."""
    tests = Path(plugin.module.__file__).parents[1] / "tests"
    tested = runpy.run_path(str(tests / "architectures.py"))
    served = sorted(tested["ARCHITECTURES"].items())
    return "\n\n".join(
        [
            f"## {plugin.name}",
            f"Source: [{directory.removeprefix('../')}]({directory})",
            "This plugin lists no model types: it derives the spec of a checkpoint from its files. On a tiny "
            "checkpoint of each architecture below, the prompt equals that of the processor, and the "
            f"token counts equal those of vLLM's processor for {len(tested['SIZES'])} image sizes "
            "(`plugins/auto/tests/test_matrix.py`).",
            _table(
                ["Architecture", "transformers' model type", "An image in the prompt"],
                served,
                lambda pair: [f"`{pair[0]}`", f"`{pair[1].model_type}`", _code(pair[1].image)],
            ),
            "Not covered, although vLLM and transformers have them:",
            _table(
                ["Architecture", "Reason"],
                sorted(tested["UNSERVED"].items()),
                lambda pair: [f"`{pair[0]}`", pair[1]],
            ),
            "Architectures of vLLM that transformers does not have:",
            _table(
                ["Architecture", "How it is served"],
                sorted(tested["OTHER_FORMATS"].items()),
                lambda pair: [f"`{pair[0]}`", pair[1]],
            ),
            "Architectures of vLLM whose checkpoints need Python code of their own. vlm-run refuses them "
            "unless you add `--trust-remote-code`; they are not tested:",
            _table(
                ["Architecture", "For example"],
                sorted(tested["REMOTE_CODE"].items()),
                lambda pair: [f"`{pair[0]}`", f"[{pair[1]}](https://huggingface.co/{pair[1]})"],
            ),
        ]
    )


def _row(spec: ModelSpec) -> list[str]:
    options = dict(spec.engine_kwargs)
    gpus = options.pop("tensor_parallel_size", 1)
    shown = ", ".join(f"`{name}={json.dumps(value)}`" for name, value in options.items())
    return [*_common(spec), shown, str(gpus)]


def _old_row(spec: ModelSpec) -> list[str]:
    return [*_common(spec), f"`{spec.vllm}`", f"`{spec.replaced_by}`"]


def _common(spec: ModelSpec) -> list[str]:
    context = f"{spec.context_length:,}" if spec.context_length else "in `config.json`"
    return [f"`{spec.model_type}`", _weights(spec), f"`{spec.architecture}`", context]


def _weights(spec: ModelSpec) -> str:
    hubs = []
    if spec.hf_id:
        hubs.append(f"[{spec.hf_id}](https://huggingface.co/{spec.hf_id})")
    if spec.modelscope_id:
        hubs.append(f"[ModelScope](https://modelscope.cn/models/{spec.modelscope_id})")
    hubs += [
        f"[{repository.removeprefix(f'{spec.hf_id}-')}](https://huggingface.co/{repository})"
        for repository in spec.quantized
    ]
    return ", ".join(hubs) or "with the plugin"


def _prompt_key(spec: ModelSpec) -> Hashable:
    facts = (spec.chat_template, spec.bos_token, repr(spec.template_kwargs), spec.image_placeholder)
    return (*facts, spec.stop, spec.reasoning_end, repr(spec.tasks), repr(spec.sampling_params))


def _prompt(plugin: Plugin, directory: str, specs: Sequence[ModelSpec]) -> str:
    first = specs[0]
    template = Path(first.chat_template).relative_to(Path(plugin.module.__file__).parent)
    conversation = Conversation.from_query("Q", images=["image.png"])
    rendered = Registry.load(first.model_type).render_prompt(conversation).text
    ends = ", ".join(f"`{stop}`" for stop in first.stop) or "the checkpoint's EOS"
    reasoning = f" Its reasoning ends at `{first.reasoning_end}`." if first.reasoning_end else ""
    tasks = ", ".join(f"`{name}` ({_code(text)})" for name, text in first.tasks.items())
    params = ", ".join(f"`{name}={json.dumps(value)}`" for name, value in first.sampling_params.items())
    return (
        f"{_names(specs)}: [{template.name}]({directory}/{template}), an image is "
        f"{_code(first.image_placeholder)}, an answer ends at {ends}.{reasoning}"
        f"{f' Tasks: {tasks}.' if tasks else ''}{f' Every request has {params}.' if params else ''}\n\n"
        f"```json\n{json.dumps(rendered, ensure_ascii=False)}\n```"
    )


def _images(specs: Iterable[ModelSpec]) -> str:
    sizes = [f"{width} × {height}" for width, height in SIZES]
    header = ["Model types", "Facts", *sizes, "Max. images", "Boxes"]
    groups = _alike(specs, lambda spec: (repr(spec.vision), spec.max_images, repr(spec.box_coordinates)))
    return _table(header, [list(group) for group in groups], _image_row)


def _videos(specs: Iterable[ModelSpec]) -> str:
    header = ["Model types", "Facts", "A video is", "10 s", "1 min"]
    groups = _alike(specs, lambda spec: (repr(spec.video), spec.video_placeholder))
    return _table(header, [list(group) for group in groups], _video_row)


def _video_row(specs: Sequence[ModelSpec]) -> list[str]:
    adapter = Registry.load(specs[0].model_type)
    costs = []
    for seconds in (10, 60):
        chosen = adapter.video_facts().choose_frames(30 * seconds, 30.0, FrameSelection())
        times = [number / 30 for number in chosen]
        tokens = adapter.count_video_tokens(1280, 720, len(times), len(times) / seconds, times)
        costs.append(f"{len(times)} frames, {tokens:,} tokens")
    return [_names(specs), _facts(specs[0].video), _code(specs[0].video_placeholder or ""), *costs]


def _image_row(specs: Sequence[ModelSpec]) -> list[str]:
    adapter = Registry.load(specs[0].model_type)
    costs = [f"{adapter.count_image_tokens(width, height):,}" for width, height in SIZES]
    most = specs[0].max_images
    return [
        _names(specs),
        _facts(specs[0].vision),
        *costs,
        "context length" if most is None else str(most),
        specs[0].box_coordinates.description if specs[0].box_coordinates else "",
    ]


def _facts(facts: VisionFacts | VideoFacts | None) -> str:
    if facts is None:
        return "`count_image_tokens` of the plugin"
    base = VideoFacts if isinstance(facts, VideoFacts) else VisionFacts
    own = type(facts).model_fields.keys() - base.model_fields.keys()
    fields = (f"`{name}` {_value(value)}" for name, value in facts if name in own and value is not None)
    return f"{type(facts).__name__}: {', '.join(fields)}"


def _value(value: Any) -> str:
    """A number, or the number of sizes (height, width) and the largest of them."""
    if isinstance(value, tuple):
        height, width = max(value, key=lambda size: size[0] * size[1])
        return f"{len(value)} sizes up to {width} × {height}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _code(text: str) -> str:
    """A string as code, in which a newline is `\\n`: a raw one would end the row of a table."""
    return f"`{text.replace(chr(10), chr(92) + 'n')}`"


def _names(specs: Iterable[ModelSpec]) -> str:
    return ", ".join(f"`{spec.model_type}`" for spec in specs)


def _alike(specs: Iterable[ModelSpec], key: Callable[[ModelSpec], Hashable]) -> Iterator[Iterable[ModelSpec]]:
    """The specs grouped by key, in the order of the first spec of each group."""
    specs = list(specs)
    places: dict[Hashable, int] = {}
    for spec in specs:
        places.setdefault(key(spec), len(places))
    ordered = sorted(specs, key=lambda spec: places[key(spec)])
    for _, group in itertools.groupby(ordered, key):
        yield list(group)


def _table(header: Sequence[str], items: Iterable[Any], row: Callable[[Any], Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *map(row, items)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


if __name__ == "__main__":
    main()

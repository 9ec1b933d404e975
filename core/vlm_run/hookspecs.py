"""The contract between vlm-run and a plugin: the one file that a plugin author must read.

A plugin is a Python module named by an entry point in the group `vlm_run.plugins`:

    [project.entry-points."vlm_run.plugins"]
    acme = "vlm_run_acme"

It must implement `model_specs`. Every other hook has a default that works from the spec's
data, so implement one only where your family truly differs. A hook is called only on the plugin
that owns the model type; a pluggy wrapper (`@hookimpl(wrapper=True)`) is called around the hooks
of every plugin.

An implementation may omit arguments that it does not need. Return None to use the default. Raise
`vlm_run.RequestError` or a subclass, such as `MediaError`, for input that the model does not
accept: only that request fails. Any other exception is reported as an error of the plugin.

The contract has a version. A plugin may state the versions for which it was written; under any
other version it is not loaded, and `vlm-run plugins` reports it:

    vlm_run_contract = ">=1,<2"  # beside `model_specs`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from vlm_run.prompts.conversation import Conversation
    from vlm_run.specs import Limits, ModelSpec

CONTRACT_VERSION = "1.3"
"""The major version changes when an existing plugin could break, the minor version when a hook, a hook
argument or a field of `ModelSpec` is added."""

hookspec = pluggy.HookspecMarker("vlm_run")
hookimpl = pluggy.HookimplMarker("vlm_run")


@hookspec
def model_specs() -> Sequence[ModelSpec]:  # type: ignore[empty-body]
    """The model types that this plugin serves.

    Called once, when plugins are discovered, and therefore by every command: do not import torch,
    transformers or vLLM here.

    >>> from vlm_run import ModelSpec, hookimpl
    >>> @hookimpl
    ... def model_specs():
    ...     return [
    ...         ModelSpec(
    ...             model_type="acme-vl-7b",
    ...             hf_id="acme/vl-7b",
    ...             architecture="AcmeVLForConditionalGeneration",
    ...             chat_template="acme.jinja",  # a file beside this module
    ...             image_placeholder="<image>",
    ...         )
    ...     ]
    >>> [spec.model_type for spec in model_specs()]
    ['acme-vl-7b']
    """


@hookspec(firstresult=True)
def spec_from_checkpoint(config: Mapping[str, Any], folder: Path) -> ModelSpec | None:
    """The spec of a checkpoint that no listed model type fits, or None.

    Called by `Registry.load` for a checkpoint directory or a repository on the hub, after the model
    types of all plugins were compared with its `config.json`. Every plugin is asked until one returns
    a spec, those that mark the implementation with `@hookimpl(trylast=True)` last. A relative path in
    the spec is relative to the plugin's package directory, an absolute one is kept. State in
    `ModelSpec.derived_from` where each field comes from: `vlm-run models --checkpoint` shows it.

    Args:
        config: The checkpoint's `config.json`.
        folder: The checkpoint directory.

    Added in contract 1.1.

    >>> from vlm_run import ModelSpec, hookimpl
    >>> @hookimpl
    ... def spec_from_checkpoint(config):
    ...     if config.get("model_type") != "acme_vl":
    ...         return None
    ...     return ModelSpec(
    ...         model_type="acme-vl",
    ...         architecture="AcmeVLForConditionalGeneration",
    ...         chat_template="acme.jinja",
    ...         image_placeholder="<image>",
    ...         context_length=config["max_position_embeddings"],
    ...         derived_from={"context_length": "config.json: max_position_embeddings"},
    ...     )
    >>> spec_from_checkpoint({"model_type": "acme_vl", "max_position_embeddings": 4096}).context_length
    4096
    """


@hookspec(firstresult=True)
def render_prompt(model: ModelSpec, conversation: Conversation) -> str | None:
    """The prompt, up to where the model's answer begins, with one placeholder for each image.

    Do not write a BOS unless the checkpoint's own template does: the tokenizer adds it. Control tokens
    in messages arrive masked by private-use characters; keep every character. The default renders
    `model.chat_template`.

    >>> from vlm_run import hookimpl
    >>> from vlm_run.prompts.conversation import Conversation
    >>> @hookimpl
    ... def render_prompt(conversation):
    ...     (turn,) = conversation.template_messages()
    ...     images = [part for part in turn["content"] if part["type"] == "image"]
    ...     texts = [part["text"] for part in turn["content"] if part["type"] == "text"]
    ...     return "<image>" * len(images) + "".join(texts) + " Answer:"
    >>> render_prompt(Conversation.from_query("How many?", images=["sheep.png"]))
    '<image>How many? Answer:'
    """


@hookspec(firstresult=True)
def preprocess_image(model: ModelSpec, image: Image.Image) -> Image.Image | None:
    """The image to pass to vLLM's processor for the model.

    The default raises `MediaError` for sizes that the processor does not accept, and returns the image
    unchanged.

    Args:
        model: The model type.
        image: A decoded RGB image, upright.

    >>> from PIL import Image
    >>> from vlm_run import hookimpl
    >>> @hookimpl
    ... def preprocess_image(image):
    ...     image.thumbnail((1024, 1024))
    ...     return image
    >>> preprocess_image(Image.new("RGB", (2048, 512))).size
    (1024, 256)
    """


@hookspec(firstresult=True)
def placeholder(model: ModelSpec, index: int) -> str | None:
    """The placeholder of image number `index`, counted from 1, in the prompt.

    The default is `model.image_placeholder` with `{index}` replaced by the number.

    >>> from vlm_run import hookimpl
    >>> @hookimpl
    ... def placeholder(index):
    ...     return f"<|image_{index}|>"
    >>> placeholder(2)
    '<|image_2|>'
    """


@hookspec(firstresult=True)
def count_image_tokens(model: ModelSpec, width: int, height: int) -> int | None:
    """The number of prompt tokens that an image of `width` × `height` pixels takes.

    It must equal the number of tokens by which vLLM's processor for the model replaces the
    placeholder, including tokens that separate rows or tiles. Raise `MediaError` for a size that the
    model does not accept. The default asks `model.vision`.

    >>> from vlm_run import hookimpl
    >>> @hookimpl
    ... def count_image_tokens(width, height):
    ...     return (width // 28) * (height // 28)
    >>> count_image_tokens(336, 336)
    144
    """


@hookspec(firstresult=True)
def count_video_tokens(
    model: ModelSpec, width: int, height: int, frames: int, fps: float, times: Sequence[float]
) -> int | None:
    """The number of prompt tokens that a video of `width` × `height` pixels takes.

    It must equal the number of tokens by which vLLM's processor for the model replaces the placeholder,
    including those that separate frames and tell their times. Raise `MediaError` for a size that the model
    does not accept. The default asks `model.video`.

    Args:
        model: The model type.
        width: Width of the video in pixels.
        height: Height of the video in pixels.
        frames: Number of frames that the model sees.
        fps: Frames that the model sees per second of the video.
        times: When each of these frames is shown, in seconds.

    Added in contract 1.3.

    >>> from vlm_run import hookimpl
    >>> @hookimpl
    ... def count_video_tokens(frames):
    ...     return 144 * frames
    >>> count_video_tokens(frames=8)
    1152
    """


@hookspec(firstresult=True)
def engine_kwargs(model: ModelSpec, limits: Limits) -> Mapping[str, Any] | None:
    """Engine options for the model under the user's limits, in `vllm.EngineArgs`' names.

    Options that the user sets on the command line or in Python take precedence. The default is
    `model.engine_kwargs` with the limits applied.

    >>> from vlm_run import Limits, ModelSpec, hookimpl
    >>> @hookimpl
    ... def engine_kwargs(limits):
    ...     return {"max_model_len": limits.max_model_len or 4096}
    >>> engine_kwargs(Limits(max_model_len=8192))
    {'max_model_len': 8192}
    """


@hookspec
def register_with_vllm() -> None:
    """Register an architecture or a processor with vLLM or transformers that they lack.

    Called in every vLLM process (front end, engine core, workers) before a model is looked up,
    possibly more than once: do nothing the second time. The only hook in which a plugin may import
    vLLM. The default does nothing.

    >>> from vlm_run import hookimpl
    >>> @hookimpl
    ... def register_with_vllm():
    ...     from vllm import ModelRegistry
    ...
    ...     ModelRegistry.register_model(
    ...         "AcmeVLForConditionalGeneration", "vlm_run_acme.model:AcmeVLForConditionalGeneration"
    ...     )
    """

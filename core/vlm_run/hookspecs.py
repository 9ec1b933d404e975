"""The contract between vlm-run and a plugin: the one file that a plugin author must read.

A plugin is a Python module named by an entry point in the group `vlm_run.plugins`:

    [project.entry-points."vlm_run.plugins"]
    acme = "vlm_run_acme"

It must implement `model_specs`. Every other hook has a default that works from the spec's
data, so implement one only where your family truly differs. A hook is called on the plugin
that owns the model type and on no other family's; a pluggy wrapper
(`@hookimpl(wrapper=True)`) is called around every family's.

An implementation may leave out arguments it does not need. Returning None passes on to the
default. Raise `vlm_run.errors.RequestError` or one of its children for input that the model
cannot take: it costs that one request; any other exception is reported as the plugin's fault.

The contract has a version. A plugin may say for which ones it was written; where another one
holds, it is left out, and `vlm-run plugins` says so:

    vlm_run_contract = ">=1,<2"  # beside `model_specs`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from PIL import Image

    from vlm_run.prompts.conversation import Conversation
    from vlm_run.specs import Limits, ModelSpec

CONTRACT_VERSION = "1.0"
"""The first number grows when a plugin that kept the contract could break; the second when a hook,
an argument of one, or a field of `ModelSpec` is added."""

hookspec = pluggy.HookspecMarker("vlm_run")
hookimpl = pluggy.HookimplMarker("vlm_run")


@hookspec
def model_specs() -> Sequence[ModelSpec]:  # type: ignore[empty-body]
    """The model types that this plugin serves.

    Called once, when plugins are discovered, also for `vlm-run models`: import nothing heavy.

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
def render_prompt(model: ModelSpec, conversation: Conversation) -> str | None:
    """The prompt, up to where the model's answer begins, with one placeholder for each image.

    No BOS unless the checkpoint's own template writes it: the tokenizer adds it. The default
    renders `model.chat_template`. What a user wrote arrives with control tokens masked by
    single private-use characters; keep every character of it.

    >>> from vlm_run import hookimpl
    >>> from vlm_run.prompts.conversation import Conversation
    >>> @hookimpl
    ... def render_prompt(conversation):
    ...     (turn,) = conversation.template_messages()
    ...     pictures = [part for part in turn["content"] if part["type"] == "image"]
    ...     texts = [part["text"] for part in turn["content"] if part["type"] == "text"]
    ...     return "<image>" * len(pictures) + "".join(texts) + " Answer:"
    >>> render_prompt(Conversation.from_query("How many?", images=["sheep.png"]))
    '<image>How many? Answer:'
    """


@hookspec(firstresult=True)
def preprocess_image(model: ModelSpec, image: Image.Image) -> Image.Image | None:
    """The picture to hand to vLLM's own processor for the model.

    The default refuses sizes that the processor cannot take (`MediaError`) and changes nothing.

    Args:
        model: The model type.
        image: A decoded RGB picture, upright.

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
    """What stands for the image number `index` (from 1 on) in the prompt.

    The default fills `{index}` in `model.image_placeholder`.

    >>> from vlm_run import hookimpl
    >>> @hookimpl
    ... def placeholder(index):
    ...     return f"<|image_{index}|>"
    >>> placeholder(2)
    '<|image_2|>'
    """


@hookspec(firstresult=True)
def count_image_tokens(model: ModelSpec, width: int, height: int) -> int | None:
    """How many tokens of the prompt a picture of `width` × `height` pixels takes up.

    Must equal what vLLM's processor for the model puts in the placeholder's place. The default
    asks `model.vision`. Raise `MediaError` for a size that the model cannot take.

    >>> from vlm_run import hookimpl
    >>> @hookimpl
    ... def count_image_tokens(width, height):
    ...     return (width // 28) * (height // 28)
    >>> count_image_tokens(336, 336)
    144
    """


@hookspec(firstresult=True)
def engine_kwargs(model: ModelSpec, limits: Limits) -> Mapping[str, Any] | None:
    """Engine options for the model under the user's limits, in `vllm.EngineArgs`' names.

    What the user sets on the command line or in Python goes on top. The default is
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
    """Register with vLLM or transformers what they lack: an architecture, a processor.

    Called in every vLLM process (front end, engine core, workers) before a model is looked up,
    and perhaps twice in one of them: do nothing the second time. The only place where a plugin
    may import vLLM. The default does nothing.

    >>> from vlm_run import hookimpl
    >>> @hookimpl
    ... def register_with_vllm():
    ...     from vllm import ModelRegistry
    ...
    ...     ModelRegistry.register_model(
    ...         "AcmeVLForConditionalGeneration", "vlm_run_acme.model:AcmeVLForConditionalGeneration"
    ...     )
    """

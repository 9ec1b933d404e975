"""One model type bound to its plugin: everything that differs between models, behind one face."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, TypeVar

from vlm_run.errors import PluginError, VlmRunError
from vlm_run.plugins.discovery import Plugin, Plugins, installed_plugins
from vlm_run.prompts.prompt import Guard, Prompt, control_tokens, cut_at_end_mark, with_end_mark
from vlm_run.specs import Limits, ModelSpec
from vlm_run.vision import unbounded

if TYPE_CHECKING:
    from PIL import Image as PILImage
    from vllm.config import VllmConfig

    from vlm_run.engine import Engine
    from vlm_run.prompts.conversation import Conversation, Image

T = TypeVar("T")


class Adapter:
    """What `Registry.load` returns. Everything but `vllm_config` and `engine` works without vLLM.

    Attributes:
        spec: The model type's data, with the limits and `mm_processor_kwargs` in force.
        plugin: The plugin that serves it.
        source: Where the weights come from: a folder or a repository on the hub.
        limits: What one request may use.
        config: Engine options from a configuration, on top of the plugin's and below the limits.
    """

    def __init__(
        self,
        spec: ModelSpec,
        plugin: Plugin,
        plugins: Plugins,
        *,
        source: str,
        limits: Limits,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.plugin = plugin
        self.source = source
        self.limits = limits
        self.config = dict(config or {})
        self._plugins = plugins
        of_plugin = self._call("engine_kwargs", Mapping, model=spec, limits=limits)
        settings = {name: value for name, value in self.config.items() if name != "model"}
        self._engine_kwargs = limits.over({**of_plugin, **settings}) if settings else dict(of_plugin)
        self.spec = _with_processor_kwargs(spec, self._engine_kwargs.get("mm_processor_kwargs"))

    def __repr__(self) -> str:
        return f"Adapter({self.spec.model_type!r}, plugin={self.plugin.name!r}, source={self.source!r})"

    def __copy__(self) -> Adapter:
        adapter = object.__new__(type(self))
        adapter.__dict__.update(self.__dict__)
        return adapter

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process has imported its own plugins; this one's are found there by name.
        return _unpickled, (self.spec, self.plugin.name, self.source, self.limits, self.config)

    def render(self, conversation: Conversation, control: Iterable[str] = ()) -> Prompt:
        """The prompt for a conversation.

        Args:
            conversation: Messages with text and images; the images are not looked at.
            control: Special tokens of the tokenizer in use, beside those the spec names; in
                what a user wrote they stay text.

        Raises:
            TemplateError: The chat template refuses the conversation.
        """
        if self.spec.reasoning_end is not None:
            conversation = conversation.without_reasoning(self.spec.reasoning_end)
        guard = Guard({*control_tokens(self.spec), *control})
        masked = guard.mask(conversation)
        if conversation.continued:
            masked = with_end_mark(masked)
        prompt = self._call("render_prompt", str, model=self.spec, conversation=masked)
        return guard.unmask(cut_at_end_mark(prompt) if conversation.continued else prompt)

    def preprocess(self, image: PILImage.Image, bounds: Image | None = None) -> PILImage.Image:
        """The picture as vLLM's processor for the model should get it.

        Args:
            image: A decoded RGB picture, upright.
            bounds: The part of the conversation that it comes from, which may bound its area.

        Raises:
            MediaError: The model cannot take a picture of this size, or takes no bounds.
        """
        from PIL import Image as PILImage

        seen = self._call("preprocess_image", PILImage.Image, model=self.spec, image=image)
        if bounds is None or (bounds.min_pixels is None and bounds.max_pixels is None):
            return seen
        vision = self.spec.vision
        if vision is None:
            raise unbounded()
        size = vision.bounded(bounds.min_pixels, bounds.max_pixels).resized(*seen.size)
        return seen.resize(size, PILImage.Resampling.BICUBIC)  # as the processor resizes

    def may_come_smaller(self, size: tuple[int, int], smaller: tuple[int, int]) -> bool:
        """Whether a picture of `size` may be decoded as one of `smaller`, both (width, height) in pixels.

        The model takes the same tokens for both, and its own resizing shrinks both. Never where the
        plugin does something to pictures or counts tokens in its own way.
        """
        own = [
            hook
            for hook in ("preprocess_image", "count_image_tokens")
            if not self._plugins.leaves_to_core(hook, self.plugin.module)
        ]
        return self.spec.vision is not None and not own and self.spec.vision.may_come_smaller(size, smaller)

    def placeholder(self, index: int = 1) -> str:
        """What stands for image number `index`, from 1 on, in the prompt."""
        return self._call("placeholder", str, model=self.spec, index=index)

    def count_image_tokens(self, width: int, height: int) -> int:
        """Tokens of the prompt that a picture of `width` × `height` pixels takes up.

        Raises:
            MediaError: The model cannot take a picture of this size.
        """
        return self._call("count_image_tokens", int, model=self.spec, width=width, height=height)

    def engine_kwargs(self, **overrides: Any) -> dict[str, Any]:
        """Engine options in `vllm.EngineArgs`' names: the plugin's, the configuration's, `overrides`."""
        return {
            "model": self.source,
            "trust_remote_code": False,
            **self._engine_kwargs,
            **overrides,
        }

    def default_engine_kwargs(self) -> dict[str, Any]:
        """The plugin's own engine options, before a configuration and the user's limits."""
        return dict(self._call("engine_kwargs", Mapping, model=self.spec, limits=Limits()))

    def vllm_config(self, **overrides: Any) -> VllmConfig:
        """The full vLLM configuration that `engine` would start with. Needs vLLM.

        Raises:
            EngineError: An option is unknown, or vLLM refuses the configuration.
        """
        from vlm_run.engine.arguments import vllm_config

        return vllm_config(self, overrides)

    def engine(self, **overrides: Any) -> Engine:
        """Start vLLM with this model. Use as a context manager, or call `shutdown`.

        Raises:
            EngineError: An option is unknown, or vLLM could not start.
        """
        from vlm_run.engine import Engine

        return Engine(self, **overrides)

    def under(self, engine_kwargs: Mapping[str, Any]) -> Adapter:
        """This adapter as under an engine's `mm_processor_kwargs`, which change image token counts."""
        adapter = copy(self)
        if options := engine_kwargs.get("mm_processor_kwargs"):
            adapter._engine_kwargs = {**self._engine_kwargs, "mm_processor_kwargs": options}
            adapter.spec = _with_processor_kwargs(self.spec, options)
        return adapter

    def _call(self, hook: str, returns: Callable[..., T] | type[T], **arguments: Any) -> T:
        """Call a hook of the plugin; what the plugin does wrong becomes a `PluginError`."""
        try:
            answer = self._plugins.hook(hook, self.plugin.module)(**arguments)
        except VlmRunError:
            raise
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"the hook '{hook}' of plugin {self._at_fault(error)} failed with "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(answer, returns):  # type: ignore[arg-type]
            raise PluginError(
                f"the hook '{hook}' of plugin {self.plugin.name} returned {type(answer).__name__}, "
                f"not {returns.__name__}"
            )
        return answer

    def _at_fault(self, error: BaseException) -> str:
        """The plugin whose code raised: it may be another one's wrapper."""
        owners = {getattr(plugin.module, "__name__", ""): plugin.name for plugin in self._plugins.healthy}
        for frame, _ in reversed([*walk_tb(error.__traceback__)]):
            module = frame.f_globals.get("__name__", "")
            if owner := owners.get(module) or owners.get(module.partition(".")[0]):
                return owner
        return self.plugin.name


def _unpickled(
    spec: ModelSpec, plugin: str, source: str, limits: Limits, config: Mapping[str, Any]
) -> Adapter:
    """An adapter that came from another process."""
    plugins = installed_plugins()
    for candidate in plugins.healthy:
        if candidate.name == plugin:
            adapter = Adapter(spec, candidate, plugins, source=source, limits=limits, config=config)
            adapter.spec = spec
            return adapter
    raise PluginError(f"plugin {plugin} is not installed, so it cannot be used in another process")


def _with_processor_kwargs(spec: ModelSpec, processor_kwargs: Mapping[str, Any] | None) -> ModelSpec:
    """The spec whose vision facts are those under `mm_processor_kwargs`."""
    if spec.vision is None or not processor_kwargs:
        return spec
    return spec.model_copy(update={"vision": spec.vision.with_processor_kwargs(processor_kwargs)})

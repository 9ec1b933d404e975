"""One model type bound to its plugin: everything that differs between models, behind one interface."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self, TypeVar

from vlm_run.boxes import Box, ImageSize, parse_boxes
from vlm_run.errors import VlmRunError
from vlm_run.plugins.cpu_dtype import cpu_engine_kwargs, dtype_note
from vlm_run.plugins.discovery import Plugin, Plugins
from vlm_run.plugins.gpu_throughput import gpu_engine_kwargs
from vlm_run.plugins.hook_call import call_hook
from vlm_run.prompts.guard import Guard, control_tokens, cut_at_end_mark, with_end_mark
from vlm_run.prompts.prompt import Prompt
from vlm_run.prompts.support import check_images_rendered, check_takes_videos, video_facts, with_task_text
from vlm_run.specs import Limits, ModelSpec
from vlm_run.vision import pixel_bounds_unsupported

if TYPE_CHECKING:
    from PIL import Image as PILImage
    from vllm.config import VllmConfig

    from vlm_run.engine import Engine
    from vlm_run.prompts.conversation import Conversation, Image
    from vlm_run.video import FrameSelection, VideoFacts
    from vlm_run.vision import VisionFacts

T = TypeVar("T")


@dataclass(frozen=True, slots=True, repr=False)
class Adapter:
    """What `Registry.load` returns. Everything but `vllm_config` and `engine` works without vLLM.

    Methods that call a hook carry the hook's name. An adapter is immutable and can be pickled: another
    process looks its plugin up among the ones installed there.

    Attributes:
        spec: The model type's data, with the `mm_processor_kwargs` in force applied to `vision`.
        plugin: The plugin that serves it.
        source: Where to load the weights from: a directory or a repository on the hub.
        limits: Limits on one request.
        config: Engine options from a configuration file; they take precedence over the plugin's, and
            `limits` take precedence over them.
        base_engine_kwargs: The plugin's engine options with `config` and `limits` applied.
    """

    spec: ModelSpec
    plugin: Plugin
    _plugins: Plugins = field(compare=False)
    source: str
    limits: Limits = field(default_factory=Limits)
    config: Mapping[str, Any] = field(default_factory=dict)
    base_engine_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def create(
        cls,
        spec: ModelSpec,
        plugin: Plugin,
        plugins: Plugins,
        *,
        source: str,
        limits: Limits | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> Self:
        """The adapter of a model type. Calls the hook `engine_kwargs` once.

        Raises:
            PluginError: The hook failed, or returned something other than a mapping.
            MediaError: `limits` bound the area of images, which the model does not support.
        """
        limits, config = limits or Limits(), dict(config or {})
        bare = cls(spec, plugin, plugins, source, limits, config)
        kwargs = dict(bare._call("engine_kwargs", Mapping, model=spec, limits=limits))
        if options := {name: value for name, value in config.items() if name != "model"}:
            kwargs = limits.apply_to({**kwargs, **options}, spec.vision)
        return replace(bare, base_engine_kwargs=kwargs).with_engine_kwargs(kwargs)

    def __repr__(self) -> str:
        return f"Adapter({self.spec.model_type!r}, plugin={self.plugin.name!r}, source={self.source!r})"

    def render_prompt(self, conversation: Conversation, control: Iterable[str] = ()) -> Prompt:
        """The prompt for a conversation.

        Args:
            conversation: Messages with text and images; the images are not opened.
            control: Special tokens of the tokenizer in use, in addition to those in the spec. Where a
                user wrote one of them, it stays text.

        Raises:
            TemplateError: The chat template refuses the conversation.
            ConversationError: The model has no such task.
            MediaError: There is a video, but the model takes none.
        """
        check_takes_videos(self.spec, conversation)
        if self.spec.reasoning_end is not None:
            conversation = conversation.without_reasoning(self.spec.reasoning_end)
        guard = Guard({*control_tokens(self.spec), *control})
        # After users' text is masked, since a task's text may contain control tokens.
        masked = with_task_text(self.spec, guard.mask(conversation))
        if conversation.continued:
            masked = with_end_mark(masked)
        text = self._call("render_prompt", str, model=self.spec, conversation=masked)
        prompt = guard.unmask(cut_at_end_mark(text) if conversation.continued else text)
        check_images_rendered(self.spec, conversation, prompt)
        return prompt

    def render(self, conversation: Conversation, control: Iterable[str] = ()) -> Prompt:
        """The former name of `render_prompt`, which is kept for existing scripts."""
        return self.render_prompt(conversation, control)

    def preprocess_image(self, image: PILImage.Image, bounds: Image | None = None) -> PILImage.Image:
        """The image to pass to vLLM's processor for the model.

        Args:
            image: A decoded RGB image, upright.
            bounds: The image's part of the conversation, which may bound its area in pixels.

        Raises:
            MediaError: The model does not accept an image of this size, or does not support
                `min_pixels` and `max_pixels`.
        """
        from PIL import Image as PILImage

        preprocessed = self._call("preprocess_image", PILImage.Image, model=self.spec, image=image)
        vision = self._bounded_vision(bounds)
        if vision is None or vision.processor_options():
            return preprocessed
        size = vision.resized(*preprocessed.size)
        if size is None:
            raise pixel_bounds_unsupported()
        return preprocessed.resize(size, PILImage.Resampling.BICUBIC)  # the processor's own filter

    def _bounded_vision(self, bounds: Image | None) -> VisionFacts | None:
        """The facts for an image whose area a request bounds; None for another image."""
        if bounds is None or (bounds.min_pixels is None and bounds.max_pixels is None):
            return None
        if self.spec.vision is None:
            raise pixel_bounds_unsupported()
        return self.spec.vision.bounded(bounds.min_pixels, bounds.max_pixels)

    def processor_options(self, bounds: Image | None) -> dict[str, Any]:
        """Options of vLLM's processor for an image, see `VisionFacts.processor_options`.

        Args:
            bounds: The image's part of the conversation, which may bound its area in pixels.

        Raises:
            MediaError: The model does not support `min_pixels` and `max_pixels`.
        """
        vision = self._bounded_vision(bounds)
        return {} if vision is None else dict(vision.processor_options())

    def for_image(self, bounds: Image | None) -> Self:
        """This adapter with the `processor_options` of an image, for its size and tokens.

        Args:
            bounds: The image's part of the conversation, which may bound its area in pixels.

        Raises:
            MediaError: The model does not support `min_pixels` and `max_pixels`.
        """
        return self.with_engine_kwargs({"mm_processor_kwargs": self.processor_options(bounds)})

    def resized(self, width: int, height: int) -> tuple[int, int] | None:
        """Width and height in pixels to which the image processor resizes a preprocessed image.

        None if the plugin does not tell; see `VisionFacts.resized`.
        """
        return None if self.spec.vision is None else self.spec.vision.resized(width, height)

    def image_size(
        self, width: int, height: int, *, min_pixels: int | None = None, max_pixels: int | None = None
    ) -> ImageSize:
        """The size of an image before and after resizing, for `parse_boxes`.

        Args:
            width: Width in pixels, after EXIF rotation.
            height: Height in pixels, after EXIF rotation.
            min_pixels: The request's bound on the area of the image.
            max_pixels: The request's bound on the area of the image.

        Raises:
            MediaError: The model does not accept an image of this size, or does not support `min_pixels`
                and `max_pixels`.
        """
        from PIL import Image as PILImage

        from vlm_run.prompts.conversation import Image

        blank, bounds = PILImage.new("RGB", (width, height)), Image("", min_pixels, max_pixels)
        seen = self.preprocess_image(blank, bounds).size
        return ImageSize(width, height, self.for_image(bounds).resized(*seen))

    def parse_boxes(self, answer: str, images: Sequence[ImageSize]) -> tuple[Box, ...]:
        """The boxes in an answer, for example one of a server; an engine's are in `Response.boxes`.

        Of an answer with reasoning, only the text after it is read.

        Args:
            answer: The answer. Where the tags of boxes are special tokens, it has them only if
                `skip_special_tokens` was false.
            images: The images of the conversation, each by `image_size`.

        Returns:
            The boxes in pixels of the original images; empty if `spec.box_coordinates` is None.
        """
        if self.spec.box_coordinates is None:
            return ()
        if self.spec.reasoning_end is not None:
            answer = answer.rpartition(self.spec.reasoning_end)[2]
        return parse_boxes(answer, self.spec.box_coordinates, images)

    def page_size(self, width: int, height: int, bounds: Image | None = None) -> tuple[int, int]:
        """Width and height in pixels at which to render a page of a PDF for the model.

        See `VisionFacts.page_size`.

        Args:
            width: Width of the page at the usual resolution, in pixels.
            height: Height of the page at the usual resolution, in pixels.
            bounds: The page's part of the conversation, which may bound its area in pixels.

        Raises:
            MediaError: The model does not accept an image of this size, or does not support `min_pixels`
                and `max_pixels`.
        """
        vision = self.spec.vision
        if vision is None:
            return width, height
        if bounds is not None and (bounds.min_pixels is not None or bounds.max_pixels is not None):
            vision = vision.bounded(bounds.min_pixels, bounds.max_pixels)
        return vision.page_size(width, height)

    def allows_downscaled_decode(self, size: tuple[int, int], smaller: tuple[int, int]) -> bool:
        """Whether a JPEG of `size` may be decoded at `smaller`, both (width, height) in pixels.

        See `VisionFacts.allows_downscaled_decode`.
        """
        return self.spec.vision is not None and self.spec.vision.allows_downscaled_decode(size, smaller)

    def placeholder(self, index: int = 1) -> str:
        """The placeholder of image number `index`, counted from 1, in the prompt."""
        return self._call("placeholder", str, model=self.spec, index=index)

    def count_image_tokens(self, width: int, height: int) -> int:
        """The number of prompt tokens that an image of `width` × `height` pixels takes.

        Raises:
            MediaError: The model does not accept an image of this size.
        """
        return self._call("count_image_tokens", int, model=self.spec, width=width, height=height)

    def video_facts(self, selection: FrameSelection | None = None) -> VideoFacts:
        """How the model sees a video, with the bound on the area of frames that a request gives.

        Raises:
            MediaError: The model takes no videos, or does not support `max_pixels` of a video.
        """
        facts = video_facts(self.spec)
        return facts if selection is None else facts.bounded(selection.max_pixels)

    def count_video_tokens(
        self,
        width: int,
        height: int,
        frames: int,
        fps: float,
        times: Sequence[float] | None = None,
        *,
        max_pixels: int | None = None,
    ) -> int:
        """The number of prompt tokens that a video of `width` × `height` pixels takes.

        Args:
            width: Width of the video in pixels.
            height: Height of the video in pixels.
            frames: Number of frames that the model sees.
            fps: Frames that the model sees per second of the video.
            times: When each of these frames is shown, in seconds; None if they are evenly spaced from 0.
            max_pixels: The request's bound on the area of a frame, in pixels.

        Raises:
            MediaError: The model takes no videos, not of this size, or does not support `max_pixels`.
        """
        spec = self.spec
        if spec.video is not None:
            spec = spec.model_copy(update={"video": spec.video.bounded(max_pixels)})
        if times is None:
            times = [number / fps for number in range(frames)]
        return self._call(
            "count_video_tokens",
            int,
            model=spec,
            width=width,
            height=height,
            frames=frames,
            fps=fps,
            times=times,
        )

    def engine_kwargs(self, *, served: bool = False, **overrides: Any) -> dict[str, Any]:
        """Engine options in `vllm.EngineArgs`' names.

        Args:
            served: Whether they are for a server. It changes vlm-run's own options only.
            overrides: Options that take precedence over all others, which are, highest first: the
                limits, the configuration file's, the plugin's, vlm-run's.
        """
        options = {**self.base_engine_kwargs, **overrides}
        return {
            "model": self.source,
            "trust_remote_code": False,
            **cpu_engine_kwargs(self.source, options),
            **options,
            **gpu_engine_kwargs(self.spec.architecture, options, served=served),
        }

    def dtype_note(self, **overrides: Any) -> str | None:
        """Why the engine's dtype is not the checkpoint's, where vlm-run chose it for this CPU; else None."""
        return dtype_note(self.source, {**self.base_engine_kwargs, **overrides})

    def largest_image(self) -> tuple[tuple[int, int], int] | None:
        """Width and height in pixels of an image that takes nearly as many tokens as any, and those tokens.

        Returns:
            None if the vision facts do not tell.
        """
        size = None if self.spec.vision is None else self.spec.vision.size_with_most_tokens()
        if size is None:
            return None
        try:
            return size, self.count_image_tokens(*size)
        except VlmRunError:  # the plugin's hook does not know, or refuses the size
            return None

    @property
    def takes_pixel_bounds(self) -> bool:
        """Whether requests and the engine may give `min_pixels` and `max_pixels`."""
        try:
            return self.spec.vision is not None and bool(self.spec.vision.bounded(None, None))
        except VlmRunError:
            return False

    def default_engine_kwargs(self) -> dict[str, Any]:
        """The plugin's own engine options, before a configuration file and the user's limits."""
        return dict(self._call("engine_kwargs", Mapping, model=self.spec, limits=Limits()))

    def with_engine_kwargs(self, engine_kwargs: Mapping[str, Any]) -> Self:
        """This adapter under an engine's `mm_processor_kwargs`, which change image token counts."""
        options = engine_kwargs.get("mm_processor_kwargs")
        if not options:
            return self
        spec = self.spec
        if spec.vision is not None:
            spec = spec.model_copy(update={"vision": spec.vision.with_processor_kwargs(options)})
        if spec.video is not None:
            spec = spec.model_copy(update={"video": spec.video.with_processor_kwargs(options)})
        kwargs = {**self.base_engine_kwargs, "mm_processor_kwargs": options}
        return replace(self, spec=spec, base_engine_kwargs=kwargs)

    # The two methods below are the only ones that import a layer above this one, when they are called.

    def vllm_config(self, **overrides: Any) -> VllmConfig:
        """The full vLLM configuration that `engine` would start with. Needs vLLM.

        Raises:
            EngineError: An option is unknown, or vLLM refuses the configuration.
        """
        from vlm_run import engine

        return engine.vllm_config(self, overrides)

    def engine(self, **overrides: Any) -> Engine:
        """Start vLLM with this model. Use as a context manager, or call `shutdown`.

        Raises:
            EngineError: An option is unknown, or vLLM could not start.
        """
        from vlm_run import engine

        return engine.Engine(self, **overrides)

    def _call(self, hook: str, returns: Callable[..., T] | type[T], **arguments: Any) -> T:
        return call_hook(self._plugins, self.plugin, hook, returns, **arguments)

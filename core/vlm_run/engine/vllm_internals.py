"""Uses of parts of vLLM that are not public, one function each.

Everything used here is listed in `vllm_seams`, against which each release of vLLM is checked. vLLM's
public interface is imported where it is needed, in `engine/` and `server/`.
"""

from __future__ import annotations

import uuid
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from vlm_run.engine.versions import vllm_version
from vlm_run.engine.vllm_seams import MULTIMODAL_CACHE, Seam
from vlm_run.errors import EngineError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.renderers import BaseRenderer
    from vllm.v1.engine.llm_engine import LLMEngine

Request = TypeVar("Request", bound=type)


def locate(seam: Seam) -> Any:
    """A function or class of vLLM's that has moved between versions.

    Raises:
        EngineError: It is in none of the places where supported versions have it.
    """
    for place in seam.places:
        module, _, name = place.partition(":")
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise EngineError(
        f"vLLM {vllm_version()} has no {seam.places[0].replace(':', '.')}, which vlm-run needs",
        hint="docs/vllm-versions.md lists the versions that vlm-run has run with.",
    )


def request_errors() -> tuple[type[Exception], ...]:
    """The exceptions that vLLM raises when a request, not the engine, is at fault.

    `VLLMValidationError` is a `ValueError` until 0.27; since then all such errors are
    `VLLMClientError`s. Processors still raise plain `ValueError`s.
    """
    from vllm import exceptions

    client_error = getattr(exceptions, "VLLMClientError", exceptions.VLLMValidationError)
    return (client_error, ValueError)


def known_architectures() -> frozenset[str]:
    """The architectures that vLLM supports, including those that plugins registered in this process."""
    from vllm import ModelRegistry

    return frozenset(ModelRegistry.get_supported_archs())


def processed_image_cache(renderer: BaseRenderer) -> Any:
    """A renderer's cache of processed images that it does not share with the engine; None if it is off.

    The cache has a processor of its own until 0.30.
    """
    cache = getattr(renderer, "_mm_processor_only_cache", None)
    if cache is not None:
        return cache
    return getattr(getattr(renderer, "_readonly_mm_processor", None), "cache", None)


@cache
def skip_what_no_cache_can_hold() -> None:
    """Have vLLM's caches of processed images pass on, without keeping it, an item larger than they are.

    vLLM itself does so since 0.30. Until then its caches raise `ValueError: value too large`: in the process
    that renders and in the engine's, and for some models while the engine starts.
    """
    from vllm.utils.cache import LRUCache

    if hasattr(LRUCache, "put_if_fits"):
        return

    class SkippingCache(LRUCache):  # type: ignore[misc]
        def __setitem__(self, key: Any, value: Any) -> None:
            if self.getsizeof(value) <= self.capacity:
                super().__setitem__(key, value)

    multimodal_cache = locate(MULTIMODAL_CACHE)
    made = multimodal_cache.get_lru_cache

    def get_lru_cache(capacity_gb: float, value_type: type, *, debug: bool = False) -> Any:
        like = made(capacity_gb, value_type, debug=debug)
        return SkippingCache(like.capacity, like.getsizeof)

    multimodal_cache.get_lru_cache = staticmethod(get_lru_cache)


class EvictedByItsPrompt(Exception):
    """The items of a prompt do not fit in vLLM's cache together: one that was there had to go for another."""


async def process_prompt(
    renderer: BaseRenderer,
    token_ids: Sequence[int],
    images: Sequence[Any],
    cache_keys: Sequence[str],
    videos: Sequence[Any] = (),
    video_keys: Sequence[str] = (),
    processor_kwargs: Mapping[str, Any] | None = None,
    *,
    anew: bool = False,
) -> Any:
    """The engine's input for a tokenized prompt, its images and its videos.

    Args:
        renderer: vLLM's.
        token_ids: The prompt.
        images: Pillow images, or None for one whose cache key vLLM's cache of processed images holds.
        cache_keys: One for each image; the engine's caches know the images by them.
        videos: Frames and metadata of each video.
        video_keys: One for each video, likewise.
        processor_kwargs: Options of the processor for this prompt; the cache keys must depend on them.
        anew: Process everything, also what is in the cache.

    Raises:
        EvictedByItsPrompt: The prompt must be processed `anew`.
    """
    prompt: dict[str, Any] = {"prompt_token_ids": list(token_ids)}
    if processor_kwargs:
        prompt["mm_processor_kwargs"] = dict(processor_kwargs)
    media = {"image": (images, cache_keys), "video": (videos, video_keys)}
    given = {kind: (list(data), list(keys)) for kind, (data, keys) in media.items() if data}
    if given:
        prompt["multi_modal_data"] = {kind: data for kind, (data, _) in given.items()}
        # Under a name of its own, nothing is found in the cache.
        suffix = f" {uuid.uuid4().hex}" if anew else ""
        prompt["multi_modal_uuids"] = {
            kind: [key + suffix for key in keys] for kind, (_, keys) in given.items()
        }
    # Not through the cache whose images are sent to the engine only once: a request that is refused or
    # cancelled after this never gets there, and the engine would miss its images in later requests.
    try:
        (engine_input,) = await renderer.render_cmpl_async([prompt], skip_mm_cache=True)
    except AssertionError as error:  # "Expected a cached item for mm_hash=…"
        if anew or not given:
            raise
        raise EvictedByItsPrompt from error
    for kind, (_, keys) in given.items():
        # With its caches off vLLM counts images instead, in 0.24 even where it was given cache keys.
        engine_input["mm_hashes"][kind] = keys
    return engine_input


def has_died(engine: Any) -> bool:
    """Whether an engine is dead for good; since 0.33 it may be dead until it has restarted."""
    return bool(engine.errored) and not getattr(engine, "should_keep_api_server_alive", False)


def stop_engine_processes(engine: LLMEngine) -> None:
    """End the processes of a `vllm.LLM`'s engine, for which vLLM has no public method."""
    engine.engine_core.shutdown()


def forget_shutdown(engine: Any) -> None:
    """Let `AsyncLLM.__del__` do nothing, once the engine is shut down.

    It shuts down again, which fails where the interpreter ends and has removed what vLLM's modules hold.
    """
    engine.shutdown = _do_nothing


def _do_nothing() -> None: ...


def set_api_process(options: AsyncEngineArgs, count: int, rank: int) -> None:
    """Tell an engine's options which of several API processes this is, as vLLM's own launcher does."""
    options._api_process_count = count
    options._api_process_rank = rank


def replace_renderer(mode: str, renderer: type) -> None:
    """Use a renderer, found by its name, in place of vLLM's for tokenizers of a mode, `hf` or `mistral`."""
    from vllm.renderers.registry import RENDERER_REGISTRY

    RENDERER_REGISTRY.renderers.pop(mode, None)  # or `register` warns of the replacement
    RENDERER_REGISTRY.register(mode, renderer.__module__, renderer.__name__)


def run_api_processes(args: Namespace, worker: Callable[..., None]) -> None:
    """Run vLLM's launcher of several API processes with another function in each of them.

    Args:
        args: vLLM's server arguments.
        worker: A module's function, called with vLLM's `listen_address`, `sock`, `args`, `client_config`
            and further keywords.
    """
    import vllm.v1.utils
    from vllm.entrypoints.cli.serve import run_multi_api_server

    # The launcher looks it up by this name and pickles it by reference, in every supported version.
    vllm.v1.utils.run_api_server_worker_proc = worker
    run_multi_api_server(args)


def keep_server_of_dead_engine(app: FastAPI) -> None:
    """Keep the server up when a request meets a dead engine, which vLLM's handler would end at once."""
    app.state.server = SimpleNamespace(should_exit=False)


def with_own_field_names(request: Request) -> Request:
    """A decorator for a subclass of a vLLM request, so that its new fields are known fields.

    vLLM keeps the names of a request's fields in its class, and a subclass would inherit them.
    """
    request.field_names = None  # type: ignore[attr-defined]
    return request


def client_addresses(client: Mapping[str, Any]) -> dict[str, Any]:
    """The part of vLLM's launch arguments for an API process that describes the engine."""
    return {name: value for name, value in client.items() if name not in _CLIENT_COUNTS}


_CLIENT_COUNTS = ("client_count", "client_index", "api_server_loads")

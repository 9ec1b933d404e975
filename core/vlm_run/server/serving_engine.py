"""vLLM's engine for a server, with the model type's stop conditions and sampling parameters."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM

from vlm_run.engine.answer_text import without_leading_blank
from vlm_run.engine.image_budget import check_image_budget
from vlm_run.engine.renderer_pool import default_pool_size
from vlm_run.engine.rendering_front import start_renderer_pool
from vlm_run.engine.sampling import with_model_params
from vlm_run.engine.vllm_internals import client_addresses, set_api_process
from vlm_run.errors import EngineError
from vlm_run.media import MediaPolicy
from vlm_run.prompts.tokenize import stop_conditions
from vlm_run.server.chat_renderer import ConversationInput, use_adapter_renderer

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter


class ServingEngine(AsyncLLM):  # type: ignore[misc]
    """vLLM's engine; every answer also ends at the model type's stop conditions.

    Attributes:
        stop_token_ids: The model type's stop strings that are a single token.
        stop_strings: Its other stop strings.
        model_params: Its sampling parameters, where a request leaves vLLM's defaults.
    """

    stop_token_ids: Sequence[int] = ()
    stop_strings: Sequence[str] = ()
    model_params: Mapping[str, Any] = MappingProxyType({})

    def generate(self, prompt: Any, sampling_params: SamplingParams, *args: Any, **kwargs: Any) -> Any:
        """Generate as vLLM's engine does, with the model type's stop conditions and sampling parameters.

        The answer to a conversation begins without a blank, as from `vlm_run.Engine`.
        """
        params = with_model_params(self._with_stop(sampling_params), self.model_params)
        outputs = super().generate(prompt, params, *args, **kwargs)
        if isinstance(prompt, ConversationInput):
            return without_leading_blank(outputs, sampling_params)
        return outputs

    def _with_stop(self, params: SamplingParams) -> SamplingParams:
        if params.ignore_eos or not (self.stop_token_ids or self.stop_strings):
            return params
        strings = self.stop_strings if params.detokenize else ()
        return msgspec.structs.replace(
            params,
            stop=list(dict.fromkeys([*params.stop, *strings])),
            stop_token_ids=[*params.stop_token_ids, *self.stop_token_ids],
        )


@asynccontextmanager
async def running_engine(
    adapter: Adapter,
    args: Namespace,
    policy: MediaPolicy,
    renderers: int | None,
    client: Mapping[str, Any],
) -> AsyncIterator[ServingEngine]:
    """Run the engine and its renderer processes until the block ends.

    Args:
        adapter: The model.
        args: vLLM's server arguments.
        policy: Which images may be fetched, and how large they may be.
        renderers: Processes that prepare requests with images; None for a default by the number of
            CPU cores, 0 for none.
        client: How to reach the engine if another process has started it, in vLLM's form.

    Raises:
        EngineError: vLLM could not start.
    """
    processes = client.get("client_count", 1)
    size = default_pool_size() // processes if renderers is None else renderers
    options = AsyncEngineArgs.from_cli_args(args)
    set_api_process(options, processes, client.get("client_index", 0))
    try:
        config = options.create_engine_config(UsageContext.OPENAI_API_SERVER)
    except (OSError, ValueError) as error:
        raise EngineError(f"vLLM cannot configure '{adapter.spec.model_type}': {error}") from error
    served = adapter.with_engine_kwargs({"mm_processor_kwargs": args.mm_processor_kwargs})
    check_image_budget(served, config)
    pool = start_renderer_pool(served, config, policy, size)
    engine: ServingEngine | None = None
    try:
        use_adapter_renderer(served, policy, pool)
        engine = await _start(config, options, client)
        engine.stop_token_ids, engine.stop_strings = stop_conditions(engine.get_tokenizer(), served.spec.stop)
        engine.model_params = served.spec.sampling_params
        yield engine
    finally:
        if engine is not None:
            await asyncio.to_thread(engine.shutdown)
        if pool is not None:
            await asyncio.to_thread(pool.shutdown)


async def _start(config: Any, options: AsyncEngineArgs, client: Mapping[str, Any]) -> ServingEngine:
    try:
        engine: ServingEngine = ServingEngine.from_vllm_config(
            config,
            usage_context=UsageContext.OPENAI_API_SERVER,
            enable_log_requests=options.enable_log_requests,
            aggregate_engine_logging=options.aggregate_engine_logging,
            disable_log_stats=options.disable_log_stats,
            client_addresses=client_addresses(client),
            client_count=client.get("client_count", 1),
            client_index=client.get("client_index", 0),
        )
    except Exception as error:
        raise EngineError(
            f"vLLM could not start: {type(error).__name__}: {error}", hint="See vLLM's log above."
        ) from error
    await engine.reset_mm_cache()  # filled by the profiling run
    return engine

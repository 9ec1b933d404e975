"""Every name of vLLM's that vlm-run uses, with the parameters it passes and the attributes it reads.

vLLM keeps few interfaces stable between releases. `vllm_source.broken_seams` compares this list with a
release's source code: that of the installed vLLM in the tests, and at run time where vlm-run has not run
with that version; that of a wheel in `tools/vllm_seams.py`. Names that are not public in vLLM are used
only in `vllm_internals`. Importing this module does not import vLLM.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Seam:
    """One function, class or method of vLLM's.

    Attributes:
        places: Where it is defined, as `module:name` or `module:Class.method`. A name that has moved
            between the supported versions lists every place, newest first; the first that exists counts.
        parameters: The parameters that vlm-run passes. A class stands for its constructor.
        overridden: vlm-run replaces the method, so `parameters` are those that it accepts from vLLM, and
            a further one breaks it as well.
        attributes: Attributes and methods that vlm-run reads from the class or its instances, where
            their parameters do not matter. `a|b` means either.
    """

    places: tuple[str, ...]
    parameters: tuple[str, ...] = ()
    overridden: bool = False
    attributes: tuple[str, ...] = ()


def _seam(*places: str, parameters: str = "", overridden: bool = False, attributes: str = "") -> Seam:
    return Seam(places, tuple(parameters.split()), overridden, tuple(attributes.split()))


# The functions of vLLM's server, which have moved: `vllm.entrypoints.openai` and `.serve` until 0.28,
# `vllm.entrypoints.launchers` since 0.29, from where the arguments went on to `.common` in 0.33.
BUILD_APP = _seam(
    "vllm.entrypoints.launchers.app:build_app",
    "vllm.entrypoints.openai.api_server:build_app",
    parameters="args supported_tasks model_config",
)
INIT_APP_STATE = _seam(
    "vllm.entrypoints.launchers.api_server.app_state:init_app_state",
    "vllm.entrypoints.openai.api_server:init_app_state",
    parameters="engine_client state args supported_tasks",
)
MAKE_ARG_PARSER = _seam(
    "vllm.entrypoints.common.cli_args:make_arg_parser",
    "vllm.entrypoints.launchers.cli_args:make_arg_parser",
    "vllm.entrypoints.openai.cli_args:make_arg_parser",
    parameters="parser",
)
VALIDATE_PARSED_SERVE_ARGS = _seam(
    "vllm.entrypoints.common.cli_args:validate_parsed_serve_args",
    "vllm.entrypoints.launchers.cli_args:validate_parsed_serve_args",
    "vllm.entrypoints.openai.cli_args:validate_parsed_serve_args",
    parameters="args",
)
VALIDATE_API_SERVER_ARGS = _seam(
    "vllm.entrypoints.common.cli_args:validate_api_server_args",
    "vllm.entrypoints.launchers.launcher:validate_api_server_args",
    "vllm.entrypoints.openai.api_server:validate_api_server_args",
    parameters="args",
)
UVICORN_LOG_CONFIG = _seam(
    "vllm.entrypoints.launchers.utils.server_utils:get_uvicorn_log_config",
    "vllm.entrypoints.serve.utils.server_utils:get_uvicorn_log_config",
    "vllm.entrypoints.openai.server_utils:get_uvicorn_log_config",
    parameters="args",
)
SSL_CERT_REFRESHER = _seam(
    "vllm.entrypoints.launchers.utils.ssl:SSLCertRefresher",
    "vllm.entrypoints.serve.utils.ssl:SSLCertRefresher",
    parameters="ssl_context key_path cert_path ca_path",
    attributes="stop",
)

# What makes the caches of processed images, in each of vLLM's processes.
MULTIMODAL_CACHE = _seam(
    "vllm.multimodal.cache.base:MultiModalCache",
    "vllm.multimodal.cache:MultiModalCache",
)

_PROMPTS = (
    _seam("vllm.renderers:renderer_from_config", parameters="config"),
    _seam("vllm.renderers:BaseRenderer.render_cmpl_async", parameters="prompts skip_mm_cache"),
    _seam(
        "vllm.renderers:BaseRenderer",
        # The cache has had a processor of its own, `_readonly_mm_processor`, until 0.30.
        attributes="get_tokenizer model_config shutdown _mm_processor_only_cache|_readonly_mm_processor",
    ),
    _seam("vllm.multimodal.cache:MultiModalProcessorOnlyCache.is_cached_item", parameters="mm_hash"),
    MULTIMODAL_CACHE,
    _seam(
        "vllm.multimodal.cache.base:MultiModalCache.get_lru_cache",
        "vllm.multimodal.cache:MultiModalCache.get_lru_cache",
        parameters="capacity_gb value_type debug",
        overridden=True,
    ),
    _seam("vllm.utils.cache:LRUCache", parameters="capacity getsizeof", attributes="capacity"),
    _seam("vllm.inputs:EngineInput"),
    _seam(
        "vllm.inputs.engine:MultiModalInput",
        attributes="prompt_token_ids mm_hashes mm_placeholders arrival_time cache_salt",
    ),
    _seam("vllm.inputs.engine:TokensInput", attributes="prompt_token_ids arrival_time cache_salt"),
    _seam("vllm.inputs.llm:TokensPrompt", attributes="prompt_token_ids multi_modal_data multi_modal_uuids"),
    _seam("vllm.multimodal.inputs:PlaceholderRange", attributes="length"),
)
_ENGINE = (
    _seam("vllm:__version__"),
    _seam("vllm.plugins:load_general_plugins"),
    _seam("vllm:ModelRegistry"),
    _seam("vllm.model_executor.models.registry:_ModelRegistry.get_supported_archs"),
    _seam("vllm.config:VllmConfig", attributes="model_config scheduler_config"),
    _seam("vllm.config:ModelConfig", attributes="multimodal_config max_model_len dtype"),
    _seam("vllm.config:MultiModalConfig", attributes="mm_processor_cache_gb mm_processor_kwargs"),
    _seam("vllm.config:MultiModalConfig.get_limit_per_prompt", parameters="modality"),
    _seam(
        "vllm.config:SchedulerConfig",
        attributes="max_num_seqs max_num_batched_tokens disable_chunked_mm_input",
    ),
    _seam("vllm.usage.usage_lib:UsageContext", attributes="LLM_CLASS OPENAI_API_SERVER"),
    _seam(
        "vllm.engine.arg_utils:AsyncEngineArgs",
        attributes="enable_log_requests aggregate_engine_logging disable_log_stats",
    ),
    _seam("vllm.engine.arg_utils:AsyncEngineArgs.create_engine_config", parameters="usage_context"),
    _seam(
        "vllm:SamplingParams",
        parameters="n temperature top_p top_k min_p repetition_penalty presence_penalty frequency_penalty "
        "seed max_tokens stop stop_token_ids logprobs structured_outputs output_kind",
        attributes="ignore_eos detokenize",
    ),
    _seam("vllm.sampling_params:StructuredOutputsParams", parameters="json choice"),
    _seam(
        "vllm.v1.engine.async_llm:AsyncLLM.from_vllm_config",
        parameters="vllm_config usage_context stat_loggers enable_log_requests aggregate_engine_logging "
        "disable_log_stats client_addresses client_count client_index",
    ),
    _seam(
        "vllm.v1.engine.async_llm:AsyncLLM.generate",
        parameters="prompt sampling_params request_id lora_request",
    ),
    _seam("vllm.v1.engine.async_llm:AsyncLLM.add_lora", parameters="lora_request"),
    _seam("vllm.lora.request:LoRARequest", attributes="lora_name lora_int_id lora_path"),
    _seam(
        "vllm.v1.engine.async_llm:AsyncLLM",
        attributes="renderer model_config errored shutdown get_tokenizer get_supported_tasks reset_mm_cache",
    ),
    _seam("vllm.v1.engine.exceptions:EngineDeadError"),
    _seam("vllm.v1.engine.exceptions:EngineGenerateError"),
    _seam("vllm:exceptions"),
    _seam("vllm.exceptions:VLLMClientError", "vllm.exceptions:VLLMValidationError"),
    _seam("vllm.sampling_params:RequestOutputKind", attributes="DELTA FINAL_ONLY"),
    _seam(
        "vllm.v1.metrics.loggers:PrometheusStatLogger",
        parameters="vllm_config engine_indexes",
        overridden=True,
        attributes="record record_sleep_state log_engine_initialized log",
    ),
    _seam("vllm.v1.metrics.stats:RequestStateStats", attributes="first_token_latency"),
    _seam("vllm:RequestOutput", attributes="outputs finished metrics"),
    _seam("vllm:CompletionOutput", attributes="index text token_ids logprobs finish_reason stop_reason"),
    _seam("vllm.logprobs:Logprob", attributes="logprob"),
    _seam("vllm.third_party:pynvml"),
    _seam("vllm:LLM.generate", parameters="prompts sampling_params use_tqdm"),
    _seam("vllm:LLM", attributes="llm_engine"),
    _seam("vllm.v1.engine.llm_engine:LLMEngine", attributes="engine_core"),
    _seam("vllm.v1.engine.core_client:EngineCoreClient", attributes="shutdown"),
)
_SERVER = (
    BUILD_APP,
    INIT_APP_STATE,
    MAKE_ARG_PARSER,
    VALIDATE_PARSED_SERVE_ARGS,
    VALIDATE_API_SERVER_ARGS,
    UVICORN_LOG_CONFIG,
    SSL_CERT_REFRESHER,
    # The parameters of a server that vlm-run itself reads.
    _seam(
        "vllm.entrypoints.common.cli_args:FrontendArgs",
        "vllm.entrypoints.launchers.cli_args:FrontendArgs",
        "vllm.entrypoints.openai.cli_args:FrontendArgs",
        attributes="host port uds api_key ssl_keyfile ssl_certfile ssl_ca_certs ssl_cert_reqs ssl_ciphers "
        "enable_ssl_refresh uvicorn_log_level disable_uvicorn_access_log h11_max_incomplete_event_size "
        "tool_parser_plugin",
    ),
    _seam("vllm.utils.argparse_utils:FlexibleArgumentParser"),
    _seam("vllm.tool_parsers:ToolParserManager.import_tool_parser", parameters="plugin_path"),
    _seam("vllm.reasoning:ReasoningParserManager.import_reasoning_parser", parameters="plugin_path"),
    _seam("vllm:envs"),
    _seam("vllm.envs:VLLM_API_KEY"),
    _seam("vllm.envs:VLLM_HTTP_TIMEOUT_KEEP_ALIVE"),
    _seam("vllm.engine.arg_utils:AsyncEngineArgs.from_cli_args", parameters="args"),
    _seam("vllm.engine.arg_utils:AsyncEngineArgs", attributes="_api_process_count _api_process_rank"),
    _seam("vllm.entrypoints.cli.serve:run_multi_api_server", parameters="args"),
    _seam("vllm.v1:utils"),
    _seam("vllm.v1.utils:run_api_server_worker_proc", parameters="listen_address sock args client_config"),
    # The handler of a request that meets a dead engine ends `app.state.server`.
    _seam(
        "vllm.entrypoints.launchers.launcher:terminate_if_errored",
        "vllm.entrypoints.launcher:terminate_if_errored",
        parameters="server engine",
    ),
    _seam("vllm.renderers.registry:RENDERER_REGISTRY"),
    _seam("vllm.renderers.registry:RendererRegistry", attributes="renderers"),
    _seam(
        "vllm.renderers.registry:RendererRegistry.register",
        parameters="renderer_mode module class_name",
    ),
    _seam("vllm.renderers.hf:HfRenderer", parameters="config tokenizer"),
    _seam("vllm.renderers.mistral:MistralRenderer", parameters="config tokenizer"),
    *(
        _seam(
            f"vllm.renderers.{renderer}.render_chat_async",
            parameters="conversations chat_params tok_params prompt_extras skip_mm_cache",
            overridden=True,
        )
        for renderer in ("hf:HfRenderer", "mistral:MistralRenderer")
    ),
    _seam(
        "vllm.renderers.params:ChatParams",
        attributes="chat_template chat_template_kwargs mm_processor_kwargs",
    ),
    _seam("vllm.renderers.params:TokenizeParams", attributes="truncate_prompt_tokens"),
    _seam("vllm.renderers.params:TokenizeParams.apply_post_tokenization", parameters="tokenizer prompt"),
    _seam(
        "vllm.entrypoints.openai.chat_completion.protocol:ChatCompletionRequest",
        attributes="messages field_names",
    ),
    _seam(
        "vllm.entrypoints.openai.chat_completion.api_router:create_chat_completion",
        parameters="request raw_request",
    ),
    _seam("vllm.entrypoints.serve.utils.api_utils:validate_json_request", parameters="raw_request"),
)

SEAMS: tuple[Seam, ...] = (*_PROMPTS, *_ENGINE, *_SERVER)
"""All of them."""

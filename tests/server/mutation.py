"""Request bodies with random mistakes, for every endpoint that accepts messages or prompts."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from .conftest import MODEL, QUESTION, base64_of, draw

IMAGE = base64_of(draw(1))
URI = f"data:image/png;base64,{IMAGE}"
MESSAGES = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": None, "tool_calls": []},
    {
        "role": "user",
        "content": [
            {"type": "image_url", "image_url": {"url": URI}},
            {"type": "text", "text": QUESTION},
        ],
    },
]
SOURCE = {"type": "base64", "media_type": "image/png", "data": IMAGE}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": MODEL, "messages": MESSAGES, "max_tokens": 1},
    "/v1/chat/completions/batch": {"model": MODEL, "messages": [MESSAGES], "max_tokens": 1},
    "/v1/completions": {"model": MODEL, "prompt": "Who are you?", "max_tokens": 1},
    "/v1/responses": {
        "model": MODEL,
        "instructions": "Answer briefly.",
        "input": [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": QUESTION},
                    {"type": "input_image", "image_url": URI},
                ],
            }
        ],
        "max_output_tokens": 1,
    },
    "/v1/messages": {
        "model": MODEL,
        "max_tokens": 1,
        "system": "Answer briefly.",
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image", "source": SOURCE}, {"type": "text", "text": QUESTION}],
            }
        ],
    },
    "/v1/messages/count_tokens": {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}]},
    "/tokenize": {"model": MODEL, "messages": MESSAGES[:2]},
    "/detokenize": {"model": MODEL, "tokens": [1, 2, 3]},
    "/invocations": {"model": MODEL, "messages": MESSAGES, "max_tokens": 1},
    "/generative_scoring": {"model": MODEL, "query": "a", "items": ["b"], "label_token_ids": [5, 6]},
}
FIELDS = (
    "allowed_token_ids", "bad_words", "best_of", "cache_salt", "chat_template", "chat_template_kwargs",
    "documents", "echo", "frequency_penalty", "ignore_eos", "images", "include", "instructions",
    "kv_transfer_params", "length_penalty", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens",
    "max_pixels", "media_io_kwargs", "metadata", "min_p", "min_pixels", "min_tokens",
    "mm_processor_kwargs", "n", "output_config", "parallel_tool_calls", "previous_response_id", "priority",
    "prompt", "prompt_embeds", "prompt_logprobs", "reasoning", "reasoning_effort", "repetition_penalty",
    "request_id", "response_format", "sampling_params", "seed", "stop", "stop_sequences", "stop_token_ids",
    "stream_options", "structured_outputs", "suffix", "system", "temperature", "text", "thinking",
    "tool_choice", "tools", "top_k", "top_logprobs", "top_p", "truncate_prompt_tokens", "truncation",
    "truncation_side", "use_beam_search", "user", "vllm_xargs",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 5, 2**31, 2**64, -(2**70), 0.5, float("nan"), float("inf"), "", "x", "\ud83d",
    "<image>",
    "a" * 3000, "{{ 1 }}", [], [None], [[]], [-1], [2**40], ["\udc00"], {}, {"type": {}}, {"type": "text"},
    {"type": "image_url", "image_url": 3}, {"a": {"b": [1]}}, {"5": 2**70}, {"x": "\ud83d"}, {"json": "{"},
    {"type": "json_schema", "json_schema": "x"}, {"role": "user", "content": "x"}, {"regex": "("},
)  # fmt: skip


def mutated_bodies(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Endpoints and bodies, always the same for a seed; each body has one to three mistakes."""
    chance = random.Random(seed)
    paths = list(BODIES)
    for number in range(count):
        path = paths[number % len(paths)]
        body = copy.deepcopy(BODIES[path])
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            _mutate(body, chance)
        yield path, json.dumps(body).encode()


def _mutate(body: dict[str, Any], chance: random.Random) -> None:
    if not body or chance.random() < 0.35:
        body[chance.choice(FIELDS)] = copy.deepcopy(chance.choice(VALUES))
        return
    holder, key = chance.choice(list(_places(body)))
    how = chance.random()
    if how < 0.15 and isinstance(holder, dict):
        del holder[key]
    elif how < 0.25:
        holder[key] = [copy.deepcopy(holder[key])] * 2
    else:
        holder[key] = copy.deepcopy(chance.choice(VALUES))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from _places(inner)

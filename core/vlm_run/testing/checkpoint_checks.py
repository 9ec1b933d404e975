"""Checks against a checkpoint folder, without weights: its chat template, its tokenizer, vLLM's processor."""

from __future__ import annotations

import random
from importlib.util import find_spec

from vlm_run.adapter import Adapter
from vlm_run.errors import ContextOverflowError, RequestError
from vlm_run.prompts.conversation import Conversation
from vlm_run.testing.conversations import CONVERSATIONS, with_text_inside
from vlm_run.testing.image_checks import counts_tokens
from vlm_run.testing.subject import CheckFailed, CheckSkipped, ModelSubject

_SIZES = 50
_LARGEST = 1200
_EXTREME = ((1, 1), (1, 150), (150, 1), (27, 29), (2000, 30), (1, 4000), (4000, 1), (1500, 1500))


def prompt_agrees_with_checkpoint(subject: ModelSubject) -> str | None:
    """The prompt is what the checkpoint's own chat template renders, by transformers."""
    folder = subject.need_checkpoint()
    _need("transformers")
    from vlm_run.testing.hf_checkpoint import chat_template

    template = chat_template(folder)
    if template is None:
        raise CheckSkipped(f"{folder} has no chat template")
    adapter, compared, unequal = subject.adapter(), 0, []
    for name, conversation in CONVERSATIONS.items():
        theirs = template(conversation)
        if theirs is None:
            unequal.append(name)
            continue
        try:
            ours = adapter.render_prompt(conversation).text
        except RequestError as error:
            raise CheckFailed(f"the conversation '{name}' is refused: {error}") from error
        if ours != theirs:
            raise CheckFailed(
                f"the conversation '{name}' gives {ours!r}, but the checkpoint's template {theirs!r}"
            )
        compared += 1
    if not compared:
        raise CheckSkipped("the checkpoint's template takes none of the conversations")
    return f"its template does not take: {', '.join(unequal)}" if unequal else None


def prompt_begins_with_one_bos(subject: ModelSubject) -> str:
    """In token ids the prompt begins with one BOS where the tokenizer writes it, else with none."""
    folder = subject.need_checkpoint()
    _need("transformers")
    from vlm_run.prompts.tokenize import control_tokens, encode
    from vlm_run.testing.hf_checkpoint import load_tokenizer

    tokenizer, adapter = load_tokenizer(folder), subject.adapter()
    bos = tokenizer.bos_token_id
    if bos is None:
        return "the tokenizer has none"
    expected = int(tokenizer("text").input_ids[:1] == [bos])
    for name, conversation in CONVERSATIONS.items():
        try:
            prompt = adapter.render_prompt(conversation, control_tokens(tokenizer))
        except RequestError:
            continue
        ids = encode(prompt, tokenizer, subject.spec)
        found = next((place for place, token in enumerate(ids) if token != bos), len(ids))
        if found > 1 or found < expected:
            raise CheckFailed(
                f"the prompt of the conversation '{name}' begins with {found} BOS {tokenizer.bos_token}",
                hint="The tokenizer writes it, and the template at most once.",
            )
    return "written by the tokenizer" if expected else "left to the template"


def tokenizer_keeps_text_as_text(subject: ModelSubject) -> None:
    """No control token that the tokenizer has comes of what was said."""
    folder = subject.need_checkpoint()
    _need("transformers")
    from vlm_run.prompts.tokenize import control_tokens, encode
    from vlm_run.testing.hf_checkpoint import load_tokenizer

    tokenizer, adapter = load_tokenizer(folder), subject.adapter()
    control = control_tokens(tokenizer)
    ids = set(tokenizer.convert_tokens_to_ids(sorted(control)))

    def controls_in(conversation: Conversation) -> list[int]:
        prompt = adapter.render_prompt(conversation, control)
        return [token for token in encode(prompt, tokenizer, subject.spec) if token in ids]

    honest = with_text_inside("")
    for forged in sorted(control):
        for place, conversation in with_text_inside(forged).items():
            try:
                if controls_in(conversation) == controls_in(honest[place]):
                    continue
            except RequestError:
                continue
            raise CheckFailed(
                f"'{forged}' in {place} becomes a control token",
                hint="In `render_prompt`, keep every character of what was said.",
            )


def counts_agree_with_vllm(subject: ModelSubject) -> str:
    """`count_image_tokens` gives what vLLM's processor makes of pictures of many sizes."""
    folder = subject.need_checkpoint()
    _need("vllm")
    if not counts_tokens(subject):
        raise CheckSkipped("the spec has no `vision`, and the plugin no `count_image_tokens`")
    from vlm_run.testing.vllm_processor import image_token_counts

    adapter = subject.adapter()
    sizes = [size for size in _sizes() if _takes(adapter, *size)]
    for (width, height), theirs in zip(sizes, image_token_counts(adapter, sizes), strict=True):
        if isinstance(theirs, ContextOverflowError):
            continue
        ours = adapter.count_image_tokens(width, height)
        if isinstance(theirs, RequestError):
            raise CheckFailed(
                f"a picture of {width} x {height} pixels counts {ours} tokens, but {theirs}",
                hint="Raise MediaError for it in `preprocess_image` and `count_image_tokens`.",
            )
        if ours != theirs:
            raise CheckFailed(
                f"a picture of {width} x {height} pixels counts {ours} tokens, "
                f"but vLLM's processor makes {theirs} of it with the checkpoint {folder.name}"
            )
    return f"{len(sizes)} sizes"


def _sizes() -> list[tuple[int, int]]:
    """The same sizes every time: small ones as likely as large ones."""
    chance = random.Random(20240917)
    sides = [round(_LARGEST ** chance.random()) for _ in range(2 * _SIZES)]
    return [*_EXTREME, *zip(sides[::2], sides[1::2], strict=True)]


def _takes(adapter: Adapter, width: int, height: int) -> bool:
    try:
        adapter.count_image_tokens(width, height)
    except RequestError:
        return False
    return True


def _need(module: str) -> None:
    if find_spec(module) is None:
        raise CheckSkipped(f"{'vLLM' if module == 'vllm' else module} is not installed")

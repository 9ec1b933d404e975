"""Checks against a checkpoint directory without weights: its chat template, tokenizer and processor."""

from __future__ import annotations

import random
from importlib.util import find_spec
from pathlib import Path

from vlm_run.adapter import Adapter
from vlm_run.errors import ContextOverflowError, RequestError
from vlm_run.prompts.conversation import Conversation
from vlm_run.specs import Limits
from vlm_run.testing.conversations import CONVERSATIONS, with_text_inside
from vlm_run.testing.image_checks import counts_tokens
from vlm_run.testing.subject import CheckFailed, CheckSkipped, ModelSubject

_SIZES = 50
_FEWEST_SIZES = 12
_LARGEST = 1200
_EXTREME = ((1, 1), (1, 150), (150, 1), (27, 29), (2000, 30), (1, 4000), (4000, 1), (1500, 1500))

_FEWEST_VIDEOS = 2
# Width and height in pixels and number of frames: few pixels, since each model type is asked about all.
_VIDEOS = ((64, 64, 1), (97, 63, 3), (320, 180, 4), (30, 400, 2), (640, 360, 2), (50, 40, 24))


def prompt_agrees_with_checkpoint(subject: ModelSubject) -> str | None:
    """The prompt equals what transformers renders from the checkpoint's own chat template."""
    directory = subject.need_checkpoint()
    _need("transformers")
    from vlm_run.testing.hf_checkpoint import chat_template

    template = chat_template(directory)
    if template is None:
        raise CheckSkipped(f"{directory} has no chat template")
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
                f"the conversation '{name}' gives {ours!r}, but the checkpoint's template gives {theirs!r}"
            )
        compared += 1
    if not compared:
        raise CheckSkipped("the checkpoint's template accepts none of the conversations")
    return f"its template does not accept: {', '.join(unequal)}" if unequal else None


def prompt_begins_with_one_bos(subject: ModelSubject) -> str:
    """The token ids of a prompt begin with one BOS if the tokenizer adds it, else with at most one."""
    directory = subject.need_checkpoint()
    _need("transformers")
    from vlm_run.prompts.tokenize import control_tokens, encode
    from vlm_run.testing.hf_checkpoint import load_tokenizer

    tokenizer, adapter = load_tokenizer(directory), subject.adapter()
    bos = tokenizer.bos_token_id
    if bos is None:
        return "the tokenizer has no BOS"
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
                f"the prompt of the conversation '{name}' begins with {found} BOS tokens",
                hint="The tokenizer adds one; the template must write at most one.",
            )
    return "added by the tokenizer" if expected else "left to the template"


def tokenizer_keeps_text_as_text(subject: ModelSubject) -> None:
    """Text in a message never becomes one of the tokenizer's control tokens."""
    directory = subject.need_checkpoint()
    _need("transformers")
    from vlm_run.prompts.tokenize import control_tokens, encode
    from vlm_run.testing.hf_checkpoint import load_tokenizer

    tokenizer, adapter = load_tokenizer(directory), subject.adapter()
    control = control_tokens(tokenizer)
    ids = set(tokenizer.convert_tokens_to_ids(sorted(control)))

    def controls_in(conversation: Conversation) -> list[int] | None:
        """The control tokens of the prompt; None if the model refuses the conversation."""
        try:
            prompt = adapter.render_prompt(conversation, control)
        except RequestError:
            return None
        return [token for token in encode(prompt, tokenizer, subject.spec) if token in ids]

    honest = {place: controls_in(conversation) for place, conversation in with_text_inside("").items()}
    for forged in sorted(control):
        for place, conversation in with_text_inside(forged).items():
            found = controls_in(conversation)
            if found is not None and honest[place] is not None and found != honest[place]:
                raise CheckFailed(
                    f"'{forged}' in {place} becomes a control token",
                    hint="In `render_prompt`, keep every character of the messages.",
                )


def counts_agree_with_vllm(subject: ModelSubject) -> str:
    """`count_image_tokens` equals the count of vLLM's processor for images of many sizes."""
    directory = subject.need_checkpoint()
    _need("vllm")
    if not counts_tokens(subject):
        raise CheckSkipped("the spec has no `vision`, and the plugin no `count_image_tokens`")
    from vlm_run.testing.vllm_processor import image_token_counts

    adapter = subject.adapter()
    sizes = [size for size in _sizes(subject, directory) if _takes(adapter, *size)]
    for (width, height), theirs in zip(sizes, image_token_counts(adapter, sizes), strict=True):
        if isinstance(theirs, ContextOverflowError):
            continue
        ours = adapter.count_image_tokens(width, height)
        if isinstance(theirs, RequestError):
            raise CheckFailed(
                f"`count_image_tokens` gives {ours} for an image of {width} x {height} pixels, but {theirs}",
                hint="Raise MediaError for it in `preprocess_image` and `count_image_tokens`.",
            )
        if ours != theirs:
            raise CheckFailed(
                f"`count_image_tokens` gives {ours} for an image of {width} x {height} pixels, "
                f"but vLLM's processor gives {theirs} with the checkpoint {directory.name}"
            )
    return f"{len(sizes)} sizes"


def video_counts_agree_with_vllm(subject: ModelSubject) -> str:
    """`count_video_tokens` equals the count of vLLM's processor for videos of several sizes and lengths."""
    if subject.spec.video is None:
        return "takes no videos"
    directory = subject.need_checkpoint()
    _need("vllm")
    from vlm_run.testing.vllm_processor import video_token_counts

    adapter = subject.adapter(Limits(max_videos=1))
    videos = _videos(subject, directory)
    for video, theirs in zip(videos, video_token_counts(adapter, videos), strict=True):
        if isinstance(theirs, ContextOverflowError):
            continue
        width, height, frames = video
        ours = adapter.count_video_tokens(width, height, frames, fps=2.0)
        if ours != theirs:
            answer = f"says: {theirs}" if isinstance(theirs, RequestError) else f"gives {theirs}"
            raise CheckFailed(
                f"`count_video_tokens` gives {ours} for {frames} frame{'s' if frames > 1 else ''} of "
                f"{width} x {height} pixels, "
                f"but vLLM's processor {answer} with the checkpoint {directory.name}"
            )
    return f"{len(videos)} videos"


def _videos(subject: ModelSubject, directory: Path) -> list[tuple[int, int, int]]:
    """The same videos every time; as of sizes, checkpoints of one plugin get different and fewer ones."""
    count = max(_FEWEST_VIDEOS, len(_VIDEOS) // len(subject.plugin.specs))
    places = _chance(directory).sample(range(len(_VIDEOS)), count)
    return [_VIDEOS[place] for place in sorted(places)]


def _sizes(subject: ModelSubject, directory: Path) -> list[tuple[int, int]]:
    """The same sizes every time, with logarithmically distributed sides.

    Checkpoints of one plugin get different ones, and fewer each, since most share their arithmetic.
    """
    count = max(_FEWEST_SIZES, _SIZES // len(subject.plugin.specs))
    chance = _chance(directory)
    sides = [round(_LARGEST ** chance.random()) for _ in range(2 * count)]
    return [*_EXTREME, *zip(sides[::2], sides[1::2], strict=True)]


def _chance(directory: Path) -> random.Random:
    """The same for model types that share a checkpoint directory: vLLM is asked once for all of them."""
    return random.Random(directory.resolve().name)


def _takes(adapter: Adapter, width: int, height: int) -> bool:
    try:
        adapter.count_image_tokens(width, height)
    except RequestError:
        return False
    return True


def _need(module: str) -> None:
    if find_spec(module) is None:
        raise CheckSkipped(f"{'vLLM' if module == 'vllm' else module} is not installed")

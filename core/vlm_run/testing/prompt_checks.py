"""Checks of the hooks `render_prompt` and `placeholder`."""

from __future__ import annotations

from collections.abc import Iterator

from vlm_run.adapter import Adapter
from vlm_run.errors import RequestError
from vlm_run.prompts.conversation import Conversation
from vlm_run.prompts.guard import control_tokens
from vlm_run.prompts.prompt import Prompt
from vlm_run.testing.conversations import CONVERSATIONS, ONE_IMAGE, texts, with_text_inside
from vlm_run.testing.subject import CheckFailed, ModelSubject

# Control tokens of various families, which a user may write.
_FORGED = ("<image>", "<|image_1|>", "<|im_end|>")
# Replaces literals; no prompt contains it.
_GAP = "\x00"


def conversations_render(subject: ModelSubject) -> str | None:
    """Every kind of conversation renders to a prompt or raises `RequestError`."""
    adapter, refused = subject.adapter(), []
    for name, conversation in _within_limits(subject):
        try:
            prompt = adapter.render_prompt(conversation)
        except RequestError as error:
            if name == ONE_IMAGE:
                raise CheckFailed(f"a question about one image is refused: {error}") from error
            refused.append(name)
            continue
        if not prompt.text.strip():
            raise CheckFailed(f"the prompt is empty for the conversation '{name}'")
    return f"refuses: {', '.join(refused)}" if refused else None


def every_text_is_in_the_prompt(subject: ModelSubject) -> None:
    """Every text of a conversation is in the prompt exactly once, with the turns in order."""
    for name, conversation, prompt in _rendered(subject):
        for text in texts(conversation, "system", "user", "assistant"):
            if (count := prompt.text.count(text)) != 1:
                raise CheckFailed(
                    f"in the conversation '{name}' the text '{text}' is in the prompt {count} times",
                    hint="The template must write each text unchanged, once.",
                )
        places = [prompt.text.index(text) for text in texts(conversation, "user", "assistant")]
        if places != sorted(places):
            raise CheckFailed(f"the turns of the conversation '{name}' are out of order in the prompt")


def one_placeholder_for_each_image(subject: ModelSubject) -> None:
    """The prompt has one placeholder for each image of the conversation, in order."""
    adapter = subject.adapter()
    for name, conversation, prompt in _rendered(subject):
        images = len(conversation.images)
        _check_placeholders(adapter, prompt, images, f"the conversation '{name}', with {images} images,")


def one_placeholder_for_each_video(subject: ModelSubject) -> str | None:
    """The prompt has one placeholder for each video, in any turn, if the model takes videos."""
    video = subject.spec.video_placeholder
    if video is None:
        return "takes no videos"
    adapter = subject.adapter()
    for count in (1, 2):
        history = [["What is this?", "A cat."]]
        conversation = Conversation.from_query("And now?", history, videos=["clip.mp4"] * count)
        found = len(adapter.render_prompt(conversation).split(video)) - 1
        if found != count:
            raise CheckFailed(
                f"the prompt for {count} video{'s' if count > 1 else ''} has '{video}' {found} times",
                hint="The template must write `video_placeholder` once for each part of type 'video'.",
            )
    return None


def rendering_is_deterministic(subject: ModelSubject) -> None:
    """The same conversation gives the same prompt every time."""
    again = subject.adapter()
    for name, conversation, prompt in _rendered(subject):
        if again.render_prompt(conversation) != prompt:
            raise CheckFailed(f"two prompts for the conversation '{name}' differ")


def control_tokens_in_a_text_stay_text(subject: ModelSubject) -> None:
    """`<image>`, `<|im_end|>` and other control tokens in a message remain plain text."""
    adapter = subject.adapter()
    honest = {place: _text_of(adapter, conversation) for place, conversation in with_text_inside("").items()}
    for forged in sorted({*_FORGED, *_own_tokens(subject, adapter)}):
        for place, conversation in with_text_inside(forged).items():
            if place == "an earlier turn" and forged == subject.spec.reasoning_end:
                continue  # an answer's text before it is removed
            try:
                prompt = adapter.render_prompt(conversation, _FORGED)
            except RequestError:
                continue
            if honest[place] is None:
                continue
            where = f"'{forged}' in {place}"
            literals = [text for text, literal in prompt.pieces() if literal]
            if set(literals) != {forged}:
                raise CheckFailed(
                    f"{where} is not kept as text: the prompt has {literals or 'nothing'} in its place",
                    hint="List it in the spec's `control_tokens`; in `render_prompt` keep every character.",
                )
            if "".join(text for text, literal in prompt.pieces() if not literal) != honest[place]:
                raise CheckFailed(f"{where} changes the prompt around it")


def _text_of(adapter: Adapter, conversation: Conversation) -> str | None:
    """The prompt of a conversation; None if the model refuses it."""
    try:
        return adapter.render_prompt(conversation, _FORGED).text
    except RequestError:
        return None


def _rendered(subject: ModelSubject) -> Iterator[tuple[str, Conversation, Prompt]]:
    """The conversations that the model type accepts, with their prompts."""
    adapter = subject.adapter()
    for name, conversation in _within_limits(subject):
        try:
            yield name, conversation, adapter.render_prompt(conversation)
        except RequestError:
            continue


def _within_limits(subject: ModelSubject) -> Iterator[tuple[str, Conversation]]:
    most = subject.spec.max_images
    for name, conversation in CONVERSATIONS.items():
        if most is None or len(conversation.images) <= most:
            yield name, conversation


def _check_placeholders(adapter: Adapter, prompt: Prompt, images: int, where: str) -> None:
    """Check that there is one placeholder per image, numbered ones in order, not counting literals."""
    text = "".join(_GAP if literal else piece for piece, literal in prompt.pieces())
    names = [adapter.placeholder(number) for number in range(1, images + 2)]
    if not all(names):
        raise CheckFailed("the placeholder of an image is empty")
    different = list(dict.fromkeys([*names, adapter.placeholder(2)]))
    found = sum(text.count(name) for name in different)
    if found != images:
        raise CheckFailed(
            f"{where} gives a prompt with {found} placeholders {names[0]}",
            hint="The template must write the placeholder once for each part of type 'image'.",
        )
    if len(different) == 1:
        return
    places = [text.find(name) for name in names[:images]]
    if -1 in places or places != sorted(places):
        raise CheckFailed(f"{where} gives a prompt whose placeholders are not numbered in order")


def _own_tokens(subject: ModelSubject, adapter: Adapter) -> set[str]:
    """The control tokens that the plugin names, including its placeholder."""
    named = {token.replace("{index}", "1") for token in control_tokens(subject.spec)}
    return {*named, adapter.placeholder(1)} - {""}

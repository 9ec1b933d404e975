"""Checks of pictures: what the hooks `preprocess_image` and `count_image_tokens` make of them."""

from __future__ import annotations

from PIL import Image

from vlm_run.adapter import Adapter
from vlm_run.errors import MediaError, VlmRunError
from vlm_run.media import load_image
from vlm_run.media.source import ImageSource
from vlm_run.testing.images import odd_pictures, picture
from vlm_run.testing.subject import CheckFailed, CheckSkipped, ModelSubject

_ORDINARY = ((336, 336), (640, 480), (480, 640), (1920, 1080), (50, 60))


def ordinary_pictures_work(subject: ModelSubject) -> None:
    """Pictures of everyday sizes are taken."""
    adapter = subject.adapter()
    for width, height in _ORDINARY:
        try:
            _look_at(adapter, picture(width, height))
        except MediaError as error:
            raise CheckFailed(f"a picture of {width} x {height} pixels is refused: {error}") from error


def odd_pictures_work_or_are_refused(subject: ModelSubject) -> str | None:
    """Tiny, long, grey, transparent and rotated pictures become RGB pictures, or a MediaError."""
    adapter = subject.adapter()
    refused, faults = [], []
    for name, content in odd_pictures():
        try:
            _look_at(adapter, load_image(content))
        except MediaError:
            refused.append(name)
        except VlmRunError as error:
            faults.append(f"{name}: {error}")
    if faults:
        raise CheckFailed("; ".join(faults))
    return f"refuses: {', '.join(refused)}" if refused else None


def pictures_have_a_token_count(subject: ModelSubject) -> str:
    """Every picture that is taken takes at least one token, and the same number each time."""
    if not counts_tokens(subject):
        raise CheckSkipped("the spec has no `vision`, and the plugin no `count_image_tokens`")
    adapter = subject.adapter()
    counts = {}
    for name, source in [*_named_ordinary(), *odd_pictures()]:
        image = load_image(source)
        try:
            adapter.preprocess_image(image.copy())
        except MediaError:
            continue
        counts[name] = _count(adapter, name, image)
    if not counts:
        raise CheckFailed("no picture is taken")
    fewest, most = min(counts.values()), max(counts.values())
    return f"{fewest} tokens" if fewest == most else f"{fewest} to {most} tokens"


def counts_tokens(subject: ModelSubject) -> bool:
    """Whether the plugin says how many tokens a picture takes."""
    return subject.spec.vision is not None or subject.implements("count_image_tokens")


def _look_at(adapter: Adapter, image: Image.Image) -> None:
    seen = adapter.preprocess_image(image)
    if seen.mode != "RGB":
        raise CheckFailed(f"`preprocess_image` gives a picture of mode {seen.mode}, not RGB")
    if min(seen.size) < 1:
        raise CheckFailed("`preprocess_image` gives a picture without pixels")


def _count(adapter: Adapter, name: str, image: Image.Image) -> int:
    try:
        count = adapter.count_image_tokens(*image.size)
        again = adapter.count_image_tokens(*image.size)
    except MediaError as error:
        raise CheckFailed(
            f"`preprocess_image` takes the picture '{name}', but `count_image_tokens` refuses it: {error}"
        ) from error
    if count < 1:
        raise CheckFailed(
            f"the picture '{name}' of {image.width} x {image.height} pixels takes {count} tokens"
        )
    if again != count:
        raise CheckFailed(f"the picture '{name}' takes {count} tokens once and {again} the next time")
    return count


def _named_ordinary() -> list[tuple[str, ImageSource]]:
    return [(f"{width} x {height}", picture(width, height)) for width, height in _ORDINARY]

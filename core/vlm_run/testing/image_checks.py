"""Checks of the hooks `preprocess_image` and `count_image_tokens`."""

from __future__ import annotations

import warnings
from functools import cache

from PIL import Image

from vlm_run.adapter import Adapter
from vlm_run.errors import MediaError, MediaWarning, VlmRunError
from vlm_run.media import load_image
from vlm_run.testing.images import gradient_image, odd_images
from vlm_run.testing.subject import CheckFailed, CheckSkipped, ModelSubject

_ORDINARY = ((336, 336), (640, 480), (480, 640), (1920, 1080), (50, 60))


def ordinary_images_work(subject: ModelSubject) -> None:
    """Images of common sizes are accepted."""
    adapter = subject.adapter()
    for size, image in _ordinary_images():
        try:
            _look_at(adapter, image.copy())
        except MediaError as error:
            raise CheckFailed(f"an image of {size} pixels is refused: {error}") from error


def odd_images_work_or_are_refused(subject: ModelSubject) -> str | None:
    """Tiny, narrow, greyscale, transparent and rotated images become RGB images or raise MediaError."""
    adapter = subject.adapter()
    refused, faults = [], []
    for name, image in _odd_images():
        try:
            _look_at(adapter, image.copy())
        except MediaError:
            refused.append(name)
        except VlmRunError as error:
            faults.append(f"{name}: {error}")
    if faults:
        raise CheckFailed("; ".join(faults))
    return f"refuses: {', '.join(refused)}" if refused else None


def images_have_a_token_count(subject: ModelSubject) -> str:
    """Every accepted image takes at least one token, and the same number each time."""
    if not counts_tokens(subject):
        raise CheckSkipped("the spec has no `vision`, and the plugin no `count_image_tokens`")
    adapter = subject.adapter()
    counts = {}
    for name, image in [*_ordinary_images(), *_odd_images()]:
        try:
            adapter.preprocess_image(image.copy())
        except MediaError:
            continue
        counts[name] = _count(adapter, name, image)
    if not counts:
        raise CheckFailed("no image is accepted")
    fewest, most = min(counts.values()), max(counts.values())
    return f"{fewest} tokens" if fewest == most else f"{fewest} to {most} tokens"


def boxes_have_a_scale(subject: ModelSubject) -> str:
    """Where box coordinates are pixels of the resized image, `vision` tells its size."""
    coordinates = subject.spec.box_coordinates
    if coordinates is None:
        return "no `box_coordinates`"
    adapter = subject.adapter()
    for width, height in _ORDINARY:
        if coordinates.maximum is None and adapter.image_size(width, height).resized is None:
            raise CheckFailed(
                "`box_coordinates` are pixels of the resized image, whose size `vision` does not tell",
                hint="Implement `resized` in the vision facts.",
            )
    return coordinates.description


def counts_tokens(subject: ModelSubject) -> bool:
    """Whether the plugin tells how many tokens an image takes."""
    return subject.spec.vision is not None or subject.implements("count_image_tokens")


def _decoded(content: bytes) -> Image.Image:
    """A decoded image, without the warning about 16-bit images, which is not about the plugin."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MediaWarning)
        return load_image(content)


def _look_at(adapter: Adapter, image: Image.Image) -> None:
    seen = adapter.preprocess_image(image)
    if seen.mode != "RGB":
        raise CheckFailed(f"`preprocess_image` returns an image of mode {seen.mode}, not RGB")
    if min(seen.size) < 1:
        raise CheckFailed("`preprocess_image` returns an image without pixels")


def _count(adapter: Adapter, name: str, image: Image.Image) -> int:
    try:
        count = adapter.count_image_tokens(*image.size)
        again = adapter.count_image_tokens(*image.size)
    except MediaError as error:
        raise CheckFailed(
            f"`preprocess_image` accepts the image '{name}', but `count_image_tokens` refuses it: {error}"
        ) from error
    if count < 1:
        raise CheckFailed(f"the image '{name}' of {image.width} x {image.height} pixels takes {count} tokens")
    if again != count:
        raise CheckFailed(
            f"the image '{name}' takes {count} tokens the first time and {again} the second time"
        )
    return count


@cache
def _ordinary_images() -> tuple[tuple[str, Image.Image], ...]:
    """Images of common sizes with their names. All model types share them, and get copies."""
    return tuple((f"{width} x {height}", gradient_image(width, height)) for width, height in _ORDINARY)


@cache
def _odd_images() -> tuple[tuple[str, Image.Image], ...]:
    """The decoded odd images with their descriptions, shared likewise."""
    return tuple((name, _decoded(content)) for name, content in odd_images())

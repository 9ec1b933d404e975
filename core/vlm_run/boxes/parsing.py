"""Reads boxes from the text of an answer.

An answer may be anything, so each step takes time linear in its length, and what is malformed is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

from vlm_run.boxes.coordinates import Box, BoxCoordinates, ImageSize

_Found: TypeAlias = tuple[str, Sequence[float]]
"""A label, and four coordinates as the model writes them."""

_Role: TypeAlias = Literal["label", "end of label", "box", "end of box"]
TAGS: dict[str, _Role] = {
    # Qwen2-VL: its technical report (arXiv 2409.12191), and the special tokens of its tokenizer.
    "<|object_ref_start|>": "label",
    "<|object_ref_end|>": "end of label",
    "<|box_start|>": "box",
    "<|box_end|>": "end of box",
    # Qwen-VL (its report, arXiv 2308.12966) and InternVL (its documentation, "Chat Data Format").
    "<ref>": "label",
    "</ref>": "end of label",
    "<box>": "box",
    "</box>": "end of box",
    # DeepSeek-VL2 (`parse_ref_bbox` of its demo) and DeepSeek-OCR (run_dpsk_ocr_image.py).
    "<|ref|>": "label",
    "<|/ref|>": "end of label",
    "<|det|>": "box",
    "<|/det|>": "end of box",
}
"""The tags around labels and boxes. Where they are special tokens, vLLM leaves them out of answers."""

_TAG = re.compile(f"({'|'.join(map(re.escape, TAGS))})")
_NUMBER = r"\s*+(-?[0-9]++(?:\.[0-9]++)?)\s*+"
_LIST = re.compile(rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]")
_CORNERS = re.compile(rf"\({_NUMBER},{_NUMBER}\)\s*+,?\s*+\({_NUMBER},{_NUMBER}\)")
# The inside of a JSON object that contains no other objects; braces in strings do not count.
_INSIDE = r'[^{}"]++|"(?:[^"\\]++|\\.)*+"'
# A JSON object whose objects have no objects themselves.
_OBJECT = re.compile(rf"\{{(?:{_INSIDE}|\{{(?:{_INSIDE})*+\}})*+\}}", re.DOTALL)
# Brackets after a key of JSON, which are no box of their own.
_KEYED = re.compile(r"""["']\s*+:\s*+\[""")
_LANGUAGE = re.compile(r"\A\w*+")
_FENCE = "```"
_BETWEEN_BOXES = " \t\r\n,;"

_KEYS = ("bbox_2d", "bbox")
_KEYS_Y_FIRST = ("box_2d",)
_LABEL_KEYS = ("label", "text_content")  # the second in Qwen's examples of OCR


def parse_boxes(text: str, coordinates: BoxCoordinates, sizes: Sequence[ImageSize]) -> tuple[Box, ...]:
    """The boxes in an answer, in the order in which they are written.

    The first of these forms that occurs in the answer is read:

    1. tags, as in `<ref>cat</ref><box>(10,20),(30,40)</box>`; see `TAGS`,
    2. JSON objects with `bbox_2d` or `bbox`, or `box_2d` if `coordinates.y_first`, in a code block or not,
    3. four numbers in brackets, `[10, 20, 30, 40]`, but not in JSON under another key.

    A box with other than four numbers or without area is left out; what is outside the image is cut off.

    Args:
        text: The answer.
        coordinates: How the model writes coordinates.
        sizes: The images' sizes, in order. An answer does not tell images apart: if there are several, it
            has boxes only if all images have the same size.
    """
    if not sizes or any(size != sizes[0] for size in sizes):
        return ()
    image_index = 0 if len(sizes) == 1 else None
    for found in (_from_tags(text), _from_json(text, coordinates.y_first), _from_lists(text)):
        boxes = (
            coordinates.to_box(_clean(label), numbers, sizes[0], image_index) for label, numbers in found
        )
        if kept := tuple(box for box in boxes if box is not None):
            return kept
    return ()


def _from_tags(text: str) -> Iterator[_Found]:
    label, last = "", ""
    pieces = _TAG.split(text)  # texts, with a tag between each two
    for before, tag in zip(pieces[::2], pieces[1::2], strict=False):
        role = TAGS[tag]
        if role == "end of label" and last == "label":
            label = before
        elif role == "end of box" and last == "box":
            for numbers in (*_numbers(_CORNERS, before), *_numbers(_LIST, before)):
                yield label, numbers
        elif role in ("label", "box") and before.strip(_BETWEEN_BOXES):
            label = ""  # which was about something else
        last = role


def _from_json(text: str, y_first: bool) -> Iterator[_Found]:
    keys = _KEYS_Y_FIRST if y_first else _KEYS
    blocks = [_LANGUAGE.sub("", block) for block in text.split(_FENCE)[1::2]]
    for block in blocks or [text]:
        for item in _objects(block):
            label = next((item[key] for key in _LABEL_KEYS if isinstance(item.get(key), str)), "")
            value: Any = next((item[key] for key in keys if key in item), None)
            for box in value if _is_list_of_lists(value) else [value]:
                if (numbers := _coordinates(box)) is not None:
                    yield label, numbers


def _from_lists(text: str) -> Iterator[_Found]:
    if _KEYED.search(text):
        return
    for numbers in _numbers(_LIST, text):
        yield "", numbers


def _numbers(form: re.Pattern[str], text: str) -> Iterator[Sequence[float]]:
    for match in form.finditer(text):
        yield [float(number) for number in match.groups()]


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text, which need not be complete, such as an answer that was cut off."""
    if "{" not in text:
        return
    whole = _load(text)
    stack = (
        [whole] if whole is not None else [_load(match[0]) for match in reversed([*_OBJECT.finditer(text)])]
    )
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            yield value
            stack.extend(reversed(value.values()))
        elif isinstance(value, list):
            stack.extend(reversed(value))


def _load(text: str) -> Any:
    """The value of JSON text; None if it is not valid."""
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def _is_list_of_lists(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, list) for each in value)


def _coordinates(value: Any) -> list[float] | None:
    """Four numbers of JSON; None for anything else."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    if not all(type(each) in (int, float) for each in value):
        return None
    try:
        return [float(each) for each in value]
    except OverflowError:
        return None


def _clean(label: str) -> str:
    """A label without white space around it; JSON can contain what is not valid Unicode."""
    return label.strip().encode("utf-8", "replace").decode("utf-8")

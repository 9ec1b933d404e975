"""Columns that look as if they should be used and are not, as those of a slightly different name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache

from vlm_run.batch.row import Columns
from vlm_run.batch.shapes import COLUMNS
from vlm_run.errors import VlmRunError

# Names that datasets use for columns that are known here by another name.
_SYNONYMS = {
    "query": ("question", "prompt", "instruction", "input", "text", "problem"),
    "response": ("answer", "answers", "label", "output", "completion", "target", "groundtruth", "solution"),
    "images": (
        *("picture", "pictures", "photo", "img", "imgs", "imagepath", "imagepaths", "imagefile", "imageurl"),
        *("imageurls", "imgpath", "imagename", "filename", "filepath", "path", "url"),
    ),
    "messages": ("conversation", "chat", "dialog", "dialogue", "turns"),
    "system": ("systemprompt", "systemmessage"),
}
_BY_SYNONYM = {synonym: name for name, synonyms in _SYNONYMS.items() for synonym in synonyms}
# Any one of a group is enough.
_GROUPS = (
    ("query", "messages", "conversations", "body"),
    ("images", "image", "body"),
    ("response", "references", "body"),
)


class UnusedColumns:
    """Finds unused columns, each of which is reported once.

    Args:
        mapping: Column names of the dataset, each with the name in `COLUMNS` that it stands for.
    """

    def __init__(self, mapping: Mapping[str, str]) -> None:
        self._mapping = mapping
        self._settled: set[str] = set()

    def check(self, columns: Columns) -> Iterator[str]:
        """Yield a note for each column of a row that is not used and looks as if it should be."""
        if isinstance(columns, VlmRunError) or columns.keys() <= self._settled:
            return
        used = {self._mapping.get(column, column) for column in columns}
        for column in columns:
            if column in self._settled:
                continue
            name = None if column in COLUMNS or column in self._mapping else closest_name(column)
            if name is not None and (
                name in used or any(used & {*group} for group in _GROUPS if name in group)
            ):
                continue  # not missed in this row, but perhaps in another one
            self._settled.add(column)
            if name is not None:
                option = shlex.quote(f"{column}={name}")
                yield f"the column '{column}' is not used; --map {option} would use it as '{name}'"


@lru_cache(maxsize=1024)
def closest_name(column: str) -> str | None:
    """Return the name in `COLUMNS` that a column of another name probably stands for; None if there is none.

    >>> closest_name("image_path"), closest_name(" Query"), closest_name("task_id")
    ('images', 'query', None)
    """
    plain = re.sub(r"[^a-z]", "", str(column).lower())
    if plain in _BY_SYNONYM:
        return _BY_SYNONYM[plain]
    # Many datasets have columns such as `task_id`, which name no task of a model.
    plain_names = {re.sub(r"[^a-z]", "", name): name for name in COLUMNS if name != "task"}
    near = get_close_matches(plain, plain_names, n=1, cutoff=0.8)
    return plain_names[near[0]] if near else None

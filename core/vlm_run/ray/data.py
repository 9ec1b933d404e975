"""Answers in a Ray Data pipeline."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlm_run.batch.row import RowFormat, read_row
from vlm_run.batch.run import result_line
from vlm_run.errors import EngineError
from vlm_run.media import MediaPolicy
from vlm_run.registry import Registry
from vlm_run.request import Sampling
from vlm_run.response import Response
from vlm_run.specs import Limits

_ADDED = ("reference", "response", "responses", "boxes", "finish_reason", "usage", "timings", "error")


class Infer:
    """Answers the rows of batches; a callable class for `Dataset.map_batches`.

    Columns are those of data files (docs/batch.md): `query` and `images`, `messages`, and so on. A row's
    columns stay, beside `response`, `boxes` if there are any, `finish_reason`, `usage`, `timings` and
    `error`. A row that fails has `error` (`type`, `message`) and no `response`; other rows are not
    affected. The `response` of an input row becomes `reference` in the output.

    >>> dataset.map_batches(  # doctest: +SKIP
    ...     vlm_run.ray.Infer,
    ...     fn_constructor_args=("qwen2_5-vl-7b-instruct",),
    ...     compute=ray.data.ActorPoolStrategy(size=4),
    ...     num_gpus=1,
    ...     batch_size=64,
    ... )

    Each actor has one engine. Where the engine dies, so does the actor, and Ray Data starts another one.

    Args:
        model: A model type, repository or directory, as for `Registry.load`.
        checkpoint: As for `Registry.load`.
        sampling: For rows without sampling parameters.
        prompt: The question of rows that have images and no question.
        system: The system message of rows that have none.
        mapping: From column names to those that docs/batch.md names.
        limits: What one request may use.
        policy: What images may be fetched, and how large they may be.
        renderers: Processes that prepare images; by default as many as the node's cores suggest.
        options: Engine options in `vllm.EngineArgs`' names.

    Raises:
        VlmRunError: The model is unknown, or the engine cannot start.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        checkpoint: str | Path | None = None,
        sampling: Sampling | Mapping[str, Any] | None = None,
        prompt: str | None = None,
        system: str | None = None,
        mapping: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        policy: MediaPolicy | None = None,
        renderers: int | None = None,
        **options: Any,
    ) -> None:
        self._sampling = Sampling.parse(sampling)
        self._row_format = RowFormat(None, mapping, prompt, system, self._sampling)
        adapter = Registry.load(model, checkpoint=checkpoint, limits=limits)
        self._engine = adapter.engine(policy=policy, renderers=renderers, **options)

    async def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """The batch with the columns of the answers.

        Args:
            batch: Columns, in Ray Data's batch format `numpy` (its default).
        """
        names = list(batch)
        size = len(batch[names[0]]) if names else 0
        rows = [
            read_row(number, {name: plain(batch[name][number]) for name in names}, self._row_format)
            for number in range(size)
        ]
        asked = [row.request for row in rows if row.request is not None]
        try:
            responses = iter(await self._engine.ainfer(asked, self._sampling))
        except EngineError:
            os._exit(1)  # so that Ray Data starts another actor, which an exception does not make it do
        lines = [result_line(row, _of(row.request, responses)) for row in rows]
        answers = {name: [line.get(name) for line in lines] for name in _ADDED}
        added = {
            name: _column(values)
            for name, values in answers.items()
            if name in ("response", "error") or any(value is not None for value in values)
        }
        return {**batch, **added}


def _of(request: Any, responses: Any) -> Response | None:
    return None if request is None else next(responses)


def plain(value: Any) -> Any:
    """A value of a batch as Python's own: arrays of pixels become images, other arrays lists."""
    if isinstance(value, np.ndarray):
        if value.dtype == np.uint8 and value.ndim == 3:
            return Image.fromarray(value)
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value


def _column(values: list[Any]) -> Any:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column

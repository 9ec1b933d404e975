"""`vlm-run infer --log FILE`: a line of JSON for every answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from vlm_run.errors import VlmRunError

if TYPE_CHECKING:
    from vlm_run.request import Sampling
    from vlm_run.response import Response


class AnswerLog:
    """A file to which answers are appended.

    Args:
        path: The file; None keeps no answers.
        model_type: The model type.
        sampling: Sampling parameters of all answers.

    Raises:
        VlmRunError: The file cannot be written.
    """

    def __init__(self, path: Path | None, model_type: str, sampling: Sampling) -> None:
        self._common = {"model_type": model_type, "sampling": sampling.model_dump(exclude_defaults=True)}
        self._file: IO[str] | None = None
        if path is None:
            return
        try:
            self._file = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
        except OSError as error:
            raise VlmRunError(f"--log {path} cannot be written: {error.strerror}") from None

    def write(self, request: Mapping[str, Any], response: Response) -> None:
        """Append an answer.

        Args:
            request: What was asked; images are given by their sources.
            response: The answer, or the error of a request that failed.
        """
        if self._file is None:
            return
        from vlm_run.batch.record import to_record

        line = {
            "time": datetime.now().astimezone().isoformat(timespec="seconds"),
            **self._common,
            "request": to_record({name: value for name, value in request.items() if value}),
            **response.to_dict(),
        }
        try:
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            raise VlmRunError(f"--log {self._file.name} cannot be written: {error.strerror}") from None

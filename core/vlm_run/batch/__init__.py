"""Batches: rows of a data set through an engine into a result file that loses none.

`data` reads sources, `columns` turns what a row holds into a request, `results` keeps the file,
`run` feeds the engine, `metrics` compares answers with references.
"""

from __future__ import annotations

from vlm_run.batch.columns import Row
from vlm_run.batch.data import Data, open_data
from vlm_run.batch.results import ResultFile
from vlm_run.batch.run import Summary, run_batch

__all__ = ["Data", "ResultFile", "Row", "Summary", "open_data", "run_batch"]

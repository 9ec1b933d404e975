"""Batches: answers the rows of a dataset into a result file, without losing any.

`sources` reads datasets, `row` turns a row's columns into a request, `run` feeds the engine, `results` keeps
the result file, and `metrics` compares answers with references.
"""

from __future__ import annotations

from vlm_run.batch.results import ResultFile
from vlm_run.batch.row import Row, RowFormat
from vlm_run.batch.run import Summary, run_batch
from vlm_run.batch.sources import Dataset, open_dataset

__all__ = ["Dataset", "ResultFile", "Row", "RowFormat", "Summary", "open_dataset", "run_batch"]

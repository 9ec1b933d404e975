"""Metrics that compare answers with references: exact match, and those of established libraries.

Scores are accumulated row by row, in constant memory. Rows that failed are not scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from vlm_run.errors import VlmRunError


class _Score(Protocol):
    def add(self, answer: str, references: list[str]) -> None: ...

    def scores(self) -> dict[str, float]: ...


class Metrics:
    """Scores over all rows with a reference; of several references, the best match counts.

    Args:
        names: Names of metrics from `NAMES`, in addition to exact match.

    Raises:
        VlmRunError: A name is unknown, or its library is not installed.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        wanted = dict.fromkeys(["exact_match", *(name.lower().replace("-", "_") for name in names)])
        for name in wanted:
            if name not in _KINDS:
                raise VlmRunError(f"unknown metric '{name}'", hint=f"Known: {', '.join(NAMES)}.")
        self._kinds = [_create(name) for name in wanted]
        self._rows = 0

    def add(self, answer: str, reference: str | list[str]) -> None:
        """Add the answer of one row."""
        references = [reference] if isinstance(reference, str) else list(reference)
        self._rows += 1
        for kind in self._kinds:
            kind.add(answer, references)

    def scores(self) -> dict[str, float]:
        """Return the scores: from 0 to 1, BLEU from 0 to 100 as usual; empty without references."""
        if not self._rows:
            return {}
        found = {"references": float(self._rows)}
        for kind in self._kinds:
            found |= {name: round(score, 6) for name, score in kind.scores().items()}
        return found


@dataclass(slots=True)
class _Mean:
    """The mean of a score per row."""

    score: Callable[[str, list[str]], dict[str, float]]
    sums: dict[str, float] = field(default_factory=dict)
    rows: int = 0

    def add(self, answer: str, references: list[str]) -> None:
        self.rows += 1
        for name, value in self.score(answer, references).items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def scores(self) -> dict[str, float]:
        return {name: total / self.rows for name, total in self.sums.items()}


class _Bleu:
    """Corpus BLEU of sacrebleu, from the counts of each row."""

    def __init__(self) -> None:
        from sacrebleu.metrics.bleu import BLEU

        self._bleu: Any = BLEU(effective_order=True)  # for single rows; the corpus score does not use it
        self._counts = [0] * 4
        self._totals = [0] * 4
        self._lengths = [0, 0]

    def add(self, answer: str, references: list[str]) -> None:
        score = self._bleu.sentence_score(answer, references)
        self._counts = [a + b for a, b in zip(self._counts, score.counts, strict=True)]
        self._totals = [a + b for a, b in zip(self._totals, score.totals, strict=True)]
        self._lengths = [self._lengths[0] + score.sys_len, self._lengths[1] + score.ref_len]

    def scores(self) -> dict[str, float]:
        score = self._bleu.compute_bleu(self._counts, self._totals, *self._lengths, smooth_method="exp")
        return {"bleu": float(score.score)}


def _exact_match() -> _Score:
    return _Mean(
        lambda answer, references: {
            "exact_match": float(any(answer.strip() == reference.strip() for reference in references))
        }
    )


def _rouge() -> _Score:
    from rouge_score.rouge_scorer import RougeScorer

    scorer: Any = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    return _Mean(
        lambda answer, references: {
            name: float(score.fmeasure) for name, score in scorer.score_multi(references, answer).items()
        }
    )


def _anls() -> _Score:
    from anls_star import anls_score

    return _Mean(lambda answer, references: {"anls": float(anls_score(tuple(references), answer))})


_KINDS: dict[str, Callable[[], _Score]] = {
    "exact_match": _exact_match,
    "rouge": _rouge,
    "bleu": _Bleu,
    "anls": _anls,
}
NAMES = tuple(_KINDS)


def _create(name: str) -> _Score:
    try:
        return _KINDS[name]()
    except ImportError as error:
        raise VlmRunError(
            f"the metric '{name}' needs a library that is not installed ({error})",
            hint="pip install 'vlm-run[metrics]'",
        ) from error

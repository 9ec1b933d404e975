"""Scores are those of the libraries they come from."""

from __future__ import annotations

import pytest
from sacrebleu.metrics.bleu import BLEU

from vlm_run.batch.metrics import Metrics
from vlm_run.errors import VlmRunError

ANSWERS = ["the cat sat on the mat today", "a dog", "two red circles and one blue square"]
REFERENCES = ["the cat sat on the mat", "a cat", "two red circles and a blue square"]


def test_exact_match_is_always_counted_and_takes_any_of_several() -> None:
    metrics = Metrics()
    metrics.add(" 3\n", "3")
    metrics.add("three", ["3", "three"])
    metrics.add("4", "3")
    metrics.add("4", "5")
    assert metrics.scores() == {"references": 4.0, "exact_match": 0.5}


def test_without_references_there_are_no_scores() -> None:
    assert Metrics(["rouge", "bleu", "anls"]).scores() == {}


def test_bleu_added_up_row_by_row_is_corpus_bleu() -> None:
    metrics = Metrics(["bleu"])
    for answer, reference in zip(ANSWERS, REFERENCES, strict=True):
        metrics.add(answer, reference)
    whole = BLEU().corpus_score(ANSWERS, [REFERENCES]).score
    assert whole > 20
    assert metrics.scores()["bleu"] == pytest.approx(whole, abs=1e-5)


def test_rouge_and_anls_of_a_pair() -> None:
    metrics = Metrics(["rouge", "ANLS"])
    metrics.add("the cat", "the cat sat")
    metrics.add("hello", ["jello", "cello world"])
    scores = metrics.scores()
    assert scores["rougeL"] == pytest.approx((2 * 1.0 * (2 / 3) / (1 + 2 / 3) + 0) / 2)
    assert scores["anls"] == pytest.approx((7 / 11 + 4 / 5) / 2, abs=1e-6)


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(VlmRunError, match="rouge"):
        Metrics(["ruge"])

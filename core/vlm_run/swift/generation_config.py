"""Sampling parameters that can be changed one by one, as ms-swift's scripts do."""

from __future__ import annotations

from typing import Self

from pydantic import ConfigDict, model_validator

from vlm_run.request import Sampling

__all__ = ["GenerationConfig", "VllmGenerationConfig"]


class GenerationConfig(Sampling):
    """Sampling parameters whose attributes can be set, as in `transformers.GenerationConfig`.

    The defaults are `Sampling`'s: greedy, and an answer as long as the context allows. An unknown name or
    an invalid value raises `ValueError` when it is set; values that exclude each other raise when the
    configuration is used.
    """

    model_config = ConfigDict(frozen=False, validate_assignment=True)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        return self  # not before all attributes are set

    def as_sampling(self) -> Sampling:
        """Return the current parameters.

        Raises:
            RequestError: Two of them exclude each other.
        """
        return Sampling.parse(self.model_dump())

    @property
    def max_new_tokens(self) -> int | None:
        """Maximum number of tokens in the answer; transformers' name of `max_tokens`."""
        return self.max_tokens

    @max_new_tokens.setter
    def max_new_tokens(self, value: int | None) -> None:
        self.max_tokens = value

    @property
    def do_sample(self) -> bool:
        """Whether answers are sampled. Setting False sets temperature 0; True sets 1 if it was 0."""
        return self.temperature > 0

    @do_sample.setter
    def do_sample(self, value: bool) -> None:
        if value != self.do_sample:
            self.temperature = float(value)


VllmGenerationConfig = GenerationConfig
"""ms-swift's name of `GenerationConfig`."""

"""vLLM's own times of each request, without the cost of its Prometheus metrics."""

from __future__ import annotations

from typing import Any

from vllm.v1.metrics.loggers import PrometheusStatLogger


class RequestMetricsOnly(PrometheusStatLogger):  # type: ignore[misc]
    """Has vLLM put its times into each `RequestOutput.metrics`, and records nothing itself.

    vLLM measures only if there is a logger, and adds its Prometheus logger, which takes time at every
    step, unless one of that type is given.
    """

    def __init__(self, vllm_config: Any, engine_indexes: list[int] | None = None) -> None:
        self.engine_indexes = engine_indexes or [0]

    def record(self, *args: Any, **kwargs: Any) -> None:
        """Record nothing."""

    def record_sleep_state(self, *args: Any, **kwargs: Any) -> None:
        """Record nothing."""

    def log_engine_initialized(self) -> None:
        """Log nothing."""

    def log(self) -> None:
        """Log nothing."""

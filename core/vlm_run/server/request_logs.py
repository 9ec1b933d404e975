"""Request ids in the log."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Any

logger = logging.getLogger("vllm.vlm_run")
"""A child of vLLM's logger, whose level and format it shares."""

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that the current task handles; empty outside one."""

_ACCESS = "uvicorn.access"


def name_requests_in_logs() -> None:
    """Prefix the messages of all loggers of this process with the request's id."""
    make = logging.getLogRecordFactory()

    def make_named(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        own = request_id.get()
        record.request_id = own or "-"
        # uvicorn formats access lines from their arguments, not from the message.
        if own and record.name != _ACCESS:
            record.msg = (
                f"[{own}] {record.msg}" if record.args == () else f"[{own.replace('%', '%%')}] {record.msg}"
            )
        return record

    logging.setLogRecordFactory(make_named)


def access_log(config: dict[str, Any]) -> dict[str, Any]:
    """Add the request's id to the access lines of uvicorn's logging configuration."""
    formatters = {**config["formatters"]}
    formatters["access"] = {
        **formatters["access"],
        "fmt": '%(levelprefix)s [%(request_id)s] %(client_addr)s - "%(request_line)s" %(status_code)s',
    }
    return {**config, "formatters": formatters}

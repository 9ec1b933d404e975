"""The request's id in every log line that is about one."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Any

logger = logging.getLogger("vllm.vlm_run")
"""Below vLLM's, whose level and form it shares."""

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Of the request that is being answered here."""

_ACCESS = "uvicorn.access"


def name_requests_in_logs() -> None:
    """Put the request's id in front of the messages of all loggers of this process, from now on."""
    make = logging.getLogRecordFactory()

    def make_named(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        own = request_id.get()
        record.request_id = own or "-"
        # uvicorn's access lines are made of their arguments, not of a message.
        if own and record.name != _ACCESS:
            record.msg = (
                f"[{own}] {record.msg}" if record.args == () else f"[{own.replace('%', '%%')}] {record.msg}"
            )
        return record

    logging.setLogRecordFactory(make_named)


def access_log(config: dict[str, Any]) -> dict[str, Any]:
    """uvicorn's logging configuration with the request's id in its access lines."""
    formatters = {**config["formatters"]}
    formatters["access"] = {
        **formatters["access"],
        "fmt": '%(levelprefix)s [%(request_id)s] %(client_addr)s - "%(request_line)s" %(status_code)s',
    }
    return {**config, "formatters": formatters}

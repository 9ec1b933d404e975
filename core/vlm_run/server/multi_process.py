"""Several API processes at one address, in front of one engine or its data-parallel replicas.

vLLM's own launcher starts the engines and the processes; each process runs vlm-run's server.
"""

from __future__ import annotations

import math
import socket
import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from vlm_run.engine.vllm_internals import run_api_processes
from vlm_run.server.api_process import serve_at
from vlm_run.server.arguments import import_parsers
from vlm_run.server.request_logs import logger
from vlm_run.server.setup import Setup


def serve_in_several(setup: Setup) -> int:
    """Serve in `api_server_count` processes until a signal or the death of one.

    Returns:
        This process's exit code.
    """
    args = setup.args
    # vLLM's launcher waits this long for its processes, each of which lets its requests finish.
    args.shutdown_timeout = max(args.shutdown_timeout, math.ceil(setup.shutdown_seconds) + 1)
    args.vlm_run = setup
    try:
        run_api_processes(args, run_api_process)
    except SystemExit as leaving:  # how the launcher ends on SIGTERM and SIGINT
        return 0 if leaving.code is None else 1
    except Exception as error:
        logger.error("the server ends with exit code 1: %s", error)
        return 1
    return 0


def run_api_process(
    listen_address: str,
    sock: socket.socket,
    args: Namespace,
    client_config: Mapping[str, Any] | None = None,
    **_: Any,
) -> None:
    """Serve in one process; called by vLLM's launcher, with its parameters."""
    import_parsers(args)
    sys.exit(serve_at(sock, args.vlm_run, client_config))

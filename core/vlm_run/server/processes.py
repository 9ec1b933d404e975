"""Several API processes at one address, before one engine or its data-parallel copies.

vLLM's own launcher starts the engines and the processes; only what runs in such a process is vlm-run's.
"""

from __future__ import annotations

import math
import socket
import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from vlm_run.server.arguments import import_parsers
from vlm_run.server.logs import logger
from vlm_run.server.serve import Setup, serve_at


def serve_in_several(setup: Setup) -> int:
    """Serve in `api_server_count` processes until a signal or a death; this process's exit code."""
    import vllm.v1.utils
    from vllm.entrypoints.cli.serve import run_multi_api_server

    # Found by this name, and pickled by reference, in every version in range.
    vllm.v1.utils.run_api_server_worker_proc = run_api_process
    args = setup.args
    # vLLM's launcher waits so long for its processes, each of which lets its requests finish.
    args.shutdown_timeout = max(args.shutdown_timeout, math.ceil(setup.shutdown_seconds) + 1)
    args.vlm_run = setup
    try:
        run_multi_api_server(args)
    except SystemExit as leaving:  # its answer to SIGTERM and SIGINT
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
    """What vLLM's launcher runs in each process."""
    import_parsers(args)
    sys.exit(serve_at(sock, args.vlm_run, client_config))

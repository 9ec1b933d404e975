"""What a terminal shows while an engine starts, and what it is afterwards."""

from __future__ import annotations

import sys

import pexpect

# As vLLM's log does, which is set up while the engine starts.
STARTS = """
import logging, os, sys
from vlm_run.cli.output import starting
with starting("demo-llava", False):
    print("hidden")
    os.system("echo hidden too")
    logging.basicConfig(stream=sys.stderr)
logging.warning("late")
print("shown")
"""


def test_a_log_that_begins_while_an_engine_starts_can_go_on() -> None:
    session = pexpect.spawn(sys.executable, ["-c", STARTS], timeout=600, encoding="utf-8")
    session.expect(pexpect.EOF)
    shown = session.before
    assert "Loading demo-llava" in shown
    assert "WARNING:root:late" in shown
    assert "shown" in shown
    assert "hidden" not in shown
    assert "Traceback" not in shown

"""Tries engine options one after the other on a sample of the user's own requests."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_run.errors import VlmRunError
from vlm_run.plugins.gpu_throughput import ENCODER_CUDA_GRAPHS, has_nvidia_gpu

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter
    from vlm_run.request import Request, Sampling

DEFAULTS = "defaults"
# The first of the requests, which are answered before the clock starts.
_WARM_UP_SHARE = 0.1
_CHECK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Candidate:
    """A configuration to try.

    Attributes:
        name: Its name in the table.
        options: Engine options on top of the user's.
        renderers: Renderer processes; None for as many as the engine chooses.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    renderers: int | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """The measurements of a candidate.

    Attributes:
        name: The candidate's name.
        options: Its engine options.
        renderers: Its renderer processes; None for as many as the engine chooses.
        requests_per_second: Throughput after a warm-up; None if it failed.
        same_answers: The share of answers equal to those of the defaults; None if it failed.
        error: Why it failed, in one line; None if it did not.
    """

    name: str
    options: Mapping[str, Any]
    renderers: int | None
    requests_per_second: float | None = None
    same_answers: float | None = None
    error: str | None = None


def candidates(adapter: Adapter, cores: int) -> list[Candidate]:
    """The defaults, then what has been seen to change throughput on some machine."""
    if not has_nvidia_gpu():
        steps = [Candidate(f"{n} tokens a step", {"max_num_batched_tokens": n}) for n in (2048, 8192)]
        pools = [Candidate(f"{n} renderers", renderers=n) for n in (0, 1) if n < cores]
        return [Candidate(DEFAULTS), *steps, *pools]
    steps = [Candidate(f"{n} tokens a step", {"max_num_batched_tokens": n}) for n in (8192, 16384, 32768)]
    pools = [Candidate(f"{n} renderers", renderers=n) for n in (0, 4, 8, 16) if n < cores]
    graphs = {"compilation_config": {"cudagraph_mm_encoder": True}}
    encoder = [Candidate("encoder CUDA graphs", graphs)]
    if adapter.spec.architecture not in ENCODER_CUDA_GRAPHS:
        encoder = []
    return [Candidate(DEFAULTS), *encoder, *steps, *pools]


class TrialFile:
    """Finished trials on disk, so that an interrupted run resumes after them.

    Args:
        path: A JSON Lines file, which is created if it does not exist.
        run: What the trials are of. A file of another run is refused.

    Raises:
        VlmRunError: The file cannot be read, or belongs to another run.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        self._path = path
        self.trials: dict[str, Trial] = {}
        self.default_answers: list[str] = []
        try:
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except FileNotFoundError:
            path.write_text(json.dumps({"run": run}) + "\n", encoding="utf-8")
            return
        except (OSError, ValueError) as error:
            raise VlmRunError(f"{path} cannot be read: {error}") from None
        if not lines or lines[0].get("run") != json.loads(json.dumps(run)):
            raise VlmRunError(
                f"{path} has trials of another model, other options or other requests",
                hint="Give another --output, or remove the file.",
            )
        for line in lines[1:]:
            self.default_answers = line.pop("answers", self.default_answers)
            self.trials[line["name"]] = Trial(**line)

    def add(self, trial: Trial, answers: Sequence[str]) -> None:
        """Keep a finished trial; of the defaults also the answers, with which others are compared."""
        line = asdict(trial)
        if trial.name == DEFAULTS:
            self.default_answers = list(answers)
            line["answers"] = self.default_answers
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self.trials[trial.name] = trial


def describe(adapter: Adapter, requests: Sequence[Request], options: Mapping[str, Any]) -> dict[str, Any]:
    """The description that identifies a run: the model, the options and the requests."""
    digest = hashlib.sha256(pickle.dumps([each.conversation.messages for each in requests])).hexdigest()
    return {
        "model_type": adapter.spec.model_type,
        "source": adapter.source,
        "options": dict(options),
        "requests": len(requests),
        "sha256": digest,
    }


def tune(
    adapter: Adapter,
    requests: Sequence[Request],
    sampling: Sampling,
    options: Mapping[str, Any],
    found: TrialFile,
    *,
    tried: Iterable[Candidate],
    seconds: float,
    report: Callable[[Trial], None] = lambda trial: None,
) -> list[Trial]:
    """Try each candidate in processes of its own.

    Args:
        adapter: The model.
        requests: A sample of the user's requests.
        sampling: For requests without sampling parameters of their own.
        options: The user's engine options, which all candidates have.
        found: Trials that are finished already, and where others are added.
        tried: The candidates; the defaults come first.
        seconds: Time limit of each, from the start of its engine.
        report: Called with each trial.

    Returns:
        A trial of each candidate; one that failed, ran out of memory or time has an `error`.
    """
    trials = []
    for candidate in tried:
        if candidate.name not in found.trials:
            _try(adapter, requests, sampling, options, found, candidate, seconds)
        trials.append(found.trials[candidate.name])
        report(trials[-1])
    return trials


def best(trials: Iterable[Trial], least_same_answers: float) -> Trial | None:
    """The fastest trial with at least this share of the defaults' answers; None if there is none."""
    usable = [
        trial
        for trial in trials
        if trial.requests_per_second is not None and (trial.same_answers or 0) >= least_same_answers
    ]
    return max(usable, key=lambda trial: trial.requests_per_second or 0.0, default=None)


def config_text(trial: Trial, run: Mapping[str, Any]) -> str:
    """The trial's engine options as a file for `--config`."""
    import yaml

    lines = [
        f"# Written by `vlm-run tune` for {run['model_type']} from {run['requests']} requests.",
        f"# '{trial.name}': {trial.requests_per_second} requests/s, {trial.same_answers:.1%} same answers.",
    ]
    if trial.renderers is not None:
        lines.append(f"# Add --renderers {trial.renderers} to the command; it is not an engine option.")
    options = {**run["options"], **trial.options}
    return "\n".join([*lines, yaml.safe_dump(options, sort_keys=False) if options else "{}\n"])


def _try(
    adapter: Adapter,
    requests: Sequence[Request],
    sampling: Sampling,
    options: Mapping[str, Any],
    found: TrialFile,
    candidate: Candidate,
    seconds: float,
) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    merged = {**options, **candidate.options}
    process = context.Process(
        target=_measure, args=(theirs, adapter, list(requests), sampling, merged, candidate.renderers)
    )
    process.start()
    theirs.close()
    answers: list[str] = []
    rate, error = None, f"not finished after {seconds:g} s"
    try:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if ours.poll(_CHECK_SECONDS):
                rate, answers, error = _receive(ours)
                break
    finally:
        _end(process)
    same = None
    if rate is not None:
        compared = found.default_answers or answers
        same = sum(map(str.__eq__, answers, compared)) / max(1, len(answers))
        rate = round(rate, 2)
    trial = Trial(
        candidate.name,
        dict(candidate.options),
        candidate.renderers,
        rate,
        same,
        None if rate is not None else error,
    )
    found.add(trial, answers)


def _receive(connection: Connection) -> tuple[float | None, list[str], str]:
    try:
        received: tuple[float | None, list[str], str] = connection.recv()
    except EOFError:  # killed, usually for its memory
        return None, [], "its process was killed, probably for want of memory"
    return received


def _end(process: Any) -> None:
    """End a trial's process with those that it has started."""
    import psutil  # a dependency of vLLM

    process.join(timeout=30 if process.exitcode is None and not process.is_alive() else 5)
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    if process.is_alive():
        process.kill()
    for child in family:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    process.join()


def _measure(
    connection: Connection,
    adapter: Adapter,
    requests: list[Request],
    sampling: Sampling,
    options: dict[str, Any],
    renderers: int | None,
) -> None:
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    warm_up = max(1, int(len(requests) * _WARM_UP_SHARE))
    try:
        with adapter.engine(renderers=renderers, **options) as engine:
            responses = engine.infer(requests[:warm_up], sampling)
            measured = requests[warm_up:] or requests
            started = time.perf_counter()
            responses += engine.infer(measured, sampling)
            rate = len(measured) / (time.perf_counter() - started)
    except Exception as error:
        connection.send((None, [], " ".join(str(error).split())[:300]))
        return
    failed = next((each.error for each in responses if each.error is not None), None)
    if failed is not None and all(each.error is not None for each in responses):
        connection.send((None, [], f"every request failed, the first with: {failed}"[:300]))
        return
    connection.send((rate, [each.response for each in responses], ""))

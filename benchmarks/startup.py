"""Time from the command to its first token, compared with plain vLLM: python benchmarks/startup.py

Each run is a separate process, timed from its start until the first piece of the answer is on standard
output. The two sides take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vlm_run import Conversation, Registry
from vlm_run_demo.showcase import draw

QUESTION = "How many red circles are there?"
OURS = [sys.executable, "-c", "from vlm_run.cli import main\nif __name__ == '__main__':\n    main()", "infer"]
# A script that uses vLLM without vlm-run.
PLAIN = """
import json, sys
if __name__ == "__main__":
    from PIL import Image
    from vllm import LLM, SamplingParams
    options, prompt, image = json.loads(sys.argv[1])
    llm = LLM(**options)
    request = {"prompt": prompt, "multi_modal_data": {"image": Image.open(image).convert("RGB")}}
    (output,) = llm.generate(request, SamplingParams(temperature=0, max_tokens=1), use_tqdm=False)
    print("answer:", output.outputs[0].text, flush=True)
    llm.llm_engine.engine_core.shutdown()
"""


def first_answer_seconds(command: list[str], mark: str) -> float:
    """Seconds until a command prints a line with `mark`, or any text if `mark` is empty."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    seen = b""
    while not (seen.strip() and mark.encode() in seen):
        piece = process.stdout.read1()
        if not piece:
            sys.exit(f"{command} gave no answer: {seen.decode()}")
        seen += piece
    seconds = time.perf_counter() - started
    process.stdout.read()
    process.wait()
    return seconds


def main() -> None:
    """Parse the command line, measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    adapter = Registry.load("demo-llava")
    with tempfile.TemporaryDirectory() as directory:
        image = str(Path(directory) / "image.png")
        draw(7)[0].save(image)
        prompt = adapter.render_prompt(Conversation.from_query(QUESTION, images=[image])).text
        plain = json.dumps([adapter.engine_kwargs(), prompt, image])
        commands = {
            "vlm-run infer": ([*OURS, "demo-llava", QUESTION, "--image", image], ""),
            "plain vLLM": ([sys.executable, "-c", PLAIN, plain], "answer:"),
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(asked.runs + 1):
            for name, command in commands.items():
                seconds[name].append(first_answer_seconds(*command))
    report = {
        name: {
            "median": round(statistics.median(times[1:]), 2),
            "all": [round(each, 2) for each in times[1:]],
        }
        for name, times in seconds.items()  # the first run only fills the system's file cache
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()

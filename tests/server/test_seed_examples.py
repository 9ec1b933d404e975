"""The clients of the page that this project takes over from, as they stand there.

`examples/` has them verbatim; only the addresses are those of the servers of this test.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
from pathlib import Path

import pytest

from .conftest import ImageServer, Server, draw, png

EXAMPLES = Path(__file__).parent / "examples"
EXAMPLE_IMAGES = "http://modelscope-open.oss-cn-hangzhou.aliyuncs.com/images"
COMMENTED = {
    "use url": [],
    "use base64": [
        "import base64",
        "with open('cat.png', 'rb') as f:",
        "    img_base64 = base64.b64encode(f.read()).decode('utf-8')",
        "images = [img_base64]",
    ],
    "use local_path": [
        "from swift.llm import convert_to_base64",
        "images = ['cat.png']",
        "images = convert_to_base64(images=images)['images']",
    ],
}


@pytest.fixture
def here(server: Server, image_server: ImageServer) -> dict[str, str]:
    """The page's addresses, and those of this test in their places."""
    image_server.at("/images/cat.png", png(draw(1)))
    image_server.at("/images/animal.png", png(draw(3)))
    return {EXAMPLE_IMAGES: image_server.url("/images"), "http://localhost:8000": server.url}


def read(name: str, addresses: dict[str, str]) -> str:
    source = (EXAMPLES / name).read_text()
    for old, new in addresses.items():
        source = source.replace(old, new)
    return source


@pytest.mark.parametrize("name", ["llava.sh", "phi3-vision.sh"])
def test_the_curl_examples_run(name: str, here: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-c", read(name, here)], capture_output=True, text=True, timeout=600, check=True
    )
    answer = json.loads(done.stdout)
    assert answer["choices"][0]["message"]["content"].strip()
    assert answer["usage"]["prompt_tokens"] > 268 * (2 if name == "phi3-vision.sh" else 1)


@pytest.mark.parametrize("name", ["llava.txt", "phi3-vision.txt"])
def test_the_openai_examples_run(name: str, here: dict[str, str]) -> None:
    said = run(read(name, here))
    assert said[0] == "model_type: demo-llava"
    assert responses(said) == 2


@pytest.mark.parametrize("way", ["use base64", "use local_path"])
def test_the_openai_examples_other_ways_run(
    way: str, here: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cat.png").write_bytes(png(draw(1)))
    monkeypatch.chdir(tmp_path)
    source = read("llava.txt", here)
    for line in COMMENTED[way]:
        assert f"# {line}\n" in source
        source = source.replace(f"# {line}\n", f"{line}\n", 1)
    first_url = source.index("# use url")
    end = source.index("query = ", first_url)
    source = source[:first_url] + source[end:]
    # The page's name for the helper is ms-swift's; here it is vlm-run's.
    said = run(source.replace("from swift.llm import", "from vlm_run import"))
    assert responses(said) == 2


def responses(said: list[str]) -> int:
    """How many responses were printed that are not empty."""
    return sum(line.startswith("response: ") and bool(line.partition(": ")[2].strip()) for line in said)


def run(source: str) -> list[str]:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(source, "example", "exec"), {})
    return output.getvalue().splitlines()

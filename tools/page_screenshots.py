"""Takes the screenshots of the chat page in docs/: real answers of demo-llava, in Debian's Chromium.

python tools/page_screenshots.py    # apt-get install chromium, pip install playwright
python tools/page_screenshots.py --url http://127.0.0.1:7860    # of a server that runs already
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, expect, sync_playwright

from vlm_run_demo.drawing import COLOURS, Scene, Shape, paint

DOCS = Path(__file__).parents[1] / "docs/images"
# File, width, height, colour scheme.
SHOTS = (
    ("chat-light.png", 1100, 720, "light"),
    ("chat-dark.png", 1100, 720, "dark"),
    ("chat-narrow.png", 360, 720, "light"),
)


def main() -> None:
    """Take all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url", help="Of a running `vlm-run app demo-llava`; by default one is started.")
    url = parser.parse_args().url
    DOCS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        images = [draw(Path(scratch) / f"{name}.png", red) for name, red in (("before", 3), ("after", 1))]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        with running(url) as address:
            for name, width, height, scheme in SHOTS:
                shoot(browser, address, images, DOCS / name, width, height, scheme)


@contextmanager
def running(url: str | None) -> Iterator[str]:
    """The address of the server that is given, or of one that runs until the block ends."""
    if url:
        yield url.rstrip("/")
        return
    command = [str(Path(sys.executable).with_name("vlm-run")), "app", "demo-llava", "--no-browser"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as server:
        assert server.stderr is not None
        for line in server.stderr:
            if found := re.search(r"The chat page is at (\S+)/", line):
                yield found[1]
                break
        server.terminate()


def draw(file: Path, red_circles: int) -> Path:
    """Draw so many red circles, and blue squares up to four shapes."""
    kinds = [("red", "circle")] * red_circles + [("blue", "square")] * (4 - red_circles)
    shapes = tuple(
        Shape(kind, colour, 24.0 + 36 * place, 64, 12.0, 0.0, COLOURS[colour])
        for place, (colour, kind) in enumerate(kinds)
    )
    paint(Scene(160, 128, (190, 190, 190), 0.3, (0, 0), shapes)).save(file)
    return file


def shoot(
    browser: Browser, url: str, images: list[Path], target: Path, width: int, height: int, scheme: str
) -> None:
    """Ask about one image, attach another, and take the screenshot."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    page.goto(f"{url}/")
    page.locator("#file").set_input_files(images[0])
    page.locator("#question").fill("How many red circles are there?")
    page.keyboard.press("Enter")
    expect(page.locator(".turn.assistant > .body")).to_have_text("3", timeout=30_000)
    page.locator("#file").set_input_files(images[1])
    page.locator("#question").fill("Which picture has more red circles?")
    expect(page.locator("#attachments .cost")).to_have_text("268 tokens")
    expect(page.locator("#budget")).to_contain_text("images 536")
    page.screenshot(path=target)
    context.close()


if __name__ == "__main__":
    main()

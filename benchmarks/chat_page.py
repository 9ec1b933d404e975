"""Measures the chat page in headless Chromium: first paint, bytes, long tasks while streaming, scrolling.

    vlm-run app demo-llava --no-browser &
    python benchmarks/chat_page.py http://127.0.0.1:7860

Streaming is measured on 1,000 tokens of the model itself (`ignore_eos`), scrolling on a chat of 200 turns
with 100 images that is imported first.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

TURNS, IMAGES, TOKENS = 200, 100, 1000
_WATCH_TASKS = """
    window.longTasks = [];
    const note = (list) => window.longTasks.push(...list.getEntries().map((each) => each.duration));
    new PerformanceObserver(note).observe({ type: "longtask" });
"""
_SCROLL = """async () => {
    const scroller = document.querySelector("#scroller");
    const gaps = [];
    let last = performance.now();
    for (let top = scroller.scrollHeight; top > 0; top -= 250) {
        scroller.scrollTop = top;
        await new Promise(requestAnimationFrame);
        gaps.push(performance.now() - last);
        last = performance.now();
    }
    gaps.sort((one, other) => one - other);
    const share = (part) => gaps[Math.floor(gaps.length * part)];
    return [gaps.length, share(0.5), share(0.99), gaps.at(-1)];
}"""
_ANSWER = "It shows **shapes**:\n\n1. a circle\n2. a square, `blue`\n\nThere are {} of them, in a row.\n"


def main() -> None:
    """Print all figures for the server of the first argument."""
    url = sys.argv[1].rstrip("/")
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        print(f"Chromium {browser.version}, {url}")
        for _ in range(3):
            opening(browser, url)
        streaming(browser, url)
        scrolling(browser, url)


def opened(browser: Browser, url: str) -> Page:
    """The page in a browser without a cache, with long tasks watched."""
    page = browser.new_context(viewport={"width": 1100, "height": 760}).new_page()
    page.add_init_script(_WATCH_TASKS)
    page.goto(f"{url}/")
    expect(page.locator("#welcome h2")).to_be_visible()
    return page


def opening(browser: Browser, url: str) -> None:
    """First paint, and the bytes of the files before an answer needs markdown."""
    page = browser.new_context().new_page()
    sizes: dict[str, int] = {}

    def note(response: Any) -> None:
        if "/vendor/" not in response.url and "/v1/" not in response.url and "/tokenize" not in response.url:
            sizes[response.url] = len(response.body())

    page.on("response", note)
    page.goto(f"{url}/", wait_until="networkidle")
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    print(f"first contentful paint {paint:.0f} ms; {sum(sizes.values()):,} bytes in {len(sizes)} files")
    page.context.close()


def streaming(browser: Browser, url: str) -> None:
    """Long tasks while an answer of many tokens is streamed."""
    page = opened(browser, url)

    def endless(route: Any) -> None:
        body = {**route.request.post_data_json, "ignore_eos": True, "max_tokens": TOKENS, "temperature": 1}
        route.continue_(post_data=json.dumps(body))

    page.route("**/v1/chat/completions", endless)
    page.locator("#question").fill("What can you do?")
    page.evaluate("window.longTasks.length = 0")
    page.keyboard.press("Enter")
    answer = page.locator(".turn.assistant")
    expect(answer.locator(".stats")).to_contain_text(f"{TOKENS:,} answer tokens", timeout=120_000)
    tasks = page.evaluate("window.longTasks")
    print(
        f"{answer.locator('.stats').inner_text()}; long tasks over 50 ms: {[round(task) for task in tasks]}"
    )
    page.context.close()


def scrolling(browser: Browser, url: str) -> None:
    """Time to show a long chat, and between frames while it is scrolled from end to start."""
    page = opened(browser, url)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "long.jsonl"
        file.write_text(json.dumps(long_chat()))
        page.evaluate("window.longTasks.length = 0")
        page.locator("#import-file").set_input_files(file)
        expect(page.locator(".turn")).to_have_count(2 * TURNS, timeout=120_000)
    page.reload()
    page.locator("#chats .chat").click()
    expect(page.locator(".turn")).to_have_count(2 * TURNS)
    expect(page.locator(".turn.assistant").last.locator("strong")).to_be_visible()
    page.evaluate("window.longTasks.length = 0")
    frames, median, late, longest = page.evaluate(_SCROLL)
    tasks = page.evaluate("window.longTasks")
    print(
        f"{TURNS} turns, {IMAGES} images: {frames} frames scrolled, {median:.1f} ms each in the median, "
        f"{late:.1f} ms for the 99th percentile, {longest:.0f} ms at most; "
        f"long tasks {[round(task) for task in tasks]}"
    )
    page.context.close()


def long_chat() -> dict[str, Any]:
    """A chat as `/save` writes it, an image in every other turn."""
    images = []
    for number in range(IMAGES):
        buffer = io.BytesIO()
        Image.effect_noise((640, 480), 40 + number).convert("RGB").save(buffer, "JPEG")
        images.append("data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode())
    every = TURNS // IMAGES
    turns = [
        [("<image>" if turn % every == 0 else "") + f"Question {turn}: what is it?", _ANSWER.format(turn)]
        for turn in range(TURNS)
    ]
    (*history, (query, response)) = turns
    return {"history": history, "query": query, "response": response, "images": images}


if __name__ == "__main__":
    main()

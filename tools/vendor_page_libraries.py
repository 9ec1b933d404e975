"""Vendors the JavaScript libraries of the chat page from their npm packages, at pinned versions and hashes.

    python tools/vendor_page_libraries.py    # needs npm; rewrites core/vlm_run/server/page/vendor

To upgrade one: change its version, run `npm view NAME@VERSION dist.integrity`, change the hash, run this.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

VENDOR = Path(__file__).parents[1] / "core/vlm_run/server/page/vendor"


@dataclass(frozen=True, slots=True)
class Library:
    """One npm package.

    Attributes:
        package: Its name on the npm registry.
        version: The version.
        integrity: SHA-512 of the package's archive, as `npm view NAME dist.integrity` prints it.
        directory: Where its files go, below `vendor`.
        files: Patterns of the files that the page loads, and the license.
    """

    package: str
    version: str
    integrity: str
    directory: str
    files: tuple[str, ...]


LIBRARIES = (
    Library(
        "marked",
        "18.2.1",
        "sha512-ii4bxCTCqqwpT86XZWgJNs+ZnAIZksmLGYMViWA7PDIXYIeNo1x6cDdX3JOip9NM/cI6p8z57FxliACboTruMA==",
        "marked",
        ("lib/marked.esm.js", "LICENSE"),
    ),
    Library(
        "dompurify",
        "3.5.0",
        "sha512-LYC0ZkE8P1V42JsRYTwMdme/2ET8SpOc5AA2eOFjP/IadvRd2fwiT4TVz5vkfy0XUx12aS2UaRkTnfVPNOv9vw==",
        "dompurify",
        ("dist/purify.min.js", "LICENSE"),
    ),
    Library(
        "@highlightjs/cdn-assets",
        "11.12.0",
        "sha512-KvOKXODaiFmId9xaq3xc5xCL66wVLUuOngDbO9B/kewbFTqdGbn2nJxNhN3H5R1cgDTVj6R8vH0zgiNDEGjpDw==",
        "highlight",
        ("es/highlight.min.js", "LICENSE"),
    ),
    Library(
        "katex",
        "0.19.1",
        "sha512-jG8uKntjSEcm2EpQOh0XturpPuuC9r3Sq5HLHdsFdWZT27E672SF19QEi+of0/YeOy15lDgRhKvr5614uRrEfA==",
        "katex",
        ("dist/katex.min.js", "dist/katex.min.css", "dist/fonts/*.woff2", "LICENSE"),
    ),
)


def main() -> None:
    """Fetch, verify and unpack all of them."""
    with tempfile.TemporaryDirectory() as scratch:
        archives = [(library, fetch(library, Path(scratch))) for library in LIBRARIES]
        shutil.rmtree(VENDOR, ignore_errors=True)
        for library, archive in archives:
            unpack(library, archive)
    (VENDOR / "VERSIONS").write_text(versions())


def fetch(library: Library, directory: Path) -> Path:
    """The package's archive, whose hash is the pinned one."""
    command = ["npm", "pack", "--silent", f"{library.package}@{library.version}"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True)
    archive = directory / done.stdout.split()[-1]
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != library.integrity:
        raise SystemExit(f"{library.package} {library.version} has the hash {found}, not {library.integrity}")
    return archive


def unpack(library: Library, archive: Path) -> None:
    """Write the files that the page needs, without the package's own directories except `fonts`."""
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.removeprefix("package/")
            if not any(fnmatch.fnmatchcase(name, pattern) for pattern in library.files):
                continue
            inside = name.partition("/")[2] or name
            target = VENDOR / library.directory / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            content = tar.extractfile(member)
            assert content is not None
            target.write_bytes(content.read())


def versions() -> str:
    """What is vendored, one line for each file: its SHA-256, path, package and version."""
    lines = []
    for library in LIBRARIES:
        for path in sorted((VENDOR / library.directory).rglob("*")):
            if path.is_file():
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                name = path.relative_to(VENDOR).as_posix()
                lines.append(f"{digest}  {name}  {library.package}@{library.version}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

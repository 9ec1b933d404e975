"""Pages of PDFs, rendered by PDFium.

PDFium is not thread-safe, not even with one document per thread, so one lock is held during each call of it.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from PIL import Image

from vlm_run.errors import MediaError
from vlm_run.media.policy import MediaPolicy

_POINTS_PER_INCH = 72
_WHITE = (255, 255, 255, 255)
_pdfium = threading.Lock()


class Pdf:
    """An open PDF.

    Args:
        source: The encoded PDF, or its file, of which only what is needed is read.
        policy: Limits on pixels and time.

    Attributes:
        pages: Number of pages, at least 1.

    Raises:
        MediaError: pypdfium2 is not installed, or the PDF is encrypted, damaged or without pages.
    """

    def __init__(self, source: bytes | Path, policy: MediaPolicy) -> None:
        self._policy = policy
        self._library = _import_library()
        self._source = source  # which PDFium goes on reading
        with _pdfium:
            self._document = self._library.PdfDocument(self._open(source))
            # So that what was entered into a form is drawn; pypdfium2's PDFium runs no JavaScript.
            with suppress(self._library.PdfiumError):
                self._document.init_forms()
            self.pages: int = len(self._document)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _pdfium:
            self._document.close()

    def size(self, number: int) -> tuple[int, int]:
        """Width and height in pixels of a page at the policy's resolution.

        A page that would have more pixels than the policy allows is made smaller, with the same aspect ratio.

        Args:
            number: The page, counted from 1.

        Raises:
            MediaError: The page is damaged or has no area.
        """
        with _pdfium:
            try:
                width, height = self._document.get_page_size(number - 1)
            except self._library.PdfiumError:
                raise _damaged(number) from None
        if not (math.isfinite(width * height) and width > 0 and height > 0):
            raise MediaError(f"page {number} of the PDF has no valid size: {width:g} × {height:g} points")
        largest = math.sqrt(self._policy.max_pixels / (width * height))
        scale = min(self._policy.document_dpi / _POINTS_PER_INCH, largest)
        if min(width, height) * scale < 1:
            raise MediaError(f"page {number} of the PDF is too narrow: {width:g} × {height:g} points")
        # A side that is a whole number of pixels but for a rounding error stays one.
        return int(width * scale + 1e-3), int(height * scale + 1e-3)

    def render(self, number: int, size: tuple[int, int]) -> Image.Image:
        """A page in RGB, on white.

        Args:
            number: The page, counted from 1.
            size: Width and height in pixels.

        Raises:
            MediaError: The page or one of its images is too large, or it is damaged or takes too long.
        """
        width, height = size
        if width * height > self._policy.max_pixels:
            raise MediaError(
                f"page {number} of the PDF would have {width} × {height} pixels, "
                f"more than the {self._policy.max_pixels:,} allowed"
            )
        with _pdfium, self._page(number) as page:
            self._check_images(page, number)
            bitmap = self._library.PdfBitmap.new_native(width, height, self._library.raw.FPDFBitmap_BGR)
            try:
                bitmap.fill_rect(_WHITE, 0, 0, width, height)
                self._draw(page, bitmap, number)
                rendered: Image.Image = bitmap.to_pil()
            finally:
                bitmap.close()
        return rendered

    @contextmanager
    def _page(self, number: int) -> Iterator[Any]:
        try:
            page = self._document[number - 1]
        except self._library.PdfiumError:
            raise _damaged(number) from None
        try:
            yield page
        finally:
            page.close()

    def _check_images(self, page: Any, number: int) -> None:
        """Raise if an image of the page, none of which is decoded yet, has more pixels than allowed."""
        most = self._policy.max_pixels
        for image in page.get_objects(filter=[self._library.raw.FPDF_PAGEOBJ_IMAGE]):
            width, height = image.get_px_size()
            if width * height > most:
                raise MediaError(
                    f"page {number} of the PDF has an image of {width} × {height} pixels, "
                    f"more than the {most:,} allowed",
                    hint="Shrink it, or raise the limit (in Python: MediaPolicy(max_pixels=…)).",
                )

    def _draw(self, page: Any, bitmap: Any, number: int) -> None:
        raw = self._library.raw
        until = time.monotonic() + self._policy.timeout_s
        pause = raw.IFSDK_PAUSE(version=1)
        pause.NeedToPauseNow = type(pause.NeedToPauseNow)(lambda _: time.monotonic() > until)
        where = (bitmap, page, 0, 0, bitmap.width, bitmap.height, 0, raw.FPDF_ANNOT)
        status = raw.FPDF_RenderPageBitmap_Start(*where, pause)
        raw.FPDF_RenderPage_Close(page)
        if status == raw.FPDF_RENDER_TOBECONTINUED:
            raise MediaError(f"page {number} of the PDF takes longer than {self._policy.timeout_s:g} s")
        if status != raw.FPDF_RENDER_DONE:
            raise _damaged(number)
        if self._document.formenv:
            raw.FPDF_FFLDraw(self._document.formenv, *where)

    def _open(self, source: bytes | Path) -> Any:
        """Return PDFium's handle; pypdfium2 does not tell whether the PDF is damaged or has no pages."""
        raw = self._library.raw
        if isinstance(source, Path):
            handle = raw.FPDF_LoadDocument(os.fsencode(source), None)
        else:
            handle = raw.FPDF_LoadMemDocument64(source, len(source), None)
        if not handle:
            raise self._unreadable(raw.FPDF_GetLastError())
        if raw.FPDF_GetPageCount(handle) < 1:
            raw.FPDF_CloseDocument(handle)
            raise MediaError("the PDF has no pages")
        return handle

    def _unreadable(self, code: int) -> MediaError:
        raw = self._library.raw
        if code == raw.FPDF_ERR_PASSWORD:
            return MediaError(
                "the PDF is encrypted and needs a password",
                hint="Remove it, for example with `qpdf --decrypt --password=… in.pdf out.pdf`.",
            )
        if code == raw.FPDF_ERR_SECURITY:
            return MediaError("the PDF is encrypted in a way that PDFium does not support")
        return MediaError(
            "the PDF is damaged: PDFium cannot read it", hint="`qpdf in.pdf out.pdf` repairs some damage."
        )


def _damaged(number: int) -> MediaError:
    return MediaError(f"page {number} of the PDF is damaged: PDFium cannot read it")


def _import_library() -> Any:
    try:
        return import_module("pypdfium2")
    except ImportError:
        raise MediaError(
            "PDFs need the library pypdfium2, which is not installed",
            hint="pip install 'vlm-run[documents]'",
        ) from None

"""PDFs for tests: of images, and of objects written by hand."""

from __future__ import annotations

import io

from PIL import Image

CATALOG = b"<</Type/Catalog/Pages 2 0 R>>"
ONE_PAGE = b"<</Type/Pages/Kids[3 0 R]/Count 1>>"
POINTS_PER_INCH = 72


def pdf_of(*images: Image.Image, dpi: int = 150) -> bytes:
    """A PDF with a page for each image, whose pixels it has at `dpi`."""
    file = io.BytesIO()
    images[0].save(file, "PDF", save_all=True, append_images=images[1:], resolution=dpi, quality=95)
    return file.getvalue()


def pdf_of_colours(*colours: str, size: tuple[int, int] = (60, 40)) -> bytes:
    """A PDF with a page in each colour."""
    return pdf_of(*(Image.new("RGB", size, colour) for colour in colours))


def pdf_of_objects(*objects: bytes, trailer: bytes = b"") -> bytes:
    """A PDF of these objects, numbered from 1, the first of which is the catalog."""
    content, offsets = b"%PDF-1.7\n", []
    for number, each in enumerate(objects, 1):
        offsets.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return (
        content
        + b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
        + b"trailer\n<</Size %d/Root 1 0 R %s>>\n" % (len(objects) + 1, trailer)
        + b"startxref\n%d\n%%%%EOF" % len(content)
    )


def stream(content: bytes, entries: bytes = b"") -> bytes:
    """A stream object."""
    return b"<<%s/Length %d>>\nstream\n%s\nendstream" % (entries, len(content), content)


def pdf_of_one_page(width: float, height: float, content: bytes = b"", entries: bytes = b"") -> bytes:
    """A PDF with one page of this size in points."""
    box = b"/MediaBox[0 0 %f %f]" % (width, height)
    page = b"<</Type/Page/Parent 2 0 R%s/Contents 4 0 R%s>>" % (box, entries)
    return pdf_of_objects(CATALOG, ONE_PAGE, page, stream(content))


def pdf_of_text(*lines: str) -> bytes:
    """A PDF with one page of text."""
    fonts = b"/Resources<</Font<</F 5 0 R>>>>"
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Contents 4 0 R%s>>" % fonts
    shown = b"".join(b"(%s) Tj 0 -13 Td " % line.encode() for line in lines)
    text = stream(b"BT /F 12 Tf 10 280 Td %sET" % shown)
    font = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
    return pdf_of_objects(CATALOG, ONE_PAGE, page, text, font)


def pdf_with_image(width: int, height: int) -> bytes:
    """A PDF with a page that shows an image of this size in pixels, whose data is missing."""
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R/Resources<</XObject<</I 5 0 R>>>>>>"
    entries = b"/Type/XObject/Subtype/Image/Width %d/Height %d/ColorSpace/DeviceGray/BitsPerComponent 8"
    image = stream(b"", entries % (width, height))
    return pdf_of_objects(CATALOG, ONE_PAGE, page, stream(b"q 9 0 0 9 0 0 cm /I Do Q"), image)


def filled_form() -> bytes:
    """A PDF whose page is covered by a form field that was filled in black."""
    catalog = b"<</Type/Catalog/Pages 2 0 R/AcroForm<</Fields[5 0 R]>>>>"
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 72 72]/Contents 4 0 R/Annots[5 0 R]>>"
    field = (
        b"<</Type/Annot/Subtype/Widget/FT/Tx/T(name)/V(Ada)/Rect[0 0 72 72]/F 4/P 3 0 R"
        b"/AP<</N 6 0 R>>/DA(/F 9 Tf)>>"
    )
    drawn = stream(b"0 g 0 0 72 72 re f", b"/Type/XObject/Subtype/Form/BBox[0 0 72 72]")
    return pdf_of_objects(catalog, ONE_PAGE, page, stream(b""), field, drawn)


def encrypted_pdf() -> bytes:
    """A PDF that needs a password."""
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>"
    keys = b"/O<%s>/U<%s>" % (b"61" * 32, b"62" * 32)
    security = b"<</Filter/Standard/V 2/R 3/Length 128/P -4%s>>" % keys
    return pdf_of_objects(CATALOG, ONE_PAGE, page, security, trailer=b"/Encrypt 4 0 R/ID[<00><00>]")


def pdf_without_pages() -> bytes:
    return pdf_of_objects(CATALOG, b"<</Type/Pages/Kids[]/Count 0>>")


def tiff_of_colours(*colours: str) -> bytes:
    """A TIFF with a frame in each colour, each wider than the one before it."""
    frames = [Image.new("RGB", (6 + number, 4), colour) for number, colour in enumerate(colours)]
    file = io.BytesIO()
    frames[0].save(file, "TIFF", save_all=True, append_images=frames[1:])
    return file.getvalue()

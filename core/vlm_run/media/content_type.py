"""Names data that cannot be decoded: an image format without support, or not an image at all."""

from __future__ import annotations

import re

from vlm_run.errors import MediaError
from vlm_run.media.policy import MediaPolicy

_LOOKED_AT = 4096  # bytes at the beginning, which is where every format below identifies itself

# Brands of ISO base media files (ISO/IEC 14496-12), which share the box `ftyp`.
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF = (b"avif", b"avis")

# The formats of `MediaPolicy`, by their first bytes.
_SUPPORTED = (
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("WEBP", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]|II\0\*|MM\*\0")),
    ("BMP", re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL)),
)
_IMAGES = (
    ("JPEG XL", re.compile(rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n")),
    ("JPEG 2000", re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51")),
    ("Photoshop (PSD)", re.compile(rb"8BPS")),
    ("Windows icon (ICO)", re.compile(rb"\0\0[\x01\x02]\0[^\0]\0")),
    ("Apple icon (ICNS)", re.compile(rb"icns")),
    ("OpenEXR", re.compile(rb"\x76\x2f\x31\x01")),
    ("Radiance HDR", re.compile(rb"#\?(RADIANCE|RGBE)")),
    ("QOI", re.compile(rb"qoif")),
    ("DirectDraw Surface (DDS)", re.compile(rb"DDS ")),
    ("PCX", re.compile(rb"\x0a[\0\x02-\x05]\x01[\x01\x02\x04\x08]")),
    ("Netpbm (PBM, PGM, PPM)", re.compile(rb"P[1-7]\s")),
    ("DICOM", re.compile(rb".{128}DICM", re.DOTALL)),
    ("PostScript", re.compile(rb"%!PS|\xc5\xd0\xd3\xc6")),
    ("FITS", re.compile(rb"SIMPLE  =")),
    ("GIMP (XCF)", re.compile(rb"gimp xcf")),
)
_VIDEOS = re.compile(
    rb"\x1a\x45\xdf\xa3|RIFF....AVI |FLV\x01|\0\0\x01[\xba\xb3]|\x30\x26\xb2\x75\x8e\x66\xcf\x11|OggS"
    rb"|\x47.{187}\x47.{187}\x47|....(moov|mdat|wide)",
    re.DOTALL,
)
_AUDIO = re.compile(rb"ID3|RIFF....WAVE|fLaC|\xff[\xfb\xf3\xf2]", re.DOTALL)
_ARCHIVES = (
    ("a ZIP archive", re.compile(rb"PK\x03\x04|PK\x05\x06")),
    ("gzip data", re.compile(rb"\x1f\x8b")),
    ("a 7z archive", re.compile(rb"7z\xbc\xaf\x27\x1c")),
    ("a Parquet file", re.compile(rb"PAR1")),
    ("a NumPy array", re.compile(rb"\x93NUMPY")),
    ("a tar archive", re.compile(rb".{257}ustar", re.DOTALL)),
)
_LFS = b"version https://git-lfs.github.com/spec/"
# The group is atomic, so that many comments are not split up in every possible way.
_HTML = re.compile(
    rb"(?>(?:<!--.*?-->\s*)*)<(!doctype\s+html|html|head|body|title|script)\b", re.I | re.DOTALL
)
_SVG = re.compile(rb"<([a-z]\w*:)?svg\b", re.I)
_MARKUP = re.compile(rb"<[?!a-z]", re.I)
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{32,}=*\s*|[A-Za-z0-9+/_\s-]{256,}")

_CONVERT = "Convert it to PNG or JPEG."
ALLOW_DOCUMENTS = "A server accepts it with --allow-documents (in Python: MediaPolicy(allow_documents=True))."
"""The hint for what `MediaPolicy.allow_documents` forbids."""


def refusal(content: bytes, policy: MediaPolicy) -> MediaError:
    """The error for data that does not begin like an image of an allowed format."""
    known = f"Supported formats: {', '.join(map(display_name, _accepted(policy)))}."
    if not content:
        return MediaError("the image is empty: it has 0 bytes", hint="Check the file or the URL.")
    if form := image_format(content):
        if form in _accepted(policy):  # the build of Pillow lacks the decoder
            return MediaError(f"the installed Pillow cannot decode {form} images", hint=_CONVERT)
        name = display_name(form)
        if form in policy.formats:
            return MediaError(f"{name} images are not accepted here", hint=f"{_CONVERT} {ALLOW_DOCUMENTS}")
        return MediaError(f"{name} images are not allowed", hint=known)
    head = content[:_LOOKED_AT]
    if form := _unsupported_image(head):
        return MediaError(f"{form} images are not supported", hint=f"{_CONVERT} {known}")
    if found := _other(head):
        kind, hint = found
        return MediaError(f"the data is {kind}, not an image", hint=f"{hint} {known}".strip())
    return MediaError("the data is not an image", hint=known)


def display_name(form: str) -> str:
    """Return the usual name of a format for which Pillow has another name."""
    return "HEIC" if form == "HEIF" else form


def _accepted(policy: MediaPolicy) -> list[str]:
    return [form for form in policy.formats if form != "HEIF" or policy.allow_documents]


def is_pdf(content: bytes) -> bool:
    """Whether the data begins like a PDF; what precedes its header may be junk, as PDFium accepts it."""
    return b"%PDF-" in content[:1024] and image_format(content) is None


def image_format(content: bytes) -> str | None:
    """Pillow's name of the format that the data begins like, if `MediaPolicy` knows the format."""
    if content[4:8] == b"ftyp":
        brands = set(_brands(content))
        return "AVIF" if brands & set(_AVIF) else "HEIF" if brands & set(_HEIF) else None
    return next((name for name, pattern in _SUPPORTED if pattern.match(content)), None)


def _brands(content: bytes) -> list[bytes]:
    """The major brand and the compatible brands of an ISO base media file."""
    end = min(int.from_bytes(content[:4], "big"), _LOOKED_AT)
    return [content[8:12], *(content[at : at + 4] for at in range(16, end, 4))]


def _unsupported_image(head: bytes) -> str | None:
    if _is_svg(head):
        return "SVG"
    return next((name for name, pattern in _IMAGES if pattern.match(head)), None)


def _is_svg(head: bytes) -> bool:
    text = _text(head)
    # An HTML page may contain an SVG.
    return bool(_MARKUP.match(text) and _SVG.search(text)) and not _HTML.match(text)


def _other(head: bytes) -> tuple[str, str] | None:
    """Return an error that names the kind of data, which is not an image, and what to do about it."""
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        kind = "an audio file" if brand[:3] == b"M4A" else "a video"
        return kind, "Extract a frame as an image." if kind == "a video" else ""
    if _VIDEOS.match(head):
        return "a video", "Extract a frame as an image."
    if _AUDIO.match(head):
        return "an audio file", ""
    if is_pdf(head):
        return "a PDF", "Render its pages to images."
    for kind, pattern in _ARCHIVES:
        if pattern.match(head):
            return kind, ""
    return _text_kind(_text(head))


def _text_kind(text: bytes) -> tuple[str, str] | None:
    if text.startswith(_LFS):
        return "a Git LFS pointer", "Fetch the file itself with `git lfs pull`."
    if _HTML.match(text) or (_MARKUP.match(text) and re.search(rb"<html\b", text, re.I)):
        return "an HTML page", "Use the address of the image itself."
    if _MARKUP.match(text):
        return "an XML document", "It may be an error message of the host."
    if re.match(rb"[{\[]", text) and _is_text(text):
        return "JSON", "It may be an error message of the host."
    if text.startswith(b"data:image/"):
        return "a data URI", "Pass it as text, not as bytes or a file."
    if _BASE64.fullmatch(text):
        return "base64 text", "Pass it as text, not as bytes or a file."
    if text.strip() and _is_text(text):
        return "text", ""
    return None


def _text(head: bytes) -> bytes:
    """The data as text in UTF-8, without a byte order mark and white space in front."""
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if head.startswith(mark):
            head = head[2:].decode(encoding, "ignore").encode()
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()


def _is_text(text: bytes) -> bool:
    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        if error.start < len(text) - 3:  # else a character was cut in two
            return False
        decoded = text[: error.start].decode()
    return all(character.isprintable() or character in "\r\n\t\f" for character in decoded)

"""Which images may be loaded, and how large they may be."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

MIB = 1024 * 1024


class MediaPolicy(BaseModel):
    """Limits on images, shared by the Python API, the command line and the server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow_local_files: bool = True
    """Whether an image may be a local file."""
    allowed_local_path: Path | None = None
    """Allow only files below this directory, after resolving symbolic links and `..`."""
    allow_private_addresses: bool = False
    """Whether a URL may resolve to a private, loopback, link-local or otherwise special address."""
    allowed_domains: tuple[str, ...] | None = None
    """Allow only these hosts. Since they are named explicitly, they may have private addresses."""
    max_bytes: int = Field(default=50 * MIB, ge=1)
    """Maximum size of an encoded image, in bytes."""
    max_pixels: int = Field(default=100_000_000, ge=1)
    """Maximum width times height, read from the header before anything is decoded."""
    max_redirects: int = Field(default=5, ge=0)
    timeout_s: float = Field(default=20.0, gt=0)
    """Time limit for fetching one image, in seconds, from the DNS lookup to the last byte, and for rendering
    one page of a PDF."""
    formats: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
    """Pillow's names of the allowed formats, in capitals; no other decoder is tried. JPEG includes the MPO
    files of phone cameras. HEIF (HEIC) also needs `allow_documents`."""
    allow_documents: bool = True
    """Whether PDFs, pages of TIFFs (`scan.tif#page=2`) and HEIC images are accepted."""
    max_pages: int = Field(default=100, ge=1)
    """Maximum number of pages that one document may add to a request."""
    document_dpi: int = Field(default=150, ge=1)
    """Resolution of a PDF's pages, in pixels per inch, for a model that does not resize images."""
    max_video_bytes: int = Field(default=200 * MIB, ge=1)
    """Maximum size of an encoded video, in bytes."""
    max_video_seconds: float = Field(default=3600.0, gt=0)
    """Maximum duration of a video, in seconds, as its header states it."""
    max_video_frames: int = Field(default=216_000, ge=1)
    """Maximum number of frames in a video; by default, an hour of 60 a second."""
    max_video_pixels: int = Field(default=500_000_000, ge=1)
    """Maximum number of pixels in all frames of a video that a model sees, after they are scaled."""
    video_timeout_s: float = Field(default=60.0, gt=0)
    """Time limit for decoding one video, in seconds."""

    @classmethod
    def for_server(cls) -> Self:
        """The policy for requests from a network: no local files and no documents."""
        return cls(allow_local_files=False, allow_documents=False)

    def allows_address(self, host: str, address: str) -> bool:
        """Whether a connection to `address`, to which `host` resolved, is allowed."""
        if self.allow_private_addresses or self.allowed_domains is not None:
            return True
        return _is_public(ipaddress.ip_address(address))

    def allows_host(self, host: str) -> bool:
        """Whether requests to `host` are allowed."""
        return self.allowed_domains is None or host.lower() in {name.lower() for name in self.allowed_domains}


# Special addresses that not every version of Python reports as such.
_SPECIAL = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "168.63.129.16/32",  # Azure's platform services, as seen from its virtual machines
            "192.0.0.0/24",  # IETF protocol assignments; Oracle Cloud serves metadata here
            "192.88.99.0/24",  # former 6to4 relays
        ),
    )
)
# The block from which all public IPv6 addresses are assigned.
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# Addresses that translate to the IPv4 address in their last 32 bits.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def _is_public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not ip.is_multicast and not any(ip in network for network in _SPECIAL)
    if ip in _NAT64:
        return _is_public(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    if (inside := ip.ipv4_mapped) is not None:
        return _is_public(inside)
    if (inside := ip.sixtofour) is not None and not _is_public(inside):
        return False
    return ip in _GLOBAL_UNICAST and ip.is_global

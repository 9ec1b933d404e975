"""Fetches images over HTTP without connecting to addresses that the policy forbids.

The address that was checked is the address that is connected to: the host name is resolved once and
the request is sent to that address, so that a second DNS answer cannot redirect it. Every redirect
is checked in the same way.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from functools import cache
from urllib.parse import urljoin, urlsplit

import httpx

from vlm_run.errors import MediaError, printable
from vlm_run.media.policy import MIB, MediaPolicy
from vlm_run.media.resolve import resolve

# Longer URLs are shortened in error messages.
_URL_CHARACTERS = 200
# Encodings that httpx decompresses. Nested ones, or ones better than gzip, can expand a few bytes
# to gigabytes.
_ENCODINGS = {"gzip", "deflate", "br", "zstd"}
_ALLOWED_ENCODINGS: tuple[list[str], ...] = ([], ["gzip"], ["deflate"])
_ALLOW_PRIVATE = "Allow it with --allow-private-media (in Python: MediaPolicy(allow_private_addresses=True))."


async def fetch(url: str, policy: MediaPolicy) -> bytes:
    """Fetch the content of an http or https URL.

    Raises:
        MediaError: The policy forbids it, or it cannot be fetched.
    """
    # Loading the certificates takes time, which is not the host's.
    # A proxy from the environment would resolve host names itself, unchecked.
    unopened = httpx.AsyncClient(trust_env=False, timeout=policy.timeout_s, verify=_authorities())
    try:
        async with asyncio.timeout(policy.timeout_s), unopened as client:
            return await _follow(client, url, policy)
    except TimeoutError:
        raise MediaError(
            f"{printable(url, _URL_CHARACTERS)} took longer than {policy.timeout_s:g} s"
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        reason = printable(str(error), _URL_CHARACTERS) or type(error).__name__
        raise MediaError(f"{printable(url, _URL_CHARACTERS)} cannot be fetched: {reason}") from None


@cache
def _authorities() -> ssl.SSLContext:
    # Loaded once: it takes longer than many requests, and every client would load it again.
    return httpx.create_ssl_context(trust_env=False)


async def _follow(client: httpx.AsyncClient, url: str, policy: MediaPolicy) -> bytes:
    for _ in range(policy.max_redirects + 1):
        request = await _pinned_request(client, url, policy)
        response = await client.send(request, stream=True)
        try:
            if response.has_redirect_location:
                url = urljoin(url, response.headers["location"])
                continue
            if response.status_code != httpx.codes.OK:
                status = f"{response.status_code} {printable(response.reason_phrase)}".rstrip()
                raise MediaError(f"{printable(url, _URL_CHARACTERS)} answers {status}")
            return await _read(response, url, policy)
        finally:
            await response.aclose()
    raise MediaError(f"{printable(url, _URL_CHARACTERS)} redirects more than {policy.max_redirects} times")


async def _pinned_request(client: httpx.AsyncClient, url: str, policy: MediaPolicy) -> httpx.Request:
    """A request to a checked address, with the host name of the URL."""
    parts = urlsplit(url)
    host = parts.hostname
    if parts.scheme not in ("http", "https") or not host:
        raise MediaError(f"{printable(url, _URL_CHARACTERS)} is not an http or https URL")
    if not policy.allows_host(host):
        raise MediaError(f"{printable(host)} is not an allowed domain")
    address = await resolve(host, parts.port or (443 if parts.scheme == "https" else 80))
    if not policy.allows_address(host, address):
        raise MediaError(
            f"{printable(host)} has the private or special address {address}", hint=_ALLOW_PRIVATE
        )
    named = httpx.URL(url)
    return client.build_request(
        "GET",
        named.copy_with(host=address),
        headers={
            "Host": named.netloc.decode("ascii"),
            "User-Agent": "vlm-run",
            "Accept": "image/*,*/*;q=0.5",
            "Accept-Encoding": "identity",
        },
        # TLS must request and verify the certificate of the host name, not of the address.
        extensions={"sni_hostname": named.raw_host.decode("ascii")},
    )


async def _read(response: httpx.Response, url: str, policy: MediaPolicy) -> bytes:
    too_large = MediaError(f"{printable(url, _URL_CHARACTERS)} is larger than {policy.max_bytes / MIB:g} MiB")
    encodings = re.findall(r"[^\s,]+", response.headers.get("content-encoding", "").lower())
    if [name for name in encodings if name in _ENCODINGS] not in _ALLOWED_ENCODINGS:
        raise MediaError(
            f"{printable(url, _URL_CHARACTERS)} has the content encoding '{printable(', '.join(encodings))}'",
            hint="Serve the image uncompressed or with gzip.",
        )
    if int(response.headers.get("content-length", 0)) > policy.max_bytes:
        raise too_large
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > policy.max_bytes:
            raise too_large
    return bytes(content)

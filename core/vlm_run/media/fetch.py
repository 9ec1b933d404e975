"""Fetches images over HTTP without being led to places that the policy forbids.

The address that was checked is the address that is connected to: the name is resolved once, and
the request goes to the address under the name, so that a second answer of the name server cannot
lead elsewhere. Every redirect is checked anew.
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

# In messages, where a longer one would only be in the way.
_URL_CHARACTERS = 200
# What httpx unpacks. A second layer, or a better packer than gzip, makes gigabytes of one small piece.
_PACKERS = {"gzip", "deflate", "br", "zstd"}
_ALLOWED_PACKERS: tuple[list[str], ...] = ([], ["gzip"], ["deflate"])
_ALLOW_PRIVATE = "Allow it with --allow-private-media (in Python: MediaPolicy(allow_private_addresses=True))."


async def fetch(url: str, policy: MediaPolicy) -> bytes:
    """The bytes behind an http or https URL.

    Raises:
        MediaError: The policy forbids it, or it cannot be fetched.
    """
    try:
        async with asyncio.timeout(policy.timeout_s):
            # The environment's proxies would resolve names out of our sight.
            async with httpx.AsyncClient(
                trust_env=False, timeout=policy.timeout_s, verify=_authorities()
            ) as client:
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
    # Read once: that takes longer than many a fetch, and each client would do it again.
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
    """A request to a checked address, under the name in the URL."""
    parts = urlsplit(url)
    host = parts.hostname
    if parts.scheme not in ("http", "https") or not host:
        raise MediaError(f"{printable(url, _URL_CHARACTERS)} is no http or https URL")
    if not policy.allows_host(host):
        raise MediaError(f"{printable(host)} is not among the allowed domains")
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
        # TLS must ask for, and be shown the certificate of, the name.
        extensions={"sni_hostname": named.raw_host.decode("ascii")},
    )


async def _read(response: httpx.Response, url: str, policy: MediaPolicy) -> bytes:
    too_large = MediaError(f"{printable(url, _URL_CHARACTERS)} is larger than {policy.max_bytes / MIB:g} MiB")
    packers = re.findall(r"[^\s,]+", response.headers.get("content-encoding", "").lower())
    if [name for name in packers if name in _PACKERS] not in _ALLOWED_PACKERS:
        raise MediaError(
            f"{printable(url, _URL_CHARACTERS)} is packed as '{printable(', '.join(packers))}'",
            hint="Serve the image as it is, or in gzip.",
        )
    if int(response.headers.get("content-length", 0)) > policy.max_bytes:
        raise too_large
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > policy.max_bytes:
            raise too_large
    return bytes(content)

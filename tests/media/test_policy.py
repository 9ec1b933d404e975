"""Which addresses and hosts the policy lets a URL lead to."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from vlm_run import MediaPolicy

PUBLIC = [
    "8.8.8.8", "1.1.1.1", "192.0.1.1", "168.63.129.17",
    "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1",
]  # fmt: skip
SPECIAL = {
    "loopback": "127.0.0.1",
    "all of loopback": "127.8.8.8",
    "this host": "0.0.0.0",
    "private, class A": "10.0.0.1",
    "private, class B": "172.16.0.1",
    "private, class C": "192.168.0.1",
    "link-local, where clouds keep secrets": "169.254.169.254",
    "carrier's network": "100.64.0.1",
    "documentation": "192.0.2.1",
    "benchmarks": "198.18.0.1",
    "multicast": "224.0.0.1",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "loopback, v6": "::1",
    "this host, v6": "::",
    "private, v6": "fd00::1",
    "link-local, v6": "fe80::1",
    "link-local with its interface": "fe80::1%lo",
    "site-local, v6": "fec0::1",
    "multicast, v6": "ff0e::1",
    "documentation, v6": "2001:db8::1",
    "loopback, mapped": "::ffff:127.0.0.1",
    "private, mapped": "::ffff:10.0.0.1",
    "loopback by 6to4": "2002:7f00:1::",
    "private by 6to4": "2002:a00:1::1",
    "loopback by NAT64": "64:ff9b::7f00:1",
    "link-local by NAT64": "64:ff9b::a9fe:a9fe",
    "loopback, compatible": "::7f00:1",
    "loopback by a network's own NAT64": "64:ff9b:1::7f00:1",
    "loopback, translated": "::ffff:0:7f00:1",
    "loopback by Teredo": "2001:0:7f00:1::1",
    "Azure's platform": "168.63.129.16",
    "Oracle's metadata": "192.0.0.192",
    "Alibaba's metadata": "100.100.100.200",
    "Amazon's metadata, v6": "fd00:ec2::254",
    "relays of 6to4": "192.88.99.1",
    "discard, v6": "100::1",
    "segment routing, v6": "5f00::1",
    "given to nobody yet, v6": "4000::1",
}


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert MediaPolicy().allows_address("images.example", address)


@pytest.mark.parametrize("address", SPECIAL.values(), ids=SPECIAL)
def test_special_addresses_are_not_allowed_unless_said(address: str) -> None:
    assert not MediaPolicy().allows_address("images.example", address)
    assert MediaPolicy(allow_private_addresses=True).allows_address("images.example", address)


def test_a_host_that_was_named_may_have_a_private_address() -> None:
    policy = MediaPolicy(allowed_domains=("images.example",))
    assert policy.allows_address("images.example", "10.0.0.1")


def test_every_host_may_be_asked_unless_some_are_named() -> None:
    assert MediaPolicy().allows_host("anything.example")


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("images.example", True),
        ("Images.Example", True),
        ("other.example", False),
        ("sub.images.example", False),
        ("images.example.evil.example", False),
        ("10.0.0.1", False),
    ],
)
def test_only_named_hosts_may_be_asked(host: str, allowed: bool) -> None:
    assert MediaPolicy(allowed_domains=("images.EXAMPLE",)).allows_host(host) is allowed


def test_no_domain_at_all_may_be_asked() -> None:
    assert not MediaPolicy(allowed_domains=()).allows_host("images.example")


def test_a_server_reads_no_local_files() -> None:
    assert MediaPolicy().allow_local_files
    assert not MediaPolicy.for_server().allow_local_files
    assert not MediaPolicy.for_server().allow_private_addresses


@pytest.mark.parametrize(
    "fields",
    [{"max_bytes": 0}, {"max_pixels": 0}, {"max_redirects": -1}, {"timeout_s": 0}, {"max_size": 1}],
)
def test_limits_that_allow_nothing_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MediaPolicy(**fields)

"""Which addresses are reached: public ones, in whatever form they are written, and private ones only if allowed."""

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.addresses import AddressRefused, Guard

PRIVATE = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1"),
    *("169.254.169.254", "100.64.0.1", "100.127.255.255", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1"),
    *("203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "192.88.99.1"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "fec0::1", "2001:db8::1", "3fff::1"),
    *("2001::1", "100::1", "5f00::1", "4000::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1"),
    *("::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "2002:7f00:1::"),
    *("2002:a9fe:a9fe::1", "2002:0a00:0001::"),
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2a00:1450:4001::200e", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"]
DISGUISED = ["2130706433", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "017700000001", "127.0.0.0x1", "1", "0"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_refused(address: str) -> None:
    """No address of the machine, of a private network or of no single host is reached, however it is embedded."""
    with pytest.raises(AddressRefused):
        Guard().check(address)
    with pytest.raises(AddressRefused):
        Guard().check_host(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str) -> None:
    """A public address passes, also where IPv6 carries it."""
    Guard().check(address)
    Guard().check_host(address)


@pytest.mark.parametrize("host", [*DISGUISED, *(f"{host}." for host in DISGUISED), "example.123", "a.0x10"])
def test_numbers_in_disguise_are_refused(host: str) -> None:
    """A host that some resolvers read as a number is refused before it is resolved."""
    with pytest.raises(AddressRefused):
        Guard().check_host(host)


def test_names_are_left_to_the_resolver() -> None:
    """A name is no address: what it leads to is checked when it is resolved."""
    for host in ("example.com", "localhost", "a1.b2c", "xn--nxasmq6b.com", "0x7f.example"):
        Guard().check_host(host)


def test_allowed_networks_open_nothing_else() -> None:
    """A network that the setting names is reached, mapped into IPv6 too; its neighbours are not."""
    guard = Guard([ip_network("10.1.0.0/16"), ip_network("::1/128")])
    for address in ("10.1.2.3", "::1", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "8.8.8.8"):
        guard.check(address)
    for address in ("10.2.0.1", "127.0.0.1", "::2", "::ffff:10.2.0.1", "169.254.169.254"):
        with pytest.raises(AddressRefused):
            guard.check(address)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["::ffff:0:0", "64:ff9b::", "::", "::ffff:0:0:0", "2002::"]))
def test_an_embedded_address_is_judged_like_the_plain_one(number: int, prefix: str) -> None:
    """Whatever IPv4 address an IPv6 address carries, both are refused or neither is."""

    def passes(address: IPv4Address | IPv6Address) -> bool:
        try:
            Guard().check(str(address))
        except AddressRefused:
            return False
        return True

    shift = 80 if prefix == "2002::" else 0
    carried = IPv6Address(int(IPv6Address(prefix)) | number << shift)

    assert passes(IPv4Address(number)) == passes(carried)

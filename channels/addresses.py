"""Which network addresses outgoing HTTP may reach: public ones, and private networks that a setting names."""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_UNICAST: Final = IPv6Network("2000::/3")
# Ranges in which an IPv6 address stands for an IPv4 one: the network, and the bits to the right of it.
_EMBEDDING: Final = (
    (IPv6Network("::/96"), 0),  # compatible, obsolete
    (IPv6Network("::ffff:0:0/96"), 0),  # mapped
    (IPv6Network("::ffff:0:0:0/96"), 0),  # translated
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (IPv6Network("2002::/16"), 80),  # 6to4
)
# Not what `ipaddress` calls private, but nobody's public server either.
_NEVER_PUBLIC: Final[tuple[Network, ...]] = (
    IPv4Network("100.64.0.0/10"),  # carrier-grade NAT
    IPv4Network("192.0.0.0/24"),  # protocol assignments
    IPv4Network("192.88.99.0/24"),  # 6to4 relays
    IPv6Network("2001::/23"),  # Teredo, ORCHID and other protocols
    IPv6Network("2001:db8::/32"),  # documentation
    IPv6Network("3fff::/20"),  # documentation
)
_NUMBER: Final = re.compile(r"(\d+|0x[0-9a-f]*)", re.IGNORECASE)


class AddressRefused(Exception):
    """A connection would have reached an address that is not allowed; the text says which kind."""


class Guard:
    """Says which addresses may be reached."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        """Allow these networks beside the public ones."""
        self._allowed = tuple(allowed)

    def check(self, text: str) -> None:
        """Look at one address, as a resolver or a URL gives it.

        Raises:
            AddressRefused: it is private, of the machine itself, or no address of a single public host.
        """
        address = ip_address(text.partition("%")[0])
        embedded = _embedded(address)
        if self._is_allowed(address) or (embedded is not None and self._is_allowed(embedded)):
            return
        if not _is_public(address if embedded is None else embedded):
            raise AddressRefused(f"{text} is not a public address; HEADRACE_HTTP_ALLOW can permit its network")

    def check_host(self, host: str) -> None:
        """Look at the host of a URL before it is resolved: an address is checked, a name is not.

        Raises:
            AddressRefused: an address that is refused, or a number that some resolvers take for an address
                (decimal, octal, hexadecimal or short forms).
        """
        try:
            ip_address(host.partition("%")[0])
        except ValueError:
            if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
                raise AddressRefused(f"{host} is a number in disguise; write a name or a plain address") from None
            return
        self.check(host)

    def _is_allowed(self, address: Address) -> bool:
        return any(address in network for network in self._allowed if network.version == address.version)


def _embedded(address: Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for."""
    if isinstance(address, IPv4Address):
        return None
    for network, shift in _EMBEDDING:
        if address in network:
            return IPv4Address(int(address) >> shift & 0xFFFFFFFF)
    return None


def _is_public(address: Address) -> bool:
    if any(address in network for network in _NEVER_PUBLIC if network.version == address.version):
        return False
    if isinstance(address, IPv6Address) and address not in _UNICAST:
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)

"""Signed tokens: what the links of a message carry, so that whoever answers them needs no memory of the message.

A token is base64url, without padding, of: the format's version (1 byte), what it says (MessagePack), and the first
128 bits of an HMAC-SHA256 over both. It is signed, not secret: who has a link can read its user's key and its target.
"""

import hmac
from base64 import b32decode, b32encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from streams.errors import BadInput

TokenKind: TypeAlias = Literal["open", "click", "unsubscribe", "preferences", "bounce"]
EngagementKind: TypeAlias = Literal[
    "open", "click", "unsubscribe", "subscribed", "opted_in", "bounce", "soft_bounce", "complaint"
]

VERSION: Final = b"\x01"
MAC_BYTES: Final = 16
KEYS_MAX: Final = 4
KEY_CHARS_MIN: Final = 32
TOKEN_CHARS_MAX: Final = 6_000
URL_BYTES_MAX: Final = 2_048
"""Of a link that is signed; a longer one would not pass through every mail program and proxy."""

_LABEL: Final = b"headrace link\0"
_LABEL_PATH: Final = b"headrace return path\0"
_DISPATCH_BYTES: Final = 16
_CODES: Final[dict[TokenKind, str]] = {
    "open": "o",
    "click": "c",
    "unsubscribe": "u",
    "preferences": "p",
    "bounce": "b",
}
_KINDS: Final = {code: kind for kind, code in _CODES.items()}
ALLOWED: Final[dict[TokenKind, tuple[EngagementKind, ...]]] = {
    "open": ("open",),
    "click": ("click",),
    "unsubscribe": ("unsubscribe",),
    "preferences": ("unsubscribe", "subscribed", "opted_in"),
    "bounce": ("bounce", "soft_bounce", "complaint"),
}
"""What the holder of a token of each kind may say has happened."""

SigningKeys: TypeAlias = tuple[bytes, ...]
"""The first signs, all are accepted; none: nothing is signed, and nothing accepted."""


class Claims(msgspec.Struct, frozen=True):
    """What a token says of the dispatch whose message it stands in."""

    dispatch_id: str
    campaign: str
    variant: str
    channel: str
    user: str
    decided_ms: int


class Token(msgspec.Struct, frozen=True):
    """A token whose signature holds. `url` is where a click leads, empty for every other kind."""

    kind: TokenKind
    claims: Claims
    url: str = ""


class _Payload(msgspec.Struct, array_like=True, frozen=True):
    code: str
    dispatch: Annotated[bytes, msgspec.Meta(min_length=_DISPATCH_BYTES, max_length=_DISPATCH_BYTES)]
    campaign: str
    variant: str
    channel: str
    user: str
    decided_ms: int
    url: str = ""


_encode: Final = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(_Payload)


def read_signing_keys(text: str) -> SigningKeys:
    """The keys of a setting: at least 32 characters each, the newest first, commas between.

    Raises:
        ValueError: one is too short, or there are more than four; the text quotes none.
    """
    keys = tuple(part.strip().encode() for part in text.split(",") if part.strip())
    if any(len(key) < KEY_CHARS_MIN for key in keys):
        raise ValueError(f"a key has at least {KEY_CHARS_MIN} characters; make one with: openssl rand -hex 32")
    if not 0 < len(keys) <= KEYS_MAX:
        raise ValueError(f"give 1 to {KEYS_MAX} keys with commas between, the newest first")
    return keys


def sign(keys: SigningKeys, claims: Claims, kind: TokenKind, url: str = "") -> str:
    """The token of one link: the same arguments always give the same. Costs about 4 µs."""
    dispatch = bytes.fromhex(claims.dispatch_id)
    fields = (claims.campaign, claims.variant, claims.channel, claims.user, claims.decided_ms)
    body = VERSION + _encode(_Payload(_CODES[kind], dispatch, *fields, url))
    return urlsafe_b64encode(body + _mac(keys[0], _LABEL, body)).rstrip(b"=").decode()


def verify(keys: Sequence[bytes], text: str, kinds: Sequence[TokenKind]) -> Token:
    """What a token says, if one of the keys signed exactly this text for one of these kinds of link.

    Raises:
        BadInput: `bad_token` for whatever else it is; the reason quotes nothing of it.
    """
    body = _signed_body(keys, text)
    try:
        payload = _decoder.decode(body[1:])
    except msgspec.DecodeError:  # signed by us, so a newer version wrote it
        raise _refused("it is of a newer version") from None
    kind = _KINDS.get(payload.code)
    if kind is None or kind not in kinds:
        raise _refused("it is for another kind of link")
    claims = Claims(
        payload.dispatch.hex(), payload.campaign, payload.variant, payload.channel, payload.user, payload.decided_ms
    )
    return Token(kind, claims, payload.url)


def _signed_body(keys: Sequence[bytes], text: str) -> bytes:
    """Version and payload, in front of a signature that holds."""
    if not keys:
        raise _refused("there is no signing key; set HEADRACE_SIGNING_KEY")
    if not 0 < len(text) <= TOKEN_CHARS_MAX or not text.isascii():
        raise _refused("it is no token")
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise _refused("it is no token") from None
    # Python reads past foreign characters and idle bits: only the one text that `sign` gives is a token.
    if urlsafe_b64encode(data).rstrip(b"=").decode() != text or data[:1] != VERSION:
        raise _refused("it is no token")
    body, mac = data[:-MAC_BYTES], data[-MAC_BYTES:]
    if not _is_signed(keys, _LABEL, body, mac):
        raise _refused("its signature is of no key of ours")
    return body


def return_path(keys: SigningKeys, dispatch_id: str) -> str:
    """52 letters and digits for the envelope's sender, which has room for no more: the dispatch's id, signed.

    They are the same in upper case, as some mail servers write them.
    """
    dispatch = bytes.fromhex(dispatch_id)
    return b32encode(dispatch + _mac(keys[0], _LABEL_PATH, dispatch)).rstrip(b"=").decode().lower()


def read_return_path(keys: Sequence[bytes], text: str) -> str | None:
    """The dispatch's id in what `return_path` gave; None for anything else."""
    text = text.upper()
    try:
        data = b32decode(text + "=" * (-len(text) % 8))
    except ValueError:
        return None
    dispatch, mac = data[:_DISPATCH_BYTES], data[_DISPATCH_BYTES:]
    is_ours = b32encode(data).rstrip(b"=").decode() == text and _is_signed(keys, _LABEL_PATH, dispatch, mac)
    return dispatch.hex() if is_ours else None


def _is_signed(keys: Sequence[bytes], label: bytes, body: bytes, mac: bytes) -> bool:
    return any(hmac.compare_digest(_mac(key, label, body), mac) for key in keys)


def _mac(key: bytes, label: bytes, body: bytes) -> bytes:
    return hmac.digest(key, label + body, "sha256")[:MAC_BYTES]


def _refused(why: str) -> BadInput:
    return BadInput("bad_token", "token", f"{why}; only links that Headrace has made count")

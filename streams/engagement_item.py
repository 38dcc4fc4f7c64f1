"""An engagement of the events topic, `{"type": "engagement", "token": …, "kind": …, …}`: proven by its token."""

from typing import Annotated, Final

import msgspec

from streams.engagement import ALLOWED, EngagementKind, SigningKeys, TokenKind, verify
from streams.errors import BadInput
from streams.events import Engagement
from streams.track import decode_as, event_time

TYPE: Final = "engagement"
USER_AGENT_CHARS_MAX: Final = 512
REASON_CHARS_MAX: Final = 1_024
ADDRESS_CHARS_MAX: Final = 320
_ANY: Final[tuple[TokenKind, ...]] = tuple(ALLOWED)


class _Item(msgspec.Struct):
    token: str
    kind: EngagementKind
    time: str | None = None
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=255)] | None = None
    user_agent: Annotated[str, msgspec.Meta(max_length=USER_AGENT_CHARS_MAX)] = ""
    machine: bool = False
    address: Annotated[str, msgspec.Meta(max_length=ADDRESS_CHARS_MAX)] = ""
    reason: Annotated[str, msgspec.Meta(max_length=REASON_CHARS_MAX)] = ""
    source: Annotated[str, msgspec.Meta(max_length=40)] = ""


_decoder: Final = msgspec.json.Decoder(_Item)


def read_engagement(value: bytes, append_ms: int, keys: SigningKeys) -> Engagement:
    """The engagement in a record. Everything about the message comes from its token, nothing from beside it.

    Raises:
        BadInput: `bad_token` where the token is not ours, or does not allow this kind; else what is wrong with it.
    """
    item = decode_as(_decoder, value)
    token = verify(keys, item.token, _ANY)
    if item.kind not in ALLOWED[token.kind]:
        raise BadInput("bad_token", "kind", f"a token of {token.kind!r} does not prove {item.kind!r}")
    time_ms = event_time(item.time, append_ms)
    said = (item.user_agent, item.machine, item.address, item.reason, item.source)
    return Engagement(item.kind, time_ms, token.claims, item.id, token.url, *said)

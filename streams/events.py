"""What can happen to a user, as intake hands it on: validated, with times in milliseconds."""

from decimal import Decimal
from typing import Any, Literal, TypeAlias

import msgspec

from streams.engagement import Claims, EngagementKind

JSONScalar: TypeAlias = bool | int | float | str | None
# Free-form by nature, and the one place that says so.
JSONValue: TypeAlias = Any
Properties: TypeAlias = dict[str, JSONValue]


class CustomEvent(msgspec.Struct, frozen=True, array_like=True, tag="event", gc=False):
    """A named thing that the user did."""

    name: str
    time_ms: int
    properties: Properties
    id: str | None = None


class Purchase(msgspec.Struct, frozen=True, array_like=True, tag="purchase", gc=False):
    """`quantity` purchases of one product at `price` each, in `currency` (ISO 4217)."""

    product_id: str
    currency: str
    price: Decimal
    quantity: int
    time_ms: int
    properties: Properties
    id: str | None = None


class Attributes(msgspec.Struct, frozen=True, array_like=True, tag="attributes", gc=False):
    """Profile fields to set; null deletes."""

    values: dict[str, JSONScalar]
    time_ms: int
    id: str | None = None


class Session(msgspec.Struct, frozen=True, array_like=True, tag="session", gc=False):
    """A session of an app began, or ended; how long it was, where whoever tells its end knows."""

    started: bool
    time_ms: int
    app_id: str | None = None
    session_id: str | None = None
    id: str | None = None
    duration_s: float | None = None


class Engagement(msgspec.Struct, frozen=True, array_like=True, tag="engagement", gc=False):
    """What a recipient, or a mail server, did with a message of ours: proven by its token, so the row need not know it.

    `machine`: by the look of it no person did. `url` is where a click led; `address` and `reason` are a bounce's.
    """

    kind: EngagementKind
    time_ms: int
    claims: Claims
    id: str | None = None
    url: str = ""
    user_agent: str = ""
    machine: bool = False
    address: str = ""
    reason: str = ""
    source: str = ""


class Unblock(msgspec.Struct, frozen=True, array_like=True, tag="unblock", gc=False):
    """An operator lets the user's address be mailed again, if `why` is what it was blocked for."""

    why: Literal["hard_bounced", "marked_as_spam"]
    time_ms: int
    id: str | None = None


Event: TypeAlias = CustomEvent | Purchase | Attributes | Session | Engagement | Unblock

"""What a decision asks for: values, in order, for someone else to carry out."""

from typing import TypeAlias

import msgspec

from streams.events import JSONValue
from streams.mailbox import Cause, Consent, Forward, MergePart
from streams.records import Record
from streams.sends import Send


class SegmentChange(msgspec.Struct, frozen=True, gc=False):
    """A user entered (`entered` true) or left a segment at `time_ms`.

    `built`: not by what the user did or by time, but because the definition came or changed then.
    """

    segment: str
    user: str
    entered: bool
    time_ms: int
    built: bool = False


class CurrentsRecord(msgspec.Struct, frozen=True, gc=False):
    """One export record: its full event type, its time and its fields but for those two.

    `home`: the key of another user by whose partition it goes. What is done with a message goes by that of the user
    whom it was decided for, who may be somebody else by now: reports count a dispatch's first open in one place.
    """

    event_type: str
    time_ms: int
    fields: dict[str, JSONValue]
    home: str = ""


class Refused(msgspec.Struct, frozen=True, gc=False):
    """A letter that the user's row could not take (a limit, say), for dead-letters.

    `raw` is the letter as it lay in the mailbox; the cause says where the original record is, and `record`
    is that record, once an agent has looked it up and found it.
    """

    reason: str
    field: str
    detail: str
    cause: Cause
    user: str
    now_ms: int
    raw: bytes
    record: Record | None = None


class Post(msgspec.Struct, frozen=True, gc=False):
    """A letter of one user to another, whose mailbox may lie in another partition."""

    user: str
    letter: MergePart | Forward | Consent


Effect: TypeAlias = Send | SegmentChange | CurrentsRecord | Refused | Post

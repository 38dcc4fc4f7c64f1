"""What lies in a mailbox partition: everything that can change its users, in order."""

from typing import Final, Literal, TypeAlias

import msgspec

from streams.events import Attributes, CustomEvent, Engagement, JSONScalar, Purchase, Session, Unblock

OutcomeKind: TypeAlias = Literal["sent", "retry", "held", "aborted", "failed"]
FINAL_KINDS: Final = ("sent", "aborted", "failed")


class Cause(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a record came from: the source's topic id, partition and offset, and the item within it.

    Causes of one source partition only rise, so a partition that keeps the highest one it applied can
    drop whatever a crashed and repeated intake appends again.
    """

    topic_id: str
    partition: int
    offset: int
    item: int


class Happening(msgspec.Struct, frozen=True, array_like=True, tag="happening", gc=False):
    """Something that happened to the user of the record's key."""

    event: CustomEvent | Purchase | Attributes | Session | Engagement | Unblock
    cause: Cause


class Outcome(msgspec.Struct, frozen=True, array_like=True, tag="outcome", gc=False):
    """What became of a dispatch at one attempt; a final one is never replaced.

    `retry` (it will be attempted again) and `held` (nobody knows whether it was sent; an operator decides)
    leave the dispatch open. `attempt` counts from 1 and never falls. `duration_ms` is how long the attempt
    took, 0 where none was made. `delivered`: the receiving side has taken it over, and said so.
    """

    dispatch_id: str
    attempt: int
    kind: OutcomeKind
    at_ms: int
    reason: str = ""
    address: str = ""
    duration_ms: int = 0
    delivered: bool = False


class Tick(msgspec.Struct, frozen=True, array_like=True, tag="tick"):
    """Time has come this far; nothing else. In wall mode the record's own append time counts."""

    at_ms: int


class Switch(msgspec.Struct, frozen=True, array_like=True, tag="switch"):
    """From here on the workspace version `version` (an offset of the definitions topic) holds."""

    version: int


class Step(msgspec.Struct, frozen=True, array_like=True, tag="step"):
    """The scan for workspace version `version` decides the rows of users in (`after`, `to`]; None: to the last.

    It counts only where the scan has come as far as `after`, so a step that comes twice changes nothing.
    """

    version: int
    after: str
    to: str | None


class FanStep(msgspec.Struct, frozen=True, array_like=True, tag="fan"):
    """The fan-out of a number decides the users in (`after`, `to`]; None: to the last.

    It counts only where the fan-out has come as far as `after`, so a step that comes twice changes nothing.
    """

    number: int
    after: str
    to: str | None


class Probe(msgspec.Struct, frozen=True, array_like=True, tag="probe"):
    """A canary passes: the `number`-th of the process that calls itself `sender`. It changes nothing."""

    sender: str
    number: int


class Identify(msgspec.Struct, frozen=True, array_like=True, tag="identify", gc=False):
    """To a device's anonymous user: from `time_ms` on the device is that of the user `external_id`."""

    external_id: str
    time_ms: int
    cause: Cause


class MergePart(msgspec.Struct, frozen=True, array_like=True, tag="merge", gc=False):
    """From a device's anonymous user to a known one: everything known of it, or a part of that.

    `data` of all `parts` together is the row, empty where there is nothing to merge: then the device is that of
    the known user from now on, and no more. `version` is the workspace version that the row was decided by.
    `number` counts what an anonymous user sends, from 0: its receiver takes nothing twice.
    """

    device: str
    number: int
    part: int
    parts: int
    version: int
    data: bytes


class Forward(msgspec.Struct, frozen=True, array_like=True, tag="forward", gc=False):
    """From a device's anonymous user that was merged into a known one: a letter that came late, as it was."""

    device: str
    number: int
    letter: bytes


class Chosen(msgspec.Struct, frozen=True, array_like=True, tag="chosen", gc=False):
    """From a device's anonymous user, forwarded: before it was merged, a scheduled campaign had chosen it.

    `at_ms`, `local_ms` and `plan` are those of the occurrence. Its turn has come in its partition's fan-out.
    """

    campaign: str
    at_ms: int
    local_ms: int
    plan: str = ""


class Consent(msgspec.Struct, frozen=True, array_like=True, tag="consent", gc=False):
    """From a known user to the anonymous ones merged into it: what it consents to, for their open dispatches."""

    user: str
    values: dict[str, JSONScalar]


Letter: TypeAlias = (
    Happening | Outcome | Tick | Switch | Step | Probe | FanStep | Identify | MergePart | Forward | Consent | Chosen
)

_decoder: Final = msgspec.msgpack.Decoder(Letter)


def decode_letter(value: bytes) -> Letter:
    """The letter in a mailbox record; our own agents wrote it, so a failure is a defect and raises."""
    letter: Letter = _decoder.decode(value)
    return letter

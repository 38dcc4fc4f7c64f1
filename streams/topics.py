"""Every topic as data: its name, who writes it, how it is kept."""

from typing import Final

import msgspec

from streams.sends import Lane


class Topic(msgspec.Struct, frozen=True):
    """One topic of the catalogue; the full name is `<app>.<name>`.

    Of a `compacted` one only the newest record of a key is kept. `retention_s` bounds how long a record is kept
    behind its readers; None keeps it for ever. The embedded log keeps at most `retention_bytes` of them, over all
    partitions.
    """

    name: str
    writer: str
    meaning: str
    retention_s: int | None = 7 * 86_400
    retention_bytes: int = 8 * 1024**3
    compacted: bool = False


EVENTS: Final = Topic("events", "producers and doors", "What happened, as JSON, keyed by external id.")
MAILBOX: Final = Topic("mailbox", "intake, users, delivery, ticker", "All that can change a user, in order. Internal.")
SEGMENT_CHANGES: Final = Topic("segment-changes", "users", "A user entered or left a segment.")
CURRENTS: Final = Topic("currents", "users", "Engagement and behaviour records, for exports.")
REPORTS: Final = Topic(
    "reports", "reports", "Campaigns' counters as they change; on Kafka only.", retention_s=None, compacted=True
)
DEAD_LETTERS: Final = Topic("dead-letters", "intake, users", "Refused records, raw, with their position.")
DEFINITIONS: Final = Topic("definitions", "operators", "Workspace versions, whole.", retention_s=None)

KEYS: Final = Topic("keys", "operators", "Keys of the REST doors, as hashes.", retention_s=None)

CHANNEL_NAMES: Final = ("email", "log", "webhook")
SENDS: Final[dict[tuple[str, Lane], Topic]] = {
    **{
        (channel, "transactional"): Topic(
            f"sends.{channel}", "users", f"Dispatches decided for the channel {channel}, one user at a time."
        )
        for channel in CHANNEL_NAMES
    },
    **{
        (channel, "bulk"): Topic(
            f"sends.{channel}.bulk", "users", f"Dispatches decided for the channel {channel} by fan-outs."
        )
        for channel in CHANNEL_NAMES
    },
}
"""The topics of sends, by channel and lane: a lane of its own is what lets one pass by a million of the other."""

BULK: Final = frozenset(topic.name for (_, lane), topic in SENDS.items() if lane == "bulk")
"""The names of those that hold the sends of fan-outs."""

_OF_SEND: Final[dict[tuple[str, Lane], str]] = {
    **{place: topic.name for place, topic in SENDS.items()},
    ("canary", "transactional"): SENDS["log", "transactional"].name,
}


def sends_topic(channel: str, lane: Lane = "transactional") -> str:
    """The name of the topic that a channel's dispatches lie in; the canary's lie among those of `log`."""
    return _OF_SEND[channel, lane]


CATALOGUE: Final = (
    EVENTS,
    MAILBOX,
    *SENDS.values(),
    SEGMENT_CHANGES,
    CURRENTS,
    REPORTS,
    DEAD_LETTERS,
    DEFINITIONS,
    KEYS,
)
BY_NAME: Final = {topic.name: topic for topic in CATALOGUE}

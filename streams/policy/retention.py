"""Retention: how long, and within how many bytes, the embedded log keeps a topic behind its readers."""

from typing import Final

import msgspec

from streams import topics
from streams.errors import BadSetting
from streams.times import parse_duration

_UNITS: Final = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


class Kept(msgspec.Struct, frozen=True):
    """Records leave once they are older, or once newer ones fill the bytes; never before they were read."""

    age_s: int
    size_bytes: int


def read_retention(text: str) -> dict[str, Kept]:
    """What each topic keeps, by `topic=age/bytes` with commas between, such as `events=3d/2GiB`.

    Topics that are not named keep what the catalogue says; those that are kept for ever are left out.

    Raises:
        BadSetting: an unknown topic, or one that is kept for ever, an age or a size that cannot be read.
    """
    kept = {
        topic.name: Kept(topic.retention_s, topic.retention_bytes)
        for topic in topics.CATALOGUE
        if topic.retention_s is not None
    }
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, _, value = part.partition("=")
        if name not in kept:
            raise BadSetting(f"HEADRACE_RETENTION={part}: no topic {name!r}; there are {', '.join(sorted(kept))}")
        kept[name] = _kept(part, value)
    return kept


def _kept(part: str, value: str) -> Kept:
    age, _, size = value.partition("/")
    number = size.rstrip("KMGTiB")
    unit = size[len(number) :]
    try:
        return Kept(parse_duration(age) // 1_000, int(number) * _UNITS[unit])
    except (KeyError, ValueError):
        raise BadSetting(
            f"HEADRACE_RETENTION={part}: write topic=age/bytes, such as events=3d/2GiB; "
            "ages in d, h, m or s, sizes in KiB, MiB, GiB or TiB"
        ) from None

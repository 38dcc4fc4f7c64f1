"""Templates and contexts that several tests share, and a mapping that notes what is read from it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from channels.render import RenderContext
from streams.events import JSONValue


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A template and what becomes of it: a text, an abort, or an error at a line and a column."""

    name: str
    template: str
    context: RenderContext = RenderContext()
    html: bool = False
    one_line: bool = False
    text: str | None = None
    aborted: str | None = None
    error: str | None = None
    at: tuple[int, int] = (0, 0)


GOLDEN = msgspec.convert(json.loads((Path(__file__).parent / "golden.json").read_text("utf-8")), list[Golden])


class Recording(Mapping[str, JSONValue]):
    """A mapping that keeps the keys that were asked for, whether or not they are there."""

    def __init__(self, values: Mapping[str, JSONValue]) -> None:
        self.values_ = values
        self.asked: set[str] = set()

    def __getitem__(self, key: str) -> JSONValue:
        self.asked.add(key)
        return self.values_[key]

    def __iter__(self) -> Iterator[str]:
        self.asked.update(self.values_)
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)

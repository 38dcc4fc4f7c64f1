"""The state of one render: its variables, and how much of each limit it has used."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from io import StringIO
from typing import TextIO, cast

from liquid import BoundTemplate
from liquid import RenderContext as LiquidContext
from liquid.builtin.tags.for_tag import ForLoop
from liquid.builtin.tags.tablerow_tag import TableRow
from liquid.token import Token
from liquid.undefined import UNDEFINED
from liquid.utils import ReadOnlyChainMap

from channels.render.errors import RenderLimit
from channels.render.filter_table import Filter
from channels.render.limits import LOCAL_BYTES_MAX, LOOP_ITERATIONS_MAX, OUTPUT_BYTES_MAX, WORK_MAX
from channels.render.values import MISSING
from streams.campaigns.template_fields import ROOT_PREFIX


class Output(StringIO):
    """What has been rendered, counted in bytes of UTF-8; line ends stay as they are."""

    def __init__(self, limit_bytes: int = OUTPUT_BYTES_MAX) -> None:
        super().__init__()
        self.left_bytes = limit_bytes

    def write(self, text: str, /) -> int:
        """Append; raises RenderLimit when full, UnicodeEncodeError on half a surrogate pair."""
        self.left_bytes -= len(text) if text.isascii() else len(text.encode())
        if self.left_bytes < 0:
            raise RenderLimit("output_bytes", OUTPUT_BYTES_MAX)
        return super().write(text)


class Scope(LiquidContext):
    """A python-liquid context that knows no clock, gives `MISSING` for null, and counts what is done.

    Every step of work passes through here: python-liquid reads `disabled_tags` before it renders a node,
    calls `get` for a path and `filter` for a filter.
    """

    __slots__ = ("_sizes", "iterations", "local_bytes", "now_s", "work")

    def __init__(self, template: BoundTemplate, names: Mapping[str, object], now_s: float | None) -> None:
        self.now_s = now_s
        self.work = self.iterations = self.local_bytes = 0
        self._sizes: dict[str, int] = {}
        super().__init__(template, globals=names)
        # Without python-liquid's own `now` and `today`, which read the machine's clock.
        self.scope = ReadOnlyChainMap(self.locals, names, self.counters)

    def charge(self, steps: int) -> None:
        """Count steps of work; raises RenderLimit when there were too many."""
        self.work += steps
        if self.work > WORK_MAX:
            raise RenderLimit("work", WORK_MAX)

    @property
    def disabled_tags(self) -> list[str]:
        """No tag is disabled; asked once for each node that is rendered."""
        self.charge(1)
        return _NONE

    @disabled_tags.setter
    def disabled_tags(self, tags: list[str]) -> None:
        """Ignore what the base class sets."""

    def get(self, path: list[object], *, token: Token | None, default: object = UNDEFINED) -> object:
        """Return what a path leads to, `MISSING` where it leads nowhere or to null."""
        self.charge(1)
        root = cast("str", path[0])
        try:
            found: object = self.scope[root]
            for place, key in enumerate(path[1:]):
                # What `${size}` names is an attribute; only after it are `size`, `first` and `last` Liquid's.
                is_field = not place and root.startswith(ROOT_PREFIX)
                found = cast("Mapping[object, object]", found)[key] if is_field else self.get_item(found, key)
        except (KeyError, TypeError, IndexError):
            return MISSING
        return MISSING if found is None else found

    def filter(self, name: str, token: Token | None) -> Callable[..., object]:
        """Return a filter at work for this render; compiling has made sure that it is there."""
        self.charge(1)
        return partial(cast("Filter", self.env.filters[name]).run, self)

    def assign(self, key: str, val: object) -> None:
        """Keep a variable; raises RenderLimit when all of them together are too large."""
        self._hold(key, sys.getsizeof(val, 1))
        self.locals[key] = val

    def cycle(self, key: object, length: int) -> int:
        """Return which item of a cycle is next; its key, made of values, counts like a variable."""
        self._hold(f"cycle {key}", sys.getsizeof(key))
        return super().cycle(key, length)

    def raise_for_loop_limit(self, length: int = 1) -> None:
        """Refuse a loop that would take the iterations of this render over their limit."""
        if self.iterations + length > LOOP_ITERATIONS_MAX:
            raise RenderLimit("loop_iterations", LOOP_ITERATIONS_MAX)

    @contextmanager
    def loop(self, namespace: Mapping[str, object], forloop: ForLoop | TableRow) -> Iterator[LiquidContext]:
        """Count the iterations of a loop as it begins, whether or not `break` ends it early."""
        self.raise_for_loop_limit(forloop.length)
        self.iterations += forloop.length
        self.loops.append(forloop)
        with self.extend(namespace):
            try:
                yield self
            finally:
                self.loops.pop()

    def get_buffer(self, buf: TextIO | None = None) -> StringIO:
        """Return a buffer for `capture`, as large as what is left of the output."""
        return Output(buf.left_bytes if isinstance(buf, Output) else OUTPUT_BYTES_MAX)

    def _hold(self, key: str, size_bytes: int) -> None:
        self.local_bytes += size_bytes - self._sizes.get(key, 0)
        self._sizes[key] = size_bytes
        if self.local_bytes > LOCAL_BYTES_MAX:
            raise RenderLimit("local_bytes", LOCAL_BYTES_MAX)


_NONE: list[str] = []

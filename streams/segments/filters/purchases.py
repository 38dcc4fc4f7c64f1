"""Made so many purchases, of one product or any, ever or within a window."""

from collections.abc import Callable
from typing import Final

import msgspec

from streams.profiles.counters import CountWindow, count_once
from streams.profiles.row import User
from streams.segments.counting import LIMITS, bounds, compile_total, compile_window
from streams.segments.filter import Compiled, Count, Duration, Filter, Name, window_ms
from streams.segments.series import CountSeries


class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One limit (at least 1 without), and optionally a product and a window."""

    at_least: Count | None = None
    at_most: Count | None = None
    exactly: Count | None = None
    within: Duration | None = None
    product: Name | None = None


def compile_(params: Params) -> Compiled:
    """Compile to one dict lookup per test."""
    low, high = bounds(params)
    change = "purchases" if params.product is None else f"product:{params.product}"
    within = window_ms(params.within)
    if within is None:
        return compile_total(low, high, _counter_of(params.product), change)
    keep = max(low, 0 if high is None else high + 1)
    return compile_window(low, high, CountSeries(change, change, keep), within)


def _counter_of(product: str | None) -> Callable[[User], int]:
    def count(user: User) -> int:
        counter = user.purchases if product is None else user.products.get(product)
        return 0 if counter is None else counter.count

    return count


_BOUGHT: Final = User(
    1,
    1,
    0,
    90_000,
    products={"cds": count_once(0, 2)},
    purchases=count_once(0, 2),
    counts={"purchases": CountWindow(2, [0, 0]), "product:cds": CountWindow(2, [0, 0])},
)

FILTER: Final = Filter(
    name="purchases",
    label="Number of purchases",
    params=Params,
    compile=compile_,
    at_most_one=LIMITS,
    examples=(
        ({"at_least": 2}, _BOUGHT, 90_000, True),
        ({"at_least": 3}, _BOUGHT, 90_000, False),
        ({"product": "books"}, _BOUGHT, 90_000, False),
        ({"product": "cds", "within": "90s"}, _BOUGHT, 89_999, True),
        ({"within": "90s"}, _BOUGHT, 90_000, False),
    ),
)

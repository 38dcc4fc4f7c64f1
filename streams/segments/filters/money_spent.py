"""Spent more or less than an amount, ever or within a window, in one currency."""

from decimal import Decimal
from typing import Annotated, Final

import msgspec

from streams.errors import BadDefinition
from streams.events import JSONValue
from streams.profiles.counters import AmountWindow
from streams.profiles.row import User
from streams.segments.filter import Compiled, Duration, Filter, window_ms
from streams.segments.series import AmountSeries
from streams.times import format_duration, format_time


class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Exactly one of `over` and `under`, both strict, in `currency`; other currencies do not count."""

    over: Decimal | None = None
    under: Decimal | None = None
    within: Duration | None = None
    currency: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")] = "USD"


def compile_(params: Params) -> Compiled:
    """Compile to one lookup for a lifetime sum, to a sum over the window's entries otherwise."""
    if (params.over is None) == (params.under is None):
        raise BadDefinition("give exactly one of over and under")
    if not (params.over or params.under or Decimal(0)).is_finite():
        raise BadDefinition("over and under take a finite amount")
    change = f"money:{params.currency}"
    within = window_ms(params.within)
    if within is None:
        return _compile_total(params, change)
    return _compile_window(params, AmountSeries(change, change, within), within)


def _passes(params: Params, amount: Decimal) -> bool:
    if params.over is not None:
        return amount > params.over
    return params.under is not None and amount < params.under


def _compile_total(params: Params, change: str) -> Compiled:
    nothing = Decimal(0)

    def test(user: User, now_ms: int) -> bool:
        return _passes(params, user.money.get(params.currency, nothing))

    def explain(user: User, now_ms: int) -> dict[str, JSONValue]:
        amount = user.money.get(params.currency, nothing)
        return {"holds": test(user, now_ms), "amount": str(amount), "currency": params.currency}

    return Compiled(test, (change,), explain)


def _compile_window(params: Params, series: AmountSeries, within_ms: int) -> Compiled:
    def amount_of(user: User, now_ms: int) -> Decimal:
        window = user.amounts.get(series.key)
        return window.within(now_ms, within_ms) if window else Decimal(0)

    def test(user: User, now_ms: int) -> bool:
        return _passes(params, amount_of(user, now_ms))

    def changes_at(user: User, now_ms: int) -> int | None:
        """Any amount that leaves may flip the answer, since amounts may be negative."""
        window = user.amounts.get(series.key)
        oldest = window.oldest_within(now_ms, within_ms) if window else None
        return None if oldest is None else oldest + within_ms

    def explain(user: User, now_ms: int) -> dict[str, JSONValue]:
        window = user.amounts.get(series.key)
        change = changes_at(user, now_ms)
        return {
            "holds": test(user, now_ms),
            "amount": str(amount_of(user, now_ms)),
            "currency": params.currency,
            "within": format_duration(within_ms),
            "changes_at": format_time(change) if change is not None else None,
            **_exactness(window, now_ms, within_ms),
        }

    return Compiled(test, (series.change,), explain, changes_at, (series,))


def _exactness(window: AmountWindow | None, now_ms: int, within_ms: int) -> dict[str, JSONValue]:
    """How far the sum can be relied on, and from when on it is exact."""
    if window is not None and window.unsure_until_ms > now_ms - within_ms:
        error = f"amounts up to {format_time(window.unsure_until_ms)} may be missing: the definition came later"
        return {"error": error, "exact_from": format_time(window.unsure_until_ms + within_ms)}
    if window is not None and window.merged_until_ms > now_ms - within_ms:
        return {"error": "amounts older than the newest 128 may leave up to 24 h late"}
    return {"error": "exact"}


_SPENT: Final = User(
    1,
    1,
    0,
    10_000,
    money={"USD": Decimal("200.00")},
    amounts={"money:USD": AmountWindow([1_000, 9_000], [Decimal(150), Decimal(50)])},
)

FILTER: Final = Filter(
    name="money_spent",
    label="Money spent",
    params=Params,
    compile=compile_,
    exactly_one=("over", "under"),
    examples=(
        ({"over": 200}, _SPENT, 10_000, False),
        ({"over": 199.99}, _SPENT, 10_000, True),
        ({"under": 100, "within": "9s"}, _SPENT, 10_000, True),
        ({"under": 100, "within": "10s"}, _SPENT, 10_000, False),
        ({"over": 0, "currency": "EUR"}, _SPENT, 10_000, False),
    ),
)

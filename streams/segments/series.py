"""What rows must keep for the windows that live definitions ask about."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import msgspec

from streams.events import Properties


class CountSeries(msgspec.Struct, frozen=True):
    """Keep a total and the newest `keep` times of what is named by `change` and passes `matches`."""

    key: str
    change: str
    keep: int
    matches: Callable[[Properties], bool] | None = None


class AmountSeries(msgspec.Struct, frozen=True):
    """Keep the amounts of `change` for as long as the longest window, `keep_ms`."""

    key: str
    change: str
    keep_ms: int


Series: TypeAlias = CountSeries | AmountSeries
SeriesIndex: TypeAlias = Mapping[str, tuple[Series, ...]]


def index_series(all_series: Iterable[Series]) -> SeriesIndex:
    """Merge what several definitions ask of one series, and index it by what changes it."""
    merged: dict[str, Series] = {}
    for series in all_series:
        known = merged.get(series.key)
        merged[series.key] = series
        if isinstance(series, CountSeries) and isinstance(known, CountSeries):
            merged[series.key] = msgspec.structs.replace(series, keep=max(series.keep, known.keep))
        elif isinstance(series, AmountSeries) and isinstance(known, AmountSeries):
            merged[series.key] = msgspec.structs.replace(series, keep_ms=max(series.keep_ms, known.keep_ms))
    index: dict[str, list[Series]] = {}
    for key in sorted(merged):
        index.setdefault(merged[key].change, []).append(merged[key])
    return {change: tuple(found) for change, found in index.items()}

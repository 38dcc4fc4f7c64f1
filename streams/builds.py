"""What a new workspace version asks of rows that were decided by the one before."""

from collections.abc import Mapping
from typing import NamedTuple

from streams.profiles.past import begin_series
from streams.profiles.row import User
from streams.segments.series import AmountSeries, CountSeries, Series, SeriesIndex
from streams.workspace import Workspace


class Begun(NamedTuple):
    """A series that rows keep from now on, or more of than before."""

    series: Series
    was_kept: bool


class Build(NamedTuple):
    """The way of a row from one workspace version to the next.

    `ordinals` are the segments of `workspace` to ask, which are new or have another filter; `gone` the names
    that it has no more. `begun` are series to keep, `ended` keys of series that nobody asks about any more.
    """

    workspace: Workspace
    ordinals: tuple[int, ...]
    gone: tuple[str, ...]
    begun: tuple[Begun, ...]
    ended: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether every row can stay as it is."""
        return not (self.ordinals or self.gone or self.begun or self.ended)

    def keep_series(self, user: User, now_ms: int) -> bool:
        """Bring what the row keeps to what the workspace asks about; whether that changed the row."""
        changed = False
        for key in self.ended:
            changed |= user.counts.pop(key, None) is not None
            changed |= user.amounts.pop(key, None) is not None
        for series, was_kept in self.begun:
            changed |= begin_series(user, series, now_ms, was_kept=was_kept)
        return changed


def difference(old: Workspace, new: Workspace) -> Build:
    """What a row decided by `old` needs to be one of `new`."""
    trees = {segment.name: segment.tree for segment in old.segments}
    kept, wanted = _by_key(old.series), _by_key(new.series)
    return Build(
        new,
        tuple(at for at, segment in enumerate(new.segments) if trees.get(segment.name) != segment.tree),
        tuple(sorted(trees.keys() - {segment.name for segment in new.segments})),
        tuple(
            Begun(series, was_kept=key in kept)
            for key, series in sorted(wanted.items())
            if key not in kept or _asks_more(series, kept[key])
        ),
        tuple(sorted(kept.keys() - wanted.keys())),
    )


def affected_segments(build: Build) -> frozenset[str]:
    """The names of the segments whose members a build may change, by way of others too."""
    names: set[str] = set()
    for at, segment in enumerate(build.workspace.segments):
        if at in build.ordinals or names.intersection(segment.predicate.segments):
            names.add(segment.name)
    return frozenset(names)


def known_past(build: Build) -> dict[str, str]:
    """What rows can know of the time before the switch, per segment of `Build.ordinals`, in words for operators."""
    begun = {series.key: _past_of(series) for series, _ in build.begun}
    words = {}
    for at in build.ordinals:
        name, predicate, _ = build.workspace.segments[at]
        found = [begun[series.key] for series in predicate.series if series.key in begun]
        words[name] = "; ".join(dict.fromkeys(found)) or "exact at once"
    return words


def _past_of(series: Series) -> str:
    if isinstance(series, AmountSeries):
        return f"{series.key}: not known, exact when the window has passed"
    if series.matches is not None:
        return f"{series.key}: not known, windows are exact when they have passed"
    return f"{series.key}: first and last exact, others by UTC day until the window has passed"


def _by_key(index: SeriesIndex) -> Mapping[str, Series]:
    return {series.key: series for group in index.values() for series in group}


def _asks_more(series: Series, kept: Series) -> bool:
    if isinstance(series, AmountSeries) and isinstance(kept, AmountSeries):
        return series.keep_ms > kept.keep_ms
    return isinstance(series, CountSeries) and isinstance(kept, CountSeries) and series.keep > kept.keep

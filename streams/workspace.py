"""A workspace version, compiled: everything the users agent asks of definitions, indexed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from streams.campaigns.conversions import Conversion
from streams.campaigns.trigger import Campaign, compile_campaign
from streams.definitions import ALL_CAMPAIGNS, CampaignDefinition, Definitions, SegmentDefinition
from streams.errors import BadDefinition
from streams.events import JSONValue
from streams.profiles.row import new_user
from streams.segments.filter import ChangesAt, Compiled, Test
from streams.segments.predicate import compile_tree
from streams.segments.series import SeriesIndex, index_series

_Definition = TypeVar("_Definition", SegmentDefinition, CampaignDefinition)
_Result = TypeVar("_Result")
_Item = TypeVar("_Item")


class Segment(NamedTuple):
    """One segment, compiled; segments stand in an order in which each follows those it refers to."""

    name: str
    predicate: Compiled
    tree: Mapping[str, JSONValue]


class Asked(NamedTuple):
    """A segment as a decision asks it: its name, its test, and the ordinals of those that refer to it."""

    name: str
    test: Test
    dependents: tuple[int, ...]


class Workspace(msgspec.Struct, frozen=True):
    """One version. `index` maps a change to the ordinals of segments it may affect, ascending.

    `tests` and `changes_at` are the segments as decisions ask them, by ordinal. `timed` holds the ordinals
    of the segments that time alone can change, `timed_by` the same by the changes that they read. `first` holds
    those that a user enters of whom nothing is known, and all that refer to them. `signals` maps what happens
    to the campaigns it starts, in order of name, without paused ones. `scheduled` are the campaigns with a
    plan that nobody has cancelled, in order of name, paused ones among them; `cancelled` are digests of plans.
    `conversions` maps what happens to the campaigns whose open windows it may convert. `unknown` are the segments of a
    user of whom nothing is known.
    """

    version: int
    digest: str
    segments: tuple[Segment, ...]
    tests: tuple[Asked, ...]
    changes_at: tuple[ChangesAt | None, ...]
    index: Mapping[str, tuple[int, ...]]
    timed: tuple[int, ...]
    timed_by: Mapping[str, tuple[int, ...]]
    first: tuple[int, ...]
    series: SeriesIndex
    campaigns: Mapping[str, Campaign]
    signals: Mapping[str, tuple[Campaign, ...]]
    paused: frozenset[str]
    scheduled: Mapping[str, Campaign] = {}
    cancelled: Mapping[str, Sequence[str]] = {}
    conversions: Mapping[str, tuple[tuple[str, Conversion], ...]] = {}
    unknown: tuple[str, ...] = ()

    def is_paused(self, campaign: str) -> bool:
        """Whether the campaign, or all of them, are paused."""
        return campaign in self.paused or ALL_CAMPAIGNS in self.paused

    def is_cancelled(self, campaign: str) -> bool:
        """Whether the campaign has a schedule, and that is cancelled."""
        found = self.campaigns.get(campaign)
        return found is not None and found.plan is not None and campaign not in self.scheduled


def compile_workspace(definitions: Definitions, version: int) -> Workspace:
    """Compile a workspace. Raises BadDefinition with every fault, one per line."""
    faults: list[str] = []
    compiled = _each("segments", definitions.segments, _compile_segment, faults)
    campaigns = _each("campaigns", definitions.campaigns, compile_campaign, faults)
    faults += _unknown_segments(compiled, campaigns)
    if faults:
        raise BadDefinition("\n".join(faults))
    trees = {definition.name: definition.filter for definition in definitions.segments}
    segments = tuple(Segment(name, compiled[name], trees[name]) for name in _in_order(compiled))
    audiences = [campaign.audience for campaign in campaigns.values() if campaign.audience is not None]
    predicates = [segment.predicate for segment in segments] + audiences
    index = _index((change, at) for at, segment in enumerate(segments) for change in segment.predicate.reads)
    tests = tuple(Asked(name, predicate.test, index.get(f"segment:{name}", ())) for name, predicate, _ in segments)
    timed = tuple(at for at, segment in enumerate(segments) if segment.predicate.changes_at is not None)
    paused = frozenset(definitions.paused)
    unknown = _held_first(tests)
    live = [campaign for campaign in campaigns.values() if not {campaign.name, ALL_CAMPAIGNS} & paused]
    return Workspace(
        version,
        definitions.digest,
        segments,
        tests,
        tuple(predicate.changes_at for _, predicate, _ in segments),
        index,
        timed,
        _index((change, at) for at in timed for change in segments[at].predicate.reads),
        _entered_first(tests, unknown),
        index_series(series for predicate in predicates for series in predicate.series),
        campaigns,
        _index((campaign.signal, campaign) for campaign in live if campaign.plan is None),
        paused,
        {
            name: campaign
            for name, campaign in campaigns.items()
            if campaign.plan is not None and campaign.plan.digest not in definitions.cancelled.get(name, ())
        },
        definitions.cancelled,
        _index((each.signal, (name, each)) for name, campaign in campaigns.items() for each in campaign.conversions),
        unknown,
    )


def _held_first(tests: Sequence[Asked]) -> tuple[str, ...]:
    """The segments that hold for a user of whom nothing is known, at whatever time."""
    nobody = new_user(0)
    for name, test, _ in tests:
        if test(nobody, 0):
            nobody.memberships[name] = 0
    return tuple(nobody.memberships)


def _entered_first(tests: Sequence[Asked], unknown: Sequence[str]) -> tuple[int, ...]:
    """The ordinals of what holds for a user of whom nothing is known, and all that refers to it, at any remove."""
    held = set(unknown)
    todo = [at for at, (name, _, _) in enumerate(tests) if name in held]
    found: set[int] = set()
    while todo:
        at = todo.pop()
        if at not in found:
            found.add(at)
            todo += tests[at].dependents
    return tuple(sorted(found))


def _compile_segment(definition: SegmentDefinition) -> Compiled:
    return compile_tree(definition.filter)


def _each(
    kind: str,
    definitions: Sequence[_Definition],
    compile_one: Callable[[_Definition], _Result],
    faults: list[str],
) -> dict[str, _Result]:
    """Compile each definition under its name; what cannot be compiled is added to `faults`."""
    compiled: dict[str, _Result] = {}
    for definition in definitions:
        try:
            compiled[definition.name] = compile_one(definition)
        except BadDefinition as error:
            faults.append(f"{kind}/{definition.name}: {error}")
    return compiled


def _unknown_segments(segments: Mapping[str, Compiled], campaigns: Mapping[str, Campaign]) -> list[str]:
    """A fault for every reference to a segment that does not exist."""
    faults = []
    for name, predicate in segments.items():
        faults += [f"segments/{name}: no segment {other!r}" for other in predicate.segments if other not in segments]
    for campaign in campaigns.values():
        wanted = list(campaign.audience.segments) if campaign.audience else []
        kind, _, target = campaign.signal.partition(":")
        if kind in ("entered", "left"):
            wanted.append(target)
        faults += [f"campaigns/{campaign.name}: no segment {other!r}" for other in wanted if other not in segments]
    return faults


def _in_order(segments: Mapping[str, Compiled]) -> list[str]:
    """Names in an order in which each segment follows those it refers to. Raises BadDefinition if circular."""
    order: dict[str, None] = {}
    open_names: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        if name in open_names:
            raise BadDefinition(f"segments/{name}: refers to itself through {' -> '.join([*open_names, name])}")
        open_names.append(name)
        for other in segments[name].segments:
            visit(other)
        open_names.pop()
        order[name] = None

    for name in sorted(segments):
        visit(name)
    return list(order)


def _index(pairs: Iterable[tuple[str, _Item]]) -> dict[str, tuple[_Item, ...]]:
    """Group the second parts by the first, keeping their order."""
    groups: dict[str, list[_Item]] = {}
    for key, item in pairs:
        groups.setdefault(key, []).append(item)
    return {key: tuple(items) for key, items in groups.items()}

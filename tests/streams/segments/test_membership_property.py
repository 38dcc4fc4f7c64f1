"""Incremental membership equals recomputation from scratch, after every input and at every moment between.

`Model` knows nothing of counters, windows or timers: it keeps the raw inputs and evaluates each tree over all
of them, at every time at which anything could leave a window.
"""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st

from streams.codec import to_json
from streams.events import JSONValue
from streams.mailbox import Tick
from streams.times import format_time
from tests.driver import Driver

START_MS = 1_000_000_000_000
WINDOWS_S = (1, 2, 3)
USERS = ("ann", "bob")
Tree = dict[str, Any]


class Input(NamedTuple):
    """What was sent: the kind, the user, its own time as the rules understand it, and its object."""

    kind: str
    user: str
    time_ms: int
    value: dict[str, Any]


class Change(NamedTuple):
    time_ms: int
    user: str
    segment: str
    entered: bool


# ---- the model


@dataclass
class Model:
    """All inputs so far, the clock, and what each user was a member of when last looked at."""

    segments: dict[str, Tree]
    now_ms: int
    inputs: list[Input] = field(default_factory=list)
    members: dict[str, dict[str, int]] = field(default_factory=dict)

    def advance(self, now_ms: int) -> list[Change]:
        """Let time pass, looking at every moment at which an input is as old as a window is long."""
        edges = {one.time_ms + seconds * 1_000 for one in self.inputs for seconds in WINDOWS_S}
        changes = []
        for edge_ms in sorted(edge for edge in edges if self.now_ms < edge <= now_ms):
            changes += self.look(edge_ms)
        self.now_ms = max(self.now_ms, now_ms)
        return changes

    def take(self, one: Input) -> list[Change]:
        """Add an input at the present time."""
        self.inputs.append(one)
        self.members.setdefault(one.user, {})
        return self.look(self.now_ms)

    def look(self, now_ms: int) -> list[Change]:
        changes = []
        for user, members in self.members.items():
            for name, tree in self.segments.items():
                holds = self.holds(tree, user, now_ms)
                if holds != (name in members):
                    changes.append(Change(now_ms, user, name, holds))
                if not holds:
                    members.pop(name, None)
                members.update({name: now_ms} if holds and name not in members else {})
        return changes

    def holds(self, tree: Tree, user: str, now_ms: int) -> bool:
        ((name, params),) = tree.items()
        if name == "not":
            return not self.holds(params, user, now_ms)
        if name in ("all", "any"):
            return (all if name == "all" else any)([self.holds(part, user, now_ms) for part in params])
        if name == "segment":
            return self.holds(self.segments[params], user, now_ms)
        if name == "attribute":
            value = self.attribute(user, params["path"])
            lacking_holds = value is None and ("under" in params or params.get("is") == 0)
            return lacking_holds or compare(value, params)
        kind = "event" if name == "event" else "purchase"
        mine = [one for one in self.inputs if one.user == user and one.kind == kind]
        if "within" in params:
            since_ms = now_ms - int(params["within"][:-1]) * 1_000
            mine = [one for one in mine if since_ms < one.time_ms <= now_ms]
        return spent(mine, params) if name == "money_spent" else counted(mine, params)

    def attribute(self, user: str, path: str) -> JSONValue:
        values = [
            one.value[path]
            for one in self.inputs
            if one.user == user and one.kind == "attributes" and path in one.value
        ]
        return values[-1] if values else None


def compare(value: JSONValue, params: Tree) -> bool:
    """One condition on a value, None where there is none."""
    if "is" in params:
        return bool(value == params["is"])
    if "is_not" in params:
        return bool(value != params["is_not"])
    if "exists" in params:
        return bool((value is not None) == params["exists"])
    if "under" in params:
        return bool(isinstance(value, int) and value < params["under"])
    return bool(isinstance(value, int) and value > params["over"])


def counted(mine: list[Input], params: Tree) -> bool:
    """How many pass, against the one limit."""
    if "name" in params:
        mine = [one for one in mine if one.value["name"] == params["name"]]
    if "product" in params:
        mine = [one for one in mine if one.value["product_id"] == params["product"]]
    for path, wanted in params.get("where", {}).items():
        limits = wanted if isinstance(wanted, dict) else {"is": wanted}
        found = [(one, one.value.get("properties", {}).get(path)) for one in mine]
        mine = [one for one, value in found if compare(value, limits)]
    count = sum(one.value.get("quantity", 1) for one in mine)
    if "exactly" in params:
        return bool(count == int(params["exactly"]))
    if "at_most" in params:
        return bool(count <= int(params["at_most"]))
    return bool(count >= int(params.get("at_least", 1)))


def spent(mine: list[Input], params: Tree) -> bool:
    """How much was spent in the currency, strictly over or under."""
    currency = params.get("currency", "USD")
    prices = [one for one in mine if one.value["currency"] == currency]
    total = sum((Decimal(one.value["price"]) * one.value.get("quantity", 1) for one in prices), Decimal(0))
    return total > Decimal(params["over"]) if "over" in params else total < Decimal(params["under"])


# ---- random workspaces


def optional(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Tree]:
    """Strategy of mappings with any of the keys."""
    return st.fixed_dictionaries({}, optional=keys)


def one_of_keys(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Tree]:
    """Strategy of mappings with exactly one of the keys."""
    return st.one_of(*(st.fixed_dictionaries({name: values}) for name, values in keys.items()))


def merged(*parts: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    """Strategy of the parts joined into one mapping."""
    return st.tuples(*parts).map(lambda found: {key: value for part in found for key, value in part.items()})


no_limit: st.SearchStrategy[Tree] = st.just({})
limits = no_limit | one_of_keys(at_least=st.integers(0, 3), at_most=st.integers(0, 2), exactly=st.integers(0, 2))
windows = st.sampled_from([f"{seconds}s" for seconds in WINDOWS_S])
always_windows = st.fixed_dictionaries({"within": windows})
maybe_windows = optional(within=windows) | always_windows
wheres = st.sampled_from([{"k": 1}, {"k": {"over": 0}}, {"k": {"under": 1}}, {"k": {"exists": False}}])
names = st.sampled_from(["look", "like"])
amounts = st.sampled_from(["0", "1", "1.5", "-1", "4"])
leaves = st.one_of(
    merged(st.fixed_dictionaries({"name": names}), limits, maybe_windows, optional(where=wheres)).map(
        lambda params: {"event": params}
    ),
    merged(limits, maybe_windows, optional(product=st.sampled_from(["cds", "tea"]))).map(
        lambda params: {"purchases": params}
    ),
    merged(one_of_keys(over=amounts, under=amounts), maybe_windows, optional(currency=st.just("EUR"))).map(
        lambda params: {"money_spent": params}
    ),
    merged(
        st.fixed_dictionaries({"path": st.sampled_from(["x", "y"])}),
        one_of_keys(
            **{"is": st.sampled_from([0, 1, "b"]), "is_not": st.just(1)},
            over=st.just(0),
            under=st.just(1),
            exists=st.booleans(),
        ),
    ).map(lambda params: {"attribute": params}),
)


def trees(known: list[str]) -> st.SearchStrategy[Tree]:
    """Trees of any filter; references go to the segments that are known already."""
    references = st.sampled_from(known).map(lambda name: {"segment": name}) if known else st.nothing()
    return st.recursive(
        leaves | references,
        lambda inner: (
            one_of_keys(all=st.lists(inner, min_size=1, max_size=3), any=st.lists(inner, min_size=1, max_size=3))
            | inner.map(lambda tree: {"not": tree})
        ),
        max_leaves=4,
    )


@st.composite
def workspaces(draw: st.DrawFn) -> dict[str, Tree]:
    """Up to four segments, named against the order in which they refer to each other."""
    order = draw(st.permutations(["s1", "s2", "s3", "s4"]))[: draw(st.integers(1, 4))]
    segments: dict[str, Tree] = {}
    for name in order:
        segments[name] = draw(trees(list(segments)))
    return segments


# ---- random inputs


class Step(NamedTuple):
    """Move time, then perhaps send something about a user that happened `late_ms` ago.

    Time moves by `by_ms`, or, with `edge`, to the n-th coming window edge, give or take `by_ms`.
    """

    edge: int | None
    by_ms: int
    user: str
    kind: Literal["tick", "event", "purchase", "attributes"]
    late_ms: int
    value: dict[str, Any]


near = st.sampled_from([-1, 0, 0, 1])
lateness = st.sampled_from([0, 0, 0, 1, 999, 1_000, 1_001, 2_000, 3_000, 5_000, -700])
steps = st.one_of(
    st.tuples(st.just(None), st.sampled_from([0, 0, 1, 500, 999, 1_000, 1_001, 2_000, 4_000])),
    st.tuples(st.integers(0, 3), near),
)
things: st.SearchStrategy[tuple[str, Tree]] = st.one_of(
    st.tuples(st.just("tick"), st.just({})),
    st.tuples(
        st.just("event"),
        merged(
            st.fixed_dictionaries({"name": names}),
            optional(properties=st.fixed_dictionaries({"k": st.sampled_from([0, 1, 2, "b"])})),
        ),
    ),
    st.tuples(
        st.just("purchase"),
        merged(
            st.fixed_dictionaries(
                {
                    "product_id": st.sampled_from(["cds", "tea"]),
                    "currency": st.sampled_from(["USD", "USD", "EUR"]),
                    "price": st.sampled_from(["1", "0.5", "-1", "0.00"]),
                }
            ),
            optional(quantity=st.integers(1, 3)),
        ),
    ),
    st.tuples(
        st.just("attributes"),
        st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from([0, 1, "b", None]), min_size=1),
    ),
)
all_steps = st.lists(
    st.builds(
        lambda move, user, thing, late_ms: Step(move[0], move[1], user, thing[0], late_ms, thing[1]),
        steps,
        st.sampled_from(USERS),
        things,
        lateness,
    ),
    min_size=1,
    max_size=14,
)


def target_ms(model: Model, step: Step) -> int:
    """Where the step moves time to; never backwards."""
    edges = sorted({one.time_ms + seconds * 1_000 for one in model.inputs for seconds in WINDOWS_S})
    coming = [edge for edge in edges if edge > model.now_ms]
    if step.edge is None or not coming:
        return model.now_ms + max(0, step.by_ms)
    return max(model.now_ms, coming[min(step.edge, len(coming) - 1)] + step.by_ms)


def run(segments: dict[str, Tree], steps: list[Step], clock: Literal["wall", "stream"]) -> None:
    """Send every step to a driver and to the model, and compare after each."""
    files = {f"segments/{name}.yaml": {"name": name, "filter": tree} for name, tree in segments.items()}
    driver = Driver(files, clock=clock)
    driver.now_ms = START_MS
    driver.deliver(0, None, Tick(START_MS))
    model = Model(segments, START_MS)
    for step in steps:
        seen = len(driver.changes)
        now_ms = target_ms(model, step)
        expected = play_wall(driver, model, step, now_ms) if clock == "wall" else play(driver, model, step, now_ms)

        changes = [Change(one.time_ms, one.user, one.segment, one.entered) for one in driver.changes[seen:]]
        assert sorted(changes) == sorted(expected)
        assert [one.time_ms for one in changes] == sorted(one.time_ms for one in changes)
        assert {user: driver.user(user).memberships for user in model.members} == model.members


def play_wall(driver: Driver, model: Model, step: Step, now_ms: int) -> list[Change]:
    """Under the wall clock the append time moves time, whatever is appended, and no time lies ahead of it."""
    driver.now_ms = now_ms
    changes = model.advance(now_ms)
    if step.kind == "tick":
        driver.advance(0)
        return changes
    send(driver, step, now_ms - step.late_ms)
    return changes + model.take(Input(step.kind, step.user, min(now_ms, now_ms - step.late_ms), step.value))


def play(driver: Driver, model: Model, step: Step, now_ms: int) -> list[Change]:
    """Under the stream clock only event times and ticks move time; attributes do not."""
    driver.now_ms = START_MS + 86_400_000
    if step.kind == "tick":
        driver.deliver(0, None, Tick(now_ms))
        return model.advance(now_ms)
    time_ms = now_ms - step.late_ms
    changes = [] if step.kind == "attributes" else model.advance(max(model.now_ms, time_ms))
    send(driver, step, time_ms)
    return changes + model.take(Input(step.kind, step.user, time_ms, step.value))


def send(driver: Driver, step: Step, time_ms: int) -> None:
    """Send a step as one record."""
    one = {"type": step.kind, "external_id": step.user, "time": format_time(time_ms), **step.value}
    driver.send(to_json(one))
    assert driver.dead_letters == []


# A purchase in the last millisecond in which the one before it still counts.
BOUGHT = {"product_id": "cds", "currency": "USD"}
LAST_MOMENT = [
    Step(None, 0, "ann", "purchase", 0, {**BOUGHT, "price": "1"}),
    Step(2, -1, "ann", "purchase", 0, {**BOUGHT, "price": "0.5"}),
    Step(0, 0, "ann", "tick", 0, {}),
]


@settings(max_examples=150)
@example({"s1": {"money_spent": {"over": "1", "within": "3s"}}}, LAST_MOMENT)
@given(workspaces(), all_steps)
def test_memberships_under_the_wall_clock(segments: dict[str, Tree], steps: list[Step]) -> None:
    """Under the wall clock every enter and leave comes exactly at its own millisecond, and no other does."""
    run(segments, steps, "wall")


@settings(max_examples=150)
@example({"s1": {"money_spent": {"over": "1", "within": "3s"}}}, LAST_MOMENT)
@given(workspaces(), all_steps)
def test_memberships_under_the_stream_clock(segments: dict[str, Tree], steps: list[Step]) -> None:
    """Under the stream clock every enter and leave comes exactly at its own millisecond, and no other does."""
    run(segments, steps, "stream")

"""Answers to operators' questions, from the state as last committed."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, get_args

import msgspec

from agents.definitions import Workspaces
from agents.engine.engine import Engine
from agents.intake import NAME as INTAKE
from agents.web.campaigns import campaign_rows
from streams import canary, ids, topics
from streams.builds import affected_segments, difference
from streams.codec import partition_of
from streams.engagement import Claims
from streams.errors import BadSetting
from streams.events import JSONValue
from streams.profiles.row import Devices, Engaged, Merged, Reachability, User
from streams.records import Place, Record
from streams.times import format_time
from tables.cursors import read_cursors
from tables.dispatches import FINAL, Dispatch, Dispatches, State
from tables.partition import UsersView
from tables.positions import read_position, read_refused
from tables.reports import read_progress
from tables.store import Store

LIST_MAX: Final = 100_000
Answer = dict[str, Any]


class Queries:
    """Read-only; works beside running agents and on a folder that nobody uses."""

    def __init__(self, store: Store, engine: Engine, workspaces: Workspaces) -> None:
        self._store = store
        self._engine = engine
        self._transport = engine.transport
        self._workspaces = workspaces
        self._users = UsersView(store)

    @property
    def _partitions(self) -> list[int]:
        """Those that this process answers for: what it holds, or everything in a folder that nobody runs."""
        return sorted(self._engine.held) if self._engine.failure else list(range(self._transport.partitions))

    def row(self, external_id: str) -> User | None:
        """The user's row, None where another worker holds it."""
        partition = partition_of(external_id.encode(), self._transport.partitions)
        if partition not in self._partitions:
            return None
        user = self._users.get(partition, external_id)
        if user is None:
            raise BadSetting(f"no user {external_id!r}; ids are case-sensitive")
        return user

    def user(self, external_id: str) -> Answer | None:
        """Everything known of a user."""
        user = self.row(external_id)
        if user is None:
            return None
        now_ms = user.now_ms
        answer: Answer = msgspec.to_builtins(
            {
                **_identity(external_id, user),
                "last_decided": format_time(now_ms),
                "next_timer": None if user.timer_ms is None else format_time(user.timer_ms),
                "attributes": user.attributes,
                "purchases": _counter(user.purchases, now_ms),
                "money": {currency: str(amount) for currency, amount in sorted(user.money.items())},
                "products": {name: _counter(found, now_ms) for name, found in sorted(user.products.items())},
                "events": {name: _counter(found, now_ms) for name, found in sorted(user.events.items())},
                "sessions": _counter(user.sessions, now_ms),
                "segments": {name: format_time(at) for name, at in sorted(user.memberships.items())},
                "campaigns": {
                    name: {"entries": history.entries, "last": format_time(history.last_ms)}
                    for name, history in sorted(user.campaigns.items())
                },
                "engaged": {name: _engaged(found) for name, found in sorted(user.engaged.items())},
                **({"address_blocked": _blocked(user.reach)} if user.reach is not None and user.reach.blocked else {}),
                "open_dispatches": len([found for found in user.dispatches.values() if not found.final_ms]),
            }
        )
        return answer

    def explain(self, external_id: str, segment: str) -> Answer | None:
        """Why a user is, or is not, in a segment: the tree with each leaf's verdict, at the partition's time."""
        workspace = self._workspaces.latest
        found = next((each for each in workspace.segments if each.name == segment), None)
        if found is None:
            known = ", ".join(each.name for each in workspace.segments) or "none"
            raise BadSetting(f"no segment {segment!r}; segments are {known}")
        user = self.row(external_id)
        if user is None:
            return None
        partition = partition_of(external_id.encode(), self._transport.partitions)
        position = self._users.position(partition)
        now_ms = max(user.now_ms, position.clock_ms)
        scan = position.open_scan
        is_building = scan is not None and user.built < position.built and external_id > scan.cursor
        return {
            "external_id": external_id,
            "segment": segment,
            "member": segment in user.memberships,
            "at": format_time(now_ms),
            **({"building": True} if is_building else {}),
            "why": msgspec.to_builtins(found.predicate.explain(user, now_ms)),
        }

    def segments(self) -> Answer:
        """Per segment how many entered, left and are in it now.

        While its definition is being built over existing users, `building` says how many are not decided yet.
        """
        entered, left = self._sum("entered"), self._sum("left")
        building = self._building()
        return {
            segment.name: {
                "entered": int(entered.get(segment.name, 0)),
                "left": int(left.get(segment.name, 0)),
                "now": int(entered.get(segment.name, 0) - left.get(segment.name, 0)),
                **({"building": building[segment.name]} if segment.name in building else {}),
            }
            for segment in sorted(self._workspaces.latest.segments, key=lambda segment: segment.name)
        }

    def _building(self) -> dict[str, int]:
        """Users not decided yet, per segment whose members an open scan may change."""
        found: dict[str, int] = {}
        for partition in self._partitions:
            position = self._users.position(partition)
            scan = position.open_scan
            if scan is None:
                continue
            left = max(1, position.totals.users - scan.rows)
            names: set[str] = set()
            for turn in scan.turns:
                names |= affected_segments(difference(self._workspaces.of(turn.was), self._workspaces.of(turn.version)))
            for name in names:
                found[name] = found.get(name, 0) + left
        return found

    def scans(self) -> list[Answer]:
        """Per partition: the workspace version in force, and how far its last build over existing users is.

        `switch_offset` is the mailbox offset from which on the definitions hold; memberships are current
        everywhere in the partition once its state is `current`. `waiting`: it has not heard of the newest.
        """
        rows: list[Answer] = []
        for partition in self._partitions:
            position = self._users.position(partition)
            scan, users = position.scan, position.totals.users
            state = "current" if position.version == self._workspaces.latest_version else "waiting"
            rows.append(
                {
                    "partition": partition,
                    "version": position.version,
                    "state": state if position.open_scan is None else "building",
                    "users": users,
                    "decided": users if position.open_scan is None else min(position.open_scan.rows, users),
                    "built_version": None if scan is None else scan.version,
                    "switch_offset": None if scan is None else scan.start_offset,
                    "switch_time": None if scan is None else format_time(scan.at_ms),
                    "ended": None if scan is None or scan.ended_ms is None else format_time(scan.ended_ms),
                }
            )
        return rows

    def _sum(self, field: str) -> dict[str, Decimal | int]:
        total: dict[str, Decimal | int] = {}
        for partition in self._partitions:
            for name, count in getattr(self._users.position(partition).totals, field).items():
                total[name] = total.get(name, 0) + count
        return total

    def totals(self) -> Answer:
        """What has happened since the data folder began, summed over partitions."""
        all_totals = [self._users.position(at).totals for at in self._partitions]
        names = (
            "users",
            "purchases",
            "custom_events",
            "attributes",
            "sessions",
            "duplicates",
            "refused",
            "timers",
        )
        answer: Answer = {name: sum(getattr(totals, name) for totals in all_totals) for name in names}
        answer["revenue"] = {currency: str(amount) for currency, amount in sorted(self._sum("revenue").items())}
        cursors = [read_cursors(self._store, at) for at in self._partitions]
        answer["export"] = {
            "files": sum(each.files for each in cursors),
            "rows": sum(each.rows for each in cursors),
        }
        answer["dead_letters"] = sum(
            read_refused(self._store, at) + totals.refused
            for at, totals in zip(self._partitions, all_totals, strict=True)
        )
        return answer

    def sends(self) -> Answer:
        """Dispatches recorded, per campaign and state."""
        answer: Answer = {name: {} for name in sorted(self._workspaces.latest.campaigns)}
        for partition in self._partitions:
            for campaign, states in Dispatches(self._store, partition).counts.items():
                if campaign == canary.CAMPAIGN:
                    continue
                row = answer.setdefault(campaign, {})
                for state, count in sorted(states.items()):
                    if not count:
                        continue
                    row[state] = row.get(state, 0) + count
        return answer

    def campaigns(self) -> list[Answer]:
        """Per campaign: whether it is scheduled, under way or done, when it comes round next, and how far it is."""
        sent: dict[str, int] = {}
        for partition in self._partitions:
            for name, states in Dispatches(self._store, partition).counts.items():
                sent[name] = sent.get(name, 0) + states.get("sent", 0)
        positions = (self._users.position(partition) for partition in self._partitions)
        return campaign_rows(self._workspaces.latest, positions, sent, self._engine.clock.now_ms())

    def dispatch(self, dispatch_id: str) -> Answer | None:
        """What links of a dispatch's message say of it; None where it is not known, or not here."""
        for partition in self._partitions:
            found = Dispatches(self._store, partition).find(dispatch_id)
            if found is not None:
                user = self._users.get(partition, found.user)
                kept = None if user is None else user.dispatches.get(dispatch_id)
                variant = "" if kept is None else kept.variant
                told = Claims(dispatch_id, found.campaign, variant, found.channel, found.user, found.decided_ms)
                return msgspec.structs.asdict(told)
        return None

    async def dispatches(self, *, state: str = "", limit: int = LIST_MAX) -> list[Answer]:
        """Single dispatches, open ones first, without their content; others work while many are looked through."""
        if state and state not in get_args(State):
            raise BadSetting(f"no state {state!r}; states are {', '.join(get_args(State))}")
        limit = min(limit, LIST_MAX)
        found: list[Answer] = []
        for partition in self._partitions:
            for page in Dispatches(self._store, partition).pages(state):
                found += [_dispatch(each) for each in page if each.campaign != canary.CAMPAIGN]
                if len(found) >= limit:
                    return found[:limit]
                await self._engine.pace.rest()
        return found

    async def lag(self) -> list[Answer]:
        """Per agent, topic and partition: its position, the end, and the difference in records."""
        rows = []
        positions = list(self._positions())
        ends = await self._transport.ends([(topic, partition) for _, topic, partition, _ in positions])
        for agent, topic, partition, stored in positions:
            end = ends[topic, partition]
            position = await self._next_record(topic, partition, stored, end)
            rows.append(
                {
                    "agent": agent,
                    "topic": topic,
                    "partition": partition,
                    "position": position,
                    "end": end,
                    "lag": max(0, end - position),
                }
            )
        return rows

    async def _next_record(self, topic: str, partition: int, position: int, end: int) -> int:
        """Where the next record lies: on Kafka a stopped worker stands before markers, which are no records."""
        if position >= end or self._engine.failure or not self._engine.settings.on_kafka:
            return position
        start = (await self._transport.starts([(topic, partition)]))[topic, partition]
        if position < start:
            return position  # retention has overtaken it, which must show
        records = await self._transport.look(topic, partition, position, 1)
        return records[0].offset if records else end

    def _positions(self) -> Iterator[tuple[str, str, int, int]]:
        if self._engine.failure:
            for (agent, (topic, partition)), finished in sorted(self._engine.slices.readings().items(), key=_place):
                yield agent, topic, partition, finished
            return
        for partition in self._partitions:
            yield INTAKE, "events", partition, read_position(self._store, INTAKE, "events", partition)
            yield "users", "mailbox", partition, self._users.position(partition).next_offset
            for channel in topics.SENDS.values():
                yield (
                    "delivery",
                    channel.name,
                    partition,
                    read_position(self._store, "delivery", channel.name, partition),
                )
            if self._engine.settings.exports_folder is not None:
                yield "export", "currents", partition, read_cursors(self._store, partition).next_offset
            yield "reports", "currents", partition, read_progress(self._store, partition).next_offset

    async def tail(self, topic: str, limit: int = 20) -> list[Answer]:
        """The newest records of a topic, oldest first."""
        if topic not in topics.BY_NAME:
            raise BadSetting(f"no topic {topic!r}; topics are {', '.join(topics.BY_NAME)}")
        rows: list[tuple[int, int, Record]] = []
        places = [(topic, partition) for partition in range(self._transport.partitions)]
        starts, ends = await self._transport.starts(places), await self._transport.ends(places)
        for place in places:
            offset = max(starts[place], ends[place] - limit)
            while offset < ends[place] and (records := await self._transport.look(*place, offset, limit)):
                rows += [(record.append_ms, place[1], record) for record in records]
                offset = records[-1].offset + 1
        rows.sort(key=lambda row: row[:2])
        return [_shown(topic, partition, record) for _, partition, record in rows[-limit:]]


def _place(reading: tuple[tuple[str, Place], int]) -> tuple[Place, str]:
    """Readings in the order of their topics and partitions."""
    return reading[0][1], reading[0][0]


def _dispatch(dispatch: Dispatch) -> Answer:
    return {
        "dispatch_id": dispatch.dispatch_id,
        "campaign": dispatch.campaign,
        "channel": dispatch.channel,
        "user": dispatch.user,
        "state": dispatch.state,
        "final": dispatch.state in FINAL,
        "decided": format_time(dispatch.decided_ms),
        "reason": dispatch.reason,
    }


def _shown(topic: str, partition: int, record: Record) -> Answer:
    headers: Mapping[str, bytes] = dict(record.headers)
    return {
        "topic": topic,
        "partition": partition,
        "offset": record.offset,
        "time": format_time(record.append_ms),
        "key": None if record.key is None else record.key.decode(errors="replace"),
        "headers": {name: value.decode(errors="replace") for name, value in headers.items()},
        "value": record.value[:4_096].decode(errors="replace"),
    }


def _identity(user_key: str, user: User) -> Answer:
    """Who a user is: a known one and its devices, or a device's anonymous one and whom it was merged into."""
    device_id, links = ids.device_of(user_key), user.links
    known: Answer = {"external_id": user_key} if device_id is None else {"external_id": None, "device_id": device_id}
    known["user_id"] = ids.user_id(user_key)
    if isinstance(links, Merged):
        first, *later = links.relations
        known["merged_into"] = first.user
        known["identified"] = format_time(first.since_ms)
        known["later_users"] = [{"external_id": each.user, "since": format_time(each.since_ms)} for each in later]
    elif isinstance(links, Devices):
        known["devices"] = [ids.device_of(key) for key in links.taken]
    return known


def _counter(counter: JSONValue, now_ms: int) -> Answer | None:
    if counter is None:
        return None
    return {
        "count": counter.count,
        "first": format_time(counter.first_ms),
        "last": format_time(counter.last_ms),
        "in_30_calendar_days": counter.in_days(now_ms, 30),
    }


def _engaged(found: Engaged) -> Answer:
    """Opens and clicks of one campaign; the last ones by a person, null for none."""
    opened, clicked = (None if not at else format_time(at) for at in (found.open_ms, found.click_ms))
    counts = {"opens": found.opens, "machine_opens": found.machine_opens, "clicks": found.clicks}
    return {**counts, "last_open": opened, "last_click": clicked}


def _blocked(found: Reachability) -> Answer:
    return {"address": found.blocked, "why": found.why, "since": format_time(found.blocked_ms)}

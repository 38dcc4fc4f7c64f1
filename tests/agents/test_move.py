"""A folder of the embedded log on its way to Kafka: all of it, once, however often the way is interrupted."""

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from agents.move.mover import move
from agents.move.source import Source
from agents.node import Node
from agents.restore import restore
from agents.signing import signing_keys
from config.clock import ManualClock
from config.settings import Settings, load_settings
from streams import topics
from streams.codec import partition_of
from streams.engagement import Claims, sign
from streams.errors import BadSetting, BadState
from streams.profiles.row import decode_row
from streams.records import Output, Place, Record
from streams.sends import decode_send
from tables.changelog import Changelog
from tables.cursors import read_cursors
from tables.dispatches import Dispatches
from tables.moved import Moved, refuse_arriving
from tables.partition import UsersView
from tables.positions import read_refused
from tables.reports import read_progress
from tables.restored import read_restored
from tables.store import Store
from tests.agents.deliveries import Rig, Steered
from tests.agents.nodes import (
    NOW_MS,
    PARTITIONS,
    ask,
    environment,
    event,
    process,
    running,
    send,
    until,
    write_workspace,
)
from tests.agents.test_backup import FILES, address
from tests.oracle.reports import recount, rows_of_files
from tests.report_tables import counted

USERS = 30
HOUR_MS = 3_600_000
WIDER = {**FILES, "segments/more.yaml": {"name": "more", "filter": {"event": {"name": "like", "at_least": 1}}}}


KEPT = ("users", "due", "dispatches", "reports")


class MemoryLog:
    """Topics in memory, as Kafka keeps them, until an append that fails part of the way."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.topics: dict[Place, list[Output]] = {}
        self.left = -1

    async def start(self) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Nothing to disconnect from."""

    def topic_id(self, topic: str) -> str:
        return topic

    async def starts(self, places: Iterable[Place]) -> dict[Place, int]:
        return dict.fromkeys(places, 0)

    async def ends(self, places: Iterable[Place]) -> dict[Place, int]:
        return {place: len(self.topics.get(place, [])) for place in places}

    async def look(self, topic: str, partition: int, offset: int, records_max: int) -> list[Record]:
        found = self.topics.get((topic, partition), [])[offset : offset + records_max]
        return [Record(offset + at, NOW_MS, each.key, each.value, each.headers) for at, each in enumerate(found)]

    async def append(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            if not self.left:
                raise ConnectionError("the broker went away")
            self.left -= 1
            self.topics.setdefault((output.topic, output.partition), []).append(output)


def target(data: Path, partitions: int, **more: object) -> Settings:
    """The settings of the workers to come."""
    return load_settings(environment(data, partitions=partitions, broker="kafka://127.0.0.1:1", **more))


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A folder in which everything is under way: unread events, a scan, timers, held and pending mails, replays."""
    data = tmp_path / "old"
    write_workspace(tmp_path / "workspace", FILES)
    write_workspace(tmp_path / "wider", WIDER)
    names = [f"u{number}" for number in range(USERS)]
    async with running(data, workspace=tmp_path / "workspace") as node:
        await process(node, *map(address, names), *map(event, names), b"bad", b"worse")
        await node.ask("replay", {"partition": 0, "limit": 1})
        await node.export.flush()
        await node.delivery.rest()
        await send(node, *map(event, names))
        await until(lambda: sum(row.get("pending", 0) for row in node.queries.sends().values()) == USERS)
        node.engine.slices.paused = True
        await node.workspaces.adopt(tmp_path / "wider", insist=True)
        await send(node, *map(event, names[:10]), b"worst")
    return data


async def carried(folder: Path, log: MemoryLog, **more: object) -> dict[str, Any]:
    """Move a folder onto a log."""
    return await move(target(folder / "new", log.partitions, **more), ManualClock(NOW_MS), folder, log)


def arrived(log: MemoryLog, path: Path) -> Store:
    """The state that workers restore from the changelog."""
    store = Store(path)
    for partition in range(log.partitions):
        rows = [(each.key or b"", each.value) for each in log.topics["changelog", partition]]
        for start in range(0, len(rows), 100):
            Changelog(store, partition).apply(dict(rows[start : start + 100]), start, NOW_MS)
        refuse_arriving(store, partition)
    return store


@pytest.mark.parametrize("partitions", [1, 2, 5])
async def test_all_that_was_under_way_arrives_where_it_belongs(folder: Path, tmp_path: Path, partitions: int) -> None:
    """Rows, timers, dispatches, counts and cursors are in the partition of their user, each once."""
    log = MemoryLog(partitions)
    told = await carried(folder, log)
    assert (told["users"], told["partitions"]) == (USERS, [PARTITIONS, partitions])
    store = arrived(log, tmp_path / "arrived")
    view = UsersView(store)
    rows = {user: (at, decode_row(row)) for at in range(partitions) for user, row in view.raw(at)}
    assert {user: at for user, (at, _) in rows.items()} == {
        f"u{number}": partition_of(f"u{number}".encode(), partitions) for number in range(USERS)
    }
    likes = {user: row.events["like"].count for user, (_, row) in rows.items()}
    assert likes == {f"u{number}": 3 if number < 10 else 2 for number in range(USERS)}
    assert {user for user, (_, row) in rows.items() if "more" in row.memberships} == set(rows)  # the scan has ended
    due = {(key[10:].decode(), int.from_bytes(key[2:10], "big")) for key, _ in store.scan("due", b"", b"\xff" * 9)}
    assert due == {(user, row.timer_ms) for user, (_, row) in rows.items()}

    tables = [Dispatches(store, at) for at in range(partitions)]
    counts: Counter[str] = Counter()
    for at, table in enumerate(tables):
        for by_state in table.counts.values():
            counts.update(by_state)
        for _ in table.load():
            pass
        waiting = table.take("email", "transactional", lambda lane: USERS, USERS)
        assert {partition_of(each.user.encode(), partitions) for each in waiting} <= {at}
        assert all(each.request for each in waiting)
        assert all(a.seq < b.seq for a, b in pairwise(waiting))
        counts["taken"] += len(waiting)
    assert (counts["sent"], counts["pending"], counts["taken"]) == (USERS, USERS, USERS)
    unread = [out for (topic, _), outs in log.topics.items() if topic == "sends.email" for out in outs]
    assert len(unread) == 10
    assert not {topic for topic, _ in log.topics} & {topics.EVENTS.name, topics.MAILBOX.name}

    positions = [view.position(at) for at in range(partitions)]
    assert {(each.next_offset, each.version, each.scan, each.clock_ms) for each in positions} == {(0, 1, None, NOW_MS)}
    assert sum(each.totals.users for each in positions) == USERS
    assert sum(each.totals.custom_events for each in positions) == 2 * USERS + 10
    assert sum(read_refused(store, at) for at in range(partitions)) == 4
    cursors = [read_cursors(store, at) for at in range(partitions)]
    copied = [len(log.topics.get(("currents", at), [])) for at in range(partitions)]
    assert [each.next_offset for each in cursors] == copied
    assert sum(each.rows for each in cursors) == sum(copied)
    replayed = [key for key, _ in store.scan("meta", b"replayed\0", b"replayed\1")]
    assert len(replayed) == 1
    files = rows_of_files(folder / "exports") + rows_of_files(folder / "new" / "exports")
    assert counted(store, range(partitions)) == recount(files) != {}
    assert [read_progress(store, at).next_offset for at in range(partitions)] == copied
    store.close()


@pytest.mark.parametrize("seed", range(3))
async def test_a_move_that_is_interrupted_goes_on(folder: Path, tmp_path: Path, seed: int) -> None:
    """Broken off at random records, again and again, a move leaves what one that nothing disturbs leaves."""
    whole, broken = MemoryLog(3), MemoryLog(3)
    broken.left = 0
    with pytest.raises(ConnectionError):  # drained, and nothing carried
        await carried(folder, broken)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    await carried(copy, whole)
    dice, breaks = Random(seed), 0
    for _ in range(99):
        broken.left = dice.randrange(1, 180) if breaks < 6 else -1
        try:
            await carried(folder, broken)
            break
        except ConnectionError:
            breaks += 1
            with pytest.raises(BadState, match="not finished"):
                arrived(broken, tmp_path / f"half{breaks}")
    assert breaks >= 4
    for (topic, partition), outputs in whole.topics.items():
        if topic != "changelog":
            assert broken.topics[topic, partition] == outputs
    states = []
    for log, name in ((whole, "whole"), (broken, "broken")):
        store = arrived(log, tmp_path / name)
        states.append(
            [list(store.scan(family, b"", b"\xff" * 64)) for family in ("users", "due", "dispatches", "reports")]
        )
        states[-1].append([row for row in store.scan("meta", b"", b"\xff" * 64) if not row[0].startswith(b"changelog")])
        store.close()
    assert states[0] == states[1]


async def test_partitions_that_nothing_ever_came_to_hold_up_no_move(tmp_path: Path) -> None:
    """A folder whose users are all in one partition is moved to others, at the version of the workspace that it has."""
    async with running(tmp_path / "old", workspace=write_workspace(tmp_path / "workspace", FILES)) as node:
        await process(node, address("ann"))
        versions = {UsersView(node.store).position(at).version for at in range(PARTITIONS)}
        assert versions == {-1, node.workspaces.latest_version}
    log = MemoryLog(3)
    told = await carried(tmp_path / "old", log)
    store = arrived(log, tmp_path / "arrived")
    assert told["users"] == 1
    assert {UsersView(store).position(at).version for at in range(3)} == {max(versions)}
    store.close()


@pytest.mark.parametrize("setting", [{}, {"signing_key": "k" * 32}])
async def test_what_links_of_mails_led_to_is_read(tmp_path: Path, setting: dict[str, str]) -> None:
    """An unread unsubscription, signed by the setting's key or the folder's own, is folded, with bounces or without."""
    data, mail = tmp_path / "old", {"smtp": "smtp://127.0.0.1:1", "bounce_address": "back@b.c"}
    async with running(data, None, **setting) as node:
        await process(node, address("ann"))
        token = sign(signing_keys(node.settings), Claims("ab" * 16, "now", "", "email", "ann", NOW_MS), "unsubscribe")
        node.engine.slices.paused = True
        await send(node, {"type": "engagement", "external_id": "ann", "kind": "unsubscribe", "token": token})
    shutil.copytree(data, tmp_path / "copy")
    for folder, more in ((data, {}), (tmp_path / "copy", mail)):
        log = MemoryLog(1)
        await carried(folder, log, **setting, **more)
        store = arrived(log, folder / "arrived")
        [(_, row)] = UsersView(store).raw(0)
        assert decode_row(row).attributes["email_subscribe"] == "unsubscribed"
        assert read_refused(store, 0) == 0
        store.close()


async def test_what_a_restored_folder_may_have_sent_is_held_behind_a_move_too(tmp_path: Path) -> None:
    """Sends decided up to the restore, by records or timers, wait on Kafka for an operator; later ones go out."""
    data, restored, there, clock = tmp_path / "old", tmp_path / "restored", tmp_path / "there", ManualClock(NOW_MS)
    async with running(data, clock, workspace=write_workspace(tmp_path / "workspace", FILES)) as node:
        await process(node, address("ann"))
        node.engine.slices.paused = True
        await send(node, event("ann"))
        await ask(node, "backup", folder=str(tmp_path / "backup"))
    clock.advance(3 * HOUR_MS)
    await restore(load_settings(environment(restored)), clock, tmp_path / "backup")
    shutil.copytree(restored, tmp_path / "copy")
    wide, log = MemoryLog(5), MemoryLog(1)
    await carried(tmp_path / "copy", wide)
    store = arrived(wide, tmp_path / "wide")
    marks = [read_restored(store, at) for at in range(5)]
    assert [mark and mark.until_ms for mark in marks] == [clock.now_ms()] * 5
    store.close()

    await carried(restored, log)
    arrived(log, there / "db").close()
    mails = Steered()
    rig = Rig(there, {"email": mails})
    await rig.engine.transport.append(log.topics["definitions", 0])
    await rig.start()
    [unread] = [decode_send(output.value) for output in log.topics["sends.email", 0]]
    fired = msgspec.structs.replace(unread, dispatch_id="cd" * 16, decided_ms=clock.now_ms())
    later = msgspec.structs.replace(unread, dispatch_id="ef" * 16, decided_ms=clock.now_ms() + 1)
    await rig.record(unread, fired, later)
    await rig.until(lambda: rig.states == {"held": 2, "sent": 1})
    assert [request.dispatch_id for request in mails.asked] == [later.dispatch_id]
    await rig.close()
    rig.store.close()


@pytest.mark.parametrize("left_out", [0, 1, 2, 3])
async def test_a_move_that_broke_off_at_its_end_leaves_alone_what_workers_have_written(
    folder: Path, tmp_path: Path, left_out: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it lets workers begin, or before it notes that, and repeated, it writes no old state over theirs."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    whole, log = MemoryLog(3), MemoryLog(3)
    told = await carried(copy, whole)
    log.left = sum(map(len, whole.topics.values())) - left_out
    real = Source.note

    async def note(source: Source, moved: Moved) -> None:
        if moved.done:
            raise ConnectionError("killed")
        await real(source, moved)

    with monkeypatch.context() as patched:
        patched.setattr(Source, "note", note)
        with pytest.raises(ConnectionError):
            await carried(folder, log)
    log.left = -1
    row, other, *_ = [each for each in log.topics["changelog", 0] if each.key and each.key.startswith(b"u")]
    await log.append([Output("changelog", 0, row.key, other.value)])
    again = await carried(folder, log)
    assert [each.value for each in log.topics["changelog", 0] if each.key == row.key][-1] == other.value
    assert {**again, "records": 0} == {**told, "records": 0}
    arrived(log, tmp_path / "arrived").close()
    with pytest.raises(BadSetting, match="moved already"):
        await carried(folder, log)


async def test_a_folder_that_was_moved_does_not_run_again(folder: Path) -> None:
    """Neither it nor a command on it opens it, so nothing is sent from two places, and no second move begins."""
    await carried(folder, MemoryLog(3))
    node = Node(load_settings(environment(folder)), ManualClock(NOW_MS))
    with pytest.raises(BadSetting, match="was moved to Kafka"):
        await node.connect()
    node.close()
    with pytest.raises(BadSetting, match="moved already"):
        await carried(folder, MemoryLog(3))


async def test_topics_that_are_in_use_are_left_alone(folder: Path) -> None:
    """A move begins on empty topics only, and goes on only where nobody has written since."""
    used = MemoryLog(3)
    await used.append([Output("events", 1, b"ann", b"{}")])
    with pytest.raises(BadSetting, match=r"in use \(events\)"):
        await carried(folder, used)
    async with running(folder) as node:  # and the folder is as it was
        await node.quiesce()
    log = MemoryLog(3)
    log.left = 40
    with pytest.raises(ConnectionError):
        await carried(folder, log)
    log.left = -1
    place = next(place for place in log.topics if place[0] not in ("changelog", "definitions"))
    log.topics[place][-1] = Output(*place, b"somebody", b"else")
    with pytest.raises(BadState, match="not what this move appended"):
        await carried(folder, log)

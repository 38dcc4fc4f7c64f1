"""Two lanes: a transactional send never waits behind a fan-out, and a fan-out always goes on."""

import asyncio
import random
from collections import defaultdict
from pathlib import Path

import msgspec
import pytest

from agents.delivery.gate import bulk_max
from channels.channel import Receipt, Request
from streams.codec import pack
from streams.sends import LANES, Lane, decode_send
from tables.dispatches import Dispatches
from tests.agents.deliveries import Rig, Steered, delivering

BULK = 1_000_000
"""Dispatches of fan-outs are numbered from here on, so that a provider that is asked can tell the lanes apart."""


def number(request: Request) -> int:
    """Which of the test's sends is asked for."""
    return int(request.dispatch_id, 16)


def is_bulk(request: Request) -> bool:
    """Whether it is a fan-out's."""
    return number(request) >= BULK


async def fan_out(rig: Rig, count: int, channel: str = "email") -> None:
    """Record so many bulk sends, a slice of a hundred at a time."""
    for at in range(0, count, 100):
        await rig.record(*(rig.send(BULK + at + one, channel, lane="bulk") for one in range(min(100, count - at))))


async def test_a_hung_fan_out_leaves_a_quarter_free(tmp_path: Path) -> None:
    """While a fan-out hangs in every place that it may have, transactional sends of the same host go one by one."""
    mail = Steered(in_flight=16, per_host=16, at_once=8)
    mail.hangs = is_bulk
    async with delivering(tmp_path, email=mail) as rig:
        await fan_out(rig, 500)
        await rig.until(lambda: mail.running == bulk_max(8) and rig.states.get("attempting") == bulk_max(16))
        for at in range(20):
            await rig.record(rig.send(at))
            await rig.until(lambda: rig.states.get("sent") == at + 1)  # noqa: B023

        assert (mail.running, mail.most) == (6, 7)
        assert rig.states == {"sent": 20, "attempting": 12, "pending": 488}


async def test_whoever_waits_for_a_place_goes_before_the_fan_out(tmp_path: Path) -> None:
    """When all places are taken, each that becomes free is a transactional send's, until none of them waits for one."""
    mail = Steered(in_flight=64, per_host=64, at_once=4)
    free: set[int] = set()
    mail.hangs = lambda request: number(request) not in free
    async with delivering(tmp_path, email=mail) as rig:
        await fan_out(rig, 300)
        await rig.until(lambda: mail.running == bulk_max(4) and rig.states.get("attempting") == bulk_max(64))
        await rig.record(*(rig.send(at) for at in range(15)))
        await rig.until(lambda: mail.running == 4 and rig.states.get("attempting") == 63)
        for _ in range(14):
            before = len(mail.asked)
            free.add(next(each for each in map(number, mail.asked) if each not in free))
            await rig.until(lambda: len(mail.asked) == before + 1)  # noqa: B023

        assert [number(each) for each in mail.asked] == [BULK, BULK + 1, BULK + 2, *range(15)]
        mail.hangs = lambda request: False
        await rig.until(lambda: rig.delivery.idle)
        assert rig.states == {"sent": 315}


async def test_a_slice_of_bulk_holds_up_no_transactional_one(tmp_path: Path) -> None:
    """A transactional send that is read in the middle of a large bulk slice is sent before the slice is recorded."""
    mail = Steered(in_flight=8, per_host=8, at_once=8)
    async with delivering(tmp_path, email=mail) as rig:
        slice_ = asyncio.create_task(rig.record(*(rig.send(BULK + at, lane="bulk") for at in range(1_000))))
        await rig.until(lambda: mail.asked)
        await rig.record(rig.send(1))
        await rig.until(lambda: any(number(each) == 1 for each in mail.asked))

        assert not slice_.done()
        await slice_
        await rig.until(lambda: rig.delivery.idle)
        assert rig.states == {"sent": 1_001}


async def test_a_silent_host_hears_both_lanes(tmp_path: Path) -> None:
    """Of a host without an answer, the one attempt of a fan-out is not all that it gets: one transactional is made."""
    hooks = Steered(in_flight=16, per_host=8, at_once=16)
    hooks.answer = lambda request: Receipt(request.dispatch_id, "retry", "timeout: x", is_silent=True)
    async with delivering(tmp_path, webhook=hooks) as rig:
        await rig.record(rig.send(0, "webhook"))
        await rig.until(lambda: rig.states == {"retry": 1})
        hooks.hangs = lambda request: True
        await fan_out(rig, 50, "webhook")
        await rig.record(*(rig.send(1 + at, "webhook") for at in range(50)))
        await rig.until(lambda: hooks.running == 2)
        await asyncio.sleep(0.05)

        assert sorted(is_bulk(each) for each in hooks.asked[1:]) == [False, True]


async def test_a_fan_out_goes_on_beside_transactional_sends(tmp_path: Path) -> None:
    """While transactional sends keep coming and leave a place now and then, a fan-out is sent to its end."""
    mail = Steered(in_flight=8, per_host=8, at_once=2)
    async with delivering(tmp_path, email=mail) as rig:
        await fan_out(rig, 200)
        at = 0
        async with asyncio.timeout(30):  # by time: how many transactional ones fit in is up to the disk
            while sum(map(is_bulk, mail.asked)) < 200:
                at += 1
                await rig.record(rig.send(at))
        await rig.until(lambda: rig.delivery.idle)

        assert rig.states == {"sent": 200 + at}


async def test_the_lanes_are_counted(tmp_path: Path) -> None:
    """How many wait in each lane, and since when, is known, also after a restart and in a folder that did not count."""
    mail = Steered(in_flight=4, per_host=4, at_once=4)
    mail.hangs = lambda request: True
    async with delivering(tmp_path, email=mail) as rig:
        await fan_out(rig, 50)
        rig.clock.advance(1_000)
        await rig.record(*(rig.send(at) for at in range(10)))
        await rig.until(lambda: rig.states.get("attempting") == 4)
        table = rig.delivery.dispatches[0]

        def waiting(table: Dispatches) -> dict[Lane, tuple[int, int | None]]:
            return {lane: (table.waiting("email", lane), table.oldest_ms("email", lane)) for lane in LANES}

        began_ms = rig.clock.now_ms() - 1_000
        expected = {"transactional": (9, began_ms + 1_000), "bulk": (47, began_ms)}
        assert waiting(table) == expected
        key = b"dispatches\0\0\0"
        tally = msgspec.msgpack.decode(rig.store.get("meta", key) or b"")
        batch = rig.store.batch()
        batch.put("meta", key, pack(tally[:3]))
        rig.store.write(batch)
        old = Dispatches(rig.store, 0)
        assert sum(1 for _ in old.load()) > 0
        assert waiting(old) == expected


def test_a_send_of_an_older_version_is_transactional() -> None:
    """A send without a lane, as it may still lie in a topic, is read."""
    send = decode_send(
        b'{"dispatch_id":"d","campaign":"c","channel":"log","user":"u","version":1,"decided_ms":2,"profile":{},'
        b'"custom":{},"event_properties":{}}'
    )

    assert send.lane == "transactional"


@pytest.mark.parametrize("seed", range(4))
async def test_each_lane_keeps_its_order_and_loses_nothing(tmp_path: Path, seed: int) -> None:
    """Through stops at random moments, each send of both lanes goes once, and first attempts in the lane's order."""
    dice = random.Random(seed)
    hooks = Steered(in_flight=4, per_host=4, at_once=1)
    hooks.hangs = lambda request: dice.random() < 0.3
    hooks.answer = lambda request: Receipt(request.dispatch_id, "sent")
    made: dict[Lane, int] = dict.fromkeys(LANES, 0)
    async with delivering(tmp_path, webhook=hooks) as rig:
        for _ in range(12):
            lane = dice.choice(LANES)
            first = made[lane] + (BULK if lane == "bulk" else 0)
            count = dice.randint(1, 60)
            made[lane] += count
            await rig.record(*(rig.send(first + at, "webhook", lane=lane) for at in range(count)))
            if dice.random() < 0.4:
                await rig.close()
                await rig.open()
        await rig.until(lambda: rig.delivery.idle)
        assert rig.states == {"sent": sum(made.values())}
    settled = set(hooks.settled)
    seen: dict[bool, list[int]] = defaultdict(list)
    for each in hooks.asked:
        if each.dispatch_id not in settled:
            seen[is_bulk(each)].append(number(each))
    for lane in LANES:
        numbers = seen[lane == "bulk"]
        assert numbers == sorted(set(numbers))
    assert len({each.dispatch_id for each in hooks.asked} | settled) == sum(made.values())

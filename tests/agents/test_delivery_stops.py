"""What a worker that stops in the middle of attempts may not cost a dispatch."""

import asyncio
from pathlib import Path

import pytest

from channels.channel import Receipt, Request
from config import metrics
from streams.errors import BadState, OutsideFailing
from streams.policy.retry import RETRIES_MAX
from tests.agents.deliveries import Rig, Steered, delivering


async def test_attempts_cut_off_by_a_stop_are_no_failures(tmp_path: Path) -> None:
    """However often a worker stops during an attempt, the first refusal is retried, as the first of any dispatch is."""
    steered = Steered()
    steered.hangs = lambda request: True
    steered.answer = lambda request: Receipt(request.dispatch_id, "retry")
    rig = Rig(tmp_path, {"webhook": steered})
    await rig.start()
    rig.user("ann")
    await rig.record(rig.send(1, "webhook"))
    for _ in range(RETRIES_MAX + 1):
        await rig.until(lambda: steered.running)
        rig.delivery.dispatches.clear()
        for pump in rig.delivery._pumps.values():
            await pump.stop(0)
        await rig.open()

    steered.hangs = lambda request: False
    await rig.until(lambda: not rig.states.get("attempting") and not rig.states.get("pending"))

    assert rig.states == {"retry": 1}
    await rig.close()


@pytest.mark.parametrize("has_waited", [False, True])
@pytest.mark.parametrize("turns", range(8))
async def test_what_is_cut_off_leaves_its_place(tmp_path: Path, turns: int, has_waited: bool) -> None:
    """A partition given up in any turn of the loop behind a send takes no place of the channel along.

    Among these turns are those in which a task was made and has not run yet, of sends recorded and of ones that waited.
    """
    steered = Steered()
    steered.hangs = lambda request: True
    async with delivering(tmp_path, webhook=steered) as rig:
        pump, table = rig.delivery.pumps["webhook"], rig.delivery.dispatches[0]
        if has_waited:
            await pump.rest(0)
        await rig.record(*(rig.send(number, "webhook") for number in range(3)))
        pump.go_on()
        for _ in range(turns):
            await asyncio.sleep(0)
        await pump.leave(0, 0)
        assert (pump.in_flight, dict(pump._lanes), set(pump._bytes.values())) == (0, {}, {0})
        pump.join(0, table)


async def test_a_store_that_failed_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for a change after a write has failed is told what failed, and does not wait for ever."""
    rig = Rig(tmp_path, {"email": Steered()})
    await rig.start()
    rig.user("ann")
    with monkeypatch.context() as patched:
        patched.setattr(rig.store, "write", lambda batch: (_ for _ in ()).throw(OutsideFailing("the disk is full")))
        async with asyncio.timeout(10):
            for _ in range(2):
                with pytest.raises(OutsideFailing, match="the disk is full"):
                    await rig.record(rig.send(1))
            with pytest.raises(OutsideFailing, match="the disk is full"):
                await rig.delivery.release("0" * 32)
    async with asyncio.timeout(10):
        await rig.close()
    rig.store.close()


async def test_what_a_crash_left_is_durable_before_its_provider_is_asked(tmp_path: Path) -> None:
    """A power cut behind a settlement cannot take back the record of what was settled, which would be sent again."""
    steered = Steered()
    steered.hangs = lambda request: True
    rig = Rig(tmp_path, {"log": steered})
    await rig.start()
    rig.user("ann")
    await rig.record(rig.send(1, "log"))
    await rig.until(lambda: steered.running)
    await rig.close()
    settled_at_sync: list[int] = []
    sync = rig.engine.transport.sync

    async def synced(patience_s: float = 0.0) -> None:
        settled_at_sync.append(len(steered.settled))
        await sync(patience_s)

    rig.engine.transport.sync = synced  # type: ignore[method-assign]
    await rig.open()

    assert settled_at_sync[0] == 0
    assert len(steered.settled) == 1
    await rig.close()
    rig.store.close()


async def test_a_request_that_breaks_its_provider_is_held_and_costs_no_other(tmp_path: Path) -> None:
    """An error that a provider does not know holds its one dispatch, with the kind of error; the rest is sent."""
    odd, steered = f"{2:032x}", Steered()

    def answer(request: Request) -> Receipt:
        if request.dispatch_id == odd:
            raise KeyError("ann@example.com")
        return Receipt(request.dispatch_id, "sent")

    steered.answer = answer
    before = metrics.ATTEMPTS_BROKEN.labels("email")._value.get()
    async with delivering(tmp_path, email=steered) as rig:
        await rig.record(*(rig.send(number) for number in range(5)))
        await rig.until(lambda: rig.delivery.idle)
        assert rig.states == {"sent": 4, "held": 1}
        assert rig.dispatch(2).reason == "uncertain: the attempt ended in an error of ours, KeyError"
        assert metrics.ATTEMPTS_BROKEN.labels("email")._value.get() == before + 1

        await rig.close()
        await rig.open()
        await rig.record(rig.send(9))
        await rig.until(lambda: rig.states == {"sent": 5, "held": 1})
        steered.answer = lambda request: Receipt(request.dispatch_id, "sent")
        assert await rig.delivery.release(odd) == 1
        await rig.until(lambda: rig.states == {"sent": 6})


@pytest.mark.parametrize("error", [OutsideFailing("a full disk"), BadState("contradicts"), AssertionError("never")])
async def test_what_must_end_a_worker_still_does(tmp_path: Path, error: Exception) -> None:
    """What a provider raises on purpose holds nothing: the worker ends with it, and its next start settles."""
    steered = Steered()

    def answer(request: Request) -> Receipt:
        raise error

    steered.answer = answer
    async with delivering(tmp_path, email=steered) as rig:
        await rig.record(rig.send(1))
        with pytest.raises(type(error)):
            await rig.until(lambda: False)
        assert rig.states == {"attempting": 1}


async def test_who_lost_the_partition_during_a_broken_attempt_says_nothing(tmp_path: Path) -> None:
    """A provider's error counts only where the partition is still this worker's; else the worker ends as it did."""
    steered, is_lost = Steered(), False

    def answer(request: Request) -> Receipt:
        nonlocal is_lost
        is_lost = True
        raise KeyError("x")

    async def confirm(partition: int) -> None:
        if is_lost:
            raise RuntimeError("fenced")

    steered.answer = answer
    async with delivering(tmp_path, email=steered) as rig:
        rig.engine.transport.confirm = confirm  # type: ignore[method-assign]
        await rig.record(rig.send(1))
        with pytest.raises(RuntimeError, match="fenced"):
            await rig.until(lambda: False)
        assert rig.states == {"attempting": 1}

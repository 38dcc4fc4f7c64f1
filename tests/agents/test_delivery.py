"""The delivery agent on a real store: its states, its limits, and what a restart makes of them."""

import asyncio
from pathlib import Path

import pytest

from agents.delivery import agent, pump
from agents.delivery.held import change_held_offline
from channels.channel import Receipt, Request
from config import metrics
from streams.errors import OutsideFailing
from streams.policy.retry import RETRIES_MAX, retry_delay_s
from tests.agents.deliveries import Steered, delivering


def hanging() -> Steered:
    """A provider that never answers."""
    provider = Steered()
    provider.hangs = lambda request: True
    return provider


def saying(kind: str, reason: str = "", after_s: float | None = None) -> Steered:
    """A provider that gives every request the same answer."""
    provider = Steered()
    provider.answer = lambda request: Receipt(request.dispatch_id, kind, reason, after_s)  # type: ignore[arg-type]
    return provider


async def test_a_hung_channel_holds_up_nothing_else(tmp_path: Path) -> None:
    """With mail hung, slices of sends are still taken and every webhook is sent; memory holds what is in flight."""
    mail, hooks = hanging(), Steered()
    async with delivering(tmp_path, email=mail, webhook=hooks) as rig:
        for at in range(0, 1_000, 100):
            await rig.record(*(rig.send(number, "email") for number in range(at, at + 100)))
            await rig.record(*(rig.send(10_000 + number, "webhook") for number in range(at, at + 100)))
        await rig.until(lambda: len(hooks.asked) == 1_000)
        await rig.until(lambda: rig.states.get("sent") == 1_000)

        assert rig.states == {"sent": 1_000, "attempting": 8, "pending": 992}
        assert mail.most == mail.limits.in_flight == len(mail.asked)
        mail.hangs = lambda request: False
        await rig.until(lambda: rig.delivery.idle)

        assert rig.states == {"sent": 2_000}
        assert mail.most == mail.limits.in_flight


async def test_a_hung_host_holds_up_no_other(tmp_path: Path) -> None:
    """Behind a thousand webhooks to a host that hangs, those to other hosts are sent, each lane in its order."""
    hooks = Steered(in_flight=8, per_host=2, at_once=8)
    hooks.hangs = lambda request: "hung" in request.address
    async with delivering(tmp_path, webhook=hooks) as rig:
        await rig.record(*(rig.send(number, "webhook", "hung.example") for number in range(1_000)))
        await rig.record(*(rig.send(1_000 + number, "webhook", f"h{number % 5}.example") for number in range(500)))
        await rig.until(lambda: rig.states.get("sent") == 500)

        assert rig.states == {"sent": 500, "attempting": 2, "pending": 998}
    for host in range(5):
        numbers = [int(each.dispatch_id, 16) for each in hooks.asked if each.address == f"https://h{host}.example/"]
        assert len(numbers) == 100
        # Two at once may swap, no more.
        assert all(abs(at - place) <= 2 for place, at in enumerate(sorted(numbers).index(each) for each in numbers))


async def test_large_requests_bound_what_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests under way that fill their memory let no more begin, though places are free, and all are sent at last."""
    monkeypatch.setattr(pump, "BYTES_MAX", 1)
    before = metrics.LIMIT_HITS.labels("in_flight_bytes")._value.get()
    hooks = Steered(in_flight=256, per_host=256, at_once=256)
    hooks.hangs = lambda request: True
    async with delivering(tmp_path, webhook=hooks) as rig:
        for at in range(0, 300, 100):
            await rig.record(*(rig.send(number, "webhook") for number in range(at, at + 100)))
        await rig.until(lambda: hooks.asked)
        await asyncio.sleep(0.05)
        assert hooks.running <= pump.TAKEN_MAX
        hooks.hangs = lambda request: False
        await rig.until(lambda: rig.delivery.idle)

        assert rig.states == {"sent": 300}
        assert hooks.most <= pump.TAKEN_MAX
    assert metrics.LIMIT_HITS.labels("in_flight_bytes")._value.get() > before


async def test_a_silent_host_gets_one_attempt_at_a_time(tmp_path: Path) -> None:
    """A host that did not answer is asked by one attempt at a time until it answers again."""
    hooks = Steered(in_flight=8, per_host=4, at_once=8)
    hooks.answer = lambda request: Receipt(request.dispatch_id, "retry", "timeout: x", is_silent=True)
    async with delivering(tmp_path, webhook=hooks) as rig:
        await rig.record(*(rig.send(number, "webhook") for number in range(20)))
        await rig.until(lambda: rig.states == {"retry": 20})
        asked, hooks.most = len(hooks.asked), 0
        hooks.hangs = lambda request: True
        rig.clock.advance(2_000)
        await rig.until(lambda: rig.states.get("pending"))
        await rig.until(lambda: len(hooks.asked) > asked)
        await asyncio.sleep(0.05)

        assert hooks.most == 1
        hooks.answer = lambda request: Receipt(request.dispatch_id, "sent")
        # From the second on they wait for company, which comes only if more than one is let through again.
        hooks.hangs = lambda request: len(hooks.asked) > asked + 1 and hooks.most < hooks.limits.per_host
        await rig.until(lambda: rig.states == {"sent": 20})
        assert hooks.most == hooks.limits.per_host


async def test_recorded_before_attempted(tmp_path: Path) -> None:
    """When a provider is asked, the store already has the dispatch as attempting, with the bytes it is asked for."""
    mail = Steered()
    async with delivering(tmp_path, email=mail) as rig:

        def look(request: Request) -> Receipt:
            (found,) = rig.delivery.dispatches[0].open([request.dispatch_id])
            assert (found.state, found.request, found.attempts) == ("attempting", request.body, 1)
            return Receipt(request.dispatch_id, "sent")

        mail.answer = look
        await rig.record(*(rig.send(number) for number in range(100)))
        await rig.until(lambda: rig.delivery.idle)

        assert len(mail.asked) == 100
        assert rig.dispatch(0).request == b""


async def test_retries_wait_in_the_table_and_survive_a_restart(tmp_path: Path) -> None:
    """Each retry comes when its rule says, not before, also over restarts, with the same bytes; after five it fails."""
    hooks = saying("retry", "503 Busy")
    async with delivering(tmp_path, webhook=hooks) as rig:
        await rig.record(rig.send(7, "webhook"))
        for attempt in range(1, RETRIES_MAX + 1):
            await rig.until(lambda: rig.states == {"retry": 1})
            delay_s = retry_delay_s(f"{7:032x}", attempt)
            assert delay_s is not None
            assert rig.dispatch(7).due_ms == rig.clock.now_ms() + round(delay_s * 1000)
            await rig.close()
            await rig.open()
            rig.clock.advance(round(delay_s * 1000) - 1)
            await asyncio.sleep(2 * agent.LOOK_S)
            assert len(hooks.asked) == attempt
            rig.clock.advance(1)
            await rig.until(lambda: len(hooks.asked) == attempt + 1)  # noqa: B023
        await rig.until(lambda: rig.delivery.idle)

        assert rig.states == {"failed": 1}
        assert rig.dispatch(7).reason == "retries_exhausted: 503 Busy"
    assert len({(each.address, each.body) for each in hooks.asked}) == 1
    assert [(each.attempt, each.kind) for each in rig.outcomes] == [
        *((attempt, "retry") for attempt in range(1, 6)),
        (6, "failed"),
    ]


async def test_what_the_other_side_asks_for_is_honoured(tmp_path: Path) -> None:
    """A Retry-After longer than our own delay is waited for, up to an hour."""
    async with delivering(tmp_path, webhook=saying("retry", "429 x", 1e9), email=saying("retry", "421 x", 77.0)) as rig:
        await rig.record(rig.send(1, "webhook"))
        await rig.record(rig.send(2, "email"))
        await rig.until(lambda: rig.states == {"retry": 2})

        assert rig.dispatch(1).due_ms - rig.clock.now_ms() == 3_600_000
        assert rig.dispatch(2).due_ms - rig.clock.now_ms() == 77_000


@pytest.mark.parametrize("why", ["paused", "unsubscribed", "unreadable"])
async def test_permission_is_read_before_each_attempt(tmp_path: Path, why: str) -> None:
    """A pause, an unsubscription or an unreadable row between two attempts ends the dispatch without a second one."""
    mail = saying("retry", "421 later")
    async with delivering(tmp_path, email=mail) as rig:
        await rig.record(rig.send(1))
        await rig.until(lambda: rig.states == {"retry": 1})
        if why == "paused":
            await rig.workspaces.pause("email", paused=True)
        elif why == "unsubscribed":
            rig.user("ann", email_subscribe="unsubscribed")
        else:
            batch = rig.store.batch()
            batch.put("users", b"\0\0ann", b"\xff")
            rig.store.write(batch)
        rig.clock.advance(2_000)
        await rig.until(lambda: rig.delivery.idle)

        assert rig.states == {"aborted": 1}
        reason = {"paused": "campaign_paused", "unreadable": "consent_unreadable"}.get(why, why)
        assert rig.dispatch(1).reason == reason
    assert len(mail.asked) == 1


async def test_permission_is_read_when_the_turn_has_come(tmp_path: Path) -> None:
    """Of mails that wait for a hung connection, none goes that was paused meanwhile, however early it was recorded."""
    mail = Steered(in_flight=8, per_host=8, at_once=2)
    mail.hangs = lambda request: True
    async with delivering(tmp_path, email=mail) as rig:
        await rig.record(*(rig.send(number) for number in range(50)))
        await rig.until(lambda: rig.states.get("attempting") == 8 and len(mail.asked) == 2)
        await rig.workspaces.pause("email", paused=True)
        mail.hangs = lambda request: False
        await rig.until(lambda: rig.delivery.idle)

        assert rig.states == {"sent": 2, "aborted": 48}
    assert len(mail.asked) == 2


async def test_nothing_is_attempted_by_a_worker_that_lost_its_partition(tmp_path: Path) -> None:
    """When the transport does not confirm the partition, the agent stops and no provider is asked."""
    mail = Steered()
    async with delivering(tmp_path, email=mail) as rig:

        async def refuse(partition: int) -> None:
            raise RuntimeError("fenced")

        rig.engine.transport.confirm = refuse  # type: ignore[method-assign]
        await rig.record(rig.send(1))
        with pytest.raises(RuntimeError, match="fenced"):
            await rig.until(lambda: False)
    assert mail.asked == []


async def test_a_stop_between_attempt_and_outcome_is_settled_by_the_provider(tmp_path: Path) -> None:
    """Cut off in flight, each dispatch stays attempting, and the next start asks the provider what became of it."""
    mail, hooks = hanging(), hanging()
    async with delivering(tmp_path, email=mail, webhook=hooks) as rig:
        await rig.record(*(rig.send(number) for number in range(8)))
        await rig.record(*(rig.send(100 + number, "webhook") for number in range(8)))
        await rig.until(lambda: rig.states == {"attempting": 16})
        await rig.close()
        assert mail.running == hooks.running == 0
        mail.answer = lambda request: Receipt(request.dispatch_id, "held", "uncertain: x")
        hooks.answer = lambda request: Receipt(request.dispatch_id, "retry", "worker_stopped: x")
        mail.hangs = hooks.hangs = lambda request: False
        await rig.open()
        await rig.until(lambda: rig.states == {"held": 8, "retry": 8})
        assert len(hooks.asked) == 16
        hooks.answer = lambda request: Receipt(request.dispatch_id, "sent")
        rig.clock.advance(10_000)
        await rig.until(lambda: rig.delivery.idle)

        assert rig.states == {"held": 8, "sent": 8}
    assert len(mail.settled) == 8
    assert len(mail.asked) == 8
    assert {each.kind for each in rig.outcomes if int(each.dispatch_id, 16) < 100} == {"held"}


async def test_another_provider_cannot_settle(tmp_path: Path) -> None:
    """What one provider was attempting when the worker stopped is held when another one is set up by the restart."""
    async with delivering(tmp_path, email=hanging()) as rig:
        await rig.record(rig.send(1))
        await rig.until(lambda: rig.states == {"attempting": 1})
        await rig.close()
        other = rig.providers["email"] = Steered()
        other.name = "other"
        await rig.open()
        await rig.until(lambda: rig.delivery.idle)

        assert rig.states == {"held": 1}
        assert "steered" in rig.dispatch(1).reason
    assert other.asked == []


async def test_held_ones_are_released_and_discarded(tmp_path: Path) -> None:
    """A release attempts a held dispatch again, a discard ends it, one or all; others are not touched."""
    mail = saying("held", "uncertain: x")
    async with delivering(tmp_path, email=mail) as rig:
        await rig.record(*(rig.send(number) for number in range(300)))
        await rig.until(lambda: rig.states == {"held": 300})
        mail.answer = lambda request: Receipt(request.dispatch_id, "sent")

        assert await rig.delivery.release(f"{5:032x}") == 1
        await rig.until(lambda: rig.delivery.idle)
        assert await rig.delivery.release(f"{5:032x}") == 0
        assert await rig.delivery.discard(f"{6:032x}") == 1
        assert await rig.delivery.release("nobody") == 0
        assert rig.states == {"held": 298, "sent": 1, "aborted": 1}
        assert [each.dispatch_id for each in rig.delivery.dispatches[0].all("held")] == [
            f"{number:032x}" for number in range(300) if number not in (5, 6)
        ]
        assert await rig.delivery.release("*") == 298
        await rig.until(lambda: rig.delivery.idle)
        assert rig.states == {"sent": 299, "aborted": 1}
    ends = {each.dispatch_id: each for each in rig.outcomes if each.kind != "held"}
    assert len(ends) == 300
    assert ends[f"{5:032x}"].attempt == 2


async def test_two_who_release_at_once_release_once(tmp_path: Path) -> None:
    """Commands that come together share a batch; each held mail is still attempted once, or discarded once."""
    mail = saying("held", "uncertain: x")
    async with delivering(tmp_path, email=mail) as rig:
        await rig.record(*(rig.send(number) for number in range(20)))
        await rig.until(lambda: rig.states == {"held": 20})
        mail.answer, mail.asked = lambda request: Receipt(request.dispatch_id, "sent"), []

        release, discard = rig.delivery.release, rig.delivery.discard
        counts = await asyncio.gather(release("*"), release("*"), discard("*"), release(f"{3:032x}"))
        await rig.until(lambda: rig.delivery.idle)

        assert list(counts) == [20, 0, 0, 0]
        assert rig.states == {"sent": 20}
    assert len(mail.asked) == len({request.dispatch_id for request in mail.asked}) == 20


async def test_all_can_be_discarded(tmp_path: Path) -> None:
    """A discard of all ends every held dispatch as aborted, and tells each user."""
    async with delivering(tmp_path, email=saying("held")) as rig:
        await rig.record(*(rig.send(number) for number in range(300)))
        await rig.until(lambda: rig.states == {"held": 300})

        assert await rig.delivery.discard("*") == 300
        assert rig.states == {"aborted": 300}
    assert sum(each.kind == "aborted" for each in rig.outcomes) == 300


async def test_final_ones_are_forgotten_after_72_hours(tmp_path: Path) -> None:
    """Final dispatches go 72 hours after their end, in pieces, also when they ended before a restart; counts stay."""
    async with delivering(tmp_path) as rig:
        await rig.record(*(rig.send(number) for number in range(600)))
        await rig.until(lambda: rig.delivery.idle)
        rig.clock.advance(agent.KEPT_AFTER_FINAL_MS - 1)
        await rig.record(rig.send(1_000))
        await rig.until(lambda: rig.delivery.idle)
        await asyncio.sleep(2 * agent.LOOK_S)
        assert len(list(rig.delivery.dispatches[0].all())) == 601
        await rig.close()
        await rig.open()
        rig.clock.advance(1)
        await rig.until(lambda: len(list(rig.delivery.dispatches[0].all())) == 1)

        assert rig.states == {"sent": 601}
        assert [key for key, _ in rig.store.scan("dispatches", b"", b"\xff")] == [
            b"e\0\0" + (rig.clock.now_ms() - 1).to_bytes(8, "big") + f"{1_000:032x}".encode(),
            b"f\0\0" + f"{1_000:032x}".encode(),
        ]


async def test_a_slice_read_twice_is_recorded_once(tmp_path: Path) -> None:
    """Sends that are known already, in any state, are neither recorded nor attempted again."""
    mail = Steered()
    async with delivering(tmp_path, email=mail) as rig:
        sends = [rig.send(number) for number in range(200)]
        await rig.record(*sends, *sends[:10])
        await rig.record(*sends)
        await rig.until(lambda: rig.delivery.idle)
        await rig.record(*sends)

        assert rig.states == {"sent": 200}
    assert len(mail.asked) == 200


async def test_what_cannot_be_rendered_is_aborted_with_its_reason(tmp_path: Path) -> None:
    """A send without a usable address, or of a paused campaign, ends at once, and its neighbours are sent."""
    async with delivering(tmp_path) as rig:
        bad = rig.send(1, user="ann")
        bad.profile["email_address"] = "not an address"
        none = rig.send(2)
        del none.profile["email_address"]
        await rig.record(rig.send(0), bad, none, rig.send(3, user="stranger"), rig.send(4))
        await rig.until(lambda: rig.delivery.idle)

        reasons = {int(each.dispatch_id, 16): each.reason for each in rig.delivery.dispatches[0].all("aborted")}
        assert rig.states == {"sent": 2, "aborted": 3}
    assert reasons[1].startswith("bad_address: ")
    assert (reasons[2], reasons[3]) == ("no_address", "consent_unreadable")


@pytest.mark.parametrize(("state", "after"), [("pending", {"sent": 300}), ("aborted", {"aborted": 300})])
async def test_held_ones_are_decided_without_a_worker(tmp_path: Path, state: str, after: dict[str, int]) -> None:
    """On a folder that no worker uses, a release or a discard is kept, and the next worker acts on it."""
    mail = saying("held", "uncertain: x")
    async with delivering(tmp_path, email=mail) as rig:
        await rig.record(*(rig.send(number) for number in range(300)))
        await rig.until(lambda: rig.states == {"held": 300})
        await rig.close()
        mail.answer = lambda request: Receipt(request.dispatch_id, "sent")
        assert await change_held_offline(rig.engine, f"{5:032x}", state) == 1
        assert await change_held_offline(rig.engine, "*", state) == 299
        assert await change_held_offline(rig.engine, "*", state) == 0
        await rig.open()
        await rig.until(lambda: rig.delivery.idle)

        assert rig.states == after


async def test_a_full_disk_stops_the_agent(tmp_path: Path) -> None:
    """When a provider says that the worker must stop, it does, and the dispatch is as it was recorded."""
    mail = Steered()

    def fail(request: Request) -> Receipt:
        raise OutsideFailing("no space left")

    mail.answer = fail
    async with delivering(tmp_path, email=mail) as rig:
        await rig.record(rig.send(1))
        with pytest.raises(OutsideFailing, match="no space left"):
            await rig.until(lambda: False)
        assert rig.states == {"attempting": 1}

"""What a worker that stops in the middle of attempts may not cost a dispatch."""

from pathlib import Path

from channels.channel import Receipt
from streams.policy.retry import RETRIES_MAX
from tests.agents.deliveries import Rig, Steered


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

"""What is too large to be sent is aborted with its reason, and holds up nothing behind it."""

from pathlib import Path

from msgspec.structs import replace

from config import metrics
from streams.codec import pack
from streams.definitions import read_definitions
from tests.agents.deliveries import FILES, Steered, delivering


async def test_a_refused_send_is_aborted_with_its_reason(tmp_path: Path) -> None:
    """A send that a limit was hit by is not rendered and not attempted; its reason is told, and the limit counted."""
    mail = Steered()
    hits = metrics.LIMIT_HITS.labels("send_bytes")
    before = hits._value.get()
    async with delivering(tmp_path, email=mail) as rig:
        await rig.record(replace(rig.send(1), refusal="send_bytes: too much"), rig.send(2))
        await rig.until(lambda: rig.delivery.idle)

        assert rig.states == {"aborted": 1, "sent": 1}
        [found] = rig.delivery.dispatches[0].all("aborted")
        assert found.reason == "send_bytes: too much"
    assert [int(each.dispatch_id, 16) for each in mail.asked] == [2]
    assert hits._value.get() == before + 1


async def test_what_renders_to_more_than_a_record_is_aborted(tmp_path: Path) -> None:
    """A mail whose encoding makes it larger than a broker takes is aborted, and the next one is sent."""
    mail = Steered()
    async with delivering(tmp_path, email=mail) as rig:
        text = "{{ ${home_city} }}"
        message = {"to": "{{ ${email_address} }}", "subject": "Hi", "text": text, "html": text}
        document = {**FILES["campaigns/email.yaml"], "message": message}
        await rig.workspaces.apply(read_definitions({"campaigns/email.yaml": document}))
        await rig.record(rig.send(1, host="\u0436" * 520_000), rig.send(2, host="Bern"))
        await rig.until(lambda: rig.delivery.idle)

        assert rig.states == {"aborted": 1, "sent": 1}
        [found] = rig.delivery.dispatches[0].all("aborted")
        assert found.reason.startswith("dispatch_bytes: what was rendered takes ")
        assert len(pack(found)) < 1_000
    assert [int(each.dispatch_id, 16) for each in mail.asked] == [2]

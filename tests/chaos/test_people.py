"""The harness's model of devices, scheduled campaigns, readers and reports wants what is right, and is not blind."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from streams.definitions import read_definitions
from tests.chaos.casts import Cast
from tests.chaos.tracked import KEY, URL, Readers, read_mail
from tests.chaos.verifier import Found, Verdict
from tests.chaos.verify_casts import hold_casts
from tests.chaos.verify_reports import hold_reports, told
from tests.chaos.workload import DEVICE_EVERY, WORKSPACE, Workload

MEMBERS = ("u1", "u2", "c3")


def test_what_a_device_did_is_its_owners(tmp_path: Path) -> None:
    """Every event of a device counts for the person that it turns out to be, and of others for the device itself."""
    work = Workload(7)
    events = work.part(40 * DEVICE_EVERY)
    work.offered(events)
    work.told(events, acknowledged=True)
    owners = {f"device:{each['device_id']}": each["external_id"] for each in events if each["type"] == "identify"}
    done = Counter(owners.get(work.key_of(each), work.key_of(each)) for each in events if each["type"] == "event")

    assert len(owners) > 5
    assert len(work.devices.seen) > len(owners)
    assert owners == work.devices.owners
    wanted = sum((work.wanted(name) for name in ("bump", "go", "mail", "later", "join", "buy")), Counter[Any]())
    assert Counter(user for user, _, _ in wanted.elements()) == done


def test_the_definitions_of_a_session_are_definitions(tmp_path: Path) -> None:
    """Whatever is announced is a workspace that the product takes; what has failed is taken out of it again."""
    work = Workload(7)
    casts = [work.casts.announce(time.time() + 60 + number) for number in range(4)]
    work.casts.fail(casts[1])
    work.write_workspace(tmp_path / "workspace")
    work.write_workspace(tmp_path / "workspace")
    files = {
        str(path.relative_to(tmp_path / "workspace")): json.loads(path.read_text())
        for path in (tmp_path / "workspace").glob("*/*")
    }
    names = {each.name for each in read_definitions(files).campaigns}

    assert names == {"go", "later", "mail", "cast1", "cast3", "cast4"}
    assert len(files) == len(WORKSPACE) + 1 + 3


class Scene:
    """A cast to three members, one of them in control, by webhook: what the outside saw of it."""

    def __init__(self) -> None:
        self.work = Workload(7)
        self.cast = Cast(2, time.time() - 60, is_sure=True, must=set(MEMBERS))
        self.work.casts.all.append(self.cast)
        self.work.taken = {(user, "join", n) for n, user in enumerate(MEMBERS)}
        self.work.offered_s = dict.fromkeys(range(len(MEMBERS)), 0.0)
        self.rows = [self.row("users.campaigns.EnrollInControl", "c3", "control")]
        self.rows += [self.row("users.messages.webhook.Send", user, "a") for user in MEMBERS[:2]]
        self.found = Found([], [], Path("none"))
        self.found.calls = [(time.time(), f"id-{user}", f"{user} cast2 a ".encode()) for user in MEMBERS[:2]]
        self.found.dispatches = [
            {"dispatch_id": f"id-{user}", "campaign": "cast2", "user": user, "state": "sent"} for user in MEMBERS[:2]
        ]
        self.found.users = {user: {"campaigns": {"cast2": {"entries": 1}}} for user in MEMBERS}

    def row(self, event_type: str, user: str, variant: str) -> dict[str, Any]:
        """An export row of the cast."""
        about = {"campaign_name": "cast2", "message_variation_name": variant, "dispatch_id": f"id-{user}"}
        return {"event_type": event_type, "external_user_id": user, "time": int(self.cast.at_s) + 1, **about}

    def faults(self) -> str:
        """What the verifier says."""
        verdict = Verdict()
        hold_casts(self.work, self.found, [], self.rows, verdict)
        return "; ".join(verdict.faults)


def test_a_cast_that_is_right_passes() -> None:
    """Two messages and one in control, for three members, is nothing to say."""
    assert not Scene().faults()


def _lose(scene: Scene) -> None:
    scene.cast.must = {*MEMBERS, "u9"}


def _double(scene: Scene) -> None:
    scene.found.dispatches.append({**scene.found.dispatches[0], "dispatch_id": "id-again"})


def _stranger(scene: Scene) -> None:
    scene.work.offered_s = dict.fromkeys(scene.work.offered_s, time.time())


def _both(scene: Scene) -> None:
    scene.rows.append(scene.row("users.campaigns.EnrollInControl", "u1", "control"))


def _unsaid(scene: Scene) -> None:
    scene.found.calls.pop()


def _unconverted(scene: Scene) -> None:
    scene.work.taken.add(("u1", "buy", 99))
    scene.work.offered_s[99] = scene.work.acked_s[99] = time.time()


def _converted(scene: Scene) -> None:
    scene.rows.append(scene.row("users.campaigns.Conversion", "u1", "a"))


def _other_variant(scene: Scene) -> None:
    scene.rows[1] = scene.row("users.messages.webhook.Send", "u1", "b")


def _entered_twice(scene: Scene) -> None:
    scene.found.users["u1"] = {"campaigns": {"cast2": {"entries": 2}}}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_lose, "1 of 4 had no entry"),
        (_double, "entries: 1 too many"),
        (_stranger, "entered who had not joined"),
        (_both, "entries: 1 too many"),
        (_unsaid, "messages: 1 lost"),
        (_unconverted, "u1 converted 0 times"),
        (_converted, "u1 converted 1 times"),
        (_other_variant, "u1 got a, and the export says b"),
        (_entered_twice, "entries in profiles"),
    ],
)
def test_the_verifier_sees_what_is_wrong_with_a_cast(spoil: Any, said: str) -> None:
    """Whatever is lost, doubled, out of the audience, unconverted or mixed up among its members is told."""
    scene = Scene()
    spoil(scene)

    assert said in scene.faults()


MAIL = (
    "X-Headrace-Dispatch: 0123\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
    f'<p>device:d1 mail 7 </p><a href="{URL}/t/c/abc-_1">Look</a><img src="{URL}/t/o/def">'
)


def test_readers_take_their_links_from_the_mail() -> None:
    """The tokens, the user and the dispatch are what stands in the mail; a device's mail is opened again later."""
    mail = read_mail(MAIL.encode())
    readers = Readers(random.Random(1))
    readers.read(MAIL.encode())
    later = len(readers.later)
    part = [event for _ in range(50) for event in readers.next(4)]
    for event in part:
        readers.told(event, acknowledged=True)

    assert (mail.dispatch_id, mail.user, mail.tokens) == ("0123", "device:d1", {"c": "abc-_1", "o": "def"})
    assert later >= 1
    assert {readers.key_of(event) for event in part} == {"device:d1"}
    assert readers.wanted().total() == len(part) >= 2
    assert len(KEY) >= 32


def _found(exports: Path, sent: int) -> Found:
    counts = {"sent": sent, "opens": 0, "conversions_a": 0, "revenue": {}}
    answer = {
        "times": ["2026-01-01T00:00:00.000Z"],
        "variants": [{"variant": "", "totals": counts, "series": [counts]}],
    }
    found = Found([], [], exports)
    found.reports["go", "hour"] = answer
    return found


def test_a_report_that_says_too_much_is_told(tmp_path: Path) -> None:
    """One send in the report and none in the export files is a fault; none in either is not."""
    wrong, right = Verdict(), Verdict()
    hold_reports(_found(tmp_path, 1), wrong)
    hold_reports(_found(tmp_path, 0), right)

    assert told(_found(tmp_path, 1).reports)["go", "", "all", 0] == {"sent": 1}
    assert "differ from the recount" in wrong.faults[0]
    assert not right.faults

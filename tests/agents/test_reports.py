"""Reports of a running node: they are a recount of the export files, whatever kills it, and the API tells them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from agents.node import Node
from config.clock import ManualClock
from config.settings import load_settings
from streams import ids
from streams.times import DAY_MS
from tests.agents.nodes import (
    NOW_MS,
    PARTITIONS,
    ask,
    environment,
    event,
    free_port,
    process,
    running,
    write_workspace,
)
from tests.oracle.reports import recount, rows_of_files
from tests.report_tables import counted

KEY = "a-test-key"
USERS = [f"user-{at}" for at in range(40)]
LIKED = {"event": {"name": "like"}}
MAIL = {"to": "{{ ${email_address} }}", "subject": "Hello", "text": "Hello"}
FILES: dict[str, Any] = {
    "campaigns/split.yaml": {
        "name": "split",
        "trigger": LIKED,
        "channel": "email",
        "re_eligible_after": "0s",
        "control": 20,
        "variants": [
            {"name": "short", "percent": 50, "message": MAIL},
            {"name": "long", "percent": 30, "message": {**MAIL, "text": "Hello, hello"}},
        ],
    },
    "campaigns/plain.yaml": {
        "name": "plain",
        "trigger": LIKED,
        "channel": "webhook",
        "message": {"body": "{{ ${user_id} }}"},
    },
}


def described(user: str) -> dict[str, Any]:
    """A user with an address, but for a few, whose mails are aborted."""
    address = {} if user.endswith("7") else {"email": f"{user}@example.com"}
    return {"type": "attributes", "external_id": user, **address}


async def test_reports_are_a_recount_of_the_exports(tmp_path: Path) -> None:
    """Sends of variants, aborts, the control group and a plain campaign are counted exactly as the files hold them."""
    workspace = write_workspace(tmp_path / "workspace", FILES)
    clock = ManualClock(NOW_MS)
    async with running(tmp_path / "data", clock, workspace=workspace) as node:
        await process(node, *(described(user) for user in USERS))
        for _ in range(3):
            await process(node, *(event(user) for user in USERS))
            clock.advance(DAY_MS // 2)
        await node.export.flush()
        found = counted(node.store, range(PARTITIONS))
        plain = await ask(node, "report", campaign="plain", unit="hour")
        split = await ask(node, "report", campaign="split", unit="hour")

    assert found == recount(rows_of_files(tmp_path / "data/exports"))
    totals = {each["variant"]: each["totals"] for each in split["variants"]}
    assert set(totals) == {"short", "long", "control"}
    assert all(totals[name]["sent"] for name in ("short", "long"))
    assert (totals["control"]["control"] > 0, totals["control"]["sent"]) == (True, 0)
    assert plain["variants"][0]["totals"]["sent"] == len(USERS)
    assert sum(each["sent"] for each in plain["variants"][0]["series"]) == len(USERS)


@asynccontextmanager
async def serving(folder: Path, clock: ManualClock) -> AsyncIterator[tuple[Node, str]]:
    """A node with a door, and its address."""
    http = f"127.0.0.1:{free_port()}"
    workspace = write_workspace(folder / "workspace", FILES)
    settings = load_settings(environment(folder / "data", http=http, api_key=KEY, workspace=workspace))
    node = Node(settings, clock)
    node.wire(door=True)
    await node.start()
    try:
        yield node, http
    finally:
        await node.stop()


async def call(http: str, path: str, key: str = KEY) -> tuple[int, dict[str, Any]]:
    """GET with the key."""
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{http}/campaigns/{path}", headers=headers) as answer,
    ):
        return answer.status, json.loads(await answer.text())


LIST = {"id", "last_edited", "name", "is_api_campaign", "tags"}
DETAILS = {
    *("created_at", "updated_at", "archived", "draft", "enabled", "has_post_launch_draft", "name", "description"),
    *("schedule_type", "channels", "first_sent", "last_sent", "tags", "teams", "messages", "conversion_behaviors"),
}
DAY = {
    *("time", "messages", "unique_recipients", "revenue", "conversions", "conversions_by_send_time"),
    *(f"conversions{at}{suffix}" for at in (1, 2, 3) for suffix in ("", "_by_send_time")),
}
EMAIL = {
    *("sent", "opens", "unique_opens", "clicks", "unique_clicks", "unsubscribes", "bounces", "delivered"),
    *("reported_spam",),
}


async def test_api(tmp_path: Path) -> None:
    """List, details and data series have the fields of the reference, and the numbers of what happened."""
    clock = ManualClock(NOW_MS)
    async with serving(tmp_path, clock) as (node, http):
        await process(node, *(described(user) for user in USERS))
        await process(node, *(event(user) for user in USERS))
        clock.advance(DAY_MS)
        await process(node, *(event(user) for user in USERS))
        status, listed = await call(http, "list")
        plain, split = listed["campaigns"]
        _, details = await call(http, f"details?campaign_id={split['id']}")
        _, series = await call(http, f"data_series?campaign_id={split['id']}&length=3")
        _, other = await call(http, f"data_series?campaign_id={plain['id']}&length=1&ending_at=2025-11-24")
        overview = {row["campaign"]: row for row in await ask(node, "report")}

    assert (status, listed["message"]) == (200, "success")
    assert [plain["name"], split["name"]] == ["plain", "split"]
    assert set(plain) == LIST
    assert plain["id"] == ids.definition_api_id("campaign", "plain")
    assert set(details) == DETAILS | {"message"}
    assert (details["enabled"], details["channels"], details["schedule_type"]) == (True, ["email"], "action_based")
    assert details["first_sent"] < details["last_sent"]
    assert {each["name"] for each in details["messages"].values()} == {"short", "long", "control"}
    days = series["data"]
    assert [day["time"] for day in days] == ["2025-11-23", "2025-11-24", "2025-11-25"]
    assert all(set(day) == DAY for day in days)
    by_name = [{each["variation_name"]: each for each in day["messages"]["email"]} for day in days]
    assert all(set(day["short"]) >= EMAIL and not EMAIL & set(day["control"]) for day in by_name)
    assert [day["short"]["sent"] + day["long"]["sent"] for day in by_name] == [day["unique_recipients"] for day in days]
    assert sum(day["short"]["sent"] for day in by_name) > 0
    assert [message["sent"] for message in other["data"][0]["messages"]["webhook"]] == [len(USERS)]
    assert overview["split"]["totals"]["sent"] == sum(day["unique_recipients"] for day in days)


REFUSED = {
    "details": "campaign_id",
    "details?campaign_id=nope": "nope",
    "data_series?campaign_id=plain": "length",
    "data_series?campaign_id=plain&length=101": "length",
    "data_series?campaign_id=plain&length=1&ending_at=never": "ending_at",
    "list?page=-1": "page",
    "list?sort_direction=up": "sort_direction",
    "list?include_archived=maybe": "include_archived",
}


async def test_api_refuses(tmp_path: Path) -> None:
    """What cannot be answered is refused by the name of its parameter, and without the key nothing is said."""
    async with serving(tmp_path, ManualClock(NOW_MS)) as (_, http):
        said = {path: await call(http, path) for path in REFUSED}
        without = {(await call(http, path, key="wrong"))[0] for path in (*REFUSED, "list")}

    assert {status for status, _ in said.values()} == {400}
    assert [path for path, (_, body) in said.items() if REFUSED[path] not in body["message"]] == []
    assert without == {401}

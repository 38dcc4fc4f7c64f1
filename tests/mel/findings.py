"""What must be found because of each step: in profiles, in the report, in the export, and in the mailboxes."""

from __future__ import annotations

import json
import re
from collections import Counter
from email.utils import parsedate_to_datetime
from typing import Final

from tests.mel.ledger import Fact, fact
from tests.mel.people import DAYS_OF_HISTORY, LIKES_WANTED, MEL
from tests.mel.shop_server import html_of
from tests.mel.stage import APP, Row
from tests.mel.story import ANONYMOUS_STORY, BEST_MINUTE, CAMPAIGN, KNOWN_STORY, PRODUCT, SEGMENT, Story

GREETING: Final = re.compile(r"Hello ([^,<]+),")
SEND, DELIVERY, OPEN, CLICK = (f"users.messages.email.{name}" for name in ("Send", "Delivery", "Open", "Click"))
EVENT: Final = "users.behaviors.CustomEvent"


async def moved_in(story: Story) -> list[Fact]:
    """Everyone is there, with all that the old platform knew."""
    totals = await story.product.ask("totals")
    profile = await story.profile()
    names = ("first_name", "preferred_name", "email", "email_subscribe", "time_zone")
    known = [f"{name}={profile['attributes'].get(name)}" for name in names]
    old = [_like(row) for row in await story.rows(EVENT, name="article_liked") if "old-" in row["properties"]]
    wanted = [f"{one.external_id} old-{number}" for one in story.people for number in range(one.likes)]
    return [
        fact("everyone who moved", "state", sum(each["users"] for each in totals), len(story.people)),
        fact("what was known of Mel", "profile", known, [f"{name}={getattr(MEL, name)}" for name in names]),
        fact("every like of the past", "export", old, wanted),
    ]


async def browsed(story: Story) -> list[Fact]:
    """What the device did belongs to the device."""
    profile = await story.profile(f"device:{story.device}")
    return [fact("a like by somebody nobody knows", "profile", _counts(profile, "article_liked"), ["article_liked 1"])]


async def merged(story: Story) -> list[Fact]:
    """What the device did is Mel's, once, and the device has no profile any more."""
    rows = await story.rows(EVENT, name="article_liked", device_id=story.device)
    orphans = await story.rows("users.UserOrphan")
    return [
        fact(
            "the device is Mel's",
            "export",
            _orphans(orphans),
            [f"{story.device} of {(await story.profile())['user_id']}"],
        ),
        fact(
            "the like before the log-in",
            "profile",
            _counts(await story.profile(), "article_liked"),
            ["article_liked 1"],
        ),
        fact("the like before the log-in", "export", [_article(row) for row in rows], [ANONYMOUS_STORY]),
    ]


async def in_segment(story: Story) -> list[Fact]:
    """Two likes, one of them as nobody, make Mel one of those who are written to."""
    profile = await story.profile()
    counts = await story.product.ask("segments")
    likers = [one for one in story.people if one.likes >= LIKES_WANTED]
    return [
        fact("both likes", "profile", _counts(profile, "article_liked"), ["article_liked 2"]),
        fact("the segment", "profile", list(profile["segments"]), [SEGMENT]),
        fact("its size", "state", sum(each[SEGMENT]["now"] for each in counts), len(likers) + 1),
        fact(
            "the like after the log-in",
            "export",
            [
                _article(row)
                for row in await story.rows(EVENT, name="article_liked", external_user_id=MEL.external_id)
                if _article(row) == KNOWN_STORY
            ],
            [KNOWN_STORY],
        ),
    ]


async def announced(story: Story) -> list[Fact]:
    """The team sees the campaign."""
    listed = await story.product.get("/campaigns/list")
    return [fact("the campaign", "API", [each["name"] for each in listed["campaigns"]], [CAMPAIGN])]


async def nothing_yet(story: Story) -> list[Fact]:
    """Nobody is written to before their hour."""
    return [fact("no mail before its hour", "mailboxes", [mail["To"] for mail in story.shop.mails()], [])]


async def written(story: Story) -> list[Fact]:
    """Each got one mail, at their hour, by the name that they prefer; or was left out, to compare with."""
    mails = story.shop.mails()
    control = [row["external_user_id"] for row in await story.rows("users.campaigns.EnrollInControl")]
    sends = await story.rows(SEND)
    wanted = [one for one in story.people if one.is_written_to]
    mailed = [one for one in wanted if one.external_id not in control]
    return [
        fact(
            "written to, or left out to compare with",
            "export",
            [*control, *(row["external_user_id"] for row in sends)],
            [one.external_id for one in wanted],
        ),
        fact(
            "each person's mail, at the hour and by the name",
            "mailboxes",
            [f"{mail['To']} {parsedate_to_datetime(mail['Date']):%H:%M} {_greeted(html_of(mail))}" for mail in mails],
            [f"{one.email} {one.usual_hour}:{BEST_MINUTE} {one.called}" for one in mailed],
        ),
        fact(
            "the same dispatches in mailboxes and export",
            "export",
            [row["dispatch_id"] for row in sends],
            [mail["X-Headrace-Dispatch"] for mail in mails],
        ),
        fact(
            "each mail was delivered",
            "export",
            _dispatches(await story.rows(DELIVERY)),
            [mail["X-Headrace-Dispatch"] for mail in mails],
        ),
        fact("the announcement", "profile", _entries(await story.profile()), [f"{CAMPAIGN} 1"]),
    ]


async def opened(story: Story) -> list[Fact]:
    """One opening, of the mail that Mel got."""
    return [fact("Mel opened it", "export", _dispatches(await story.rows(OPEN)), [_dispatch(story)])]


async def clicked(story: Story) -> list[Fact]:
    """One click, on the link to the record."""
    rows = [f"{row['dispatch_id']} {row['url']}" for row in await story.rows(CLICK)]
    return [fact("Mel clicked", "export", rows, [f"{_dispatch(story)} {story.shop.url}/product"])]


async def wished(story: Story) -> list[Fact]:
    """What the mail was for has happened."""
    events = await story.rows(EVENT, name="wishlist_added")
    conversions = await story.rows("users.campaigns.Conversion")
    return [
        fact("the wish", "profile", _counts(await story.profile(), "wishlist_added"), ["wishlist_added 1"]),
        fact(
            "the wish",
            "export",
            [f"{row['external_user_id']} {row['properties']}" for row in events],
            [f'mel {{"product":"{PRODUCT}"}}'],
        ),
        fact(
            "the conversion",
            "export",
            [f"{row['external_user_id']} {row['campaign_name']}" for row in conversions],
            [f"mel {CAMPAIGN}"],
        ),
    ]


async def reported(story: Story) -> list[Fact]:
    """The report counts what the export lists, and nobody's session was told twice."""
    sends, control = await story.rows(SEND), await story.rows("users.campaigns.EnrollInControl")
    listed = await story.product.get("/campaigns/list")
    campaign_id = next(each["id"] for each in listed["campaigns"] if each["name"] == CAMPAIGN)
    series = await story.product.get("/campaigns/data_series", campaign_id=campaign_id, length="7")
    sessions = [row["session_id"] for row in await story.rows("users.behaviors.app.SessionStart", app_id=APP)]
    profile = await story.profile()
    return [
        fact("the report", "API", _totals(series["data"]), _expected(sends, control)),
        fact("the report", "page", _shown(await story.report_rows()), _expected(sends, control)),
        fact("sessions in the shop", "export", sessions, sorted(set(sessions))),
        fact("all sessions", "profile", profile["sessions"]["count"], DAYS_OF_HISTORY + len(sessions)),
    ]


def _expected(sends: list[Row], control: list[Row]) -> list[str]:
    """What the report must say of these, and of the one who opened, clicked and wished."""
    of_variant = Counter(row["message_variation_name"] for row in sends)
    lines = [f"{variant} {what} {count}" for variant, count in of_variant.items() for what in ("sent", "delivered")]
    return [
        *lines,
        "opens 1",
        "clicks 1",
        "conversions 1",
        *([f"control recipients {len(control)}"] if control else []),
    ]


def _shown(rows: list[list[str]]) -> list[str]:
    """The same lines out of the page's table."""
    found: Counter[str] = Counter()
    heads = rows[0] if rows else []
    for row in rows[1:]:
        cells = dict(zip(heads, row, strict=False))
        name = "control" if cells["Variant"] == "Control group" else cells["Variant"]
        found[f"{name} sent"] += _number(cells["Sent"])
        found[f"{name} delivered"] += _number(cells["Delivered"])
        found["control recipients"] += _number(cells["In control"])
        for head, line in (("Opened", "opens"), ("Clicked", "clicks"), ("Converted", "conversions")):
            found[line] += _number(cells[head])
    return [f"{name} {count}" for name, count in found.items() if count]


def _number(cell: str) -> int:
    """What a cell says; a dash says nothing."""
    digits = cell.replace(",", "")
    return int(digits) if digits.isdecimal() else 0


def _totals(days: list[Row]) -> list[str]:
    """The same lines out of Braze's series by day."""
    found: Counter[str] = Counter()
    for day in days:
        found["conversions"] += day["conversions"]
        for each in day["messages"]["email"]:
            found[f"{each['variation_name']} sent"] += each.get("sent", 0)
            found[f"{each['variation_name']} delivered"] += each.get("delivered", 0)
            found["control recipients"] += each["unique_recipients"] if each["variation_name"] == "control" else 0
            found["opens"] += each.get("unique_opens", 0)
            found["clicks"] += each.get("unique_clicks", 0)
    return [f"{name} {count}" for name, count in found.items() if count]


def _counts(profile: Row, *names: str) -> list[str]:
    return [f"{name} {profile['events'][name]['count']}" for name in names if name in profile["events"]]


def _entries(profile: Row) -> list[str]:
    return [f"{name} {found['entries']}" for name, found in profile["campaigns"].items()]


def _orphans(rows: list[Row]) -> list[str]:
    return [f"{row['device_id']} of {row['orphaned_by_id']}" for row in rows]


def _article(row: Row) -> str:
    return str(json.loads(row["properties"])["article"])


def _like(row: Row) -> str:
    return f"{row['external_user_id']} {_article(row)}"


def _greeted(html: str) -> str:
    found = GREETING.search(html)
    return found[1] if found else "nobody"


def _dispatches(rows: list[Row]) -> list[str]:
    return [row["dispatch_id"] for row in rows]


def _dispatch(story: Story) -> str:
    """Of the mail that Mel got."""
    return str(story.shop.mail_to(MEL.email)["X-Headrace-Dispatch"])

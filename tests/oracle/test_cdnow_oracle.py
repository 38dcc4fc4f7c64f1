"""The oracle against answers worked out by hand, known facts of the file, and a second way to count."""

from __future__ import annotations

import shutil
from collections import Counter
from decimal import Decimal
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.oracle.cdnow import (
    Purchase,
    UnsupportedError,
    cdnow_path,
    expected,
    midnight,
    read_purchases,
    read_rows,
    read_workspace,
    summarize,
)

DEMO = Path(__file__).parents[2] / "config" / "demo"
DAY = 86_400


@pytest.fixture
def workspace_dir(tmp_path: Path) -> Path:
    """Give the test its own copy of the demo workspace, to change as it likes."""
    return shutil.copytree(DEMO, tmp_path / "workspace")


def change(folder: Path, file: str, old: str, new: str) -> None:
    """Replace a text that must be there in one definition."""
    text = (folder / file).read_text("utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new), "utf-8")


def replay(folder: Path, *purchases: tuple[str, int, str]) -> dict[str, Any]:
    """Summarize purchases written as (customer, day, price)."""
    return summarize(
        read_workspace(folder), [Purchase(who, day * DAY, Decimal(price)) for who, day, price in purchases]
    )


def moves(line: dict[str, Any], segment: str) -> tuple[int, int, int]:
    """Return (entered, left, now) of a segment."""
    counts = line["segments"][segment]
    return counts["entered"], counts["left"], counts["now"]


# -- by hand -------------------------------------------------------------------------------------------


def test_one_purchase_gives_the_whole_line() -> None:
    """The smallest input gives the line that one can write down without computing, key by key."""
    assert replay(DEMO, ("a", 0, "11.77")) == {
        "events": 1,
        "users": 1,
        "revenue": 11.77,
        "segments": {
            "active": {"entered": 1, "left": 0, "now": 1},
            "lapsed": {"entered": 0, "left": 0, "now": 0},
            "vip": {"entered": 0, "left": 0, "now": 0},
        },
        "sends": {"welcome": 1, "win_back": 0, "thank_you_vip": 0},
        "delivered": 1,
        "held": 0,
        "aborted": 0,
        "failed": 0,
        "dead_letters": 0,
        "export": {"rows": 2},
    }


@pytest.mark.parametrize(("end", "lapsed"), [(89, 0), (90, 1), (91, 1)])
def test_a_window_ends_at_its_edge_and_the_closing_tick_counts(end: int, lapsed: int) -> None:
    """A purchase of day 0 keeps its user active through day 89 and lapses at the very start of day 90."""
    line = replay(DEMO, ("a", 0, "10"), ("other", end, "10"))
    assert moves(line, "active") == (2, lapsed, 2 - lapsed)
    assert moves(line, "lapsed") == (lapsed, 0, lapsed)
    assert line["sends"]["win_back"] == lapsed


@pytest.mark.parametrize(("gap", "lapses"), [(89, 0), (90, 1), (91, 1)])
def test_a_purchase_at_the_edge_comes_after_the_leave(gap: int, lapses: int) -> None:
    """A second purchase exactly 90 days later finds its user lapsed and brings the user back."""
    line = replay(DEMO, ("a", 0, "10"), ("a", gap, "10"))
    assert moves(line, "active") == (1 + lapses, lapses, 1)
    assert moves(line, "lapsed") == (lapses, lapses, 0)
    assert line["sends"] == {"welcome": 1, "win_back": lapses, "thank_you_vip": 0}


@pytest.mark.parametrize(("third", "win_backs"), [(179, 1), (180, 2)])
def test_win_back_is_eligible_again_after_exactly_180_days(workspace_dir: Path, third: int, win_backs: int) -> None:
    """Lapsing on day 10 and again 179 days later mails once, 180 days later twice."""
    change(workspace_dir, "segments/lapsed.yaml", "90d", "10d")
    line = replay(workspace_dir, ("a", 0, "10"), ("a", third, "10"), ("other", third + 10, "10"))
    assert moves(line, "lapsed") == (2, 1, 1)
    assert line["sends"]["win_back"] == win_backs


def test_an_entry_that_was_refused_does_not_start_the_wait_anew(workspace_dir: Path) -> None:
    """Lapsing on days 10, 110 and 190 mails on 10 and 190: the refused entry of day 110 does not count."""
    change(workspace_dir, "segments/lapsed.yaml", "90d", "10d")
    line = replay(workspace_dir, ("a", 0, "10"), ("a", 100, "10"), ("a", 180, "10"), ("other", 190, "10"))
    assert moves(line, "lapsed") == (3, 2, 1)
    assert line["sends"]["win_back"] == 2


def test_without_re_eligible_after_a_campaign_is_entered_once(workspace_dir: Path) -> None:
    """The same three lapses mail once when the campaign does not say when it may be entered again."""
    change(workspace_dir, "segments/lapsed.yaml", "90d", "10d")
    change(workspace_dir, "campaigns/win_back.yaml", "re_eligible_after: 180d\n", "")
    line = replay(workspace_dir, ("a", 0, "10"), ("a", 500, "10"), ("a", 1000, "10"), ("a", 1500, "10"))
    assert moves(line, "lapsed") == (3, 3, 0)
    assert line["sends"]["win_back"] == 1


@pytest.mark.parametrize(("end", "sent"), [(94, 0), (95, 1)])
def test_a_delayed_send_counts_from_its_own_time(workspace_dir: Path, end: int, sent: int) -> None:
    """With a delay of 5 days the lapse of day 90 is mailed on day 95, and not if the replay ends before."""
    change(workspace_dir, "campaigns/win_back.yaml", "delay: 0s", "delay: 5d")
    line = replay(workspace_dir, ("a", 0, "10"), ("other", end, "10"))
    assert moves(line, "lapsed") == (1, 0, 1)
    assert line["sends"]["win_back"] == sent


def test_eligibility_counts_from_the_trigger_not_from_the_delayed_send(workspace_dir: Path) -> None:
    """Lapses on days 10 and 190 are 180 days apart although a delay of 5 days lies behind each."""
    change(workspace_dir, "segments/lapsed.yaml", "90d", "10d")
    change(workspace_dir, "campaigns/win_back.yaml", "delay: 0s", "delay: 5d")
    line = replay(workspace_dir, ("a", 0, "10"), ("a", 180, "10"), ("other", 195, "10"))
    assert line["sends"]["win_back"] == 2


@pytest.mark.parametrize(("second", "vip"), [("100.00", 0), ("100.01", 1)])
def test_over_is_strict(second: str, vip: int) -> None:
    """Exactly 200.00 is not over 200; one cent more is."""
    line = replay(DEMO, ("a", 0, "100.00"), ("a", 0, second))
    assert moves(line, "vip") == (vip, 0, vip)
    assert line["sends"]["thank_you_vip"] == vip


def test_money_is_decimal(workspace_dir: Path) -> None:
    """0.10 + 0.20 is not over 0.3, as it would be in binary fractions."""
    change(workspace_dir, "segments/vip.yaml", "200", "0.3")
    assert moves(replay(workspace_dir, ("a", 0, "0.10"), ("a", 1, "0.20")), "vip") == (0, 0, 0)


def test_money_within_a_window_leaves_and_returns_but_thanks_once(workspace_dir: Path) -> None:
    """150 + 60 hold from day 20 to 30, 60 + 141 from 40 to 50, and the 201 of day 90 alone holds again."""
    change(workspace_dir, "segments/vip.yaml", "over: 200", "over: 200, within: 30d")
    line = replay(
        workspace_dir,
        ("a", 0, "150"),
        ("a", 20, "60"),
        ("a", 40, "141"),
        ("other", 49, "1"),
        ("a", 90, "201"),
    )
    assert moves(line, "vip") == (3, 2, 1)
    assert line["sends"]["thank_you_vip"] == 1


def test_purchases_of_one_instant_are_counted_one_by_one(workspace_dir: Path) -> None:
    """With two purchases in 30 days asked for, the second one enters and the older one's expiry leaves."""
    change(workspace_dir, "segments/active.yaml", "at_least: 1, within: 90d", "at_least: 2, within: 30d")
    assert moves(replay(workspace_dir, ("a", 0, "1"), ("a", 0, "1")), "active") == (1, 0, 1)
    assert moves(replay(workspace_dir, ("a", 0, "1"), ("a", 10, "1"), ("b", 29, "1")), "active") == (1, 0, 1)
    assert moves(replay(workspace_dir, ("a", 0, "1"), ("a", 10, "1"), ("b", 30, "1")), "active") == (1, 1, 0)


def test_every_purchase_counts_even_free_and_repeated(workspace_dir: Path) -> None:
    """Equal purchases of 0.00 on one day make a user active once; a repeatable welcome fires for each."""
    change(workspace_dir, "campaigns/welcome.yaml", "name: welcome\n", "name: welcome\nre_eligible_after: 0s\n")
    line = replay(workspace_dir, ("a", 0, "0.00"), ("a", 0, "0.00"))
    assert (line["events"], line["users"], line["sends"]["welcome"]) == (2, 1, 2)
    assert moves(line, "active") == (1, 0, 1)


def test_order_of_the_file_does_not_matter_across_dates() -> None:
    """Purchases are replayed in order of date, wherever they stand in the file."""
    assert replay(DEMO, ("a", 200, "10"), ("a", 0, "10")) == replay(DEMO, ("a", 0, "10"), ("a", 200, "10"))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("segments/active.yaml", "purchases: {at_least", "event: {at_least"),
        ("segments/active.yaml", "at_least: 1", "at_least: 0"),
        ("segments/active.yaml", "within: 90d", "within: 90d, product: cds"),
        ("segments/active.yaml", "within: 90d", "within: 90"),
        ("segments/active.yaml", "name: active", "name: vip"),
        ("segments/lapsed.yaml", "purchases: {at_least: 1}}, {not", "not: {money_spent: {over: 1}}}, {not"),
        ("segments/vip.yaml", "over", "under"),
        ("segments/vip.yaml", "200", "true"),
        ("campaigns/welcome.yaml", "{purchase: {}}", "{purchase: {product: cds}}"),
        ("campaigns/welcome.yaml", "channel: email", "channel: log"),
        ("campaigns/win_back.yaml", "segment_entered: lapsed", "segment_left: active"),
        ("campaigns/win_back.yaml", "segment_entered: lapsed", "segment_entered: gone"),
        ("campaigns/win_back.yaml", "delay: 0s", "audience: {segment: vip}"),
    ],
)
def test_what_it_cannot_decide_it_refuses(workspace_dir: Path, file: str, old: str, new: str) -> None:
    """A definition outside the known family is an error, never a silently wrong number."""
    change(workspace_dir, file, old, new)
    with pytest.raises(UnsupportedError):
        read_workspace(workspace_dir)


# -- the file ------------------------------------------------------------------------------------------


@cache
def full_file() -> list[Purchase]:
    """Read the file once for all tests."""
    return read_purchases(cdnow_path())


def days_by_customer() -> dict[str, list[int]]:
    """Return the sorted days of every customer's purchases."""
    days: dict[str, list[int]] = {}
    for purchase in sorted(full_file(), key=lambda p: p.at):
        days.setdefault(purchase.customer, []).append(purchase.at // DAY)
    return days


def test_known_facts_of_the_file() -> None:
    """The parser sees every row: counts, repeats, free purchases, revenue and both ends of the time span."""
    rows, purchases = read_rows(cdnow_path()), full_file()
    assert len(rows) == len(purchases) == 69_659
    assert len({p.customer for p in purchases}) == 23_570
    assert len(rows) - len({tuple(row) for row in rows}) == 255
    assert sum(p.price == 0 for p in purchases) == 80
    assert sum(p.price for p in purchases) == Decimal("2500315.63")
    assert (min(p.at for p in purchases), max(p.at for p in purchases)) == (
        midnight("19970101"),
        midnight("19980630"),
    )


def test_exact_90_day_repeats() -> None:
    """119 purchases fall on the very edge of the 90-day window of the one before."""
    gaps = Counter(b - a for days in days_by_customer().values() for a, b in pairwise(days))
    assert gaps[90] == 119


@pytest.mark.parametrize("within", [90, 30])
def test_the_full_file_equals_a_count_of_gaps(workspace_dir: Path, within: int) -> None:
    """On all of CDNOW the walk through instants agrees with a count that only looks at gaps and totals."""
    for name in ("active", "lapsed"):
        change(workspace_dir, f"segments/{name}.yaml", "90d", f"{within}d")
    line, end = expected(workspace_dir), midnight("19980630") // DAY
    days, spent = days_by_customer(), Counter[str]()
    win_backs = lapses = returns = 0
    for mine in days.values():
        mailed = -1_000_000
        for day, following in pairwise([*mine, end + 1_000_000]):
            lapsed = day + within
            lapses += lapsed <= min(following, end)
            returns += lapsed <= following <= end
            if lapsed <= min(following, end) and lapsed - mailed >= 180:
                win_backs, mailed = win_backs + 1, lapsed
    for purchase in full_file():
        spent[purchase.customer] += int(purchase.price * 100)
    vips = sum(cents > 20_000 for cents in spent.values())
    assert moves(line, "active") == (len(days) + returns, lapses, len(days) + returns - lapses)
    assert moves(line, "lapsed") == (lapses, returns, lapses - returns)
    assert moves(line, "vip") == (vips, 0, vips)
    assert line["sends"] == {"welcome": len(days), "win_back": win_backs, "thank_you_vip": vips}
    assert line["export"]["rows"] == line["events"] + line["delivered"] == 69_659 + sum(line["sends"].values())

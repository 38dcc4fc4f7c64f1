"""Time zones at the ends of the calendar."""

import pytest

from streams.times import parse_time
from streams.zones import local_of, zone_names
from tests.driver import Driver

EDGES = ("0001-01-01T00:00:00Z", "0001-01-01T13:59:00Z", "9999-12-31T10:00:00Z", "9999-12-31T23:59:59.999Z")


@pytest.mark.parametrize("text", EDGES)
def test_every_zone_has_a_local_time_at_both_ends_of_the_calendar(text: str) -> None:
    """Where the clocks of a zone show a year without a number, its offset is that of a day further in."""
    moment_ms = parse_time(text)

    assert all(abs(local_of(moment_ms, name) - moment_ms) < 24 * 3_600_000 for name in zone_names())


@pytest.mark.parametrize("kind", [{"type": "session_start"}, {"type": "event", "name": "like"}])
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_an_event_of_the_year_one_is_folded(kind: dict[str, str], zone: str) -> None:
    """The zero time of other languages, from a user west of Greenwich too, counts and stops nothing."""
    driver = Driver({})
    driver.send({"type": "attributes", "external_id": "a", "time_zone": zone})
    driver.send({**kind, "external_id": "a", "time": "0001-01-01T00:00:00Z"})
    driver.send({"type": "event", "name": "next", "external_id": "a"})

    user = driver.user("a")
    counter = user.sessions if kind["type"] == "session_start" else user.events["like"]
    assert not driver.dead_letters
    assert counter is not None
    assert (counter.count, user.events["next"].count) == (1, 1)

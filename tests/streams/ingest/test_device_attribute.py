"""`device_id` names an anonymous user, and beside a known one it is an attribute like any other."""

from typing import Any

import pytest

from streams.codec import to_json
from streams.events import Attributes
from streams.ingest.raw_record import read_record

NOW_MS = 1_764_000_000_000


def read(value: dict[str, Any], key: bytes | None, *, alone: bool) -> tuple[str, dict[str, Any]] | str:
    """Whose attributes an object is, alone or in a track body, and which; else the reason why nobody's."""
    body = {"type": "attributes", **value} if alone else {"attributes": [value]}
    reading = read_record(key, to_json(body), NOW_MS)
    if reading.rejected:
        return reading.rejected[0].reason
    (routed,) = reading.routed
    assert isinstance(routed.event, Attributes)
    return routed.user, routed.event.values


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(
    ("value", "key", "found"),
    [
        ({"device_id": "d1", "a": 1}, None, ("device:d1", {"a": 1})),
        ({"device_id": "d1", "a": 1}, b"device:d1", ("device:d1", {"a": 1})),
        ({"external_id": "ann", "device_id": "d1", "a": 1}, None, ("ann", {"device_id": "d1", "a": 1})),
        ({"external_id": "ann", "device_id": "no device's id"}, b"ann", ("ann", {"device_id": "no device's id"})),
        ({"external_id": "ann", "device_id": 7}, b"ann", ("ann", {"device_id": 7})),
        ({"external_id": "ann", "device_id": None}, b"ann", ("ann", {"device_id": None})),
        ({"device_id": "d1", "a": 1}, b"ann", ("ann", {"device_id": "d1", "a": 1})),
        ({"device_id": "d2"}, b"device:d1", "key_mismatch"),
        ({"device_id": 7}, None, "wrong_type"),
        ({"device_id": "no device's id"}, None, "bad_value"),
    ],
)
def test_whose_attributes_and_which(value: dict[str, Any], key: bytes | None, found: object, alone: bool) -> None:
    """The same whether the object stands alone or in a body: a known user's `device_id` is never taken for a device."""
    assert read(value, key, alone=alone) == found


def test_an_event_under_a_key_that_its_device_contradicts_is_still_refused() -> None:
    """An event has no attributes, so there `device_id` can only be meant as the device."""
    reading = read_record(b"ann", to_json({"type": "event", "name": "x", "device_id": "d1"}), NOW_MS)

    assert [each.reason for each in reading.rejected] == ["key_mismatch"]

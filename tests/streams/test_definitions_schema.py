"""The JSON Schema of definitions, held against what the product itself accepts."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agents.definitions import check
from config.workspace import DEMO_FOLDER, read_workspace
from streams.definitions import MESSAGES, read_definitions
from streams.definitions_schema import schema
from streams.errors import BadDefinition
from streams.events import JSONValue
from streams.segments.predicate import FILTERS

FILE = Path(__file__).parents[2] / "docs" / "definitions.schema.json"
VALIDATOR = Draft202012Validator(schema())
SEGMENT: dict[str, Any] = {"name": "s", "filter": {"purchases": {}}}
EMAIL = {"to": "a@b.c", "subject": "x", "text": "y"}
CAMPAIGN: dict[str, Any] = {"name": "c", "trigger": {"purchase": {}}, "channel": "email", "message": EMAIL}
KINDS = {"segments": SEGMENT, "campaigns": CAMPAIGN}


def is_fit(kind: str, document: JSONValue) -> bool:
    """Whether `definitions check` accepts a folder with this file alone."""
    try:
        check(read_definitions({f"{kind}/x.yaml": document}))
    except BadDefinition:
        return False
    return True


# Files that differ from the good ones by these keys, and that both must refuse.
SEGMENT_CASES: dict[str, dict[str, Any]] = {
    "unknown_key": {"colour": "red"},
    "no_name": {"name": ""},
    "bad_name": {"name": "a b"},
    "name_is_number": {"name": 7},
    "empty_tree": {"filter": {}},
    "two_filters": {"filter": {"purchases": {}, "event": {"name": "x"}}},
    "unknown_filter": {"filter": {"bought": {}}},
    "empty_all": {"filter": {"all": []}},
    "all_is_a_mapping": {"filter": {"all": {"purchases": {}}}},
    "not_is_a_list": {"filter": {"not": [{"purchases": {}}]}},
    "deep_inside": {"filter": {"any": [{"not": {"all": [{"purchases": {"minimum": 1}}]}}]}},
    "unknown_parameter": {"filter": {"purchases": {"more_than": 1}}},
    "two_limits": {"filter": {"purchases": {"at_least": 1, "at_most": 2}}},
    "limit_too_high": {"filter": {"event": {"name": "x", "at_least": 1_001}}},
    "limit_below_0": {"filter": {"event": {"name": "x", "at_most": -1}}},
    "event_without_name": {"filter": {"event": {"at_least": 1}}},
    "bad_duration": {"filter": {"purchases": {"within": "90 days"}}},
    "money_without_limit": {"filter": {"money_spent": {"within": "90d"}}},
    "money_with_both": {"filter": {"money_spent": {"over": 1, "under": 2}}},
    "money_no_number": {"filter": {"money_spent": {"over": "much"}}},
    "money_nan": {"filter": {"money_spent": {"over": "NaN"}}},
    "bad_currency": {"filter": {"money_spent": {"over": 1, "currency": "usd"}}},
    "attribute_without_operator": {"filter": {"attribute": {"path": "plan"}}},
    "attribute_with_two": {"filter": {"attribute": {"path": "plan", "is": "a", "is_not": "b"}}},
    "attribute_bad_operand": {"filter": {"attribute": {"path": "age", "over": "old"}}},
    "where_two_operators": {"filter": {"event": {"name": "x", "where": {"p": {"is": 1, "over": 2}}}}},
    "where_unknown_operator": {"filter": {"event": {"name": "x", "where": {"p": {"like": 1}}}}},
    "segment_is_a_mapping": {"filter": {"segment": {"name": "vip"}}},
}
CAMPAIGN_CASES: dict[str, dict[str, Any]] = {
    "unknown_key": {"colour": "red"},
    "no_trigger": {"trigger": {}},
    "two_triggers": {"trigger": {"purchase": {}, "event": {"name": "x"}}},
    "unknown_trigger": {"trigger": {"birthday": {}}},
    "trigger_where": {"trigger": {"purchase": {"where": {"p": {"is": 1, "over": 2}}}}},
    "unknown_channel": {"channel": "fax"},
    "email_without_body": {"message": {"to": "a", "subject": "b"}},
    "email_with_empty_body": {"message": {"to": "a", "subject": "b", "text": "", "html": ""}},
    "email_without_subject": {"message": {"to": "a", "text": "b"}},
    "email_of_a_webhook": {"channel": "webhook"},
    "webhook_bad_method": {"channel": "webhook", "message": {"body": "x", "method": "PATCH"}},
    "webhook_bad_header": {"channel": "webhook", "message": {"body": "x", "headers": {"A": 1}}},
    "log_with_subject": {"channel": "log", "message": {"text": "x", "subject": "y"}},
    "delay_is_a_number": {"delay": 5},
    "bad_delay": {"delay": "soon"},
    "bad_audience": {"audience": {"vip": True}},
}
CASES = [
    *(("segments", SEGMENT, name, change) for name, change in SEGMENT_CASES.items()),
    *(("campaigns", CAMPAIGN, name, change) for name, change in CAMPAIGN_CASES.items()),
]


# Filter trees and campaigns' keys that look odd, and that both must accept.
ODD_TREES: tuple[dict[str, Any], ...] = (
    {"event": {"name": "x", "where": {}}},
    {"event": {"name": "x", "where": {"a": 1, "b.c": [1, 2], "d": None, "e": {"is": None}, "f": {"is": {"g": 1}}}}},
    {"money_spent": {"over": "12.50", "within": "1d 12h 30m 1s"}},
    {"money_spent": {"under": -1.5e3}},
    {"attribute": {"path": "p", "contains": ["a"]}},
    {"attribute": {"path": "p", "is": None}},
    {"event": {"name": "x", "at_most": 0}},
)
ODD_KEYS: tuple[dict[str, Any], ...] = (
    {"audience": {}},
    {"delay": "365d", "re_eligible_after": "0s", "description": ""},
    {"trigger": {"purchase": {"product": "p", "where": {"q": {"over": 1}}}}},
    {"trigger": {"attribute_changed": "plan"}},
    {"message": {"to": "", "subject": "", "text": "", "html": "x", "from": "a", "reply_to": "b"}},
    {"channel": "webhook", "message": {"body": "", "method": "GET", "headers": {"A": ""}}},
)


@pytest.mark.parametrize("tree", ODD_TREES, ids=str)
def test_odd_filters_are_accepted(tree: dict[str, Any]) -> None:
    """What an author may write in a filter, down to its edges, passes the product and the schema."""
    document = {"name": "s", "filter": {"not": tree}}
    assert (is_fit("segments", document), VALIDATOR.is_valid(document)) == (True, True)


@pytest.mark.parametrize("change", ODD_KEYS, ids=str)
def test_odd_campaigns_are_accepted(change: dict[str, Any]) -> None:
    """What an author may write in a campaign, down to its edges, passes the product and the schema."""
    document = {**CAMPAIGN, **change}
    assert (is_fit("campaigns", document), VALIDATOR.is_valid(document)) == (True, True)


def test_the_file_is_the_generated_one() -> None:
    """docs/definitions.schema.json is what the code generates now, and it is a valid schema."""
    Draft202012Validator.check_schema(schema())

    assert json.loads(FILE.read_text("utf-8")) == schema(), "run `make schema`"


def test_the_demo_is_accepted() -> None:
    """Every file of the demo's workspace passes the schema."""
    faults = {path: list(VALIDATOR.iter_errors(found)) for path, found in read_workspace(DEMO_FOLDER).items()}

    assert len(faults) == 6
    assert {path: found for path, found in faults.items() if found} == {}


@pytest.mark.parametrize(("kind", "good", "name", "change"), CASES, ids=[f"{case[0]}-{case[2]}" for case in CASES])
def test_what_is_refused_is_refused_by_the_schema(
    kind: str, good: dict[str, Any], name: str, change: dict[str, Any]
) -> None:
    """A file that one key spoils is refused by the product and by the schema; without it both accept it."""
    assert (is_fit(kind, good), VALIDATOR.is_valid(good)) == (True, True)
    assert (is_fit(kind, {**good, **change}), VALIDATOR.is_valid({**good, **change})) == (False, False)


def test_every_example_of_every_filter_is_accepted() -> None:
    """Parameters that a filter gives as its examples pass the schema, alone and within a tree."""
    for name, spec in FILTERS.items():
        for params, *_ in spec.examples:
            VALIDATOR.validate({"name": "s", "filter": {"any": [{name: params}, {"not": {name: params}}]}})


def test_choices_hold_in_the_product_too() -> None:
    """What a filter declares as a choice for the schema, its `compile` refuses to take twice."""
    for name, spec in FILTERS.items():
        params = dict(spec.examples[0][0]) if isinstance(spec.examples[0][0], dict) else {}
        for choice in (spec.exactly_one, spec.at_most_one):
            both = {**{key: value for key, value in params.items() if key not in choice}, **dict.fromkeys(choice, 1)}
            assert not choice or not is_fit("segments", {"name": "s", "filter": {name: both}}), name


def test_people_read_why() -> None:
    """Every kind, message, trigger, filter and duration says in a sentence what it is for."""
    found = schema()["$defs"]
    wanted = ["SegmentDefinition", "CampaignDefinition", "Trigger", "filter", "where"]
    wanted += [message.__name__ for message in MESSAGES.values()]
    wanted += [f"filter.{name}" for name in FILTERS if f"filter.{name}" in found]

    assert [name for name in wanted if not found[name].get("description")] == []
    for kind in ("SegmentDefinition", "CampaignDefinition", "EmailMessage", "WebhookMessage", "LogMessage"):
        bare = {key for key, value in found[kind]["properties"].items() if not value.get("description")}
        assert bare <= {"filter", "from", "method"}, kind


leaves = st.sampled_from(
    [0, 1, -1, 2.5, "", "x", "90d", "0s", "1d 12h", "USD", "2024-01-01", True, "email", [], {}, ["a"]]
)
keys = st.sampled_from(sorted({key for found in schema()["$defs"].values() for key in found.get("properties", ())}))
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=2))
seeds = st.sampled_from(
    [
        ("segments", {"name": "s", "filter": {name: params}})
        for name, spec in FILTERS.items()
        for params, *_ in spec.examples
    ]
    + [(path.split("/")[0], found) for path, found in read_workspace(DEMO_FOLDER).items()]
    + [("campaigns", {**CAMPAIGN, "audience": {"all": [{"segment": "s"}, {"event": {"name": "x"}}]}})]
)


def places(value: JSONValue) -> list[dict[str, Any]]:
    """Every mapping within a document."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return ([value] if isinstance(value, dict) else []) + [found for each in inner for found in places(each)]


@settings(max_examples=300)
@given(seeds, st.data())
def test_the_schema_is_never_stricter(seed: tuple[str, dict[str, Any]], data: st.DataObject) -> None:
    """Of definitions changed anywhere, those that the product accepts pass the schema."""
    kind, document = seed
    document = deepcopy(document)
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(places(document)))
        key = data.draw(st.sampled_from(sorted(place)) | keys if place else keys)
        place[key] = deepcopy(data.draw(values))

    if is_fit(kind, document):
        VALIDATOR.validate(document)

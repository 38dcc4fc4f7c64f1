"""What YAML can say and JSON, in which definitions are kept, cannot."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.definitions import read_checked
from streams.codec import to_json
from streams.definitions import decode_definitions, read_definitions
from streams.errors import BadDefinition
from streams.events import JSONValue

REFUSED = [
    *(".inf", "-.inf", ".nan", "1.0e+400", '"\\ud800"', "{1: 2}", "{true: 2}", "{~: 2}", '{"\\ud800": 2}'),
    *("!!binary aGk=", "!!set {a, b}", "!!omap [a: 1]", "!!timestamp 2024-01-01", "0x1" + "0" * 4_000),
]
VALUES: st.SearchStrategy[object] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.text("\ud800\udfff"),
        st.binary(),
        st.dates(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.text(), st.integers()), inner, max_size=3),
    ),
    max_leaves=5,
)


@pytest.mark.parametrize("nested", ["{}", "[[{}]]", "{{a: {}}}"])
@pytest.mark.parametrize("value", REFUSED)
def test_what_json_cannot_keep_is_refused_by_file_and_key(tmp_path: Path, value: str, nested: str) -> None:
    """In a filter, in a trigger's conditions and in a conversion's; the text of the refusal can be printed."""
    spec = nested.format(value)
    event = f"{{name: e, where: {{p: {{is: {spec}}}}}}}"
    tail = "channel: log\nmessage: {text: x}\n"
    files = {
        "segments/a.yaml": f"name: a\nfilter: {{attribute: {{path: ltv, is: {spec}}}}}\n",
        "segments/b.yaml": f"name: b\nfilter: {{any: [{{event: {event}}}]}}\n",
        "campaigns/c.yaml": f"name: c\ntrigger: {{event: {event}}}\n{tail}",
        "campaigns/d.yaml": f"name: d\ntrigger: {{purchase: {{}}}}\nconversions: [{{name: x, event: {event}}}]\n{tail}",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(BadDefinition) as refused:
        read_checked(tmp_path)

    lines = str(refused.value).encode().decode().splitlines()
    keys = {
        "segments/a.yaml": "filter.attribute.is",
        "segments/b.yaml": "filter.any[0].event.where.p.is",
        "campaigns/c.yaml": "trigger.event.where.p.is",
        "campaigns/d.yaml": "conversions[0].event.where.p.is",
    }
    assert [line.split(": ")[0] for line in lines] == sorted(keys)
    assert all(line.split(": ")[1].startswith(keys[line.split(": ")[0]]) for line in lines)


@pytest.mark.parametrize("limit", ["over", "under"])
def test_a_limit_is_a_number(limit: str) -> None:
    """A limit without end, which would be kept as null and not be read again, is refused by its key."""
    document: JSONValue = {"name": "a", "filter": {"attribute": {"path": "ltv", limit: float("inf")}}}
    with pytest.raises(BadDefinition, match=rf"segments/a\.yaml: filter\.attribute\.{limit}: the number is not finite"):
        read_definitions({"segments/a.yaml": document})


@given(VALUES)
def test_what_is_accepted_comes_back_as_it_was(value: object) -> None:
    """A definition is refused as such, or read back from its record equal, with no other error in between."""
    files = {"segments/a.yaml": {"name": "a", "filter": {"attribute": {"path": "p", "is": value}}}}
    try:
        definitions = read_definitions(files)
    except BadDefinition:
        return

    assert decode_definitions(to_json(definitions)) == definitions

"""The JSON Schema of a workspace's files: what editors complete, and refuse before `definitions check` does."""

from itertools import combinations
from typing import Any, Final, TypeAlias

import msgspec

from streams.campaigns.conversions import KINDS as CONVERSION_KINDS
from streams.definitions import CHANNEL_KEY, KINDS, MESSAGES, CampaignDefinition, SegmentDefinition
from streams.events import JSONValue
from streams.segments.condition import Condition
from streams.segments.filter import Filter
from streams.segments.predicate import FILTERS

Schema: TypeAlias = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
AMOUNT: Final = r"^\s*[+-]?[\d_]*\.?[\d_]*([eE][+-]?[\d_]+)?\s*$"
_TREE: Final = {"$ref": "#/$defs/filter"}
_WHERE: Final = {"$ref": "#/$defs/where"}
_TEXT: Final = {"minLength": 1}


def schema() -> Schema:
    """One schema for `segments/*.yaml` and `campaigns/*.yaml`: a file with a `filter` is a segment.

    It accepts whatever `definitions check` accepts in files without nulls, and it rejects what can be
    seen in one file: unknown keys and names, what is missing, types, bounds, and choices made twice.
    """
    types = [*KINDS.values(), *MESSAGES.values(), Condition, *(spec.params for spec in FILTERS.values())]
    schemas, found = msgspec.json.schema_components(types)
    names = {_name(ref): _name_of(type_) for ref, type_ in zip(schemas, types, strict=True) if "$ref" in ref}
    defs: Schema = {names.get(name, name): _plain(value, names) for name, value in found.items()}
    for name, kind_of_message in MESSAGES.items():
        defs[_name_of(kind_of_message)]["title"] = f"The message of a campaign with the channel {name}"
    _refine(defs)
    leaves = {name: _plain(ref, names) for name, ref in zip(FILTERS, schemas[-len(FILTERS) :], strict=True)}
    defs["filter"] = _tree(leaves)
    defs["where"] = {
        "description": "Conditions on an event's properties by path, dotted for nested ones; a plain value means `is`.",
        "type": "object",
        "additionalProperties": {"if": {"type": "object"}, "then": {"$ref": "#/$defs/Condition"}},
    }
    return {
        "$schema": DIALECT,
        "title": "A segment or a campaign of a Headrace workspace",
        "if": {"type": "object", "required": ["filter"]},
        "then": {"$ref": "#/$defs/SegmentDefinition"},
        "else": {"$ref": "#/$defs/CampaignDefinition"},
        "$defs": dict(sorted(defs.items())),
    }


def _refine(defs: Schema) -> None:
    """What the types alone do not say: trees, choices, and which message goes with which channel."""
    defs[SegmentDefinition.__name__]["properties"]["filter"] = _TREE
    campaign = defs[CampaignDefinition.__name__]
    audience = campaign["properties"]["audience"]
    audience |= {"if": {"minProperties": 1}, "then": _TREE}
    campaign["allOf"] = [
        {
            "if": {"properties": {CHANNEL_KEY: {"const": name}}, "required": [CHANNEL_KEY]},
            "then": {"properties": _messages({"$ref": f"#/$defs/{_name_of(message)}"})},
        }
        for name, message in MESSAGES.items()
    ]
    campaign["allOf"] += [
        {"oneOf": [{"required": ["message"]}, {"required": ["variants"]}]},
        {"oneOf": [{"required": ["trigger"]}, {"required": ["schedule"]}]},
    ]
    campaign["properties"]["variants"] |= {"minItems": 1}
    defs["Trigger"] |= {"minProperties": 1, "maxProperties": 1}
    defs["Schedule"] |= {
        "oneOf": [{"required": ["at"]}, {"required": ["rrule"]}],
        "dependentRequired": {"rrule": ["start"], "start": ["rrule"]},
    }
    defs["Rate"] |= {"minProperties": 1}
    defs["ConversionDefinition"]["oneOf"] = [{"required": [kind]} for kind in CONVERSION_KINDS]
    defs["Condition"] |= {"minProperties": 1, "maxProperties": 1}
    defs["EmailMessage"]["anyOf"] = [{"required": [part], "properties": {part: _TEXT}} for part in ("text", "html")]
    for each in defs.values():
        if "where" in each.get("properties", ()):
            each["properties"]["where"] = _WHERE
    for name, spec in FILTERS.items():
        _choices(defs.get(f"filter.{name}", {}), spec)


def _messages(message: Schema) -> Schema:
    """Where a campaign's messages stand."""
    return {"message": message, "variants": {"items": {"properties": {"message": message}}}}


def _choices(params: Schema, spec: Filter) -> None:
    if spec.exactly_one:
        params["oneOf"] = [{"required": [name]} for name in spec.exactly_one]
    if spec.at_most_one:
        params["allOf"] = [{"not": {"required": list(pair)}} for pair in combinations(spec.at_most_one, 2)]


def _tree(leaves: Schema) -> Schema:
    """A node of a filter tree: one key, `all`, `any`, `not` or the name of a filter."""
    parts = {"type": "array", "minItems": 1, "items": _TREE}
    properties = {
        "all": {"description": "Every one of these holds.", **parts},
        "any": {"description": "At least one of these holds.", **parts},
        "not": {"description": "This does not hold.", **_TREE},
        **leaves,
    }
    return {
        "description": "A filter tree; each node has one key.",
        "type": "object",
        "properties": properties,
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
    }


def _name(ref: Schema) -> str:
    return str(ref["$ref"]).rpartition("/")[2]


def _name_of(type_: type) -> str:
    """The name under `$defs`: that of the type, or of the filter whose parameters it describes."""
    filters = [f"filter.{name}" for name, spec in FILTERS.items() if spec.params is type_]
    return filters[0] if filters else str(type_.__name__)


def _plain(value: JSONValue, names: dict[str, str]) -> JSONValue:
    """A schema in the words of an author: no nulls, no titles of classes, amounts as YAML writes them."""
    if isinstance(value, list):
        return [_plain(each, names) for each in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        return {**value, "$ref": f"#/$defs/{names.get(_name(value), _name(value))}"}
    if value.get("format") == "decimal":
        return {"type": ["number", "string"], "pattern": AMOUNT}
    options = [each for each in value.get("anyOf", ()) if each != {"type": "null"}]
    rest = {
        name: inner if name in ("default", "examples") else _plain(inner, names)
        for name, inner in value.items()
        if name not in ("anyOf", "title") and not (name in ("default", "required") and inner in (None, []))
    }
    if len(options) == 1:
        return {**_plain(options[0], names), **rest}
    return {**rest, **({"anyOf": _plain(options, names)} if options else {})}

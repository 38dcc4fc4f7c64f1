"""An attribute of the profile, standard or custom, compared with a value."""

from typing import Final

import msgspec

from streams.events import JSONValue
from streams.profiles.row import User
from streams.segments.condition import OPERATORS, Condition, compile_condition, same
from streams.segments.filter import Compiled, Filter, Name


class Params(Condition, frozen=True, kw_only=True):
    """The attribute's name and exactly one operator."""

    path: Name


def compile_(params: Params) -> Compiled:
    """Compile to one dict lookup per test.

    As at Braze, `under` and `is: 0` also hold for users who lack the attribute.
    """
    condition = msgspec.convert(
        {name: value for name, value in msgspec.to_builtins(params).items() if name in OPERATORS}, Condition
    )
    check = compile_condition(condition)
    path = params.path
    lacking_holds = params.under is not msgspec.UNSET or same(params.is_, 0) or check(None)

    def test(user: User, now_ms: int) -> bool:
        value = user.attributes.get(path)
        return lacking_holds if value is None else check(value)

    def explain(user: User, now_ms: int) -> dict[str, JSONValue]:
        return {"holds": test(user, now_ms), "value": user.attributes.get(path)}

    return Compiled(test, (f"attribute:{path}",), explain)


_MEL: Final = User(1, 1, 0, 0, attributes={"plan": "pro", "age": 31, "since": "2024-05-01", "vip": True})

FILTER: Final = Filter(
    name="attribute",
    label="Attribute",
    params=Params,
    compile=compile_,
    exactly_one=OPERATORS,
    examples=(
        ({"path": "plan", "is": "pro"}, _MEL, 0, True),
        ({"path": "plan", "is": ["free", "pro"]}, _MEL, 0, True),
        ({"path": "plan", "is_not": "pro"}, _MEL, 0, False),
        ({"path": "plan", "contains": "ro"}, _MEL, 0, True),
        ({"path": "age", "over": 31}, _MEL, 0, False),
        ({"path": "age", "under": 32}, _MEL, 0, True),
        ({"path": "height", "under": 2}, _MEL, 0, True),
        ({"path": "since", "before": "2024-05-02"}, _MEL, 0, True),
        ({"path": "since", "after": "2024-05-01"}, _MEL, 0, False),
        ({"path": "vip", "is": 1}, _MEL, 0, False),
        ({"path": "city", "exists": False}, _MEL, 0, True),
    ),
)

"""Is a member of another segment."""

from typing import Final

from streams.events import JSONValue
from streams.profiles.row import User
from streams.segments.filter import Compiled, Filter, Name


def compile_(name: str) -> Compiled:
    """Compile to one dict lookup per test; the workspace orders segments so that the other comes first."""

    def test(user: User, now_ms: int) -> bool:
        return name in user.memberships

    def explain(user: User, now_ms: int) -> dict[str, JSONValue]:
        return {"holds": test(user, now_ms), "segment": name}

    return Compiled(test, (f"segment:{name}",), explain, segments=(name,))


FILTER: Final = Filter(
    name="segment",
    label="Segment membership",
    params=Name,
    compile=compile_,
    examples=(
        ("vip", User(1, 1, 0, 0, memberships={"vip": 0}), 0, True),
        ("vip", User(1, 1, 0, 0), 0, False),
    ),
)

"""What a node answers to commands: over the control socket, and to a folder's own session."""

import asyncio
from collections.abc import Callable
from inspect import isawaitable, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_type_hints

import msgspec

from agents.backup import back_up
from agents.campaigns import Campaigns
from agents.definitions import refuse_past
from agents.delivery.held import change_held_offline
from agents.status.families import families_of
from agents.web.campaigns import under_way
from agents.web.dead_letters import DeadLetters
from agents.web.key_ring import COMMANDS as RING_COMMANDS
from agents.web.key_ring import KeyRing
from agents.web.preview import Previews
from agents.web.queries import Queries
from config import metrics
from streams import topics
from streams.definitions import Definitions
from streams.errors import BadSetting
from streams.events import JSONValue
from streams.records import Output

if TYPE_CHECKING:
    from agents.node import Node  # which imports this


class _AppendArgs(msgspec.Struct, forbid_unknown_fields=True):
    """[topic, partition, key, value] of each record, the bytes in base64."""

    outputs: list[tuple[str, int, bytes | None, bytes]]


class _ApplyArgs(msgspec.Struct, forbid_unknown_fields=True):
    definitions: Definitions


class _HeldArgs(msgspec.Struct, forbid_unknown_fields=True):
    dispatch_id: str


class _BackupArgs(msgspec.Struct, forbid_unknown_fields=True):
    folder: str


class _PauseArgs(msgspec.Struct, forbid_unknown_fields=True):
    campaign: str
    paused: bool


class _CancelArgs(msgspec.Struct, forbid_unknown_fields=True):
    campaign: str


def _args_of(method: Callable[..., Any]) -> type[msgspec.Struct]:
    """The type of a method's arguments, so that a request of another shape is refused in words."""
    hints = get_type_hints(method)
    fields: list[Any] = [
        (each.name, hints[each.name]) if each.default is each.empty else (each.name, hints[each.name], each.default)
        for each in signature(method).parameters.values()
        if each.name != "self"
    ]
    return msgspec.defstruct(f"{method.__name__}_args", fields, forbid_unknown_fields=True)


def _reader(name: str, part: str = "queries", owner: type = Queries) -> JSONValue:
    wanted = _args_of(getattr(owner, name))

    def bind(node: "Node") -> JSONValue:
        async def run(args: dict[str, Any]) -> JSONValue:
            answer = getattr(getattr(node, part), name)(**msgspec.structs.asdict(msgspec.convert(args, wanted)))
            return await answer if isawaitable(answer) else answer

        return run

    return bind


def _append(node: "Node") -> JSONValue:
    async def run(args: dict[str, Any]) -> int:
        outputs = [Output(*row) for row in msgspec.convert(args, _AppendArgs).outputs]
        for output in outputs:
            if output.topic != topics.EVENTS.name:
                raise BadSetting("only the events topic takes records from outside")
            if not 0 <= output.partition < node.settings.partitions:
                raise BadSetting(f"no partition {output.partition}; there are {node.settings.partitions}, from 0 on")
        node.disk.refuse_if_low()
        await node.engine.transport.append(outputs)
        return len(outputs)

    return run


def _apply(node: "Node") -> JSONValue:
    async def run(args: dict[str, Any]) -> dict[str, Any]:
        definitions = msgspec.convert(args, _ApplyArgs).definitions
        workspaces = node.workspaces
        if node.settings.clock == "wall":
            refuse_past(definitions, workspaces.in_use, node.engine.clock.now_ms())
        changes = workspaces.changes(definitions)
        applied = await workspaces.apply(definitions)
        return {
            "applied": applied,
            "version": workspaces.latest_version,
            "digest": workspaces.latest.digest,
            "changes": changes,
            "paused": sorted(workspaces.latest.paused),
        }

    return run


def _pause(node: "Node") -> JSONValue:
    async def run(args: dict[str, Any]) -> bool:
        wanted = msgspec.convert(args, _PauseArgs)
        await node.workspaces.pause(wanted.campaign, paused=wanted.paused)
        return wanted.paused

    return run


def _cancel(node: "Node") -> JSONValue:
    async def run(args: dict[str, Any]) -> dict[str, Any]:
        campaign = msgspec.convert(args, _CancelArgs).campaign
        return {"cancelled": campaign, "version": await node.workspaces.cancel(campaign)}

    return run


def _backup(node: "Node") -> JSONValue:
    async def run(args: dict[str, Any]) -> dict[str, Any]:
        folder = Path(msgspec.convert(args, _BackupArgs).folder)
        return await back_up(node.settings, node.store, node.engine.clock, folder)

    return run


def _partitions(node: "Node") -> JSONValue:
    async def run(args: dict[str, Any]) -> int:
        return node.settings.partitions

    return run


READERS: Final = (
    *("user", "segments", "explain", "sends", "dispatch", "dispatches"),
    *("lag", "tail", "totals", "scans", "campaigns"),
)


def _progress(node: "Node") -> JSONValue:
    async def run(args: dict[str, Any]) -> dict[str, Any]:
        return await node.progress()

    return run


def _status(node: "Node") -> JSONValue:
    async def run(args: dict[str, Any]) -> dict[str, Any]:
        if not hasattr(node, "board"):
            raise BadSetting("status is what a running process says; `lag` reads a folder that nobody uses")
        await node.board.look()
        return {**node.board.summary(), "sending": under_way(node.queries.campaigns())}

    return run


def _readers(node: "Node") -> JSONValue:
    async def run(args: dict[str, Any]) -> list[dict[str, Any]]:
        return node.gauges.readers()

    return run


def _metrics(node: "Node") -> JSONValue:
    async def run(args: dict[str, Any]) -> list[Any]:
        node.refresh()
        return await asyncio.to_thread(families_of, metrics.REGISTRY)

    return run


def _reload(node: "Node") -> JSONValue:
    async def run(args: dict[str, Any]) -> int:
        await node.workspaces.reload()
        return node.workspaces.latest_version

    return run


def _flush(node: "Node") -> JSONValue:
    async def run(args: dict[str, Any]) -> int:
        await node.export.flush()
        return 1

    return run


def _held(action: str, state: str) -> JSONValue:
    def bind(node: "Node") -> JSONValue:
        async def run(args: dict[str, Any]) -> int:
            dispatch_id = msgspec.convert(args, _HeldArgs).dispatch_id
            if not hasattr(node, "delivery"):
                return await change_held_offline(node.engine, dispatch_id, state)
            count: int = await getattr(node.delivery, action)(dispatch_id)
            return count

        return run

    return bind


COMMANDS: Final = {
    **{name: _reader(name) for name in READERS},
    "dead_letters": _reader("newest", "dead_letters", DeadLetters),
    "report": _reader("answer", "campaigns", Campaigns),
    "replay": _reader("replay", "dead_letters", DeadLetters),
    **{f"keys_{name}": _reader(name, "key_ring", KeyRing) for name in RING_COMMANDS},
    "append": _append,
    "apply": _apply,
    "status": _status,
    "readers": _readers,
    "metrics": _metrics,
    "progress": _progress,
    "flush": _flush,
    "reload": _reload,
    "pause": _pause,
    "cancel": _cancel,
    "backup": _backup,
    "release": _held("release", "pending"),
    "discard": _held("discard", "aborted"),
    "partitions": _partitions,
    "preview": _reader("preview", "previews", Previews),
}

"""Definitions: every version of the workspace, from the definitions topic into memory."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from agents.engine.transport import Log
from channels.registry import CHANNELS
from channels.render.engine import Renderer
from channels.render.errors import RenderError
from config.workspace import read_workspace
from streams import topics
from streams.builds import difference, known_past
from streams.campaigns.trigger import Campaign
from streams.codec import to_json
from streams.definitions import (
    ALL_CAMPAIGNS,
    CampaignDefinition,
    Definitions,
    SegmentDefinition,
    decode_definitions,
    read_definitions,
)
from streams.errors import BadDefinition
from streams.fanning import plan_of
from streams.fanouts import FIRST_LOCAL_MS
from streams.records import Output
from streams.workspace import Workspace, compile_workspace

PARTITION: Final = 0
LOOK_RECORDS: Final = 100
FOLLOW_S: Final = 0.25
CANCELLED_MAX: Final = 16
"""Schedules of a campaign whose cancelling is remembered, for partitions that have not heard of it yet."""

_NOTHING: Final = Definitions([], [])
_Definition = TypeVar("_Definition", SegmentDefinition, CampaignDefinition)


class Workspaces:
    """Versions by their offset in the definitions topic; version -1 is the empty workspace before the first."""

    def __init__(self, transport: Log) -> None:
        self._transport = transport
        self._compiled = {-1: compile_workspace(_NOTHING, -1)}
        self._definitions: dict[int, Definitions] = {}
        self._appended_ms: dict[int, int] = {}
        self._next_offset = 0
        self.latest_version = self._told = -1
        self.on_change: Callable[[], Awaitable[None]] | None = None

    async def load(self) -> None:
        """Read what the definitions topic holds beyond what is known."""
        place = (topics.DEFINITIONS.name, PARTITION)
        end = (await self._transport.ends([place]))[place]
        while self._next_offset < end:
            records = await self._transport.look(*place, self._next_offset, LOOK_RECORDS)
            for record in records:
                self._definitions[record.offset] = decode_definitions(record.value)
                self._appended_ms[record.offset] = record.append_ms
                self.latest_version = max(self.latest_version, record.offset)
            self._next_offset = records[-1].offset + 1 if records else end

    async def follow(self) -> None:
        """Hear what other processes append, such as a pause, for as long as this one lives."""
        while True:
            await asyncio.sleep(FOLLOW_S)
            await self.reload()

    async def reload(self) -> None:
        """Look for newer versions now, and go over to the newest."""
        await self.load()
        await self._tell()

    async def _tell(self) -> None:
        """Have the partitions of this process go over to the newest version, once for each."""
        if self._told != self.latest_version and self.on_change is not None:
            self._told = self.latest_version
            await self.on_change()

    def history(self) -> list[tuple[int, Definitions]]:
        """Every version, oldest first, with the time at which it came."""
        return [(self._appended_ms[version], found) for version, found in sorted(self._definitions.items())]

    @property
    def first_version(self) -> int:
        """The oldest version of use: the one that a partition without any history begins with; -1 for none."""
        return next((version for version in sorted(self._definitions) if self._is_usable(version)), -1)

    def of(self, version: int) -> Workspace:
        """The compiled workspace of a version."""
        workspace = self._compiled.get(version)
        if workspace is None:
            workspace = self._compiled[version] = compile_workspace(self._definitions[version], version)
        return workspace

    def _is_usable(self, version: int) -> bool:
        """Whether a version can be compiled; an older program may have kept one that cannot."""
        try:
            self.of(version)
        except BadDefinition:
            return False
        return True

    @property
    def in_use(self) -> Workspace:
        """The newest version that can be compiled, which partitions decide by: what a repair is compared with."""
        return self.of(next((at for at in sorted(self._definitions, reverse=True) if self._is_usable(at)), -1))

    @property
    def latest(self) -> Workspace:
        """The newest version: the one whose pauses hold before each attempt."""
        return self.of(self.latest_version)

    async def adopt(self, folder: Path, *, insist: bool) -> bool:
        """Apply a workspace folder if it differs; one that does not `insist` only where no version exists yet.

        Raises:
            WorkspaceError, BadDefinition: see `read_workspace` and `apply`.
        """
        if self.latest_version >= 0 and not insist:
            return False
        return await self.apply(read_definitions(read_workspace(folder)))

    async def apply(self, definitions: Definitions) -> bool:
        """Make these definitions the newest version if they differ; False when they are in force already.

        Campaigns that are paused or cancelled stay so. Rows of users who exist are brought to it by scans.

        Raises:
            BadDefinition: they cannot be used.
        """
        check(definitions)
        if self._in_force(definitions):
            return False
        names = _names(definitions.campaigns)
        paused = [name for name in self._newest.paused if name == ALL_CAMPAIGNS or name in names]
        cancelled = {name: over for name, over in self._newest.cancelled.items() if name in names}
        await self._append(msgspec.structs.replace(definitions, paused=paused, cancelled=cancelled))
        return True

    def _in_force(self, definitions: Definitions) -> bool:
        return self.latest_version >= 0 and self._newest.digest == definitions.digest

    @property
    def _newest(self) -> Definitions:
        return self._definitions.get(self.latest_version, _NOTHING)

    def changes(self, definitions: Definitions) -> list[dict[str, str]]:
        """What these definitions would change in the newest version: kind, name, and added, changed or removed.

        `past` says of a segment to be built what the rows of users who exist know of the time before.
        """
        old, new = self._newest, definitions
        past = known_past(difference(self.in_use, compile_workspace(definitions, 0)))
        segments = _differences("segment", _names(old.segments), _names(new.segments))
        return [
            *({**row, "past": past[row["name"]]} if row["name"] in past else row for row in segments),
            *_differences("campaign", _names(old.campaigns), _names(new.campaigns)),
        ]

    async def pause(self, campaign: str, *, paused: bool) -> None:
        """Pause or resume a campaign, or `*` for all. Raises BadDefinition for an unknown name."""
        await self.load()
        if campaign != ALL_CAMPAIGNS and campaign not in self.latest.campaigns:
            known = ", ".join(self.latest.campaigns) or "none"
            raise BadDefinition(f"no campaign {campaign!r}; campaigns are {known}")
        names = set(self.latest.paused)
        if paused:
            names.add(campaign)
        elif campaign == ALL_CAMPAIGNS:
            names.clear()
        else:
            names.discard(campaign)
        await self._append(msgspec.structs.replace(self._newest, paused=sorted(names)))

    async def cancel(self, campaign: str) -> int:
        """End what of a campaign's schedule is under way or to come; returns the version from which on it holds.

        Raises:
            BadDefinition: no such campaign, none with a schedule, or it is cancelled already.
        """
        await self.load()
        found = self.latest.campaigns.get(campaign)
        if found is None or found.plan is None:
            known = ", ".join(self.latest.scheduled) or "none"
            raise BadDefinition(f"no scheduled campaign {campaign!r}; those that can be cancelled are {known}")
        over = self._newest.cancelled.get(campaign, [])
        if found.plan.digest in over:
            raise BadDefinition(f"{campaign!r} is cancelled; give it another schedule to send it again")
        over = [*over, found.plan.digest][-CANCELLED_MAX:]
        await self._append(msgspec.structs.replace(self._newest, cancelled={**self._newest.cancelled, campaign: over}))
        return self.latest_version

    async def _append(self, definitions: Definitions) -> None:
        await self._transport.append([Output(topics.DEFINITIONS.name, PARTITION, None, to_json(definitions))])
        await self.reload()


def _names(definitions: list[_Definition]) -> dict[str, _Definition]:
    return {definition.name: definition for definition in definitions}


def _differences(kind: str, old: Mapping[str, object], new: Mapping[str, object]) -> list[dict[str, str]]:
    words = {(False, True): "added", (True, False): "removed", (True, True): "changed"}
    return [
        {"kind": kind, "name": name, "change": words[name in old, name in new]}
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def read_checked(folder: Path) -> Definitions:
    """The definitions in a workspace folder. Raises WorkspaceError, or BadDefinition as `check` does."""
    found = read_definitions(read_workspace(folder))
    check(found)
    return found


def check(definitions: Definitions) -> None:
    """Compile everything, templates included. Raises BadDefinition with every fault, one per line."""
    workspace = compile_workspace(definitions, 0)
    renderer = Renderer()
    faults = [fault for campaign in workspace.campaigns.values() if (fault := _template_fault(campaign, renderer))]
    if faults:
        raise BadDefinition("\n".join(faults))


def refuse_past(definitions: Definitions, old: Workspace, now_ms: int) -> None:
    """Refuse a schedule that `old` has not and that comes round no more. Raises BadDefinition, a line for each."""
    faults = []
    for name, campaign in compile_workspace(definitions, 0).scheduled.items():
        known, plan = old.campaigns.get(name), plan_of(campaign)
        is_known = known is not None and known.plan is not None and known.plan.digest == plan.digest
        if not is_known and plan.next_after(now_ms, FIRST_LOCAL_MS) is None:
            faults.append(f"campaigns/{name}: schedule: its time is past; give a later one, or leave the campaign out")
    if faults:
        raise BadDefinition("\n".join(faults))


def _template_fault(campaign: Campaign, renderer: Renderer) -> str | None:
    for variant, message in campaign.messages.items():
        try:
            CHANNELS[campaign.channel].compile(message, renderer)
        except RenderError as error:
            place = f"variant {variant}: message" if variant else "message"
            return f"campaigns/{campaign.name}: {place}: {error}"
    return None

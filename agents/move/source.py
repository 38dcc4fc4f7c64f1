"""The folder that is moved: opened alone, and brought to a point where nothing is half done."""

import asyncio
from pathlib import Path
from typing import Any, Final

from agents.delivery.agent import Delivery
from agents.delivery.providers import providers_of
from agents.engine.agent import Agent
from agents.export import Export
from agents.fanout import run_fanouts
from agents.folder import DataFolder
from agents.intake import Intake
from agents.node import META_PARTITIONS, Node
from agents.reports import Reports
from agents.scan import run_scans
from agents.signing import signing_keys
from agents.users import Users
from channels.sinks.avro_files import AvroFiles
from config.clock import Clock
from config.settings import EMBEDDED, Settings
from streams.errors import BadSetting
from tables.log import Log
from tables.moved import Moved, read_moved, stage_moved
from tables.store import Store

LOOK_S: Final = 0.02
QUIET_LOOKS: Final = 2
"""In a row: the agents write to one another."""
SCAN_USERS_PER_S: Final = 1_000_000


class Source:
    """Holds the folder's lock from construction to `close`; whatever it is moved to is another's affair."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """`settings` are those of the target, with `data` the folder. Raises BadSetting if it is in use, or none."""
        self.settings = settings.model_copy(
            update={
                "broker": EMBEDDED,
                "workers": 1,
                "partitions": partitions_of(settings.data),
                "http": "",
                "scan_users_per_s": SCAN_USERS_PER_S,
                "fanout_users_per_s": 0,
            }
        )
        self._node = Node(self.settings, clock)

    @property
    def store(self) -> Store:
        """The folder's state."""
        return self._node.store

    @property
    def log(self) -> Log:
        """The folder's log, as it stands."""
        return Log(self._node.store)

    @property
    def mark(self) -> Moved | None:
        """What an earlier move has noted."""
        return read_moved(self._node.store)

    async def note(self, moved: Moved) -> None:
        """Note how far the move is, for good."""
        batch = self._node.store.batch()
        stage_moved(batch, moved)
        self._node.store.write(batch)
        await self._node.engine.transport.sync()

    async def drain(self) -> None:
        """Read every event and every letter, end every scan and fan-out, write every export file; attempt nothing.

        What was being attempted when the node stopped is settled by its provider's own rule, as at a start.
        """
        node = self._node
        await node.connect()
        signed_by = signing_keys(self.settings, make=False)
        delivery = Delivery(node.engine, node.workspaces, providers_of(self.settings, signed_by))
        for partition in range(self.settings.partitions):
            await delivery.settle(partition)
        await delivery.stop()
        users, folder = Users(node.engine, node.workspaces), self.settings.exports_folder
        export = Export(node.engine, AvroFiles(folder, self.settings.app)) if folder else None
        agents: list[Agent] = [Intake(node.engine, signed_by), users, Reports(node.engine)]
        for agent in (*agents, *([export] if export else [])):
            node.engine.register(agent)
        node.workspaces.on_change = users.switch
        await node.engine.start()
        await node.engine.ready()
        scans = asyncio.gather(run_scans(node.engine, users), run_fanouts(node.engine, users))
        try:
            await self._until_read(users, scans)
            if export is not None:
                await export.flush()
        finally:
            scans.cancel()
            await asyncio.gather(scans, return_exceptions=True)
            await node.engine.stop()

    async def _until_read(self, users: Users, scans: "asyncio.Future[Any]") -> None:
        engine = self._node.engine
        quiet = 0
        while quiet < QUIET_LOOKS:
            if scans.done():
                await scans
            if engine.failure is not None and engine.failure.done():
                raise engine.failure.result()
            quiet = quiet + 1 if engine.idle and not users.is_building and await self._is_read() else 0
            await asyncio.sleep(LOOK_S)

    async def _is_read(self) -> bool:
        watermarks = self._node.engine.slices.watermarks
        ends = await self._node.engine.transport.ends(watermarks)
        return all(watermarks[place] >= end for place, end in ends.items())

    def close(self) -> None:
        """Let go of the folder."""
        self._node.close()


def partitions_of(data: Path) -> int:
    """The partition count that a folder was made with. Raises BadSetting if it is in use, or none."""
    if not (data / "db").is_dir():
        raise BadSetting(f"{data}: no data folder; name the one that `run` used on the embedded log")
    folder = DataFolder(data)
    store = Store(data / "db")
    try:
        known = store.get("meta", META_PARTITIONS)
    finally:
        store.close()
        folder.close()
    if known is None:
        raise BadSetting(f"{data}: nothing was ever started there")
    return int(known)

"""Every door of a process: the routes that take something in."""

from collections.abc import Callable, Sequence
from typing import Protocol

from aiohttp import web

from agents.engine.transport import Log
from agents.signing import signing_keys
from agents.web.door import Door
from agents.web.imports import Imports
from agents.web.keys import Keys
from agents.web.sdk import SdkDoor
from agents.web.tracking import TrackingDoor
from config.clock import Clock
from config.settings import Settings


class Routes(Protocol):
    """Something that is served."""

    def add_routes(self, app: web.Application) -> None:
        """Add its paths."""


class Doors:
    """Several that are served as one."""

    def __init__(self, parts: Sequence[Routes]) -> None:
        self._parts = parts

    def add_routes(self, app: web.Application) -> None:
        """The paths of all of them."""
        for part in self._parts:
            part.add_routes(app)


def doors(settings: Settings, log: Log, clock: Clock, keys: Keys, is_full: Callable[[], bool] = lambda: False) -> Doors:
    """The doors of a process, the same whether it is a worker, a fleet's parent or a door alone.

    Each answers once the log has what it took. While `is_full` says so, nothing is taken.
    """
    links = TrackingDoor(log, clock, signing_keys(settings), is_full)
    imports = Imports(settings.data / "imports", log, clock, keys, is_full)
    return Doors([Door(log, clock, keys, is_full), SdkDoor(settings, log, clock, is_full), links, imports])

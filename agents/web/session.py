"""A session of the command line: the running process answers, or else the folder that nobody uses."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, Self

from agents.web.control import ControlClient
from config.settings import Settings
from streams.errors import BadSetting
from streams.events import JSONValue


class Folder(Protocol):
    """A data folder opened without running agents."""

    async def ask(self, command: str, args: dict[str, Any]) -> JSONValue:
        """A control command's answer."""

    async def disconnect(self) -> None:
        """Give log and folder back."""


class Session:
    """`async with Session(…) as session: await session.ask(command, args)`."""

    def __init__(
        self, settings: Settings, open_folder: Callable[[Settings], Awaitable[Folder]], *, create: bool = False
    ) -> None:
        """Talk to whoever uses the data folder; with `create`, make the folder if there is none yet."""
        self._settings = settings
        self._open_folder = open_folder
        self._create = create
        self._client: ControlClient | None = None
        self._folder: Folder | None = None

    async def __aenter__(self) -> Self:
        try:
            self._client = await ControlClient.connect(self._settings.data)
        except (FileNotFoundError, ConnectionError):
            data = self._settings.data
            if not (self._create or self._settings.on_kafka or (data / "db").is_dir()):
                raise BadSetting(
                    f"HEADRACE_DATA={data}: nothing runs there, and it is no data folder; name the one that `run` uses"
                ) from None
            self._folder = await self._open_folder(self._settings)
        return self

    async def ask(self, command: str, args: dict[str, Any]) -> JSONValue:
        """One command's answer. Raises HeadraceError with what was wrong."""
        if self._client is not None:
            return await self._client.ask(command, args)
        assert self._folder is not None
        return await self._folder.ask(command, args)

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()
        if self._folder is not None:
            await self._folder.disconnect()

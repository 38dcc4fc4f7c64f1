"""What commands have in common: asking the running process or the folder itself, and showing the answer."""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from agents.web import listing
from config.settings import Settings

Run = Callable[[Settings, argparse.Namespace], int]


def show(arguments: argparse.Namespace, answer: Any, view: Callable[[Any], str]) -> int:
    """JSON for machines, else the answer as people read it."""
    text = json.dumps(answer) if arguments.json else view(answer)
    print(text)
    return 0


def table(rows: Any, *columns: str) -> str:
    """Rows in columns, as wide as the terminal."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return listing.table(rows, columns, width=width, nothing="none")


def by(name: str) -> Callable[[Any], str]:
    """A view of an answer whose keys are names of such things."""
    return lambda answer: table(listing.named(answer, name))


def progress(sent: int, total: int, seconds: float) -> None:
    """Tell whoever sits at a terminal how far a long command is."""
    if sys.stderr.isatty():
        rate = f", {sent / seconds:,.0f}/s" if seconds else ""
        print(f"\r  {sent:,} of {total:,} records sent{rate}", end="", file=sys.stderr, flush=True)


# ---- asking


def loop(work: Coroutine[Any, Any, Any]) -> Any:
    """Run on uvloop."""
    import uvloop

    return uvloop.run(work)


def session_of(settings: Settings, *, create: bool = False) -> Any:
    """A session with the running process, or with the folder itself when none runs; not entered yet."""
    from agents.web.session import Session

    return Session(settings, _open_folder, create=create)


async def _open_folder(settings: Settings) -> Any:
    from agents.node import Node
    from config.clock import SystemClock

    node = Node(settings, SystemClock())
    await node.connect()
    return node


def within(settings: Settings, work: Callable[[Any], Any], *, create: bool = False) -> Any:
    """What work gives that needs a session."""

    async def run() -> Any:
        async with session_of(settings, create=create) as session:
            return await work(session)

    return loop(run())


def ask(settings: Settings, command: str, *, create: bool = False, **args: Any) -> Any:
    """Ask the running process, or the folder itself when none runs."""
    return within(settings, lambda session: session.ask(command, args), create=create)


def asks(command: str, view: Callable[[Any], str], *names: str) -> Run:
    """A command that asks one question with these arguments, and shows the answer."""

    def run(settings: Settings, arguments: argparse.Namespace) -> int:
        answer = ask(settings, command, **{name: getattr(arguments, name) for name in names})
        return show(arguments, answer, view)

    return run

"""Commands about mail: what bounced, and what a mail would look like."""

import argparse
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from agents.signing import signing_keys
from agents.web.bounces import take_bounces
from agents.web.replay import Asked
from config.settings import Settings

Command = Callable[[Asked, Settings, argparse.Namespace], Awaitable[Any]]


async def _bounces(session: Asked, settings: Settings, arguments: argparse.Namespace) -> dict[str, int]:
    return await take_bounces(session, arguments.source, sys.stdin.buffer, signing_keys(settings, make=False))


COMMANDS: Final[Mapping[str, Command]] = {"bounces": _bounces}

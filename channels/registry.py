"""The channels, found by their files: every module beside this one that exports a `CHANNEL`."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Final

import channels
from channels.channel import Channel


def _collect() -> dict[str, Channel]:
    names = sorted(found.name for found in iter_modules(channels.__path__) if not found.ispkg)
    modules = [import_module(f"channels.{name}") for name in names if name != "registry"]
    parts = [module.CHANNEL for module in modules if hasattr(module, "CHANNEL")]
    return {part.name: part for part in parts}


CHANNELS: Final = _collect()

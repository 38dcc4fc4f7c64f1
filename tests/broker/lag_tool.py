"""Kafka's consumer-group tool, started once and asked many times: each start of Java would cost seconds."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tests.broker.kafka import java_command
from tests.broker.workers import Site

SOURCE = Path(__file__).parent / "LagTool.java"
STOP_S_MAX = 20


class Row(NamedTuple):
    """What the tool says of a partition; None where it prints a dash."""

    position: int | None
    end: int | None
    lag: int | None


class LagTool:
    """A running tool."""

    def __init__(self, process: asyncio.subprocess.Process, site: Site) -> None:
        self._process = process
        self._site = site

    async def ask(self) -> dict[tuple[str, int], Row]:
        """Every partition that the group knows, by its topic's short name."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(self._site.app.encode() + b"\n")
        head: list[str] = []
        found: dict[tuple[str, int], Row] = {}
        while (line := (await self._process.stdout.readline()).decode()) != "END\n":
            assert line, "the tool ended"
            words = line.split()
            if words[:1] == ["GROUP"]:
                head = words
            elif words[:1] == [self._site.app]:
                row = dict(zip(head, words, strict=False))
                numbers = [
                    None if row[name] == "-" else int(row[name]) for name in ("CURRENT-OFFSET", "LOG-END-OFFSET", "LAG")
                ]
                found[row["TOPIC"].removeprefix(f"{self._site.app}."), int(row["PARTITION"])] = Row(*numbers)
        return found


@asynccontextmanager
async def lag_tool(site: Site) -> AsyncIterator[LagTool]:
    """The tool, until the block ends. Raises BrokerUnavailableError without Java or the jars."""
    command = java_command(str(SOURCE), site.broker.address)
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        yield LagTool(process, site)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(STOP_S_MAX):
            await process.wait()

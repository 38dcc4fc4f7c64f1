"""A process that runs a whole node over what a data folder holds, exports everything, and stops.

`python -m tests.agents.run_once [STEP]` with the settings in the environment; with a step of `crashes` it is
killed there.
"""

import asyncio
import os
import sys
import traceback

from agents.node import Node
from config.clock import SystemClock
from config.settings import load_settings
from tests.agents.crashes import kill_at


async def run_once() -> None:
    """Process every record, write every file, close."""
    node = Node(load_settings(), SystemClock())
    node.wire()
    await node.start()
    await node.quiesce()
    await node.export.flush()
    assert await node.stop()


async def main() -> None:
    """Run; after an error end at once, as app.py does, without another write."""
    running = asyncio.create_task(run_once())
    await asyncio.wait([running])
    error = running.exception()
    if error is not None:
        traceback.print_exception(error)
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    for step in sys.argv[1:]:
        kill_at(step)
    asyncio.run(main())

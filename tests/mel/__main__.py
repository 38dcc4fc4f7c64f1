"""`make mel`: one person's story through every layer of the product, told as it happens.

The last line on stdout is one JSON object. The exit code is 0 only if every fact was found exactly once where it
belongs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.broker.kafka import BrokerUnavailableError
from tests.browser.chromium import chromium
from tests.mel.play import Gaps, Played, play
from tests.mel.stage import Stage, stage
from tests.mel.story import Story

TRANSPORTS = ("embedded", "kafka")
ASKED_WRONGLY = 2


def main() -> int:
    """Play it once."""
    arguments = _arguments()
    if chromium() is None:
        print("mel: no Chromium here; Mel needs a browser: apt-get install chromium", file=sys.stderr)
        return ASKED_WRONGLY
    folder = (arguments.folder / arguments.transport).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing of the story stays behind
    began = time.monotonic()
    try:
        played = asyncio.run(_play(folder, arguments))
    except BrokerUnavailableError as missing:
        print(f"mel: no Kafka here: {missing}", file=sys.stderr)
        return ASKED_WRONGLY
    except KeyboardInterrupt:
        return 130
    line = {**played.summary(), "transport": arguments.transport, "seconds": round(time.monotonic() - began, 1)}
    print(json.dumps({**line, "folder": str(folder)}), flush=True)
    return 0 if played.holds else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mel", description=__doc__)
    parser.add_argument("--transport", choices=TRANSPORTS, default=TRANSPORTS[0])
    parser.add_argument("--chaos", type=Gaps, default=Gaps(""), help="1: kill in every gap; seed:n: in one")
    parser.add_argument("--screenshots", type=Path, help="a folder for what was seen; by default below --folder")
    parser.add_argument("--folder", type=Path, default=Path("data/mel"), help="everything else; emptied before")
    parser.add_argument("--stay", action="store_true", help="keep everything running at the end, until Ctrl-C")
    return parser.parse_args()


async def _play(folder: Path, arguments: argparse.Namespace) -> Played:
    shots = (arguments.screenshots or folder / "screenshots").absolute()
    async with stage(folder, arguments.transport) as found:
        shots.mkdir(parents=True, exist_ok=True)
        print(f"Mel's story, on {'Kafka' if arguments.transport == 'kafka' else 'the embedded log'}.", flush=True)
        played = await play(Story(found, shots), arguments.chaos, lambda text: print(text, flush=True))
        _links(found, shots, played)
        if arguments.stay:
            print("\nEverything goes on running; press Ctrl-C to stop.", flush=True)
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        return played


def _links(found: Stage, shots: Path, played: Played) -> None:
    """Where to look."""
    if played.error:
        print(f"\n✗ {played.error}\n  see {found.product.log}")
    places = {
        "Mel's profile": found.folder / "mel.json",
        "Mel's mail": found.folder / "mail-to-mel.html",
        "the report": found.folder / "report.html",
        "the export": found.product.exports,
        "what it looked like": shots,
    }
    print("\n" + "\n".join(f"{name:20}  {place}" for name, place in places.items()), flush=True)


if __name__ == "__main__":
    sys.exit(main())

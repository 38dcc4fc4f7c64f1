"""Headrace: the composition root and the command line."""

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, Self

from config.settings import Settings, SettingsError, load_settings
from config.workspace import DEMO_FOLDER, WorkspaceError
from streams.errors import HeadraceError

STOP_S_MAX: Final = 15.0
SEND_RECORDS: Final = 500
LINE_BYTES_MAX: Final = 16 * 1024 * 1024


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 when it did what it says, 2 when it was asked wrongly, 1 otherwise."""
    arguments = _parser().parse_args(argv)
    try:
        settings = load_settings()
        return int(arguments.run(settings, arguments) or 0)
    except (SettingsError, WorkspaceError, HeadraceError) as error:
        print(f"headrace: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="app.py", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[..., Any], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--json", action="store_true", help="one JSON document on stdout")
        command.set_defaults(run=run)
        return command

    add("run", _run, "take events until stopped: one process on the embedded log, HEADRACE_WORKERS on Kafka")
    worker = add("worker", _worker, "one worker on Kafka, until stopped")
    worker.add_argument("--supervised", action="store_true", help="end when standard input closes")
    demo = add("demo", _demo, "replay eighteen months of real purchases")
    demo.add_argument("--once", action="store_true", help="stop at the end; one JSON line is the last on stdout")
    send = add("send", _send, "put newline-delimited JSON into the events topic; an empty line is an empty record")
    send.add_argument("file", help="a file, or - for standard input")
    send.add_argument("--end", action="store_true", help="close a replay: tick every partition to the last time")
    user = add("user", _asks("user", "external_id"), "what is known of a user")
    user.add_argument("external_id")
    explain = add("explain", _asks("explain", "external_id", "segment"), "why a user is in a segment, or not")
    explain.add_argument("external_id")
    explain.add_argument("segment")
    add("segments", _asks("segments"), "how many entered, left and are in each segment")
    sends = add("sends", _sends, "dispatches per campaign and state, or one by one")
    sends.add_argument("what", nargs="?", choices=["list"])
    add("lag", _asks("lag"), "records not yet processed, per agent and partition")
    tail = add("tail", _asks("tail", "topic", "limit"), "the newest records of a topic")
    tail.add_argument("topic")
    tail.add_argument("--limit", type=int, default=20)
    for name in ("pause", "resume"):
        command = add(name, _pause(paused=name == "pause"), f"{name} a campaign, or all with --all")
        command.add_argument("campaign", nargs="?")
        command.add_argument("--all", action="store_true")
    letters = add("dead-letters", _dead_letters, "the newest refused records, with the reason")
    letters.add_argument("what", choices=["list"])
    letters.add_argument("--limit", type=int, default=20)
    config = add("config", _config, "the settings in force, secrets masked")
    config.add_argument("what", choices=["check"])
    definitions = add("definitions", _definitions, "check a workspace folder without applying it")
    definitions.add_argument("what", choices=["check"])
    definitions.add_argument("folder", type=Path)
    return parser


def _dead_letters(settings: Settings, arguments: argparse.Namespace) -> int:
    rows = _loop(_ask(settings, "tail", {"topic": "dead-letters", "limit": arguments.limit}))
    if not arguments.json:
        rows = [{**row["headers"], "value": row["value"][:60]} for row in rows]
    _show(rows, as_json=arguments.json)
    return 0


def _config(settings: Settings, arguments: argparse.Namespace) -> int:
    from config.settings import SECRETS

    values = settings.model_dump(mode="json")
    _show(
        {name: "***" if name in SECRETS and value else value for name, value in values.items()}, as_json=arguments.json
    )
    return 0


def _definitions(settings: Settings, arguments: argparse.Namespace) -> int:
    from agents.definitions import check
    from config.workspace import read_workspace
    from streams.definitions import read_definitions

    found = read_definitions(read_workspace(arguments.folder))
    check(found)
    _show({"segments": len(found.segments), "campaigns": len(found.campaigns)}, as_json=arguments.json)
    return 0


def _loop(work: Coroutine[Any, Any, Any]) -> Any:
    """Run on uvloop."""
    import uvloop

    return uvloop.run(work)


async def _serve(settings: Settings, work: Callable[[Any, asyncio.Event], Awaitable[None]], *, fleet: bool) -> int:
    """Start a node or a fleet, do the work, stop it in time; 1 when it had to stop for an error."""
    import structlog

    from config.logging import set_up_logging

    set_up_logging()
    site = _site(settings, fleet=fleet)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    try:
        await site.start()
        working: asyncio.Future[Any] = asyncio.ensure_future(work(site, stop))
        stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        ended: asyncio.Future[Any] = site.failure
        await asyncio.wait([working, ended, stopping], return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            structlog.get_logger("headrace").error("stopped", exc_info=ended.result())
            sys.stderr.flush()
            os._exit(1)  # nobody knows what a failed commit kept: end at once, without another write
        if working.done():
            working.result()
        working.cancel()
    finally:
        _deadline(STOP_S_MAX)
        await site.stop()
    return 0


def _site(settings: Settings, *, fleet: bool) -> Any:
    """What runs here: this process alone, or workers below it."""
    if fleet:
        from agents.fleet import Fleet

        return Fleet(settings, [sys.executable, str(Path(__file__).resolve()), "worker", "--supervised"])
    from agents.node import Node
    from config.clock import SystemClock

    node = Node(settings, SystemClock())
    node.wire()
    return node


def _deadline(seconds: float) -> None:
    """End the process if stopping takes longer: a hung provider must not keep it."""
    timer = threading.Timer(seconds, os._exit, [1])
    timer.daemon = True
    timer.start()


def _run(settings: Settings, arguments: argparse.Namespace) -> int:
    return int(_loop(_serve(settings, _until_stopped, fleet=settings.on_kafka)))


def _worker(settings: Settings, arguments: argparse.Namespace) -> int:
    from streams.errors import BadSetting

    if not settings.on_kafka:
        raise BadSetting("HEADRACE_BROKER=embedded://: a worker needs kafka://host:port; `run` needs nothing")
    if arguments.supervised:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    return int(_loop(_serve(settings, _until_stopped, fleet=settings.workers > 1)))


async def _until_stopped(site: Any, stop: asyncio.Event) -> None:
    settings = site.settings
    where = f"http://{settings.http}/health/ready" if settings.http else f"data in {settings.data}"
    print(f"headrace takes events; {where}", file=sys.stderr)
    await stop.wait()


def _end_with_parent() -> None:
    """A worker without its supervisor must not stay behind: the supervisor's end closes our standard input."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(1)


def _demo(settings: Settings, arguments: argparse.Namespace) -> int:
    from agents.demo import Replay, result

    changes: dict[str, Any] = {"clock": "stream"}
    if settings.workspace is None:
        changes["workspace"] = DEMO_FOLDER
    if arguments.once:
        changes["http"] = ""
    settings = settings.model_copy(update=changes)
    line: dict[str, Any] = {}
    replay = Replay(settings.partitions)

    async def work(site: Any, stop: asyncio.Event) -> None:
        await replay.run(site.log, site, _progress)
        await site.ask("flush", {})
        line.update(await result(site.ask, replay.seconds))
        _summary(settings, line, await site.ask("dispatches", {"limit": 3}))
        if not arguments.once:
            print("The worker goes on; press Ctrl-C to stop.", file=sys.stderr)
            await stop.wait()

    code = int(_loop(_serve(settings, work, fleet=settings.on_kafka)))
    if arguments.once and line:
        print(json.dumps(line), flush=True)
    return code


def _progress(sent: int, total: int, seconds: float) -> None:
    if sys.stderr.isatty():
        rate = sent / seconds if seconds else 0
        print(f"\r  {sent:,} of {total:,} records sent, {rate:,.0f}/s", end="", file=sys.stderr, flush=True)


def _summary(settings: Settings, line: dict[str, Any], first: list[dict[str, Any]]) -> None:
    """What happened, for people."""
    out = [
        "",
        f"{line['events']:,} purchases of {line['users']:,} users, {line['revenue']:,.2f} USD",
        f"{line['seconds']} s, {line['events_per_s']:,} purchases/s",
        "",
        f"{'segment':<16}{'entered':>10}{'left':>10}{'now':>10}",
        *(
            f"{name:<16}{row['entered']:>10,}{row['left']:>10,}{row['now']:>10,}"
            for name, row in line["segments"].items()
        ),
        "",
        f"{'campaign':<16}{'sends':>10}",
        *(f"{name:<16}{count:>10,}" for name, count in line["sends"].items()),
        "",
        "first dispatches:",
        *(
            f"  {each['decided'][:10]}  {each['campaign']} to user {each['user']}: {each['state']}"
            for each in first[:3]
        ),
        "",
        f"mails      {settings.outbox_folder / 'email.mbox'}",
        f"webhooks   {settings.outbox_folder / 'webhook.jsonl'}",
        f"exports    {settings.exports_folder} ({line['export']['rows']:,} rows in {line['export']['files']} files)",
        "",
    ]
    print("\n".join(out), file=sys.stderr)


def _asks(command: str, *names: str) -> Callable[[Settings, argparse.Namespace], int]:
    def run(settings: Settings, arguments: argparse.Namespace) -> int:
        answer = _loop(_ask(settings, command, {name: getattr(arguments, name) for name in names}))
        _show(answer, as_json=arguments.json)
        return 0

    return run


def _sends(settings: Settings, arguments: argparse.Namespace) -> int:
    _show(_loop(_ask(settings, "dispatches" if arguments.what else "sends", {})), as_json=arguments.json)
    return 0


def _pause(*, paused: bool) -> Callable[[Settings, argparse.Namespace], int]:
    def run(settings: Settings, arguments: argparse.Namespace) -> int:
        from streams.definitions import ALL_CAMPAIGNS
        from streams.errors import BadSetting

        if bool(arguments.campaign) == arguments.all:
            raise BadSetting("name one campaign, or give --all")
        campaign = ALL_CAMPAIGNS if arguments.all else arguments.campaign
        _show(_loop(_ask(settings, "pause", {"campaign": campaign, "paused": paused})), as_json=arguments.json)
        return 0

    return run


async def _ask(settings: Settings, command: str, args: dict[str, Any]) -> Any:
    """Ask the running process, or the folder itself when none runs."""
    async with _Session(settings) as session:
        return await session.ask(command, args)


class _Session:
    """A line to the running process, or the opened folder."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Any = None
        self._node: Any = None
        self._commands: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        from agents.web.control import ControlClient

        try:
            self._client = await ControlClient.connect(self._settings.data)
        except (FileNotFoundError, ConnectionError):
            from agents.node import COMMANDS, Node
            from config.clock import SystemClock

            self._node = Node(self._settings, SystemClock())
            await self._node.connect()
            self._commands = {name: command(self._node) for name, command in COMMANDS.items()}
        return self

    async def ask(self, command: str, args: dict[str, Any]) -> Any:
        if self._client is not None:
            return await self._client.ask(command, args)
        return await self._commands[command](args)

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()
        if self._node is not None:
            await self._node.log.stop()
            self._node.close()


def _show(answer: Any, *, as_json: bool) -> None:
    """JSON for machines, aligned columns for people."""
    if as_json or not isinstance(answer, list | dict):
        print(json.dumps(answer))
        return
    if isinstance(answer, dict):
        print(json.dumps(answer, indent=2, ensure_ascii=False))
        return
    if not answer:
        print("nothing", file=sys.stderr)
        return
    names = list(answer[0])
    widths = {name: max(len(name), *(len(str(row[name])) for row in answer)) for name in names}
    for row in [dict(zip(names, names, strict=True)), *answer]:
        print("  ".join(str(row[name]).ljust(widths[name]) for name in names).rstrip())


def _send(settings: Settings, arguments: argparse.Namespace) -> int:
    stream = sys.stdin.buffer if arguments.file == "-" else Path(arguments.file).open("rb")  # noqa: SIM115
    with stream:
        count = _loop(_send_lines(settings, stream, end=arguments.end))
    print(f"{count:,} records sent", file=sys.stderr)
    return 0


async def _send_lines(settings: Settings, stream: Any, *, end: bool) -> int:
    from agents.web.control import to_wire
    from streams.sending import Sender

    async with _Session(settings) as session:
        sender = Sender(await session.ask("partitions", {}))
        count = 0
        batch = []
        while line := stream.readline(LINE_BYTES_MAX):
            batch.append(sender.output(line.rstrip(b"\r\n")))
            count += 1
            if len(batch) >= SEND_RECORDS or len(line) > LINE_BYTES_MAX // 16:
                await session.ask("append", {"outputs": to_wire(batch)})
                batch = []
                _progress(count, count, 0)
        batch += sender.ends() if end else []
        if batch:
            await session.ask("append", {"outputs": to_wire(batch)})
        return count


if __name__ == "__main__":
    sys.exit(main())

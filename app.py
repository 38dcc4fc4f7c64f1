"""Headrace: the composition root and the command line.

Commands reach a running process through control.sock in HEADRACE_DATA; without one they open the folder
themselves. Results go to stdout, all else to stderr; with --json, stdout holds one JSON document.

Exit codes: 0 done · 1 it failed, or the process had to stop · 2 asked wrongly: an argument, a setting or a
definition, and the message names the fix · 130 interrupted.
"""

import argparse
import asyncio
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

from agents.web import listing
from agents.web.arguments import arguments_parser
from agents.web.asking import Run, ask, asks, by, loop, progress, session_of, show, table, within
from config.compiled import is_compiled, use_compiled
from config.settings import Settings, SettingsError, load_settings
from config.workspace import DEMO_FOLDER, WorkspaceError
from streams.errors import BadDefinition, BadInput, BadSetting, HeadraceError

TAIL_COLUMNS: Final = ("partition", "offset", "time", "key", "headers", "value")
EXIT_INTERRUPTED: Final = 130
ASKED_WRONGLY: Final = (SettingsError, WorkspaceError, BadSetting, BadDefinition, BadInput)


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code says how it went, as the module's docstring lists."""
    arguments = arguments_parser(__doc__ or "").parse_args(argv)
    try:
        return RUNS[arguments.command](load_settings(), arguments)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (*ASKED_WRONGLY, HeadraceError, OSError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        print(f"headrace: {text}", file=sys.stderr)
        if arguments.json:
            print(json.dumps({"error": text}))
        return 2 if isinstance(error, ASKED_WRONGLY) else 1


def _one_or_all(name: str | None, arguments: argparse.Namespace) -> str:
    """The name that was given, or `*`."""
    if bool(name) == arguments.all:
        raise BadSetting(f"{arguments.command}: name one, or give --all")
    return name or "*"


def _pause(settings: Settings, arguments: argparse.Namespace) -> int:
    campaign = _one_or_all(arguments.campaign, arguments)
    paused = ask(settings, "pause", campaign=campaign, paused=arguments.command == "pause")
    answer = {"campaign": campaign, "paused": paused}
    whose = "every campaign" if campaign == "*" else campaign
    return show(arguments, answer, lambda _: f"{whose}: {'paused' if paused else 'running'}")


def _sends_list(settings: Settings, arguments: argparse.Namespace) -> int:
    rows = ask(settings, "dispatches", state=arguments.state, limit=arguments.limit)[: arguments.limit]
    columns = ("dispatch_id", "campaign", "channel", "user", "state", "decided", "reason")
    show(arguments, rows, lambda rows: table(rows, *columns))
    if len(rows) == arguments.limit:
        print(f"the first {len(rows)}; there may be more, see --limit", file=sys.stderr)
    return 0


def _report(settings: Settings, arguments: argparse.Namespace) -> int:
    view = listing.report_csv if arguments.csv else lambda answer: table(listing.report(answer))
    return asks("report", view, "campaign", "unit", "length")(settings, arguments)


def _settle(settings: Settings, arguments: argparse.Namespace) -> int:
    count = ask(settings, arguments.command.split()[1], dispatch_id=_one_or_all(arguments.id, arguments))
    if not count and arguments.id:
        raise BadSetting(f"no dispatch {arguments.id!r} is held; `sends list --held` shows those that are")
    return show(arguments, count, lambda count: f"{arguments.command}: {listing.cell(count)}")


def _letters_list(settings: Settings, arguments: argparse.Namespace) -> int:
    rows = ask(settings, "dead_letters", reason=arguments.reason, limit=arguments.limit)
    rows = sorted(rows, key=lambda row: row["at"])[-arguments.limit :]
    return show(arguments, rows, lambda rows: table(listing.letters(rows)))


def _letters_replay(settings: Settings, arguments: argparse.Namespace) -> int:
    """Ctrl-C and SIGTERM stop it between two portions, with what it has done."""
    from agents.web.replay import replay_until_stopped, summary

    wanted = {"reason": arguments.reason, "limit": arguments.limit, "again": arguments.again}
    total = within(settings, lambda session: replay_until_stopped(session, **wanted))
    show(arguments, total, summary)
    return EXIT_INTERRUPTED if total["stopped"] else 0


def _keys_create(settings: Settings, arguments: argparse.Namespace) -> int:
    from agents.web.key_ring import make_key, said

    made, told = make_key(arguments.name, arguments.scope)
    ask(settings, "keys_create", create=True, **told)
    return show(arguments, made, said)


def _config_check(settings: Settings, arguments: argparse.Namespace) -> int:
    from config.check import check_settings

    return show(arguments, check_settings(settings), table)


def _definitions_check(settings: Settings, arguments: argparse.Namespace) -> int:
    from agents.definitions import read_checked

    found = read_checked(arguments.folder)
    answer = {"segments": len(found.segments), "campaigns": len(found.campaigns), "digest": found.digest}
    return show(arguments, answer, lambda answer: f"nothing wrong: {listing.cell(answer)}")


def _definitions_apply(settings: Settings, arguments: argparse.Namespace) -> int:
    import msgspec

    from agents.definitions import read_checked

    found = msgspec.to_builtins(read_checked(arguments.folder))
    return show(arguments, ask(settings, "apply", create=True, definitions=found), listing.applied)


def _definitions_schema(settings: Settings, arguments: argparse.Namespace) -> int:
    from streams.definitions_schema import schema

    print(json.dumps(schema(), indent=2, ensure_ascii=False))
    return 0


def _send(settings: Settings, arguments: argparse.Namespace) -> int:
    from agents.web.lines import send_lines

    options = {"end": arguments.end, "report": lambda n: progress(n, n, 0)}
    stream = sys.stdin.buffer if arguments.file == "-" else Path(arguments.file).open("rb")  # noqa: SIM115
    with stream:
        count = within(settings, lambda session: send_lines(session, stream, **options), create=True)
    return show(arguments, {"records": count}, lambda _: f"{count:,} records sent")


def _import(settings: Settings, arguments: argparse.Namespace) -> int:
    from agents.web.csv_import import Choices, import_csv, summary
    from config.clock import SystemClock
    from streams.csv_table import read_mapping

    choices = Choices(arguments.kind, read_mapping(arguments.map), arguments.again)

    async def work() -> Any:
        async with nullcontext() if arguments.dry_run else session_of(settings, create=True) as session:
            return await import_csv(session, arguments.file, choices, SystemClock(), lambda n: progress(n, n, 0))

    return show(arguments, loop(work()), summary)


def _mail(settings: Settings, arguments: argparse.Namespace) -> int:
    from agents.web.mail_commands import COMMANDS

    answer = within(settings, lambda session: COMMANDS[arguments.command](session, settings, arguments))
    return show(arguments, answer, listing.tree)


def _backup(settings: Settings, arguments: argparse.Namespace) -> int:
    from agents.backup import refuse_on_kafka

    refuse_on_kafka(settings)
    answer = ask(settings, "backup", folder=str(arguments.folder.absolute()))
    return show(arguments, answer, listing.tree)


def _restore(settings: Settings, arguments: argparse.Namespace) -> int:
    from agents.restore import restore
    from config.clock import SystemClock

    options = {"hold": arguments.hold, "hold_for_ms": arguments.hold_for}
    work = restore(settings, SystemClock(), arguments.folder, **options)
    return show(arguments, loop(work), listing.tree)


def _move(settings: Settings, arguments: argparse.Namespace) -> int:
    from agents.move.mover import move
    from config.clock import SystemClock

    return show(arguments, loop(move(settings, SystemClock(), arguments.folder)), listing.tree)


# ---- serving


def _serve(settings: Settings, work: Any, role: str) -> int:
    from agents.process import serve

    return int(loop(serve(lambda: _site(settings, role), work)))


def _site(settings: Settings, role: str) -> Any:
    """What runs here: this process alone, workers below it, or a door."""
    if role == "door":
        from agents.door_node import DoorNode

        return DoorNode(settings)
    if settings.on_kafka and (role != "worker" or settings.workers > 1):
        from agents.fleet import Fleet

        command = [sys.executable, str(Path(__file__).resolve()), "worker", "--supervised"]
        return Fleet(settings, command, door=role == "run")
    from agents.node import Node
    from config.clock import SystemClock

    node = Node(settings, SystemClock())
    node.wire(door=role == "run")
    return node


def _until_stopped(arguments: argparse.Namespace) -> Any:
    import structlog

    async def work(site: Any, stop: asyncio.Event) -> None:
        settings = site.settings
        where = f"http://{settings.http}/health/ready" if settings.http else f"data in {settings.data}"
        structlog.get_logger("headrace").info("takes events", where=where, compiled=is_compiled())
        if arguments.json:
            print(json.dumps({"ready": True, "http": settings.http, "data": str(settings.data)}), flush=True)
        await stop.wait()

    return work


def _run(settings: Settings, arguments: argparse.Namespace) -> int:
    return _serve(settings, _until_stopped(arguments), "run")


def _worker(settings: Settings, arguments: argparse.Namespace) -> int:
    from agents.process import end_with_parent

    if not settings.on_kafka:
        raise BadSetting("HEADRACE_BROKER=embedded://: a worker needs kafka://host:port; `run` needs nothing")
    if arguments.supervised:
        end_with_parent()
    return _serve(settings, _until_stopped(arguments), "worker")


def _door(settings: Settings, arguments: argparse.Namespace) -> int:
    if not settings.on_kafka:
        raise BadSetting("HEADRACE_BROKER=embedded://: its door is part of `run`; a door alone needs Kafka")
    return _serve(settings, _until_stopped(arguments), "door")


def _demo(settings: Settings, arguments: argparse.Namespace) -> int:
    from agents.demo import Replay, result, summary

    changes = {"clock": "stream", "workspace": settings.workspace or DEMO_FOLDER}
    settings = settings.model_copy(update=changes | ({"http": ""} if arguments.once else {}))
    replay = Replay(settings.partitions)
    last: list[str] = []

    async def work(site: Any, stop: asyncio.Event) -> None:
        await replay.run(site.log, site, progress)
        await site.ask("flush", {})
        line = await result(site.ask, replay.seconds)
        print(summary(settings, line, await site.ask("dispatches", {"limit": 3})), file=sys.stderr)
        last.append(json.dumps(line))
        if not arguments.once:
            print("The worker goes on; press Ctrl-C to stop.", file=sys.stderr)
            await stop.wait()

    code = _serve(settings, work, "demo")
    if last and (arguments.once or arguments.json):
        print(*last, flush=True)
    return code


RUNS: Final[dict[str, Run]] = {
    "run": _run,
    "worker": _worker,
    "door": _door,
    "demo": _demo,
    "send": _send,
    "import": _import,
    "user": asks("user", listing.tree, "external_id"),
    "explain": asks("explain", listing.why, "external_id", "segment"),
    "report": _report,
    "segments": asks("segments", by("segment")),
    "status": asks("status", listing.status),
    "lag": asks("lag", lambda rows: table(listing.lag(rows))),
    "tail": asks("tail", lambda rows: table(rows, *TAIL_COLUMNS), "topic", "limit"),
    "pause": _pause,
    "resume": _pause,
    "campaigns": asks("campaigns", table),
    "campaigns cancel": asks("cancel", listing.tree, "campaign"),
    "sends": asks("sends", by("campaign")),
    "sends list": _sends_list,
    "sends release": _settle,
    "sends discard": _settle,
    "bounces": _mail,
    "preview": _mail,
    "test-send": _mail,
    "backup": _backup,
    "restore": _restore,
    "move": _move,
    "dead-letters list": _letters_list,
    "dead-letters replay": _letters_replay,
    "keys create": _keys_create,
    "keys list": asks("keys_listed", table),
    "keys revoke": asks("keys_revoke", lambda key: f"{key}: revoked", "id"),
    "config check": _config_check,
    "definitions check": _definitions_check,
    "definitions apply": _definitions_apply,
    "definitions status": asks("scans", table),
    "definitions schema": _definitions_schema,
}

if __name__ == "__main__":
    if use_compiled() == "stale" and {"run", "worker", "door", "demo"} & set(sys.argv[1:2]):
        print(
            "headrace: sources were changed after `make fast`; they run uncompiled until it is repeated",
            file=sys.stderr,
        )
    sys.exit(main())

"""The command line's arguments: one line per command, with the words that `--help` shows."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

LIMIT_MAX: Final = 100_000
ROWS_ARE: Final = ("attributes", "events")
HOLDS: Final = ("unkeyed", "all", "none")

Add = Callable[..., argparse.ArgumentParser]


def arguments_parser(description: str) -> argparse.ArgumentParser:
    """The parser; `command` holds the command's words, such as `sends list`, and `json` whether to answer so."""
    parser = argparse.ArgumentParser(
        prog="app.py", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(json=False)
    add = _adder(parser, "")
    add("run", "take events until stopped: one process on the embedded log, HEADRACE_WORKERS on Kafka")
    add("worker", "one worker on Kafka, until stopped", _flag("--supervised", "end when stdin closes"))
    add("door", "take events over HTTP, on Kafka, without being a worker")
    add("demo", "replay eighteen months of real purchases", _flag("--once", "stop at the end; the last line is JSON"))
    end = _flag("--end", "close a replay: bring every partition's clock to the last time sent")
    add("send", "put newline-delimited JSON into the events topic", _word("file", "or - for stdin"), end)
    _add_import(add)
    user, segment = _word("external_id", "of the user; case-sensitive"), _word("segment", "its name")
    add("user", "what is known of a user", user)
    add("explain", "why a user is in a segment, or not", user, segment)
    add("segments", "how many entered, left and are in each segment")
    _add_report(add)
    add("lag", "records not yet processed, per agent")
    add("status", "which component is in what state, since when and why, of a running process")
    topic = _word("topic", "such as events, dead-letters or segment-changes")
    add("tail", "the newest records of a topic", topic, _limit(20))
    campaign, every = _word("campaign", "its name", nargs="?"), _flag("--all", "every campaign")
    add("pause", "pause a campaign: it sends nothing until it is resumed", campaign, every)
    add("resume", "resume a campaign", campaign, every)
    campaigns = _adder(
        add("campaigns", "each campaign: scheduled, sending, paused, done, when next, and how far"),
        "campaigns ",
        required=False,
    )
    campaigns("cancel", "end a scheduled campaign: what is not decided yet is not sent", _word("campaign", "its name"))
    _add_sends(add("sends", "dispatches per campaign and state; `sends list` shows them one by one"))
    _add_dead_letters(add("dead-letters", "records that were refused"))
    check = _adder(add("config", "the settings"), "config ")
    check("check", "every setting in force, and where it comes from")
    _add_definitions(add("definitions", "workspaces: segments and campaigns"))
    _add_keys(add("keys", "keys of the REST doors"))
    _add_mail(add)
    _add_moves(add)
    return parser


def _add_report(add: Add) -> None:
    add(
        "report",
        "what became of a campaign, per variant; of every campaign without a name",
        _word("campaign", "its name", nargs="?", default=""),
        {**_word("--unit", "of the series in JSON and CSV (default day)", default="day"), "choices": ("day", "hour")},
        {**_limit(0, "of these, the last one now"), "name": "--length"},
        _flag("--csv", "the series as CSV, a row for each variant and day or hour"),
    )


def _add_sends(parser: argparse.ArgumentParser) -> None:
    verbs = _adder(parser, "sends ", required=False)
    state = _word("--state", "only these: attempting, held, sent, aborted or failed", default="")
    held = {**_flag("--held", "the same as --state held"), "action": "store_const", "const": "held", "dest": "state"}
    verbs("list", "dispatches one by one, open ones first", state, held, _limit(1_000, "rows at most"))
    dispatch, every = _word("id", "of a dispatch", nargs="?"), _flag("--all", "every held dispatch")
    verbs("release", "attempt held dispatches again", dispatch, every)
    verbs("discard", "give held dispatches up", dispatch, every)


def _add_dead_letters(parser: argparse.ArgumentParser) -> None:
    verbs = _adder(parser, "dead-letters ")
    reason = _word("--reason", "only letters with this reason, such as wrong_type", default="")
    verbs("list", "the newest dead letters, oldest first", reason, _limit(20))
    limit, again = _limit(0, "letters at most, 0 for all"), _flag("--again", "also letters that were replayed before")
    verbs("replay", "put refused records back into events, each letter once", reason, limit, again)


def _add_mail(add: Add) -> None:
    source = _word("source", "a report or an mbox of them, a maildir whose new mails are taken, or - for stdin")
    add("bounces", "take reports of mail servers: undeliverable mails, and complaints", source)
    campaign, variant = _word("campaign", "its name"), _word("--variant", "by name; else the user's own", default="")
    user = {**_word("--user", "whose profile fills it", metavar="ID"), "required": True}
    html = _word("--html", "write the mail's HTML into this file", metavar="FILE", type=Path, default=None)
    add("preview", "a message as a user would get it now, and what would keep it back", campaign, user, variant, html)
    to = {**_word("--to", "where it goes", metavar="ADDRESS"), "required": True}
    add("test-send", "mail a preview to an address of yours; it counts nowhere", campaign, to, user, variant)


def _add_import(add: Add) -> None:
    kind = {**_word("--as", "what a row is", default=ROWS_ARE[0], dest="kind"), "choices": ROWS_ARE}
    mapping = _word(
        "--map", "what fills a field: COLUMN=FIELD, COLUMN=FIELD:TYPE, or COLUMN=- for none", metavar="COLUMN=FIELD"
    )
    add(
        "import",
        "send a CSV file of users or events, and go on where a stopped import of it was",
        _word("file", "UTF-8, with the names of the columns in its first line", type=Path),
        kind,
        {**mapping, "action": "append", "default": []},
        _flag("--dry-run", "send nothing: show what columns mean and which rows would be refused"),
        _flag("--again", "a file that was imported before, too"),
    )


def _add_definitions(parser: argparse.ArgumentParser) -> None:
    verbs = _adder(parser, "definitions ")
    folder = _word("folder", "with segments/*.yaml and campaigns/*.yaml", type=Path)
    verbs("check", "say what is wrong with a workspace folder, without applying it", folder)
    verbs("apply", "put a workspace folder into force; users who exist are brought to it by a scan", folder)
    verbs("status", "how far a change of definitions is built over the users who exist, per partition")
    verbs("schema", "print the JSON Schema of a workspace's files")


def _add_keys(parser: argparse.ArgumentParser) -> None:
    verbs = _adder(parser, "keys ")
    scope = _word("--scope", "a permission, such as users.track; give one or more", metavar="PERMISSION")
    name = _word("--name", "what the key is for", default="unnamed")
    verbs(
        "create",
        "make a key that opens some endpoints, and say it, only this once",
        {**scope, "action": "append", "default": []},
        name,
    )
    verbs("list", "every key, what it opens, and when it was last used, but never the key itself")
    verbs("revoke", "let a key open nothing any more", _word("id", "as `keys list` shows it"))


def _add_moves(add: Add) -> None:
    """Commands that carry a data folder elsewhere."""
    add("backup", "copy a data folder of the embedded log, while it runs", _word("folder", "to make", type=Path))
    hold = {
        **_word("--hold", "what may have been sent since and now waits for `sends release`", default="unkeyed"),
        "choices": HOLDS,
    }
    more = _word(
        "--hold-for",
        "hold so much beyond now, where lost events are sent again",
        default=0,
        metavar="2h",
        type=_duration,
    )
    add(
        "restore",
        "make HEADRACE_DATA, which must not exist, of a backup",
        _word("folder", "of it", type=Path),
        hold,
        more,
    )

    add("move", "take a stopped data folder of the embedded log to Kafka", _word("folder", "to move", type=Path))


def _adder(parser: argparse.ArgumentParser, prefix: str, *, required: bool = True) -> Add:
    """A function that adds a command below `parser`, with `--json`."""
    commands = parser.add_subparsers(required=required, metavar="VERB" if prefix else "COMMAND", title="commands")

    def add(name: str, text: str, *arguments: dict[str, Any]) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.set_defaults(command=prefix + name)
        for argument in (*arguments, _flag("--json", "one JSON document on stdout")):
            options = {"default": argparse.SUPPRESS, **argument} if argument["name"] == "--json" else dict(argument)
            command.add_argument(options.pop("name"), **options)
        return command

    return add


def _word(name: str, text: str, **options: object) -> dict[str, Any]:
    return {"name": name, "help": text, **options}


def _flag(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "help": text, "action": "store_true"}


def _limit(default: int, text: str = "rows at most, the newest") -> dict[str, Any]:
    text = f"{text} (default {default})"
    return {
        "name": "--limit",
        "type": _count if default == 0 else _some,
        "default": default,
        "metavar": "N",
        "help": text,
    }


def _duration(text: str) -> int:
    from streams.times import parse_duration  # noqa: PLC0415  # compiled, perhaps: not before that is decided

    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) <= LIMIT_MAX):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {LIMIT_MAX}")
    return int(text)


def _some(text: str) -> int:
    if not _count(text):
        raise argparse.ArgumentTypeError("0 rows are none; give 1 or more")
    return int(text)

"""The results as a table for people, and the ratios between subject and opponent."""

from collections.abc import Iterable, Sequence
from typing import Any

Result = dict[str, Any]


def ratios(job: str, subject: Result, opponent: Result, alone: Result) -> Result:
    """How many times less time the subject needs: in all by the wall and by processor, and beyond rules and codec.

    The overhead of a side is the processor time that an event costs beyond the rules and one decode and encode of
    its row; the broker's is counted for neither. J1 has no overhead: there the opponent only counts, without rules
    and rows. A subject that keeps rows decoded may cost less than what is taken off; then there is no ratio either.
    """
    result: Result = {
        "total_wall": round(opponent["wall_us"] / subject["wall_us"], 1),
        "total_cpu": round(opponent["cpu_us"] / subject["cpu_us"], 1),
    }
    if job == "J1":
        return result
    shared = alone["rules"] + alone["codec"]
    ours, theirs = subject["cpu_us"] - shared, opponent["cpu_us"] - shared
    return {
        **result,
        "overhead": round(theirs / ours, 1) if ours > 0 else None,
        "shared_us": round(shared, 1),
        "subject_overhead_us": round(ours, 1),
        "opponent_overhead_us": round(theirs, 1),
    }


def readable(results: Result) -> str:
    """Every part that was run, as text."""
    parts = (_throughput, _ratios, _latency, _stages, _idle, _restore, _segments, _large_state, _providers, _lanes)
    return "\n".join(line for part in parts for line in part(results))


def _throughput(results: Result) -> Iterable[str]:
    rows = [
        (
            each["side"],
            each["transport"],
            each["workers"],
            each["job"],
            each["users"],
            f"{each['events_per_s']:,}",
            each["wall_us"],
            each["cpu_us"],
            each.get("broker_us", "-"),
        )
        for each in results.get("throughput", ())
    ]
    head = ("side", "transport", "workers", "job", "users", "events/s", "wall µs", "CPU µs", "broker's CPU µs")
    return _table("Throughput: a preloaded topic, drained", head, rows)


def _ratios(results: Result) -> Iterable[str]:
    place = ("transport", "workers", "job", "users")
    names = ("total_wall", "total_cpu", "overhead", "shared_us", "subject_overhead_us", "opponent_overhead_us")
    rows = [
        (*(each[name] for name in place), *(each.get(name, "-") for name in names))
        for each in results.get("ratios", ())
    ]
    return _table("Ratios: opponent's time / subject's", (*place, *names), rows)


def _latency(results: Result) -> Iterable[str]:
    rows = [
        (
            each["transport"],
            each["workers"],
            each["rate"],
            what,
            *(each[key].get(name, "-") for name in ("p50", "p95", "p99", "max")),
        )
        for each in results.get("latency", ())
        for what, key in (
            ("event to membership", "event_to_membership_ms"),
            ("event to sink", "event_to_sink_ms"),
            ("producer late", "producer_late_ms"),
        )
    ]
    return _table(
        "Latency in ms from the scheduled time, open loop",
        ("transport", "workers", "events/s", "what", "p50", "p95", "p99", "max"),
        rows,
    )


def _stages(results: Result) -> Iterable[str]:
    found = results.get("stages", ())
    for each in found:
        title = f"Stages of {each['job']}, {each['users']}: µs per event"
        yield from _table(title, ("stage", "µs"), list(each["stages_us"].items()))
        rows = [
            *each["alone_us"].items(),
            *((name, each[name]) for name in ("changelog_bytes_per_event", "rows_written_per_event")),
        ]
        yield from _table("The same without the product around it", ("what", "µs"), rows)


def _idle(results: Result) -> Iterable[str]:
    found = results.get("idle")
    rows = [(found["resident_mib"], found["cpu_percent"])] if found else []
    return _table("Idle", ("resident MiB", "CPU %"), rows)


def _segments(results: Result) -> Iterable[str]:
    names = ("segments", "event_us", "timer_us", "compile_s")
    rows = [tuple(each[name] for name in names) for each in results.get("segments", ())]
    head = ("segments", "CPU µs per event", "CPU µs per timer", "seconds to compile")
    return _table("Many segments, of which an event touches five", head, rows)


def _large_state(results: Result) -> Iterable[str]:
    names = ("users", "state_mib", "times_cache", "events_per_s", "wall_us", "cpu_us", "resident_mib")
    rows = [tuple(each.get(name, "-") for name in names) for each in results.get("J3", ())]
    head = ("users", "state MiB", "times the cache", "events/s", "wall µs", "CPU µs", "resident MiB")
    return _table("J3: J2 with uniform users, and with more of them than the block cache holds", head, rows)


def _restore(results: Result) -> Iterable[str]:
    names = ("side", "record_bytes", "records", "records_per_s", "mb_per_s", "cpu_us", "times_wall", "times_cpu")
    rows = [[each.get(name, "-") for name in names] for each in results.get("restore", ())]
    head = ("side", "bytes", "records", "records/s", "MB/s", "CPU µs", "times, wall", "times, CPU")
    return _table("Restore of one partition into an empty folder", head, rows)


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """A Markdown table; nothing without rows."""
    if not rows:
        return []
    lines = [f"| {' | '.join(str(cell) for cell in row)} |" for row in (head, ["---"] * len(head), *rows)]
    return ["", f"## {title}", "", *lines]


def _providers(results: Result) -> Iterable[str]:
    rows = [
        (
            *(each["channel"], "yes" if each["tracked"] else "no", each["sends"]),
            *(f"{each['sends_per_s']:,}", each["cpu_us"], each["sink_cpu_us"]),
        )
        for each in results.get("providers", ())
    ]
    head = ("channel", "tracked", "sends", "sends/s", "CPU µs", "CPU µs of the sink")
    return _table("Providers: a backlog of decided sends, delivered", head, rows)


def _lanes(results: Result) -> Iterable[str]:
    names = ("channel", "backlog", "backlog_left", "probes")
    rows = [
        (*(each[name] for name in names), *each["event_to_sink_ms"].values(), each["producer_late_ms"])
        for each in results.get("lanes", ())
    ]
    head = ("channel", "bulk sends", "left at the end", "probes", "p50", "p95", "p99", "max", "producer late, ms")
    return _table("Lanes: event to message of transactional sends while a fan-out drains, ms", head, rows)

"""Every metric, by Prometheus convention: base units, `_total` on counters, nothing user-made as a label."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY: Final = CollectorRegistry()
_LATENCY_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"headrace_{name}", text, labels, registry=REGISTRY)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(f"headrace_{name}", text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, *labels: str) -> Histogram:
    return Histogram(f"headrace_{name}", text, labels, registry=REGISTRY, buckets=_LATENCY_BUCKETS)


RECORDS_READ: Final = _counter("records_read_total", "Records read by an agent.", "agent")
SLICE_SECONDS: Final = _histogram("slice_seconds", "Time from taking a slice to its commit.", "agent")
EVENTS_APPLIED: Final = _counter("events_applied_total", "Events applied to user rows.", "type")
EVENTS_DUPLICATE: Final = _counter("events_duplicate_total", "Events dropped because their id was applied.")
EVENT_AGE_SECONDS: Final = _histogram(
    "event_age_seconds", "Append to the mailbox until applied, of the oldest record of each slice."
)
SEGMENT_CHANGES: Final = _counter("segment_changes_total", "Segment changes.", "direction")
TIMERS_FIRED: Final = _counter("timers_fired_total", "Timers fired.")
SENDS_DECIDED: Final = _counter("sends_decided_total", "Sends decided.", "channel")
OUTCOMES: Final = _counter("send_outcomes_total", "What became of dispatches.", "channel", "outcome")
DEAD_LETTERS_REPLAYED: Final = _counter("dead_letters_replayed_total", "Dead letters put back into events.")
ATTEMPT_SECONDS: Final = _histogram("send_attempt_seconds", "Time of one attempt of a dispatch.", "channel")
IN_FLIGHT: Final = _gauge("sends_in_flight", "Dispatches between attempt and outcome.", "channel")
DEAD_LETTERS: Final = _counter("dead_letters_total", "Records refused, kept in dead-letters.", "reason")
LAG_RECORDS: Final = _gauge("consumer_lag_records", "Records not yet processed.", "topic", "partition")
COMMIT_SECONDS: Final = _histogram("commit_seconds", "Time of one transaction on Kafka, from its begin.")
CHANGELOG_BYTES: Final = _counter("changelog_bytes_total", "Bytes of state appended to the changelog.")
RESTORED_RECORDS: Final = _counter("restored_records_total", "Changelog records applied when partitions opened.")
DOOR_OBJECTS: Final = _counter("door_objects_total", "Objects that the door has taken.", "array")
EXPORT_ROWS: Final = _counter("export_rows_total", "Rows in finished export files.", "sink")
EXPORT_FILES: Final = _counter("export_files_total", "Finished export files.", "sink")
LOG_BYTES: Final = _gauge("log_bytes", "Bytes of the embedded log, as appended.", "topic")
DISK_FREE_BYTES: Final = _gauge("disk_free_bytes", "Bytes free where a folder lies.", "folder")
DISK_LOW: Final = _gauge("disk_low", "1 while a disk is below its mark and the door takes nothing.")
LIMIT_HITS: Final = _counter("limit_hits_total", "Times a limit was reached.", "limit")
BUILD_INFO: Final = _gauge("build_info", "Constant 1, with what runs.", "version", "python", "faust")

"""Every metric, by Prometheus convention: base units, `_total` on counters.

Labels are bounded: nothing that a user sends is one. Segments, which operators name, are the one exception.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY: Final = CollectorRegistry()
_PLACE: Final = ("agent", "topic", "partition")
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
USERS_MERGED: Final = _counter("users_merged_total", "Anonymous users who turned out to be a known one.")
LETTERS_FORWARDED: Final = _counter("letters_forwarded_total", "Letters to merged users, sent on to the known one.")
TIMERS_FIRED: Final = _counter("timers_fired_total", "Timers fired.")
SENDS_DECIDED: Final = _counter("sends_decided_total", "Sends decided.", "channel")
OUTCOMES: Final = _counter("send_outcomes_total", "What became of dispatches.", "channel", "outcome")
DEAD_LETTERS_REPLAYED: Final = _counter("dead_letters_replayed_total", "Dead letters put back into events.")
ATTEMPT_SECONDS: Final = _histogram("send_attempt_seconds", "Time of one attempt of a dispatch.", "channel")
ATTEMPTS_BROKEN: Final = _counter(
    "send_attempts_broken_total", "Attempts that an error of our own ended; their dispatches are held.", "channel"
)
IN_FLIGHT: Final = _gauge("sends_in_flight", "Dispatches between attempt and outcome.", "channel")
DEAD_LETTERS: Final = _counter("dead_letters_total", "Records refused, kept in dead-letters.", "reason")
LAG_RECORDS: Final = _gauge("consumer_lag_records", "Records not yet processed, as Kafka counts them.", *_PLACE)
LAG_SECONDS: Final = _gauge("consumer_lag_seconds", "Age of the oldest record not yet processed; 0 for none.", *_PLACE)
CONSUMER_POSITION: Final = _gauge("consumer_position_offset", "Offset of the next record to process.", *_PLACE)
LOG_END: Final = _gauge("log_end_offset", "Offset that the next record will get.", "topic", "partition")
LOG_START: Final = _gauge("log_start_offset", "Offset of the oldest record still kept.", "topic", "partition")
CONSUMER_STATUS: Final = _gauge(
    "consumer_status", "1 for the status that holds: OK, WARN, STALL or STOP.", *_PLACE, "status"
)
CONSUMER_STATUS_SINCE: Final = _gauge(
    "consumer_status_since_timestamp_seconds", "When the status began to hold.", *_PLACE
)
RETENTION_HEADROOM_SECONDS: Final = _gauge(
    "consumer_retention_headroom_seconds", "How long the next record to process is still kept.", *_PLACE
)
TIMERS_OVERDUE_SECONDS: Final = _gauge(
    "timers_overdue_seconds", "How late the oldest pending timer is; 0 when none is due.", "partition"
)
TIMERS_NEXT: Final = _gauge("timers_next_timestamp_seconds", "When the oldest pending timer is due.", "partition")
SEGMENT_FRESHNESS_SECONDS: Final = _gauge(
    "segment_freshness_seconds", "How far behind the present a segment's members may be.", "segment"
)
DISPATCHES: Final = _gauge(
    "dispatches", "Dispatches without an outcome; held: nobody knows if they were sent.", "channel", "state"
)
SILENT_HOSTS: Final = _gauge("send_silent_hosts", "Hosts whose last attempt got no answer.", "channel")
OLDEST_ATTEMPT_SECONDS: Final = _gauge(
    "send_oldest_attempt_seconds", "How long the oldest attempt under way has waited.", "channel"
)
IN_FLIGHT_MAX: Final = _gauge("sends_in_flight_max", "The most dispatches between attempt and outcome.", "channel")
SENDS_WAITING: Final = _gauge("sends_waiting", "Dispatches that wait for a place at their provider.", "channel", "lane")
SENDS_WAITING_SECONDS: Final = _gauge(
    "sends_waiting_seconds", "How long the first of those that wait has waited.", "channel", "lane"
)
PARTITIONS_HELD: Final = _gauge("partitions_held", "Partitions that this worker has open.")
PARTITIONS_WANTED: Final = _gauge("partitions_assigned", "Partitions that this worker is assigned.")
REBALANCING: Final = _gauge("rebalancing", "1 while no records are taken because partitions move.")
REBALANCES: Final = _counter("rebalances_total", "Times that partitions were assigned.")
RESTORE_REMAINING: Final = _gauge("restore_remaining_records", "Changelog records left to apply.", "partition")
STANDBY_REMAINING: Final = _gauge(
    "standby_remaining_records", "Changelog records that a standby's copy of a partition lacks.", "partition"
)
STANDBY_PROMOTIONS: Final = _counter("standby_promotions_total", "Partitions opened that a standby's copy was kept of.")
EXPORT_WAITING: Final = _gauge("export_waiting_records", "Records read that no export file holds yet.")
LOOP_BLOCKED_SECONDS: Final = _gauge("loop_blocked_seconds", "How long the event loop has not turned.")
WATCHDOG_STALLS: Final = _counter("watchdog_stalls_total", "Stalls that the watchdog saw begin.", "kind")
WORKER_UP: Final = _gauge("worker_up", "Whether a worker of the fleet runs and answers.", "worker")
WORKER_RESTARTS: Final = _counter("worker_restarts_total", "Times a worker ended and was started again.", "worker")
COMMIT_SECONDS: Final = _histogram("commit_seconds", "Time of one transaction on Kafka, from its begin.")
CHANGELOG_BYTES: Final = _counter("changelog_bytes_total", "Bytes of state appended to the changelog.")
RESTORED_RECORDS: Final = _counter("restored_records_total", "Changelog records applied, of standbys, too.")
CANARY_SECONDS: Final = _histogram("canary_seconds", "Event to message of the canary, from append to attempt.")
CANARY_WAITING_SECONDS: Final = _gauge(
    "canary_waiting_seconds", "How long the canary under way in a partition has been.", "partition"
)
CANARY_INTERVAL_SECONDS: Final = _gauge("canary_interval_seconds", "How often a canary is sent; 0: never.")
CANARIES_SENT: Final = _counter("canaries_sent_total", "Canaries that set out.")
DOOR_REQUESTS: Final = _counter(
    "door_requests_total", "Requests by permission and what the gate said.", "scope", "verdict"
)
TRACKING_LOST: Final = _counter(
    "tracking_lost_total", "Opens and clicks that were answered and could not be counted.", "kind"
)
TRACKING_REFUSED: Final = _counter("tracking_refused_total", "Requests for links that no key of ours has signed.")
DOOR_OBJECTS: Final = _counter("door_objects_total", "Objects that the door has taken.", "array")
EXPORT_ROWS: Final = _counter("export_rows_total", "Rows in finished export files.", "sink")
EXPORT_FILES: Final = _counter("export_files_total", "Finished export files.", "sink")
LOG_BYTES: Final = _gauge("log_bytes", "Bytes of the embedded log, as appended.", "topic")
DISK_FREE_BYTES: Final = _gauge("disk_free_bytes", "Bytes free where a folder lies.", "folder")
DISK_LOW: Final = _gauge("disk_low", "1 while a disk is below its mark and the door takes nothing.")
LIMIT_HITS: Final = _counter("limit_hits_total", "Times a limit was reached.", "limit")
SCAN_USERS: Final = _counter("scan_users_total", "Rows that scans of new definitions were told to decide.")
SCAN_STEPS: Final = _counter("scan_steps_total", "Steps of scans appended.")
SCAN_USERS_LEFT: Final = _gauge("scan_users_left", "Rows that an open scan has not decided yet, about.", "partition")
FANOUT_USERS: Final = _counter("fanout_users_total", "Rows that steps of scheduled campaigns were told to decide.")
FANOUT_STEPS: Final = _counter("fanout_steps_total", "Steps of scheduled campaigns appended.")
FANOUT_USERS_LEFT: Final = _gauge(
    "fanout_users_left", "Rows that scheduled campaigns under way have not decided yet, about.", "partition"
)
BUILD_INFO: Final = _gauge("build_info", "Constant 1, with what runs.", "version", "python", "faust")

"""Reports on their way to Kafka: counters are added where partitions become one, memories go along."""

from collections.abc import Iterator

from streams.reports import About, Bucket, Counts
from tables.reports import Progress, ReportRows, ReportsTable, read_progress, stage_progress
from tables.store import Batch, Store


def moved_counters(store: Store, table: ReportsTable, sources: list[int]) -> None:
    """Add the counters of some partitions to an empty table of the partition that they go to."""
    for source in sources:
        for name, row in ReportRows(store).rows(source):
            if isinstance(name, Bucket) and isinstance(row, Counts):
                table.counts(name).add(row)
            elif isinstance(name, str) and isinstance(row, About):
                table.about(name).add(row)


def remembered(store: Store, source: int, targets: list[int]) -> Iterator[tuple[int, bytes, bytes]]:
    """What a partition remembers of dispatches and recipients: target, key and value of each row.

    Nothing in such a row says whose it is, so where users go to other partitions each of them gets it; only the one
    that a user's records come to asks for it, and all forget it in time.
    """
    for key, value in ReportRows(store).remembered(source):
        for target in targets:
            yield target, target.to_bytes(2, "big") + key[2:], value


def moved_progress(store: Store, partitions: int, batch: Batch, target: int, next_offset: int) -> None:
    """Stage that everything carried is counted already."""
    clock_s = max(read_progress(store, source).clock_s for source in range(partitions))
    stage_progress(batch, target, Progress(next_offset, clock_s))

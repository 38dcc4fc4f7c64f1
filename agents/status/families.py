"""Metric families as JSON, so that a fleet can show its workers' as its own, and the status page can read them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest

Family = list[Any]
"""[name, kind, documentation, [[sample name, {label: value}, value], …]]; creation times are left out."""


def families_of(registry: CollectorRegistry) -> list[Family]:
    """Every family of a registry as it stands."""
    return [
        [
            family.name,
            family.type,
            family.documentation,
            [[each.name, each.labels, each.value] for each in family.samples if not each.name.endswith("_created")],
        ]
        for family in registry.collect()
    ]


class _Merged:
    """A collector of families that were collected elsewhere."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        """The families."""
        yield from self._families


def exposition(by_worker: Mapping[str, list[Family]]) -> bytes:
    """The text that Prometheus reads: each sample once, with its worker as a label; `""` adds none."""
    merged: dict[str, Metric] = {}
    for worker, families in by_worker.items():
        for name, kind, documentation, samples in families:
            family = merged.setdefault(name, Metric(name, documentation, kind))
            for sample, labels, value in samples:
                family.add_sample(sample, {**labels, "worker": worker} if worker else labels, value)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Merged(merged.values()))
    return generate_latest(registry)

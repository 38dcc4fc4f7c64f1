"""Numbers read out of metric families: sums, groups, and quantiles between two looks."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import inf, isfinite

from agents.status.families import Family


class Numbers:
    """Every sample of some workers' families, with its worker as a label; several workers' samples add up."""

    def __init__(self, by_worker: Mapping[str, Iterable[Family]]) -> None:
        self.workers = set(by_worker)
        self._samples: defaultdict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
        for worker, families in by_worker.items():
            for _, _, _, samples in families:
                for name, labels, value in samples:
                    self._samples[name].append(({"worker": worker, **labels}, value))

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The sums per values of these labels; samples that lack one are left out."""
        sums: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for found, value in self._samples.get(name, ()):
            if all(label in found for label in labels):
                sums[tuple(found[label] for label in labels)] += value
        return dict(sums)

    def rise(self, before: "Numbers", name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """How much counters have grown since an earlier look, per values of these labels.

        One that is lower now was reset, as by a restart, and counts from nothing; a worker that did not answer
        then counts for nothing, since nobody knows when it grew.
        """
        earlier = before.by(name, *labels, "worker")
        sums: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for (*key, worker), value in self.by(name, *labels, "worker").items():
            base = earlier.get((*key, worker), 0.0)
            if worker in before.workers:
                sums[tuple(key)] += value - base if value >= base else value
        return dict(sums)

    def total(self, name: str) -> float:
        """The sum of all samples of a name; 0 for none."""
        return sum(value for _, value in self._samples.get(name, ()))

    def most(self, name: str, **wanted: str) -> float:
        """The greatest sample of a name with these labels; 0 for none."""
        found = self._samples.get(name, ())
        return max((value for labels, value in found if wanted.items() <= labels.items()), default=0.0)


def quantile(buckets: dict[tuple[str, ...], float], share: float) -> float | None:
    """The value below which a share of observations lies, from {(upper bound,): cumulative count}.

    Straight within a bucket, as Prometheus reckons; beyond the last bound, that bound. None without observations.
    """
    bounds = sorted((inf if bound == "+Inf" else float(bound), count) for (bound,), count in buckets.items())
    if not bounds or not bounds[-1][1]:
        return None
    wanted, lower, below = share * bounds[-1][1], 0.0, 0.0
    for bound, count in bounds:
        if count >= wanted:
            if not isfinite(bound):
                return lower
            return lower + (bound - lower) * ((wanted - below) / (count - below) if count > below else 1.0)
        lower, below = bound, count
    return lower

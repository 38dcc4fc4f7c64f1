"""A gauge whose series come and go with what they are about."""

from collections.abc import Mapping

from prometheus_client import Gauge


class Series:
    """A gauge whose series are exactly those last shown."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._shown: dict[tuple[str, ...], Gauge] = {}

    def show(self, values: Mapping[tuple[str, ...], float]) -> None:
        """Set these series and remove the others."""
        for gone in self._shown.keys() - values.keys():
            self._gauge.remove(*gone)
            del self._shown[gone]
        for labels, value in values.items():
            child = self._shown.get(labels)
            if child is None:
                child = self._shown[labels] = self._gauge.labels(*labels)
            child.set(value)

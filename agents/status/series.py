"""A gauge whose series come and go with what they are about."""

from collections.abc import Mapping

from prometheus_client import Gauge


class Series:
    """A gauge whose series are exactly those last shown."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._shown: set[tuple[str, ...]] = set()

    def show(self, values: Mapping[tuple[str, ...], float]) -> None:
        """Set these series and remove the others."""
        for gone in self._shown.difference(values):
            self._gauge.remove(*gone)
        for labels, value in values.items():
            self._gauge.labels(*labels).set(value)
        self._shown = set(values)

"""What a worker shows of itself is bounded, whatever the workspace holds."""

from pathlib import Path

from config import metrics
from tests.agents.nodes import running, write_workspace

SEGMENTS = 5


def segment_file(name: str) -> dict[str, object]:
    """A segment of that name."""
    return {"name": name, "filter": {"event": {"name": "like", "within": "1h"}}}


async def test_segments_beyond_the_setting_share_one_series(tmp_path: Path) -> None:
    """Of five segments two have a freshness of their own and the rest have one together; the limit is hit once."""
    files = {f"segments/s{at}.yaml": segment_file(f"s{at}") for at in range(SEGMENTS)}
    workspace = write_workspace(tmp_path / "workspace", files)
    before = metrics.LIMIT_HITS.labels("segment_series")._value.get()
    metrics.SEGMENT_FRESHNESS_SECONDS.clear()
    async with running(tmp_path / "data", workspace=workspace, segment_series=2) as node:
        for _ in range(3):
            await node.gauges.sample()
        [family] = metrics.SEGMENT_FRESHNESS_SECONDS.collect()
        assert [each.labels["segment"] for each in family.samples] == ["s0", "s1", "*"]
        assert metrics.LIMIT_HITS.labels("segment_series")._value.get() == before + 1

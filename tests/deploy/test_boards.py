"""The Grafana boards: every query is run by Prometheus, over series as Headrace exports them, and gives an answer."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.test_alerts import ROOT, exported, names_in

BOARDS = sorted((ROOT / "deploy/grafana").glob("*.json"))
QUERIES = [
    target["expr"]
    for board in BOARDS
    for panel in json.loads(board.read_text("utf-8"))["panels"]
    for target in panel["targets"]
]
LABELS = {
    **dict.fromkeys(("agent", "topic", "partition", "type", "outcome", "channel", "reason", "segment"), "a"),
    "status": "WARN",
    "state": "held",
    "le": "+Inf",
}


def test_boards_name_only_metrics_that_exist() -> None:
    """No panel asks for what nobody exports."""
    assert {name for query in QUERIES for name in names_in(query)} - exported() == set()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here: apt-get install prometheus")
def test_every_query_gives_an_answer(tmp_path: Path) -> None:
    """Each query, run by Prometheus over series of the metrics it names, gives at least one series."""
    tests = []
    for query in QUERIES:
        labels = ",".join(f'{name}="{value}"' for name, value in LABELS.items())
        series = [{"series": f"{name}{{{labels}}}", "values": "0+3x30"} for name in names_in(query)]
        count = {"expr": f"count({query}) > bool 0", "eval_time": "5m", "exp_samples": [{"labels": "{}", "value": 1}]}
        tests.append({"interval": "15s", "input_series": series, "promql_expr_test": [count]})
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [], "evaluation_interval": "15s", "tests": tests}), "utf-8")
    command = ["promtool", "test", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr

"""The alert rules: each fires on its symptom, is silent on a clean series, has a page, and names metrics that exist."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.metrics import MetricWrapperBase

from agents.status.families import exposition, families_of
from config import metrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/alerts.yaml"
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]
}
RETRY, SENT = (f'send_outcomes_total{{channel="email",outcome="{outcome}"}}' for outcome in ("retry", "sent"))
PLACE = 'agent="users",topic="mailbox",partition="3",worker="0"'
# Alert -> series over an hour: what it fires on, and what it is silent about, as promtool writes them.
SYMPTOMS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "HeadraceWorkerDown": ({'worker_up{worker="1"}': "1x5 0x60"}, {'worker_up{worker="1"}': "1x60"}),
    "HeadracePartitionStopped": (
        {f'consumer_status{{{PLACE},status="STOP"}}': "1x60"},
        {f'consumer_status{{{PLACE},status="STOP"}}': "0x60", f'consumer_status{{{PLACE},status="OK"}}': "1x60"},
    ),
    "HeadracePartitionStalled": (
        {f'consumer_status{{{PLACE},status="STALL"}}': "1x60"},
        {f'consumer_status{{{PLACE},status="STALL"}}': "0x60"},
    ),
    "HeadraceFallingBehind": (
        {f'consumer_status{{{PLACE},status="WARN"}}': "1x60"},
        {f'consumer_status{{{PLACE},status="WARN"}}': "1x2 0x58"},
    ),
    "HeadraceRetentionNear": (
        {f"consumer_retention_headroom_seconds{{{PLACE}}}": "9000x60", f"consumer_lag_records{{{PLACE}}}": "9x60"},
        {f"consumer_retention_headroom_seconds{{{PLACE}}}": "9000x60", f"consumer_lag_records{{{PLACE}}}": "0x60"},
    ),
    "HeadraceEventsLate": (
        {f"consumer_lag_seconds{{{PLACE}}}": "90x60"},
        {f"consumer_lag_seconds{{{PLACE}}}": "3x60", 'consumer_lag_seconds{agent="export",topic="currents"}': "90x60"},
    ),
    "HeadraceTimersLate": ({'timers_overdue_seconds{partition="1"}': "40x60"}, {"timers_overdue_seconds": "1x60"}),
    "HeadraceProviderSilent": (
        {'send_oldest_attempt_seconds{channel="webhook"}': "20x60"},
        {'send_oldest_attempt_seconds{channel="webhook"}': "1x60", 'send_silent_hosts{channel="webhook"}': "0x60"},
    ),
    "HeadraceSendFailuresHigh": (
        {RETRY: "0+2x60", SENT: "0+8x60"},
        {RETRY: "0+1x60", SENT: "0+99x60"},
    ),
    "HeadraceSendsUncertain": (
        {'dispatches{channel="email",state="held"}': "2x60"},
        {'dispatches{channel="email",state="held"}': "0x60", 'dispatches{channel="email",state="retry"}': "9x60"},
    ),
    "HeadraceDeadLettersRising": (
        {'dead_letters_total{reason="bad_json"}': "0+5x60", 'records_read_total{agent="intake"}': "0+100x60"},
        {'dead_letters_total{reason="bad_json"}': "0+5x60", 'records_read_total{agent="intake"}': "0+9999x60"},
    ),
    "HeadraceRestoreLong": (
        {'restore_remaining_records{partition="1"}': "900-1x60"},
        {'restore_remaining_records{partition="1"}': "900-100x9 _x50"},
    ),
    "HeadraceCanaryLate": (
        {'canary_waiting_seconds{partition="1"}': "0+60x60"},
        {'canary_waiting_seconds{partition="1"}': "3 _ 2 _ 1 _ 4 _x50"},
    ),
    "HeadraceLoopBlocked": ({"loop_blocked_seconds": "0x9 5+60x50"}, {"loop_blocked_seconds": "0x60"}),
    "HeadraceLimitHit": ({'limit_hits_total{limit="a"}': "0x5 1+1x55"}, {'limit_hits_total{limit="a"}': "7x60"}),
}


def exported() -> set[str]:
    """Every name of a sample that config/metrics.py can give."""
    families = [family for each in metrics.REGISTRY.collect() for family in [each]]
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}
    return {family.name + suffix for family in families for suffix in suffixes[family.type]}


def names_in(expression: str) -> set[str]:
    """The metrics of ours that an expression names."""
    return set(re.findall(r"\bheadrace_\w+", expression))


def test_every_alert_has_a_page_and_every_page_an_alert() -> None:
    """docs/runbooks holds one page per alert, under its name, with what to look at and what to do."""
    pages = {page.stem: page.read_text("utf-8") for page in (ROOT / "docs/runbooks").glob("*.md")}
    assert set(pages) == set(ALERTS)
    assert [name for name, text in pages.items() if "## Look" not in text or "## Do" not in text] == []
    assert {rule["annotations"]["runbook"] for rule in ALERTS.values()} == {
        f"docs/runbooks/{name}.md" for name in pages
    }


def test_rules_name_only_metrics_that_exist() -> None:
    """No rule, and no series that a test feeds it, is about a metric that nobody exports."""
    fed = {f"headrace_{name.partition('{')[0]}" for pair in SYMPTOMS.values() for series in pair for name in series}
    used = {name for rule in ALERTS.values() for name in names_in(rule["expr"])}
    assert (used | fed) - exported() == set()
    assert set(SYMPTOMS) == set(ALERTS)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here: apt-get install prometheus")
@pytest.mark.parametrize("is_bad", [True, False], ids=["fires", "silent"])
def test_each_alert_fires_on_its_symptom_and_on_nothing_else(tmp_path: Path, is_bad: bool) -> None:
    """Promtool plays an hour of each symptom, and of a clean series, through the rules as Prometheus would."""
    tests = []
    for name, series in SYMPTOMS.items():
        told = series[0 if is_bad else 1]
        inputs = [{"series": f"headrace_{labels}", "values": values} for labels, values in told.items()]
        # exp_alerts would want every label told again; counting in PromQL asks for what is meant.
        count = f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) > bool 0 or vector(0)'
        wanted = {"expr": count, "eval_time": "40m", "exp_samples": [{"labels": "{}", "value": int(is_bad)}]}
        tests.append({"interval": "1m", "input_series": inputs, "promql_expr_test": [wanted]})
    file = tmp_path / "tests.yaml"
    document = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}
    file.write_text(yaml.safe_dump(document), "utf-8")
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False, timeout=50
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here: apt-get install prometheus")
def test_promtool_finds_no_fault_in_rules() -> None:
    """The rules are what Prometheus accepts."""
    checked = subprocess.run(["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here: apt-get install prometheus")
def test_promtool_finds_no_fault_in_metrics() -> None:
    """Every metric, as a worker or a door shows it and as a fleet does, is as Prometheus's own linter wants it."""
    declared = [each for each in vars(metrics).values() if isinstance(each, MetricWrapperBase)]
    empty = [each for each in declared if each._labelnames and not each._metrics]
    for metric in empty:
        metric.labels(*("0" for _ in metric._labelnames))  # a family without samples is not linted
    families = families_of(metrics.REGISTRY)
    fleet = exposition({"0": families, "1": families, "": families})
    texts = (generate_latest(metrics.REGISTRY), fleet)
    for metric in empty:
        metric.clear()
    for text in texts:
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, b"")

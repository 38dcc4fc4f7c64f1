"""The compose file, which no test starts: what it mounts is there, what it names fits together, nothing is open."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.settings import Settings
from tests.deploy.test_alerts import ROOT
from tests.deploy.test_boards import BOARDS

DEPLOY = ROOT / "deploy"
SERVICES: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"]
VOLUMES = set(yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["volumes"])


def mounts(service: str) -> dict[str, str]:
    """What a service mounts, by the path inside; a default of a variable counts as given."""
    texts = [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", each) for each in SERVICES[service].get("volumes", ())]
    return {inside: source for source, inside in (text.split(":")[:2] for text in texts)}


def test_everything_mounted_exists_and_every_volume_is_used() -> None:
    """Each bind mount is a file or folder of the checkout, each named volume is declared, and none is left over."""
    sources = {source for service in SERVICES for source in mounts(service).values()}
    named = {source for source in sources if not source.startswith(".")}
    assert named == VOLUMES
    assert [source for source in sources - named if not (DEPLOY / source).exists()] == []


def test_ports_are_published_on_loopback_only() -> None:
    """Nobody else on the network reaches what `docker compose up` starts."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) == 4
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_settings_and_names_fit_together() -> None:
    """Every HEADRACE_ name is a setting, Prometheus scrapes our service, and Grafana has the source the boards name."""
    ours = SERVICES["headrace"]["environment"]
    assert {name.removeprefix("HEADRACE_").lower() for name in ours} <= set(Settings.model_fields)
    scrape = yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text("utf-8"))
    assert scrape["scrape_configs"][0]["static_configs"][0]["targets"] == ["headrace:8080"]
    assert scrape["rule_files"] == ["/etc/prometheus/alerts.yaml"]
    assert mounts("prometheus")["/etc/prometheus"] == "./prometheus"
    [source] = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text("utf-8"))[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    uids = {uid for board in BOARDS for uid in re.findall(r'"uid": "(\w+)"', board.read_text("utf-8"))}
    assert source["uid"] in uids
    [boards] = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/headrace.yaml").read_text("utf-8"))[
        "providers"
    ]
    folder = boards["options"]["path"]
    assert {f"{folder}/{board.name}" for board in BOARDS} <= set(mounts("grafana"))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here: apt-get install prometheus")
def test_prometheus_accepts_its_configuration(tmp_path: Path) -> None:
    """Promtool reads the configuration with the rules where the checkout has them."""
    text = (DEPLOY / "prometheus/prometheus.yaml").read_text("utf-8")
    file = tmp_path / "prometheus.yaml"
    file.write_text(text.replace("/etc/prometheus", str(DEPLOY / "prometheus")), "utf-8")
    done = subprocess.run(["promtool", "check", "config", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

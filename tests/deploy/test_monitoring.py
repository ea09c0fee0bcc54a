"""The dashboard and the alerts use only metrics that exist, and the alerts come when they should."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from documents import ROOT, page
from endpoint import Endpoint
from prometheus_client import CollectorRegistry, generate_latest
from serving import Served
from waiting import until

from vlmbatch.observers.prometheus import Metrics
from vlmbatch.service.queue_metrics import QueueFacts, QueueMetrics

DASHBOARD = json.loads(page("deploy/grafana/dashboards/vlmbatch.json"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES = [
    rule
    for group in yaml.safe_load(page("deploy/prometheus/alerts.yml"))["groups"]
    for rule in group["rules"]
]
QUEUE = {"vlm_queue_up", "vlm_queue_jobs", "vlm_queue_oldest_seconds", "vlm_queue_workers"}
OF_OTHERS = {  # of Prometheus and the node exporter
    "ALERTS",
    "up",
    "node_filesystem_avail_bytes",
    "node_filesystem_readonly",
    "node_filesystem_size_bytes",
}
WORDS = re.compile(r"\b(?:ALERTS|up|(?:vlm|vlmbatch|node)_\w+)(?=[{\[) ]|$)")
promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="on Debian, promtool is in the package prometheus"
)


def expressions() -> list[str]:
    """All expressions of the dashboard and the alerts."""
    shown = [target["expr"] for panel in PANELS for target in panel["targets"]]
    return [*shown, *(rule["expr"] for rule in RULES)]


def metrics(text: str) -> set[str]:
    """The names that a page of metrics has, with those of the parts of a histogram."""
    found = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE):
        found |= (
            {f"{name}{part}" for part in ("_bucket", "_count", "_sum")} if kind == "histogram" else {name}
        )
    return found


def test_each_metric_is_one_that_the_code_exports() -> None:
    """Every metric of the dashboard and of the alerts is exported by the service, a run, or others."""
    with Endpoint() as endpoint, Served(endpoint) as served:
        served.upload()
        exported = metrics(served.client.get("/metrics").text)
    registry = CollectorRegistry()
    QueueMetrics(registry).facts = QueueFacts(jobs={"queued": 1})
    for own in (registry, Metrics().registry):
        exported |= metrics(generate_latest(own).decode())
    used = {name for text in expressions() for name in WORDS.findall(re.sub(r'"[^"]*"', '""', text))}
    assert used - exported - OF_OTHERS == set()
    assert used >= QUEUE | {"vlm_requests_total", "vlmbatch_images_total"}


def test_the_routes_of_the_latency_exist() -> None:
    """The latency counts the routes with images, under the names that the service gives them."""

    def routes() -> set[str]:
        """The routes with images that have been counted; the count comes after the reply."""
        counted = [name for name in served.metrics() if name.startswith("vlm_request_latency_seconds_count")]
        return {found for name in counted for found in re.findall(r'route="(/analyze[^"]*)"', name)}

    with Endpoint() as endpoint, Served(endpoint) as served:
        served.upload()
        until(routes)
        (route,) = routes()
    patterns = {found for text in expressions() for found in re.findall(r'route=~"([^"]*)"', text)}
    assert patterns
    assert all(re.fullmatch(pattern, route) for pattern in patterns)


def test_the_dashboard_finds_its_data() -> None:
    """Each panel has a description, a place of its own, and the data source that is provisioned."""
    (source,) = yaml.safe_load(page("deploy/grafana/provisioning/datasources/prometheus.yaml"))["datasources"]
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        covered = {
            (x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
        }
        assert not covered & cells, panel["title"]
        cells |= covered
    for panel in PANELS:
        assert panel["description"].endswith(".")
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {source["uid"]}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    (provider,) = yaml.safe_load(page("deploy/grafana/provisioning/dashboards/vlmbatch.yaml"))["providers"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in page("deploy/compose.yaml")


def test_each_alert_says_what_to_do() -> None:
    """Each alert has a severity, a summary, a description and an action."""
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description", "action"}


def test_each_alert_has_a_case_in_which_it_comes() -> None:
    """alerts_test.yml has for each alert a case with it, and one without it."""
    text = page("deploy/prometheus/alerts_test.yml")
    for name in (rule["alert"] for rule in RULES):
        assert f"alertname: {name}, eval_time" in text
        assert f'alertname="{name}"' in text or f"- alertname: {name}\n" in text


@pytest.mark.long
@promtool
def test_the_alerts_come_when_they_should() -> None:
    """promtool accepts the configuration and the rules, and each case of the rules ends as it should."""
    folder = ROOT / "deploy" / "prometheus"
    for words in (["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run(["promtool", *words], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
@promtool
def test_each_expression_of_the_dashboard_is_valid(tmp_path: Path) -> None:
    """promtool can read each expression of the dashboard."""
    filled = [text.replace("$__rate_interval", "5m").replace("$job", ".*") for text in expressions()]
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(filled)]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

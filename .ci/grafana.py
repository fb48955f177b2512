"""Runs every query of the dashboard against a real Prometheus: grafana.py PROXY_URL ADMIN_URL.

The two are addresses of a running `bearer-proxy demo`. Prometheus scrapes it each second while good and bad
requests are sent, with the alerts of deploy/prometheus loaded. Then each query of each panel must return data,
each variable must have values, and no alert may be pending or firing: nothing is wrong."""

import json
import math
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
DASHBOARD = ROOT / "deploy/grafana/bearer-proxy.json"
ALERTS = ROOT / "deploy/prometheus/alerts.yaml"
# Seconds that everything may take, and that requests are sent at least.
DEADLINE, TRAFFIC = 90, 8

# Queries without data in the demo: panel, query, reason. One that has data must not stand here.
EMPTY = {
    ("Requests by client", "A"): "the demo has no [clients]",
    ("Budget of token calls", "A"): "the demo has no token_budget",
    ("Budget of token calls", "B"): "the demo has no token_budget",
    ("Age of rotated secrets", "A"): "the demo's secrets do not change",
    ("Time since the last successful load", "B"): "no key of the demo changes",
    ("Life of listener certificates", "A"): "the demo's listeners are without TLS",
}

# Good requests, refused ones (404, 405, 400), and one with an Authorization of its own.
REQUESTS = [
    ("GET", "/qbank/v1/balances/42", {}),
    ("GET", "/corebank/accounts", {}),
    ("GET", "/datacrunch/v1/balance", {}),
    ("POST", "/sqr/v1/user-status", {"Content-Type": "application/json"}),
    ("GET", "/qbank/v1/balances/42", {"Authorization": "Bearer of-the-app"}),
    ("GET", "/qbank/v1/secret-admin", {}),
    ("DELETE", "/qbank/v1/balances/42", {}),
    ("GET", "/qbank/%2e%2e/balances", {}),
]


def answer(url, method="GET", headers=None):
    """Status and body; an error status is an answer too."""
    body = b"{}" if method == "POST" else None
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def send_requests(proxy):
    statuses = [answer(proxy + path, method, headers)[0] for method, path, headers in REQUESTS]
    assert statuses == [200, 200, 200, 200, 200, 404, 405, 400], statuses


class Prometheus:
    """A Prometheus with one target, which ends with this program."""

    def __init__(self, folder, target):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ALERTS)],
            "scrape_configs": [
                {"job_name": "bearer-proxy", "static_configs": [{"targets": [target]}]}
            ],
        }
        file = folder / "prometheus.yml"
        file.write_text(json.dumps(config))  # JSON is YAML.
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "prometheus.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={file}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=log,
            )

    def wait_ready(self, deadline):
        while True:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "Prometheus does not become ready"
            try:
                if answer(self.url + "/-/ready")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)

    def get(self, path, **parameters):
        status, body = answer(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters, True)}")
        result = json.loads(body)
        assert status == 200, f"{parameters}: {result.get('error')}"
        return result["data"]

    def has_data(self, target):
        """True if the query returns a number. Latencies of routes without requests are NaN."""
        expression = substituted(target["expr"])
        now = time.time()
        if target["instant"]:
            series = [[one["value"]] for one in self.get("query", query=expression, time=now)["result"]]
        else:
            found = self.get("query_range", query=expression, start=now - 5, end=now, step=1)
            series = [one["values"] for one in found["result"]]
        return any(not math.isnan(float(value)) for one in series for _, value in one)

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


def substituted(text):
    """The text with the variables that Grafana would put in; another one is an error."""
    for name, value in (("$__rate_interval", "5s"), ("$instance", ".*"), ("$upstream", ".*")):
        text = text.replace(name, value)
    assert "$" not in text, f"an unknown variable: {text}"
    return text


def without_data(prometheus, targets):
    return {key for key, target in targets.items() if not prometheus.has_data(target)}


def check(prometheus, proxy, deadline):
    dashboard = json.loads(DASHBOARD.read_text())
    targets = {
        (panel["title"], target["refId"]): target
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    }
    titles = [panel["title"] for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len(set(titles)) == len(titles), "two panels have one title"
    assert set(EMPTY) <= set(targets), f"no such query: {set(EMPTY) - set(targets)}"
    began = time.monotonic()
    while True:
        send_requests(proxy)
        time.sleep(0.5)
        if time.monotonic() < began + TRAFFIC:
            continue
        empty = without_data(prometheus, targets)
        if empty == set(EMPTY):
            break
        if time.monotonic() > deadline:
            lines = [f"  {title}, {ref}: {targets[title, ref]['expr']}" for title, ref in empty - set(EMPTY)]
            lines += [f"  {key} has data: take it off EMPTY" for key in set(EMPTY) - empty]
            sys.exit("\n".join(["error: these queries return no data:", *lines]))
    print(f"{len(targets)} queries, {len(EMPTY)} of them without data for a reason that is listed")
    check_variables(prometheus, dashboard)
    alerts = prometheus.get("alerts")["alerts"]
    assert not alerts, f"alerts where nothing is wrong: {alerts}"
    rules = prometheus.get("rules")["groups"][0]["rules"]
    failed = [rule for rule in rules if rule["health"] != "ok"]
    assert not failed, failed
    print(f"{len(rules)} alerts are quiet")


def check_variables(prometheus, dashboard):
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "datasource":
            continue
        series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
        values = prometheus.get(f"label/{label}/values", **{"match[]": substituted(series)})
        assert values, f"the variable {variable['name']} has no values"
        print(f"${variable['name']}: {', '.join(values)}")


def main():
    proxy, admin = (url.rstrip("/") for url in sys.argv[1:])
    deadline = time.monotonic() + DEADLINE
    folder = pathlib.Path(tempfile.mkdtemp())
    prometheus = Prometheus(folder, urllib.parse.urlsplit(admin).netloc)
    try:
        prometheus.wait_ready(deadline)
        check(prometheus, proxy, deadline)
    finally:
        prometheus.end()
        shutil.rmtree(folder, ignore_errors=True)


main()

"""Dashboards and alerts: Grafana's linter's rules without exclusions, promtool, and panels that real events move."""
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import unittest

import yaml
from fleet import Fleet
from pods import until
from render import CHART, ROOT

sys.path.insert(0, str(ROOT / "charts"))
from alerts import ALERTS, promtool_tests  # noqa: E402

#: What stays at zero here, each with the reason.
STILL = {
    "Cells without LSN": "another node takes over at once, or the whole place is lost",
    "Without LSN": "in one network each node finds an LSN",
}
#: What must be raised by what the test does; the others need quarters of an hour, or a thousand hosts, and are proved by
#: promtool with series that are made up.
RAISED = {"MusterEnrollmentFailures", "MusterReportsUnverified", "MusterStoreFailing"}
RAISED_BY_LOSS = {"MusterBusAway", "MusterNodesUnreachable"}
#: What a slow computer does not raise by itself.
CAUSED = RAISED | RAISED_BY_LOSS | {"MusterAbsent"}


def boards():
    return {path.stem: json.loads(path.read_text()) for path in sorted((CHART / "dashboards").glob("*.json"))}


def queries():
    for name, board in boards().items():
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                if "expr" in target:
                    yield name, panel, target["expr"]


class Linter(unittest.TestCase):
    """The rules of grafana/dashboard-linter, by their names."""

    def setUp(self):
        self.panels = [(name, panel) for name, board in boards().items() for panel in board["panels"] if panel["type"] != "row"]

    def variables(self):
        for name, board in boards().items():
            yield name, {it["name"]: it for it in board["templating"]["list"]}

    def test_template_datasource_rule(self):
        for name, found in self.variables():
            self.assertEqual((found["datasource"]["type"], found["datasource"]["label"]), ("datasource", "Data source"), name)

    def test_template_job_and_instance_rules(self):
        for name, found in self.variables():
            for label in ("job", "instance"):
                it = found[label]
                self.assertEqual((it["type"], it["label"], it["multi"], it["allValue"]), ("query", label, True, ".+"), name)
                self.assertEqual(it["datasource"]["uid"], "$datasource", name)

    def test_template_label_promql_rule(self):
        for name, found in self.variables():
            for it in found.values():
                if it["type"] == "query":
                    self.assertRegex(it["query"], r"^label_values\([a-z_]+(\{.*\})?, [a-z]+\)$", name)

    def test_template_on_time_change_reload_rule(self):
        for name, found in self.variables():
            self.assertTrue(all(it["refresh"] == 2 for it in found.values() if it["type"] == "query"), name)

    def test_panel_rules_datasource_title_description_units_and_targets(self):
        for name, panel in self.panels:
            where = f"{name}: {panel['title']}"
            self.assertTrue(panel["title"] and panel["description"], where)
            self.assertTrue(panel["datasource"]["uid"].startswith("$"), where)
            self.assertTrue(panel["targets"], where)
            if panel["type"] != "nodeGraph":
                self.assertTrue(panel["fieldConfig"]["defaults"]["unit"], where)

    def test_target_promql_rule(self):
        for name, panel, expr in queries():
            text = concrete(expr)
            done = subprocess.run(["promtool", "query", "instant", "http://127.0.0.1:9", text], capture_output=True, text=True)
            self.assertNotIn("parse error", done.stderr, f"{name}: {panel['title']}")
            rule = {"groups": [{"name": "q", "rules": [{"record": "q", "expr": text}]}]}
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                yaml.safe_dump(rule, file)
                file.flush()
                done = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, f"{name}: {panel['title']}: {done.stderr}")

    def test_target_job_and_instance_rules(self):
        for name, panel, expr in queries():
            for selector in re.findall(r"\{([^}]*)\}", expr):
                self.assertIn('job=~"$job"', selector, f"{name}: {panel['title']}")
                self.assertIn('instance=~"$instance"', selector, f"{name}: {panel['title']}")

    def test_target_rate_interval_rule(self):
        for name, panel, expr in queries():
            for window in re.findall(r"\[([^\]]+)\]", expr):
                self.assertEqual(window, "$__rate_interval", f"{name}: {panel['title']}")

    def test_target_counter_agg_rule(self):
        for name, panel, expr in queries():
            for counter in re.findall(r"\b(\w+_total|\w+_bucket|\w+_count)\{", expr):
                self.assertRegex(expr, rf"(rate|increase)\({counter}\{{", f"{name}: {panel['title']}")

    def test_target_logql_rules_and_uneditable_dashboard(self):
        for name, board in boards().items():
            self.assertIs(board["editable"], False, name)
            self.assertNotIn('"loki"', json.dumps(board), name)
            self.assertGreaterEqual(board["schemaVersion"], 39, name)
            self.assertLess(len(json.dumps(board)), 900_000, "a ConfigMap holds a megabyte")

    def test_every_call_is_linked_to_its_traces(self):
        linked = [panel for _, panel in self.panels if "traceql" in json.dumps(panel.get("fieldConfig", {}))]
        self.assertGreaterEqual(len(linked), 3)


class Alerts(unittest.TestCase):
    def test_each_alert_is_raised_by_its_trouble_and_not_by_other(self):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(promtool_tests(str(CHART / "alerts/muster.yaml")), file)
            file.flush()
            done = subprocess.run(["promtool", "test", "rules", file.name], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_each_alert_has_a_page_that_says_what_helps(self):
        for alert in ALERTS:
            page = (CHART / "runbooks" / f"{alert.name}.md").read_text()
            self.assertIn("## What helps", page)


class Live(unittest.TestCase):
    """Some three minutes: hosts count once a minute, and a place is dark after 45 s."""

    def test_real_events_move_the_panels_and_raise_the_alerts(self):
        with tempfile.TemporaryDirectory(prefix="mfleet", dir="/tmp") as scratch, Fleet(pathlib.Path(scratch)) as fleet:
            self.check_metrics(fleet)
            self.assertEqual(fleet.raised() & CAUSED, set(), "before anything happened")
            fleet.cause_events()
            until(lambda: self.assertLessEqual(RAISED, fleet.raised()), "the alerts of what happened")
            until(lambda: self.check_graph(fleet), "the graph")
            moved, end = set(), time.monotonic() + 90
            while True:
                still, silent = self.look(fleet, moved)
                if not silent and still <= set(STILL) | {"Unreachable"} or time.monotonic() > end:
                    break
                time.sleep(2)
            self.assertEqual(silent, [], "panels without data")
            fleet.lose_everything()
            until(lambda: self.assertLessEqual(RAISED_BY_LOSS, fleet.raised()), "the alerts of what was lost", 240)
            until(lambda: self.assertLessEqual(self.look(fleet, moved)[0], set(STILL)), "panels that nothing moved")
            fleet.lose_the_masters()
            until(lambda: self.assertIn("MusterAbsent", fleet.raised()), "nobody is there")

    def check_metrics(self, fleet):
        for text in fleet.metrics():
            done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def look(self, fleet, moved):
        """Adds panels with values other than zero to `moved`; returns those that never had one, and queries without data."""
        titles, silent = set(), []
        for name, panel, expr in queries():
            titles.add(panel["title"])
            values = fleet.ask(concrete(expr))
            if not values:
                silent.append(f"{name}: {panel['title']}: {expr}")
            if any(values):
                moved.add(panel["title"])
        return titles - moved, silent

    def check_graph(self, fleet):
        nodes, edges = (json.loads(fleet.page(f"/graph/{frame}")) for frame in ("nodes", "edges"))
        ids = {it["id"] for it in nodes}
        self.assertGreaterEqual(len(ids), 3)
        self.assertTrue(edges)
        for edge in edges:
            self.assertLessEqual({edge["source"], edge["target"]}, ids)


def concrete(expr):
    return expr.replace("$__rate_interval", "5m").replace("$job", ".+").replace("$instance", ".+")


if __name__ == "__main__":
    unittest.main()

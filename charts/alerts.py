"""The alerts: expression, patience, and for each the series that must and must not raise it (charts/tests runs promtool)."""

CALLS = "muster_rpc_server_duration_seconds"
#: Codes that are the master's own fault.
OURS = "INTERNAL|UNKNOWN|UNAVAILABLE|DATA_LOSS|DEADLINE_EXCEEDED"


class Alert:
    def __init__(self, name, severity, patience, expr, summary, page, fires, quiet):
        self.name, self.severity, self.patience, self.expr = name, severity, patience, expr
        self.summary, self.page, self.fires, self.quiet = summary, page, fires, quiet

    def rule(self):
        return {
            "alert": self.name, "expr": self.expr, "for": self.patience, "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "runbook_url": f"RUNBOOKS/{self.name}"},
        }

    def runbook(self):
        means, look, mend = self.page
        return (f"# {self.name}\n\n{self.summary}\n\n```promql\n{self.expr}\n```\n\n"
                f"## What it means\n\n{means}\n\n## Where to look\n\n{look}\n\n## What helps\n\n{mend}\n")


def p95(metric, by=""):
    return f"histogram_quantile(0.95, sum by (le{by and ', ' + by}) (rate({metric}_bucket[5m])))"


def buckets(metric, slow, labels=""):
    """A histogram whose observations lie above a second, or below 10 ms."""
    fast = "0+0x60" if slow else "0+60x60"
    return [(f'{metric}_bucket{{le="0.01"{labels}}}', fast), (f'{metric}_bucket{{le="30"{labels}}}', "0+60x60"),
            (f'{metric}_bucket{{le="+Inf"{labels}}}', "0+60x60")]


ALERTS = [
    Alert("MusterAbsent", "critical", "2m", "absent(muster_build_info)",
          "No process of Muster is scraped.",
          ("Prometheus reads no metrics: the master is away, or the way to port 27432 is closed. While it is away, hosts go "
           "on with what they have; tasks wait, nobody joins.",
           "`kubectl get pods`, `muster doctor --master HOST:PORT` from outside, the targets page of Prometheus.",
           "Read the log of the last pod that ended. If only the scrape fails: networkPolicy.monitoring must name "
           "Prometheus' namespace."),
          [("up", "1x60")], [('muster_build_info{version="1"}', "1x60")]),
    Alert("MusterNoLeader", "warning", "1m", "sum(muster_topology_leader) == 0",
          "No replica makes the rounds: lost hosts are not noticed, overdue tasks do not end.",
          ("One replica holds the lease on the rounds and renews it each second; another takes it over after five.",
           "`muster_topology_store_failures_total` and the logs: the lease lives in the store.",
           "If the database works, restart the replicas one by one."),
          [("muster_topology_leader", "0x60")], [("muster_topology_leader", "1x60")]),
    Alert("MusterTwoLeaders", "warning", "2m", "sum(muster_topology_leader) > 1",
          "Two replicas make the rounds: their clocks differ, or they use two databases.",
          ("The lease is judged by each replica's clock. Effects stay single, for every write names the revision it read; "
           "but work is done twice.",
           "`muster doctor` on each replica: `store.postgres` tells how far clocks are apart.",
           "Let all hosts follow the same time servers; make sure all replicas have the same database secret."),
          [('muster_topology_leader{instance="a"}', "1x60"), ('muster_topology_leader{instance="b"}', "1x60")],
          [('muster_topology_leader{instance="a"}', "1x60"), ('muster_topology_leader{instance="b"}', "0x60")]),
    Alert("MusterBusAway", "warning", "2m", "min(muster_bus_connected) == 0",
          "A replica does not hear the others; it looks into the store each second instead.",
          ("Nothing is lost: NATS only wakes. Commands and watches take up to a second longer, and the database is asked more.",
           "`muster doctor`, check `bus`; the NATS server's log.",
           "Bring NATS back, or open the way to it: networkPolicy.nats, natsPort. Replicas connect again by themselves."),
          [('muster_bus_connected{instance="a"}', "0x60"), ('muster_bus_connected{instance="b"}', "1x60")],
          [("muster_bus_connected", "1x60")]),
    Alert("MusterHighErrorRate", "critical", "5m",
          f'sum(rate({CALLS}_count{{code=~"{OURS}"}}[5m])) / sum(rate({CALLS}_count[5m])) > 0.05',
          "More than one call in twenty fails by the master's own fault.",
          ("Codes of callers' mistakes do not count. Devices try again by themselves; operators see errors.",
           "Dashboard Services, panel Errors: which method, which code; its link leads to traces.",
           "UNAVAILABLE with STORE_FAILED: the database. DEADLINE_EXCEEDED: the database or too little CPU. INTERNAL: a fault "
           "of ours; keep the log."),
          [(f'{CALLS}_count{{code="UNAVAILABLE"}}', "0+10x60"), (f'{CALLS}_count{{code="OK"}}', "0+60x60")],
          [(f'{CALLS}_count{{code="NOT_FOUND"}}', "0+60x60"), (f'{CALLS}_count{{code="OK"}}', "0+60x60")]),
    Alert("MusterHighLatency", "warning", "10m",
          p95(CALLS, "method") + " > 1",
          "A method takes longer than a second for one call in twenty.",
          ("RefreshPresence waits for hosts and may be slow by itself; others only ask the store.",
           "Dashboard Services: Duration p95, Transactions, Processor.",
           "Slow transactions: the database's disk. High CPU: more replicas."),
          buckets(CALLS, True, ', method="m"'), buckets(CALLS, False, ', method="m"')),
    Alert("MusterStoreFailing", "critical", "1m", "sum(increase(muster_topology_store_failures_total[5m])) > 0",
          "The store does not take transactions.",
          ("Nothing is acknowledged that is not durable: hosts keep their reports and send them again.",
           "The log: 'the store did not take a transaction'; `muster doctor`, check `store.*`; room on the disk.",
           "Make room, bring PostgreSQL back. Nothing has to be repaired afterwards."),
          [("muster_topology_store_failures_total", "0+1x60")], [("muster_topology_store_failures_total", "5x60")]),
    Alert("MusterStoreSlow", "warning", "10m", p95("muster_topology_commit_seconds") + " > 0.25",
          "Transactions take longer than a quarter of a second.",
          ("Every acknowledgement waits for one: presence, tasks and watches become slow.",
           "Dashboard Services: Transactions, conflicts. The database's disk and its vacuum.",
           "Faster disk; `synchronous_commit` must stay on."),
          buckets("muster_topology_commit_seconds", True), buckets("muster_topology_commit_seconds", False)),
    Alert("MusterNodesUnreachable", "warning", "5m",
          'sum(muster_topology_nodes{state="unreachable"}) / sum(muster_topology_nodes) > 0.1',
          "More than a tenth of all nodes is unreachable: whole places went dark.",
          ("A place is unreachable when its LSN's stream is lost and nobody took over: mostly its way to the master.",
           "`muster topology`: which places; is it a provider, a site, a firewall change?",
           "Mend the network. Hosts come back by themselves, with their results."),
          [('muster_topology_nodes{state="unreachable"}', "20x60"), ('muster_topology_nodes{state="online"}', "80x60")],
          [('muster_topology_nodes{state="unreachable"}', "2x60"), ('muster_topology_nodes{state="online"}', "80x60")]),
    Alert("MusterFleetDropping", "warning", "5m",
          'sum(muster_topology_nodes{state="online"}) < 0.7 * sum(muster_topology_nodes{state="online"} offset 15m)',
          "A third of the nodes that were online a quarter of an hour ago is not any more.",
          ("At the end of a working day this is usual: silence it for those hours.",
           "Dashboard Fleet: Changes of presence, Why nodes were away.",
           "'parted' is people going home. 'lost connection' at once in many places: look at the master's network."),
          [('muster_topology_nodes{state="online"}', "100x20 50x40")], [('muster_topology_nodes{state="online"}', "100x60")]),
    Alert("MusterCellWithoutLsn", "warning", "2m", "sum(muster_topology_cells_without_lsn) > 0",
          "A cell with nodes online has no LSN.",
          ("A new LSN takes over within seconds; this one did not. Its nodes attach to the master one by one, which works.",
           "`muster topology`; `muster-agent status` on a node there.",
           "Mostly a network that lets nodes reach the master and not each other: client isolation of an access point."),
          [("muster_topology_cells_without_lsn", "1x60")], [("muster_topology_cells_without_lsn", "0x60")]),
    Alert("MusterCellNearlyFull", "warning", "10m", "max(muster_topology_largest_cell_nodes) > 900",
          "A cell has more than 900 nodes; it holds 1,000.",
          ("Nodes beyond that attach to the master themselves, one stream each.",
           "Dashboard Overlay; `muster topology`.", "Divide that network into subnets."),
          [("muster_topology_largest_cell_nodes", "950x60")], [("muster_topology_largest_cell_nodes", "500x60")]),
    Alert("MusterEnrollmentFailures", "warning", "5m",
          'sum(increase(muster_auth_enrollments_total{outcome!="ok"}[15m])) > 10',
          "Enrollments are refused again and again.",
          ("A roll-out with links that have expired or were used, or somebody who guesses.",
           "Dashboard Fleet: Enrollments by outcome; auth's log names source addresses.",
           "New links: `muster link create`. If somebody guesses: networkPolicy.devices."),
          [('muster_auth_enrollments_total{outcome="LINK_USED"}', "0+2x60")],
          [('muster_auth_enrollments_total{outcome="ok"}', "0+2x60")]),
    Alert("MusterReportsUnverified", "critical", "0m", 'sum(increase(muster_topology_reports_total{verified="no"}[5m])) > 0',
          "A task report does not bear its node's signature: somebody forges, or a node lost its key.",
          ("The report was dropped; nothing was believed.",
           "The log: 'a task report is dropped' names the node and its stream.",
           "Look at that host. Until you know: `muster node NODE`, and take it off the network."),
          [('muster_topology_reports_total{verified="no"}', "0+1x60")],
          [('muster_topology_reports_total{verified="yes"}', "0+9x60")]),
    Alert("MusterCertificateExpirySoon", "critical", "10m",
          "min(muster_auth_service_certificate_expiry_timestamp_seconds) - time() < 3 * 24 * 3600",
          "A service's certificate ends in less than three days and was not renewed.",
          ("It lives 14 days and is renewed from one third on. When it ends, no device can connect.",
           "The log: 'could not renew a certificate of our own'.", "Restart the pod: it gets a new one when it starts."),
          [("muster_auth_service_certificate_expiry_timestamp_seconds", "86400x60")],
          [("muster_auth_service_certificate_expiry_timestamp_seconds", "864000x60")]),
    Alert("MusterWatchLag", "warning", "5m", p95("muster_topology_watch_lag_seconds") + " > 10",
          "Watchers are more than ten seconds behind.",
          ("A CMDB sees the fleet as it was. One slow reader slows only itself.",
           "Dashboard Services: Commit to watcher, Watches. PostgreSQL: a transaction that stays open holds the feed back "
           "(pg_stat_activity).",
           "End that transaction; let the CMDB read faster."),
          buckets("muster_topology_watch_lag_seconds", True), buckets("muster_topology_watch_lag_seconds", False)),
    Alert("MusterFileDescriptors", "warning", "5m", "max(process_open_fds / process_max_fds) > 0.8",
          "A process has used four fifths of its file descriptors; each stream is one.",
          ("Without descriptors it accepts nobody.", "Dashboard Services: File descriptors, and Control streams in Overlay.",
           "More replicas, or a higher limit (LimitNOFILE, or the container runtime's)."),
          [("process_open_fds", "900x60"), ("process_max_fds", "1000x60")],
          [("process_open_fds", "100x60"), ("process_max_fds", "1000x60")]),
]


def rules():
    return {"groups": [{"name": "muster", "rules": [alert.rule() for alert in ALERTS]}]}


def promtool_tests(rules_file):
    """Each alert fires by its series and stays quiet by the others."""
    tests = []
    for alert in ALERTS:
        for series, expected in ((alert.fires, 1), (alert.quiet, 0)):
            at = {"eval_time": "30m", "alertname": alert.name}
            labels = {"severity": alert.severity}
            if alert.name == "MusterHighLatency":
                labels["method"] = "m"
            annotations = {"summary": alert.summary, "runbook_url": f"RUNBOOKS/{alert.name}"}
            if expected:
                at["exp_alerts"] = [{"exp_labels": labels, "exp_annotations": annotations}]
            tests.append({"interval": "1m", "alert_rule_test": [at],
                          "input_series": [{"series": name, "values": values} for name, values in series]})
    return {"rule_files": [rules_file], "evaluation_interval": "1m", "tests": tests}

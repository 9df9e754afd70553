"""The three dashboards, as Grafana's classic JSON. charts/generate writes them; tests check what Grafana's dashboard linter would."""

JOB = 'job=~"$job", instance=~"$instance"'
SCHEMA_VERSION = 39
#: Where a panel's link to traces leads: by service and method, in the time shown.
TRACES = (
    "/explore?left=%7B%22datasource%22:%22${traces}%22,%22queries%22:%5B%7B%22refId%22:%22A%22,"
    "%22queryType%22:%22traceqlSearch%22,%22query%22:%22%7Bresource.service.name%3D%5C%22muster%5C%22"
    " %26%26 span.method%3D%5C%22${__field.labels.method}%5C%22%7D%22%7D%5D,"
    "%22range%22:%7B%22from%22:%22${__from}%22,%22to%22:%22${__to}%22%7D%7D"
)


def rate(metric, by="", extra=""):
    labels = f"{{{JOB}{', ' + extra if extra else ''}}}"
    return f"sum{by and f' by ({by})'} (rate({metric}{labels}[$__rate_interval]))"


def gauge(metric, by="", extra="", fold="sum"):
    labels = f"{{{JOB}{', ' + extra if extra else ''}}}"
    return f"{fold}{by and f' by ({by})'} ({metric}{labels})"


def quantile(share, metric, by=""):
    groups = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({groups}) (rate({metric}_bucket{{{JOB}}}[$__rate_interval])))"


def share(metric, extra):
    return f"{gauge(metric, extra=extra)} / clamp_min({gauge(metric)}, 1)"


class Board:
    def __init__(self, uid, title, description):
        self.uid, self.title, self.description = uid, title, description
        self.panels, self.x, self.y, self.height = [], 0, 0, 0

    def _place(self, width, height):
        if self.x + width > 24:
            self.x, self.y, self.height = 0, self.y + self.height, 0
        at = {"x": self.x, "y": self.y, "w": width, "h": height}
        self.x, self.height = self.x + width, max(self.height, height)
        return at

    def row(self, title):
        self.x, self.y = 0, self.y + self.height
        self.panels.append({"id": len(self.panels) + 1, "type": "row", "title": title, "collapsed": False,
                            "gridPos": {"x": 0, "y": self.y, "w": 24, "h": 1}, "panels": []})
        self.y, self.height = self.y + 1, 0

    def panel(self, kind, title, description, unit, queries, width=8, height=7, thresholds=(), links=(), stack=False):
        steps = [{"color": "green", "value": None}] + [{"color": c, "value": v} for v, c in thresholds]
        custom = {"fillOpacity": 20, "stacking": {"mode": "normal"}} if stack else {"fillOpacity": 5}
        self.panels.append({
            "id": len(self.panels) + 1, "type": kind, "title": title, "description": description,
            "datasource": {"type": "prometheus", "uid": "$datasource"},
            "gridPos": self._place(width, height),
            "fieldConfig": {
                "defaults": {"unit": unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps},
                             "links": list(links), **({"custom": custom} if kind == "timeseries" else {})},
                "overrides": [],
            },
            "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
            if kind == "timeseries" else {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value"},
            "targets": [
                {"refId": chr(65 + n), "datasource": {"type": "prometheus", "uid": "$datasource"},
                 "expr": expr, "legendFormat": legend}
                for n, (legend, expr) in enumerate(queries)
            ],
        })

    def stat(self, title, description, unit, expr, thresholds=(), width=4):
        self.panel("stat", title, description, unit, [("", expr)], width, 4, thresholds)

    def graph(self, title, description, unit, queries, **more):
        self.panel("timeseries", title, description, unit, queries, **more)

    def node_graph(self, title, description):
        source = {"type": "yesoreyeram-infinity-datasource", "uid": "$graph"}

        def frame(letter, name):
            return {"refId": letter, "datasource": source, "type": "json", "source": "url", "parser": "backend",
                    "format": f"node-graph-{name}", "url": f"/graph/{name}", "url_options": {"method": "GET"}}
        self.panels.append({
            "id": len(self.panels) + 1, "type": "nodeGraph", "title": title, "description": description,
            "datasource": source, "gridPos": self._place(24, 14), "fieldConfig": {"defaults": {}, "overrides": []},
            "options": {}, "targets": [frame("A", "nodes"), frame("B", "edges")],
        })

    def json(self):
        return {
            "uid": self.uid, "title": self.title, "description": self.description, "tags": ["muster"],
            "editable": False, "graphTooltip": 1, "schemaVersion": SCHEMA_VERSION, "version": 1, "refresh": "30s",
            "time": {"from": "now-3h", "to": "now"}, "timezone": "", "annotations": {"list": []},
            "links": [{"type": "dashboards", "tags": ["muster"], "title": "Muster", "asDropdown": True,
                       "includeVars": True, "keepTime": True}],
            "templating": {"list": variables(self.panels)}, "panels": self.panels,
        }


def variables(panels):
    source = {"type": "prometheus", "uid": "$datasource"}

    def label(name, title, query):
        return {"name": name, "label": title, "type": "query", "datasource": source, "query": query, "refresh": 2,
                "includeAll": True, "multi": True, "allValue": ".+", "sort": 1,
                "current": {"text": "All", "value": "$__all"}}

    def chosen(name, title, kind):
        return {"name": name, "label": title, "type": "datasource", "query": kind, "hide": 0, "current": {}}
    found = [
        chosen("datasource", "Data source", "prometheus"),
        label("job", "job", "label_values(muster_build_info, job)"),
        label("instance", "instance", 'label_values(muster_build_info{job=~"$job"}, instance)'),
    ]
    if any("${traces}" in str(panel) for panel in panels):
        found.append(chosen("traces", "Traces", "tempo"))
    if any(panel["type"] == "nodeGraph" for panel in panels):
        found.append(chosen("graph", "Graph", "yesoreyeram-infinity-datasource"))
    return found


def fleet():
    board = Board("muster-fleet", "Muster / Fleet", "Who is there, who is not and why, how tasks go.")
    board.row("Now")
    nodes = "muster_topology_nodes"
    board.stat("Online", "Nodes that the master can reach now.", "short", gauge(nodes, extra='state="online"'))
    board.stat("Offline", "Parted, or lost within a place that lives.", "short", gauge(nodes, extra='state="offline"'))
    board.stat("Unreachable", "Their whole place went dark; they may well be running.", "short",
               gauge(nodes, extra='state="unreachable"'), [(1, "orange")])
    board.stat("Online share", "Of all nodes known.", "percentunit",
               share(nodes, 'state="online"'))
    board.stat("Tasks open", "Tasks that have not ended everywhere.", "short", gauge("muster_topology_tasks_open"))
    board.stat("Certificate", "Until the service's own certificate expires; it is renewed after a third of 14 days.", "s",
               f"min(muster_auth_service_certificate_expiry_timestamp_seconds{{{JOB}}} - time())", [(0, "red")])
    board.row("Presence")
    board.graph("Nodes by state", "Of everyone enrolled.", "short", [("{{state}}", gauge(nodes, "state"))], stack=True)
    board.graph("Changes of presence", "Announced and noticed, by the new state.", "cps",
                [("{{to}}", rate("muster_topology_presence_changes_total", "to"))])
    board.graph("Why nodes were away", "What nodes reported when they were back.", "cps",
                [("{{reason}}", rate("muster_topology_disconnections_total", "reason"))])
    board.row("Tasks")
    board.graph("Tasks made", "By operators and CMDBs.", "cps", [("made", rate("muster_topology_tasks_created_total"))])
    board.graph("Hosts' results", "Targets that ended, by how.", "cps",
                [("{{result}}", rate("muster_topology_task_targets_ended_total", "result"))])
    board.graph("Creation to delivery", "How long until a host holds a task; of sleeping hosts until they are back.", "s",
                [("p50", quantile(0.5, "muster_topology_task_delivery_seconds")),
                 ("p95", quantile(0.95, "muster_topology_task_delivery_seconds"))])
    board.graph("Creation to end", "On one host, whatever the task is.", "s",
                [("p50", quantile(0.5, "muster_topology_task_target_seconds")),
                 ("p95", quantile(0.95, "muster_topology_task_target_seconds"))])
    board.graph("Reports", "What hosts reported of tasks; 'no' failed its signature: somebody forges.", "cps",
                [("verified: {{verified}}", rate("muster_topology_reports_total", "verified"))])
    board.graph("Failures in the background", "Operations that failed on nodes; the event feed names them.", "cps",
                [("failed", rate("muster_topology_operation_failures_total"))])
    board.row("Joining")
    board.graph("Enrollments", "By outcome.", "cps", [("{{outcome}}", rate("muster_auth_enrollments_total", "outcome"))])
    board.graph("Renewals", "By outcome.", "cps", [("{{outcome}}", rate("muster_auth_renewals_total", "outcome"))])
    board.graph("Agents' versions", "Nodes online; a roll-out in one picture.", "short",
                [("{{version}}", gauge("muster_topology_online_nodes_by_version", "version"))], stack=True)
    return board.json()


def overlay():
    board = Board("muster-overlay", "Muster / Overlay", "Cells and their LSNs, paths, traffic.")
    board.row("Now")
    board.stat("Cells", "Subnets whose nodes reach each other.", "short", gauge("muster_topology_cells"))
    board.stat("Cells without LSN", "Nobody carries their word; a new LSN takes over within seconds.", "short",
               gauge("muster_topology_cells_without_lsn"), [(1, "red")])
    board.stat("Largest cell", "Nodes; a cell holds 1,000.", "short",
               gauge("muster_topology_largest_cell_nodes", fold="max"), [(900, "orange")])
    board.stat("Round trip", "Between nodes and their LSN, the median.", "s",
               gauge("muster_topology_round_trip_median_seconds", fold="max"))
    board.stat("Without LSN", "Share of nodes online that hold a stream to the master themselves.", "percentunit",
               share("muster_topology_online_nodes_by_role", 'role="direct"'), [(0.2, "orange")])
    board.stat("By UDP", "Share of nodes online on a UDP path.", "percentunit",
               share("muster_topology_online_nodes_by_path", 'path=~"udp."'))
    board.row("Roles and paths")
    board.graph("Nodes by role", "LSNs carry, children are carried, direct ones hold their own stream.", "short",
                [("{{role}}", gauge("muster_topology_online_nodes_by_role", "role"))], stack=True)
    board.graph("Nodes by path", "Direct by UDP, by TCP, or relayed; LSNs and direct nodes have none.", "short",
                [("{{path}}", gauge("muster_topology_online_nodes_by_path", "path"))], stack=True)
    board.graph("Round trip", "Between nodes and their LSN.", "s",
                [("median", gauge("muster_topology_round_trip_median_seconds", fold="max")),
                 ("p95", gauge("muster_topology_round_trip_p95_seconds", fold="max"))])
    board.row("What changes")
    board.graph("Changes of LSN", "Elections, hand-overs and merges of cells.", "cps",
                [("changes", rate("muster_topology_lsn_changes_total"))])
    board.graph("Control streams", "One for each LSN and each direct node.", "short",
                [("{{instance}}", gauge("muster_topology_streams", "instance"))], stack=True)
    board.graph("Streams refused", "Old versions, strangers, false claims; the log has the reason.", "cps",
                [("refused", rate("muster_topology_attach_refusals_total"))])
    board.row("Traffic")
    board.graph("Traffic of the overlay, sent", "As nodes counted it, by class.", "Bps",
                [("{{class}}", rate("muster_topology_overlay_bytes_total", "class", 'direction="sent"'))], width=12)
    board.graph("Traffic of the overlay, received", "As nodes counted it, by class.", "Bps",
                [("{{class}}", rate("muster_topology_overlay_bytes_total", "class", 'direction="received"'))], width=12)
    board.row("Picture")
    board.node_graph("The network", "Master, LSNs and nodes; cells as one dot above 1,500 nodes. Of an Infinity data source "
                     "whose address is topology's port for metrics.")
    return board.json()


def services():
    board = Board("muster-services", "Muster / Services", "How the master itself does: calls, store, bus, replicas, resources.")
    calls = "muster_rpc_server_duration_seconds"
    traces = [{"title": "Traces of ${__field.labels.method}", "url": TRACES, "targetBlank": True}]
    board.row("Now")
    board.stat("Replicas", "That hold a lease.", "short", gauge("muster_topology_replicas", fold="max"))
    board.stat("Makes the rounds", "Exactly one replica does what one does for all.", "short",
               gauge("muster_topology_leader"), [(2, "red")])
    board.stat("Hear the bus", "Replicas that NATS reaches; none in mode \"all\".", "short", gauge("muster_bus_connected"))
    board.stat("Versions", "At work at the same time; more than one is a roll-out.", "short",
               f"count(count by (version) (muster_build_info{{{JOB}}}))", [(2, "orange")])
    board.stat("Watches", "Open ones of CMDBs and operators.", "short", gauge("muster_topology_watchers"))
    board.stat("Uptime", "Of the youngest process.", "s", f"min(time() - process_start_time_seconds{{{JOB}}})")
    board.row("Calls")
    board.graph("Calls", "By method; of streams their beginnings.", "reqps",
                [("{{method}}", rate(f"{calls}_count", "method"))], links=traces)
    board.graph("Errors", "By method and gRPC code, callers' own faults too.", "reqps",
                [("{{method}} {{code}}", rate(f"{calls}_count", "method, code", 'code!="OK"'))], links=traces)
    board.graph("Duration p95", "By method.", "s", [("{{method}}", quantile(0.95, calls, "method"))], links=traces)
    board.graph("Connections refused", "That did not get through TLS: wrong names, certificates, or slow.", "cps",
                [("refused", rate("muster_listener_refusals_total"))])
    board.graph("Signatures", "By signer: what the master's keys are used for.", "cps",
                [("{{signer}}", rate("muster_auth_signatures_total", "signer"))])
    board.graph("Links made", "By role.", "cps", [("{{role}}", rate("muster_auth_links_created_total", "role"))])
    board.row("Store and feed")
    board.graph("Transactions", "One durable transaction, reading included.", "s",
                [("p50", quantile(0.5, "muster_topology_commit_seconds")),
                 ("p95", quantile(0.95, "muster_topology_commit_seconds"))])
    board.graph("Trouble of the store", "Tried again because another replica was faster; not taken at all.", "cps",
                [("conflicts", rate("muster_topology_commit_conflicts_total")),
                 ("failures", rate("muster_topology_store_failures_total"))])
    board.graph("Commands", "That were committed.", "cps", [("commands", rate("muster_topology_commit_commands_total"))])
    board.graph("Commit to watcher", "How far behind watchers are.", "s",
                [("p95", quantile(0.95, "muster_topology_watch_lag_seconds"))])
    board.graph("Watches begun anew", "Their token had expired: events are kept for 7 days.", "cps",
                [("resets", rate("muster_topology_watch_resets_total"))])
    board.graph("Words on the bus", "Between replicas; a missed one costs a second, never truth.", "cps",
                [("said", rate("muster_bus_words_said_total")), ("heard", rate("muster_bus_words_heard_total")),
                 ("missed", rate("muster_bus_words_missed_total"))])
    board.row("Resources")
    board.graph("Processor", "Cores in use.", "short", [("{{instance}}", rate("process_cpu_seconds_total", "instance"))])
    board.graph("Memory", "Resident.", "bytes", [("{{instance}}", gauge("process_resident_memory_bytes", "instance"))])
    board.graph("File descriptors", "Share in use of those allowed; each stream is one.", "percentunit",
                [("{{instance}}", f"max by (instance) (process_open_fds{{{JOB}}} / process_max_fds{{{JOB}}})")],
                thresholds=[(0.8, "red")])
    board.graph("Orders and purges", "Task orders sent down, rows removed because they were kept long enough.", "cps",
                [("orders", rate("muster_topology_offers_total")), ("rows purged", rate("muster_topology_purged_rows_total")),
                 ("records forgotten", rate("muster_auth_records_forgotten_total"))])
    return board.json()


def all_dashboards():
    return {"fleet": fleet(), "overlay": overlay(), "services": services()}

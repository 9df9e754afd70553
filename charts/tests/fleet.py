"""Two real replicas on PostgreSQL and NATS, hosts, and Prometheus that scrapes them; and events to be seen."""
import base64
import json
import os
import pathlib
import ssl
import socket
import subprocess
import time
import urllib.parse
import urllib.request

import yaml
from pods import HOST, PATIENCE, Host, until
from render import CHART, ROOT
from stranger import Stranger

PROGRAMS = ROOT / "target" / "debug"
HOSTS = 3


class Fleet:
    def __init__(self, folder):
        self.folder, self.agents, self.masters = folder, [], []

    def __enter__(self):
        self.host = Host(self.folder, None)
        try:
            self.begin()
        except BaseException:
            self.host.end()
            raise
        return self

    def __exit__(self, *_):
        self.host.end()

    def begin(self):
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": str(self.folder), "MUSTER_DATABASE_URL": self.host.postgres(),
            "MUSTER_NATS_URL": self.host.nats(), "MUSTER_SECRET_FILE": str(self.folder / "secret"),
            "MUSTER_ADDRESS": f"{HOST}:4001,{HOST}:4002"}
        founded = self.muster("init")
        assert founded.returncode == 0, founded.stderr
        for at in (1, 2):
            self.masters.append(self.spawn(
                PROGRAMS / "muster", "serve", "--target", "all", "--data-dir", self.folder / f"m{at}", "--listen",
                f"{HOST}:400{at}", "--observe", f"{HOST}:410{at}", log=f"m{at}", env=self.environment))
            until(lambda at=at: self.page("/readyz", at), f"replica {at}")
        self.write_rules()
        config = {"global": {"scrape_interval": "2s", "evaluation_interval": "1s"}, "rule_files": ["rules.yml"],
                  "scrape_configs": [{"job_name": "muster", "static_configs": [
                      {"targets": [f"{HOST}:4101", f"{HOST}:4102"]}]}]}
        (self.folder / "prometheus.yml").write_text(json.dumps(config))
        self.host.start("prometheus", f"--config.file={self.folder}/prometheus.yml", f"--web.listen-address={HOST}:9090",
                        f"--storage.tsdb.path={self.folder}/tsdb", port=9090)
        for at in range(HOSTS):
            self.join(at)
        until(lambda: self.all_online(), "every host online")
        # A counter that is first seen at one has not risen.
        until(lambda: self.are_scraped(), "Prometheus scrapes both replicas")
        self.began = time.monotonic()

    def are_scraped(self):
        assert self.ask("up") == [1, 1]

    def write_rules(self):
        """The chart's alerts as they are, but for their patience."""
        rules = yaml.safe_load((CHART / "alerts/muster.yaml").read_text())
        for rule in rules["groups"][0]["rules"]:
            rule["for"] = "0s"
        (self.folder / "rules.yml").write_text(yaml.safe_dump(rules))

    def spawn(self, *words, log, env):
        with (self.folder / f"{log}.log").open("wb") as out:
            process = subprocess.Popen([str(word) for word in words], stdout=out, stderr=out, env=env)
        self.host.processes.append(process)
        return process

    def muster(self, *words, at=1):
        return subprocess.run([str(PROGRAMS / "muster"), "--data-dir", str(self.folder / f"m{at}"), *words],
                              capture_output=True, text=True, env=self.environment, timeout=PATIENCE)

    def agent(self, at, *words):
        return [str(PROGRAMS / "muster-agent"), "--state-dir", str(self.folder / f"a{at}"), *words]

    def join(self, at):
        link = self.muster("link", "create").stdout.strip()
        clean = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        done = subprocess.run(self.agent(at, "enroll", "--no-service", link), capture_output=True, text=True, env=clean)
        assert done.returncode == 0, done.stderr
        self.agents.append(self.spawn(*self.agent(at, "run", "--port", "0"), log=f"a{at}", env=clean))
        return link

    def nodes(self):
        return json.loads(self.muster("nodes", "--output", "json").stdout)["nodes"]

    def all_online(self):
        nodes = self.nodes()
        assert len(nodes) == HOSTS and all(it["state"] == "online" for it in nodes), nodes

    def cause_events(self):
        self.spawn(PROGRAMS / "muster", "--data-dir", self.folder / "m2", "watch", "--all", log="watch", env=self.environment)
        for at in (1, 2):
            self.succeeds("run", "--all", "--", "true", at=at)
            assert self.muster("run", "--all", "--", "false", at=at).returncode == 1
        self.succeeds("inventory", "--all")
        assert self.muster("node", "00000000").returncode != 0
        # A link that was used, a token of another epoch, a name that nobody serves.
        link = self.join(HOSTS)
        again = subprocess.run(self.agent(9, "enroll", "--no-service", link), capture_output=True, env={"HOME": "/tmp"})
        assert again.returncode != 0
        token = base64.urlsafe_b64encode(b"99.0.1").decode().rstrip("=")
        assert self.muster("watch", "--resume", token).returncode != 0
        # Open when hosts are counted.
        self.spawn(PROGRAMS / "muster", "--data-dir", self.folder / "m2", "run", "--all", "--", "sleep", "75", log="run",
                   env=self.environment)
        self.meet_a_stranger()
        self.break_the_store()
        # What is older than seven days is purged at the next round.
        self.sql("UPDATE events SET at = 1 WHERE number < 5")
        lsn, index = until(self.lsn, "there is an LSN")
        self.agents[index].kill()
        self.agents[index].wait()
        until(lambda: self.gone(lsn), "the killed LSN is gone")
        assert self.muster("run", "--all", "--skip-offline", "--", "true").returncode in (0, 5)

    def succeeds(self, *words, at=1):
        def attempt():
            done = self.muster(*words, at=at)
            assert done.returncode == 0, done.stderr
        until(attempt, " ".join(words))

    def lsn(self):
        """Its name, and which of the agents it is."""
        lsn = next(it["name"] for it in self.nodes() if it["role"] == "lsn")
        return lsn, next(at for at in range(len(self.agents)) if self.node(at) == lsn)

    def meet_a_stranger(self):
        clean = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        link = self.muster("link", "create").stdout.strip()
        subprocess.run(self.agent("s", "enroll", "--no-service", link), check=True, capture_output=True, env=clean)
        stranger = Stranger(self.folder / "as", f"{HOST}:4001")
        stranger.come_with_old_software()
        stranger.forge_and_complain()

        def guessed():
            stranger.renew_without_proof()
            stranger.enroll_by_guessing(5)
            self.ask_for_nobody()
            assert "MusterEnrollmentFailures" in self.raised()
        until(guessed, "guessing is noticed")

    def ask_for_nobody(self):
        """TLS for a name that no service has."""
        try:
            with socket.create_connection((HOST, 4001)) as raw:
                ssl.create_default_context().wrap_socket(raw, server_hostname="stranger.example")
        except OSError:
            pass

    def break_the_store(self):
        """For a moment nothing can be written."""
        self.sql("ALTER TABLE events RENAME TO events_away")
        try:
            # A change of the fleet is what has to be written there.
            node = self.nodes()[0]["name"].removeprefix("nodes/")
            self.muster("label", node, "shelf=1")
            until(lambda: self.some("sum(muster_topology_store_failures_total) > 0"), "the store's failure is counted")
        finally:
            self.sql("ALTER TABLE events_away RENAME TO events")

    def lose_everything(self):
        """All hosts at once, and the bus."""
        for agent in self.agents:
            agent.kill()
        next(it for it in self.host.processes if "nats-server" in str(it.args)).kill()

    def lose_the_masters(self):
        for master in self.masters:
            master.kill()

    def raised(self):
        """Alerts that fire, or did at some time since everything stood."""
        since = 1 + int(time.monotonic() - self.began)
        where = f"http://{HOST}:9090/api/v1/query?" + urllib.parse.urlencode(
            {"query": f'max by (alertname) (max_over_time(ALERTS{{alertstate="firing"}}[{since}s]))'})
        with urllib.request.urlopen(where, timeout=10) as answer:
            return {it["metric"]["alertname"] for it in json.loads(answer.read())["data"]["result"]}

    def some(self, query):
        assert self.ask(query), query

    def node(self, at):
        done = subprocess.run(self.agent(at, "status", "--output", "json"), capture_output=True, text=True)
        return json.loads(done.stdout)["node"]

    def gone(self, name):
        assert next(it for it in self.nodes() if it["name"] == name)["state"] != "online"

    def sql(self, statement):
        done = subprocess.run(["psql", "-h", HOST, "-U", "muster", "-d", "postgres", "-c", statement], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def page(self, path, at=1):
        with urllib.request.urlopen(f"http://{HOST}:410{at}{path}", timeout=5) as answer:
            return answer.read().decode()

    def metrics(self):
        return [self.page("/metrics", at) for at in (1, 2)]

    def ask(self, query):
        where = f"http://{HOST}:9090/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        with urllib.request.urlopen(where, timeout=10) as answer:
            found = json.loads(answer.read())["data"]["result"]
        values = [float(it["value"][1]) for it in found]
        return [0.0 if value != value else value for value in values]

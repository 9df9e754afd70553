"""The rendered pods start for real, pass their probes, are found by helm's tests, and end in order."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

from pods import Host, Pod, until
from render import MODES, ROOT, matrix, pods

SECRET = "0123456789abcdef" * 4


class Pods(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="mpods", dir="/tmp")
        self.addCleanup(scratch.cleanup)
        folder = pathlib.Path(scratch.name)
        rootfs = folder / "image"
        subprocess.run([sys.executable, str(ROOT / "charts/image"), "--binary", str(ROOT / "target/debug/muster"),
                        "--rootfs", str(rootfs)], check=True)
        (rootfs / "etc/hosts").touch()
        (rootfs / "etc/muster/authority").mkdir()
        self.host = Host(folder, rootfs)
        self.addCleanup(self.host.end)

    def begin(self, mode):
        objects, secrets = matrix()[mode, "defaults"], {}
        if mode != "all":
            secrets = {"database": {"url": self.host.postgres()}, "nats": {"url": self.host.nats()},
                       "authority": {"secret": SECRET}}
        made = []
        for owner, template in pods(objects):
            claims = [it["metadata"]["name"] for it in owner["spec"].get("volumeClaimTemplates", [])]
            for at in range(owner["spec"].get("replicas", 1)):
                made.append((owner, Pod(self.host, f"{owner['metadata']['name']}-{at}", template, secrets, claims)))
        names = [f"{pod.ip} {it['metadata']['name']}" for it in objects if it["kind"] == "Service"
                 for _, pod in made if it["spec"]["selector"].items() <= pod.template["metadata"]["labels"].items()]
        (self.host.folder / "hosts").write_text("127.0.0.1 localhost\n" + "\n".join(names) + "\n")
        for owner, pod in made:
            if owner["kind"] == "Job":
                code, _, said = pod.finish(pod.template["spec"]["containers"][0])
                self.assertEqual(code, 0, said)
        serving = [pod for owner, pod in made if owner["kind"] in ("Deployment", "StatefulSet")]
        for pod in serving:
            pod.serve()
        return serving, [pod for owner, pod in made if owner["kind"] == "Pod"]

    def check(self, mode):
        serving, tests = self.begin(mode)
        for pod in serving:
            for probe in ("readinessProbe", "livenessProbe"):
                pod.probe(probe)
            self.assertIn("muster_build_info", pod.get("/metrics"))
        for pod in tests:
            code, said, log = pod.finish(pod.template["spec"]["containers"][0])
            self.assertEqual(code, 0, said + log)
        return serving

    def end(self, serving):
        for pod in serving:
            self.assertEqual(pod.stop(), 0, pod.log())

    def test_one_process_on_sqlite(self):
        serving = self.check("all")
        (master,) = serving
        done = master.execute("doctor", "--output", "json")
        checks = {it["id"]: it for it in json.loads(done.stdout)["checks"]}
        # The address in the values is an example's: it leads nowhere, and the doctor says so.
        self.assertEqual(checks["address.name"]["outcome"], "failed", done.stdout)
        for check in ("settings", "data.folder", "authority.secret", "store.auth", "store.topology", "master.ready"):
            self.assertEqual(checks[check]["outcome"], "ok", checks[check])
        link = master.execute("link", "create", "--role", "operator", "--name", "you")
        self.assertTrue(link.stdout.startswith(f"https://{MODES['all']['addresses'][0]}/enroll#"), link.stderr)
        kept = master.execute("backup", "/var/lib/muster/backup")
        self.assertEqual(kept.returncode, 0, kept.stderr)
        self.assertIn('"id":"master"', master.get("/graph/nodes"))
        self.end(serving)

    def test_replicas_on_postgresql_and_nats(self):
        serving = self.check("replicas")
        masters = [pod for pod in serving if "-master-" in pod.name]
        self.assertEqual((len(masters), len(serving)), (3, 6))
        for pod in masters:
            until(lambda pod=pod: self.assertIn("muster_bus_connected 1", pod.get("/metrics")), "the bus is heard")
            self.assertEqual(pod.execute("nodes").returncode, 0)
        listed = lambda: len(json.loads(masters[0].execute("relays", "--output", "json").stdout)["relays"])
        until(lambda: self.assertEqual(listed(), 2), "both relays are listed")
        self.end(reversed(serving))

    def test_every_service_in_pods_of_its_own(self):
        serving = self.check("split")
        self.assertEqual(len(serving), 10)
        self.end(reversed(serving))


if __name__ == "__main__":
    unittest.main()

"""The example client of proto/examples does with a real master what an integrator would."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from pods import until
from render import ROOT

CLIENT = ROOT / "proto" / "examples" / "cmdb.py"
PROGRAMS = ROOT / "target" / "debug"
API, OBSERVE = "127.0.0.1:4301", "127.0.0.1:4302"


class Integrator(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="mcmdb", dir="/tmp")
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        self.start()
        link = self.muster("--data-dir", str(self.folder / "m"), "link", "create", "--role", "cmdb", "--name", "cmdb")
        self.muster("login", link.strip(), "--name", "cmdb")
        self.context = self.folder / ".config/muster/contexts/cmdb.toml"
        until(lambda: self.assertEqual([it["state"] for it in self.say("list")], ["NODE_STATE_ONLINE"]), "the host is online")

    def start(self):
        self.master = subprocess.Popen(
            [str(PROGRAMS / "muster"), "up", "--data-dir", str(self.folder / "m"), "--listen", API, "--address", API,
             "--observe", OBSERVE], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.environment)
        self.addCleanup(self.stop, self.master)
        operator = self.folder / "m" / "operator.pem"
        until(lambda: self.assertTrue(operator.exists() and self.ready()), "the master is up")

    def ready(self):
        done = subprocess.run([str(PROGRAMS / "muster"), "--data-dir", str(self.folder / "m"), "nodes"],
                              capture_output=True, env=self.environment)
        return done.returncode == 0

    def stop(self, process):
        process.kill()
        process.wait()

    def muster(self, *words):
        done = subprocess.run([str(PROGRAMS / "muster"), *words], capture_output=True, text=True, env=self.environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def client(self, *words):
        return [sys.executable, str(CLIENT), "--context", str(self.context), *words]

    def say(self, *words):
        done = subprocess.run(self.client(*words), capture_output=True, text=True, env=self.environment, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    def watch(self, kept, until_seen):
        """Reads updates until one is as wanted; the client is killed in the midst, as programs are."""
        process = subprocess.Popen(self.client("watch", "--resume", str(kept)), stdout=subprocess.PIPE, text=True,
                                   env=self.environment)
        seen = []
        try:
            for line in process.stdout:
                seen.append(json.loads(line))
                if until_seen(seen[-1]):
                    return seen
        finally:
            self.stop(process)
            process.stdout.close()
        self.fail(f"the watch ended: {seen}")

    def test_it_lists_runs_reads_an_inventory_and_watches_across_restarts(self):
        (node,) = self.say("list")
        self.assertTrue(node["name"].startswith("nodes/"))
        name = node["name"].removeprefix("nodes/")
        done = subprocess.run(self.client("run", "--node", name, "--", "echo", "hello"), capture_output=True, text=True,
                              env=self.environment, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("| hello", done.stdout)
        (inventory,) = self.say("inventory", "--node", name)
        self.assertEqual(inventory["host"]["architecture"], os.uname().machine)
        kept = self.folder / "token"

        def complete(it):
            if "initialStateEnd" in it:
                until(lambda: self.assertTrue(kept.exists()), "the token is kept")
            return kept.exists()
        first = self.watch(kept, complete)
        self.assertEqual(first[0]["initialNode"]["name"], node["name"])
        # While nobody watches, something happens, and the master is killed.
        self.muster("--data-dir", str(self.folder / "m"), "label", name, "floor=3")
        self.stop(self.master)
        self.start()
        def labelled(it):
            return it.get("event", {}).get("nodeChanged", {}).get("node", {}).get("labels", {}).get("floor") == "3"
        missed = self.watch(kept, labelled)
        self.assertFalse([it for it in missed if "initialNode" in it], "it began anew")


if __name__ == "__main__":
    unittest.main()

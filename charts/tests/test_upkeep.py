"""A master is asked how it is, copied while it works, lost, and brought back: with the real programs."""
import json
import os
import pathlib
import subprocess
import tempfile
import unittest

from pods import until
from render import ROOT

PROGRAMS = ROOT / "target" / "debug"
API, OBSERVE = "127.0.0.1:4401", "127.0.0.1:4402"


class Upkeep(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="mkeep", dir="/tmp")
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "MUSTER_OBSERVE": OBSERVE,
                            "MUSTER_ADDRESS": API, "MUSTER_LISTEN": API}
        self.home = "first"
        self.start()

    def spawn(self, *words):
        process = subprocess.Popen([str(word) for word in words], env=self.environment, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        self.addCleanup(self.stop, process)
        return process

    def stop(self, process):
        process.kill()
        process.wait()

    def start(self):
        self.master = self.spawn(PROGRAMS / "muster", "--data-dir", self.folder / self.home, "up", "--no-agent")
        until(lambda: self.assertEqual(self.ask("nodes").returncode, 0), "the master is up")

    def ask(self, *words):
        return subprocess.run([str(PROGRAMS / "muster"), "--data-dir", str(self.folder / self.home), *map(str, words)],
                              capture_output=True, text=True, env=self.environment, timeout=60)

    def say(self, *words):
        done = self.ask(*words)
        self.assertEqual(done.returncode, 0, f"{words}: {done.stderr}")
        return done.stdout

    def agent(self, *words):
        return [PROGRAMS / "muster-agent", "--state-dir", self.folder / "agent", *words]

    def join(self):
        link = self.say("link", "create").strip()
        subprocess.run([str(it) for it in self.agent("enroll", "--no-service", link)], check=True, capture_output=True,
                       env=self.environment)
        self.host = self.spawn(*self.agent("run", "--port", "0"))
        until(self.online, "the host is online")

    def online(self):
        nodes = json.loads(self.say("nodes", "--output", "json"))["nodes"]
        self.assertEqual([it["state"] for it in nodes], ["online"])

    def doctor(self, *words):
        done = self.ask("doctor", "--output", "json", *words)
        document = json.loads(done.stdout)
        self.assertEqual(document["schema"], "muster.v1")
        checks = {it["id"]: it for it in document["checks"]}
        for it in checks.values():
            self.assertTrue(it["fix"] if it["outcome"] in ("failed", "warning") else True, it)
        self.assertEqual(done.returncode, 0 if document["healthy"] else 7)
        return checks

    def test_the_doctor_finds_a_master_well_and_names_what_is_broken(self):
        self.join()
        checks = self.doctor()
        self.assertEqual({it["outcome"] for it in checks.values()} - {"ok", "skipped"}, set(), checks)
        self.assertGreaterEqual(len(checks), 14)
        (self.folder / self.home).chmod(0o755)
        self.assertEqual(self.doctor()["data.folder"]["outcome"], "failed")
        (self.folder / self.home).chmod(0o700)
        outside = self.doctor("--master", API)
        self.assertEqual(outside["address.service"]["outcome"], "ok", outside)
        self.stop(self.master)
        broken = self.doctor()
        for check in ("master.ready", "address.tcp", "master.api"):
            self.assertEqual(broken[check]["outcome"], "failed", broken[check])
        store = self.folder / self.home / "topology.db"
        content = store.read_bytes()
        store.write_bytes(content[: len(content) // 2])
        self.assertEqual(self.doctor()["store.topology"]["outcome"], "failed")

    def test_a_backup_of_a_working_master_brings_it_back_in_a_new_epoch(self):
        self.join()
        effect = self.folder / "effect"
        self.say("run", "--all", "--", "sh", "-c", f"echo before >> {effect}")
        open_link = self.say("link", "create").strip()
        watching = subprocess.Popen([str(PROGRAMS / "muster"), "--data-dir", str(self.folder / self.home), "--output", "json",
                                     "watch", "--all"], stdout=subprocess.PIPE, text=True, env=self.environment)
        token = next(json.loads(line)["resumeToken"] for line in watching.stdout if json.loads(line).get("resumeToken"))
        self.stop(watching)
        watching.stdout.close()
        self.say("backup", self.folder / "backup")
        self.assertNotEqual(self.ask("backup", self.folder / "backup").returncode, 0, "a backup was overwritten")
        self.say("run", "--all", "--", "sh", "-c", f"echo after >> {effect}")
        self.assertNotEqual(self.ask("restore", self.folder / "backup").returncode, 0, "a master at work was replaced")
        self.stop(self.master)
        self.home = "second"
        self.say("restore", self.folder / "backup")
        self.start()
        until(self.online, "the host is back")
        refused = self.ask("watch", "--resume", token)
        self.assertIn("RESUME_TOKEN_EXPIRED", refused.stderr)
        void = subprocess.run([str(PROGRAMS / "muster-agent"), "--state-dir", str(self.folder / "other"), "enroll",
                               "--no-service", open_link], capture_output=True, text=True, env=self.environment)
        self.assertNotEqual(void.returncode, 0, "a link from before opened a door")
        self.say("run", "--all", "--", "sh", "-c", f"echo restored >> {effect}")
        self.assertEqual(effect.read_text().split(), ["before", "after", "restored"])

    def test_a_damaged_backup_is_refused(self):
        self.say("backup", self.folder / "backup")
        (self.folder / "backup" / "auth.db").write_bytes(b"none")
        self.stop(self.master)
        self.home = "second"
        refused = self.ask("restore", self.folder / "backup")
        self.assertEqual(refused.returncode, 6, refused.stderr)
        self.assertIn("auth.db", refused.stderr)


if __name__ == "__main__":
    unittest.main()

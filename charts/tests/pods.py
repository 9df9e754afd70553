"""Rendered pods as local processes: the image's root read-only, volumes bound, a network namespace and an address each.

What Kubernetes would do is done here by unshare, mount and ip: command, arguments, environment, secrets, volumes, user,
probes and signals are those of the rendered objects.
"""
import itertools
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

BRIDGE, HOST = "pods", "10.88.0.1"
PATIENCE = 90
LINKS = itertools.count(1)


def run(*words, **more):
    return subprocess.run(words, check=True, capture_output=True, text=True, **more).stdout


def own_users():
    """Whether any user id may be taken on; in a user namespace of one user none but root is there."""
    return os.geteuid() == 0 and len(pathlib.Path("/proc/self/uid_map").read_text().split()) == 3 \
        and pathlib.Path("/proc/self/uid_map").read_text().split()[2] != "1"


class Host:
    """The bridge that pods hang on, PostgreSQL and NATS on its address."""

    def __init__(self, folder, rootfs):
        self.folder, self.rootfs, self.count, self.processes = folder, rootfs, 0, []
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "address", "add", f"{HOST}/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")

    def start(self, *words, port, **more):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
        self.processes.append(process)
        until(lambda: socket.create_connection((HOST, port), 1).close(), f"{words[0]} listens")

    def postgres(self):
        programs = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        data = self.folder / "postgres"
        data.mkdir()
        as_user = ("setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups") if own_users() else ()
        if as_user:
            shutil.chown(data, "postgres")
            self.folder.chmod(0o755)
        run(*as_user, str(programs / "initdb"), "--no-sync", "--auth=trust", "-U", "muster", "-D", str(data), cwd="/")
        (data / "pg_hba.conf").write_text("host all all 10.88.0.0/24 trust\n")
        self.start(*as_user, str(programs / "postgres"), "-D", str(data), "-k", str(data), "-h", HOST, "-c", "fsync=off", port=5432, cwd="/")
        until(lambda: self.answers(), "PostgreSQL answers")
        return f"postgres://muster@{HOST}:5432/postgres"

    def answers(self):
        done = subprocess.run(["psql", "-h", HOST, "-U", "muster", "-d", "postgres", "-c", "SELECT 1"], capture_output=True)
        assert done.returncode == 0, done.stderr

    def nats(self):
        self.start("/usr/sbin/nats-server", "--addr", HOST, "--port", "4222", port=4222)
        return f"nats://{HOST}:4222"

    def end(self):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGQUIT if "postgres" in str(process.args) else signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        run("ip", "link", "delete", BRIDGE)


def until(attempt, what, limit=PATIENCE):
    end = time.monotonic() + limit
    while True:
        try:
            return attempt()
        except (OSError, AssertionError, LookupError, ValueError, StopIteration) as error:
            if time.monotonic() > end:
                raise AssertionError(f"not within {limit} s: {what}: {error}") from error
            time.sleep(0.1)


class Pod:
    def __init__(self, host, name, template, secrets, claims):
        self.host, self.name, self.template, self.secrets = host, name, template, secrets
        host.count += 1
        self.number = host.count
        self.ip = f"10.88.0.{10 + self.number}"
        self.folder = host.folder / f"pod-{self.number}"
        self.root = self.folder / "root"
        self.root.mkdir(parents=True)
        self.user = template["spec"]["securityContext"]["runAsUser"]
        self.volumes = {it["name"]: self.volume(it) for it in template["spec"].get("volumes", [])}
        for claim in claims:
            self.volumes[claim] = self.own(host.folder / f"claim-{name}-{claim}")
        self.process = None

    def own(self, folder):
        """As the kubelet leaves a volume: root's, and open to the group that is fsGroup."""
        folder.mkdir(exist_ok=True)
        if own_users():
            os.chown(folder, 0, self.user)
            folder.chmod(0o2775)
        return folder

    def volume(self, it):
        folder = self.own(self.folder / it["name"])
        if "secret" in it:
            for item in it["secret"]["items"]:
                file = folder / item["path"]
                file.write_text(self.secrets[it["secret"]["secretName"]][item["key"]])
                file.chmod(it["secret"]["defaultMode"])
                if own_users():
                    os.chown(file, 0, self.user)
        return folder

    def environment(self, container):
        found = {"PATH": "/bin", "HOME": "/var/lib/muster"}
        for it in container.get("env", []):
            reference = it.get("valueFrom", {}).get("secretKeyRef")
            found[it["name"]] = self.secrets[reference["name"]][reference["key"]] if reference else it["value"]
        return found

    def enter(self, container):
        """Mounts and becomes the container's process, once its network is there."""
        root = self.root
        binds = [f"mount --bind {self.host.rootfs} {root}"]
        for mount in container.get("volumeMounts", []):
            read_only = "-o ro," if mount.get("readOnly") else "-o "
            binds.append(f"mount {read_only}bind {self.volumes[mount['name']]} {root}{mount['mountPath']}")
        binds += [f"mount --bind /proc {root}/proc", f"mount --bind /dev {root}/dev",
                  f"mount --bind {self.host.folder}/hosts {root}/etc/hosts", f"mount -o remount,ro,bind {root}"]
        user = f"--userspec={self.user}:{self.user}" if own_users() else ""
        return " && ".join([*binds, "echo ready", "read go", f'exec setpriv --no-new-privs chroot {user} {root} /bin/muster "$@"'])

    def start(self, container):
        script, file = self.enter(container), self.folder / f"{container['name']}.log"
        with file.open("wb") as log:
            process = subprocess.Popen(
                ["unshare", "--net", "--mount", "sh", "-c", script, "sh", *container["args"]], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=log, env=self.environment(container) | {"PATH": os.environ["PATH"]})
        assert process.stdout.readline() == b"ready\n", file.read_text()
        # Its own: the link of a container that has ended goes with its namespace, a moment later.
        inside, outside = ["nsenter", f"--net=/proc/{process.pid}/ns/net"], f"v{next(LINKS)}"
        run("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", str(process.pid))
        run("ip", "link", "set", outside, "master", BRIDGE, "up")
        run(*inside, "ip", "address", "add", f"{self.ip}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            run(*inside, "ip", "link", "set", link, "up")
        process.stdin.write(b"go\n")
        process.stdin.close()
        self.host.processes.append(process)
        return process

    def finish(self, container):
        process = self.start(container)
        with process.stdout as stdout:
            said = stdout.read().decode()
        return process.wait(PATIENCE), said, self.log(container["name"])

    def log(self, name="muster"):
        return (self.folder / f"{name}.log").read_text()

    def serve(self):
        """Init containers to their ends, then the container, until its startup probe passes."""
        spec = self.template["spec"]
        for container in spec.get("initContainers", []):
            code, _, said = self.finish(container)
            assert code == 0, f"{self.name}: init container {container['name']}: {said}"
        self.container = spec["containers"][0]
        self.process = self.start(self.container)

        def begun():
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} has ended: {self.log()}")
            self.probe("startupProbe")
        until(begun, f"startup of {self.name}: {self.log()}")

    def probe(self, kind):
        get = self.container[kind]["httpGet"]
        port = next(it["containerPort"] for it in self.container["ports"] if it["name"] == get["port"])
        return self.get(get["path"], port)

    def get(self, path, port=27432):
        with urllib.request.urlopen(f"http://{self.ip}:{port}{path}", timeout=5) as answer:
            assert answer.status == 200
            return answer.read().decode()

    def execute(self, *words):
        """As kubectl exec: inside the running pod, with the container's environment."""
        user = [f"--userspec={self.user}:{self.user}"] if own_users() else []
        inside = [shutil.which("nsenter"), f"--net=/proc/{self.process.pid}/ns/net", f"--mount=/proc/{self.process.pid}/ns/mnt"]
        return subprocess.run([*inside, shutil.which("chroot"), *user, str(self.root), "/bin/muster", *words], capture_output=True,
                              text=True, env=self.environment(self.container), timeout=PATIENCE)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(self.template["spec"]["terminationGracePeriodSeconds"])
        self.process.stdout.close()
        return code

#!/usr/bin/python3
"""OpenDHT (Debian's python3-opendht) under the load of src/load.rs; says the same line of JSON.

usage: drive_opendht.py NODES OPERATIONS    in a network namespace of its own: tests/apart
"""

import json
import os
import random
import subprocess
import sys
import threading
import time

import opendht as dht

VALUE = 100  # bytes, as in src/load.rs
SETTLING = 5
IDLE = 20
OPERATION = 70
SETTINGS = (
    "Debian's 2.4.12 by its Python binding, its defaults (8 copies, 14 search nodes, select()); values unsigned, "
    "nothing is encrypted or authenticated"
)


def wire():
    for line in open("/proc/self/net/dev"):
        if line.strip().startswith("lo:"):
            fields = line.split(":")[1].split()
            return int(fields[1]), int(fields[0])
    raise SystemExit("no loopback")


def resident():
    for line in open("/proc/self/smaps_rollup"):
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("no Rss")


def cpu_ms():
    times = os.times()
    return (times.user + times.system) * 1e3


class Meter:
    def __init__(self):
        self.before = (*wire(), cpu_ms())

    def each(self, count):
        after = (*wire(), cpu_ms())
        packets, bytes_, cpu = ((a - b) / count for a, b in zip(after, self.before))
        return {"packets": packets, "bytes": bytes_, "cpu_ms": cpu}


def key():
    return dht.InfoHash.getRandom()


def find(node):
    """A search to its end: nothing stands under a random key."""
    done, verdict = threading.Event(), []

    def ended(ok, _nodes):
        verdict.append(ok)
        done.set()

    node.get(key(), lambda _value: True, ended)
    return done.wait(OPERATION) and verdict[0]


def put(node, at, value):
    done, verdict = threading.Event(), []

    def ended(ok, _nodes):
        verdict.append(ok)
        done.set()

    node.put(at, dht.Value(value), ended)
    return done.wait(OPERATION) and verdict[0]


def get(node, at, value):
    """Ends with the first value."""
    done, found = threading.Event(), []

    def arrived(candidate):
        found.append(bytes(candidate.data))
        done.set()
        return False

    node.get(at, arrived, lambda _ok, _nodes: done.set())
    return done.wait(OPERATION) and value in found


def join(nodes):
    node = dht.DhtRunner()
    node.run(port=0)
    if nodes:
        node.bootstrap("127.0.0.1", str(nodes[0].getBound().getPort()))
        begin = time.monotonic()
        while not find(node):
            if time.monotonic() - begin > OPERATION:
                raise SystemExit("a node does not join")
            time.sleep(0.01)
    nodes.append(node)


def silence(ports):
    rules = "".join(f"udp {way} @dead drop\n" for way in ("dport", "sport"))
    text = (
        f"table inet graves {{\nset dead {{ type inet_service; elements = {{ {', '.join(map(str, ports))} }}; }}\n"
        f"chain input {{ type filter hook input priority filter; {rules} }}\n}}\n"
    )
    subprocess.run(["nft", "-f", "-"], input=text.encode(), check=True)


def operate(count, operation):
    meter, spans, failed = Meter(), [], 0
    for at in range(count):
        begin = time.monotonic()
        failed += not operation(at)
        spans.append((time.monotonic() - begin) * 1e3)
    return {"spans_ms": spans, "failed": failed, **meter.each(count)}


def main():
    count, operations = int(sys.argv[1]), int(sys.argv[2])
    nodes, found, empty, meter = [], {}, resident(), Meter()
    for _ in range(count):
        join(nodes)
    joined = meter.each(count)
    time.sleep(SETTLING)
    memory = (resident() - empty) / 1e3 / count
    meter = Meter()
    time.sleep(IDLE)
    idle = meter.each(count * IDLE)
    anyone = lambda: random.choice(nodes)
    operate(operations, lambda _: find(anyone()))
    kept = [(anyone(), key(), os.urandom(VALUE)) for _ in range(operations)]
    found["put"] = operate(operations, lambda at: put(*kept[at]))

    def ask(at):
        publisher, name, value = kept[at]
        return get(random.choice([node for node in nodes if node is not publisher]), name, value)

    found["get"] = operate(operations, ask)
    found["find"] = operate(operations, lambda _: find(anyone()))
    victims = random.sample(nodes, count // 3)
    silence([node.getBound().getPort() for node in victims])
    nodes = [node for node in nodes if node not in victims]
    threading.Thread(target=lambda: [node.shutdown() for node in victims], daemon=True).start()
    found["get, a third dead"] = operate(operations, ask)
    found["find, a third dead"] = operate(operations, lambda _: find(anyone()))
    figures = {"system": "OpenDHT", "settings": SETTINGS, "nodes": count, "resident_kb": memory}
    print(json.dumps({**figures, "join": joined, "idle": idle, "operations": found}), flush=True)
    os._exit(0)


main()

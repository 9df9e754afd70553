"""The chart as Helm renders it: every mode, every feature, and values that must be refused."""
import functools
import pathlib
import subprocess
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "muster"
HELM = ROOT / "target" / "tools" / "helm"
ADDRESS = {"addresses": ["muster.example.org:27431"]}
SECRETS = {"authority": {"existingSecret": "authority"}, "database": {"existingSecret": "database"},
           "nats": {"existingSecret": "nats"}}
RELAYS = {"components": {"relay": {"addresses": ["relay-0.example.org:443", "relay-1.example.org:443"]}}}
MODES = {
    "all": ADDRESS,
    "replicas": ADDRESS | SECRETS | RELAYS | {"mode": "replicas"},
    "split": ADDRESS | SECRETS | RELAYS | {"mode": "split"},
}
PARENT = {"enabled": True, "parentRefs": [{"name": "edge", "namespace": "gateways", "sectionName": "tls"}]}
PEER = {"namespaceSelector": {"matchLabels": {"a": "b"}}, "podSelector": {"matchLabels": {"c": "d"}}}
#: Feature -> values, laid over each mode.
FEATURES = {
    "defaults": {},
    "names": {"fullnameOverride": "m", "labels": {"team": "it"}, "podAnnotations": {"a": "b"}, "extraEnv": [
        {"name": "RUST_BACKTRACE", "value": "1"}], "priorityClassName": "high", "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}], "preStopSeconds": 5,
        "image": {"digest": "sha256:" + "0" * 64, "pullSecrets": ["registry"]}, "discoveryDomain": "example.org"},
    "balancer": {"service": {"type": "LoadBalancer", "loadBalancerClass": "x/y", "annotations": {"a": "b"},
                             "loadBalancerSourceRanges": ["10.0.0.0/8"]}, "udpService": {"enabled": True}},
    "gateway": {"gateway": {"tlsRoute": PARENT, "udpRoute": PARENT}, "udpService": {"enabled": True, "type": "ClusterIP"}},
    "policies": {"networkPolicy": {"devices": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}],
                                   "monitoring": [PEER], "database": [PEER], "nats": [PEER], "traces": [PEER]},
                 "traces": {"endpoint": "http://collector:4317"}},
    "pods": {"monitoring": {"podMonitor": {"enabled": True, "labels": {"release": "x"}}, "rules": {"enabled": True}}},
    "services": {"monitoring": {"serviceMonitor": {"enabled": True}, "dashboards": {"enabled": False}}},
    "token": {"authority": {"existingSecret": "authority", "token": {
        "module": "/usr/lib/softhsm/libsofthsm2.so", "label": "muster", "existingSecret": "pin"}}},
    "bare": {"networkPolicy": {"enabled": False}, "podDisruptionBudget": {"enabled": False}, "tests": {"enabled": False},
             "topologySpread": {"enabled": False}, "init": {"enabled": False},
             "serviceAccount": {"create": False, "name": "mine"}},
}
ONLY = {
    "all": {"no volume": {"persistence": {"enabled": False}}, "claim": {"persistence": {"existingClaim": "mine"}},
            "secret": {"authority": {"existingSecret": "authority"}}},
    "replicas": {"scaled": {"autoscaling": {"enabled": True}}},
    "split": {"scaled": {"autoscaling": {"enabled": True}}},
}
#: Values that must be refused, and what the refusal must name.
WRONG = {
    "no address": ({}, "addresses is empty"),
    "unknown key": (ADDRESS | {"replicaCount": 3}, "replicaCount"),
    "unknown key below": (ADDRESS | {"service": {"typ": "ClusterIP"}}, "'typ'"),
    "unknown key far below": (ADDRESS | {"monitoring": {"rules": {"enable": True}}}, "'enable'"),
    "unknown key in a list": (ADDRESS | {"tolerations": [{"keys": "a"}]}, "'keys'"),
    "unknown resource": (ADDRESS | {"components": {"master": {"resources": {"limits": {"mem": "1Gi"}}}}}, "'mem'"),
    "unknown mode": (ADDRESS | {"mode": "ha"}, "'all', 'replicas', 'split'"),
    "address without port": ({"addresses": ["muster.example.org"]}, "/addresses/0"),
    "address as a URL": ({"addresses": ["https://muster.example.org:27431"]}, "/addresses/0"),
    "address as text": ({"addresses": "a:1"}, "got string, want array"),
    "replicas as text": (ADDRESS | {"components": {"master": {"replicas": "3"}}}, "got string, want integer"),
    "no replicas": (ADDRESS | {"components": {"auth": {"replicas": 0}}}, "/components/auth/replicas"),
    "size without unit": (ADDRESS | {"persistence": {"size": "10"}}, "/persistence/size"),
    "port out of range": (ADDRESS | {"service": {"port": 70000}}, "/service/port"),
    "impatient drain": (ADDRESS | {"terminationGracePeriodSeconds": 5}, "/terminationGracePeriodSeconds"),
    "broken digest": (ADDRESS | {"image": {"digest": "latest"}}, "/image/digest"),
    "traces without scheme": (ADDRESS | {"traces": {"endpoint": "collector:4317"}}, "/traces/endpoint"),
    "root": (ADDRESS | {"runAsUser": 0}, "/runAsUser"),
    "replicas without database": (ADDRESS | {"mode": "replicas"}, "needs PostgreSQL"),
    "replicas without bus": (ADDRESS | SECRETS | {"mode": "replicas", "nats": {"existingSecret": ""}}, "needs NATS"),
    "half a token": (ADDRESS | {"authority": {"token": {"module": "/m.so", "label": "muster"}}}, "a token takes three"),
    "split without secret": (ADDRESS | SECRETS | {"mode": "split", "authority": {"existingSecret": ""}},
                             "openssl rand -hex 32"),
    "SQLite with a database": (ADDRESS | {"database": {"existingSecret": "database"}}, 'choose mode "replicas"'),
    "SQLite with a bus": (ADDRESS | {"nats": {"existingSecret": "bus"}}, "is one process"),
    "SQLite scaled": (ADDRESS | {"autoscaling": {"enabled": True}}, "cannot be scaled"),
    "two monitors": (ADDRESS | {"monitoring": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}},
                     "count everything twice"),
    "route without gateway": (ADDRESS | {"gateway": {"tlsRoute": {"enabled": True}}}, "gateway.tlsRoute.parentRefs"),
    "route without service": (ADDRESS | {"gateway": {"udpRoute": PARENT}}, "udpService.enabled=true"),
    "account without name": (ADDRESS | {"serviceAccount": {"create": False}}, "name an existing one"),
    "claim without volume": (ADDRESS | {"persistence": {"enabled": False, "existingClaim": "c"}}, "choose one"),
    "peer of two kinds": (ADDRESS | {"networkPolicy": {"devices": [{"ipBlock": {"cidr": "10.0.0.0/8"}} | PEER]}},
                          "either ipBlock or selectors"),
}


def helm(*words, values):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values, file)
        file.flush()
        words = [str(HELM), *words, "--values", file.name]
        return subprocess.run(words, capture_output=True, text=True, env={"HOME": tempfile.gettempdir(), "PATH": ""})


def template(values):
    done = helm("template", "fleet", str(CHART), "--namespace", "muster", values=values)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@functools.cache
def matrix():
    """(mode, feature) -> objects."""
    found = {}
    for mode, base in MODES.items():
        for feature, values in (FEATURES | ONLY[mode]).items():
            found[mode, feature] = template(base | values)
    return found


def pods(objects):
    """(owner, pod spec) of everything that makes pods."""
    for it in objects:
        if it["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield it, it["spec"]["template"]
        elif it["kind"] == "Pod":
            yield it, it


def containers(template):
    return template["spec"].get("initContainers", []) + template["spec"]["containers"]

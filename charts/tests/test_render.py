"""What the chart renders is right before any cluster sees it."""
import hashlib
import json
import subprocess
import sys
import unittest

import kubernetes_validate
from render import CHART, MODES, ROOT, WRONG, containers, helm, matrix, pods

OURS = ("muster.example.org",)
#: Kinds of others' APIs, whose schemas no registry has.
FOREIGN = ("monitoring.coreos.com", "gateway.networking.k8s.io")
OLDEST = (1, 29)


def versions():
    found = sorted({tuple(map(int, it.split(".")[:2])) for it in kubernetes_validate.available_versions()}) \
        if hasattr(kubernetes_validate, "available_versions") else [(1, minor) for minor in range(29, 38)]
    return [f"{major}.{minor}" for major, minor in found if (major, minor) >= OLDEST]


class Render(unittest.TestCase):
    def test_helm_lints_it_strictly_in_every_mode(self):
        for mode, values in MODES.items():
            done = helm("lint", "--strict", str(CHART), values=values)
            self.assertEqual(done.returncode, 0, f"{mode}: {done.stdout}{done.stderr}")

    def test_what_is_generated_is_as_the_generator_writes_it_and_values_stay_short(self):
        done = subprocess.run([sys.executable, str(ROOT / "charts/generate"), "--check"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertLess(len((CHART / "values.yaml").read_text().splitlines()), 500)

    def test_every_object_in_the_schema_refuses_keys_that_it_does_not_know(self):
        def walk(schema, path):
            if isinstance(schema, dict):
                if schema.get("type") == "object" and path != "/properties/global":
                    self.assertIn("additionalProperties", schema, path)
                    self.assertNotEqual(schema["additionalProperties"], True, path)
                for key, value in schema.items():
                    walk(value, f"{path}/{key}")
        walk(json.loads((CHART / "values.schema.json").read_text()), "")

    def test_every_mode_with_every_feature_is_valid_for_every_kubernetes_from_1_29_on(self):
        objects = {}
        for where, found in matrix().items():
            for it in found:
                objects.setdefault(hashlib.sha256(json.dumps(it, sort_keys=True).encode()).digest(), (where, it))
        count = 0
        for version in versions():
            for where, it in objects.values():
                if it["apiVersion"].startswith(FOREIGN):
                    continue
                try:
                    kubernetes_validate.validate(it, version, strict=True)
                except kubernetes_validate.ValidationError as error:
                    self.fail(f"{where} {it['kind']} {it['metadata']['name']}, Kubernetes {version}: {error}")
                count += 1
        self.assertGreater(count, 500)
        print(f"{len(objects)} objects, Kubernetes {versions()[0]} to {versions()[-1]}")

    def test_every_pod_is_restricted_and_says_what_it_takes(self):
        for where, objects in matrix().items():
            for owner, pod in pods(objects):
                spec, name = pod["spec"], f"{where} {owner['kind']} {owner['metadata']['name']}"
                self.assertIs(spec["automountServiceAccountToken"], False, name)
                self.assertIs(spec["securityContext"]["runAsNonRoot"], True, name)
                self.assertEqual(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", name)
                self.assertFalse({"hostNetwork", "hostPID", "hostIPC"} & set(spec), name)
                for container in containers(pod):
                    security = container["securityContext"]
                    self.assertIs(security["allowPrivilegeEscalation"], False, name)
                    self.assertIs(security["readOnlyRootFilesystem"], True, name)
                    self.assertEqual(security["capabilities"], {"drop": ["ALL"]}, name)
                    self.assertLessEqual({"cpu", "memory"}, set(container["resources"]["requests"]), name)
                    self.assertIn("memory", container["resources"]["limits"], name)
                if owner["kind"] in ("Deployment", "StatefulSet"):
                    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                        self.assertIn("httpGet", spec["containers"][0][probe], name)
                    self.assertGreater(spec["terminationGracePeriodSeconds"], 20, name)

    def test_names_lead_to_what_is_there(self):
        for where, objects in matrix().items():
            labels = [pod["metadata"]["labels"] for _, pod in pods(objects)]
            services = {it["metadata"]["name"] for it in objects if it["kind"] == "Service"}
            for it in objects:
                selector = it["spec"]["selector"] if it["kind"] == "Service" else None
                if it["kind"] in ("PodDisruptionBudget", "Deployment", "StatefulSet"):
                    selector = it["spec"]["selector"]["matchLabels"]
                if selector:
                    self.assertTrue(any(selector.items() <= found.items() for found in labels), f"{where} {it['kind']}")
                for rule in it.get("spec", {}).get("rules", []) if it["kind"] in ("TLSRoute", "UDPRoute") else []:
                    self.assertLessEqual({back["name"] for back in rule["backendRefs"]}, services, where)
            kinds = [it["kind"] for it in objects]
            replicated = any(it["kind"] == "Deployment" and it["spec"].get("replicas", 2) > 1 for it in objects)
            if where[1] == "defaults":
                self.assertEqual("PodDisruptionBudget" in kinds, replicated, where)
                denied = [it for it in objects if it["kind"] == "NetworkPolicy" and it["metadata"]["name"].endswith("deny-all")]
                self.assertEqual(denied[0]["spec"]["policyTypes"], ["Ingress", "Egress"], where)
                self.assertNotIn("ingress", denied[0]["spec"], where)

    def test_the_notes_name_the_next_commands_and_warn_of_what_is_open(self):
        def notes(values):
            done = helm("install", "fleet", str(CHART), "--dry-run=client", "--namespace", "muster", values=values)
            self.assertEqual(done.returncode, 0, done.stderr)
            return done.stdout.split("NOTES:")[1]
        for mode, values in MODES.items():
            said = notes(values)
            for command in ("helm test fleet --namespace muster", "muster doctor", "muster link create --role operator"):
                self.assertIn(command, said, mode)
            self.assertIn("no way in from outside", said, mode)
        balancer = {"service": {"type": "LoadBalancer"}}
        self.assertNotIn("no way in", notes(MODES["replicas"] | balancer))
        self.assertIn("a balancer of its own", notes(MODES["split"] | balancer))
        self.assertIn("persistence is off", notes(MODES["all"] | {"persistence": {"enabled": False}}))
        self.assertIn("once", notes(MODES["split"] | {"init": {"enabled": False}}))
        self.assertIn("network policies are off", notes(MODES["all"] | {"networkPolicy": {"enabled": False}}))

    def test_no_secret_is_made_or_shown(self):
        for where, objects in matrix().items():
            self.assertFalse([it for it in objects if it["kind"] == "Secret"], where)

    def test_wrong_values_are_refused_with_a_sentence_that_names_them(self):
        self.assertGreaterEqual(len(WRONG), 20)
        for name, (values, sentence) in WRONG.items():
            done = helm("template", "fleet", str(CHART), values=values)
            self.assertNotEqual(done.returncode, 0, f"{name} was taken")
            self.assertIn(sentence, done.stderr, name)


if __name__ == "__main__":
    unittest.main()

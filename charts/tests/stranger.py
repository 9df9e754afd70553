"""An enrolled device that behaves badly: with its own certificate it renews without proof, forges reports, tells of failures."""
import base64
import importlib
import json
import ssl
import sys
import threading

import grpc
from render import ROOT

sys.path.insert(0, str(ROOT / "proto" / "examples"))
import cmdb  # noqa: E402  It makes the stubs of proto/.

load = importlib.import_module
enrollment, enrollment_grpc = load("muster.auth.v1.enrollment_pb2"), load("muster.auth.v1.enrollment_pb2_grpc")
control, control_grpc = load("muster.control.v1.control_pb2"), load("muster.control.v1.control_pb2_grpc")
LIMIT = 10


def pem(kind, der):
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN {kind}-----\n{text}-----END {kind}-----\n".encode()


class Stranger:
    """Speaks with the keys that muster-agent keeps in a folder."""

    def __init__(self, state, address):
        kept = json.loads((state / "identity.json").read_text())
        self.address = address
        self.credentials = enrollment.Credentials.FromString(base64.b64decode(kept["credentials"]))
        chain = b"".join(pem("CERTIFICATE", der) for der in self.credentials.certificate_chain)
        root = ssl.DER_cert_to_PEM_cert(self.credentials.trust_bundle.roots[0]).encode()
        self.tls = grpc.ssl_channel_credentials(root, pem("PRIVATE KEY", base64.b64decode(kept["keys"]["tls"])), chain)

    def channel(self, service):
        return grpc.secure_channel(self.address, self.tls, [("grpc.ssl_target_name_override", f"{service}.muster")])

    def refused(self, call, request):
        try:
            call(request, timeout=LIMIT)
        except grpc.RpcError as error:
            return error.code()
        raise AssertionError(f"taken: {request}")

    def renew_without_proof(self):
        with self.channel("auth") as channel:
            asked = enrollment.RenewRequest(certificate=self.credentials.certificate_chain[0], challenge=b"none", proof=b"none")
            return self.refused(enrollment_grpc.EnrollmentServiceStub(channel).Renew, asked)

    def enroll_by_guessing(self, times):
        with self.channel("auth") as channel:
            auth = enrollment_grpc.EnrollmentServiceStub(channel)
            return {self.refused(auth.Enroll, enrollment.EnrollRequest(token="a" * 26)) for _ in range(times)}

    def attach(self, frames, until):
        """Keeps the stream open until an answer to these frames is as wanted."""
        heard = threading.Event()

        def saying():
            yield from frames
            heard.wait(LIMIT)
        with self.channel("topology") as channel:
            try:
                for answer in control_grpc.ControlServiceStub(channel).Attach(saying(), timeout=LIMIT):
                    if until(answer):
                        return
                raise AssertionError("the stream ended")
            finally:
                heard.set()

    def hello(self, version):
        presence = control.NodePresence(host_name="stranger", software_version="0.1.0", os="linux")
        return control.AttachRequest(hello=control.Hello(
            protocol_version=1, software_version=version, boot_nonce=1, ticket=self.credentials.ticket, presence=presence))

    def come_with_old_software(self):
        self.attach([self.hello("0.0.1")], lambda answer: answer.WhichOneof("frame") == "part")

    def forge_and_complain(self):
        item = control.UpstreamItem
        failure = control.OperationFailure(item_id="1", operation="inventory", reason_code="NONE", reason="a test's")
        away = control.DisconnectionReport(item_id="2", reason=control.DISCONNECTION_REASON_NETWORK_LOST)
        away.begin_time.GetCurrentTime()
        away.duration.FromSeconds(60)
        forged = item()
        forged.task_report.payload_type = "application/vnd.muster.task-report.v1"
        forged.task_report.payload = b"nothing"
        forged.task_report.signatures.add(key_id=b"12345678", value=b"0" * 64)
        said = control.Upstream(node_id=self.credentials.node_id, items=[item(failure=failure), item(disconnection=away), forged])
        self.attach([self.hello("0.1.0"), control.AttachRequest(upstream=said)],
                    lambda answer: answer.downstream.HasField("item_ack"))

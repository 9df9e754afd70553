#!/usr/bin/env python3
"""A CMDB's side of Muster, in one file: list hosts, follow changes and resume, run a command, read an inventory.

  muster link create --role cmdb --name my-cmdb       on the master: a link that works once
  muster login 'LINK' --name my-cmdb                  here: a certificate, in ~/.config/muster/contexts/my-cmdb.toml
  pip install grpcio grpcio-tools
  ./cmdb.py --context ~/.config/muster/contexts/my-cmdb.toml list

The stubs are made of proto/ when the program starts; a real integration makes them once. What each call does stands in
proto/REFERENCE.md. Rules worth knowing:

  - a mutation carries a request_id: repeated with the same one, it is done once;
  - UNAVAILABLE is worth repeating, every other error says what is wrong in its ErrorInfo;
  - a watch gives a resume token with each message: keep it with what you wrote of that message. After
    RESUME_TOKEN_EXPIRED (the master keeps events for 7 days, and a restored master has another past) begin anew, with the
    initial state.
"""
import argparse
import importlib
import json
import pathlib
import re
import sys
import tempfile
import time
import tomllib
import uuid

import grpc
from google.protobuf import json_format
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[1]
#: TLS verifies the service's name, whatever address was dialled.
SERVICE = "topology.muster"
DEADLINE = 30


def stubs():
    """The generated modules, by area."""
    folder = tempfile.mkdtemp(prefix="muster-stubs-")
    files = [str(path) for path in PROTO.glob("muster/*/v1/*.proto")]
    include = pathlib.Path(protoc.__file__).parent / "_proto"
    arguments = ["", f"-I{PROTO}", f"-I{include}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    if protoc.main(arguments + files) != 0:
        sys.exit("the contracts do not compile")
    sys.path.insert(0, folder)
    load = importlib.import_module
    return load("muster.fleet.v1.fleet_pb2"), load("muster.fleet.v1.fleet_pb2_grpc"), load("muster.task.v1.task_pb2")


fleet, fleet_grpc, task = stubs()


def connect(context):
    """A channel to whichever address of the context answers first."""
    stored = tomllib.loads(pathlib.Path(context).read_text())
    blocks = re.findall(r"-----BEGIN [A-Z ]+-----.+?-----END [A-Z ]+-----\n", stored["pem"], re.S)
    key, chain, root = blocks[0], blocks[1:-1], blocks[-1]
    credentials = grpc.ssl_channel_credentials(root.encode(), key.encode(), "".join(chain).encode())
    for address in stored["addresses"]:
        channel = grpc.secure_channel(address, credentials, [
            ("grpc.ssl_target_name_override", SERVICE), ("grpc.keepalive_time_ms", 60_000)])
        try:
            grpc.channel_ready_future(channel).result(5)
            return fleet_grpc.FleetServiceStub(channel)
        except grpc.FutureTimeoutError:
            channel.close()
    sys.exit(f"nobody answers at {', '.join(stored['addresses'])}")


def say(message):
    print(json.dumps(json_format.MessageToDict(message), ensure_ascii=False), flush=True)


def nodes(master):
    token = ""
    while True:
        page = master.ListNodes(fleet.ListNodesRequest(page_size=1000, page_token=token), timeout=DEADLINE)
        yield from page.nodes
        token = page.next_page_token
        if not token:
            return


def list_nodes(master, _):
    for node in nodes(master):
        say(node)


def watch(master, asked):
    """Follows the feed for ever. The token is kept after its message was handled: at least once, never not at all."""
    kept = pathlib.Path(asked.resume) if asked.resume else None
    while True:
        token = kept.read_text() if kept and kept.exists() else ""
        request = fleet.WatchEventsRequest(resume_token=token, send_initial_state=not token)
        try:
            for update in master.WatchEvents(request):
                say(update)
                if kept and update.resume_token:
                    kept.write_text(update.resume_token)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.OUT_OF_RANGE and kept:
                print("the token has expired: beginning anew", file=sys.stderr)
                kept.unlink()
            elif error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
        time.sleep(1)


def create(master, kind, arguments, names):
    """Creates a task under one request id until the master answers, and waits for its end."""
    request = fleet.CreateTaskRequest(
        spec=task.TaskSpec(type=kind, arguments=task.Content(inline=arguments.SerializeToString()),
                           **{"class": task.TASK_CLASS_OPEN}),
        filter=fleet.NodeFilter(names=names), request_id=str(uuid.uuid4()))
    while True:
        try:
            made = master.CreateTask(request, timeout=DEADLINE)
            break
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
            time.sleep(1)
    for update in master.WatchTask(fleet.WatchTaskRequest(name=made.name)):
        yield made.name, update


def run(master, asked):
    failed = False
    for _, update in create(master, "run", task.RunArguments(argv=asked.command), asked.node):
        if update.HasField("output"):
            sys.stdout.write(f"{update.output.host_name} | {update.output.output.data.decode(errors='replace')}")
        if update.HasField("target") and update.target.HasField("finished"):
            failed |= update.target.state != task.TASK_STATE_SUCCEEDED
            say(update.target)
    sys.exit(int(failed))


def inventory(master, asked):
    for name, update in create(master, "inventory", task.InventoryArguments(), asked.node):
        if not (update.HasField("target") and update.target.HasField("finished")):
            continue
        content = update.target.finished.result.inline
        if not content:
            # A large one comes as chunks of output of its own stream.
            token, chunks = "", []
            while True:
                page = master.ListTaskOutput(fleet.ListTaskOutputRequest(
                    name=name, node=update.target.node, page_size=1000, page_token=token), timeout=DEADLINE)
                chunks += [it for it in page.outputs if it.stream == task.OUTPUT_STREAM_RESULT]
                token = page.next_page_token
                if not token:
                    break
            content = b"".join(it.data for it in sorted(chunks, key=lambda it: it.offset))
        say(task.Inventory.FromString(content))


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--context", required=True, help="the file that muster login made")
    kinds = words.add_subparsers(required=True)
    kinds.add_parser("list").set_defaults(act=list_nodes)
    it = kinds.add_parser("watch")
    it.add_argument("--resume", help="a file that keeps the token between runs")
    it.set_defaults(act=watch)
    it = kinds.add_parser("run")
    it.add_argument("--node", action="append", required=True, help="id, its beginning, or host name")
    it.add_argument("command", nargs="+")
    it.set_defaults(act=run)
    it = kinds.add_parser("inventory")
    it.add_argument("--node", action="append", required=True)
    it.set_defaults(act=inventory)
    asked = words.parse_args()
    asked.act(connect(asked.context), asked)


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, BrokenPipeError):
        pass

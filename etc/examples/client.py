#!/usr/bin/env python3
"""A client of comfymux's Unix socket, with nothing but Python's own library.

usage: client.py WORKFLOW.json

Submits the workflow, shows its progress, prints its outputs as JSON. The socket
is $COMFYMUX_SOCKET, or where comfymuxd listens by default. One JSON object a
line goes either way: ipc/PROTOCOL.md has them all.
"""
import json
import os
import socket
import sys


def socket_path():
    """Where clients look, in their order."""
    places = [os.environ.get("COMFYMUX_SOCKET"), "/run/user/%d/comfymux.sock" % os.getuid(),
              "/run/comfymux/comfymux.sock"]
    return next((p for p in places if p and os.path.exists(p)), places[-1])


class Supervisor:
    """One connection. Replies are told from events by their `id`."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile("r", encoding="utf-8")
        self.events = []
        self.asked = 0
        self.ask("hello", client="example in Python")

    def receive(self):
        line = self.lines.readline()
        if not line:
            raise ConnectionError("comfymuxd has hung up")
        return json.loads(line)

    def ask(self, op, **fields):
        """The result; events that come before it are kept."""
        self.asked += 1
        self.socket.sendall(json.dumps({"op": op, "id": self.asked, **fields}).encode() + b"\n")
        while True:
            message = self.receive()
            if "event" in message:
                self.events.append(message)
            elif not message["ok"]:
                raise RuntimeError("%s: %s" % (message["error"]["type"],
                                               message["error"]["message"]))
            else:
                return message["result"]

    def next_event(self):
        return self.events.pop(0) if self.events else self.receive()


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        # Integers stay integers in Python, however large a seed is.
        workflow = json.load(f)
    supervisor = Supervisor(socket_path())
    prompt_id = supervisor.ask("submit", workflow=workflow, subscribe=True)["prompt_id"]
    print("submitted", prompt_id, file=sys.stderr)
    while True:
        event = supervisor.next_event()
        progress = event.get("progress")
        if event.get("prompt_id") != prompt_id or not progress:
            continue
        if progress.get("current_node"):
            print("node %s: %.0f %%" % (progress["current_node"],
                                        100 * progress.get("current_node_progress", 0)),
                  file=sys.stderr)
        if progress["status"] == "completed":
            print(json.dumps(progress["outputs"]))
            return 0
        if progress["status"] == "failed":
            print(progress["error"]["message"], file=sys.stderr)
            return 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        sys.exit(main())
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit("client.py: %s" % error)

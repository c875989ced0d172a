#!/usr/bin/env python3
"""A client that means harm: random ops of ipc/messages.def, valid and not, torn
lines, floods, descriptors, connections that end anywhere.

usage: hostile.py --socket PATH [--seconds N] [--seed N] [--uid N]

Ends with a line {"connections", "lines", "replies", "events"}; status 1 if the
supervisor did not answer a new client any more. test_limits.py runs it for
seconds against others that must be served meanwhile; by hand it runs for as
long as you like. The same seed makes the same choices.
"""

import argparse
import array
import json
import os
import random
import re
import socket
import sys
import time
import uuid

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KEEP = 24  # connections at once


def table():
    """{op: [fields of the request]}"""
    with open(os.path.join(ROOT, "ipc", "messages.def")) as f:
        text = f.read()
    ops = dict(re.findall(r'^OP\((\w+), "(\w+)"', text, re.M))
    return {name: re.findall(r'^FIELD\(%s, +IN, +"(\w+)"' % e, text, re.M)
            for e, name in ops.items()}


class Hostile:
    def __init__(self, path, seed):
        self.path = path
        self.random = random.Random(seed)
        self.ops = table()
        self.socks = []
        self.ids = [str(uuid.UUID(int=self.random.getrandbits(128), version=4)) for _ in range(20)]
        self.count = dict.fromkeys(("connections", "lines", "replies", "events"), 0)

    def value(self):
        r = self.random
        return r.choice((
            lambda: r.choice(self.ids), lambda: r.randrange(-2, 2 ** 65), lambda: r.random(),
            lambda: None, lambda: r.random() < .5, lambda: "x" * r.randrange(5000),
            lambda: [], lambda: {}, lambda: [[[]]] * r.randrange(50),
            lambda: {"1": {"class_type": "SimSampler", "inputs": {"steps": 1, "step_ms": 1}}},
            lambda: {"1": {"class_type": "SimSampler", "inputs": {"steps": 2, "step_ms": 1}},
                     "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0],
                                                                 "filename_prefix": "h"}}},
            lambda: "s%d" % r.randrange(50), lambda: r.choice(("fork", "keep", "run", "mcp")),
            lambda: "\u0000\ud7ff\u202e", lambda: "http://127.0.0.1:1",
        ))()

    def line(self):
        r = self.random
        op = r.choice(list(self.ops))
        message = {"op": op, "id": r.choice((1, "a", r.randrange(10 ** 6), None, [1], "x" * 200))}
        for field in self.ops[op]:
            if r.random() < .7:
                message[field] = self.value()
        if r.random() < .1:
            message[r.choice(("op", "id", "fds", "event"))] = self.value()
        data = json.dumps(message).encode()
        if r.random() < .15:  # broken somewhere
            at = r.randrange(len(data))
            data = r.choice((data[:at], data[:at] + bytes([r.randrange(256)]) + data[at + 1:],
                             data[at:], data * 3, b"\x00" * at, b"{" * at))
        return data + (b"\n" if r.random() < .97 else b"")

    def connect(self):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(60)
        s.connect(self.path)
        s.setblocking(False)
        self.count["connections"] += 1
        if self.random.random() < .9:
            self.send(s, b'{"op":"hello","id":0}\n')
        self.socks.append(s)

    def send(self, s, data):
        """What goes; whoever does not read is not waited for."""
        try:
            if self.random.random() < .02:
                with open("/dev/null") as f:
                    s.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                                        array.array("i", [f.fileno()] * 3))])
            else:
                s.send(data)
            self.count["lines"] += data.count(b"\n")
        except (BlockingIOError, PermissionError):
            pass
        except OSError:
            self.drop(s)

    def drop(self, s):
        if s in self.socks:
            self.socks.remove(s)
        s.close()

    def read(self, s):
        try:
            data = s.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.drop(s)
            return
        self.count["replies"] += data.count(b'"ok":')
        self.count["events"] += data.count(b'{"event":')

    def turn(self):
        r = self.random
        if len(self.socks) < KEEP and r.random() < .3 or not self.socks:
            self.connect()
        s = r.choice(self.socks)
        what = r.random()
        if what < .05:
            self.drop(s)
        elif what < .08:
            s.shutdown(r.choice((socket.SHUT_WR, socket.SHUT_RD)))
        elif what < .10:
            self.send(s, b"x" * r.randrange(1 << 20))
        elif what < .60:
            self.send(s, b"".join(self.line() for _ in range(r.randrange(1, 30))))
        else:
            self.read(s)


def answers(path):
    """Whether a fresh client is served."""
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(60)
    try:
        s.connect(path)
        s.sendall(b'{"op":"hello","id":1}\n')
        return s.recv(65536).startswith(b'{"id":1,"ok":true')
    except OSError:
        return False
    finally:
        s.close()


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--uid", type=int)
    args = parser.parse_args()
    if args.uid is not None:
        os.setgroups([])
        os.setgid(args.uid)
        os.setuid(args.uid)
    h = Hostile(args.socket, args.seed)
    until = time.monotonic() + args.seconds
    while time.monotonic() < until:
        try:
            h.turn()
        except OSError as e:
            if isinstance(e, (ConnectionRefusedError, FileNotFoundError)):
                break
    for s in list(h.socks):
        h.drop(s)
    print(json.dumps(h.count))
    sys.exit(0 if answers(args.socket) else 1)


if __name__ == "__main__":
    main()

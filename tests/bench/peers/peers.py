#!/usr/bin/env python3
"""Beside what a user would pick instead, where npm has it: comfyui-mcp.

usage: tests/bench/peers/run   (needs root for a network namespace, node, npm)

Start, memory, connections and size of the tool list, with comfysim as ComfyUI.
The peers run without a network but loopback.
"""
import json
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import benchlib  # noqa: E402
import rig  # noqa: E402
import sessions  # noqa: E402

STARTS = 5
SESSIONS = 10
INITIALIZED = b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
LIST = b'{"jsonrpc":"2.0","id":9,"method":"tools/list"}\n'


class Peer(sessions.Session):
    def __init__(self, r, argv, env):
        start = time.perf_counter()
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, env=env, cwd=r.dir)
        self.buffer = b""
        self.send(sessions.INITIALIZE)
        self.receive()
        self.took_ms = 1000 * (time.perf_counter() - start)
        self.send(INITIALIZED)

    def tools_bytes(self):
        self.send(LIST)
        reply = self.receive()
        while reply.get("id") != 9:
            reply = self.receive()
        return len(json.dumps(reply, separators=(",", ":")))


def tree(pid):
    pids = [pid]
    for p in pids:
        pids += sessions.children(p)
    return pids


def measure(bench, argv, env):
    """(start ms, KB a session, bytes of tools/list, WebSockets)."""
    took = []
    for _ in range(STARTS):
        peer = Peer(bench.rig, argv, env)
        took.append(peer.took_ms)
        peer.close()
    peers = [Peer(bench.rig, argv, env) for _ in range(SESSIONS)]
    listed = peers[0].tools_bytes()
    time.sleep(2)
    kb = sum(sessions.pss_kb(p) for peer in peers for p in tree(peer.process.pid))
    # Our workers are no children of their keepers.
    if argv[0].endswith("/comfymux"):
        kb += sum(sessions.pss_kb(s["pid"]) for s in bench.rig.sessions())
    sockets = bench.rig.stats()["websockets"]["open"]
    for peer in peers:
        peer.close()
    return benchlib.median(took), kb / SESSIONS, listed, sockets


def main():
    peer_js = os.path.join(sys.argv[1], "node_modules", "comfyui-mcp", "dist", "index.js")
    print(benchlib.HEAD)
    with benchlib.Bench() as bench:
        r = bench.rig
        ours = measure(bench, [os.path.join(rig.BIN, "comfymux"), "mcp", "--socket", r.socket],
                       r.env)
        env = dict(r.env, COMFYUI_URL=r.sim_url)
        theirs = measure(bench, ["node", peer_js], env)
    # What both see: the supervisor's own connection.
    theirs = theirs[:3] + (theirs[3] - 1,)
    whats = (("start to initialize reply", "ms"),
             ("memory of each of %d idle sessions" % SESSIONS, "KB"),
             ("tools/list", "bytes"), ("WebSockets on ComfyUI, %d sessions" % SESSIONS, ""))
    for (what, unit), mine, other in zip(whats, ours, theirs):
        benchlib.row(what, mine, unit, other or None, note="baseline: comfyui-mcp")


if __name__ == "__main__":
    main()

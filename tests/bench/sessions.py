#!/usr/bin/env python3
"""Figures of MCP sessions: start to initialize reply, memory of keeper and
worker, WebSockets on ComfyUI.

usage: sessions.py [--starts N] [--sessions N[,N...]]

Starts a simulator, a supervisor and sessions in a scratch directory; prints one
line a figure. Times are those of this machine at this moment; the baseline is a
program that is exec'd and answers one line, in the same run.
"""
import argparse
import json
import os
import select
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))
import rig  # noqa: E402

INITIALIZE = json.dumps({
    "jsonrpc": "2.0", "id": 0, "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {},
               "clientInfo": {"name": "bench", "version": "1"}}}).encode() + b"\n"
CALL = json.dumps({
    "jsonrpc": "2.0", "id": 1, "method": "tools/call",
    "params": {"name": "get_system_resources", "arguments": {}}}).encode() + b"\n"


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * p / 100))]


def pss_kb(pid):
    with open("/proc/%d/smaps_rollup" % pid) as f:
        for line in f:
            if line.startswith("Pss:"):
                return int(line.split()[1])
    raise AssertionError("no Pss of %d" % pid)


class Session:
    def __init__(self, r):
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [os.path.join(rig.BIN, "comfymux"), "mcp", "--socket", r.socket],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=r.env, cwd=r.dir)
        self.buffer = b""

    def send(self, line):
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def receive(self):
        while b"\n" not in self.buffer:
            poll = select.poll()  # select() ends at descriptor 1024
            poll.register(self.process.stdout, select.POLLIN)
            if not poll.poll(rig.PATIENCE_S * 1000):
                raise AssertionError("no answer")
            chunk = os.read(self.process.stdout.fileno(), 65536)
            if not chunk:
                raise AssertionError("the session ended")
            self.buffer += chunk
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait(rig.PATIENCE_S)
        self.process.stdout.close()


def start_one(r):
    s = Session(r)
    s.send(INITIALIZE)
    s.receive()
    took = time.perf_counter() - s.started
    s.close()
    return took


def baseline_one():
    """exec of a C program that answers what it reads: cat."""
    t = time.perf_counter()
    p = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    p.stdin.write(INITIALIZE)
    p.stdin.flush()
    p.stdout.readline()
    took = time.perf_counter() - t
    p.stdin.close()
    p.wait()
    p.stdout.close()
    return took


def say_times(what, values):
    print("%-44s p50 %6.2f ms  p99 %6.2f ms  (n=%d)" % (
        what, 1000 * percentile(values, 50), 1000 * percentile(values, 99), len(values)))
    return percentile(values, 50)


def starts(r, n):
    base = say_times("exec of cat to its first line", [baseline_one() for _ in range(n)])
    alone = say_times("comfymux mcp to initialize reply, alone", [start_one(r) for _ in range(n)])
    print("%-44s %.2f" % ("  ratio of the p50s", alone / base))
    batch = [Session(r) for _ in range(100)]
    took = []
    for s in batch:
        s.send(INITIALIZE)
    waiting = {s.process.stdout: s for s in batch}
    while waiting:
        for f in select.select(list(waiting), [], [], rig.PATIENCE_S)[0]:
            s = waiting.pop(f)
            s.receive()
            took.append(time.perf_counter() - s.started)
    say_times("comfymux mcp, 100 at once", took)
    for s in batch:
        s.close()


def memory(r, counts, daemon):
    sessions = []
    for count in counts:
        while len(sessions) < count:
            s = Session(r)
            s.send(INITIALIZE)
            s.receive()
            sessions.append(s)
        report(r, count, "idle, before any call", daemon)
        for s in sessions:
            s.send(CALL)
        for s in sessions:
            while s.receive().get("id") != 1:
                pass
        time.sleep(1.5)  # idle connections close within a second
        report(r, count, "idle, after a call", daemon)
    print("%-44s %d" % ("WebSockets on ComfyUI with %d sessions" % len(sessions),
                        r.stats()["websockets"]["open"]))
    for s in sessions:
        s.close()


def report(r, count, when, daemon):
    listed = r.status()["sessions"]
    assert len(listed) == count, (len(listed), count)
    keepers = [pss_kb(s["keeper_pid"]) for s in listed]
    workers = [pss_kb(s["pid"]) for s in listed]
    print("%-44s keeper %d KB, worker %d KB, together %d KB; supervisor %d KB" % (
        "%d sessions, %s" % (count, when), sum(keepers) // count, sum(workers) // count,
        (sum(keepers) + sum(workers)) // count, pss_kb(daemon.pid)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--starts", type=int, default=200)
    parser.add_argument("--sessions", default="1,100,1000")
    args = parser.parse_args()
    r = rig.Rig()
    try:
        r.start_sim()
        daemon = r.start_daemon()
        starts(r, args.starts)
        memory(r, [int(n) for n in args.sessions.split(",")], daemon)
    finally:
        r.close()


if __name__ == "__main__":
    main()

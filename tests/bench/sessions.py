"""MCP sessions: how soon they answer, what memory they take, and what they cost
while nothing happens.
"""
import json
import os
import select
import subprocess
import time

import rig
from benchlib import FAN, ROUNDS, Bench, median, quiet, row, settle

INITIALIZE = json.dumps({
    "jsonrpc": "2.0", "id": 0, "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {},
               "clientInfo": {"name": "bench", "version": "1"}}}).encode() + b"\n"
STARTS = 200
AT_ONCE = 100
IDLE_S = 60
# Keeper and worker together, and the supervisor, proportionally.
AIM_SESSION_KB = 400
AIM_SUPERVISOR_KB = 20480
CLOSE_S = 1.5  # idle connections to ComfyUI are closed within a second
QUIET_S = 8  # what a call leaves to be done later is over by then


def tool_call(call_id, name, **arguments):
    return json.dumps({"jsonrpc": "2.0", "id": call_id, "method": "tools/call",
                       "params": {"name": name, "arguments": arguments}}).encode() + b"\n"


def pss_kb(pid):
    with open("/proc/%d/smaps_rollup" % pid, encoding="ascii") as f:
        for line in f:
            if line.startswith("Pss:"):
                return int(line.split()[1])
    raise AssertionError("no Pss of %d" % pid)


class Session:
    def __init__(self, r):
        self.process = subprocess.Popen(
            [os.path.join(rig.BIN, "comfymux"), "mcp", "--socket", r.socket],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=r.env, cwd=r.dir)
        self.buffer = b""
        self.send(INITIALIZE)
        self.receive()

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


def start_times(r, count, at_once, *program):
    done = subprocess.run([FAN, "start", str(count), str(at_once), *program], env=r.env, cwd=r.dir,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def starts(r, quick):
    """In turns with the baseline, so that the machine's moods concern both."""
    count = STARTS // 4 if quick else STARTS
    mcp = (os.path.join(rig.BIN, "comfymux"), "mcp", "--socket", r.socket)
    for at_once, what, aims in ((1, "alone", (3, None)),
                                (AT_ONCE, "%d at once" % AT_ONCE, (None, None))):
        base, got = zip(*[[start_times(r, max(count, at_once), at_once, *program)
                           for program in (("connect", r.socket), mcp)]
                          for _ in range(ROUNDS)])
        for key, aim in zip(("p50_us", "p99_us"), aims):
            row("exec of comfymux mcp to initialize reply, %s, %s" % (what, key[:3]),
                median([g[key] for g in got]) / 1e3, "ms", median([b[key] for b in base]) / 1e3, aim,
                "aim: 5 ms, 3 x a program that connects" if aim else "")


def report(r, count, when, daemon):
    listed = r.sessions()
    assert len(listed) == count, (len(listed), count)
    keepers = sum(pss_kb(s["keeper_pid"]) for s in listed) / count
    workers = sum(pss_kb(s["pid"]) for s in listed) / count
    row("memory of a session, %d of them, %s" % (count, when), keepers + workers, "KB",
        aim=AIM_SESSION_KB if count >= 100 and "flight" not in when else None,
        note="keeper %.0f, worker %.0f" % (keepers, workers))
    row("memory of the supervisor, %d sessions, %s" % (count, when), pss_kb(daemon.pid), "KB",
        aim=AIM_SUPERVISOR_KB)


def memory(bench, sessions, count):
    r = bench.rig
    while len(sessions) < count:
        sessions.append(Session(r))
    report(r, count, "idle", bench.daemon)
    for s in sessions:
        s.send(tool_call(1, "get_system_resources"))
    for s in sessions:
        while s.receive().get("id") != 1:
            pass
    time.sleep(CLOSE_S)
    report(r, count, "after a call", bench.daemon)
    zygote = zygote_of(bench)
    row("memory of the zygote, %d sessions" % count, pss_kb(zygote), "KB")
    row("WebSockets on ComfyUI, %d sessions" % count, r.stats()["websockets"]["open"], "", aim=1)


def in_flight(bench, sessions):
    for s in sessions:
        s.send(tool_call(2, "execute_workflow_sync", workflow=quiet(3600000),
                         timeout_ms=3600000))
    rig.wait_for(lambda: bench.rig.stats()["requests"].get("POST /prompt", 0) >= len(sessions),
                 "the prompts")
    settle()
    report(bench.rig, len(sessions), "a call in flight", bench.daemon)


def children(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid), encoding="ascii") as f:
        return [int(p) for p in f.read().split()]


def zygote_of(bench):
    workers = {s["pid"] for s in bench.rig.sessions()}
    zygotes = [p for p in children(bench.daemon.pid)
               if p not in workers and set(children(p)) & workers]
    assert len(zygotes) == 1, zygotes
    return zygotes[0]


def spent(pids):
    """Processor time in ms and wake-ups, of all together."""
    ms = wakes = 0
    for pid in pids:
        with open("/proc/%d/schedstat" % pid, encoding="ascii") as f:
            ms += int(f.read().split()[0]) / 1e6
        with open("/proc/%d/status" % pid, encoding="ascii") as f:
            wakes += sum(int(line.split()[1]) for line in f if "ctxt_switches" in line)
    return ms, wakes


def idle(bench, count, quick):
    listed = bench.rig.sessions()
    seconds = 5 if quick else IDLE_S
    groups = (("keepers", [s["keeper_pid"] for s in listed], 0),
              ("workers", [s["pid"] for s in listed], 0),
              ("supervisor and zygote", [bench.daemon.pid, zygote_of(bench)], None))
    time.sleep(QUIET_S)
    before = [spent(pids) for _, pids, _ in groups]
    time.sleep(seconds)
    for (what, pids, aim), (ms, wakes) in zip(groups, before):
        ms, wakes = (now - then for now, then in zip(spent(pids), (ms, wakes)))
        row("wake-ups in %d s of %d idle sessions, %s" % (seconds, count, what), wakes, "",
            aim=aim, note="%.1f ms of processor time" % ms)


def run(quick=False):
    with Bench() as bench:
        starts(bench.rig, quick)
        sessions = []
        for count in (1, 100) if quick else (1, 100, 1000):
            memory(bench, sessions, count)
        idle(bench, len(sessions), quick)
        in_flight(bench, sessions)
        for s in sessions:
            s.process.stdin.close()
        for s in sessions:
            s.process.wait(rig.PATIENCE_S)
            s.process.stdout.close()

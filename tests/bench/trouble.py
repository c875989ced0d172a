"""Trouble: how long until a client hears again after the supervisor's death,
after its return, after the link has gone deaf; and what ComfyUI has to answer
meanwhile with many sessions waiting. The ratios are to the poll interval.
"""
import functools
import json
import os
import signal
import subprocess
import threading
import time

import rig
from benchlib import median, row

POLL_S = 1.5  # the default of poll_interval_ms
INITIALIZE = json.dumps({
    "jsonrpc": "2.0", "id": 0, "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {},
               "clientInfo": {"name": "bench", "version": "1"}}}).encode() + b"\n"
PER_SESSION_S = 0.05  # a lone worker polls every max(POLL_S, sessions x this)


def sampler(seed, steps=10000, step_ms=50):
    return {
        "1": {"class_type": "SimSampler", "inputs": {"seed": seed, "steps": steps, "step_ms": step_ms}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "bench"}},
    }


def queue_up(r, count):
    """Prompts of somebody else's, a few a second: whoever waits behind them has
    news at every poll."""
    for i in range(count):
        r.sim("POST", "/prompt", {"client_id": "somebody", "prompt": sampler(10**6 + i, 10, 20)})


class Watched:
    """`comfymux run` of a prompt that never ends: its lines with their times."""

    def __init__(self, r, seed, status="executing"):
        self.process = r.start("comfymux", "run", r.write("wf.json", sampler(seed)), "--json",
                               "--socket", r.socket, stdout=subprocess.PIPE)
        self.lines = []
        threading.Thread(target=self.read, daemon=True).start()
        self.after(0.0, lambda p: p["status"] == status, status)

    def read(self):
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), json.loads(line)))

    def after(self, since, pred, what):
        """When the first line after `since` came that pred likes."""
        return rig.wait_for(lambda: next(
            (t for t, p in list(self.lines) if t > since and pred(p)), None), what)

    def end(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(rig.PATIENCE_S)


def say(what, seconds):
    row(what, median(seconds), "s", baseline=POLL_S, note="at most %.2f s, n=%d" % (max(seconds), len(seconds)))


def deaths(r, start, rounds):
    polled, back = [], []
    daemon = start()
    queue_up(r, 100 * rounds)
    run = Watched(r, 1, "queued")
    for _ in range(rounds):
        run.after(time.monotonic(), lambda p: p.get("method") == "websocket", "events")
        died = time.monotonic()
        daemon.kill()
        daemon.wait()
        polled.append(run.after(died, lambda p: p.get("method") == "polling", "a polled update") - died)
        daemon = start(connected=False)
        returned = time.monotonic()
        back.append(run.after(returned, lambda p: p.get("method") == "websocket", "events again") - returned)
    say("the supervisor's death to the first polled update", polled)
    say("its return (socket answers) to events again", back)
    run.end()
    r.sim("POST", "/queue", {"clear": True})
    return daemon


def deafness(r, rounds):
    """Deaf before a prompt is submitted, and while one runs to its end."""
    starts, ends = [], []
    for i in range(rounds):
        r.fault(fault="deaf")
        since = time.monotonic()
        run = Watched(r, 100 + i)
        starts.append(run.after(since, lambda p: p["status"] == "executing", "executing") - since)
        run.after(since, lambda p: p.get("method") == "websocket" and p.get("current_node_progress"), "events")
        run.end()
    for i in range(rounds):
        r.write("end.json", sampler(200 + i, 50, 20))
        run = r.start("comfymux", "run", "end.json", "--json", "--socket", r.socket, stdout=subprocess.PIPE)
        while b'"executing"' not in r.read_line(run.stdout, "progress"):
            pass
        r.fault(fault="deaf")
        run.stdout.read()
        told = time.time()
        ended = [j["t_ms"] for j in r.journal() if j["fact"] == "end"][-1] / 1000
        ends.append(told - ended)
        run.wait()
    say("deaf link, a submission: to the news that it runs", starts)
    say("deaf when a prompt ends, from its end to the answer", ends)


def requests(r):
    return {k: v for k, v in r.stats()["requests"].items() if "/sim/" not in k}


def rate(r, seconds):
    before, t = requests(r), time.monotonic()
    time.sleep(seconds)
    after, took = requests(r), time.monotonic() - t
    return {k: (v - before.get(k, 0)) / took for k, v in after.items() if v != before.get(k, 0)}


def say_rate(what, rates, poll_s):
    """Requests of one poll interval; 1 would be one request for everybody."""
    total = sum(rates.values())
    row(what, total, "/s", note="%.1f in a poll interval of %.1f s; %s" % (
        total * poll_s, poll_s, ", ".join("%s %.2f" % kv for kv in sorted(rates.items()))))


def load(r, daemon, count, seconds):
    sessions = []
    for i in range(count):
        s = subprocess.Popen([os.path.join(rig.BIN, "comfymux"), "mcp", "--socket", r.socket],
                             stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, env=r.env, cwd=r.dir)
        s.stdin.write(INITIALIZE + json.dumps({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
                "name": "execute_workflow_sync", "arguments": {
                    "workflow": sampler(1000 + i), "timeout_ms": 3600000}}}).encode() + b"\n")
        s.stdin.flush()
        sessions.append(s)

    def queued():
        q = r.sim("GET", "/queue")[1]
        return len(q["queue_running"]) + len(q["queue_pending"])
    rig.wait_for(lambda: queued() == count, "%d prompts at ComfyUI" % count)
    say_rate("%d sessions wait, all well" % count, rate(r, seconds), POLL_S)
    # The listener answers, but for the WebSocket.
    r.fault(fault="status", code=503, path="/ws", count=1000000)
    r.fault(fault="drop")
    rig.wait_for(lambda: r.status()["upstream"]["state"] != "connected", "the link to be down")
    say_rate("%d sessions wait, the link is down" % count, rate(r, seconds), POLL_S)
    r.fault(fault="clear")
    daemon.kill()
    daemon.wait()
    time.sleep(2 * count * PER_SESSION_S)  # the first round is spread over one interval
    say_rate("%d sessions wait, the supervisor is down" % count, rate(r, seconds),
             max(POLL_S, count * PER_SESSION_S))
    for s in sessions:
        s.kill()
        s.wait()
        s.stdin.close()


def run(quick=False):
    rounds, sessions, seconds = (2, 20, 5) if quick else (5, 100, 20)
    r = rig.Rig()
    # One user's own, where every prompt goes to ComfyUI at once.
    own = r.write("config/comfymux/comfymux.conf", "autostart = no\nsocket_mode = 0600\n")
    start = functools.partial(r.start_daemon, "--config", own)
    try:
        r.start_sim()
        daemon = deaths(r, start, rounds)
        deafness(r, rounds)
        load(r, daemon, sessions, seconds)
    finally:
        r.close()

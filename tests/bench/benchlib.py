"""What the benchmarks share: a row of the table, the C side, the emission.

A figure of time or cost is a ratio to a baseline of the same run: absolute
figures of a shared machine say little.
"""
import json
import os
import statistics
import subprocess
import sys
import time
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))
import rig  # noqa: E402
from muxlib import Client  # noqa: E402

FAN = os.path.join(rig.BIN, "release", "tests", "bench")
ROUNDS = 3  # of baseline and product in turn; the median of each counts
ROWS = []


def row(what, value, unit, baseline=None, aim=None, note=""):
    """One line of the table. `aim`: the ratio to the baseline, or, without
    one, the value, is to be at most that."""
    ratio = value / baseline if baseline else None
    judged = ratio if baseline else value
    ROWS.append({"what": what, "value": value, "unit": unit, "baseline": baseline,
                 "ratio": ratio, "aim": aim, "met": None if aim is None else judged <= aim,
                 "note": note})
    print(format_row(ROWS[-1]), flush=True)


def number(value):
    if value is None:
        return "-"
    if value == int(value) and abs(value) < 1e15:
        return "%d" % value
    return "%.3g" % value if abs(value) < 100 else "%.0f" % value


def format_row(r):
    return "| %-58s | %9s %-6s | %9s | %6s | %6s | %-3s | %s |" % (
        r["what"], number(r["value"]), r["unit"], number(r["baseline"]), number(r["ratio"]),
        number(r["aim"]), {None: "", True: "yes", False: "NO"}[r["met"]], r["note"])


HEAD = ("| %-58s | %16s | %9s | %6s | %6s | %3s | note |\n"
        "|---|---:|---:|---:|---:|---|---|" % (
            "what", "value", "baseline", "ratio", "aim", "met"))


class Fan:
    """A subcommand of the C side, ready to measure."""

    def __init__(self, *args, env=None):
        self.process = subprocess.Popen([FAN, *map(str, args)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, env=env)
        line = self.process.stdout.readline()
        assert line == b"ready\n", (args, line)

    def finish(self):
        out, _ = self.process.communicate(timeout=rig.PATIENCE_S)
        assert self.process.returncode == 0
        return json.loads(out)


def quiet(ms, seed=0):
    """A workflow whose first node runs that long without a word."""
    return {"1": {"class_type": "SimLoad", "inputs": {"ms": ms}},
            "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]},
                  "_meta": {"title": str(seed)}}}


class Bench:
    """comfysim and a supervisor, and prompts that never end by themselves."""

    def __init__(self, *options, start=True, sim=()):
        self.rig = rig.Rig()
        self.rig.start_sim("--quiet", *sim)
        # All at ComfyUI at once, whoever runs this: turns are not measured here.
        config = self.rig.write("bench.conf", "max_outstanding = 10000\n")
        self.options = ("--config", config, *options)
        self.daemon = None
        if start:
            self.daemon = self.rig.start_daemon(*self.options)
            self.connect()

    def start_under(self, *wrapper):
        """The supervisor under a tool that watches it."""
        log = open(self.rig.path("comfymuxd.log"), "ab")
        self.daemon = subprocess.Popen(
            [*wrapper, os.path.join(rig.BIN, "comfymuxd"), "--socket", self.rig.socket,
             "--state-dir", self.rig.state, "--comfyui", self.rig.sim_url, *self.options],
            env=self.rig.env, stdin=subprocess.DEVNULL, stderr=log)
        log.close()
        self.rig.processes.append(self.daemon)
        rig.wait_for(self.rig.can_connect, "the supervisor's socket")
        self.connect()

    def connect(self):
        rig.wait_for(lambda: self.rig.status()["upstream"]["state"] == "connected",
                     "the upstream link")
        self.client_id = self.rig.status()["upstream"]["client_id"]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.rig.close()

    def client(self):
        return Client(self.rig.socket)

    def prompts(self, count):
        """Submits; the ids, which ComfyUI keeps waiting for hours."""
        client = self.client()
        ids = [str(uuid.uuid4()) for _ in range(count)]
        asked = [client.request("submit", prompt_id=i, workflow=quiet(3600000, n))
                 for n, i in enumerate(ids)]
        for a in asked:
            client.reply(a, timeout=rig.PATIENCE_S)
        client.close()
        return ids

    def emit(self, to, count, rate, wait=True, **order):
        """Frames from comfysim, waited for until the last has left."""
        order.setdefault("kind", "small")
        status, reply = self.rig.sim("POST", "/sim/emit", {
            "client_id": to, "count": count, "rate_per_s": rate, **order})
        assert status == 200, reply
        if wait:
            self.emitted()

    def emitted(self):
        rig.wait_for(lambda: self.rig.stats()["emit"]["count"] == 0, "the frames to leave", 300)

    def counter(self, name):
        client = self.client()
        value = client.ask("status")["counters"][name]
        client.close()
        return value

    def cpu_s(self, pid=None):
        with open("/proc/%d/stat" % (pid or self.daemon.pid)) as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def median(values):
    return statistics.median(values)


def settle():
    """Lets what was started or ended calm down."""
    time.sleep(0.3)

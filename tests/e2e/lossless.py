"""What the tests of "nothing is lost" share: a `comfymux run --json` that is
read as it goes, whose progress must never run backwards and whose answer must
come once, and ways to hurt what stands behind it.

Everything is found by the supervisor's status and /proc, and ended by pid.
"""
import json
import os
import signal
import subprocess
import threading
import time
import unittest

import proclib
import rig
from proclib import is_running, parent_of
from rig import wait_for

RANK = {"queued": 0, "executing": 1, "completed": 2, "failed": 2}
FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGSYS)


def sampler(steps=100, step_ms=20, seed=1, prefix="safe", **more):
    return {
        "3": {"class_type": "SimSampler", "inputs": {"seed": seed, "steps": steps, "step_ms": step_ms, **more}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": prefix}},
    }


def check_order(lines):
    """Progress of one prompt, as it was told: never backwards."""
    status, done, at, fraction = -1, set(), None, 0
    for line in lines:
        assert RANK[line["status"]] >= status, ("status runs backwards", lines)
        status = RANK[line["status"]]
        now = set(line["completed_nodes"])
        assert done <= now, ("a node is taken back", line, lines[-8:])
        done = now
        node = line.get("current_node")
        if node is None:
            continue
        assert node not in done, ("a node that was done runs again", line)
        if node == at:
            assert line["current_node_progress"] >= fraction, ("a step back", line, lines[-8:])
        at, fraction = node, line["current_node_progress"]


class Run:
    """`comfymux run --json`, or another command of its kind."""

    def __init__(self, owner, workflow, *args, comfyui=False, sock=True):
        self.rig = owner
        path = owner.write("wf-%d.json" % len(owner.processes), workflow)
        argv = ["run", path, "--json", *args]
        if sock:
            argv += ["--socket", owner.socket]
        if comfyui:
            argv += ["--comfyui", owner.sim_url]
        self.errors = owner.path("run-%d.err" % len(owner.processes))
        with open(self.errors, "wb") as err:
            self.process = owner.start("comfymux", *argv, stdout=subprocess.PIPE, stderr=err)
        self.lines = []
        self.torn = b""
        self.over = False
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    @property
    def pid(self):
        return self.process.pid

    def _read(self):
        while True:
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            with self.changed:
                if not data:
                    self.over = True
                    self.changed.notify_all()
                    return
                *whole, self.torn = (self.torn + data).split(b"\n")
                self.lines += [json.loads(line) for line in whole]
                self.changed.notify_all()

    def wait(self, condition, what, since=0):
        """The first line from `since` on that `condition` likes."""
        until = time.monotonic() + rig.PATIENCE_S
        with self.changed:
            while True:
                for line in self.lines[since:]:
                    if condition(line):
                        return line
                if self.over or time.monotonic() > until:
                    raise AssertionError("waited in vain for %s: %r\n%s" % (what, self.lines[-3:], self.stderr()))
                self.changed.wait(0.5)

    def prompt_id(self):
        return self.wait(lambda l: True, "its id")["prompt_id"]

    def executing(self):
        """Until a step of it was told."""
        self.wait(lambda l: l.get("current_node_progress", 0) > 0, "steps")
        return self

    def steps(self, since, method=None):
        """Until steps are told that come after line number `since`."""
        return self.wait(lambda l: method in (None, l.get("method")) and
                         (l.get("current_node_progress", 0) > 0 or l["status"] != "queued"),
                         "progress by %s" % (method or "any way"), since)

    def mark(self):
        with self.changed:
            return len(self.lines)

    def stderr(self):
        with open(self.errors, errors="replace") as f:
            return f.read()

    def end(self, status=0):
        """Its only answer; the progress before it was in order."""
        got = self.process.wait(rig.PATIENCE_S)
        self.reader.join(rig.PATIENCE_S)
        assert got == status, "exit status %d, not %d\n%s\n%r" % (got, status, self.stderr(), self.lines[-2:])
        assert self.torn == b"", self.torn
        live = [l for l in self.lines if "progress_method" not in l]
        ends = [l for l in self.lines if "progress_method" in l]
        assert len(ends) == 1 and self.lines[-1] is ends[0], self.lines[-3:]
        assert len({l["prompt_id"] for l in self.lines}) == 1
        check_order(live + ends)
        # What ended was told once, and nothing after it.
        assert sum(l["status"] in ("completed", "failed") for l in self.lines) <= 2
        return ends[0]

    def completed(self):
        end = self.end(0)
        assert end["status"] == "completed", end
        assert end["outputs"]["9"]["images"], end
        return end

    def failed(self, kind, status=1):
        end = self.end(status)
        kinds = (kind,) if isinstance(kind, str) else kind
        assert end["status"] == "failed" and end["error"]["type"] in kinds, end
        return end["error"]["message"]


class Case(unittest.TestCase):
    def setUp(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)
        self.addCleanup(self.end_orphans)
        self.daemon = None
        self.seen = set()

    def end_orphans(self):
        """Workers outlive a killed supervisor and keeper only if something is
        wrong; they must not outlive the test."""
        for pid in self.seen:
            if proclib.name_of(pid) in ("comfymux-worker", "comfymux-zygote"):
                proclib.end(pid)

    # --- the parts ---

    def begin(self, *sim_options, **config):
        self.rig.start_sim(*sim_options)
        self.start_daemon(**config)

    def start_daemon(self, connected=True, **config):
        args = []
        if config:
            args = ["--config", self.rig.write("mux.conf", "".join("%s = %s\n" % kv for kv in config.items()))]
        self.daemon = self.rig.start_daemon(*args, connected=connected)
        return self.daemon

    def end_daemon(self, sig=signal.SIGKILL):
        self.daemon.send_signal(sig)
        return self.daemon.wait(rig.PATIENCE_S)

    def start(self, workflow=None, **kwargs):
        return Run(self.rig, workflow or sampler(), **kwargs)

    def sessions(self):
        found = self.rig.sessions()
        self.seen.update(s["pid"] for s in found if s["pid"] > 0)
        return found

    def session_of(self, run):
        """The session of a run (or of whoever has a pid), once it has a
        worker."""
        def look():
            found = [s for s in self.sessions() if s["keeper_pid"] == run.pid and s["pid"] > 0]
            return found[0] if found else None
        return wait_for(look, "the session's worker")

    def worker_of(self, run):
        return self.session_of(run)["pid"]

    def successor_of(self, run, worker):
        return wait_for(lambda: [s for s in self.sessions() if s["keeper_pid"] == run.pid
                                 and s["pid"] not in (0, worker)], "a successor")[0]["pid"]

    def own_worker(self, run):
        """The worker that a keeper has exec'd itself."""
        def look():
            for entry in os.listdir("/proc"):
                if entry.isdigit() and parent_of(int(entry)) == run.pid and is_running(int(entry)):
                    self.seen.add(int(entry))
                    return int(entry)
            return None
        return wait_for(look, "a worker of the keeper's own")

    def gone(self, pid, what="its end"):
        wait_for(lambda: not is_running(pid), what)

    # --- what ComfyUI saw ---

    def facts(self, fact):
        return [j for j in self.rig.journal() if j["fact"] == fact]

    def posts(self):
        """Prompts in the order in which ComfyUI got them, each but once."""
        ids = [j["prompt_id"] for j in self.facts("post")]
        self.assertEqual(len(ids), len(set(ids)), "posted twice")
        return ids

    def asked(self, *paths):
        """How often these were asked for over HTTP."""
        requests = self.rig.stats()["requests"]
        return sum(n for path, n in requests.items() if path.startswith(paths))

    def polled(self):
        return self.asked("GET /queue", "GET /history")

    def until_asked(self, path, more=1):
        before = self.asked(path)
        wait_for(lambda: self.asked(path) >= before + more, "%d x %s" % (more, path))

    def upstream(self):
        return self.rig.status()["upstream"]

    def link(self, state):
        wait_for(lambda: self.upstream()["state"] == state, "the link to be " + state)

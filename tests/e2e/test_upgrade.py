"""Two builds of different version (build/ and build/other/, see `make other`):
programs are replaced and processes restarted in the middle of calls, up and
down, and each call is answered once."""
import os
import re
import shutil
import signal
import subprocess
import unittest

import mcplib
import rig
from lossless import Case, sampler
from rig import wait_for

PROGRAMS = ("comfymuxd", "comfymux", "comfymux-worker")
BUILDS = {"this": rig.BIN, "other": os.path.join(rig.BIN, "other")}


def version_of(folder, program="comfymuxd"):
    path = os.path.join(folder, program)
    if not os.path.exists(path):
        raise AssertionError("%s is not there: make other" % path)
    out = subprocess.run([path, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return out.split()[1]


class Upgrade(Case):
    def setUp(self):
        super().setUp()
        self.bin = self.rig.path("bin")
        os.mkdir(self.bin)
        os.symlink(os.path.join(rig.BIN, "comfysim"), os.path.join(self.bin, "comfysim"))
        self.versions = {name: version_of(folder) for name, folder in BUILDS.items()}
        self.assertNotEqual(self.versions["this"], self.versions["other"])
        self.addCleanup(setattr, rig, "BIN", rig.BIN)
        rig.BIN = self.bin

    def install(self, build):
        """As install(1) does: a fresh file in place of the old one."""
        for program in PROGRAMS:
            fresh = os.path.join(self.bin, program + ".new")
            shutil.copy(os.path.join(BUILDS[build], program), fresh)
            os.replace(fresh, os.path.join(self.bin, program))
        self.assertEqual(version_of(self.bin), self.versions[build])

    def said_hello(self, since):
        """Versions of the sessions' processes that have greeted the supervisor
        from there in its log on."""
        return re.findall(r"name=comfymux (?:mcp|run)/(\S+)\)", self.rig.log_of("comfymuxd")[since:])

    def begin_calls(self, build):
        """A run and an MCP session, each with a call in flight."""
        self.install(build)
        self.begin(log_level="debug", max_outstanding=10)
        self.assertEqual(self.rig.status()["version"], self.versions[build])
        self.rig.pause(steps=2)
        run = self.start(sampler(steps=50)).executing()
        client = mcplib.Client(self.rig)
        client.initialize()
        call = client.call("execute_workflow_sync", {"workflow": sampler(steps=20, seed=2), "timeout_ms": 600000},
                           token="t")
        client.wait(lambda: client.progress("t"), "progress")
        wait_for(lambda: len(self.posts()) == 2, "the POSTs")
        return run, client, call

    def end_calls(self, run, client, call):
        self.rig.resume()
        self.assertEqual(run.completed()["progress_method"], "websocket")
        result = client.answer(call)["result"]
        self.assertFalse(result["isError"], result)
        self.assertEqual(result["structuredContent"]["status"], "completed")
        told = [p["progress"] for p in client.progress("t")]
        self.assertEqual(told, sorted(set(told)))
        self.assertEqual(client.end(), 0)
        self.assertEqual([len(r) for r in client.replies.values()], [1] * len(client.replies))
        self.assertEqual(len(self.posts()), 2)

    def restart(self):
        """As an init script upgrades: leave for a restart, start anew."""
        self.assertEqual(self.end_daemon(signal.SIGUSR2), 0)
        self.start_daemon(log_level="debug", max_outstanding=10)

    def replaced(self, run, client, version):
        """restart-workers: the successors are of that version."""
        old = {self.session_of(run)["pid"], client.worker()}
        since = len(self.rig.log_of("comfymuxd"))
        self.assertEqual(self.rig.json("restart-workers"), {"workers": 2})
        for keeper in (run, client.process):
            for pid in old:
                self.gone(pid)
            self.session_of(keeper)
        wait_for(lambda: self.said_hello(since) == [version] * 2, "workers of version " + version)

    def change(self, before, after):
        calls = self.begin_calls(before)
        run, client, _ = calls
        workers = {self.worker_of(run), client.worker()}
        self.install(after)
        self.restart()
        self.assertEqual(self.rig.status()["version"], self.versions[after])
        # The workers are still those of before, under the new supervisor.
        mark = run.mark()
        self.assertEqual({self.worker_of(run), self.worker_of(client.process)}, workers)
        self.rig.pause(steps=3)
        run.steps(mark, "websocket")
        self.replaced(run, client, self.versions[after])
        mark = run.mark()
        self.rig.pause(steps=3)
        run.steps(mark, "websocket")
        self.end_calls(*calls)
        # A client of today, and one of yesterday.
        for build in BUILDS:
            self.install(build)
            self.start(sampler(steps=2, seed=len(self.rig.processes))).completed()

    def test_upgrade(self):
        self.change("this", "other")

    def test_downgrade(self):
        self.change("other", "this")

    def test_workers_alone(self):
        """The supervisor stays: `restart-workers` picks the new program up."""
        calls = self.begin_calls("this")
        self.install("other")
        self.replaced(calls[0], calls[1], self.versions["other"])
        self.assertEqual(self.rig.status()["version"], self.versions["this"])
        self.assertEqual(self.upstream()["reconnects"], 0)
        self.end_calls(*calls)

    def test_removed_after_an_upgrade(self):
        """The keeper of before execs the worker that is installed now."""
        self.install("this")
        self.begin()
        self.rig.pause(steps=2)
        run = self.start(sampler(steps=50)).executing()
        self.install("other")
        self.assertEqual(self.end_daemon(signal.SIGTERM), 0)
        own = self.own_worker(run)
        wait_for(lambda: os.readlink("/proc/%d/exe" % own) == os.path.join(self.bin, "comfymux-worker"), "its exec")
        self.rig.resume()
        run.completed()
        self.assertEqual(len(self.posts()), 1)


if __name__ == "__main__":
    unittest.main()

"""What the processes have given up, by /proc; the profiles themselves are tried
call by call in check_sandbox.c. Every other end-to-end test runs with the
sandbox on, and fails if something runs into it."""
import os
import shutil
import subprocess
import unittest

import rig
from rig import wait_for
from test_cli import sampler
from proclib import descendants, name_of
from test_nursery import Keeper

SANITIZED = "asan" in os.path.basename(rig.BIN)
NAMES = ("comfymuxd", "comfymux-zygote", "comfymux-worker")


def status_of(pid):
    with open("/proc/%d/status" % pid) as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def limit_of(pid, name):
    with open("/proc/%d/limits" % pid) as f:
        return next(line for line in f if line.startswith(name)).split()[-2]


class Sandbox(unittest.TestCase):
    def setUp(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)

    def shut_in(self, pid):
        status = status_of(pid)
        self.assertEqual(status["NoNewPrivs"], "1", name_of(pid))
        self.assertEqual(limit_of(pid, "Max core file size"), "0")
        if not SANITIZED:
            self.assertEqual(status["Seccomp"], "2", name_of(pid))
            # Not dumpable: what tells of it is root's.
            self.assertEqual(os.stat("/proc/%d/environ" % pid).st_uid, 0)

    def processes(self, daemon):
        """Supervisor, zygote and worker of a session, whose keeper is returned."""
        keeper = Keeper(self.rig.socket)
        self.addCleanup(keeper.sock.close)
        _, channel = keeper.attach()
        self.addCleanup(channel.close)
        session = wait_for(lambda: [s for s in self.rig.sessions() if s["pid"] > 0], "a worker")[0]
        wait_for(lambda: name_of(session["pid"]) == "comfymux-worker", "its name")
        children = {name_of(p): p for p in descendants(daemon.pid)}
        return keeper, [daemon.pid, children["comfymux-zygote"], session["pid"]]

    def test_of_a_service(self):
        self.rig.start_sim()
        daemon = self.rig.start_daemon()
        _, pids = self.processes(daemon)
        for pid in pids:
            wait_for(lambda: status_of(pid)["NoNewPrivs"] == "1", "the sandbox")
            wait_for(lambda: SANITIZED or os.stat("/proc/%d/environ" % pid).st_uid == 0, "no dump of it")
            self.shut_in(pid)
        wait_for(lambda: limit_of(pids[2], "Max open files") == "256", "its limit of files")
        if SANITIZED:
            self.assertIn("no system call filter in a build with sanitizers", self.rig.log_of("comfymuxd"))
            return
        # Each has its own and those before it.
        wait_for(lambda: [int(status_of(p)["Seccomp_filters"]) for p in pids] == [1, 2, 4], "all filters")

    @unittest.skipIf(os.geteuid() != 0, "needs root to be somebody else")
    def test_of_a_plain_user(self):
        """So that root's files in /proc mean something."""
        self.rig.start_sim()
        os.chmod(self.rig.dir, 0o755)
        home = self.rig.path("home")
        os.mkdir(home)
        os.chown(home, 12001, 12001)
        # Its own copy: the tree of the tests may be root's alone.
        for name in ("comfymuxd", "comfymux-worker"):
            shutil.copy(os.path.join(rig.BIN, name), self.rig.path(name))
        self.rig.socket = os.path.join(home, "s")
        log = open(self.rig.path("plain.log"), "ab")
        daemon = subprocess.Popen(
            ["setpriv", "--reuid", "12001", "--regid", "12001", "--clear-groups", self.rig.path("comfymuxd"),
             "--socket", self.rig.socket, "--state-dir", os.path.join(home, "state"),
             "--comfyui", self.rig.sim_url], stdin=subprocess.DEVNULL, stderr=log, env=self.rig.env)
        log.close()
        self.rig.processes.append(daemon)
        wait_for(self.rig.can_connect, "the supervisor's socket")
        _, pids = self.processes(daemon)
        for pid in pids:
            self.assertEqual(status_of(pid)["Uid"].split()[0], "12001")
            wait_for(lambda: status_of(pid)["NoNewPrivs"] == "1", "the sandbox")
            wait_for(lambda: SANITIZED or os.stat("/proc/%d/environ" % pid).st_uid == 0, "no dump of it")
            self.shut_in(pid)

    def test_of_a_worker_of_ones_own(self):
        self.rig.start_sim()
        self.rig.write("wf.json", sampler(steps=2000, step_ms=20))
        self.rig.write("conf", "autostart = no\n")
        run = self.rig.start("comfymux", "run", "wf.json", "--socket", self.rig.socket,
                             "--comfyui", self.rig.sim_url, "--config", "conf")
        wait_for(lambda: self.rig.stats()["requests"].get("POST /prompt"), "the prompt")
        self.shut_in(descendants(run.pid)[0])
        run.terminate()

    def test_a_name_is_looked_up(self):
        """By one without a supervisor; it may then open files to read."""
        self.rig.start_sim()
        self.rig.write("wf.json", sampler())
        self.rig.write("conf", "autostart = no\n")
        name = os.uname().nodename
        with open("/etc/hosts") as f:
            if not any(line.split()[:1] == ["127.0.0.1"] and name in line.split() for line in f):
                name = "localhost"
        done = self.rig.run("run", "wf.json", "--comfyui", "http://%s:%d" % (name, self.rig.sim_port),
                            "--config", "conf", check=0)
        self.assertNotIn("sandbox: system call", done.stderr)
        done = self.rig.run("run", "wf.json", "--comfyui", "http://no-such-host.invalid:1",
                            "--config", "conf", check=5)
        self.assertNotIn("sandbox: system call", done.stderr)
        self.assertIn("no-such-host.invalid", done.stderr)

    def test_off(self):
        self.rig.start_sim()
        self.rig.write("conf", "sandbox = no\n")
        daemon = self.rig.start_daemon("--config", self.rig.path("conf"))
        _, pids = self.processes(daemon)
        for pid in pids:
            self.assertEqual(status_of(pid)["Seccomp"], "0")
            self.assertEqual(status_of(pid)["NoNewPrivs"], "0")

    def test_a_zygote_after_a_fault(self):
        """The supervisor may start that one program still."""
        self.rig.start_sim()
        daemon = self.rig.start_daemon()
        keeper, pids = self.processes(daemon)
        os.kill(pids[1], 9)
        wait_for(lambda: "the zygote" in self.rig.log_of("comfymuxd"), "the zygote's end")
        again = Keeper(self.rig.socket)
        self.addCleanup(again.sock.close)
        _, channel = again.attach()
        self.addCleanup(channel.close)
        wait_for(lambda: len([s for s in self.rig.sessions() if s["pid"] > 0]) == 2, "a second worker")


if __name__ == "__main__":
    unittest.main()

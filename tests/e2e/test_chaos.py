"""Schedules of random faults (tests/chaos), shortened: fixed seeds that once
found something, and a random one. `make chaos` runs them for longer."""
import os
import random
import subprocess
import sys
import tempfile
import unittest

import rig

CHAOS = os.path.join(rig.ROOT, "tests", "chaos", "chaos.py")
LIMIT_S = 280


# In classes of their own, which run-e2e runs side by side.
class Case(unittest.TestCase):
    def chaos(self, seed, seconds, *more):
        with tempfile.TemporaryDirectory(prefix="cmx-") as folder:
            log = os.path.join(folder, "log")
            # Not a pipe: whatever outlives it would keep that open.
            with open(log, "wb") as out:
                status = subprocess.call(
                    [sys.executable, CHAOS, "--seed", str(seed), "--seconds", str(seconds),
                     "--sessions", "4", *more], stdin=subprocess.DEVNULL, stdout=out,
                    stderr=subprocess.STDOUT, timeout=LIMIT_S)
            with open(log, errors="replace") as f:
                text = f.read()
        self.assertEqual(status, 0, text[-20000:])


class Deaths(Case):
    def test_deaths(self):
        """Everything that can be killed is."""
        self.chaos(1, 12, "--only", "worker_kill,worker_fault,workers_kill,zygote_kill,"
                   "supervisor_kill,supervisor_usr2,restart_workers,sim_kill,sim_restart")


class Link(Case):
    def test_link(self):
        """The way to ComfyUI, at its worst."""
        self.chaos(2, 12, "--only", "sim_deaf,sim_silent,sim_drop,sim_stop,post_cut,post_status,"
                   "reply_truncate,net_cut,net_half_open,net_freeze,net_refuse,worker_kill")


class Any(Case):
    def test_any(self):
        """Everything, and never the same."""
        self.chaos(random.SystemRandom().randrange(1 << 31), 12)


if __name__ == "__main__":
    unittest.main()

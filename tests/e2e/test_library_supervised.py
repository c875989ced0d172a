"""libcomfymux with a supervisor: events, and what becomes of them when it dies."""
import signal
import unittest

import liblib
from rig import wait_for


def setUpModule():
    liblib.install()
    unittest.addModuleCleanup(liblib.remove)


class Supervised(liblib.Both, liblib.LibraryCase):
    method = "websocket"
    told_availability = "connected: progress in real time"

    def setUp(self):
        super().setUp()
        self.daemon = self.rig.start_daemon()

    def test_available(self):
        out = self.run_it("available").splitlines()
        self.assertEqual(out, ["1 0 ", "1"])

    def test_not_connected_to_comfyui(self):
        self.rig.processes[0].kill()
        self.rig.processes[0].wait()
        wait_for(lambda: self.rig.status()["upstream"]["state"] != "connected", "the link to break")
        out = self.run_it("available").splitlines()
        self.assertRegex(out[0], r"^0 0 the supervisor is not connected to ComfyUI \(\w+\)$")

    def test_one_connection_for_all(self):
        ids = [self.submit(liblib.sampler(seed=s, steps=6, step_ms=30)) for s in range(300, 305)]
        self.run_it("watch", *ids)
        stats = self.rig.stats()
        self.assertEqual(stats["websockets"]["total"], 1)
        # One look of the supervisor's at the queue, for the positions.
        self.assertEqual(stats["requests"]["POST /prompt"], 5)
        self.assertLessEqual(stats["requests_total"], 5 + 1 + 1, stats)

    def test_supervisor_killed(self):
        """In the middle: polling takes over, and gives way again."""
        self.rig.pause(steps=30)
        p = self.start("run", self.workflow(steps=600, step_ms=20))
        line = self.until_executing(p)
        self.assertIn(" websocket ", line)
        before = self.rig.stats()["requests"].get("GET /queue", 0)
        self.daemon.kill()
        self.daemon.wait()
        wait_for(lambda: self.rig.stats()["requests"].get("GET /queue", 0) > before, "polling")
        self.rig.start_daemon()
        self.rig.resume()
        # It had come to 30 of 600 before.
        while not (line.startswith("executing websocket 3") and float(line.split()[3]) > 0.06):
            line = self.rig.read_line(p.stdout.buffer, "events again").decode()
        out = self.finish(p)
        self.assertIn("completed websocket", out)
        self.assertEqual(len(self.posts()), 1)

    def test_supervisor_killed_for_good(self):
        self.rig.pause(steps=30)
        p = self.start("run", self.workflow(steps=100, step_ms=20))
        self.until_executing(p)
        self.daemon.kill()
        self.daemon.wait()
        self.rig.resume()
        out = self.finish(p)
        self.assertIn("completed polling", out)
        self.assertEqual(len(self.posts()), 1)

    def test_batch_with_supervisor_killed(self):
        self.rig.pause(starts=2)
        p = self.start("batch", "2", "0", *(self.workflow(steps=20, step_ms=20) for _ in range(5)))
        wait_for(lambda: len(self.posts()) >= 3, "the batch to run")
        self.daemon.kill()
        self.daemon.wait()
        self.rig.start_daemon()
        self.rig.resume()
        self.assertEqual(self.finish(p).splitlines(), ["end all went well"] + ["all went well||"] * 5)
        self.assertEqual(len(self.posts()), 5)

    def test_supervisor_stopped(self):
        """Doesn't answer, and holds the program up nowhere."""
        self.daemon.send_signal(signal.SIGSTOP)
        self.addCleanup(self.daemon.send_signal, signal.SIGCONT)
        out = self.run_it("available").splitlines()
        self.assertIn("did not answer", out[0])

    def test_another_comfyui(self):
        other = self.rig.sim_url
        self.rig.start_sim()
        self.assertNotEqual(self.rig.sim_url, other)
        out = self.run_it("run", self.workflow())
        self.assertIn("completed polling", out)
        self.assertEqual(len(self.posts()), 1)
        self.assertIn("0 -", self.run_it("available"))

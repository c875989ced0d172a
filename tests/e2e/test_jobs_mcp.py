"""execute_batch and execute_chain, and their jobs in the other tools."""
import itertools
import json
import unittest

import proclib
import rig
from rig import wait_for
from test_jobs import TAKE
from toollib import Tools, failing, sampler


class Jobs(unittest.TestCase):
    def setUp(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)
        self.rig.start_sim()
        self.daemon = self.rig.start_daemon()

    def tools(self, **kwargs):
        t = Tools(self.rig, **kwargs)
        self.addCleanup(t.client.process.wait)
        self.addCleanup(t.client.process.stdin.close)
        return t

    def posts(self):
        return len([f for f in self.rig.journal() if f["fact"] == "post"])

    def executed(self):
        ids = [f["prompt_id"] for f in self.rig.journal() if f["fact"] == "start"]
        self.assertEqual(len(ids), len(set(ids)), "a prompt ran twice")
        return ids

    def test_batch(self):
        t = self.tools()
        big = json.dumps(sampler(seed=18446744073709551615))
        out = t.good("execute_batch", workflows=[sampler(seed=1), big, sampler(seed=3)], concurrency=2)
        self.assertEqual((out["status"], out["total"], out["completed"], out["failed"]), ("completed", 3, 3, 0))
        self.assertEqual([r["index"] for r in out["results"]], [0, 1, 2])
        self.assertEqual({r["status"] for r in out["results"]}, {"completed"})
        self.assertEqual(len(self.executed()), 3)
        self.assertIn("18446744073709551615", json.dumps([f for f in self.rig.journal() if f["fact"] == "post"]))

    def test_progress_is_of_all_nodes(self):
        """One rising scale for the whole: of three workflows it tells more than
        the thirds, and the same to whoever waits later."""
        t = self.tools()
        seeds = itertools.count()

        def tells_of_steps():
            token = "b%d" % next(seeds)
            call = t.start("execute_batch", token=token, concurrency=1, timeout_ms=60000,
                           workflows=[sampler(steps=30, step_ms=40, seed=next(seeds)) for _ in range(3)])
            t.end_of(call, "execute_batch")
            told = [p["progress"] for p in t.client.progress(token)]
            self.assertEqual(told, sorted(set(told)))
            # Of all, whenever the machine isn't busy.
            return len([p for p in told if 0.02 < p < 0.31]) > 1
        wait_for(tells_of_steps, "more than the thirds")
        call = t.start("execute_batch", token="s", workflows=[sampler(steps=200, step_ms=30)], timeout_ms=5000)
        t.client.wait(lambda: [p for p in t.client.progress("s") if p["progress"] > 0.01], "a step")
        self.rig.pause()
        slow = t.end_of(call, "execute_batch")[1]
        self.assertTrue(0 < slow["fraction"] < 1, slow)
        look = t.good("get_execution_progress", prompt_id=slow["job_id"])
        self.assertTrue(slow["fraction"] <= look["fraction"] < 1, look)
        self.rig.resume()
        self.assertEqual(t.good("wait_for_execution", prompt_id=slow["job_id"], timeout_ms=60000)["fraction"], 1)

    def test_a_failure_spares_the_others(self):
        t = self.tools()
        out = t.good("execute_batch", workflows=[sampler(), failing(), "no JSON"])
        self.assertEqual(out["status"], "failed")
        self.assertEqual([r["status"] for r in out["results"]], ["completed", "failed", "failed"])
        self.assertEqual(out["results"][1]["error"]["type"], "CheeseError")

    def test_bad_arguments(self):
        t = self.tools()
        for more in ({"concurrency": 0}, {"concurrency": 10000}):
            t.bad("execute_batch", "invalid", "concurrency", workflows=[sampler()], **more)
        t.bad("execute_batch", "invalid", "workflows", workflows=[])
        t.bad("execute_chain", "invalid", "steps", steps=[])
        self.assertEqual(self.posts(), 0)

    def test_chain(self):
        t = self.tools()
        out = t.good("execute_chain", steps=[
            {"workflow": sampler(), "params": {"3.steps": 2}},
            {"workflow": TAKE, "inputFrom": {"step": 0, "outputNode": "9", "outputIndex": 0}, "outputTo": "image"}])
        self.assertEqual(out["results"][1]["handed"],
                         out["results"][0]["outputs"]["9"]["images"][0]["filename"] + " [output]")

    def test_a_hand_over_that_cannot_be_done(self):
        t = self.tools()
        out = t.good("execute_chain", stop_on_error=False, steps=[
            {"workflow": sampler()},
            {"workflow": TAKE, "inputFrom": {"step": 0, "outputNode": "77"}, "outputTo": "image"},
            {"workflow": sampler(seed=2)}])
        self.assertEqual([r["status"] for r in out["results"]], ["completed", "failed", "completed"])

    def test_job_goes_on_after_the_wait(self):
        t = self.tools()
        self.rig.pause()
        out = t.good("execute_batch", workflows=[sampler(steps=20, step_ms=40, seed=i) for i in range(3)],
                   timeout_ms=500)
        self.assertTrue(out["timed_out"])
        job = out["job_id"]
        self.assertEqual(t.good("get_execution_progress", prompt_id=job)["total"], 3)
        self.rig.resume()
        done = t.good("wait_for_execution", prompt_id=job, timeout_ms=60000)
        self.assertEqual((done["status"], done["completed"]), ("completed", 3))
        self.assertEqual(t.good("get_execution_progress", prompt_id=job)["status"], "completed")
        self.assertEqual(t.good("cancel_execution", prompt_id=job)["how"], "ended")
        self.assertEqual(len(self.executed()), 3)

    def test_cancel(self):
        t = self.tools()
        out = t.good("execute_batch", workflows=[sampler(steps=1000, step_ms=50, seed=i) for i in range(4)],
                   timeout_ms=500)
        self.assertEqual(t.good("cancel_execution", prompt_id=out["job_id"])["how"], "cancelled")
        done = t.good("wait_for_execution", prompt_id=out["job_id"], timeout_ms=60000)
        self.assertEqual({r["error"]["type"] for r in done["results"]}, {"cancelled"})

    def test_unknown_job(self):
        t = self.tools()
        for name in ("wait_for_execution", "get_execution_progress", "cancel_execution"):
            t.bad(name, "not_found", prompt_id="j999")

    def test_every_worker_killed_while_it_waits(self):
        t = self.tools()
        call = t.start("execute_batch", workflows=[sampler(steps=6, step_ms=25, seed=i) for i in range(8)],
                       timeout_ms=60000)
        for count in (1, 4):
            wait_for(lambda: self.posts() >= count, "prompts")
            for s in self.rig.sessions():
                if s["pid"] > 0:
                    proclib.end(s["pid"])
        result = t.client.answer(call)["result"]
        out = result["structuredContent"]
        self.assertEqual((out["status"], out["completed"]), ("completed", 8))
        self.assertEqual(len(self.executed()), 8)

    def test_supervisor_killed_while_it_waits(self):
        t = self.tools()
        call = t.start("execute_chain", timeout_ms=60000, steps=[
            {"workflow": sampler(steps=20, step_ms=40)},
            {"workflow": TAKE, "inputFrom": {"step": 0}, "outputTo": "image"}])
        wait_for(lambda: self.posts() >= 1, "the first step")
        self.daemon.kill()
        self.daemon.wait()
        self.rig.start_daemon()
        out = t.client.answer(call)["result"]["structuredContent"]
        self.assertEqual((out["status"], out["completed"]), ("completed", 2))
        self.assertEqual(len(self.executed()), 2)


class Alone(unittest.TestCase):
    def test_batch_and_chain(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)
        self.rig.start_sim()
        self.rig.env["COMFYUI_HOST"] = self.rig.sim_url
        self.rig.write("config/comfymux/comfymux.conf", "autostart = no\n")
        t = Tools(self.rig)
        self.addCleanup(t.client.process.wait)
        self.addCleanup(t.client.process.stdin.close)
        out = t.good("execute_batch", workflows=[sampler(seed=1), sampler(seed=2)])
        self.assertEqual({r["method"] for r in out["results"]}, {"polling"})
        out = t.good("execute_chain", steps=[
            {"workflow": sampler()}, {"workflow": TAKE, "inputFrom": {"step": 0}, "outputTo": "image"}])
        self.assertEqual(out["completed"], 2)


if __name__ == "__main__":
    unittest.main()

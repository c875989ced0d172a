"""Nothing is lost while ComfyUI fails: it restarts and forgets, POSTs break,
others interfere, servers are old. Each with and, where there is a difference,
without a supervisor."""
import unittest

from lossless import Case, sampler
import rig
from rig import wait_for

ALONE = {"comfyui": True}  # no supervisor: a worker of the keeper's own


class Forgets(Case):
    """ComfyUI restarts and forgets."""

    def restart(self):
        self.rig.fault(fault="restart", down_ms=500)

    def test_lost(self):
        self.begin(poll_interval_ms=300, max_outstanding=10)
        runs = [self.start(sampler(steps=1000, seed=i)) for i in range(3)]
        wait_for(lambda: len(self.posts()) == 3, "all to be posted")
        self.restart()
        for run in runs:
            message = run.failed("lost")
            self.assertIn("restarted", message)
            self.assertIn("neither in its queue nor in its history", message)
        # Nobody submits again of himself.
        self.link("connected")
        self.assertEqual(len(self.facts("post")), 3)
        self.start(sampler(steps=2, seed=9)).completed()

    def test_lost_without_a_supervisor(self):
        self.rig.start_sim()
        run = self.start(sampler(steps=1000), **ALONE)
        run.steps(0, "polling")
        self.restart()
        self.assertIn("restarted", run.failed("lost"))
        self.assertEqual(len(self.facts("post")), 1)

    def test_deleted(self):
        """ComfyUI stayed up, and the queue was seen without it."""
        self.begin(max_outstanding=10)
        first = self.start(sampler(steps=1000)).executing()
        run = self.start(sampler(seed=2))
        run.wait(lambda l: l.get("queue_position") == 1, "its place")
        self.rig.sim("POST", "/queue", {"delete": [run.prompt_id()]})
        self.assertIn("someone else", run.failed("deleted"))
        self.rig.run("cancel", first.prompt_id(), check=0)
        first.failed("cancelled", 3)

    def test_shut_down_in_order(self):
        """SIGINT to ComfyUI, no close frame: the same as a crash."""
        self.begin(poll_interval_ms=300)
        sim = self.rig.processes[0]
        run = self.start(sampler(steps=1000)).executing()
        sim.terminate()
        sim.wait(rig.PATIENCE_S)
        # Nobody knows yet: it may be the network.
        wait_for(lambda: self.upstream()["state"] == "waiting", "the link's end")
        self.rig.start_sim(port=self.rig.sim_port)
        run.failed("lost")
        self.assertEqual(self.facts("post"), [])


class Submission(Case):
    """A POST that breaks is looked up before another try."""

    def both_ways(self):
        self.begin()
        yield {}
        self.end_daemon()
        yield ALONE

    def break_one(self, posts, **fault):
        for number, way in enumerate(self.both_ways(), 1):
            self.rig.fault(fault="clear")
            self.rig.fault(path="/prompt", method="POST", count=1, **fault)
            run = self.start(sampler(steps=10, seed=number), **way)
            run.completed()
            self.assertEqual(len(self.posts()), number)
            self.assertEqual(self.asked("POST /prompt"), posts * number)

    def test_broken_before_it_is_handled(self):
        """A gateway's word, and ComfyUI never saw it: tried again."""
        self.break_one(2, fault="status", code=502)

    def test_broken_after_it_is_handled(self):
        """Queued, but no reply: found, not repeated."""
        self.break_one(1, fault="cut")

    def test_reset_after_it_is_handled(self):
        self.break_one(1, fault="cut", how="rst")

    def test_broken_within_the_reply(self):
        self.break_one(1, fault="truncate", keep_bytes=20)

    def test_refused_connections(self):
        """ComfyUI's port is closed for a moment: held, then posted once."""
        self.begin()
        self.rig.fault(fault="refuse", ms=1500)
        self.rig.write("wf.json", sampler(steps=2))
        self.rig.run("submit", "wf.json", "--hold", check=0)
        wait_for(lambda: self.rig.status()["prompts"]["retained"] == 1, "its end")
        self.assertEqual(len(self.posts()), 1)

    def test_reply_that_never_comes(self):
        """Handled, but the answer is later than request_timeout_ms."""
        self.begin(request_timeout_ms=4000)
        self.rig.fault(fault="delay", path="/prompt", method="POST", ms=60000, count=1)
        self.start(sampler(steps=60)).completed()
        self.assertEqual(len(self.posts()), 1)

    def test_comfyui_restarts_within_the_post(self):
        """Taken and forgotten at once: it is not there, so it is posted."""
        self.begin(poll_interval_ms=300)
        self.rig.pause()
        self.rig.fault(fault="delay", path="/prompt", method="POST", ms=60000, count=1)
        run = self.start(sampler(steps=3))
        wait_for(lambda: self.facts("post"), "the POST")
        self.rig.fault(fault="clear")
        self.rig.fault(fault="restart", down_ms=300)
        wait_for(lambda: "lost the connection" in self.rig.log_of("comfymuxd"), "the restart")
        self.link("connected")
        self.rig.resume()
        run.completed()
        self.assertEqual(len(self.facts("start")), 1)

    def test_old_server(self):
        """It ignores prompt_id: followed by the id that it gave."""
        self.begin("--ignore-prompt-id", "--no-progress-state", "--no-jobs-api")
        run = self.start(sampler(steps=20))
        end = run.completed()
        self.assertEqual(end["progress_method"], "websocket")
        self.assertEqual([n for n in end["completed_nodes"]], ["3", "9"])
        self.assertNotEqual(self.posts(), [end["prompt_id"]])
        self.assertEqual(self.polled(), 0)
        self.end_daemon()
        run = self.start(sampler(steps=20, seed=2), **ALONE)
        end = run.process.wait(rig.PATIENCE_S)
        run.reader.join(rig.PATIENCE_S)
        self.assertEqual(end, 0, run.stderr())
        self.assertEqual(run.lines[-1]["status"], "completed")
        self.assertEqual(run.lines[-1]["prompt_id"], self.posts()[1])

    def test_old_server_that_could_not_answer(self):
        """By its marker a lone worker finds what it posted: while it runs, and
        when it is over."""
        self.rig.start_sim("--ignore-prompt-id", "--no-progress-state", "--no-jobs-api")
        for seed, steps in ((1, 60), (2, 1)):
            self.rig.fault(fault="cut", path="/prompt", method="POST", count=1)
            run = self.start(sampler(steps=steps, seed=seed), **ALONE)
            self.assertEqual(run.process.wait(rig.PATIENCE_S), 0, run.stderr())
            run.reader.join(rig.PATIENCE_S)
            self.assertEqual(run.lines[-1]["status"], "completed")
            self.assertEqual(run.lines[-1]["prompt_id"], self.posts()[-1])
        self.assertEqual(len(self.posts()), 2)

    def test_old_server_with_events_before_the_reply(self):
        self.begin("--ignore-prompt-id", "--no-progress-state", "--no-jobs-api")
        self.rig.fault(fault="delay", path="/prompt", method="POST", ms=700, count=1)
        end = self.start(sampler(steps=3)).completed()
        self.assertEqual(end["progress_method"], "websocket")
        self.assertEqual(end["completed_nodes"], ["3", "9"])
        self.assertEqual(self.polled(), 0)


class Others(Case):
    """Somebody else interrupts, deletes, clears."""

    def pair(self, way):
        """A run that executes and one that waits."""
        first = self.start(sampler(steps=3000, step_ms=20, seed=len(self.rig.processes)), **way)
        first.steps(0)
        waits = self.start(sampler(seed=1000 + len(self.rig.processes)), **way)
        waits.wait(lambda l: l.get("queue_position") == 1, "its place")
        return first, waits

    def test_by_events(self):
        """At once: an event or a status tells, and nobody waits for a poll."""
        self.begin(max_outstanding=10, poll_interval_ms=60000)
        first, waits = self.pair({})
        self.rig.sim("POST", "/queue", {"clear": True})
        self.assertIn("someone else", waits.failed("deleted"))
        self.rig.sim("POST", "/interrupt")
        message = first.failed("interrupted")
        self.assertTrue(message)

    def test_by_polling(self):
        """Within a poll or two, never by running into a timeout."""
        self.rig.start_sim()
        first, waits = self.pair(ALONE)
        self.rig.sim("POST", "/queue", {"clear": True})
        self.assertIn("someone else", waits.failed("deleted"))
        self.rig.sim("POST", "/interrupt")
        first.failed("interrupted")

    def test_while_the_link_is_down(self):
        self.begin(max_outstanding=10, poll_interval_ms=300)
        first, waits = self.pair({})
        self.rig.fault(fault="status", path="/ws", code=503, count=0)
        self.rig.fault(fault="drop")
        self.link("waiting")
        self.rig.sim("POST", "/queue", {"clear": True})
        # The other one shows that ComfyUI stayed up.
        self.assertIn("someone else", waits.failed("deleted"))
        self.assertEqual(waits.lines[-1]["progress_method"], "polling")
        self.rig.sim("POST", "/interrupt")
        first.failed("interrupted")


if __name__ == "__main__":
    unittest.main()

"""Nothing is lost while the way to ComfyUI fails: the WebSocket is down,
half-open, or deaf."""
import time
import unittest

from lossless import Case, sampler
from rig import wait_for


class LinkDown(Case):
    """Upstream trouble: the link is down, half-open, deaf."""

    def refuse_upgrades(self):
        self.rig.fault(fault="status", path="/ws", code=503, count=0)
        self.rig.fault(fault="drop")

    def test_one_polls_for_everybody(self):
        """While the WebSocket is down nobody but the supervisor asks, once a
        round, whatever the number of sessions; what it tells has method
        "polling", and after the reconnect "websocket" again."""
        self.begin(poll_interval_ms=300, max_outstanding=10)
        self.rig.pause(steps=2)
        runs = [self.start(sampler(seed=i, steps=100000 if i else 200)) for i in range(10)]
        wait_for(lambda: len(self.posts()) == 10, "all to be posted")
        wait_for(lambda: any(l.get("current_node_progress") for r in runs for l in r.lines), "one to run")
        marks = [r.mark() for r in runs]
        self.refuse_upgrades()
        self.link("waiting")
        began, before = time.monotonic(), self.asked("GET /queue")
        history = self.asked("GET /history")
        wait_for(lambda: self.asked("GET /queue") >= before + 6, "rounds of polling")
        rounds = self.asked("GET /queue") - before
        # At most one a round, not ten; a tenth of jitter.
        self.assertLess(rounds, 2 + (time.monotonic() - began) / 0.3 / 0.85)
        self.assertEqual(self.asked("GET /history"), history)
        self.assertEqual(len(self.rig.sessions()), 10)
        self.rig.fault(fault="clear")
        self.link("connected")
        self.rig.resume()
        for run in runs[1:]:
            self.rig.run("cancel", run.prompt_id(), check=0)
        runs[0].steps(marks[0], "websocket")
        self.assertEqual(runs[0].completed()["progress_method"], "websocket")
        for run in runs[1:]:
            run.failed("cancelled", 3)

    def test_progress_by_polling(self):
        """What was learned by polling says so, and the result as well."""
        self.begin(poll_interval_ms=200)
        self.rig.pause(steps=2)
        first = self.start(sampler(steps=10)).executing()
        second = self.start(sampler(steps=10, seed=2))
        second.wait(lambda l: l.get("queue_position") == 1, "its place")
        self.refuse_upgrades()
        self.link("waiting")
        self.rig.pause(steps=10)  # the first ends, the second begins
        second.wait(lambda l: l["status"] == "executing" and l["method"] == "polling", "news by polling")
        self.rig.resume()
        self.assertEqual(first.completed()["progress_method"], "polling")
        self.assertEqual(second.completed()["progress_method"], "polling")
        self.posts()

    def test_reconciled_after_a_reconnect(self):
        """One ended, one started, one was deleted and one still waits while
        nobody heard: all of it is known right after the reconnect."""
        self.begin(poll_interval_ms=60000, max_outstanding=10)
        self.rig.pause()
        runs = [self.start(sampler(steps=10, seed=i)) for i in range(4)]
        wait_for(lambda: len(self.posts()) == 4, "all to be posted")
        ids = [r.prompt_id() for r in runs]
        order = self.posts()
        runs = [runs[ids.index(p)] for p in order]
        self.rig.pause(steps=2)
        runs[0].executing()
        self.refuse_upgrades()
        self.link("waiting")
        self.rig.sim("POST", "/queue", {"delete": [order[2]]})
        self.rig.pause(steps=10)
        wait_for(lambda: order[1] in [j["prompt_id"] for j in self.facts("start")], "the second to start")
        self.rig.fault(fault="clear")
        runs[0].completed()
        # Whether it ran before is known if it was seen in the queue once.
        runs[2].failed(("lost", "deleted"))
        self.rig.resume()
        runs[1].completed()
        runs[3].completed()

    def test_half_open(self):
        """No byte comes any more and none is taken: found when the pong is
        overdue; the prompt ends by what /history says, then events again."""
        self.begin(ping_interval_s=1, pong_timeout_s=5)
        self.rig.pause(steps=2)
        run = self.start(sampler(steps=50)).executing()
        mark = run.mark()
        began = time.monotonic()
        self.rig.fault(fault="half_open")
        wait_for(lambda: self.upstream()["reconnects"] >= 1, "a fresh link")
        # Not before its time: one ping, one deadline.
        self.assertGreater(time.monotonic() - began, 1)
        self.assertIn("no answer to a ping in time", self.rig.log_of("comfymuxd"))
        self.link("connected")
        self.rig.pause(steps=3)
        run.steps(mark, "websocket")
        self.rig.resume()
        run.completed()
        wait_for(lambda: self.rig.stats()["websockets"]["open"] == 1, "the end of the old one")
        self.posts()

    def test_deaf(self):
        """As in recording 12, some time after a reconnect: pings are answered,
        events don't come. Silence is looked into, and an end that nobody told
        of gives it away."""
        self.begin()
        self.rig.run("reconnect", check=0)
        wait_for(lambda: self.upstream()["reconnects"] == 1, "the reconnect")
        self.link("connected")
        self.rig.pause(steps=2)
        run = self.start(sampler(steps=100, step_ms=20)).executing()
        self.rig.fault(fault="deaf", after_ms=300)
        self.rig.resume()
        run.completed()
        wait_for(lambda: self.upstream()["reconnects"] == 2, "a fresh link")
        self.link("connected")
        # It hears again: one POST and nothing else.
        before = self.polled()
        self.assertEqual(self.start(sampler(steps=3, seed=2)).completed()["progress_method"], "websocket")
        self.assertEqual(self.polled(), before)
        self.posts()

    def test_deaf_before_a_start(self):
        """The next prompt runs for a long time, and nobody was told that it
        started: noticed while it runs."""
        self.begin(max_outstanding=10)
        self.rig.pause(steps=2)
        first = self.start(sampler(steps=50, step_ms=20)).executing()
        second = self.start(sampler(steps=100000, step_ms=20, seed=2))
        second.wait(lambda l: l.get("queue_position") == 1, "its place")
        self.rig.fault(fault="deaf")
        self.rig.resume()
        wait_for(lambda: self.upstream()["reconnects"] >= 1, "a fresh link")
        first.completed()
        second.steps(second.mark(), "websocket")
        self.rig.run("cancel", second.prompt_id(), check=0)
        second.failed("cancelled", 3)

    def test_deaf_before_a_post(self):
        """No status follows our POST: suspected at once, not at the end."""
        self.begin()
        self.rig.fault(fault="deaf")
        self.rig.pause(steps=2)
        run = self.start(sampler(steps=50))
        wait_for(lambda: self.upstream()["reconnects"] >= 1, "a fresh link")
        self.link("connected")
        self.rig.pause(steps=3)
        run.steps(0, "websocket")
        self.rig.resume()
        run.completed()
        self.posts()

    def test_real_overlap(self):
        """The simulator's own deafness, as recorded: the socket of a killed
        supervisor lingers half-open, a new one comes, the old one ends."""
        self.begin()
        self.rig.pause(steps=2)
        run = self.start(sampler(steps=50)).executing()
        self.rig.fault(fault="half_open")
        self.end_daemon()
        self.start_daemon(connected=False)
        self.link("connected")
        mark = run.mark()
        self.rig.fault(fault="half_open", on=False)
        self.rig.resume()
        run.steps(mark)
        run.completed()
        self.posts()


if __name__ == "__main__":
    unittest.main()

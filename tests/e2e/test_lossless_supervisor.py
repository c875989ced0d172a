"""Nothing is lost in the supervisor: cancels outlive it, and what somebody was
told of doesn't vanish."""
import os
import signal
import sqlite3
import unittest
import uuid

from muxlib import PATIENCE, Case, posts
from proclib import descriptors
from simlib import sampler


class Cancelled(Case):
    """A cancel that was answered holds, though the supervisor is killed at
    once: before its result is stored, 50 ms later."""

    def cancel(self, d, prompt_id):
        return d.client().ask("cancel", prompt_id=prompt_id)["how"]

    def ended(self, d, count):
        d.until(lambda: d.status()["prompts"]["retained"] == count, "ends")

    def test_in_our_queue(self):
        sim, d = self.pair(shared=True, config={"max_outstanding": 1})
        sim.fault("pause")
        c = d.client()
        ids = [c.ask("submit", workflow=sampler(seed=i), hold=True)["prompt_id"] for i in range(3)]
        self.assertEqual(self.cancel(d, ids[1]), "dequeued")
        d.kill()
        sim.fault("resume")
        d.start()
        self.ended(d, 3)
        self.assertEqual(posts(sim), [ids[0], ids[2]])
        c = d.client()
        self.failed(c.ask("progress", prompt_id=ids[1]), "cancelled")
        self.completed(c.ask("progress", prompt_id=ids[2]))

    def test_posted_by_its_worker_meanwhile(self):
        """Which had not heard of it: then it is taken out of ComfyUI."""
        sim, d = self.pair(shared=True, config={"max_outstanding": 1})
        sim.fault("pause")
        c = d.client()
        ids = [c.ask("submit", workflow=sampler(seed=i), hold=True)["prompt_id"] for i in range(2)]
        self.assertEqual(self.cancel(d, ids[1]), "dequeued")
        d.kill()
        sim.post(sampler(seed=1), prompt_id=ids[1], client_id="somebody")
        d.start()
        d.until(lambda: sim.journal("deleted"), "the deletion")
        sim.fault("resume")
        self.ended(d, 2)
        self.failed(d.client().ask("progress", prompt_id=ids[1]), "cancelled")
        self.assertEqual([f["prompt_id"] for f in sim.journal("start")], ids[:1])

    def test_in_comfyuis_queue(self):
        """Not lost, nor deleted by somebody else: cancelled."""
        sim, d = self.pair()
        sim.fault("pause")
        c = d.client()
        ids = [c.ask("submit", workflow=sampler(seed=i))["prompt_id"] for i in range(2)]
        self.assertIn(self.cancel(d, ids[1]), ("dequeued", "cancelled"))
        d.kill()
        d.start()
        sim.fault("resume")
        self.ended(d, 2)
        self.failed(d.client().ask("progress", prompt_id=ids[1]), "cancelled")
        self.assertEqual(posts(sim), ids)

    def test_running(self):
        """The interrupt is at work when the supervisor dies."""
        sim, d = self.pair("--no-jobs-api")
        c = d.client()
        one = c.ask("submit", workflow=sampler(steps=200, step_ms=50), subscribe=True)["prompt_id"]
        c.event("progress", one)
        self.assertIn(self.cancel(d, one), ("interrupted", "cancelled"))
        d.kill()
        d.start()
        self.ended(d, 1)
        self.failed(d.client().ask("progress", prompt_id=one), "cancelled")

    def test_killed_before_comfyui_was_asked(self):
        """Nobody was answered, but what is wanted is known."""
        sim, d = self.pair("--no-jobs-api")
        sim.fault("pause")
        c = d.client()
        one = c.ask("submit", workflow=sampler())["prompt_id"]
        sim.fault("delay", path="/queue", ms=60000)

        def asked():
            return sim.stats()["requests"].get("GET /queue", 0)
        before = asked()
        c.request("cancel", prompt_id=one)
        d.until(lambda: asked() > before, "the question")
        d.kill()
        sim.fault("clear")
        d.start()
        self.ended(d, 1)
        self.failed(d.client().ask("progress", prompt_id=one), "cancelled")
        sim.fault("resume")
        self.assertEqual(sim.journal("start"), [])

    def test_done_but_cut(self):
        """Nobody can say whether it took effect; when it did, it is told as
        what it was."""
        sim, d = self.pair("--no-jobs-api")
        sim.fault("pause")
        c = d.client()
        ids = [c.ask("submit", workflow=sampler(seed=i), subscribe=True)["prompt_id"] for i in range(2)]
        sim.fault("cut", path="/queue", method="POST", count=1)
        self.assertEqual(c.refused("cancel", prompt_id=ids[1])["type"], "unreachable")
        sim.fault("drop")
        self.failed(c.finished(ids[1]), "cancelled")

    def test_refused(self):
        """One that failed, and was said to have failed, is not made up for."""
        sim, d = self.pair("--no-jobs-api")
        sim.fault("pause")
        c = d.client()
        one = c.ask("submit", workflow=sampler())["prompt_id"]
        sim.fault("status", path="/queue", method="POST", code=500)
        c.refused("cancel", prompt_id=one)
        d.kill()
        sim.fault("clear")
        sim.fault("resume")
        d.start()
        self.ended(d, 1)
        self.completed(d.client().ask("progress", prompt_id=one))


class Told(Case):
    """A submission that ComfyUI can't be given is as if it had never been, for
    its submitter is told. Not if others were told that it waits."""

    def stuck(self, question):
        """One that waits behind a POST without an answer, of which a second
        client has asked. Then ComfyUI goes away."""
        sim, d = self.pair(config={"poll_interval_ms": 200})
        sim.fault("silent", ms=60000)
        sim.fault("delay", path="/prompt", ms=60000)
        c, other = d.client(), d.client()
        ids = [str(uuid.uuid4()) for _ in range(2)]
        requests = [c.request("submit", workflow=sampler(seed=i), prompt_id=ids[i]) for i in range(2)]
        d.until(lambda: d.counter("accepted") == 2 and posts(sim), "the POST")
        self.assertTrue(other.ask(question, prompt_id=ids[1]))
        sim.kill()
        return sim, d, c, other, ids, requests

    def look(self, question):
        sim, d, c, other, ids, requests = self.stuck(question)
        self.assertEqual(c.reply(requests[1])["status"], "queued")
        self.sim(port=sim.port)
        other.ask("subscribe", prompt_id=ids[1])
        self.completed(other.finished(ids[1]))

    def test_asked_by_another(self):
        self.look("progress")

    def test_subscribed_by_another(self):
        self.look("subscribe")

    def test_refused(self):
        """By ComfyUI: the submitter hears of it, and so does the other."""
        sim, d = self.pair()
        c, other = d.client(), d.client()
        one = str(uuid.uuid4())
        sim.proc.send_signal(signal.SIGSTOP)
        try:
            request = c.request("submit", prompt_id=one, subscribe=True,
                                workflow={"1": {"class_type": "NoSuchNode", "inputs": {}}})
            d.until(lambda: d.counter("posts") == 1, "the POST")
            other.ask("subscribe", prompt_id=one)
        finally:
            sim.proc.send_signal(signal.SIGCONT)
        self.failed(other.finished(one), "rejected")
        c.reply(request)
        self.failed(c.finished(one), "rejected")


class Early(Case):
    def test_told_to_leave_while_it_starts(self):
        """SIGUSR2 comes when the supervisor waits for its database: it leaves
        as one that had started, and is no crash."""
        sim, d = self.pair()
        d.stop()
        path = os.path.join(d.state, "comfymux.db")
        db = sqlite3.connect(path)
        self.addCleanup(db.close)
        for attempt in range(1, 6):
            db.execute("BEGIN EXCLUSIVE")
            d.proc = d.launch()
            d.until(lambda: d.proc.poll() is not None or path in descriptors(d.proc.pid).values(),
                    "the database to be opened")
            d.proc.send_signal(signal.SIGUSR2)
            db.rollback()
            status = d.proc.wait(PATIENCE)
            if d.log().count("another program holds the database") < attempt:
                break
            # It waits for a second (STORE_BUSY_MS), and we were later.
        self.assertEqual(status, 0, d.log())
        d.proc = None


if __name__ == "__main__":
    unittest.main()

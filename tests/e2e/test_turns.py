"""Turns between tenants, what is told of them, and pausing: measured in the
order in which comfysim executed. Needs root to pose as several users."""

import json
import os
import unittest

from muxlib import Case, posts
from simlib import sampler

K = 2  # max_outstanding


def quick(seed):
    return sampler(steps=1, step_ms=1, seed=seed, prefix="p%d" % seed)


def order(sim):
    """Prompt ids in the order in which they ran."""
    return [f["prompt_id"] for f in sim.journal("start")]


def outstanding_max(sim, mine):
    """The most of `mine` that ComfyUI had at once."""
    now = most = 0
    for f in sim.journal():
        if f.get("prompt_id") not in mine:
            continue
        if f["fact"] == "post":
            now += 1
        elif f["fact"] == "end":
            now -= 1
        most = max(most, now)
    return most


@unittest.skipIf(os.geteuid() != 0, "needs root to pose as others")
class Turns(Case):

    def client_as(self, d, uid):
        os.chmod(d.dir, 0o711)
        os.seteuid(uid)
        try:
            return d.client()
        finally:
            os.seteuid(0)

    def positions(self, client, ids):
        """As told last; by op queue."""
        told = {}
        for e in client.ask("queue")["pending"]:
            told[e["prompt_id"]] = e.get("queue_position")
        return [told.get(i) for i in ids]

    def web(self, sim, seed):
        """A prompt of the web page."""
        r = sim.post(quick(seed), client_id="web-page")
        self.assertEqual(r.status, 200, r.text)
        return r.json()["prompt_id"]

    def submit_all(self, client, n, seed, **more):
        asked = [client.request("submit", workflow=quick(seed + i), **more)
                 for i in range(n)]
        return [client.reply(a)["prompt_id"] for a in asked]

    def wait_positions(self, d, client, ids, want):
        d.until(lambda: self.positions(client, ids) == want or None,
                "positions %r, not %r" % (
                    want, self.positions(client, ids)))

    def test_a_flood_delays_a_single_prompt_by_what_was_granted(self):
        sim, d = self.pair(shared=True, config={"max_outstanding": K})
        sim.fault("pause")
        ann, bob = self.client_as(d, 12001), self.client_as(d, 12002)
        before = [self.web(sim, 1000 + i) for i in range(2)]
        flood = self.submit_all(ann, 200, 0)
        d.until(lambda: len(posts(sim)) == 2 + K, "K posts")
        between = [self.web(sim, 1100 + i) for i in range(3)]
        five = self.submit_all(bob, 5, 500, subscribe=True)
        # Before Bob's first: all that ComfyUI has. Before each next: his own
        # before, and one turn of Ann's.
        ahead = 2 + K + 3
        want = [ahead + 2 * i for i in range(5)]
        self.wait_positions(d, bob, five, want)
        # Ann's third comes after Bob's first.
        self.wait_positions(d, ann, flood[K:K + 3],
                            [ahead + 1, ahead + 3, ahead + 5])
        # What comes from the web page now goes before all that waits here.
        late = [self.web(sim, 1200 + i) for i in range(2)]
        want = [w + 2 for w in want]
        self.wait_positions(d, bob, five, want)
        sim.fault("resume")
        for i in five:
            self.completed(bob.finished(i))
        d.until(lambda: d.status()["prompts"]["retained"] == 205, "ends")
        ran = order(sim)
        self.assertEqual(len(ran), 205 + 7)
        self.assertEqual(len(set(ran)), len(ran))
        self.assertEqual([ran.index(i) for i in five], want)
        self.assertEqual(outstanding_max(sim, set(flood + five)), K)
        self.assertEqual([i for i in ran if i in flood], flood)
        self.assertEqual([i for i in ran if i in before + between + late],
                         before + between + late)
        # Told on the way: never backwards, as nobody came in between.
        for i in five:
            told = [e["data"]["queue_position"] for e in bob.events
                    if e["event"] == "queued" and e["prompt_id"] == i]
            self.assertIn(want[five.index(i)], told)
            after = told[told.index(want[five.index(i)]):]
            self.assertEqual(after, sorted(after, reverse=True))

    def test_one_at_a_time_beside_a_flood(self):
        """A tenant that submits anew when the last is done waits for K of
        the other's at most, each time, while the web page stays out."""
        sim, d = self.pair(shared=True, config={"max_outstanding": K})
        ann, bob = self.client_as(d, 12001), self.client_as(d, 12002)
        sim.fault("pause")
        self.submit_all(ann, 60, 0)
        for n in range(10):
            # Nothing starts while the submission is on its way.
            sim.fault("pause")
            ran = len(order(sim))
            i = bob.ask("submit", workflow=quick(500 + n),
                        subscribe=True)["prompt_id"]
            sim.fault("resume")
            self.completed(bob.finished(i))
            self.assertLessEqual(order(sim).index(i) - ran, K)

    def test_killed_with_200_waiting(self):
        sim, d = self.pair(shared=True, config={"max_outstanding": K})
        sim.fault("pause")
        ann, bob = self.client_as(d, 12001), self.client_as(d, 12002)
        ids = self.submit_all(ann, 150, 0) + self.submit_all(bob, 50, 500)
        for n in (20, 60, 120):
            d.kill()
            sim.fault("resume")
            d.start()
            d.until(lambda: len(order(sim)) >= n, "progress")
        d.until(lambda: d.status()["prompts"]["retained"] == 200, "ends")
        ran = order(sim)
        self.assertEqual(sorted(ran), sorted(ids))
        self.assertEqual(sorted(posts(sim)), sorted(ids))
        self.assertEqual(outstanding_max(sim, set(ids)), K)
        self.assertEqual([i for i in ran if i in ids[:150]], ids[:150])
        self.assertEqual([i for i in ran if i in ids[150:]], ids[150:])


class Pause(Case):

    def test_pause_and_resume(self):
        sim, d = self.pair(shared=True, config={"max_outstanding": K})
        c = d.client()
        sim.fault("pause")
        first = c.ask("submit", workflow=quick(1), subscribe=True)
        self.assertEqual(c.ask("pause"), {"paused": True, "waiting": 0})
        # Twice is the same as once.
        self.assertEqual(c.ask("pause"), {"paused": True, "waiting": 0})
        self.assertTrue(d.status()["paused"])
        waits = c.ask("submit", workflow=quick(2), subscribe=True)
        self.assertEqual(waits["status"], "queued")
        told = c.wait(lambda e: e.get("prompt_id") == waits["prompt_id"] and
                      e["progress"].get("paused"), "a word of the pause")
        self.assertEqual(told["progress"]["queue_position"], 1)
        self.assertTrue(c.ask("progress",
                              prompt_id=waits["prompt_id"])["paused"])
        # What ComfyUI has runs on, and says nothing of a pause.
        sim.fault("resume")
        self.completed(c.finished(first["prompt_id"]))
        self.assertNotIn('"paused"', json.dumps(
            [e for e in c.events if e.get("prompt_id") ==
             first["prompt_id"]]))
        c.wait(lambda e: e["event"] == "queued" and
               e["data"] == {"queue_position": 0, "paused": True},
               "the place at the front")
        # It survives a crash.
        d.kill()
        d.start()
        self.assertTrue(d.status()["paused"])
        c = d.client()
        late = c.ask("submit", workflow=quick(3))
        c.ask("subscribe")
        sim.wait_idle()
        self.assertEqual(posts(sim), [first["prompt_id"]])
        self.assertEqual(c.ask("resume"), {"paused": False, "waiting": 2})
        for i in (waits["prompt_id"], late["prompt_id"]):
            self.assertNotIn("paused", self.completed(c.finished(i)))
        self.assertFalse(d.status()["paused"])
        d.stop()
        d.start()
        self.assertFalse(d.status()["paused"])

    def test_a_pause_answers_those_who_wait(self):
        """A submission that waits for ComfyUI's answer is told: queued."""
        sim, d = self.pair()
        c = d.client()
        sim.fault("pause")
        sim.fault("delay", path="/prompt", ms=60000, count=1)
        one = c.request("submit", workflow=quick(1))
        two = c.request("submit", workflow=quick(2))
        d.until(lambda: d.counter("posts") == 1, "a POST")
        self.assertEqual(d.client().ask("pause")["waiting"], 1)
        self.assertEqual(c.reply(two)["status"], "queued")
        self.assertNotIn(one, c.replies)

    def test_cancel_during_a_pause(self):
        sim, d = self.pair()
        c = d.client()
        c.ask("pause")
        p = c.ask("submit", workflow=quick(1), subscribe=True)
        self.assertEqual(c.ask("cancel", prompt_id=p["prompt_id"])["how"],
                         "dequeued")
        self.failed(c.finished(p["prompt_id"]), "cancelled")
        c.ask("resume")
        self.assertEqual(posts(sim), [])

    @unittest.skipIf(os.geteuid() != 0, "needs root to pose as others")
    def test_operators_only(self):
        _, d = self.pair(shared=True)
        os.chmod(d.dir, 0o711)
        os.seteuid(12001)
        try:
            ann = d.client()
        finally:
            os.seteuid(0)
        for op in ("pause", "resume"):
            self.assertEqual(ann.refused(op)["type"], "denied")
        self.assertFalse(d.status()["paused"])

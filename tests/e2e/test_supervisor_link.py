"""The supervisor and a ComfyUI that is slow, gone, restarted, deaf, old, or
shared with others; and the supervisor killed at the worst moments."""

import threading
import time
import unittest
import uuid

from muxlib import Case, Client, http_requests, posts
from simlib import sampler


class Away(Case):
    def test_serves_while_comfyui_is_down(self):
        sim = self.sim()
        sim.stop()
        d = self.daemon(sim.url, connected=False)
        c = d.client()
        self.assertIn(c.hello["comfyui"]["state"], ("connecting", "waiting"))
        e = c.refused("submit", workflow=sampler())
        self.assertEqual(e["type"], "unreachable")
        self.assertEqual(c.ask("history")["prompts"], [])
        self.assertEqual(c.ask("queue"),
                         {"running": [], "pending": [], "others": 0})
        sim = self.sim(port=sim.port)
        d.wait_link("connected")
        r = c.ask("submit", workflow=sampler(), subscribe=True)
        self.completed(c.finished(r["prompt_id"]))

    def test_held_until_it_answers(self):
        sim = self.sim()
        sim.stop()
        d = self.daemon(sim.url, connected=False)
        c = d.client()
        ids = []
        for i in range(3):
            r = c.ask("submit", workflow=sampler(seed=i), hold=True,
                      subscribe=True)
            self.assertEqual(r["status"], "queued")
            ids.append(r["prompt_id"])
        # One that is not held overtakes nobody, and is told the truth.
        self.assertEqual(c.refused("submit", workflow=sampler())["type"],
                         "unreachable")
        self.assertEqual([p["prompt_id"] for p in c.ask("queue")["pending"]],
                         ids)
        # Nor does a restart lose them.
        d.kill()
        d.start(connected=False)
        sim = self.sim(port=sim.port)
        c = d.client()
        d.until(lambda: d.status()["prompts"]["retained"] == 3, "ends")
        self.assertEqual(posts(sim), ids)
        for p in c.ask("history")["prompts"]:
            self.completed(p)

    def test_refused_after_others_had_heard_of_it(self):
        """Who watches everything hears of its end, and of its new beginning
        under the same id."""
        sim = self.sim()
        sim.stop()
        d = self.daemon(sim.url, connected=False)
        watcher, c = d.client(), d.client()
        watcher.ask("subscribe")
        c.ask("submit", workflow=sampler(), hold=True)
        prompt = str(uuid.uuid4())
        self.assertEqual(c.refused("submit", workflow=sampler(seed=2), prompt_id=prompt)["type"], "unreachable")
        end = watcher.finished(prompt)
        self.assertEqual((end["status"], end["error"]["type"]), ("failed", "unreachable"))
        heard = len(watcher.events)
        self.sim(port=sim.port)
        d.wait_link("connected")
        c.ask("submit", workflow=sampler(seed=2), prompt_id=prompt)
        self.completed(watcher.wait(lambda e: e["event"] == "finished" and e["prompt_id"] == prompt,
                                    "its end", start=heard)["progress"])
        seqs = [e["seq"] for e in watcher.events[heard:] if e.get("prompt_id") == prompt]
        self.assertEqual((seqs[0], seqs), (min(seqs), sorted(seqs)))
        self.assertLessEqual(seqs[0], 1)

    def test_refused_while_another_is_looked_up_in_vain(self):
        """ComfyUI takes connections but doesn't answer: unreachable, and no
        timeout, which would be that of the submitter's own wait."""
        sim, d = self.pair(config={"request_timeout_ms": "500"})
        c = d.client()
        sim.fault("cut", path="/prompt", method="POST")
        sim.fault("delay", ms=3000, path="/queue")
        sim.fault("silent", ms=60000)  # nor do events tell
        first = c.request("submit", workflow=sampler(seed=1), hold=True)
        sim.wait_until(lambda s: s.journal("post"))
        self.assertEqual(c.refused("submit", workflow=sampler(seed=2))["type"], "unreachable")
        sim.fault("clear")
        c.reply(first)
        d.until(lambda: d.status()["prompts"]["retained"] == 1, "the first one's end")
        self.assertEqual(len(posts(sim)), 1)

    def test_posted_by_its_worker_meanwhile(self):
        """What was queued when the supervisor died may have been posted by
        the worker that waited for it: it is not posted again."""
        sim = self.sim()
        sim.stop()
        d = self.daemon(sim.url, connected=False)
        c = d.client()
        one, two = [c.ask("submit", workflow=sampler(seed=i), hold=True)["prompt_id"]
                    for i in range(2)]
        d.kill()
        sim = self.sim(port=sim.port)
        sim.post(sampler(seed=0), prompt_id=one, client_id="somebody")
        sim.wait_history(one)
        d.start()
        d.until(lambda: d.status()["prompts"]["retained"] == 2, "ends")
        self.assertEqual(posts(sim), [one, two])
        for p in d.client().ask("history")["prompts"]:
            self.completed(p)

    def test_cancel_while_held(self):
        sim = self.sim()
        sim.stop()
        d = self.daemon(sim.url, connected=False)
        c = d.client()
        r = c.ask("submit", workflow=sampler(), hold=True, subscribe=True)
        self.assertEqual(c.ask("cancel", prompt_id=r["prompt_id"]),
                         {"how": "dequeued"})
        self.failed(c.finished(r["prompt_id"]), "cancelled")
        self.assertEqual(c.ask("cancel", prompt_id=r["prompt_id"]),
                         {"how": "ended"})

    def test_cancel_of_a_cancelled_one(self):
        """Between an interrupt and the news of it: there is nothing left to
        cancel, and cancelled it was."""
        for extra in ((), ("--no-jobs-api",)):
            sim, d = self.pair(*extra)
            c = d.client()
            r = c.ask("submit", workflow=sampler(steps=100000), subscribe=True)
            c.event("progress", r["prompt_id"])
            sim.fault("deaf")
            self.assertIn(c.ask("cancel", prompt_id=r["prompt_id"])["how"],
                          ("interrupted", "cancelled"))
            sim.wait_idle()
            self.assertEqual(c.ask("cancel", prompt_id=r["prompt_id"]), {"how": "ended"})
            self.failed(c.finished(r["prompt_id"]), "cancelled")

    def test_drop_in_the_middle_of_a_run(self):
        sim, d = self.pair()
        c = d.client()
        sim.fault("pause", steps=2)
        r = c.ask("submit", workflow=sampler(steps=5), subscribe=True)
        c.event("progress", r["prompt_id"])
        sim.fault("drop", how="rst")
        self.assertIn(c.event("upstream")["data"]["state"],
                      ("waiting", "connecting"))
        d.until(lambda: d.status()["upstream"]["reconnects"] == 1, "the link")
        sim.fault("resume")
        p = self.completed(c.finished(r["prompt_id"]))
        self.assertIn("2", p["outputs"])
        self.assertEqual(sorted(p["completed_nodes"]), ["1", "2"])
        self.assertEqual(d.status()["upstream"]["reconnects"], 1)
        self.assertEqual(len(posts(sim)), 1)
        self.assertEqual(d.counter("gaps"), 1)

    def test_ends_while_the_link_is_down(self):
        sim, d = self.pair(config={"poll_interval_ms": 200})
        c = d.client()
        sim.fault("pause", steps=2)
        r = c.ask("submit", workflow=sampler(steps=5), subscribe=True)
        c.event("progress", r["prompt_id"])
        # Upgrades are refused, so that only polling can tell.
        sim.fault("status", path="/ws", code=503, count=0)
        sim.fault("drop")
        c.event("upstream")
        sim.fault("resume")
        p = self.completed(c.finished(r["prompt_id"]))
        self.assertEqual(p["method"], "polling")
        self.assertIn("2", p["outputs"])
        sim.fault("clear")
        d.wait_link("connected")

    def test_polled_news(self):
        sim, d = self.pair(config={"poll_interval_ms": 200})
        c = d.client()
        sim.fault("pause")
        sim.fault("status", path="/ws", code=503, count=0)
        sim.fault("drop")
        d.wait_link("waiting")
        ids = [c.ask("submit", workflow=sampler(seed=i), subscribe=True)
               ["prompt_id"] for i in range(3)]
        c.wait(lambda e: e["event"] == "polled" and
               e["prompt_id"] == ids[2] and
               e["progress"].get("queue_position") == 2, "polled position")
        sim.fault("resume")
        for prompt_id in ids:
            p = self.completed(c.finished(prompt_id))
            self.assertEqual(p["method"], "polling")

    def test_killed_and_started_again_is_lost(self):
        sim, d = self.pair(config={"poll_interval_ms": 200})
        c = d.client()
        ids = [c.ask("submit", workflow=sampler(steps=100000, seed=i),
                     subscribe=True)["prompt_id"] for i in range(2)]
        c.event("progress", ids[0])
        sim.kill()
        sim = self.sim(port=sim.port)
        for prompt_id in ids:
            p = self.failed(c.finished(prompt_id), "lost")
            self.assertIn("no longer knows", p["error"]["message"])
        self.assertEqual(posts(sim), [])

    def test_an_end_in_the_gap_is_found(self):
        sim, d = self.pair()
        c = d.client()
        r = c.ask("submit", workflow=sampler(steps=3, step_ms=20),
                  subscribe=True)
        sim.fault("drop")
        self.completed(c.finished(r["prompt_id"]))

    def test_a_deaf_link_is_noticed(self):
        sim, d = self.pair()
        sim.fault("deaf")
        c = d.client()
        r = c.ask("submit", workflow=sampler(), subscribe=True)
        self.completed(c.finished(r["prompt_id"]))
        d.until(lambda: d.status()["upstream"]["reconnects"] == 1,
                "a fresh link")

    def test_garbage_from_comfyui(self):
        sim, d = self.pair()
        c = d.client()
        for kind in ("text", "json", "shape", "utf8", "empty", "binary",
                     "short", "unknown"):
            sim.fault("garbage", kind=kind)
        d.until(lambda: d.counter("parse_errors") >= 5, "errors counted")
        r = c.ask("submit", workflow=sampler(), subscribe=True)
        self.completed(c.finished(r["prompt_id"]))
        self.assertEqual(d.status()["upstream"]["state"], "connected")

    def test_reconnect_on_request(self):
        sim, d = self.pair()
        c = d.client()
        c.ask("subscribe")
        sim.fault("pause", steps=2)
        r = c.ask("submit", workflow=sampler(steps=5))
        c.event("progress", r["prompt_id"])
        self.assertIn("state", c.ask("reconnect"))
        d.until(lambda: d.status()["upstream"]["reconnects"] == 1, "the link")
        sim.fault("resume")
        self.completed(c.finished(r["prompt_id"]))
        self.assertEqual(d.status()["upstream"]["reconnects"], 1)
        sim.wait_until(lambda s: s.stats()["websockets"]["open"] == 1)


class Unanswered(Case):
    """The POST got no answer: ComfyUI may have the prompt, or not."""

    def test_taken_but_cut(self):
        sim, d = self.pair()
        sim.fault("pause")
        sim.fault("cut", path="/prompt", method="POST", count=1)
        c = d.client()
        r = c.ask("submit", workflow=sampler(), subscribe=True)
        sim.fault("resume")
        self.completed(c.finished(r["prompt_id"]))
        self.assertEqual(posts(sim), [r["prompt_id"]])

    def test_not_taken(self):
        sim, d = self.pair()
        sim.fault("status", path="/prompt", method="POST", code=502, count=1)
        c = d.client()
        r = c.ask("submit", workflow=sampler(), subscribe=True)
        self.completed(c.finished(r["prompt_id"]))
        self.assertEqual(posts(sim), [r["prompt_id"]])
        self.assertEqual(d.counter("posts"), 2)

    def test_order_holds_meanwhile(self):
        sim, d = self.pair()
        sim.fault("pause")
        sim.fault("cut", path="/prompt", method="POST", count=1, how="rst")
        c = d.client()
        requests = [c.request("submit", workflow=sampler(seed=i))
                    for i in range(5)]
        ids = [c.reply(r)["prompt_id"] for r in requests]
        self.assertEqual(posts(sim), ids)


class Crash(Case):
    def test_killed_while_the_post_is_under_way(self):
        sim, d = self.pair()
        sim.fault("pause")
        sim.fault("delay", path="/prompt", method="POST", ms=2000, count=1)
        c = d.client()
        first, second = str(uuid.uuid4()), str(uuid.uuid4())
        c.request("submit", workflow=sampler(), prompt_id=first)
        c.request("submit", workflow=sampler(seed=2), prompt_id=second)
        d.until(lambda: posts(sim), "the POST to arrive")
        d.until(lambda: d.counter("accepted") == 2, "both accepted")
        d.kill()
        sim.fault("clear")
        d.start()
        d.until(lambda: len(posts(sim)) == 2, "the second POST")
        sim.fault("resume")
        d.until(lambda: d.status()["prompts"]["retained"] == 2, "both to end")
        self.assertEqual(posts(sim), [first, second])
        c = d.client()
        for prompt_id in (first, second):
            self.completed(c.ask("progress", prompt_id=prompt_id))

    def test_killed_with_prompts_in_every_state(self):
        sim, d = self.pair(config={"poll_interval_ms": 200})
        c = d.client()
        c.ask("subscribe")
        sim.fault("pause", steps=15)
        ids = [c.ask("submit", workflow=sampler(steps=10, seed=i))
               ["prompt_id"] for i in range(6)]
        c.event("finished", ids[0])
        c.event("progress", ids[1])
        d.kill()
        # Some end while nobody listens, and one runs.
        sim.fault("pause", steps=20)
        sim.wait_history(ids[2])
        d.start()
        c = d.client()
        c.ask("subscribe")
        d.until(lambda: d.status()["prompts"]["retained"] == 3, "some to be found")
        sim.fault("resume")
        d.until(lambda: d.status()["prompts"]["retained"] == 6, "all to end")
        self.assertEqual(posts(sim), ids)
        for prompt_id in ids:
            p = self.completed(c.ask("progress", prompt_id=prompt_id))
            self.assertIn("2", p["outputs"])
        got = [p["prompt_id"] for p in c.ask("history")["prompts"]]
        self.assertEqual(got[:3], ids[:2:-1])
        self.assertEqual(set(got[3:]), set(ids[:3]))

    def test_again_and_again(self):
        sim, d = self.pair(speed=4)
        ids, lock = [], threading.Lock()
        stop = threading.Event()

        def submit():
            n = 0
            while not stop.is_set():
                prompt_id = str(uuid.uuid4())
                n += 1
                while not stop.is_set():
                    try:
                        c = Client(d.socket)
                        c.ask("submit", workflow=sampler(seed=n),
                              prompt_id=prompt_id, hold=True)
                        c.close()
                        with lock:
                            ids.append(prompt_id)
                        break
                    except (OSError, EOFError, TimeoutError):
                        time.sleep(0.01)

        threads = [threading.Thread(target=submit) for _ in range(2)]
        for t in threads:
            t.start()
        try:
            for i in range(8):
                n = len(ids)
                d.until(lambda n=n: len(ids) > n + 1, "some to be accepted")
                time.sleep(0.02 * i)
                d.kill()
                d.start(connected=False)
        finally:
            stop.set()
            for t in threads:
                t.join()
        self.assertGreater(len(ids), 10)
        d.until(lambda: d.status()["prompts"]["queued"] == 0 and
                d.status()["prompts"]["active"] == 0, "all to end", 60)
        got = posts(sim)
        self.assertEqual(len(got), len(set(got)), "run twice")
        self.assertTrue(set(ids) <= set(got), "lost")
        c = d.client()
        for prompt_id in ids:
            self.completed(c.ask("progress", prompt_id=prompt_id))


class Others(Case):
    """Somebody else uses the same ComfyUI."""

    def test_others_in_front(self):
        sim, d = self.pair()
        sim.fault("pause")
        foreign = [sim.post(sampler(seed=90 + i), client_id="web")
                   .json()["prompt_id"] for i in range(3)]
        c = d.client()
        r = c.ask("submit", workflow=sampler(), subscribe=True)
        c.wait(lambda e: e.get("prompt_id") == r["prompt_id"] and
               e["progress"].get("queue_position") == 3, "position 3")
        self.assertEqual(c.ask("queue")["others"], 3)
        queue = c.ask("queue")
        self.assertEqual([q["prompt_id"] for q in queue["pending"]],
                         [r["prompt_id"]])
        sim.http("POST", "/queue", {"delete": [foreign[2]]})
        c.wait(lambda e: e.get("prompt_id") == r["prompt_id"] and
               e["progress"].get("queue_position") == 2, "position 2")
        sim.fault("resume")
        self.completed(c.finished(r["prompt_id"]))
        for prompt_id in foreign:
            self.assertEqual(c.refused("progress", prompt_id=prompt_id)
                             ["type"], "not_found")

    def test_prompts_without_client_id_are_dropped_at_the_door(self):
        sim, d = self.pair()
        c = d.client()
        c.ask("subscribe")
        sim.post(sampler(steps=5))
        sim.wait_idle()
        d.until(lambda: d.counter("foreign") > 0, "foreign events")
        c.ask("ping")
        self.assertEqual([e for e in c.events if "prompt_id" in e], [])


class OldServers(Case):
    def test_ids_chosen_by_the_server(self):
        sim, d = self.pair("--ignore-prompt-id", "--no-progress-state",
                           "--no-jobs-api")
        c = d.client()
        for i in range(3):
            r = c.ask("submit", workflow=sampler(seed=i), subscribe=True)
            p = self.completed(c.finished(r["prompt_id"]))
            self.assertEqual(p["prompt_id"], r["prompt_id"])
            self.assertIn("2", p["outputs"])
            self.assertIn("executed", c.names(r["prompt_id"]) +
                          ["executed"])
        self.assertEqual(http_requests(sim), {"POST /prompt": 3})

    def test_such_a_prompt_survives_a_restart(self):
        sim, d = self.pair("--ignore-prompt-id")
        c = d.client()
        r = c.ask("submit", workflow=sampler(steps=20, step_ms=50))
        d.kill()
        d.start()
        c = d.client()
        d.until(lambda: d.status()["prompts"]["retained"] == 1, "the end")
        self.completed(c.ask("progress", prompt_id=r["prompt_id"]))

    def unheard(self, sim, d, c, **more):
        """One of three, whose POST is taken but not answered."""
        c.ask("submit", workflow=sampler(seed=1, steps=2))
        sim.fault("cut", path="/prompt", method="POST", count=1)
        return c.request("submit", workflow=sampler(seed=2, **more), subscribe=True)

    def followed(self, sim, c, r):
        """It is found by its marker, and not posted again."""
        c.ask("submit", workflow=sampler(seed=3))
        p = self.completed(c.finished(r["prompt_id"]))
        self.assertIn("2", p["outputs"])
        self.assertEqual(len(posts(sim)), 3)

    def test_unanswered_in_the_queue(self):
        sim, d = self.pair("--ignore-prompt-id", "--no-progress-state")
        c = d.client()
        sim.fault("pause")
        r = c.reply(self.unheard(sim, d, c))
        sim.fault("resume")
        self.followed(sim, c, r)

    def test_unanswered_and_running(self):
        sim, d = self.pair("--ignore-prompt-id", "--no-progress-state")
        c = d.client()
        self.followed(sim, c, c.reply(self.unheard(sim, d, c, steps=60, step_ms=50)))

    def test_unanswered_and_over(self):
        """It is in the history when it is looked for."""
        sim, d = self.pair("--ignore-prompt-id", "--no-progress-state")
        c = d.client()
        sim.fault("delay", path="/queue", ms=1000)
        self.followed(sim, c, c.reply(self.unheard(sim, d, c, steps=1, step_ms=1)))

    def test_unanswered_first_of_all(self):
        """Nothing has told yet that ids are the server's."""
        sim, d = self.pair("--ignore-prompt-id")
        c = d.client()
        sim.fault("cut", path="/prompt", method="POST", count=1)
        r = c.ask("submit", workflow=sampler(steps=1, step_ms=1), subscribe=True)
        self.completed(c.finished(r["prompt_id"]))
        self.assertEqual(len(posts(sim)), 1)

    def test_killed_before_the_answer(self):
        """The next supervisor finds what the last one posted."""
        sim, d = self.pair("--ignore-prompt-id")
        c = d.client()
        sim.fault("delay", path="/prompt", method="POST", ms=60000)
        c.request("submit", workflow=sampler(), prompt_id=str(uuid.uuid4()))
        d.until(lambda: posts(sim), "the POST")
        d.kill()
        sim.fault("clear")
        d.start()
        d.until(lambda: d.status()["prompts"]["retained"] == 1, "the end")
        self.completed(d.client().ask("history")["prompts"][0])
        self.assertEqual(len(posts(sim)), 1)

    def test_not_taken(self):
        """Found nowhere: it is posted."""
        sim, d = self.pair("--ignore-prompt-id")
        c = d.client()
        sim.fault("status", path="/prompt", method="POST", code=502, count=1)
        r = c.ask("submit", workflow=sampler(), subscribe=True)
        self.completed(c.finished(r["prompt_id"]))
        self.assertEqual(len(posts(sim)), 1)

    def test_cancel_by_the_servers_id(self):
        sim, d = self.pair("--ignore-prompt-id", "--no-jobs-api",
                           "--no-interrupt-id")
        c = d.client()
        ids = [c.ask("submit", workflow=sampler(steps=100000, seed=i),
                     subscribe=True)["prompt_id"] for i in range(2)]
        c.event("progress", ids[0])
        self.assertEqual(c.ask("cancel", prompt_id=ids[1]),
                         {"how": "dequeued"})
        self.assertEqual(c.ask("cancel", prompt_id=ids[0]),
                         {"how": "interrupted"})
        for i in ids:
            self.failed(c.finished(i), "cancelled")


if __name__ == "__main__":
    unittest.main()

"""The supervisor as any program meets it: a Unix socket, lines of JSON, and a
ComfyUI that may be slow, gone, restarted or shared with others."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import uuid

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from muxlib import (PATIENCE, Client, Daemon, Refusal, binary,  # noqa: E402
                    push_fds)
from simlib import Sim, sampler  # noqa: E402


def posts(sim):
    """Prompt ids in the order in which ComfyUI got them."""
    return [f["prompt_id"] for f in sim.journal("post")]


def http_requests(sim):
    """What came over HTTP but for the WebSocket and the test's own."""
    return {k: v for k, v in sim.stats()["requests"].items()
            if "/sim/" not in k and k != "GET /ws" and v}


class Case(unittest.TestCase):
    def sim(self, *options, **kw):
        sim = Sim(*options, **kw)
        self.addCleanup(sim.__exit__)
        return sim

    def daemon(self, sim, *options, **kw):
        url = sim if isinstance(sim, str) else sim.url
        d = Daemon(url, *options, **kw)
        self.addCleanup(self.end, d)
        return d

    def end(self, d):
        failed = any(e for _, e in self._outcome.errors) \
            if hasattr(self._outcome, "errors") else False
        kind = AssertionError if failed else None
        d.__exit__(kind, None, None)

    def pair(self, *sim_options, config=None, speed=1):
        sim = self.sim(*sim_options, speed=speed)
        return sim, self.daemon(sim, config=config)

    def completed(self, progress):
        self.assertEqual(progress["status"], "completed", progress)
        return progress

    def failed(self, progress, kind):
        self.assertEqual(progress["status"], "failed", progress)
        self.assertEqual(progress["error"]["type"], kind, progress)
        return progress


class Conversation(Case):
    def test_hello_comes_first(self):
        sim, d = self.pair()
        c = d.client(hello=False)
        self.assertEqual(c.ask("ping"), {})
        for op in ("status", "queue", "history", "reconnect"):
            self.assertEqual(c.refused(op)["type"], "denied")
        hello = c.ask("hello", client="me/1")
        self.assertEqual(hello["protocol"], 1)
        self.assertEqual(hello["pid"], d.proc.pid)
        self.assertEqual(hello["uid"], os.getuid())
        self.assertIs(hello["operator"], True)
        self.assertEqual(hello["comfyui"],
                         {"url": sim.url, "state": "connected"})
        self.assertEqual(hello["line_max"], 16 << 20)
        self.assertEqual(c.ask("hello")["epoch"], hello["epoch"])
        self.assertIn("counters", c.ask("status"))

    def test_ids_come_back_as_sent(self):
        _, d = self.pair()
        c = d.client()
        for request_id in ('"x y"', '"\\u20ac"', "7", "-3",
                           "18446744073709551615"):
            c.send_raw(b'{"op":"ping","id":%s}\n' % request_id.encode())
            line = c.read_line()
            self.assertIn(b'"id":' + request_id.encode(), line)
        c.send_raw(b'{"op":"ping"}\r\n')
        self.assertTrue(json.loads(c.read_line())["ok"])

    def test_epoch_changes_with_a_restart(self):
        sim, d = self.pair()
        first = d.client().hello["epoch"]
        d.stop()
        d.start()
        self.assertNotEqual(d.client().hello["epoch"], first)

    def test_sessions(self):
        sim, d = self.pair()
        a, b = d.client(), d.client()
        r = a.ask("attach", kind="mcp", comfyui=sim.url + "/")
        self.assertEqual(r["session"], "s1")
        self.assertEqual(r["sessions"], 1)
        self.assertEqual(r["poll_interval_ms"], 1500)
        self.assertEqual(r["comfyui"]["url"], sim.url)
        self.assertEqual(r["comfyui"]["address"], "127.0.0.1")
        status = d.status()
        self.assertEqual(r["comfyui"]["client_id"],
                         status["upstream"]["client_id"])
        self.assertEqual(b.ask("attach", kind="run")["sessions"], 2)
        s1, s2 = d.status()["sessions"]
        self.assertEqual(s1, {"id": "s1", "kind": "mcp", "pid": os.getpid(),
                              "keeper_pid": os.getpid(), "uid": os.getuid(),
                              "in_flight": 0, "restarts": 0})
        self.assertEqual((s2["id"], s2["kind"]), ("s2", "run"))
        a.close()
        d.until(lambda: len(d.status()["sessions"]) == 1, "s1 to end")

    def test_a_session_is_resumed_under_its_id(self):
        _, d = self.pair()
        a, b, c = d.client(), d.client(), d.client()
        self.assertEqual(a.ask("attach", kind="mcp")["session"], "s1")
        self.assertEqual(b.ask("attach", kind="mcp", session="s1")["session"],
                         "s1")
        sessions = d.status()["sessions"]
        self.assertEqual([s["restarts"] for s in sessions], [1])
        for bad in ("", "s", "x1", "s01", "s1x", "s99999999999999"):
            got = c.ask("attach", kind="run", session=bad)["session"]
            self.assertNotEqual(got, bad)
        self.assertEqual(c.ask("attach", kind="run", session="s77")["session"],
                         "s77")
        self.assertEqual(a.ask("attach", kind="run")["session"], "s78")

    def test_a_session_of_another_comfyui_is_refused(self):
        _, d = self.pair()
        c = d.client()
        e = c.refused("attach", kind="run", comfyui="http://127.0.0.1:1")
        self.assertEqual(e["type"], "config")
        self.assertEqual(c.refused("attach", kind="run", comfyui=":/")["type"],
                         "invalid")
        self.assertEqual(c.refused("attach", kind="other")["type"], "invalid")
        self.assertEqual(d.status()["sessions"], [])

    def test_in_flight_of_a_session(self):
        sim, d = self.pair()
        sim.fault("pause")
        c = d.client()
        c.ask("attach", kind="batch")
        ids = [c.ask("submit", workflow=sampler(seed=i))["prompt_id"]
               for i in range(3)]
        self.assertEqual(d.status()["sessions"][0]["in_flight"], 3)
        c.ask("cancel", prompt_id=ids[2])
        self.assertEqual(d.status()["sessions"][0]["in_flight"], 2)
        sim.fault("resume")
        d.until(lambda: d.status()["sessions"][0]["in_flight"] == 0, "ends")


class Submit(Case):
    def test_one_post_and_nothing_else(self):
        sim, d = self.pair()
        c = d.client()
        for i in range(3):
            r = c.ask("submit", workflow=sampler(seed=i), subscribe=True)
            self.assertEqual(r["number"], i)
            p = self.completed(c.finished(r["prompt_id"]))
            self.assertEqual(p["method"], "websocket")
            self.assertEqual(sorted(p["completed_nodes"]), ["1", "2"])
            self.assertIn("images", p["outputs"]["2"])
        self.assertEqual(http_requests(sim), {"POST /prompt": 3})
        # Nor does anything follow when all is quiet.
        time.sleep(1.5)
        self.assertEqual(http_requests(sim), {"POST /prompt": 3})
        counters = d.status()["counters"]
        self.assertEqual(counters["posts"], 3)
        self.assertEqual(counters["http_requests"], 3)
        self.assertEqual(counters["completed"], 3)

    def test_the_course_of_events(self):
        _, d = self.pair()
        c = d.client()
        r = c.ask("submit", workflow=sampler(steps=4), subscribe=True)
        prompt_id = r["prompt_id"]
        c.finished(prompt_id)
        events = [e for e in c.events if e.get("prompt_id") == prompt_id]
        self.assertEqual(events[0]["event"], "snapshot")
        self.assertEqual(events[-1]["event"], "finished")
        seqs = [e["seq"] for e in events]
        self.assertEqual(seqs, sorted(seqs))
        steps = [e["progress"]["current_node_progress"] for e in events
                 if e["event"] == "progress"]
        self.assertEqual(steps, sorted(steps))
        self.assertEqual(steps[-1], 1)
        for e in events:
            self.assertEqual(e["progress"]["prompt_id"], prompt_id)
            if e["event"] in ("progress", "progress_state"):
                self.assertNotIn("outputs", e["progress"])
        self.assertIn("executed", c.names(prompt_id))

    def test_digits_stay(self):
        sim, d = self.pair()
        c = d.client()
        seed = "18446744073709551615"
        text = json.dumps(sampler()).replace('"seed": 1', '"seed": ' + seed)
        self.assertIn(seed, text)
        c.send_raw(b'{"op":"submit","id":"a","workflow":%s,"extra_data":'
                   b'{"big":9007199254740993}}\n' % text.encode())
        self.assertTrue(json.loads(c.read_line())["ok"])
        journal = sim.get("/sim/journal").text
        self.assertIn(seed, journal)

    def test_a_given_id(self):
        sim, d = self.pair()
        c = d.client()
        prompt_id = str(uuid.uuid4())
        first = c.ask("submit", workflow=sampler(), prompt_id=prompt_id,
                      subscribe=True)
        self.assertEqual(first["prompt_id"], prompt_id)
        # The same again: answered, not run.
        again = c.ask("submit", workflow=sampler(), prompt_id=prompt_id)
        self.assertEqual(again["prompt_id"], prompt_id)
        self.completed(c.finished(prompt_id))
        other = d.client()
        late = other.ask("submit", workflow=sampler(), prompt_id=prompt_id,
                         subscribe=True)
        self.assertEqual(late["status"], "completed")
        snapshot = other.event("snapshot", prompt_id)["progress"]
        self.completed(snapshot)
        d.until(lambda: not d.log().endswith("x"), "log")
        self.assertEqual(posts(sim), [prompt_id])
        # And across a restart.
        d.stop()
        d.start()
        c = d.client()
        self.assertEqual(c.ask("submit", workflow=sampler(),
                               prompt_id=prompt_id)["status"], "completed")
        self.assertEqual(posts(sim), [prompt_id])
        for bad in ("x", prompt_id.upper(), prompt_id + "0", "",
                    "../../../etc/passwd"):
            self.assertEqual(c.refused("submit", workflow=sampler(),
                                       prompt_id=bad)["type"], "invalid")

    def test_same_id_twice_while_the_post_is_under_way(self):
        sim, d = self.pair()
        sim.fault("delay", path="/prompt", method="POST", ms=300, count=1)
        c, prompt_id = d.client(), str(uuid.uuid4())
        a = c.request("submit", workflow=sampler(), prompt_id=prompt_id)
        b = c.request("submit", workflow=sampler(), prompt_id=prompt_id)
        self.assertEqual(c.reply(a)["prompt_id"], prompt_id)
        self.assertEqual(c.reply(b)["prompt_id"], prompt_id)
        self.assertEqual(len(posts(sim)), 1)

    def test_refused_by_comfyui(self):
        sim, d = self.pair()
        c = d.client()
        bad = sampler()
        bad["1"]["inputs"]["steps"] = "many"
        e = c.refused("submit", workflow=bad, subscribe=True)
        self.assertEqual(e["type"], "rejected")
        self.assertIn("1", e["node_errors"])
        self.assertIn("steps", e["message"])
        e = c.refused("submit", workflow={
            "1": {"class_type": "NoSuchNode", "inputs": {}}})
        self.assertEqual(e["type"], "rejected")
        self.assertIn("NoSuchNode", e["message"])
        # It never was: not in history, and the id can be used again.
        self.assertEqual(c.ask("history")["prompts"], [])
        prompt_id = str(uuid.uuid4())
        c.refused("submit", workflow=bad, prompt_id=prompt_id)
        self.assertEqual(c.refused("progress", prompt_id=prompt_id)["type"],
                         "not_found")
        c.ask("submit", workflow=sampler(), prompt_id=prompt_id,
              subscribe=True)
        self.completed(c.finished(prompt_id))

    def test_not_a_workflow(self):
        sim, d = self.pair()
        c = d.client()
        ui = {"nodes": [], "links": [], "version": 0.4}
        self.assertIn("API", c.refused("submit", workflow=ui)["message"])
        for bad in ({}, {"1": 3}, {"1": {"inputs": {}}}):
            self.assertEqual(c.refused("submit", workflow=bad)["type"],
                             "invalid", bad)
        self.assertEqual(c.ask("submit", workflow={"prompt": sampler()})
                         ["status"] in ("queued", "executing", "completed"),
                         True)
        self.assertEqual(len(posts(sim)), 1)

    def test_valid_in_part(self):
        _, d = self.pair()
        c = d.client()
        wf = sampler()
        wf["3"] = {"class_type": "SaveImage", "inputs": {
            "images": ["1", 0], "filename_prefix": 5}}
        wf["4"] = {"class_type": "SaveImage", "inputs": {}}
        try:
            r = c.ask("submit", workflow=wf, subscribe=True)
        except Refusal as refusal:
            self.skipTest("the simulator refuses it: %s" % refusal)
        self.assertIn("4", r["node_errors"])
        self.completed(c.finished(r["prompt_id"]))

    def test_order_is_kept(self):
        sim, d = self.pair(speed=50)
        sim.fault("pause")
        c = d.client()
        requests = [c.request("submit", workflow=sampler(seed=i))
                    for i in range(40)]
        ids = [c.reply(r)["prompt_id"] for r in requests]
        self.assertEqual(posts(sim), ids)
        queue = c.ask("queue")
        waiting = [q["prompt_id"] for q in queue["running"] +
                   queue["pending"]]
        self.assertEqual(waiting, ids)
        self.assertEqual(queue["others"], 0)
        d.until(lambda: [q.get("queue_position") for q in
                         c.ask("queue")["pending"]][-1] == 39, "positions")
        sim.fault("resume")
        d.until(lambda: d.status()["prompts"]["retained"] == 40, "ends")
        self.assertEqual(http_requests(sim).get("GET /queue", 0), 0)

    def test_queue_positions_are_told(self):
        sim, d = self.pair()
        c = d.client()
        ids = [c.ask("submit", workflow=sampler(seed=i, steps=2),
                     subscribe=True)["prompt_id"] for i in range(4)]
        self.completed(c.finished(ids[-1]))
        told = [e["progress"]["queue_position"] for e in c.events
                if e.get("prompt_id") == ids[3] and
                e["progress"]["status"] == "queued" and
                "queue_position" in e["progress"]]
        self.assertEqual(told, sorted(told, reverse=True))
        self.assertGreaterEqual(len(set(told)), 3)
        self.assertEqual(http_requests(sim), {"POST /prompt": 4})

    def test_client_that_goes_away_changes_nothing(self):
        sim, d = self.pair()
        sim.fault("delay", path="/prompt", method="POST", ms=300, count=1)
        c, prompt_id = d.client(), str(uuid.uuid4())
        c.request("submit", workflow=sampler(), prompt_id=prompt_id)
        c.request("submit", workflow=sampler(seed=2))
        d.until(lambda: d.counter("accepted") == 2, "both accepted")
        c.close()
        watcher = d.client()
        watcher.ask("subscribe")
        d.until(lambda: d.status()["prompts"]["retained"] == 2, "both to end")
        p = watcher.ask("progress", prompt_id=prompt_id)
        self.completed(p)

    def test_sixteen_megabytes(self):
        sim, d = self.pair()
        c = d.client()
        wf = sampler()
        wf["1"]["_meta"] = {"title": "x" * (15 << 20)}
        r = c.ask("submit", workflow=wf, subscribe=True)
        self.completed(c.finished(r["prompt_id"]))
        self.assertEqual(len(posts(sim)), 1)


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
        sim.args[2:4] = ["--port", str(sim.port)]
        sim.start()
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
        sim.args[2:4] = ["--port", str(sim.port)]
        sim.start()
        c = d.client()
        d.until(lambda: d.status()["prompts"]["retained"] == 3, "ends")
        self.assertEqual(posts(sim), ids)
        for p in c.ask("history")["prompts"]:
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

    def test_drop_in_the_middle_of_a_run(self):
        sim, d = self.pair()
        c = d.client()
        r = c.ask("submit", workflow=sampler(steps=40, step_ms=50),
                  subscribe=True)
        c.event("progress", r["prompt_id"])
        sim.fault("drop", how="rst")
        self.assertIn(c.event("upstream")["data"]["state"],
                      ("waiting", "connecting"))
        p = self.completed(c.finished(r["prompt_id"]))
        self.assertIn("2", p["outputs"])
        self.assertEqual(sorted(p["completed_nodes"]), ["1", "2"])
        self.assertEqual(d.status()["upstream"]["reconnects"], 1)
        self.assertEqual(len(posts(sim)), 1)
        self.assertEqual(d.counter("gaps"), 1)

    def test_ends_while_the_link_is_down(self):
        sim, d = self.pair(config={"poll_interval_ms": 200})
        c = d.client()
        r = c.ask("submit", workflow=sampler(steps=20, step_ms=50),
                  subscribe=True)
        c.event("progress", r["prompt_id"])
        # Upgrades are refused, so that only polling can tell.
        sim.fault("status", path="/ws", code=503, count=0)
        sim.fault("drop")
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
        ids = [c.ask("submit", workflow=sampler(steps=100, step_ms=50, seed=i),
                     subscribe=True)["prompt_id"] for i in range(2)]
        c.event("progress", ids[0])
        sim.kill()
        sim.args[2:4] = ["--port", str(sim.port)]
        sim.start()
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
        self.assertGreaterEqual(d.status()["upstream"]["reconnects"], 1)

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
        r = c.ask("submit", workflow=sampler(steps=40, step_ms=30))
        c.event("progress", r["prompt_id"])
        self.assertIn("state", c.ask("reconnect"))
        self.completed(c.finished(r["prompt_id"]))
        self.assertEqual(d.status()["upstream"]["reconnects"], 1)
        self.assertEqual(sim.stats()["websockets"]["open"], 1)


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
        ids = [c.ask("submit", workflow=sampler(steps=10, step_ms=50, seed=i))
               ["prompt_id"] for i in range(6)]
        c.ask("subscribe")
        c.event("finished", ids[0])
        c.event("progress", ids[1])
        d.kill()
        # Some end while nobody listens.
        sim.wait_history(ids[2])
        d.start()
        c = d.client()
        c.ask("subscribe")
        d.until(lambda: d.status()["prompts"]["retained"] == 6, "all to end")
        self.assertEqual(posts(sim), ids)
        for prompt_id in ids:
            p = self.completed(c.ask("progress", prompt_id=prompt_id))
            self.assertIn("2", p["outputs"])
        self.assertEqual([p["prompt_id"] for p in
                          c.ask("history")["prompts"]][-1], ids[0])

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
        for i in range(8):
            time.sleep(0.15 + 0.02 * i)
            d.kill()
            d.start(connected=False)
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


class Cancel(Case):
    def test_pending_and_running(self):
        sim, d = self.pair()
        c = d.client()
        ids = [c.ask("submit", workflow=sampler(steps=200, step_ms=20, seed=i),
                     subscribe=True)["prompt_id"] for i in range(3)]
        c.event("progress", ids[0])
        # Which of the two ways it was is not told by newer servers.
        self.assertIn(c.ask("cancel", prompt_id=ids[1])["how"],
                      ("dequeued", "cancelled"))
        self.failed(c.finished(ids[1]), "cancelled")
        self.assertIn(c.ask("cancel", prompt_id=ids[0])["how"],
                      ("interrupted", "cancelled"))
        self.failed(c.finished(ids[0]), "cancelled")
        c.event("progress", ids[2])
        c.ask("cancel", prompt_id=ids[2])
        self.failed(c.finished(ids[2]), "cancelled")
        self.assertEqual(c.ask("cancel", prompt_id=ids[2]), {"how": "ended"})
        history = {p["prompt_id"]: p["error"]["type"]
                   for p in c.ask("history")["prompts"]}
        self.assertEqual(history, {i: "cancelled" for i in ids})

    def test_on_a_server_without_jobs(self):
        sim, d = self.pair("--no-jobs-api")
        c = d.client()
        ids = [c.ask("submit", workflow=sampler(steps=200, step_ms=20, seed=i),
                     subscribe=True)["prompt_id"] for i in range(2)]
        c.event("progress", ids[0])
        self.assertEqual(c.ask("cancel", prompt_id=ids[1]),
                         {"how": "dequeued"})
        self.failed(c.finished(ids[1]), "cancelled")
        self.assertEqual(c.ask("cancel", prompt_id=ids[0]),
                         {"how": "interrupted"})
        self.failed(c.finished(ids[0]), "cancelled")

    def test_while_the_post_is_under_way(self):
        sim, d = self.pair()
        sim.fault("pause")
        sim.fault("delay", path="/prompt", method="POST", ms=300, count=1)
        c, prompt_id = d.client(), str(uuid.uuid4())
        a = c.request("submit", workflow=sampler(), prompt_id=prompt_id,
                      subscribe=True)
        d.until(lambda: posts(sim), "the POST")
        b = c.request("cancel", prompt_id=prompt_id)
        self.assertEqual(c.reply(a)["prompt_id"], prompt_id)
        self.assertIn(c.reply(b)["how"], ("dequeued", "cancelled"))
        self.failed(c.finished(prompt_id), "cancelled")
        self.assertEqual(sim.get_json("/queue")["queue_pending"], [])
        sim.fault("resume")

    def test_unknown(self):
        _, d = self.pair()
        c = d.client()
        for bad in (str(uuid.uuid4()), "x", ""):
            for op in ("cancel", "progress", "subscribe", "unsubscribe"):
                self.assertEqual(c.refused(op, prompt_id=bad)["type"],
                                 "not_found")

    def test_interrupted_by_somebody_else(self):
        sim, d = self.pair()
        c = d.client()
        r = c.ask("submit", workflow=sampler(steps=200, step_ms=20),
                  subscribe=True)
        c.event("progress", r["prompt_id"])
        sim.http("POST", "/interrupt", b"{}")
        self.failed(c.finished(r["prompt_id"]), "interrupted")
        self.assertIn("execution_interrupted", c.names(r["prompt_id"]))

    def test_deleted_by_somebody_else(self):
        sim, d = self.pair()
        sim.fault("pause")
        c = d.client()
        ids = [c.ask("submit", workflow=sampler(seed=i), subscribe=True)
               ["prompt_id"] for i in range(3)]
        sim.http("POST", "/queue", {"delete": [ids[1]]})
        p = self.failed(c.finished(ids[1]), "deleted")
        self.assertIn("someone else", p["error"]["message"])
        sim.fault("resume")
        self.completed(c.finished(ids[0]))
        self.completed(c.finished(ids[2]))

    def test_queue_cleared_by_somebody_else(self):
        sim, d = self.pair()
        sim.fault("pause")
        c = d.client()
        ids = [c.ask("submit", workflow=sampler(seed=i), subscribe=True)
               ["prompt_id"] for i in range(3)]
        sim.http("POST", "/queue", {"clear": True})
        for prompt_id in ids:
            self.failed(c.finished(prompt_id), "deleted")

    def test_error_of_a_node(self):
        _, d = self.pair()
        c = d.client()
        wf = {"1": {"class_type": "TestSyncError", "inputs": {"value": 1}},
              "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
        try:
            r = c.ask("submit", workflow=wf, subscribe=True)
        except Refusal as refusal:
            self.skipTest("the simulator has other nodes: %s" % refusal)
        p = c.finished(r["prompt_id"])
        self.assertEqual(p["status"], "failed")
        self.assertEqual(p["error"]["node_id"], "1")
        e = c.event("execution_error", r["prompt_id"])
        self.assertNotIn("current_inputs", e["data"])


class Subscriptions(Case):
    def test_two_clients(self):
        _, d = self.pair()
        a, b = d.client(), d.client()
        b.ask("subscribe")
        r = a.ask("submit", workflow=sampler(), subscribe=True)
        pa = a.finished(r["prompt_id"])
        self.assertEqual(b.finished(r["prompt_id"]), pa)
        # Each event once, though it is wanted twice.
        a.ask("subscribe")
        r = a.ask("submit", workflow=sampler(seed=2), subscribe=True)
        a.finished(r["prompt_id"])
        seqs = [e["seq"] for e in a.events
                if e.get("prompt_id") == r["prompt_id"] and
                e["event"] != "snapshot"]
        self.assertEqual(len(seqs), len(set(seqs)))

    def test_late_subscriber_gets_a_snapshot(self):
        _, d = self.pair()
        a, b = d.client(), d.client()
        r = a.ask("submit", workflow=sampler(steps=30, step_ms=20))
        a.ask("subscribe", prompt_id=r["prompt_id"])
        a.wait(lambda e: e["event"] == "progress" and
               e["data"]["value"] >= 5, "fifth step")
        self.assertEqual(b.ask("subscribe", prompt_id=r["prompt_id"]),
                         {"prompts": 1})
        s = b.event("snapshot", r["prompt_id"])
        self.assertGreater(s["progress"]["current_node_progress"], 0.1)
        self.assertEqual(b.events[0], s)
        self.completed(b.finished(r["prompt_id"]))
        later = [e["seq"] for e in b.events[1:] if "seq" in e]
        self.assertEqual(later, list(range(s["seq"] + 1,
                                           s["seq"] + 1 + len(later))))

    def test_subscribe_to_what_is_over(self):
        _, d = self.pair()
        c = d.client()
        r = c.ask("submit", workflow=sampler(), subscribe=True)
        c.finished(r["prompt_id"])
        late = d.client()
        self.assertEqual(late.ask("subscribe", prompt_id=r["prompt_id"]),
                         {"prompts": 1})
        self.completed(late.event("snapshot", r["prompt_id"])["progress"])

    def test_unsubscribe(self):
        _, d = self.pair()
        c = d.client()
        r = c.ask("submit", workflow=sampler(steps=30, step_ms=20),
                  subscribe=True)
        c.event("progress", r["prompt_id"])
        c.ask("unsubscribe", prompt_id=r["prompt_id"])
        n = len(c.events)
        d.until(lambda: d.status()["prompts"]["retained"] == 1, "the end")
        c.ask("ping")
        self.assertEqual(len(c.events), n)
        self.assertEqual(d.status()["subscribers"], 0)
        c.ask("subscribe")
        self.assertEqual(d.status()["subscribers"], 1)
        c.ask("unsubscribe")
        self.assertEqual(d.status()["subscribers"], 0)

    def test_subscriptions_end_with_their_prompt(self):
        _, d = self.pair(speed=20)
        c = d.client()
        for i in range(5):
            r = c.ask("submit", workflow=sampler(seed=i), subscribe=True)
            c.finished(r["prompt_id"])
        self.assertEqual(d.status()["subscribers"], 0)

    def test_history(self):
        _, d = self.pair(speed=20)
        c = d.client()
        ids = []
        for i in range(5):
            r = c.ask("submit", workflow=sampler(seed=i), subscribe=True)
            ids.append(r["prompt_id"])
            c.finished(r["prompt_id"])
        got = c.ask("history")["prompts"]
        self.assertEqual([p["prompt_id"] for p in got], ids[::-1])
        for p in got:
            self.completed(p)
            self.assertGreaterEqual(p["ended_at"], p["submitted_at"])
            self.assertLess(abs(p["ended_at"] / 1e3 - time.time()), 600)
        got = c.ask("history", limit=2)["prompts"]
        self.assertEqual([p["prompt_id"] for p in got], ids[:2:-1])
        for bad in (0, -1, 1001):
            self.assertEqual(c.refused("history", limit=bad)["type"],
                             "invalid")
        c.ask("history", limit=1000)

    def test_retention(self):
        _, d = self.pair(speed=50, config={"retain_prompts": 3})
        c = d.client()
        ids = []
        for i in range(6):
            r = c.ask("submit", workflow=sampler(seed=i), subscribe=True)
            ids.append(r["prompt_id"])
            c.finished(r["prompt_id"])
        d.until(lambda: d.status()["prompts"]["retained"] == 3, "pruning")
        self.assertEqual([p["prompt_id"] for p in
                          c.ask("history")["prompts"]], ids[:2:-1])
        self.assertEqual(c.refused("progress", prompt_id=ids[0])["type"],
                         "not_found")


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

    def test_cancel_by_the_servers_id(self):
        sim, d = self.pair("--ignore-prompt-id", "--no-jobs-api",
                           "--no-interrupt-id")
        c = d.client()
        ids = [c.ask("submit", workflow=sampler(steps=100, step_ms=30, seed=i),
                     subscribe=True)["prompt_id"] for i in range(2)]
        c.event("progress", ids[0])
        self.assertEqual(c.ask("cancel", prompt_id=ids[1]),
                         {"how": "dequeued"})
        self.assertEqual(c.ask("cancel", prompt_id=ids[0]),
                         {"how": "interrupted"})
        for i in ids:
            self.failed(c.finished(i), "cancelled")


class BadInput(Case):
    def test_lines(self):
        _, d = self.pair()
        c = d.client()
        deep = b'{"op":"ping","id":1,"x":' + b"[" * 10000 + b"]" * 10000 + b"}"
        rows = [
            (b"", None, "invalid"),
            (b"hello", None, "invalid"),
            (b"[]", None, "invalid"),
            (b"{}", None, "invalid"),
            (b'{"op":"ping"', None, "invalid"),
            (b'{"op":"ping","id":1} x', None, "invalid"),
            (b'{"op":"nonsense","id":5}', 5, "not_found"),
            (b'{"op":7,"id":6}', 6, "invalid"),
            (b'{"id":"a"}', "a", "invalid"),
            (b'{"op":"ping","id":1.5}', None, "invalid"),
            (b'{"op":"ping","id":null}', None, "invalid"),
            (b'{"op":"ping","id":"' + b"x" * 200 + b'"}', None, "invalid"),
            (b'{"op":"submit","id":7}', 7, "invalid"),
            (b'{"op":"submit","id":8,"workflow":[]}', 8, "invalid"),
            (b'{"op":"submit","id":9,"workflow":{},"hold":1}', 9, "invalid"),
            (b'{"op":"history","id":1,"limit":"x"}', 1, "invalid"),
            (b'{"op":"ping","id":1,"x":"\xff\xfe"}', None, "invalid"),
            (b'{"op":"ping","id":1,"x":"\xed\xa0\x80"}', None, "invalid"),
            (b'{"op":"ping","id":1,"x":"\\ud800"}', None, "invalid"),
            (b'{"op":"ping","id":1,"x":NaN}', None, "invalid"),
            (b"\x00\x01\x02", None, "invalid"),
            (deep, None, "invalid"),
            (b'{"op":"ping","id":2,"x":"' + b"y" * 5000 + b'"}', 2, "limit"),
        ]
        for line, request_id, kind in rows:
            c.send_raw(line + b"\n")
            reply = json.loads(c.read_line())
            self.assertFalse(reply["ok"], line[:60])
            self.assertEqual(reply["error"]["type"], kind, line[:60])
            self.assertEqual(reply.get("id"), request_id, line[:60])
        self.assertEqual(c.ask("ping"), {})
        self.assertEqual(d.counter("bad_requests"), len(rows))

    def test_hundred_megabytes_without_a_newline(self):
        _, d = self.pair()
        c = d.client()
        chunk = b"x" * (1 << 20)
        for _ in range(100):
            c.send_raw(chunk)
        c.send_raw(b"\n")
        reply = json.loads(c.read_line())
        self.assertEqual(reply["error"]["type"], "limit")
        self.assertEqual(c.ask("ping"), {})
        with open("/proc/%d/status" % d.proc.pid) as f:
            peak = [x for x in f if x.startswith("VmHWM")][0]
        if "SAN_OPTIONS" not in " ".join(os.environ):
            self.assertLess(int(peak.split()[1]), 200 << 10)

    def test_many_lines_at_once(self):
        _, d = self.pair()
        c, other = d.client(), d.client()
        n = 5000

        def send():
            c.send_raw(b"".join(b'{"op":"ping","id":%d}\n' % i
                                for i in range(n)))

        t = threading.Thread(target=send)
        t.start()
        # Others are served meanwhile.
        self.assertEqual(other.ask("ping"), {})
        got = [json.loads(c.read_line())["id"] for _ in range(n)]
        t.join()
        self.assertEqual(got, list(range(n)))

    def test_split_at_every_byte(self):
        _, d = self.pair()
        c = d.client()
        for b in b'{"op":"ping","id":"slowly"}\n':
            c.send_raw(bytes([b]))
        self.assertEqual(json.loads(c.read_line())["id"], "slowly")

    def test_pushed_descriptors(self):
        _, d = self.pair()
        c = d.client()
        before = len(os.listdir("/proc/%d/fd" % d.proc.pid))
        with open("/dev/null") as f:
            for i in range(50):
                try:
                    push_fds(c.sock, b'{"op":"ping","id":%d}\n' % i,
                             [f.fileno()] * 250)
                except PermissionError:
                    break  # this kernel keeps them out
                self.assertEqual(json.loads(c.read_line())["id"], i)
        c.close()
        c = d.client()
        self.assertEqual(c.ask("ping"), {})
        d.until(lambda: len(os.listdir("/proc/%d/fd" % d.proc.pid)) <=
                before + 2, "descriptors to go")

    def test_half_a_line_and_gone(self):
        _, d = self.pair()
        for data in (b"", b"{", b'{"op":"ping"}', b'{"op":"hello"}\n{"op":'):
            c = d.client(hello=False)
            c.send_raw(data)
            c.close()
        self.assertEqual(d.client().ask("ping"), {})
        d.until(lambda: d.status()["counters"]["connections"] <= 2,
                "connections to end")

    def test_answers_before_leaving(self):
        """`echo request | socat` gets its answer."""
        _, d = self.pair()
        c = d.client(hello=False)
        c.send_raw(b'{"op":"hello","id":1}\n{"op":"status","id":2}\n')
        c.sock.shutdown(socket.SHUT_WR)
        self.assertEqual(json.loads(c.read_line())["id"], 1)
        self.assertEqual(json.loads(c.read_line())["id"], 2)
        self.assertIsNone(c.read_line())


class Limits(Case):
    def test_too_many_clients(self):
        _, d = self.pair(config={"max_clients": 8})
        crowd = [d.client() for _ in range(8)]
        extra = d.client(hello=False)
        line = json.loads(extra.read_line())
        self.assertFalse(line["ok"])
        self.assertEqual(line["error"]["type"], "limit")
        self.assertIn("max_clients", line["error"]["message"])
        self.assertIsNone(extra.read_line())
        crowd.pop().close()
        d.until(lambda: self.can_talk(d), "a place to be free")

    def can_talk(self, d):
        c = Client(d.socket, hello=False)
        try:
            c.ask("hello")
            return True
        except (Refusal, EOFError, OSError, KeyError):
            return False
        finally:
            c.close()

    def test_descriptors_run_out(self):
        sim = self.sim()
        d = self.daemon(sim, wrapper=["prlimit", "--nofile=64:64"])
        crowd = []
        for _ in range(80):
            c = Client(d.socket, hello=False)
            crowd.append(c)
        # The ones inside are served, the others wait.
        self.assertEqual(crowd[0].ask("ping"), {})
        d.until(lambda: "accepting pauses" in d.log(), "the pause")
        for c in crowd:
            c.close()
        c = d.client()
        r = c.ask("submit", workflow=sampler(), subscribe=True)
        self.completed(c.finished(r["prompt_id"]))

    def test_too_many_prompts(self):
        sim, d = self.pair(config={"max_prompts": 100, "retain_prompts": 5})
        sim.fault("pause")
        c = d.client()
        requests = [c.request("submit", workflow=sampler(seed=i))
                    for i in range(101)]
        for r in requests[:100]:
            c.reply(r)
        with self.assertRaises(Refusal) as caught:
            c.reply(requests[100])
        self.assertEqual(caught.exception.type, "limit")
        self.assertIn("max_prompts", str(caught.exception))
        sim.http("POST", "/queue", {"clear": True})
        sim.fault("resume")
        d.until(lambda: d.status()["prompts"]["queued"] == 0, "ends")
        d.until(lambda: d.status()["prompts"]["retained"] == 5, "pruning")

    def test_slow_client(self):
        sim, d = self.pair(config={"client_queue_kb": 16})
        slow, fast = d.client(), d.client()
        slow.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        r = fast.ask("submit", workflow=sampler(steps=10, step_ms=100),
                     subscribe=True)
        prompt_id = r["prompt_id"]
        slow.ask("subscribe", prompt_id=prompt_id)
        client_id = d.status()["upstream"]["client_id"]
        sim.emit(client_id=client_id, event="executed", count=20000,
                 rate=0, prompt_id=prompt_id) if False else None
        # A flood of events that must be kept, made from recorded ones.
        text = json.dumps({"type": "executed", "data": {
            "node": "1", "display_node": "1", "output": None,
            "prompt_id": prompt_id}})
        for _ in range(3000):
            sim.fault("send", client_id=client_id, text=text)
        n = sum(1 for _ in iter(lambda: None, None)) if False else 0
        d.until(lambda: d.counter("missed") > 0, "a gap", 60)
        self.completed(fast.finished(prompt_id, 60))
        self.assertEqual(d.counter("clients_shed"), 0)
        # Now it reads: a counted gap, and the state as it is.
        end = slow.wait(lambda e: e["progress"]["status"] == "completed",
                        "the end", 60)
        gaps = [e for e in slow.events if e["event"] == "snapshot" and
                e.get("data", {}).get("missed")]
        self.assertTrue(gaps)
        self.assertGreater(sum(e["data"]["missed"] for e in gaps) + n, 0)
        self.assertEqual(end["prompt_id"], prompt_id)
        self.assertEqual(slow.ask("ping"), {})


class Tenants(Case):
    """Several uids on one supervisor; needs root to pose as them."""

    def setUp(self):
        if os.geteuid() != 0:
            self.skipTest("needs root")

    def client_as(self, d, uid):
        os.chmod(d.dir, 0o755)
        os.seteuid(uid)
        try:
            return d.client()
        finally:
            os.seteuid(0)

    def test_nothing_of_one_reaches_another(self):
        sim, d = self.pair()
        ann, bob, root = (self.client_as(d, u) for u in (12001, 12002, 0))
        self.assertIs(ann.hello["operator"], False)
        self.assertEqual(ann.hello["uid"], 12001)
        bob.ask("subscribe")
        root.ask("subscribe")
        sim.fault("pause")
        mine = ann.ask("submit", workflow=sampler(), subscribe=True)
        theirs = bob.ask("submit", workflow=sampler(seed=2))
        prompt_id = mine["prompt_id"]
        for op in ("progress", "cancel", "subscribe", "unsubscribe"):
            e = bob.refused(op, prompt_id=prompt_id)
            unknown = bob.refused(op, prompt_id=str(uuid.uuid4()))
            self.assertEqual(e, unknown)
        e = bob.refused("submit", workflow=sampler(), prompt_id=prompt_id)
        self.assertEqual(e["type"], "busy")
        self.assertNotIn("12001", json.dumps(e))
        queue = bob.ask("queue")
        self.assertNotIn(prompt_id, json.dumps(queue))
        self.assertEqual(queue["others"], 1)
        self.assertEqual(len(root.ask("queue")["running"] +
                             root.ask("queue")["pending"]), 2)
        sim.fault("resume")
        self.completed(ann.finished(prompt_id))
        self.completed(bob.finished(theirs["prompt_id"]))
        root.finished(prompt_id)
        root.finished(theirs["prompt_id"])
        self.assertEqual([e for e in bob.events
                          if e.get("prompt_id") == prompt_id], [])
        self.assertNotIn(prompt_id, json.dumps(bob.ask("history")))
        self.assertEqual(bob.refused("progress", prompt_id=prompt_id)["type"],
                         "not_found")
        self.assertEqual(bob.refused("subscribe", prompt_id=prompt_id)["type"],
                         "not_found")
        self.assertEqual(len(root.ask("history")["prompts"]), 2)
        status = bob.ask("status")
        self.assertNotIn("client_id", status["upstream"])
        self.assertEqual(status["prompts"]["retained"], 1)
        self.assertEqual(status["counters"], {})
        self.assertEqual(ann.refused("reconnect")["type"], "denied")

    def test_client_id_is_no_tenants_business(self):
        _, d = self.pair()
        ann = self.client_as(d, 12001)
        self.assertEqual(ann.ask("attach", kind="run")["comfyui"]
                         ["client_id"], "")
        bob = self.client_as(d, 12002)
        # Nor can a session be taken over.
        self.assertEqual(bob.ask("attach", kind="run", session="s1")
                         ["session"], "s2")
        self.assertEqual([s["id"] for s in ann.ask("status")["sessions"]],
                         ["s1"])

    def test_turns(self):
        sim, d = self.pair(config={"max_outstanding": 2})
        sim.fault("pause")
        ann, bob = self.client_as(d, 12001), self.client_as(d, 12002)
        first = [ann.ask("submit", workflow=sampler(seed=i))["prompt_id"]
                 for i in range(6)]
        second = [bob.ask("submit", workflow=sampler(seed=10 + i),
                          subscribe=True)["prompt_id"] for i in range(3)]
        self.assertEqual(posts(sim), first[:2])
        # Refused later, when its turn comes: told as a failure.
        bad = sampler()
        bad["1"]["inputs"]["steps"] = "many"
        late = bob.ask("submit", workflow=bad, subscribe=True)
        self.assertEqual(late["status"], "queued")
        sim.fault("resume")
        d.until(lambda: d.status()["prompts"]["retained"] == 10, "ends")
        got = posts(sim)
        self.assertEqual([p for p in got if p in first], first)
        self.assertEqual([p for p in got if p in second], second)
        # Bob's third does not wait for all of Ann's.
        self.assertLess(got.index(second[2]), got.index(first[5]))
        self.failed(bob.finished(late["prompt_id"]), "rejected")

    def test_share_of_the_connections(self):
        _, d = self.pair(config={"max_clients": 8})
        for _ in range(4):
            self.client_as(d, 12001)
        os.seteuid(12001)
        try:
            c = d.client(hello=False)
        finally:
            os.seteuid(0)
        self.assertEqual(json.loads(c.read_line())["error"]["type"], "limit")
        self.client_as(d, 12002)

    def test_own_socket_is_for_one(self):
        sim = self.sim()
        d = self.daemon(sim, config={"socket_mode": "0600"})
        self.assertEqual(os.stat(d.socket).st_mode & 0o777, 0o600)
        with self.assertRaises(PermissionError):
            self.client_as(d, 12001)
        sim.fault("pause")
        c = d.client()
        for i in range(5):
            c.ask("submit", workflow=sampler(seed=i))
        self.assertEqual(len(posts(sim)), 5)


class Starting(Case):
    def run_to_end(self, d, *more):
        p = subprocess.run(d.command(*more), stderr=subprocess.PIPE,
                           stdout=subprocess.PIPE, env=d.env, timeout=PATIENCE,
                           text=True)
        return p.returncode, p.stdout, p.stderr

    def idle(self, **kw):
        return self.daemon("http://127.0.0.1:1", start=False, **kw)

    def test_usage(self):
        d = self.idle()
        for args in (["--nonsense"], ["--socket"], ["--comfyui", "::"],
                     ["--comfyui", "http://u:p@h/"],
                     ["--log-level", "loud"], ["--config", "/nonexistent"]):
            p = subprocess.run([binary()] + args, stderr=subprocess.PIPE,
                               env=d.env, text=True)
            self.assertEqual(p.returncode, 2, args)
            self.assertEqual(p.stderr.count("\n"), 1, p.stderr)
            self.assertTrue(p.stderr.startswith("comfymuxd: "), p.stderr)

    def test_help_version_check(self):
        d = self.idle()
        p = subprocess.run([binary(), "--help"], stdout=subprocess.PIPE,
                           text=True, env=d.env)
        self.assertEqual(p.returncode, 0)
        self.assertIn("--ready-fd", p.stdout)
        p = subprocess.run([binary(), "--version"], stdout=subprocess.PIPE,
                           text=True, env=d.env)
        self.assertEqual(p.returncode, 0)
        self.assertTrue(p.stdout.startswith("comfymuxd "))
        self.assertEqual(self.run_to_end(d, "--check-config")[0], 0)
        d.configure({"poll_interval_ms": "x"})
        status, _, text = self.run_to_end(d, "--check-config")
        self.assertEqual(status, 2)
        self.assertIn("poll_interval_ms", text)
        d.configure({"operator_group": "no-such-group"})
        status, _, text = self.run_to_end(d, "--check-config")
        self.assertEqual(status, 2)
        self.assertIn("no-such-group", text)

    def test_second_one_on_the_same_state(self):
        sim, d = self.pair()
        other = self.daemon(sim, start=False)
        other.state = d.state
        status, _, text = self.run_to_end(other)
        self.assertEqual(status, 1)
        self.assertIn(d.state, text)
        self.assertIn(str(d.proc.pid), text)
        self.assertEqual(d.client().ask("ping"), {})

    def test_taken_socket(self):
        sim, d = self.pair()
        other = self.daemon(sim, start=False)
        other.socket = d.socket
        status, _, text = self.run_to_end(other)
        self.assertEqual(status, 1)
        self.assertIn(d.socket, text)
        # The one that serves it is still there.
        self.assertEqual(d.client().ask("ping"), {})

    def test_stale_socket_is_replaced(self):
        sim, d = self.pair()
        d.kill()
        self.assertTrue(os.path.exists(d.socket))
        d.start()
        self.assertEqual(d.client().ask("ping"), {})

    def test_socket_that_cannot_be(self):
        d = self.idle()
        for path in ("/x" * 80, os.path.join(d.dir, "no/such/dir/s"), d.dir,
                     "/proc/s", d.config):
            d.socket = path
            status, _, text = self.run_to_end(d)
            self.assertIn(status, (1, 2), path)
            self.assertEqual(text.count("comfymuxd: "), 1, text)
        self.assertTrue(os.path.exists(d.config))

    def test_damaged_database(self):
        sim, d = self.pair()
        c = d.client()
        r = c.ask("submit", workflow=sampler(), subscribe=True)
        c.finished(r["prompt_id"])
        d.stop()
        path = os.path.join(d.state, "comfymux.db")
        with open(path, "r+b") as f:
            f.write(b"garbage" * 1000)
        with open(path, "rb") as f:
            before = f.read()
        status, _, text = self.run_to_end(d)
        self.assertEqual(status, 1)
        self.assertIn(path, text)
        self.assertIn("move it away", text)
        with open(path, "rb") as f:
            self.assertEqual(f.read(), before)
        os.rename(path, path + ".bad")
        for tail in ("-wal", "-shm"):
            if os.path.exists(path + tail):
                os.unlink(path + tail)
        d.start()
        self.assertEqual(d.client().ask("history")["prompts"], [])

    def test_read_only_state(self):
        d = self.idle()
        for path in ("/proc/comfymux", "/sys/comfymux", "/dev/null/x"):
            d.state = path
            status, _, text = self.run_to_end(d)
            self.assertEqual(status, 1, text)
            self.assertIn(path, text)

    def test_signals(self):
        for sig in (signal.SIGTERM, signal.SIGINT):
            sim, d = self.pair()
            c = d.client()
            c.ask("subscribe")
            r = c.ask("submit", workflow=sampler(steps=100, step_ms=50))
            c.event("progress", r["prompt_id"])
            os.kill(d.proc.pid, signal.SIGPIPE)
            self.assertEqual(c.ask("ping"), {})
            self.assertEqual(d.stop(sig), 0)
            c.wait_closed()
            self.assertFalse(os.path.exists(d.socket))
            self.assertFalse(os.path.exists(
                os.path.join(d.state, "comfymux.db-wal")))
            sim.wait_until(lambda s: s.stats()["websockets"]["open"] == 0)
            # The prompt runs on, and is found again.
            d.start()
            c = d.client()
            self.assertIn(c.ask("progress", prompt_id=r["prompt_id"])
                          ["status"], ("queued", "executing", "completed"))
            c.ask("cancel", prompt_id=r["prompt_id"])

    def test_reload(self):
        sim, d = self.pair(config={"log_level": "info"})
        d.configure({"log_level": "debug", "max_clients": 9,
                     "request_timeout_ms": 700})
        d.proc.send_signal(signal.SIGHUP)
        d.until(lambda: "need a restart: max_clients" in d.log(), "reload")
        c = d.client()
        d.until(lambda: "debug comfymuxd" in d.log(), "debug lines")
        d.configure({"nonsense": 1})
        d.proc.send_signal(signal.SIGHUP)
        d.until(lambda: "stays as it was" in d.log(), "a refused reload")
        r = c.ask("submit", workflow=sampler(), subscribe=True)
        self.completed(c.finished(r["prompt_id"]))

    def test_autostarted_leaves_when_idle(self):
        sim = self.sim()
        d = self.daemon(sim, "--autostarted", config={"idle_exit_s": 1},
                        connected=False)
        c = d.client()
        r = c.ask("submit", workflow=sampler(steps=40, step_ms=50))
        c.close()
        d.wait_link("connected")
        # Not while something runs ...
        sim.wait_history(r["prompt_id"])
        self.assertIsNone(d.proc.poll())
        # ... nor while somebody is there.
        self.assertEqual(d.proc.wait(PATIENCE), 0)
        d.proc = None
        self.assertFalse(os.path.exists(d.socket))

    def test_full_disk(self):
        """Writes fail from some size on; the supervisor lives on."""
        sim = self.sim()
        d = self.daemon(sim, wrapper=["prlimit", "--fsize=1000000"])
        c = d.client()
        r = c.ask("submit", workflow=sampler(), subscribe=True)
        self.completed(c.finished(r["prompt_id"]))
        big = sampler()
        big["1"]["_meta"] = {"title": "x" * (3 << 20)}
        e = c.refused("submit", workflow=big)
        self.assertEqual(e["type"], "system")
        self.assertIn("comfymux.db", e["message"])
        r = c.ask("submit", workflow=sampler(seed=2), subscribe=True)
        self.completed(c.finished(r["prompt_id"]))
        self.assertEqual(len(posts(sim)), 2)


if __name__ == "__main__":
    unittest.main()

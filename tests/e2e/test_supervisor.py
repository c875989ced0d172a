"""The supervisor as any program meets it: a Unix socket and lines of JSON."""

import json
import os
import time
import unittest
import uuid

from muxlib import Case, Refusal, http_requests, posts
from simlib import sampler


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
        d.until(lambda: d.status()["sessions"][0]["in_flight"] == 2,
                "the cancel")
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
            told = e["event"] in ("snapshot", "executed", "finished")
            self.assertEqual("outputs" in e["progress"], told, e)
        self.assertIn("executed", c.names(prompt_id))

    def test_each_output_is_told_once(self):
        """And all of them to whoever comes late, and at the end."""
        sim, d = self.pair()
        c = d.client()
        nodes = {str(i): {"class_type": "SimText", "inputs": {"text": "%d " % i + "x" * 3000}} for i in range(30)}
        last = sampler(steps=10000, step_ms=50, after=["29", 0])
        workflow = {**nodes, "30": last["1"], "31": {"class_type": "PreviewAny", "inputs": {"source": ["30", 0]}}}
        sim.fault("pause")  # what comes before the POST's answer may be too much to be kept
        prompt_id = c.ask("submit", workflow=workflow, subscribe=True)["prompt_id"]
        sim.fault("resume")
        c.wait(lambda e: e["event"] == "executing" and e["data"]["node"] == "30")
        executed = [e for e in c.events if e["event"] == "executed"]
        outputs = {}
        for e in executed:
            self.assertEqual(e["progress"]["outputs"], {e["data"]["node"]: e["data"]["output"]})
            outputs.update(e["progress"]["outputs"])
        self.assertEqual(set(outputs), set(nodes))
        # The last costs what the first did, but for its list of nodes.
        sizes = [len(json.dumps(e)) for e in executed]
        self.assertLess(max(sizes), min(sizes) + 30 * 10)
        late = d.client()
        late.ask("subscribe", prompt_id=prompt_id)
        self.assertEqual(late.event("snapshot", prompt_id)["progress"]["outputs"], outputs)
        self.assertEqual(late.ask("progress", prompt_id=prompt_id)["outputs"], outputs)
        late.ask("cancel", prompt_id=prompt_id)
        for each in (c, late):
            self.assertEqual(each.finished(prompt_id)["outputs"], outputs)

    def test_no_event_is_missed_before_the_answer(self):
        """The run is over before the POST is answered."""
        sim, d = self.pair()
        sim.fault("delay", path="/prompt", method="POST", ms=500, count=1)
        c, watcher = d.client(), d.client()
        watcher.ask("subscribe")
        r = c.ask("submit", workflow=sampler(steps=3, step_ms=5),
                  subscribe=True)
        self.completed(c.finished(r["prompt_id"]))
        watcher.finished(r["prompt_id"])
        mine = [e for e in c.events if e["event"] != "snapshot"]
        self.assertEqual(c.events[0]["event"], "snapshot")
        self.assertEqual(mine, watcher.events)
        # Nor told twice to one that hears of all prompts.
        sim.fault("delay", path="/prompt", method="POST", ms=200, count=1)
        r = watcher.ask("submit", workflow=sampler(seed=2, steps=3, step_ms=5),
                        subscribe=True)
        watcher.finished(r["prompt_id"])
        seqs = [e["seq"] for e in watcher.events
                if e.get("prompt_id") == r["prompt_id"] and
                e["event"] != "snapshot"]
        self.assertEqual(seqs, list(range(1, len(seqs) + 1)))

    def test_too_much_before_the_answer(self):
        sim, d = self.pair()
        sim.fault("delay", path="/prompt", method="POST", ms=4000, count=1)
        c = d.client()
        r = c.ask("submit", workflow=sampler(steps=100, step_ms=2),
                  subscribe=True)
        self.completed(c.finished(r["prompt_id"]))
        self.assertGreater(c.events[0]["data"]["missed"], 64)
        self.assertEqual(c.names(r["prompt_id"]), ["snapshot", "finished"])

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
        sim.fault("pause")  # none ends before the last is there
        c = d.client()
        ids = [c.ask("submit", workflow=sampler(seed=i, steps=2),
                     subscribe=True)["prompt_id"] for i in range(4)]

        def positions():
            return [e["progress"]["queue_position"] for e in c.events
                    if e.get("prompt_id") == ids[3] and
                    e["progress"]["status"] == "queued" and
                    "queue_position" in e["progress"]]
        # What is read at once is told at once: one by one then.
        for i in range(3):
            sim.fault("pause", steps=2 if i else 1)
            c.wait(lambda e, i=i: e["event"] == "progress" and
                   e["prompt_id"] == ids[i], "a step")
            c.wait(lambda e, i=i: positions()[-1:] == [3 - i], "its place")
        sim.fault("resume")
        self.completed(c.finished(ids[-1]))
        told = positions()
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

    def test_fourteen_megabytes(self):
        sim, d = self.pair()
        c = d.client()
        wf = sampler()
        wf["1"]["_meta"] = {"title": "x" * (14 << 20)}
        r = c.ask("submit", workflow=wf, subscribe=True)
        self.completed(c.finished(r["prompt_id"]))
        self.assertEqual(len(posts(sim)), 1)


class Cancel(Case):
    def test_pending_and_running(self):
        sim, d = self.pair()
        c = d.client()
        ids = [c.ask("submit", workflow=sampler(steps=100000, step_ms=20, seed=i),
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
        ids = [c.ask("submit", workflow=sampler(steps=100000, step_ms=20, seed=i),
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
        r = c.ask("submit", workflow=sampler(steps=100000, step_ms=20),
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
        sim, d = self.pair()
        a, b = d.client(), d.client()
        sim.fault("pause", steps=5)
        r = a.ask("submit", workflow=sampler(steps=30, step_ms=20))
        a.ask("subscribe", prompt_id=r["prompt_id"])
        a.wait(lambda e: e.get("progress", {}).get("current_node_progress", 0) > 0.1,
               "fifth step")
        self.assertEqual(b.ask("subscribe", prompt_id=r["prompt_id"]),
                         {"prompts": 1})
        s = b.event("snapshot", r["prompt_id"])
        self.assertGreater(s["progress"]["current_node_progress"], 0.1)
        self.assertEqual(b.events[0], s)
        sim.fault("resume")
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
        sim, d = self.pair()
        c = d.client()
        sim.fault("pause", steps=1)
        r = c.ask("submit", workflow=sampler(steps=30, step_ms=20),
                  subscribe=True)
        c.event("progress", r["prompt_id"])
        c.ask("unsubscribe", prompt_id=r["prompt_id"])
        n = len(c.events)
        sim.fault("resume")
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


if __name__ == "__main__":
    unittest.main()

"""The MCP tools that execute: what they return, how they wait and cancel, many at
a time, and what becomes of a call when its worker dies."""
import base64
import itertools
import json
import os
import time
import unittest

import mcplib
import rig
from mcplib import MODERN
from proclib import is_running
from rig import wait_for
from toollib import FOREVER, NEVER, PNG, SEED, Case, failing, sampler


class Sync(Case):
    def test_result_and_log(self):
        tools = self.both()
        result = tools.raw("execute_workflow_sync", workflow=sampler(), timeout_ms=60000)
        _, body = tools.look(result, "execute_workflow_sync")
        self.assertEqual(body["status"], "completed")
        self.assertEqual(body["progress_method"], "websocket")
        self.assertEqual(body["completed_nodes"], ["3", "9"])
        log = body["progress_log"]
        self.assertEqual([line for line in log if not line.startswith("Queued")],
                         ["Node 3 started", "Node 3 progress: 25%", "Node 3 progress: 50%",
                          "Node 3 progress: 75%", "Node 3 completed",
                          "Node 9 started", "Node 9 completed", "Execution finished"])
        image = body["outputs"]["9"]["images"][0]
        links = [c for c in result["content"] if c["type"] == "resource_link"]
        self.assertEqual([c["name"] for c in links], [image["filename"]])
        self.assertEqual(links[0]["mimeType"], "image/png")
        blob = tools.client.request("resources/read", {"uri": links[0]["uri"]})["result"]["contents"][0]
        self.assertEqual(base64.b64decode(blob["blob"])[:8], PNG)
        for absent in ("timed_out", "error", "next"):
            self.assertNotIn(absent, body)
        # The second time all comes from ComfyUI's cache.
        again = tools.good("execute_workflow_sync", workflow=sampler())
        self.assertEqual(again["cached_nodes"], ["3", "9"])
        self.assertEqual(again["status"], "completed")

    def test_without_the_log(self):
        tools = self.both()
        self.assertNotIn("progress_log", tools.good("execute_workflow_sync", workflow=sampler(),
                                                    stream_progress=False))

    def test_position_in_the_queue(self):
        tools = self.both()
        first = self.executing(tools, tools.start("execute_workflow_sync", workflow=sampler(**FOREVER), token="a"), "a")
        others = []
        # One after the other: calls at the same time may arrive in any order.
        for i in (7, 8):
            others.append(tools.start("execute_workflow_sync", workflow=sampler(seed=i), token=i))
            wait_for(lambda: len(self.journal("post")) == 1 + len(others), "it to be posted")
        tools.client.wait(lambda: "Queued (position: 2)" in [p["message"] for p in tools.client.progress(8)],
                          "its place")
        tools.good("cancel_execution", prompt_id=self.journal("post")[0]["prompt_id"])
        self.assertTrue(tools.end_of(first, "execute_workflow_sync")[0])
        logs = [tools.end_of(c, "execute_workflow_sync")[1]["progress_log"] for c in others]
        self.assertEqual(logs[0][0], "Queued (position: 1)")
        self.assertEqual(logs[1][0], "Queued (position: 2)")
        for token in ("a", 7, 8):
            self.check_progress(tools.client.progress(token))

    def check_progress(self, told):
        values = [p["progress"] for p in told]
        self.assertEqual(values, sorted(set(values)))
        self.assertTrue(all(v < p["total"] for v, p in zip(values, told)), told)

    def test_progress_is_of_the_whole_workflow(self):
        tools = self.both()
        tokens = itertools.count()
        # As often, whenever the machine isn't busy.
        wait_for(lambda: self.told_of_a_chain(tools, next(tokens)) >= 3, "three words of progress")
        # Nothing follows the result.
        count = len(tools.client.notifications)
        tools.good("get_queue")
        self.assertEqual(len(tools.client.notifications), count)

    def told_of_a_chain(self, tools, token):
        """How often something was told, and that it is right."""
        chain = {str(i): {"class_type": "SimSampler", "inputs": {"seed": i, "steps": 4, "step_ms": 60,
                                                                 "after": [str(i - 1), 0]}} for i in range(2, 5)}
        chain["1"] = {"class_type": "SimSampler", "inputs": {"seed": 10 + token, "steps": 4, "step_ms": 60}}
        chain["5"] = {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "p"}}
        call = tools.start("execute_workflow_sync", workflow=chain, token=token)
        self.assertFalse(tools.end_of(call, "execute_workflow_sync")[0])
        told = tools.client.progress(token)
        self.check_progress(told)
        for p in told:
            node = p["message"].split()[1] if p["message"].startswith("Node") else None
            if node:
                self.assertIn("(" + chain[node]["class_type"] + ")", p["message"])
                done = (int(node) - 1) / 5
                self.assertGreaterEqual(p["progress"] / p["total"], done - 0.001, p)
                self.assertLessEqual(p["progress"] / p["total"], done + 0.201, p)
        return len(told)

    def test_progress_of_a_wait_is_on_the_same_scale(self):
        tools = self.both(default_wait_s=1)
        first = tools.good("execute_workflow_sync", workflow=sampler(steps=60, step_ms=500))
        self.assertIs(first["timed_out"], True)
        tools.start("wait_for_execution", prompt_id=first["prompt_id"], timeout_ms=60000, token="w")

        def steps():
            return [(int(p["message"].split()[4]), p) for p in tools.client.progress("w")
                    if p["message"].startswith("Node 3 (SimSampler) step")]
        tools.client.wait(lambda: [step for step, _ in steps() if step > 4], "a few steps")
        for step, p in steps():
            self.assertAlmostEqual(p["progress"] / p["total"], step / 60 / 2, delta=0.01)

    def test_images(self):
        tools = self.both()
        result = tools.raw("execute_workflow_sync", workflow=sampler(), return_images=True)
        images = [c for c in result["content"] if c["type"] == "image"]
        self.assertEqual([c["mimeType"] for c in images], ["image/png"])
        self.assertEqual(base64.b64decode(images[0]["data"])[:8], PNG)
        # One that is too large is shown as a preview, and linked to in full.
        large = sampler(seed=5, width=1500, height=1500)
        result = tools.raw("execute_workflow_sync", workflow=large, return_images=True)
        _, body = tools.look(result, "execute_workflow_sync")
        images = [c for c in result["content"] if c["type"] == "image"]
        size = tools.good("download_by_filename", dest_path=".",
                          filename=body["outputs"]["9"]["images"][0]["filename"])["bytes"]
        self.assertGreater(size, 1 << 20)
        self.assertEqual([c["mimeType"] for c in images], ["image/webp"])
        self.assertEqual(base64.b64decode(images[0]["data"])[8:12], b"WEBP")
        self.assertEqual(len([c for c in result["content"] if c["type"] == "resource_link"]), 1)
        # A batch of them: eight are shown, all are linked to.
        result = tools.raw("execute_workflow_sync", workflow=sampler(seed=6, batch_size=11), return_images=True)
        self.assertEqual(len([c for c in result["content"] if c["type"] == "image"]), 8)
        self.assertEqual(len([c for c in result["content"] if c["type"] == "resource_link"]), 11)

    def test_images_that_cannot_be_had(self):
        tools = self.both()
        self.rig.fault(fault="status", code=500, path="/view", count=5)
        result = tools.raw("execute_workflow_sync", workflow=sampler(), return_images=True)
        self.assertFalse(result["isError"])
        self.assertEqual([c["type"] for c in result["content"]], ["text", "resource_link"])

    def test_set(self):
        tools = self.both()
        tools.good("execute_workflow_sync", workflow=sampler(),
                   set={"3.seed": SEED, "3.steps": 2, "9.filename_prefix": "ö\"x"})
        workflow = json.loads(json.dumps(self.journal("post")[0]["workflow"]))
        self.assertEqual(workflow["3"]["inputs"]["seed"], SEED)
        self.assertEqual(workflow["3"]["inputs"]["steps"], 2)
        self.assertEqual(workflow["9"]["inputs"]["filename_prefix"], "ö\"x")
        tools.bad("execute_workflow_sync", "invalid", "77", workflow=sampler(), set={"77.seed": 1})
        tools.bad("execute_workflow_sync", "invalid", workflow=sampler(), set={"seed": 1})
        tools.bad("execute_workflow_sync", "limit", "256", workflow=sampler(),
                  set={"3.i%d" % i: 1 for i in range(257)})

    def test_digits_on_every_way(self):
        tools = self.both()
        text = json.dumps(sampler(seed=SEED))
        self.rig.write("wf.json", text)
        odd = text.replace('"steps": 4', '"steps": 4.0, "x": 1e400, "y": -0.0, "z": 0.1000')
        for arguments in ({"workflow": json.loads(text)}, {"workflow": text}, {"workflow_path": "wf.json"},
                          {"workflow": sampler(), "set": {"3.seed": SEED}}, {"workflow": odd}):
            tools.good("execute_workflow_sync", **arguments)
            tools.good("submit_workflow", **arguments)
        status, raw = rig.http("GET", self.rig.sim_url + "/sim/journal?after=0")
        posts = [line for line in raw.splitlines() if b'"fact":"post"' in line.replace(b": ", b":")]
        self.assertEqual(len(posts), 10)
        for line in posts:
            self.assertIn(str(SEED).encode(), line)
        for line in posts[-2:]:
            for digits in (b"4.0", b"1e400", b"-0.0", b"0.1000"):
                self.assertIn(digits, line)

    def test_several_at_once_cost_one_post_each(self):
        tools = self.both()
        before = self.rig.stats()["requests"]
        calls = [tools.start("execute_workflow_sync", workflow=sampler(seed=i, steps=10, step_ms=20))
                 for i in range(5)]
        for call in calls:
            self.assertEqual(tools.end_of(call, "execute_workflow_sync")[1]["status"], "completed")
        made = {k: v - before.get(k, 0) for k, v in self.rig.stats()["requests"].items()
                if "/sim/" not in k and v != before.get(k, 0)}
        self.assertEqual(made.pop("POST /prompt"), 5)
        # The position in the queue may be asked for, once for all.
        self.assertLessEqual(made.pop("GET /queue", 0), 5)
        self.assertEqual(made, {})

    def test_modern_era_and_old_versions(self):
        self.rig.start_sim()
        self.daemon()
        for version in mcplib.LEGACY + (MODERN,):
            with self.subTest(version=version):
                tools = self.tools(version)
                call = tools.start("execute_workflow_sync", workflow=sampler(), return_images=True, token="v")
                result = tools.client.answer(call)["result"]
                tools.look(result, "execute_workflow_sync")
                kinds = {c["type"] for c in result["content"]}
                self.assertEqual(kinds, {"text", "image", "resource_link"} if version >= "2025-06-18"
                                 else {"text", "image"})
                for p in tools.client.progress("v"):
                    self.assertEqual("message" in p, version >= "2025-03-26")


class Waiting(Case):
    def test_default_wait(self):
        tools = self.both(default_wait_s=1)
        for name in ("execute_workflow_sync", "execute_workflow_stream"):
            body = self.timed_out(tools, name, "current_node", **FOREVER)
            prompt = body["prompt_id"]
            self.assertEqual(body["status"], "executing")
            self.assertEqual(body["current_node"], "3")
            self.assertIn("wait_for_execution", body["next"])
            wait_for(lambda: tools.good("get_execution_progress", prompt_id=prompt).get("current_node_progress"),
                     "a step")
            again = tools.good("wait_for_execution", prompt_id=prompt)
            self.assertIs(again["timed_out"], True)
            self.assertEqual(again["prompt_id"], prompt)
            self.assertGreater(again["current_node_progress"], 0)
            # One that waits behind it is told to be queued.
            behind = self.timed_out(tools, "execute_workflow_sync", "queue_position", seed=2)
            self.assertEqual(behind["status"], "queued")
            self.assertEqual(behind["queue_position"], 1)
            tools.good("cancel_execution", prompt_id=prompt)
            self.assertEqual(tools.good("wait_for_execution", prompt_id=behind["prompt_id"],
                                        timeout_ms=60000)["status"], "completed")

    def timed_out(self, tools, name, known, **more):
        """What is returned when the wait was too short for the prompt, but not for ComfyUI to get to it: tried
        again, since the machine may be busy."""
        def once():
            body = tools.good(name, workflow=sampler(**more))
            self.assertIs(body["timed_out"], True)
            if known in body:
                return body
            tools.good("cancel_execution", prompt_id=body["prompt_id"])
            return None
        return wait_for(once, known)

    def test_timeout_is_kept_in_full(self):
        tools = self.both(default_wait_s=1)
        for name, more in (("execute_workflow_sync", {}), ("execute_workflow_stream", {}),
                           ("wait_for_execution", {})):
            if name == "wait_for_execution":
                arguments = {"prompt_id": self.running(tools)}
            else:
                arguments = {"workflow": sampler(**FOREVER)}
            began = time.monotonic()
            body = tools.good(name, timeout_ms=2200, **arguments)
            self.assertGreaterEqual(time.monotonic() - began, 2.2)
            self.assertIs(body["timed_out"], True)
            tools.good("cancel_execution", prompt_id=body["prompt_id"])
        # Longer than the default, and it ends in between.
        body = tools.good("execute_workflow_sync", workflow=sampler(steps=40, step_ms=40), timeout_ms=60000)
        self.assertEqual(body["status"], "completed")

    def test_without_a_supervisor(self):
        self.config(default_wait_s=1, autostart="no", poll_interval_ms=200)
        self.rig.start_sim()
        tools = self.tools()
        self.rig.pause()
        body = tools.good("execute_workflow_sync", workflow=sampler())
        self.assertIs(body["timed_out"], True)
        self.assertEqual(body["progress_method"], "polling")
        self.rig.resume()
        body = tools.good("wait_for_execution", prompt_id=body["prompt_id"], timeout_ms=60000)
        self.assertEqual(body["status"], "completed")
        self.assertEqual(tools.good("get_history")["prompts"][0]["prompt_id"], body["prompt_id"])
        self.assertEqual(len(tools.good("list_outputs", prompt_id=body["prompt_id"])["files"]), 1)
        self.assertEqual(tools.good("get_last_output")["prompt_id"], body["prompt_id"])
        tools.bad("execute_workflow_stream", "unreachable", "execute_workflow_sync", workflow=sampler())
        prompt = self.running(tools)
        self.assertEqual([p["prompt_id"] for p in tools.good("get_queue")["running"]], [prompt])
        self.assertIn(tools.good("cancel_execution", prompt_id=prompt)["how"], ("interrupted", "cancelled"))
        tools.bad("get_execution_progress", "not_found", prompt_id=NEVER)

    def test_slow_post(self):
        """The wait is over before ComfyUI has answered; the prompt is found."""
        for alone in (False, True):
            with self.subTest(alone=alone):
                self.new_rig()
                self.config(default_wait_s=1, autostart="no", poll_interval_ms=200)
                self.rig.start_sim()
                if not alone:
                    self.daemon()
                tools = self.tools()
                self.rig.pause()
                self.rig.fault(fault="delay", ms=5000, path="/prompt")
                body = tools.good("execute_workflow_sync", workflow=sampler())
                self.assertIs(body["timed_out"], True)
                self.rig.resume()
                done = wait_for(lambda: self.found(tools, body["prompt_id"]), "the prompt")
                self.assertEqual(done["status"], "completed")
                self.assertEqual(len(self.journal("post")), 1)

    def found(self, tools, prompt):
        is_error, body = tools.end_of(tools.start("wait_for_execution", prompt_id=prompt), "wait_for_execution")
        return None if is_error or "timed_out" in body else body

    def test_progress_while_nothing_happens(self):
        """Every 15 s at least, and always more, though neither a queued nor a
        loading prompt makes any; nor does a question that ComfyUI ponders."""
        tools = self.both()
        load = {"1": {"class_type": "SimLoad", "inputs": {"ms": 22000}},
                "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}}
        self.rig.fault(fault="delay", ms=22000, path="/system_stats")
        start = time.monotonic()
        calls = {"load": tools.start("execute_workflow_sync", workflow=load, token="load"),
                 "queued": tools.start("execute_workflow_sync", workflow=sampler(), token="queued")}
        asked = tools.start("get_system_resources", token="ask")
        for call in calls.values():
            self.assertEqual(tools.end_of(call, "execute_workflow_sync")[1]["status"], "completed")
        tools.end_of(asked, "get_system_resources")
        self.assertGreater(time.monotonic() - start, 21)
        for token in ("load", "queued", "ask"):
            values = [p["progress"] for p in tools.client.progress(token)]
            self.assertEqual(values, sorted(set(values)))
            self.assertGreaterEqual(len(values), 1 if token == "ask" else 2, token)

    def test_a_few_per_second(self):
        tools = self.both()
        start = time.monotonic()
        call = tools.start("execute_workflow_sync", workflow=sampler(steps=1000, step_ms=1), token=1)
        tools.end_of(call, "execute_workflow_sync")
        seconds = time.monotonic() - start
        self.assertLessEqual(len(tools.client.progress(1)), 5 * (seconds + 1))


class Cancelling(Case):
    AWAY = (None, "", "Request timed out", "McpError: MCP error -32001: Request timed out",
            "SdkError: Request timed out", "deadline exceeded", "Timeout after 60000ms")
    STOP = ("AbortError: This operation was aborted", "the user pressed stop")

    def begin(self, tools, token, name="execute_workflow_sync"):
        if name == "wait_for_execution":
            prompt = self.running(tools)
            call = tools.start(name, prompt_id=prompt, token=token)
        else:
            call = tools.start(name, workflow=sampler(**FOREVER), token=token)
        self.executing(tools, call, token)
        return call, tools.good("get_queue")["running"][0]["prompt_id"]

    def cancel(self, tools, call, reason):
        tools.client.cancel(call, reason)
        tools.client.cancelled.add(json.dumps(call))

    def stopped(self, tools, prompt):
        body = wait_for(lambda: self.ended(tools, prompt), "its end")
        self.assertEqual(body["status"], "failed")
        self.assertIn(body["error"]["type"], ("cancelled", "interrupted", "deleted"))

    def ended(self, tools, prompt):
        body = tools.good("get_execution_progress", prompt_id=prompt)
        return body if body["status"] in ("completed", "failed") else None

    def still_there(self, tools, prompt):
        self.assertEqual([p["prompt_id"] for p in tools.good("get_queue")["running"]], [prompt])
        # Nor does it stop a little later.
        self.assertFalse(self.journal("interrupt"))
        self.assertIn(prompt, [p["prompt_id"] for p in tools.good("get_history")["prompts"]])

    def test_auto(self):
        tools = self.both()
        call, prompt = self.begin(tools, "one")
        self.cancel(tools, call, None)
        for i, reason in enumerate(self.AWAY[1:]):
            call = tools.start("wait_for_execution", prompt_id=prompt, token=i)
            self.executing(tools, call, i)
            self.cancel(tools, call, reason)
        self.still_there(tools, prompt)
        tools.good("cancel_execution", prompt_id=prompt)
        for i, (reason, name) in enumerate(zip(self.STOP + self.STOP[:1],
                                               ("execute_workflow_sync", "execute_workflow_stream",
                                                "wait_for_execution"))):
            call, prompt = self.begin(tools, "stop%d" % i, name)
            self.cancel(tools, call, reason)
            self.stopped(tools, prompt)

    def test_auto_while_queued(self):
        tools = self.both()
        first = self.running(tools)
        call = tools.start("execute_workflow_sync", workflow=sampler(seed=2), token="q")
        tools.client.wait(lambda: any("Queued" in p["message"] for p in tools.client.progress("q")), "its turn")
        prompt = wait_for(lambda: tools.good("get_queue")["pending"], "it to be queued")[0]["prompt_id"]
        self.cancel(tools, call, self.STOP[0])
        self.stopped(tools, prompt)
        self.assertEqual(tools.good("get_queue")["running"][0]["prompt_id"], first)
        self.assertFalse(self.journal("interrupt"))
        self.assertEqual([j["prompt_id"] for j in self.journal("start")], [first])

    def test_detach(self):
        tools = self.both(cancel_policy="detach")
        call, prompt = self.begin(tools, "d")
        self.cancel(tools, call, self.STOP[0])
        self.still_there(tools, prompt)

    def test_interrupt(self):
        tools = self.both(cancel_policy="interrupt")
        for reason in (None, "Request timed out"):
            call, prompt = self.begin(tools, "i%s" % reason)
            self.cancel(tools, call, reason)
            self.stopped(tools, prompt)

    def test_bad_policy(self):
        self.config(cancel_policy="maybe")
        self.rig.sim_url = "http://127.0.0.1:1"
        done = self.rig.run("mcp", check=2)
        self.assertIn("cancel_policy", done.stderr)
        self.assertIn("auto, detach, interrupt", done.stderr)

    def test_tool(self):
        tools = self.both("--no-jobs-api")
        prompt = self.running(tools)
        queued = tools.good("submit_workflow", workflow=sampler(seed=3))["prompt_id"]
        self.assertEqual(tools.good("cancel_execution", prompt_id=queued)["how"], "dequeued")
        self.assertEqual(tools.good("cancel_execution", prompt_id=prompt)["how"], "interrupted")
        self.stopped(tools, prompt)
        self.assertEqual(tools.good("cancel_execution", prompt_id=prompt)["how"], "ended")
        tools.bad("cancel_execution", "not_found", prompt_id=NEVER)

    def test_waiter_is_told(self):
        """A prompt cancelled by one call ends the other's wait."""
        tools = self.both()
        call = tools.start("execute_workflow_sync", workflow=sampler(**FOREVER), token="w", timeout_ms=60000)
        self.executing(tools, call, "w")
        prompt = tools.good("get_queue")["running"][0]["prompt_id"]
        tools.good("cancel_execution", prompt_id=prompt)
        is_error, body = tools.end_of(call, "execute_workflow_sync")
        self.assertTrue(is_error)
        self.assertEqual(body["prompt_id"], prompt)
        self.assertIn(body["error"]["type"], ("cancelled", "interrupted"))


class Stream(Case):
    def test_events(self):
        tools = self.both()
        body = tools.good("execute_workflow_stream", workflow=sampler(), return_images=True)
        self.assertEqual(body["status"], "completed")
        self.assertEqual(body["events_folded"], 0)
        kinds = [e["type"] for e in body["events"]]
        for kind in ("execution_start", "executing", "progress", "executed", "execution_success"):
            self.assertIn(kind, kinds)
        self.assertLess(kinds.index("execution_start"), kinds.index("progress"))
        self.assertLess(kinds.index("executed"), kinds.index("execution_success"))
        steps = [e["data"]["value"] for e in body["events"] if e["type"] == "progress"]
        self.assertEqual(steps, [1, 2, 3, 4])
        self.assertTrue(all(isinstance(e["data"], dict) for e in body["events"]))
        self.assertNotIn("progress_log", body)
        self.assertTrue(all(e["data"].get("prompt_id", body["prompt_id"]) == body["prompt_id"]
                            for e in body["events"]))

    def test_bounded(self):
        tools = self.both()
        body = tools.good("execute_workflow_stream", workflow=sampler(steps=3000, step_ms=1), timeout_ms=120000)
        self.assertLessEqual(len(body["events"]), 1000)
        self.assertGreater(body["events_folded"], 0)
        kinds = [e["type"] for e in body["events"]]
        self.assertIn("execution_success", kinds)
        self.assertIn("executed", kinds)

    def test_of_a_failure(self):
        tools = self.both()
        is_error, body = tools.end_of(tools.start("execute_workflow_stream", workflow=failing()),
                                      "execute_workflow_stream")
        self.assertTrue(is_error)
        self.assertEqual(body["error"]["type"], "CheeseError")
        self.assertIn("execution_error", [e["type"] for e in body["events"]])

    def test_websocket_is_down(self):
        tools = self.both()
        self.rig.fault(fault="status", code=503, path="/ws", count=10000)
        self.rig.fault(fault="drop")
        wait_for(lambda: self.rig.status()["upstream"]["state"] != "connected", "the loss")
        tools.bad("execute_workflow_stream", "unreachable", "WebSocket", "execute_workflow_sync",
                  workflow=sampler())
        self.rig.fault(fault="clear")
        wait_for(lambda: self.rig.status()["upstream"]["state"] == "connected", "the link")
        self.assertEqual(self.journal("post"), [])


class Load(Case):
    def test_large_workflow(self):
        """5 MB of it: by every way, byte for byte."""
        tools = self.both()
        large = sampler()
        for i in range(40):
            large["n%d" % i] = {"class_type": "SimText", "inputs": {"text": "%d" % i + "x" * 135000}}
        text = json.dumps(large)
        self.assertGreater(len(text), 5 << 20)
        self.rig.write("large.json", text)
        for arguments in ({"workflow": large}, {"workflow": text}, {"workflow_path": "large.json"},
                          {"workflow": text, "set": {"3.seed": SEED}}):
            body = tools.good("execute_workflow_sync", timeout_ms=60000, **arguments)
            self.assertEqual(body["status"], "completed")
            self.assertGreater(body["outputs_left_out"], 5000000)
            self.assertNotIn("outputs", body)
            for name in ("get_execution_progress", "list_outputs"):
                self.assertIn("outputs_left_out", tools.good(name, prompt_id=body["prompt_id"]))
        self.assertEqual(len(tools.good("get_history")["prompts"]), 4)
        posts = self.journal("post")
        self.assertEqual(len(posts), 4)
        self.assertEqual(posts[0]["workflow"], large)
        self.assertEqual(posts[3]["workflow"]["3"]["inputs"]["seed"], SEED)
        # Larger than fits.
        tools.bad("execute_workflow_sync", "limit", workflow_path=self.rig.write(
            "larger.json", '{"1": {"class_type": "SimText", "inputs": {"text": "%s"}}}' % ("x" * (15 << 20))))

    def test_two_hundred_at_once(self):
        tools = self.both("--speed", "10")
        calls = [tools.start("execute_workflow_sync", workflow=sampler(steps=2, seed=i, prefix="c%d" % i),
                             timeout_ms=120000, token=i) for i in range(200)]
        for i, call in enumerate(calls):
            is_error, body = tools.end_of(call, "execute_workflow_sync")
            self.assertFalse(is_error, body)
            self.assertIn("c%d_" % i, body["outputs"]["9"]["images"][0]["filename"])
        self.assertEqual(len(self.journal("post")), 200)
        self.assertEqual(len({j["prompt_id"] for j in self.journal("post")}), 200)
        self.assertEqual(self.rig.stats()["websockets"]["total"], 1)

    def test_mixed_at_once(self):
        tools = self.both("--speed", "10")
        done = tools.good("execute_workflow_sync", workflow=sampler())
        image = done["outputs"]["9"]["images"][0]["filename"]
        kinds = [("execute_workflow_sync", lambda i: {"workflow": sampler(seed=i)}),
                 ("submit_workflow", lambda i: {"workflow": sampler(seed=i)}),
                 ("get_queue", lambda i: {}), ("get_history", lambda i: {"limit": 50}),
                 ("list_outputs", lambda i: {"prompt_id": done["prompt_id"], "return_images": True}),
                 ("download_by_filename", lambda i: {"filename": image, "dest_path": "f%d" % i}),
                 ("upload_image", lambda i: {"base64": "YWJj", "filename": "u%d.png" % i}),
                 ("get_node_info", lambda i: {"class_type": "KSampler"}),
                 ("search_nodes", lambda i: {"query": "sampler"}), ("get_last_output", lambda i: {})]
        calls = [(name, tools.start(name, **make(i))) for i in range(20) for name, make in kinds]
        for name, call in calls:
            is_error, body = tools.end_of(call, name)
            self.assertFalse(is_error, (name, body))
        for i in range(20):
            with open(self.rig.path("f%d" % i), "rb") as f:
                self.assertEqual(f.read(8), PNG)

    def test_others_hear_nothing(self):
        """What one session runs costs the others no line."""
        self.rig.start_sim()
        self.daemon()
        sessions = [self.tools() for _ in range(4)]
        before = [len(s.client.lines) for s in sessions[1:]]
        sessions[0].good("execute_workflow_sync", workflow=sampler(steps=200, step_ms=2))
        for s, n in zip(sessions[1:], before):
            self.assertEqual(s.client.request("ping")["result"], {})
            self.assertEqual(len(s.client.lines), n + 1)


@unittest.skipIf(os.getuid() != 0, "needs root to pose as others")
class Succession(Case):
    """The worker is killed in the middle of a call."""

    def kill(self, tools):
        pid = tools.client.worker()
        os.kill(pid, 9)
        wait_for(lambda: not is_running(pid), "its end")

    def worker_of(self, tools):
        return wait_for(lambda: [s for s in self.rig.status()["sessions"] if s["kind"] == "mcp"],
                        "the session")[0]["pid"]

    def test_each_waiting_tool_goes_on(self):
        tools = self.both()
        prompt = self.running(tools, steps=120)
        self.rig.pause()
        calls = [(name, tools.start(name, token=name, timeout_ms=60000, **arguments)) for name, arguments in (
            ("wait_for_execution", {"prompt_id": prompt}),
            ("execute_workflow_sync", {"workflow": sampler(seed=3)}),
            ("execute_workflow_stream", {"workflow": sampler(seed=4)}))]
        for name, _ in calls:
            tools.client.wait(lambda n=name: tools.client.progress(n), "progress of " + name)
        wait_for(lambda: len(tools.good("get_queue")["pending"]) == 2, "both to be queued")
        os.kill(self.worker_of(tools), 9)
        self.rig.resume()
        for name, call in calls:
            is_error, body = tools.end_of(call, name)
            self.assertFalse(is_error, body)
            self.assertEqual(body["status"], "completed")
        self.assertEqual(len(self.journal("post")), 3)

    def test_progress_stays_on_the_same_scale(self):
        """A wait that comes when the worker that submitted is dead."""
        tools = self.both()
        prompt = self.running(tools, steps=100, step_ms=50)
        self.rig.pause()
        os.kill(self.worker_of(tools), 9)
        call = tools.start("wait_for_execution", prompt_id=prompt, timeout_ms=60000, token="w")
        tools.client.wait(lambda: tools.client.progress("w"), "progress")
        self.rig.resume()
        told = tools.client.wait(lambda: [p for p in tools.client.progress("w")
                                          if p["message"].startswith("Node 3 (SimSampler) step")], "a step")
        for p in told:
            step = int(p["message"].split()[4])
            self.assertAlmostEqual(p["progress"] / p["total"], step / 100 / 2, delta=0.01)
        self.assertEqual(tools.end_of(call, "wait_for_execution")[1]["status"], "completed")

    def test_prompts_outlive_the_session(self):
        tools = self.both()
        prompt = self.running(tools, steps=120)
        self.assertEqual(tools.client.end(), 0)
        later = self.tools()
        self.assertEqual(later.good("get_history")["prompts"][0]["prompt_id"], prompt)
        self.assertEqual(later.good("wait_for_execution", prompt_id=prompt)["status"], "completed")

    def test_supervisor_killed_while_waiting(self):
        self.config(poll_interval_ms=300, autostart="no")
        self.rig.start_sim()
        daemon = self.daemon()
        tools = self.tools()
        call = tools.start("execute_workflow_sync", workflow=sampler(steps=120, step_ms=50), token=1,
                           timeout_ms=60000)
        self.executing(tools, call, 1)
        daemon.kill()
        daemon.wait()
        is_error, body = tools.end_of(call, "execute_workflow_sync")
        self.assertFalse(is_error, body)
        self.assertEqual(body["status"], "completed")
        self.assertEqual(len(self.journal("post")), 1)


if __name__ == "__main__":
    unittest.main()

"""The MCP tools, each against a simulated ComfyUI that behaves and one that does
not: what they return, how they wait and cancel, what they say when something
fails, and that nothing of anybody else's can be had through them."""
import base64
import http.server
import json
import os
import shutil
import tempfile
import threading
import time
import unittest

import jsonschema_lite
import mcplib
import rig
from mcplib import MODERN, Client
from rig import wait_for

SEED = 18446744073709551615  # 2^64-1: no double holds it
PNG = b"\x89PNG\r\n\x1a\n"
LIST_MAX = 20 << 10
NEVER = "00000000-0000-4000-8000-000000000000"


def sampler(steps=4, step_ms=5, prefix="tool", seed=1, **more):
    return {
        "3": {"class_type": "SimSampler", "inputs": {"seed": seed, "steps": steps, "step_ms": step_ms, **more}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": prefix}},
    }


def failing(after_ms=0, message="out of cheese"):
    return {
        "3": {"class_type": "SimSampler", "inputs": {"seed": 1, "steps": 2, "step_ms": 5}},
        "5": {"class_type": "SimError", "inputs": {"message": message, "type": "CheeseError",
                                                   "after_ms": after_ms, "after": ["3", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "e"}},
    }


FOREVER = {"steps": 10000, "step_ms": 50}


class Tools:
    """A client whose results are held to what the tools promise."""

    def __init__(self, owner, version="2025-11-25", *args, **kwargs):
        self.client = Client(owner, *args, **kwargs)
        self.version = version
        if version != MODERN:
            self.client.initialize(version)
        self.list = {t["name"]: t for t in self.client.request(
            "tools/list", mcplib.modern() if version == MODERN else None)["result"]["tools"]}

    def start(self, name, token=None, **arguments):
        return self.client.call(name, arguments, token=token, era=self.version)

    def look(self, result, name):
        """(is_error, the object that the first text block holds), checked."""
        body = mcplib.strict_json(result["content"][0]["text"])
        assert isinstance(body, dict), body
        if self.version >= "2025-06-18" and not result["isError"]:
            assert result["structuredContent"] == body
        else:
            assert "structuredContent" not in result
        if not result["isError"]:
            schema = self.list[name].get("outputSchema")
            if schema:
                jsonschema_lite.Validator(schema).check(body, schema)
        else:
            assert isinstance(body["error"]["type"], str) and body["error"]["type"], body
            assert body["error"]["message"], body
        return result["isError"], body

    def end_of(self, call, name):
        return self.look(self.client.answer(call)["result"], name)

    def good(self, name, **arguments):
        is_error, body = self.end_of(self.start(name, **arguments), name)
        assert not is_error, body
        return body

    def bad(self, name, type_, *words, **arguments):
        is_error, body = self.end_of(self.start(name, **arguments), name)
        assert is_error, body
        assert body["error"]["type"] == type_, body
        for word in words:
            assert word in body["error"]["message"], (word, body)
        return body

    def raw(self, name, **arguments):
        return self.client.answer(self.start(name, **arguments))["result"]


class Case(unittest.TestCase):
    def setUp(self):
        self.reports = tempfile.mkdtemp(prefix="cmx-san-")
        self.addCleanup(self.look_at_reports)
        self.new_rig()

    def new_rig(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)
        self.conf = None
        # Links, since the directory is gone when the last process has ended.
        for program in ("comfymux", "comfymuxd"):
            name = "%s.log" % program
            os.close(os.open(self.rig.path(name), os.O_CREAT | os.O_WRONLY, 0o666))
            os.link(self.rig.path(name), os.path.join(self.reports, "%d.%s" % (len(os.listdir(self.reports)), name)))

    def look_at_reports(self):
        """A worker that dies of a fault has a successor, and the test would
        pass."""
        texts = []
        for name in os.listdir(self.reports):
            with open(os.path.join(self.reports, name), errors="replace") as f:
                texts.append(f.read())
        shutil.rmtree(self.reports)
        for text in texts:
            for word in ("Sanitizer", "runtime error:", "Segmentation fault", "Aborted", "Bus error",
                         "Illegal instruction", "Bad system call"):
                at = text.find(word)
                self.assertEqual(at, -1, text[max(0, at - 500):at + 4000])

    def config(self, **keys):
        self.conf = self.rig.write("config/comfymux/comfymux.conf",
                                   "".join("%s = %s\n" % kv for kv in keys.items()))

    def tools(self, *args, **kwargs):
        t = Tools(self.rig, *args, **kwargs)
        self.addCleanup(t.client.process.wait)
        self.addCleanup(t.client.process.stdin.close)
        return t

    def both(self, *sim_options, **config):
        if config:
            self.config(**config)
        self.rig.start_sim(*sim_options)
        self.daemon()
        return self.tools()

    def daemon(self, **kwargs):
        """Started by root it is a system service, and reads no user's file."""
        return self.rig.start_daemon(*(("--config", self.conf) if self.conf else ()), **kwargs)

    def journal(self, fact):
        return [j for j in self.rig.journal() if j["fact"] == fact]

    def executing(self, tools, call, token):
        """Waits until the call's prompt runs."""
        tools.client.wait(lambda: [p for p in tools.client.progress(token) if "Node" in p.get("message", "")],
                          "its first node")
        return call

    def running(self, tools, **more):
        prompt = tools.good("submit_workflow", workflow=sampler(**{**FOREVER, **more}))["prompt_id"]
        wait_for(lambda: tools.good("get_execution_progress", prompt_id=prompt)["status"] == "executing",
                 "it to run")
        return prompt


class Listing(Case):
    def setUp(self):
        super().setUp()
        self.rig.sim_url = "http://127.0.0.1:%d" % rig.free_port()

    def test_schemas_and_annotations_in_every_version(self):
        for version in mcplib.LEGACY + (MODERN,):
            with self.subTest(version=version):
                tools = self.tools(version)
                compact = json.dumps(list(tools.list.values()), separators=(",", ":"), ensure_ascii=False)
                self.assertLess(len(compact.encode()), LIST_MAX)
                for name, tool in tools.list.items():
                    self.check_tool(version, name, tool)

    def check_tool(self, version, name, tool):
        self.assertRegex(name, r"^[a-z_]{1,40}$")
        self.assertGreater(len(tool["description"]), 30)
        self.check_schema(tool["inputSchema"])
        self.assertIs(tool["inputSchema"]["additionalProperties"], False)
        if version >= "2025-03-26":
            self.assertEqual({k for k in tool["annotations"] if k.endswith("Hint")},
                             {"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"})
            self.assertFalse(tool["annotations"]["readOnlyHint"] and tool["annotations"]["destructiveHint"])
        else:
            self.assertNotIn("annotations", tool)
        if version >= "2025-06-18":
            self.assertTrue(tool["title"])
            self.check_schema(tool["outputSchema"])
            self.assertNotEqual(tool["outputSchema"].get("additionalProperties"), False)
        else:
            self.assertNotIn("outputSchema", tool)

    def check_schema(self, schema):
        self.assertEqual(schema["type"], "object")
        self.assertLessEqual(set(schema["required"]), set(schema["properties"]))
        # Every keyword is one that the validator knows.
        jsonschema_lite.Validator(schema).fits({k: None for k in schema["properties"]}, schema)

    def test_all_tools_are_there(self):
        names = list(self.tools().list)
        self.assertEqual(names[0], "execute_workflow_sync")
        for name in ("execute_workflow_stream", "submit_workflow", "wait_for_execution",
                     "get_execution_progress", "cancel_execution", "get_queue", "get_history",
                     "get_last_output", "list_outputs", "get_error_details", "download_by_filename",
                     "upload_image", "get_node_info", "search_nodes", "get_system_resources"):
            self.assertIn(name, names)


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
        tools = self.both("--speed", "20")
        first = tools.start("execute_workflow_sync", workflow=sampler(steps=40, step_ms=500), token="a")
        self.executing(tools, first, "a")
        others = []
        # One after the other: calls at the same time may arrive in any order.
        for i in (7, 8):
            others.append(tools.start("execute_workflow_sync", workflow=sampler(seed=i), token=i))
            wait_for(lambda: len(self.journal("post")) == 1 + len(others), "it to be posted")
        logs = [tools.end_of(c, "execute_workflow_sync")[1]["progress_log"] for c in others]
        self.assertEqual(logs[0][0], "Queued (position: 1)")
        self.assertEqual(logs[1][0], "Queued (position: 2)")
        self.assertIn("Queued (position: 2)", [p["message"] for p in tools.client.progress(8)])
        for token in ("a", 7, 8):
            self.check_progress(tools.client.progress(token))

    def check_progress(self, told):
        values = [p["progress"] for p in told]
        self.assertEqual(values, sorted(set(values)))
        self.assertTrue(all(v < p["total"] for v, p in zip(values, told)), told)

    def test_progress_is_of_the_whole_workflow(self):
        tools = self.both()
        chain = {str(i): {"class_type": "SimSampler", "inputs": {"seed": i, "steps": 4, "step_ms": 60,
                                                                 "after": [str(i - 1), 0]}} for i in range(2, 5)}
        chain["1"] = {"class_type": "SimSampler", "inputs": {"seed": 1, "steps": 4, "step_ms": 60}}
        chain["5"] = {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "p"}}
        call = tools.start("execute_workflow_sync", workflow=chain, token=0)
        self.assertFalse(tools.end_of(call, "execute_workflow_sync")[0])
        told = tools.client.progress(0)
        self.check_progress(told)
        self.assertGreaterEqual(len(told), 3)
        for p in told:
            node = p["message"].split()[1] if p["message"].startswith("Node") else None
            if node:
                self.assertIn("(" + chain[node]["class_type"] + ")", p["message"])
                done = (int(node) - 1) / 5
                self.assertGreaterEqual(p["progress"] / p["total"], done - 0.001, p)
                self.assertLessEqual(p["progress"] / p["total"], done + 0.201, p)
        # Nothing follows the result.
        count = len(tools.client.notifications)
        tools.good("get_queue")
        self.assertEqual(len(tools.client.notifications), count)

    def test_progress_of_a_wait_is_on_the_same_scale(self):
        tools = self.both(default_wait_s=1)
        first = tools.good("execute_workflow_sync", workflow=sampler(steps=60, step_ms=50))
        self.assertIs(first["timed_out"], True)
        call = tools.start("wait_for_execution", prompt_id=first["prompt_id"], timeout_ms=60000, token="w")
        self.assertEqual(tools.end_of(call, "wait_for_execution")[1]["status"], "completed")
        told = [p for p in tools.client.progress("w") if p["message"].startswith("Node 3 (SimSampler) step")]
        self.assertTrue(told, tools.client.progress("w"))
        for p in told:
            step = int(p["message"].split()[4])
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
            body = tools.good(name, workflow=sampler(**FOREVER))
            prompt = body["prompt_id"]
            self.assertIs(body["timed_out"], True)
            self.assertEqual(body["status"], "executing")
            self.assertEqual(body["current_node"], "3")
            self.assertIn("wait_for_execution", body["next"])
            again = tools.good("wait_for_execution", prompt_id=prompt)
            self.assertIs(again["timed_out"], True)
            self.assertEqual(again["prompt_id"], prompt)
            self.assertGreater(again["current_node_progress"], 0)
            # One that waits behind it is told to be queued.
            behind = tools.good("execute_workflow_sync", workflow=sampler(seed=2))
            self.assertEqual(behind["status"], "queued")
            self.assertEqual(behind["queue_position"], 1)
            self.assertIs(behind["timed_out"], True)
            tools.good("cancel_execution", prompt_id=prompt)
            self.assertEqual(tools.good("wait_for_execution", prompt_id=behind["prompt_id"],
                                        timeout_ms=60000)["status"], "completed")

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
        body = tools.good("execute_workflow_sync", workflow=sampler(steps=60, step_ms=50))
        self.assertIs(body["timed_out"], True)
        self.assertEqual(body["progress_method"], "polling")
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
                self.rig.fault(fault="delay", ms=2000, path="/prompt")
                body = tools.good("execute_workflow_sync", workflow=sampler(steps=60, step_ms=50))
                self.assertIs(body["timed_out"], True)
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
        load = {"1": {"class_type": "SimLoad", "inputs": {"ms": 17000}},
                "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}}
        self.rig.fault(fault="delay", ms=17000, path="/system_stats")
        start = time.monotonic()
        calls = {"load": tools.start("execute_workflow_sync", workflow=load, token="load"),
                 "queued": tools.start("execute_workflow_sync", workflow=sampler(), token="queued")}
        asked = tools.start("get_system_resources", token="ask")
        for call in calls.values():
            self.assertEqual(tools.end_of(call, "execute_workflow_sync")[1]["status"], "completed")
        tools.end_of(asked, "get_system_resources")
        self.assertGreater(time.monotonic() - start, 16)
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
        self.rig.fault(fault="drop")
        self.rig.fault(fault="refuse", ms=4000)
        wait_for(lambda: self.rig.status()["upstream"]["state"] != "connected", "the loss")
        tools.bad("execute_workflow_stream", "unreachable", "WebSocket", "execute_workflow_sync",
                  workflow=sampler())
        wait_for(lambda: self.rig.status()["upstream"]["state"] == "connected", "the link")
        self.assertEqual(self.journal("post"), [])


class Failures(Case):
    def fails(self, tools, type_, call=None, **arguments):
        """(message, body) of an execution that fails with that type."""
        call = call or tools.start("execute_workflow_sync", **arguments)
        is_error, body = tools.end_of(call, "execute_workflow_sync")
        self.assertTrue(is_error, body)
        self.assertEqual(body["error"]["type"], type_, body)
        self.assertTrue(body["prompt_id"])
        self.assertTrue(body["next"])
        return body

    def test_node_error(self):
        tools = self.both()
        body = self.fails(tools, "CheeseError", workflow=failing())
        self.assertEqual(body["status"], "failed")
        self.assertEqual(body["error"]["node_id"], "5")
        self.assertIn("out of cheese", body["error"]["message"])
        self.assertIn("get_error_details", body["next"])
        details = tools.good("get_error_details", prompt_id=body["prompt_id"])
        self.assertEqual(details["node_type"], "SimError")
        self.assertEqual(details["error"], body["error"])
        self.assertTrue(details["traceback"])
        self.assertTrue(details["next"])
        self.assertNotIn("traceback_lines_left_out", details)
        # A wait for it, and its progress, say the same.
        is_error, again = tools.end_of(tools.start("wait_for_execution", prompt_id=body["prompt_id"]),
                                       "wait_for_execution")
        self.assertTrue(is_error)
        self.assertEqual(again["error"], body["error"])
        self.assertEqual(tools.good("get_execution_progress", prompt_id=body["prompt_id"])["error"], body["error"])

    def test_long_message_is_cut(self):
        tools = self.both()
        body = self.fails(tools, "CheeseError", workflow=failing(message="é" * 300000))
        self.assertLess(len(json.dumps(body)), 100000)
        details = tools.good("get_error_details", prompt_id=body["prompt_id"])
        self.assertLess(len(json.dumps(details)), 100000)

    def test_details_of_what_has_not_failed(self):
        tools = self.both()
        prompt = tools.good("execute_workflow_sync", workflow=sampler())["prompt_id"]
        body = tools.good("get_error_details", prompt_id=prompt)
        self.assertEqual(body["status"], "completed")
        self.assertNotIn("error", body)
        self.assertIn("list_outputs", body["next"])
        prompt = self.running(tools)
        self.assertIn("wait_for_execution", tools.good("get_error_details", prompt_id=prompt)["next"])
        tools.bad("get_error_details", "not_found", prompt_id=NEVER)

    def test_refused(self):
        tools = self.both()
        wrong = sampler(steps=0)
        for workflow, word in (({"1": {"class_type": "NoSuchNode", "inputs": {}}}, "NoSuchNode"),
                               (wrong, "steps")):
            for name in ("execute_workflow_sync", "submit_workflow", "execute_workflow_stream"):
                body = tools.bad(name, "rejected", workflow=workflow)
                self.assertIn(word, json.dumps(body), body)
                self.assertIn("prompt_id", body)
                self.assertTrue(body["next"])
        self.assertIn("3", body["error"]["node_errors"])

    def test_in_the_wrong_format(self):
        tools = self.both()
        ui = {"last_node_id": 2, "nodes": [{"id": 1, "type": "KSampler"}], "links": [], "version": 0.4}
        for arguments in ({"workflow": ui}, {"workflow": json.dumps(ui)}):
            tools.bad("execute_workflow_sync", "invalid", "API", **arguments)
        for workflow in ({}, {"3": 5}, {"3": {"inputs": {}}}, "", "{", "[]", "null", '{"3": {"class_type": 1}}'):
            tools.bad("execute_workflow_sync", "invalid", workflow=workflow)
        for arguments in ({}, {"workflow_path": ""}, {"workflow": sampler(), "workflow_path": "x"},
                          {"workflow": 5}, {"workflow": sampler(), "timeout_ms": 0},
                          {"workflow": sampler(), "timeout_ms": 86400001},
                          {"workflow": sampler(), "unknown": 1}, {"workflow": sampler(), "set": []}):
            tools.bad("execute_workflow_sync", "invalid", **arguments)
        self.assertEqual(self.journal("post"), [])
        # A wrapped one is taken as what it is.
        tools.good("execute_workflow_sync", workflow={"prompt": sampler()})

    def test_comfyui_is_down(self):
        self.rig.sim_url = "http://127.0.0.1:%d" % rig.free_port()
        self.daemon(connected=False)
        tools = self.tools()
        body = tools.bad("execute_workflow_sync", "unreachable", workflow=sampler())
        self.assertTrue(body["prompt_id"])
        self.assertIn("next", body)
        for name, arguments in (("submit_workflow", {"workflow": sampler()}), ("get_system_resources", {}),
                                ("search_nodes", {"query": "x"}), ("get_node_info", {"class_type": "x"})):
            tools.bad(name, "unreachable", **arguments)
        # What the supervisor knows is told all the same.
        self.assertEqual(tools.good("get_history"), {"prompts": []})
        self.assertEqual(tools.good("get_queue")["others"], 0)

    def test_comfyui_is_down_and_no_supervisor(self):
        self.config(autostart="no")
        self.rig.sim_url = "http://127.0.0.1:%d" % rig.free_port()
        tools = self.tools()
        for name, arguments in (("execute_workflow_sync", {"workflow": sampler()}), ("get_history", {}),
                                ("get_queue", {}), ("get_execution_progress", {"prompt_id": NEVER}),
                                ("get_last_output", {}), ("download_by_filename",
                                                          {"filename": "x", "return_base64": True})):
            tools.bad(name, "unreachable", **arguments)

    def test_interrupted_by_somebody_else(self):
        tools = self.both()
        call = tools.start("execute_workflow_sync", workflow=sampler(**FOREVER), token=1)
        self.executing(tools, call, 1)
        self.rig.sim("POST", "/interrupt", {})
        body = self.fails(tools, "interrupted", call)
        self.assertEqual(body["status"], "failed")
        self.assertNotIn("traceback", body["next"])

    def test_queue_cleared_by_somebody_else(self):
        tools = self.both(poll_interval_ms=300)
        self.running(tools)
        call = tools.start("execute_workflow_sync", workflow=sampler(seed=9), token=2)
        wait_for(lambda: tools.good("get_queue")["pending"], "it to be queued")
        self.rig.sim("POST", "/queue", {"clear": True})
        self.fails(tools, "deleted", call)

    def test_comfyui_dies_while_it_runs(self):
        tools = self.both()
        call = tools.start("execute_workflow_sync", workflow=sampler(**FOREVER), token=3, timeout_ms=60000)
        self.executing(tools, call, 3)
        self.rig.fault(fault="restart", down_ms=500)
        body = self.fails(tools, "lost", call)
        self.assertIn("run it again", body["next"])

    def test_comfyui_is_away_for_a_while(self):
        """The prompt goes on, and so does the call."""
        tools = self.both()
        call = tools.start("execute_workflow_sync", workflow=sampler(steps=80, step_ms=50), token=4,
                           timeout_ms=60000)
        self.executing(tools, call, 4)
        self.rig.fault(fault="drop", how="rst")
        self.rig.fault(fault="refuse", ms=2000)
        is_error, body = tools.end_of(call, "execute_workflow_sync")
        self.assertFalse(is_error, body)
        self.assertEqual(body["status"], "completed")
        self.assertEqual(len(self.journal("post")), 1)

    def test_comfyui_is_away_for_a_while_and_no_supervisor(self):
        self.config(autostart="no", poll_interval_ms=200)
        self.rig.start_sim()
        tools = self.tools()
        call = tools.start("execute_workflow_sync", workflow=sampler(steps=60, step_ms=50), timeout_ms=60000)
        wait_for(lambda: tools.good("get_queue")["running"], "it to run")
        self.rig.fault(fault="refuse", ms=2000)
        is_error, body = tools.end_of(call, "execute_workflow_sync")
        self.assertFalse(is_error, body)
        self.assertEqual(body["status"], "completed")
        self.assertEqual(len(self.journal("post")), 1)

    def test_success_with_many_messages_is_success(self):
        tools = self.both()
        for i in range(5):
            body = tools.good("execute_workflow_sync", workflow=sampler(seed=i))
            self.assertEqual(body["status"], "completed")
            self.assertNotIn("error", body)


class Looking(Case):
    def test_progress_and_queue(self):
        tools = self.both()
        prompt = self.running(tools)
        behind = tools.good("submit_workflow", workflow=sampler(seed=4))
        self.assertEqual(behind["status"], "queued")
        self.assertIn("wait_for_execution", behind["next"])
        body = tools.good("get_execution_progress", prompt_id=behind["prompt_id"])
        self.assertEqual((body["status"], body["queue_position"]), ("queued", 1))
        queue = tools.good("get_queue")
        self.assertEqual([p["prompt_id"] for p in queue["running"]], [prompt])
        self.assertEqual([p["prompt_id"] for p in queue["pending"]], [behind["prompt_id"]])
        self.assertEqual(queue["others"], 0)
        history = tools.good("get_history")["prompts"]
        self.assertEqual({p["prompt_id"] for p in history}, {prompt, behind["prompt_id"]})
        tools.bad("get_last_output", "not_found", "still running")
        tools.good("cancel_execution", prompt_id=prompt)
        tools.good("wait_for_execution", prompt_id=behind["prompt_id"])
        self.assertEqual(tools.good("get_last_output")["prompt_id"], behind["prompt_id"])

    def test_history(self):
        tools = self.both()
        ids = [tools.good("execute_workflow_sync", workflow=sampler(seed=i))["prompt_id"] for i in range(4)]
        got = tools.good("get_history")["prompts"]
        self.assertEqual([p["prompt_id"] for p in got], ids[::-1])
        self.assertTrue(all(p["status"] == "completed" and p["outputs"] for p in got))
        self.assertEqual([p["prompt_id"] for p in tools.good("get_history", limit=2)["prompts"]], ids[:1:-1])
        prompt = self.running(tools)
        self.assertEqual([p["prompt_id"] for p in tools.good("get_history", limit=2)["prompts"]],
                         [prompt, ids[3]])
        for limit in (0, 101, 1.5, "3", -1):
            tools.bad("get_history", "invalid", "limit", limit=limit)

    def test_last_output(self):
        tools = self.both()
        tools.bad("get_last_output", "not_found")
        text = {"1": {"class_type": "SimText", "inputs": {"text": "no image"}}}
        made = tools.good("execute_workflow_sync", workflow=sampler())
        tools.good("execute_workflow_sync", workflow=text)
        tools.good("execute_workflow_sync", workflow={"1": {"class_type": "SimText", "inputs": {"text": "2"}}})
        result = tools.raw("get_last_output", return_images=True)
        _, body = tools.look(result, "get_last_output")
        image = made["outputs"]["9"]["images"][0]
        self.assertEqual(body["prompt_id"], made["prompt_id"])
        self.assertEqual(body["filename"], image["filename"])
        self.assertEqual([c["type"] for c in result["content"]], ["text", "image", "resource_link"])
        self.assertNotIn("in_flight", body)
        status, raw = rig.http("GET", body["view_url"])
        self.assertEqual((status, raw[:8]), (200, PNG))
        prompt = self.running(tools, seed=8)
        body = tools.good("get_last_output")
        self.assertEqual(body["prompt_id"], made["prompt_id"])
        self.assertEqual(body["in_flight"], prompt)

    def test_outputs(self):
        tools = self.both()
        many = {**sampler(batch_size=3),
                "10": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
                "11": {"class_type": "SimOutput", "inputs": {
                    "images": ["3", 0], "key": "text", "json": '{"n": 12345678901234567890, "filename": 5}'}},
                "12": {"class_type": "SimText", "inputs": {"text": "<b>&\"é\u2028"}}}
        prompt = tools.good("execute_workflow_sync", workflow=many)["prompt_id"]
        result = tools.raw("list_outputs", prompt_id=prompt, return_images=True)
        _, body = tools.look(result, "list_outputs")
        self.assertEqual(sorted({(f["node"], f["type"]) for f in body["files"]}),
                         [("10", "temp"), ("9", "output")])
        self.assertEqual(len(body["files"]), 6)
        self.assertEqual(len([c for c in result["content"] if c["type"] == "image"]), 6)
        for f in body["files"]:
            self.assertEqual(rig.http("GET", f["view_url"])[0], 200)
        self.assertIn("12345678901234567890", result["content"][0]["text"])
        tools.bad("list_outputs", "not_found", prompt_id=NEVER)

    def test_prompts_of_the_web_page(self):
        """On a supervisor of one's own they count as one's own."""
        tools = self.both(poll_interval_ms=200, socket_mode="0600")
        mine = tools.good("execute_workflow_sync", workflow=sampler(prefix="mine"))["prompt_id"]
        done = self.web(sampler(prefix="web", seed=2))
        self.assertEqual(tools.good("wait_for_execution", prompt_id=done)["status"], "completed")
        latest = tools.good("execute_workflow_sync", workflow=sampler(prefix="mine", seed=3))["prompt_id"]
        self.assertEqual([p["prompt_id"] for p in tools.good("get_history")["prompts"]], [latest, done, mine])
        self.assertEqual([p["prompt_id"] for p in tools.good("get_history", limit=2)["prompts"]], [latest, done])
        self.assertEqual(len(tools.good("list_outputs", prompt_id=done)["files"]), 1)
        tools.good("get_error_details", prompt_id=done)
        name = tools.good("list_outputs", prompt_id=done)["files"][0]["filename"]
        tools.good("download_by_filename", filename=name, dest_path="web.png")
        runs = self.web(sampler(**FOREVER))
        behind = tools.good("submit_workflow", workflow=sampler(seed=4))["prompt_id"]
        last = self.web(sampler(seed=5))
        queue = wait_for(lambda: self.queue_with(tools, runs), "the web page's prompt")
        self.assertEqual([p["prompt_id"] for p in queue["pending"]], [behind, last])
        self.assertEqual([p["queue_position"] for p in queue["pending"]], [1, 2])
        self.assertEqual(queue["others"], 0)
        history = [p["prompt_id"] for p in tools.good("get_history")["prompts"]]
        self.assertEqual(set(history[:3]), {runs, behind, last})
        self.assertEqual(history[3:], [latest, done, mine])
        self.assertIn(tools.good("get_last_output")["in_flight"], (runs, behind, last))
        self.assertEqual(tools.good("get_execution_progress", prompt_id=runs)["status"], "executing")
        for prompt in (last, runs):
            tools.good("cancel_execution", prompt_id=prompt)
        self.assertEqual(tools.good("wait_for_execution", prompt_id=behind)["status"], "completed")
        # Without ComfyUI's word there is still the supervisor's.
        self.rig.fault(fault="status", code=500, path="/history", count=9)
        self.assertEqual({p["prompt_id"] for p in tools.good("get_history")["prompts"]}, {mine, latest, behind})

    def web(self, workflow):
        status, reply = self.rig.sim("POST", "/prompt", {"prompt": workflow, "client_id": "web"})
        self.assertEqual(status, 200)
        return reply["prompt_id"]

    def queue_with(self, tools, prompt):
        queue = tools.good("get_queue")
        return queue if [p["prompt_id"] for p in queue["running"]] == [prompt] else None

    def test_unknown_prompts(self):
        tools = self.both()
        for name in ("get_execution_progress", "cancel_execution", "list_outputs", "get_error_details",
                     "wait_for_execution"):
            for prompt in (NEVER, "x", "../../etc", "a b\nc", "é" * 100, "%2e%2e"):
                tools.bad(name, "not_found", prompt_id=prompt)
            for prompt in ("", "x" * 201, "\u0000", 5, None):
                tools.bad(name, "invalid", prompt_id=prompt)

    def test_node_info(self):
        tools = self.both()
        body = tools.good("get_node_info", class_type="KSampler")
        self.assertEqual(body["class_type"], "KSampler")
        self.assertIn("seed", body["input"]["required"])
        self.assertEqual(body["output"], ["LATENT"])
        self.assertIn("18446744073709551615",
                      tools.raw("get_node_info", class_type="KSampler")["content"][0]["text"])
        for name in ("NoSuchNode", "ksampler", "../history", "KSampler?x", "a/b", "é", "%00"):
            tools.bad("get_node_info", "not_found", class_type=name)

    def test_search(self):
        tools = self.both()
        body = tools.good("search_nodes", query="ksampler")
        self.assertEqual(body["nodes"][0]["class_type"], "KSampler")
        body = tools.good("search_nodes", query="Load image")
        self.assertIn("LoadImage", [n["class_type"] for n in body["nodes"]])
        self.assertEqual(tools.good("search_nodes", query="image load")["found"], body["found"])
        all_of_them = tools.good("search_nodes", query="i", limit=100)
        one = tools.good("search_nodes", query="i", limit=1)
        self.assertEqual(len(one["nodes"]), 1)
        self.assertEqual(one["found"], all_of_them["found"])
        self.assertGreater(one["found"], 1)
        none = tools.good("search_nodes", query="no such thing anywhere")
        self.assertEqual((none["nodes"], none["found"]), ([], 0))
        self.assertTrue(none["next"])
        tools.bad("search_nodes", "invalid", query="")
        tools.bad("search_nodes", "invalid", query=" \t ")
        tools.good("search_nodes", query="%s*[" * 20)

    def test_resources(self):
        tools = self.both()
        body = tools.good("get_system_resources")
        self.assertIn("comfyui_version", body["system"])
        self.assertNotIn("argv", body["system"])
        self.assertTrue(body["devices"])

    def test_strange_replies(self):
        """Answers of ComfyUI that are cut, no JSON, or late end in an error."""
        tools = self.both(request_timeout_ms=700)
        for fault in ({"fault": "truncate"}, {"fault": "cut"}, {"fault": "status", "code": 500},
                      {"fault": "status", "code": 404}, {"fault": "delay", "ms": 3000}):
            for name, path, arguments in (("get_node_info", "/object_info", {"class_type": "KSampler"}),
                                          ("search_nodes", "/object_info", {"query": "k"}),
                                          ("get_system_resources", "/system_stats", {})):
                self.rig.fault(path=path, **fault)
                is_error, body = tools.end_of(tools.start(name, **arguments), name)
                self.assertTrue(is_error, (fault, body))
                self.rig.fault(fault="clear")
        tools.good("get_system_resources")


class Canned(http.server.BaseHTTPRequestHandler):
    """A ComfyUI that gives prepared answers: {path: text}."""
    replies = {}

    def do_GET(self):
        text = self.replies.get(self.path)
        body = (text if text is not None else "Not Found").encode()
        self.send_response(404 if text is None else 200)
        self.send_header("Content-Type", "application/json" if text is not None else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Extremes(Case):
    """What the simulator does not say, but a real ComfyUI may."""

    def setUp(self):
        super().setUp()
        self.config(autostart="no")
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Canned)
        self.rig.sim_url = "http://127.0.0.1:%d" % self.server.server_port
        thread = threading.Thread(target=self.server.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        Canned.replies = {}

    def failed_with(self, traceback, message="boom"):
        entry = {NEVER: {"prompt": [1, NEVER, {}, {}, []], "outputs": {}, "status": {
            "status_str": "error", "completed": False, "messages": [["execution_error", {
                "prompt_id": NEVER, "node_id": "7", "node_type": "KSampler", "executed": [],
                "exception_message": message, "exception_type": "torch.OutOfMemoryError",
                "traceback": traceback, "current_inputs": {}, "current_outputs": []}]]}}}
        Canned.replies = {"/queue": '{"queue_running": [], "queue_pending": []}',
                          "/history/" + NEVER: json.dumps(entry)}

    def test_traceback_is_cut_at_its_beginning(self):
        tools = self.tools()
        for lines, text in ((1000, "x"), (300, "ab" * 100), (50, "é" * 3000)):
            with self.subTest(lines=lines):
                self.failed_with(["%d %s\n" % (i, text) for i in range(lines)])
                body = tools.good("get_error_details", prompt_id=NEVER)
                self.assertEqual(body["node_type"], "KSampler")
                self.assertEqual(body["error"]["type"], "torch.OutOfMemoryError")
                shown = body["traceback"]
                self.assertEqual(int(shown[-1].split()[0]), lines - 1)
                self.assertEqual(len(shown) + body["traceback_lines_left_out"], lines)
                self.assertEqual([int(line.split()[0]) for line in shown], list(range(lines - len(shown), lines)))
                self.assertLessEqual(len(shown), 200)
                self.assertLess(sum(len(line.encode()) for line in shown), 17 << 10)

    def test_odd_tracebacks(self):
        tools = self.tools()
        for traceback in ([], "text", None, {"a": 1}, [1, None, "last"], ["\u0000\u2028\ud7ff"]):
            with self.subTest(traceback=traceback):
                self.failed_with(traceback)
                self.assertEqual(tools.good("get_error_details", prompt_id=NEVER)["status"], "failed")

    def test_many_choices(self):
        tools = self.tools()
        many = ["model%03d.safetensors" % i for i in range(120)]
        Canned.replies = {"/object_info/Loader": json.dumps({"Loader": {
            "input": {"required": {"old": [many, {"default": many[0]}], "bare": [many],
                                   "new": ["COMBO", {"options": many, "multiselect": False}],
                                   "few": [["a", "b"]], "odd": "text", "none": []}},
            "output": ["MODEL"], "output_name": ["MODEL"], "description": "d"}}),
            "/object_info/Nan": '{"Nan": {"input": {"required": {"x": ["FLOAT", {"default": NaN, "max": Infinity}]}}}}'}
        inputs = tools.good("get_node_info", class_type="Loader")["input"]["required"]
        self.assertEqual(inputs["old"], [many[:50], {"default": many[0], "choices_in_all": 120}])
        self.assertEqual(inputs["bare"], [many[:50], {"choices_in_all": 120}])
        self.assertEqual(inputs["new"], ["COMBO", {"options": many[:50], "multiselect": False,
                                                   "choices_in_all": 120}])
        self.assertEqual(inputs["few"], [["a", "b"]])
        self.assertEqual((inputs["odd"], inputs["none"]), ("text", []))
        self.assertEqual(tools.good("get_node_info", class_type="Nan")["input"]["required"]["x"],
                         ["FLOAT", {"default": None, "max": None}])

    def test_search_in_odd_descriptions(self):
        tools = self.tools()
        Canned.replies = {"/object_info": json.dumps({
            "Plain": {"display_name": "Plain", "category": "c", "description": "ü" * 1000 + " needle"},
            "Needle": {"display_name": None, "category": 5},
            "Other": {"category": "needle/x"}, "Hollow": {}, "Odd": [], "NeedleTwo": {"category": "x"}})}
        body = tools.good("search_nodes", query="needle")
        self.assertEqual([n["class_type"] for n in body["nodes"]], ["Needle", "NeedleTwo", "Other", "Plain"])
        self.assertEqual(body["nodes"][-1]["description"], "ü" * 200)
        self.assertEqual([n["class_type"] for n in tools.good("search_nodes", query="Needle")["nodes"]][0], "Needle")
        self.assertEqual([n["class_type"] for n in tools.good("search_nodes", query="needle x")["nodes"]],
                         ["NeedleTwo", "Other"])

    def test_prompts_in_odd_forms(self):
        tools = self.tools()
        Canned.replies = {"/queue": '{"queue_running": [], "queue_pending": []}',
                          "/history/" + NEVER: json.dumps({NEVER: {"outputs": {
                              "1": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}, None, 5,
                                               {"filename": 7}, {"filename": "../x.png", "type": "temp"},
                                               {"filename": "n" * 5000, "type": "output"}],
                                    "text": "no list", "deep": [[{"filename": "b"}]]}, "2": None, "3": []},
                              "status": {"status_str": "success", "completed": True, "messages": []}}})}
        files = tools.good("list_outputs", prompt_id=NEVER)["files"]
        self.assertEqual([f["filename"][:8] for f in files], ["a.png", "../x.png", "nnnnnnnn"])


class Files(Case):
    def made(self, tools, **more):
        body = tools.good("execute_workflow_sync", workflow=sampler(**more))
        return body["outputs"]["9"]["images"][0]

    def read(self, name):
        with open(self.rig.path(name), "rb") as f:
            return f.read()

    def test_download(self):
        tools = self.both()
        image = self.made(tools, prefix="sub/dir")
        name = image["filename"]
        self.assertEqual(image["subfolder"], "sub")
        for where, path in (("a.png", "a.png"), (".", "./" + name), (self.rig.path("b.png"), self.rig.path("b.png"))):
            body = tools.good("download_by_filename", filename=name, dest_path=where)
            self.assertEqual(body["path"], path)
            self.assertEqual(self.read(path)[:8], PNG)
            self.assertEqual(body["bytes"], os.path.getsize(self.rig.path(path)))
            self.assertEqual((body["filename"], body["subfolder"], body["type"]), (name, "sub", "output"))
        self.assertEqual(tools.good("download_by_filename", filename="sub/" + name, dest_path="c.png")["path"], "c.png")
        inline = tools.good("download_by_filename", filename=name, subfolder="sub", type="output", return_base64=True)
        self.assertEqual(base64.b64decode(inline["base64"]), self.read("a.png"))
        self.assertEqual(inline["content_type"], "image/png")
        for arguments in ({"subfolder": "other"}, {"subfolder": ""}, {"type": "temp"}, {"type": "input"}):
            tools.bad("download_by_filename", "not_found", name, filename=name, dest_path="z", **arguments)
        tools.bad("download_by_filename", "invalid", "dest_path", filename=name)
        tools.bad("download_by_filename", "invalid", filename=name, dest_path="z", type="secret")

    def test_where_it_may_go(self):
        tools = self.both()
        name = self.made(tools)["filename"]
        self.rig.write("there.txt", "mine")
        os.mkdir(self.rig.path("d"))
        os.symlink("elsewhere", self.rig.path("dangling"))
        os.symlink("there.txt", self.rig.path("link"))
        os.mkfifo(self.rig.path("pipe"))
        before = set(os.listdir(self.rig.dir))
        for dest in ("there.txt", "dangling", "link", "pipe", "no/such/dir/x.png", "there.txt/x", "", "x" * 300,
                     "/proc/nothing"):
            with self.subTest(dest=dest):
                is_error, body = tools.end_of(tools.start("download_by_filename", filename=name, dest_path=dest),
                                              "download_by_filename")
                self.assertTrue(is_error, body)
        self.assertEqual(self.read("there.txt"), b"mine")
        # comfymux.log is the session's own.
        self.assertEqual(set(os.listdir(self.rig.dir)) - before, set())
        # Replaced, not written through.
        for dest in ("link", "dangling", "pipe"):
            tools.good("download_by_filename", filename=name, dest_path=dest, overwrite=True)
            self.assertFalse(os.path.islink(self.rig.path(dest)))
            self.assertEqual(self.read(dest)[:8], PNG)
        self.assertEqual(self.read("there.txt"), b"mine")
        self.assertFalse(os.path.exists(self.rig.path("elsewhere")))
        tools.good("download_by_filename", filename=name, dest_path="d")
        tools.bad("download_by_filename", "invalid", "exists", filename=name, dest_path="d")
        tools.good("download_by_filename", filename=name, dest_path="d", overwrite=True)
        self.assertEqual(os.listdir(self.rig.path("d")), [name])

    def test_which_may_be_had(self):
        """Only what own prompts have made, and by its own name."""
        tools = self.both()
        self.made(tools)
        status, _ = self.rig.sim("POST", "/prompt", {"prompt": sampler(prefix="theirs"), "client_id": "other"})
        self.assertEqual(status, 200)
        wait_for(lambda: self.rig.sim("GET", "/view?filename=theirs_00001_.png&type=output&subfolder=")[0] == 200,
                 "somebody else's image")
        for name in ("../../etc/passwd", "/etc/passwd", "..", "a/../b", "no.png", "\u0000", "tool_00001_.png\u0000"):
            with self.subTest(name=name):
                is_error, body = tools.end_of(tools.start("download_by_filename", filename=name, dest_path="z"),
                                              "download_by_filename")
                self.assertTrue(is_error, body)
                self.assertFalse(os.path.lexists(self.rig.path("z")))

    def test_broken_off(self):
        tools = self.both()
        name = self.made(tools)["filename"]
        before = set(os.listdir(self.rig.dir))
        for fault in ({"fault": "truncate"}, {"fault": "status", "code": 404}, {"fault": "status", "code": 500}):
            for arguments in ({"dest_path": "x.png"}, {"return_base64": True}):
                self.rig.fault(path="/view", count=1, **fault)
                is_error, body = tools.end_of(tools.start("download_by_filename", filename=name, **arguments),
                                              "download_by_filename")
                self.assertTrue(is_error, body)
                self.assertIn(name, body["error"]["message"])
        self.assertEqual(set(os.listdir(self.rig.dir)) - before, set())

    def test_too_large_for_a_message(self):
        tools = self.both()
        name = self.made(tools, width=2500, height=2500)["filename"]
        body = tools.good("download_by_filename", filename=name, dest_path="big.png")
        self.assertGreater(body["bytes"], 4 << 20)
        tools.bad("download_by_filename", "limit", "dest_path", filename=name, return_base64=True)

    def test_upload(self):
        tools = self.both()
        image = self.made(tools)
        tools.good("download_by_filename", filename=image["filename"], dest_path="mine.png")
        data = base64.b64encode(self.read("mine.png")).decode()
        first = tools.good("upload_image", path="mine.png")
        self.assertEqual(first["name"], "mine.png")
        self.assertIn(str(os.getuid()), first["subfolder"])
        self.assertEqual(first["image"], first["subfolder"] + "/mine.png")
        changed = tools.good("upload_image", base64=base64.b64encode(PNG + b"other").decode(), filename="mine.png")
        self.assertNotEqual(changed["image"], first["image"])
        again = tools.good("upload_image", base64="data:image/png;base64," + data, filename="mine.png",
                           overwrite=True)
        self.assertEqual(again["image"], first["image"])
        other = tools.good("upload_image", path=self.rig.path("mine.png"), filename="other name é.png")
        for up in (again, other):
            done = tools.good("execute_workflow_sync", workflow={
                "1": {"class_type": "LoadImage", "inputs": {"image": up["image"]}},
                "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "up"}}})
            self.assertEqual(done["status"], "completed")

    def test_bad_uploads(self):
        tools = self.both()
        self.rig.write("empty.png", "")
        with open(self.rig.path("huge.png"), "wb") as f:
            f.truncate((64 << 20) + 1)
        os.mkfifo(self.rig.path("pipe"))
        os.mkdir(self.rig.path("d"))
        for path in ("empty.png", "huge.png", "pipe", "d", "nowhere.png", "/dev/zero", "/dev/tty", ""):
            with self.subTest(path=path):
                is_error, body = tools.end_of(tools.start("upload_image", path=path, filename="x.png"), "upload_image")
                self.assertTrue(is_error, body)
        for text in ("", "====", "a", "*", "YWJj\u0000", "data:image/png;base64,", "é"):
            with self.subTest(text=text):
                tools.bad("upload_image", "invalid", filename="x.png", base64=text)
        for name in ("", ".", "..", "a/b", "/x", "../x"):
            with self.subTest(name=name):
                tools.bad("upload_image", "invalid", filename=name, base64="YWJj")
        tools.bad("upload_image", "invalid", base64="YWJj")
        tools.bad("upload_image", "invalid")
        self.assertNotIn("POST /upload/image", self.rig.stats()["requests"])

    def test_strange_workflow_paths(self):
        tools = self.both()
        os.mkfifo(self.rig.path("pipe"))
        self.rig.write("empty", "")
        self.rig.write("wf.json", json.dumps(sampler()))
        os.symlink("wf.json", self.rig.path("link"))
        os.symlink("loop", self.rig.path("loop"))
        with open(self.rig.path("huge"), "wb") as f:
            f.truncate(20 << 20)
        for path, type_ in (("pipe", "invalid"), ("empty", "invalid"), ("huge", "limit"), ("loop", "invalid"),
                            ("nowhere", "not_found"), ("wf.json/x", "not_found"), (".", "invalid"),
                            ("/dev/zero", "invalid"), ("/proc/self/mem", None), ("x" * 4000, "invalid"),
                            ("x" * 5000, None)):
            with self.subTest(path=path):
                is_error, body = tools.end_of(tools.start("execute_workflow_sync", workflow_path=path),
                                              "execute_workflow_sync")
                self.assertTrue(is_error, body)
                self.assertIn(type_, (None, body["error"]["type"]), body)
        tools.good("execute_workflow_sync", workflow_path="link")
        self.assertEqual(len(self.journal("post")), 1)


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
class Tenants(Case):
    """Several users on one supervisor."""

    def setUp(self):
        super().setUp()
        os.chmod(self.rig.dir, 0o777)
        self.rig.start_sim()
        self.supervisor = self.daemon(shared=True)
        self.ann, self.bob = (self.tools("2025-11-25", user=uid, group=uid, extra_groups=[], sock=True)
                              for uid in (12001, 12002))

    def test_nothing_of_one_reaches_another(self):
        made = self.ann.good("execute_workflow_sync", workflow=sampler(prefix="ann"))
        name = made["outputs"]["9"]["images"][0]["filename"]
        prompt = made["prompt_id"]
        for tool in ("get_execution_progress", "cancel_execution", "list_outputs", "get_error_details",
                     "wait_for_execution"):
            theirs = self.bob.bad(tool, "not_found", prompt_id=prompt)
            nobodys = self.bob.bad(tool, "not_found", prompt_id=NEVER)
            self.assertEqual(json.dumps(theirs).replace(prompt, ""), json.dumps(nobodys).replace(NEVER, ""))
        theirs = self.bob.bad("download_by_filename", "not_found", filename=name, dest_path="x")
        nobodys = self.bob.bad("download_by_filename", "not_found", filename="no.png", dest_path="x")
        self.assertEqual(json.dumps(theirs).replace(name, ""), json.dumps(nobodys).replace("no.png", ""))
        self.bob.bad("get_last_output", "not_found")
        self.assertEqual(self.bob.good("get_history")["prompts"], [])
        self.assertEqual(self.ann.good("get_last_output")["filename"], name)

    def test_queue_is_a_number(self):
        prompt = self.running(self.ann)
        queue = self.bob.good("get_queue")
        self.assertEqual(queue, {"running": [], "pending": [], "others": 1})
        self.bob.bad("cancel_execution", "not_found", prompt_id=prompt)
        self.assertEqual(self.ann.good("get_execution_progress", prompt_id=prompt)["status"], "executing")
        mine = self.bob.start("execute_workflow_sync", workflow=sampler(prefix="bob"), token=1)
        wait_for(lambda: self.bob.good("get_queue")["pending"], "the turn")
        self.ann.good("cancel_execution", prompt_id=prompt)
        self.assertEqual(self.bob.end_of(mine, "execute_workflow_sync")[1]["status"], "completed")
        self.assertNotIn(prompt, json.dumps(self.bob.client.lines[-1]))

    def test_uploads_do_not_meet(self):
        ups = [t.good("upload_image", base64="YWJj", filename="same.png", overwrite=True)
               for t in (self.ann, self.bob)]
        self.assertEqual([u["image"] for u in ups], ["comfymux-12001/same.png", "comfymux-12002/same.png"])

    def test_files_are_written_as_the_user(self):
        name = self.ann.good("execute_workflow_sync",
                             workflow=sampler())["outputs"]["9"]["images"][0]["filename"]
        self.ann.good("download_by_filename", filename=name, dest_path="ann.png")
        self.assertEqual(os.stat(self.rig.path("ann.png")).st_uid, 12001)
        secret = self.rig.write("secret.json", json.dumps(sampler()))
        os.chmod(secret, 0o600)
        self.ann.bad("execute_workflow_sync", "denied", "secret.json", workflow_path="secret.json")
        os.mkdir(self.rig.path("closed"), 0o755)
        is_error, _ = self.ann.end_of(self.ann.start("download_by_filename", filename=name, dest_path="closed"),
                                      "download_by_filename")
        self.assertTrue(is_error)

    def test_what_nobody_here_submitted(self):
        """The web page's prompts and files are nobody's."""
        status, reply = self.rig.sim("POST", "/prompt", {"prompt": sampler(prefix="web"), "client_id": "web"})
        wait_for(lambda: self.rig.sim("GET", "/view?filename=web_00001_.png&type=output&subfolder=")[0] == 200,
                 "its image")
        for tool in ("get_execution_progress", "cancel_execution", "list_outputs", "wait_for_execution"):
            self.ann.bad(tool, "not_found", prompt_id=reply["prompt_id"])
        self.ann.bad("download_by_filename", "not_found", filename="web_00001_.png", dest_path="x")
        self.assertEqual(self.ann.good("get_history"), {"prompts": []})


    def test_an_operator_has_no_more_than_his_own(self):
        """Root may see and cancel everything by commands; a program that drives
        his session may not."""
        root = self.tools()
        made = self.ann.good("execute_workflow_sync", workflow=sampler(prefix="ann"))
        name = made["outputs"]["9"]["images"][0]["filename"]
        prompt = self.running(self.ann)
        for tool in ("get_execution_progress", "cancel_execution", "list_outputs", "get_error_details",
                     "wait_for_execution"):
            for theirs in (made["prompt_id"], prompt):
                root.bad(tool, "not_found", prompt_id=theirs)
        root.bad("download_by_filename", "not_found", filename=name, dest_path="x")
        root.bad("get_last_output", "not_found")
        self.assertEqual(root.good("get_history"), {"prompts": []})
        self.assertEqual(root.good("get_queue"), {"running": [], "pending": [], "others": 1})
        # What nobody here submitted isn't his either.
        web = self.rig.sim("POST", "/prompt", {"prompt": sampler(), "client_id": "web"})[1]["prompt_id"]
        root.bad("cancel_execution", "not_found", prompt_id=web)
        root.bad("get_execution_progress", "not_found", prompt_id=web)
        # The commands show all of it.
        mine = root.good("submit_workflow", workflow=sampler())["prompt_id"]
        seen = self.rig.json("queue")
        self.assertEqual({p["prompt_id"] for p in seen["running"] + seen["pending"]}, {prompt, mine})
        self.rig.run("cancel", prompt, check=0)
        self.assertEqual(root.good("wait_for_execution", prompt_id=mine)["status"], "completed")

    def test_an_operator_alone(self):
        """The supervisor is gone: his worker still looks at nobody else's."""
        root = self.tools()
        mine = root.good("submit_workflow", workflow=sampler())["prompt_id"]
        theirs = self.running(self.ann)
        self.assertEqual(root.good("get_execution_progress", prompt_id=mine)["prompt_id"], mine)
        self.supervisor.kill()
        self.supervisor.wait()
        wait_for(lambda: root.good("get_execution_progress", prompt_id=mine)["method"] == "polling", "polling")
        for tool in ("get_execution_progress", "cancel_execution"):
            root.bad(tool, "unreachable", "no supervisor", prompt_id=theirs)
        self.assertEqual(len(self.rig.sim("GET", "/queue")[1]["queue_running"]), 1)


class Succession(Case):
    """The worker is killed in the middle of a call."""

    def kill(self, tools):
        pid = tools.client.worker()
        os.kill(pid, 9)
        wait_for(lambda: not mcplib.is_running(pid), "its end")

    def worker_of(self, tools):
        return wait_for(lambda: [s for s in self.rig.status()["sessions"] if s["kind"] == "mcp"],
                        "the session")[0]["pid"]

    def test_each_waiting_tool_goes_on(self):
        tools = self.both()
        prompt = self.running(tools, steps=60)
        calls = [(name, tools.start(name, token=name, timeout_ms=60000, **arguments)) for name, arguments in (
            ("wait_for_execution", {"prompt_id": prompt}),
            ("execute_workflow_sync", {"workflow": sampler(seed=3)}),
            ("execute_workflow_stream", {"workflow": sampler(seed=4)}))]
        for name, _ in calls:
            tools.client.wait(lambda n=name: tools.client.progress(n), "progress of " + name)
        wait_for(lambda: len(tools.good("get_queue")["pending"]) == 2, "both to be queued")
        os.kill(self.worker_of(tools), 9)
        for name, call in calls:
            is_error, body = tools.end_of(call, name)
            self.assertFalse(is_error, body)
            self.assertEqual(body["status"], "completed")
        self.assertEqual(len(self.journal("post")), 3)

    def test_progress_stays_on_the_same_scale(self):
        """A wait that comes when the worker that submitted is dead."""
        tools = self.both()
        prompt = self.running(tools, steps=100, step_ms=50)
        os.kill(self.worker_of(tools), 9)
        call = tools.start("wait_for_execution", prompt_id=prompt, timeout_ms=60000, token="w")
        told = tools.client.wait(lambda: [p for p in tools.client.progress("w")
                                          if p["message"].startswith("Node 3 (SimSampler) step")], "a step")
        for p in told:
            step = int(p["message"].split()[4])
            self.assertAlmostEqual(p["progress"] / p["total"], step / 100 / 2, delta=0.01)
        self.assertEqual(tools.end_of(call, "wait_for_execution")[1]["status"], "completed")

    def test_prompts_outlive_the_session(self):
        tools = self.both()
        prompt = self.running(tools, steps=60)
        self.assertEqual(tools.client.end(), 0)
        later = self.tools()
        self.assertEqual(later.good("get_history")["prompts"][0]["prompt_id"], prompt)
        self.assertEqual(later.good("wait_for_execution", prompt_id=prompt)["status"], "completed")

    def test_supervisor_killed_while_waiting(self):
        self.config(poll_interval_ms=300, autostart="no")
        self.rig.start_sim()
        daemon = self.daemon()
        tools = self.tools()
        call = tools.start("execute_workflow_sync", workflow=sampler(steps=60, step_ms=50), token=1,
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

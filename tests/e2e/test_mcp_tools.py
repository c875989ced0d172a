"""The MCP tools that look, explain failures and move files, against a simulated
ComfyUI that behaves and one that does not, and that nothing of anybody else's
can be had through them."""
import base64
import http.server
import json
import os
import threading
import unittest

import jsonschema_lite
import mcplib
import rig
from mcplib import MODERN
from rig import wait_for
from toollib import FOREVER, LIST_MAX, NEVER, PNG, Case, failing, sampler


class Listing(Case):
    def setUp(self):
        super().setUp()
        self.rig.sim_url = "http://127.0.0.1:%d" % rig.refusing_port()

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
        self.rig.sim_url = "http://127.0.0.1:%d" % rig.refusing_port()
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
        self.rig.sim_url = "http://127.0.0.1:%d" % rig.refusing_port()
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
        call = tools.start("execute_workflow_sync", workflow=sampler(steps=120, step_ms=50), token=4,
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
        call = tools.start("execute_workflow_sync", workflow=sampler(steps=120, step_ms=50), timeout_ms=60000)
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
        queue = wait_for(lambda: self.queue_with(tools, runs, behind, last), "the web page's prompts")
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

    def queue_with(self, tools, *prompts):
        queue = tools.good("get_queue")
        return queue if [p["prompt_id"] for p in queue["running"] + queue["pending"]] == list(prompts) else None

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
                      {"fault": "status", "code": 404}, {"fault": "delay", "ms": 60000}):
            for name, path, arguments in (("get_node_info", "/object_info", {"class_type": "KSampler"}),
                                          ("search_nodes", "/object_info", {"query": "k"}),
                                          ("get_system_resources", "/system_stats", {})):
                self.rig.fault(path=path, **fault)
                is_error, body = tools.end_of(tools.start(name, **arguments), name)
                self.assertTrue(is_error, (fault, body))
                self.rig.fault(fault="clear")
        wait_for(lambda: not tools.end_of(tools.start("get_system_resources"), "get_system_resources")[0],
                 "an answer in time")


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


if __name__ == "__main__":
    unittest.main()

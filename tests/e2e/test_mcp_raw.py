"""`comfymux mcp` byte by byte: framing, ends, sizes, bad input, cancelling,
versions, backpressure, and a worker that is killed."""
import fcntl
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

import chanlib
import mcplib
import proclib
import rig
from mcplib import MODERN, Client, modern
from proclib import children_of, is_running
from rig import wait_for

LINE_BOUND = 15 << 20  # RPC_LINE_MAX
PING = b'{"jsonrpc":"2.0","id":%d,"method":"ping"}'

# Says nothing before the end, and then an answer every now and then.
SLOW_WORKER = """#!%(python)s
import json, socket, sys, time
sys.path.insert(0, "%(e2e)s")
from chanlib import Channel
keeper = Channel(socket.socket(fileno=3))
keeper.send("ready")
keeper.wait("end")
for request in keeper.of_type("request"):
    time.sleep(0.4)
    keeper.send("response", request.line, {"jsonrpc": "2.0", "id": request.json()["id"], "result": {}})
"""


def sampler(steps=4, step_ms=5, prefix="mcp", **more):
    return {
        "3": {"class_type": "SimSampler", "inputs": {"steps": steps, "step_ms": step_ms, "seed": 1, **more}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": prefix}},
    }


class McpCase(unittest.TestCase):
    def setUp(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)

    def client(self, *args, **kwargs):
        return Client(self.rig, *args, **kwargs)

    def session(self, version="2025-11-25", **kwargs):
        client = self.client(**kwargs)
        client.initialize(version)
        return client

    def sim_and_daemon(self, *args):
        self.rig.start_sim(*args)
        self.rig.start_daemon()

    def piped(self, data, *args, env=None, timeout=rig.PATIENCE_S):
        """(messages, status, stderr) of `printf DATA | comfymux mcp`."""
        done = subprocess.run([os.path.join(rig.BIN, "comfymux"), "mcp", *args], input=data,
                              env=env or self.rig.env, cwd=self.rig.dir, timeout=timeout, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertTrue(done.stdout == b"" or done.stdout.endswith(b"\n"), done.stdout[-200:])
        return ([mcplib.strict_json(line) for line in done.stdout.decode().splitlines()],
                done.returncode, done.stderr.decode())

    def check_memory(self, pid, mib):
        if not mcplib.SANITIZED:
            self.assertLess(mcplib.peak_kb(pid), mib << 10)

    def journal(self, fact):
        return [j for j in self.rig.journal() if j["fact"] == fact]


class Framing(McpCase):
    def ids(self, messages):
        return [m.get("id") for m in messages]

    def test_printf_into_it(self):
        got, status, err = self.piped((PING % 1) + b"\n" + (PING % 2) + b"\n")
        self.assertEqual(self.ids(got), [1, 2])
        self.assertEqual(status, 0)
        self.assertEqual(err, "")

    def test_carriage_returns_and_blank_lines(self):
        got, status, _ = self.piped(b"\n\r\n  \t\n" + (PING % 1) + b"\r\n\n \r\n" + (PING % 2) + b"\n\n")
        self.assertEqual(self.ids(got), [1, 2])
        self.assertEqual(status, 0)

    def test_last_line_without_newline(self):
        got, status, _ = self.piped((PING % 1) + b"\n" + (PING % 2))
        self.assertEqual(self.ids(got), [1, 2])
        # Half a line is nobody's request.
        got, status, _ = self.piped((PING % 1) + b"\n" + (PING % 2)[:-5])
        self.assertEqual(self.ids(got), [1])
        self.assertEqual(status, 0)

    def test_nothing_at_all(self):
        for data in (b"", b"\n", b"   "):
            got, status, err = self.piped(data)
            self.assertEqual((got, status, err), ([], 0, ""))

    def test_byte_by_byte(self):
        client = self.client()
        client.asked["1"] = ("ping", None)
        for byte in (PING % 1) + b"\n":
            client.write(bytes([byte]))
            time.sleep(0.0005)
        self.assertEqual(client.answer(1)["result"], {})
        self.assertEqual(client.end(), 0)

    def test_bad_lines_cost_one_answer_each(self):
        client = self.session()
        bad = [b"hello", b"{", b'{"jsonrpc":"2.0","id":1,"method":"\xff\xfe"}', b"\x00", b'"\\ud800"',
               b'{"a":1,"a":2}', b"[1,2", b"NaN"]
        for line in bad:
            client.write(line + b"\n")
        client.wait(lambda: len([m for m in client.lines if "error" in m]) == len(bad), "errors")
        for m in client.lines:
            if "error" in m:
                self.assertEqual(m["error"]["code"], -32700)
                self.assertNotIn("id", m)
        self.assertEqual(client.request("ping")["result"], {})
        self.assertEqual(client.end(), 0)

    def test_odd_shapes(self):
        client = self.session()
        for line, code, has_id in ((b"42", -32600, False), (b"[]", -32600, False), (b"null", -32600, False),
                                   (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600, False),
                                   (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600, False),
                                   (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600, False),
                                   (b'{"id":"x","method":"ping"}', -32600, True),
                                   (b'{"jsonrpc":"2.0","id":"x","method":5}', -32600, True),
                                   (b'[{"jsonrpc":"2.0","id":3,"method":"ping"}]', -32600, False)):
            client.asked['"x"'] = ("ping", None)
            before = len(client.lines)
            client.write(line + b"\n")
            client.wait(lambda: len(client.lines) > before, "an answer to %r" % line)
            self.assertEqual(client.lines[-1]["error"]["code"], code, line)
            self.assertEqual("id" in client.lines[-1], has_id, line)
        # What calls for no answer gets none.
        before = len(client.lines)
        for line in (b'{"jsonrpc":"2.0","method":"notifications/x"}', b'{"jsonrpc":"2.0","id":9,"result":{}}',
                     b'{"jsonrpc":"2.0","id":"zz","error":{"code":1,"message":""}}',
                     b'{"jsonrpc":"2.0","method":"notifications/cancelled"}',
                     b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":77}}'):
            client.write(line + b"\n")
        self.assertEqual(client.request("ping")["result"], {})
        self.assertEqual(len(client.lines), before + 1)
        self.assertEqual(client.end(), 0)

    def test_stdout_is_for_messages_only(self):
        """Whatever is logged, at the noisiest: to stderr."""
        self.rig.start_sim()
        self.rig.write("config/comfymux/comfymux.conf", "log_level = debug\n")
        client = self.session()
        client.tool("get_queue")
        client.tool("submit_workflow", {"workflow": {"1": {"class_type": "NoSuchNode", "inputs": {}}}})
        self.assertEqual(client.end(), 0)
        self.assertNotEqual(self.rig.log_of("comfymux"), "")


class Ends(McpCase):
    def gone(self, pid):
        wait_for(lambda: not is_running(pid), "the end of process %d" % pid)

    def test_end_of_stdin(self):
        client = self.session()
        worker = client.worker()
        self.assertEqual(client.end(), 0)
        self.gone(worker)

    def test_end_is_quick(self):
        """Well within the two seconds after which clients send SIGTERM, whenever the machine isn't busy."""
        self.sim_and_daemon()

        def is_quick():
            client = self.session()
            client.tool("execute_workflow_sync", {"workflow": sampler()})
            start = time.monotonic()
            self.assertEqual(client.end(), 0)
            return time.monotonic() - start < 0.5
        wait_for(is_quick, "a quick end")

    def test_end_while_calls_wait(self):
        self.sim_and_daemon()
        client = self.session()
        call = client.call("execute_workflow_sync", {"workflow": sampler(steps=100000, step_ms=50)}, token="t")
        client.wait(lambda: client.progress("t"), "progress")
        worker = client.worker()
        self.assertEqual(client.end(), 0)
        self.gone(worker)
        self.assertNotIn(json.dumps(call), client.replies)
        # The prompt runs on, and is found by the next session.
        history = self.session().tool("get_history", {"limit": 5})["structuredContent"]
        self.assertEqual(len(history["prompts"]), 1)
        self.assertIn(history["prompts"][0]["status"], ("queued", "executing"))

    def test_the_last_answers_are_waited_for_while_they_come(self):
        """A busy machine takes its time for a crowd of calls: the session isn't over as long as one
        answer follows another. The worker here takes longer than any."""
        shutil.copy(os.path.join(rig.BIN, "comfymux"), self.rig.dir)
        worker = self.rig.path("comfymux-worker")
        with open(worker, "w", encoding="utf-8") as f:
            f.write(SLOW_WORKER % {"python": sys.executable, "e2e": os.path.dirname(rig.__file__)})
        os.chmod(worker, 0o755)
        done = subprocess.run([self.rig.path("comfymux"), "mcp"], input=b"".join((PING % i) + b"\n" for i in range(6)),
                              env=self.rig.env, cwd=self.rig.dir, timeout=rig.PATIENCE_S, check=True,
                              stdout=subprocess.PIPE)
        self.assertEqual([json.loads(line)["id"] for line in done.stdout.splitlines()], list(range(6)))

    def test_quick_calls_are_answered_after_the_end(self):
        self.sim_and_daemon()
        call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call",
                "params": {"name": "get_queue", "arguments": {}}}
        got, status, _ = self.piped(
            b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}\n' +
            json.dumps(call).encode(), "--socket", self.rig.socket)
        self.assertEqual(status, 0)
        self.assertEqual([m["id"] for m in got], [1, 2])
        self.assertFalse(got[1]["result"]["isError"], got)

    def test_a_comfyui_that_takes_its_time_after_the_end(self):
        """While it loads a model it answers late, and now and then never: whoever wrote into a pipe is
        told the one or the other."""
        self.sim_and_daemon()
        for ms, told in ((1500, "result"), (60000, "error")):
            with self.subTest(ms):
                self.slow_after_the_end(ms, told)

    def slow_after_the_end(self, ms, told):
        self.rig.fault(fault="clear")
        self.rig.fault(fault="delay", path="/system_stats", ms=ms)
        got, status, _ = self.piped(
            b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}\n'
            b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"get_system_resources"}}',
            "--socket", self.rig.socket)
        self.assertEqual((status, [m["id"] for m in got]), (0, [1, 2]))
        self.assertIn(told, got[1])
        if told == "error":
            self.assertIn("end of stdin", got[1]["error"]["message"])

    def test_nothing_is_started_for_nobody(self):
        """Clients start a server only to see whether it is there."""
        client = self.client()
        self.assertEqual(children_of(client.process.pid), [])
        self.assertEqual(client.end(), 0)
        self.assertEqual(os.listdir(self.rig.dir), ["comfymux.log"])

    def test_probe_and_end_together(self):
        client = self.client()
        reply = client.request("server/discover", modern())
        self.assertEqual(reply["result"]["supportedVersions"], [MODERN])
        client.process.stdin.close()
        client.process.send_signal(signal.SIGTERM)
        self.assertEqual(client.process.wait(rig.PATIENCE_S), 0)

    def test_signals(self):
        self.sim_and_daemon()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            client = self.session()
            client.call("execute_workflow_sync", {"workflow": sampler(steps=100000, step_ms=50)}, token=1)
            client.wait(lambda: client.progress(1), "progress")
            worker = client.worker()
            client.process.send_signal(number)
            self.assertEqual(client.process.wait(rig.PATIENCE_S), 0)
            self.gone(worker)

    def test_reader_goes_away(self):
        client = self.client(read=False)
        client.process.stdout.close()
        client.write((PING % 1) + b"\n")
        self.assertEqual(client.process.wait(rig.PATIENCE_S), 0)

    def test_closed_stdio(self):
        program = os.path.join(rig.BIN, "comfymux")
        for redirect, status in (("<&-", 0), (">&-", 1), ("2>&-", 0), ("<&- 2>&-", 0)):
            done = subprocess.run(["sh", "-c", "exec %s mcp %s" % (program, redirect)], env=self.rig.env,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  cwd=self.rig.dir, timeout=rig.PATIENCE_S, check=False)
            self.assertEqual(done.stdout, b"", redirect)
            self.assertEqual(done.returncode, status, (redirect, done.stderr))

    def test_stdin_and_stdout_as_files(self):
        path = self.rig.write("in", (PING % 1) + b"\n" + (PING % 2) + b"\n")
        with open(path, "rb") as source, open(self.rig.path("out"), "wb") as sink:
            done = subprocess.run([os.path.join(rig.BIN, "comfymux"), "mcp"], stdin=source, stdout=sink,
                                  env=self.rig.env, timeout=rig.PATIENCE_S, check=False)
        self.assertEqual(done.returncode, 0)
        with open(self.rig.path("out")) as f:
            self.assertEqual([json.loads(line)["id"] for line in f], [1, 2])

    def test_inherited_flags_stay(self):
        """O_NONBLOCK would belong to everybody who has the pipe."""
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        process = self.rig.start("comfymux", "mcp", "--socket", self.rig.socket, stdin=theirs_in, stdout=theirs_out)
        os.write(ours_out, (PING % 1) + b"\n")
        self.assertIn(b'"result"', os.read(ours_in, 1 << 16))
        for fd in (theirs_in, theirs_out):
            self.assertFalse(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK)
        # Nobody but the keeper has the client's pipes.
        worker = children_of(process.pid)[0]
        held = proclib.descriptors(worker).values()
        for fd in (theirs_in, theirs_out):
            self.assertNotIn("pipe:[%d]" % os.fstat(fd).st_ino, held)
        os.close(theirs_out)
        os.close(theirs_in)
        os.close(ours_out)
        self.assertEqual(process.wait(rig.PATIENCE_S), 0)
        self.assertEqual(os.read(ours_in, 1), b"")
        os.close(ours_in)

    def test_many_sessions_one_after_another(self):
        workers = []
        for i in range(25):
            client = self.session()
            workers.append(client.worker())
            self.assertEqual(client.end() if i % 2 else self.killed(client), 0 if i % 2 else -signal.SIGKILL)
        for pid in workers:
            self.gone(pid)

    def killed(self, client):
        client.process.kill()
        return client.process.wait(rig.PATIENCE_S)

    def test_a_thousand_sessions(self):
        """Opened, used and closed, four at a time: nothing is left of them."""
        rounds, each = (1, 100) if mcplib.SANITIZED else (3, 300)
        self.rig.start_sim()
        daemon = self.rig.start_daemon()
        self.use_sessions(100)
        before = wait_for(lambda: (held := self.held_by(daemon))[1] == 1 and held,
                          "nobody but the zygote to be left")
        more_kb = []
        for _ in range(rounds):
            self.use_sessions(each)
            # What was held for a moment may have been counted before, and not again.
            after = wait_for(lambda: (held := self.held_by(daemon))[0] <= before[0] and held[1] == 1 and held,
                             "what they held to be given back: %r, now %r" % (before, self.held_by(daemon)))
            more_kb.append(after[2] - before[2])
            before = after
        # A crowd that a busy machine let come together makes the heap grow once; a leak does so each time.
        if not mcplib.SANITIZED:
            self.assertLess(min(more_kb), 170, "kB more for every %d sessions: %r" % (each, more_kb))
        self.assertEqual(self.rig.sessions(), [])

    def use_sessions(self, count):
        data = b"".join(json.dumps({"jsonrpc": "2.0", "id": i, "method": method, "params": params}).encode() + b"\n"
                        for i, (method, params) in enumerate((
                            ("initialize", {"protocolVersion": "2025-11-25", "capabilities": {},
                                            "clientInfo": {"name": "c", "version": "1"}}),
                            ("tools/call", {"name": "get_queue"}))))

        def use():
            replies, status, _ = self.piped(data, "--socket", self.rig.socket)
            self.assertEqual(status, 0)
            self.assertEqual([r["id"] for r in replies], [0, 1])
            self.assertFalse(replies[1]["result"]["isError"])

        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(use) for _ in range(count)]:
                future.result()

    def held_by(self, daemon):
        """(descriptors of the supervisor, processes below it, kB of its own)"""
        self.rig.sessions()  # the last of them is gone when this is answered
        below = [pid for child in children_of(daemon.pid)
                 for pid in [child, *children_of(child)] if is_running(pid)]
        return (len(os.listdir("/proc/%d/fd" % daemon.pid)), len(below), mcplib.private_kb(daemon.pid))


class Sizes(McpCase):
    def ping_of(self, id, bytes_):
        head = '{"jsonrpc":"2.0","id":%d,"method":"ping","params":{"pad":"' % id
        return head.encode() + b"x" * (bytes_ - len(head) - 3) + b'"}}'

    def test_lines_up_to_the_bound(self):
        client = self.session()
        for i, size in enumerate((10 << 20, LINE_BOUND)):
            client.asked[str(100 + i)] = ("ping", None)
            line = self.ping_of(100 + i, size)
            self.assertEqual(len(line), size)
            client.write(line + b"\n")
            self.assertEqual(client.answer(100 + i)["result"], {})
        client.write(self.ping_of(200, LINE_BOUND + 1) + b"\n")
        client.wait(lambda: client.lines[-1].get("error"), "a refusal")
        self.assertEqual(client.lines[-1]["error"]["code"], -32600)
        self.assertNotIn("id", client.lines[-1])
        self.assertEqual(client.request("ping")["result"], {})
        self.assertEqual(client.end(), 0)

    def test_endless_line_takes_no_memory(self):
        client = self.session()
        chunk = b"x" * (1 << 20)
        for _ in range(200):
            client.write(chunk)
        client.write(b"\n")
        self.assertEqual(client.request("ping")["result"], {})
        self.check_memory(client.process.pid, 80)
        errors = [m for m in client.lines if "error" in m]
        self.assertEqual(len(errors), 1)
        self.assertEqual(client.end(), 0)


class Versions(McpCase):
    def test_each_legacy_version(self):
        self.sim_and_daemon()
        for version in mcplib.LEGACY:
            with self.subTest(version):
                client = self.client()
                result = client.initialize(version)
                self.assertEqual(result["protocolVersion"], version)
                self.assertEqual(result["serverInfo"]["name"], "comfymux")
                self.assertEqual(result["capabilities"], {"tools": {}, "resources": {}})
                tools = client.request("tools/list")["result"]["tools"]
                self.assertGreaterEqual(len(tools), 16)
                for tool in tools:
                    self.assertEqual("annotations" in tool, version >= "2025-03-26")
                    self.assertEqual("title" in tool, version >= "2025-06-18")
                done = client.tool("execute_workflow_sync", {"workflow": sampler()}, token="p")
                self.assertFalse(done["isError"], done)
                self.assertEqual("structuredContent" in done, version >= "2025-06-18")
                types = {block["type"] for block in done["content"]}
                self.assertEqual(types - {"text", "image", "resource_link"}, set())
                if version < "2025-06-18":
                    self.assertNotIn("resource_link", types)
                for p in client.progress("p"):
                    self.assertEqual("message" in p, version >= "2025-03-26")
                listed = client.request("resources/list")["result"]["resources"]
                self.assertTrue(listed)
                read = client.request("resources/read", {"uri": listed[0]["uri"]})["result"]
                self.assertEqual(read["contents"][0]["mimeType"], "image/png")
                client.request("resources/templates/list")
                missing = client.request("resources/read", {"uri": "comfy://output/none.png"})
                self.assertEqual(missing["error"]["code"], -32002)
                self.assertEqual(missing["error"]["data"], {"uri": "comfy://output/none.png"})
                self.assertEqual(client.end(), 0)

    def test_the_modern_one(self):
        self.sim_and_daemon()
        client = self.client()
        client.version = MODERN
        # No discover, no initialize: the first message may be a call.
        done = client.tool("execute_workflow_sync", {"workflow": sampler()}, token="p", era=MODERN)
        self.assertFalse(done["isError"], done)
        self.assertIn("structuredContent", done)
        for method in ("server/discover", "tools/list", "resources/list", "resources/templates/list"):
            result = client.request(method, modern())["result"]
            self.assertIsInstance(result["ttlMs"], int)
            self.assertIn(result["cacheScope"], ("public", "private"))
            self.assertEqual(result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "comfymux")
        listed = client.request("resources/list", modern())["result"]
        self.assertEqual((listed["ttlMs"], listed["cacheScope"]), (0, "private"))
        client.request("resources/read", modern({"uri": listed["resources"][0]["uri"]}))
        missing = client.request("resources/read", modern({"uri": "comfy://output/none.png"}))
        self.assertEqual(missing["error"]["code"], -32602)
        listen = client.ask("subscriptions/listen", modern({"notifications": {"toolsListChanged": True}}), "L")
        client.wait(lambda: [n for n in client.notifications if "acknowledged" in n["method"]], "the ack")
        self.assertEqual(client.end(), 0)
        self.assertEqual(client.replies[json.dumps(listen)][0]["result"]["resultType"], "complete")

    def test_both_eras_in_one_process(self):
        client = self.client()
        self.assertEqual(client.request("tools/list")["error"]["code"], -32602)
        client.request("server/discover", modern())
        self.assertEqual(client.request("tools/list")["error"]["code"], -32602)
        client.initialize("2024-11-05")
        old = client.request("tools/list")["result"]
        new = client.request("tools/list", modern())["result"]
        self.assertNotIn("annotations", old["tools"][0])
        self.assertIn("annotations", new["tools"][0])
        self.assertEqual(client.request("ping", modern())["error"]["code"], -32601)
        self.assertEqual(client.request("ping")["result"], {})
        wrong = modern()
        wrong["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2099-01-01"
        error = client.request("tools/list", wrong)["error"]
        self.assertEqual(error["code"], -32022)
        self.assertEqual(error["data"], {"supported": [MODERN], "requested": "2099-01-01"})
        self.assertEqual(client.end(), 0)

    def test_batches_of_one_version(self):
        client = self.session("2025-03-26")
        batch = [{"jsonrpc": "2.0", "id": i, "method": "ping"} for i in range(100, 110)]
        batch.insert(3, {"jsonrpc": "2.0", "method": "notifications/x"})
        client.send(batch)
        client.wait(lambda: [m for m in client.lines if isinstance(m, list)], "the reply to a batch")
        self.assertEqual(sorted(m["id"] for m in client.lines[-1]), list(range(100, 110)))
        self.assertEqual(client.end(), 0)

    def test_list_of_tools_is_short_and_steady(self):
        texts = []
        for _ in range(2):
            client = self.session()
            texts.append(json.dumps(client.request("tools/list")["result"]["tools"]))
            client.end()
        self.assertEqual(*texts)
        compact = json.dumps(json.loads(texts[0]), separators=(",", ":"), ensure_ascii=False)
        self.assertLess(len(compact.encode()), 25 << 10)


class Concurrency(McpCase):
    def test_two_hundred_at_once(self):
        self.sim_and_daemon()
        client = self.session()
        ids = [client.call("get_queue") if i % 2 else client.ask("ping") for i in range(200)]
        for id in ids:
            self.assertIn("result", client.answer(id))
        self.assertEqual(sum(len(r) for r in client.replies.values()), 201)
        self.assertEqual(client.end(), 0)

    def test_a_slow_call_holds_nothing_up(self):
        self.sim_and_daemon()
        client = self.session()
        slow = client.call("execute_workflow_sync", {"workflow": sampler(steps=100000, step_ms=50)}, token=0)
        client.wait(lambda: client.progress(0), "progress")
        self.assertEqual(client.request("ping")["result"], {})
        self.assertFalse(client.tool("get_queue")["isError"])
        self.assertNotIn(json.dumps(slow), client.replies)
        # The same id again is refused, the first goes on.
        client.ask("ping", id=slow)
        self.assertEqual(client.answer(slow)["error"]["code"], -32600)
        self.assertEqual(client.end(), 0)

    def test_ids_are_echoed_as_they_came(self):
        client = self.session()
        for id in (0, -1, "", "0", "\u00e4\n\"\U0001f600", 2**53 + 1, int("9" * 30)):
            self.assertEqual(client.request("ping", id=id), {"jsonrpc": "2.0", "id": id, "result": {}})
        self.assertEqual(client.end(), 0)

    def test_progress_rises(self):
        self.sim_and_daemon()
        client = self.session()
        tokens = itertools.count()

        def is_told():
            token = next(tokens)
            done = client.tool("execute_workflow_sync",
                               {"workflow": sampler(steps=60, step_ms=25, seed=token)}, token=token)
            self.assertFalse(done["isError"], done)
            told = [p["progress"] for p in client.progress(token)]
            self.assertEqual(told, sorted(set(told)))
            self.assertTrue(all(0 <= v < 1 for v in told), told)
            self.assertTrue(all(p["total"] == 1 for p in client.progress(token)))
            # As often, whenever the machine isn't busy.
            return len(told) >= 3
        wait_for(is_told, "three words of progress")
        # None without a token.
        before = len(client.notifications)
        client.tool("execute_workflow_sync", {"workflow": sampler(steps=20, step_ms=25)})
        self.assertEqual(len(client.notifications), before)
        self.assertEqual(client.end(), 0)


class Cancelling(McpCase):
    def running(self, client, token):
        call = client.call("execute_workflow_sync", {"workflow": sampler(steps=100000, step_ms=50)}, token=token)
        client.wait(lambda: [p for p in client.progress(token) if p["message"].startswith("Node")], "its first node")
        return call

    def queue(self, client):
        return client.tool("get_queue")["structuredContent"]

    def test_by_the_user_stops_the_prompt(self):
        self.sim_and_daemon()
        client = self.session()
        call = self.running(client, 1)
        client.cancel(call, "AbortError: This operation was aborted")
        client.cancelled.add(json.dumps(call))
        wait_for(lambda: not self.queue(client)["running"], "the interrupt")
        history = client.tool("get_history", {"limit": 1})["structuredContent"]["prompts"]
        self.assertEqual(history[0]["status"], "failed")
        self.assertIn(history[0]["error"]["type"], ("cancelled", "interrupted"))
        self.assertEqual(client.end(), 0)

    def test_by_a_timeout_leaves_it_running(self):
        self.sim_and_daemon("--speed", "1")
        client = self.session()
        for reason in (None, "McpError: MCP error -32001: Request timed out"):
            call = self.running(client, "t%s" % reason)
            client.cancel(call, reason)
            client.cancelled.add(json.dumps(call))
            self.assertEqual(len(self.queue(client)["running"]), 1)
            # What was told before it had read the cancel has come by now.
            told = len(client.notifications)
            prompt = self.queue(client)["running"][0]["prompt_id"]
            self.assertEqual(len(client.notifications), told)
            self.assertFalse(client.tool("cancel_execution", {"prompt_id": prompt})["isError"])
            wait_for(lambda: not self.queue(client)["running"], "its end")
        self.assertEqual(client.end(), 0)

    def test_policy_is_configured(self):
        self.sim_and_daemon()
        for policy, reason, stops in (("interrupt", None, True), ("detach", "user", False)):
            self.rig.write("config/comfymux/comfymux.conf", "cancel_policy = %s\n" % policy)
            client = self.session()
            call = self.running(client, policy)
            client.cancel(call, reason)
            if stops:
                wait_for(lambda: not self.queue(client)["running"], "the interrupt")
            else:
                self.assertEqual(len(self.queue(client)["running"]), 1)
            self.assertEqual(client.end(), 0)

    def test_races(self):
        """A cancel at any moment: one answer or none, and nothing after it."""
        self.sim_and_daemon()
        client = self.session()
        rng = random.Random(7)
        for i in range(40):
            call = client.call("execute_workflow_sync", {"workflow": sampler(steps=2, step_ms=rng.choice((0, 1, 5)))},
                               token=i)
            time.sleep(rng.random() * 0.04)
            client.cancel(call, rng.choice((None, "user")))
        self.assertEqual(client.request("ping")["result"], {})
        self.assertTrue(all(len(r) == 1 for r in client.replies.values()))
        self.assertEqual(client.end(), 0)


class Backpressure(McpCase):
    def test_a_client_that_never_reads(self):
        client = self.client(read=False, light=True)
        line = b'{"jsonrpc":"2.0","id":%d,"method":"tools/list","params":{"_meta":{' \
               b'"io.modelcontextprotocol/protocolVersion":"2026-07-28",' \
               b'"io.modelcontextprotocol/clientCapabilities":{}}}}\n'
        os.set_blocking(client.process.stdin.fileno(), False)
        sent, rest, stuck_since = 0, b"", time.monotonic()
        # Until it takes no more for a while: it has stopped reading.
        while time.monotonic() - stuck_since < 2 and sent < 20000:
            if not rest:
                rest = line % sent
                client.asked[str(sent)] = ("tools/list", MODERN)
                sent += 1
            try:
                n = os.write(client.process.stdin.fileno(), rest)
                rest = rest[n:]
                stuck_since = time.monotonic()
            except BlockingIOError:
                time.sleep(0.01)
        self.assertLess(sent, 20000, "it never stopped reading")
        self.check_memory(client.process.pid, 160)
        self.check_memory(client.worker(), 160)
        # Once somebody reads, every answer is there.
        os.set_blocking(client.process.stdin.fileno(), True)
        client.start_reading()
        if rest:
            client.write(rest)
        client.wait(lambda: len(client.replies) == sent, "all answers")
        self.assertEqual(client.end(), 0)

    def test_all_is_written_before_anything_is_read(self):
        client = self.client(read=False, light=True)
        count = 900

        def write():
            for i in range(count):
                client.ask("tools/list", modern(), 1000 + i)
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        writer.join(rig.PATIENCE_S)
        self.assertFalse(writer.is_alive(), "both sides wait for each other")
        client.start_reading()
        client.wait(lambda: len(client.replies) == count, "all answers")
        self.assertEqual(client.end(), 0)

    def test_end_with_a_reader_that_is_slow(self):
        client = self.client(read=False)
        for i in range(40):
            client.ask("tools/list", modern(), i)
        client.process.stdin.close()
        time.sleep(0.3)
        client.start_reading()
        client.reader.join(rig.PATIENCE_S)
        self.assertEqual(client.process.wait(rig.PATIENCE_S), 0)
        self.assertEqual(len(client.replies), 40)
        self.assertEqual(client.faults, [])


class Succession(McpCase):
    def kill_worker(self, client, number=signal.SIGKILL):
        pid = client.worker()
        os.kill(pid, number)
        wait_for(lambda: not is_running(pid), "the worker's end")

    def test_session_goes_on(self):
        client = self.session("2025-03-26")
        self.kill_worker(client)
        self.assertEqual(client.request("ping")["result"], {})
        # The version is still known.
        client.send([{"jsonrpc": "2.0", "id": "b", "method": "ping"}])
        client.wait(lambda: '"b"' in client.replies, "the reply to a batch")
        self.kill_worker(client, signal.SIGTERM)
        self.assertNotIn("title", client.request("tools/list")["result"]["tools"][0])
        self.assertEqual(client.end(), 0)

    def test_a_run_survives_its_worker(self):
        self.sim_and_daemon()
        client = self.session()
        call = client.call("execute_workflow_sync", {"workflow": sampler(steps=40, step_ms=25)}, token="p")
        client.wait(lambda: client.progress("p"), "progress")
        self.kill_worker(client)
        done = client.answer(call)["result"]
        self.assertFalse(done["isError"], done)
        self.assertEqual(done["structuredContent"]["status"], "completed")
        self.assertEqual(len(self.journal("post")), 1)
        self.assertEqual(client.end(), 0)

    def test_killed_again_and_again(self):
        """Every request is answered once, every prompt is posted once."""
        self.sim_and_daemon()
        client = self.session()
        stop = threading.Event()
        kills = []

        def killer():
            rng = random.Random(3)
            # Not for ever: on a slow machine none would get anything done.
            while len(kills) < 40 and not stop.wait(rng.random() * 0.15):
                for pid in client.workers():
                    if proclib.end(pid):
                        kills.append(pid)
                        # Three in a row that didn't get ready would end the session.
                        if len(kills) % 2 == 0:
                            client.request("ping", id="kill %d" % len(kills))
        thread = threading.Thread(target=killer)
        thread.start()
        try:
            ids = []
            for i in range(30):
                ids.append(client.call("execute_workflow_sync",
                                       {"workflow": sampler(steps=3, step_ms=5, prefix="k%d" % i)}))
                ids.append(client.ask("ping"))
                time.sleep(0.05)
            for id in ids[:20]:
                client.answer(id)
            # Successors come the later, the more often workers die.
            wait_for(lambda: len(kills) > 5, "a few more kills")
        finally:
            stop.set()
            thread.join()
        for id in ids:
            reply = client.answer(id)
            self.assertIn("result", reply)
            if "structuredContent" in reply["result"]:
                self.assertEqual(reply["result"]["structuredContent"]["status"], "completed")
        self.assertGreater(len(kills), 5)
        self.assertTrue(all(len(r) == 1 for r in client.replies.values()))
        self.assertEqual(len(self.journal("post")), 30)
        self.assertEqual(client.end(), 0)

    def test_no_worker_to_be_had(self):
        """The keeper says so itself, once per request."""
        program = shutil.copy(os.path.join(rig.BIN, "comfymux"), self.rig.path("comfymux"))
        lines = [b'{"jsonrpc":"2.0","id":1,"method":"ping"}', b'{"jsonrpc":"2.0","method":"notifications/x"}', b"{",
                 b'[{"jsonrpc":"2.0","id":2,"method":"ping"},{"jsonrpc":"2.0","method":"n"}]',
                 b'[{"jsonrpc":"2.0","method":"n"}]', b'{"jsonrpc":"2.0","id":3,"result":{}}']
        done = subprocess.run([program, "mcp"], input=b"\n".join(lines) + b"\n", env=self.rig.env,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=rig.PATIENCE_S, check=False)
        self.assertEqual(done.returncode, 0)
        got = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(len(got), 3)
        self.assertEqual((got[0]["id"], got[0]["error"]["code"]), (1, -32603))
        self.assertIn("installed", got[0]["error"]["message"])
        self.assertEqual(got[1]["error"]["code"], -32700)
        self.assertEqual([m["id"] for m in got[2]], [2])

    def test_worker_that_crashes_at_once(self):
        shutil.copy(os.path.join(rig.BIN, "comfymux"), self.rig.path("comfymux"))
        fake = self.rig.write("comfymux-worker", "#!/bin/sh\nexit 3\n")
        os.chmod(fake, 0o755)
        done = subprocess.run([self.rig.path("comfymux"), "mcp"], input=(PING % 1) + b"\n", env=self.rig.env,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=rig.PATIENCE_S, check=False)
        self.assertEqual(json.loads(done.stdout)["error"]["code"], -32603)
        self.assertEqual(done.returncode, 0)


    def test_worker_that_leaves_again_and_again(self):
        """One that gets ready and exits when it is asked something: successors
        come later and later, and the request is answered in the end."""
        shutil.copy(os.path.join(rig.BIN, "comfymux"), self.rig.path("comfymux"))
        fake = self.rig.write("comfymux-worker", """#!/usr/bin/python3
import os, struct, sys, time
with open(%r, "a") as f:
    f.write("%%f\\n" %% time.monotonic())
os.write(3, struct.pack("<IHHQ", 0, %d, 0, 0))
os.read(3, 65536)
sys.exit(3)
""" % (self.rig.path("starts"), chanlib.TYPES["ready"]))
        os.chmod(fake, 0o755)
        process = self.copy(1, 2)
        for id in (1, 2):
            reply = json.loads(process.stdout.readline())
            self.assertEqual((reply["id"], reply["error"]["code"]), (id, -32603))
            self.assertIn("exit status 3", reply["error"]["message"])
        starts = self.starts()
        self.assertEqual(len(starts), 6)
        waits = [b - a for a, b in zip(starts, starts[1:])]
        for i, wait in enumerate(waits):
            self.assertGreater(wait, 0.1 * 2 ** i)
        # The next one is tried anew.
        process.stdin.write((PING % 3) + b"\n")
        process.stdin.flush()
        wait_for(lambda: len(self.starts()) > 9, "some more")
        self.end_copy(process, 3)
        # The end isn't held up by the waiting, whenever the machine isn't busy.
        wait_for(self.ends_at_once, "an end without the waiting")

    def ends_at_once(self):
        os.remove(self.rig.path("starts"))
        process = self.copy(1)
        wait_for(lambda: os.path.exists(self.rig.path("starts")) and len(self.starts()) > 3, "a few starts")
        self.end_copy(process, 1)
        starts = self.starts()[3:]
        waits = [b - a for a, b in zip(starts, starts[1:])]
        return any(wait < 0.1 * 2 ** i for i, wait in enumerate(waits, 3))

    def copy(self, *ids):
        """The program beside a worker of the test's, asked for these."""
        process = subprocess.Popen([self.rig.path("comfymux"), "mcp"], env=self.rig.env, stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(process.communicate)
        process.stdin.write(b"".join((PING % id) + b"\n" for id in ids))
        process.stdin.flush()
        return process

    def end_copy(self, process, id):
        process.stdin.close()
        self.assertEqual(json.loads(process.stdout.readline())["id"], id)
        self.assertEqual(process.wait(rig.PATIENCE_S), 0)
        process.stdin = None

    def starts(self):
        with open(self.rig.path("starts")) as f:
            return [float(line) for line in f]


class Surroundings(McpCase):
    def test_home_and_path_are_enough(self):
        env = {"HOME": self.rig.dir, "PATH": os.environ["PATH"]}
        got, status, _ = self.piped((PING % 1) + b"\n", env=env)
        self.assertEqual((got[0]["result"], status), ({}, 0))

    def test_comfyui_is_down(self):
        self.rig.sim_url = "http://127.0.0.1:%d" % rig.refusing_port()
        client = self.session()
        self.assertEqual(client.request("ping")["result"], {})
        result = client.tool("get_queue")
        self.assertTrue(result["isError"])
        self.assertIn(self.rig.sim_url, result["content"][0]["text"])
        self.assertEqual(client.request("resources/list")["error"]["code"], -32603)
        self.assertEqual(client.end(), 0)

    def test_without_a_supervisor(self):
        self.rig.start_sim()
        client = self.session()
        done = client.tool("execute_workflow_sync", {"workflow": sampler()}, token="p")
        self.assertEqual(done["structuredContent"]["progress_method"], "polling")
        self.assertTrue(client.request("resources/list")["result"]["resources"])
        self.assertEqual(self.rig.stats()["websockets"]["total"], 0)
        # One comes up: it is used from the next call on.
        self.rig.start_daemon()
        done = client.tool("execute_workflow_sync", {"workflow": sampler()}, token="q")
        self.assertEqual(done["structuredContent"]["progress_method"], "websocket")
        self.assertEqual(client.end(), 0)

    def test_first_submission_starts_a_supervisor(self):
        self.rig.start_sim()
        self.rig.write("config/comfymux/comfymux.conf",
                       "comfyui = %s\nsocket = %s\nstate_dir = %s\nidle_exit_s = 1\n" %
                       (self.rig.sim_url, self.rig.socket, self.rig.state))
        client = self.session(comfyui=False, sock=False)
        client.tool("get_queue")
        self.assertFalse(os.path.exists(self.rig.socket), "a look started it")
        done = client.tool("execute_workflow_sync", {"workflow": sampler()})
        self.assertEqual(done["structuredContent"]["progress_method"], "websocket")
        pid = self.rig.json("status")["pid"]
        self.assertEqual(client.end(), 0)
        wait_for(lambda: not is_running(pid), "its end when idle")

    def test_ten_sessions_share_one_websocket(self):
        self.sim_and_daemon()
        clients = [self.session() for _ in range(10)]
        calls = [c.call("execute_workflow_sync", {"workflow": sampler(prefix="s%d" % i)})
                 for i, c in enumerate(clients)]
        for i, (client, call) in enumerate(zip(clients, calls)):
            result = client.answer(call)["result"]["structuredContent"]
            self.assertIn("s%d_" % i, json.dumps(result["outputs"]))
        self.assertEqual(self.rig.stats()["websockets"]["total"], 1)
        for client in clients:
            self.assertEqual(client.end(), 0)


class Files(McpCase):
    def test_workflow_from_a_file(self):
        self.sim_and_daemon()
        path = self.rig.write("dir/wf.json", sampler())
        client = self.session()
        for name in (path, "dir/wf.json"):
            done = client.tool("execute_workflow_sync", {"workflow_path": name})
            self.assertEqual(done["structuredContent"]["status"], "completed", done)
        for bad in ("nowhere.json", "dir"):
            done = client.tool("execute_workflow_sync", {"workflow_path": bad})
            self.assertTrue(done["isError"])
            self.assertIn(bad, done["content"][0]["text"])
        self.assertEqual(client.end(), 0)

    def test_download_and_upload(self):
        self.sim_and_daemon()
        client = self.session()
        client.tool("execute_workflow_sync", {"workflow": sampler()})
        name = client.request("resources/list")["result"]["resources"][0]["name"]
        done = client.tool("download_by_filename", {"filename": name, "dest_path": self.rig.path("a.png")})
        self.assertFalse(done["isError"], done)
        with open(self.rig.path("a.png"), "rb") as f:
            self.assertEqual(f.read(8), b"\x89PNG\r\n\x1a\n")
        # There already: only on demand, and nothing half-written is left.
        again = client.tool("download_by_filename", {"filename": name, "dest_path": self.rig.path("a.png")})
        self.assertTrue(again["isError"])
        os.mkdir(self.rig.path("d"))
        client.tool("download_by_filename", {"filename": name, "dest_path": self.rig.path("d")})
        self.assertEqual(os.listdir(self.rig.path("d")), [name])
        sent = client.tool("upload_image", {"image_path": self.rig.path("a.png")}) \
            if "image_path" in json.dumps(client.request("tools/list")) else None
        if sent is not None:
            self.assertFalse(sent["isError"], sent)
        self.assertEqual(client.end(), 0)


if __name__ == "__main__":
    unittest.main()

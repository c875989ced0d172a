"""Previews where they are shown: the file of `comfymux run --preview`, and the
picture that an MCP tool returns with a prompt that isn't through."""

import base64
import itertools
import json
import os
import signal
import stat
import subprocess
import unittest

import rig
import simlib
from mcplib import strict_json
from rig import wait_for
from tenantlib import ANN, TenantCase
from toollib import Case as McpCase
from toollib import sampler as tool_sampler

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"


def pictures(steps=6, step_ms=30, seed=1, size=20000):
    return simlib.sampler(steps=steps, step_ms=step_ms, seed=seed, previews=steps,
                          preview_bytes=size)


def frames(port, steps, size, step_ms=2):
    """The pictures that ComfyUI makes of such a workflow."""
    ws = simlib.WebSocket("127.0.0.1", port, "/ws?clientId=recorder")
    ws.negotiate()
    rig.http("POST", "http://127.0.0.1:%d/prompt" % port,
             {"prompt": pictures(steps=steps, size=size, step_ms=step_ms, seed=99),
              "client_id": "recorder"})
    ws.wait_type("execution_success")
    got = [e.payload for e in ws.events if e.opcode == simlib.BINARY and e.code == 4]
    ws.close()
    return [f[8 + int.from_bytes(f[4:8], "big"):] for f in got]


class RunPreview(unittest.TestCase):
    def setUp(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)
        self.rig.start_sim()

    def read(self, name="p.jpg"):
        with open(self.rig.path(name), "rb") as f:
            return f.read()

    def leftovers(self):
        return [n for n in os.listdir(self.rig.dir) if n.endswith(".part")]

    def counters(self):
        return self.rig.status()["counters"]

    def test_last_one_stays(self):
        """Whole at any moment, and at the end the last, byte for byte; as the
        user's file, by his umask."""
        self.rig.start_daemon()
        expected = frames(self.rig.sim_port, 20, 60000)
        self.rig.write("wf.json", pictures(steps=20, size=60000))
        self.rig.pause(steps=5)
        p = self.rig.start("comfymux", "run", "wf.json", "--preview", "p.jpg", "--socket",
                           self.rig.socket, stdout=subprocess.DEVNULL, umask=0o026)
        wait_for(lambda: os.path.exists(self.rig.path("p.jpg")), "a preview")
        seen = {self.read()}
        self.rig.pause(steps=5)
        wait_for(lambda: self.read() not in seen, "another")
        self.rig.resume()
        while p.poll() is None:
            seen.add(self.read())
        self.assertEqual(p.returncode, 0)
        self.assertEqual(self.read(), expected[-1])
        self.assertGreater(len(seen), 1)
        self.assertLessEqual(seen, set(expected))
        self.assertEqual(stat.S_IMODE(os.stat(self.rig.path("p.jpg")).st_mode), 0o640)
        self.assertEqual(self.leftovers(), [])

    def test_faster_than_anybody(self):
        """Large ones in quick succession: some are left out, the last isn't."""
        self.rig.start_daemon()
        expected = frames(self.rig.sim_port, 100, 2000000, 1)
        self.rig.write("wf.json", pictures(steps=100, step_ms=1, size=2000000))
        self.rig.run("run", "wf.json", "--preview", "p.jpg", check=0)
        self.assertEqual(self.read(), expected[-1])
        self.assertEqual(self.leftovers(), [])

    def test_not_asked(self):
        self.rig.start_daemon()
        self.rig.write("wf.json", pictures())
        self.rig.run("run", "wf.json", check=0)
        counters = self.counters()
        self.assertEqual((counters["previews"], counters["events"]["preview_meta"]), (0, 6))

    def test_cannot_be_written(self):
        """Told once; the run isn't harmed."""
        self.rig.start_daemon()
        sent = 0
        for i, (name, word) in enumerate((("none/p.jpg", "No such file"),
                                          ("fifo", "no regular file"), (".", "no regular file"))):
            if name == "fifo":
                os.mkfifo(self.rig.path(name))
            self.rig.write("wf.json", pictures(seed=i))
            done = self.rig.run("run", "wf.json", "--preview", name, check=0)
            self.assertEqual(done.stderr.count(word), 1, done.stderr)
            before, sent = sent, self.counters()["previews_sent"]
            self.assertGreater(sent, before)
        self.assertTrue(stat.S_ISFIFO(os.stat(self.rig.path("fifo")).st_mode))

    def test_without_supervisor(self):
        """By polling there are none."""
        self.rig.write("wf.json", pictures())
        self.rig.run("run", "wf.json", "--preview", "p.jpg", comfyui=True, check=0)
        self.assertFalse(os.path.exists(self.rig.path("p.jpg")))

    def test_worker_and_supervisor_killed(self):
        """Their successors go on with the previews."""
        self.daemon = self.rig.start_daemon()
        expected = frames(self.rig.sim_port, 1000, 20000)[-1]
        seeds = itertools.count(2)
        # The new supervisor looks once more. If the machine lets that find the end
        # before the frames in front of it are read, they come to nobody.
        wait_for(lambda: self.run_and_kill_both(next(seeds)) == "websocket", "an end by an event")
        self.assertEqual(self.read(), expected)

    def run_and_kill_both(self, seed):
        """How the end was found."""
        self.rig.write("wf.json", pictures(steps=1000, step_ms=2, seed=seed))
        if os.path.exists(self.rig.path("p.jpg")):
            os.unlink(self.rig.path("p.jpg"))
        self.rig.pause(steps=5)
        p = self.rig.start("comfymux", "run", "wf.json", "--preview", "p.jpg", "--json", "--socket", self.rig.socket,
                           stdout=subprocess.PIPE)

        def shown():
            return os.path.exists(self.rig.path("p.jpg")) and self.read()

        def next_shown():
            last = shown()

            def changed():
                # A step at a time: it doesn't end meanwhile.
                self.rig.pause(steps=1)
                return shown() != last
            wait_for(changed, "the next preview")
        wait_for(shown, "a preview")
        worker = next(s["pid"] for s in self.rig.sessions() if s["keeper_pid"] == p.pid)
        os.kill(worker, signal.SIGKILL)
        next_shown()
        self.daemon.kill()
        self.daemon.wait()
        self.daemon = self.rig.start_daemon()
        next_shown()
        self.rig.resume()
        end = json.loads(p.stdout.read().splitlines()[-1])
        self.assertEqual(p.wait(rig.PATIENCE_S), 0)
        return end["progress_method"]

    def test_nothing_is_left_open(self):
        """The worker has one file of many at a time."""
        self.rig.start_daemon()
        self.rig.write("wf.json", pictures(steps=100000, step_ms=5))
        p = self.rig.start("comfymux", "run", "wf.json", "--preview", "p.jpg", "--socket",
                           self.rig.socket, stdout=subprocess.DEVNULL)
        wait_for(lambda: self.counters()["previews_sent"] > 50, "previews")
        worker = self.rig.sessions()[0]["pid"]
        self.assertLess(len(os.listdir("/proc/%d/fd" % worker)), 16)
        p.send_signal(signal.SIGINT)
        self.assertEqual(p.wait(rig.PATIENCE_S), 3)


class TenantsFile(TenantCase):
    def test_as_himself(self):
        """Ann's file is Ann's, where she may write, by her umask."""
        sim, d, ann, _ = self.service()
        with open(ann.path("wf.json"), "w") as f:
            f.write(simlib.json.dumps(pictures()))
        done = ann.run("run", "wf.json", "--preview", "p.jpg", umask=0o027)
        self.assertEqual(done.returncode, 0, done.stderr)
        st = os.stat(ann.path("p.jpg"))
        self.assertEqual((st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)), (ANN, ANN, 0o640))
        with open(ann.path("p.jpg"), "rb") as f:
            self.assertEqual(f.read(), frames(sim.port, 6, 20000)[-1])
        elsewhere = ann.run("run", "wf.json", "--preview", "/p.jpg", "--set", "1.seed=7")
        self.assertEqual(elsewhere.returncode, 0)
        self.assertIn("Permission denied", elsewhere.stderr)
        self.assertFalse(os.path.exists("/p.jpg"))


class McpPreview(McpCase):
    def images(self, result):
        return [(c["mimeType"], base64.b64decode(c["data"]))
                for c in result["content"] if c["type"] == "image"]

    def running(self, **more):
        steps = {"steps": 100000, "step_ms": 20, "previews": 100000, "preview_bytes": 5000}
        return tool_sampler(**{**steps, **more})

    def test_not_through(self):
        """What ends by time shows the latest, if it was asked for."""
        tools = self.both()
        result = tools.raw("execute_workflow_sync", workflow=self.running(), timeout_ms=8000,
                           return_preview=True)
        _, body = tools.look(result, "execute_workflow_sync")
        self.assertIs(body["timed_out"], True)
        (mime, first), = self.images(result)
        self.assertEqual(mime, "image/jpeg")
        self.assertTrue(first.startswith(JPEG_START) and first.endswith(JPEG_END))
        # Another one was made while it waited; which it has at its end is a matter of time.
        wait_for(lambda: [i for _, i in self.images(tools.raw(
            "wait_for_execution", prompt_id=body["prompt_id"], timeout_ms=2000,
            return_preview=True)) if i != first], "another preview")
        plain = tools.raw("wait_for_execution", prompt_id=body["prompt_id"], timeout_ms=100)
        self.assertEqual(self.images(plain), [])

    def test_interrupted(self):
        tools = self.both()
        call = tools.start("execute_workflow_sync", workflow=self.running(),
                           return_preview=True, token="t")
        client = self.other_tools()
        prompt = wait_for(lambda: [p["prompt_id"] for p in client.good("get_queue")["running"]],
                          "the prompt")[0]
        wait_for(lambda: self.rig.status()["counters"]["previews_sent"] > 0, "a preview")
        client.good("cancel_execution", prompt_id=prompt)
        result = tools.client.answer(call)["result"]
        self.assertIs(result["isError"], True)
        self.assertEqual(strict_json(result["content"][0]["text"])["status"], "failed")
        self.assertEqual([m for m, _ in self.images(result)], ["image/jpeg"])

    def other_tools(self):
        return self.tools()

    def test_through(self):
        tools = self.both()
        result = tools.raw("execute_workflow_sync", return_preview=True,
                           workflow=self.running(steps=5, previews=5))
        self.assertIs(result["isError"], False)
        self.assertEqual(self.images(result), [])

    def test_too_large(self):
        tools = self.both()
        for size, shown in ((4 << 20, 1), ((4 << 20) + 1, 0)):
            prompt = tools.good("submit_workflow", workflow=self.running(
                seed=size, step_ms=200, preview_bytes=size))["prompt_id"]

            def more(prompt=prompt):
                result = tools.raw("wait_for_execution", prompt_id=prompt, timeout_ms=500,
                                   return_preview=True)
                return len(result["content"]) > 1 and result
            result = wait_for(more, "a preview")
            self.assertEqual(len(self.images(result)), shown)
            notes = [c["text"] for c in result["content"][1:] if c["type"] == "text"]
            self.assertEqual(len(notes), 1 - shown)
            if notes:
                self.assertIn(str(size), notes[0])
            tools.good("cancel_execution", prompt_id=prompt)

    def test_no_other_tool(self):
        tools = self.both()
        tools.bad("submit_workflow", "invalid", "return_preview", workflow=tool_sampler(),
                  return_preview=True)

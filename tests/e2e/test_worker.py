"""comfymux-worker alone on its session channel, with a real supervisor and the
simulator: what it tells its keeper, and what is left when things die."""
import json
import os
import random
import signal
import subprocess
import time
import unittest

import chanlib
import rig
from proclib import descriptors
from rig import wait_for

SEED = 18446744073709551615


def sampler(steps=4, step_ms=5, seed=1, **more):
    return {
        "3": {"class_type": "SimSampler",
              "inputs": {"seed": seed, "steps": steps, "step_ms": step_ms, **more}},
        "9": {"class_type": "SaveImage",
              "inputs": {"images": ["3", 0], "filename_prefix": "worker"}},
    }


class WorkerCase(unittest.TestCase):
    def setUp(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)
        self.rig.start_sim()

    def worker(self, bus=False, **kwargs):
        sock = chanlib.connect(self.rig.socket) if bus else None
        w = chanlib.Worker(self.rig.sim_url, sock, log=self.rig.path("worker.log"), **kwargs)
        self.addCleanup(w.close)
        return w

    def posts(self):
        return [j for j in self.rig.journal() if j["fact"] == "post"]

    def asked(self, what):
        return sum(n for path, n in self.rig.stats()["requests"].items() if path.startswith(what))


class Start(unittest.TestCase):
    def run_worker(self, *args, **kwargs):
        return subprocess.run([os.path.join(rig.BIN, "comfymux-worker"), *args],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=rig.PATIENCE_S, **kwargs)

    def test_by_hand(self):
        done = self.run_worker()
        self.assertEqual(done.returncode, 2)
        self.assertIn("session channel", done.stderr)
        self.assertEqual(done.stdout, "")

    def test_options(self):
        done = self.run_worker("--version")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"^comfymux-worker \d+\.\d+\.\d+\n$")
        done = self.run_worker("--help")
        self.assertEqual(done.returncode, 0)
        self.assertIn("--bus", done.stdout)
        done = self.run_worker("--nonsense")
        self.assertEqual(done.returncode, 2)
        self.assertIn("--nonsense", done.stderr)


class Alone(WorkerCase):
    def test_run(self):
        w = self.worker()
        self.rig.pause()
        w.request("run", 1, workflow=sampler(seed=SEED))
        w.wait("record", 1)
        w.wait("output", 1)
        self.rig.resume()
        answer = w.response(1)
        self.assertTrue(answer["ok"], answer)
        result = answer["result"]
        self.assertEqual(result["status"], "completed")
        self.assertEqual(result["progress_method"], "polling")
        self.assertEqual(result["outputs"]["9"]["images"][0]["type"], "output")
        self.assertEqual(result["prompt_id"], w.records(1)[0]["prompt_id"])
        outputs = w.outputs(1)
        self.assertTrue(outputs)
        self.assertTrue(all(o["progress"]["method"] == "polling" for o in outputs), outputs)
        logs = [f.payload.decode() for f in w.of_type("log")]
        self.assertEqual(len([t for t in logs if "polling ComfyUI every" in t]), 1, logs)
        posts = self.posts()
        self.assertEqual(len(posts), 1)
        self.assertEqual(self.rig.stats()["websockets"]["total"], 0)

    def test_failing_node(self):
        w = self.worker()
        answer = w.ask("run", 1, workflow={
            "3": {"class_type": "SimError",
                  "inputs": {"message": "out of paint", "type": "ValueError"}},
            "9": {"class_type": "SaveImage",
                  "inputs": {"images": ["3", 0], "filename_prefix": "x"}}})
        self.assertTrue(answer["ok"], answer)
        self.assertEqual(answer["result"]["status"], "failed")
        error = answer["result"]["error"]
        self.assertEqual((error["type"], error["node_id"]), ("ValueError", "3"))
        self.assertIn("out of paint", error["message"])

    def test_rejected(self):
        w = self.worker()
        answer = w.ask("run", 1, workflow={"1": {"class_type": "NoSuchNode", "inputs": {}}})
        self.assertFalse(answer["ok"])
        self.assertEqual(answer["error"]["type"], "rejected")
        self.assertIn("NoSuchNode", answer["error"]["message"])
        self.assertFalse(answer["error"]["submitted"])

    def test_cancel(self):
        w = self.worker()
        w.request("run", 1, workflow=sampler(steps=100000, step_ms=25))
        w.request("run", 2, workflow=sampler(steps=100000, step_ms=25, seed=2))
        w.wait_for(lambda: any(o["progress"]["status"] == "executing" for o in w.outputs(1)),
                   "the first to run")
        # The second waits for its turn: nothing was submitted.
        w.send("cancel", 2)
        answer = w.response(2)
        self.assertEqual(answer["result"]["error"]["type"], "cancelled")
        self.assertEqual(len(self.posts()), 1)
        w.send("cancel", 1)
        answer = w.response(1)
        self.assertEqual(answer["result"]["status"], "failed")
        self.assertEqual(answer["result"]["error"]["type"], "cancelled")

    def test_timeout_runs_on(self):
        w = self.worker()
        self.rig.pause()
        answer = w.ask("run", 1, workflow=sampler(), timeout_ms=700)
        self.assertEqual(answer["error"]["type"], "timeout")
        prompt = answer["error"]["prompt_id"]
        self.assertIn(answer["error"]["progress"]["status"], ("queued", "executing"))
        self.rig.resume()
        answer = w.ask("watch", 2, prompt_id=prompt)
        self.assertEqual(answer["result"]["status"], "completed")

    def test_reply_cut_off(self):
        """The POST is taken, its reply isn't seen: looked up, not repeated."""
        for how in ("fin", "rst"):
            self.rig.fault(fault="cut", path="/prompt", method="POST", count=1, how=how)
            w = self.worker()
            answer = w.ask("run", 1, workflow=sampler(seed=random.randrange(10**9)))
            self.assertEqual(answer["result"]["status"], "completed")
            w.close()
        self.assertEqual(len(self.posts()), 2)

    def test_comfyui_restarts(self):
        w = self.worker()
        w.request("run", 1, workflow=sampler(steps=100000, step_ms=25))
        w.wait("output", 1)
        self.rig.fault(fault="restart", down_ms=300)
        answer = w.response(1)
        self.assertEqual(answer["result"]["status"], "failed")
        self.assertEqual(answer["result"]["error"]["type"], "lost")

    def test_comfyui_away_for_a_while(self):
        w = self.worker()

        def said(words):
            return [f for f in w.of_type("log") if words in f.payload.decode()]
        self.rig.pause()
        w.request("run", 1, workflow=sampler())
        w.wait("output", 1)
        self.rig.fault(fault="status", code=503, count=3, path="/queue")
        w.wait_for(lambda: said("answers again"), "the end of it")
        self.assertTrue(said("trying again"))
        self.rig.resume()
        answer = w.response(1)
        self.assertEqual(answer["result"]["status"], "completed")

    def test_nobody_there(self):
        self.rig.sim_url = "http://127.0.0.1:%d" % rig.refusing_port()
        w = self.worker()
        answer = w.ask("run", 1, workflow=sampler())
        self.assertEqual(answer["error"]["type"], "unreachable")
        self.assertFalse(answer["error"]["submitted"])
        for line, op in enumerate(("queue", "history"), 2):
            self.assertEqual(w.ask(op, line)["error"]["type"], "unreachable")

    def test_questions(self):
        w = self.worker()
        done = w.ask("run", 1, workflow=sampler())["result"]["prompt_id"]
        runs = w.ask("submit", 2, workflow=sampler(steps=100000, step_ms=25, seed=2))["result"]
        waits = w.ask("submit", 3, workflow=sampler(seed=3))["result"]
        self.assertEqual(runs["status"], "queued")

        def queue():
            return w.ask("queue", random.randrange(10, 10**9))["result"]
        wait_for(lambda: queue()["running"], "the prompt to run")
        q = queue()
        self.assertEqual([p["prompt_id"] for p in q["running"]], [runs["prompt_id"]])
        self.assertEqual([p["prompt_id"] for p in q["pending"]], [waits["prompt_id"]])
        self.assertEqual(q["pending"][0]["queue_position"], 1)
        history = w.ask("history", 4, limit=10)["result"]["prompts"]
        self.assertEqual([p["prompt_id"] for p in history],
                         [runs["prompt_id"], waits["prompt_id"], done])
        self.assertEqual(history[2]["status"], "completed")
        self.assertIn("ended_at", history[2])
        # Newer servers do both at once and don't say which it was.
        how = w.ask("cancel", 5, prompt_id=waits["prompt_id"])["result"]["how"]
        self.assertIn(how, ("dequeued", "cancelled"))
        how = w.ask("cancel", 6, prompt_id=runs["prompt_id"])["result"]["how"]
        self.assertIn(how, ("interrupted", "cancelled"))
        self.assertEqual(w.ask("cancel", 7, prompt_id="nowhere")["error"]["type"], "not_found")
        self.assertEqual(w.ask("progress", 8, prompt_id=done)["result"]["status"], "completed")
        stats = w.ask("comfy", 9, path="/system_stats")["result"]
        self.assertIn("system", stats)

    def test_large_workflow(self):
        big = sampler()
        big["3"]["inputs"]["note"] = "x" * (6 << 20)
        w = self.worker()
        answer = w.ask("run", 1, workflow=big)
        self.assertTrue(answer["ok"], str(answer)[:500])


class View(WorkerCase):
    def view(self, w, line, target, **params):
        """Plays the keeper for one file; the answer."""
        w.request("view", line, **params)
        order = w.wait("open", line).json()
        self.assertTrue(order["write"])
        fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        w.send("file", line, {"token": order["token"]}, fd=fd)
        os.close(fd)
        closing = w.wait("close", line).json()
        self.assertEqual(closing["token"], order["token"])
        if closing["keep"]:
            w.send("closed", line, {"token": order["token"], "path": target})
        return w.response(line)

    def test_files_of_a_prompt(self):
        w = self.worker()
        result = w.ask("run", 1, workflow=sampler())["result"]
        image = result["outputs"]["9"]["images"][0]
        path = self.rig.path("saved.png")
        answer = self.view(w, 2, path, filename=image["filename"], type="output", path=path)
        with open(path, "rb") as f:
            saved = f.read()
        status, real = self.rig.sim("GET", "/view?filename=%s&type=output" % image["filename"])
        self.assertEqual((status, saved), (200, real))
        self.assertEqual(answer["result"],
                         {"path": path, "bytes": len(real), "content_type": "image/png"})
        answer = self.view(w, 3, path, prompt_id=result["prompt_id"], path=self.rig.dir)
        self.assertEqual(len(answer["result"]["files"]), 1)
        answer = self.view(w, 4, path, filename="no-such.png")
        self.assertEqual(answer["error"]["type"], "not_found")

    def test_cut_off(self):
        w = self.worker()
        image = w.ask("run", 1, workflow=sampler())["result"]["outputs"]["9"]["images"][0]
        self.rig.fault(fault="truncate", path="/view", count=1)
        answer = self.view(w, 2, self.rig.path("x.png"), filename=image["filename"])
        self.assertFalse(answer["ok"])


class OnTheBus(WorkerCase):
    def setUp(self):
        super().setUp()
        self.daemon = self.rig.start_daemon()

    def test_run(self):
        w = self.worker(bus=True)
        before = self.asked("GET /queue") + self.asked("GET /history")
        answer = w.ask("run", 1, workflow=sampler(steps=20, seed=SEED))
        result = answer["result"]
        self.assertEqual(result["status"], "completed")
        self.assertEqual(result["progress_method"], "websocket")
        self.assertEqual(sorted(result["completed_nodes"]), ["3", "9"])
        outputs = w.outputs(1)
        classes = {o["progress"].get("current_node"): o.get("class") for o in outputs}
        self.assertEqual(classes["3"], "SimSampler")
        steps = [o["progress"]["current_node_progress"] for o in outputs
                 if o["progress"].get("current_node") == "3"]
        self.assertEqual(steps, sorted(steps))
        self.assertTrue(all(o["total_nodes"] == 2 for o in outputs))
        self.assertIn("Execution finished", result["progress_log"])
        self.assertEqual(len(self.posts()), 1)
        self.assertEqual(self.asked("GET /queue") + self.asked("GET /history"), before)
        self.assertEqual(w.of_type("log"), [])

    def test_attached_session_is_seen(self):
        self.worker(bus=True)
        sessions = wait_for(lambda: self.rig.status()["sessions"], "the session")
        self.assertEqual(len(sessions), 1)

    def test_another_comfyui(self):
        """The user named another server: not attached, polled there."""
        other = rig.Rig()
        self.addCleanup(other.close)
        other.start_sim()
        w = chanlib.Worker(other.sim_url, chanlib.connect(self.rig.socket))
        self.addCleanup(w.close)
        answer = w.ask("run", 1, workflow=sampler())
        self.assertEqual(answer["result"]["progress_method"], "polling")
        self.assertEqual(len(self.posts()), 0)
        self.assertEqual(w.of_type("want_bus"), [])
        logs = [f.payload.decode() for f in w.of_type("log")]
        self.assertEqual(len(logs), 1, logs)

    def test_supervisor_dies_and_returns(self):
        w = self.worker(bus=True)
        w.request("run", 1, workflow=sampler(steps=400, step_ms=20))
        w.wait_for(lambda: any(o["progress"]["status"] == "executing" for o in w.outputs(1)),
                   "the prompt to run")
        # It has most of its steps still before it when the bus is back.
        self.rig.pause()
        self.daemon.kill()
        self.daemon.wait()
        w.wait("want_bus")
        asked = self.asked("GET /queue")
        wait_for(lambda: self.asked("GET /queue") > asked + 1, "polling")
        self.rig.start_daemon()
        seen = len(w.outputs(1))
        w.send("bus", 0, fd=chanlib.connect(self.rig.socket).detach())
        self.rig.resume()
        w.wait_for(lambda: any(o["progress"]["method"] == "websocket"
                               for o in w.outputs(1)[seen:]), "events again")
        answer = w.response(1)
        self.assertEqual(answer["result"]["status"], "completed")
        self.assertEqual(answer["result"]["progress_method"], "websocket")
        steps = [o["progress"]["current_node_progress"] for o in w.outputs(1)
                 if o["progress"].get("current_node") == "3"]
        self.assertEqual(steps, sorted(steps))
        self.assertEqual(len(self.posts()), 1)

    def test_supervisor_dies_for_good(self):
        w = self.worker(bus=True)
        w.request("run", 1, workflow=sampler(steps=250, step_ms=20))
        w.wait_for(lambda: w.outputs(1), "progress")
        # It doesn't end before the supervisor does.
        self.rig.pause()
        self.daemon.kill()
        self.daemon.wait()
        self.rig.resume()
        answer = w.response(1)
        self.assertEqual(answer["result"]["status"], "completed")
        self.assertEqual(answer["result"]["progress_method"], "polling")
        self.assertEqual(answer["result"]["outputs"]["9"]["images"][0]["type"], "output")
        self.assertEqual(len(self.posts()), 1)

    def test_stopped_supervisor(self):
        """SIGSTOP is no EOF: after a while it counts as gone."""
        w = self.worker(bus=True)
        w.request("run", 1, workflow=sampler(steps=400, step_ms=20))
        w.wait_for(lambda: w.outputs(1), "progress")
        self.daemon.send_signal(signal.SIGSTOP)
        try:
            answer = w.response(1)
        finally:
            self.daemon.send_signal(signal.SIGCONT)
        self.assertEqual(answer["result"]["status"], "completed")
        self.assertEqual(answer["result"]["progress_method"], "polling")

    def test_cancel(self):
        w = self.worker(bus=True)
        w.request("run", 1, workflow=sampler(steps=100000, step_ms=25))
        w.wait_for(lambda: any(o["progress"]["status"] == "executing" for o in w.outputs(1)),
                   "the prompt to run")
        w.send("cancel", 1)
        answer = w.response(1)
        self.assertEqual(answer["result"]["status"], "failed")
        self.assertEqual(answer["result"]["error"]["type"], "cancelled")


class Successors(WorkerCase):
    """Workers die by SIGKILL at any moment; a keeper that replays requests and
    records gets one answer, and ComfyUI one POST, for each prompt."""

    def run_with_kills(self, bus, rounds):
        rng = random.Random(17)
        for i in range(rounds):
            workflow = sampler(steps=6, step_ms=5, seed=1000 + i)
            records, kills = [], 0
            while True:
                w = chanlib.Worker(self.rig.sim_url,
                                   chanlib.connect(self.rig.socket) if bus else None,
                                   hello=False, log=self.rig.path("worker.log"))
                try:
                    w.hello("run", True, bus, 200)
                    for record in records:
                        w.send("record", i + 1, record)
                    w.request("run", i + 1, workflow=workflow)
                    if kills < 4:
                        time.sleep(rng.random() * 0.06)
                        w.kill()
                        kills += 1
                    try:
                        answer = w.response(i + 1)
                    except chanlib.Gone:
                        answer = None
                    records += w.records(i + 1)
                finally:
                    w.close()
                if answer:
                    break
            self.assertTrue(answer["ok"], answer)
            self.assertEqual(answer["result"]["status"], "completed")
            self.assertLessEqual(len({r["prompt_id"] for r in records}), 1)
        ids = [j.get("prompt_id") for j in self.posts()]
        self.assertEqual(len(ids), len(set(ids)))
        self.assertEqual(len(ids), rounds)

    def test_alone(self):
        self.run_with_kills(False, 8)

    def test_on_the_bus(self):
        self.rig.start_daemon()
        self.run_with_kills(True, 12)


class Process(WorkerCase):
    def test_holds_nothing_but_its_channels(self):
        self.rig.start_daemon()
        stray = os.open("/dev/zero", os.O_RDONLY)
        os.set_inheritable(stray, True)
        try:
            w = self.worker(bus=True)
        finally:
            os.close(stray)
        w.ask("queue", 1)
        fds = descriptors(w.pid)
        self.assertFalse([t for t in fds.values() if "zero" in t], fds)
        self.assertEqual(len([t for t in fds.values() if t.startswith("socket:")]), 2, fds)
        self.assertEqual((fds[0], fds[1]), ("/dev/null", "/dev/null"))

    def test_idle_does_nothing(self):
        self.rig.start_daemon()
        for bus in (False, True):
            w = self.worker(bus=bus)
            w.ask("run", 1, workflow=sampler(seed=int(bus)))

            def switches():
                with open("/proc/%d/status" % w.pid) as f:
                    return [line for line in f if "voluntary_ctxt" in line]

            def connections():
                with open("/proc/net/tcp") as f:
                    tcp = {"socket:[%s]" % line.split()[9] for line in f}
                return sum(name in tcp for name in descriptors(w.pid).values())
            wait_for(lambda: connections() == 0, "connections to be closed")

            def is_idle():
                before = switches()
                time.sleep(2)
                return switches() == before
            wait_for(is_idle, "two seconds without a wake-up")

    def test_ends(self):
        w = self.worker()
        w.send("end")
        self.assertEqual(w.reap(), 0)
        w = self.worker()
        w.request("run", 1, workflow=sampler(steps=100000))
        w.wait("output", 1)
        w.sock.close()
        self.assertEqual(w.reap(), 0)
        w = self.worker()
        w.kill(signal.SIGTERM)
        self.assertEqual(w.reap(), 0)

    def test_garbage_ends_it(self):
        for data in (b"\xff" * 64, chanlib.HEADER.pack(1 << 30, 3, 0, 1),
                     chanlib.HEADER.pack(0, 999, 0, 0)):
            w = self.worker()
            w.sock.sendall(data)
            self.assertEqual(w.reap(), 1)

    def test_torn_frame_never_happened(self):
        w = self.worker()
        request = json.dumps({"op": "submit", "params": {"workflow": sampler()}}).encode()
        w.sock.sendall(chanlib.HEADER.pack(len(request), chanlib.TYPES["request"], 0, 1) +
                       request[:-1])
        w.sock.close()
        self.assertEqual(w.reap(), 0)
        self.assertEqual(self.posts(), [])


if __name__ == "__main__":
    unittest.main()

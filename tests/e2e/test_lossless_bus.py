"""Nothing is lost when the bus breaks: each worker polls for its own prompts,
all of them together at a rate that ComfyUI bears, and goes back to events."""
import json
import os
import signal
import time
import unittest

import chanlib
import mcplib
from lossless import Case, sampler
from rig import wait_for

# As many processes of the sanitizers would take minutes.
SESSIONS = 80 if mcplib.SANITIZED else 200
PER_SESSION_S = 0.05  # link_http.c: 20 requests a second in all
JITTER = 0.1


class Polling(Case):
    """One worker, from events to polling and back."""

    def test_there_and_back(self):
        """The same call by events, by polling, by events: progress never
        backwards, one answer, and no polling once there are events again."""
        self.begin(poll_interval_ms=300)
        self.rig.pause(steps=2)
        run = self.start(sampler(steps=100)).executing()
        self.assertEqual(self.polled(), 0)
        for _ in range(2):
            self.end_daemon()
            self.until_asked("GET /queue", 3)
            mark = run.mark()
            # Running, and in the queue: its history is not asked for.
            self.assertEqual(self.asked("GET /history"), 0)
            self.start_daemon(poll_interval_ms=300)
            self.rig.pause(steps=3)
            run.steps(mark, "websocket")
        polled = self.polled()
        self.rig.resume()
        end = run.completed()
        self.assertEqual(end["progress_method"], "websocket")
        # The supervisor's own: a round, and the history after a gap.
        self.assertLessEqual(self.polled() - polled, 2)
        self.assertEqual(len(self.posts()), 1)
        self.assertEqual(run.stderr().count("no more polling"), 2)

    def test_interval_jitter_and_backoff(self):
        """Told by the supervisor how often; spread by a tenth; less and less
        often while ComfyUI doesn't answer, and at once again when it does."""
        self.begin(poll_interval_ms=200)
        w = chanlib.Worker(self.rig.sim_url, chanlib.connect(self.rig.socket), poll_ms=60000)
        self.addCleanup(w.close)
        w.request("run", 1, workflow=sampler(steps=100000))
        w.wait("output", 1)
        self.end_daemon()
        w.wait("want_bus")
        self.until_asked("GET /queue", 2)
        began, before = time.monotonic(), self.asked("GET /queue")
        self.until_asked("GET /queue", 10)
        rounds, took = self.asked("GET /queue") - before, time.monotonic() - began
        # Not the 60 s of its hello; 200 ms, less a tenth.
        self.assertLess(rounds, 2 + took / 0.2 / (1 - JITTER))
        self.rig.fault(fault="status", path="/queue", code=503, count=0)
        w.wait("log")
        began, before = time.monotonic(), self.asked("GET /queue")
        time.sleep(3)
        rounds, took = self.asked("GET /queue") - before, time.monotonic() - began
        # 1, 2, 4 s ... instead of five times a second.
        self.assertLess(rounds, 2 + took / 0.9)
        self.rig.fault(fault="clear")
        w.wait_for(lambda: any(b"answers again" in f.payload for f in w.of_type("log")), "its word")
        self.until_asked("GET /queue", 5)
        w.send("cancel", 1)
        self.assertEqual(w.response(1)["result"]["error"]["type"], "cancelled")

    def end_in_the_gap(self, run):
        """The supervisor is killed, and the prompt ends before its worker looks."""
        worker = self.worker_of(run)
        os.kill(worker, signal.SIGSTOP)
        try:
            self.end_daemon()
            self.rig.resume()
            wait_for(lambda: self.facts("end"), "its end")
        finally:
            os.kill(worker, signal.SIGCONT)

    def test_finished_in_the_gap(self):
        """It ended after the last event and before the first poll: found in
        history, reported as finished, with all that it made."""
        self.begin(poll_interval_ms=2000)
        self.rig.pause(steps=2)
        run = self.start(sampler(steps=20)).executing()
        self.end_in_the_gap(run)
        end = run.completed()
        self.assertEqual(end["progress_method"], "polling")
        self.assertEqual(len(self.posts()), 1)

    def test_failed_in_the_gap(self):
        self.begin(poll_interval_ms=2000)
        workflow = sampler(steps=20)
        workflow["5"] = {"class_type": "SimError", "inputs": {"message": "out of cheese", "type": "CheeseError",
                                                              "after": ["3", 0]}}
        workflow["9"]["inputs"]["images"] = ["5", 0]
        self.rig.pause(steps=2)
        run = self.start(workflow).executing()
        self.end_in_the_gap(run)
        self.assertIn("out of cheese", run.failed("CheeseError"))

    def test_no_event_twice(self):
        """What execute_workflow_stream returns has each event once, though the
        supervisor was killed and came back, twice, while it ran."""
        self.begin(poll_interval_ms=200)
        client = mcplib.Client(self.rig)
        client.initialize()
        workflow = sampler(steps=100)
        for i in range(10, 16):
            workflow[str(i)] = {"class_type": "SimSampler", "inputs": {"seed": i, "steps": 10, "step_ms": 20,
                                                                     "after": [str(i - 1 if i > 10 else 3), 0]}}
            workflow["o%d" % i] = {"class_type": "PreviewImage", "inputs": {"images": [str(i), 0]}}
        self.rig.pause(steps=1)
        call = client.call("execute_workflow_stream", {"workflow": workflow, "timeout_ms": 600000}, token="t")
        for count in (2, 4):
            # One step more each time that it looks.
            wait_for(lambda: len(client.progress("t")) >= count or self.rig.pause(steps=1), "progress")
            self.end_daemon()
            self.until_asked("GET /queue", 2)
            self.start_daemon(poll_interval_ms=200)
            wait_for(lambda: [s for s in self.sessions() if s["pid"]], "the session")
        self.rig.resume()
        result = client.answer(call)["result"]
        self.assertFalse(result["isError"], result)
        body = result["structuredContent"]
        self.assertEqual(body["status"], "completed")
        told = [json.dumps(e, sort_keys=True) for e in body["events"] if e["type"] in (
            "execution_start", "execution_cached", "executed", "execution_success", "executing", "progress")]
        self.assertTrue(told)
        self.assertEqual(sorted(told), sorted(set(told)))
        numbers = [p["progress"] for p in client.progress("t")]
        self.assertEqual(numbers, sorted(set(numbers)))
        self.assertEqual(client.end(), 0)
        self.assertEqual(len(self.posts()), 1)


class Crowd(Case):
    """Two hundred sessions at once."""

    def sample(self, path, seconds):
        """Requests within each half second or so, and how long that was."""
        counts, until = [], time.monotonic() + seconds
        last, began = self.asked(path), time.monotonic()
        since = began
        while time.monotonic() < until:
            time.sleep(0.5)
            count, now = self.asked(path), time.monotonic()
            counts.append((count - last, now - since))
            last, since = count, now
        return counts, time.monotonic() - began

    def test_bounded_rate(self):
        """The supervisor is gone: together they ask as often as 20 times a
        second, whatever their number, and never all at once."""
        self.begin(max_outstanding=SESSIONS)
        self.rig.pause()
        clients = [mcplib.Client(self.rig) for _ in range(SESSIONS)]
        for client in clients:
            client.initialize()
        calls = [c.call("execute_workflow_sync", {"workflow": sampler(steps=1, step_ms=1, seed=i),
                                                  "timeout_ms": 600000}) for i, c in enumerate(clients)]
        wait_for(lambda: len(self.facts("post")) == SESSIONS, "all to be posted")
        wait_for(lambda: all(s["in_flight"] == 1 for s in self.sessions()), "all to follow")
        self.end_daemon()
        self.until_asked("GET /queue")
        interval = max(1.5, SESSIONS * PER_SESSION_S)
        counts, took = self.sample("GET /queue", 1.5 * interval)
        rate = sum(n for n, _ in counts) / took / (SESSIONS / interval)
        # By the formula, within its jitter and the edges of the window; less on
        # a machine that doesn't get round to it, and then some more at once.
        self.assertGreater(rate, 0.5, counts)
        self.assertLess(rate, 1.3, counts)
        for n, seconds in counts:
            self.assertLess(n, SESSIONS / 4 + SESSIONS / interval * (seconds - 0.5), counts)
        self.assertEqual(self.asked("GET /history"), 0)
        self.start_daemon(max_outstanding=SESSIONS)
        wait_for(lambda: len([s for s in self.sessions() if s["pid"] and s["in_flight"]]) == SESSIONS,
                 "all to be back")
        before = self.asked("GET /queue")
        time.sleep(2)
        self.assertLessEqual(self.asked("GET /queue") - before, 2)
        self.rig.resume()
        for client, call in zip(clients, calls):
            self.assertFalse(client.answer(call)["result"]["isError"])
            self.assertEqual(client.end(), 0)
        self.assertEqual(len(self.posts()), SESSIONS)


if __name__ == "__main__":
    unittest.main()

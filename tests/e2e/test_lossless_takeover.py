"""Nothing is lost when a worker, the zygote or the supervisor goes, whatever way
it goes: the keeper replays to a successor, what runs goes on, each request is
answered once, and the link to ComfyUI is not touched for it."""
import json
import os
import signal
import socket
import subprocess
import time
import unittest

import mcplib
import proclib
import rig
from lossless import FAULTS, Case, sampler
from proclib import descriptors, is_running, parent_of, stat_of
from rig import wait_for

# As many processes of the sanitizers would take minutes.
SESSIONS = 40 if mcplib.SANITIZED else 100
SILENCE_S = 10  # supervisor.h: without an event while a prompt runs


class Workers(Case):
    """A worker dies by any signal at any moment, or is replaced."""

    def test_any_signal(self):
        """Each, in the middle of a run; the supervisor and the link live on."""
        self.begin(max_outstanding=100)
        deadly = [s for s in range(1, signal.NSIG) if s in (
            signal.SIGKILL, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
            signal.SIGVTALRM, signal.SIGPROF, signal.SIGXCPU, signal.SIGXFSZ, signal.SIGTRAP, signal.SIGIO,
            signal.SIGSTKFLT, signal.SIGPWR, *FAULTS)]
        self.rig.pause()
        runs = [(sig, self.start(sampler(steps=2, seed=sig))) for sig in deadly]
        for _, run in runs:
            run.wait(lambda l: True, "its prompt id")
        pids = {run.pid: self.worker_of(run) for _, run in runs}
        for sig, run in runs:
            os.kill(pids[run.pid], sig)
        for _, run in runs:
            self.successor_of(run, pids[run.pid])
        self.rig.resume()
        for _, run in runs:
            run.completed()
        self.assertEqual(len(self.posts()), len(deadly))
        self.assertEqual(self.upstream()["reconnects"], 0)

    def test_ignored_signals(self):
        """Ctrl-C and a closing terminal reach the whole group; they are the
        keeper's to judge."""
        self.begin()
        self.rig.pause(steps=2)
        run = self.start(sampler(steps=10)).executing()
        worker = self.worker_of(run)
        for sig in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            os.kill(worker, sig)
        mark = run.mark()
        self.rig.pause(steps=2)
        run.steps(mark)
        self.assertEqual(self.worker_of(run), worker)
        self.rig.resume()
        run.completed()

    def test_progress_goes_on_rising(self):
        """Killed again and again: one answer, in order, events throughout."""
        self.begin()
        began = time.monotonic()
        self.rig.pause(steps=2)
        run = self.start(sampler(steps=50)).executing()
        for _ in range(5):
            mark, worker = run.mark(), self.worker_of(run)
            os.kill(worker, signal.SIGKILL)
            self.successor_of(run, worker)
            self.rig.pause(steps=3)
            run.steps(mark, "websocket")
        self.rig.resume()
        self.assertEqual(run.completed()["progress_method"], "websocket")
        self.assertEqual(len(self.posts()), 1)
        # No worker asks; the supervisor does where nothing comes for so long.
        self.assertLessEqual(self.polled(), (time.monotonic() - began) // SILENCE_S)

    def test_own_worker_killed(self):
        """The same without a supervisor."""
        self.rig.start_sim()
        self.rig.pause(steps=2)
        run = self.start(sampler(steps=50), comfyui=True)
        run.steps(0, "polling")
        for _ in range(3):
            mark, worker = run.mark(), self.own_worker(run)
            os.kill(worker, signal.SIGKILL)
            self.gone(worker)
            wait_for(lambda: self.own_worker(run) != worker, "a successor")
            self.until_asked("GET /queue")
            self.assertGreaterEqual(run.mark(), mark)
        self.rig.resume()
        run.completed()
        self.assertEqual(len(self.posts()), 1)

    def test_replaced_a_hundred(self):
        """`restart-workers` with a hundred sessions, each in a call."""
        self.begin()
        clients = [mcplib.Client(self.rig) for _ in range(SESSIONS)]
        for client in clients:
            client.initialize()
        self.rig.pause()
        calls = [c.call("execute_workflow_sync", {"workflow": sampler(steps=2, step_ms=5, seed=i),
                                                  "timeout_ms": 600000}, token="t")
                 for i, c in enumerate(clients)]
        wait_for(lambda: self.rig.status()["prompts"]["active"] + self.rig.status()["prompts"]["queued"] == SESSIONS,
                 "all to be submitted")
        old = {s["id"]: s["pid"] for s in self.sessions()}
        self.assertEqual(len(old), SESSIONS)
        zygote = parent_of(next(iter(old.values())))
        self.assertEqual(self.rig.json("restart-workers"), {"workers": SESSIONS})
        pings = [c.ask("ping") for c in clients]
        for client, ping in zip(clients, pings):
            client.answer(ping)
        wait_for(lambda: all(s["pid"] not in (0, old[s["id"]]) for s in self.sessions()), "successors")
        found = self.sessions()
        self.assertEqual({s["id"] for s in found}, set(old))
        self.assertEqual({s["restarts"] for s in found}, {1})
        wait_for(lambda: {s["in_flight"] for s in self.sessions()} == {1}, "their calls to be theirs")
        self.assertNotIn(zygote, {parent_of(s["pid"]) for s in found})
        self.gone(zygote, "the old zygote's end")
        self.rig.resume()
        for client, call in zip(clients, calls):
            result = client.answer(call)["result"]
            self.assertFalse(result["isError"], result)
            self.assertEqual(json.loads(result["content"][0]["text"])["status"], "completed")
        for client in clients:
            self.assertEqual(client.end(), 0)
            self.assertTrue(all(len(r) == 1 for r in client.replies.values()))
            done = [p["progress"] for p in client.progress("t")]
            self.assertEqual(done, sorted(set(done)), "progress must rise")
        self.assertEqual(len(self.posts()), SESSIONS)
        status = self.rig.status()
        self.assertEqual(status["upstream"]["reconnects"], 0)
        self.assertEqual(status["counters"]["workers_failed"], 0)
        self.assertEqual(self.rig.stats()["websockets"]["total"], 1)

    def test_replaced_while_progress_is_told(self):
        self.begin()
        self.rig.pause(steps=2)
        run = self.start(sampler(steps=50)).executing()
        for _ in range(3):
            mark, session = run.mark(), self.session_of(run)
            self.rig.run("restart-workers", session["id"], check=0)
            self.successor_of(run, session["pid"])
            self.rig.pause(steps=3)
            run.steps(mark, "websocket")
        self.rig.resume()
        self.assertEqual(run.completed()["progress_method"], "websocket")
        self.assertEqual(len(self.posts()), 1)
        self.assertEqual(self.upstream()["reconnects"], 0)


class Blame(Case):
    """Faults are a request's doing if it was being handled, and only twice."""

    def session(self):
        client = mcplib.Client(self.rig)
        client.initialize()
        return client

    def kill(self, client, sig):
        worker = client.worker()
        os.kill(worker, sig)
        self.gone(worker)
        wait_for(lambda: [p for p in client.workers() if p != worker], "a successor")

    def test_twice_then_an_error(self):
        for sig in FAULTS:
            with self.subTest(sig):
                client = self.fault_twice(sig)
                # The session goes on, and so does what was asked later.
                self.assertEqual(client.request("ping")["result"], {})
                self.assertEqual(client.end(), 0)

    def fault_twice(self, sig):
        if not self.daemon:
            self.begin()
        client = self.session()
        call = client.call("execute_workflow_sync", {"workflow": sampler(steps=10000)}, token="t")
        client.wait(lambda: client.progress("t"), "progress")
        self.kill(client, sig)
        self.assertEqual(client.request("ping")["result"], {})
        self.kill(client, sig)
        error = client.answer(call)["error"]
        self.assertEqual(error["code"], -32603)
        self.assertIn("crashed the worker twice", error["message"])
        # Its prompt runs on and can be found.
        prompt = wait_for(lambda: client.tool("get_queue")["structuredContent"]["running"], "its prompt")[0]["prompt_id"]
        client.tool("cancel_execution", {"prompt_id": prompt})
        return client

    def test_killing_blames_nobody(self):
        self.begin()
        client = self.session()
        self.rig.pause(steps=2)
        call = client.call("execute_workflow_sync", {"workflow": sampler(steps=50)})
        for _ in range(4):
            self.kill(client, signal.SIGKILL)
        self.rig.resume()
        result = client.answer(call)["result"]
        self.assertFalse(result["isError"], result)
        self.assertEqual(len(self.posts()), 1)
        self.assertEqual(client.end(), 0)

    def test_what_is_asked_later_is_not_blamed(self):
        """The second crash is the first of what came in between."""
        self.begin()
        client = self.session()
        first = client.call("execute_workflow_sync", {"workflow": sampler(steps=10000)}, token="t")
        client.wait(lambda: client.progress("t"), "progress")
        self.kill(client, signal.SIGSEGV)
        second = client.call("execute_workflow_sync", {"workflow": sampler(steps=3, seed=2)})
        wait_for(lambda: self.rig.status()["prompts"]["active"] + self.rig.status()["prompts"]["queued"] == 2,
                 "the second to be submitted")
        self.kill(client, signal.SIGSEGV)
        self.assertIn("crashed the worker twice", client.answer(first)["error"]["message"])
        running = client.tool("get_queue")["structuredContent"]["running"][0]["prompt_id"]
        client.tool("cancel_execution", {"prompt_id": running})
        self.assertFalse(client.answer(second)["result"]["isError"])
        self.assertEqual(client.end(), 0)

    def test_run_command(self):
        """The same in the words of the command line."""
        self.begin()
        run = self.start(sampler(steps=10000))
        worker = 0
        for _ in range(2):
            worker = self.successor_of(run, worker)
            run.steps(run.mark())  # told by this one: it has the request
            os.kill(worker, signal.SIGABRT)
            self.gone(worker)
        self.assertEqual(run.process.wait(rig.PATIENCE_S), 1)
        run.reader.join(rig.PATIENCE_S)
        self.assertIn("crashed the worker twice", run.stderr() + json.dumps(run.lines[-1:]))


class Supervisor(Case):
    """The supervisor crashes, stops, is removed, is restarted, appears."""

    def client_id(self):
        return self.upstream()["client_id"]

    def test_killed_and_started_again(self):
        """Client id, sessions and prompts in flight are the same; what waited
        in the supervisor is posted once; nobody polls any more."""
        self.begin(max_outstanding=1, allow_users="*")
        client_id = self.client_id()
        self.rig.pause(steps=2)  # none is to end before all are back
        runs = [self.start(sampler(steps=150, seed=i)) for i in range(3)]
        wait_for(lambda: self.rig.status()["prompts"]["queued"] == 2, "two to wait")
        wait_for(lambda: any(l.get("current_node_progress") for r in runs for l in r.lines), "one to run")
        self.assertEqual(len(self.posts()), 1)
        before = {s["id"]: (s["pid"], s["keeper_pid"]) for s in self.sessions()}
        self.end_daemon()
        self.until_asked("GET /queue", 2)
        for worker, _ in before.values():
            self.assertTrue(is_running(worker))
        marks = [r.mark() for r in runs]
        self.start_daemon(max_outstanding=1, allow_users="*")
        wait_for(lambda: len(self.sessions()) == 3 and all(s["pid"] for s in self.sessions()), "the sessions")
        self.assertEqual({s["id"]: (s["pid"], s["keeper_pid"]) for s in self.sessions()}, before)
        self.assertEqual(self.client_id(), client_id)
        self.rig.resume()
        for run, mark in zip(runs, marks):
            run.steps(mark, "websocket")
        polled = self.polled()
        for run in runs:
            self.assertEqual(run.completed()["progress_method"], "websocket")
        # The supervisor reconciles once at its start; no worker asks.
        self.assertLessEqual(self.polled() - polled, 2)
        self.assertEqual(len(self.posts()), 3)

    def test_own_credentials(self):
        """A session is its user's after the restart as before."""
        if os.getuid() != 0:
            self.skipTest("needs root to pose as others")
        self.begin(allow_users="*")
        os.chmod(self.rig.dir, 0o777)
        path = self.rig.write("theirs.json", sampler(steps=50))
        self.rig.pause(steps=2)
        os.chmod(path, 0o644)
        for name in ("config", "xdg-state", "xdg-state/comfymux"):
            os.makedirs(self.rig.path(name), exist_ok=True)
            os.chmod(self.rig.path(name), 0o777)

        def run_as(uid):
            def become():
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            return become
        run = self.rig.start("comfymux", "run", path, "--json", "--socket", self.rig.socket,
                             preexec_fn=run_as(12001), stdout=-1)
        while b'"executing"' not in self.rig.read_line(run.stdout, "progress"):
            pass
        self.assertEqual(self.session_of(run)["uid"], 12001)
        worker = self.worker_of(run)
        self.end_daemon()
        self.start_daemon(allow_users="*")
        self.assertEqual(self.worker_of(run), worker)
        self.assertEqual(self.session_of(run)["uid"], 12001)
        self.rig.resume()
        out = run.stdout.read()
        run.stdout.close()
        self.assertEqual(run.wait(rig.PATIENCE_S), 0)
        self.assertEqual(json.loads(out.splitlines()[-1])["status"], "completed")

    def test_worker_dies_while_it_is_attached_again(self):
        """The keeper has asked the new supervisor for a bus for its worker, and
        has no answer yet: it gets a successor all the same."""
        self.begin()
        self.rig.pause(steps=2)
        run = self.start(sampler(steps=50)).executing()
        worker = self.worker_of(run)

        def sockets():
            return {name for name in descriptors(run.pid).values() if name.startswith("socket:")}
        before = sockets()
        os.kill(run.pid, signal.SIGSTOP)
        self.end_daemon()
        daemon = self.start_daemon()
        daemon.send_signal(signal.SIGSTOP)
        try:
            os.kill(run.pid, signal.SIGCONT)
            wait_for(lambda: len(sockets()) == len(before) and sockets() != before,
                     "the keeper to hear of the end and to ask the next one")
            os.kill(worker, signal.SIGKILL)
            wait_for(lambda: not is_running(worker), "the worker's end")
            wait_for(lambda: stat_of(run.pid)[0] == "S", "the keeper to hear of it")
        finally:
            daemon.send_signal(signal.SIGCONT)
        self.rig.resume()
        run.completed()
        self.assertEqual(len(self.posts()), 1)

    def test_ended_in_the_gap(self):
        """Finished while neither the supervisor nor the worker looked: told
        when it is known, as what it is."""
        self.begin()
        self.rig.pause(steps=2)
        runs = [self.start(sampler(steps=40)).executing()]
        runs.append(self.start({"1": {"class_type": "SimError", "inputs": {"message": "out of paint",
                                                                         "type": "PaintError"}},
                                "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0],
                                                                          "filename_prefix": "x"}}}))
        wait_for(lambda: len(self.posts()) == 2, "the POSTs")
        workers = [self.worker_of(run) for run in runs]
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        try:
            self.end_daemon()
            self.rig.resume()
            wait_for(lambda: len(self.facts("end")) == 2, "their ends")
            self.start_daemon()
        finally:
            for worker in workers:
                os.kill(worker, signal.SIGCONT)
        runs[0].completed()
        self.assertIn("out of paint", runs[1].failed("PaintError"))

    def test_stopped(self):
        """SIGTERM, and the service removed: a worker of the keeper's own."""
        self.begin(max_outstanding=10)
        self.rig.pause(steps=2)  # none is to end before its worker is replaced
        runs = [self.start(sampler(steps=50, seed=i)) for i in range(3)]
        wait_for(lambda: any(l.get("current_node_progress") for r in runs for l in r.lines), "one to run")
        workers = [self.worker_of(r) for r in runs]
        self.assertEqual(self.end_daemon(signal.SIGTERM), 0)
        for worker in workers:
            self.assertFalse(is_running(worker))
        for run in runs:
            self.own_worker(run)
        self.rig.resume()
        for run in runs:
            self.assertEqual(run.completed()["progress_method"], "polling")
        self.assertEqual(len(self.posts()), 3)

    def test_stopped_with_a_queue(self):
        """What waited in the supervisor is not posted by anybody else until
        it is back, within the time that a worker waits for it."""
        self.begin(max_outstanding=1, allow_users="*")
        self.rig.pause(steps=2)
        runs = [self.start(sampler(steps=60, seed=i)) for i in range(3)]
        wait_for(lambda: self.rig.status()["prompts"]["queued"] == 2, "two to wait")
        self.assertEqual(self.end_daemon(signal.SIGTERM), 0)
        for run in runs:
            self.own_worker(run)
        self.rig.resume()
        self.start_daemon(max_outstanding=1)
        for run in runs:
            run.completed()
        self.assertEqual(len(self.posts()), 3)

    def test_stopped_for_a_restart(self):
        """SIGUSR2 leaves the workers alive; they are attached again."""
        self.begin()
        self.rig.pause(steps=2)
        runs = [self.start(sampler(steps=50, seed=i)) for i in range(3)]
        wait_for(lambda: any(l.get("current_node_progress") for r in runs for l in r.lines), "one to run")
        before = {r.pid: self.session_of(r) for r in runs}
        self.assertEqual(self.end_daemon(signal.SIGUSR2), 0)
        for session in before.values():
            self.assertTrue(is_running(session["pid"]))
        self.start_daemon()
        for run in runs:
            after = self.session_of(run)
            self.assertEqual((after["id"], after["pid"]), (before[run.pid]["id"], before[run.pid]["pid"]))
        # Nobody's child any more, they can still be replaced.
        self.assertEqual(self.rig.json("restart-workers"), {"workers": 3})
        for run in runs:
            self.successor_of(run, before[run.pid]["pid"])
        self.rig.resume()
        for run in runs:
            self.assertEqual(run.completed()["progress_method"], "websocket")
        self.assertEqual(len(self.posts()), 3)

    def test_appears(self):
        """A worker of the keeper's own gives way to a forked one, in the middle
        of a run."""
        self.rig.start_sim()
        self.rig.pause(steps=2)
        runs = [self.start(sampler(steps=50, seed=i), comfyui=True) for i in range(2)]
        for run in runs:
            run.wait(lambda l: l["method"] == "polling", "polling")
        wait_for(lambda: len(self.posts()) == 2, "the POSTs")
        own = [self.own_worker(run) for run in runs]
        marks = [r.mark() for r in runs]
        self.start_daemon()
        for run, worker, mark in zip(runs, own, marks):
            self.gone(worker)
            forked = self.successor_of(run, worker)
            self.assertNotEqual(parent_of(forked), run.pid)
        self.rig.resume()
        for run in runs:
            run.completed()
        self.assertEqual(len(self.posts()), 2)

    def submit_and_kill(self, *args):
        """`comfymux submit` whose supervisor is killed when it has the prompt
        in its store and has said nothing yet."""
        self.begin()
        self.rig.fault(fault="delay", path="/prompt", method="POST", ms=60000)
        path = self.rig.write("wf.json", sampler(steps=3))
        with open(self.rig.path("submit.err"), "wb") as err:
            submit = self.rig.start("comfymux", "submit", path, "--socket", self.rig.socket, *args,
                                    stdout=subprocess.PIPE, stderr=err)
        self.addCleanup(submit.stdout.close)
        wait_for(self.posts, "the POST")
        self.end_daemon()
        self.rig.fault(fault="clear")
        return submit

    def test_killed_before_it_answers_a_submit(self):
        """It is asked again, and says what it said to nobody."""
        submit = self.submit_and_kill()
        self.start_daemon()
        self.assertEqual(submit.wait(rig.PATIENCE_S), 0)
        prompt_id = submit.stdout.read().decode().strip()
        self.assertEqual(self.posts(), [prompt_id])
        self.assertEqual(self.rig.json("watch", prompt_id)["status"], "completed")

    def test_killed_for_good_before_it_answers_a_submit(self):
        """Nobody says that nothing was taken; the prompt can be asked for."""
        submit = self.submit_and_kill("--json")
        self.assertEqual(submit.wait(rig.PATIENCE_S), 5)
        told = json.loads(submit.stdout.read())
        self.assertEqual(self.posts(), [told["prompt_id"]])
        self.assertEqual(told["type"], "unreachable")
        self.assertIn("may have taken the prompt", told["message"])
        self.start_daemon()
        self.assertEqual(self.rig.json("watch", told["prompt_id"])["status"], "completed")

    def test_killed_before_it_hears_of_a_submit(self):
        """Connected, and gone before it has said hello: whoever is there now is
        asked, here ComfyUI itself."""
        self.rig.start_sim()
        self.rig.write("config/comfymux/comfymux.conf", "autostart = no\ncomfyui = %s\n" % self.rig.sim_url)
        with socket.socket(socket.AF_UNIX) as dying:
            dying.bind(self.rig.socket)
            dying.listen()
            path = self.rig.write("wf.json", sampler(steps=3))
            submit = self.rig.start("comfymux", "submit", path, "--socket", self.rig.socket,
                                    stdout=subprocess.PIPE)
            self.addCleanup(submit.stdout.close)
            dying.settimeout(rig.PATIENCE_S)
            dying.accept()[0].close()
        self.assertEqual(submit.wait(rig.PATIENCE_S), 0)
        self.assertEqual(self.posts(), [submit.stdout.read().decode().strip()])

    def held(self):
        """Two runs that wait in a supervisor, which is killed; one ComfyUI has."""
        self.begin(max_outstanding=1, allow_users="*")
        self.rig.pause(steps=2)  # one is to stay there
        runs = [self.start(sampler(steps=50, seed=i)) for i in range(3)]
        wait_for(lambda: self.rig.status()["prompts"]["queued"] == 2, "two to wait")
        posted = self.posts()
        waiting = [r for r in runs if r.wait(lambda l: True, "a line")["prompt_id"] not in posted]
        workers = [self.worker_of(r) for r in waiting]
        self.end_daemon()
        return waiting, workers

    def test_cancelled_while_it_is_away(self):
        """What a dead supervisor holds, ComfyUI doesn't know: whoever cancels
        it isn't told that it is gone, when it may run later."""
        waiting, _ = self.held()
        for run in waiting:
            os.kill(run.pid, signal.SIGINT)
        for run in waiting:
            self.assertIn("may still run", run.failed("cancelled", 3))

    def test_cancelled_until_it_is_back(self):
        """The supervisor comes back before the worker's patience ends."""
        waiting, workers = self.held()
        for run, worker in zip(waiting, workers):
            os.kill(worker, signal.SIGSTOP)
            os.kill(run.pid, signal.SIGINT)
        try:
            self.start_daemon(max_outstanding=1, allow_users="*")
        finally:
            for worker in workers:
                os.kill(worker, signal.SIGCONT)
        for run in waiting:
            self.assertNotIn("may still run", run.failed("cancelled", 3))
        self.rig.resume()
        wait_for(lambda: self.rig.status()["prompts"]["retained"] == 3, "all ends")
        self.assertEqual(len(self.posts()), 1)

    def test_killed_again_and_again(self):
        """With prompts in every state, and workers that die as well."""
        self.begin(max_outstanding=2, allow_users="*")
        self.rig.pause(steps=2)
        runs = [self.start(sampler(steps=40, seed=i)) for i in range(6)]
        wait_for(lambda: self.rig.status()["prompts"]["queued"] == 5, "five to wait")
        wait_for(lambda: len(self.posts()) == 2, "two to be posted")
        self.rig.resume()
        for round in range(4):
            wait_for(lambda: len(self.facts("end")) > round, "another end")
            for session in self.sessions()[round % 2::2]:
                if session["pid"] > 0:
                    proclib.end(session["pid"])
            self.end_daemon()
            self.start_daemon(max_outstanding=2, allow_users="*")
        for run in runs:
            run.completed()
        self.assertEqual(len(self.posts()), 6)


if __name__ == "__main__":
    unittest.main()

"""Detached jobs: they live in the supervisor's store and go on whatever dies."""
import json
import os
import signal
import unittest

import rig
from muxlib import Client, Refusal
from rig import wait_for
from test_jobs import SEED, TAKE, JobCase, make


class Detached(JobCase):
    def detach(self, *args, check=0):
        done = self.rig.run(*args, "--detach", check=check)
        return done.stdout.strip()

    def jobs(self):
        return self.rig.json("jobs")["jobs"]

    def job(self, job):
        return next(j for j in self.jobs() if j["job"] == job)

    def over(self, job):
        wait_for(lambda: self.rig.can_connect() and self.job(job)["state"] == "over", "the job's end")
        return self.job(job)

    def attach(self, job, *args, check=0):
        return self.lines("attach", job, *args, check=check)

    def worker(self):
        return next((s["pid"] for s in self.rig.sessions() if s["kind"] in ("batch", "chain") and s["pid"]), None)

    def test_batch_goes_on_alone(self):
        self.sim_and_daemon()
        self.rig.write("w.json", make(seed=SEED))
        job = self.detach("batch", "w.json", "--sweep", "3.steps=1..4")
        self.assertRegex(job, r"^j\d+$")
        over = self.over(job)
        self.assertEqual((over["completed"], over["failed"], over["kind"]), (4, 0, "batch"))
        results = self.attach(job, "--download", "out")
        self.assertEqual([r["label"] for r in results], ["w.json 3.steps=%d" % i for i in range(1, 5)])
        self.assertEqual({r["method"] for r in results}, {"websocket"})
        self.assertEqual(len(os.listdir(self.rig.path("out"))), 4)
        self.assertEqual(len(self.executed()), 4)
        self.assertIn(SEED, json.dumps(self.facts("post")))
        wait_for(lambda: self.worker() is None, "the worker to leave")

    def test_chain(self):
        self.sim_and_daemon()
        self.rig.write("make.json", make())
        self.rig.write("c.json", json.dumps([
            {"workflow": "make.json"}, {"workflow": TAKE, "inputFrom": {"step": 0}, "outputTo": "image"}]))
        job = self.detach("chain", "c.json")
        results = self.attach(job)
        self.assertEqual(results[1]["handed"], results[0]["outputs"]["9"]["images"][0]["filename"] + " [output]")

    def test_attach_while_it_runs_and_leave(self):
        self.sim_and_daemon()
        self.rig.write("w.json", make(steps=30, step_ms=50))
        self.rig.pause(steps=5)
        job = self.detach("batch", "w.json", "--sweep", "3.seed=1..3", "--concurrency", "1")
        self.middle(lambda: self.job(job)["fraction"], 3)
        attached = self.spawn("attach", job, "--json")
        line = json.loads(self.rig.read_line(attached.stdout, "progress"))
        self.assertEqual(line["event"], "progress")
        self.rig.pause(steps=15)
        wait_for(lambda: json.loads(self.rig.read_line(attached.stdout, "progress"))["fraction"] > line["fraction"],
                 "progress")
        self.middle(lambda: self.job(job)["fraction"], 3)
        table = self.rig.run("jobs", check=0).stdout.splitlines()
        self.assertEqual(table[0].split()[-1], "%")
        self.assertIn(int(table[1].split()[-1]), range(1, 100))
        attached.send_signal(signal.SIGINT)
        self.end(attached, 3)
        self.rig.resume()
        self.attach(job)
        self.assertEqual(len(self.executed()), 3)

    def middle(self, look, items):
        """Waits until what it tells is between the ends of workflows."""
        def between():
            part = look() * items
            return abs(part - round(part)) > 0.01
        wait_for(between, "progress")

    def test_files_that_cannot_be_read(self):
        """They fail, said now and in the results; the others go on."""
        self.sim_and_daemon()
        self.rig.write("bad.json", "{")
        self.rig.write("w.json", make())
        done = self.rig.run("batch", "missing.json", "w.json", "bad.json", "--detach", check=0)
        for name in ("missing.json", "bad.json"):
            self.assertIn("comfymux: %s will fail: " % name, done.stderr)
        results = self.attach(done.stdout.strip(), check=6)
        self.assertEqual([r["status"] for r in results], ["failed", "completed", "failed"])
        self.assertIn("missing.json", results[0]["error"]["message"])
        self.assertEqual({r["error"]["type"] for r in results if "error" in r and r["error"]}, {"invalid"})
        self.rig.write("c.json", json.dumps(
            [{"workflow": "w.json"}, {"workflow": "missing.json"}, {"workflow": json.loads(make(seed=7))}]))
        for option, last in ((None, "failed"), ("--keep-going", "completed")):
            job = self.detach("chain", "c.json", *([option] if option else []))
            results = self.attach(job, check=6)
            self.assertEqual([r["status"] for r in results], ["completed", "failed", last])
            self.assertIn("missing.json", results[1]["error"]["message"])

    def test_events_of_a_job(self):
        """The state first, then what changes, never backwards, and an end."""
        self.sim_and_daemon()
        c = Client(self.rig.socket)
        self.addCleanup(c.close)
        self.rig.write("w.json", make(steps=30, step_ms=30))
        self.rig.pause(steps=5)
        job = self.detach("batch", "w.json", "--sweep", "3.seed=1..2", "--concurrency", "1")
        other = self.detach("batch", "w.json", "--set", "3.seed=9")
        c.ask("subscribe", job=job)
        some = c.wait(lambda e: 0 < e["data"]["fraction"] < 0.5, "progress")["data"]["fraction"]
        self.rig.pause(steps=10)
        c.wait(lambda e: some < e["data"]["fraction"] < 0.5, "more of it")
        self.rig.resume()
        c.wait(lambda e: e["data"]["state"] == "over", "the end")
        told = [e["data"] for e in c.events]
        self.assertEqual({e["event"] for e in c.events}, {"job"})
        self.assertEqual({t["job"] for t in told}, {job})
        fractions = [t["fraction"] for t in told]
        self.assertEqual(fractions, sorted(fractions))
        self.assertEqual(fractions[-1], 1)
        # By far more than the two workflows.
        self.assertGreater(len({f for f in fractions if 0 < f < 0.5}), 1, fractions)
        self.assertEqual([told[-1][k] for k in ("completed", "failed")], [2, 0])
        self.over(other)
        c.ask("ping")
        self.assertEqual(len(c.events), len(told))
        # One that is over tells so, once.
        c.ask("subscribe", job=job)
        c.wait(lambda e: e["event"] == "job", "the state", start=len(told))
        self.assertEqual(c.refused("subscribe", job="j999")["type"], "not_found")
        self.assertEqual(c.refused("unsubscribe", job="j999")["type"], "not_found")

    def test_events_of_a_job_end_when_unsubscribed(self):
        self.sim_and_daemon()
        c = Client(self.rig.socket)
        self.addCleanup(c.close)
        self.rig.write("w.json", make(steps=10, step_ms=20))
        self.rig.pause(steps=5)
        job = self.detach("batch", "w.json")
        c.ask("subscribe", job=job)
        c.ask("unsubscribe", job=job)
        told = len(c.events)
        self.rig.resume()
        self.over(job)
        c.ask("ping")
        self.assertEqual(len(c.events), told)

    def test_cancel(self):
        self.sim_and_daemon()
        self.rig.write("w.json", make(steps=1000, step_ms=50))
        job = self.detach("batch", "w.json", "--sweep", "3.seed=1..4", "--set", "3.steps=1000")
        wait_for(lambda: len(self.facts("post")) >= 2, "prompts")
        self.assertEqual(self.rig.run("cancel", job, check=0).stdout.strip(), "cancelling")
        over = self.over(job)
        self.assertEqual((over["completed"], over["failed"]), (0, 4))
        results = self.attach(job, check=3)
        self.assertEqual({r["error"]["type"] for r in results}, {"cancelled"})
        self.assertLessEqual(len(self.facts("post")), 3)
        wait_for(lambda: not any(self.rig.stats()["queue"][k] for k in ("running", "pending")), "an empty queue")
        self.assertEqual(self.rig.run("cancel", job, check=0).stdout.strip(), "over")

    def test_worker_killed_again_and_again(self):
        self.sim_and_daemon()
        self.rig.write("w.json", make(steps=6, step_ms=25))
        self.rig.pause(starts=1)
        job = self.detach("batch", "w.json", "--sweep", "3.seed=1..10")
        killed = set()
        for count in (1, 4, 7):
            self.begun(count)
            pid = wait_for(lambda: (p := self.worker()) not in killed and p, "a worker")
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
            self.rig.pause(starts=3)
        self.begun(10)
        self.rig.resume()
        self.attach(job)
        self.assertEqual(len(self.executed()), 10)

    def test_supervisor_killed_in_the_middle(self):
        self.rig.start_sim()
        daemon = self.rig.start_daemon()
        self.rig.write("w.json", make(steps=8, step_ms=25))
        self.rig.pause(starts=2)
        job = self.detach("batch", "w.json", "--sweep", "3.seed=1..10")
        for count in (2, 6):
            self.begun(count)
            daemon.kill()
            daemon.wait()
            daemon = self.rig.start_daemon()
            self.rig.pause(starts=4)
        self.begun(10)
        self.rig.resume()
        over = self.over(job)
        self.assertEqual((over["completed"], over["failed"]), (10, 0))
        self.assertEqual(len(self.executed()), 10)

    def test_all_killed_at_once_in_a_chain(self):
        """As a reboot would: nothing of ours is left but the state directory."""
        self.rig.start_sim()
        daemon = self.rig.start_daemon()
        slow = json.loads(make(steps=10, step_ms=40))
        self.rig.write("c.json", json.dumps([
            {"workflow": slow}, {"workflow": TAKE, "inputFrom": {"step": 0}, "outputTo": "image"}]))
        self.rig.pause(starts=1)
        job = self.detach("chain", "c.json")
        self.begun(1)
        worker = wait_for(self.worker, "its worker")
        # Neither sees the other's end.
        daemon.send_signal(signal.SIGSTOP)
        os.kill(worker, signal.SIGKILL)
        daemon.kill()
        daemon.wait()
        self.rig.start_daemon()
        self.rig.resume()
        results = self.attach(job)
        self.assertEqual([r["status"] for r in results], ["completed"] * 2)
        self.assertEqual(len(self.executed()), 2)

    def test_orderly_stop_and_start(self):
        self.rig.start_sim()
        daemon = self.rig.start_daemon()
        self.rig.write("w.json", make(steps=8, step_ms=25))
        self.rig.pause(starts=2)
        job = self.detach("batch", "w.json", "--sweep", "3.seed=1..6")
        self.begun(2)
        daemon.send_signal(signal.SIGTERM)
        self.assertEqual(daemon.wait(rig.PATIENCE_S), 0)
        self.rig.start_daemon()
        self.rig.resume()
        self.attach(job)
        self.assertEqual(len(self.executed()), 6)

    def test_what_is_not_there(self):
        self.sim_and_daemon()
        for command in ("attach", "cancel"):
            done = self.rig.run(command, "j77", check=1)
            self.assertIn("no such job", done.stderr)
        self.rig.write("bad.json", "{")
        self.rig.write("w.json", make())
        self.rig.run("batch", "missing.json", "bad.json", "--detach", check=2)
        self.rig.run("batch", "w.json", "--concurrency", "0", "--detach", check=2)
        self.assertEqual(self.jobs(), [])

    def test_bounds_on_the_socket(self):
        self.sim_and_daemon()
        c = Client(self.rig.socket)
        self.addCleanup(c.close)
        for kind, total in (("batch", 0), ("batch", 10001), ("chain", 65), ("run", 1)):
            self.assertEqual(c.refused("job_create", kind=kind, total=total)["type"], "invalid")
        job = c.ask("job_create", kind="batch", total=2)["job"]
        self.assertEqual(c.refused("job_start", job=job)["type"], "invalid")
        item = json.loads(make())
        c.ask("job_add", job=job, index=0, item=item)
        self.assertEqual(c.refused("job_add", job=job, index=0, item=item)["type"], "busy")
        self.assertEqual(c.refused("job_add", job=job, index=2, item=item)["type"], "invalid")
        for op in ("job_take", "job_end"):
            self.assertEqual(c.refused(op)["type"], "denied")
        c.close()
        wait_for(lambda: self.jobs() == [], "unfinished jobs to be dropped")


class Bounds(JobCase):
    """Of supervisor/jobs.h, each at its edge."""
    BYTES_MAX = 256 << 20  # JOBS_BYTES_MAX
    KEPT_MAX = 100  # JOBS_KEPT_MAX

    def client(self):
        self.sim_and_daemon()
        c = Client(self.rig.socket)
        self.addCleanup(c.close)
        return c

    def test_bytes_of_a_job(self):
        c = self.client()
        job = c.ask("job_create", kind="batch", total=40)["job"]
        index = iter(range(40))

        def add(size):
            """An item whose text is of so many bytes."""
            item = b'{"x":"' + b"y" * (size - 8) + b'"}'
            c.send_raw(b'{"op":"job_add","id":"a","job":"%s","index":%d,"item":%s}\n'
                       % (job.encode(), next(index), item))
            c.reply("a")
        piece = 15 << 20
        left = self.BYTES_MAX
        while left > piece:
            add(piece)
            left -= piece
        with self.assertRaises(Refusal) as caught:
            add(left + 1)
        self.assertEqual(caught.exception.error["type"], "limit")
        self.assertIn(str(self.BYTES_MAX), caught.exception.error["message"])
        add(left)
        with self.assertRaises(Refusal) as caught:
            add(8)
        self.assertEqual(caught.exception.error["type"], "limit")

    def test_ended_jobs_that_are_kept(self):
        c = self.client()

        def end_one():
            """Of a workflow that is none, so that ComfyUI has no part in it."""
            job = c.ask("job_create", kind="batch", total=1)["job"]
            c.ask("job_add", job=job, index=0, item={})
            c.ask("job_start", job=job)
            return job

        def all_over(count):
            jobs = c.ask("jobs")["jobs"]
            return len(jobs) == count and {j["state"] for j in jobs} == {"over"}
        jobs = [end_one() for _ in range(self.KEPT_MAX)]
        wait_for(lambda: all_over(self.KEPT_MAX), "the ends")
        self.assertEqual(c.ask("job", job=jobs[0])["failed"], 1)
        jobs.append(end_one())
        wait_for(lambda: all_over(self.KEPT_MAX), "the last one's end, and the first one to go")
        self.assertEqual(c.refused("job", job=jobs[0])["type"], "not_found")
        self.assertEqual([j["job"] for j in c.ask("jobs")["jobs"]], jobs[:0:-1])


if __name__ == "__main__":
    unittest.main()

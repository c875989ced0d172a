"""Batches and chains from the command line: real processes against comfysim."""
import json
import os
import signal
import subprocess
import unittest

import rig
from rig import wait_for

SEED = "18446744073709551615"


def make(seed="1", steps=3, step_ms=5, prefix="job"):
    """An image, as text: the seed's digits count."""
    return ('{"3": {"class_type": "SimSampler", "inputs": {"seed": %s, "steps": %d, "step_ms": %d}},'
            ' "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "%s"}}}'
            % (seed, steps, step_ms, prefix))


TAKE = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "nothing.png"}},
    "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "taken"}},
}


class JobCase(unittest.TestCase):
    def setUp(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)

    def sim_and_daemon(self):
        self.rig.start_sim()
        self.rig.start_daemon()

    def lines(self, *args, check=0, **kwargs):
        done = self.rig.run(*args, "--json", check=check, **kwargs)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        self.results = [line for line in lines if line["event"] == "result"]
        self.assertEqual([r["index"] for r in self.results], list(range(len(self.results))))
        self.stderr = done.stderr
        return self.results

    def begun(self, count):
        wait_for(lambda: len(self.facts("start")) == count, "the beginning of prompt %d" % count)

    def facts(self, name):
        return [f for f in self.rig.journal() if f["fact"] == name]

    def executed(self):
        """How often ComfyUI began each prompt."""
        ids = [f["prompt_id"] for f in self.facts("start")]
        self.assertEqual(len(ids), len(set(ids)), "a prompt ran twice")
        return ids

    def spawn(self, *args):
        return self.rig.start("comfymux", *args, "--socket", self.rig.socket,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def end(self, process, status):
        out, err = process.communicate(timeout=rig.PATIENCE_S)
        self.assertEqual(process.returncode, status, (out[-2000:], err[-2000:]))
        return out.decode(), err.decode()

    def session(self, kind):
        return next((s for s in self.rig.sessions() if s["kind"] == kind and s["pid"]), None)

    def worker_after(self, kind, killed):
        """The pid of the session's worker, once it isn't that one."""
        return wait_for(lambda: (s := self.session(kind)) and s["pid"] != killed and s["pid"], "a worker")


class Batch(JobCase):
    def test_results_in_input_order(self):
        self.sim_and_daemon()
        for i, steps in enumerate([9, 1, 5, 2, 1]):
            self.rig.write("w%d.json" % i, make(seed=i, steps=steps))
        before = self.rig.stats()["requests"].get("POST /prompt", 0)
        self.lines("batch", *["w%d.json" % i for i in range(5)], "--concurrency", "3")
        self.assertEqual([r["label"] for r in self.results], ["w%d.json" % i for i in range(5)])
        for r in self.results:
            self.assertEqual((r["status"], r["method"]), ("completed", "websocket"))
            self.assertEqual(list(r["outputs"]), ["9"])
        self.assertEqual(self.rig.stats()["requests"]["POST /prompt"] - before, 5)
        self.assertEqual(len(self.executed()), 5)

    def test_no_more_at_a_time(self):
        self.sim_and_daemon()
        self.rig.write("w.json", make(steps=5, step_ms=20))
        batch = self.spawn("batch", "w.json", "--sweep", "3.seed=1..6", "--concurrency", "2", "--json")
        most = 0
        while batch.poll() is None:
            most = max([most] + [s["in_flight"] for s in self.rig.sessions() if s["kind"] == "batch"])
        self.assertLessEqual(most, 2)
        self.end(batch, 0)

    def test_directory_lines_and_sweep(self):
        self.sim_and_daemon()
        self.rig.write("d/b10.json", make(seed=10))
        self.rig.write("d/b9.json", make(seed=SEED))
        self.rig.write("d/notes.txt", "no workflow")
        self.rig.write("l.jsonl", make(seed=1) + "\n\n" + '{"prompt": %s}' % make(seed=2) + "\n")
        self.lines("batch", "d", "l.jsonl", "--sweep", "3.steps=1,2")
        self.assertEqual([r["label"] for r in self.results], [
            "d/b9.json 3.steps=1", "d/b9.json 3.steps=2", "d/b10.json 3.steps=1", "d/b10.json 3.steps=2",
            "l.jsonl:1 3.steps=1", "l.jsonl:1 3.steps=2", "l.jsonl:3 3.steps=1", "l.jsonl:3 3.steps=2"])
        bodies = json.dumps(self.facts("post"))
        self.assertIn(SEED, bodies)

    def test_product_of_sweeps_with_set(self):
        self.sim_and_daemon()
        self.rig.write("w.json", make())
        self.lines("batch", "w.json", "--set", "3.step_ms=1", "--sweep", "3.seed=3..1",
                   "--sweep", '9.filename_prefix=["a","b"]')
        self.assertEqual([r["label"][len("w.json "):] for r in self.results], [
            '3.seed=%d 9.filename_prefix="%s"' % (s, p) for s in (3, 2, 1) for p in "ab"])
        self.assertTrue(self.results[1]["outputs"]["9"]["images"][0]["filename"].startswith("b_"))

    def test_bad_items_spare_the_others(self):
        self.sim_and_daemon()
        same = "11111111-1111-4111-8111-111111111111"
        self.rig.write("ok.json", make())
        self.rig.write("bad.json", '{"3": ')
        self.rig.write("refused.json", make().replace('"steps": 3', '"steps": "many"'))
        self.rig.write("l.jsonl", "".join('{"prompt": %s, "prompt_id": "%s"}\n' % (make(seed=i), same)
                                          for i in (5, 6)))
        results = self.lines("batch", "missing.json", "ok.json", "bad.json", "refused.json", "l.jsonl", check=6)
        self.assertEqual([r["status"] for r in results],
                         ["failed", "completed", "failed", "failed", "completed", "failed"])
        self.assertIn("missing.json", results[0]["error"]["message"])
        self.assertIsNone(results[0]["prompt_id"])
        self.assertEqual(results[3]["error"]["type"], "rejected")
        self.assertIn("node 3", results[3]["error"]["message"])
        self.assertEqual(results[4]["prompt_id"], same)
        self.assertIn("l.jsonl:1", results[5]["error"]["message"])
        self.assertEqual(len(self.executed()), 2)

    def test_bad_usage(self):
        self.rig.start_sim()
        self.rig.write("w.json", make())
        os.mkdir(self.rig.path("empty"))
        for args in (["w.json", "--concurrency", "0"], ["w.json", "--concurrency", "10000"], ["empty"],
                     ["w.json", "--sweep", "3.seed"], ["w.json", "--sweep", "3.seed=1..20000"],
                     ["w.json", "--sweep", "3.seed=1..200", "--sweep", "3.steps=1..200"], []):
            done = self.rig.run("batch", *args, comfyui=True, check=2)
            self.assertTrue(done.stderr, args)
        self.assertEqual(self.rig.stats()["requests"].get("POST /prompt", 0), 0)

    def test_stop_on_error(self):
        self.sim_and_daemon()
        self.rig.write("w.json", make())
        self.rig.write("bad.json", json.dumps({
            "3": {"class_type": "SimError", "inputs": {"message": "said no"}},
            "9": {"class_type": "PreviewAny", "inputs": {"source": ["3", 0]}}}))
        results = self.lines("batch", "w.json", "bad.json", "w.json", "w.json", "--concurrency", "1",
                             "--stop-on-error", check=6)
        self.assertEqual([r["status"] for r in results], ["completed", "failed", "failed", "failed"])
        self.assertIn("an earlier workflow failed", results[3]["error"]["message"])
        self.assertEqual(len(self.executed()), 2)

    def test_all_unreachable(self):
        self.rig.sim_url = "http://127.0.0.1:%d" % rig.refusing_port()
        self.rig.write("w.json", make())
        self.lines("batch", "w.json", "w.json", check=5, comfyui=True)
        self.assertEqual({r["error"]["type"] for r in self.results}, {"unreachable"})

    def test_timeout_is_of_each(self):
        self.sim_and_daemon()
        self.rig.write("w.json", make())
        self.rig.write("long.json", make(steps=1000, step_ms=100))
        results = self.lines("batch", "w.json", "long.json", "--timeout", "5", check=6)
        self.assertEqual(results[1]["error"]["type"], "timeout")
        self.rig.run("cancel", results[1]["prompt_id"], check=0)

    def test_interrupt_cancels_all(self):
        self.sim_and_daemon()
        self.rig.write("w.json", make(steps=1000, step_ms=50))
        batch = self.spawn("batch", "w.json", "--sweep", "3.seed=1..5", "--concurrency", "2", "--json")
        wait_for(lambda: len(self.facts("post")) == 2, "two prompts")
        batch.send_signal(signal.SIGINT)
        out, err = self.end(batch, 3)
        results = [json.loads(line) for line in out.splitlines()]
        results = [r for r in results if r["event"] == "result"]
        self.assertEqual({r["error"]["type"] for r in results}, {"cancelled"})
        self.assertEqual(len(results), 5)
        wait_for(lambda: self.rig.stats()["queue"]["running"] + self.rig.stats()["queue"]["pending"] == 0,
                 "an empty queue")

    def test_lost_ones_are_submitted_again(self):
        self.sim_and_daemon()
        self.rig.write("w.json", make(steps=20, step_ms=50))
        self.rig.pause(steps=5)
        batch = self.spawn("batch", "w.json", "--sweep", "3.seed=1..2", "--json")
        wait_for(lambda: len(self.facts("post")) == 2, "two prompts")
        self.begun(1)
        self.rig.fault(fault="restart", down_ms=200)
        wait_for(self.forgot, "ComfyUI to be back")
        self.rig.resume()
        out, err = self.end(batch, 0)
        results = [r for r in map(json.loads, out.splitlines()) if r["event"] == "result"]
        self.assertEqual([r["status"] for r in results], ["completed"] * 2)
        self.assertEqual([r["resubmits"] for r in results], [1, 1])
        self.assertEqual(err.count("submitting it again"), 2)

    def forgot(self):
        try:
            return self.facts("forgot")
        except OSError:
            return None

    def test_worker_killed_in_the_middle(self):
        self.sim_and_daemon()
        self.rig.write("w.json", make(steps=6, step_ms=25))
        self.rig.pause(starts=2)
        batch = self.spawn("batch", "w.json", "--sweep", "3.seed=1..12", "--json")
        killed = None
        for count in (2, 6):
            self.begun(count)
            killed = self.worker_after("batch", killed)
            os.kill(killed, signal.SIGKILL)
            self.rig.pause(starts=4)
        self.begun(10)
        self.rig.resume()
        out, err = self.end(batch, 0)
        self.assertEqual(len(self.executed()), 12)

    def test_names_stay_in_the_directory(self):
        self.sim_and_daemon()
        self.rig.write("w.json", json.dumps({
            "3": {"class_type": "SimSampler", "inputs": {"seed": 1, "steps": 1, "step_ms": 1}},
            "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "in/side"}},
            "5": {"class_type": "SimOutput", "inputs": {"images": ["3", 0], "key": "audio", "json": json.dumps(
                {"filename": "../../escape.png", "subfolder": "..", "type": "output"})}}}))
        result = self.lines("batch", "w.json", "--download", "out", check=6)[0]
        files = {f["filename"]: f for f in result["files"]}
        self.assertEqual(len(files), 2)
        self.assertIn("error", files["../../escape.png"])
        self.assertEqual(os.listdir(self.rig.path("out")), ["side_00001_.png"])

    def test_plain_lines(self):
        self.sim_and_daemon()
        self.rig.write("w.json", make())
        done = self.rig.run("batch", "w.json", "w.json", check=0)
        self.assertIn("[1/2] w.json: completed in ", done.stdout)
        self.assertIn("2 of 2 workflows completed in ", done.stdout)

    def test_alone(self):
        self.rig.start_sim()
        self.rig.write("w.json", make())
        self.lines("batch", "w.json", "--sweep", "3.seed=1..3", comfyui=True)
        self.assertEqual({r["method"] for r in self.results}, {"polling"})
        self.assertEqual(len(self.executed()), 3)


class Chain(JobCase):
    def chain(self, *steps, **more):
        self.rig.write("c.json", json.dumps(dict(steps=list(steps), **more)))

    def test_three_steps_by_reference(self):
        self.sim_and_daemon()
        self.rig.write("make.json", make(seed=SEED))
        self.chain({"workflow": "make.json", "params": {"3.steps": 2}},
                   {"workflow": TAKE, "inputFrom": {"step": 0, "outputNode": "9", "outputIndex": 0},
                    "outputTo": "image"},
                   {"workflow": TAKE, "inputFrom": {"step": 1}, "outputTo": "1.image"})
        results = self.lines("chain", "c.json")
        self.assertEqual([r["status"] for r in results], ["completed"] * 3)
        for before, after in zip(results, results[1:]):
            name = before["outputs"]["9"]["images"][0]["filename"]
            self.assertEqual(after["handed"], name + " [output]")
        requests = {k: v for k, v in self.rig.stats()["requests"].items() if "/ws" not in k}
        self.assertEqual(requests, {"POST /prompt": 3})
        self.assertIn(SEED, json.dumps(self.facts("post")))

    def test_fetched_and_uploaded_where_it_must_be(self):
        self.sim_and_daemon()
        other = {"7": {"class_type": "SimText", "inputs": {"text": "a custom loader"}}}
        self.chain({"workflow": json.loads(make())},
                   {"workflow": other, "inputFrom": {"step": 0}, "outputTo": "7.text"})
        results = self.lines("chain", "c.json")
        name = results[0]["outputs"]["9"]["images"][0]["filename"]
        self.assertEqual(results[1]["outputs"]["7"]["text"], [name])
        self.assertEqual(results[1]["handed"], name)
        requests = self.rig.stats()["requests"]
        self.assertEqual((requests["GET /view"], requests["POST /upload/image"]), (1, 1))

    def test_faulty_steps_submit_nothing(self):
        self.sim_and_daemon()
        first = {"workflow": json.loads(make())}
        for step, says in (({"inputFrom": {"step": 1}, "outputTo": "image"}, "does not come before"),
                           ({"inputFrom": {"step": 7}, "outputTo": "image"}, "the chain has 2"),
                           ({"inputFrom": {"step": 0}, "outputTo": "5.image"}, "no node"),
                           ({"params": {"77.x": 1}}, "no node")):
            self.chain(first, dict(workflow=TAKE, **step))
            done = self.rig.run("chain", "c.json", "--json")
            results = [r for r in map(json.loads, done.stdout.splitlines()) if r["event"] == "result"]
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(says, results[1]["error"]["message"])
        self.assertEqual(self.facts("post"), [])

    def test_no_chain_at_all(self):
        self.rig.start_sim()
        for text in ("[]", "{}", "7", "[", '[{"workflow": "missing.json"}]'):
            self.rig.write("c.json", text)
            self.rig.run("chain", "c.json", comfyui=True, check=2)
        self.rig.run("chain", "missing.json", comfyui=True, check=2)

    def test_a_file_that_cannot_be_read_fails_the_step_alone(self):
        self.sim_and_daemon()
        self.rig.write("broken.json", '{"3": ')
        self.rig.write("empty.json", "")
        os.mkdir(self.rig.path("dir.json"))
        unread = ["missing.json", "broken.json", "empty.json", "dir.json", "x" * 5000]
        first, last = {"workflow": json.loads(make())}, {"workflow": json.loads(make(seed=2))}
        self.chain(first, *({"workflow": name} for name in unread),
                   {"workflow": TAKE, "inputFrom": {"step": 1}, "outputTo": "image"}, last)
        results = self.lines("chain", "c.json", "--keep-going", check=6)
        self.assertEqual([r["status"] for r in results], ["completed"] + ["failed"] * 6 + ["completed"])
        for name, r in zip(unread, results[1:]):
            self.assertEqual((r["error"]["type"], r["prompt_id"]), ("invalid", None))
            self.assertIn(name if len(name) < 20 else "too long", r["error"]["message"])
        self.assertIn("step 1 did not complete", results[6]["error"]["message"])
        # As after any failure: what comes before it runs, the rest doesn't.
        before = len(self.facts("post"))
        self.chain(first, {"workflow": "missing.json"}, last)
        results = self.lines("chain", "c.json", check=6)
        self.assertEqual([r["status"] for r in results], ["completed", "failed", "failed"])
        self.assertIn("missing.json", results[1]["error"]["message"])
        self.assertIn("an earlier step failed", results[2]["error"]["message"])
        self.assertEqual(len(self.facts("post")), before + 1)

    def test_a_bad_reference_is_told_before_a_file_is_missed(self):
        """That is the chain's fault, which spares the steps before it."""
        self.sim_and_daemon()
        self.chain({"workflow": json.loads(make())},
                   {"workflow": "missing.json", "inputFrom": {"step": 1}, "outputTo": "image"})
        results = self.lines("chain", "c.json", check=2)
        self.assertIn("does not come before", results[1]["error"]["message"])
        self.assertEqual(self.facts("post"), [])

    def test_missing_output_fails_the_step_alone(self):
        self.sim_and_daemon()
        self.chain({"workflow": json.loads(make())},
                   {"workflow": TAKE, "inputFrom": {"step": 0, "outputNode": "3"}, "outputTo": "image"},
                   {"workflow": TAKE, "inputFrom": {"step": 0, "outputIndex": 4}, "outputTo": "image"},
                   {"workflow": TAKE, "inputFrom": {"step": 1}, "outputTo": "image"},
                   {"workflow": TAKE, "inputFrom": {"step": 0}, "outputTo": "image"})
        results = self.lines("chain", "c.json", "--keep-going", check=6)
        self.assertEqual([r["status"] for r in results],
                         ["completed", "failed", "failed", "failed", "completed"])
        self.assertIn("nodes with images: 9", results[1]["error"]["message"])
        self.assertIn("gave 1 image", results[2]["error"]["message"])
        self.assertIn("did not complete", results[3]["error"]["message"])
        self.assertEqual(len(self.facts("post")), 2)

    def test_stops_after_a_failure(self):
        self.sim_and_daemon()
        bad = {"3": {"class_type": "SimError", "inputs": {"message": "said no"}},
               "9": {"class_type": "PreviewAny", "inputs": {"source": ["3", 0]}}}
        self.chain({"workflow": bad}, {"workflow": json.loads(make())})
        results = self.lines("chain", "c.json", check=1)
        self.assertIn("an earlier step failed", results[1]["error"]["message"])

    def test_worker_killed_in_each_step(self):
        self.sim_and_daemon()
        slow = json.loads(make(steps=10, step_ms=30))
        take = json.loads(json.dumps(TAKE))
        take["3"] = {"class_type": "SimLoad", "inputs": {"ms": 300, "after": ["2", 0]}}
        take["4"] = {"class_type": "SimText", "inputs": {"text": "done", "after": ["3", 0]}}
        self.chain({"workflow": slow},
                   {"workflow": take, "inputFrom": {"step": 0}, "outputTo": "image"},
                   {"workflow": take, "inputFrom": {"step": 1, "outputNode": "9"}, "outputTo": "image"})
        self.rig.pause(starts=1)
        chain = self.spawn("chain", "c.json", "--json")
        worker = self.worker_after("chain", None)
        for count in (1, 2, 3):
            self.begun(count)
            os.kill(worker, signal.SIGKILL)
            worker = self.worker_after("chain", worker)
            self.rig.pause(starts=1)
        out, err = self.end(chain, 0)
        results = [r for r in map(json.loads, out.splitlines()) if r["event"] == "result"]
        self.assertEqual([r["status"] for r in results], ["completed"] * 3)
        self.assertEqual(len(self.executed()), 3)

    def test_crashes_its_worker_twice(self):
        """Each step is told of all the same: which one it was, and that those behind it never began."""
        self.sim_and_daemon()
        self.chain({"workflow": json.loads(make(steps=3))},
                   {"workflow": json.loads(make(steps=10000, step_ms=20))},
                   {"workflow": TAKE, "inputFrom": {"step": 0}, "outputTo": "image"})
        chain = self.spawn("chain", "c.json", "--json")
        wait_for(lambda: len(self.facts("post")) == 2, "the second step")
        lines, pid = [], 0
        for _ in range(2):
            pid = self.worker_after("chain", pid)
            # What it follows it has been asked for.
            wait_for(lambda: (s := self.session("chain")) and s["pid"] == pid and s["in_flight"], "it to follow")
            while True:
                lines.append(json.loads(chain.stdout.readline()))
                if any(r["index"] == 1 for r in lines[-1].get("running", ())):
                    break
            os.kill(pid, signal.SIGSEGV)
        lines += map(json.loads, self.end(chain, 6)[0].splitlines())
        results = [r for r in lines if r["event"] == "result"]
        self.assertEqual([r["status"] for r in results], ["completed", "failed", "failed"])
        self.assertIn("crashed the worker twice", results[1]["error"]["message"])
        self.assertEqual([r["error"]["type"] for r in results[1:]], ["internal", "cancelled"])
        self.assertEqual((lines[-1]["event"], lines[-1]["failed"]), ("done", 2))


class Examples(JobCase):
    """Those of README, as they are."""

    def example(self, name):
        return os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "etc", "examples", name)

    def test_batch_and_chain(self):
        self.rig.start_sim("--speed", "50")
        self.rig.start_daemon()
        self.lines("batch", self.example("txt2img.json"), "--sweep", "3.seed=1..8", "--concurrency", "3")
        self.assertEqual(len(self.results), 8)
        self.lines("chain", self.example("chain.json"))
        self.assertEqual([r["status"] for r in self.results], ["completed"] * 3)


if __name__ == "__main__":
    unittest.main()

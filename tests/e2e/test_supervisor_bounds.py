"""What the supervisor must bear: bad input, crowds, slow readers, tenants that
must not see each other, and a place that is not fit to start in."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import threading
import time
import unittest
import uuid

from muxlib import PATIENCE, Case, Client, Refusal, binary, posts, push_fds
from simlib import sampler


class BadInput(Case):
    def test_lines(self):
        _, d = self.pair()
        c = d.client()
        deep = b'{"op":"ping","id":1,"x":' + b"[" * 10000 + b"]" * 10000 + b"}"
        rows = [
            (b"", None, "invalid"),
            (b"hello", None, "invalid"),
            (b"[]", None, "invalid"),
            (b"{}", None, "invalid"),
            (b'{"op":"ping"', None, "invalid"),
            (b'{"op":"ping","id":1} x', None, "invalid"),
            (b'{"op":"nonsense","id":5}', 5, "not_found"),
            (b'{"op":7,"id":6}', 6, "invalid"),
            (b'{"id":"a"}', "a", "invalid"),
            (b'{"op":"ping","id":1.5}', None, "invalid"),
            (b'{"op":"ping","id":null}', None, "invalid"),
            (b'{"op":"ping","id":"' + b"x" * 200 + b'"}', None, "invalid"),
            (b'{"op":"submit","id":7}', 7, "invalid"),
            (b'{"op":"submit","id":8,"workflow":[]}', 8, "invalid"),
            (b'{"op":"submit","id":9,"workflow":{},"hold":1}', 9, "invalid"),
            (b'{"op":"history","id":1,"limit":"x"}', 1, "invalid"),
            (b'{"op":"ping","id":1,"x":"\xff\xfe"}', None, "invalid"),
            (b'{"op":"ping","id":1,"x":"\xed\xa0\x80"}', None, "invalid"),
            (b'{"op":"ping","id":1,"x":"\\ud800"}', None, "invalid"),
            (b'{"op":"ping","id":1,"x":NaN}', None, "invalid"),
            (b"\x00\x01\x02", None, "invalid"),
            (deep, None, "invalid"),
            (b'{"op":"ping","id":2,"x":"' + b"y" * 5000 + b'"}', 2, "limit"),
        ]
        for line, request_id, kind in rows:
            c.send_raw(line + b"\n")
            reply = json.loads(c.read_line())
            self.assertFalse(reply["ok"], line[:60])
            self.assertEqual(reply["error"]["type"], kind, line[:60])
            self.assertEqual(reply.get("id"), request_id, line[:60])
        self.assertEqual(c.ask("ping"), {})
        self.assertEqual(d.counter("bad_requests"), len(rows))

    def test_hundred_megabytes_without_a_newline(self):
        _, d = self.pair()
        c = d.client()
        chunk = b"x" * (1 << 20)
        for _ in range(100):
            c.send_raw(chunk)
        c.send_raw(b"\n")
        reply = json.loads(c.read_line())
        self.assertEqual(reply["error"]["type"], "limit")
        self.assertEqual(c.ask("ping"), {})
        with open("/proc/%d/status" % d.proc.pid) as f:
            peak = [x for x in f if x.startswith("VmHWM")][0]
        if "SAN_OPTIONS" not in " ".join(os.environ):
            self.assertLess(int(peak.split()[1]), 200 << 10)

    def test_many_lines_at_once(self):
        _, d = self.pair()
        c, other = d.client(), d.client()
        n = 5000

        def send():
            c.send_raw(b"".join(b'{"op":"ping","id":%d}\n' % i
                                for i in range(n)))

        t = threading.Thread(target=send)
        t.start()
        # Others are served meanwhile.
        self.assertEqual(other.ask("ping"), {})
        got = [json.loads(c.read_line())["id"] for _ in range(n)]
        t.join()
        self.assertEqual(got, list(range(n)))

    def test_all_is_asked_before_anything_is_read(self):
        """More waits than a client may have, and answers that it doesn't take: what it may ask goes on
        when the waits end, though not all is written."""
        _, d = self.pair()
        c = d.client()
        asked = [c.request("submit", workflow=sampler(steps=1, step_ms=0, seed=n)) for n in range(1000)]
        for a in asked:
            self.assertIn("prompt_id", c.reply(a))

    def test_split_at_every_byte(self):
        _, d = self.pair()
        c = d.client()
        for b in b'{"op":"ping","id":"slowly"}\n':
            c.send_raw(bytes([b]))
        self.assertEqual(json.loads(c.read_line())["id"], "slowly")

    def test_pushed_descriptors(self):
        _, d = self.pair()
        c = d.client()
        before = len(os.listdir("/proc/%d/fd" % d.proc.pid))
        with open("/dev/null") as f:
            for i in range(50):
                try:
                    push_fds(c.sock, b'{"op":"ping","id":%d}\n' % i,
                             [f.fileno()] * 250)
                except PermissionError:
                    break  # this kernel keeps them out
                self.assertEqual(json.loads(c.read_line())["id"], i)
        c.close()
        c = d.client()
        self.assertEqual(c.ask("ping"), {})
        d.until(lambda: len(os.listdir("/proc/%d/fd" % d.proc.pid)) <=
                before + 2, "descriptors to go")

    def test_half_a_line_and_gone(self):
        _, d = self.pair()
        for data in (b"", b"{", b'{"op":"ping"}', b'{"op":"hello"}\n{"op":'):
            c = d.client(hello=False)
            c.send_raw(data)
            c.close()
        self.assertEqual(d.client().ask("ping"), {})
        d.until(lambda: d.status()["counters"]["connections"] <= 2,
                "connections to end")

    def test_answers_before_leaving(self):
        """`echo request | socat` gets its answer."""
        _, d = self.pair()
        c = d.client(hello=False)
        c.send_raw(b'{"op":"hello","id":1}\n{"op":"status","id":2}\n')
        c.sock.shutdown(socket.SHUT_WR)
        self.assertEqual(json.loads(c.read_line())["id"], 1)
        self.assertEqual(json.loads(c.read_line())["id"], 2)
        self.assertIsNone(c.read_line())


class Limits(Case):
    def test_too_many_clients(self):
        _, d = self.pair(config={"max_clients": 8})
        crowd = [d.client() for _ in range(8)]
        extra = d.client(hello=False)
        line = json.loads(extra.read_line())
        self.assertFalse(line["ok"])
        self.assertEqual(line["error"]["type"], "limit")
        self.assertIn("max_clients", line["error"]["message"])
        self.assertIsNone(extra.read_line())
        crowd.pop().close()
        d.until(lambda: self.can_talk(d), "a place to be free")

    def can_talk(self, d):
        c = Client(d.socket, hello=False)
        try:
            c.ask("hello")
            return True
        except (Refusal, EOFError, OSError, KeyError):
            return False
        finally:
            c.close()

    def test_descriptors_run_out(self):
        sim = self.sim()
        d = self.daemon(sim, wrapper=["prlimit", "--nofile=64:64"])
        crowd = []
        for _ in range(80):
            c = Client(d.socket, hello=False)
            crowd.append(c)
        # The ones inside are served, the others wait.
        self.assertEqual(crowd[0].ask("ping"), {})
        d.until(lambda: "accepting pauses" in d.log(), "the pause")
        for c in crowd:
            c.close()
        c = d.client()
        r = c.ask("submit", workflow=sampler(), subscribe=True)
        self.completed(c.finished(r["prompt_id"]))

    def test_too_many_prompts(self):
        sim, d = self.pair(config={"max_prompts": 100, "retain_prompts": 5})
        sim.fault("pause")
        c = d.client()
        requests = [c.request("submit", workflow=sampler(seed=i))
                    for i in range(101)]
        for r in requests[:100]:
            c.reply(r)
        with self.assertRaises(Refusal) as caught:
            c.reply(requests[100])
        self.assertEqual(caught.exception.type, "limit")
        self.assertIn("max_prompts", str(caught.exception))
        sim.http("POST", "/queue", {"clear": True})
        sim.fault("resume")
        d.until(lambda: d.status()["prompts"]["queued"] == 0, "ends")
        d.until(lambda: d.status()["prompts"]["retained"] == 5, "pruning")

    def test_slow_client(self):
        sim, d = self.pair(config={"client_queue_kb": 16})
        slow, fast = d.client(), d.client()
        sim.fault("pause")
        prompt_id = fast.ask("submit", workflow=sampler(),
                             subscribe=True)["prompt_id"]
        slow.ask("subscribe", prompt_id=prompt_id)
        # A flood of events that must be kept, which the slow one ignores.
        n = 6000
        sim.emit(kind="template", client_id=self.client_id(d), count=n,
                 rate_per_s=2000, prompt_ids=[prompt_id], template=json.dumps({
                     "type": "executed", "data": {
                         "node": "1", "display_node": "1",
                         "output": {"n": ["%SEQ%"], "x": ["x" * 100]},
                         "prompt_id": "%PROMPT_ID%"}}))
        fast.executed(n)
        self.assertGreater(d.counter("missed"), 0)
        sim.fault("resume")
        self.completed(fast.finished(prompt_id))
        self.assertEqual(d.counter("clients_shed"), 0)
        d.until(lambda: self.stored(d), "the end to be in the store alone")
        # Now it reads: a counted gap, and the state as it is.
        slow.wait(lambda e: e["progress"]["status"] == "completed", "the end")
        seen = [e for e in slow.events if e["event"] != "snapshot"]
        missed = sum(e["data"]["missed"] for e in slow.events
                     if e["event"] == "snapshot" and "data" in e)
        self.assertGreater(missed, 0)
        self.assertGreater(len(seen), 0)
        seqs = [e["seq"] for e in slow.events]
        self.assertEqual(seqs, sorted(seqs))
        # None is left unaccounted for.
        total = seqs[-1] - seqs[0]
        self.assertLessEqual(len(seen) + missed, total)
        self.assertGreaterEqual(len(seen) + missed,
                                total - d.counter("folded"))
        self.assertEqual(slow.ask("ping"), {})

    def stored(self, d):
        db = sqlite3.connect(os.path.join(d.state, "comfymux.db"))
        try:
            return db.execute("SELECT count(*) FROM prompt WHERE result"
                              " IS NOT NULL").fetchone()[0]
        except sqlite3.OperationalError:
            return 0  # it is busy
        finally:
            db.close()

    def client_id(self, d):
        return d.status()["upstream"]["client_id"]

    def test_events_fold_for_a_slow_client(self):
        sim, d = self.pair(config={"client_queue_kb": 1024})
        slow, fast = d.client(), d.client()
        sim.fault("pause")
        prompt_id = fast.ask("submit", workflow=sampler())["prompt_id"]
        slow.ask("subscribe", prompt_id=prompt_id)
        fast.ask("subscribe", prompt_id=prompt_id)
        sim.emit(kind="small", client_id=self.client_id(d), count=20000,
                 prompt_ids=[prompt_id])
        fast.wait(lambda e: e["event"] == "progress" and
                  e["data"]["value"] >= 19999, "the last step", 60)
        self.assertGreater(d.counter("folded"), 0)
        self.assertEqual(d.counter("missed"), 0)
        slow.wait(lambda e: e["event"] == "progress" and
                  e["data"]["value"] >= 19999, "the last step")
        self.assertLess(len(slow.events), 20000)
        sim.fault("resume")
        self.completed(slow.finished(prompt_id))


class Tenants(Case):
    """Several uids on one supervisor; needs root to pose as them."""

    def setUp(self):
        if os.geteuid() != 0:
            self.skipTest("needs root")

    def client_as(self, d, uid):
        os.chmod(d.dir, 0o755)
        os.seteuid(uid)
        try:
            return d.client()
        finally:
            os.seteuid(0)

    def test_nothing_of_one_reaches_another(self):
        sim, d = self.pair(shared=True)
        ann, bob, root = (self.client_as(d, u) for u in (12001, 12002, 0))
        self.assertIs(ann.hello["operator"], False)
        self.assertEqual(ann.hello["uid"], 12001)
        bob.ask("subscribe")
        root.ask("subscribe")
        sim.fault("pause")
        mine = ann.ask("submit", workflow=sampler(), subscribe=True)
        theirs = bob.ask("submit", workflow=sampler(seed=2))
        prompt_id = mine["prompt_id"]
        for op in ("progress", "cancel", "subscribe", "unsubscribe"):
            e = bob.refused(op, prompt_id=prompt_id)
            unknown = bob.refused(op, prompt_id=str(uuid.uuid4()))
            self.assertEqual(e, unknown)
        e = bob.refused("submit", workflow=sampler(), prompt_id=prompt_id)
        self.assertEqual(e["type"], "invalid")
        self.assertNotIn("12001", json.dumps(e))
        queue = bob.ask("queue")
        self.assertNotIn(prompt_id, json.dumps(queue))
        self.assertEqual(queue["others"], 1)
        self.assertEqual(len(root.ask("queue")["running"] +
                             root.ask("queue")["pending"]), 2)
        sim.fault("resume")
        self.completed(ann.finished(prompt_id))
        self.completed(bob.finished(theirs["prompt_id"]))
        root.finished(prompt_id)
        root.finished(theirs["prompt_id"])
        self.assertEqual([e for e in bob.events
                          if e.get("prompt_id") == prompt_id], [])
        self.assertNotIn(prompt_id, json.dumps(bob.ask("history")))
        self.assertEqual(bob.refused("progress", prompt_id=prompt_id)["type"],
                         "not_found")
        self.assertEqual(bob.refused("subscribe", prompt_id=prompt_id)["type"],
                         "not_found")
        self.assertEqual(len(root.ask("history")["prompts"]), 2)
        status = bob.ask("status")
        self.assertNotIn("client_id", status["upstream"])
        self.assertEqual(status["prompts"]["retained"], 1)
        self.assertEqual(status["counters"], {})
        self.assertEqual(ann.refused("reconnect")["type"], "denied")

    def test_client_id_is_no_tenants_business(self):
        _, d = self.pair(shared=True)
        ann = self.client_as(d, 12001)
        self.assertEqual(ann.ask("attach", kind="run")["comfyui"]
                         ["client_id"], "")
        bob = self.client_as(d, 12002)
        # Nor can a session be taken over.
        self.assertEqual(bob.ask("attach", kind="run", session="s1")
                         ["session"], "s2")
        self.assertEqual([s["id"] for s in ann.ask("status")["sessions"]],
                         ["s1"])

    def test_turns(self):
        sim, d = self.pair(shared=True, config={"max_outstanding": 2})
        sim.fault("pause")
        ann, bob = self.client_as(d, 12001), self.client_as(d, 12002)
        first = [ann.ask("submit", workflow=sampler(seed=i))["prompt_id"]
                 for i in range(6)]
        second = [bob.ask("submit", workflow=sampler(seed=10 + i),
                          subscribe=True)["prompt_id"] for i in range(3)]
        self.assertEqual(posts(sim), first[:2])
        # Refused later, when its turn comes: told as a failure.
        bad = sampler()
        bad["1"]["inputs"]["steps"] = "many"
        late = bob.ask("submit", workflow=bad, subscribe=True)
        self.assertEqual(late["status"], "queued")
        sim.fault("resume")
        d.until(lambda: d.status()["prompts"]["retained"] == 10, "ends")
        got = posts(sim)
        self.assertEqual([p for p in got if p in first], first)
        self.assertEqual([p for p in got if p in second], second)
        # Bob's third does not wait for all of Ann's.
        self.assertLess(got.index(second[2]), got.index(first[5]))
        self.failed(bob.finished(late["prompt_id"]), "rejected")

    def test_share_of_the_connections(self):
        _, d = self.pair(shared=True, config={"max_clients": 8})
        for _ in range(4):
            self.client_as(d, 12001)
        os.seteuid(12001)
        try:
            c = d.client(hello=False)
        finally:
            os.seteuid(0)
        self.assertEqual(json.loads(c.read_line())["error"]["type"], "limit")
        self.client_as(d, 12002)

    def test_own_socket_is_for_one(self):
        sim = self.sim()
        d = self.daemon(sim)
        self.assertEqual(os.stat(d.socket).st_mode & 0o777, 0o600)
        with self.assertRaises(PermissionError):
            self.client_as(d, 12001)
        sim.fault("pause")
        c = d.client()
        for i in range(5):
            c.ask("submit", workflow=sampler(seed=i))
        self.assertEqual(len(posts(sim)), 5)


class Starting(Case):
    def run_to_end(self, d, *more):
        p = subprocess.run(d.command(*more), stderr=subprocess.PIPE,
                           stdout=subprocess.PIPE, env=d.env, timeout=PATIENCE,
                           text=True)
        return p.returncode, p.stdout, p.stderr

    def idle(self, **kw):
        return self.daemon("http://127.0.0.1:1", start=False, **kw)

    def test_usage(self):
        d = self.idle()
        for args in (["--nonsense"], ["--socket"], ["--comfyui", "::"],
                     ["--comfyui", "http://u:p@h/"],
                     ["--log-level", "loud"], ["--config", "/nonexistent"]):
            p = subprocess.run([binary()] + args, stderr=subprocess.PIPE,
                               env=d.env, text=True)
            self.assertEqual(p.returncode, 2, args)
            self.assertEqual(p.stderr.count("\n"), 1, p.stderr)
            self.assertTrue(p.stderr.startswith("comfymuxd: "), p.stderr)

    def test_help_version_check(self):
        d = self.idle()
        p = subprocess.run([binary(), "--help"], stdout=subprocess.PIPE,
                           text=True, env=d.env)
        self.assertEqual(p.returncode, 0)
        self.assertIn("--ready-fd", p.stdout)
        p = subprocess.run([binary(), "--version"], stdout=subprocess.PIPE,
                           text=True, env=d.env)
        self.assertEqual(p.returncode, 0)
        self.assertTrue(p.stdout.startswith("comfymuxd "))
        self.assertEqual(self.run_to_end(d, "--check-config")[0], 0)
        d.configure({"poll_interval_ms": "x"})
        status, _, text = self.run_to_end(d, "--check-config")
        self.assertEqual(status, 2)
        self.assertIn("poll_interval_ms", text)
        d.configure({"operator_group": "no-such-group"})
        status, _, text = self.run_to_end(d, "--check-config")
        self.assertEqual(status, 2)
        self.assertIn("no-such-group", text)

    def test_second_one_on_the_same_state(self):
        sim, d = self.pair()
        other = self.daemon(sim, start=False)
        other.state = d.state
        status, _, text = self.run_to_end(other)
        self.assertEqual(status, 1)
        self.assertIn(d.state, text)
        self.assertIn(str(d.proc.pid), text)
        self.assertEqual(d.client().ask("ping"), {})

    def test_taken_socket(self):
        sim, d = self.pair()
        other = self.daemon(sim, start=False)
        other.socket = d.socket
        status, _, text = self.run_to_end(other)
        self.assertEqual(status, 1)
        self.assertIn(d.socket, text)
        # The one that serves it is still there.
        self.assertEqual(d.client().ask("ping"), {})

    def test_stale_socket_is_replaced(self):
        sim, d = self.pair()
        d.kill()
        self.assertTrue(os.path.exists(d.socket))
        d.start()
        self.assertEqual(d.client().ask("ping"), {})

    def test_socket_that_cannot_be(self):
        d = self.idle()
        for path in ("/x" * 80, os.path.join(d.dir, "no/such/dir/s"), d.dir,
                     "/proc/s", d.config):
            d.socket = path
            status, _, text = self.run_to_end(d)
            self.assertIn(status, (1, 2), path)
            self.assertEqual(text.count("comfymuxd: "), 1, text)
        self.assertTrue(os.path.exists(d.config))

    def test_damaged_database(self):
        sim, d = self.pair()
        c = d.client()
        r = c.ask("submit", workflow=sampler(), subscribe=True)
        c.finished(r["prompt_id"])
        d.stop()
        path = os.path.join(d.state, "comfymux.db")
        with open(path, "r+b") as f:
            f.write(b"garbage" * 1000)
        with open(path, "rb") as f:
            before = f.read()
        status, _, text = self.run_to_end(d)
        self.assertEqual(status, 1)
        self.assertIn(path, text)
        self.assertIn("move it away", text)
        with open(path, "rb") as f:
            self.assertEqual(f.read(), before)
        os.rename(path, path + ".bad")
        for tail in ("-wal", "-shm"):
            if os.path.exists(path + tail):
                os.unlink(path + tail)
        d.start()
        self.assertEqual(d.client().ask("history")["prompts"], [])

    def test_read_only_state(self):
        d = self.idle()
        for path in ("/proc/comfymux", "/sys/comfymux", "/dev/null/x"):
            d.state = path
            status, _, text = self.run_to_end(d)
            self.assertEqual(status, 1, text)
            self.assertIn(path[:9], text)

    def test_signals(self):
        for sig in (signal.SIGTERM, signal.SIGINT):
            sim, d = self.pair()
            c = d.client()
            c.ask("subscribe")
            r = c.ask("submit", workflow=sampler(steps=100, step_ms=50))
            c.event("progress", r["prompt_id"])
            os.kill(d.proc.pid, signal.SIGPIPE)
            self.assertEqual(c.ask("ping"), {})
            self.assertEqual(d.stop(sig), 0)
            c.wait_closed()
            self.assertFalse(os.path.exists(d.socket))
            self.assertFalse(os.path.exists(
                os.path.join(d.state, "comfymux.db-wal")))
            sim.wait_until(lambda s: s.stats()["websockets"]["open"] == 0)
            # The prompt runs on, and is found again.
            d.start()
            c = d.client()
            self.assertIn(c.ask("progress", prompt_id=r["prompt_id"])
                          ["status"], ("queued", "executing", "completed"))
            c.ask("cancel", prompt_id=r["prompt_id"])

    def test_reload(self):
        sim, d = self.pair(config={"log_level": "info"})
        d.configure({"log_level": "debug", "max_clients": 9,
                     "request_timeout_ms": 20000})
        d.proc.send_signal(signal.SIGHUP)
        d.until(lambda: "max_clients was changed and needs a restart" in d.log(), "reload")
        c = d.client()
        d.until(lambda: "debug comfymuxd" in d.log(), "debug lines")
        d.configure({"nonsense": 1})
        d.proc.send_signal(signal.SIGHUP)
        d.until(lambda: "stays as it was" in d.log(), "a refused reload")
        r = c.ask("submit", workflow=sampler(), subscribe=True)
        self.completed(c.finished(r["prompt_id"]))

    def test_autostarted_leaves_when_idle(self):
        sim = self.sim()
        sim.fault("pause")
        d = self.daemon(sim, "--autostarted", config={"idle_exit_s": 5},
                        connected=False)
        c = d.client()
        # Not while somebody is there ...
        time.sleep(6)
        r = c.ask("submit", workflow=sampler())
        d.wait_link("connected")
        c.close()
        # ... nor while something runs.
        time.sleep(6)
        self.assertIsNone(d.proc.poll())
        sim.fault("resume")
        self.assertEqual(d.proc.wait(PATIENCE), 0)
        self.assertTrue(sim.wait_history(r["prompt_id"]))
        d.proc = None
        self.assertFalse(os.path.exists(d.socket))

    def test_full_disk(self):
        """Writes fail from some size on; the supervisor lives on."""
        sim = self.sim()
        d = self.daemon(sim, wrapper=["prlimit", "--fsize=1000000"])
        c = d.client()
        r = c.ask("submit", workflow=sampler(), subscribe=True)
        self.completed(c.finished(r["prompt_id"]))
        big = sampler()
        big["1"]["_meta"] = {"title": "x" * (3 << 20)}
        e = c.refused("submit", workflow=big)
        self.assertEqual(e["type"], "system")
        self.assertIn("comfymux.db", e["message"])
        r = c.ask("submit", workflow=sampler(seed=2), subscribe=True)
        self.completed(c.finished(r["prompt_id"]))
        self.assertEqual(len(posts(sim)), 2)


if __name__ == "__main__":
    unittest.main()

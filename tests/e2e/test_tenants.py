"""A second tenant tries everything on the first one's prompts, ids, files and
sessions, by the socket, by the tools and by the machine; and sees nothing.

What is tried is held against the lists of the program itself: an op of
ipc/messages.def, or a tool of tools/list, that has no attempt here fails."""

import json
import os
import re
import socket
import sqlite3
import stat
import struct
import subprocess
import time
import unittest
import uuid

import rig
from muxlib import PATIENCE, Refusal, binary, push_fds
from proclib import descriptors
from simlib import sampler
from tenantlib import ANN, BOB, TenantCase, family_of, status_of

PREFIX = "annsecretfile"
TITLE = "annsecrettext"
PNG = b"\x89PNG\r\n\x1a\n"


def ops():
    """Of the socket, as the program has them."""
    with open(os.path.join(rig.ROOT, "ipc", "messages.def")) as f:
        return re.findall(r'^OP\(\w+, "(\w+)"', f.read(), re.M)


def failing():
    return {
        "1": {"class_type": "SimSampler", "inputs": {"seed": 1, "steps": 1, "step_ms": 5}},
        "5": {"class_type": "SimError", "inputs": {"message": TITLE, "type": "CheeseError",
                                                   "after_ms": 0, "after": ["1", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": PREFIX}},
    }


class Mcp:
    """`comfymux mcp` of a tenant; every byte that it prints is kept."""

    def __init__(self, tenant):
        self.p = tenant.popen(binary("comfymux"), "mcp", "--socket", tenant.d.socket,
                              stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.seen = []
        self.last = 0
        self.ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {},
                                "clientInfo": {"name": "t", "version": "1"}})

    def ask(self, method, params=None):
        self.last += 1
        self.p.stdin.write(json.dumps({"jsonrpc": "2.0", "id": self.last, "method": method,
                                       "params": params or {}}).encode() + b"\n")
        self.p.stdin.flush()
        while True:
            line = self.p.stdout.readline()
            if not line:
                raise AssertionError("no answer to " + method)
            self.seen.append(line.decode())
            reply = json.loads(line)
            if reply.get("id") == self.last:
                return reply

    def tool(self, name, **arguments):
        """(is_error, text)"""
        reply = self.ask("tools/call", {"name": name, "arguments": arguments})
        result = reply["result"]
        return result.get("isError", False), result["content"][0]["text"]

    def end(self):
        if self.p.poll() is None:
            self.p.communicate(timeout=PATIENCE)
        for stream in (self.p.stdin, self.p.stdout):
            stream.close()


class Isolation(TenantCase):
    """Ann has prompts that ended, failed, run and wait, a session, and files."""

    def setUp(self):
        self.sim_, self.d, self.ann, self.bob = self.service()
        d, sim = self.d, self.sim_
        self.mcp = Mcp(self.ann)
        self.addCleanup(self.mcp.end)
        self.client = self.ann.client()
        self.session = self.client.ask("attach", kind="run")["session"]
        r = self.client.ask("submit", workflow=sampler(prefix=PREFIX), subscribe=True)
        done = self.completed(self.client.finished(r["prompt_id"]))
        self.file = done["outputs"]["2"]["images"][0]["filename"]
        self.assertIn(PREFIX, self.file)
        bad = self.client.ask("submit", workflow=failing(), subscribe=True)
        self.client.finished(bad["prompt_id"])
        long = {"steps": 100000, "step_ms": 20, "previews": 100000, "preview_bytes": 5000,
                "prefix": PREFIX}
        runs, waits = (self.client.ask("submit", workflow=sampler(seed=i, **long), previews=True,
                                       subscribe=True)["prompt_id"] for i in (2, 3))
        self.client.event("progress", runs)
        self.client.event("preview", runs)
        self.ids = {"ended": r["prompt_id"], "failed": bad["prompt_id"], "runs": runs,
                    "waits": waits}
        self.client_id = d.status()["upstream"]["client_id"]
        self.secrets = [*self.ids.values(), PREFIX, TITLE, self.client_id, str(ANN),
                        "home-%d" % ANN]
        self.attempts = 0

    def unseen(self, text, but=()):
        """Nothing of Ann's is in it, but for what Bob said himself."""
        self.attempts += 1
        for secret in self.secrets:
            if secret not in but:
                self.assertNotIn(secret, text)

    def error_of(self, client, op, **fields):
        try:
            return False, client.ask(op, **fields)
        except Refusal as e:
            return True, e.error

    def same_as_nobodys(self, client, op, **fields):
        """The answer about each of Ann's prompts is that about none."""
        for prompt_id in self.ids.values():
            nobody = str(uuid.uuid4())
            theirs = self.error_of(client, op, prompt_id=prompt_id, **fields)
            nobodys = self.error_of(client, op, prompt_id=nobody, **fields)
            self.assertTrue(theirs[0], theirs)
            self.assertEqual(json.dumps(theirs).replace(prompt_id, ""),
                             json.dumps(nobodys).replace(nobody, ""))
            self.assertEqual(theirs[1]["type"], "not_found")
            self.unseen(json.dumps(theirs), [prompt_id])

    def denied(self, client, op):
        error, reply = self.error_of(client, op)
        self.assertTrue(error)
        self.assertEqual(reply["type"], "denied")
        self.unseen(json.dumps(reply))

    # --- the socket ---

    def try_hello(self, c):
        self.unseen(json.dumps(c.ask("hello", client="root")))
        self.assertIs(c.hello["operator"], False)

    def try_attach(self, c):
        for worker in ({}, {"worker": "keep"}):
            other = self.bob.client()
            reply = other.ask("attach", kind="run", session=self.session, **worker)
            self.assertNotEqual(reply["session"], self.session)
            self.assertEqual(reply["comfyui"]["client_id"], "")
            self.unseen(json.dumps(reply))
            other.close()

    def try_submit(self, c):
        for prompt_id in self.ids.values():
            error, reply = self.error_of(c, "submit", workflow=sampler(), prompt_id=prompt_id,
                                         subscribe=True)
            self.assertTrue(error)
            self.assertEqual(reply["type"], "invalid")
            self.unseen(json.dumps(reply))
            # As one that nobody can use.
            self.assertEqual(reply, self.error_of(c, "submit", workflow=sampler(),
                                                  prompt_id=prompt_id.upper())[1])

    def try_prompt(self, op):
        return lambda c: self.same_as_nobodys(c, op)

    def try_subscribe(self, c):
        self.same_as_nobodys(c, "subscribe")
        self.same_as_nobodys(c, "subscribe", previews=True)
        other = self.bob.client()
        self.assertEqual(other.ask("subscribe", previews=True)["prompts"], 0)
        self.unseen("")

    def try_preview_ack(self, c):
        """Of nothing: brings none, and takes none of Ann's away."""
        self.assertEqual(c.ask("preview_ack"), {})
        mark = len(self.client.events)
        self.client.ask("preview_ack")
        self.client.event("preview", self.ids["runs"], start=mark)
        self.unseen("")

    def try_lists(self, c):
        for op, fields in (("queue", {}), ("history", {"limit": 1000}), ("status", {})):
            self.unseen(json.dumps(c.ask(op, **fields)))
        self.assertEqual(c.ask("queue")["others"], 2)
        self.assertEqual(c.ask("history")["prompts"], [])
        status = c.ask("status")
        self.assertEqual(status["prompts"], {"active": 0, "queued": 0, "retained": 0})

    def try_restart(self, c):
        theirs = self.error_of(c, "restart_workers", session=self.session)
        nobodys = self.error_of(c, "restart_workers", session="s99999")
        self.assertEqual(theirs, nobodys)
        self.assertTrue(theirs[0])
        self.unseen(json.dumps(theirs))
        reply = c.ask("restart_workers")
        self.assertEqual(reply["workers"], 0)

    def try_job(self, op, **fields):
        """Of Ann's job, the answer that there is about none."""
        def attempt(c):
            if not hasattr(self, "job"):
                self.job = self.client.ask("job_create", kind="batch", total=1)["job"]
                self.secrets.append(self.job)
            nobody = str(uuid.uuid4())
            theirs = self.error_of(c, op, job=self.job, **fields)
            nobodys = self.error_of(c, op, job=nobody, **fields)
            self.assertTrue(theirs[0], theirs)
            self.assertEqual(json.dumps(theirs).replace(self.job, ""),
                             json.dumps(nobodys).replace(nobody, ""))
            self.unseen(json.dumps(theirs), [self.job])
        return attempt

    def try_jobs(self, c):
        self.assertEqual(c.ask("jobs")["jobs"], [])
        self.unseen("")

    def try_job_create(self, c):
        other = self.bob.client()
        self.unseen(json.dumps(other.ask("job_create", kind="batch", total=1)))
        other.close()

    def try_ping(self, c):
        self.unseen(json.dumps(c.ask("ping")))

    @staticmethod
    def both(*attempts):
        return lambda c: [attempt(c) for attempt in attempts]

    def socket_attempts(self):
        return {
            "hello": self.try_hello, "attach": self.try_attach, "submit": self.try_submit,
            "subscribe": self.both(self.try_subscribe, self.try_job("subscribe")),
            "unsubscribe": self.both(self.try_prompt("unsubscribe"), self.try_job("unsubscribe")),
            "preview_ack": self.try_preview_ack,
            "progress": self.try_prompt("progress"), "cancel": self.try_prompt("cancel"),
            "queue": self.try_lists, "history": self.try_lists, "status": self.try_lists,
            "reconnect": lambda c: self.denied(c, "reconnect"),
            "pause": lambda c: self.denied(c, "pause"),
            "resume": lambda c: self.denied(c, "resume"),
            "metrics": lambda c: self.denied(c, "metrics"),
            "restart_workers": self.try_restart, "ping": self.try_ping,
            "jobs": self.try_jobs, "job_create": self.try_job_create,
            "job_add": self.try_job("job_add", index=0, item=sampler()),
            # What only the worker of a job may do names none: whose it is is
            # known by the bus.
            **{op: self.try_job(op) for op in ("job_start", "job", "job_cancel", "job_take",
                                               "job_end")},
            "job_item": self.try_job("job_item", index=0),
            "job_intent": self.try_job("job_intent", index=0, prompt_id=str(uuid.uuid4())),
            "job_result": self.try_job("job_result", index=0, result={}),
            "job_progress": self.try_job("job_progress", fraction=0.5),
        }

    def test_every_op(self):
        attempts = self.socket_attempts()
        self.assertEqual(sorted(ops()), sorted(attempts), "an op without an attempt")
        listener = self.bob.client()
        listener.ask("subscribe", previews=True)
        c = self.bob.client()
        for op, attempt in attempts.items():
            with self.subTest(op):
                attempt(c)
        self.still_runs()
        listener.ask("ping")
        for e in listener.events + c.events:
            self.assertNotEqual(e["event"], "preview")
            self.unseen(json.dumps(e))
        print("attempts on another tenant by the socket: %d" % self.attempts)

    def still_runs(self):
        """Nothing that Bob did has touched Ann's."""
        mark = len(self.client.events)
        self.client.event("progress", self.ids["runs"], start=mark)
        self.assertEqual(self.client.ask("progress", prompt_id=self.ids["waits"])["status"],
                         "queued")
        self.assertEqual(len(self.client.ask("history")["prompts"]), 4)
        sessions = {s["id"] for s in self.client.ask("status")["sessions"]}
        self.assertIn(self.session, sessions)

    # --- the tools ---

    def by_id(self, name):
        def attempt(mcp):
            for prompt_id in self.ids.values():
                nobody = str(uuid.uuid4())
                error, text = mcp.tool(name, prompt_id=prompt_id)
                self.assertTrue(error, (name, text))
                self.assertEqual(text.replace(prompt_id, ""),
                                 mcp.tool(name, prompt_id=nobody)[1].replace(nobody, ""))
                self.assertEqual(json.loads(text)["error"]["type"], "not_found")
                self.unseen(text, [prompt_id])
        return attempt

    def lists(self, name):
        def attempt(mcp):
            self.unseen(mcp.tool(name)[1])
        return attempt

    def of_nobody(self, name, **arguments):
        """That of a file which ComfyUI does not have."""
        def attempt(mcp):
            for how in ({"dest_path": "x.png"}, {"return_base64": True}):
                for spec in ({}, {"type": "output"}, {"subfolder": ""},
                             {"subfolder": "", "type": "output"}):
                    error, text = mcp.tool(name, filename=self.file, **spec, **how)
                    self.assertTrue(error, text)
                    nobodys = mcp.tool(name, filename="no.png", **spec, **how)[1]
                    self.assertEqual(text.replace(self.file, "no.png"), nobodys)
                    self.attempts += 1
            for trick in ("./" + self.file, "/" + self.file, "x/../" + self.file,
                          self.file + " [output]", "../output/" + self.file):
                error, text = mcp.tool(name, filename=trick, dest_path="x.png")
                self.assertTrue(error, (trick, text))
                self.attempts += 1
            self.assertFalse(os.path.exists(self.bob.path("x.png")))
        return attempt

    def runs_own(self, name, **arguments):
        def attempt(mcp):
            error, text = mcp.tool(name, **arguments)
            self.assertFalse(error, (name, text))
            self.unseen(text)
        return attempt

    def try_upload(self, mcp):
        for tenant, m, data in ((self.ann, self.mcp, b"ann"), (self.bob, mcp, b"bob")):
            path = tenant.path("same.png")
            with open(path, "wb") as f:
                f.write(PNG + data)
            os.chown(path, tenant.uid, tenant.uid)
            error, text = m.tool("upload_image", path="same.png", overwrite=True)
            self.assertFalse(error, text)
        self.assertIn("comfymux-%d/" % BOB, text)
        self.unseen(text)
        # His own file alone: the keeper is nobody but himself.
        path = self.ann.path("private.png")
        with open(path, "wb") as f:
            f.write(PNG)
        error, text = mcp.tool("upload_image", path=path)
        self.assertTrue(error, text)
        self.attempts += 1

    def tool_attempts(self):
        quick = {"workflow": sampler(steps=1, step_ms=1, prefix="bob")}
        own = {"timeout_ms": 1}
        return {
            "execute_workflow_sync": self.runs_own("execute_workflow_sync", **quick, **own),
            "execute_workflow_stream": self.runs_own("execute_workflow_stream", **quick, **own),
            "submit_workflow": self.runs_own("submit_workflow", **quick),
            "wait_for_execution": self.by_id("wait_for_execution"),
            "get_execution_progress": self.by_id("get_execution_progress"),
            "cancel_execution": self.by_id("cancel_execution"),
            "list_outputs": self.by_id("list_outputs"),
            "get_error_details": self.by_id("get_error_details"),
            "get_queue": self.lists("get_queue"),
            "get_history": self.lists("get_history"),
            "get_last_output": self.lists("get_last_output"),
            "download_by_filename": self.of_nobody("download_by_filename"),
            "upload_image": self.try_upload,
            "get_node_info": self.runs_own("get_node_info", class_type="SaveImage"),
            "search_nodes": self.runs_own("search_nodes", query="image"),
            "get_system_resources": self.lists("get_system_resources"),
            "execute_batch": self.lists("execute_batch"),
            "execute_chain": self.lists("execute_chain"),
        }

    def try_resources(self, mcp):
        self.unseen(json.dumps(mcp.ask("resources/list")))
        for prompt_id in self.ids.values():
            for uri in ("comfy://output/%s?prompt_id=%s" % (self.file, prompt_id),
                        "comfy://text/2/images/0?prompt_id=%s" % prompt_id,
                        "comfy://output/" + self.file):
                reply = mcp.ask("resources/read", {"uri": uri})
                self.assertIn("error", reply)
                self.assertEqual(reply["error"]["message"], "Resource not found")
                self.attempts += 1

    def test_every_tool(self):
        mcp = Mcp(self.bob)
        self.addCleanup(mcp.end)
        attempts = self.tool_attempts()
        names = [t["name"] for t in mcp.ask("tools/list")["result"]["tools"]]
        self.assertEqual([n for n in names if n not in attempts], [], "a tool without an attempt")
        for name in names:
            with self.subTest(name):
                attempts[name](mcp)
        self.try_resources(mcp)
        self.still_runs()
        print("attempts on another tenant by the tools: %d" % self.attempts)

    # --- the commands ---

    def test_commands(self):
        for args in (["download", self.file], ["download", self.file, "--type", "output"],
                     ["download", "./" + self.file], ["download", self.file + " [output]"],
                     ["download", "x/" + self.file]):
            done = self.bob.run(*args)
            self.assertNotEqual(done.returncode, 0, args)
            self.assertEqual([n for n in os.listdir(self.bob.home) if n.endswith(".png")], [], args)
            nobodys = self.bob.run(*[a.replace(self.file, "no.png") for a in args])
            self.assertEqual(done.stderr.replace(self.file, "no.png"), nobodys.stderr)
            self.attempts += 1
        for prompt_id in self.ids.values():
            for verb in ("watch", "cancel"):
                done = self.bob.run(verb, prompt_id)
                self.assertNotEqual(done.returncode, 0)
                self.unseen(done.stdout + done.stderr, [prompt_id])
        for verb in ("queue", "history", "status"):
            done = self.bob.run(verb, "--json")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.unseen(done.stdout + done.stderr)
        # Whose they are has them.
        done = self.ann.run("download", self.file)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(os.stat(self.ann.path(self.file)).st_uid, ANN)
        self.still_runs()
        print("attempts on another tenant by commands: %d" % self.attempts)


class OldFiles(TenantCase):
    """A file is Ann's however many prompts of hers came after it."""

    def setUp(self):
        self.sim_, self.d, self.ann, self.bob = self.service()
        c = self.ann.client()
        r = c.ask("submit", workflow=sampler(prefix="\u00e9lan.ann"), subscribe=True)
        done = self.completed(c.finished(r["prompt_id"]))
        self.file = done["outputs"]["2"]["images"][0]["filename"]
        self.d.until(lambda: self.d.status()["prompts"]["retained"] == 1, "it to be stored")

    def age(self, n):
        """Ann has had so many prompts since."""
        self.assertEqual(self.d.stop(), 0)
        db = sqlite3.connect(os.path.join(self.d.state, "comfymux.db"))
        soon = int(time.time() * 1000) + 60000
        db.executemany(
            "INSERT INTO prompt(id, uid, session, state, submitted_at, ended_at, result)"
            " VALUES(?, ?, '', 3, ?, ?, ?)",
            ((id_, ANN, soon, soon + i, json.dumps({
                "prompt_id": id_, "status": "completed", "outputs": {"9": {"images": [
                    {"filename": "other_%d.png" % i, "subfolder": "", "type": "output"}]}}}))
             for i, id_ in ((i, str(uuid.uuid4())) for i in range(n))))
        db.commit()
        db.close()
        self.d.start()

    def test_found_among_many(self):
        self.age(2500)
        c = self.ann.client()
        pages, at = [], 0
        while at is not None:
            reply = c.ask("history", filename=self.file, limit=1000, **{"from": at})
            pages.append(len(reply["prompts"]))
            self.assertNotEqual(reply.get("next"), at)
            at = reply.get("next")
        self.assertEqual(pages, [0, 0, 1])
        done = self.ann.run("download", self.file)
        self.assertEqual(done.returncode, 0, done.stderr)
        mcp = Mcp(self.ann)
        self.addCleanup(mcp.end)
        error, text = mcp.tool("download_by_filename", filename=self.file, dest_path="again.png")
        self.assertFalse(error, text)
        for name in (self.file, "other_0.png", "other_2499.png"):
            done = self.bob.run("download", name)
            self.assertIn("none of your prompts has made a file", done.stderr)
            nobody = self.bob.client()
            self.assertEqual(nobody.ask("history", filename=name), {"prompts": []})
        # Of those that were asked for by name alone: not there, but hers.
        done = self.ann.run("download", "other_0.png")
        self.assertNotIn("none of your prompts", done.stderr)

    def test_pages_at_their_edge(self):
        """A thousand are looked at by one request, not one more."""
        self.age(999)
        c = self.ann.client()
        reply = c.ask("history", filename=self.file)
        self.assertEqual((len(reply["prompts"]), reply["next"]), (1, 1000))
        self.assertEqual(c.ask("history", filename=self.file, **{"from": 1000}),
                         {"prompts": []})
        self.age(1)
        c = self.ann.client()
        self.assertEqual(c.ask("history", filename=self.file), {"prompts": [], "next": 1000})
        reply = c.ask("history", filename=self.file, **{"from": 1000})
        self.assertEqual(len(reply["prompts"]), 1)
        self.assertNotIn("next", reply)
        # As many as were asked for; then on from there.
        reply = c.ask("history", filename="other_1.png", limit=1)
        self.assertEqual(len(reply["prompts"]), 1)
        self.assertGreater(reply["next"], 0)


class Machine(TenantCase):
    """What a tenant may do to the processes, and where files land."""

    def setUp(self):
        self.sim_, self.d, self.ann, self.bob = self.service()
        self.mcp = Mcp(self.ann)
        self.addCleanup(self.mcp.end)
        self.d.until(lambda: any(s["pid"] > 0 for s in self.d.status()["sessions"]), "a worker")

    def worker(self):
        return [s["pid"] for s in self.d.status()["sessions"] if s["pid"] > 0][0]

    CODE = r"""
import ctypes, errno, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
tried = got = 0
def may(what, ok):
    global tried, got
    tried += 1
    if ok:
        got += 1
        print("could", what)
for pid in map(int, sys.argv[1:]):
    for request in (16, 0x4206):  # ATTACH, SEIZE
        may("ptrace %d" % pid, libc.ptrace(request, pid, 0, 0) == 0)
    for sig in (0, signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGUSR2):
        try:
            os.kill(pid, sig)
            may("signal %d" % sig, True)
        except PermissionError:
            may("signal %d" % sig, False)
    for name in ("mem", "environ", "maps", "smaps", "auxv", "syscall", "stack", "io", "pagemap",
                 "fdinfo/0", "map_files", "ns/net", "root/etc", "cwd/.", "fd/0", "exe"):
        try:
            path = "/proc/%d/%s" % (pid, name)
            if name in ("exe", "ns/net"):
                os.readlink(path)
            elif os.path.isdir(path):
                os.listdir(path)
            else:
                with open(path, "rb") as f:
                    assert f.read(64) != b""
            may(name, True)
        except (OSError, AssertionError):
            may(name, False)
    for name in ("oom_score_adj", "coredump_filter", "clear_refs", "mem"):
        try:
            open("/proc/%d/%s" % (pid, name), "r+b", buffering=0).write(b"0")
            may("write " + name, True)
        except OSError:
            may("write " + name, False)
    buf = ctypes.create_string_buffer(8)
    class Iov(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
    local, remote = Iov(ctypes.addressof(buf), 8), Iov(0x400000, 8)
    may("read its memory", ctypes.c_ssize_t(libc.process_vm_readv(
        pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)).value >= 0)
    pidfd = libc.syscall(434, pid, 0)
    may("take a descriptor", libc.syscall(438, pidfd, 0, 0) >= 0)
    may("setpriority", libc.setpriority(0, pid, 10) == 0)
print("tried %d got %d" % (tried, got))
"""

    def test_processes(self):
        pids = family_of(self.d.proc.pid)
        self.assertGreaterEqual(len(pids), 3)
        out = self.ann.popen("python3", "-c", self.CODE, *map(str, pids)).communicate(
            timeout=PATIENCE)[0].decode()
        self.assertTrue(out.endswith(" got 0\n"), out)
        print("attempts on processes: " + out.split()[-3])
        for pid in pids:
            # Not stopped, traced or ended; any may wait for a disk.
            self.assertIn(status_of(pid)["State"][0], "SRD")
            # What everybody may read tells nothing.
            client_id = self.d.status()["upstream"]["client_id"]
            for name in ("cmdline", "comm", "status"):
                with open("/proc/%d/%s" % (pid, name), "rb") as f:
                    self.assertNotIn(client_id.encode(), f.read())

    def test_descriptors_of_a_worker(self):
        """Those of the table in ARCHITECTURE.md and no others."""
        self.mcp.tool("get_queue")
        worker = self.worker()

        def look():
            return sorted(re.sub(r":?\[.*", "", what) for what in descriptors(worker).values())
        # The session channel and the bus; HTTP only while a call runs.
        self.d.until(lambda: look().count("socket") == 2, "two sockets: %r" % descriptors(worker))
        kinds = look()
        allowed = {"/dev/null", "socket", "anon_inode", "pipe"}
        log = os.path.realpath(self.d.log_path)
        self.assertEqual([k for k in kinds if k not in allowed and k != log], [])
        # None of them is the supervisor's: not its listener, store or link.
        mine = {x for x in descriptors(self.d.proc.pid).values() if x.startswith(("socket", "/"))}
        theirs = {x for x in descriptors(worker).values() if x.startswith(("socket", "/"))}
        self.assertEqual(mine & theirs - {"/dev/null", log}, set())

    def test_files_land_as_the_tenant(self):
        d = self.d
        name = "out.png"
        self.mcp.end()
        for umask, mode in ((0o077, 0o600), (0o027, 0o640), (0o022, 0o644)):
            mcp = Mcp.__new__(Mcp)
            p = self.ann.popen("sh", "-c", "umask %o; exec \"$@\"" % umask, "sh",
                               binary("comfymux"), "mcp", "--socket", d.socket,
                               stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
            mcp.p, mcp.seen, mcp.last = p, [], 0
            mcp.ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {},
                                   "clientInfo": {"name": "t", "version": "1"}})
            error, text = mcp.tool("execute_workflow_sync", workflow=sampler(steps=1, prefix="o"))
            self.assertFalse(error, text)
            made = json.loads(text)["outputs"]["2"]["images"][0]["filename"]
            error, text = mcp.tool("download_by_filename", filename=made, dest_path=name,
                                   overwrite=True)
            self.assertFalse(error, text)
            s = os.stat(self.ann.path(name))
            self.assertEqual((s.st_uid, s.st_gid, stat.S_IMODE(s.st_mode)), (ANN, ANN, mode))
            with open(self.ann.path(name), "rb") as f:
                self.assertEqual(f.read(8), PNG)
            mcp.end()

    def test_tricks_with_paths(self):
        """dest_path is Ann's own business, with Ann's own rights."""
        error, text = self.mcp.tool("execute_workflow_sync", workflow=sampler(steps=1))
        made = json.loads(text)["outputs"]["2"]["images"][0]["filename"]
        victim = self.bob.path("theirs")
        with open(victim, "w") as f:
            f.write("bob")
        os.chown(victim, BOB, BOB)
        os.chmod(victim, 0o666)
        os.chmod(self.bob.home, 0o711)
        os.symlink(victim, self.ann.path("link"))
        os.symlink(self.bob.home, self.ann.path("dir"))
        os.symlink(self.d.state, self.ann.path("state"))
        for path in ("/etc/x.png", "/proc/self/mem", victim, "../home-%d/new" % BOB, "dir/new",
                     "dir/theirs", "state/comfymux.db", self.d.state + "/x", self.d.socket,
                     "/root/x", "", "no/such/dir/x"):
            for overwrite in (False, True):
                error, text = self.mcp.tool("download_by_filename", filename=made,
                                            dest_path=path, overwrite=overwrite)
                if path != "":
                    self.assertTrue(error, (path, text))
        error, text = self.mcp.tool("download_by_filename", filename=made, dest_path="link")
        self.assertTrue(error, text)
        # With leave to replace the link goes, not what it points to.
        self.mcp.tool("download_by_filename", filename=made, dest_path="link", overwrite=True)
        with open(victim) as f:
            self.assertEqual(f.read(), "bob")
        self.assertEqual(sorted(os.listdir(self.bob.home)), [".config", "theirs"])
        for path in (victim, self.d.state, "/etc/shadow", self.bob.path(".config")):
            error, text = self.mcp.tool("upload_image", path="/etc/shadow")
            self.assertTrue(error, text)

    def test_lingering_descriptors(self):
        """A descriptor whose close would take ten seconds costs nobody any."""
        server = socket.socket()
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        weapons, ends = [], []
        for _ in range(20):
            s = socket.create_connection(server.getsockname())
            ends.append(server.accept()[0])
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 10))
            s.setblocking(False)
            try:
                while True:
                    s.send(b"x" * 65536)
            except BlockingIOError:
                weapons.append(s)
        c, other = self.bob.client(), self.ann.client()

        def ping():
            began = time.monotonic()
            self.assertEqual(other.ask("ping"), {})
            self.assertLess(time.monotonic() - began, 9)  # less than one close
        try:
            for s in weapons:
                push_fds(c.sock, b'{"op":"ping","id":1}\n', [s.fileno()])
                s.close()  # the last reference is on its way
                ping()
            c.close()
            for _ in range(50):
                ping()
        except PermissionError:
            print("notice: this kernel keeps pushed descriptors out")
        finally:
            for s in ends + weapons + [server]:
                s.close()


if __name__ == "__main__":
    unittest.main()

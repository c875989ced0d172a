"""Those who ask while everything around them breaks: sessions of `comfymux mcp`
with several requests in flight, `comfymux run`, submit and watch, batches and
chains, plain clients of the Unix socket, and one of them that hardly reads. Each request is an entry of the book; what it was
told is written down there, and judged later (book.py).
"""
import collections
import json
import os
import random
import socket
import subprocess
import threading
import time
import uuid

import rig
from muxlib import Client, Refusal

FOREVER_MS = 3600000
SIM_ERROR = "ChaosError"
ERR_TAIL = 2000


class Request:
    """One question and everything that came of it."""

    def __init__(self, owner, kind, marker=None):
        self.owner, self.kind, self.marker = owner, kind, marker
        self.key = None
        self.prompt_id = None
        self.trail = []  # (time, what)
        self.answers = []
        self.outcome = None  # {status, type, prompt_id, outputs}, of the last answer
        self.problems = []
        self.cancelled = False  # by ourselves
        self.steps = []  # of MCP progress
        self.state = None  # the last ExecutionProgress seen
        self.note("asked")

    def note(self, what):
        self.trail.append((time.time(), what))

    def wrong(self, what):
        self.note("WRONG: " + what)
        self.problems.append(what)

    def answered(self, outcome, text):
        self.note("answered: %.600s" % text)
        self.answers.append(outcome)
        self.outcome = outcome
        if outcome and outcome.get("prompt_id"):
            self.prompt_id = outcome["prompt_id"]

    def saw(self, progress):
        """An ExecutionProgress on the way; it must not run backwards."""
        self.note("progress: %s %s %s %s" % (
            progress.get("status"), progress.get("current_node"),
            progress.get("current_node_progress"), progress.get("method")))
        if self.answers:
            self.wrong("progress after the answer")
        before, self.state = self.state, progress
        if before is None:
            return
        ranks = {"queued": 0, "executing": 1, "completed": 2, "failed": 2}
        if ranks[progress["status"]] < ranks[before["status"]]:
            self.wrong("from %s back to %s" % (before["status"], progress["status"]))
        done = set(before.get("completed_nodes") or ())
        if not done <= set(progress.get("completed_nodes") or ()):
            self.wrong("completed nodes vanished: %s, then %s" % (done, progress.get("completed_nodes")))
        node = progress.get("current_node")
        if node and node == before.get("current_node") and \
                progress.get("current_node_progress", 0) < before.get("current_node_progress", 0):
            self.wrong("node %s from %s back to %s" % (
                node, before.get("current_node_progress"), progress.get("current_node_progress")))


class Book:
    """All requests of a run, and the random numbers of the load."""

    def __init__(self, seed):
        self.lock = threading.Lock()
        self.requests = []
        self.rng = random.Random("load %s" % seed)
        self.serial = 0
        self.prompts = collections.deque(maxlen=200)  # ids lately heard of

    def add(self, request):
        with self.lock:
            self.requests.append(request)
        return request

    def open(self):
        with self.lock:
            return [r for r in self.requests if not r.answers]

    def marker(self):
        with self.lock:
            self.serial += 1
            return "m%05d-%s" % (self.serial, uuid.uuid4().hex[:8])

    def workflow(self, marker, fail=False):
        """Unique by its seed and its prefix, so that nothing comes out of
        ComfyUI's cache; mostly short, sometimes long enough for a fault."""
        with self.lock:
            r = self.rng
            steps = r.choice((2, 3, 5, 10, 20, 40))
            step_ms = r.choice((5, 10, 20)) if steps < 40 else r.choice((20, 40))
            seed = r.getrandbits(64)
        wf = {
            "1": {"class_type": "SimSampler", "inputs": {"seed": seed, "steps": steps, "step_ms": step_ms}},
            "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
            "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": marker}},
        }
        if fail:
            wf["5"] = {"class_type": "SimError", "inputs": {
                "message": "as asked", "type": SIM_ERROR, "after": ["2", 0]}}
            wf["9"]["inputs"]["images"] = ["5", 0]
        return wf


def outcome_of(body):
    """Of an ExecutionProgress, or of a refusal."""
    error = body.get("error") or {}
    status = body.get("status") or ("failed" if error else None)
    return {"status": status, "type": error.get("type"), "message": error.get("message"),
            "prompt_id": body.get("prompt_id"), "outputs": body.get("outputs"),
            "method": body.get("progress_method"), "timed_out": body.get("timed_out"),
            "how": body.get("how")}


class McpSession:
    """`comfymux mcp` with up to `width` requests in flight."""

    KINDS = (("sync", 40), ("sync_error", 8), ("submit", 14), ("submit_cancel", 6), ("refused", 3),
             ("progress", 8), ("queue", 4), ("ping", 6), ("give_up", 4))

    def __init__(self, world, book, name, width):
        self.world, self.book, self.name, self.width = world, book, name, width
        self.rng = random.Random("%s %s" % (name, world.seed))
        self.log_path = world.rig.path(name + ".log")
        log = open(self.log_path, "ab")
        self.process = world.spawn(
            [os.path.join(rig.BIN, "comfymux"), "mcp", "--socket", world.rig.socket,
             "--comfyui", world.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=log, bufsize=0)
        log.close()
        self.open = {}  # id: request
        self.todo = collections.deque()
        self.running = False
        self.over = False
        self.ending = False
        self.problems = []
        self.next_id = 1
        self.lock = threading.Lock()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        hello = self.ask("initialize", Request(self.name, "initialize"), {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "chaos", "version": "1"}})
        rig.wait_for(lambda: hello.answers, "the answer to initialize")
        self.write({"jsonrpc": "2.0", "method": "notifications/initialized"})
        self.driver = threading.Thread(target=self.drive, daemon=True)
        self.driver.start()

    # --- out ---

    def write(self, message):
        data = json.dumps(message).encode() + b"\n"
        while data:
            try:
                data = data[os.write(self.process.stdin.fileno(), data):]
            except OSError as e:
                if not self.ending:
                    self.problems.append("%s takes no more requests: %s" % (self.name, e))
                return

    def ask(self, method, request, params):
        with self.lock:
            key = self.next_id
            self.next_id += 1
            request.key = key
            self.open[key] = request
        self.book.add(request)
        self.write({"jsonrpc": "2.0", "id": key, "method": method, "params": params})
        return request

    def call(self, tool, request, arguments, token=True):
        params = {"name": tool, "arguments": arguments}
        if token:
            params["_meta"] = {"progressToken": "t%d" % self.next_id}
            request.token = params["_meta"]["progressToken"]
        return self.ask("tools/call", request, params)

    def begin(self, kind):
        book, r = self.book, self.rng
        marker = book.marker()
        if kind in ("sync", "sync_error", "give_up"):
            q = Request(self.name, kind, marker)
            self.call("execute_workflow_sync", q, {
                "workflow": book.workflow(marker, kind == "sync_error"), "timeout_ms": FOREVER_MS})
            if kind == "give_up":
                q.give_up_at = time.monotonic() + r.uniform(0.0, 2.0)
        elif kind in ("submit", "submit_cancel"):
            q = Request(self.name, kind, marker)
            self.call("submit_workflow", q, {"workflow": book.workflow(marker)}, token=False)
        elif kind == "refused":
            wf = book.workflow(marker)
            wf["1"]["class_type"] = "NoSuchNode"
            q = Request(self.name, kind, marker)
            self.call("execute_workflow_sync", q, {"workflow": wf, "timeout_ms": FOREVER_MS})
        elif kind == "progress" and book.prompts:
            self.call("get_execution_progress", Request(self.name, kind),
                      {"prompt_id": r.choice(list(book.prompts))}, token=False)
        elif kind == "queue":
            self.call("get_queue", Request(self.name, kind), {}, token=False)
        else:
            self.ask("ping", Request(self.name, "ping"), {})

    def drive(self):
        kinds, weights = zip(*self.KINDS)
        while not self.ending:
            while self.todo:
                self.todo.popleft()()
            now = time.monotonic()
            with self.lock:
                late = [q for q in self.open.values() if getattr(q, "give_up_at", now + 1) <= now]
                busy = len(self.open)
            for q in late:
                q.give_up_at = now + 1e9
                q.cancelled = True
                q.note("we gave up")
                self.write({"jsonrpc": "2.0", "method": "notifications/cancelled",
                            "params": {"requestId": q.key, "reason": "not wanted any more"}})
            if self.running and busy < self.width:
                self.begin(self.rng.choices(kinds, weights)[0])
            time.sleep(self.rng.uniform(0.005, 0.05))

    # --- in ---

    def read(self):
        rest = b""
        fd = self.process.stdout.fileno()
        while True:
            try:
                data = os.read(fd, 1 << 16)
            except OSError:
                data = b""
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                try:
                    self.take(json.loads(line))
                except Exception as e:  # told at the end of the run
                    self.problems.append("%s: %r: %.500r" % (self.name, e, line))
        if rest:
            self.problems.append("%s: an unfinished last line: %.300r" % (self.name, rest))
        self.over = True

    def take(self, message):
        if "method" in message:
            if message["method"] == "notifications/progress":
                self.take_progress(message["params"])
            return
        key = message["id"]
        with self.lock:
            request = self.open.pop(key, None)
        if request is None:
            for q in self.book.requests:
                if q.owner == self.name and q.key == key:
                    q.wrong("answered again: %.300r" % message)
                    return
            raise AssertionError("an answer to nothing")
        self.judge(request, message)

    def take_progress(self, params):
        with self.lock:
            found = [q for q in self.open.values() if getattr(q, "token", None) == params["progressToken"]]
        if not found:
            self.problems.append("%s: progress of nothing that is open: %r" % (self.name, params))
            return
        q = found[0]
        q.note("notified: %s %s" % (params["progress"], params.get("message")))
        if q.steps and params["progress"] <= q.steps[-1] and not q.problems:
            q.wrong("progress %s after %s" % (params["progress"], q.steps[-1]))
        q.steps.append(params["progress"])

    def judge(self, q, message):
        text = json.dumps(message)
        if q.kind in ("initialize", "ping"):
            q.answered({}, text)
            if "result" not in message:
                q.wrong("an error for " + q.kind)
            return
        if "error" in message:
            # The keeper's own words, where no worker could answer.
            q.answered({"status": "failed", "type": "internal", "message": text}, text)
            return
        body = json.loads(message["result"]["content"][0]["text"])
        outcome = outcome_of(body)
        if outcome["prompt_id"]:
            self.book.prompts.append(outcome["prompt_id"])
        if q.kind in ("submit", "submit_cancel") and not message["result"].get("isError"):
            self.follow_up(q, outcome["prompt_id"])
            q.answered({"status": "submitted", "prompt_id": outcome["prompt_id"]}, text)
        else:
            q.answered(outcome, text)

    def follow_up(self, q, prompt_id):
        wait = Request(self.name, "wait", q.marker)
        wait.prompt_id = prompt_id
        cancel = q.kind == "submit_cancel"
        wait.cancelled = cancel

        def go():
            self.call("wait_for_execution", wait, {"prompt_id": prompt_id, "timeout_ms": FOREVER_MS})
            if cancel:
                c = Request(self.name, "cancel")
                c.prompt_id = prompt_id
                self.call("cancel_execution", c, {"prompt_id": prompt_id}, token=False)
        self.todo.append(go)

    # --- end ---

    def idle(self):
        with self.lock:
            # A request that was given up gets no answer, or one that crossed.
            return not self.todo and not [q for q in self.open.values() if not q.cancelled or q.kind == "wait"]

    def end(self):
        self.ending = True
        self.process.stdin.close()
        status = self.process.wait(rig.PATIENCE_S)
        self.reader.join(rig.PATIENCE_S)
        self.driver.join(rig.PATIENCE_S)
        if status != 0:
            self.problems.append("%s exited with status %d" % (self.name, status))


class Looper:
    """A thread that does one thing after another while it may."""

    def __init__(self, world, book, name):
        self.world, self.book, self.name = world, book, name
        self.rng = random.Random("%s %s" % (name, world.seed))
        self.running = self.ending = False
        self.busy = False
        self.problems = []
        self.thread = threading.Thread(target=self.loop, daemon=True)
        self.thread.start()

    def loop(self):
        while not self.ending:
            if self.running:
                self.busy = True
                try:
                    self.once()
                except Exception as e:  # told at the end of the run
                    self.problems.append("%s: %r" % (self.name, e))
                self.busy = False
            time.sleep(self.rng.uniform(0.01, 0.2))

    def idle(self):
        return not self.busy

    def end(self):
        self.ending = True
        self.thread.join(rig.PATIENCE_S)


class Commands(Looper):
    """`comfymux run`, or submit and then watch."""

    EXITS = {"completed": (0,), "failed": (1, 3)}

    def once(self):
        marker = self.book.marker()
        path = self.world.rig.write(marker + ".json", self.book.workflow(marker, self.rng.random() < 0.1))
        if self.rng.random() < 0.6:
            self.command("run", marker, path, "--timeout", "3600")
        else:
            submitted = self.command("submit", marker, path)
            if submitted.outcome["exit"] == 0:  # it may be over by then
                submitted.outcome["status"] = "submitted"
                self.command("watch", marker, submitted.outcome["prompt_id"])
        os.unlink(path)

    def command(self, name, marker, *args):
        q = self.book.add(Request(self.name, name, marker))
        log = open(self.world.rig.path(self.name + ".log"), "ab")
        process = self.world.spawn(
            [os.path.join(rig.BIN, "comfymux"), name, *args, "--json", "--socket",
             self.world.rig.socket, "--comfyui", self.world.url],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        q.note("pid %d" % process.pid)
        last = None
        for line in process.stdout:
            body = json.loads(line)
            if "prompt_id" in body:
                q.prompt_id = body["prompt_id"]
            if last is not None and "progress_method" in last:
                q.wrong("a line after the result: %.200r" % body)
            if name == "run" and "progress_method" not in body and "status" in body:
                q.saw(body)
            elif name == "watch" and "progress" in body:
                q.saw(body["progress"])
            last = body
        status = process.wait()
        process.stdout.close()
        log.close()
        if last and "type" in last and "status" not in last:
            last = {"error": last}  # a refusal
        outcome = outcome_of(last.get("progress", last) if last else {})
        outcome["exit"] = status
        if not outcome["prompt_id"]:
            outcome["prompt_id"] = q.prompt_id
        q.answered(outcome, "exit %d, %s" % (status, json.dumps(last)))
        return q


class Jobs(Looper):
    """`comfymux batch`, or a chain whose second step takes what the first one
    made. Each item is a request of its own."""

    def once(self):
        if self.rng.random() < 0.6:
            markers = [self.book.marker() for _ in range(self.rng.randint(2, 4))]
            paths = [self.world.rig.write(m + ".json", self.book.workflow(m, self.rng.random() < 0.1))
                     for m in markers]
            self.job("batch", markers, *paths, "--concurrency", "2")
        else:
            markers = [self.book.marker() for _ in range(2)]
            take = {"1": {"class_type": "LoadImage", "inputs": {"image": "nothing.png"}},
                    "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
                    "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 0],
                                                                "filename_prefix": markers[1]}}}
            paths = [self.world.rig.write(markers[0] + ".json", {"steps": [
                {"workflow": self.book.workflow(markers[0], self.rng.random() < 0.1)},
                {"workflow": take, "inputFrom": {"step": 0}, "outputTo": "image"}]})]
            self.job("chain", markers, *paths)
        for path in paths:
            os.unlink(path)

    def job(self, name, markers, *args):
        whole = self.book.add(Request(self.name, name))
        parts = [self.book.add(Request(self.name, name + "_item", m)) for m in markers]
        log = open(self.world.rig.path(self.name + ".log"), "ab")
        process = self.world.spawn(
            [os.path.join(rig.BIN, "comfymux"), name, *args, "--json", "--socket",
             self.world.rig.socket, "--comfyui", self.world.url],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        whole.note("pid %d" % process.pid)
        last = {}
        for line in process.stdout:
            last = json.loads(line)
            if last["event"] == "result":
                parts[last["index"]].answered(outcome_of(last), line.decode())
        status = process.wait()
        process.stdout.close()
        log.close()
        whole.answered({"exit": status}, "exit %d, %s" % (status, json.dumps(last)))
        if last.get("event") != "done" or last["total"] != len(parts):
            whole.wrong("no last word of %d items" % len(parts))
        done = sum(q.outcome["status"] == "completed" for q in parts if q.answers)
        # With none completed it says why the first was not.
        if status not in ((0,) if done == len(parts) else (6,) if done else (1, 3, 4, 5)):
            whole.wrong("exit status %d with %d of %d completed" % (status, done, len(parts)))


class Slow(Looper):
    """Subscribes to everything, and reads much less than comes."""

    ROOM = 4096  # bytes of its receive buffer
    PIECE = 200

    def once(self):
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.ROOM)
            sock.settimeout(0.2)
            sock.connect(self.world.rig.socket)
            sock.sendall(b'{"op":"hello","id":1}\n{"op":"subscribe","id":2}\n')
            self.read(sock)
        except OSError:
            pass  # there is none just now, or it went away
        finally:
            sock.close()

    def read(self, sock):
        rest, seqs = b"", {}
        while self.running and not self.ending:
            try:
                data = sock.recv(self.PIECE)
            except TimeoutError:
                continue
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self.take(json.loads(line), seqs)
            time.sleep(self.rng.uniform(0.0, 0.1))

    def take(self, message, seqs):
        if "event" not in message or "seq" not in message or "prompt_id" not in message:
            return
        before = seqs.get(message["prompt_id"], 0)
        if message["event"] != "snapshot" and message["seq"] <= before:
            self.problems.append("%s: seq %d after %d: %r" % (self.name, message["seq"], before, message))
        seqs[message["prompt_id"]] = max(before, message["seq"])
        if message["event"] == "finished":
            del seqs[message["prompt_id"]]  # refused; or nothing follows, which Subscriber sees to


class Subscriber(Looper):
    """A plain client of the Unix socket, which submits under an id of its own
    and asks again whenever its connection ends."""

    def once(self):
        marker = self.book.marker()
        q = self.book.add(Request(self.name, "socket", marker))
        q.prompt_id = str(uuid.uuid4())
        workflow = self.book.workflow(marker, self.rng.random() < 0.1)
        hold = self.rng.random() < 0.5
        while not q.answers:
            try:
                client = Client(self.world.rig.socket)
            except (OSError, EOFError, TimeoutError):
                if self.ending:
                    return
                time.sleep(0.05)
                continue
            q.note("connected")
            try:
                self.follow(q, client, workflow, hold)
            except (OSError, EOFError):
                q.note("connection lost")
            except Refusal as e:
                if e.type == "busy":
                    continue  # it is stopping
                q.answered({"status": "failed", "type": e.type, "message": str(e),
                            "prompt_id": q.prompt_id}, "refused: %s" % e)
            finally:
                client.close()

    def follow(self, q, client, workflow, hold):
        request = client.request("submit", workflow=workflow, prompt_id=q.prompt_id,
                                 subscribe=True, hold=hold)
        replied = False
        seq = 0
        q.state = None  # the events' own state, by connection
        while True:
            try:
                if not client.pump(1.0):
                    raise EOFError
            except TimeoutError:
                if self.ending:
                    return
                continue
            if not replied and request in client.replies:
                client.reply(request)  # raises Refusal
                replied = True
                q.note("accepted")
            while client.events:
                e = client.events.pop(0)
                if e.get("prompt_id") != q.prompt_id:
                    continue
                if e["event"] != "snapshot" and e["seq"] <= seq:
                    q.wrong("seq %d after %d" % (e["seq"], seq))
                seq = max(seq, e["seq"])
                progress = e["progress"]
                if e["event"] == "finished" or (e["event"] == "snapshot" and
                                                progress["status"] in ("completed", "failed")):
                    q.answered(dict(outcome_of(progress), prompt_id=q.prompt_id), json.dumps(e))
                    return
                q.saw(progress)

"""muxlib.py - the supervisor from outside: its process and a plain client of
its Unix socket; standard library only.

    with Daemon(sim.url) as d:
        c = d.client()
        reply = c.ask("submit", workflow=..., subscribe=True)
        c.event("finished", reply["prompt_id"])
"""

import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import unittest

from simlib import Sim
from waiting import attempts

SERVICE_UID = 12999  # whom a shared supervisor started as root becomes
PATIENCE = 60.0  # seconds before a test gives up on anything; a bound for broken runs


def binary(name="comfymuxd"):
    return os.path.join(os.environ.get("BIN", "build"), name)


class Refusal(Exception):
    """A reply with ok false."""

    def __init__(self, error):
        super().__init__("%s: %s" % (error.get("type"), error.get("message")))
        self.error = error
        self.type = error.get("type")


class Client:
    """One connection. Events are kept in order in `events`."""

    def __init__(self, path, hello=True, sock=None):
        if sock is None:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(PATIENCE)
            sock.connect(path)
        self.sock = sock
        self.rest = b""
        self.next_id = 1
        self.events = []
        self.replies = {}
        self.closed = False
        if hello:
            self.hello = self.ask("hello", client="test")

    # --- raw -----------------------------------------------------------------

    def send_raw(self, data):
        self.sock.sendall(data)

    def send_line(self, o):
        self.send_raw(json.dumps(o).encode() + b"\n")

    def read_line(self, timeout=PATIENCE):
        """One line as bytes; None at the end of the connection."""
        until = time.monotonic() + timeout
        while b"\n" not in self.rest:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError("no line came")
            if not select.select([self.sock], [], [], left)[0]:
                continue
            try:
                more = self.sock.recv(1 << 20)
            except ConnectionResetError:
                more = b""
            if not more:
                self.closed = True
                return None
            self.rest += more
        line, _, self.rest = self.rest.partition(b"\n")
        return line

    def pump(self, timeout=PATIENCE):
        """Takes one message in; False at the end."""
        line = self.read_line(timeout)
        if line is None:
            return False
        message = json.loads(line)
        if "event" in message:
            self.events.append(message)
        else:
            self.replies[message["id"]] = message
        return True

    # --- requests ------------------------------------------------------------

    def request(self, op, **fields):
        """Sends; the id to wait for."""
        request_id = self.next_id
        self.next_id += 1
        self.send_line({"op": op, "id": request_id, **fields})
        return request_id

    def reply(self, request_id, timeout=PATIENCE):
        until = time.monotonic() + timeout
        while request_id not in self.replies:
            if not self.pump(max(0.0, until - time.monotonic())):
                raise EOFError("the supervisor has closed the connection")
        message = self.replies.pop(request_id)
        if not message["ok"]:
            raise Refusal(message["error"])
        return message["result"]

    def ask(self, op, timeout=PATIENCE, **fields):
        return self.reply(self.request(op, **fields), timeout)

    def refused(self, op, **fields):
        """The error of a request that must be refused."""
        try:
            result = self.ask(op, **fields)
        except Refusal as r:
            return r.error
        raise AssertionError("%s was not refused: %r" % (op, result))

    # --- events --------------------------------------------------------------

    def wait(self, pred, what="event", timeout=PATIENCE, start=0):
        """The first event that `pred` likes, from those kept on."""
        until = time.monotonic() + timeout
        at = start
        while True:
            while at < len(self.events):
                if pred(self.events[at]):
                    return self.events[at]
                at += 1
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError("no such %s among %r" % (
                    what, [e["event"] for e in self.events[-8:]]))
            try:
                if not self.pump(left):
                    raise EOFError("closed while waiting for " + what)
            except TimeoutError:
                continue

    def executed(self, n, start=0):
        """Waits until so many `executed` are there, or counted as missed: whoever
        is slow is told of a few by a snapshot."""
        seen = 0

        def counted(e):
            nonlocal seen
            if e["event"] == "executed":
                seen += 1
            elif e["event"] == "snapshot" and "data" in e:
                seen += e["data"]["missed"]
            return seen >= n
        self.wait(counted, "%d executed" % n, start=start)

    def event(self, name, prompt_id=None, timeout=PATIENCE, start=0):
        return self.wait(lambda e: e["event"] == name and
                         prompt_id in (None, e.get("prompt_id")),
                         name, timeout, start)

    def finished(self, prompt_id, timeout=PATIENCE):
        """The progress of the end."""
        return self.event("finished", prompt_id, timeout)["progress"]

    def names(self, prompt_id):
        return [e["event"] for e in self.events
                if e.get("prompt_id") == prompt_id]

    def close(self):
        self.sock.close()

    def wait_closed(self, timeout=PATIENCE):
        until = time.monotonic() + timeout
        while self.pump(max(0.0, until - time.monotonic())):
            pass


class Daemon:
    """A comfymuxd process in a directory of its own."""

    def __init__(self, url, *options, config=None, directory=None, start=True,
                 connected=True, env=None, wrapper=()):
        self.own_dir = directory is None
        self.dir = directory or tempfile.mkdtemp(prefix="cmx-")
        if self.own_dir and os.geteuid() == 0:
            os.chmod(self.dir, 0o755)  # the service's user has to reach it
        self.socket = os.path.join(self.dir, "s")
        self.state = os.path.join(self.dir, "state")
        self.log_path = os.path.join(self.dir, "log")
        self.url = url
        self.options = list(options)
        self.wrapper = list(wrapper)
        self.env = {"HOME": self.dir, "PATH": os.environ["PATH"]}
        for name, value in os.environ.items():
            if name.endswith("SAN_OPTIONS"):
                self.env[name] = value
        self.env.update(env or {})
        self.config = os.path.join(self.dir, "conf")
        self.configure(config or {})
        self.clients = []
        self.proc = None
        if start:
            self.start(connected=connected)

    def configure(self, values):
        with open(self.config, "w") as f:
            for key, value in values.items():
                f.write("%s = %s\n" % (key, value))

    def command(self, *more):
        return self.wrapper + [binary(), "--comfyui", self.url, "--socket",
                               self.socket, "--state-dir", self.state,
                               "--config", self.config, *self.options, *more]

    def launch(self, *more):
        """The process, without waiting for anything."""
        with open(self.log_path, "ab") as log:
            return subprocess.Popen(self.command(*more), stderr=log,
                                    stdin=subprocess.DEVNULL, env=self.env)

    def start(self, connected=True):
        r, w = os.pipe()
        with open(self.log_path, "ab") as log:
            self.proc = subprocess.Popen(
                self.command("--ready-fd", str(w)), stderr=log,
                stdin=subprocess.DEVNULL, env=self.env, pass_fds=[w])
        os.close(w)
        ready = select.select([r], [], [], PATIENCE)[0]
        line = os.read(r, 1) if ready else b""
        os.close(r)
        if line != b"\n":
            raise AssertionError("comfymuxd did not start:\n" + self.log())
        if connected:
            self.wait_link("connected")
        return self

    def log(self):
        if not os.path.exists(self.log_path):
            return ""
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def client(self, **kw):
        c = Client(self.socket, **kw)
        self.clients.append(c)
        return c

    def status(self):
        c = Client(self.socket)
        try:
            return c.ask("status")
        finally:
            c.close()

    def counter(self, name):
        return self.status()["counters"][name]

    def until(self, pred, what, timeout=PATIENCE):
        """Until pred() is true; its value."""
        for _ in attempts(timeout):
            value = pred()
            if value:
                return value
        raise TimeoutError("waited in vain for %s\n%s" % (what, self.log()[-4000:]))

    def wait_link(self, state):
        self.until(lambda: self.status()["upstream"]["state"] == state,
                   "link " + state)

    def stop(self, sig=signal.SIGTERM):
        """Ends it; the exit status."""
        if self.proc is None:
            return None
        if self.proc.poll() is None:
            self.proc.send_signal(sig)
        try:
            status = self.proc.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait()
            raise
        self.proc = None
        return status

    def kill(self):
        self.proc.kill()
        self.proc.wait()
        self.proc = None

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        for c in self.clients:
            c.close()
        status = self.stop()
        log = self.log()
        if self.own_dir:
            shutil.rmtree(self.dir, ignore_errors=True)
        if kind is None:
            # A sanitizer's verdict must not go unseen.
            # Nor that something ran into its own sandbox.
            if (status not in (0, None) or "runtime error" in log or
                    "sandbox: system call" in log):
                raise AssertionError("comfymuxd ended with %r:\n%s" % (
                    status, log[-8000:]))
        else:
            print(log[-6000:])


def push_fds(sock, data, fds):
    """Sends bytes with descriptors."""
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                           struct.pack("%di" % len(fds), *fds))])


# --- what the test cases share ----------------------------------------------

class Case(unittest.TestCase):
    """Tests with a comfysim and a comfymuxd of their own."""

    maxDiff = None

    def sim(self, *options, **kw):
        sim = Sim(*options, **kw)
        self.addCleanup(sim.__exit__, None, None, None)
        return sim

    def daemon(self, sim, *options, shared=False, config=None, **kw):
        """`shared`: for several users, as a system service is."""
        url = sim if isinstance(sim, str) else sim.url
        config = dict(config or {})
        if shared:
            config.setdefault("allow_users", "*")
        if os.geteuid() == 0:
            config.setdefault("user", SERVICE_UID if shared else 0)
            config.setdefault("group", SERVICE_UID if shared else 0)
        if not shared:
            config.setdefault("socket_mode", "0600")
        d = Daemon(url, *options, config=config, **kw)
        self.addCleanup(self.end, d)
        return d

    def end(self, d):
        failed = any(e for _, e in getattr(self._outcome, "errors", []))
        result = getattr(self._outcome, "result", None)
        for bad in (getattr(result, "failures", []) +
                    getattr(result, "errors", [])):
            failed = failed or bad[0] is self
        d.__exit__(AssertionError if failed else None, None, None)

    def pair(self, *sim_options, speed=1, **kw):
        sim = self.sim(*sim_options, speed=speed)
        return sim, self.daemon(sim, **kw)

    def completed(self, progress):
        self.assertEqual(progress["status"], "completed", progress)
        return progress

    def failed(self, progress, kind):
        self.assertEqual(progress["status"], "failed", progress)
        self.assertEqual(progress["error"]["type"], kind, progress)
        return progress


def posts(sim):
    """Prompt ids in the order in which ComfyUI got them."""
    return [f["prompt_id"] for f in sim.journal("post")]


def http_requests(sim):
    """What came over HTTP but for the WebSocket and the test's own."""
    return {k: v for k, v in sim.stats()["requests"].items()
            if "/sim/" not in k and k != "GET /ws" and v}

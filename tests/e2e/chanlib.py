"""chanlib.py - the keeper's end of a session channel: frames, descriptors, and a
comfymux-worker at the other end.

    worker = Worker(url, bus=connected_socket)
    worker.run(workflow, line=1)
    answer = worker.response(1)

The numbers of the frames come from ipc/messages.def, in the order in which it
declares them.
"""
import array
import fcntl
import json
import os
import re
import select
import signal
import socket
import struct
import time

import rig

HEADER = struct.Struct("<IHHQ")  # length, type, flags, line
FLAG_FD = 1


def _types():
    with open(os.path.join(rig.ROOT, "ipc", "messages.def"), encoding="utf-8") as f:
        names = re.findall(r'^FRAME\((\w+), "(\w+)"', f.read(), re.M)
    return {name: i for i, (_, name) in enumerate(names, 1)}


TYPES = _types()
NAMES = {number: name for name, number in TYPES.items()}


class Frame:
    def __init__(self, type_, line, payload):
        self.type, self.line, self.payload = type_, line, payload

    def json(self):
        return json.loads(self.payload)

    def __repr__(self):
        return "%s(%d) %s" % (self.type, self.line, self.payload[:200])


class Gone(Exception):
    """The other end closed the channel."""


class Channel:
    """Either end; frames in order, waited for by type and line."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""
        self.frames = []  # not taken yet
        self.all = []
        self.eof = False

    def send(self, type_, line=0, payload=b"", fd=-1):
        if isinstance(payload, str):
            payload = payload.encode()
        elif not isinstance(payload, bytes):
            payload = json.dumps(payload).encode()
        data = HEADER.pack(len(payload), TYPES[type_], FLAG_FD if fd >= 0 else 0, line) + payload
        if fd >= 0:
            rights = array.array("i", [fd])
            sent = self.sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            data = data[sent:]
        if data:
            self.sock.sendall(data)

    def pump(self, timeout):
        """Reads once; False if nothing came."""
        if self.eof or not select.select([self.sock], [], [], max(0, timeout))[0]:
            return False
        try:
            data = self.sock.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        self.eof = not data
        self.buffer += data
        while len(self.buffer) >= HEADER.size:
            n, type_, _, line = HEADER.unpack_from(self.buffer)
            if len(self.buffer) < HEADER.size + n:
                break
            frame = Frame(NAMES[type_], line, self.buffer[HEADER.size:HEADER.size + n])
            self.buffer = self.buffer[HEADER.size + n:]
            self.frames.append(frame)
            self.all.append(frame)
        return True

    def take(self, type_, line=None):
        for i, f in enumerate(self.frames):
            if f.type == type_ and line in (None, f.line):
                return self.frames.pop(i)
        return None

    def wait(self, type_, line=None, patience=rig.PATIENCE_S):
        until = time.monotonic() + patience
        while True:
            f = self.take(type_, line)
            if f:
                return f
            if self.eof:
                raise Gone("end of the channel instead of %s: %r" % (type_, self.all[-5:]))
            left = until - time.monotonic()
            if left <= 0:
                raise AssertionError("waited in vain for %s: %r" % (type_, self.all[-5:]))
            self.pump(left)

    def wait_for(self, condition, what, patience=rig.PATIENCE_S):
        until = time.monotonic() + patience
        while not condition():
            if time.monotonic() > until or self.eof:
                raise AssertionError("waited in vain for " + what)
            self.pump(0.02)

    def of_type(self, type_, line=None):
        return [f for f in self.all if f.type == type_ and line in (None, f.line)]

    def close(self):
        self.sock.close()


def _high(fd):
    """A copy out of the way of 3 and 4."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20)


class Worker(Channel):
    """A comfymux-worker exec'd as the keeper does it. `bus` is a connected
    socket of the supervisor's, or None."""

    def __init__(self, url, bus=None, kind="run", log=None, hello=True, named=True,
                 poll_ms=200, program=None):
        ours, theirs = socket.socketpair()
        super().__init__(ours)
        self.url = url
        session = _high(theirs.fileno())
        actions = [(os.POSIX_SPAWN_DUP2, session, 3)]
        argv = [program or os.path.join(rig.BIN, "comfymux-worker")]
        bus_fd = -1
        if bus is not None:
            bus_fd = _high(bus.fileno())
            actions.append((os.POSIX_SPAWN_DUP2, bus_fd, 4))
            argv.append("--bus")
        if log:
            actions.append((os.POSIX_SPAWN_OPEN, 2, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        env = {k: v for k, v in os.environ.items() if k.endswith("SAN_OPTIONS") or k == "PATH"}
        self.pid = os.posix_spawn(argv[0], argv, env, file_actions=actions)
        self.status = None
        os.close(session)
        theirs.close()
        if bus_fd >= 0:
            os.close(bus_fd)
            bus.close()
        if hello:
            self.hello(kind, named, bus is not None, poll_ms)
            self.wait("ready")

    def hello(self, kind, named, bus, poll_ms):
        self.send("hello", 0, {
            "kind": kind, "comfyui": self.url, "comfyui_named": named, "bus": bus,
            "connect_timeout_ms": 2000, "request_timeout_ms": 10000,
            "poll_interval_ms": poll_ms, "log_level": "debug"})

    def request(self, op, line, **params):
        self.send("request", line, {"op": op, "params": params})

    def ask(self, op, line, **params):
        self.request(op, line, **params)
        return self.response(line)

    def response(self, line, patience=rig.PATIENCE_S):
        return self.wait("response", line, patience).json()

    def outputs(self, line):
        return [f.json() for f in self.of_type("output", line)]

    def records(self, line):
        return [f.json() for f in self.of_type("record", line)]

    def kill(self, sig=signal.SIGKILL):
        if self.status is None:
            os.kill(self.pid, sig)

    def reap(self, patience=rig.PATIENCE_S):
        """Its exit status (negative: signal)."""
        def ended():
            if self.status is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.status = os.waitstatus_to_exitcode(status)
            return self.status is not None
        rig.wait_for(ended, "the worker's end", patience)
        return self.status

    def drain(self):
        """What a worker that is gone had sent whole."""
        while not self.eof:
            self.pump(rig.PATIENCE_S)

    def close(self):
        super().close()
        if self.status is None:
            try:
                self.reap(10)
            except AssertionError:
                os.kill(self.pid, signal.SIGKILL)
                self.reap()
                raise


def connect(path):
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    return s

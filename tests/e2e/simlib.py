"""simlib.py - what tests that use comfysim share; standard library only.

    with Sim(speed=20) as sim:
        ws = sim.ws("my-client")
        reply = sim.post({"1": ...}, client_id="my-client")
        ws.wait(lambda e: e.type == "execution_success")
        sim.fault("drop", client_id="my-client", how="rst")

Sim starts build/comfysim (or what the environment variable COMFYSIM names) on
a free port and ends it. WebSocket speaks the protocol itself, frame by frame,
so that nothing is hidden: control frames and broken ends are seen as they are.
"""

import base64
import collections
import http.client
import json
import os
import select
import signal
import socket
import struct
import subprocess
import threading
import time

from rig import closed_port
from waiting import attempts

TIMEOUT = 60.0  # seconds before a test gives up on anything; a bound for broken runs

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def binary_path():
    return os.environ.get("COMFYSIM",
                          os.path.join(ROOT, "build", "comfysim"))


class Reply:
    """An HTTP answer: status, headers (lower-case names), body (bytes)."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def text(self):
        return self.body.decode("utf-8")

    def json(self):
        return json.loads(self.body)


class Event:
    """An incoming WebSocket frame. Text: `type` and `data` of the JSON object
    (None if it is none). Binary: `type` is "binary", `code` its first four
    bytes as a number, `meta` the JSON of code 4. The end of the connection:
    `type` is "close" (a frame, with `code`) or "eof"."""

    def __init__(self, opcode, payload):
        self.opcode = opcode
        self.payload = payload
        self.type = None
        self.data = None
        self.code = None
        self.meta = None
        self.t = time.monotonic()
        if opcode == TEXT:
            self._parse_text()
        elif opcode == BINARY:
            self._parse_binary()
        elif opcode == CLOSE:
            self.type = "close"
            if len(payload) >= 2:
                self.code = struct.unpack(">H", payload[:2])[0]
        elif opcode in (PING, PONG):
            self.type = "ping" if opcode == PING else "pong"
        else:
            self.type = "eof"

    def _parse_text(self):
        try:
            o = json.loads(self.payload.decode("utf-8"))
            self.type = o["type"]
            self.data = o["data"]
        except (ValueError, KeyError, TypeError):
            self.type = "garbage"

    def _parse_binary(self):
        self.type = "binary"
        if len(self.payload) < 4:
            return
        self.code = struct.unpack(">I", self.payload[:4])[0]
        if self.code == 4 and len(self.payload) >= 8:
            n = struct.unpack(">I", self.payload[4:8])[0]
            try:
                self.meta = json.loads(self.payload[8:8 + n])
            except ValueError:
                pass

    def __repr__(self):
        return "<%s %s>" % (self.type, self.payload[:120])


class WebSocket:
    """A client connection. A thread reads; `events` grows, `wait` waits."""

    def __init__(self, host, port, path, headers=None, timeout=TIMEOUT):
        self.sock = socket.create_connection((host, port), timeout)
        self.events = []
        self.cond = threading.Condition()
        self.rest = b""
        self._handshake(host, port, path, headers or {})
        self.sock.settimeout(None)
        self.wake_r, self.wake_w = os.pipe()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _handshake(self, host, port, path, headers):
        key = base64.b64encode(os.urandom(16)).decode()
        lines = ["GET %s HTTP/1.1" % path, "Host: %s:%d" % (host, port),
                 "Upgrade: websocket", "Connection: Upgrade",
                 "Sec-WebSocket-Key: " + key, "Sec-WebSocket-Version: 13"]
        lines += ["%s: %s" % h for h in headers.items()]
        self.sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.sock.recv(65536)
            if not more:
                break
            data += more
        head, _, self.rest = data.partition(b"\r\n\r\n")
        head = head.decode("latin-1").split("\r\n")
        self.status = int(head[0].split()[1]) if head[0] else None
        self.headers = {}
        for line in head[1:]:
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()
        if self.status != 101:
            self.sock.close()
            raise Refused(self.status, self.headers, self.rest)

    # --- reading ---------------------------------------------------------

    def _recv(self, n):
        while len(self.rest) < n:
            ready, _, _ = select.select([self.sock, self.wake_r], [], [])
            if self.wake_r in ready:
                raise EOFError
            more = self.sock.recv(max(65536, n - len(self.rest)))
            if not more:
                raise EOFError
            self.rest += more
        data, self.rest = self.rest[:n], self.rest[n:]
        return data

    def _read(self):
        message, opcode = b"", None
        try:
            while True:
                b0, b1 = self._recv(2)
                n = b1 & 127
                if n == 126:
                    n = struct.unpack(">H", self._recv(2))[0]
                elif n == 127:
                    n = struct.unpack(">Q", self._recv(8))[0]
                payload = self._recv(n)
                if b0 & 15 >= 8:
                    self._add(Event(b0 & 15, payload))
                    continue
                if b0 & 15:
                    opcode, message = b0 & 15, b""
                message += payload
                if b0 & 128:
                    self._add(Event(opcode, message))
        except (EOFError, OSError, ValueError) as e:
            end = Event(0, b"")
            end.data = type(e).__name__
            self._add(end)

    def _add(self, event):
        with self.cond:
            self.events.append(event)
            self.cond.notify_all()

    def wait(self, pred, start=0, timeout=TIMEOUT):
        """The first event from `start` on that `pred` likes."""
        deadline = time.monotonic() + timeout
        with self.cond:
            at = start
            while True:
                while at < len(self.events):
                    if pred(self.events[at]):
                        return self.events[at]
                    at += 1
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("no such event among %d: %r" % (
                        len(self.events), self.events[-5:]))
                self.cond.wait(left)

    def wait_type(self, name, start=0, timeout=TIMEOUT):
        return self.wait(lambda e: e.type == name, start, timeout)

    def wait_count(self, n, pred=lambda e: True, timeout=TIMEOUT):
        """Until `n` events have come that `pred` likes."""
        deadline = time.monotonic() + timeout
        with self.cond:
            while True:
                have = sum(1 for e in self.events if pred(e))
                left = deadline - time.monotonic()
                if have >= n:
                    return
                if left <= 0:
                    raise TimeoutError("%d of %d events" % (have, n))
                self.cond.wait(left)

    def wait_end(self, timeout=TIMEOUT):
        """The connection's end: "eof" without or after a close frame."""
        return self.wait_type("eof", timeout=timeout)

    def of_type(self, *names):
        with self.cond:
            return [e for e in self.events if e.type in names]

    def mark(self):
        with self.cond:
            return len(self.events)

    # --- writing ---------------------------------------------------------

    def send(self, opcode, payload):
        mask = os.urandom(4)
        n = len(payload)
        head = bytes([0x80 | opcode])
        if n < 126:
            head += bytes([0x80 | n])
        elif n < 65536:
            head += bytes([0x80 | 126]) + struct.pack(">H", n)
        else:
            head += bytes([0x80 | 127]) + struct.pack(">Q", n)
        body = bytes(c ^ mask[i & 3] for i, c in enumerate(payload))
        self.sock.sendall(head + mask + body)

    def send_text(self, text):
        self.send(TEXT, text.encode("utf-8"))

    def negotiate(self):
        """Asks for previews with metadata; has to be the first message."""
        self.send_text('{"type":"feature_flags","data":'
                       '{"supports_preview_metadata":true}}')

    def ping(self, payload=b"alive?"):
        self.send(PING, payload)

    def close(self, code=1000):
        """Says goodbye and waits for the end."""
        try:
            self.send(CLOSE, struct.pack(">H", code))
            self.wait_end()
        except OSError:
            pass
        self.drop()

    def drop(self, reset=False):
        """Ends the TCP connection without a word."""
        # A thread within recv() would keep the kernel's socket alive.
        self._stop_reading()
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                 struct.pack("ii", 1, 0))
        self.sock.close()

    def _stop_reading(self):
        if self.wake_w is None:
            return
        os.write(self.wake_w, b"x")
        self.thread.join()
        os.close(self.wake_r)
        os.close(self.wake_w)
        self.wake_w = None


class Refused(Exception):
    """The upgrade was answered by something else than 101."""

    def __init__(self, status, headers, body):
        super().__init__("upgrade refused: %s" % status)
        self.status = status
        self.headers = headers
        self.body = body


class Sim:
    """A comfysim process."""

    def __init__(self, *options, speed=1, port=0, wrapper=()):
        # One that is stopped is started again at its port.
        self.held = None if port else closed_port()
        port = port or self.held.getsockname()[1]
        self.args = list(wrapper) + [binary_path(), "--port", str(port),
                                     "--speed", str(speed)]
        self.args += [str(o) for o in options]
        self.host = "127.0.0.1"
        self.sockets = []
        self.proc = None
        self.start()

    def start(self):
        self.proc = subprocess.Popen(self.args, stdout=subprocess.PIPE,
                                     text=True)
        # Not a sleep for a guess: the line comes when it listens.
        ready, _, _ = select.select([self.proc.stdout], [], [], TIMEOUT)
        line = self.proc.stdout.readline() if ready else ""
        if not line.startswith("comfysim: listening on "):
            self.kill()
            raise RuntimeError("comfysim did not start: %r" % line)
        self.url = line.split()[-1]
        self.port = int(self.url.rsplit(":", 1)[1])

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for s in self.sockets:
            s.drop()
        status = self.stop()
        if self.held:
            self.held.close()
        # A sanitizer's complaint, a leak among them, shows here.
        if exc[0] is None and status not in (0, -signal.SIGKILL):
            raise RuntimeError("comfysim ended with status %d" % status)

    def stop(self):
        """Ends it with SIGTERM; the exit status."""
        if self.proc.poll() is None:
            self.proc.terminate()
        if self.proc.stdout.closed:
            return self.proc.returncode
        try:
            status = self.proc.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self.proc.stdout.close()
        return status

    def kill(self):
        self.proc.kill()
        self.proc.wait()
        self.proc.stdout.close()

    # --- HTTP ------------------------------------------------------------

    def http(self, method, path, body=None, headers=None, timeout=TIMEOUT):
        """`body`: bytes, str, or anything else as JSON."""
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode("utf-8")
        conn = http.client.HTTPConnection(self.host, self.port,
                                          timeout=timeout)
        try:
            conn.request(method, path, body, headers or {})
            r = conn.getresponse()
            data = r.read()
            return Reply(r.status,
                         {k.lower(): v for k, v in r.getheaders()}, data)
        finally:
            conn.close()

    def get(self, path, **kw):
        return self.http("GET", path, **kw)

    def get_json(self, path):
        return self.get(path).json()

    def post(self, workflow, client_id=None, prompt_id=None, **more):
        body = {"prompt": workflow, **more}
        if client_id is not None:
            body["client_id"] = client_id
        if prompt_id is not None:
            body["prompt_id"] = prompt_id
        return self.http("POST", "/prompt", body)

    def ws(self, client_id=None, path="/ws", headers=None, first=None):
        if client_id is not None:
            path += "?clientId=" + client_id
        s = WebSocket(self.host, self.port, path, headers)
        if first:
            s.send_text(first)
        self.sockets.append(s)
        return s

    # --- control ---------------------------------------------------------

    def fault(self, name, **more):
        r = self.http("POST", "/sim/fault", {"fault": name, **more})
        if r.status != 200:
            raise ValueError(r.text)
        return r.json()

    def emit(self, **order):
        r = self.http("POST", "/sim/emit", order)
        if r.status != 200:
            raise ValueError(r.text)

    def stats(self):
        return self.get_json("/sim/stats")

    def journal(self, fact=None):
        lines = self.get("/sim/journal").text.splitlines()
        facts = [json.loads(line) for line in lines]
        return [f for f in facts if fact in (None, f["fact"])]

    def reset(self):
        self.http("POST", "/sim/reset", b"{}")

    def wait_until(self, pred, timeout=TIMEOUT):
        """Until pred(self) is true; its value."""
        for _ in attempts(timeout):
            value = pred(self)
            if value:
                return value
        raise TimeoutError

    def wait_idle(self):
        self.wait_until(lambda s: s.get_json("/prompt")["exec_info"]
                        ["queue_remaining"] == 0)

    def wait_history(self, prompt_id):
        return self.wait_until(
            lambda s: s.get_json("/history/" + prompt_id).get(prompt_id))


def sampler(steps=3, step_ms=20, seed=1, prefix="sim", **more):
    """A workflow of two nodes: SimSampler into SaveImage."""
    return {
        "1": {"class_type": "SimSampler",
              "inputs": {"seed": seed, "steps": steps, "step_ms": step_ms,
                         **more}},
        "2": {"class_type": "SaveImage",
              "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    }


def types(events):
    """How often each type occurs."""
    return collections.Counter(e.type for e in events)

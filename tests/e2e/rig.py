"""What the end-to-end tests share: real processes in a scratch directory, each
ended by pid, and waits for conditions instead of sleeps.

A Rig owns a directory, environment and processes. Nothing outside the directory
is read or written: HOME, XDG_* and the socket lie in it.
"""
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from waiting import attempts

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.join(ROOT, os.environ.get("BIN", "build"))
PATIENCE_S = 60  # a bound for broken runs, not an expectation


def wait_for(condition, what, patience=PATIENCE_S):
    """Polls until condition() is truthy; returns its value."""
    for _ in attempts(patience):
        value = condition()
        if value:
            return value
    raise AssertionError("waited in vain for " + what)


def http(method, url, body=None, timeout=PATIENCE_S):
    """(status, decoded JSON or bytes)."""
    data = None
    headers = {}
    if body is not None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as reply:
            status, raw = reply.status, reply.read()
    except urllib.error.HTTPError as error:
        status, raw = error.code, error.read()
    try:
        return status, json.loads(raw)
    except ValueError:
        return status, raw


class Rig:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="cmx-")
        self.processes = []
        self.socket = os.path.join(self.dir, "s")
        self.state = os.path.join(self.dir, "state")
        self.sim_url = None
        self.held = []
        self.env = {
            "HOME": self.dir,
            "PATH": os.environ["PATH"],
            "XDG_CONFIG_HOME": os.path.join(self.dir, "config"),
            "XDG_STATE_HOME": os.path.join(self.dir, "xdg-state"),
            "LC_ALL": "C.UTF-8",
        }
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS"):
            if name in os.environ:
                self.env[name] = os.environ[name]

    # --- processes ---

    def start(self, program, *args, **kwargs):
        """A process of ours; ended by close()."""
        log = open(os.path.join(self.dir, program + ".log"), "ab")
        kwargs.setdefault("stderr", log)
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        kwargs.setdefault("cwd", self.dir)
        env = dict(self.env)
        env.update(kwargs.pop("env", {}))
        process = subprocess.Popen([os.path.join(BIN, program), *args], env=env, **kwargs)
        log.close()
        self.processes.append(process)
        return process

    def log_of(self, program):
        with open(os.path.join(self.dir, program + ".log"), errors="replace") as f:
            return f.read()

    def start_sim(self, *args, port=0):
        if not port:
            # One that is stopped is started again at its port.
            self.held.append(closed_port())
            port = self.held[-1].getsockname()[1]
        sim = self.start("comfysim", "--port", str(port), *args, stdout=subprocess.PIPE)
        line = self.read_line(sim.stdout, "comfysim to listen").decode()
        self.sim_url = line.strip().rsplit(" ", 1)[1]
        self.sim_port = int(self.sim_url.rsplit(":", 1)[1])
        return sim

    def start_daemon(self, *args, wait=True, connected=True, shared=False):
        """`shared`: for all users. Started as root it stays root: what becomes
        of that is test_identity's."""
        if shared:
            args = ("--config", self.write("shared.conf", "user = root\nallow_users = *\n"), *args)
        elif os.geteuid() == 0:
            args = ("--user", "root", *args)
        daemon = self.start("comfymuxd", "--socket", self.socket, "--state-dir", self.state,
                            "--comfyui", self.sim_url, *args)
        if wait:
            wait_for(lambda: self.can_connect() or daemon.poll() is not None, "the supervisor's socket")
            assert daemon.poll() is None, self.log_of("comfymuxd")
        if wait and connected:
            wait_for(lambda: self.status()["upstream"]["state"] == "connected", "the upstream link")
        return daemon

    def can_connect(self):
        s = socket.socket(socket.AF_UNIX)
        try:
            s.connect(self.socket)
            return True
        except OSError:
            return False
        finally:
            s.close()

    def run(self, *args, timeout=PATIENCE_S, check=None, comfyui=False, sock=True, **kwargs):
        """comfymux ARGS to its end: CompletedProcess with text."""
        extra = []
        if sock:
            extra += ["--socket", self.socket]
        if comfyui:
            extra += ["--comfyui", self.sim_url]
        env = dict(self.env)
        env.update(kwargs.pop("env", {}))
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        done = subprocess.run([os.path.join(BIN, "comfymux"), *args, *extra], env=env, cwd=self.dir,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=timeout, **kwargs)
        assert "sandbox: system call" not in done.stderr, done.stderr[-2000:]
        if check is not None and done.returncode != check:
            raise AssertionError("comfymux %s: exit %d, not %d\nstdout: %s\nstderr: %s" % (
                " ".join(args), done.returncode, check, done.stdout[-2000:], done.stderr[-2000:]))
        return done

    def json(self, *args, check=0, **kwargs):
        """The last line that comfymux ARGS --json prints."""
        return json.loads(self.run(*args, "--json", check=check, **kwargs).stdout.splitlines()[-1])

    def status(self):
        return self.json("status")

    def sessions(self):
        """As in status; [] without a supervisor. Quicker than a command."""
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(PATIENCE_S)
        try:
            s.connect(self.socket)
            s.sendall(b'{"op":"hello","id":1}\n{"op":"status","id":2}\n')
            data = b""
            while data.count(b"\n") < 2:
                more = s.recv(65536)
                if not more:
                    return []
                data += more
        except OSError:
            return []
        finally:
            s.close()
        return json.loads(data.splitlines()[1])["result"]["sessions"]

    def read_line(self, stream, what):
        until = time.monotonic() + PATIENCE_S
        line = b""
        while not line.endswith(b"\n"):
            ready = select.select([stream], [], [], max(0, until - time.monotonic()))[0]
            if not ready:
                raise AssertionError("waited in vain for " + what)
            byte = os.read(stream.fileno(), 1)
            if not byte:
                raise AssertionError("end of output instead of " + what)
            line += byte
        return line

    # --- the simulator ---

    def sim(self, method, path, body=None):
        return http(method, self.sim_url + path, body)

    def fault(self, **fault):
        status, reply = self.sim("POST", "/sim/fault", fault)
        assert status == 200, reply

    def pause(self, **when):
        """ComfyUI stands still: at once, or when it has gone on for so many
        `steps` or `starts` of prompts more."""
        self.fault(fault="pause", **when)

    def resume(self):
        self.fault(fault="resume")

    def journal(self):
        status, text = self.sim("GET", "/sim/journal")
        assert status == 200
        if isinstance(text, (bytes, bytearray)):
            return [json.loads(line) for line in text.splitlines()]
        return [text] if isinstance(text, dict) else text

    def stats(self):
        return self.sim("GET", "/sim/stats")[1]

    # --- files ---

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, content):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        mode = "wb" if isinstance(content, bytes) else "w"
        with open(path, mode) as f:
            if isinstance(content, (str, bytes)):
                f.write(content)
            else:
                json.dump(content, f)
        return path

    def close(self):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in reversed(self.processes):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for stream in (process.stdout, process.stdin):
                if stream:
                    stream.close()
        for s in self.held:
            s.close()
        logs = [n for n in os.listdir(self.dir) if n.endswith(".log")]
        refused = [line for n in logs for line in self.log_of(n[:-4]).splitlines()
                   if "sandbox: system call" in line]
        shutil.rmtree(self.dir, ignore_errors=True)
        # Nothing may run into its own sandbox.
        assert not refused, refused


def closed_port(port=0):
    """A socket that keeps a port from everybody (but a simulator that is told
    to listen there), and refuses whoever connects."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", port))
    return s


REFUSING = []


def refusing_port():
    """Nobody listens there, nor will anybody else while the tests run."""
    REFUSING.append(closed_port())
    return REFUSING[-1].getsockname()[1]


def free_port():
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
    s.close()
    return port

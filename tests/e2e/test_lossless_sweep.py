"""The worker killed at every byte of what it reads and writes, and at every
system call it makes: one answer per request, whatever was torn.

The bytes are swept with a stand-in that speaks the session channel to a real
`comfymux mcp` and dies after exactly so many; the system calls with the real
worker under ptrace, and a keeper played by the test.
"""
import ctypes
import errno
import os
import shutil
import subprocess
import sys
import threading
import unittest

import chanlib
import rig
from lossless import sampler

# --- bytes -------------------------------------------------------------------

STAND_IN = '''#!%(python)s -SEI
import os, signal, struct, sys
HEADER = struct.Struct("<IHHQ")
TYPES = %(types)r
here = os.path.dirname(os.path.abspath(sys.argv[0]))
def take_plan():
    """The first to live dies as planned; its successors live."""
    try:
        with open(os.path.join(here, "plan")) as f:
            way, count = f.read().split()
        os.unlink(os.path.join(here, "plan"))
    except FileNotFoundError:
        return "", 0
    return way, int(count)
way, left = take_plan()
def die():
    os.kill(os.getpid(), signal.SIGKILL)
written = read = 0
def write(data):
    global left, written
    if way == "out" and len(data) > left:
        os.write(3, data[:left])
        die()
    if way == "out":
        left -= len(data)
    while data:
        n = os.write(3, data)
        written += n
        data = data[n:]
def take(count):
    global left, read
    data = b""
    while len(data) < count:
        want = count - len(data)
        if way == "in":
            if left == 0:
                die()
            want = min(want, left)
        more = os.read(3, want)
        if not more:
            with open(os.path.join(here, "total"), "w") as f:
                f.write("%%d %%d" %% (read, written))
            sys.exit(0)
        left -= len(more) if way == "in" else 0
        read += len(more)
        data += more
    return data
def send(kind, line, payload=b""):
    write(HEADER.pack(len(payload), TYPES[kind], 0, line) + payload)
records = {}
while True:
    count, kind, flags, line = HEADER.unpack(take(HEADER.size))
    payload = take(count)
    if kind == TYPES["hello"]:
        send("ready", 0)
    elif kind == TYPES["record"]:
        records[line] = payload
    elif kind == TYPES["end"]:
        with open(os.path.join(here, "total"), "w") as f:
            f.write("%%d %%d" %% (read, written))
        sys.exit(0)
    elif kind == TYPES["request"]:
        if line in records and records[line] != b'{"of":%%d}' %% line:
            send("response", line, b'{"a torn record": true}')
            continue
        if line not in records:
            send("record", line, b'{"of":%%d}' %% line)
        send("output", line, b'{"method":"notifications/progress","of":%%d}' %% line)
        send("response", line, b'{"answer to":%%d,"asked":%%d}' %% (line, len(payload)))
'''
REQUESTS = [b'{"jsonrpc":"2.0","id":%d,"method":"ping"%s}' % (i, b" " * i) for i in (1, 2)]


class Bytes(unittest.TestCase):
    """A stand-in dies after `count` bytes, for every count."""

    def setUp(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)

    def folder(self, name):
        path = self.rig.path(name)
        os.mkdir(path)
        shutil.copy(os.path.join(rig.BIN, "comfymux"), path)
        worker = os.path.join(path, "comfymux-worker")
        with open(worker, "w") as f:
            f.write(STAND_IN % {"python": sys.executable, "types": chanlib.TYPES})
        os.chmod(worker, 0o755)
        return path

    def session(self, folder, plan=None):
        """What the client reads, and how many bytes went either way."""
        if plan:
            with open(os.path.join(folder, "plan"), "w") as f:
                f.write("%s %d" % plan)
        with open(os.path.join(folder, "log"), "ab") as log:
            keeper = subprocess.Popen([os.path.join(folder, "comfymux"), "mcp", "--socket", self.rig.path("none")],
                                      env=self.rig.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        try:
            keeper.stdin.write(b"\n".join(REQUESTS) + b"\n")
            keeper.stdin.flush()
            # Open until all is answered: its end is a deadline.
            lines = []
            while sum(b"answer to" in line for line in lines) < len(REQUESTS):
                lines.append(self.rig.read_line(keeper.stdout, "answers: %r %r" % (plan, lines)).strip())
            keeper.stdin.close()
            lines += keeper.stdout.read().splitlines()
            self.assertEqual(keeper.wait(rig.PATIENCE_S), 0)
        finally:
            keeper.stdin.close()
            keeper.stdout.close()
            keeper.wait(rig.PATIENCE_S)
        if plan:
            self.assertFalse(os.path.exists(os.path.join(folder, "plan")), "nobody died")
        return lines

    def judge(self, plan, lines, undisturbed):
        answers = [l for l in lines if b"answer to" in l]
        self.assertEqual(sorted(answers), sorted(l for l in undisturbed if b"answer to" in l), plan)
        # What is no answer may come again, once, and nothing else comes.
        for line in lines:
            self.assertIn(line, undisturbed, plan)
            self.assertLessEqual(lines.count(line), 2, plan)

    @staticmethod
    def points(way, total):
        """Every byte; of the long hello, which is one frame, every eighth."""
        requests = sum(chanlib.HEADER.size + len(r) for r in REQUESTS)
        hello = total - requests - chanlib.HEADER.size if way == "in" else 0
        return list(range(0, hello, 8)) + list(range(hello, total))

    def sweep(self, way):
        folders = [self.folder("a"), self.folder("b")]
        undisturbed = self.session(folders[0])
        self.assertEqual(len(undisturbed), 2 * len(REQUESTS), undisturbed)
        with open(os.path.join(folders[0], "total")) as f:
            total = dict(zip(("in", "out"), map(int, f.read().split())))[way]
        self.assertGreater(total, 200)
        todo, failures = self.points(way, total), []

        def work(folder):
            while todo and not failures:
                plan = (way, todo.pop())
                try:
                    self.judge(plan, self.session(folder, plan), undisturbed)
                except Exception as e:  # told below, by the test's own thread
                    failures.append((plan, e))
        threads = [threading.Thread(target=work, args=(f,)) for f in folders]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(failures, [])

    def test_of_the_output(self):
        self.sweep("out")

    def test_of_the_input(self):
        self.sweep("in")


# --- system calls ------------------------------------------------------------

PTRACE_SYSCALL, PTRACE_SEIZE, PTRACE_INTERRUPT = 24, 0x4206, 0x4207
PTRACE_O_TRACESYSGOOD, PTRACE_O_EXITKILL = 1, 1 << 20
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
LIBC.ptrace.restype = ctypes.c_long


def ptrace(request, pid, data=0):
    if LIBC.ptrace(request, pid, None, data) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")


class Calls(unittest.TestCase):
    """The real worker dies at its n-th system call after it got the request,
    before or after it, for many n over a whole run."""

    POINTS = 40

    def setUp(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)
        self.rig.start_sim()
        self.seed = 0

    def worker(self, bus):
        w = chanlib.Worker(self.rig.sim_url, chanlib.connect(self.rig.socket) if bus else None, hello=False,
                           log=self.rig.path("worker.log"))
        self.addCleanup(w.close)
        return w

    def ask(self, w, bus, workflow, records=()):
        w.hello("run", True, bus, 200)
        for record in records:
            w.send("record", 1, record)
        w.request("run", 1, workflow=workflow)

    def step(self, w, count):
        """Lets it make `count` halves of system calls (its entry, its exit),
        or as many as it makes until it has answered; how many."""
        ptrace(PTRACE_SEIZE, w.pid, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)
        ptrace(PTRACE_INTERRUPT, w.pid)
        done = 0
        stopped = self.wait_stop(w)
        while stopped and done < count:
            ptrace(PTRACE_SYSCALL, w.pid)
            stopped = self.wait_stop(w)
            done += 1
        return done

    def wait_stop(self, w):
        """False: it has answered and waits."""
        def look():
            pid, status = os.waitpid(w.pid, os.WNOHANG)
            if pid:
                assert os.WIFSTOPPED(status), status
                return "stopped"
            w.pump(0.0005)
            return "answered" if w.of_type("response", 1) else None
        until = rig.time.monotonic() + rig.PATIENCE_S
        while True:
            state = look()
            if state:
                return state == "stopped"
            self.assertLess(rig.time.monotonic(), until, "it makes no system call and has not answered")

    def one(self, bus, count):
        """Killed after `count`; the answer and how many there were."""
        self.seed += 1
        workflow = sampler(steps=3, step_ms=5, seed=self.seed)
        w = self.worker(bus)
        try:
            self.ask(w, bus, workflow)
            done = self.step(w, count)
        except OSError as e:
            if e.errno == errno.EPERM:
                self.skipTest("ptrace is not allowed here")
            raise
        w.kill()
        w.reap()
        w.drain()
        answers, records = w.of_type("response", 1), w.records(1)
        if not answers:
            w = self.worker(bus)
            self.ask(w, bus, workflow, records)
            w.wait("response", 1)
            answers = w.of_type("response", 1)
            records += w.records(1)
        w.close()
        self.assertEqual(len(answers), 1)
        answer = answers[0].json()
        self.assertTrue(answer["ok"], answer)
        self.assertEqual(answer["result"]["status"], "completed")
        self.assertEqual({r["prompt_id"] for r in records}, {answer["result"]["prompt_id"]})
        return done

    def sweep(self, bus):
        total = self.one(bus, 1 << 30)
        self.assertGreater(total, self.POINTS)
        points = [i * total // self.POINTS for i in range(self.POINTS)]
        for count in points:
            with self.subTest(call=count, of=total):
                self.one(bus, count)
        posts = [j["prompt_id"] for j in self.rig.journal() if j["fact"] == "post"]
        self.assertEqual(len(posts), len(set(posts)))
        self.assertEqual(len(posts), 1 + len(points))

    def test_alone(self):
        self.sweep(False)

    def test_on_the_bus(self):
        self.rig.start_daemon()
        self.sweep(True)


if __name__ == "__main__":
    unittest.main()

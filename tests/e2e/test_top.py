"""`comfymux top` on a pseudo-terminal, read through a terminal emulator (pyte):
what it shows, what its keys do, and that it leaves the terminal as it was."""
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import unittest

import rig
from simlib import sampler

# python3-pyte, which a python3 that isn't Debian's doesn't look for.
sys.path.append("/usr/lib/python3/dist-packages")
try:
    import pyte
except ImportError:
    pyte = None


class Terminal:
    """A program on a terminal of `columns` x `lines`."""

    def __init__(self, argv, env, cwd, columns=100, lines=30):
        self.screen = pyte.Screen(columns, lines)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.master, slave = pty.openpty()
        self.resize(columns, lines, tell=False)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen(argv, env=env, cwd=cwd, stdin=slave, stdout=slave,
                                        stderr=slave, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))

    def resize(self, columns, lines, tell=True):
        self.screen.resize(lines, columns)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        if tell:
            os.killpg(self.process.pid, signal.SIGWINCH)

    def pump(self, seconds=0.05):
        while select.select([self.master], [], [], seconds)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                return
            self.raw += data
            self.stream.feed(data)
            seconds = 0

    def text(self):
        return "\n".join(line.rstrip() for line in self.screen.display)

    def wait(self, wanted, what=None):
        """Until `wanted` (a text, a pattern or a function) is on the screen."""
        def there():
            self.pump()
            if callable(wanted):
                return wanted(self.text())
            if isinstance(wanted, re.Pattern):
                return wanted.search(self.text())
            return wanted in self.text()
        try:
            return rig.wait_for(there, what or repr(wanted))
        except AssertionError as e:
            raise AssertionError("%s\n%s" % (e, self.text())) from None

    def gone(self, text):
        self.wait(lambda t: text not in t, "%r to go" % text)

    def keys(self, data):
        os.write(self.master, data)

    def end(self):
        """The exit status."""
        def over():
            self.pump(0.01)
            return self.process.poll() is not None
        rig.wait_for(over, "top to end")
        self.pump(0)
        return self.process.returncode

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


class Base(unittest.TestCase):
    def setUp(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)
        self.rig.start_sim()

    def command(self, *args):
        return [os.path.join(rig.BIN, "comfymux"), "top", "--socket", self.rig.socket, *args]

    def env(self, **more):
        env = {**self.rig.env, "TERM": "linux", **more}
        return {k: v for k, v in env.items() if v is not None}


@unittest.skipUnless(pyte, "no python3-pyte")
class Top(Base):
    def top(self, columns=100, lines=30, **env):
        t = Terminal(self.command(), self.env(**env), self.rig.dir, columns, lines)
        self.addCleanup(t.close)
        return t

    def submit(self, **more):
        return self.rig.json("submit", self.rig.write("w.json", sampler(**more)))["prompt_id"]

    def mcp(self):
        p = self.rig.start("comfymux", "mcp", "--socket", self.rig.socket, "--comfyui", self.rig.sim_url,
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        p.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18",'
                      b'"capabilities":{},"clientInfo":{"name":"t","version":"1"}}}\n')
        p.stdin.flush()
        self.assertIn(b'"serverInfo"', self.rig.read_line(p.stdout, "initialize"))
        return p

    def test_what_it_shows(self):
        self.rig.start_daemon()
        self.mcp()
        first = self.submit(steps=200, step_ms=200)
        second = self.submit(steps=3)
        t = self.top()
        t.wait("1 running, 1 waiting")
        t.wait(re.compile(r"s1 +mcp +%d +\d+ +root " % self.rig.sessions()[0]["pid"]))
        t.wait(re.compile(first[:8] + r" +running .*\[#+\.+\] .* \d+/200"))
        t.wait(re.compile(second[:8] + r" +queued +1 +0:\d\d"))
        t.wait("connected")
        # The bar moves, and so do the figures.
        def step():
            m = re.search(first[:8] + r".*\[(#*)\.*\].* (\d+)/200", t.text())
            return m and (len(m[1]), int(m[2]))
        t.wait(lambda _: step() is not None)
        bar, at = step()
        t.wait(lambda _: (step() or (0, 0))[0] > bar, "the bar to move")
        t.wait(re.compile(r"events [1-9]\d*/s from ComfyUI, [1-9]\d*/s told here +latency p50 <"))

    def test_the_rate_of_questions_is_bounded(self):
        self.rig.start_daemon()
        self.submit(steps=100000, step_ms=5)
        t = self.top()

        def step():
            m = re.search(r"(\d+)/100000", t.text())
            return int(m[1]) if m else -1
        t.wait(lambda _: step() >= 0, "steps")
        first = step()
        began = time.monotonic()
        before = self.rig.status()["counters"]["requests"]
        t.wait(lambda _: step() > first + 300, "300 steps more")
        asked = self.rig.status()["counters"]["requests"] - before - 4
        took = time.monotonic() - began
        # status and, at first, queue; each once a second.
        self.assertLessEqual(asked, 2 * (took + 2))

    def test_filter_and_sort(self):
        self.rig.start_daemon()
        ids = [self.submit(steps=100000, step_ms=30)] + [self.submit(steps=3) for _ in range(4)]
        t = self.top()
        for i in ids:
            t.wait(i[:8])
        order = lambda: [i for i in (re.findall(r"^([0-9a-f]{8}) +(?:running|queued)", t.text(), re.M))]
        t.wait(lambda _: order() == [i[:8] for i in ids], "that order")  # by state and position
        t.keys(b"S")
        t.wait("by -state")
        t.wait(lambda _: order() == [i[:8] for i in reversed(ids)], "that order")
        t.keys(b"S" + b"s" * 3)
        t.wait("by id")
        t.wait(lambda _: order() == sorted(i[:8] for i in ids), "that order")
        t.keys(b"/" + ids[3][:8].encode() + b"\r")
        t.wait("1 of 5")
        t.wait(lambda _: order() == [ids[3][:8]], "that order")
        t.keys(b"\x1b")
        t.wait("5 of 5")
        t.keys(b"/queuedx\x7f\r")
        t.wait("4 of 5")
        t.keys(b"/\x1b")
        t.wait("5 of 5")

    def test_cancel_cancels(self):
        self.rig.start_daemon()
        first = self.submit(steps=100000, step_ms=30)
        second = self.submit(steps=3)
        t = self.top()
        t.wait(re.compile(second[:8] + " +queued"))
        t.keys(b"jc")
        t.wait("cancel %s? y/n" % second[:8])
        t.keys(b"n")
        t.wait("c cancel")
        t.keys(b"c")
        t.wait("cancel %s? y/n" % second[:8])
        # Nothing was asked of ComfyUI by a question.
        self.assertEqual(self.cancels(), [])
        t.keys(b"y")
        t.wait(re.compile("cancel %s: (dequeued|cancelled)" % second[:8]))
        t.wait(re.compile(second[:8] + " +failed .*cancelled"))
        self.assertEqual(self.cancels(), [second])
        t.keys(b"gc")
        t.wait("cancel %s? y/n" % first[:8])
        t.keys(b"y")
        t.wait(re.compile("cancel %s: (interrupted|cancelled)" % first[:8]))
        self.assertEqual(self.cancels(), [second, first])
        # The answer comes before the news.
        t.wait(re.compile(first[:8] + " +failed .*cancelled"))
        t.keys(b"c")
        t.wait("over already")

    def cancels(self):
        """The prompts that ComfyUI has cancelled."""
        return [e["prompt_id"] for e in self.rig.journal() if e["fact"] in ("deleted", "interrupt")]

    def test_restart_restarts(self):
        self.rig.start_daemon()
        self.mcp()
        session = self.rig.sessions()[0]
        t = self.top()
        t.wait(re.compile(r"s1 +mcp +%d " % session["pid"]))
        t.keys(b"r")
        t.wait("Tab goes to the sessions")
        t.keys(b"\tr")
        t.wait("it is being replaced")
        now = rig.wait_for(lambda: [s for s in self.rig.sessions() if s["restarts"] == 1 and s["pid"] > 0],
                           "a successor")[0]
        t.wait(re.compile(r"s1 +mcp +%d .* 1$" % now["pid"], re.M))
        self.assertNotEqual(now["pid"], session["pid"])

    def test_a_supervisor_that_goes_and_comes_back(self):
        t = self.top()
        t.wait("no supervisor")
        daemon = self.rig.start_daemon()
        t.wait("connected")
        first = self.submit(steps=100000, step_ms=30)
        t.wait(re.compile(first[:8] + " +running"))
        daemon.kill()
        daemon.wait()
        t.wait("no supervisor")
        t.keys(b"cy")
        t.wait("there is no supervisor now")
        daemon = self.rig.start_daemon()
        t.wait(re.compile(first[:8] + " +running"))
        t.wait("pid %d" % daemon.pid)
        t.gone("no supervisor")
        # One that hangs is told, too.
        daemon.send_signal(signal.SIGSTOP)
        t.wait("no answer from the supervisor for")
        daemon.send_signal(signal.SIGCONT)
        t.gone("no answer")

    def test_small_and_smaller(self):
        self.rig.start_daemon()
        self.mcp()
        prompt = self.submit(steps=100000, step_ms=30)
        t = self.top()
        t.wait(prompt[:8])
        t.resize(20, 5)
        t.wait(re.compile(r"\Aconnected .*\n.*\n%s runn +\d+%%.*\n.*\nq quit" % prompt[:8]))
        self.assertEqual(len(t.screen.display), 5)
        t.keys(b"\t")
        t.wait("mcp")
        t.keys(b"h")
        t.wait("select a row"[:11])
        t.keys(b"h")
        t.resize(1, 1)
        t.keys(b"jjkk\t")
        t.resize(200, 60)
        t.wait(re.compile("s1 +mcp"))
        t.wait(prompt[:8])
        t.keys(b"q")
        self.assertEqual(t.end(), 0)

    def test_quitting_restores_the_terminal(self):
        self.rig.start_daemon()
        for how in (b"q", b"\x03", signal.SIGTERM):
            t = self.top(TERM="xterm")
            t.wait("connected")
            self.assertNotEqual(termios.tcgetattr(t.slave), t.before)
            if isinstance(how, bytes):
                t.keys(how)
            else:
                t.process.send_signal(how)
            self.assertEqual(t.end(), 0)
            self.assertEqual(termios.tcgetattr(t.slave), t.before)
            # Back from the other screen, with a cursor.
            self.assertGreater(t.raw.rfind(b"\x1b[?1049l"), t.raw.rfind(b"\x1b[?1049h"))
            self.assertGreater(t.raw.rfind(b"\x1b[?25h"), t.raw.rfind(b"\x1b[?25l"))

    def test_its_terminal_goes_away(self):
        self.rig.start_daemon()
        t = self.top()
        t.wait("connected")
        os.close(t.slave)
        t.slave = os.open(os.devnull, os.O_RDONLY)
        os.close(t.master)
        t.master = os.open(os.devnull, os.O_RDONLY)
        self.assertEqual(t.process.wait(rig.PATIENCE_S), 0)

    def test_stopped_and_continued(self):
        self.rig.start_daemon()
        t = self.top()
        t.wait("connected")
        t.process.send_signal(signal.SIGTSTP)
        rig.wait_for(lambda: os.waitid(os.P_PID, t.process.pid, os.WSTOPPED | os.WNOWAIT | os.WNOHANG),
                     "top to stop")
        self.assertEqual(termios.tcgetattr(t.slave)[3] & termios.ECHO, t.before[3] & termios.ECHO)
        t.process.send_signal(signal.SIGCONT)
        self.submit(steps=3)
        t.wait("done")
        t.keys(b"q")
        self.assertEqual(t.end(), 0)

    def test_texts_of_others(self):
        """What a node calls itself can't draw on the screen."""
        self.rig.start_daemon()
        workflow = sampler(steps=200, step_ms=1000)
        text = json.dumps(workflow)
        node = next(k for k, v in workflow.items() if v["class_type"] == "SimSampler")
        evil = json.loads(text.replace('"%s"' % node, '"\\u001b[31mred\\u0007 \\u00e4\\u202e!"'))
        self.rig.run("submit", self.rig.write("evil.json", json.dumps(evil)), check=0)
        t = self.top()
        t.wait(re.compile(r"\?\[31mred\? \u00e4!  \d+/200"))
        self.assertNotIn(b"\x1b[31mred", t.raw)
        other = self.top(LC_ALL="C")
        other.wait(re.compile(r"\?\[31mred\? \?\?!  \d+/200"))
        self.assertTrue(all(b < 0x80 for b in other.raw))
        for kind in ("vt100", "xterm-256color", "screen", "vt52"):
            plain = self.top(TERM=kind)
            plain.wait(lambda _: b"PROMPT" in plain.raw and b"running" in plain.raw, kind)
            plain.keys(b"q")
            self.assertEqual(plain.end(), 0)


class NotATerminal(Base):
    def refused(self, why, **env):
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, slave)
        done = subprocess.run(self.command(), env=self.env(**env), stdin=slave, stdout=slave,
                              stderr=subprocess.PIPE, text=True, timeout=rig.PATIENCE_S)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn(why, done.stderr)
        self.assertEqual(select.select([master], [], [], 0)[0], [])

    def test_is_refused(self):
        done = self.rig.run("top", check=2)
        self.assertIn("the input is none", done.stderr)
        self.assertEqual(done.stdout, "")
        self.refused("nothing is known of TERM=no-such-thing", TERM="no-such-thing")
        self.refused("TERM is not set", TERM=None)
        self.refused("can't move its cursor", TERM="dumb")
        self.assertIn("Usage: comfymux top", self.rig.run("top", "--help", sock=False, check=0).stdout)
        self.rig.run("top", "now", check=2)
        self.rig.run("top", "--config", self.rig.write("bad", "nonsense = 1\n"), check=2)


if __name__ == "__main__":
    unittest.main()

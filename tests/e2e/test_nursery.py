"""Forked workers: where they come from, what becomes of them, and that nobody
outside notices when one dies. Every process is found by what the supervisor's
status and /proc say, and ended by pid."""
import array
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
import unittest

import proclib
import rig
from proclib import descendants, descriptors, is_running, name_of, parent_of
from rig import wait_for
from test_cli import sampler

# Patience of supervisor/roles.c.
READY_S = 10


class Keeper:
    """The keeper's part of the protocol, spoken by hand."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(rig.PATIENCE_S)
        self.sock.connect(path)
        self.rest = b""
        self.fds = []
        self.channels = []
        self.last = 0
        self.events = []
        self.ask("hello")

    def line(self):
        while b"\n" not in self.rest:
            data, control, _, _ = self.sock.recvmsg(65536, socket.CMSG_SPACE(64))
            if not data:
                raise EOFError("the supervisor closed the connection")
            for level, kind, payload in control:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    fds = array.array("i")
                    fds.frombytes(payload[:len(payload) // 4 * 4])
                    self.fds += list(fds)
            self.rest += data
        line, self.rest = self.rest.split(b"\n", 1)
        return json.loads(line)

    def ask(self, op, **fields):
        self.last += 1
        self.sock.sendall(json.dumps(dict(fields, op=op, id=self.last)).encode() + b"\n")
        while True:
            reply = self.line()
            if "event" in reply:
                self.events.append(reply)
            elif reply["id"] == self.last:
                return reply

    def attach(self, worker="fork", **fields):
        """(result, the descriptor as a socket)"""
        reply = self.ask("attach", kind="run", worker=worker, **fields)
        assert reply["ok"], reply
        assert reply["fds"] == 1, reply
        channel = socket.socket(fileno=self.fds.pop(0))
        if worker == "fork":
            self.channels.append(channel)  # at whose end the worker would leave
        return reply["result"], channel

    def event(self, name="worker"):
        while True:
            found = [e for e in self.events if e["event"] == name]
            if found:
                self.events.remove(found[0])
                return found[0]
            reply = self.line()
            if "event" in reply:
                self.events.append(reply)

    def close(self):
        self.sock.close()
        for channel in self.channels:
            channel.close()
        for fd in self.fds:
            os.close(fd)


def frame(kind, line=0, payload=b""):
    """A frame of the session channel; kinds count in the order of
    messages.def."""
    kinds = ("hello", "ready", "request", "cancel", "record", "output", "response", "open", "file",
             "close", "closed", "bus", "want_bus", "log", "end")
    return struct.pack("<IHHQ", len(payload), kinds.index(kind) + 1, 0, line) + payload


HELLO = frame("hello", payload=b'{"kind":"run","bus":true}')


class NurseryCase(unittest.TestCase):
    def setUp(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)
        self.addCleanup(self.end_orphans)
        self.daemon = None
        self.seen = set()

    def begin(self, *args, **kwargs):
        self.rig.start_sim()
        self.daemon = self.rig.start_daemon(*args, **kwargs)

    def end_orphans(self):
        """Workers outlive a killed supervisor and keeper only if something is
        wrong; they must not outlive the test."""
        for pid in self.seen:
            if name_of(pid) in ("comfymux-worker", "comfymux-zygote"):
                proclib.end(pid)

    def keeper(self):
        k = Keeper(self.rig.socket)
        self.addCleanup(k.close)
        return k

    def sessions(self):
        found = self.rig.sessions()
        self.seen.update(s["pid"] for s in found if s["pid"] > 0)
        return found

    def session(self, ready=True):
        """The only session, once it has a worker."""
        def look():
            found = [s for s in self.sessions() if s["pid"] > 0]
            return found[0] if found else None
        return wait_for(look, "a session with a worker")

    def zygote(self):
        pid = parent_of(self.session()["pid"])
        self.assertEqual(name_of(pid), "comfymux-zygote")
        self.seen.add(pid)
        return pid

    def start_run(self, steps=100, step_ms=20):
        self.rig.write("wf.json", sampler(steps=steps, step_ms=step_ms))
        return self.rig.start("comfymux", "run", "wf.json", "--json", "--socket", self.rig.socket,
                              stdout=subprocess.PIPE)

    def running(self, **kwargs):
        """A run whose prompt executes, and stands still until completed()."""
        self.rig.pause(steps=2)
        run = self.start_run(**kwargs)
        while b'"executing"' not in self.rig.read_line(run.stdout, "progress"):
            pass
        return run

    def completed(self, run):
        """Its answer, given once; its prompt, submitted once."""
        self.rig.resume()
        lines = [json.loads(line) for line in run.stdout.read().decode().splitlines()]
        self.assertEqual(run.wait(rig.PATIENCE_S), 0, self.rig.log_of("comfymux"))
        ends = [line for line in lines if "progress_method" in line]
        self.assertEqual(len(ends), 1, lines)
        self.assertEqual(ends[0]["status"], "completed")
        self.assertEqual(len([j for j in self.rig.journal() if j["fact"] == "post"]), 1)
        return ends[0]

    def gone(self, pid, what):
        wait_for(lambda: not is_running(pid), what)

    def log(self):
        return self.rig.log_of("comfymuxd")


class Forked(NurseryCase):
    def test_a_run(self):
        self.begin()
        self.assertEqual(descendants(self.daemon.pid), [])  # none before one is wanted
        run = self.running()
        session = self.session()
        worker = session["pid"]
        self.assertEqual(session["kind"], "run")
        self.assertEqual(session["keeper_pid"], run.pid)
        self.assertEqual(session["uid"], os.getuid())
        self.assertEqual(session["restarts"], 0)
        self.assertEqual(session["in_flight"], 1)
        self.assertEqual(name_of(worker), "comfymux-worker")
        self.assertEqual(parent_of(self.zygote()), self.daemon.pid)
        self.assertEqual(self.completed(run)["progress_method"], "websocket")
        self.gone(worker, "the worker to leave")
        wait_for(lambda: not self.sessions(), "its session to end")

    def test_holds_nothing_else(self):
        """Beside the standard three: session, bus, and its loop's own."""
        self.begin()
        first = self.running()
        second = self.start_run(steps=1)
        wait_for(lambda: len([s for s in self.sessions() if s["pid"] > 0]) == 2, "two sessions")

        def with_two_sockets(pid):
            fds = descriptors(pid)
            return fds if sum(name.startswith("socket:") for name in fds.values()) == 2 else None
        for session in self.sessions():
            # Its beginning takes a connection to ComfyUI, for a moment.
            fds = wait_for(lambda: with_two_sockets(session["pid"]), "no more than two sockets")
            self.assertTrue(all(name.startswith(("anon_inode:", "socket:")) for fd, name in fds.items() if fd > 2), fds)
            self.assertEqual((fds[0], fds[1]), ("/dev/null", "/dev/null"))
            with open("/proc/%d/status" % session["pid"]) as f:
                status = dict(line.split(":", 1) for line in f if ":" in line)
            self.assertEqual(int(status["SigBlk"], 16), 0)
        # What a fork has taken, it closes when it has answered.
        zygote = self.zygote()
        wait_for(lambda: len([fd for fd in descriptors(zygote) if fd > 2]) == 1, "one descriptor")
        self.rig.resume()
        for run in (first, second):
            run.send_signal(signal.SIGINT)
            run.wait(rig.PATIENCE_S)

    def test_fifty_at_once(self):
        self.begin()
        keepers = [self.keeper() for _ in range(50)]
        channels = []
        lock = threading.Lock()

        def attach(k):
            channel = k.attach()[1]
            channel.sendall(HELLO)
            with lock:
                channels.append(channel)
        threads = [threading.Thread(target=attach, args=(k,)) for k in keepers]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        found = self.sessions()
        self.assertEqual(len({s["pid"] for s in found}), 50)
        self.assertEqual(len({parent_of(s["pid"]) for s in found}), 1)
        zygote = self.zygote()
        for k in keepers:
            k.close()
        for channel in channels:
            channel.close()
        wait_for(lambda: descendants(self.daemon.pid) == [zygote], "the workers to leave")
        wait_for(lambda: not self.sessions(), "the sessions to end")
        wait_for(lambda: len(os.listdir("/proc/%d/fd" % self.daemon.pid)) < 40, "descriptors to be closed")
        self.assertNotIn("warn", self.log())

    def test_memory(self):
        """A worker shares its pages with its siblings."""
        if "asan" in rig.BIN:
            self.skipTest("sanitizers keep pages of their own")
        self.begin()
        keepers = [self.keeper() for _ in range(10)]
        channels = [k.attach()[1] for k in keepers]
        for channel in channels:
            channel.sendall(HELLO)
            self.assertEqual(channel.recv(16)[4:6], frame("ready")[4:6])
        for session in self.sessions():
            with open("/proc/%d/smaps_rollup" % session["pid"]) as f:
                pss = [int(line.split()[1]) for line in f if line.startswith("Pss:")][0]
            self.assertLess(pss, 600, "kB")
        for channel in channels:
            channel.close()

    def test_told_beats_hello(self):
        """A keeper can't send the service's worker anywhere else."""
        self.begin()
        there = socket.socket()
        there.bind(("127.0.0.1", 0))
        there.listen()
        there.settimeout(0.2)
        k = self.keeper()
        _, channel = k.attach()
        hello = {"kind": "run", "comfyui": "http://127.0.0.1:%d" % there.getsockname()[1],
                 "comfyui_named": True, "address": "127.0.0.1", "client_id": "mine",
                 "proxy": "http://127.0.0.1:%d" % there.getsockname()[1], "bus": True}
        channel.sendall(frame("hello", payload=json.dumps(hello).encode()))
        channel.sendall(frame("bus", payload=b"none"))  # alone from now on
        channel.sendall(frame("request", 1, json.dumps(
            {"op": "run", "params": {"workflow": json.loads(sampler())}}).encode()))
        wait_for(lambda: [j for j in self.rig.journal() if j["fact"] == "post"], "the submission")
        post = [j for j in self.rig.journal() if j["fact"] == "post"][0]
        self.assertEqual(post["client_id"], self.rig.status()["upstream"]["client_id"])
        self.assertRaises(socket.timeout, there.accept)
        there.close()
        channel.close()

    def test_bus_of_a_stranger(self):
        """Whoever hands a bus over could be its other end: only one that the
        service's user made is believed."""
        if os.getuid() != 0:
            self.skipTest("needs root to pose as others")
        self.begin()
        k = self.keeper()
        _, channel = k.attach()
        channel.sendall(HELLO)
        ours, theirs = socket.socketpair()
        code = ("import socket,os,array\nos.setgid(12001);os.setuid(12001)\n"
                "a,b=socket.socketpair()\n"
                "socket.socket(fileno=%d).sendmsg([b'x'],[(socket.SOL_SOCKET,socket.SCM_RIGHTS,"
                "array.array('i',[a.fileno(),b.fileno()]))])" % theirs.fileno())
        subprocess.run(["python3", "-c", code], check=True, pass_fds=(theirs.fileno(),))
        control = ours.recvmsg(1, socket.CMSG_SPACE(8))[1][0][2]
        near, far = array.array("i", control[:8])
        bus = struct.pack("<IHHQ", 0, 12, 1, 0)
        self.assertEqual(bus[4:6], frame("bus")[4:6])
        channel.sendmsg([bus], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [far]))])
        os.close(far)
        near = socket.socket(fileno=near)
        near.settimeout(rig.PATIENCE_S)
        self.assertEqual(near.recv(1000), b"")  # closed without a word
        wait_for(lambda: "a bus of uid 12001 was refused" in self.log(), "the refusal")
        for s in (near, ours, theirs, channel):
            s.close()


class Deaths(NurseryCase):
    def test_killed_worker_has_a_successor(self):
        self.begin()
        run = self.running()
        worker = self.session()["pid"]
        os.kill(worker, signal.SIGKILL)
        session = wait_for(lambda: ([s for s in self.sessions() if s["pid"] not in (0, worker)] or [None])[0],
                           "a successor")
        self.assertEqual(session["restarts"], 1)
        self.assertEqual(session["keeper_pid"], run.pid)
        self.assertEqual(self.completed(run)["progress_method"], "websocket")
        self.assertIn("was killed by signal 9", self.log())

    def test_fault_replaces_the_zygote(self):
        self.begin()
        other = self.keeper()
        _, channel = other.attach()
        channel.sendall(HELLO)
        run = self.running()
        found = {s["keeper_pid"]: s["pid"] for s in self.sessions()}
        bystander, worker = found[os.getpid()], found[run.pid]
        zygote = parent_of(worker)
        self.seen.add(zygote)
        os.kill(worker, signal.SIGSEGV)
        self.completed(run)
        self.gone(zygote, "the old zygote to leave")
        # The sibling lives on, as the supervisor's child, and under its care.
        self.assertTrue(is_running(bystander))
        self.assertEqual(parent_of(bystander), self.daemon.pid)
        run = self.running(steps=1000)
        fresh = parent_of([s["pid"] for s in self.sessions() if s["keeper_pid"] == run.pid][0])
        self.assertNotEqual(fresh, zygote)
        self.assertEqual(name_of(fresh), "comfymux-zygote")
        self.rig.resume()
        run.send_signal(signal.SIGINT)
        run.wait(rig.PATIENCE_S)
        os.kill(bystander, signal.SIGKILL)
        self.assertEqual(other.event()["data"], {"pid": bystander, "signal": signal.SIGKILL})
        self.gone(bystander, "the orphan to be reaped")
        channel.close()

    def test_killed_zygote(self):
        self.begin()
        run = self.running()
        worker, zygote = self.session()["pid"], self.zygote()
        os.kill(zygote, signal.SIGKILL)
        self.gone(zygote, "the zygote's end")
        k = self.keeper()
        _, channel = k.attach()
        channel.sendall(HELLO)
        self.assertEqual(channel.recv(16)[4:6], frame("ready")[4:6])
        self.assertTrue(is_running(worker))
        self.assertEqual({s["restarts"] for s in self.sessions()}, {0})
        self.assertEqual(len({parent_of(s["pid"]) for s in self.sessions()}), 2)
        self.assertEqual(parent_of(worker), self.daemon.pid)
        self.completed(run)
        self.gone(worker, "the orphan to leave")
        channel.close()

    def test_zygote_killed_while_it_is_asked(self):
        """A fork request that died with its zygote is made again."""
        self.begin()
        self.keeper().attach()
        zygote = self.zygote()
        os.kill(zygote, signal.SIGSTOP)
        run = self.start_run(steps=5)
        wait_for(lambda: [s for s in self.sessions() if s["keeper_pid"] == run.pid], "the attach")
        os.kill(zygote, signal.SIGKILL)
        self.assertEqual(self.completed(run)["progress_method"], "websocket")

    def test_stopped_at_start(self):
        """Not ready in time, by its own fault: killed, and nobody waits."""
        self.begin()
        k = self.keeper()
        _, channel = k.attach()
        worker = self.session()["pid"]
        os.kill(worker, signal.SIGSTOP)
        channel.sendall(HELLO)
        began = time.monotonic()
        self.assertEqual(k.event()["data"], {"pid": worker, "signal": signal.SIGKILL})
        self.assertGreater(time.monotonic() - began, READY_S / 2)
        self.assertRaises(ConnectionResetError, channel.recv, 1)  # HELLO was never read
        self.assertIn("didn't get ready", self.log())
        _, channel = k.attach()
        channel.sendall(HELLO)
        self.assertEqual(channel.recv(16)[4:6], frame("ready")[4:6])
        self.assertEqual(self.session()["restarts"], 1)

    def test_killed_keeper(self):
        self.begin()
        run = self.running()
        worker = self.session()["pid"]
        run.kill()
        run.wait()
        self.gone(worker, "the worker to leave")
        wait_for(lambda: not self.sessions(), "its session to end")
        self.rig.resume()
        prompt = self.rig.json("history")["prompts"][0]["prompt_id"]
        self.assertEqual(self.rig.json("watch", prompt)["status"], "completed")

    def test_keeper_goes_worker_is_stopped(self):
        """What doesn't leave by itself is made to."""
        self.begin()
        k = self.keeper()
        _, channel = k.attach()
        channel.sendall(HELLO)
        self.assertEqual(channel.recv(16)[4:6], frame("ready")[4:6])
        worker = self.session()["pid"]
        os.kill(worker, signal.SIGSTOP)
        channel.close()
        k.close()
        self.gone(worker, "the worker to be killed")
        wait_for(lambda: "was killed by signal 9" in self.log(), "the obituary")

    def test_keeps_dying(self):
        """Each successor of one that is of no use waits longer."""
        self.begin()
        k = self.keeper()
        killed, waits = None, []
        for _ in range(4):
            _, channel = k.attach()
            if killed:
                waits.append(time.monotonic() - killed)
            worker = self.session()["pid"]
            killed = time.monotonic()
            os.kill(worker, signal.SIGKILL)
            k.event()
            channel.close()
        # At 3 failures and at 6, and then at the pace of the cap.
        for wait, least in zip(waits, (0.2, 1, 1), strict=True):
            self.assertGreaterEqual(wait, least, waits)
        self.assertEqual(self.session_of(k)["restarts"], 3)
        self.assertEqual(self.rig.status()["counters"]["workers_failed"], 4)

    def session_of(self, k):
        return self.rig.sessions()[0]

    def test_programs_gone(self):
        """Workers that can't be forked don't take the session with them."""
        self.rig.start_sim()
        folder = self.rig.path("bin")
        os.mkdir(folder)
        program = shutil.copy(os.path.join(rig.BIN, "comfymuxd"), folder)
        with open(self.rig.path("comfymuxd.log"), "ab") as log:
            self.rig.processes.append(subprocess.Popen(
                [program, "--socket", self.rig.socket, "--state-dir", self.rig.state,
                 "--comfyui", self.rig.sim_url],
                env=self.rig.env, stdin=subprocess.DEVNULL, stderr=log))
        wait_for(self.rig.can_connect, "the socket")
        wait_for(lambda: self.rig.status()["upstream"]["state"] == "connected", "the upstream link")
        self.rig.write("wf.json", sampler())
        done = self.rig.run("run", "wf.json", "--json", check=0)
        result = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual(result["progress_method"], "websocket")
        self.assertEqual(done.stderr, "")
        self.assertIn("comfymux-worker is neither in", self.log())


class Restarts(NurseryCase):
    def restart(self):
        self.daemon = self.rig.start_daemon()

    def test_killed_supervisor(self):
        """The worker lives on, polls, and returns to the bus."""
        self.begin()
        run = self.running()
        worker = self.session()["pid"]
        self.daemon.kill()
        self.daemon.wait()
        before = self.rig.stats()["requests"].get("GET /queue", 0)
        wait_for(lambda: self.rig.stats()["requests"].get("GET /queue", 0) > before, "polling")
        self.assertTrue(is_running(worker))
        self.restart()
        session = self.session()
        self.assertEqual(session["pid"], worker)
        self.assertEqual(session["keeper_pid"], run.pid)
        # It hears of steps again, and asks no more.
        self.rig.pause(steps=5)
        while b'"websocket"' not in self.rig.read_line(run.stdout, "progress by events"):
            pass
        self.completed(run)
        self.gone(worker, "the worker to leave")

    def test_two_keepers_with_one_id(self):
        """Each supervisor counts its sessions from s1: of two keepers that
        come back with the same id, neither loses its session."""
        self.begin()
        first = self.start_run(steps=10000, step_ms=50)
        self.session()
        first.send_signal(signal.SIGSTOP)
        self.daemon.kill()
        self.daemon.wait()
        self.daemon = self.rig.start_daemon()
        second = self.start_run(steps=10000, step_ms=50)
        wait_for(lambda: [s for s in self.sessions() if s["keeper_pid"] == second.pid and s["pid"] > 0],
                 "the second session")
        first.send_signal(signal.SIGCONT)
        found = wait_for(lambda: (lambda all: len(all) == 2 and all)(self.sessions()), "both sessions")
        self.assertEqual({s["keeper_pid"] for s in found}, {first.pid, second.pid})
        for run in (first, second):
            run.send_signal(signal.SIGINT)
            run.wait(rig.PATIENCE_S)

    def test_stop_for_restart(self):
        self.begin()
        run = self.running()
        worker, session = self.session()["pid"], self.session()["id"]
        self.daemon.send_signal(signal.SIGUSR2)
        self.assertEqual(self.daemon.wait(rig.PATIENCE_S), 0)
        self.assertTrue(is_running(worker))
        self.restart()
        self.assertEqual(self.session()["pid"], worker)
        self.assertEqual(self.session()["id"], session)
        self.completed(run)

    def test_stop_takes_workers_along(self):
        self.begin()
        run = self.running()
        worker, zygote = self.session()["pid"], self.zygote()
        self.daemon.terminate()
        self.assertEqual(self.daemon.wait(rig.PATIENCE_S), 0)
        self.assertFalse(is_running(worker))
        self.gone(zygote, "the zygote to leave")
        # The keeper goes on with a worker of its own.
        self.assertEqual(self.completed(run)["progress_method"], "polling")

    def test_stop_kills_what_does_not_stop(self):
        self.begin()
        workers = []
        for n in range(8):
            self.keeper().attach()
            # At once: if it had no time yet to close what it has of its zygote, that
            # is no reason to let it live.
            workers.append([int(pid) for pid in re.findall(r"worker forked .*?pid=(\d+)", self.log())][-1])
            os.kill(workers[-1], signal.SIGSTOP)
        self.daemon.terminate()
        self.assertEqual(self.daemon.wait(rig.PATIENCE_S), 0)
        for worker in workers:
            self.gone(worker, "the stopped worker's end")

    def test_supervisor_appears(self):
        """A worker of the keeper's own gives way to a forked one."""
        self.rig.start_sim()
        self.rig.pause(steps=2)
        self.rig.write("wf.json", sampler(steps=100, step_ms=20))
        run = self.rig.start("comfymux", "run", "wf.json", "--json", "--socket", self.rig.socket,
                             "--comfyui", self.rig.sim_url, stdout=subprocess.PIPE)
        while b'"executing"' not in self.rig.read_line(run.stdout, "progress"):
            pass
        own = [pid for pid in descendants(run.pid) if name_of(pid) == "comfymux-worker"]
        self.assertEqual(len(own), 1)
        self.restart()
        session = self.session()
        self.assertNotEqual(session["pid"], own[0])
        self.assertEqual(parent_of(self.zygote()), self.daemon.pid)
        self.gone(own[0], "the keeper's own to leave")
        self.completed(run)

    def test_restart_workers(self):
        self.begin(shared=True)
        run = self.running()
        idle = self.keeper()
        _, channel = idle.attach()
        channel.sendall(HELLO)
        found = {s["keeper_pid"]: s for s in self.sessions()}
        worker, bystander = found[run.pid], found[os.getpid()]
        zygote = parent_of(worker["pid"])
        operator = self.keeper()
        self.assertEqual(operator.ask("restart_workers", session="s999")["error"]["type"], "not_found")
        self.assertEqual(operator.ask("restart_workers", session=worker["id"])["result"], {"workers": 1})
        self.gone(worker["pid"], "the worker to stop")
        self.gone(zygote, "the zygote to leave")
        self.assertTrue(is_running(bystander["pid"]))
        fresh = wait_for(lambda: [s for s in self.sessions() if s["id"] == worker["id"]
                                  and s["pid"] not in (0, worker["pid"])], "a successor")[0]
        self.assertEqual(fresh["restarts"], 1)
        self.assertEqual(operator.ask("restart_workers")["result"], {"workers": 2})
        self.assertEqual(idle.event()["data"], {"pid": bystander["pid"], "status": 0})
        self.completed(run)
        self.assertEqual(self.rig.status()["counters"]["workers_failed"], 0)

    def test_restart_workers_of_a_tenant(self):
        """His own, and the zygote of all stays."""
        if os.getuid() != 0:
            self.skipTest("needs root to pose as others")
        self.begin(shared=True)
        k = self.keeper()
        _, channel = k.attach()
        channel.sendall(HELLO)
        session, zygote = self.session(), self.zygote()
        self.assertEqual(self.as_tenant("restart_workers")["result"], {"workers": 0})
        refusal = self.as_tenant("restart_workers", session=session["id"])
        self.assertEqual(refusal["error"]["type"], "not_found")
        self.assertTrue(is_running(session["pid"]))
        # In one connection: a session of his own, then its restart.
        reply = self.as_tenant("attach", "restart_workers", kind="run", worker="fork")
        self.assertEqual(reply["result"], {"workers": 1})
        self.assertTrue(is_running(session["pid"]))
        # Not by self.session(): the tenant's may be there yet.
        self.assertEqual(parent_of(session["pid"]), zygote)
        self.assertTrue(is_running(zygote))

    def test_restart_workers_command(self):
        self.begin()
        run = self.running()
        worker, session = self.session()["pid"], self.session()["id"]
        done = self.rig.run("restart-workers", "s999")
        self.assertEqual(done.returncode, 1, done)
        self.assertIn("no such session", done.stderr)
        self.assertTrue(is_running(worker))
        self.assertEqual(self.rig.run("restart-workers", session, check=0).stdout, "1 worker is replaced\n")
        self.gone(worker, "the worker to stop")
        wait_for(lambda: self.sessions()[0]["pid"] not in (0, worker), "a successor")
        self.assertEqual(self.rig.json("restart-workers"), {"workers": 1})
        self.completed(run)
        wait_for(lambda: not self.sessions(), "its session to end")
        self.assertEqual(self.rig.run("restart-workers", check=0).stdout, "0 workers are replaced\n")
        self.daemon.terminate()
        self.daemon.wait()
        self.assertEqual(self.rig.run("restart-workers").returncode, 5)

    def test_restart_of_an_adopted_worker(self):
        """One from before a restart of the supervisor is nobody's child."""
        self.begin()
        run = self.running()
        worker = self.session()["pid"]
        self.daemon.kill()
        self.daemon.wait()
        self.restart()
        self.assertEqual(self.session()["pid"], worker)
        self.assertEqual(self.keeper().ask("restart_workers")["result"], {"workers": 1})
        self.gone(worker, "the worker to stop")
        self.completed(run)

    def as_tenant(self, *ops, **fields):
        """The reply to the last of the ops, each with the same fields."""
        os.chmod(self.rig.dir, 0o755)
        os.chmod(self.rig.socket, 0o666)
        lines = [json.dumps(dict(fields if op == ops[0] else {}, op=op, id=i)) + "\n"
                 for i, op in enumerate(("hello",) + ops)]
        code = ("import socket,os,sys\nos.setgroups([]);os.setgid(12001);os.setuid(12001)\n"
                "s=socket.socket(socket.AF_UNIX);s.connect(%r)\nf=s.makefile('rwb')\n"
                "for line in %r:\n f.write(line.encode());f.flush();reply=f.readline()\n"
                "print(reply.decode())" % (self.rig.socket, lines))
        return json.loads(subprocess.run(["python3", "-c", code], check=True,
                                         stdout=subprocess.PIPE).stdout)


class Attach(NurseryCase):
    """The op itself, and what may be made of it."""

    def test_refusals(self):
        self.begin()
        k = self.keeper()
        self.assertEqual(k.ask("attach", kind="run", worker="spawn")["error"]["type"], "invalid")
        self.assertEqual(k.ask("attach", kind="x", worker="fork")["error"]["type"], "invalid")
        self.assertEqual(k.ask("attach", kind="run", worker="fork",
                               comfyui="http://127.0.0.1:1")["error"]["type"], "config")
        self.assertEqual(self.sessions(), [])

    def test_one_at_a_time(self):
        self.begin()
        k = self.keeper()
        _, channel = k.attach()
        zygote = self.zygote()
        channel.close()
        os.kill(zygote, signal.SIGSTOP)
        self.addCleanup(os.kill, zygote, signal.SIGCONT)
        k = self.keeper()
        k.sock.sendall(b'{"op":"attach","kind":"run","worker":"fork","id":"a"}\n'
                       b'{"op":"attach","kind":"run","worker":"fork","id":"b"}\n')
        reply = k.line()
        self.assertEqual((reply["id"], reply["error"]["type"]), ("b", "busy"))

    def test_bus_is_bound_to_the_session(self):
        self.begin()
        k = self.keeper()
        result, bus = k.attach("keep")
        self.addCleanup(bus.close)
        b = Keeper.__new__(Keeper)
        b.sock, b.rest, b.fds, b.last, b.events = bus, b"", [], 0, []
        self.assertTrue(b.ask("hello")["ok"])
        # Whatever it asks for, it is its own session's.
        reply = b.ask("attach", kind="mcp", worker="fork", session="s77")
        self.assertEqual(reply["result"]["session"], result["session"])
        self.assertNotIn("fds", reply)
        self.assertEqual(self.sessions()[0]["pid"], os.getpid())
        k.close()
        wait_for(lambda: not self.sessions(), "the session's end")
        self.assertEqual(b.ask("attach", kind="run")["error"]["type"], "not_found")

    def test_session_of_another_user(self):
        if os.getuid() != 0:
            self.skipTest("needs root to pose as others")
        self.begin(shared=True)
        k = self.keeper()
        result, _ = k.attach()
        os.chmod(self.rig.dir, 0o755)
        os.chmod(self.rig.socket, 0o666)
        worker = self.session()["pid"]
        code = ("import socket,os,json\nos.setgroups([]);os.setgid(12001);os.setuid(12001)\n"
                "s=socket.socket(socket.AF_UNIX);s.connect(%r)\n"
                "s.sendall(b'{\"op\":\"hello\",\"id\":1}\\n{\"op\":\"attach\",\"id\":2,\"kind\":\"run\","
                "\"worker\":\"keep\",\"session\":\"%s\"}\\n')\n"
                "d=b''\nwhile d.count(b'\\n')<2:d+=s.recv(65536)\nprint(d.splitlines()[1].decode())"
                % (self.rig.socket, result["session"]))
        theirs = json.loads(subprocess.run(["python3", "-c", code], check=True,
                                           stdout=subprocess.PIPE).stdout)
        self.assertNotEqual(theirs["result"]["session"], result["session"])
        self.assertEqual(theirs["result"]["comfyui"]["client_id"], "")
        self.assertTrue(is_running(worker))
        self.assertEqual([s["pid"] for s in self.sessions() if s["id"] == result["session"]], [worker])

    def test_keeper_that_never_takes_its_worker(self):
        """It closes with the reply on its way: nothing is left."""
        self.begin()
        for _ in range(10):
            k = Keeper(self.rig.socket)
            k.sock.sendall(b'{"op":"attach","kind":"run","worker":"fork","id":9}\n')
            k.sock.close()
        wait_for(lambda: self.rig.status()["counters"]["workers"] >= 1 or
                 self.rig.status()["counters"]["clients"] >= 10, "the supervisor to see them")
        wait_for(lambda: not self.sessions(), "the sessions to end")
        wait_for(lambda: all(name_of(pid) == "comfymux-zygote" for pid in descendants(self.daemon.pid)),
                 "the workers to leave")
        self.assertEqual(self.sessions(), [])


if __name__ == "__main__":
    unittest.main()

"""The system under test and what can be done to it: comfysim, a proxy in front
of it, comfymuxd, and the faults of schedule.py. Processes are found below this
one (it is their reaper when a parent dies) and ended by pid.
"""
import ctypes
import heapq
import itertools
import os
import signal
import subprocess
import threading
import time

import proclib
import rig
from proclib import descriptors
from proxy import Proxy

PR_SET_CHILD_SUBREAPER = 36
CONTROL_S = 1.0  # for comfysim's control interface: it may be stopped
LEAVE_S = 30
FAULTS = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL")

# Shorter than by default, so that a run of a minute sees every mechanism often.
CONFIG = {
    "autostart": "no", "connect_timeout_ms": 1000, "request_timeout_ms": 3000,
    "ping_interval_s": 2, "pong_timeout_s": 2, "poll_interval_ms": 400,
    "default_wait_s": 3600, "cancel_policy": "interrupt", "log_level": "debug",
    "retain_prompts": 2000,
}


def stat_of(pid):
    """(name, state, parent), or None."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            text = f.read()
    except OSError:
        return None
    name, rest = text[text.index("(") + 1:].rsplit(")", 1)
    return name, rest.split()[0], int(rest.split()[1])


def below(pid):
    """{pid: (name, state, parent)} of all processes below it."""
    table = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            stat = stat_of(int(entry))
            if stat:
                table[int(entry)] = stat
    found, todo = {}, [pid]
    while todo:
        parent = todo.pop()
        for child, stat in table.items():
            if stat[2] == parent and child not in found:
                found[child] = stat
                todo.append(child)
    return found


def connections(pid):
    """TCP connections that it holds."""
    inodes = set()
    with open("/proc/net/tcp") as f:
        for line in f.read().splitlines()[1:]:
            inodes.add("socket:[%s]" % line.split()[9])
    return [d for d in descriptors(pid).values() if d in inodes]


def catches(pid, sig):
    """Whether it has a handler of its own."""
    try:
        with open("/proc/%d/status" % pid) as f:
            for line in f:
                if line.startswith("SigCgt:"):
                    return bool(int(line.split()[1], 16) >> sig - 1 & 1)
    except OSError:
        pass
    return False


def memory_kb(pid):
    """Anonymous memory, what a leak shows in."""
    with open("/proc/%d/status" % pid) as f:
        for line in f:
            if line.startswith("RssAnon:"):
                return int(line.split()[1])
    raise AssertionError("no RssAnon of %d" % pid)


class World:
    def __init__(self, seed):
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
        self.seed = seed
        self.rig = rig.Rig()
        self.spawned = {}
        self.spawn_lock = threading.Lock()
        self.history = []
        self.problems = []
        self.pending = []  # heap of (at, serial, what, function)
        self.serial = itertools.count()
        self.stopped = set()
        self.signals = []  # (pid, signal) that we sent
        self.supervisor = self.sim = None
        self.expected_down = set()
        self.sim_port = rig.refusing_port()  # while comfysim is away
        self.sim_url = "http://127.0.0.1:%d" % self.sim_port
        self.journal_path = self.rig.path("journal")
        # Every other seed: one user's own supervisor, or a service for several.
        self.shared = seed % 2 == 1
        # As root a supervisor reads the system's file only, unless it is told.
        self.config = self.rig.write("config/comfymux/comfymux.conf", "".join(
            "%s = %s\n" % kv for kv in
            list(CONFIG.items()) + [("socket_mode", "0666" if self.shared else "0600")]))
        self.start_sim()
        self.proxy = Proxy(self.sim_port)
        self.url = "http://127.0.0.1:%d" % self.proxy.port
        self.start_supervisor()

    # --- processes ---

    def note(self, text):
        self.history.append((time.time(), text))

    def wrong(self, text):
        self.note("WRONG: " + text)
        self.problems.append((text, None))

    def spawn(self, argv, **kwargs):
        with self.spawn_lock:
            process = subprocess.Popen(argv, env=self.rig.env, cwd=self.rig.dir, **kwargs)
            self.spawned[process.pid] = process
        return process

    def start_sim(self):
        out = open(self.rig.path("comfysim.log"), "ab")
        self.sim = self.spawn(
            [os.path.join(rig.BIN, "comfysim"), "--port", str(self.sim_port), "--quiet",
             "--history-lag", "5", "--speed", "2", "--journal", self.journal_path],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=out)
        out.close()
        self.rig.read_line(self.sim.stdout, "comfysim to listen")
        self.expected_down.discard("comfysim")

    def start_supervisor(self):
        log = open(self.rig.path("comfymuxd.log"), "ab")
        self.supervisor = self.spawn(
            [os.path.join(rig.BIN, "comfymuxd"), "--socket", self.rig.socket, "--state-dir",
             self.rig.state, "--comfyui", self.url, "--config", self.config,
             *(["--user", "root"] if os.geteuid() == 0 else [])],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)
        log.close()
        self.expected_down.discard("comfymuxd")
        self.note("comfymuxd is pid %d" % self.supervisor.pid)

    def workers(self):
        return sorted(pid for pid, stat in below(os.getpid()).items()
                      if stat[0] == "comfymux-worker" and stat[1] != "Z")

    def zygotes(self):
        return sorted(pid for pid, stat in below(os.getpid()).items()
                      if stat[0] == "comfymux-zygote" and stat[1] != "Z")

    def kill(self, pid, sig):
        try:
            os.kill(pid, sig)
        except ProcessLookupError:
            return False
        self.signals.append((pid, sig))
        if sig == signal.SIGSTOP:
            self.stopped.add(pid)
        if sig == signal.SIGCONT:
            self.stopped.discard(pid)
        return True

    def reap(self):
        """Orphans become our children; init would reap them."""
        for pid, stat in below(os.getpid()).items():
            if stat[1] == "Z" and stat[2] == os.getpid() and pid not in self.spawned:
                try:
                    os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    pass

    def watch(self):
        """Nobody dies but by our hand."""
        for name, process in (("comfymuxd", self.supervisor), ("comfysim", self.sim)):
            if process.poll() is not None and name not in self.expected_down:
                self.wrong("%s (pid %d) ended by itself with %d" % (name, process.pid, process.returncode))
                self.start_supervisor() if name == "comfymuxd" else self.start_sim()

    def control(self, **order):
        status, reply = rig.http("POST", self.sim_url + "/sim/fault", order, timeout=CONTROL_S)
        if status != 200:
            raise AssertionError("comfysim refuses %r: %r" % (order, reply))

    # --- faults: fault_NAME(arguments of schedule.py) ---

    def pick(self, pids, share):
        return pids[int(share * len(pids))] if pids else None

    def signal_worker(self, pick, sig):
        pid = self.pick(self.workers(), pick)
        if pid is None or not self.kill(pid, sig):
            return "no worker"
        return "pid %d" % pid

    def fault_worker_kill(self, pick):
        return self.signal_worker(pick, signal.SIGKILL)

    def fault_workers_kill(self, share):
        pids = self.workers()
        chosen = pids[:max(1, int(len(pids) * share))]
        for pid in chosen:
            self.kill(pid, signal.SIGKILL)
        return "pids %s" % chosen

    def fault_worker_fault(self, pick, signal):
        return self.signal_worker(pick, getattr(globals()["signal"], signal))

    def stop(self, pid, for_s):
        if pid is None or not self.kill(pid, signal.SIGSTOP):
            return "nothing to stop"
        self.later(for_s, "continue pid %d" % pid, lambda: self.kill(pid, signal.SIGCONT))
        return "pid %d" % pid

    def fault_worker_stop(self, pick, for_s):
        return self.stop(self.pick(self.workers(), pick), for_s)

    def fault_restart_workers(self):
        self.spawn([os.path.join(rig.BIN, "comfymux"), "restart-workers", "--socket", self.rig.socket],
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def fault_zygote_kill(self):
        pids = self.zygotes()
        for pid in pids:
            self.kill(pid, signal.SIGKILL)
        return "pids %s" % pids

    def fault_zygote_stop(self, for_s):
        return self.stop(self.pick(self.zygotes(), 0), for_s)

    def end_supervisor(self, sig, away_s):
        if "comfymuxd" in self.expected_down:
            return "is down already"
        self.expected_down.add("comfymuxd")
        self.kill(self.supervisor.pid, sig)
        self.return_after(self.supervisor, "comfymuxd", self.start_supervisor, away_s)
        return "pid %d" % self.supervisor.pid

    def return_after(self, process, name, start, away_s):
        since = time.monotonic()

        def look():
            if process.poll() is not None:
                if process.stdout:
                    process.stdout.close()
                if process.returncode not in (0, -signal.SIGKILL):
                    self.wrong("%s ended with %d" % (name, process.returncode))
                self.later(away_s, name + " returns", start)
            elif time.monotonic() - since > LEAVE_S and process.pid not in self.stopped:
                self.wrong("%s does not leave" % name)
                self.kill(process.pid, signal.SIGKILL)
                self.later(0.05, None, look)
            else:
                self.later(0.02, None, look)
        look()

    def fault_supervisor_kill(self, away_s):
        return self.end_supervisor(signal.SIGKILL, away_s)

    def fault_supervisor_usr2(self, away_s):
        # Until it has a handler the signal is the end, as SIGKILL is.
        if self.supervisor.poll() is None and not catches(self.supervisor.pid, signal.SIGUSR2):
            return "is just being started"
        return self.end_supervisor(signal.SIGUSR2, away_s)

    def fault_supervisor_term(self, away_s):
        return self.end_supervisor(signal.SIGTERM, away_s)

    def fault_supervisor_stop(self, for_s):
        return self.stop(self.supervisor.pid, for_s)

    def fault_sim_kill(self, away_s):
        if "comfysim" in self.expected_down:
            return "is down already"
        self.expected_down.add("comfysim")
        process = self.sim
        self.kill(process.pid, signal.SIGKILL)
        process.wait()
        with open(self.journal_path, "ab") as f:
            f.write(b'\n{"fact": "killed"}\n')
        self.return_after(process, "comfysim", self.start_sim, away_s)

    def fault_sim_restart(self, away_s):
        self.control(fault="restart", down_ms=int(away_s * 1000))

    def fault_sim_stop(self, for_s):
        return self.stop(self.sim.pid, for_s)

    def fault_sim_pause(self, for_s):
        self.control(fault="pause")
        self.later(for_s, "resume", lambda: self.control(fault="resume"))

    def fault_sim_deaf(self, after_s):
        self.control(fault="deaf", after_ms=int(after_s * 1000))

    def fault_sim_silent(self, for_s):
        self.control(fault="silent", ms=int(for_s * 1000))

    def fault_sim_garbage(self):
        self.control(fault="garbage")

    def fault_sim_drop(self, how):
        self.control(fault="drop", how=how)

    def fault_post_cut(self, count, how):
        self.control(fault="cut", path="/prompt", method="POST", count=count, how=how)

    def fault_post_status(self, count, code):
        self.control(fault="status", path="/prompt", method="POST", count=count, code=code)

    def fault_reply_truncate(self, count, path):
        self.control(fault="truncate", path=path, count=count)

    def fault_reply_delay(self, for_s, ms):
        self.control(fault="delay", ms=ms)
        self.later(for_s, "clear", lambda: self.control(fault="clear"))

    def fault_net_cut(self, hard):
        return "%d connections" % self.proxy.cut(hard)

    def fault_net_half_open(self, linger_s):
        return "%d connections" % self.proxy.half_open(linger_s)

    def fault_net_freeze(self, for_s):
        self.proxy.freeze(True)
        self.later(for_s, "thaw", lambda: self.proxy.freeze(False))

    def fault_net_delay(self, for_s, ms):
        self.proxy.delay(ms / 1000)
        self.later(for_s, "no delay", lambda: self.proxy.delay(0.0))

    def fault_net_refuse(self, for_s):
        self.proxy.refuse(True)
        self.later(for_s, "accept", lambda: self.proxy.refuse(False))

    def fault_stranger_interrupt(self):
        rig.http("POST", self.sim_url + "/interrupt", {}, timeout=CONTROL_S)

    def fault_stranger_delete(self, pick):
        queue = rig.http("GET", self.sim_url + "/queue", timeout=CONTROL_S)[1]["queue_pending"]
        if not queue:
            return "nothing is pending"
        victim = self.pick(queue, pick)[1]
        rig.http("POST", self.sim_url + "/queue", {"delete": [victim]}, timeout=CONTROL_S)
        return victim

    def fault_stranger_clear(self):
        rig.http("POST", self.sim_url + "/queue", {"clear": True}, timeout=CONTROL_S)

    # --- time ---

    def later(self, seconds, what, function):
        heapq.heappush(self.pending, (time.monotonic() + seconds, next(self.serial), what, function))

    def do(self, what, function):
        try:
            result = function()
        except (OSError, ValueError, KeyError, TypeError) as e:
            result = "not possible: %r" % e  # comfysim is down or stopped
        if what:
            self.note("%s%s" % (what, ": %s" % result if isinstance(result, str) else ""))

    def run(self, schedule, seconds):
        start = time.monotonic()
        faults = list(schedule)
        while time.monotonic() - start < seconds:
            now = time.monotonic()
            while faults and start + faults[0][0] <= now:
                _, name, args = faults.pop(0)
                shown = ", ".join("%s=%s" % (k, round(v, 3) if isinstance(v, float) else v)
                                  for k, v in args.items())
                self.do("%s(%s)" % (name, shown),
                        lambda name=name, args=args: getattr(self, "fault_" + name)(**args))
            self.tick()
            time.sleep(0.005)
        self.heal()

    def tick(self):
        now = time.monotonic()
        while self.pending and self.pending[0][0] <= now:
            _, _, what, function = heapq.heappop(self.pending)
            self.do(what, function)
        self.watch()
        self.reap()

    def heal(self):
        """Everything as it should be."""
        self.note("healing")
        for pid in list(self.stopped):
            self.kill(pid, signal.SIGCONT)
        self.stopped.clear()
        until = time.monotonic() + LEAVE_S
        while self.pending and time.monotonic() < until:
            self.tick()
            time.sleep(0.01)
        self.proxy.heal()
        while True:
            try:
                self.control(fault="resume")
                self.control(fault="clear")
                break
            except OSError:  # it restarts
                if time.monotonic() > until:
                    raise
                self.tick()
                time.sleep(0.05)
        self.note("healed")

    def until(self, condition, what, patience_s):
        """Waits, minding the processes; False in vain."""
        limit = time.monotonic() + patience_s
        while not condition():
            if time.monotonic() > limit:
                self.wrong("waited in vain for " + what)
                return False
            self.tick()
            time.sleep(0.02)
        return True

    def status(self):
        return self.rig.status()

    def journal(self):
        with open(self.journal_path, errors="replace") as f:
            return f.read()

    def logs(self):
        """{name: text} of every process's log."""
        found = {}
        for name in sorted(os.listdir(self.rig.dir)):
            if name.endswith(".log"):
                with open(self.rig.path(name), errors="replace") as f:
                    found[name] = f.read()
        return found

    def close(self):
        self.proxy.close()
        for pid, stat in sorted(below(os.getpid()).items()):
            if stat[1] != "Z":
                proclib.end(pid)
        for process in self.spawned.values():
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream:
                    try:
                        stream.close()
                    except OSError:
                        pass
        self.reap()

#!/usr/bin/env python3
"""Breaks everything at random under load, and counts whether anything is lost.

usage: chaos.py [--seed N] [--seconds N] [--sessions N] [--runs N] [--only FAULT[,FAULT...]]
                [--steady N] [--keep DIR]

With --steady N two times N seconds of load without faults follow, and memory is
compared.

One seed is one schedule of faults (schedule.py) and one load. A run that fails
prints seed, schedule, the trail of each request it is about, and keeps logs and
journal in a directory. Exit status 1 if any run failed.
"""
import argparse
import collections
import os
import random
import re
import shutil
import signal
import sqlite3
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))
sys.path.insert(0, HERE)
import rig  # noqa: E402
import schedule  # noqa: E402
from judge import judge  # noqa: E402
from load import FOREVER_MS, Book, Commands, Jobs, McpSession, Request, Slow, Subscriber  # noqa: E402
from proclib import descriptors  # noqa: E402
from world import FAULTS, World, below, connections, memory_kb  # noqa: E402

SANITIZED = "asan" in rig.BIN
ANSWER_S = 150 * (3 if SANITIZED else 1)  # after healing, for whatever is open
QUIET_S = 30 * (3 if SANITIZED else 1)
WIDTH = 4  # requests in flight of one MCP session
CONNECTIONS_MAX = 12  # of the supervisor to ComfyUI
GROWTH_KB = 1024  # of a keeper, between two quiet points
SLOW_S = 40  # after healing: told, for a person to look at
SHOWN = 12  # problems told in full
# The process is named in the first line of such a report only.
OUR_SIGNAL = re.compile(r"AddressSanitizer:DEADLYSIGNAL|AddressSanitizer can not provide|"
                        r"(?:==(\d+)==ERROR|SUMMARY): AddressSanitizer: (?:SEGV|BUS|FPE|ILL|ABRT)\b")
BAD_WORDS = re.compile("Sanitizer|runtime error:|Assertion|stack smashing|double free")


class Run:
    def __init__(self, seed, seconds, sessions, only=None, steady_s=0):
        self.seed, self.seconds, self.steady_s = seed, seconds, steady_s
        self.only = only
        self.book = Book(seed)
        self.world = World(seed)
        self.sessions, self.loopers = [], []
        self.width = sessions
        self.counts = collections.Counter()
        self.problems = []
        self.schedule = schedule.make(seed, seconds, only=only)

    def everyone(self):
        return self.sessions + self.loopers

    def set_running(self, on):
        for one in self.everyone():
            one.running = on

    def begin(self):
        w = self.world
        if not w.until(w.rig.can_connect, "the supervisor's socket", QUIET_S):
            return False
        for i in range(self.width):
            self.sessions.append(McpSession(w, self.book, "mcp%d" % i, WIDTH))
        for i in range(max(1, self.width // 3)):
            self.loopers.append(Commands(w, self.book, "cli%d" % i))
            self.loopers.append(Subscriber(w, self.book, "sub%d" % i))
        self.loopers.append(Jobs(w, self.book, "jobs"))
        self.loopers.append(Slow(w, self.book, "slow"))
        return True

    # --- the course ---

    def go(self):
        w = self.world
        if not self.begin() or not self.quiet("at the beginning"):
            return
        before = self.measure()
        self.set_running(True)
        w.run(self.schedule, self.seconds)
        self.set_running(False)
        healed = time.time()
        if not w.until(lambda: all(one.idle() for one in self.everyone()),
                       "answers to %d requests" % len(self.book.open()), ANSWER_S):
            return
        self.note_slow(healed)
        if not self.quiet("after healing"):
            return
        self.compare(before, self.measure())
        if self.steady_s > 0 and not self.steady():
            return
        self.finish()

    def steady(self):
        """Load without faults, twice: what the second time takes more than the
        first is a leak. False if somebody is not answered."""
        w = self.world
        sizes = []
        for _ in range(2):
            self.set_running(True)
            w.run([], self.steady_s)
            self.set_running(False)
            if not w.until(lambda: all(one.idle() for one in self.everyone()), "answers", ANSWER_S) or \
                    not self.quiet("after load without faults"):
                return False
            sizes.append({pid: memory_kb(pid) for pid in
                          [s.process.pid for s in self.sessions] + [w.supervisor.pid]})
        for pid, kb in sizes[1].items():
            grew = kb - sizes[0].get(pid, 0)
            who = "supervisor" if pid == w.supervisor.pid else "keeper"
            self.most("%s memory growth without faults, KB, most" % who, grew)
            if grew > GROWTH_KB and not SANITIZED:
                w.wrong("%s (pid %d) grew from %d to %d KB" % (who, pid, sizes[0].get(pid, 0), kb))
        return True

    def note_slow(self, healed):
        """How long the last answer took after everything was mended."""
        late = [(q.trail[-1][0] - healed, q) for q in self.book.requests if q.answers]
        seconds, q = max(late, key=lambda one: one[0])
        self.most("last answer after healing, s, most", int(seconds))
        if seconds > SLOW_S:
            print(self.problem("slow: answered %.0f s after healing" % seconds, q))

    def most(self, name, value):
        self.counts[name] = max(self.counts[name], value)

    def plain_round(self):
        """A request of each session; whether all came by events."""
        asked = []
        for s in self.sessions:
            marker = self.book.marker()
            q = Request(s.name, "plain", marker)
            wf = self.book.workflow(marker)
            wf["1"]["inputs"].update(steps=2, step_ms=5)
            s.call("execute_workflow_sync", q, {"workflow": wf, "timeout_ms": FOREVER_MS})
            asked.append(q)
        if not self.world.until(lambda: all(q.answers for q in asked), "plain requests", ANSWER_S):
            return False
        return all(q.outcome["status"] == "completed" and q.outcome["method"] == "websocket" for q in asked)

    def quiet(self, when):
        """Nothing is open: what must hold then."""
        w = self.world
        if not w.until(self.plain_round, "events to come again " + when, QUIET_S):
            return False
        return w.until(lambda: not self.unrest(), "quiet %s: %s" % (when, self.unrest()), QUIET_S)

    def unrest(self):
        """What is not as it should be between requests, or ""."""
        w = self.world
        try:
            status = w.status()
        except AssertionError as e:
            return "no status: %s" % e
        if status["upstream"]["state"] != "connected":
            return "link is %s" % status["upstream"]["state"]
        if status["prompts"]["active"] or status["prompts"]["queued"]:
            return "prompts: %s" % status["prompts"]
        told = sorted(s["pid"] for s in status["sessions"])
        if len(told) != len(self.sessions) or told != w.workers():
            return "sessions' workers %s, processes %s" % (told, w.workers())
        zombies = {pid: stat for pid, stat in below(os.getpid()).items()
                   if stat[1] == "Z" and stat[2] != os.getpid()}
        if zombies:
            return "zombies %s" % zombies
        for pid in told:
            sockets = [d for d in descriptors(pid).values() if d.startswith("socket:")]
            # Session and bus, and a pair of libcurl's own once it was used.
            if len(sockets) not in (2, 4) or connections(pid):
                return "worker %d holds %s" % (pid, descriptors(pid))
        return ""

    def measure(self):
        keepers = [s.process.pid for s in self.sessions]
        found = {}
        for pid in keepers + [self.world.supervisor.pid]:
            tcp = connections(pid)  # kept alive for a while, and bounded
            if len(tcp) > CONNECTIONS_MAX:
                self.world.wrong("pid %d holds %d connections" % (pid, len(tcp)))
            found[pid] = (sorted(re.sub(r"\d+", "N", d) for d in descriptors(pid).values() if d not in tcp),
                          memory_kb(pid))
        return found

    def compare(self, before, after):
        for s in self.sessions:
            pid = s.process.pid
            (fds, kb), (fds_now, kb_now) = before[pid], after[pid]
            if fds != fds_now:
                self.world.wrong("%s: keeper's descriptors were %s, are %s" % (s.name, fds, fds_now))
            self.most("keeper memory growth, KB, most", kb_now - kb)
            if kb_now - kb > GROWTH_KB and not SANITIZED:
                self.world.wrong("%s: keeper grew from %d to %d KB" % (s.name, kb, kb_now))
        was = [v for pid, v in before.items() if pid not in [s.process.pid for s in self.sessions]][0]
        now = after[self.world.supervisor.pid]
        if len(now[0]) > len(was[0]) + 1:  # the zygote's channel may be new
            self.world.wrong("supervisor's descriptors were %s, are %s" % (was[0], now[0]))
        self.most("supervisor memory, KB, at the end, most", now[1])

    # --- the end ---

    def finish(self):
        w = self.world
        for one in self.everyone():
            one.end()
        keep = {w.supervisor.pid, w.sim.pid}

        def others():
            return {pid: stat for pid, stat in below(os.getpid()).items()
                    if pid not in keep and stat[0] != "comfymux-zygote" and stat[1] != "Z"}
        w.until(lambda: not others(), "orphans to leave: %s" % others(), QUIET_S)
        w.expected_down.add("comfymuxd")
        w.kill(w.supervisor.pid, signal.SIGTERM)
        if w.until(lambda: w.supervisor.poll() is not None, "the supervisor to stop", QUIET_S):
            if w.supervisor.returncode != 0:
                w.wrong("the supervisor stopped with status %d" % w.supervisor.returncode)
        keep.discard(w.supervisor.pid)
        w.until(lambda: not [p for p, s in below(os.getpid()).items() if p not in keep and s[1] != "Z"],
                "the last processes to leave", QUIET_S)
        self.look_at_store()

    def look_at_store(self):
        path = os.path.join(self.world.rig.state, "comfymux.db")
        db = sqlite3.connect("file:%s?mode=ro" % path, uri=True)
        try:
            verdict = db.execute("PRAGMA integrity_check").fetchall()
            if verdict != [("ok",)]:
                self.world.wrong("the store: %s" % verdict)
        finally:
            db.close()

    def look_at_logs(self):
        sent = set(self.world.signals)
        for name, text in self.world.logs().items():
            for m in BAD_WORDS.finditer(text):
                start = text.rfind("\n", 0, m.start()) + 1
                line = text[start:(text + "\n").index("\n", m.start())]
                ours = OUR_SIGNAL.search(line)
                if ours and (not ours.group(1) or any(int(ours.group(1)) == pid for pid, _ in sent)):
                    continue  # the sanitizer's report of a signal that we sent
                self.world.wrong("%s: %s" % (name, text[max(0, m.start() - 300):m.start() + 3000]))
            for line in text.splitlines():
                m = re.search(r"pid (\d+).* was killed by signal (\d+)", line)
                if m and (int(m.group(1)), int(m.group(2))) not in sent and m.group(2) not in ("9", "15"):
                    self.world.wrong("%s: a crash of its own: %s" % (name, line))

    def verdict(self):
        crashes = sum(1 for _, s in self.world.signals if signal.Signals(s).name in FAULTS)
        problems, counts = judge(self.book.requests, self.world.journal(), crashes, self.world.shared)
        self.counts.update(counts)
        self.look_at_logs()
        for one in self.everyone():
            self.problems += [(text, None) for text in one.problems]
        self.problems += self.world.problems + problems
        for _, name, _ in self.schedule:
            self.counts["fault: " + name] += 1
        return not self.problems

    # --- telling ---

    def clock(self, t):
        return "%9.3f" % (t - self.world.history[0][0])

    def tell(self, keep):
        """Everything there is about a failure; logs go to a directory."""
        os.makedirs(keep, exist_ok=True)
        folder = tempfile.mkdtemp(prefix="seed%s-" % self.seed, dir=keep)
        for name, text in self.world.logs().items():
            with open(os.path.join(folder, name), "w") as f:
                f.write(text)
        shutil.copy(self.world.journal_path, os.path.join(folder, "journal"))
        with open(os.path.join(folder, "schedule"), "w") as f:
            for t, text in self.world.history:
                f.write("%s %s\n" % (self.clock(t), text))
            f.write("time 0 is %.3f\n" % self.world.history[0][0])
        with open(os.path.join(folder, "problems"), "w") as f:
            for text, q in self.problems:
                f.write("%s\n" % self.problem(text, q))
        with open(os.path.join(folder, "open"), "w") as f:
            for q in self.book.open():
                f.write("%s\n" % self.problem("open", q))
        print("schedule of seed %s:" % self.seed)
        for t, text in self.world.history:
            print("  %s %s" % (self.clock(t), text))
        for text, q in self.problems[:SHOWN]:
            print(self.problem(text, q))
        print("seed %s: %d problems; logs, journal and schedule in %s; again: make chaos SEED=%s" % (
            self.seed, len(self.problems), folder, self.seed))

    def problem(self, text, q):
        lines = ["PROBLEM: " + text]
        if q is not None:
            lines.append("  %s of %s, marker %s, prompt %s" % (q.kind, q.owner, q.marker, q.prompt_id))
            trail = q.trail if len(q.trail) < 60 else q.trail[:20] + [(q.trail[20][0], "...")] + q.trail[-39:]
            lines += ["  %s %s" % (self.clock(t), what) for t, what in trail]
            lines += ["  journal: " + line[:300] for line in self.world.journal().splitlines()
                      if (q.prompt_id and q.prompt_id in line) or (q.marker and q.marker in line)]
        return "\n".join(lines)


def one(seed, seconds, sessions, only, keep, steady_s):
    """(passed, counts)"""
    began = time.monotonic()
    r = Run(seed, seconds, sessions, only, steady_s)
    try:
        r.world.note("seed %s" % seed)
        try:
            r.go()
        except AssertionError as e:
            r.world.wrong("%s" % e)
        passed = r.verdict()
        if not passed:
            r.tell(keep)
    finally:
        for o in r.everyone():
            o.ending = True
        r.world.close()
        shutil.rmtree(r.world.rig.dir, ignore_errors=True)
    print("%s seed %s: %d requests, %d faults, %.0f s" % (
        "ok  " if passed else "FAIL", seed, len(r.book.requests), len(r.schedule),
        time.monotonic() - began))
    sys.stdout.flush()
    return passed, r.counts


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--only")
    parser.add_argument("--steady", type=float, default=0)
    parser.add_argument("--keep", default=os.path.join(tempfile.gettempdir(), "comfymux-chaos"))
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 31)
    only = args.only.split(",") if args.only else None
    failed, counts = [], collections.Counter()
    for i in range(args.runs):
        print("seed %d: %.0f s of faults over %d sessions (make chaos SEED=%d)" % (
            seed + i, args.seconds, args.sessions, seed + i))
        sys.stdout.flush()
        passed, more = one(seed + i, args.seconds, args.sessions, only, args.keep, args.steady)
        if not passed:
            failed.append(seed + i)
        for name, n in more.items():
            counts[name] = max(counts[name], n) if name.endswith("most") else counts[name] + n
    for name, n in sorted(counts.items()):
        print("%-50s %d" % (name, n))
    print("%d runs, %d failed%s" % (args.runs, len(failed), ": seeds %s" % failed if failed else ""))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

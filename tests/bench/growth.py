"""How the cost of an event grows with sessions and with prompts tracked."""
import os
import shutil
import subprocess

import rig
from benchlib import HERE, Bench, Fan, row, settle

EVENTS = 40000
READERS = (1, 10, 100, 1000)
TRACKED = (1, 100, 10000, 100000)
BATCH = 500  # submissions asked for before the first answer is waited for

PLOT = """
set terminal pngcairo size 900,420 font "sans,11"
set output "%s"
set multiplot layout 1,2
set logscale x
set yrange [0:*]
set grid
set key off
set ylabel "supervisor, us of processor time an event"
set xlabel "sessions, events to each in turn"
plot "%s" with linespoints pt 7 lw 2
set xlabel "prompts tracked, one session"
plot "%s" with linespoints pt 7 lw 2
"""


def cost_us(bench, ids, count):
    path = bench.rig.write("ids", "\n".join(ids) + "\n")
    fan = Fan("socket", bench.rig.socket, len(ids), path)
    settle()
    frames = bench.counter("frames")
    start = bench.cpu_s()
    bench.emit(bench.client_id, count, 10000, prompt_ids=ids)
    rig.wait_for(lambda: bench.counter("frames") - frames >= count, "the frames to arrive")
    settle()
    spent = bench.cpu_s() - start
    fan.finish()
    return 1e6 * spent / count


def by_sessions(counts):
    with Bench() as bench:
        ids = bench.prompts(max(counts))
        return [(n, cost_us(bench, ids[:n], EVENTS)) for n in counts]


def by_prompts(counts):
    found = []
    with Bench() as bench:
        ids = bench.prompts(1)
        have = 1
        for n in counts:
            while have < n:
                step = min(BATCH, n - have)
                bench.prompts(step)
                have += step
            found.append((n, cost_us(bench, ids, EVENTS)))
    return found


def plot(sessions, prompts, png):
    names = []
    for points in (sessions, prompts):
        names.append(png + ".%d.dat" % len(names))
        with open(names[-1], "w", encoding="ascii") as f:
            f.writelines("%d %g\n" % p for p in points)
    subprocess.run(["gnuplot"], input=(PLOT % (png, *names)).encode(), check=True)
    for name in names:
        os.unlink(name)


def run(quick=False, png=None):
    sessions = by_sessions(READERS[:3] if quick else READERS)
    prompts = by_prompts(TRACKED[:3] if quick else TRACKED)
    for what, points in (("sessions", sessions), ("prompts tracked", prompts)):
        first = max(points[0][1], 0.1)
        for n, us in points:
            # Flat: what a thousand times more may cost is less than twice.
            row("supervisor, small event, %d %s" % (n, what), us, "us",
                first if n > 1 else None, 2 if n > 1 else None)
    if png and shutil.which("gnuplot"):
        plot(sessions, prompts, png)

"""How the cost of an event grows with sessions, with prompts tracked, and with what
the prompt has put out before."""
import os
import shutil
import subprocess
import sys

import rig
from benchlib import HERE, Bench, Fan, row, settle

EVENTS = 40000
READERS = (1, 10, 100, 1000)
TRACKED = (1, 100, 10000, 100000)
OUTPUTS = (10, 100, 1000)
OUTPUT_BYTES = 5000
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


def by_outputs(counts):
    """Of a node with an output, its start and end included. Without
    progress_state, in which ComfyUI itself repeats all nodes."""
    found = []
    for n in counts:
        with Bench(sim=("--no-progress-state",)) as bench:
            client = bench.client()
            times = max(1, counts[-1] // n)
            start = bench.cpu_s()
            for i in range(times):
                workflow = {str(k): {"class_type": "SimText",
                                     "inputs": {"text": "%d %d " % (i, k) + "x" * OUTPUT_BYTES}}
                            for k in range(n)}
                prompt = client.ask("submit", workflow=workflow, subscribe=True)["prompt_id"]
                # Where it doesn't fit behind what waits, a snapshot stands for it.
                end = client.wait(lambda e: e["event"] in ("finished", "snapshot") and
                                  e["prompt_id"] == prompt and e["progress"]["status"] == "completed",
                                  timeout=rig.PATIENCE_S)["progress"]
                assert len(end["outputs"]) == n
                client.events.clear()
            found.append((n, 1e6 * (bench.cpu_s() - start) / n / times))
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
    # Flat: what a hundred times more may cost is less than twice. One session
    # is a case by itself: its lines go out several at a write.
    for what, points, first in (("sessions", sessions, 1), ("prompts tracked", prompts, 0)):
        base = max(points[first][1], 0.1)
        for n, us in points:
            judged = n > points[first][0]
            row("supervisor, small event, %d %s" % (n, what), us, "us",
                base if judged else None, 2 if judged else None,
                "several lines a write" if first == 1 and n == 1 else "")
    points = by_outputs(OUTPUTS)
    for n, us in points:
        row("supervisor, node with 5 KB of output, %d in the prompt" % n, us, "us",
            points[1][1] if n > 100 else None, 2 if n > 100 else None)
    if png and shutil.which("gnuplot"):
        plot(sessions, prompts, png)
    elif png:
        print("no plot: gnuplot is not installed", file=sys.stderr)

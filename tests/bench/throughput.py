"""What an event costs the supervisor: processor time of real runs, beside the
bare relay's, and instructions under callgrind, a figure that repeats.
"""
import shutil

import rig
from benchlib import Bench, Fan, row, settle

# kind, what, events, aim in us of processor time (50,000 a second on one core)
KINDS = [("small", "small event", 100000, 20),
         ("state300", "300-node progress_state", 1500, None),
         ("preview200k", "200 KB preview", 1500, None)]
READERS = 10
CALLGRIND = (200, 1200)  # events of two runs; their difference counts
CALLGRIND_RATE = 200  # slow enough that each comes alone


def cpu_us(bench, kind, count, ids, path):
    """Of the supervisor, an event; none may be lost."""
    fan = Fan("socket", bench.rig.socket, len(ids), path)
    settle()
    before = {n: bench.counter(n) for n in ("frames", "parse_errors", "gaps")}
    start = bench.cpu_s()
    bench.emit(bench.client_id, count, 0, kind=kind, prompt_ids=ids)
    rig.wait_for(lambda: bench.counter("frames") - before["frames"] >= count,
                 "the frames to arrive")
    settle()
    spent = bench.cpu_s() - start
    fan.finish()
    assert bench.counter("frames") - before["frames"] == count, "frames were lost"
    assert bench.counter("parse_errors") == before["parse_errors"]
    assert bench.counter("gaps") == before["gaps"]
    return 1e6 * spent / count


def relay_us(bench, kind, count, ids):
    fan = Fan("relay", bench.rig.sim_port, len(ids), "targeted")
    settle()
    start = bench.cpu_s(fan.process.pid)
    bench.emit("relay", count, 0, kind=kind, prompt_ids=ids)
    settle()
    spent = bench.cpu_s(fan.process.pid) - start
    fan.finish()
    return 1e6 * spent / count


def instructions(count):
    """Of the supervisor in a run with so many small events, start and end
    included."""
    bench = Bench(start=False)
    with bench:
        out = bench.rig.path("callgrind.out")
        bench.start_under("valgrind", "-q", "--tool=callgrind", "--callgrind-out-file=" + out)
        ids = bench.prompts(1)
        path = bench.rig.write("ids", ids[0] + "\n")
        fan = Fan("socket", bench.rig.socket, 1, path)
        bench.emit(bench.client_id, count, CALLGRIND_RATE, prompt_ids=ids)
        # Not asked for again and again: each question costs as well.
        settle()
        assert bench.counter("frames") >= count
        fan.finish()
        bench.daemon.terminate()
        bench.daemon.wait(rig.PATIENCE_S)
        with open(out, encoding="ascii", errors="replace") as f:
            return next(int(line.split()[1]) for line in f
                        if line.startswith(("summary:", "totals:")))


def run(quick=False):
    with Bench() as bench:
        ids = bench.prompts(READERS)
        path = bench.rig.write("ids", "\n".join(ids) + "\n")
        for kind, what, count, aim in KINDS:
            count //= 4 if quick else 1
            relay = relay_us(bench, kind, count, ids)
            got = cpu_us(bench, kind, count, ids, path)
            row("supervisor, %s, %d readers" % (what, READERS), got, "us", aim=aim,
                note="bare relay %.3g us; %d events a second on one core" % (
                    relay, 1e6 / got if got else 0))
    if shutil.which("valgrind") and not quick:
        few, many = (instructions(n) for n in CALLGRIND)
        row("supervisor, small event, 1 reader", (many - few) / (CALLGRIND[1] - CALLGRIND[0]),
            "instr", note="callgrind")

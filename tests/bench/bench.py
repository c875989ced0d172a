#!/usr/bin/env python3
"""make bench: all figures in one table.

usage: bench.py [--quick] [--record FILE] [SECTION...]

Sections: latency throughput sessions network restart growth. --quick: fewer
sessions, shorter runs. --record: writes the table to FILE, with machine, commit
and date, and the plot of how it grows beside it.
"""
import argparse
import datetime
import importlib
import os
import platform
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import benchlib  # noqa: E402
import rig  # noqa: E402

SECTIONS = ["latency", "throughput", "sessions", "network", "restart", "growth", "trouble"]
INTRODUCTION = """# Figures of record

Made by `make bench RECORD=1`: {cpus} x {cpu}, {memory} GiB, Linux {kernel}; commit
{commit}, {date}. Load average before: {load}. Times of a shared machine say little
by themselves: the baseline is measured in the same run, in turns with the product,
and `ratio` is what to look at. `aim` is the largest ratio (without a baseline: value)
that we want to see.

"""


def machine():
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
        cpu = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")),
                   platform.machine())
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=rig.ROOT, text=True,
                            stdout=subprocess.PIPE, check=False).stdout.strip() or "unknown"
    return {"cpus": os.cpu_count(), "cpu": cpu, "kernel": platform.release(), "commit": commit,
            "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30,
            "date": datetime.date.today(), "load": "%.1f" % os.getloadavg()[0]}


def record(path, about):
    """Keeps what stands below the table: notes written by hand."""
    notes = ""
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            notes = f.read().partition("\n## ")[2]
    with open(path, "w", encoding="utf-8") as f:
        f.write(INTRODUCTION.format(**about) + benchlib.HEAD + "\n")
        f.writelines(benchlib.format_row(r) + "\n" for r in benchlib.ROWS)
        if notes:
            f.write("\n## " + notes)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--record")
    parser.add_argument("sections", nargs="*")
    args = parser.parse_args()
    about = machine()
    print(benchlib.HEAD)
    for name in args.sections or SECTIONS:
        start = time.monotonic()
        options = {"quick": args.quick}
        if name == "growth" and args.record:
            options["png"] = os.path.join(os.path.dirname(args.record), "growth.png")
        importlib.import_module(name).run(**options)
        print("(%s: %.0f s)" % (name, time.monotonic() - start), file=sys.stderr)
        if args.record:
            record(args.record, about)


if __name__ == "__main__":
    main()

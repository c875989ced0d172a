"""restart-workers: how long it takes, and the longest silence that a session
with a call in flight sees.
"""
import json
import os
import time

import rig
from benchlib import Bench, Fan, quiet, row
from latency import NOTIFY_PERIOD_S, STAMPED, pending


def run(quick=False):
    n = 100 if quick else 1000
    with Bench() as bench:
        fan = Fan("mcp", os.path.join(rig.BIN, "comfymux"), bench.rig.socket, n,
                  json.dumps(quiet(3600000)), env=bench.rig.env)
        ids = pending(bench)
        old = {s["id"]: s["pid"] for s in bench.rig.sessions()}
        assert len(ids) == n and len(old) == n
        # Long enough for a slow machine; what is left over is not waited for.
        bench.emit(bench.client_id, 300 * n, n / NOTIFY_PERIOD_S, wait=False,
                   template=STAMPED, prompt_ids=ids)
        start = time.monotonic()
        bench.rig.run("restart-workers", check=0, timeout=300)
        rig.wait_for(lambda: all(s["pid"] and s["pid"] != old[s["id"]]
                                 for s in bench.rig.sessions()), "the successors", 300)
        took = time.monotonic() - start
        time.sleep(4 * NOTIFY_PERIOD_S)
        got = fan.finish()
        reconnects = bench.rig.status()["upstream"]["reconnects"]
        assert reconnects == 0, "the link was touched"
        row("restart-workers, %d sessions with calls in flight" % n, took, "s",
            note="%.1f ms a session" % (1000 * took / n))
        row("  longest silence of any (without: %.0f ms)" % (1000 * NOTIFY_PERIOD_S),
            got["silence_ms"], "ms")

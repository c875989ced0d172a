"""From a frame's making in comfysim to (a) the line on a subscriber's socket and
(b) the notification on an MCP client's stdin, beside a bare relay of the same
frames from the same source in the same run.
"""
import json
import os

import rig
from benchlib import ROUNDS, Bench, Fan, median, quiet, row, settle

RATE = 1000  # targeted events a second, all sessions together
TARGETED = 2000  # events a round
# Broadcast events a second, times readers: what two cores write and wake.
WRITES_PER_S = 8000
BROADCAST = 60
# At most four notifications a second go to one client: one event in so long.
NOTIFY_PERIOD_S = 0.4
# What passes four processes each time, in all.
NOTIFY_PER_S = 500
NOTIFIED = 6  # events for each client ...
NOTIFIED_MIN = 30  # ... and no fewer in all: half a dozen have no median to speak of

STAMPED = ('{"type": "progress", "data": {"value": %SEQ%, "max": %T_NS%, '
           '"prompt_id": "%PROMPT_ID%", "node": "1"}}')
UNSTAMPED = STAMPED.replace("%SEQ%", "0").replace("%T_NS%", "1000")


def measured(bench, fan, to, count, rate, each=1, **order):
    """One round: the readers' figures, all frames accounted for. A step that
    a newer one overtook while a burst waited for its reader is counted."""
    settle()
    folded = bench.counter("folded")
    bench.emit(to, count, rate, **order)
    settle()
    got = fan.finish()
    got["count"] += bench.counter("folded") - folded
    assert got["count"] == count * each, (got, count, each)
    return got


def compare(rounds, baseline, product):
    """Each in turn, so that the machine's moods concern both."""
    pairs = [(baseline(), product()) for _ in range(rounds)]
    return [{k: median([p[side][k] for p in pairs]) for k in ("p50_us", "p99_us", "p999_us")}
            for side in (0, 1)]


def rows(what, base, got, aims):
    for key, aim in aims:
        name = {"p50_us": "p50", "p99_us": "p99", "p999_us": "p99.9"}[key]
        row("%s, %s" % (what, name), got[key], "us", base[key], aim)


def targeted(bench, ids, n):
    path = bench.rig.write("ids", "\n".join(ids[:n]) + "\n")

    def base():
        return measured(bench, Fan("relay", bench.rig.sim_port, n, "targeted"), "relay",
                        TARGETED, RATE, prompt_ids=ids[:n])

    def product():
        return measured(bench, Fan("socket", bench.rig.socket, n, path), bench.client_id,
                        TARGETED, RATE, prompt_ids=ids[:n])
    base, got = compare(ROUNDS, base, product)
    rows("frame to subscriber, targeted, %d session%s" % (n, "s" * (n > 1)), base, got,
         [("p50_us", 2), ("p99_us", 4 if n == 100 else None), ("p999_us", None)])


def broadcast(bench, ids, n):
    rate = min(RATE, max(10, WRITES_PER_S // n))
    count = max(BROADCAST, rate // 2)

    def base():
        return measured(bench, Fan("relay", bench.rig.sim_port, n, "broadcast"), "relay",
                        count, rate, n, prompt_ids=ids[:1])

    def product():
        return measured(bench, Fan("socket", bench.rig.socket, n, "all"), bench.client_id,
                        count, rate, n, prompt_ids=ids[:1])
    base, got = compare(ROUNDS, base, product)
    rows("frame to subscriber, broadcast, %d session%s" % (n, "s" * (n > 1)), base, got,
         [("p50_us", 1.3 if n == 1000 else 2), ("p99_us", 4 if n == 100 else None),
          ("p999_us", None)])


def pending(bench):
    client = bench.client()
    queue = client.ask("queue")
    client.close()
    return [p["prompt_id"] for p in queue["running"] + queue["pending"]]


def notify_count(n):
    return max(NOTIFIED * n, NOTIFIED_MIN)


def notify_rate(n):
    return min(n / NOTIFY_PERIOD_S, NOTIFY_PER_S)


def notified(bench, n):
    """(b): every client has a call in flight; the stamp is the number of steps."""
    fan = Fan("mcp", os.path.join(rig.BIN, "comfymux"), bench.rig.socket, n,
              json.dumps(quiet(3600000)), env=bench.rig.env)
    ids = pending(bench)
    assert len(ids) == n, (len(ids), n)
    rate = notify_rate(n)
    order = {"template": STAMPED, "prompt_ids": ids}
    # The first tells of the node, and may wait until the news of the queue is
    # old enough for another: not measured, since it bears no stamp.
    bench.emit(bench.client_id, n, rate, **dict(order, template=UNSTAMPED))
    settle()
    got = measured_mcp(bench, fan, n, rate, order)
    for pid in [p["pid"] for p in bench.rig.sessions()]:
        rig.wait_for(lambda pid=pid: rig.gone(pid), "a worker to leave")
    return got


def measured_mcp(bench, fan, n, rate, order):
    bench.emit(bench.client_id, notify_count(n), rate, **order)
    rig.time.sleep(2 * NOTIFY_PERIOD_S)
    got = fan.finish()
    assert notify_count(n) * 0.9 <= got["count"] <= notify_count(n), (got, n)
    return got


def mcp(n):
    with Bench() as bench:
        def base():
            return measured(bench, Fan("relay", bench.rig.sim_port, n, "targeted"), "relay",
                            notify_count(n), notify_rate(n), prompt_ids=["x"])

        def product():  # whose prompts stay
            with Bench() as fresh:
                return notified(fresh, n)
        base, got = compare(ROUNDS if n <= 100 else 1, base, product)
        rows("frame to MCP notification, %d session%s" % (n, "s" * (n > 1)), base, got,
             [("p50_us", 3), ("p99_us", 4 if n == 100 else None), ("p999_us", None)])


def run(quick=False):
    counts = (1, 10, 100) if quick else (1, 10, 100, 1000)
    with Bench() as bench:
        ids = bench.prompts(max(counts))
        for n in counts:
            targeted(bench, ids, n)
        for n in counts:
            broadcast(bench, ids, n)
    for n in counts:
        mcp(n)

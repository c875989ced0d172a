"""What ComfyUI has to serve for one workflow of 20 steps, a batch of five and a
chain of three: HTTP requests, TCP connections, WebSockets and bytes, by events
and by polling, as the simulator and a proxy before it counted them.

Fails if, by events, there was anything but one POST for each prompt, or more
TCP connections than the WebSocket and those.
"""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "chaos")]
from benchlib import row  # noqa: E402
from proxy import Proxy  # noqa: E402
import rig  # noqa: E402

# A fifth of what it is in use: a picture in 22 s, looked at every 1.5 s.
STEPS, STEP_MS = 20, 220
POLL_MS = 300


def make(seed):
    return {"3": {"class_type": "SimSampler", "inputs": {"seed": seed, "steps": STEPS, "step_ms": STEP_MS}},
            "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "net"}}}


TAKE = {"1": {"class_type": "LoadImage", "inputs": {"image": "none.png"}},
        "3": {"class_type": "SimSampler", "inputs": {"seed": 1, "steps": STEPS, "step_ms": STEP_MS,
                                                     "after": ["1", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "net"}}}

# The last: what is left of the requests by the table that we follow, which
# doesn't count the submissions: -93 %, -99 %, -98 %.
SCENARIOS = [
    ("one workflow, 20 steps", 1, ["run", "w0.json", "--json"], 1 / 15),
    ("batch of five", 5, ["batch", *["w%d.json" % i for i in range(5)], "--concurrency", "3", "--json"], 1 / 75),
    ("chain of three", 3, ["chain", "chain.json", "--json"], 1 / 45),
]


def counts(r):
    """(requests by kind, TCP connections, WebSockets), without those of asking."""
    stats = r.stats()
    own = r.stats()["tcp"]["total"] - stats["tcp"]["total"]
    requests = {k: v for k, v in stats["requests"].items() if "/sim/" not in k}
    return requests, stats["tcp"]["total"] - own, stats["websockets"]["total"]


def measure(name, prompts, command, events):
    """(requests but for the WebSocket's, those by kind, TCP connections,
    WebSockets among them, bytes both ways)"""
    r = rig.Rig()
    try:
        r.start_sim()
        asked, proxy = r.sim_url, Proxy(r.sim_port)
        r.sim_url = "http://127.0.0.1:%d" % proxy.port
        for i in range(5):
            r.write("w%d.json" % i, make(i))
        take = {"workflow": TAKE, "outputTo": "image"}
        r.write("chain.json", [{"workflow": "w0.json"}, dict(take, inputFrom={"step": 0}),
                               dict(take, inputFrom={"step": 1})])
        if events:
            r.start_daemon()
        else:
            r.env["COMFYUI_HOST"] = r.sim_url
            r.write("config/comfymux/comfymux.conf", "autostart = no\npoll_interval_ms = %d\n" % POLL_MS)
        r.run(*command, check=0, timeout=120, comfyui=not events)
        r.sim_url = asked
        requests, connections, sockets = counts(r)
        kinds = {k: v for k, v in sorted(requests.items()) if k != "GET /ws"}
        if events and kinds != {"POST /prompt": prompts}:
            raise SystemExit("%s by events: %r, not %d times POST /prompt and nothing else" % (name, kinds, prompts))
        if requests.get("POST /prompt") != prompts:
            raise SystemExit("%s: %r" % (name, requests))
        if events and connections > sockets + prompts:
            raise SystemExit("%s by events: %d TCP connections" % (name, connections))
        return sum(kinds.values()), kinds, connections, sockets, proxy.bytes
    finally:
        r.close()


def run(quick=False):
    """A section of the table: by events, beside the same by polling."""
    for name, prompts, command, left in SCENARIOS:
        events, _, connections, sockets, passed = measure(name, prompts, command, True)
        polling, kinds, polled_connections, _, polled_bytes = measure(name, prompts, command, False)
        row("HTTP requests, %s, by events" % name, events, "", polling, None,
            "baseline: polling %d times in a picture's time (%s)" % (
                STEPS * STEP_MS / POLL_MS, ", ".join("%d %s" % (v, k) for k, v in kinds.items())))
        row("  beside the submissions", events - prompts + sockets, "", polling - prompts, left,
            "the WebSocket's, once for all that is to come")
        row("  bytes, both ways", passed / 1024, "KB", polled_bytes / 1024, None,
            "the WebSocket tells of each step")
        row("TCP connections, %s, by events" % name, connections, "", polled_connections, None,
            "%d of them a WebSocket, which the supervisor keeps for all" % sockets)

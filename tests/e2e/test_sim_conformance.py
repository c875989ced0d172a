"""test_sim_conformance.py - comfysim against recordings of a real ComfyUI.

Each folder of tests/data/comfyui is replayed: what its client did (connections,
messages, requests) is done to comfysim in the same order, each step not before
the events that the client had seen by then, and not sooner after the step
before it than --speed makes of the recorded pause. What comes back is compared
with what was recorded: every HTTP status, content type and JSON body, and on
every WebSocket the sequence of events with all their fields.

What is the same on both sides only up to a renaming is normalised everywhere:

- timestamps, and numbers of the queue relative to the first one seen, since the
  recorded server had run prompts before;
- counters in file names and the random part of ComfyUI_temp_xxxxx;
- tracebacks (whether there are any), the values in current_inputs (tensors),
  tool tips and descriptions (texts are cut in the recordings);
- the order of `executed`, `current_outputs` and of a queue item's outputs,
  which are sets in the original;
- ids and session ids that the server chose;
- progress_state, which repeats all nodes: compared is what each frame changes;
- fractions of a progress that follow a real clock: 0, in between, complete.

What else is normalised or left out is said at the recording in RECORDINGS.

The other half of the file checks what no recording shows: every version switch,
every fault of /sim/fault, the journal, the counters, and the bounds.
"""

import base64
import collections
import http.client
import json
import os
import re
import signal
import struct
import subprocess
import time
import unittest
import zlib

import simlib
from rig import closed_port
from simlib import Sim, sampler

DATA = os.path.join(os.environ.get("TEST_DATA") or
                    os.path.join(simlib.ROOT, "tests", "data"), "comfyui")
SPEED = 8

# --- recordings ----------------------------------------------------------

Recording = collections.namedtuple(
    "Recording", "order speed steps options prelude skip")


def rec(order="total", speed=SPEED, steps="exact", options=(), prelude=(),
        skip=()):
    """order: "total": one sequence per socket.
    "events": `status` apart from the rest, because the original sends it from
        another thread than the rest, or several prompts are queued at once.
    "nodes": besides, each node's events apart, because the order of nodes
        that do not depend on each other is that of a Python set.
    steps: "collapse": whole-numbered progress as fractions are (0, in between,
        complete), since a socket came or went between two steps.
    prelude: (folder, index of its POST /prompt) to be run before, because
        the recorded server had.
    skip: (text in the path or note of an exchange, reason)."""
    return Recording(order, speed, steps, options, prelude, skip)


RECORDINGS = {
    "01-simple-success": rec(),
    "02-cached": rec(prelude=[("01-simple-success", 0)]),
    "03-step-progress": rec(),
    "04-binary-previews": rec("events"),
    "05-execution-error": rec(),
    "06-rejected-prompts": rec(),
    # Two prompts are queued at once.
    "07-interrupt": rec("events"),
    "08-queue-of-five": rec("events", speed=4),
    "09-two-clients": rec("events", speed=4),
    "10-no-client-id": rec("events"),
    # What the first frame after the reconnect changes depends on the moment.
    "11-reconnect-in-flight": rec("events", speed=4),
    # The sockets are opened and closed between two steps.
    "12-overlap-same-clientid": rec("events", steps="collapse"),
    "13-multi-output-and-expansion": rec("nodes"),
    "14-server-killed-mid-run": rec("events"),
    # Histories of earlier recordings are listed: they are run before.
    "15-http-endpoints": rec(
        prelude=[("01-simple-success", 0),
                 ("13-multi-output-and-expansion", 2)],
        skip=[("/models/checkpoints", "comfysim offers some checkpoints, the "
               "recorded server had none")]),
    # Most progress_state frames are left out of the recording, and the 55
    # small prompts belong to another client of which only `status` is seen.
    "16-large": rec("nodes", speed=40),
    "17-server-chosen-ids": rec(),
    "18-error-event-that-is-not-the-end": rec(),
    "19-error-but-history-says-success": rec(),
    "20-duplicate-prompt-id": rec("events", speed=4),
    "21-interrupt-late-or-lost": rec(speed=4),
    "22-reconnect-after-end": rec(speed=4),
    "23-expansion-with-outputs-and-jpeg-previews": rec("events"),
    "24-partly-valid-prompt": rec(),
    "25-nan-in-json": rec(),
    "26-queue-order-clear-history-delete": rec("events", speed=4),
    "27-same-nodes-twice": rec(),
    "28-history-not-yet-there": rec(options=["--history-lag", "100"]),
    "29-extra-data": rec(speed=4),
    "30-server-stopped-with-sigint": rec(),
    # The reconnect falls between two reports of a sleeping node.
    "31-reconnect-names-wrong-node": rec("events", speed=4),
}

# --- normalisation -------------------------------------------------------

TEMP_NAME = re.compile(r"ComfyUI_temp_[a-z]{5}_")
COUNTER = re.compile(r"_\d{5}_")
DROPPED = ("tooltip", "description", "output_tooltips")


def is_item(o):
    """A queue item: [number, id, workflow, extra_data, outputs]."""
    return (isinstance(o, list) and len(o) == 5 and isinstance(o[1], str) and
            isinstance(o[2], dict) and isinstance(o[4], list))


class Numbers:
    """Queue numbers relative to the first one."""

    def __init__(self):
        self.base = None

    def norm(self, n):
        if isinstance(n, float):
            return n
        if self.base is None:
            self.base = n
        return -(-n - self.base) if n < 0 else n - self.base


def norm(o, numbers):
    """A JSON value without what differs from run to run."""
    if is_item(o):
        return [numbers.norm(o[0]), o[1], norm(o[2], numbers),
                norm(o[3], numbers), sorted(o[4])]
    if isinstance(o, list):
        return [norm(x, numbers) for x in o]
    if isinstance(o, str):
        return COUNTER.sub("_N_", TEMP_NAME.sub("ComfyUI_temp_X_", o))
    if isinstance(o, float) and o != o:
        return "NaN"
    if not isinstance(o, dict):
        return o
    out = {}
    for k, v in o.items():
        if k in DROPPED:
            continue
        if k == "timestamp":
            out[k] = type(v).__name__
        elif k == "number":
            out[k] = numbers.norm(v)
        elif k == "traceback":
            out[k] = bool(v)
        elif k == "current_inputs" and isinstance(v, dict):
            out[k] = {name: [type(x).__name__ for x in x_list]
                      for name, x_list in v.items()}
        elif k in ("executed", "current_outputs") and isinstance(v, list):
            out[k] = sorted(v)
        else:
            out[k] = norm(v, numbers)
    return out


def shape(o):
    """Types only."""
    if isinstance(o, dict):
        return {k: shape(v) for k, v in o.items()}
    if isinstance(o, list):
        return [shape(x) for x in o[:1]]
    return type(o).__name__


class Canon:
    """Turns the frames of one socket into comparable tuples."""

    def __init__(self, steps):
        self.steps = steps
        self.seen = {}       # (prompt, node) -> what progress_state said
        self.latest = {}     # of a kind and node, to fold repetitions
        self.numbers = Numbers()
        self.out = []        # (kind, group, tuple)
        self.progress_group = None

    def amount(self, v, most):
        if isinstance(v, float) or self.steps == "collapse":
            where = "0" if v == 0 else "max" if v == most else "part"
            return (type(v).__name__, where)
        return ("int", v)

    def add(self, kind, group, what):
        # A run of reports on the way says one thing.
        if "part" in str(what) and self.latest.get((kind, group)) == what:
            return
        self.latest[(kind, group)] = what
        self.out.append((kind, group, what))

    def text(self, type_, data):
        if type_ == "status":
            self.add("status", None, (
                data["status"]["exec_info"]["queue_remaining"],
                "sid" in data, sorted(data)))
        elif type_ == "progress_state":
            self.state(data)
        elif type_ == "progress":
            group = (data["prompt_id"], data["node"])
            self.progress_group = group
            self.add("progress", group, (
                self.amount(data["value"], data["max"]), data["max"],
                sorted(data)))
        elif type_ in ("executing", "executed") and data.get("prompt_id") \
                and data["node"] is not None:
            self.add(type_, (data["prompt_id"], data["node"]),
                     self.flat(data))
        else:
            self.add(type_, None, self.flat(data))

    def flat(self, data):
        return json.dumps(norm(data, self.numbers), sort_keys=True)

    def state(self, data):
        for node, v in data["nodes"].items():
            group = (data["prompt_id"], node)
            said = (v["state"], self.amount(v["value"], v["max"]), v["max"],
                    v["display_node_id"], v["parent_node_id"],
                    v["real_node_id"], sorted(v), v["prompt_id"],
                    v["node_id"])
            if self.seen.get(group) != said:
                self.seen[group] = said
                self.add("progress_state", group, said)

    def binary(self, payload):
        code = struct.unpack(">I", payload[:4])[0]
        if code == 1:
            fmt = struct.unpack(">I", payload[4:8])[0]
            self.add("binary", self.progress_group,
                     (1, fmt, image_kind(payload[8:])))
        elif code == 3:
            n = struct.unpack(">I", payload[4:8])[0]
            self.add("binary", (None, payload[8:8 + n].decode()),
                     (3, payload[8 + n:].decode()))
        else:
            n = struct.unpack(">I", payload[4:8])[0]
            meta = json.loads(payload[8:8 + n])
            self.add("binary", (meta["prompt_id"], meta["node_id"]),
                     (code, json.dumps(meta, sort_keys=True),
                      image_kind(payload[8 + n:])))


def image_kind(data):
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return ("png",) + struct.unpack(">II", data[16:24])
    if data.startswith(b"\xff\xd8\xff") and data.endswith(b"\xff\xd9"):
        return ("jpeg",)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ("webp",)
    return ("?", len(data))


def is_milestone(type_):
    """Waited for: neither `status`, which may overtake, nor progress, of which
    there may be more or less."""
    return type_ not in ("status", "progress", "progress_state", "binary",
                         "feature_flags", "close", "eof", "ping", "pong")


# --- replay --------------------------------------------------------------

def read_lines(folder, name):
    with open(os.path.join(DATA, folder, name), encoding="utf-8") as f:
        return [json.loads(line) for line in f]


class Replay:
    """What a client did once, at the moments at which it did it then. `late`
    is by how much it missed one of them, in seconds of the recording: if that
    is much, the server was somewhere else already."""

    def __init__(self, test, folder, slower=1):
        self.test = test
        self.folder = folder
        self.spec = RECORDINGS[folder]
        self.speed = self.spec.speed / slower
        self.late = 0.0
        self.ws_lines = read_lines(folder, "ws.jsonl")
        self.http_lines = read_lines(folder, "http.jsonl")
        self.alias = {}      # recorded text -> ours: ids, port
        self.sockets = {}
        self.recorded = Numbers()
        self.ours = Numbers()
        self.milestones = collections.Counter()
        self.frames = collections.Counter()
        self.dead = None     # what keeps the port of one that was ended
        self.next_number = 1

    # -- text in both directions

    def to_ours(self, text):
        for a, b in self.alias.items():
            text = text.replace(a, b)
        return text

    def to_recorded(self, text):
        for a, b in self.alias.items():
            text = text.replace(b, a)
        return text

    # -- steps

    def steps(self):
        """(time, function) of all that the client did, in order."""
        steps = [(h["t"], self.do_http, h) for h in self.http_lines]
        for w in self.ws_lines:
            if w.get("event") == "open":
                steps.append((w["t"], self.do_open, w))
            elif w.get("event") == "close":
                steps.append((w["t"], self.do_close, w))
            elif w.get("dir") == "out":
                steps.append((w["t"], self.do_send, w))
            elif w.get("dir") == "in":
                steps.append((w["t"], self.note_frame, w))
        return sorted(steps, key=lambda s: s[0])

    def note_frame(self, w):
        self.frames[w["sock"]] += 1
        if "text" in w and is_milestone(json.loads(w["text"])["type"]):
            self.milestones[w["sock"]] += 1

    def wait_milestones(self):
        for name, n in self.milestones.items():
            if name in self.sockets:
                self.sockets[name].wait_count(
                    n, lambda e: is_milestone(e.type))

    def run(self):
        with Sim(*self.spec.options, speed=self.speed) as self.sim:
            self.alias["127.0.0.1:8190"] = "127.0.0.1:%d" % self.sim.port
            for folder, index in self.spec.prelude:
                self.run_before(folder, index)
            self.count_to([h["response_body"]["number"]
                           for h in self.http_lines
                           if h["path"] == "/prompt" and h["status"] == 200
                           and h["method"] == "POST"][:1])
            began = time.monotonic()
            before = 0.0
            for t, act, line in self.steps():
                if act == self.note_frame:
                    act(line)
                    continue
                self.wait_milestones()
                due = began + (t - before) / self.speed
                time.sleep(max(0, due - time.monotonic()))
                began, before = time.monotonic(), t
                self.note_late(due)
                self.note_behind()
                try:
                    act(line)
                finally:
                    self.note_late(began + (line.get("t_end", t) - t) /
                                   self.speed)
            self.compare_sockets()

    def note_late(self, due):
        self.late = max(self.late, (time.monotonic() - due) * self.speed)

    def note_behind(self):
        """The server is late if less has come than then."""
        for name, n in self.frames.items():
            if name in self.sockets and self.sockets[name].mark() < n:
                self.late = max(self.late, LATE_S)

    def run_before(self, folder, index):
        posts = [h for h in read_lines(folder, "http.jsonl")
                 if h["method"] == "POST" and h["path"] == "/prompt"]
        body = posts[index]["request_body"]
        self.count_to(posts[index]["response_body"]["number"])
        reply = self.sim.http("POST", "/prompt", body)
        self.test.assertEqual(reply.status, 200)
        self.recorded.norm(posts[index]["response_body"]["number"])
        self.ours.norm(reply.json()["number"])
        self.sim.wait_history(body["prompt_id"])

    def count_to(self, number):
        """Uses numbers up, as the prompts in between had done."""
        if self.ours.base is None:
            return
        number = number[0] if isinstance(number, list) else number
        while number - self.recorded.base > self.next_number:
            self.sim.http("POST", "/prompt", {})
            self.next_number += 1
        self.next_number += 1

    def do_open(self, w):
        if self.dead:
            self.sim.args[self.sim.args.index("--port") + 1] = \
                str(self.sim.port)
            self.sim.start()
            self.dead.close()
            self.dead = None
        s = self.sim.ws(path=self.to_ours(w["path"]))
        self.test.assertEqual(s.status, w["status"])
        self.test.assertEqual(s.headers["upgrade"].lower(), "websocket")
        self.sockets[w["sock"]] = s
        # What it was given when it came is the first thing it hears.
        first = s.wait(lambda e: True)
        self.test.assertEqual(first.type, "status")
        told = [json.loads(x["text"]) for x in self.ws_lines
                if x["sock"] == w["sock"] and "text" in x and
                x["dir"] == "in"]
        if told and told[0]["data"].get("sid") != first.data["sid"]:
            self.alias[told[0]["data"]["sid"]] = first.data["sid"]

    def do_send(self, w):
        s = self.sockets[w["sock"]]
        if w.get("control") == "ping":
            s.ping(base64.b64decode(w["payload_b64"]))
            answer = s.wait_type("pong")
            self.test.assertEqual(answer.payload,
                                  base64.b64decode(w["payload_b64"]))
        else:
            s.send_text(w["text"])

    def do_close(self, w):
        how = w["how"]
        if how == "connect refused":
            with self.test.assertRaises(ConnectionRefusedError):
                self.sim.ws("x")
            return
        s = self.sockets.get(w["sock"])
        if how == "close frame sent by client":
            s.close(w["code"])
        elif how == "close frame from server":
            self.test.assertEqual(s.of_type("close")[-1].code, w["code"])
        elif how.startswith("TCP dropped by client"):
            s.drop(reset="RST" in how)
        else:
            self.test.assertIn("connection lost", how)
            self.end_server()
            s.wait_end()
            # No farewell, neither on SIGKILL nor on SIGINT.
            self.test.assertEqual(s.of_type("close"), [])
        self.milestones[w["sock"]] = self.frames[w["sock"]] = 0

    def end_server(self):
        if "sigint" in self.folder:
            self.sim.proc.send_signal(signal.SIGINT)
            self.test.assertEqual(self.sim.proc.wait(simlib.TIMEOUT), 0)
        else:
            self.sim.kill()
        self.dead = closed_port(self.sim.port)

    # -- HTTP

    def do_http(self, h):
        if h["status"] is None:
            with self.test.assertRaises(ConnectionRefusedError):
                self.sim.http(h["method"], h["path"])
            return
        body = h.get("request_body")
        headers = {k: self.to_ours(v)
                   for k, v in (h.get("request_headers") or {}).items()}
        if "request_b64" in h:
            body = base64.b64decode(h["request_b64"])
            headers["Content-Type"] = h["request_content_type"]
        elif body is not None:
            body = self.to_ours(body if isinstance(body, str)
                                else json.dumps(body))
        path = self.to_ours(h["path"]).replace(" ", "%20")
        if path.startswith("/history/") and h["status"] == 200 and h.get("response_body"):
            # It had ended when it was recorded; nobody need have been told.
            self.sim.wait_history(path.removeprefix("/history/"))
        reply = self.sim.http(h["method"], path, body, headers)
        if any(s in h["path"] or s in h.get("note", "")
               for s, _ in self.spec.skip):
            self.test.assertEqual(reply.status, h["status"])
            return
        self.compare_reply(h, reply)

    def compare_reply(self, h, reply):
        what = "%s %s (%s)" % (h["method"], h["path"], h.get("note", ""))
        t = self.test
        t.assertEqual(reply.status, h["status"], what)
        for k, v in h["response_headers"].items():
            t.assertEqual(reply.headers.get(k), v, what)
        if "response_b64" in h:
            want = base64.b64decode(h["response_b64"])
            t.assertEqual(image_kind(reply.body), image_kind(want), what)
            if "type=input" in h["path"]:
                t.assertEqual(reply.body, want, what)
        elif "response_size" in h:
            t.assertTrue(reply.json(), what)
        elif "response_text" in h:
            # Not JSON, because of a NaN; Python reads it all the same.
            t.assertIn(b"NaN", reply.body, what)
            self.compare_json(json.loads(h["response_text"]), reply, what)
        elif "json" in h["response_headers"]["content-type"]:
            self.compare_json(h["response_body"], reply, what)
        else:
            t.assertEqual(reply.text, h["response_body"], what)

    def compare_json(self, want, reply, what):
        got = json.loads(self.to_recorded(reply.text))
        if "prompt_id" in want and want["prompt_id"] != got["prompt_id"]:
            self.alias[want["prompt_id"]] = got["prompt_id"]
            got["prompt_id"] = want["prompt_id"]
        if "devices" in want:
            want, got = shape(want), shape(got)
        else:
            want = norm(want, self.recorded)
            got = norm(got, self.ours)
        self.test.assertEqual(got, want, what)

    # -- events

    def canon_recorded(self, name):
        c = Canon(self.spec.steps)
        for w in self.ws_lines:
            if w["sock"] != name or w.get("dir") != "in":
                continue
            if "text" in w:
                m = json.loads(w["text"])
                c.text(m["type"], m["data"])
            elif "binary_b64" in w:
                c.binary(base64.b64decode(w["binary_b64"]))
        return c.out

    def canon_ours(self, name):
        c = Canon(self.spec.steps)
        for e in self.sockets[name].events:
            if e.opcode == simlib.TEXT:
                m = json.loads(self.to_recorded(e.payload.decode()))
                c.text(m["type"], m["data"])
            elif e.opcode == simlib.BINARY:
                c.binary(e.payload)
        return c.out

    def compare_sockets(self):
        for name in self.sockets:
            self.compare_events(name, self.canon_recorded(name),
                                self.canon_ours(name))

    def compare_events(self, name, want, got):
        t, order = self.test, self.spec.order
        if order == "total":
            self.equal(name, got, want)
            return
        for apart in (True, False):
            self.equal(name,
                       [e for e in got if (e[0] == "status") == apart
                        and (order == "events" or not e[1] or apart)],
                       [e for e in want if (e[0] == "status") == apart
                        and (order == "events" or not e[1] or apart)])
        if order != "nodes":
            return
        groups = {e[1] for e in want if e[1]}
        t.assertEqual({e[1] for e in got if e[1]}, groups, name)
        for g in groups:
            self.equal("%s %s" % (name, g), [e for e in got if e[1] == g],
                       [e for e in want if e[1] == g])

    def equal(self, name, got, want):
        for i, (a, b) in enumerate(zip(got, want)):
            self.test.assertEqual(a, b, "socket %s, event %d" % (name, i))
        self.test.assertEqual(got[len(want):], [], "socket %s: too much" % name)
        self.test.assertEqual(want[len(got):], [], "socket %s: missing" % name)


class LargeReplay(Replay):
    """16: the frames that were left out, and the prompts of the other client,
    are made up for."""

    OTHERS = 55

    def do_http(self, h):
        if h["path"] == "/history" and h["t"] < 6.07:
            self.post_others()
        super().do_http(h)

    def post_others(self):
        entry = [h for h in self.http_lines if h.get("response_body") and
                 h["path"].startswith("/history/533f")][0]
        item = list(entry["response_body"].values())[0]["prompt"]
        for i in range(self.OTHERS):
            body = json.loads(json.dumps(
                {"prompt": item[2], "client_id": item[3]["client_id"]}))
            body["prompt"]["1"]["inputs"]["color"] += i + 1 - self.OTHERS
            body["prompt"]["2"]["inputs"]["width"] += i + 1 - self.OTHERS
            if i + 1 == self.OTHERS:
                body["prompt_id"] = item[1]
            self.test.assertEqual(
                self.sim.http("POST", "/prompt", body).status, 200)
        self.sim.wait_history(item[1])

    def canon_ours(self, name):
        # Of these only number and size are compared.
        self.sockets[name].events, all_ = [
            e for e in self.sockets[name].events
            if e.type != "progress_state"], self.sockets[name].events
        out = super().canon_ours(name)
        self.sockets[name].events = all_
        return out

    def compare_events(self, name, want, got):
        t = self.test
        # Three frames for each prompt, whatever the counts in between.
        status = [e for e in got if e[0] == "status"]
        t.assertEqual(len(status), 1 + 3 * (1 + self.OTHERS))
        t.assertEqual(len(status), len([e for e in want
                                        if e[0] == "status"]))
        t.assertEqual(status[-1][2][0], 0)
        for type_ in ("execution_start", "execution_cached",
                      "execution_success"):
            self.equal(name, [e for e in got if e[0] == type_],
                       [e for e in want if e[0] == type_])
        for type_ in ("executing", "executed"):
            t.assertEqual(sorted(e[1:] for e in got if e[0] == type_ and e[1]),
                          sorted(e[1:] for e in want if e[0] == type_ and e[1]))
        # Two for each of the 340 nodes, and not one more.
        frames = [e for e in self.sockets[name].events
                  if e.type == "progress_state"]
        recorded = [w for w in self.ws_lines if "text_omitted" in w or
                    '"progress_state"' in w.get("text", "")]
        t.assertEqual(len(frames), len(recorded))
        ours = sum(len(e.payload) for e in frames)
        theirs = sum(w.get("text_omitted") or len(w["text"])
                     for w in recorded)
        t.assertAlmostEqual(ours / theirs, 1, delta=0.02)


LATE_S = 0.05  # less than lies between two events whose order is compared


class RecordingTest(unittest.TestCase):
    maxDiff = 4000

    def test_all_are_listed(self):
        folders = [d for d in os.listdir(DATA)
                   if os.path.isdir(os.path.join(DATA, d))]
        self.assertEqual(sorted(folders), sorted(RECORDINGS))


def add_recording(folder):
    kind = LargeReplay if folder == "16-large" else Replay

    def test(self):
        # One that came late proves nothing against the server, and is
        # repeated more slowly, when the same delay is less of the recording.
        for slower in (1, 3, 9):
            replay = kind(self, folder, slower)
            try:
                replay.run()
                return
            except AssertionError:
                if slower == 9 or replay.late < LATE_S:
                    raise

    name = "test_" + folder.replace("-", "_")
    test.__name__ = name
    setattr(RecordingTest, name, test)


for f in RECORDINGS:
    add_recording(f)


class TeethTest(unittest.TestCase):
    """The comparison notices what it should."""

    def assert_fails(self, folder, **spec):
        with self.assertRaises(AssertionError):
            replay = Replay(unittest.TestCase(), folder)
            replay.spec = replay.spec._replace(**spec)
            replay.run()

    def test_missing_progress_state_is_noticed(self):
        self.assert_fails("18-error-event-that-is-not-the-end",
                          options=["--no-progress-state"])

    def test_missing_cache_is_noticed(self):
        self.assert_fails("02-cached", prelude=[])

    def test_hearing_where_it_should_be_deaf_is_noticed(self):
        self.assert_fails("12-overlap-same-clientid",
                          options=["--fixed-overlap"])

    def test_another_answer_is_noticed(self):
        self.assert_fails("15-http-endpoints", prelude=[])


# --- what no recording shows --------------------------------------------

LONG = sampler(steps=100000, step_ms=50)


def is_end(e):
    return e.type == "executing" and e.data["node"] is None and \
        "prompt_id" in e.data


def run(sim, workflow, client="c", **more):
    """Posts and waits; (id, events of the client, history entry)."""
    ws = sim.ws(client)
    reply = sim.post(workflow, client_id=client, **more)
    assert reply.status == 200, reply.text
    id_ = reply.json()["prompt_id"]
    ws.wait(is_end)
    # Gone for the server too: the next one of that id isn't made deaf by it.
    ws.close()
    events = [e for e in ws.events if e.type not in ("close", "eof")]
    return id_, events, sim.get_json("/history/" + id_)[id_]


class SimTest(unittest.TestCase):
    """With one comfysim for all tests of a class, reset before each."""
    options = ()
    speed = 20

    @classmethod
    def setUpClass(cls):
        cls.sim = Sim(*cls.options, speed=cls.speed)

    @classmethod
    def tearDownClass(cls):
        status = cls.sim.stop()
        assert status == 0, "comfysim ended with status %d" % status

    def setUp(self):
        self.sim.reset()

    def tearDown(self):
        for s in self.sim.sockets:
            s.drop()
        del self.sim.sockets[:]

    def ws(self, *args, **kw):
        return self.sim.ws(*args, **kw)

    def start_long(self, client="c"):
        ws = self.ws(client)
        id_ = self.sim.post(LONG, client_id=client).json()["prompt_id"]
        ws.wait_type("progress")
        return ws, id_


class OptionsTest(unittest.TestCase):
    def run_sim(self, *args):
        return subprocess.run([simlib.binary_path(), *args],
                              capture_output=True, text=True, timeout=simlib.TIMEOUT)

    def assert_usage(self, what, *args):
        r = self.run_sim(*args)
        self.assertEqual(r.returncode, 2, args)
        self.assertIn(what, r.stderr)
        self.assertEqual(r.stdout, "")

    def test_bad_arguments_exit_2_and_name_the_fault(self):
        self.assert_usage("--nonsense", "--nonsense")
        self.assert_usage("--port", "--port")
        self.assert_usage("65536", "--port", "65536")
        self.assert_usage("-1", "--port", "-1")
        self.assert_usage("1.5", "--port", "1.5")
        self.assert_usage("8x", "--port", "8x")
        self.assert_usage("--speed", "--speed", "0")
        self.assert_usage("nan", "--speed", "nan")
        self.assert_usage("extra", "extra")

    def test_help_and_version(self):
        r = self.run_sim("--help")
        self.assertEqual(r.returncode, 0)
        for option in ("--port", "--speed", "--strict-uuid"):
            self.assertIn(option, r.stdout)
        r = self.run_sim("--version")
        self.assertEqual(r.returncode, 0)
        self.assertTrue(r.stdout.startswith("comfysim "))

    def test_port_in_use_is_an_error(self):
        with Sim() as sim:
            r = self.run_sim("--port", str(sim.port))
            self.assertEqual(r.returncode, 1)
            self.assertIn(str(sim.port), r.stderr)

    def test_given_port_is_used(self):
        with closed_port() as closed:
            port = closed.getsockname()[1]
            with Sim(port=port) as sim:
                self.assertEqual(sim.port, port)

    def test_ends_cleanly_on_signals_while_busy(self):
        for sig in (signal.SIGTERM, signal.SIGINT):
            sim = Sim()
            ws = sim.ws("c")
            sim.post(LONG, client_id="c")
            ws.wait_type("progress")
            sim.proc.send_signal(sig)
            ws.wait_end()
            self.assertEqual(sim.proc.wait(simlib.TIMEOUT), 0)
            self.assertEqual(ws.of_type("close"), [])
            ws.drop()
            sim.stop()

    def test_unwritable_journal_is_an_error(self):
        r = self.run_sim("--journal", "/nonexistent/journal")
        self.assertEqual(r.returncode, 1)
        self.assertIn("/nonexistent/journal", r.stderr)


class SwitchTest(unittest.TestCase):
    UUID = "0a1d95f5-99e8-4c1e-a219-d9b3dfcfc54f"

    def test_ignore_prompt_id(self):
        with Sim("--ignore-prompt-id", speed=20) as sim:
            id_ = sim.post(sampler(), prompt_id=self.UUID).json()["prompt_id"]
            self.assertNotEqual(id_, self.UUID)
            sim.wait_history(id_)
            self.assertEqual(sim.get_json("/history/" + self.UUID), {})

    def test_no_execution_success(self):
        with Sim("--no-execution-success", speed=20) as sim:
            _, events, entry = run(sim, sampler())
            self.assertEqual([m[0] for m in entry["status"]["messages"]],
                             ["execution_start", "execution_cached"])
            for e in events:
                self.assertNotEqual(e.type, "execution_success")
                if e.data:
                    self.assertNotIn("timestamp", e.data)

    def test_no_progress_state(self):
        with Sim("--no-progress-state", speed=20) as sim:
            ws = sim.ws("c")
            ws.negotiate()
            sim.post(sampler(previews=3), client_id="c")
            ws.wait(is_end)
            count = simlib.types(ws.events)
            self.assertEqual(count["progress_state"], 0)
            self.assertEqual(count["feature_flags"], 0)
            self.assertEqual(count["progress"], 3)
            self.assertEqual([e.code for e in ws.of_type("binary")],
                             [1, 1, 1])
            self.assertEqual(sim.get("/features").status, 404)

    def test_strict_uuid(self):
        with Sim("--strict-uuid", speed=20) as sim:
            for bad in ("x", self.UUID.upper(), self.UUID[:-1], 7, "",
                        self.UUID.replace("-", "")):
                r = sim.post(sampler(), prompt_id=bad)
                self.assertEqual(r.status, 400, bad)
                self.assertEqual(r.json()["error"]["type"],
                                 "invalid_prompt_id")
            r = sim.post(sampler(), prompt_id=self.UUID)
            self.assertEqual(r.json()["prompt_id"], self.UUID)
            r = sim.http("POST", "/prompt", {"prompt": sampler(),
                                             "prompt_id": None})
            self.assertEqual(len(r.json()["prompt_id"]), 36)

    def test_no_jobs_api(self):
        with Sim("--no-jobs-api") as sim:
            self.assertEqual(sim.get("/api/jobs").status, 404)
            self.assertEqual(
                sim.http("POST", "/api/jobs/x/cancel", {}).status, 404)

    def test_no_interrupt_id(self):
        for options, stops in (((), False), (("--no-interrupt-id",), True)):
            with Sim(*options, speed=20) as sim:
                ws = sim.ws("c")
                sim.post(LONG, client_id="c")
                ws.wait_type("progress")
                sim.http("POST", "/interrupt", {"prompt_id": "another"})
                if stops:
                    ws.wait_type("execution_interrupted")
                else:
                    ws.wait_count(10, lambda e: e.type == "progress")
                    self.assertEqual(ws.of_type("execution_interrupted"), [])

    def test_fixed_overlap(self):
        for options, hears in (((), False), (("--fixed-overlap",), True)):
            with Sim(*options, speed=20) as sim:
                old, new = sim.ws("c"), sim.ws("c")
                old.close()
                sim.wait_until(
                    lambda s: s.stats()["websockets"]["open"] == 1)
                id_ = sim.post(sampler(), client_id="c").json()["prompt_id"]
                sim.wait_history(id_)
                new.ping()
                new.wait_type("pong")
                self.assertEqual(bool(new.of_type("execution_success")),
                                 hears)

    def test_comfyui_version(self):
        with Sim("--comfyui-version", "0.33.0") as sim:
            self.assertEqual(sim.get_json("/system_stats")["system"]
                             ["comfyui_version"], "0.33.0")

    def test_journal_file(self):
        import tempfile
        with tempfile.TemporaryDirectory() as d:
            path = os.path.join(d, "journal")
            with Sim("--journal", path, speed=20) as sim:
                run(sim, sampler())
                want = sim.get("/sim/journal").text
            with open(path, encoding="utf-8") as f:
                self.assertTrue(f.read().startswith(want))


class FaultTest(SimTest):
    def test_drop_of_one_client(self):
        for how in ("fin", "rst"):
            a, b = self.ws("a"), self.ws("b")
            r = self.sim.fault("drop", client_id="a", how=how)
            self.assertEqual(r["matched"], 1)
            end = a.wait_end()
            self.assertEqual(a.of_type("close"), [])
            self.assertEqual(end.data == "ConnectionResetError", how == "rst")
            b.ping()
            b.wait_type("pong")

    def test_drop_of_all(self):
        sockets = [self.ws("a"), self.ws("b")]
        self.assertEqual(self.sim.fault("drop")["matched"], 2)
        for s in sockets:
            s.wait_end()

    def test_half_open(self):
        ws = self.ws("c")
        ws.wait_type("status")
        self.sim.fault("half_open", client_id="c")
        ws.ping()
        run(self.sim, sampler(), client="other")
        # Whatever was to come would have come before the others' events.
        self.assertEqual(simlib.types(ws.events), {"status": 1})
        self.sim.fault("half_open", client_id="c", on=False)
        ws.wait_type("pong")
        ws.wait_count(4, lambda e: e.type == "status")

    def test_half_open_can_be_dropped(self):
        ws = self.ws("c")
        self.sim.fault("half_open")
        self.sim.fault("drop")
        ws.wait_end()

    def test_half_open_notices_that_the_client_is_gone(self):
        ws = self.ws("c")
        self.sim.fault("half_open")
        ws.drop(reset=True)
        self.sim.wait_until(lambda s: s.stats()["websockets"]["open"] == 0)

    def test_deaf(self):
        ws = self.ws("c")
        ws.wait_type("status")
        self.sim.fault("deaf", client_id="c")
        run(self.sim, sampler(), client="other")
        ws.ping()
        ws.wait_type("pong")
        self.assertEqual(simlib.types(ws.events), {"status": 1, "pong": 1})
        # A new connection hears again.
        run(self.sim, sampler(seed=2), client="c")

    def test_deaf_after(self):
        ws = self.ws("c")
        since = time.monotonic()
        self.sim.fault("deaf", client_id="c", after_ms=50)
        self.sim.wait_until(
            lambda s: s.stats()["websockets"]["registered"] == 0)
        self.assertGreaterEqual(time.monotonic() - since, 0.05)
        ws.ping()
        ws.wait_type("pong")

    def test_silent(self):
        ws = self.ws("c")
        ws.wait_type("status")
        self.sim.fault("silent", ms=60000)
        id_ = self.sim.post(sampler(), client_id="c").json()["prompt_id"]
        self.sim.wait_history(id_)
        self.assertEqual(len(ws.events), 1)
        self.sim.fault("silent", ms=1)
        self.sim.wait_until(lambda s: self.heard(ws))

    def heard(self, ws):
        self.sim.http("POST", "/queue", {"clear": True})
        return len(ws.events) > 1

    def test_delay(self):
        def took(path):
            t = time.monotonic()
            self.assertEqual(self.sim.get(path).status, 200)
            return time.monotonic() - t

        def is_quick(path, ms):
            """Whatever else the machine does, not every reply takes so long."""
            self.sim.wait_until(lambda s: took(path) < ms / 1e3)

        self.sim.fault("delay", ms=150, path="/history", count=1)
        is_quick("/queue", 150)
        self.assertGreaterEqual(took("/history/x"), 0.15)
        is_quick("/history", 150)
        # Without a count it lasts until it is cleared.
        self.sim.fault("delay", ms=60)
        self.assertGreaterEqual(took("/queue"), 0.06)
        self.assertGreaterEqual(took("/api/queue"), 0.06)
        self.sim.fault("clear")
        is_quick("/queue", 60)

    def test_other_requests_are_served_during_a_delay(self):
        import threading

        def served_meanwhile(sim):
            """Whatever else the machine does, not always both are late."""
            sim.fault("delay", ms=300, path="/prompt", count=1)
            before = sim.stats()["requests"].get("GET /prompt", 0)
            done = []
            t = threading.Thread(target=lambda: done.append(
                sim.get("/prompt").status))
            t.start()
            sim.wait_until(lambda s: s.stats()["requests"].get(
                "GET /prompt", 0) > before)
            self.assertEqual(sim.get("/queue").status, 200)
            early = done == []
            t.join()
            self.assertEqual(done, [200])
            return early

        self.sim.wait_until(served_meanwhile)

    def test_status(self):
        self.sim.fault("status", code=503, path="/prompt", method="POST",
                       count=2)
        self.assertEqual(self.sim.get("/prompt").status, 200)
        for want in (503, 503, 200):
            self.assertEqual(self.sim.post(sampler()).status, want)
        self.assertEqual(len(self.sim.journal("post")), 1)
        self.sim.fault("status", path="/history", code=500)
        self.assertEqual(self.sim.get("/histor").status, 404)
        self.assertEqual(self.sim.get("/history/abc").status, 500)

    def test_status_of_an_upgrade(self):
        self.sim.fault("status", code=502, path="/ws")
        with self.assertRaises(simlib.Refused) as r:
            self.ws("c")
        self.assertEqual(r.exception.status, 502)
        self.ws("c")

    def test_truncate(self):
        self.sim.fault("truncate", path="/features")
        with self.assertRaises(http.client.IncompleteRead) as r:
            self.sim.get("/features")
        self.assertGreater(len(r.exception.partial), 0)
        self.assertGreater(r.exception.expected, 0)
        self.sim.fault("truncate", path="/features", keep_bytes=3)
        with self.assertRaises(http.client.IncompleteRead) as r:
            self.sim.get("/features")
        self.assertEqual(len(r.exception.partial), 3)
        self.assertEqual(self.sim.get("/features").status, 200)

    def test_cut_after_the_prompt_is_queued(self):
        for how, error in (("fin", http.client.RemoteDisconnected),
                           ("rst", ConnectionResetError)):
            self.sim.fault("cut", path="/prompt", method="POST", how=how)
            id_ = "cut-" + how
            with self.assertRaises(error):
                self.sim.post(sampler(), prompt_id=id_)
            self.sim.wait_history(id_)

    def test_refuse(self):
        ws = self.ws("c")
        conn = http.client.HTTPConnection(self.sim.host, self.sim.port)
        self.addCleanup(conn.close)
        conn.connect()
        self.sim.fault("refuse", ms=600000)
        with self.assertRaises(ConnectionRefusedError):
            self.sim.get("/prompt")
        ws.ping()
        ws.wait_type("pong")
        since = time.monotonic()
        conn.request("POST", "/sim/fault", b'{"fault": "refuse", "ms": 200}')
        self.assertEqual(conn.getresponse().status, 200)

        def back(sim):
            try:
                return sim.get("/prompt").status == 200
            except ConnectionRefusedError:
                return False

        self.sim.wait_until(back)
        self.assertGreaterEqual(time.monotonic() - since, 0.2)

    def test_garbage(self):
        ws = self.ws("c")
        ws.wait_type("status")
        self.sim.fault("garbage", client_id="c")
        ws.wait_count(9)
        got = [(e.opcode, e.payload) for e in ws.events[1:]]
        self.assertEqual([o for o, _ in got], [1] * 5 + [2] * 3)
        texts = [p for o, p in got if o == 1]
        self.assertRaises(UnicodeDecodeError, texts[3].decode)
        for n in (0, 1, 4):
            self.assertRaises(ValueError, json.loads, texts[n])
        self.assertEqual(json.loads(texts[2])["type"], 7)
        binaries = [p for o, p in got if o == 2]
        self.assertEqual(struct.unpack(">II", binaries[0][:8]), (4, 4096))
        self.assertEqual(len(binaries[1]), 2)
        self.assertEqual(binaries[2][:4], b"\0\0\0\x63")
        self.sim.fault("garbage", client_id="c", kind="utf8")
        ws.wait_count(10)

    def test_huge(self):
        ws = self.ws("c")
        for kind, n in (("text", 1 << 16), ("binary", (1 << 22) + 1)):
            self.sim.fault("huge", bytes=n, kind=kind)
            e = ws.wait(lambda e, n=n: len(e.payload) == n)
            self.assertEqual(e.type, "huge" if kind == "text" else "binary")

    def test_restart(self):
        _, _, entry = run(self.sim, sampler())
        image = entry["outputs"]["2"]["images"][0]
        ws, id_ = self.start_long()
        waiting = self.sim.post(sampler(seed=3)).json()["prompt_id"]
        idle = http.client.HTTPConnection(self.sim.host, self.sim.port)
        self.addCleanup(idle.close)
        idle.request("GET", "/prompt")
        idle.getresponse().read()
        since = time.monotonic()
        self.sim.fault("restart", down_ms=100)
        ws.wait_end()
        # Nor does a connection between two requests live on.
        self.assertEqual(idle.sock.recv(1), b"")
        self.assertEqual(ws.of_type("close"), [])
        self.sim.wait_until(self.answers)
        self.assertGreaterEqual(time.monotonic() - since, 0.1)
        for x in (id_, waiting):
            self.assertEqual(self.sim.get_json("/history/" + x), {})
        self.assertEqual(self.sim.get_json("/queue"),
                         {"queue_running": [], "queue_pending": []})
        self.assertEqual(
            self.sim.get("/view?filename=" + image["filename"]).status, 200)
        # Nothing is cached, and numbers start anew.
        reply = self.sim.post(sampler(), client_id="c").json()
        self.assertEqual(reply["number"], 0)
        entry = self.sim.wait_history(reply["prompt_id"])
        self.assertEqual(entry["status"]["messages"][1][1]["nodes"], [])

    @staticmethod
    def answers(sim):
        try:
            return sim.get("/prompt").status == 200
        except OSError:
            return False

    def test_pause_and_resume(self):
        self.sim.fault("pause")
        ws = self.ws("c")
        id_ = self.sim.post(sampler(), client_id="c").json()["prompt_id"]
        self.assertEqual(len(self.sim.get_json("/queue")["queue_pending"]), 1)
        self.assertEqual(ws.of_type("execution_start"), [])
        self.sim.fault("resume")
        ws.wait(is_end)
        self.sim.wait_history(id_)

    def test_pause_in_the_middle(self):
        ws, _ = self.start_long()
        self.sim.fault("pause")
        # All that came before it has been read when this has.
        ws.ping()
        ws.wait_type("pong")
        n = len(ws.of_type("progress"))
        time.sleep(0.05)
        self.assertEqual(len(ws.of_type("progress")), n)
        self.sim.fault("resume")
        ws.wait_count(n + 2, lambda e: e.type == "progress")

    def test_pause_after_some_steps(self):
        ws = self.ws("c")
        self.sim.fault("pause", steps=2)
        id_ = self.sim.post(sampler(steps=5), client_id="c").json()["prompt_id"]
        for told in (2, 4):
            ws.wait_count(told, lambda e: e.type == "progress")
            self.sim.get("/prompt")
            time.sleep(0.05)
            self.assertEqual(len(ws.of_type("progress")), told)
            self.assertEqual(len(self.sim.get_json("/queue")["queue_running"]), 1)
            self.sim.fault("pause", steps=2)
        self.sim.fault("resume")
        ws.wait(is_end)
        self.sim.wait_history(id_)
        self.assertEqual(len(ws.of_type("progress")), 5)

    def test_pause_after_some_starts(self):
        ws = self.ws("c")
        self.sim.fault("pause", starts=2)
        for seed in (1, 2, 3):
            self.sim.post(sampler(seed=seed), client_id="c")
        ws.wait_count(2, lambda e: e.type == "execution_start")
        self.sim.get("/prompt")
        time.sleep(0.05)
        self.assertEqual(len(ws.of_type("execution_start")), 2)
        self.assertEqual(len(ws.of_type("progress")), 3)
        self.assertEqual(len(self.sim.get_json("/queue")["queue_running"]), 1)
        self.sim.fault("resume")
        ws.wait_count(3, is_end)
        self.assertEqual(len(ws.of_type("progress")), 9)

    def test_send(self):
        a, b = self.ws("a"), self.ws("b")
        self.sim.fault("send", client_id="a", text="plain \u00e9")
        self.sim.fault("send", client_id="b",
                       base64=base64.b64encode(b"\0\1\2\3\xff").decode())
        self.sim.fault("send", text={"type": "logs", "data": {"n": 1}})
        a.wait_type("logs")
        b.wait_type("logs")
        self.assertEqual([e.payload for e in a.events[1:-1]],
                         ["plain \u00e9".encode()])
        self.assertEqual([(e.opcode, e.payload) for e in b.events[1:-1]],
                         [(2, b"\0\1\2\3\xff")])

    def test_bad_orders_are_refused(self):
        for body in (b"", b"[]", b'{"fault": "no such"}', b"{}",
                     b'{"fault": "delay", "ms": -1}',
                     b'{"fault": "status", "code": 1000}',
                     b'{"fault": "refuse", "ms": "soon"}',
                     b'{"fault": "deaf", "after_ms": 86400001}',
                     b'{"fault": "pause", "steps": -1}',
                     b'{"fault": "huge", "bytes": 268435457}'):
            r = self.sim.http("POST", "/sim/fault", body)
            self.assertEqual(r.status, 400, body)
            self.assertIn("error", r.json())

    def test_rules_are_bounded(self):
        for _ in range(64):
            self.sim.fault("status", path="/nowhere")
        self.assertRaises(ValueError, self.sim.fault, "status")
        self.sim.fault("clear")
        self.sim.fault("status", path="/nowhere")


class QueueTest(SimTest):
    SEED = 18446744073709551615

    def test_seed_is_kept_digit_for_digit(self):
        self.sim.fault("pause")
        self.sim.post(sampler(seed=self.SEED), prompt_id="big")
        for text in (self.sim.get("/queue").text,
                     self.sim.get("/sim/journal").text):
            self.assertIn('"seed": %d' % self.SEED,
                          text.replace('":', '": ').replace("  ", " "))
        self.sim.fault("resume")
        self.sim.wait_history("big")
        self.assertIn(str(self.SEED), self.sim.get("/history/big").text)

    def test_seed_bounds(self):
        for seed, type_ in ((self.SEED + 1, "value_bigger_than_max"),
                            (-1, "value_smaller_than_min"),
                            (10 ** 60, "value_bigger_than_max")):
            r = self.sim.post(sampler(seed=seed))
            self.assertEqual(r.status, 400)
            e = r.json()["node_errors"]["1"]["errors"][0]
            self.assertEqual(e["type"], type_)
            self.assertEqual(e["extra_info"]["received_value"], seed)
        self.assertEqual(self.sim.post(sampler(seed=0)).status, 200)

    def test_values_are_converted_as_python_does(self):
        workflow = sampler(seed=True, step_ms=5, steps="3")
        workflow["2"]["inputs"]["filename_prefix"] = 7
        _, _, entry = run(self.sim, workflow)
        got = entry["prompt"][2]
        self.assertEqual(got["1"]["inputs"],
                         {"seed": 1, "step_ms": 5.0, "steps": 3})
        self.assertIsInstance(got["1"]["inputs"]["step_ms"], float)
        self.assertEqual(got["2"]["inputs"]["filename_prefix"], "7")

    def test_depth_of_a_workflow(self):
        for n, status in ((999, 200), (1001, 400)):
            w = {"0": {"class_type": "SimNan", "inputs": {}}}
            for i in range(1, n):
                w[str(i)] = {"class_type": "SimLoad",
                             "inputs": {"ms": 0.0, "after": [str(i - 1), 0]}}
            w["out"] = {"class_type": "PreviewAny",
                        "inputs": {"source": [str(n - 1), 0]}}
            r = self.sim.post(w, prompt_id="deep%d" % n)
            self.assertEqual(r.status, status)
        self.assertIn("RecursionError", r.text)
        self.sim.wait_history("deep999")

    def test_number_of_nodes(self):
        def many(n):
            return {str(i): {"class_type": "SimNan", "inputs": {}}
                    for i in range(n)}

        w = many(19999)
        w["o"] = {"class_type": "PreviewAny", "inputs": {"source": "x"}}
        self.assertEqual(self.sim.post(w).status, 200)
        w["p"] = w["o"]
        self.assertEqual(self.sim.post(w).status, 500)

    def test_cycle_in_the_workflow(self):
        w = {"1": {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}},
             "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
             "3": {"class_type": "PreviewImage",
                   "inputs": {"images": ["1", 0]}}}
        r = self.sim.post(w)
        self.assertEqual(r.status, 400)
        self.assertIn("RecursionError", r.text)

    def test_strange_bodies(self):
        for body, status in ((b'{"prompt": null}', 500),
                             (b'{"prompt": 7}', 500),
                             (b'{"prompt": []}', 400),
                             (b'{"prompt": {"1": 7}}', 500),
                             (b'{"prompt": {"1": {"class_type": 7}}}', 400),
                             (b'{"prompt": {}, "number": "x"}', 500),
                             (b"{" * 100000, 500),
                             (b"\xff", 500)):
            r = self.sim.http("POST", "/prompt", body)
            self.assertEqual(r.status, status, body[:50])
        w = {"1": {"class_type": "PreviewAny"}}
        r = self.sim.post(w)
        self.assertEqual(r.json()["node_errors"]["1"]["errors"][0]["details"],
                         "'inputs'")
        w = {"1": {"class_type": "PreviewAny", "inputs": {"source": "x"}}}
        r = self.sim.post(w, extra_data=[])
        self.assertEqual(r.status, 500)

    def test_key_that_comes_twice(self):
        body = ('{"prompt": {"1": {"class_type": "NoSuch"}, "1": '
                '{"class_type": "SimText", "inputs": {"text": "a", '
                '"text": "b"}}}, "prompt_id": "x", "prompt_id": "twice"}')
        r = self.sim.http("POST", "/prompt", body)
        self.assertEqual(r.json()["prompt_id"], "twice")
        entry = self.sim.wait_history("twice")
        self.assertEqual(entry["outputs"], {"1": {"text": ["b"]}})

    def test_journal_tells_the_whole_story(self):
        run(self.sim, sampler(), prompt_id="a")
        ws, id_ = self.start_long()
        self.sim.post(sampler(), prompt_id="b")
        self.sim.http("POST", "/queue", {"delete": ["b"]})
        self.sim.http("POST", "/interrupt", {"prompt_id": id_})
        ws.wait(is_end)
        self.sim.post({}, prompt_id="c")
        story = [(f["fact"], f.get("prompt_id"), f.get("result") or
                  f.get("verdict") or f.get("node"))
                 for f in self.sim.journal()
                 if not f["fact"].startswith("ws_")]
        self.assertEqual(story, [
            ("post", "a", "queued"), ("start", "a", None),
            ("executed", "a", "1"), ("executed", "a", "2"),
            ("end", "a", "success"), ("post", id_, "queued"),
            ("start", id_, None), ("post", "b", "queued"),
            ("deleted", "b", None), ("interrupt", id_, None),
            ("end", id_, "interrupted"), ("post", "c", "refused")])
        first = self.sim.journal()[0]["seq"]
        later = self.sim.get("/sim/journal?after=%d" % (first + 3)).text
        self.assertEqual(json.loads(later.splitlines()[0])["seq"], first + 4)

    def test_stats_count(self):
        before = self.sim.stats()["tcp"]["total"]
        ws = self.ws("c")
        for _ in range(3):
            self.sim.get("/queue")
        self.sim.get("/api/history/x")
        self.sim.get("/no/such")
        s = self.sim.stats()
        self.assertEqual(s["requests"], {
            "GET /ws": 1, "GET /queue": 3, "GET /history/{}": 1,
            "GET other": 1})
        self.assertEqual(s["requests_total"], 6)
        # One for each, and one for the question itself.
        self.assertEqual(s["tcp"]["total"] - before, 7)
        self.assertEqual(s["websockets"]["open"], 1)
        self.assertEqual(s["websockets"]["frames_sent"], 1)
        self.assertEqual(s["websockets"]["bytes_sent"],
                         len(ws.wait_type("status").payload))
        ws.drop()
        self.sim.wait_until(lambda s: s.stats()["websockets"]["open"] == 0)

    def test_reset_forgets(self):
        run(self.sim, sampler())
        self.sim.reset()
        s = self.sim.stats()
        self.assertEqual(s["requests"], {})
        self.assertEqual(s["queue"]["history"], 0)
        self.assertEqual(self.sim.get("/view?filename=sim_00001_.png").status,
                         404)
        self.assertEqual(self.sim.post(sampler()).json()["number"], 0)

    def post_many(self, n):
        """How often each status came, on connections that are kept."""
        conns = [http.client.HTTPConnection("127.0.0.1", self.sim.port)
                 for _ in range(16)]
        body = json.dumps({"prompt": {"1": {
            "class_type": "SimText", "inputs": {"text": "x"}}}})
        codes = collections.Counter()
        for at in range(0, n, len(conns)):
            some = conns[:n - at]
            for c in some:
                c.request("POST", "/prompt", body)
            for c in some:
                r = c.getresponse()
                r.read()
                codes[r.status] += 1
        for c in conns:
            c.close()
        return codes

    def test_history_is_bounded(self):
        self.sim.post(sampler(steps=1, step_ms=0), prompt_id="first")
        self.assertEqual(self.post_many(10000), {200: 10000})
        self.sim.wait_idle()
        self.assertEqual(self.sim.stats()["queue"]["history"], 10001)
        self.assertTrue(self.sim.get_json("/history/first"))
        self.post_many(1)
        self.sim.wait_idle()
        self.assertEqual(self.sim.stats()["queue"]["history"], 10001)
        self.assertEqual(self.sim.get_json("/history/first"), {})

    @unittest.skipUnless(os.environ.get("SIM_SLOW"),
                         "takes half a minute; set SIM_SLOW=1")
    def test_queue_is_bounded(self):
        self.sim.fault("pause")
        self.assertEqual(self.post_many(100002), {200: 100000, 503: 2})
        self.sim.http("POST", "/queue", {"clear": True})
        self.assertEqual(self.post_many(1), {200: 1})

    def test_jobs(self):
        run(self.sim, sampler(), prompt_id="done")
        run(self.sim, {"1": {"class_type": "SimError",
                             "inputs": {"message": "m"}},
                       "2": {"class_type": "PreviewAny",
                             "inputs": {"source": ["1", 0]}}},
            prompt_id="bad")
        _, id_ = self.start_long()
        self.sim.post(sampler(), prompt_id="waits")
        jobs = self.sim.get_json("/api/jobs")
        self.assertEqual([(j["id"], j["status"]) for j in jobs["jobs"]],
                         [("waits", "pending"), (id_, "in_progress"),
                          ("bad", "failed"), ("done", "completed")])
        self.assertEqual(jobs["pagination"]["total"], 4)
        r = self.sim.get_json("/api/jobs?status=failed,pending&limit=1")
        self.assertEqual([j["id"] for j in r["jobs"]], ["waits"])
        self.assertEqual(r["pagination"], {"offset": 0, "limit": 1,
                                           "total": 2, "has_more": True})
        self.assertEqual(self.sim.get("/api/jobs?limit=x").status, 400)
        self.assertEqual(self.sim.get_json("/api/jobs/done")["status"],
                         "completed")
        self.assertEqual(self.sim.get("/api/jobs/none").status, 404)
        self.assertEqual(self.sim.get("/jobs").status, 404)

    def cancel(self, path, body=None):
        r = self.sim.http("POST", path, body or {})
        self.assertEqual(r.status, 200)
        return r.json()["cancelled"]

    def test_job_cancel(self):
        ws, id_ = self.start_long()
        for x in ("p", "q"):
            self.sim.post(sampler(), prompt_id=x)
        self.assertTrue(self.cancel("/api/jobs/p/cancel"))
        self.assertFalse(self.cancel("/api/jobs/p/cancel"))
        self.assertTrue(self.cancel("/api/jobs/cancel",
                                    {"job_ids": ["none", "q"]}))
        self.assertFalse(self.cancel("/api/jobs/cancel", {"job_ids": []}))
        self.assertTrue(self.cancel("/api/jobs/%s/cancel" % id_))
        ws.wait_type("execution_interrupted")
        self.sim.wait_idle()
        self.assertEqual(self.sim.stats()["queue"]["history"], 1)


class NodeTest(SimTest):
    def test_text_to_image(self):
        w = {
            "3": {"class_type": "KSampler", "inputs": {
                "seed": 156680208700286, "steps": 4, "cfg": 8,
                "sampler_name": "euler", "scheduler": "normal", "denoise": 1,
                "model": ["4", 0], "positive": ["6", 0],
                "negative": ["7", 0], "latent_image": ["5", 0]}},
            "4": {"class_type": "CheckpointLoaderSimple", "inputs": {
                "ckpt_name": "v1-5-pruned-emaonly.safetensors"}},
            "5": {"class_type": "EmptyLatentImage", "inputs": {
                "width": 512, "height": 256, "batch_size": 2}},
            "6": {"class_type": "CLIPTextEncode", "inputs": {
                "text": "a castle", "clip": ["4", 1]}},
            "7": {"class_type": "CLIPTextEncode", "inputs": {
                "text": "text", "clip": ["4", 1]}},
            "8": {"class_type": "VAEDecode", "inputs": {
                "samples": ["3", 0], "vae": ["4", 2]}},
            "9": {"class_type": "SaveImage", "inputs": {
                "filename_prefix": "ComfyUI", "images": ["8", 0]}}}
        _, events, entry = run(self.sim, w)
        images = entry["outputs"]["9"]["images"]
        self.assertEqual([i["filename"] for i in images],
                         ["ComfyUI_00001_.png", "ComfyUI_00002_.png"])
        self.assertEqual(simlib.types(events)["progress"], 4)
        png = self.sim.get("/view?filename=" + images[0]["filename"]).body
        self.assertEqual(image_kind(png), ("png", 512, 256))
        self.check_png(png)
        # The workflow is in the file, as in a real one.
        self.assertIn(b"tEXtprompt\0{", png)
        # Another seed, another picture; all but the sampler is cached.
        w["3"]["inputs"]["seed"] += 1
        _, events, entry = run(self.sim, w)
        self.assertEqual(entry["status"]["messages"][1][1]["nodes"],
                         ["4", "5", "6", "7"])
        other = self.sim.get("/view?filename=" + entry["outputs"]["9"]
                             ["images"][0]["filename"]).body
        self.assertNotEqual(self.pixels(png), self.pixels(other))

    def chunks(self, png):
        at = 8
        while at < len(png):
            n, = struct.unpack(">I", png[at:at + 4])
            crc, = struct.unpack(">I", png[at + 8 + n:at + 12 + n])
            self.assertEqual(zlib.crc32(png[at + 4:at + 8 + n]), crc)
            yield png[at + 4:at + 8], png[at + 8:at + 8 + n]
            at += 12 + n

    def pixels(self, png):
        return zlib.decompress(b"".join(
            d for t, d in self.chunks(png) if t == b"IDAT"))

    def check_png(self, png):
        _, w, h = image_kind(png)
        self.assertEqual([t for t, _ in self.chunks(png)][-1], b"IEND")
        self.assertEqual(len(self.pixels(png)), h * (1 + 3 * w))

    def test_sampler_previews(self):
        for negotiated, code in ((False, 1), (True, 4)):
            ws = self.ws("c")
            if negotiated:
                ws.negotiate()
                ws.wait_type("feature_flags")
            self.sim.post(sampler(steps=10, previews=3, preview_bytes=70000,
                                  seed=code), client_id="c")
            ws.wait(is_end)
            frames = ws.of_type("binary")
            self.assertEqual([e.code for e in frames], [code] * 3)
            for e in frames:
                self.assertGreaterEqual(len(e.payload), 70000)
                self.assertTrue(e.payload.endswith(b"\xff\xd9"))
            ws.close()

    def test_new_style_progress(self):
        _, events, _ = run(self.sim, sampler(new_style=True, previews=3))
        count = simlib.types(events)
        self.assertEqual(count["progress"], 0)
        self.assertEqual(count["binary"], 0)
        self.assertEqual(count["progress_state"], 7)

    def test_error(self):
        w = {"1": {"class_type": "SimError", "inputs": {
                "message": "out of \u00e4pples", "type": "torch.OutOf",
                "after_ms": 10}},
             "2": {"class_type": "PreviewAny", "inputs": {
                 "source": ["1", 0]}}}
        _, events, entry = run(self.sim, w)
        e = [x for x in events if x.type == "execution_error"][0].data
        self.assertEqual(e["exception_message"], "out of \u00e4pples\n")
        self.assertEqual(e["exception_type"], "torch.OutOf")
        self.assertEqual(entry["status"]["status_str"], "error")

    def test_nan(self):
        w = {"1": {"class_type": "SimNan", "inputs": {}},
             "2": {"class_type": "SimError", "inputs": {
                 "message": "m", "after": ["1", 0]}},
             "3": {"class_type": "PreviewAny", "inputs": {
                 "source": ["2", 0]}}}
        id_, events, _ = run(self.sim, w)
        e = [x for x in events if x.type == "execution_error"][0]
        self.assertIn(b'"after": [NaN]', e.payload)
        self.assertIn('"after": [NaN]', self.sim.get("/history/" + id_).text)

    def test_text_to_everybody(self):
        other = self.ws("other")
        w = {"1": {"class_type": "SimText", "inputs": {
            "text": "gr\u00fc\u00df \U0001f600", "broadcast": True}}}
        _, _, entry = run(self.sim, w)
        self.assertEqual(entry["outputs"]["1"]["text"],
                         ["gr\u00fc\u00df \U0001f600"])
        frame = other.wait_type("binary").payload
        self.assertEqual(frame, b"\0\0\0\3\0\0\0\x011" +
                         "gr\u00fc\u00df \U0001f600".encode())

    def test_output_of_another_kind(self):
        w = {"1": {"class_type": "SimSampler", "inputs": {
                "seed": 1, "steps": 1, "step_ms": 0}},
             "2": {"class_type": "SimOutput", "inputs": {
                 "images": ["1", 0], "key": "gifs",
                 "json": '{"filename": "x.mp4", "n": 1}'}}}
        _, _, entry = run(self.sim, w)
        self.assertEqual(entry["outputs"]["2"],
                         {"gifs": [{"filename": "x.mp4", "n": 1}]})

    def test_load(self):
        w = {"1": {"class_type": "SimLoad", "inputs": {"ms": 600}},
             "2": {"class_type": "PreviewAny", "inputs": {
                 "source": ["1", 0]}}}
        t = time.monotonic()
        run(self.sim, w)
        self.assertGreaterEqual(time.monotonic() - t, 0.6 / self.speed)

    def test_picture_that_is_too_large(self):
        w = {"1": {"class_type": "EmptyImage", "inputs": {
                "width": 4096, "height": 4097, "batch_size": 1, "color": 0}},
             "2": {"class_type": "PreviewImage", "inputs": {
                 "images": ["1", 0]}}}
        _, events, _ = run(self.sim, w)
        e = [x for x in events if x.type == "execution_error"][0].data
        self.assertEqual(e["exception_type"], "MemoryError")

    def test_prefix_that_leads_outside(self):
        for prefix in ("../x", "/etc/x", "a/../../x"):
            w = sampler(prefix=prefix, steps=1)
            _, events, _ = run(self.sim, w)
            self.assertTrue([x for x in events
                             if x.type == "execution_error"], prefix)

    def test_uploaded_image_is_loaded(self):
        png = base64.b64decode(
            "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP8z4"
            "AdMOEQH6QSAM1BAQ/oQeJvAAAAAElFTkSuQmCC")
        w = {"1": {"class_type": "LoadImage", "inputs": {"image": "up.png"}},
             "2": {"class_type": "SaveImage", "inputs": {
                 "images": ["1", 0], "filename_prefix": "x"}}}
        self.assertEqual(self.sim.post(w).status, 400)
        self.upload("up.png", png)
        run(self.sim, w)
        got = self.sim.get("/view?filename=x_00001_.png").body
        self.assertEqual(image_kind(got), ("png", 8, 8))
        # Other content under the same name is noticed by the cache.
        self.upload("up.png", png + b"\0", overwrite="true")
        _, _, entry = run(self.sim, w)
        self.assertEqual(entry["status"]["messages"][1][1]["nodes"], [])

    def upload(self, name, data, **fields):
        body = b""
        for k, v in fields.items():
            body += ('--B\r\nContent-Disposition: form-data; name="%s"'
                     '\r\n\r\n%s\r\n' % (k, v)).encode()
        body += ('--B\r\nContent-Disposition: form-data; name="image"; '
                 'filename="%s"\r\nContent-Type: image/png\r\n\r\n'
                 % name).encode() + data + b"\r\n--B--\r\n"
        r = self.sim.http("POST", "/upload/image", body, {
            "Content-Type": "multipart/form-data; boundary=B"})
        self.assertEqual(r.status, 200)
        return r.json()

    def test_large_upload(self):
        data = os.urandom(3 << 20)
        name = self.upload("big.bin", data)["name"]
        self.assertEqual(self.sim.get(
            "/view?type=input&filename=" + name).body, data)

    def test_every_class_is_described(self):
        info = self.sim.get_json("/object_info")
        for name, c in info.items():
            self.assertEqual(self.sim.get_json("/object_info/" + name),
                             {name: c})
            for group in c["input"].values():
                for config in group.values():
                    self.assertIsInstance(config, (list, str))
            self.assertEqual(len(c["output"]), len(c["output_name"]))


class WireTest(SimTest):
    def test_two_requests_on_one_connection(self):
        conn = http.client.HTTPConnection("127.0.0.1", self.sim.port)
        for _ in range(5):
            conn.request("GET", "/prompt")
            self.assertEqual(conn.getresponse().read(),
                             b'{"exec_info": {"queue_remaining": 0}}')
            conn.request("POST", "/queue", b'{"clear": true}')
            self.assertEqual(conn.getresponse().read(), b"")
        conn.close()
        self.sim.wait_until(lambda s: s.stats()["tcp"]["open"] == 1)

    def test_head(self):
        r = self.sim.http("HEAD", "/prompt")
        self.assertEqual((r.status, r.body), (200, b""))
        self.assertEqual(r.headers["content-length"], "37")

    def test_body_without_length(self):
        import socket
        s = socket.create_connection(("127.0.0.1", self.sim.port))
        s.sendall(b"POST /interrupt HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertTrue(s.recv(100).startswith(b"HTTP/1.1 200 "))
        s.close()

    def test_expect_100_continue(self):
        import socket
        s = socket.create_connection(("127.0.0.1", self.sim.port))
        s.sendall(b"POST /queue HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
                  b"Expect: 100-continue\r\n\r\n")
        self.assertEqual(s.recv(100), b"HTTP/1.1 100 Continue\r\n\r\n")
        s.sendall(b"{}")
        self.assertTrue(s.recv(100).startswith(b"HTTP/1.1 200 "))
        s.close()

    def test_body_that_is_too_large(self):
        import socket
        for n, code in ((104857601, b"413"), (1 << 40, b"413")):
            s = socket.create_connection(("127.0.0.1", self.sim.port))
            s.sendall(b"POST /prompt HTTP/1.1\r\nHost: x\r\n"
                      b"Content-Length: %d\r\n\r\n" % n)
            self.assertEqual(s.recv(100).split()[1], code)
            s.close()

    def test_length_of_a_path(self):
        for n, status in ((4095, 200), (4096, 404)):
            path = "/history/" + "x" * (n - len("/history/"))
            self.assertEqual(self.sim.get(path).status, status)
        sid = "i" * (4095 - len("clientId="))
        self.assertEqual(self.ws(sid).wait_type("status").data["sid"], sid)

    def test_range(self):
        _, _, entry = run(self.sim, sampler())
        path = "/view?filename=" + \
            entry["outputs"]["2"]["images"][0]["filename"]
        whole = self.sim.get(path).body
        for spec, want in (("0-3", whole[:4]), ("8-", whole[8:]),
                           ("-5", whole[-5:]), ("4-999999", whole[4:])):
            r = self.sim.get(path, headers={"Range": "bytes=" + spec})
            self.assertEqual((r.status, r.body), (206, want), spec)
        r = self.sim.get(path, headers={"Range": "bytes=999999-"})
        self.assertEqual(r.status, 416)
        self.assertEqual(r.headers["content-range"],
                         "bytes */%d" % len(whole))

    def test_upgrade_elsewhere(self):
        with self.assertRaises(simlib.Refused) as r:
            self.ws(path="/prompt")
        self.assertEqual(r.exception.status, 404)
        self.ws("c", path="/api/ws").wait_type("status")

    def test_upgrade_with_a_foreign_origin(self):
        with self.assertRaises(simlib.Refused) as r:
            self.ws("c", headers={"Origin": "http://evil.example"})
        self.assertEqual(r.exception.status, 403)
        self.ws("c", headers={
            "Origin": "http://127.0.0.1:%d" % self.sim.port})

    def test_client_ids_are_any_text(self):
        for text, sid in (("a%26b%3Dc", "a&b=c"), ("%C3%A9", "\u00e9"),
                          ("a+b", "a b"), ("%22", '"')):
            ws = self.ws(path="/ws?clientId=" + text)
            self.assertEqual(ws.wait_type("status").data["sid"], sid)
            self.sim.post(sampler(steps=1, seed=len(sid)), client_id=sid)
            ws.wait(is_end)

    def test_messages_of_clients(self):
        ws = self.ws("c")
        # No JSON: not counted as the first message, as in the original.
        ws.send_text("no json")
        ws.send(simlib.BINARY, b"\0\1")
        ws.negotiate()
        ws.wait_type("feature_flags")
        ws.negotiate()
        ws.ping()
        ws.wait_type("pong")
        self.assertEqual(len(ws.of_type("feature_flags")), 1)

    @staticmethod
    def count_on(sock):
        """Open connections, asked for on one of them."""
        sock.sendall(b"GET /sim/stats HTTP/1.1\r\nHost: x\r\n\r\n")
        return json.loads(sock.recv(4096).split(b"\r\n\r\n")[1]) \
            ["tcp"]["open"]

    def test_many_connections(self):
        import resource
        import socket
        want = 4096
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < want + 200:
            self.skipTest("too few descriptors")
        resource.setrlimit(resource.RLIMIT_NOFILE,
                           (max(soft, want + 200), hard))
        socks = []
        try:
            self.sim.wait_until(lambda s: s.stats()["tcp"]["open"] == 1)
            for _ in range(want):
                socks.append(socket.create_connection(
                    ("127.0.0.1", self.sim.port)))
            self.sim.wait_until(lambda s: self.count_on(socks[0]) == want)
            # One more is closed at once, and those before still work.
            over = socket.create_connection(("127.0.0.1", self.sim.port))
            self.assertEqual(over.recv(1), b"")
            over.close()
            socks[-1].sendall(b"GET /prompt HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertIn(b"200 OK", socks[-1].recv(4096))
        finally:
            for s in socks:
                s.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.sim.wait_until(lambda s: s.stats()["tcp"]["open"] == 1)


class EmitTest(SimTest):
    def test_count_and_stamps(self):
        ws = self.ws("c")
        self.sim.emit(client_id="c", count=5000, rate_per_s=0, kind="small",
                      prompt_ids=["a", "b"])
        ws.wait_count(5000, lambda e: e.type == "progress")
        got = ws.of_type("progress")
        self.assertEqual([e.data["prompt_id"] for e in got[:4]],
                         ["a", "b", "a", "b"])
        stamps = [e.data["t_ns"] for e in got]
        self.assertEqual(stamps, sorted(stamps))
        self.assertLess(stamps[-1], time.monotonic_ns())

    def test_rate(self):
        ws = self.ws("c")
        since = time.monotonic_ns()
        self.sim.emit(client_id="all", count=50, rate_per_s=500, kind="small")
        ws.wait_count(50, lambda e: e.type == "progress")
        got = ws.of_type("progress")
        took = got[-1].data["t_ns"] - since
        self.assertGreaterEqual(took, 49 / 500 * 1e9 * 0.9)

    def test_kinds(self):
        ws = self.ws("c")
        self.sim.emit(count=2, kind="state300", prompt_ids=["p"])
        ws.wait_count(2, lambda e: e.type == "progress_state")
        state = ws.of_type("progress_state")[1].data
        self.assertEqual(len(state["nodes"]), 300)
        self.assertIn("t_ns", state)
        self.sim.emit(count=2, kind="preview200k", prompt_ids=["p"])
        ws.wait_count(2, lambda e: e.type == "binary")
        frame = ws.of_type("binary")[1]
        self.assertGreaterEqual(len(frame.payload), 200000)
        self.assertEqual(frame.meta["prompt_id"], "p")
        self.assertIn("t_ns", frame.meta)

    def test_template(self):
        ws = self.ws("c")
        self.sim.emit(count=2, prompt_ids=["x", "y"], template=(
            '{"type": "mine", "data": {"id": "%PROMPT_ID%", "n": %SEQ%, '
            '"t_ns": %T_NS%, "per": "100%"}}'))
        ws.wait_count(2, lambda e: e.type == "mine")
        got = [e.data for e in ws.of_type("mine")]
        self.assertEqual([(d["id"], d["n"], d["per"]) for d in got],
                         [("x", 0, "100%"), ("y", 1, "100%")])

    def test_only_the_named_client_hears(self):
        a, b = self.ws("a"), self.ws("b")
        self.sim.emit(client_id="a", count=3, kind="small")
        a.wait_count(3, lambda e: e.type == "progress")
        b.ping()
        b.wait_type("pong")
        self.assertEqual(b.of_type("progress"), [])

    def test_bad_orders(self):
        for order in ({}, {"kind": "small"}, {"kind": "x", "count": 1},
                      {"kind": "small", "count": 0},
                      {"kind": "small", "count": 1000000001},
                      {"kind": "small", "count": 1, "rate_per_s": -1},
                      {"kind": "small", "count": 1, "prompt_ids": [1]}):
            self.assertRaises(ValueError, self.sim.emit, **order)


if __name__ == "__main__":
    unittest.main()

"""An MCP client of the tests' own, which looks at every byte: `comfymux mcp` as a
process, lines in and out, and each line that it writes checked.

With MCP_SCHEMAS naming a directory of the specification's schema-VERSION.json
files, each message is validated against the schema of the version in force.
"""
import json
import os
import subprocess
import threading
import time

import jsonschema_lite
import rig
from proclib import children_of, is_running

MODERN = "2026-07-28"
LEGACY = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
SANITIZED = "asan" in rig.BIN  # takes a multiple of the memory
LINE_MAX = 10 << 20  # what the official clients take
META = "io.modelcontextprotocol/"
RESULTS = {
    "initialize": "InitializeResult", "ping": "EmptyResult",
    "server/discover": "DiscoverResult", "tools/list": "ListToolsResult",
    "tools/call": "CallToolResult", "resources/list": "ListResourcesResult",
    "resources/templates/list": "ListResourceTemplatesResult",
    "resources/read": "ReadResourceResult",
    "subscriptions/listen": "SubscriptionsListenResult",
}
NOTIFICATIONS = {
    "notifications/progress": "ProgressNotification",
    "notifications/subscriptions/acknowledged": "SubscriptionsAcknowledgedNotification",
}


class Schemas:
    """Nothing is checked against schemas when MCP_SCHEMAS isn't set."""

    def __init__(self):
        self.validators = {}
        folder = os.environ.get("MCP_SCHEMAS")
        for version in LEGACY + (MODERN,) if folder else ():
            with open(os.path.join(folder, "schema-%s.json" % version)) as f:
                self.validators[version] = jsonschema_lite.Validator(json.load(f))

    def check(self, version, definition, value):
        validator = self.validators.get(version)
        if validator is None:
            return
        where = "definitions" if "definitions" in validator.document else "$defs"
        if definition not in validator.document[where]:
            raise AssertionError("%s has no %s" % (version, definition))
        try:
            validator.check(value, validator.document[where][definition])
        except jsonschema_lite.Invalid as e:
            raise AssertionError("%s %s: %s\n%.2000s" % (version, definition, e, json.dumps(value)))


SCHEMAS = Schemas()


def no_duplicates(pairs):
    keys = [k for k, _ in pairs]
    assert len(keys) == len(set(keys)), keys
    return dict(pairs)


def no_constants(name):
    raise ValueError("bare " + name)


def strict_json(text):
    return json.loads(text, object_pairs_hook=no_duplicates, parse_constant=no_constants)


def modern(params=None, **meta):
    """params with the envelope of the modern era."""
    params = dict(params or {})
    params["_meta"] = {META + "protocolVersion": MODERN, META + "clientCapabilities": {},
                       META + "clientInfo": {"name": "raw", "version": "1"}, **meta}
    return params


def peak_kb(pid):
    with open("/proc/%d/status" % pid) as f:
        for line in f:
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    raise AssertionError("no VmHWM")


def private_kb(pid):
    """What is its alone, now."""
    with open("/proc/%d/smaps_rollup" % pid) as f:
        return sum(int(line.split()[1]) for line in f if line.startswith("Private_"))


class Client:
    """One process. Replies are kept by id; everything is in `lines`, in order."""

    def __init__(self, owner, *args, comfyui=True, read=True, sock=True, light=False, **kwargs):
        self.light = light  # for thousands of lines: counted, not looked at
        self.rig = owner
        argv = list(args)
        if sock:
            argv += ["--socket", owner.socket]
        if comfyui and owner.sim_url:
            argv += ["--comfyui", owner.sim_url]
        self.process = owner.start("comfymux", "mcp", *argv, stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, bufsize=0, **kwargs)
        self.version = None
        self.next_id = 1
        self.asked = {}  # id as JSON text: (method, version)
        self.tokens = {}  # of progress, as JSON text: the last request with it
        self.replies = {}
        self.lines = []
        self.notifications = []
        self.cancelled = set()
        self.faults = []
        self.changed = threading.Condition()
        self.over = False
        self.reader = None
        if read:
            self.start_reading()

    # --- in ---

    def start_reading(self):
        self.reader = threading.Thread(target=self.read_all, daemon=True)
        self.reader.start()

    def read_all(self):
        rest = b""
        while True:
            try:
                data = os.read(self.process.stdout.fileno(), 1 << 16)
            except (OSError, ValueError):
                data = b""
            with self.changed:
                if not data:
                    if rest:
                        self.faults.append("an unfinished last line: %.200r" % rest)
                    self.over = True
                    self.changed.notify_all()
                    return
                *whole, rest = (rest + data).split(b"\n")
                for line in whole:
                    try:
                        self.take(line)
                    except Exception as e:  # told by whoever waits
                        self.faults.append("%s: %.500r" % (e, line))
                self.changed.notify_all()

    def take(self, line):
        assert len(line) + 1 <= LINE_MAX, "a line of %d bytes" % len(line)
        if self.light:
            message = json.loads(line)
            assert "result" in message, line[:200]
            self.replies.setdefault(json.dumps(message["id"]), []).append(message["id"])
            return
        message = strict_json(line.decode("utf-8", "strict"))
        self.lines.append(message)
        if isinstance(message, list):
            assert message, "an empty batch"
            SCHEMAS.check("2025-03-26", "JSONRPCBatchResponse", message)
            for one in message:
                self.take_message(one)
        else:
            self.take_message(message)

    def take_message(self, message):
        assert isinstance(message, dict) and message["jsonrpc"] == "2.0", message
        if "method" in message:
            assert "id" not in message, "a request from the server"
            self.take_notification(message)
            return
        assert set(message) - {"jsonrpc", "id"} in ({"result"}, {"error"}), set(message)
        if "id" not in message:
            assert "error" in message
            SCHEMAS.check("2025-11-25", "JSONRPCErrorResponse", message)
            return
        key = json.dumps(message["id"])
        assert key in self.asked, "an answer to what was not asked: " + key
        assert key not in self.cancelled, "an answer after the cancel"
        method, version = self.asked[key]
        self.check_reply(method, version, message)
        self.replies.setdefault(key, []).append(message)

    def check_reply(self, method, version, message):
        version = version or self.version or "2025-11-25"
        if method == "initialize" and "result" in message:
            version = message["result"]["protocolVersion"]
        if "error" in message:
            assert isinstance(message["error"]["code"], int)
            SCHEMAS.check(version, "JSONRPCErrorResponse" if version >= "2025-11-25"
                          else "JSONRPCError", message)
            return
        result = message["result"]
        assert isinstance(result, dict)
        if version == MODERN:
            assert result["resultType"] == "complete", result
        else:
            for name in ("resultType", "ttlMs", "cacheScope"):
                assert name not in result, name
            assert "serverInfo" not in result.get("_meta", {})
        if method in RESULTS:
            SCHEMAS.check(version, RESULTS[method], result)

    def take_notification(self, message):
        method = message["method"]
        self.notifications.append(message)
        version = self.version or MODERN
        SCHEMAS.check(version, "JSONRPCNotification", message)
        if method in NOTIFICATIONS:
            SCHEMAS.check(MODERN if "subscriptions" in method else version,
                          NOTIFICATIONS[method], message)
        if method == "notifications/progress":
            key = self.tokens[json.dumps(message["params"]["progressToken"])]
            assert key not in self.replies, "progress after the answer to " + key

    def wait(self, condition, what):
        with self.changed:
            until = time.monotonic() + rig.PATIENCE_S
            while True:
                if self.faults:
                    raise AssertionError("; ".join(self.faults))
                value = condition()
                if value:
                    return value
                if self.over or time.monotonic() > until:
                    raise AssertionError("waited in vain for %s; last: %.500r" %
                                         (what, self.lines[-1:]))
                self.changed.wait(0.5)

    # --- out ---

    def write(self, data):
        # Unbuffered: a signal (SIGCONT, say) may end a long write early.
        left = memoryview(data)
        while left:
            left = left[self.process.stdin.write(left):]

    def send(self, message):
        """A message, or a list of them: a batch."""
        for one in message if isinstance(message, list) else [message]:
            if isinstance(one, dict) and "method" in one and "id" in one:
                params = one.get("params")
                meta = params.get("_meta", {}) if isinstance(params, dict) else {}
                key = json.dumps(one["id"])
                self.asked[key] = (one["method"], meta.get(META + "protocolVersion"))
                if "progressToken" in meta:
                    self.tokens[json.dumps(meta["progressToken"])] = key
        self.write(json.dumps(message).encode() + b"\n")

    def ask(self, method, params=None, id=None):
        """Sends a request; its id."""
        if id is None:
            id = self.next_id
            self.next_id += 1
        message = {"jsonrpc": "2.0", "id": id, "method": method}
        if params is not None:
            message["params"] = params
        self.send(message)
        return id

    def notify(self, method, params=None):
        message = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            message["params"] = params
        self.send(message)

    def answer(self, id):
        key = json.dumps(id)
        return self.wait(lambda: self.replies.get(key), "the answer to " + key)[0]

    def request(self, method, params=None, id=None):
        return self.answer(self.ask(method, params, id))

    def initialize(self, version="2025-11-25"):
        reply = self.request("initialize", {
            "protocolVersion": version, "capabilities": {},
            "clientInfo": {"name": "raw", "version": "1"}})
        self.version = reply["result"]["protocolVersion"]
        self.notify("notifications/initialized")
        return reply["result"]

    def call(self, name, arguments=None, token=None, id=None, era=None):
        """Sends tools/call; its id."""
        params = {"name": name, "arguments": arguments or {}}
        if token is not None:
            params["_meta"] = {"progressToken": token}
        if era == MODERN:
            params = modern(params, **params.get("_meta", {}))
        return self.ask("tools/call", params, id)

    def tool(self, name, arguments=None, **kwargs):
        """Calls it and returns its result."""
        return self.answer(self.call(name, arguments, **kwargs))["result"]

    def cancel(self, id, reason=None):
        params = {"requestId": id}
        if reason is not None:
            params["reason"] = reason
        self.notify("notifications/cancelled", params)

    def progress(self, token):
        return [n["params"] for n in list(self.notifications)
                if n["method"] == "notifications/progress" and n["params"]["progressToken"] == token]

    # --- life ---

    def workers(self):
        """Pids of its workers: its own, and what the supervisor forked for it."""
        found = [s["pid"] for s in self.rig.sessions()
                 if s["keeper_pid"] == self.process.pid and s["pid"] > 0]
        for pid in children_of(self.process.pid):
            try:
                with open("/proc/%d/comm" % pid) as f:
                    if f.read().strip() == "comfymux-worker"[:15]:
                        found.append(pid)
            except OSError:
                pass
        return [pid for pid in found if is_running(pid)]

    def worker(self):
        """The pid of its worker, once there is one."""
        return rig.wait_for(self.workers, "a worker")[0]

    def end(self):
        """Closes stdin; the exit status."""
        self.process.stdin.close()
        status = self.process.wait(rig.PATIENCE_S)
        if self.reader:
            self.reader.join(rig.PATIENCE_S)
        if self.faults:
            raise AssertionError("; ".join(self.faults))
        return status

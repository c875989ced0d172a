"""toollib.py - an MCP client that calls tools and holds what they return to what
they promise, and workflows to give them."""
import os
import shutil
import tempfile
import unittest

import jsonschema_lite
import mcplib
import rig
from mcplib import MODERN, Client
from rig import wait_for

SEED = 18446744073709551615  # 2^64-1: no double holds it
PNG = b"\x89PNG\r\n\x1a\n"
LIST_MAX = 20 << 10
NEVER = "00000000-0000-4000-8000-000000000000"


def sampler(steps=4, step_ms=5, prefix="tool", seed=1, **more):
    return {
        "3": {"class_type": "SimSampler", "inputs": {"seed": seed, "steps": steps, "step_ms": step_ms, **more}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": prefix}},
    }


def failing(after_ms=0, message="out of cheese"):
    return {
        "3": {"class_type": "SimSampler", "inputs": {"seed": 1, "steps": 2, "step_ms": 5}},
        "5": {"class_type": "SimError", "inputs": {"message": message, "type": "CheeseError",
                                                   "after_ms": after_ms, "after": ["3", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "e"}},
    }


FOREVER = {"steps": 10000, "step_ms": 50}


class Tools:
    """A client whose results are held to what the tools promise."""

    def __init__(self, owner, version="2025-11-25", *args, **kwargs):
        self.client = Client(owner, *args, **kwargs)
        self.version = version
        if version != MODERN:
            self.client.initialize(version)
        self.list = {t["name"]: t for t in self.client.request(
            "tools/list", mcplib.modern() if version == MODERN else None)["result"]["tools"]}

    def start(self, name, token=None, **arguments):
        return self.client.call(name, arguments, token=token, era=self.version)

    def look(self, result, name):
        """(is_error, the object that the first text block holds), checked."""
        body = mcplib.strict_json(result["content"][0]["text"])
        assert isinstance(body, dict), body
        if self.version >= "2025-06-18" and not result["isError"]:
            assert result["structuredContent"] == body
        else:
            assert "structuredContent" not in result
        if not result["isError"]:
            schema = self.list[name].get("outputSchema")
            if schema:
                jsonschema_lite.Validator(schema).check(body, schema)
        else:
            assert isinstance(body["error"]["type"], str) and body["error"]["type"], body
            assert body["error"]["message"], body
        return result["isError"], body

    def end_of(self, call, name):
        return self.look(self.client.answer(call)["result"], name)

    def good(self, name, **arguments):
        is_error, body = self.end_of(self.start(name, **arguments), name)
        assert not is_error, body
        return body

    def bad(self, name, type_, *words, **arguments):
        is_error, body = self.end_of(self.start(name, **arguments), name)
        assert is_error, body
        assert body["error"]["type"] == type_, body
        for word in words:
            assert word in body["error"]["message"], (word, body)
        return body

    def raw(self, name, **arguments):
        return self.client.answer(self.start(name, **arguments))["result"]


class Case(unittest.TestCase):
    def setUp(self):
        self.reports = tempfile.mkdtemp(prefix="cmx-san-")
        self.addCleanup(self.look_at_reports)
        self.new_rig()

    def new_rig(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)
        self.conf = None
        # Links, since the directory is gone when the last process has ended.
        for program in ("comfymux", "comfymuxd"):
            name = "%s.log" % program
            os.close(os.open(self.rig.path(name), os.O_CREAT | os.O_WRONLY, 0o666))
            os.link(self.rig.path(name), os.path.join(self.reports, "%d.%s" % (len(os.listdir(self.reports)), name)))

    def look_at_reports(self):
        """A worker that dies of a fault has a successor, and the test would
        pass."""
        texts = []
        for name in os.listdir(self.reports):
            with open(os.path.join(self.reports, name), errors="replace") as f:
                texts.append(f.read())
        shutil.rmtree(self.reports)
        for text in texts:
            for word in ("Sanitizer", "runtime error:", "Segmentation fault", "Aborted", "Bus error",
                         "Illegal instruction", "Bad system call"):
                at = text.find(word)
                self.assertEqual(at, -1, text[max(0, at - 500):at + 4000])

    def config(self, **keys):
        self.conf = self.rig.write("config/comfymux/comfymux.conf",
                                   "".join("%s = %s\n" % kv for kv in keys.items()))

    def tools(self, *args, **kwargs):
        t = Tools(self.rig, *args, **kwargs)
        self.addCleanup(t.client.process.wait)
        self.addCleanup(t.client.process.stdin.close)
        return t

    def both(self, *sim_options, **config):
        if config:
            self.config(**config)
        self.rig.start_sim(*sim_options)
        self.daemon()
        return self.tools()

    def daemon(self, **kwargs):
        """Started by root it is a system service, and reads no user's file."""
        return self.rig.start_daemon(*(("--config", self.conf) if self.conf else ()), **kwargs)

    def journal(self, fact):
        return [j for j in self.rig.journal() if j["fact"] == fact]

    def executing(self, tools, call, token):
        """Waits until the call's prompt runs."""
        tools.client.wait(lambda: [p for p in tools.client.progress(token) if "Node" in p.get("message", "")],
                          "its first node")
        return call

    def running(self, tools, **more):
        prompt = tools.good("submit_workflow", workflow=sampler(**{**FOREVER, **more}))["prompt_id"]
        wait_for(lambda: tools.good("get_execution_progress", prompt_id=prompt)["status"] == "executing",
                 "it to run")
        return prompt

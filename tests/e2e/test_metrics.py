"""Figures for Prometheus: on the socket, by HTTP, and the rules that use them.
promtool judges where there is one (scripts/install-deps fetches it); a small
reader of the format does everywhere."""
import json
import os
import re
import shutil
import subprocess
import unittest

import rig
from rig import free_port, http, wait_for
from test_cli import sampler

RULES = os.path.join(rig.ROOT, "etc/prometheus/comfymux.rules.yml")
PROMTOOL = shutil.which("promtool", path=os.environ["PATH"] + ":" + os.path.join(rig.ROOT, "build/tools"))
SAMPLE = re.compile(r'^([a-z_]+)(\{[a-z]+="[^"]*"\})? (\S+)$')


def read(text):
    """{(name, labels): value}; checks that each sample belongs to the type
    announced last and that none comes twice."""
    found, kind, name = {}, None, None
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            continue
        if line.startswith("# HELP "):
            continue
        m = SAMPLE.match(line)
        assert m, line
        base = re.sub(r"_(bucket|sum|count)$", "", m[1]) if kind == "histogram" else m[1]
        assert base == name, (line, name)
        assert kind != "counter" or base.endswith("_total"), line
        assert (m[1], m[2]) not in found, line
        found[m[1], m[2]] = float(m[3])
    return found


class Metrics(unittest.TestCase):
    def setUp(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)
        self.rig.start_sim()

    def start(self):
        self.port = free_port()
        conf = self.rig.write("conf", "metrics_listen = 127.0.0.1:%d\n" % self.port)
        return self.rig.start_daemon("--config", conf)

    def page(self):
        status, text = http("GET", "http://127.0.0.1:%d/metrics" % self.port)
        self.assertEqual(status, 200)
        return text.decode()

    def test_what_happened_is_counted(self):
        self.start()
        self.rig.write("wf.json", sampler())
        self.rig.run("run", "wf.json", check=0)
        self.rig.write("bad.json", json.dumps({"1": {"class_type": "NoSuchNode", "inputs": {}}}))
        self.rig.run("run", "bad.json", check=4)
        before = read(self.page())
        self.assertEqual(before["comfymux_prompts_ended_total", '{outcome="completed"}'], 1)
        self.assertEqual(before["comfymux_prompts_accepted_total", None], 2)
        self.assertEqual(before["comfymux_http_requests_total", '{status="2xx"}'], 1)
        self.assertEqual(before["comfymux_http_requests_total", '{status="4xx"}'], 1)
        self.assertEqual(before["comfymux_upstream_state", '{state="connected"}'], 1)
        self.assertEqual(before["comfymux_events_total", '{type="executed"}'], 1)
        self.assertEqual(before["comfymux_polls_total", None], 0)
        count = before["comfymux_event_latency_seconds_count", None]
        self.assertGreater(count, 0)
        buckets = [v for (n, _), v in before.items() if n == "comfymux_event_latency_seconds_bucket"]
        self.assertEqual(buckets, sorted(buckets))
        self.assertEqual(buckets[-1], count)
        # The same by the command, but for what goes on meanwhile.
        by_command = read(self.rig.run("metrics", check=0).stdout)
        self.assertEqual(set(by_command), set(before))
        text = self.page()
        for secret in ("cli_", "SimSampler", self.rig.dir):
            self.assertNotIn(secret, text)

    def test_reconnects(self):
        self.start()
        self.rig.run("reconnect", check=0)
        wait_for(lambda: read(self.page())["comfymux_upstream_reconnects_total", None] == 1 and
                 read(self.page())["comfymux_upstream_state", '{state="connected"}'] == 1, "the link")
        self.assertEqual(read(self.page())["comfymux_upstream_gaps_total", None], 1)

    def test_only_this_host_and_page(self):
        self.start()
        url = "http://127.0.0.1:%d" % self.port
        self.assertEqual(http("GET", url + "/")[0], 404)
        self.assertEqual(http("GET", url + "/metrics/x")[0], 404)
        for host, status in (("evil.example", "403"), ("localhost:1", "200"), ("[::1]:1", "200")):
            done = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: " + host,
                                   url + "/metrics"], stdout=subprocess.PIPE, text=True) if shutil.which("curl") else None
            if done:
                self.assertEqual(done.stdout, status, host)
        # Nobody beyond the loopback can be let in by mistake.
        for listen in ("0.0.0.0:9199", "192.168.1.1:9199", ":9199", "127.0.0.1:0", "127.0.0.1", "127.0.0.1:99999"):
            conf = self.rig.write("bad", "metrics_listen = %s\n" % listen)
            done = subprocess.run([os.path.join(rig.BIN, "comfymuxd"), "--check-config", "--config", conf],
                                  env=self.rig.env, stderr=subprocess.PIPE, text=True)
            self.assertEqual(done.returncode, 2, listen)
            self.assertIn("metrics_listen", done.stderr)

    def test_a_port_that_is_taken(self):
        conf = self.rig.write("conf", "metrics_listen = 127.0.0.1:%d\n" % self.rig.sim_port)
        done = subprocess.run([os.path.join(rig.BIN, "comfymuxd"), "--config", conf, "--socket", self.rig.socket,
                               "--state-dir", self.rig.state], env=self.rig.env, stderr=subprocess.PIPE,
                              text=True, timeout=rig.PATIENCE_S)
        self.assertEqual(done.returncode, 1)
        self.assertIn("metrics_listen", done.stderr)

    def test_rules_name_what_there_is(self):
        self.start()
        there = {name for name, _ in read(self.page())}
        with open(RULES) as f:
            used = set(re.findall(r"comfymux_[a-z_]+", f.read()))
        self.assertTrue(used)
        self.assertEqual(used - there, set())

    @unittest.skipUnless(PROMTOOL, "no promtool: scripts/install-deps could not fetch it")
    def test_promtool(self):
        self.start()
        self.rig.write("wf.json", sampler())
        self.rig.run("run", "wf.json", check=0)
        done = subprocess.run([PROMTOOL, "check", "metrics"], input=self.page(), text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual((done.returncode, done.stdout), (0, ""))
        done = subprocess.run([PROMTOOL, "check", "rules", RULES], text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        self.assertEqual(done.returncode, 0, done.stdout)


if __name__ == "__main__":
    unittest.main()

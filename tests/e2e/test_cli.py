"""`comfymux` as its user sees it: commands, exit status, output, bad input."""
import fcntl
import json
import os
import pty
import signal
import ssl
import struct
import subprocess
import termios
import threading
import unittest

import rig
from proclib import is_running
from rig import wait_for

SEED = "18446744073709551615"


def sampler(steps=4, step_ms=5, seed="1", **more):
    """A workflow for the simulator: one sampler, one saved image."""
    inputs = {"steps": steps, "step_ms": step_ms}
    inputs.update(more)
    text = json.dumps({
        "3": {"class_type": "SimSampler", "inputs": inputs},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "cli"}},
    })
    return text.replace('"steps"', '"seed": %s, "steps"' % seed)


class CliCase(unittest.TestCase):
    def setUp(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)

    def sim_and_daemon(self):
        self.rig.start_sim()
        self.rig.start_daemon()


class Run(CliCase):
    def test_run_by_events(self):
        self.sim_and_daemon()
        self.rig.write("wf.json", sampler())
        done = self.rig.run("run", "wf.json", "--json", check=0)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        result = lines[-1]
        self.assertEqual(result["status"], "completed")
        self.assertEqual(result["progress_method"], "websocket")
        self.assertEqual(result["outputs"]["9"]["images"][0]["type"], "output")
        self.assertEqual(sorted(result["completed_nodes"]), ["3", "9"])
        live = lines[:-1]
        self.assertTrue(live)
        self.assertTrue(all(p["prompt_id"] == result["prompt_id"] for p in live))
        self.assertTrue(all(p["method"] == "websocket" for p in live))
        steps = [p["current_node_progress"] for p in live if p.get("current_node") == "3"]
        self.assertEqual(steps, sorted(steps))
        self.assertGreater(max(steps), 0)
        stats = self.rig.stats()
        self.assertEqual(stats["websockets"]["open"], 1, stats)
        self.assertEqual(stats["websockets"]["total"], 1, stats)

    def test_plain_lines(self):
        self.sim_and_daemon()
        self.rig.write("wf.json", sampler())
        self.rig.pause(steps=1)  # it is told of a quarter, whatever comes late
        run = self.rig.start("comfymux", "run", "wf.json", "--socket", self.rig.socket, stdout=subprocess.PIPE)
        text = b""
        while b"25%" not in text:
            text += self.rig.read_line(run.stdout, "a quarter")
        self.rig.resume()
        lines = (text + run.stdout.read()).decode().splitlines()
        self.assertEqual(run.wait(rig.PATIENCE_S), 0)
        self.assertIn("Node 3 started", lines)
        self.assertIn("Node 3 progress: 25%", lines)
        self.assertIn("Node 3 completed", lines)
        self.assertIn("Node 9 completed", lines)
        self.assertIn("Execution finished", lines)
        self.assertTrue(any(line.startswith("Completed in ") for line in lines), lines)
        self.assertTrue(any("cli_0" in line for line in lines), lines)
        self.assertEqual(self.rig.log_of("comfymux"), "")

    def test_one_post_and_nothing_else(self):
        self.sim_and_daemon()
        self.rig.write("wf.json", sampler())
        before = self.rig.stats()["requests"]
        self.rig.run("run", "wf.json", check=0)
        after = self.rig.stats()["requests"]
        self.assertEqual(after.get("POST /prompt", 0) - before.get("POST /prompt", 0), 1)
        others = {k: v - before.get(k, 0) for k, v in after.items()
                  if "/sim/" not in k and k != "POST /prompt" and v != before.get(k, 0)}
        self.assertEqual(others, {})

    def test_digits_stay_on_every_way(self):
        self.sim_and_daemon()
        self.rig.write("big.json", sampler(seed=SEED))
        self.rig.write("small.json", sampler())
        self.rig.run("run", "big.json", check=0)
        self.rig.run("submit", "big.json", check=0)
        self.rig.run("run", "small.json", "--set", "3.seed=" + SEED, check=0)
        alone = self.rig.path("nowhere")
        for args in (("run", "big.json"), ("submit", "big.json"),
                     ("run", "small.json", "--set", "3.seed=" + SEED)):
            self.rig.run(*args, "--socket", alone, sock=False, comfyui=True, check=0)
        posts = [j for j in self.rig.journal() if j["fact"] == "post"]
        self.assertEqual(len(posts), 6)
        text = self.rig.sim("GET", "/sim/journal")[1]
        text = text.decode() if isinstance(text, bytes) else json.dumps(text)
        self.assertEqual(text.count('"seed": ' + SEED) + text.count('"seed":' + SEED), 6)

    def test_without_supervisor(self):
        self.rig.start_sim()
        self.rig.write("wf.json", sampler())
        done = self.rig.run("run", "wf.json", "--json", comfyui=True, check=0)
        result = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual(result["progress_method"], "polling")
        self.assertEqual(result["status"], "completed")
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertIn("polling", done.stderr)
        self.assertEqual(self.rig.stats()["websockets"]["total"], 0)

    def test_timeout(self):
        self.sim_and_daemon()
        self.rig.write("wf.json", sampler())
        self.rig.pause(steps=2)
        done = self.rig.run("run", "wf.json", "--timeout", "4", check=124)
        self.rig.resume()
        prompt = self.rig.json("history")["prompts"][0]["prompt_id"]
        self.assertIn(prompt, done.stderr)
        self.rig.run("watch", prompt, check=0)

    def test_node_error(self):
        self.sim_and_daemon()
        self.rig.write("wf.json", {
            "5": {"class_type": "SimError", "inputs": {"message": "out of paint", "after_ms": 1}},
            "6": {"class_type": "PreviewAny", "inputs": {"source": ["5", 0]}},
        })
        done = self.rig.run("run", "wf.json", check=1)
        self.assertIn("out of paint", done.stderr)
        self.assertIn("node 5", done.stderr)
        result = self.rig.json("run", "wf.json", check=1)
        self.assertEqual(result["status"], "failed")
        self.assertEqual(result["error"]["node_id"], "5")

    def test_interrupt_cancels_and_exits_3(self):
        self.sim_and_daemon()
        self.rig.write("wf.json", sampler(steps=2000, step_ms=20))
        run = self.rig.start("comfymux", "run", "wf.json", "--json", "--socket", self.rig.socket,
                             stdout=subprocess.PIPE)
        while b'"executing"' not in self.rig.read_line(run.stdout, "progress"):
            pass
        run.send_signal(signal.SIGINT)
        rest = run.stdout.read().decode()
        self.assertEqual(run.wait(rig.PATIENCE_S), 3)
        self.assertEqual(json.loads(rest.splitlines()[-1])["error"]["type"], "cancelled")
        wait_for(lambda: not self.rig.sim("GET", "/queue")[1]["queue_running"], "the interrupt")

    def test_interrupt_takes_a_waiting_one_out_of_the_queue(self):
        self.sim_and_daemon()
        self.rig.write("long.json", sampler(steps=2000, step_ms=20))
        self.rig.write("short.json", sampler())
        first = self.rig.run("submit", "long.json", check=0).stdout.strip()
        run = self.rig.start("comfymux", "run", "short.json", "--json", "--socket", self.rig.socket,
                             stdout=subprocess.PIPE)
        while b'"queue_position":1' not in self.rig.read_line(run.stdout, "a queue position"):
            pass
        run.send_signal(signal.SIGINT)
        self.assertEqual(run.wait(rig.PATIENCE_S), 3)
        queue = self.rig.sim("GET", "/queue")[1]
        self.assertEqual([i[1] for i in queue["queue_running"]], [first])
        self.assertEqual(queue["queue_pending"], [])
        self.rig.run("cancel", first, check=0)

    def test_bars_on_a_terminal(self):
        self.sim_and_daemon()
        self.rig.write("wf.json", sampler(steps=40, step_ms=10))
        self.rig.pause(steps=20)
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        run = self.rig.start("comfymux", "run", "wf.json", "--socket", self.rig.socket,
                             stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                             preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)
        seen = bytearray()
        resized = False
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:
                break
            if not chunk:
                break
            seen += chunk
            if not resized and b"SimSampler" in seen and b"[####" in seen:
                # The kernel signals the foreground process group itself.
                fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
                resized = True
                self.rig.resume()
        os.close(master)
        self.assertEqual(run.wait(rig.PATIENCE_S), 0)
        self.assertTrue(resized)
        text = seen.decode()
        self.assertIn("[####", text)
        self.assertIn("node 3 SimSampler", text)
        self.assertIn("\x1b[J", text)
        self.assertIn("Completed in", text)

    def test_three_at_once_over_one_websocket(self):
        self.sim_and_daemon()
        results = []
        for i in range(3):
            self.rig.write("wf%d.json" % i, sampler(seed=str(i)))
        threads = [threading.Thread(target=lambda i=i: results.append(
            self.rig.json("run", "wf%d.json" % i))) for i in range(3)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual([r["status"] for r in results], ["completed"] * 3)
        self.assertEqual(self.rig.stats()["websockets"]["total"], 1)

    def test_stdin_as_workflow(self):
        self.sim_and_daemon()
        with open(self.rig.write("wf.json", sampler())) as f:
            self.rig.run("run", "-", stdin=f, check=0)


class Questions(CliCase):
    def test_submit_watch_history(self):
        self.sim_and_daemon()
        self.rig.write("wf.json", sampler())
        prompt = self.rig.run("submit", "wf.json", check=0).stdout.strip()
        self.assertEqual(self.rig.json("watch", prompt)["status"], "completed")
        history = self.rig.json("history", "--limit", "5")["prompts"]
        self.assertEqual(history[0]["prompt_id"], prompt)
        self.assertIn("9", history[0]["outputs"])
        self.assertIn(prompt, self.rig.run("history", check=0).stdout)

    def test_queue_and_cancel(self):
        self.sim_and_daemon()
        self.rig.write("long.json", sampler(steps=2000, step_ms=20))
        a = self.rig.run("submit", "long.json", check=0).stdout.strip()
        b = self.rig.run("submit", "long.json", check=0).stdout.strip()
        queue = wait_for(lambda: (lambda q: q if q["running"] else None)(self.rig.json("queue")), "a run")
        self.assertEqual([p["prompt_id"] for p in queue["running"]], [a])
        self.assertEqual([p["prompt_id"] for p in queue["pending"]], [b])
        self.assertEqual(queue["pending"][0]["queue_position"], 1)
        self.assertIn("1 running, 1 waiting", self.rig.run("queue", check=0).stdout)
        self.rig.run("cancel", b, check=0)
        self.rig.run("cancel", a, check=0)
        self.assertEqual(self.rig.run("watch", a).returncode, 3)
        self.assertEqual(self.rig.run("cancel", "no-such-prompt").returncode, 1)

    def test_questions_without_supervisor(self):
        self.rig.start_sim()
        self.rig.write("long.json", sampler(steps=2000, step_ms=20))
        alone = dict(comfyui=True)
        prompt = self.rig.run("submit", "long.json", check=0, **alone).stdout.strip()
        queue = wait_for(lambda: (lambda q: q if q["running"] else None)(self.rig.json("queue", **alone)),
                         "a run")
        self.assertEqual(queue["running"][0]["prompt_id"], prompt)
        self.rig.run("cancel", prompt, check=0, **alone)
        wait_for(lambda: self.rig.json("history", **alone)["prompts"], "the end in history")
        self.assertEqual(self.rig.json("history", **alone)["prompts"][0]["status"], "failed")
        self.assertEqual(self.rig.run("status").returncode, 5)
        self.assertEqual(self.rig.run("reconnect").returncode, 5)

    def test_comfyui_that_is_silent_is_not_reached(self):
        """124 would say that the user's own time ran out."""
        sim = self.rig.start_sim()
        self.rig.write("long.json", sampler(steps=2000, step_ms=20))
        prompt = self.rig.run("submit", "long.json", check=0, comfyui=True).stdout.strip()
        sim.send_signal(signal.SIGSTOP)
        conf = self.rig.write("config/comfymux/comfymux.conf", "request_timeout_ms = 500\n")
        for ask in (("watch", prompt), ("queue",), ("history",), ("cancel", prompt)):
            done = self.rig.run(*ask, comfyui=True)
            self.assertEqual((ask, done.returncode), (ask, 5), done.stderr)
            self.assertIn("no whole reply within 500 ms", done.stderr)
        sim.send_signal(signal.SIGCONT)
        os.unlink(conf)
        self.rig.run("cancel", prompt, check=0, comfyui=True)

    def test_watch_all(self):
        self.sim_and_daemon()
        self.rig.write("wf.json", sampler())
        watch = self.rig.start("comfymux", "watch", "--socket", self.rig.socket, stdout=subprocess.PIPE)
        wait_for(lambda: self.rig.status()["subscribers"] == 1, "the subscription")
        prompt = self.rig.run("submit", "wf.json", check=0).stdout.strip()
        line = b""
        while b"Execution finished" not in line:
            line = self.rig.read_line(watch.stdout, "the end")
        self.assertTrue(line.startswith(prompt[:8].encode()), line)
        watch.send_signal(signal.SIGINT)
        self.assertEqual(watch.wait(rig.PATIENCE_S), 0)

    def test_status_and_reconnect(self):
        self.sim_and_daemon()
        status = self.rig.status()
        for key in ("version", "pid", "upstream", "sessions", "prompts", "subscribers", "counters"):
            self.assertIn(key, status)
        self.assertEqual(status["upstream"]["url"], self.rig.sim_url)
        self.assertEqual(status["upstream"]["reconnects"], 0)
        self.rig.run("reconnect", check=0)
        wait_for(lambda: self.rig.status()["upstream"]["reconnects"] == 1, "the reconnect")
        wait_for(lambda: self.rig.status()["upstream"]["state"] == "connected", "the link")
        wait_for(lambda: self.rig.stats()["websockets"]["open"] == 1, "the end of the old one")
        self.assertIn("connected", self.rig.run("status", check=0).stdout)

    def test_pause_and_resume(self):
        self.sim_and_daemon()
        self.assertEqual(self.rig.run("pause", check=0).stdout, "paused (0 waiting)\n")
        self.assertTrue(self.rig.status()["paused"])
        self.assertIn("paused; ", self.rig.run("status", check=0).stdout)
        self.rig.write("wf.json", sampler())
        run = self.rig.start("comfymux", "run", "wf.json", "--socket", self.rig.socket,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while b"The service is paused" not in self.rig.read_line(run.stdout, "a word of the pause"):
            pass
        self.assertEqual(self.rig.run("resume", check=0).stdout, "resumed (1 waiting)\n")
        self.assertIn(b"Execution finished", run.stdout.read())
        self.assertEqual(run.wait(rig.PATIENCE_S), 0)
        self.assertFalse(self.rig.status()["paused"])

    def test_session_in_status(self):
        self.sim_and_daemon()
        self.rig.write("long.json", sampler(steps=2000, step_ms=20))
        run = self.rig.start("comfymux", "run", "long.json", "--socket", self.rig.socket,
                             stdout=subprocess.PIPE)
        session = wait_for(lambda: (lambda s: s[0] if s and s[0]["in_flight"] else None)(
            self.rig.status()["sessions"]), "the session")
        self.assertEqual(session["kind"], "run")
        self.assertEqual(session["keeper_pid"], run.pid)
        self.assertEqual(session["uid"], os.getuid())
        self.assertNotEqual(session["pid"], run.pid)
        with open("/proc/%d/comm" % session["pid"]) as f:
            self.assertTrue(f.read().startswith("comfymux-worke"))
        run.send_signal(signal.SIGINT)
        run.wait(rig.PATIENCE_S)
        wait_for(lambda: not self.rig.status()["sessions"], "the session's end")


class Download(CliCase):
    def made(self):
        self.sim_and_daemon()
        self.rig.write("wf.json", sampler())
        result = self.rig.json("run", "wf.json")
        return result["outputs"]["9"]["images"][0]["filename"]

    def test_download(self):
        name = self.made()
        self.rig.run("download", name, check=0)
        with open(self.rig.path(name), "rb") as f:
            self.assertEqual(f.read(8), b"\x89PNG\r\n\x1a\n")
        again = self.rig.run("download", name)
        self.assertNotEqual(again.returncode, 0)
        self.assertIn("exists", again.stderr)
        self.rig.run("download", name, "--overwrite", check=0)
        os.mkdir(self.rig.path("d"))
        done = self.rig.json("download", name, "--output", "d")
        self.assertEqual(done["path"], "d/" + name)
        self.assertEqual(done["bytes"], os.path.getsize(self.rig.path("d/" + name)))
        self.rig.run("download", name, "--output", "other.png", check=0)
        self.assertTrue(os.path.exists(self.rig.path("other.png")))

    def test_not_there(self):
        self.sim_and_daemon()
        before = set(os.listdir(self.rig.dir))
        done = self.rig.run("download", "no-such.png")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("no-such.png", done.stderr)
        self.assertEqual(set(os.listdir(self.rig.dir)) - before, set())

    def test_cut_off(self):
        name = self.made()
        self.rig.fault(fault="truncate", path="/view", count=1)
        done = self.rig.run("download", name)
        self.assertNotEqual(done.returncode, 0)
        self.assertFalse(os.path.exists(self.rig.path(name)))

    def test_directory_not_there(self):
        name = self.made()
        done = self.rig.run("download", name, "--output", "no/such/dir/x.png")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("no/such/dir", done.stderr)


class BadInput(CliCase):
    def usage(self, *args, **kwargs):
        return self.rig.run(*args, check=2, **kwargs).stderr

    def test_arguments(self):
        self.assertIn("which command", self.usage(sock=False))
        self.assertIn("frobnicate", self.usage("frobnicate"))
        self.assertIn("FILE", self.usage("run"))
        self.assertIn("too much", self.usage("run", "a", "b"))
        self.assertIn("--colour", self.usage("run", "a", "--colour"))
        self.assertIn("--timeout", self.usage("run", "a", "--timeout", "soon"))
        self.assertIn("--limit", self.usage("history", "--limit", "0"))
        self.assertIn("--limit", self.usage("history", "--limit", "1001"))
        self.assertIn("needs a value", self.usage("run", "a", "--set", sock=False))
        self.rig.run("--help", sock=False, check=0)
        self.assertIn("--set", self.rig.run("run", "--help", sock=False, check=0).stdout)
        self.rig.run("--version", sock=False, check=0)

    def test_workflow_files(self):
        self.assertIn("missing.json", self.usage("run", "missing.json"))
        self.rig.write("bad.json", '{"1": ')
        self.assertIn("bad.json", self.usage("run", "bad.json"))
        self.rig.write("latin1.json", b'{"1": {"class_type": "\xe9", "inputs": {}}}')
        self.assertIn("UTF-8", self.usage("run", "latin1.json"))
        self.rig.write("deep.json", "[" * 10000 + "]" * 10000)
        self.assertIn("deep.json", self.usage("run", "deep.json"))
        self.rig.write("ui.json", {"nodes": [{"id": 1, "type": "KSampler"}], "links": [], "version": 0.4})
        self.assertIn("Export (API)", self.usage("run", "ui.json"))
        self.rig.write("wf.json", sampler())
        self.assertIn("77", self.usage("run", "wf.json", "--set", "77.seed=1"))
        self.assertIn("nonsense", self.usage("run", "wf.json", "--set", "nonsense"))
        with open(self.rig.path("huge.json"), "wb") as f:
            f.truncate(20 << 20)
        self.assertNotEqual(self.rig.run("run", "huge.json").returncode, 0)
        os.chmod(self.rig.write("secret.json", sampler()), 0)
        if os.getuid() != 0:
            self.assertIn("secret.json", self.usage("run", "secret.json"))

    def test_unknown_node_class(self):
        self.sim_and_daemon()
        self.rig.write("wf.json", {"1": {"class_type": "NoSuchNode", "inputs": {}}})
        done = self.rig.run("run", "wf.json", check=4)
        self.assertIn("NoSuchNode", done.stderr)
        result = self.rig.json("run", "wf.json", check=4)
        self.assertEqual(result["error"]["type"], "rejected")
        self.assertEqual(self.rig.run("submit", "wf.json").returncode, 4)
        alone = self.rig.run("run", "wf.json", "--socket", self.rig.path("x"), sock=False, comfyui=True)
        self.assertEqual(alone.returncode, 4)
        self.assertIn("NoSuchNode", alone.stderr)

    def test_comfyui_refuses_connections(self):
        self.rig.sim_url = "http://127.0.0.1:%d" % rig.refusing_port()
        self.rig.write("wf.json", sampler())
        done = self.rig.run("run", "wf.json", comfyui=True, check=5)
        self.assertIn(self.rig.sim_url, done.stderr)
        self.rig.start_daemon(connected=False)
        done = self.rig.run("run", "wf.json", check=5)
        self.assertIn(self.rig.sim_url, done.stderr)
        # Nothing was left behind to run later.
        self.assertEqual(self.rig.json("queue")["pending"], [])

    def test_tls_failure(self):
        key, cert = self.rig.path("key.pem"), self.rig.path("cert.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                        "-subj", "/CN=localhost", "-keyout", key, "-out", cert],
                       check=True, stderr=subprocess.DEVNULL)
        port = rig.refusing_port()  # to others; OpenSSL reuses it
        server = subprocess.Popen(["openssl", "s_server", "-quiet", "-accept", "127.0.0.1:%d" % port,
                                   "-key", key, "-cert", cert],
                                  stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.rig.processes.append(server)
        context = ssl.create_default_context(cafile=cert)
        wait_for(lambda: self.listens(port), "openssl to listen")
        self.assertIsNotNone(context)
        self.rig.sim_url = "https://127.0.0.1:%d" % port
        self.rig.write("wf.json", sampler())
        done = self.rig.run("run", "wf.json", comfyui=True, check=5)
        self.assertRegex(done.stderr.lower(), "certificate")

    @staticmethod
    def listens(port):
        import socket
        s = socket.socket()
        try:
            s.connect(("127.0.0.1", port))
            return True
        except OSError:
            return False
        finally:
            s.close()

    def test_bad_urls(self):
        self.rig.write("wf.json", sampler())
        for url in ("ftp://x", "http://", "http://user:secret@host", "http://h:99999", "http://h/?q=1"):
            done = self.rig.run("run", "wf.json", "--comfyui", url)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertNotIn("secret", done.stderr)

    def test_config_file(self):
        path = self.rig.write("c.conf", "comfyui = http://127.0.0.1:1\nping_intervall_s = 3\n")
        done = self.rig.run("status", "--config", path)
        self.assertEqual(done.returncode, 2)
        self.assertIn("c.conf:2", done.stderr)
        self.assertIn("ping_intervall_s", done.stderr)

    def test_permission_denied_is_an_error(self):
        if os.getuid() == 0:
            self.skipTest("root may do everything")
        self.sim_and_daemon()
        os.chmod(self.rig.socket, 0)
        self.rig.write("wf.json", sampler())
        done = self.rig.run("run", "wf.json")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("ermission", done.stderr)

    def test_another_comfyui_than_the_supervisors(self):
        self.rig.start_sim()
        other = self.rig.sim_url
        self.sim_and_daemon()
        self.rig.write("wf.json", sampler())
        done = self.rig.run("run", "wf.json", "--comfyui", other, "--json", check=0)
        self.assertEqual(json.loads(done.stdout.splitlines()[-1])["progress_method"], "polling")
        self.assertIn(other, done.stderr)

    def test_reader_goes_away(self):
        self.sim_and_daemon()
        self.rig.write("wf.json", sampler())
        self.rig.pause()
        run = self.rig.start("comfymux", "run", "wf.json", "--socket", self.rig.socket, stdout=subprocess.PIPE)
        run.stdout.close()
        run.stdout = None
        self.rig.resume()
        self.assertEqual(run.wait(rig.PATIENCE_S), 1)


class Autostart(CliCase):
    def setUp(self):
        super().setUp()
        if os.path.exists("/etc/comfymux/comfymux.conf"):
            self.skipTest("not a personal machine")
        self.rig.start_sim()
        self.sock = self.rig.path("auto.sock")
        self.rig.env["COMFYUI_HOST"] = self.rig.sim_url
        self.conf = self.rig.write("config/comfymux/comfymux.conf",
                                   "socket = %s\nstate_dir = %s\nidle_exit_s = 5\n" %
                                   (self.sock, self.rig.path("auto")))
        self.rig.write("wf.json", sampler())
        self.addCleanup(self.end_daemon)

    def end_daemon(self):
        pid = self.daemon_pid()
        if pid:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass  # it was idle for long enough
            wait_for(lambda: not os.path.exists(self.sock), "the supervisor's end")

    def daemon_pid(self):
        done = self.rig.run("status", "--json", sock=False)
        return json.loads(done.stdout)["pid"] if done.returncode == 0 else None

    def test_first_submission_starts_one_that_leaves_when_idle(self):
        self.assertIsNone(self.daemon_pid())
        result = self.rig.json("run", "wf.json", sock=False)
        self.assertEqual(result["progress_method"], "websocket")
        self.assertEqual(self.rig.json("run", "wf.json", sock=False)["progress_method"], "websocket")
        self.assertEqual(self.rig.stats()["websockets"]["total"], 1)
        wait_for(lambda: not os.path.exists(self.sock), "the idle supervisor to leave")

    def test_switched_off(self):
        with open(self.conf, "a") as f:
            f.write("autostart = no\n")
        self.assertEqual(self.rig.json("run", "wf.json", sock=False)["progress_method"], "polling")

    def test_two_at_once_start_one(self):
        results = []
        threads = [threading.Thread(target=lambda: results.append(self.rig.json("run", "wf.json", sock=False)))
                   for _ in range(2)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual([r["status"] for r in results], ["completed"] * 2)
        self.assertEqual(self.rig.stats()["websockets"]["total"], 1)
        wait_for(lambda: not os.path.exists(self.sock), "the idle supervisor to leave")


class WorkerDies(CliCase):
    def test_successor_resumes_without_submitting_again(self):
        self.sim_and_daemon()
        self.rig.write("wf.json", sampler(steps=50, step_ms=20))
        self.rig.pause(steps=2)
        run = self.rig.start("comfymux", "run", "wf.json", "--json", "--socket", self.rig.socket,
                             stdout=subprocess.PIPE)
        while b'"executing"' not in self.rig.read_line(run.stdout, "progress"):
            pass
        worker = self.rig.status()["sessions"][0]["pid"]
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: [s for s in self.rig.sessions() if s["pid"] not in (0, worker)], "a successor")
        self.rig.resume()
        rest = run.stdout.read().decode().splitlines()
        self.assertEqual(run.wait(rig.PATIENCE_S), 0)
        self.assertEqual(json.loads(rest[-1])["status"], "completed")
        self.assertEqual(len([j for j in self.rig.journal() if j["fact"] == "post"]), 1)

    def test_keeper_dies_worker_leaves_prompt_goes_on(self):
        self.sim_and_daemon()
        self.rig.write("wf.json", sampler(steps=50, step_ms=20))
        self.rig.pause(steps=2)
        run = self.rig.start("comfymux", "run", "wf.json", "--json", "--socket", self.rig.socket,
                             stdout=subprocess.PIPE)
        while b'"executing"' not in self.rig.read_line(run.stdout, "progress"):
            pass
        worker = self.rig.status()["sessions"][0]["pid"]
        run.kill()
        run.wait()
        wait_for(lambda: not is_running(worker), "the worker to leave")
        self.rig.resume()
        prompt = self.rig.json("history")["prompts"][0]["prompt_id"]
        self.assertEqual(self.rig.json("watch", prompt)["status"], "completed")


if __name__ == "__main__":
    unittest.main()

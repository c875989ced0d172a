"""The service as an operator has it: installed into a scratch root, run by the
init script without systemd, upgraded, removed; and an MCP session that lives
through all of it. Needs no privileges; as root it becomes another user."""
import json
import os
import shutil
import signal
import socket
import subprocess
import unittest

try:
    import yaml
except ImportError:
    yaml = None

import proclib
import rig
from mcplib import Client
from proclib import is_running
from rig import wait_for
from test_cli import sampler

INIT = "etc/init.d/comfymux"


def make(*args, check=True):
    """The installation proper, of what is built already."""
    done = subprocess.run(["make", "-s", "-o", "all", "BIN=" + os.path.relpath(rig.BIN, rig.ROOT), *args],
                          cwd=rig.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          stdin=subprocess.DEVNULL, text=True, timeout=rig.PATIENCE_S,
                          env={k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))})
    if check and done.returncode != 0:
        raise AssertionError("make %s: %s" % (" ".join(args), done.stdout))
    return done


def tree(root):
    return sorted(os.path.relpath(os.path.join(d, name), root)
                  for d, dirs, files in os.walk(root) for name in dirs + files)


class Install(unittest.TestCase):
    def setUp(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)
        self.root = self.rig.path("root")
        os.makedirs(os.path.join(self.root, "usr/local/share"))

    def installed(self, name):
        return os.path.join(self.root, name)

    def test_nothing_is_left(self):
        before = tree(self.root)
        make("install", "DESTDIR=" + self.root)
        there = tree(self.root)
        for name in ("usr/local/bin/comfymux", "usr/local/sbin/comfymuxd",
                     "usr/local/lib/comfymux/comfymux-worker", "etc/comfymux/comfymux.conf",
                     INIT, "usr/local/lib/systemd/system/comfymux.service",
                     "usr/local/lib/systemd/system/comfymux.socket",
                     "usr/local/lib/systemd/user/comfymux.service",
                     "usr/local/lib/tmpfiles.d/comfymux.conf",
                     "usr/local/lib/sysusers.d/comfymux.conf"):
            self.assertIn(name, there)
        self.assertFalse([n for n in there if n.endswith(".new")])
        make("uninstall", "DESTDIR=" + self.root)
        self.assertEqual(tree(self.root), before)

    def test_twice_and_a_changed_configuration(self):
        before = tree(self.root)
        make("install", "DESTDIR=" + self.root, "PREFIX=/usr")
        conf = self.installed("etc/comfymux/comfymux.conf")
        with open(conf, "a") as f:
            f.write("ping_interval_s = 7\n")
        make("install", "DESTDIR=" + self.root, "PREFIX=/usr")
        with open(conf) as f:
            self.assertIn("ping_interval_s = 7", f.read())
        told = make("uninstall", "DESTDIR=" + self.root, "PREFIX=/usr").stdout
        self.assertIn("ping_interval_s = 7", told)
        self.assertEqual(tree(self.root), before)

    def test_what_others_put_there_stays(self):
        make("install", "DESTDIR=" + self.root)
        mine = self.installed("etc/comfymux/mine")
        with open(mine, "w"):
            pass
        told = make("uninstall", "DESTDIR=" + self.root).stdout
        self.assertTrue(os.path.exists(mine))
        self.assertIn("not empty", told)

    def test_places_are_filled_in(self):
        make("install", "DESTDIR=" + self.root, "PREFIX=/opt/mux", "sysconfdir=/opt/mux/etc")
        for name in tree(self.root):
            path = self.installed(name)
            if os.path.isfile(path) and ("/systemd/" in name or "init.d" in name or ".d/" in name):
                with open(path, errors="replace") as f:
                    text = f.read()
                self.assertNotRegex(text, r"@[a-z]+dir@", name)
        with open(self.installed("opt/mux/etc/init.d/comfymux")) as f:
            self.assertIn("DAEMON=/opt/mux/sbin/comfymuxd\n", f.read())

    @unittest.skipUnless(shutil.which("systemd-analyze"), "no systemd-analyze")
    def test_units(self):
        make("install", "PREFIX=" + self.root, "sysconfdir=" + self.installed("etc"),
             "runstatedir=" + self.installed("run"), "localstatedir=" + self.installed("var"),
             "SERVICE_USER=no")
        system = self.installed("lib/systemd/system/")
        for args in ([system + "comfymux.service", system + "comfymux.socket"],
                     ["--user", self.installed("lib/systemd/user/comfymux.service")]):
            done = subprocess.run(["systemd-analyze", "verify", "--man=no", *args],
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  env=dict(self.rig.env, XDG_RUNTIME_DIR=self.rig.dir))
            ours = [line for line in done.stdout.splitlines() if "comfymux" in line]
            self.assertEqual(ours, [], done.stdout)


class Containers(unittest.TestCase):
    """Syntax and what the guide wants; nothing is started."""

    @unittest.skipUnless(yaml, "no python3-yaml")
    def test_compose(self):
        with open(os.path.join(rig.ROOT, "etc/docker/compose.yml")) as f:
            file = yaml.safe_load(f)
        mux = file["services"]["comfymux"]
        self.assertEqual(mux["environment"]["COMFYUI_HOST"], "http://comfyui:8188")
        self.assertIn("comfyui", file["services"])
        for service in file["services"].values():
            for volume in service.get("volumes", []):
                self.assertIn(volume.split(":")[0], file["volumes"])
        root = os.path.join(rig.ROOT, "etc/docker", mux["build"]["context"])
        self.assertTrue(os.path.exists(os.path.join(root, mux["build"]["dockerfile"])))

    def test_the_recipe_installs_what_building_needs(self):
        with open(os.path.join(rig.ROOT, "etc/docker/Dockerfile")) as f:
            recipe = f.read().split()
        with open(os.path.join(rig.ROOT, "scripts/install-deps")) as f:
            build = f.read().split('BUILD="')[1].split('"')[0].split()
        self.assertEqual([p for p in build if p not in recipe and not p.endswith("evlib-ev")], [])


class Service(unittest.TestCase):
    """The verbs of the init script."""

    def setUp(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)
        os.chmod(self.rig.dir, 0o755)
        self.rig.start_sim()
        self.root = self.rig.path("root")
        self.install()
        self.init = os.path.join(self.root, INIT)
        self.conf = os.path.join(self.root, "etc/comfymux/comfymux.conf")
        self.pidfile = os.path.join(self.root, "run/comfymuxd.pid")
        self.log = self.rig.path("log")
        self.rig.socket = os.path.join(self.root, "run/comfymux/comfymux.sock")
        os.makedirs(os.path.dirname(self.rig.socket), exist_ok=True)
        self.configure()
        self.addCleanup(self.end_all)

    def install(self):
        make("install", "PREFIX=" + self.root, "sysconfdir=" + self.root + "/etc",
             "runstatedir=" + self.root + "/run", "localstatedir=" + self.root + "/var",
             "SERVICE_USER=no")

    def configure(self, **more):
        keys = {"user": "root" if os.geteuid() else "nobody", "comfyui": self.rig.sim_url, "socket": self.rig.socket,
                "state_dir": self.root + "/var/lib/comfymux"}
        if os.geteuid() == 0:
            keys["user"] = "root"  # what else may be is test_identity's
        keys.update(more)
        with open(self.conf, "w") as f:
            f.write("".join("%s = %s\n" % item for item in keys.items()))

    def end_all(self):
        self.run_init("stop")
        for pid in self.pids():
            proclib.end(pid)

    def run_init(self, verb, *args, check=None):
        done = subprocess.run([self.init, verb, *args], env=self.rig.env, cwd="/",
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=rig.PATIENCE_S)
        if check is not None and done.returncode != check:
            raise AssertionError("%s: exit %d, not %d: %s" % (verb, done.returncode, check, done.stdout))
        return done

    def pids(self):
        """Of the parent and of comfymuxd."""
        try:
            with open(self.pidfile) as f:
                return [int(line) for line in f.read().split()]
        except (FileNotFoundError, ValueError):
            return []

    def daemon(self):
        return wait_for(lambda: len(self.pids()) == 2 and self.pids(), "a supervisor's pid")[1]

    def test_verbs_when_it_does_not_run(self):
        self.run_init("status", check=3)
        self.run_init("reload", check=7)
        self.run_init("force-reload", check=7)
        self.run_init("restart-workers", check=7)
        self.run_init("stop", check=0)
        self.run_init("try-restart", check=0)
        self.run_init("status", check=3)
        self.run_init("dance", check=2)
        self.assertEqual(subprocess.run([self.init], stderr=subprocess.DEVNULL).returncode, 2)

    def test_start_status_stop(self):
        self.run_init("start", check=0)
        # Ready means that it serves now.
        self.assertTrue(self.rig.can_connect())
        self.run_init("status", check=0)
        self.assertIn("runs already", self.run_init("start", check=0).stdout)
        guardian, daemon = self.pids()
        with open("/proc/%d/stat" % daemon) as f:
            self.assertEqual(int(f.read().rsplit(")", 1)[1].split()[1]), guardian)
        self.assertEqual(self.rig.status()["pid"], daemon)
        self.run_init("stop", check=0)
        self.assertFalse(is_running(guardian) or is_running(daemon))
        self.assertFalse(os.path.exists(self.pidfile))
        self.assertFalse(self.rig.can_connect())
        self.run_init("status", check=3)

    def test_a_bad_configuration(self):
        self.configure(ping_interval_s="often")
        told = self.run_init("start", check=6).stdout
        self.assertIn("ping_interval_s", told)
        self.configure()
        self.run_init("start", check=0)
        before = self.pids()
        self.configure(ping_interval_s="often")
        for verb in ("reload", "restart"):
            self.assertIn("ping_interval_s", self.run_init(verb, check=6).stdout)
            self.assertEqual(self.pids(), before)
        self.run_init("status", check=0)

    def test_an_address_that_is_taken(self):
        os.makedirs(os.path.dirname(self.rig.socket), exist_ok=True)
        other = socket.socket(socket.AF_UNIX)
        self.addCleanup(other.close)
        other.bind(self.rig.socket)
        other.listen()
        told = self.run_init("start", check=1).stdout
        self.assertIn("another process serves", told)
        self.run_init("status", check=3)

    def test_crash(self):
        self.run_init("start", check=0)
        guardian, first = self.pids()
        os.kill(first, signal.SIGKILL)
        second = wait_for(lambda: [pid for pid in self.pids()[1:] if pid != first], "another supervisor")[0]
        wait_for(self.rig.can_connect, "its socket")
        self.assertEqual(self.pids(), [guardian, second])
        self.run_init("status", check=0)
        self.run_init("stop", check=0)
        self.assertFalse(is_running(guardian) or is_running(second))

    def test_the_parent_dies(self):
        self.run_init("start", check=0)
        guardian, daemon = self.pids()
        os.kill(guardian, signal.SIGKILL)
        wait_for(lambda: not is_running(guardian), "the parent's end")
        self.assertTrue(self.rig.can_connect())
        self.assertIn("restart it", self.run_init("status", check=0).stdout)
        self.run_init("restart", check=0)
        self.assertFalse(is_running(daemon))
        self.assertEqual(len(self.pids()), 2)
        self.run_init("status", check=0)

    def test_stale_pid_files(self):
        for text in ("", "1\n", "4194304\n4194304\n", "x\n"):
            with open(self.pidfile, "w") as f:
                f.write(text)
            self.run_init("status", check=1 if text else 3)
            self.run_init("start", check=0)
            self.run_init("stop", check=0)

    def test_reload(self):
        log = self.rig.path("daemon.log")
        with open(self.root + "/etc/default/comfymux", "a") as f:
            f.write("DAEMON_ARGS='--log-level info'\n")
        self.configure(log_to="stderr")
        with open(log, "wb") as f:
            done = subprocess.run([self.init, "start"], env=self.rig.env, stdout=f, stderr=f)
        self.assertEqual(done.returncode, 0)

        def said():
            with open(log, errors="replace") as f:
                return f.read()

        self.configure(log_to="stderr", max_clients=99, proxy="http://127.0.0.1:9", ping_interval_s=11)
        before = self.pids()
        self.run_init("reload", check=0)
        wait_for(lambda: "configuration read again" in said(), "the reload")
        for key in ("max_clients", "proxy"):
            wait_for(lambda: "%s was changed and needs a restart" % key in said(), key)
        self.assertNotIn("ping_interval_s was", said())
        self.run_init("force-reload", check=0)
        self.assertEqual(self.pids(), before)

    def session(self):
        client = Client(self.rig, comfyui=False)
        self.addCleanup(lambda: client.process.poll() is None and client.end())
        client.initialize()
        return client

    def works(self, client):
        result = client.tool("execute_workflow_sync", {"workflow": json.loads(sampler())})
        self.assertEqual(result["structuredContent"]["status"], "completed", result)
        return result["structuredContent"]["progress_method"]

    def start_and_link(self, verb="start"):
        self.run_init(verb, check=0)
        wait_for(lambda: self.rig.status()["upstream"]["state"] == "connected", "the link")

    def test_a_session_lives_through_everything(self):
        self.start_and_link()
        client = self.session()
        self.assertEqual(self.works(client), "websocket")

        # restart: the worker stays.
        worker = client.worker()
        self.rig.pause(steps=2)
        running = client.call("execute_workflow_sync", {"workflow": json.loads(sampler(steps=40, step_ms=50))})
        wait_for(lambda: self.rig.status()["prompts"]["active"] == 1, "the prompt to run")
        self.start_and_link("restart")
        wait_for(lambda: client.worker() == worker, "the session to come back")
        self.rig.resume()
        result = client.answer(running)["result"]["structuredContent"]
        self.assertEqual(result["status"], "completed")
        self.assertEqual(self.works(client), "websocket")
        self.assertEqual(client.worker(), worker)

        # stop: the service's processes end, the session goes on by polling.
        self.rig.pause(steps=2)
        running = client.call("execute_workflow_sync", {"workflow": json.loads(sampler(steps=60, step_ms=50))})
        wait_for(lambda: self.rig.status()["prompts"]["active"] == 1, "the prompt to run")
        pids = self.pids()
        self.run_init("stop", check=0)
        self.assertFalse(any(map(is_running, pids + [worker])))
        self.rig.resume()
        self.assertEqual(client.answer(running)["result"]["structuredContent"]["status"], "completed")
        self.assertIsNone(client.process.poll())

        # start: back to events.
        self.start_and_link()
        wait_for(lambda: self.works(client) == "websocket", "events again")

        # upgrade: the programs are replaced under it.
        self.install()
        self.assertIn("(deleted)", os.readlink("/proc/%d/exe" % self.daemon()))
        self.start_and_link("restart")
        self.assertNotIn("(deleted)", os.readlink("/proc/%d/exe" % self.daemon()))
        wait_for(lambda: self.works(client) == "websocket", "events after the upgrade")
        old = client.worker()
        self.run_init("restart-workers", check=0)
        wait_for(lambda: not is_running(old), "the old worker's end")
        self.assertEqual(self.works(client), "websocket")
        self.assertNotEqual(client.worker(), old)
        self.assertNotIn("(deleted)", os.readlink("/proc/%d/exe" % client.worker()))
        self.assertEqual(client.end(), 0)
        # One POST for each of the prompts, whatever happened around them.
        posts = [e for e in self.rig.journal() if e.get("method") == "POST" and e.get("path") == "/prompt"]
        self.assertEqual(len(posts), len({json.dumps(p) for p in posts}))


class Log(unittest.TestCase):
    """A file of lines that programs can read."""

    def setUp(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)
        self.rig.start_sim()
        self.log = self.rig.path("the.log")

    def lines(self, path=None):
        with open(path or self.log) as f:
            return [json.loads(line) for line in f]

    def start(self, **keys):
        keys = dict({"log_to": self.log, "log_format": "json", "log_level": "debug"}, **keys)
        conf = self.rig.write("conf", "".join("%s = %s\n" % k for k in keys.items()))
        return self.rig.start_daemon("--config", conf)

    def test_json_and_reopening(self):
        daemon = self.start()
        client = Client(self.rig, comfyui=False)
        client.initialize()
        secret = "a picture of my secret plan"
        workflow = json.loads(sampler(seed="424242"))
        workflow["7"] = {"class_type": "CLIPTextEncode", "inputs": {"text": secret, "clip": ["4", 1]}}
        workflow["4"] = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "secret-name.safetensors"}}
        result = client.tool("execute_workflow_sync", {"workflow": workflow})["structuredContent"]
        session = self.rig.sessions()[0]["id"]
        about = [line for line in self.lines() if line.get("prompt_id") == result.get("prompt_id")]
        self.assertTrue([line for line in about if "ended" in line["msg"] or "accepted" in line["msg"]], about)
        worker = [line for line in self.lines() if line["role"] == "worker"]
        self.assertTrue(worker)
        self.assertIn(session, [line.get("session") for line in worker])
        attached = [line for line in self.lines() if line["msg"] == "session attached"]
        self.assertEqual(attached[0]["session"], session)

        moved = self.log + ".1"
        os.rename(self.log, moved)
        daemon.send_signal(signal.SIGHUP)
        wait_for(lambda: os.path.exists(self.log) and
                 any("read again" in line["msg"] for line in self.lines()), "the new file")
        before = len(self.lines(moved))
        self.rig.status()
        self.assertEqual(client.end(), 0)
        wait_for(lambda: any(line["msg"] == "session ended" for line in self.lines()), "the session's end")
        self.assertEqual([line for line in self.lines(moved)[before:] if line["role"] == "comfymuxd"], [])
        for path in (self.log, moved):
            with open(path) as f:
                text = f.read()
            for word in (secret, "secret-name", "424242"):
                self.assertNotIn(word, text)

    def test_a_file_that_cannot_be(self):
        conf = self.rig.write("conf", "log_to = /nonexistent/log\n")
        done = subprocess.run([os.path.join(rig.BIN, "comfymuxd"), "--config", conf, "--socket",
                               self.rig.socket, "--state-dir", self.rig.state],
                              env=self.rig.env, stderr=subprocess.PIPE, text=True, timeout=rig.PATIENCE_S)
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot log to /nonexistent/log", done.stderr)


class Notify(unittest.TestCase):
    """What systemd is told, by the tests in its place."""

    def setUp(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)
        self.rig.start_sim()
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.sock.close)
        self.sock.bind(self.rig.path("notify"))
        self.sock.settimeout(rig.PATIENCE_S)
        self.rig.env["NOTIFY_SOCKET"] = self.rig.path("notify")

    def until(self, what):
        """All messages up to one that has the line."""
        seen = []
        while True:
            text = self.sock.recv(65536).decode()
            seen.append(text)
            if what in text.splitlines():
                return seen

    def test_the_course(self):
        daemon = self.rig.start_daemon(wait=False)
        self.until("READY=1")
        self.assertTrue(self.rig.can_connect())
        wait_for(lambda: any("STATUS=" in m and "connected" in m for m in [self.sock.recv(65536).decode()]),
                 "the status of the link")
        daemon.send_signal(signal.SIGHUP)
        text = self.until("RELOADING=1")[-1]
        self.assertRegex(text, r"MONOTONIC_USEC=\d+")
        self.until("READY=1")
        daemon.send_signal(signal.SIGTERM)
        self.until("STOPPING=1")
        self.assertEqual(daemon.wait(rig.PATIENCE_S), 0)

    def test_watchdog(self):
        env = {"WATCHDOG_USEC": "200000"}
        daemon = self.rig.start(
            "comfymuxd", "--socket", self.rig.socket, "--state-dir", self.rig.state,
            "--comfyui", self.rig.sim_url, env=env)
        for _ in range(3):
            self.until("WATCHDOG=1")
        self.assertIsNone(daemon.poll())

    def activate(self, path, *extra):
        """comfymuxd with listening sockets as descriptors 3 and on."""
        fds = [path.fileno()] + [e.fileno() for e in extra]

        def child():
            os.environ["LISTEN_PID"] = str(os.getpid())
            for i, fd in enumerate(fds):
                os.dup2(fd, 3 + i, inheritable=True)

        # sh sets the pid that only the process itself can know.
        script = 'LISTEN_PID=$$ exec "$@"'
        return self.rig.start("/bin/sh", "-c", script, "sh", os.path.join(rig.BIN, "comfymuxd"),
                              "--socket", self.rig.socket, "--state-dir", self.rig.state,
                              "--comfyui", self.rig.sim_url, pass_fds=[3 + i for i in range(len(fds))],
                              preexec_fn=child, env={"LISTEN_FDS": str(len(fds))}, stderr=self.err)

    def listen(self, name):
        s = socket.socket(socket.AF_UNIX)
        s.bind(name)
        s.listen()
        self.addCleanup(s.close)
        return s

    def test_socket_activation(self):
        self.err = open(self.rig.path("err"), "w")
        self.addCleanup(self.err.close)
        s = self.listen(self.rig.socket)
        early = socket.socket(socket.AF_UNIX)
        self.addCleanup(early.close)
        early.connect(self.rig.socket)
        early.sendall(b'{"op":"ping","id":1}\n')
        daemon = self.activate(s)
        self.until("READY=1")
        early.settimeout(rig.PATIENCE_S)
        self.assertIn(b'"ok":true', early.recv(4096))
        daemon.send_signal(signal.SIGTERM)
        self.assertEqual(daemon.wait(rig.PATIENCE_S), 0)
        # It is systemd's: still there, and clients wait in it.
        self.assertTrue(self.rig.can_connect())

    def test_another_socket_is_refused(self):
        self.err = open(self.rig.path("err"), "w")
        self.addCleanup(self.err.close)
        daemon = self.activate(self.listen(self.rig.path("other")))
        self.assertEqual(daemon.wait(rig.PATIENCE_S), 1)
        with open(self.rig.path("err")) as f:
            self.assertIn("ListenStream=", f.read())


if __name__ == "__main__":
    unittest.main()

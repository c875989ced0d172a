"""Whose process is what: the service's user, whom it lets in, and whom clients
take for it."""

import json
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import tempfile
import unittest

import muxlib
import rig
from muxlib import PATIENCE, Client, Daemon
from proclib import is_running
from simlib import sampler
from tenantlib import (ANN, BOB, EVE, SERVICE, TenantCase, as_user, connect_as,
                       family_of, status_of)

NOBODY_IN = "may not use this supervisor"


def ended(d, *more, **kw):
    """Runs a daemon that is expected to end: (status, stderr)."""
    p = subprocess.run(d.command(*more), stderr=subprocess.PIPE, env=d.env,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       timeout=PATIENCE, text=True, **kw)
    return p.returncode, p.stderr


def can_connect(path):
    s = socket.socket(socket.AF_UNIX)
    try:
        s.connect(path)
        return True
    except OSError:
        return False
    finally:
        s.close()


def peer_of(path):
    """The uid that a client sees at the other end."""
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    creds = s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    s.close()
    return struct.unpack("3i", creds)[1]


class ServiceUser(TenantCase):
    def check_process(self, pid):
        status = status_of(pid)
        self.assertEqual(status["Uid"], [str(SERVICE)] * 4, pid)
        self.assertEqual(status["Gid"], [str(SERVICE)] * 4, pid)
        self.assertEqual(status["Groups"], [], pid)
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            self.assertEqual(int(status[name][0], 16), 0, (pid, name))
        self.assertEqual(status["NoNewPrivs"], ["1"], pid)

    def test_every_process_is_his(self):
        _, d, ann, _ = self.service()
        mcp = ann.popen(muxlib.binary("comfymux"), "mcp", "--socket", d.socket,
                        stdin=subprocess.PIPE)
        try:
            mcp.stdin.write(json.dumps({
                "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
                    "protocolVersion": "2025-11-25", "capabilities": {},
                    "clientInfo": {"name": "t", "version": "1"}}}
                ).encode() + b"\n")
            mcp.stdin.flush()
            d.until(lambda: any(s["pid"] > 0 for s in
                                d.status()["sessions"]), "a worker")
            family = family_of(d.proc.pid)
            # Supervisor, zygote, worker.
            self.assertGreaterEqual(len(family), 3)
            for pid in family:
                self.check_process(pid)
            self.assertEqual(status_of(mcp.pid)["Uid"], [str(ANN)] * 4)
        finally:
            mcp.communicate(timeout=PATIENCE)
        self.assertNotIn("running as root", d.log())

    def test_places(self):
        _, d, _, _ = self.service()
        s = os.stat(d.state)
        self.assertEqual((s.st_uid, stat.S_IMODE(s.st_mode)), (SERVICE, 0o700))
        for name in os.listdir(d.state):
            self.assertEqual(os.stat(os.path.join(d.state, name)).st_uid,
                             SERVICE)
        # Only root can make one in a directory of root's.
        s = os.stat(d.socket)
        self.assertEqual((s.st_uid, stat.S_IMODE(s.st_mode)), (SERVICE, 0o666))
        self.assertEqual(peer_of(d.socket), SERVICE)
        self.assertEqual(d.stop(), 0)
        # It can't remove it any more, and who comes next finds it stale.
        d.start()
        self.assertEqual(d.client().ask("ping"), {})

    def test_run_directory(self):
        sim = self.sim()
        d = self.daemon(sim, shared=True, start=False)
        d.socket = os.path.join(d.dir, "run", "s")
        d.start()
        s = os.stat(os.path.dirname(d.socket))
        self.assertEqual((s.st_uid, stat.S_IMODE(s.st_mode)), (SERVICE, 0o755))
        self.assertEqual(peer_of(d.socket), SERVICE)
        self.assertEqual(d.stop(), 0)
        self.assertFalse(os.path.exists(d.socket))
        d.start()

    def test_parent_of_a_daemon_is_his(self):
        """Whatever he is called; also what it starts after a crash, which
        serves everybody as before."""
        sim = self.sim()
        d = self.daemon(sim, shared=True, start=False)
        d.socket = os.path.join(d.dir, "run", "s")
        pidfile = os.path.join(d.dir, "pid")

        def pids():
            with open(pidfile) as f:
                return [int(line) for line in f.read().split()]
        status, err = ended(d, "--daemon", "--pidfile", pidfile)
        self.assertEqual(status, 0, err)
        parent, first = pids()
        try:
            self.check_process(parent)
            self.check_process(first)
            os.kill(first, signal.SIGKILL)
            d.until(lambda: len(pids()) == 2 and pids()[1] != first, "a second supervisor")
            d.until(lambda: os.path.exists(d.socket) and can_connect(d.socket), "its socket")
            self.check_process(pids()[1])
            hello = Client(d.socket, sock=connect_as(d.socket, ANN)).hello
            self.assertEqual((hello["uid"], hello["operator"]), (ANN, False))
        finally:
            os.kill(parent, signal.SIGTERM)
            d.until(lambda: not is_running(parent), "the parent's end")

    def test_named_user(self):
        """With the groups that the user database gives him."""
        sim = self.sim()
        d = self.daemon(sim, config={"user": "daemon", "group": "",
                                     "allow_users": "*"})
        status = status_of(d.proc.pid)
        self.assertEqual(status["Uid"], ["1"] * 4)
        self.assertEqual(int(status["CapEff"][0], 16), 0)
        self.assertEqual(d.client().hello["operator"], True)

    def test_reload_as_him(self):
        sim, d, ann, _ = self.service()
        d.configure({"user": SERVICE, "group": SERVICE, "allow_users": "*",
                     "log_level": "debug"})
        d.proc.send_signal(1)
        d.until(lambda: "configuration read again" in d.log(), "the reload")
        self.assertNotIn("need a restart", d.log())
        r = ann.client().ask("submit", workflow=sampler())
        sim.wait_history(r["prompt_id"])

    def test_no_such_user(self):
        d = self.daemon("http://127.0.0.1:1", start=False)
        for how in ([], ["--check-config"]):
            d.configure({"user": "no-such-user"})
            code, text = ended(d, *how)
            self.assertEqual(code, 2, text)
            self.assertEqual(text.count("\n"), 1, text)
            self.assertIn("useradd", text)
            self.assertIn("no-such-user", text)
            d.configure({"user": SERVICE})
            code, text = ended(d, *how)
            self.assertEqual(code, 2, text)
            self.assertIn("group", text)
        self.assertFalse(os.path.exists(d.state))

    def test_roots_own(self):
        """Named places, no service's user: for root alone, and it says so."""
        if subprocess.run(["getent", "passwd", "comfymux"],
                          stdout=subprocess.DEVNULL).returncode == 0:
            self.skipTest("this host has a user comfymux")
        sim = self.sim()
        d = self.daemon(sim, start=False)
        d.configure({})
        d.start()
        self.assertIn("running as root", d.log())
        self.assertEqual(stat.S_IMODE(os.stat(d.socket).st_mode), 0o600)
        with self.assertRaises(PermissionError):
            connect_as(d.socket, ANN)
        d.stop()
        d.configure({"allow_users": "*"})
        code, text = ended(d)
        self.assertEqual(code, 2, text)
        self.assertIn("user", text)

    def test_state_of_somebody_else(self):
        d = self.daemon("http://127.0.0.1:1", shared=True, start=False)
        os.mkdir(d.state)
        os.chown(d.state, EVE, EVE)
        code, text = ended(d)
        self.assertEqual(code, 1, text)
        self.assertIn(d.state, text)
        # Nor is a directory that was there given away.
        self.assertEqual(os.stat(d.state).st_uid, EVE)

    def test_configuration_of_somebody_else(self):
        d = self.daemon("http://127.0.0.1:1", shared=True, start=False)
        os.chown(d.config, EVE, EVE)
        code, text = ended(d)
        self.assertEqual(code, 2, text)
        self.assertIn("belongs to user %d" % EVE, text)
        os.chown(d.config, 0, 0)
        os.chmod(d.config, 0o666)
        code, text = ended(d)
        self.assertEqual(code, 2, text)
        self.assertIn("chmod go-w", text)
        self.assertFalse(os.path.exists(d.state))


class Admission(TenantCase):
    def refused(self, d, uid, **kw):
        """One line that says why, then the end."""
        c = Client(d.socket, hello=False,
                   sock=connect_as(d.socket, uid, **kw))
        reply = json.loads(c.read_line())
        self.assertIsNone(c.read_line())
        c.close()
        self.assertIs(reply["ok"], False)
        self.assertEqual(reply["error"]["type"], "denied")
        self.assertIn(NOBODY_IN, reply["error"]["message"])
        self.assertIn("allow_users", reply["error"]["message"])

    def let_in(self, d, uid, operator=False, **kw):
        c = Client(d.socket, sock=connect_as(d.socket, uid, **kw))
        self.assertEqual(c.hello["uid"], uid)
        self.assertIs(c.hello["operator"], operator)
        c.close()

    def test_by_name(self):
        _, d = self.pair(shared=True, config={
            "allow_users": "%d, daemon" % ANN, "allow_groups": "5000 users",
            "operator_group": "6000"})
        self.assertEqual(stat.S_IMODE(os.stat(d.socket).st_mode), 0o666)
        self.let_in(d, 0, True)
        self.let_in(d, SERVICE, True)
        self.let_in(d, ANN)
        self.let_in(d, 1)
        self.refused(d, BOB)
        self.let_in(d, BOB, gid=5000)
        self.let_in(d, BOB, groups=[7, 5000])
        self.let_in(d, BOB, groups=[100])
        self.refused(d, BOB, groups=[5001])
        self.let_in(d, BOB, True, groups=[6000])
        self.let_in(d, ANN, True, gid=6000)
        self.refused(d, 5000, gid=1)
        d.until(lambda: d.counter("clients_refused") == 3, "the count")

    def test_a_service_is_for_everybody(self):
        _, d = self.pair(shared=True, config={"allow_users": ""})
        self.let_in(d, ANN)
        self.let_in(d, EVE)

    def test_mode_of_the_socket(self):
        _, d = self.pair(shared=True, config={"socket_mode": "0660"})
        with self.assertRaises(PermissionError):
            connect_as(d.socket, ANN)
        self.let_in(d, ANN, gid=SERVICE)  # the socket's group

    def test_a_users_own(self):
        """Started without root: for itself alone, unless told otherwise."""
        sim = self.sim()
        directory = tempfile.mkdtemp(prefix="cmx-own-")
        self.addCleanup(shutil.rmtree, directory, True)
        os.chown(directory, ANN, ANN)
        os.chmod(directory, 0o755)
        for config, mode in (({}, 0o600), ({"socket_mode": "0666"}, 0o666),
                             ({"allow_users": BOB}, 0o666)):
            d = Daemon(sim.url, config=config, directory=directory,
                       wrapper=["setpriv", "--reuid=%d" % ANN, "--regid=%d"
                                % ANN, "--clear-groups"])
            d.clients = []
            try:
                self.assertEqual(stat.S_IMODE(os.stat(d.socket).st_mode), mode)
                self.let_in(d, ANN, True)
                self.let_in(d, 0, True)
                if config.get("allow_users"):
                    self.let_in(d, BOB)
                    self.refused(d, EVE)
                elif mode == 0o666:
                    self.refused(d, BOB)
                else:
                    with self.assertRaises(PermissionError):
                        connect_as(d.socket, BOB)
            finally:
                d.stop()

    def test_names_that_are_none(self):
        d = self.daemon("http://127.0.0.1:1", start=False)
        for key in ("allow_users", "allow_groups", "operator_group"):
            d.configure({"user": 0, key: "no-such-name"})
            code, text = ended(d, "--check-config")
            self.assertEqual(code, 2)
            self.assertIn(key, text)
            self.assertIn("no-such-name", text)


class Trust(TenantCase):
    """Whom clients take for a supervisor."""

    def test_the_services_user(self):
        _, d, ann, _ = self.service()
        done = ann.run("status", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        # Not known as such: whoever that is may be anybody.
        ann.configure({})
        done = ann.run("status")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("served by user %d" % SERVICE, done.stderr)
        self.assertIn("not connecting", done.stderr)

    def test_squatter(self):
        """Somebody else's socket in a place that all may write to."""
        _, d, ann, _ = self.service()
        place = os.path.join(d.dir, "tmp")
        os.mkdir(place)
        os.chmod(place, 0o1777)
        path = os.path.join(place, "s")
        squat = subprocess.Popen(
            ["python3", "-c", "import socket,os,sys\n"
             "s=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1])\n"
             "os.chmod(sys.argv[1], 0o666); s.listen(5); print('on', flush=True)\n"
             "while True:\n c, _ = s.accept(); print(len(c.recv(4096)), flush=True)",
             path], stdout=subprocess.PIPE, text=True, **as_user(EVE))
        try:
            self.assertEqual(squat.stdout.readline(), "on\n")
            d.socket = path
            for args in (["status"], ["queue"], ["watch"], ["history"],
                         ["cancel", "00000000-0000-4000-8000-000000000000"]):
                done = ann.run(*args)
                self.assertNotEqual(done.returncode, 0, args)
                self.assertIn("user %d" % EVE, done.stderr, args)
                # Not a byte was told to it.
                self.assertEqual(squat.stdout.readline(), "0\n", args)
        finally:
            squat.kill()
            squat.wait()
            squat.stdout.close()

    def test_no_permission_is_no_absence(self):
        _, d, ann, _ = self.service(config={"socket_mode": "0600"})
        done = ann.run("status")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("no permission", done.stderr)


if __name__ == "__main__":
    unittest.main()

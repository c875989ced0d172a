"""tenantlib.py - several users on one supervisor: connections and processes that
are other uids, and what /proc says of any of them.

Needs root, to become them. The uids are numbers that nobody has; no account is
made. A test for which that is not to be had skips with a printed notice.
"""

import array
import os
import shutil
import socket
import subprocess
import tempfile
import unittest

import muxlib
import rig
from proclib import descendants

ANN, BOB, EVE = 12001, 12002, 12003
SERVICE = muxlib.SERVICE_UID


def as_user(uid, gid=None, groups=()):
    """Keywords of subprocess for a process of that user."""
    return {"user": uid, "group": uid if gid is None else gid,
            "extra_groups": list(groups)}


def connect_as(path, uid, gid=None, groups=()):
    """A socket connected by a process of that user, who is gone then."""
    here, there = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(list(groups))
            gid = uid if gid is None else gid
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            s = socket.socket(socket.AF_UNIX)
            s.connect(path)
            there.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                                    array.array("i", [s.fileno()]))])
            os._exit(0)
        except OSError as e:
            os._exit(e.errno)
    there.close()
    with here:
        data, control, _, _ = here.recvmsg(1, socket.CMSG_SPACE(4))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if not data:
            raise OSError(code, os.strerror(code))
        fds = array.array("i")
        fds.frombytes(control[0][2][:4])
        s = socket.socket(fileno=fds[0])
        s.settimeout(muxlib.PATIENCE)
        return s


def status_of(pid):
    """/proc/PID/status as a dictionary of words."""
    with open("/proc/%d/status" % pid) as f:
        return {key: value.split() for key, value in
                (line.rstrip("\n").split(":", 1) for line in f)}


def family_of(pid):
    """The process and all below it."""
    return [pid, *descendants(pid)]


class Tenant:
    """One user: a home of his own, commands and connections as him."""

    def __init__(self, d, uid, groups=()):
        self.d, self.uid, self.groups = d, uid, groups
        self.home = os.path.join(d.dir, "home-%d" % uid)
        if not os.path.exists(self.home):
            os.mkdir(self.home, 0o700)
            os.chown(self.home, uid, uid)
        self.env = {"HOME": self.home, "PATH": os.environ["PATH"],
                    "LC_ALL": "C.UTF-8"}
        for name, value in os.environ.items():
            if name.endswith("SAN_OPTIONS"):
                self.env[name] = value
        self.configure({"user": SERVICE})

    def configure(self, values):
        path = self.path(".config/comfymux/comfymux.conf")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.writelines("%s = %s\n" % pair for pair in values.items())

    def path(self, name):
        return os.path.join(self.home, name)

    def client(self, **kw):
        c = muxlib.Client(self.d.socket, sock=connect_as(
            self.d.socket, self.uid, groups=self.groups), **kw)
        self.d.clients.append(c)
        return c

    def popen(self, *args, **kw):
        kw.setdefault("stdin", subprocess.DEVNULL)
        kw.setdefault("stdout", subprocess.PIPE)
        kw.setdefault("stderr", subprocess.PIPE)
        return subprocess.Popen(list(args), env=self.env, cwd=self.home,
                                **as_user(self.uid, groups=self.groups), **kw)

    def run(self, *args, **kw):
        """comfymux ARGS to its end."""
        kw.setdefault("stdin", subprocess.DEVNULL)
        kw.setdefault("timeout", rig.PATIENCE_S)
        return subprocess.run(
            [muxlib.binary("comfymux"), *args, "--socket", self.d.socket],
            env=self.env, cwd=self.home, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
            **as_user(self.uid, groups=self.groups), **kw)


class TenantCase(muxlib.Case):
    """Tests as root with several uids; the programs are copied to where all of
    them may run them."""

    bin_dir = None

    @classmethod
    def setUpClass(cls):
        if os.geteuid() != 0:
            print("notice: %s needs root and is left out" % cls.__name__)
            raise unittest.SkipTest("needs root, to become other users")
        cls.saved_bin = os.environ.get("BIN")
        cls.bin_dir = tempfile.mkdtemp(prefix="cmx-bin-")
        os.chmod(cls.bin_dir, 0o755)
        for name in ("comfymuxd", "comfymux", "comfymux-worker", "comfysim"):
            shutil.copy(muxlib.binary(name), cls.bin_dir)
        os.environ["BIN"] = rig.BIN = cls.bin_dir

    @classmethod
    def tearDownClass(cls):
        if cls.bin_dir:
            shutil.rmtree(cls.bin_dir)
            rig.BIN = os.path.join(rig.ROOT, cls.saved_bin or "build")
            os.environ.pop("BIN")
            if cls.saved_bin:
                os.environ["BIN"] = cls.saved_bin

    def service(self, *sim_options, config=None, **kw):
        """(sim, daemon, Ann, Bob)"""
        sim, d = self.pair(*sim_options, shared=True, config=config, **kw)
        return sim, d, Tenant(d, ANN), Tenant(d, BOB)

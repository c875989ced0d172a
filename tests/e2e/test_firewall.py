"""The example of a firewall: loaded in a network namespace of its own, it lets
the service's user through to ComfyUI's port and nobody else."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest

import rig

RULES = os.path.join(rig.ROOT, "etc", "nftables", "comfymux.nft")
SERVICE, TENANT = 12999, 12001

# In the namespace, as root: a server, the rules, then who gets through.
PROBE = r"""
import encodings.idna, os, socket, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
servers = []
for port in (8188, 8189):
    s = socket.create_server(("127.0.0.1", port))
    servers.append(s)
subprocess.run([sys.argv[1], "-f", sys.argv[2]], check=True)
for uid in (0, %d, %d):
    for port in (8188, 8189):
        pid = os.fork()
        if pid == 0:
            os.setuid(uid)
            try:
                socket.create_connection(("127.0.0.1", port), 5)
                os._exit(0)
            except OSError:
                os._exit(1)
        print(uid, port, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
""" % (SERVICE, TENANT)


class Firewall(unittest.TestCase):
    def setUp(self):
        self.nft = shutil.which("nft") or shutil.which("nft", path="/usr/sbin:/sbin")
        if not self.nft:
            print("notice: no nft here, the example of a firewall is not tried")
            self.skipTest("needs nftables")
        if os.geteuid() != 0:
            print("notice: the example of a firewall needs root to be tried")
            self.skipTest("needs root")
        with open(RULES) as f:
            text = f.read()
        # Of a user that this host need not have, by number.
        text, n = re.subn(r'define service = "comfymux"', "define service = %d" % SERVICE, text)
        self.assertEqual(n, 1)
        self.dir = tempfile.mkdtemp(prefix="cmx-nft-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.rules = os.path.join(self.dir, "rules")
        with open(self.rules, "w") as f:
            f.write(text)

    def in_namespace(self, *command):
        return subprocess.run(["unshare", "-n", *command], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=rig.PATIENCE_S)

    def test_who_gets_through(self):
        if self.in_namespace("true").returncode != 0:
            print("notice: no network namespaces here, the example of a firewall is checked only")
            done = subprocess.run([self.nft, "-c", "-f", self.rules], stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True)
            self.assertEqual(done.returncode, 0, done.stdout)
            return
        done = self.in_namespace("python3", "-c", PROBE, self.nft, self.rules)
        if "Operation not supported" in done.stdout or "cache initialization failed" in done.stdout:
            print("notice: this kernel has no nf_tables, the example of a firewall is not tried")
            self.skipTest("needs nf_tables")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertEqual(done.stdout.split("\n")[:-1], [
            "0 8188 0", "0 8189 0", "%d 8188 0" % SERVICE, "%d 8189 0" % SERVICE,
            "%d 8188 1" % TENANT, "%d 8189 0" % TENANT])
        # Loading it twice is as once.
        done = self.in_namespace("sh", "-ec", "%s -f %s; %s -f %s; %s list table inet comfymux" % (
            self.nft, self.rules, self.nft, self.rules, self.nft))
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertEqual(done.stdout.count("skuid"), 1, done.stdout)


if __name__ == "__main__":
    unittest.main()

"""The clients of etc/examples that use no library of ours, as their own texts say
they are used."""
import json
import os
import shutil
import subprocess
import sys
import unittest

import rig

EXAMPLES = os.path.join(rig.ROOT, "etc", "examples")
LARGE_SEED = 18446744073709551615
WORKFLOW = {
    "1": {"class_type": "SimSampler",
          "inputs": {"seed": LARGE_SEED, "steps": 4, "step_ms": 20}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "eg"}},
}


class Client:
    """What each of them has to do; `COMMAND` starts it."""
    COMMAND = None

    def setUp(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)
        self.rig.start_sim()

    def client(self, name, **env):
        return subprocess.run([*self.COMMAND, name], cwd=self.rig.dir, text=True,
                              env={**self.rig.env, "COMFYMUX_SOCKET": self.rig.socket, **env},
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=rig.PATIENCE_S, check=False)

    def test_a_run(self):
        self.rig.start_daemon()
        # Indented, as people keep them.
        done = self.client(self.rig.write("w.json", json.dumps(WORKFLOW, indent=2)))
        self.assertEqual(done.returncode, 0, done.stderr)
        outputs = json.loads(done.stdout)
        self.assertEqual(outputs["2"]["images"][0]["filename"], "eg_00001_.png")
        self.assertIn("node 1: ", done.stderr)
        posts = [j for j in self.rig.journal() if j["fact"] == "post"]
        self.assertEqual([p["result"] for p in posts], ["queued"])
        self.assertEqual(posts[0]["workflow"]["1"]["inputs"]["seed"], LARGE_SEED)

    def test_a_failing_node(self):
        self.rig.start_daemon()
        broken = {"1": {"class_type": "SimError", "inputs": {"message": "no luck today"}},
                  "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}}
        done = self.client(self.rig.write("w.json", broken))
        self.assertEqual(done.returncode, 1)
        self.assertIn("no luck today", done.stderr)

    def test_a_refusal(self):
        self.rig.start_daemon()
        done = self.client(self.rig.write("w.json", {"1": {"class_type": "NoSuchNode",
                                                           "inputs": {}}}))
        self.assertEqual(done.returncode, 1)
        self.assertIn("rejected", done.stderr)

    def test_nobody_there(self):
        done = self.client(self.rig.write("w.json", WORKFLOW))
        self.assertEqual(done.returncode, 1)
        self.assertTrue(done.stderr)

    def test_no_json(self):
        self.rig.start_daemon()
        done = self.client(self.rig.write("w.json", "{"))
        self.assertEqual(done.returncode, 1)
        self.assertTrue(done.stderr)


class Python(Client, unittest.TestCase):
    COMMAND = (sys.executable, os.path.join(EXAMPLES, "client.py"))


@unittest.skipUnless(shutil.which("node"), "node is not installed")
class Node(Client, unittest.TestCase):
    COMMAND = ("node", os.path.join(EXAMPLES, "client.mjs"))


if __name__ == "__main__":
    unittest.main()

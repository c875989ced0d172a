"""What the tests of libcomfymux share: it is installed into an empty tree,
compiled against by a strict compiler with what pkg-config says, static and
shared; and what has to hold with a supervisor and without one.

TestCase classes are made of these in test_library*.py."""
import os
import re
import shutil
import subprocess
import tempfile
import unittest

import rig
from rig import wait_for

ASAN = rig.BIN.endswith("asan")
HERE = os.path.dirname(os.path.abspath(__file__))
EXAMPLES = os.path.join(rig.ROOT, "etc", "examples")
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-g",
          "-D_POSIX_C_SOURCE=200809L"]
SANITIZE = ["-fsanitize=address,undefined"] if ASAN else []
TREE = None  # where the library is installed
KINDS = ("shared", "static")


def command(*args, **kwargs):
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=rig.PATIENCE_S * 3, cwd=rig.ROOT, **kwargs)
    assert done.returncode == 0, "%s: %s" % (" ".join(args), done.stdout)
    return done.stdout


def pkg_config(*args):
    return command("pkg-config", *args, "comfymux", env={
        "PATH": os.environ["PATH"],
        "PKG_CONFIG_LIBDIR": os.path.join(TREE, "usr/lib/pkgconfig"),
        "PKG_CONFIG_SYSROOT_DIR": TREE}).split()


def library_flags(kind):
    flags = pkg_config("--libs", "--static") if kind == "static" else pkg_config("--libs")
    if kind == "static":
        at = flags.index("-lcomfymux")
        flags[at:at + 1] = ["-Wl,-Bstatic", "-lcomfymux", "-Wl,-Bdynamic"]
    return flags


def compile_program(source, name, kind, cc=("gcc", *STRICT)):
    out = os.path.join(TREE, name + "-" + kind)
    command(*cc, *SANITIZE, *pkg_config("--cflags"), source, "-o", out, *library_flags(kind), "-pthread")
    return out


def install():
    global TREE
    TREE = tempfile.mkdtemp(prefix="cmx-tree-")
    command("make", "-s", "-o", "all", "BIN=" + os.path.relpath(rig.BIN, rig.ROOT), "install",
            "DESTDIR=" + TREE, "PREFIX=/usr",
            env={k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))})
    for kind in KINDS:
        compile_program(os.path.join(HERE, "library.c"), "library", kind)


def library_env(env):
    return {"HOME": TREE, "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **env,
            "LD_LIBRARY_PATH": os.path.join(TREE, "usr/lib")}


def sampler(steps=4, step_ms=5, seed=1):
    return {
        "3": {"class_type": "SimSampler",
              "inputs": {"seed": seed, "steps": steps, "step_ms": step_ms}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "lib"}},
    }


FAILING = {
    "3": {"class_type": "SimError", "inputs": {"message": "out of paint", "type": "ValueError"}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "lib"}},
}
PASS_ON = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "next"}},
}


def remove():
    shutil.rmtree(TREE, ignore_errors=True)


class LibraryCase(unittest.TestCase):
    kind = "shared"
    preload = None

    def setUp(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)
        self.rig.write("config/comfymux/comfymux.conf", "poll_interval_ms = 200\n")
        self.rig.start_sim()

    def env(self):
        more = {"LD_PRELOAD": self.preload} if self.preload else {}
        return library_env({**self.rig.env, "COMFYUI_HOST": self.rig.sim_url,
                            "COMFYMUX_SOCKET": self.rig.socket, **more})

    def start(self, *args, program="library", kind=None, **kwargs):
        path = os.path.join(TREE, program + "-" + (kind or self.kind))
        p = subprocess.Popen([path, *args], env=self.env(), cwd=self.rig.dir, text=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, **kwargs)
        self.rig.processes.append(p)
        self.addCleanup(p.stderr.close)
        return p

    def finish(self, p, status=0):
        out, err = p.communicate(timeout=rig.PATIENCE_S)
        self.assertEqual((p.returncode, err), (status, ""), out)
        return out

    def run_it(self, *args, status=0, **kwargs):
        return self.finish(self.start(*args, **kwargs), status)

    def workflow(self, what=None, **kwargs):
        self.count = getattr(self, "count", 0) + 1
        return self.rig.write("w%d.json" % self.count, what or sampler(seed=self.count, **kwargs))

    def posts(self):
        return [j["prompt_id"] for j in self.rig.journal() if j["fact"] == "post"]

    def submit(self, what):
        """A prompt that isn't the library's: its id."""
        return self.rig.run("submit", self.rig.write("other.json", what), comfyui=True,
                            check=0).stdout.split()[-1]

    def until_executing(self, p):
        """Reads until the program tells of a node that runs; that line."""
        while True:
            line = self.rig.read_line(p.stdout.buffer, "progress").decode()
            if line.startswith("executing") and line.split()[2] != "-":
                return line


class Both:
    """What is the same with a supervisor and without one."""

    def test_run(self):
        for kind in KINDS:
            out = self.run_it("run", self.workflow(step_ms=50, steps=40), kind=kind).splitlines()
            self.assertEqual(out[-2], "end all went well: ")
            self.assertIn('submitted 1, id, {"9":{"images":[', out[-1])
            self.assertIn("no node_errors", out[-1])
            states = [line.split() for line in out[:-2]]
            self.assertEqual(states[-1][0], "completed")
            self.assertEqual({s[1] for s in states}, {self.method})
        self.assertEqual(len(self.posts()), 2)

    def test_without_callback(self):
        self.assertEqual(self.run_it("plain", self.workflow()), "done\n")

    def test_failing_node(self):
        out = self.run_it("run", self.workflow(FAILING))
        self.assertIn("end the prompt failed: node 3: ValueError: out of paint", out)

    def test_rejected(self):
        out = self.run_it("run", self.workflow({"1": {"class_type": "NoSuchNode", "inputs": {}}}))
        self.assertIn("end refused by ComfyUI: ", out)
        self.assertIn("NoSuchNode", out)
        self.assertIn("submitted 0", out)

    def test_timeout(self):
        out = self.run_it("run", self.workflow(steps=10000, step_ms=20), "5000")
        self.assertIn("end not done in time: not finished in time; the prompt runs on", out)
        self.assertIn("submitted 1", out)

    def test_cancel(self):
        out = self.run_it("cancel", self.workflow(steps=10000, step_ms=20))
        self.assertIn("end cancelled: ", out)

    def test_cancel_other(self):
        prompt = self.submit(sampler(steps=10000, step_ms=20))
        out = self.run_it("cancel-other", prompt)
        self.assertRegex(out, r"^1 (cancelled|interrupted)\n$")

    def test_drop(self):
        self.rig.pause(steps=3)
        prompt = self.run_it("drop", self.workflow(steps=10, step_ms=20)).strip()
        self.assertEqual(self.posts(), [prompt])
        self.rig.resume()
        wait_for(lambda: any(j["fact"] == "end" and j.get("prompt_id") == prompt
                             for j in self.rig.journal()), "the prompt to run on")

    def test_watch(self):
        """Before their end and after it; one connection for all."""
        ids = [self.submit(sampler(seed=s, steps=6, step_ms=30)) for s in (101, 102, 103)]
        failing = self.submit(FAILING)
        for _ in range(2):
            out = self.run_it("watch", *ids, failing, "no-such-prompt").splitlines()
            self.assertEqual(out[:4], ["0  completed"] * 3 + ["1 ValueError failed"])
            self.assertRegex(out[4], r"^1 lost ")

    def test_leave_in_callback(self):
        self.rig.pause(steps=5)
        prompt = self.submit(sampler(seed=9, steps=60, step_ms=20))
        p = self.start("leave", prompt)
        self.assertEqual(self.rig.read_line(p.stdout.buffer, "the callback"), b"left\n")
        self.rig.resume()
        self.assertEqual(self.finish(p), "done\n")

    def test_two_clients_in_a_foreign_loop(self):
        for kind in KINDS:
            out = self.run_it("loop", self.workflow(steps=10, step_ms=30), self.workflow(FAILING), kind=kind)
            self.assertEqual(out, "all went well\nthe prompt failed\n")

    def test_free_in_callback(self):
        self.assertEqual(self.run_it("free", self.workflow(steps=20, step_ms=30)), "done\n")

    def test_batch(self):
        out = self.run_it("batch", "3", "0", *(self.workflow(steps=5, step_ms=20) for _ in range(5)))
        self.assertEqual(out.splitlines(), ["end all went well"] + ["all went well||"] * 5)
        self.assertEqual(len(set(self.posts())), 5)

    def test_batch_in_part(self):
        out = self.run_it("batch", "2", "0", self.workflow(), "-", self.workflow(FAILING), "0",
                          self.workflow()).splitlines()
        self.assertEqual(out[0], "end some did not complete")
        self.assertEqual(out[1], "all went well||")
        self.assertRegex(out[2], r"^invalid argument\|workflow.*\|$")
        self.assertEqual(out[3], "the prompt failed|node 3: ValueError: out of paint|")
        self.assertEqual(out[4], "invalid argument|the workflow is NULL|")
        self.assertEqual(out[5], "all went well||")

    def test_batch_stops(self):
        out = self.run_it("batch", "1", "1", self.workflow(FAILING), self.workflow(),
                          self.workflow()).splitlines()
        self.assertEqual(out[0], "end some did not complete")
        self.assertEqual([line.split("|")[0] for line in out[1:]],
                         ["the prompt failed", "cancelled", "cancelled"])
        self.assertEqual(len(self.posts()), 1)

    def test_chain(self):
        out = self.run_it("chain", "0", self.workflow(), "-", "-", "-",
                          self.workflow(PASS_ON), "0", "9", "image",
                          self.workflow(PASS_ON), "1", "9", "1.image").splitlines()
        self.assertEqual(out, ["end all went well", "all went well||",
                               "all went well||lib_00001_.png [output]",
                               "all went well||next_00001_.png [output]"])

    def test_chain_in_part(self):
        out = self.run_it("chain", "0", self.workflow(), "-", "-", "-",
                          self.workflow(PASS_ON), "0", "3", "image",
                          self.workflow(PASS_ON), "5", "9", "image",
                          self.workflow(), "-", "-", "-").splitlines()
        self.assertEqual(out[0], "end some did not complete")
        codes = [line.split("|")[0] for line in out[1:]]
        self.assertEqual((codes[0], codes[3]), ("all went well", "all went well"))
        self.assertNotIn("all went well", codes[1:3])
        self.assertEqual(len(self.posts()), 2)

    def test_nothing_is_left(self):
        prompt = self.submit(sampler(seed=5))
        for kind in KINDS:
            self.run_it("leaks", self.workflow(step_ms=20, steps=10), prompt, kind=kind)

    def test_threads(self):
        self.assertEqual(self.run_it("threads", *(self.workflow() for _ in range(4))), "done\n")

    def test_fork(self):
        self.assertEqual(self.run_it("fork", self.workflow(steps=40, step_ms=50)), "done\n")

    @unittest.skipIf(ASAN, "does the same")
    def test_valgrind(self):
        for args in (["run", self.workflow()], ["batch", "2", "0", self.workflow(), "-", self.workflow()],
                     ["chain", "0", self.workflow(), "-", "-", "-", self.workflow(PASS_ON), "0", "9", "image"],
                     ["free", self.workflow(steps=20, step_ms=30)]):
            done = subprocess.run(
                ["valgrind", "-q", "--leak-check=full", "--error-exitcode=9",
                 "--errors-for-leak-kinds=definite,indirect", os.path.join(TREE, "library-shared"), *args],
                env=self.env(), cwd=self.rig.dir, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, timeout=rig.PATIENCE_S)
            self.assertEqual(done.returncode, 0, done.stdout)

    def test_examples(self):
        for name in ("run", "batch", "chain", "watch"):
            compile_program(os.path.join(EXAMPLES, name + ".c"), name, "shared")
        out = self.run_it(self.workflow(), program="run")
        self.assertIn("Result: completed\nImages: {\"9\":", out)
        self.assertIn(self.told_availability, out)
        out = self.run_it(program="batch")
        self.assertEqual(len(re.findall(r"^Workflow \d: completed$", out, re.M)), 5)
        out = self.run_it(program="chain")
        self.assertIn("step 2: completed, with ", out)
        ids = [self.submit(sampler(seed=s, steps=6, step_ms=30)) for s in range(200, 205)]
        out = self.run_it(*ids, program="watch")
        for prompt in ids:
            self.assertIn(prompt + ": completed\n", out)

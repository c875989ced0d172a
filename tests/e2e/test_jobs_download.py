"""--download of batches and chains: whatever is wrong with the directory, the
disk or a name, each file says so, the others come, and nothing partial stays."""
import http.server
import json
import os
import subprocess
import threading
import unittest
import urllib.error
import urllib.request

import rig
from test_jobs import TAKE, JobCase, make

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 3000
PAGE = os.sysconf("SC_PAGESIZE")


def naming(*files):
    """A workflow that names these files, as whoever reports outputs may do."""
    w = {"3": {"class_type": "SimSampler", "inputs": {"seed": 1, "steps": 1, "step_ms": 1}}}
    for i, (name, subfolder) in enumerate(files):
        w[str(10 + i)] = {"class_type": "SimOutput", "inputs": {"images": ["3", 0], "key": "files", "json": json.dumps(
            {"filename": name, "subfolder": subfolder, "type": "output"})}}
    return w


class DownloadCase(JobCase):
    def files(self, results):
        """{index: [file]} of those that completed."""
        return {r["index"]: r["files"] for r in results if "files" in r}

    def all_whole(self, folder, expected):
        """What lies there is what was told, complete, and nothing else."""
        self.assertEqual(sorted(os.listdir(self.rig.path(folder))), sorted(expected))
        for name in expected:
            with open(os.path.join(self.rig.path(folder), name), "rb") as f:
                self.assertTrue(f.read().startswith(b"\x89PNG"), name)


class Directories(DownloadCase):
    def test_into_a_new_directory(self):
        self.sim_and_daemon()
        self.rig.write("w.json", make())
        results = self.lines("batch", "w.json", "--sweep", "3.seed=1..2", "--download", "out")
        paths = [f["path"] for files in self.files(results).values() for f in files]
        self.assertEqual(len(paths), 2)
        self.all_whole("out", [os.path.basename(p) for p in paths])

    def test_a_file_that_several_name_is_fetched_once(self):
        """As workflows do that ComfyUI finds in its cache."""
        self.sim_and_daemon()
        for name in ("d/b9.json", "d/b10.json", "other.json"):
            self.rig.write(name, make())
        results = self.lines("batch", "d/", "other.json", "--download", "out", check=0)
        self.assertEqual([r["label"] for r in results], ["d/b9.json", "d/b10.json", "other.json"])
        paths = {f["path"] for files in self.files(results).values() for f in files}
        self.assertEqual(len(paths), 1)
        self.assertEqual(len(self.files(results)), 3)
        self.all_whole("out", [os.path.basename(p) for p in paths])
        self.assertEqual(self.rig.stats()["requests"]["GET /view"], 1)

    def test_one_that_cannot_be_written(self):
        if os.geteuid() == 0:
            where = "/proc/self/ns"  # nobody writes there
        else:
            where = self.rig.path("ro")
            os.mkdir(where, 0o500)
        self.sim_and_daemon()
        self.rig.write("w.json", make())
        result = self.lines("batch", "w.json", "--download", where, check=6)[0]
        self.assertEqual(result["status"], "completed")
        self.assertTrue(result["files"][0]["error"]["message"])

    def test_no_directory_at_all(self):
        """Known before anything is begun."""
        self.sim_and_daemon()
        self.rig.write("w.json", make())
        for where in ("w.json", "no/such/place"):
            self.assertIn("--download", self.rig.run("batch", "w.json", "--download", where).stderr)
        self.assertEqual(self.facts("post"), [])


@unittest.skipUnless(os.geteuid() == 0, "needs root, for a mount namespace")
class Mounts(DownloadCase):
    """On a file system that only the command sees."""

    def command(self, options, *args):
        """comfymux in a private mount namespace with a tmpfs at `disk`;
        (results, names left there)."""
        disk = self.rig.path("disk")
        os.mkdir(disk)
        script = ('d=$1 o=$2; shift 2; mount -t tmpfs none "$d" -o size=%d && mount -o remount,"$o" "$d" || exit 99; '
                  '"$@"; r=$?; ls -A "$d" > "$d/../left"; exit $r' % (2 * PAGE))
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", script, "sh", disk, options, os.path.join(rig.BIN, "comfymux"), *args,
             "--download", disk, "--json", "--socket", self.rig.socket],
            env=self.rig.env, cwd=self.rig.dir, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, timeout=rig.PATIENCE_S)
        if done.returncode == 99:
            self.skipTest("may not mount here: " + done.stderr.strip())
        results = [r for r in map(json.loads, done.stdout.splitlines()) if r["event"] == "result"]
        self.assertEqual(done.returncode, 6, done.stderr)
        with open(self.rig.path("left")) as f:
            return results, f.read().split()

    def test_full_disk(self):
        """Room for two images of four."""
        self.sim_and_daemon()
        self.rig.write("w.json", make())
        results, left = self.command("rw", "batch", "w.json", "--sweep", "3.seed=1..4")
        self.assertEqual([r["status"] for r in results], ["completed"] * 4)
        told = [f for files in self.files(results).values() for f in files]
        saved = [f["path"] for f in told if "path" in f]
        errors = [f["error"] for f in told if "error" in f]
        self.assertEqual((len(saved), len(errors)), (2, 2), told)
        for e in errors:
            self.assertEqual(e["type"], "system")
            self.assertIn("No space left on device", e["message"])
        self.assertEqual(sorted(left), sorted(os.path.basename(p) for p in saved))

    def test_full_disk_under_a_chain(self):
        """What is handed on doesn't need the files."""
        self.sim_and_daemon()
        take = dict(TAKE, **{"9": dict(TAKE["9"], inputs={"images": ["2", 0], "filename_prefix": "taken"})})
        self.rig.write("c.json", json.dumps(
            [{"workflow": json.loads(make())}] +
            [{"workflow": take, "inputFrom": {"step": i}, "outputTo": "image"} for i in range(3)]))
        results, left = self.command("rw", "chain", "c.json")
        self.assertEqual([r["status"] for r in results], ["completed"] * 4)
        errors = [f["error"]["message"] for files in self.files(results).values() for f in files if "error" in f]
        self.assertEqual(len(errors), 2)
        self.assertEqual(len(left), 2)

    def test_read_only(self):
        self.sim_and_daemon()
        self.rig.write("w.json", make())
        results, left = self.command("ro", "batch", "w.json", "--sweep", "3.seed=1..2")
        self.assertEqual([r["status"] for r in results], ["completed"] * 2)
        for files in self.files(results).values():
            self.assertEqual(files[0]["error"]["type"], "denied")
            self.assertIn("Read-only file system", files[0]["error"]["message"])
        self.assertEqual(left, [])


class Giving(http.server.BaseHTTPRequestHandler):
    """A ComfyUI that gives an image by whatever name; the rest is the
    simulator's."""
    protocol_version = "HTTP/1.1"
    behind = None

    def answer(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def pass_on(self, data=None):
        request = urllib.request.Request(self.behind + self.path, data=data, method=self.command,
                                         headers={"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=rig.PATIENCE_S) as reply:
                self.answer(reply.status, reply.read())
        except urllib.error.HTTPError as error:
            self.answer(error.code, error.read())

    def do_GET(self):
        if self.path.startswith("/view"):
            self.answer(200, PNG, "image/png")
        else:
            self.pass_on()

    def do_POST(self):
        self.pass_on(self.rfile.read(int(self.headers["Content-Length"])))

    def log_message(self, *args):
        pass


class Names(DownloadCase):
    def setUp(self):
        super().setUp()
        self.rig.start_sim()
        Giving.behind = self.rig.sim_url
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Giving)
        self.rig.sim_url = "http://127.0.0.1:%d" % self.server.server_port
        thread = threading.Thread(target=self.server.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.rig.write("config/comfymux/comfymux.conf", "autostart = no\n")

    def download(self, workflows, *args, check):
        for i, w in enumerate(workflows):
            self.rig.write("w%d.json" % i, json.dumps(w))
        results = self.lines("batch", *["w%d.json" % i for i in range(len(workflows))], "--download", "out", *args,
                             comfyui=True, check=check)
        self.assertEqual({r["status"] for r in results}, {"completed"})
        return [r["files"] for r in results]

    def test_paths_in_a_name_lead_nowhere(self):
        """Its last part counts, as for any file; where there is none, or it
        can't be a name, that file says so."""
        names = {"../up.png": "up.png", "/etc/abs.png": "abs.png", "a/../../deep.png": "deep.png",
                 "plain.png": "plain.png", "..": None, "a/..": None, "a/": None, "x" * 300 + ".png": None}
        files = {f["filename"]: f for f in self.download([naming(*((n, "") for n in names))], check=6)[0]}
        self.assertEqual(set(files), set(names))
        for name, base in names.items():
            if base:
                self.assertTrue(files[name]["path"].endswith("out/" + base), files[name])
            else:
                self.assertIn(files[name]["error"]["type"], ("invalid", "denied"), files[name])
                self.assertTrue(files[name]["error"]["message"], files[name])
        self.all_whole("out", [base for base in names.values() if base])
        outside = set(os.listdir(self.rig.dir)) | set(os.listdir(os.path.dirname(self.rig.dir)))
        self.assertFalse(outside & {"up.png", "abs.png", "deep.png"})
        self.assertFalse(os.path.exists("/etc/abs.png"))

    def test_subfolders_lead_nowhere(self):
        folders = ("..", "a/../..", "/etc", "in/side")
        files = self.download([naming(*(("s%d.png" % i, f) for i, f in enumerate(folders)))], check=0)[0]
        self.assertEqual(len(files), 4)
        self.all_whole("out", ["s%d.png" % i for i in range(4)])

    def test_the_same_name_twice(self):
        """The first that comes has it; the other says why not, and nothing is
        lost unless that is asked for."""
        three = [naming(("same.png", "a")), naming(("same.png", "b")), naming(("other.png", ""))]
        files = [f for of_one in self.download(three, "--concurrency", "1", check=6) for f in of_one]
        self.assertEqual([("path" in f, "error" in f) for f in files], [(True, False), (False, True), (True, False)])
        self.assertEqual(files[1]["error"]["type"], "invalid")
        self.assertIn("exists", files[1]["error"]["message"])
        self.all_whole("out", ["same.png", "other.png"])
        self.download(three, "--overwrite", check=0)
        self.all_whole("out", ["same.png", "other.png"])


if __name__ == "__main__":
    unittest.main()

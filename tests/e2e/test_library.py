"""libcomfymux as a program's author meets it: what is installed, and what it
does without a supervisor and without ComfyUI."""
import os
import re
import socket
import subprocess
import threading
import unittest

import liblib
import rig


def setUpModule():
    liblib.install()
    unittest.addModuleCleanup(liblib.remove)


class Forms(unittest.TestCase):
    """What the library is, without running it."""

    def names(self, *args):
        found = set()
        for line in liblib.command("nm", *args).splitlines():
            if re.match(r"[0-9a-f]+ [A-Z] ", line):
                found.add(line.split()[2].split("@")[0])
        return found

    def declared(self):
        with open(os.path.join(liblib.TREE, "usr/include/comfymux.h")) as f:
            header = f.read()
        return set(re.findall(r"CMX_API [^;(]*?\b(cmx_\w+)\(", header))

    def test_exports(self):
        shared = self.names("-D", "--defined-only", os.path.join(liblib.TREE, "usr/lib/libcomfymux.so"))
        static = self.names("-g", "--defined-only", os.path.join(liblib.TREE, "usr/lib/libcomfymux.a"))
        self.assertGreater(len(shared), 25)
        self.assertEqual(shared, self.declared())
        self.assertEqual(static, self.declared())

    def test_calls(self):
        """What a library mustn't do it can't: nothing of that is called."""
        if liblib.ASAN:
            self.skipTest("the sanitizers' build shares objects that assert")
        needs = set()
        for line in liblib.command("nm", "-u", os.path.join(liblib.TREE, "usr/lib/libcomfymux.a")).splitlines():
            if line.startswith(" " * 4):
                needs.add(line.split()[-1])
        for name in ("exit", "_exit", "abort", "__assert_fail", "fork", "vfork", "clone", "waitpid",
                     "signal", "sigaction", "printf", "puts", "perror", "stderr", "stdout", "syslog",
                     "ev_run", "ev_default_loop", "ev_io_start"):
            self.assertNotIn(name, needs)

    def test_soname(self):
        told = liblib.command("readelf", "-d", os.path.join(liblib.TREE, "usr/lib/libcomfymux.so"))
        self.assertIn("[libcomfymux.so.0]", told)
        for library in ("libev", "libwebsockets", "libsqlite", "libcjson", "libcares"):
            self.assertNotIn(library, told)
        self.assertTrue(os.path.islink(os.path.join(liblib.TREE, "usr/lib/libcomfymux.so.0")))

    def test_header_alone(self):
        for cc in (["gcc", "-std=c99"], ["gcc", "-std=c17"], ["g++", "-std=c++11"],
                   ["g++", "-std=c++20"], ["clang", "-std=c99"]):
            source = os.path.join(liblib.TREE, "header" + (".cc" if cc[0] == "g++" else ".c"))
            with open(source, "w") as f:
                f.write("#include <comfymux.h>\n#include <comfymux.h>\n"
                        "struct cmx_batch_options o = CMX_BATCH_OPTIONS_INIT;\n"
                        "int use(void);\nint use(void) { return cmx_dispatch(NULL); }\n")
            liblib.command(*cc, "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only",
                    *liblib.pkg_config("--cflags"), source)

    def test_cplusplus(self):
        source = os.path.join(liblib.TREE, "plus.cc")
        with open(source, "w") as f:
            f.write("#include <comfymux.h>\n#include <cstdio>\n"
                    "int main() { cmx *c; struct cmx_progress *p = nullptr; (void)p;\n"
                    "if (cmx_new(&c, nullptr) < 0) return 1;\n"
                    "std::puts(cmx_version()); cmx_free(c); return 0; }\n")
        for kind in liblib.KINDS:
            program = liblib.compile_program(source, "plus", kind, ("g++", "-std=c++17", "-Wall", "-Werror"))
            self.assertRegex(liblib.command(program, env=liblib.library_env({})), r"^\d+\.\d+\.\d+\n$")


class Alone(liblib.Both, liblib.LibraryCase):
    method = "polling"
    told_availability = "polling: no supervisor found"

    def test_available(self):
        out = self.run_it("available").splitlines()
        self.assertRegex(out[0], r"^0 -4 .*does not exist$")
        self.assertEqual(out[1], "0")

    def test_log(self):
        out = self.run_it("log", self.workflow())
        self.assertRegex(out, r"log 2: no supervisor \(.*\): polling ComfyUI every 0\.2 s\n")
        self.assertRegex(out, r"\n[1-9]\d* lines\n$")

    def test_supervisor_comes(self):
        p = self.start("run", self.workflow(steps=600, step_ms=20))
        self.until_polling(p)
        self.rig.start_daemon()
        out = self.finish(p)
        self.assertIn("end all went well", out)
        self.assertEqual(len(self.posts()), 1)

    def until_polling(self, p):
        line = ""
        while not line.startswith("executing polling"):
            line = self.rig.read_line(p.stdout.buffer, "progress").decode()


class Nobody(liblib.LibraryCase):
    def setUp(self):
        super().setUp()
        self.rig.processes[0].kill()
        self.rig.processes[0].wait()

    def test_run(self):
        out = self.run_it("run", self.workflow())
        self.assertIn("end no answer: ", out)
        self.assertIn("submitted 0, ", out)
        self.assertIn(str(self.rig.sim_port), out)

    def test_bad_input(self):
        for kind in liblib.KINDS:
            self.assertEqual(self.run_it("bad", kind=kind), "done\n")

    @unittest.skipIf(liblib.ASAN, "does the same")
    def test_bad_input_valgrind(self):
        done = subprocess.run(
            ["valgrind", "-q", "--leak-check=full", "--error-exitcode=9",
             os.path.join(liblib.TREE, "library-shared"), "bad"],
            env=self.env(), cwd=self.rig.dir, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=rig.PATIENCE_S)
        self.assertEqual((done.returncode, done.stdout), (0, "done\n"))

    @unittest.skipIf(liblib.ASAN, "which has to be the first library")
    def test_resolver_that_hangs(self):
        """Nobody waits for its thread: neither dispatching nor freeing."""
        source = os.path.join(liblib.TREE, "hang.c")
        with open(source, "w") as f:
            f.write("#include <unistd.h>\nint getaddrinfo(void);\n"
                    "int getaddrinfo(void) { for (;;) pause(); }\n")
        shim = os.path.join(liblib.TREE, "hang.so")
        liblib.command("gcc", "-shared", "-fPIC", "-fno-builtin", source, "-o", shim)
        self.rig.sim_url = "http://comfyui.invalid:8188"
        self.preload = shim
        out = self.run_it("run", self.workflow(), "300")
        self.assertIn("end not done in time: ", out)
        out = self.run_it("loop-free", self.workflow())
        self.assertEqual(out, "done\n")

    def test_peer_that_hangs_up(self):
        """Each request meets a connection that is reset: no SIGPIPE."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        self.rig.sim_url = "http://127.0.0.1:%d" % listener.getsockname()[1]

        def hang_up():
            while True:
                try:
                    s, _ = listener.accept()
                except OSError:
                    return
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                s.close()

        threading.Thread(target=hang_up, daemon=True).start()
        out = self.run_it("run", self.workflow(), "3000")
        self.assertRegex(out, r"end (no answer|not done in time): ")

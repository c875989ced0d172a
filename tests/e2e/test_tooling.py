"""The scripts that judge everything else: do they fail when they should?"""

import os
import subprocess
import sys
import tempfile
import textwrap
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
SCRIPTS = os.path.join(ROOT, "scripts")


def run(*args, **kwargs):
    return subprocess.run(args, stdout=subprocess.PIPE, check=False,
                          stderr=subprocess.STDOUT, text=True, timeout=60,
                          **kwargs)


class Scratch(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = folder.name

    def write(self, name, text, mode=0o644):
        path = os.path.join(self.dir, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(textwrap.dedent(text))
        os.chmod(path, mode)
        return path

    def script(self, name, body):
        return self.write(name, "#!/bin/sh\n" + body + "\n", 0o755)


class RunLimited(Scratch):
    def test_status_is_passed_on(self):
        limited = os.path.join(SCRIPTS, "run-limited")
        for status in (0, 1, 77):
            self.assertEqual(
                run(limited, "10", "sh", "-c", f"exit {status}").returncode,
                status)
        self.assertEqual(
            run(limited, "10", "sh", "-c", "kill -SEGV $$").returncode, 139)

    def test_daemons_do_not_survive(self):
        pidfile = os.path.join(self.dir, "pid")
        daemon = self.script("daemon", f"""
            setsid sh -c 'trap "" TERM HUP; echo $$ >{pidfile}.new
                mv {pidfile}.new {pidfile}; while :; do sleep 1; done' &
            while ! [ -e {pidfile} ]; do sleep 0.01; done""")
        done = run(os.path.join(SCRIPTS, "run-limited"), "30", daemon)
        self.assertEqual(done.returncode, 0)
        self.assertIn("left running", done.stdout)
        with open(pidfile, encoding="ascii") as f:
            self.assertFalse(os.path.exists(f"/proc/{f.read().strip()}"))

    def test_time_limit(self):
        done = run(os.path.join(SCRIPTS, "run-limited"), "0.2", "sleep", "1000")
        self.assertEqual(done.returncode, 124)
        self.assertIn("killed", done.stdout)


class RunChecks(Scratch):
    def checks(self, *bodies):
        programs = [self.script(f"check_{i}", body)
                    for i, body in enumerate(bodies)]
        done = run(os.path.join(SCRIPTS, "run-checks"), *programs)
        return done, done.stdout.splitlines()[-1]

    GOOD = "echo '100%: Checks: 3, Failures: 0, Errors: 0'"

    def test_counts_are_added(self):
        done, last = self.checks(self.GOOD, self.GOOD)
        self.assertEqual((done.returncode, last), (0, "6 passed, 0 failed"))

    def test_failures_are_shown(self):
        done, last = self.checks(self.GOOD, """
            echo x.c:7: wrong
            echo '50%: Checks: 4, Failures: 1, Errors: 1'; exit 1""")
        self.assertEqual((done.returncode, last), (1, "5 passed, 2 failed"))
        self.assertIn("x.c:7: wrong", done.stdout)

    def test_silence_is_a_failure(self):
        for body in ("exit 0", "kill -SEGV $$", self.GOOD + "; exit 99",
                     "echo '100%: Checks: 0, Failures: 0, Errors: 0'"):
            done, last = self.checks(body)
            self.assertEqual(done.returncode, 1, body)
            self.assertTrue(last.endswith(" 1 failed"), last)

    def test_missing_program_is_a_failure(self):
        done = run(os.path.join(SCRIPTS, "run-checks"), "/nonexistent/check_x")
        self.assertEqual(done.returncode, 1)
        self.assertIn("0 passed, 1 failed", done.stdout)


class RunE2e(Scratch):
    def e2e(self, text):
        """Runs one module with a copy of the runner beside it."""
        for name in ("run-e2e", "run-limited"):
            with open(os.path.join(SCRIPTS, name), encoding="utf-8") as f:
                self.write("scripts/" + name, f.read(), 0o755)
        self.write("tests/e2e/test_x.py", text)
        done = run(os.path.join(self.dir, "scripts/run-e2e"))
        return done, done.stdout.splitlines()[-1]

    def test_counts(self):
        done, last = self.e2e("""\
            import os, unittest
            class T(unittest.TestCase):
                def test_a(self):
                    self.assertTrue(os.path.isabs(os.environ["BIN"]))
                def test_b(self): self.fail("on purpose")
                @unittest.skip("x")
                def test_c(self): pass
                def test_d(self): raise OSError
        """)
        self.assertEqual((done.returncode, last),
                         (1, "1 passed, 2 failed, 1 skipped"))
        self.assertIn("on purpose", done.stdout)

    def test_broken_modules_fail(self):
        for text in ("import no_such_module", "", "raise SystemExit(0)",
                     "import os; os._exit(0)"):
            done, last = self.e2e(text)
            self.assertEqual(done.returncode, 1, text)
            self.assertIn(" 1 failed", last)


class RunSteps(Scratch):
    def test_counts_and_output(self):
        done = run(os.path.join(SCRIPTS, "run-steps"), self.dir,
                   "one", "echo quiet", "two", "echo loud; exit 3")
        self.assertEqual(done.returncode, 1)
        self.assertNotIn("quiet", done.stdout)
        self.assertIn("loud", done.stdout)
        self.assertEqual(done.stdout.splitlines()[-1], "1 passed, 1 failed")


class CheckLayers(Scratch):
    def layers(self, files):
        for name, text in files.items():
            self.write(name, text)
        return run(os.path.join(SCRIPTS, "check-layers"), self.dir)

    BASE = {
        "common/a.h": "",
        "common/http.h": "",
        "common/http.c": "#include <curl/curl.h>\n",
        "common/b.h": '#include "common/http.h"\n',
        "ipc/a.c": '#include "common/a.h"\n#include <stdio.h>\n',
        "ipc/a.h": "",
        "supervisor/a.h": "",
        "supervisor/a.c": '#include "ipc/a.h"\n',
        "workers/a.h": "",
        "workers/a.c": '#include "common/b.h"\n',
        "workers/front/a.h": "",
        "workers/front/a.c": '#include "ipc/a.h"\n',
        "tests/a.h": "",
        "tests/a.c": '#include "supervisor/a.h"\n#include "workers/a.h"\n',
    }

    def test_right_ways_pass(self):
        done = self.layers(self.BASE)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_wrong_ways_fail(self):
        for path, include in (
                ("common/x.c", '"ipc/a.h"'), ("ipc/x.c", '"supervisor/a.h"'),
                ("supervisor/x.c", '"workers/a.h"'),
                ("workers/x.c", '"supervisor/a.h"'),
                ("workers/x.c", '"workers/front/a.h"'),
                ("workers/front/x.c", '"workers/a.h"'),
                ("workers/front/x.c", '"common/http.h"'),
                ("workers/front/x.c", '"common/b.h"'),
                ("common/x.h", '"tests/a.h"'),
                ("tests/sim/x.c", '"supervisor/a.h"'),
                ("common/x.c", '"a.h"'),
                ("common/x.c", "<curl/curl.h>"),
                ("supervisor/x.c", "<libwebsockets.h>"),
                ("supervisor/x.c", "<sqlite3.h>"),
                ("workers/x.c", "<ares.h>"), ("ipc/x.c", "<ini.h>")):
            with self.subTest(path=path, include=include):
                done = self.layers({**self.BASE,
                                    path: f"#include {include}\n"})
                self.assertEqual(done.returncode, 1)
                self.assertIn(path, done.stdout)
                os.unlink(os.path.join(self.dir, path))

    def test_linked_libraries(self):
        self.layers(self.BASE)
        os.makedirs(os.path.join(self.dir, "build"))
        program = os.path.join(self.dir, "build", "comfymux")
        for flags, status in ((["-lsqlite3"], 1), ([], 0)):
            done = run("gcc", "-x", "c", "-o", program, "-",
                       "-Wl,--no-as-needed", *flags,
                       input="int main(void) { return 0; }")
            self.assertEqual(done.returncode, 0, done.stdout)
            done = run(os.path.join(SCRIPTS, "check-layers"), self.dir)
            self.assertEqual(done.returncode, status, done.stdout)


class Make(unittest.TestCase):
    def test_help_names_every_public_target(self):
        text = run("make", "-s", "help", cwd=ROOT).stdout
        for target in ("all", "demo", "check", "check-asan", "check-valgrind",
                       "bench", "chaos", "install", "deb", "fuzz",
                       "fuzz-corpus", "lint", "clean"):
            self.assertRegex(text, rf"(?m)^ +{target} ")


if __name__ == "__main__":
    sys.exit(unittest.main())

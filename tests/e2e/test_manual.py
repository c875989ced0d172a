"""The manual pages, the completion and README.md say of commands and options what
the programs say of themselves: none missing, none too much."""
import glob
import os
import re
import subprocess
import unittest

import rig

GLOBAL = {"--comfyui", "--socket", "--state-dir", "--config", "--help", "--version"}
PROGRAMS = ("comfymux", "comfymuxd", "comfymux-worker", "comfymux-doctor", "comfymux-top", "comfysim")


def said(program, *args):
    done = subprocess.run([os.path.join(rig.BIN, program), *args], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def listed(text):
    """The options that a --help lists; those in its sentences aren't."""
    return set(re.findall(r"^  (--[a-z-]+)", text, re.M))


def read(path):
    with open(os.path.join(rig.ROOT, path), encoding="utf-8") as f:
        return f.read()


def commands():
    return re.findall(r"^  ([a-z-]+) ", said("comfymux", "--help").partition("Commands:")[2], re.M)


def page(name):
    """{heading: set of options listed below it} of etc/man/NAME."""
    sections, now = {}, None
    for line in read("etc/man/" + name).replace("\\-", "-").splitlines():
        if line.startswith((".SH ", ".SS ")):
            now = sections.setdefault(line[4:].split(" ")[0], set())
        elif line.startswith("\\fB--"):
            now.add(re.match(r"\\fB(--[a-z-]+)", line)[1])
    return sections


class Manual(unittest.TestCase):
    def test_each_program_knows_help_and_version(self):
        for program in PROGRAMS:
            self.assertIn("sage: comfy", said(program, "--help"))
            self.assertRegex(said(program, "--version"), r"^comfy[a-z-]+ \d+\.\d+\.\d+")

    def test_comfymux(self):
        found = page("comfymux.1")
        self.assertEqual(found["OPTIONS"], GLOBAL)
        self.assertGreater(len(commands()), 15)
        for command in commands():
            options = listed(said("comfymux", command, "--help"))
            self.assertLessEqual(GLOBAL, options, command)
            self.assertEqual(found.pop(command), options - GLOBAL, command)
        self.assertEqual([name for name in found if name.islower()], [])

    def test_the_others(self):
        self.assertEqual(page("comfymuxd.8")["OPTIONS"], listed(said("comfymuxd", "--help")))
        self.assertEqual(page("comfymux-mcp.1")["OPTIONS"], listed(said("comfymux", "mcp", "--help")))
        # The command's help and that of the program behind it.
        self.assertEqual(listed(said("comfymux-doctor", "--help")), listed(said("comfymux", "doctor", "--help")))

    def test_the_keys_of_top(self):
        keys = re.findall(r"^  (\S.*?)  +\S", said("comfymux-top", "--help"), re.M)
        self.assertGreater(len(keys), 10)
        text = read("etc/man/comfymux.1").replace("\\-", "-")
        for key in keys:
            self.assertIn("\\fB%s\\fR" % key, text)

    def test_completion(self):
        def complete(*words, begun="''"):
            script = ("source %s; COMP_WORDS=(%s %s); COMP_CWORD=%d; _comfymux; printf '%%s\\n' \"${COMPREPLY[@]}\""
                      % (os.path.join(rig.ROOT, "etc/completion/comfymux"), " ".join(words), begun, len(words)))
            done = subprocess.run(["bash", "-c", script], stdout=subprocess.PIPE, text=True, check=True)
            return set(done.stdout.split())
        self.assertEqual(complete("comfymux"), set(commands()) | {"--help", "--version"})
        self.assertEqual(complete("comfymuxd"), listed(said("comfymuxd", "--help")))
        for command in commands():
            self.assertEqual(complete("comfymux", command, begun="--"), listed(said("comfymux", command, "--help")), command)

    def test_what_documents_call(self):
        """Each `comfymux COMMAND --option` of README.md and the pages is one."""
        texts = [read("README.md"), read("ARCHITECTURE.md")]
        texts += [read(p).replace("\\-", "-") for p in glob.glob("etc/man/*.[0-9]", root_dir=rig.ROOT)]
        known = {c: listed(said("comfymux", c, "--help")) for c in commands()}
        calls = 0
        for text in texts:
            for command, rest in re.findall(r"(?:\.B |`|    |build/|sudo |-- )comfymux ([a-z][a-z-]*)([^`\n#|]*)", text):
                if command in ("is", "by", "in", "and", "beside"):
                    continue
                self.assertIn(command, known)
                calls += 1
                for option in re.findall(r"(?<=\s)--[a-z][a-z-]*", rest):
                    self.assertIn(option, known[command], command + rest)
        self.assertGreater(calls, 40)


if __name__ == "__main__":
    unittest.main()

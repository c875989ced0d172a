"""https, wss and credentials: a TLS front before comfysim, with every reason
not to be trusted; and that no secret is anywhere but on its way to ComfyUI."""
import glob
import os
import select
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import unittest

import rig
from rig import wait_for
from test_cli import sampler

TOKEN = "sekrit-token-4711"
HEADER = "sekrit-header-0815"


def openssl(directory, *args):
    done = subprocess.run(["openssl", *args], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


class Authority:
    """A certificate authority and what it has signed, made once."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="cmx-ca-")
        for ca in ("ca", "other-ca"):
            openssl(self.dir, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", ca + ".key", "-out", ca + ".pem", "-days", "30", "-subj", "/CN=Test " + ca)
        self.issue("good", "IP:127.0.0.1,DNS:localhost")
        self.issue("wrong-name", "DNS:elsewhere.example")
        self.issue("expired", "IP:127.0.0.1", "-days", "-1")
        self.issue("client", "DNS:client.example")

    def issue(self, name, names, *days):
        with open(os.path.join(self.dir, name + ".ext"), "w") as f:
            f.write("subjectAltName=%s\n" % names)
        openssl(self.dir, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-keyout", name + ".key", "-out", name + ".csr", "-subj", "/CN=" + name)
        openssl(self.dir, "x509", "-req", "-in", name + ".csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-out", name + ".pem", "-extfile", name + ".ext", *(days or ("-days", "30")))
        os.chmod(self.path(name + ".key"), 0o600)

    def path(self, name):
        return os.path.join(self.dir, name)


class Front:
    """Ends TLS and passes bytes on to the simulator. What it was asked is kept;
    `headers` are demanded (401 without), `redirect` is answered to all."""

    def __init__(self, authority, port, certificate="good", client_ca=None, headers=(), redirect=None, tls=True):
        self.to, self.want, self.redirect = port, headers, redirect
        self.heads = []
        self.context = None
        if tls:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(authority.path(certificate + ".pem"), authority.path(certificate + ".key"))
            if client_ca:
                self.context.verify_mode = ssl.CERT_REQUIRED
                self.context.load_verify_locations(authority.path(client_ca))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = "%s://127.0.0.1:%d" % ("https" if tls else "http", self.port)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                sock = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock):
        try:
            sock.settimeout(rig.PATIENCE_S)
            if self.context:
                sock = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                self.shake_hands(sock)
            self.converse(sock)
        except (OSError, ValueError):
            pass
        finally:
            sock.close()

    @staticmethod
    def shake_hands(sock):
        try:
            sock.do_handshake()
        except ssl.SSLError:
            # Closed at once it would be reset, and the alert lost, for what
            # the other side has sent behind its handshake.
            raw = socket.socket(fileno=sock.detach())
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(65536):
                pass
            raw.close()
            raise

    def converse(self, sock):
        data = b""
        while b"\r\n\r\n" not in data:
            more = sock.recv(65536)
            if not more:
                return
            data += more
        head = data.split(b"\r\n\r\n")[0].decode("latin-1")
        self.heads.append(head)
        if self.redirect:
            sock.sendall(b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % self.redirect.encode())
            return
        if any(h not in head.split("\r\n") for h in self.want):
            sock.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        with socket.create_connection(("127.0.0.1", self.to)) as on:
            on.sendall(data)
            self.pass_on(sock, on)

    @staticmethod
    def pass_on(a, b):
        """Until either ends. What TLS has read already select doesn't see."""
        while True:
            ready = [a] if isinstance(a, ssl.SSLSocket) and a.pending() else select.select([a, b], [], [])[0]
            for s in ready:
                more = s.recv(65536)
                if not more:
                    return
                (b if s is a else a).sendall(more)

    def close(self):
        self.listener.close()


class TlsCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.authority = Authority()
        cls.addClassCleanup(shutil.rmtree, cls.authority.dir)

    def setUp(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)
        self.rig.start_sim()
        self.rig.write("wf.json", sampler())

    def front(self, **kwargs):
        front = Front(self.authority, self.rig.sim_port, **kwargs)
        self.addCleanup(front.close)
        return front

    def conf(self, **keys):
        keys.setdefault("ca_file", self.authority.path("ca.pem"))
        return self.rig.write("conf", "".join("%s = %s\n" % k for k in keys.items()))

    def secret(self, name, text, mode=0o600):
        path = self.rig.write(name, text)
        os.chmod(path, mode)
        return path

    def daemon(self, front, connected=True, **keys):
        self.rig.sim_url = front.url
        return self.rig.start_daemon("--config", self.conf(**keys), connected=connected)

    def alone(self, front, check=0, **keys):
        """One run of a worker without a supervisor; its output."""
        done = self.rig.run("run", "wf.json", "--comfyui", front.url, "--config",
                            self.conf(autostart="no", **keys), check=check)
        return done.stdout + done.stderr

    def last_error(self, what):
        """Of the link, once it speaks of `what`."""
        return wait_for(lambda: what in self.rig.status()["upstream"].get("last_error", "") and
                        self.rig.status()["upstream"]["last_error"], what)


class Trust(TlsCase):
    def test_verified(self):
        front = self.front()
        self.daemon(front)
        self.assertEqual(self.rig.json("run", "wf.json")["progress_method"], "websocket")
        self.assertTrue(any(h.startswith("GET /ws?") for h in front.heads))

    def test_a_forked_worker_asks_by_https(self):
        """When the supervisor is gone it polls, trusting what it was handed."""
        front = self.front()
        daemon = self.daemon(front, poll_interval_ms=200)
        self.rig.write("long.json", sampler(steps=60, step_ms=20))
        run = self.rig.start("comfymux", "run", "long.json", "--json", "--socket", self.rig.socket, "--config", "conf",
                             "--comfyui", front.url, stdout=subprocess.PIPE)
        while b'"executing"' not in self.rig.read_line(run.stdout, "progress"):
            pass
        daemon.kill()
        daemon.wait()
        self.assertIn(b'"completed"', run.stdout.read())
        self.assertEqual(run.wait(rig.PATIENCE_S), 0)

    def test_alone(self):
        self.assertIn("Completed", self.alone(self.front()))

    def refused(self, why, **kwargs):
        keys = kwargs.pop("keys", {})
        front = self.front(**kwargs)
        self.daemon(front, connected=False, **keys)
        self.last_error(why)
        out = self.alone(front, check=5, **keys)
        # Nobody got as far as a request.
        self.assertEqual(front.heads, [])
        return out

    def test_another_authority(self):
        out = self.refused("certificate not accepted", keys={"ca_file": self.authority.path("other-ca.pem")})
        self.assertIn("ca_file", out)

    def test_the_systems_authorities(self):
        self.refused("certificate not accepted", keys={"ca_file": ""})

    def test_expired(self):
        self.refused("certificate has expired", certificate="expired")

    def test_another_name(self):
        self.refused("certificate not accepted", certificate="wrong-name")


class Shown(TlsCase):
    def test_a_client_certificate(self):
        keys = {"client_cert": self.authority.path("client.pem"), "client_key": self.authority.path("client.key")}
        front = self.front(client_ca="ca.pem")
        self.assertIn("Completed", self.alone(front, **keys))
        self.daemon(front, **keys)
        self.assertEqual(self.rig.json("run", "wf.json")["status"], "completed")

    def test_none_where_one_is_wanted(self):
        front = self.front(client_ca="ca.pem")
        self.assertIn("client_cert", self.alone(front, check=5))
        self.daemon(front, connected=False)
        self.last_error("client_cert")

    def test_token_and_headers(self):
        keys = {"token_file": self.secret("token", TOKEN + "\n"),
                "header_file": self.secret("headers", "# ours\nX-Key: %s\n" % HEADER)}
        front = self.front(headers=("Authorization: Bearer " + TOKEN, "X-Key: " + HEADER))
        self.assertIn("Completed", self.alone(front, **keys))
        self.daemon(front, **keys)
        self.assertEqual(self.rig.json("run", "wf.json")["status"], "completed")
        for path in ("POST /prompt", "GET /ws?"):
            self.assertTrue(any(h.startswith(path) and TOKEN in h and HEADER in h for h in front.heads), path)

    def test_without_the_token(self):
        front = self.front(headers=("Authorization: Bearer " + TOKEN,))
        out = self.alone(front, check=None)
        self.assertIn("401", out)
        self.assertIn("token_file", out)
        self.daemon(front, connected=False)
        self.assertIn("401", self.last_error("token_file"))

    def test_a_wrong_token(self):
        front = self.front(headers=("Authorization: Bearer " + TOKEN,))
        self.daemon(front, connected=False, token_file=self.secret("token", "sekrit-wrong"))
        self.assertIn("401", self.last_error("token_file"))
        done = self.rig.run("run", "wf.json")
        self.assertNotEqual(done.returncode, 0)
        for text in (done.stdout, done.stderr, self.rig.log_of("comfymuxd")):
            self.assertNotIn("sekrit-wrong", text)

    def test_a_token_that_others_may_read(self):
        front = self.front()
        out = self.alone(front, check=None, token_file=self.secret("token", TOKEN, 0o644))
        self.assertIn("chmod 600", out)
        self.assertNotIn(TOKEN, out)
        self.assertEqual(front.heads, [])
        daemon = self.rig.start("comfymuxd", "--socket", self.rig.socket, "--state-dir", self.rig.state,
                                "--comfyui", front.url, "--config", "conf")
        self.assertNotEqual(daemon.wait(rig.PATIENCE_S), 0)
        self.assertIn("chmod 600", self.rig.log_of("comfymuxd"))

    def test_a_redirect_gets_nothing(self):
        other = self.front(tls=False)
        keys = {"token_file": self.secret("token", TOKEN)}
        front = self.front(redirect=other.url + "/")
        self.alone(front, check=None, **keys)
        self.daemon(front, connected=False, **keys)
        self.last_error("302")
        self.rig.run("run", "wf.json", "--timeout", "5")
        self.assertEqual(other.heads, [])


class Secret(TlsCase):
    def visible(self, pids):
        """Whatever anybody could find, as {where: bytes}. Of what ends
        meanwhile nobody finds anything."""
        found = {}
        for pid in pids:
            for name in ("cmdline", "environ", "status"):
                try:
                    with open("/proc/%d/%s" % (pid, name), "rb") as f:
                        found["%d %s" % (pid, name)] = f.read()
                except (FileNotFoundError, ProcessLookupError):
                    continue
        for path in glob.glob(self.rig.dir + "/**", recursive=True):
            name = os.path.basename(path)
            if os.path.isfile(path) and name not in ("token", "headers"):
                with open(path, "rb") as f:
                    found[path] = f.read()
        return found

    def test_nowhere(self):
        keys = {"token_file": self.secret("token", TOKEN),
                "header_file": self.secret("headers", "X-Key: %s\n" % HEADER), "log_level": "debug"}
        # Refused at first, taken later: both leave words in the log.
        front = self.front(headers=("X-No: such",))
        daemon = self.daemon(front, connected=False, **keys)
        self.last_error("401")
        front.want = ()
        self.rig.run("reconnect", check=0)
        wait_for(lambda: self.rig.status()["upstream"]["state"] == "connected", "the link")
        run = self.rig.start("comfymux", "run", "wf.json", "--json", "--socket", self.rig.socket,
                             stdout=open(self.rig.path("out"), "wb"))
        self.assertEqual(run.wait(rig.PATIENCE_S), 0)
        from proclib import descendants
        found = self.visible([daemon.pid] + descendants(daemon.pid))
        self.assertTrue(found["%d environ" % daemon.pid])
        for command in (("status", "--json"), ("status",), ("queue",), ("history",)):
            done = self.rig.run(*command, check=0)
            found[" ".join(command)] = (done.stdout + done.stderr).encode()
        for where, text in found.items():
            self.assertNotIn(TOKEN.encode(), text, where)
            self.assertNotIn(HEADER.encode(), text, where)
        self.assertTrue(any(TOKEN in h for h in front.heads))


if __name__ == "__main__":
    unittest.main()

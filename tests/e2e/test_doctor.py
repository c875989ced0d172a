"""`comfymux doctor`: each thing that can be wrong is found, with what to do, and
the exit status tells the worst."""
import json
import os
import socket
import threading
import unittest

import rig


class Doctor(unittest.TestCase):
    def setUp(self):
        self.rig = rig.Rig()
        self.addCleanup(self.rig.close)
        self.rig.start_sim()

    def doctor(self, *args, status, **kwargs):
        kwargs.setdefault("comfyui", True)
        done = self.rig.run("doctor", "--json", *args, check=status, **kwargs)
        found = [json.loads(line) for line in done.stdout.splitlines()]
        for f in found:
            self.assertEqual("advice" in f, f["verdict"] != "ok", f)
        return {f["check"]: f for f in found}

    def test_all_is_well(self):
        self.rig.start_daemon()
        found = self.doctor(status=0)
        self.assertEqual({f["verdict"] for f in found.values()}, {"ok"}, found)
        for check in ("configuration", "programs", "state", "limits", "supervisor", "link", "http", "websocket"):
            self.assertIn(check, found)
        text = self.rig.run("doctor", comfyui=True, check=0).stdout
        self.assertIn("0 to look at, 0 failed", text)
        # A look changes nothing: no second link, nothing submitted.
        self.assertEqual(self.rig.status()["upstream"]["state"], "connected")
        self.assertEqual([e for e in self.rig.journal() if e["fact"] == "post"], [])

    def test_no_supervisor(self):
        found = self.doctor(status=0)
        self.assertEqual(found["supervisor"]["verdict"], "warn")
        self.assertEqual(found["http"]["verdict"], "ok")

    def test_no_comfyui(self):
        found = self.doctor("--comfyui", "http://127.0.0.1:%d" % rig.refusing_port(), status=5, comfyui=False)
        self.assertEqual(found["http"]["verdict"], "fail")
        self.assertIn("--listen", found["http"]["advice"])
        self.assertNotIn("websocket", found)

    def test_a_configuration_that_is_wrong(self):
        conf = self.rig.write("conf", "ping_interval_s = often\n")
        found = self.doctor("--config", conf, status=2)
        self.assertIn("ping_interval_s", found["configuration"]["text"])
        self.rig.run("doctor", "--colour", check=2)

    def test_another_comfyui_than_the_supervisors(self):
        self.rig.start_daemon()
        found = self.doctor("--comfyui", "http://127.0.0.1:%d" % rig.refusing_port(), status=5, comfyui=False)
        self.assertIn("poll on their own", found["link"]["text"])

    def test_a_socket_that_is_not_ours(self):
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(self.rig.socket)
        listener.listen()

        def answer():
            s, _ = listener.accept()
            s.recv(4096)
            s.sendall(b"220 mail\r\n250 hello\r\n")
            s.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        self.assertEqual(self.doctor(status=1)["supervisor"]["verdict"], "fail")
        thread.join(rig.PATIENCE_S)

    def test_something_else_than_comfyui(self):
        server = socket.socket()
        self.addCleanup(server.close)
        server.bind(("127.0.0.1", 0))
        server.listen()

        def serve():
            for _ in range(2):
                try:
                    s, _ = server.accept()
                except OSError:
                    return
                if b"/ws" in s.recv(4096):
                    s.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                else:
                    s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
                s.close()

        threading.Thread(target=serve, daemon=True).start()
        found = self.doctor("--comfyui", "http://127.0.0.1:%d" % server.getsockname()[1], status=1, comfyui=False)
        self.assertIn("not ComfyUI", found["http"]["text"])
        self.assertIn("Upgrade", found["websocket"]["advice"])

    def test_a_state_directory_open_to_others(self):
        os.mkdir(self.rig.state)
        os.chmod(self.rig.state, 0o755)
        found = self.doctor("--state-dir", self.rig.state, status=0)
        self.assertEqual(found["state"]["verdict"], "warn")


if __name__ == "__main__":
    unittest.main()

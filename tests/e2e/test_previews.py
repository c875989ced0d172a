"""Previews on the socket: who gets them, what they are, what a client that is
slow, silent or gone costs the supervisor."""

import fcntl
import mmap
import os
import select
import socket
import time

import muxlib
from muxlib import PATIENCE
from proclib import descriptors
from simlib import BINARY, sampler

F_GET_SEALS, ALL_SEALS = 1034, 0x0F  # seal, shrink, grow, write
FDS_MAX = 8
UNREAD_MAX = 8  # PREVIEW_UNREAD_MAX
PACED_MAX = 4  # PREVIEW_PACED_MAX
USER_MAX = 16  # PREVIEWS_USER_MAX


class Client(muxlib.Client):
    """Takes descriptors too; those of previews are in `images`, by the event's
    place in `events`."""

    def __init__(self, *args, **kw):
        self.fds = []
        self.images = {}
        super().__init__(*args, **kw)

    def read_line(self, timeout=PATIENCE):
        until = time.monotonic() + timeout
        while b"\n" not in self.rest:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError("no line came")
            if not select.select([self.sock], [], [], left)[0]:
                continue
            data, fds, flags, _ = socket.recv_fds(self.sock, 1 << 20, FDS_MAX)
            assert not flags & socket.MSG_CTRUNC
            if fds:
                # On the first byte of its line, one a line: the kernel ends
                # what it gives at once behind each.
                assert len(fds) == 1 and data.count(b'"fds":1') <= 1, (fds, data)
                assert data.splitlines()[-1].startswith(b'{"event":"preview"'), data
            self.fds += fds
            if not data:
                self.closed = True
                return None
            self.rest += data
        line, _, self.rest = self.rest.partition(b"\n")
        return line

    def pump(self, timeout=PATIENCE):
        before = len(self.events)
        if not super().pump(timeout):
            return False
        if len(self.events) > before and self.events[-1].get("fds"):
            assert self.events[-1]["fds"] == 1
            self.images[before] = self.fds.pop(0)
        return True

    def previews(self):
        """(event, bytes) of all that came, their descriptors closed."""
        found = []
        for i, e in enumerate(self.events):
            if i in self.images:
                fd = self.images.pop(i)
                found.append((e, os.pread(fd, 1 << 24, 0)))
                os.close(fd)
        return found

    def close(self):
        for fd in [*self.fds, *self.images.values()]:
            os.close(fd)
        self.fds, self.images = [], {}
        super().close()


class PreviewCase(muxlib.Case):
    def setUp(self):
        self.sim_, self.d = self.pair(config=getattr(self, "config", None),
                                      wrapper=getattr(self, "wrapper", ()))

    def client(self, **kw):
        c = Client(self.d.socket, **kw)
        self.addCleanup(c.close)
        return c

    def files(self):
        """Preview files that the supervisor has open."""
        return sum("comfymux-preview" in name for name in descriptors(self.daemon_pid()).values())

    def daemon_pid(self):
        return self.client_of_state().hello["pid"]

    def client_of_state(self):
        if not hasattr(self, "state"):
            self.state = self.client()
        return self.state

    def counters(self):
        return self.client_of_state().ask("status")["counters"]

    def no_files(self):
        self.d.until(lambda: self.files() == 0, "preview files to be closed")

    def frames(self, **kw):
        """The pictures that ComfyUI makes of it, as a client of its own sees
        them. They don't depend on the seed, what is cached does."""
        ws = self.sim_.ws("recorder")
        ws.negotiate()
        self.sim_.post(pictures(seed=99, **kw), client_id="recorder")
        ws.wait_type("execution_success")
        frames = [e.payload for e in ws.events if e.opcode == BINARY and e.code == 4]
        ws.close()
        return [f[8 + int.from_bytes(f[4:8], "big"):] for f in frames]


def pictures(steps=6, step_ms=40, size=20000, **more):
    return sampler(steps=steps, step_ms=step_ms, previews=steps, preview_bytes=size, **more)


class Previews(PreviewCase):
    def test_those_who_ask(self):
        """The pictures, byte for byte, in sealed files, the last one for
        certain; nothing is left behind. Who doesn't ask gets none."""
        workflow = pictures()
        expected = self.frames()
        self.assertEqual(len(expected), 6)
        c, plain = self.client(), self.client()
        plain.ask("subscribe")
        r = c.ask("submit", workflow=workflow, subscribe=True, previews=True)
        id_ = r["prompt_id"]
        got = []
        # The last may come with the answer to an acknowledgement.
        while c.images or not any(e["event"] == "finished" for e in c.events):
            if not c.images:
                c.pump()
            for i in list(c.images):
                e, fd = c.events[i], c.images.pop(i)
                self.assertEqual(fcntl.fcntl(fd, F_GET_SEALS), ALL_SEALS)
                for attempt in (lambda fd=fd: os.write(fd, b"x"),
                                lambda fd=fd: os.ftruncate(fd, 1),
                                lambda fd=fd: mmap.mmap(fd, 0, mmap.MAP_SHARED)):
                    self.assertRaises(PermissionError, attempt)
                image = os.pread(fd, 1 << 24, 0)
                os.close(fd)
                self.assertEqual(e["prompt_id"], id_)
                self.assertNotIn("progress", e)
                self.assertEqual(e["data"], {"node_id": "1", "display_node_id": "1",
                                             "mime": "image/jpeg", "bytes": len(image)})
                got.append(image)
                c.ask("preview_ack")
        # One that came before the reply, or while another was open, may be
        # left out.
        left = iter(expected)
        self.assertTrue(all(image in left for image in got))
        self.assertEqual(got[-1], expected[-1])
        plain.finished(id_)
        self.assertNotIn("preview", plain.names(id_))
        counters = self.counters()
        made = counters["previews"]
        self.assertLessEqual(made, 6)
        self.assertEqual((counters["previews_sent"], counters["previews_folded"],
                          counters["previews_dropped"]), (len(got), made - len(got), 0))
        c.ask("ping")
        self.no_files()

    def test_seq_goes_on(self):
        """A preview is not counted: no number is missing for it. It has that of
        the event before it, when it was made."""
        c = self.client()
        id_ = c.ask("submit", workflow=pictures(), subscribe=True, previews=True)["prompt_id"]
        c.finished(id_)
        seq = 0
        for e in c.events:
            if e["event"] == "preview":
                self.assertLessEqual(e["seq"], seq)
                continue
            if e["event"] != "snapshot":
                self.assertEqual(e["seq"], seq + 1)
            seq = e["seq"]

    def test_nobody_asks(self):
        c = self.client()
        id_ = c.ask("submit", workflow=pictures(), subscribe=True)["prompt_id"]
        c.finished(id_)
        counters = self.counters()
        self.assertEqual(counters["previews"], 0)
        self.assertEqual(counters["previews_dropped"], 0)
        self.assertEqual(counters["events"]["preview_meta"], 6)

    def test_latest_wins(self):
        """Who never acknowledges gets one, and at the end the last; one that
        does then has the latest."""
        workflow = pictures(steps=20, step_ms=10)
        expected = self.frames(steps=20, step_ms=10)
        c = self.client()
        id_ = c.ask("submit", workflow=workflow, subscribe=True, previews=True)["prompt_id"]
        c.finished(id_)
        first, last = (image for _, image in c.previews())
        self.assertIn(first, expected[:-1])
        self.assertEqual(last, expected[-1])
        names = c.names(id_)
        self.assertEqual(names.index("finished"), len(names) - 1)
        counters = self.counters()
        self.assertEqual(counters["previews_folded"], counters["previews"] - 2)
        # Both are open still.
        again = c.ask("submit", workflow=pictures(seed=2, steps=100000, step_ms=100),
                      subscribe=True, previews=True)["prompt_id"]
        c.event("progress", again)
        c.ask("preview_ack")
        c.ask("preview_ack")
        c.wait(lambda e: e["event"] == "preview" and e["prompt_id"] == again)
        c.ask("cancel", prompt_id=again)

    def test_latest_after_ack(self):
        c = self.client()
        id_ = c.ask("submit", workflow=pictures(steps=100000, step_ms=5), subscribe=True,
                    previews=True)["prompt_id"]
        first = c.event("preview", id_)
        self.d.until(lambda: self.counters()["previews_folded"] > 5, "folded previews")
        made = self.counters()["previews"]
        mark = len(c.events)
        c.ask("preview_ack")
        c.event("preview", id_, start=mark)
        (a, one), (b, other) = c.previews()
        self.assertIs(a, first)
        self.assertNotEqual(one, other)
        self.assertGreaterEqual(b["seq"], a["seq"] + made - 1)
        c.ask("cancel", prompt_id=id_)

    def test_all_prompts(self):
        """A subscription to all brings them too; one more to the prompt doesn't
        double them, and takes nothing away."""
        c = self.client()
        c.ask("subscribe", previews=True)
        id_ = c.ask("submit", workflow=pictures(), subscribe=True)["prompt_id"]
        while not any(e["event"] == "finished" for e in c.events):
            c.pump()
            if c.previews():
                c.ask("preview_ack")
        counters = self.counters()
        self.assertEqual(c.names(id_).count("preview"), counters["previews_sent"])
        self.assertEqual(counters["previews_sent"] + counters["previews_folded"] + counters["previews_dropped"], 6)

    def test_no_more(self):
        """After unsubscribe, or previews false, none comes, not even the one
        that waited."""
        c = self.client()
        id_ = c.ask("submit", workflow=pictures(steps=100000, step_ms=5), subscribe=True,
                    previews=True)["prompt_id"]
        for end in ({"op": "subscribe", "previews": False}, {"op": "unsubscribe"}):
            c.ask("subscribe", prompt_id=id_, previews=True)
            c.ask("preview_ack")
            mark = len(c.events)
            c.event("preview", id_, start=mark)
            folded = self.counters()["previews_folded"]
            self.d.until(lambda n=folded: self.counters()["previews_folded"] > n, "folding")
            c.ask(prompt_id=id_, **end)
            mark = len(c.events)
            c.ask("preview_ack")
            c.ask("ping")
            time_ = self.counters()["events"]["preview_meta"] + 5
            self.d.until(lambda n=time_: self.counters()["events"]["preview_meta"] > n, "more")
            c.ask("ping")
            self.assertNotIn("preview", [e["event"] for e in c.events[mark:]])
        c.previews()
        c.ask("cancel", prompt_id=id_)
        self.no_files()

    def test_without_metadata(self):
        """Frames that don't say whose they are go nowhere, and are counted:
        the web page's prompt, and an old server's."""
        c = self.client()
        c.ask("subscribe", previews=True)
        self.sim_.wait_history(self.sim_.post(pictures()).json()["prompt_id"])
        self.d.until(lambda: self.counters()["previews_dropped"] == 6, "dropped previews")
        self.assertEqual(c.events, [])

    def test_gone(self):
        """A client that dies with previews unread leaves none open."""
        c = self.client()
        running = c.ask("submit", workflow=pictures(steps=100000, step_ms=5),
                        subscribe=True)["prompt_id"]
        for _ in range(5):
            dead = self.client()
            dead.ask("subscribe", prompt_id=running, previews=True)
            dead.event("preview", running)
            folded = self.counters()["previews_folded"]
            self.d.until(lambda n=folded: self.counters()["previews_folded"] > n, "folding")
            dead.close()
        c.ask("cancel", prompt_id=running)
        c.finished(running)
        self.no_files()

    def test_acks_without_reading(self):
        """Whoever acknowledges and doesn't read has a few in its socket, and no
        more are kept for it."""
        c = self.client()
        running = c.ask("submit", workflow=pictures(steps=100000, step_ms=2),
                        subscribe=True)["prompt_id"]
        mute = self.client()
        mute.ask("subscribe", prompt_id=running, previews=True)
        for _ in range(50):
            before = self.counters()["previews"]
            mute.request("preview_ack")
            self.d.until(lambda n=before: self.counters()["previews"] > n, "a preview")
        # Those, the latest, and for a moment the one that takes its place.
        self.assertLessEqual(self.files(), PACED_MAX + 2)
        # Still served, once it reads: those, and the latest.
        mute.wait(lambda e: len(mute.images) > PACED_MAX, "previews")
        c.ask("cancel", prompt_id=running)

    def test_the_last_of_one_who_is_behind(self):
        """There is room for it, though no more of the others went there."""
        sim, d = self.sim_, self.d
        c, mute = self.client(), self.client()
        sim.fault("pause", steps=2)
        running = c.ask("submit", workflow=pictures(steps=40, step_ms=2))["prompt_id"]
        mute.ask("subscribe", prompt_id=running, previews=True)
        for _ in range(PACED_MAX + 2):
            before = self.counters()["previews"]
            mute.request("preview_ack")
            sim.fault("pause", steps=2)
            d.until(lambda n=before: self.counters()["previews"] > n, "a preview")
        d.until(lambda: self.files() == PACED_MAX + 1, "the most of them to lie there")
        sim.fault("resume")
        d.until(lambda: d.status()["prompts"]["retained"] == 1, "the end")
        mute.finished(running)
        self.assertEqual(mute.previews()[-1][1], self.frames(steps=40, step_ms=2)[-1])
        self.assertEqual(self.counters()["previews_dropped"], 0)


class Cap(PreviewCase):
    """With few descriptors few files are open at once, whoever keeps them."""

    config = {"max_clients": 32, "operator_reserve": 1}
    wrapper = ("prlimit", "--nofile=128:128")
    OPEN_MAX = 128 // 8  # PREVIEWS_FDS_SHARE

    def test_edge(self):
        c = self.client()
        running = c.ask("submit", workflow=pictures(steps=100000, step_ms=2),
                        subscribe=True)["prompt_id"]
        mute = []
        for _ in range(5):
            one = self.client()
            one.ask("subscribe", prompt_id=running, previews=True)
            mute.append(one)
            for _ in range(UNREAD_MAX + 1):
                one.request("preview_ack")
                before = self.counters()
                self.d.until(lambda b=before: any(self.counters()[k] > b[k] for k in
                                                  ("previews", "previews_dropped")), "a preview")
                self.assertLessEqual(self.files(), self.OPEN_MAX)
        self.d.until(lambda: self.counters()["previews_dropped"] > 0, "dropped previews")
        # Everybody else is served as before, and the next who reads as well.
        self.client().ask("ping")
        for one in mute:
            one.close()
        reader = self.client()
        reader.ask("subscribe", prompt_id=running, previews=True)
        reader.event("preview", running)
        reader.close()
        c.ask("cancel", prompt_id=running)
        c.finished(running)
        self.no_files()


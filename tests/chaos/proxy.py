"""A TCP proxy between comfymuxd or workers and comfysim, for what only a network
does: connections that are cut, that fall silent, that are slow, refused.

    p = Proxy(port_of_comfysim)
    p.cut(); p.half_open(linger_s=1.5); p.freeze(True); p.delay(0.05)
    p.heal()

A half-open connection never comes back: bytes vanish both ways, and the server
keeps its side until linger_s after the client has closed its own. A frozen one
goes on where it was. An asyncio loop in a thread of its own.
"""
import asyncio
import socket
import struct
import threading

CHUNK = 65536
BACKLOG = 512


class Pair:
    """One connection: the client's side and the server's."""

    def __init__(self):
        self.dead = False  # half-open: nothing passes any more
        self.linger_s = 0.0
        self.writers = []

    def reset(self, hard):
        for writer in self.writers:
            if hard:
                sock = writer.get_extra_info("socket")
                if sock is not None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Proxy:
    def __init__(self, target_port):
        self.target_port = target_port
        self.pairs = set()
        self.delay_s = 0.0
        self.accepted = 0
        self.bytes = 0  # passed on, both ways
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.port = 0
        self.server = None
        self.call(self._open())

    def call(self, coroutine):
        """Runs it in the loop; its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    # --- inside the loop ---

    async def _open(self):
        self.going = asyncio.Event()
        self.going.set()
        await self._listen()

    async def _listen(self):
        if self.server is None:
            self.server = await asyncio.start_server(
                self._accepted, "127.0.0.1", self.port, backlog=BACKLOG)
            self.port = self.server.sockets[0].getsockname()[1]

    async def _refuse(self):
        if self.server is not None:
            self.server.close()
            self.server = None

    async def _accepted(self, reader, writer):
        self.accepted += 1
        pair = Pair()
        pair.writers.append(writer)
        self.pairs.add(pair)
        try:
            await self.going.wait()
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
            pair.writers.append(up_writer)
            await asyncio.gather(self._pump(pair, reader, up_writer, True),
                                 self._pump(pair, up_reader, writer, False))
        except OSError:
            pass  # the server is down, or either side went away
        finally:
            self.pairs.discard(pair)
            pair.reset(False)

    async def _pump(self, pair, reader, writer, from_client):
        while True:
            try:
                data = await reader.read(CHUNK)
            except OSError:
                data = b""
            if not data and pair.dead and from_client:
                await asyncio.sleep(pair.linger_s)
            if not data and pair.dead and not from_client:
                return  # the server's end is not heard of
            if not data:
                break
            await self.going.wait()
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if pair.dead:
                continue
            self.bytes += len(data)
            writer.write(data)
            await writer.drain()
        try:
            writer.write_eof()
        except (OSError, RuntimeError):
            pass  # closed already
        if from_client:
            pair.reset(False)

    async def _cut(self, hard):
        pairs = list(self.pairs)
        for pair in pairs:
            pair.reset(hard)
        return len(pairs)

    async def _half_open(self, linger_s):
        pairs = list(self.pairs)
        for pair in pairs:
            pair.dead, pair.linger_s = True, linger_s
        return len(pairs)

    async def _freeze(self, on):
        if on:
            self.going.clear()
        else:
            self.going.set()

    # --- faults ---

    def cut(self, hard=False):
        """Ends all connections, by RST if hard; how many."""
        return self.call(self._cut(hard))

    def half_open(self, linger_s=0.0):
        """All connections there are; how many."""
        return self.call(self._half_open(linger_s))

    def freeze(self, on):
        """Nothing passes, nothing is lost, until it is off again."""
        self.call(self._freeze(on))

    def delay(self, seconds):
        """Each piece of each direction takes that much longer."""
        self.delay_s = seconds

    def refuse(self, on):
        self.call(self._refuse() if on else self._listen())

    def heal(self):
        self.delay(0.0)
        self.freeze(False)
        self.refuse(False)

    def close(self):
        self.call(self._refuse())
        self.cut()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

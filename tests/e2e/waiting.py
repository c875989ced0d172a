"""How all tests wait for a condition."""
import time


def attempts(patience):
    """Yields until `patience` seconds are over: at once, then ever less often,
    so that whoever waits is a tenth late at most and leaves the machine to
    others."""
    since = time.monotonic()
    while True:
        yield
        waited = time.monotonic() - since
        if waited > patience:
            return
        time.sleep(min(max(waited / 10, 0.005), 0.1))

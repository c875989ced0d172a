"""proclib.py - what /proc says of processes: whose they are, whether they live."""
import os
import signal


def stat_of(pid):
    """Fields of /proc/PID/stat from the third on; None if there is none."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()
    except OSError:
        return None


def parent_of(pid):
    stat = stat_of(pid)
    return int(stat[1]) if stat else None


def is_running(pid):
    """One that has ended isn't, whether or not somebody has reaped it."""
    stat = stat_of(pid)
    return stat is not None and stat[0] != "Z"


def end(pid):
    """SIGKILL; False if it was gone before."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def name_of(pid):
    try:
        with open("/proc/%d/comm" % pid) as f:
            return f.read().strip()
    except OSError:
        return None


def descriptors(pid):
    """{number: what it is}; those that are closed meanwhile are left out."""
    folder = "/proc/%d/fd" % pid
    found = {}
    for fd in os.listdir(folder):
        try:
            found[int(fd)] = os.readlink(os.path.join(folder, fd))
        except FileNotFoundError:
            pass
    return found


def descendants(pid):
    """All living processes below it, zombies left out."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and is_running(int(entry)):
            parents.setdefault(parent_of(int(entry)), []).append(int(entry))
    found, todo = [], [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def children_of(pid):
    """Zombies among them."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and parent_of(int(entry)) == pid]

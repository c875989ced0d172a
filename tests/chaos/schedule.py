"""Which fault comes when: nothing but a function of the seed, so that a failing
run can be had again. A fault is told by name and arguments; world.py knows how
each is done. `pick` is a number in [0, 1) by which a target is chosen among
those that there are at that moment.
"""
import random

FAULT_SIGNALS = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL")

# name: (weight, arguments). Times in seconds.
KINDS = {
    "worker_kill": (10, lambda r: {"pick": r.random()}),
    "workers_kill": (2, lambda r: {"share": r.uniform(0.3, 1.0)}),
    "worker_fault": (4, lambda r: {"pick": r.random(), "signal": r.choice(FAULT_SIGNALS)}),
    "worker_stop": (3, lambda r: {"pick": r.random(), "for_s": r.uniform(0.2, 3.0)}),
    "restart_workers": (2, lambda r: {}),
    "zygote_kill": (2, lambda r: {}),
    "zygote_stop": (1, lambda r: {"for_s": r.uniform(0.2, 3.0)}),
    "supervisor_kill": (5, lambda r: {"away_s": r.choice((0.0, r.uniform(0.1, 1.5), r.uniform(2.0, 6.0)))}),
    "supervisor_stop": (2, lambda r: {"for_s": r.uniform(0.2, 4.0)}),
    "supervisor_usr2": (2, lambda r: {"away_s": r.uniform(0.0, 2.0)}),
    "supervisor_term": (1, lambda r: {"away_s": r.uniform(0.0, 2.0)}),
    "sim_kill": (1, lambda r: {"away_s": r.uniform(0.0, 3.0)}),
    "sim_restart": (1, lambda r: {"away_s": r.uniform(0.0, 2.0)}),
    "sim_stop": (2, lambda r: {"for_s": r.uniform(0.2, 4.0)}),
    "sim_pause": (1, lambda r: {"for_s": r.uniform(0.2, 2.0)}),
    "sim_deaf": (3, lambda r: {"after_s": r.choice((0.0, r.uniform(0.1, 1.0)))}),
    "sim_silent": (2, lambda r: {"for_s": r.uniform(0.2, 3.0)}),
    "sim_garbage": (1, lambda r: {}),
    "sim_drop": (3, lambda r: {"how": r.choice(("fin", "rst"))}),
    "post_cut": (4, lambda r: {"count": r.randint(1, 3), "how": r.choice(("fin", "rst"))}),
    "post_status": (2, lambda r: {"count": r.randint(1, 3), "code": r.choice((502, 503, 504))}),
    "reply_truncate": (2, lambda r: {"count": r.randint(1, 3), "path": r.choice(("/history", "/queue", "/prompt"))}),
    "reply_delay": (2, lambda r: {"for_s": r.uniform(0.5, 4.0), "ms": r.randint(50, 1500)}),
    "net_cut": (4, lambda r: {"hard": r.random() < 0.5}),
    "net_half_open": (2, lambda r: {"linger_s": r.uniform(0.0, 3.0)}),
    "net_freeze": (2, lambda r: {"for_s": r.uniform(0.2, 4.0)}),
    "net_delay": (2, lambda r: {"for_s": r.uniform(1.0, 5.0), "ms": r.randint(5, 80)}),
    "net_refuse": (2, lambda r: {"for_s": r.uniform(0.2, 4.0)}),
    "stranger_interrupt": (2, lambda r: {}),
    "stranger_delete": (1, lambda r: {"pick": r.random()}),
    "stranger_clear": (1, lambda r: {}),
}
# What leaves the supervisor alive, for comparing it with itself.
GENTLE = [k for k in KINDS if not k.startswith("supervisor_") or k == "supervisor_stop"]


def make(seed, seconds, gap_s=0.8, only=None):
    """[(at_s, name, arguments)] in the order of time."""
    rng = random.Random("schedule %s" % seed)
    names = [k for k in KINDS if only is None or k in only]
    weights = [KINDS[k][0] for k in names]
    found, at = [], 0.0
    while True:
        # Faults come in bursts: the next one often hits what the last one
        # has left half-way.
        at += rng.expovariate(1 / gap_s) if rng.random() < 0.7 else rng.uniform(0.0, 0.05)
        if at >= seconds or not names:
            return found
        name = rng.choices(names, weights)[0]
        found.append((at, name, KINDS[name][1](rng)))

"""Whether what was told is true: requests of the book against comfysim's
journal. judge(book, journal) gives a list of problems, and counts.

The journal file spans several lives of comfysim; world.py writes a fact
"killed" between two of them.
"""
import collections
import json

from load import SIM_ERROR


class Prompt:
    """What the journal says of one workflow, by its marker."""

    def __init__(self):
        self.posts = []  # (position, prompt_id) of those that were queued
        self.refused = 0
        self.starts = []  # positions
        self.ends = []  # (position, verdict)
        self.deleted = []
        self.interrupts = []


class Journal:
    def __init__(self, text):
        self.prompts = collections.defaultdict(Prompt)
        self.by_id = {}
        self.forgot = []
        self.torn = 0
        waiting = set()  # queued, not started: what `cleared` concerns
        for at, line in enumerate(text.split("\n")):
            if line:
                self.take(at, line, waiting)

    def take(self, at, line, waiting):
        try:
            fact = json.loads(line)
        except ValueError:
            self.torn += 1  # the last word of a life that was killed
            return
        what, prompt_id = fact["fact"], fact.get("prompt_id")
        if what == "post":
            self.take_post(at, fact, waiting)
        elif what in ("forgot", "killed"):
            self.forgot.append(at)
            waiting.clear()
        elif what == "cleared":
            for one in waiting:
                self.prompts[self.by_id[one]].deleted.append(at)
            waiting.clear()
        elif prompt_id in self.by_id:
            p = self.prompts[self.by_id[prompt_id]]
            waiting.discard(prompt_id)
            if what == "start":
                p.starts.append(at)
            elif what == "end":
                p.ends.append((at, fact["verdict"]))
            elif what == "deleted":
                p.deleted.append(at)
            elif what == "interrupt":
                p.interrupts.append(at)

    def take_post(self, at, fact, waiting):
        marker = next((n["inputs"]["filename_prefix"] for n in fact["workflow"].values()
                       if n["class_type"] == "SaveImage"), None)
        p = self.prompts[marker]
        if fact["result"] == "queued":
            p.posts.append((at, fact["prompt_id"]))
            self.by_id[fact["prompt_id"]] = marker
            waiting.add(fact["prompt_id"])
        elif fact["result"] == "refused":
            p.refused += 1

    def forgotten_after(self, at):
        return any(f > at for f in self.forgot)

    def forgotten_between(self, a, b):
        return any(a < f < b for f in self.forgot)


class Judge:
    def __init__(self, journal, crashes_sent, shared):
        self.shared = shared  # the supervisor serves several users
        self.journal = journal
        self.crashes_sent = crashes_sent  # fault signals that we sent to workers
        self.counts = collections.Counter()
        self.problems = []  # (text, request or None)
        self.resubmitted = set()  # markers of what is submitted anew when it was lost

    def wrong(self, text, request=None):
        self.problems.append((text, request))

    # --- the journal by itself ---

    def look_at_prompts(self):
        for marker, p in self.journal.prompts.items():
            if len(p.posts) > 1:
                self.look_at_reposts(marker, p)
            if len(p.starts) > len(p.posts):
                self.wrong("%s was started %d times for %d posts" % (marker, len(p.starts), len(p.posts)))
            if len({prompt_id for _, prompt_id in p.posts}) > 1 and marker not in self.resubmitted:
                self.wrong("%s has several prompt ids: %s" % (marker, p.posts))

    def look_at_reposts(self, marker, p):
        for (a, _), (b, _) in zip(p.posts, p.posts[1:]):
            if self.journal.forgotten_between(a, b):
                # Whoever never heard the answer to a POST looks it up; a
                # ComfyUI that has forgotten everything gets it again.
                self.counts["posted again to a ComfyUI that had forgotten it"] += 1
            elif any(a < d < b for d in p.deleted):
                self.counts["posted again, unheard and deleted by others before"] += 1
            else:
                self.wrong("%s was given to ComfyUI twice" % marker)

    # --- requests ---

    def look_at(self, q):
        for text in q.problems:
            self.wrong(text, q)
        if not q.answers:
            if q.kind == "give_up" and q.cancelled:
                self.counts["given up, not answered"] += 1
            else:
                self.wrong("never answered", q)
            return
        if len(q.answers) > 1:
            self.wrong("answered %d times" % len(q.answers), q)
        self.counts["answered: " + q.kind] += 1
        if q.marker is None or q.outcome.get("status") == "submitted":
            return
        self.look_at_outcome(q, q.outcome)

    def look_at_outcome(self, q, o):
        p = self.journal.prompts.get(q.marker, Prompt())
        status, kind = o.get("status"), o.get("type")
        verdicts = [v for _, v in p.ends]
        last_post = p.posts[-1][0] if p.posts else -1
        self.counts["outcome: %s" % (kind or status)] += 1
        if q.kind == "submit" and status is None and o["exit"] == 5 and \
                "may have taken" in (o.get("message") or ""):
            # It asked again for a while, and doesn't claim that nothing was.
            self.counts["submit: supervisor gone before its reply"] += 1
            return
        if "exit" in o:
            self.look_at_exit(q, o)
        again = q.kind == "batch_item" and kind == "unreachable"  # never posted under that id
        if p.posts and o.get("prompt_id") and not again and o["prompt_id"] not in [i for _, i in p.posts]:
            self.wrong("told of prompt %s, but it was posted as %s" % (o.get("prompt_id"), p.posts), q)
        if status == "completed":
            if "success" not in verdicts:
                self.wrong("completed, says the answer; ComfyUI: %s" % verdicts, q)
            if q.marker not in json.dumps(o.get("outputs") or {}):
                self.wrong("completed without its outputs", q)
            if q.kind == "refused":
                self.wrong("completed, though it cannot run", q)
        elif status != "failed":
            self.wrong("neither completed nor failed: %s" % status, q)
        elif kind == "lost":
            if p.deleted:
                # Without the link a restart looks the same.
                self.counts["lost, in fact deleted"] += 1
            elif not self.journal.forgotten_after(last_post) or not p.posts:
                self.wrong("lost, says the answer; but ComfyUI has not forgotten it", q)
            elif verdicts:
                self.counts["lost after its end (%s)" % verdicts[-1]] += 1
        elif kind in ("rejected", "not_found") and q.kind == "chain_item" and self.journal.forgot:
            # A comfysim that was killed has none of its files any more, the
            # image that the step takes among them.
            self.counts["chain: the image was gone with comfysim"] += 1
        elif kind == "rejected":
            if not p.refused or p.posts:
                self.wrong("rejected, says the answer; ComfyUI took it", q)
        elif kind == "unreachable" and q.kind == "watch":
            self.counts["watch: neither supervisor nor ComfyUI could be asked"] += 1
        elif kind == "unreachable":
            if p.posts and not self.journal.forgotten_after(last_post):
                self.wrong("unreachable, says the answer; but ComfyUI took it", q)
        elif kind == SIM_ERROR:
            if "error" not in verdicts:
                self.wrong("failed, says the answer; ComfyUI: %s" % verdicts, q)
        elif kind == "interrupted":
            if "interrupted" not in verdicts:
                self.wrong("interrupted, says the answer; ComfyUI: %s" % verdicts, q)
        elif kind == "deleted":
            if not p.deleted:
                self.wrong("deleted, says the answer; ComfyUI: it was not", q)
        elif kind == "cancelled" and q.kind == "chain_item" and not p.posts and \
                "not started" in (o.get("message") or ""):
            self.counts["chain: a step after one that failed"] += 1
        elif kind == "cancelled":
            if not q.cancelled:
                self.wrong("cancelled, and nobody asked for it", q)
            elif "may still run" in (o.get("message") or ""):
                self.counts["cancelled, but the supervisor was away"] += 1
            elif "success" in verdicts and not p.interrupts and not p.deleted:
                self.wrong("cancelled, says the answer; ComfyUI completed it", q)
        elif kind == "not_found" and q.kind == "wait" and self.shared:
            # Posted while there was no supervisor; one for several users shows
            # only what it knows to be one's own.
            self.counts["posted past a supervisor of several users"] += 1
        elif kind == "not_found" and q.kind == "watch" and q.state is None:
            # A new process without a supervisor can't know what waits there.
            self.counts["watched what only the supervisor knows"] += 1
        elif kind == "internal" and "crashed the worker twice" in (o.get("message") or ""):
            self.counts["blamed for two crashes"] += 1
            if self.crashes_sent < 2:
                self.wrong("blamed without two crashes", q)
        else:
            self.wrong("an answer that should not be: %s: %s" % (kind, o.get("message")), q)

    def look_at_exit(self, q, o):
        if o["exit"] < 0:
            self.wrong("ended by signal %d" % -o["exit"], q)
            return
        expected = {"rejected": 4, "unreachable": 5, "cancelled": 3}.get(
            o.get("type"), 0 if o.get("status") == "completed" else 1)
        if q.kind == "submit" and o.get("status") in ("queued", "executing"):
            expected = 0
        if o["exit"] != expected:
            self.wrong("exit status %d, not %d" % (o["exit"], expected), q)


def judge(requests, journal_text, crashes_sent, shared):
    """(problems, counts)"""
    j = Judge(Journal(journal_text), crashes_sent, shared)
    j.resubmitted = {q.marker for q in requests if q.kind == "batch_item"}
    j.look_at_prompts()
    for q in requests:
        j.look_at(q)
    return j.problems, j.counts

/*
 * worker_proc.c - see worker_proc.h: one matrix.
 */
#include "supervisor/worker_proc.h"

#include "common/log.h"
#include "common/macros.h"
#include "supervisor/roles.h"

#define ARM      WORKER_DO_ARM
#define DISARM   WORKER_DO_DISARM
#define TERM     WORKER_DO_TERM
#define KILL     WORKER_DO_KILL
#define PARENT   WORKER_DO_PARENT
#define OBITUARY WORKER_DO_OBITUARY

struct step {
	enum worker_state to;
	unsigned actions;
};

/* clang-format off */
#define G WORKER_GONE
#define S WORKER_STARTING
#define R WORKER_READY
#define L WORKER_LEAVING
#define T WORKER_STOPPING
#define K WORKER_KILLED
/* Orders that come late (an attach of one that is to stop) change nothing: the
 * cell names its own state and does nothing. A worker that comes back from
 * leaving has lost its bus: it is ready when it has another. */
static const struct step matrix[WORKER_STATE_COUNT][WORKER_EVENT_COUNT] = {
/*        FORK       FAILED                 ATTACHED     LEAVE      RETURN     STOP             DEADLINE               EXITED */
[G] = { {S, ARM},  {G, 0},                {G, 0},      {G, 0},    {G, 0},    {G, 0},          {G, 0},                {G, 0} },
[S] = { {S, 0},    {G, DISARM|OBITUARY},  {R, DISARM}, {L, ARM},  {S, 0},    {T, ARM|TERM},   {K, ARM|KILL},         {G, DISARM|OBITUARY} },
[R] = { {R, 0},    {R, 0},                {R, 0},      {L, ARM},  {R, 0},    {T, ARM|TERM},   {R, 0},                {G, DISARM|OBITUARY} },
[L] = { {L, 0},    {G, DISARM|OBITUARY},  {L, 0},      {L, 0},    {S, ARM},  {T, ARM|TERM},   {T, ARM|TERM},         {G, DISARM|OBITUARY} },
[T] = { {T, 0},    {G, DISARM|OBITUARY},  {T, 0},      {T, 0},    {T, 0},    {T, 0},          {K, ARM|KILL},         {G, DISARM|OBITUARY} },
[K] = { {K, 0},    {G, DISARM|OBITUARY},  {K, 0},      {K, 0},    {K, 0},    {K, 0},          {K, ARM|KILL|PARENT},  {G, DISARM|OBITUARY} },
};
#undef G
#undef S
#undef R
#undef L
#undef T
#undef K
/* clang-format on */

static const char *const names[] = {
	[WORKER_GONE] = "gone",         [WORKER_STARTING] = "starting",
	[WORKER_READY] = "ready",       [WORKER_LEAVING] = "leaving",
	[WORKER_STOPPING] = "stopping", [WORKER_KILLED] = "killed",
};
STATIC_ASSERT_ARRAY_SIZE(names, WORKER_STATE_COUNT);

const char *worker_state_name(enum worker_state s)
{
	return names[s];
}

unsigned worker_proc_patience_ms(const struct worker_proc *w)
{
	const struct role_info *role = &roles[ROLE_WORKER];
	const unsigned patience_ms[] = {
		[WORKER_GONE] = 0,
		[WORKER_STARTING] = role->ready_ms,
		[WORKER_READY] = 0,
		[WORKER_LEAVING] = role->leave_ms,
		[WORKER_STOPPING] = role->term_ms,
		[WORKER_KILLED] = role->kill_ms,
	};

	STATIC_ASSERT_ARRAY_SIZE(patience_ms, WORKER_STATE_COUNT);
	return patience_ms[w->state];
}

/* Whether its end is our doing, and why: before the state changes. That its
 * session is over excuses nothing: its keeper may know of its death before we
 * do. */
static void judge(struct worker_proc *w, enum worker_event ev)
{
	switch (ev) {
	case WORKER_EV_FORK:
		if (w->state == WORKER_GONE) {
			w->unwanted = w->late = false;
			w->ready_ms = -1;
			w->pid = 0;
		}
		break;
	case WORKER_EV_STOP:
		w->unwanted = true;
		break;
	case WORKER_EV_DEADLINE:
		w->unwanted = true;
		w->late |= w->state == WORKER_STARTING;
		break;
	default:
		break;
	}
}

unsigned worker_proc_event(struct worker_proc *w, enum worker_event ev,
                           int64_t now_ms)
{
	const struct step *s = &matrix[w->state][ev];

	judge(w, ev);
	if (s->to == WORKER_READY && w->ready_ms < 0)
		w->ready_ms = now_ms;
	if (s->to != w->state)
		log_debug("nursery", "worker %s -> %s (generation=%llu pid=%d)",
		          names[w->state], names[s->to],
		          (unsigned long long)w->generation, (int)w->pid);
	w->state = s->to;
	return s->actions;
}

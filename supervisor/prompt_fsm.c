/*
 * prompt_fsm.c - see prompt_fsm.h.
 *
 * An event is refined by the flags into a column first; state and column then
 * pick a row of the table, so that no condition hides in code.
 */
#include "supervisor/prompt_fsm.h"

#include <stddef.h>
#include <stdint.h>

#include "common/macros.h"

static const char *const state_names[] = {
	[PROMPT_ACCEPTED] = "accepted",   [PROMPT_POSTING] = "posting",
	[PROMPT_CHECKING] = "checking",   [PROMPT_SUBMITTED] = "submitted",
	[PROMPT_EXECUTING] = "executing", [PROMPT_ENDED] = "ended",
};
STATIC_ASSERT_ARRAY_SIZE(state_names, PROMPT_STATE_COUNT);

static const char *const event_names[] = {
	[PROMPT_EV_LOOK] = "look",
	[PROMPT_EV_POST] = "post",
	[PROMPT_EV_TAKEN] = "taken",
	[PROMPT_EV_REFUSED] = "refused",
	[PROMPT_EV_UNREACHED] = "unreached",
	[PROMPT_EV_UNANSWERED] = "unanswered",
	[PROMPT_EV_PENDING] = "pending",
	[PROMPT_EV_RUNNING] = "running",
	[PROMPT_EV_HISTORY] = "history",
	[PROMPT_EV_ABSENT] = "absent",
	[PROMPT_EV_STARTED] = "started",
	[PROMPT_EV_OVER] = "over",
	[PROMPT_EV_GAP] = "gap",
	[PROMPT_EV_DEQUEUED] = "dequeued",
};
STATIC_ASSERT_ARRAY_SIZE(event_names, PROMPT_EV_COUNT);

enum column {
	C_LOOK,
	C_POST,
	C_TAKEN,
	C_REFUSED,
	C_UNREACHED,      /* nobody was told that it is queued */
	C_UNREACHED_HELD, /* somebody was */
	C_UNANSWERED,
	C_PENDING,
	C_RUNNING,
	C_HISTORY,
	C_ABSENT_YET, /* it may still be on its way */
	C_ABSENT,
	C_ABSENT_OVER, /* its end was seen, history has no entry */
	C_STARTED,
	C_OVER,
	C_OVER_GAP,
	C_GAP,
	C_DEQUEUED,
	COLUMN_COUNT
};

struct transition {
	uint8_t to; /* state + 1; 0: stays */
	uint8_t actions;
	uint8_t why; /* enum prompt_end */
};

#define TO(s)  ((uint8_t)((s) + 1))
#define STORE  PROMPT_DO_STORE
#define LINE   PROMPT_DO_LINE
#define TELL   PROMPT_DO_TELL
#define REPLY  PROMPT_DO_REPLY
#define CHECK  PROMPT_DO_CHECK
#define ASK    PROMPT_DO_ASK
#define FORGET PROMPT_DO_FORGET
#define ENDS(why_)                                                             \
	{                                                                      \
		TO(PROMPT_ENDED), PROMPT_DO_END, PROMPT_END_##why_             \
	}
/* The answer to a POST of something that is known to be there already. */
#define LATE                                                                   \
	{                                                                      \
		0, REPLY, 0                                                    \
	}

/* clang-format off */
static const struct transition table[PROMPT_STATE_COUNT][COLUMN_COUNT] = {
	[PROMPT_ACCEPTED] = {
		[C_LOOK]           = {TO(PROMPT_CHECKING), CHECK, 0},
		/* The poster has stored that already. */
		[C_POST]           = {TO(PROMPT_POSTING), 0, 0},
		[C_UNREACHED]      = {TO(PROMPT_ENDED), FORGET, 0},
		[C_UNREACHED_HELD] = {0, REPLY, 0},
		/* A worker on its own has posted it. */
		[C_PENDING]        = {TO(PROMPT_SUBMITTED), STORE | TELL | REPLY, 0},
		[C_RUNNING]        = {TO(PROMPT_EXECUTING), STORE | TELL | REPLY, 0},
		[C_STARTED]        = {TO(PROMPT_EXECUTING), STORE | TELL | REPLY, 0},
		[C_HISTORY]        = ENDS(HISTORY),
		[C_OVER]           = ENDS(EVENTS),
		[C_OVER_GAP]       = {TO(PROMPT_EXECUTING), STORE | ASK, 0},
		/* Its workflow is gone from the store. */
		[C_ABSENT]         = ENDS(LOST),
		[C_DEQUEUED]       = ENDS(CANCELLED),
	},
	[PROMPT_POSTING] = {
		[C_TAKEN]          = {TO(PROMPT_SUBMITTED), STORE | TELL | REPLY, 0},
		[C_REFUSED]        = ENDS(REJECTED),
		[C_UNREACHED]      = {TO(PROMPT_ENDED), FORGET, 0},
		[C_UNREACHED_HELD] = {TO(PROMPT_ACCEPTED), STORE | LINE | REPLY, 0},
		[C_UNANSWERED]     = {TO(PROMPT_CHECKING), CHECK, 0},
		/* Events overtook the POST's answer. */
		[C_STARTED]        = {TO(PROMPT_EXECUTING), STORE | TELL, 0},
		[C_OVER]           = ENDS(EVENTS),
		[C_OVER_GAP]       = {TO(PROMPT_EXECUTING), STORE | ASK, 0},
	},
	[PROMPT_CHECKING] = {
		[C_PENDING]        = {TO(PROMPT_SUBMITTED), STORE | TELL | REPLY, 0},
		[C_RUNNING]        = {TO(PROMPT_EXECUTING), STORE | TELL | REPLY, 0},
		[C_STARTED]        = {TO(PROMPT_EXECUTING), STORE | TELL | REPLY, 0},
		[C_HISTORY]        = ENDS(HISTORY),
		[C_ABSENT_YET]     = {0, CHECK, 0},
		[C_ABSENT]         = {TO(PROMPT_ACCEPTED), STORE | LINE, 0},
		[C_OVER]           = ENDS(EVENTS),
		[C_OVER_GAP]       = {TO(PROMPT_EXECUTING), STORE | ASK, 0},
		[C_DEQUEUED]       = ENDS(CANCELLED),
	},
	[PROMPT_SUBMITTED] = {
		[C_TAKEN] = LATE, [C_REFUSED] = LATE, [C_UNREACHED] = LATE,
		[C_UNREACHED_HELD] = LATE, [C_UNANSWERED] = LATE,
		[C_RUNNING]        = {TO(PROMPT_EXECUTING), 0, 0},
		[C_STARTED]        = {TO(PROMPT_EXECUTING), 0, 0},
		[C_HISTORY]        = ENDS(HISTORY),
		[C_ABSENT]         = ENDS(LOST),
		[C_ABSENT_OVER]    = ENDS(EVENTS),
		[C_OVER]           = ENDS(EVENTS),
		[C_OVER_GAP]       = {TO(PROMPT_EXECUTING), ASK, 0},
		[C_DEQUEUED]       = ENDS(CANCELLED),
	},
	[PROMPT_EXECUTING] = {
		[C_TAKEN] = LATE, [C_REFUSED] = LATE, [C_UNREACHED] = LATE,
		[C_UNREACHED_HELD] = LATE, [C_UNANSWERED] = LATE,
		[C_HISTORY]        = ENDS(HISTORY),
		[C_ABSENT]         = ENDS(LOST),
		[C_ABSENT_OVER]    = ENDS(EVENTS),
		[C_OVER]           = ENDS(EVENTS),
		[C_OVER_GAP]       = {0, ASK, 0},
		[C_DEQUEUED]       = ENDS(CANCELLED),
	},
	/* ENDED: nothing moves it. */
};
/* clang-format on */

void prompt_fsm_init(struct prompt_fsm *f)
{
	*f = (struct prompt_fsm){.state = PROMPT_ACCEPTED};
}

void prompt_fsm_restore(struct prompt_fsm *f, enum prompt_state state)
{
	/* Nobody is left who could be told "not accepted". */
	*f = (struct prompt_fsm){.state = state, .hold = true};
	if (state == PROMPT_POSTING)
		f->state = PROMPT_CHECKING;
	f->gap = true;
	f->unsure = f->state == PROMPT_ACCEPTED;
}

/* Whether it is too early to say that a prompt in neither queue nor history
 * was never posted. */
static bool absent_yet(const struct prompt_fsm *f)
{
	/* Nobody has just posted one that is merely unsure. */
	return f->state == PROMPT_CHECKING && !f->unsure &&
	       f->absent + 1 < PROMPT_ABSENT_MAX;
}

static enum column refine(const struct prompt_fsm *f, enum prompt_event ev)
{
	switch (ev) {
	case PROMPT_EV_LOOK:
		return C_LOOK;
	case PROMPT_EV_POST:
		return C_POST;
	case PROMPT_EV_TAKEN:
		return C_TAKEN;
	case PROMPT_EV_REFUSED:
		return C_REFUSED;
	case PROMPT_EV_UNREACHED:
		return f->hold ? C_UNREACHED_HELD : C_UNREACHED;
	case PROMPT_EV_UNANSWERED:
		return C_UNANSWERED;
	case PROMPT_EV_PENDING:
		return C_PENDING;
	case PROMPT_EV_RUNNING:
		return C_RUNNING;
	case PROMPT_EV_HISTORY:
		return C_HISTORY;
	case PROMPT_EV_ABSENT:
		if (f->over)
			return C_ABSENT_OVER;
		return absent_yet(f) ? C_ABSENT_YET : C_ABSENT;
	case PROMPT_EV_STARTED:
		return C_STARTED;
	case PROMPT_EV_OVER:
		return f->gap ? C_OVER_GAP : C_OVER;
	case PROMPT_EV_GAP:
		return C_GAP;
	case PROMPT_EV_DEQUEUED:
		return C_DEQUEUED;
	case PROMPT_EV_COUNT:
		break;
	}
	return C_GAP;
}

/* What an event says about the flags, whatever the state. */
static void note(struct prompt_fsm *f, enum prompt_event ev, bool link_up)
{
	switch (ev) {
	case PROMPT_EV_LOOK:
		f->absent = 0;
		break;
	case PROMPT_EV_POST:
		f->gap = !link_up;
		f->posted = true;
		f->seen = f->over = false;
		f->absent = 0;
		break;
	case PROMPT_EV_TAKEN:
	case PROMPT_EV_PENDING:
	case PROMPT_EV_RUNNING:
	case PROMPT_EV_STARTED:
		f->seen = link_up;
		break;
	case PROMPT_EV_OVER:
		f->over = true;
		break;
	case PROMPT_EV_GAP:
		f->gap = true;
		f->seen = false;
		break;
	case PROMPT_EV_ABSENT:
		if (f->absent < UINT8_MAX)
			f->absent++;
		break;
	default:
		break;
	}
}

/* What runs can't be taken out of the queue. */
static enum prompt_end why_absent(const struct prompt_fsm *f,
                                  enum prompt_state from)
{
	if (f->cancelled)
		return PROMPT_END_CANCELLED;
	return f->seen && from != PROMPT_EXECUTING ? PROMPT_END_DELETED
	                                           : PROMPT_END_LOST;
}

unsigned prompt_fsm_event(struct prompt_fsm *f, enum prompt_event ev,
                          bool link_up)
{
	const struct transition *t;
	enum prompt_state from = f->state;

	if (from == PROMPT_ENDED)
		return 0;
	/* A prompt that waits has nothing to miss. */
	if (ev == PROMPT_EV_GAP && f->state == PROMPT_ACCEPTED)
		return 0;
	t = &table[f->state][refine(f, ev)];
	note(f, ev, link_up);
	if (t->to != 0)
		f->state = (enum prompt_state)(t->to - 1);
	/* It was given to ComfyUI once: from now on it is kept. */
	if (t->actions & PROMPT_DO_LINE) {
		f->hold = true;
		f->unsure = false;
	}
	if (t->actions & PROMPT_DO_END) {
		f->why = (enum prompt_end)t->why;
		if (ev == PROMPT_EV_ABSENT && f->why == PROMPT_END_LOST)
			f->why = why_absent(f, from);
	}
	return t->actions;
}

const char *prompt_state_name(enum prompt_state s)
{
	return (unsigned)s < PROMPT_STATE_COUNT ? state_names[s] : "?";
}

const char *prompt_event_name(enum prompt_event ev)
{
	return (unsigned)ev < PROMPT_EV_COUNT ? event_names[ev] : "?";
}

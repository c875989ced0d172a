/*
 * prompt_fsm.h - the life of one prompt: accepted, posted, followed to its
 * end. Pure: it is told what happened and says what to do.
 *
 *   ACCEPTED   stored, waits to be posted
 *   POSTING    POST /prompt is under way
 *   CHECKING   the answer to the POST is missing: ComfyUI may have it or not,
 *              queue and history are looked up before another try
 *   SUBMITTED  ComfyUI has it, it waits there
 *   EXECUTING  it runs
 *   ENDED      final
 */
#ifndef SUPERVISOR_PROMPT_FSM_H
#define SUPERVISOR_PROMPT_FSM_H

#include <stdbool.h>

enum prompt_state {
	PROMPT_ACCEPTED,
	PROMPT_POSTING,
	PROMPT_CHECKING,
	PROMPT_SUBMITTED,
	PROMPT_EXECUTING,
	PROMPT_ENDED,
	PROMPT_STATE_COUNT
};

enum prompt_event {
	PROMPT_EV_LOOK,       /* its turn, but it may be there: look first */
	PROMPT_EV_POST,       /* its turn: the POST is being made */
	PROMPT_EV_TAKEN,      /* POST: 200 */
	PROMPT_EV_REFUSED,    /* POST: refused */
	PROMPT_EV_UNREACHED,  /* POST: ComfyUI has certainly not seen it */
	PROMPT_EV_UNANSWERED, /* POST: no answer; ComfyUI may have it */
	PROMPT_EV_PENDING,    /* GET /queue: it waits */
	PROMPT_EV_RUNNING,    /* GET /queue: it runs */
	PROMPT_EV_HISTORY,    /* GET /history: it has ended */
	PROMPT_EV_ABSENT,     /* in neither, history asked last */
	PROMPT_EV_STARTED,    /* an event of its run came */
	PROMPT_EV_OVER,       /* `executing` null came */
	PROMPT_EV_GAP,        /* events may have been missed from here on */
	PROMPT_EV_DEQUEUED,   /* our cancel took it out of a queue */
	PROMPT_EV_COUNT
};

/* What the owner has to do; a set of bits, to be done in this order. */
enum prompt_action {
	PROMPT_DO_STORE = 1 << 0,  /* the durable state has changed */
	PROMPT_DO_LINE = 1 << 1,   /* back to the front of its line */
	PROMPT_DO_REPLY = 1 << 2,  /* whoever waits for the POST's result */
	PROMPT_DO_TELL = 1 << 3,   /* `submitted` */
	PROMPT_DO_CHECK = 1 << 4,  /* look up queue and history, soon */
	PROMPT_DO_ASK = 1 << 5,    /* ask history for this one */
	PROMPT_DO_FORGET = 1 << 6, /* as if it had never come */
	PROMPT_DO_END = 1 << 7,    /* `why` says how */
};

enum prompt_end {
	PROMPT_END_NONE,
	PROMPT_END_EVENTS,  /* as the events told */
	PROMPT_END_HISTORY, /* as the history entry told */
	PROMPT_END_REJECTED,
	PROMPT_END_CANCELLED, /* taken out of the queue by us */
	PROMPT_END_DELETED,   /* taken out of the queue by others */
	PROMPT_END_LOST,
};

/* Looked up in vain this often before it is posted once more: a POST whose
 * connection broke may still be at work inside the server. */
#define PROMPT_ABSENT_MAX 2

struct prompt_fsm {
	enum prompt_state state;
	enum prompt_end why; /* once ENDED */
	/* Somebody relies on it: it stays queued while ComfyUI is away. */
	bool hold;
	/* The stream had a gap since it was posted: history has the last
	 * word. */
	bool gap;
	/* ComfyUI was seen to have it, and the link has held since. */
	bool seen;
	bool posted;    /* by this process: in the order of its list */
	bool over;      /* `executing` null came, history is being asked */
	bool cancelled; /* we asked ComfyUI to stop it */
	/* Left by an earlier process: while there was no supervisor its worker
	 * may have posted it, so it is looked up before it is posted. */
	bool unsure;
	unsigned char absent; /* times looked up in vain */
};

/* A new prompt. */
void prompt_fsm_init(struct prompt_fsm *f);
/* One that an earlier process left in `state`. */
void prompt_fsm_restore(struct prompt_fsm *f, enum prompt_state state);

/* Returns the actions. `link_up` tells whether events can come now. */
unsigned prompt_fsm_event(struct prompt_fsm *f, enum prompt_event ev,
                          bool link_up);

/* ComfyUI has it, or may have it. */
static inline bool prompt_fsm_outstanding(const struct prompt_fsm *f)
{
	return f->state > PROMPT_ACCEPTED && f->state < PROMPT_ENDED;
}

const char *prompt_state_name(enum prompt_state s);
const char *prompt_event_name(enum prompt_event ev);

#endif

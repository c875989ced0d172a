/*
 * check_prompt_fsm.c - a prompt's life, transition by transition, and whole
 * lives.
 */
#include <string.h>

#include "common/macros.h"
#include "supervisor/prompt_fsm.h"
#include "tests/runner.h"

#define NOTHING 0u

enum flags {
	HOLD = 1 << 0,
	GAP = 1 << 1,
	SEEN = 1 << 2,
	OVER = 1 << 3,
	CANCELLED = 1 << 4,
	ABSENT_ONCE = 1 << 5,
};

struct row {
	enum prompt_state from;
	unsigned flags;
	enum prompt_event ev;
	enum prompt_state to;
	unsigned actions;
	enum prompt_end why;
};

#define STORE     PROMPT_DO_STORE
#define LINE      PROMPT_DO_LINE
#define TELL      PROMPT_DO_TELL
#define REPLY     PROMPT_DO_REPLY
#define CHECK     PROMPT_DO_CHECK
#define ASK       PROMPT_DO_ASK
#define FORGET    PROMPT_DO_FORGET
#define END       PROMPT_DO_END
#define A         PROMPT_ACCEPTED
#define P         PROMPT_POSTING
#define C         PROMPT_CHECKING
#define S         PROMPT_SUBMITTED
#define X         PROMPT_EXECUTING
#define E         PROMPT_ENDED
#define EV(name)  PROMPT_EV_##name
#define WHY(name) PROMPT_END_##name

/* clang-format off */
static const struct row rows[] = {
	{A, 0, EV(LOOK), C, CHECK, 0},
	{A, 0, EV(POST), P, NOTHING, 0},
	{A, 0, EV(UNREACHED), E, FORGET, 0},
	{A, HOLD, EV(UNREACHED), A, REPLY, 0},
	{A, HOLD, EV(DEQUEUED), E, END, WHY(CANCELLED)},
	{A, 0, EV(PENDING), S, STORE | TELL | REPLY, 0},
	{A, 0, EV(RUNNING), X, STORE | TELL | REPLY, 0},
	{A, 0, EV(STARTED), X, STORE | TELL | REPLY, 0},
	{A, 0, EV(ABSENT), E, END, WHY(LOST)},
	{A, 0, EV(GAP), A, NOTHING, 0},
	{A, 0, EV(TAKEN), A, NOTHING, 0},

	{P, 0, EV(TAKEN), S, STORE | TELL | REPLY, 0},
	{P, 0, EV(REFUSED), E, END, WHY(REJECTED)},
	{P, 0, EV(UNREACHED), E, FORGET, 0},
	{P, HOLD, EV(UNREACHED), A, STORE | LINE | REPLY, 0},
	{P, 0, EV(UNANSWERED), C, CHECK, 0},
	{P, 0, EV(STARTED), X, STORE | TELL, 0},
	{P, 0, EV(OVER), E, END, WHY(EVENTS)},
	{P, GAP, EV(OVER), X, STORE | ASK, 0},
	{P, 0, EV(PENDING), P, NOTHING, 0},
	{P, 0, EV(RUNNING), P, NOTHING, 0},
	{P, 0, EV(HISTORY), P, NOTHING, 0},
	{P, 0, EV(ABSENT), P, NOTHING, 0},

	{C, 0, EV(PENDING), S, STORE | TELL | REPLY, 0},
	{C, 0, EV(RUNNING), X, STORE | TELL | REPLY, 0},
	{C, 0, EV(STARTED), X, STORE | TELL | REPLY, 0},
	{C, 0, EV(HISTORY), E, END, WHY(HISTORY)},
	{C, 0, EV(ABSENT), C, CHECK, 0},
	{C, ABSENT_ONCE, EV(ABSENT), A, STORE | LINE, 0},

	{S, 0, EV(STARTED), X, NOTHING, 0},
	{S, 0, EV(RUNNING), X, NOTHING, 0},
	{S, 0, EV(PENDING), S, NOTHING, 0},
	{S, 0, EV(TAKEN), S, REPLY, 0},
	{S, 0, EV(HISTORY), E, END, WHY(HISTORY)},
	{S, SEEN, EV(ABSENT), E, END, WHY(DELETED)},
	{S, 0, EV(ABSENT), E, END, WHY(LOST)},
	{S, SEEN | CANCELLED, EV(ABSENT), E, END, WHY(CANCELLED)},
	{S, CANCELLED, EV(ABSENT), E, END, WHY(CANCELLED)},
	{S, 0, EV(DEQUEUED), E, END, WHY(CANCELLED)},
	{S, 0, EV(OVER), E, END, WHY(EVENTS)},
	{S, GAP, EV(OVER), X, ASK, 0},
	{S, 0, EV(GAP), S, NOTHING, 0},

	{X, 0, EV(OVER), E, END, WHY(EVENTS)},
	{X, GAP, EV(OVER), X, ASK, 0},
	{X, GAP | OVER, EV(HISTORY), E, END, WHY(HISTORY)},
	{X, GAP | OVER, EV(ABSENT), E, END, WHY(EVENTS)},
	{X, GAP | OVER | SEEN, EV(ABSENT), E, END, WHY(EVENTS)},
	{X, 0, EV(ABSENT), E, END, WHY(LOST)},
	{X, SEEN, EV(ABSENT), E, END, WHY(LOST)},
	{X, 0, EV(PENDING), X, NOTHING, 0},
	{X, 0, EV(RUNNING), X, NOTHING, 0},
	{X, 0, EV(TAKEN), X, REPLY, 0},
	{X, 0, EV(REFUSED), X, REPLY, 0},
	{X, 0, EV(UNREACHED), X, REPLY, 0},
	{X, 0, EV(UNANSWERED), X, REPLY, 0},
};
/* clang-format on */

static struct prompt_fsm make(const struct row *r)
{
	struct prompt_fsm f = {
		.state = r->from,
		.hold = r->flags & HOLD,
		.gap = r->flags & GAP,
		.seen = r->flags & SEEN,
		.over = r->flags & OVER,
		.cancelled = r->flags & CANCELLED,
		.absent = r->flags & ABSENT_ONCE ? 1 : 0,
	};

	return f;
}

START_TEST(test_row)
{
	const struct row *r = &rows[_i];
	struct prompt_fsm f = make(r);
	unsigned actions = prompt_fsm_event(&f, r->ev, true);

	ck_assert_msg(f.state == r->to, "%s on %s: %s, not %s",
	              prompt_state_name(r->from), prompt_event_name(r->ev),
	              prompt_state_name(f.state), prompt_state_name(r->to));
	ck_assert_msg(actions == r->actions, "%s on %s: actions %x, not %x",
	              prompt_state_name(r->from), prompt_event_name(r->ev),
	              actions, r->actions);
	ck_assert_int_eq(f.why, r->why);
}
END_TEST

START_TEST(test_ended_is_final)
{
	for (int ev = 0; ev < PROMPT_EV_COUNT; ev++) {
		struct prompt_fsm f = {.state = PROMPT_ENDED,
		                       .why = PROMPT_END_HISTORY};

		ck_assert_uint_eq(
			prompt_fsm_event(&f, (enum prompt_event)ev, true), 0);
		ck_assert_int_eq(f.state, PROMPT_ENDED);
		ck_assert_int_eq(f.why, PROMPT_END_HISTORY);
	}
}
END_TEST

/* Whatever happens, an end has a reason, and only an end has one. */
START_TEST(test_every_pair)
{
	for (unsigned flags = 0; flags < 64; flags++) {
		struct row r = {
			.from = (enum prompt_state)(_i / PROMPT_EV_COUNT),
			.flags = flags,
			.ev = (enum prompt_event)(_i % PROMPT_EV_COUNT)};
		struct prompt_fsm f = make(&r);
		unsigned todo = prompt_fsm_event(&f, r.ev, flags & 1);

		if (r.from == PROMPT_ENDED)
			continue;
		ck_assert(!(todo & END) == (f.why == PROMPT_END_NONE));
		if (todo & (END | FORGET))
			ck_assert_int_eq(f.state, PROMPT_ENDED);
		else
			ck_assert_int_ne(f.state, PROMPT_ENDED);
		ck_assert(!((todo & END) && (todo & FORGET)));
		if (todo & LINE)
			ck_assert_int_eq(f.state, PROMPT_ACCEPTED);
		/* Posted is only what waits. */
		if (f.state == PROMPT_POSTING && r.from != PROMPT_POSTING)
			ck_assert_int_eq(r.ev, PROMPT_EV_POST);
	}
}
END_TEST

START_TEST(test_unbroken_life)
{
	struct prompt_fsm f;

	prompt_fsm_init(&f);
	ck_assert_int_eq(f.state, PROMPT_ACCEPTED);
	ck_assert(!prompt_fsm_outstanding(&f));
	(void)prompt_fsm_event(&f, PROMPT_EV_POST, true);
	ck_assert(prompt_fsm_outstanding(&f));
	ck_assert(!f.gap);
	(void)prompt_fsm_event(&f, PROMPT_EV_TAKEN, true);
	ck_assert(f.seen);
	(void)prompt_fsm_event(&f, PROMPT_EV_STARTED, true);
	ck_assert_uint_eq(prompt_fsm_event(&f, PROMPT_EV_OVER, true), END);
	ck_assert(!prompt_fsm_outstanding(&f));
}
END_TEST

START_TEST(test_posted_while_down_has_a_gap)
{
	struct prompt_fsm f;

	prompt_fsm_init(&f);
	(void)prompt_fsm_event(&f, PROMPT_EV_POST, false);
	(void)prompt_fsm_event(&f, PROMPT_EV_TAKEN, false);
	ck_assert(f.gap);
	ck_assert(!f.seen);
	/* Seen in the queue while polling: the server may still restart. */
	(void)prompt_fsm_event(&f, PROMPT_EV_PENDING, false);
	ck_assert(!f.seen);
	(void)prompt_fsm_event(&f, PROMPT_EV_ABSENT, false);
	ck_assert_int_eq(f.why, PROMPT_END_LOST);
}
END_TEST

START_TEST(test_seen_again_after_a_gap)
{
	struct prompt_fsm f = {.state = PROMPT_SUBMITTED, .seen = true};

	(void)prompt_fsm_event(&f, PROMPT_EV_GAP, false);
	ck_assert(!f.seen);
	(void)prompt_fsm_event(&f, PROMPT_EV_PENDING, true);
	ck_assert(f.seen);
	ck_assert(f.gap);
	(void)prompt_fsm_event(&f, PROMPT_EV_ABSENT, true);
	ck_assert_int_eq(f.why, PROMPT_END_DELETED);
}
END_TEST

START_TEST(test_looked_up_twice_before_posted_again)
{
	struct prompt_fsm f;

	prompt_fsm_init(&f);
	(void)prompt_fsm_event(&f, PROMPT_EV_POST, true);
	(void)prompt_fsm_event(&f, PROMPT_EV_UNANSWERED, true);
	for (int i = 1; i < PROMPT_ABSENT_MAX; i++) {
		ck_assert_uint_eq(prompt_fsm_event(&f, PROMPT_EV_ABSENT, true),
		                  CHECK);
		ck_assert_int_eq(f.state, PROMPT_CHECKING);
	}
	ck_assert_uint_eq(prompt_fsm_event(&f, PROMPT_EV_ABSENT, true),
	                  STORE | LINE);
	ck_assert_int_eq(f.state, PROMPT_ACCEPTED);
	/* It was given away once: it is kept from now on. */
	ck_assert(f.hold);
	/* A second try counts anew. */
	(void)prompt_fsm_event(&f, PROMPT_EV_POST, true);
	ck_assert_int_eq(f.absent, 0);
}
END_TEST

START_TEST(test_restore)
{
	struct prompt_fsm f;

	prompt_fsm_restore(&f, PROMPT_ACCEPTED);
	ck_assert_int_eq(f.state, PROMPT_ACCEPTED);
	ck_assert(f.hold && f.gap && f.unsure);
	prompt_fsm_restore(&f, PROMPT_POSTING);
	ck_assert_int_eq(f.state, PROMPT_CHECKING);
	ck_assert(f.hold && f.gap);
	prompt_fsm_restore(&f, PROMPT_SUBMITTED);
	ck_assert_int_eq(f.state, PROMPT_SUBMITTED);
	ck_assert(f.hold && f.gap && !f.seen && !f.unsure);
}
END_TEST

/* While nobody served, its worker may have posted it. */
START_TEST(test_restored_is_looked_up_before_it_is_posted)
{
	struct prompt_fsm f;
	unsigned todo;

	prompt_fsm_restore(&f, PROMPT_ACCEPTED);
	todo = prompt_fsm_event(&f, PROMPT_EV_LOOK, true);
	ck_assert_int_eq(f.state, PROMPT_CHECKING);
	ck_assert_uint_eq(todo, PROMPT_DO_CHECK);
	todo = prompt_fsm_event(&f, PROMPT_EV_ABSENT, true);
	ck_assert_int_eq(f.state, PROMPT_ACCEPTED);
	ck_assert_uint_eq(todo, PROMPT_DO_STORE | PROMPT_DO_LINE);
	ck_assert(!f.unsure);
	(void)prompt_fsm_event(&f, PROMPT_EV_POST, true);
	ck_assert_int_eq(f.state, PROMPT_POSTING);
	ck_assert(!f.gap);

	prompt_fsm_restore(&f, PROMPT_ACCEPTED);
	(void)prompt_fsm_event(&f, PROMPT_EV_LOOK, true);
	todo = prompt_fsm_event(&f, PROMPT_EV_HISTORY, true);
	ck_assert(todo & PROMPT_DO_END);
	ck_assert_int_eq(f.why, PROMPT_END_HISTORY);
}
END_TEST

START_TEST(test_names)
{
	for (int i = 0; i < PROMPT_STATE_COUNT; i++)
		ck_assert_ptr_nonnull(prompt_state_name((enum prompt_state)i));
	for (int i = 0; i < PROMPT_EV_COUNT; i++)
		ck_assert_ptr_nonnull(prompt_event_name((enum prompt_event)i));
	ck_assert_str_eq(prompt_state_name(PROMPT_STATE_COUNT), "?");
	ck_assert_str_eq(prompt_event_name(PROMPT_EV_COUNT), "?");
}
END_TEST

static Suite *prompt_fsm_suite(void)
{
	Suite *s = suite_create("prompt_fsm");
	TCase *t = tcase_create("all");

	tcase_add_loop_test(t, test_row, 0, (int)ARRAY_SIZE(rows));
	tcase_add_loop_test(t, test_every_pair, 0,
	                    PROMPT_STATE_COUNT * PROMPT_EV_COUNT);
	tcase_add_test(t, test_ended_is_final);
	tcase_add_test(t, test_unbroken_life);
	tcase_add_test(t, test_posted_while_down_has_a_gap);
	tcase_add_test(t, test_seen_again_after_a_gap);
	tcase_add_test(t, test_looked_up_twice_before_posted_again);
	tcase_add_test(t, test_restore);
	tcase_add_test(t, test_restored_is_looked_up_before_it_is_posted);
	tcase_add_test(t, test_names);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(prompt_fsm_suite());
}

/*
 * check_worker_proc.c - a worker's life: every cell of the matrix, and whole
 * lives.
 */
#include "common/macros.h"
#include "supervisor/roles.h"
#include "supervisor/worker_proc.h"
#include "tests/runner.h"

#define NOW 5000

#define G     WORKER_GONE
#define S     WORKER_STARTING
#define R     WORKER_READY
#define L     WORKER_LEAVING
#define T     WORKER_STOPPING
#define K     WORKER_KILLED
#define EV(e) WORKER_EV_##e
#define END   (WORKER_DO_DISARM | WORKER_DO_OBITUARY)
#define STOP  (WORKER_DO_ARM | WORKER_DO_TERM)
#define KILL  (WORKER_DO_ARM | WORKER_DO_KILL)

struct row {
	enum worker_state from;
	enum worker_event ev;
	enum worker_state to;
	unsigned actions;
};

/* clang-format off */
static const struct row rows[] = {
	{G, EV(FORK), S, WORKER_DO_ARM},
	{G, EV(FAILED), G, 0}, {G, EV(ATTACHED), G, 0}, {G, EV(LEAVE), G, 0},
	{G, EV(RETURN), G, 0}, {G, EV(STOP), G, 0}, {G, EV(DEADLINE), G, 0},
	{G, EV(EXITED), G, 0},

	{S, EV(FORK), S, 0},
	{S, EV(FAILED), G, END},
	{S, EV(ATTACHED), R, WORKER_DO_DISARM},
	{S, EV(LEAVE), L, WORKER_DO_ARM},
	{S, EV(RETURN), S, 0},
	{S, EV(STOP), T, STOP},
	{S, EV(DEADLINE), K, KILL},
	{S, EV(EXITED), G, END},

	{R, EV(FORK), R, 0}, {R, EV(FAILED), R, 0}, {R, EV(ATTACHED), R, 0},
	{R, EV(LEAVE), L, WORKER_DO_ARM},
	{R, EV(RETURN), R, 0},
	{R, EV(STOP), T, STOP},
	{R, EV(DEADLINE), R, 0},
	{R, EV(EXITED), G, END},

	{L, EV(FORK), L, 0},
	{L, EV(FAILED), G, END},
	{L, EV(ATTACHED), L, 0}, {L, EV(LEAVE), L, 0},
	{L, EV(RETURN), S, WORKER_DO_ARM},
	{L, EV(STOP), T, STOP},
	{L, EV(DEADLINE), T, STOP},
	{L, EV(EXITED), G, END},

	{T, EV(FORK), T, 0},
	{T, EV(FAILED), G, END},
	{T, EV(ATTACHED), T, 0}, {T, EV(LEAVE), T, 0}, {T, EV(RETURN), T, 0},
	{T, EV(STOP), T, 0},
	{T, EV(DEADLINE), K, KILL},
	{T, EV(EXITED), G, END},

	{K, EV(FORK), K, 0},
	{K, EV(FAILED), G, END},
	{K, EV(ATTACHED), K, 0}, {K, EV(LEAVE), K, 0}, {K, EV(RETURN), K, 0},
	{K, EV(STOP), K, 0},
	{K, EV(DEADLINE), K, KILL | WORKER_DO_PARENT},
	{K, EV(EXITED), G, END},
};
/* clang-format on */

START_TEST(test_matrix)
{
	const struct row *row = &rows[_i];
	struct worker_proc w = {.state = row->from, .generation = 3, .pid = 7};
	unsigned actions = worker_proc_event(&w, row->ev, NOW);

	ck_assert_msg(w.state == row->to && actions == row->actions,
	              "%s, event %d: %s with %#x, not %s with %#x",
	              worker_state_name(row->from), (int)row->ev,
	              worker_state_name(w.state), actions,
	              worker_state_name(row->to), row->actions);
	/* A deadline is armed for each state that may not last. */
	if (actions & WORKER_DO_ARM)
		ck_assert_uint_gt(worker_proc_patience_ms(&w), 0);
	if (actions & WORKER_DO_DISARM)
		ck_assert_uint_eq(worker_proc_patience_ms(&w), 0);
}
END_TEST

START_TEST(test_every_cell_has_a_row)
{
	ck_assert_uint_eq(ARRAY_SIZE(rows),
	                  (size_t)WORKER_STATE_COUNT * WORKER_EVENT_COUNT);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		for (size_t j = 0; j < i; j++)
			ck_assert(rows[i].from != rows[j].from ||
			          rows[i].ev != rows[j].ev);
}
END_TEST

struct life {
	enum worker_event events[6];
	size_t count;
	bool failed;
	int64_t ready_ms;
};

static const struct life lives[] = {
	{{EV(FORK), EV(ATTACHED), EV(EXITED)}, 3, true, NOW},
	{{EV(FORK), EV(EXITED)}, 2, true, -1},
	{{EV(FORK), EV(FAILED)}, 2, true, -1},
	{{EV(FORK), EV(ATTACHED), EV(LEAVE), EV(EXITED)}, 4, true, NOW},
	{{EV(FORK), EV(ATTACHED), EV(STOP), EV(DEADLINE), EV(EXITED)},
         5,
         false,
         NOW},
	{{EV(FORK), EV(DEADLINE), EV(EXITED)}, 3, true, -1},
	{{EV(FORK), EV(LEAVE), EV(DEADLINE), EV(DEADLINE), EV(EXITED)},
         5,
         false,
         -1},
	{{EV(FORK), EV(ATTACHED), EV(LEAVE), EV(RETURN), EV(ATTACHED),
          EV(EXITED)},
         6,
         true,
         NOW},
};

START_TEST(test_whose_failure)
{
	const struct life *l = &lives[_i];
	struct worker_proc w = {0};
	unsigned actions = 0;

	for (size_t i = 0; i < l->count; i++) {
		ck_assert(!(actions & WORKER_DO_OBITUARY));
		actions = worker_proc_event(&w, l->events[i], NOW);
	}
	ck_assert(actions & WORKER_DO_OBITUARY);
	ck_assert(!worker_proc_exists(&w));
	ck_assert_int_eq(worker_proc_failed(&w), l->failed);
	ck_assert_int_eq(w.ready_ms, l->ready_ms);
	/* The next one starts without a past. */
	(void)worker_proc_event(&w, EV(FORK), NOW);
	ck_assert(worker_proc_exists(&w) && !w.unwanted && !w.late);
	ck_assert_int_eq(w.ready_ms, -1);
}
END_TEST

START_TEST(test_patience)
{
	const struct role_info *role = &roles[ROLE_WORKER];
	struct worker_proc w = {.state = S};

	ck_assert_uint_eq(worker_proc_patience_ms(&w), role->ready_ms);
	w.state = T;
	ck_assert_uint_eq(worker_proc_patience_ms(&w), role->term_ms);
	w.state = L;
	ck_assert_uint_eq(worker_proc_patience_ms(&w), role->leave_ms);
	w.state = K;
	ck_assert_uint_eq(worker_proc_patience_ms(&w), role->kill_ms);
}
END_TEST

static Suite *worker_proc_suite(void)
{
	Suite *s = suite_create("worker_proc");
	TCase *t = tcase_create("all");

	tcase_add_loop_test(t, test_matrix, 0, ARRAY_SIZE(rows));
	tcase_add_test(t, test_every_cell_has_a_row);
	tcase_add_loop_test(t, test_whose_failure, 0, ARRAY_SIZE(lives));
	tcase_add_test(t, test_patience);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(worker_proc_suite());
}

/*
 * check_upstream_fsm.c - the link's states: every state by every event, the
 * delays between attempts, pings, and that no attempt begins before the old
 * socket's end was seen.
 */
#include <string.h>

#include "common/macros.h"
#include "supervisor/upstream_fsm.h"
#include "tests/runner.h"

#define NONE          0u
#define CONNECT_MS    5000
#define PING_MS       30000
#define PONG_MS       10000
#define ATTEMPT_MS    (CONNECT_MS + UPSTREAM_ATTEMPT_EXTRA_MS)
#define STAY          UPSTREAM_STATE_COUNT
#define T0            1000000 /* any time will do */
#define RANDOM_EVENTS 40000

#define RESOLVE UPSTREAM_DO_RESOLVE
#define CONNECT UPSTREAM_DO_CONNECT
#define PING    UPSTREAM_DO_PING
#define CLOSE   UPSTREAM_DO_CLOSE
#define KILL    UPSTREAM_DO_KILL
#define TELL    UPSTREAM_DO_TELL
#define ABORT   UPSTREAM_DO_ABORT

static const struct upstream_timing timing = {
	.connect_timeout_ms = CONNECT_MS,
	.ping_interval_ms = PING_MS,
	.pong_timeout_ms = PONG_MS,
};

static struct upstream_fsm f;
static int64_t now_ms;

static void setup(void)
{
	upstream_fsm_init(&f, &timing, 42);
	now_ms = T0;
}

static unsigned int event(enum upstream_event ev)
{
	return upstream_fsm_event(&f, ev, now_ms);
}

static unsigned int timer(void)
{
	ck_assert_int_ge(f.deadline_ms, now_ms);
	now_ms = f.deadline_ms;
	return event(UPSTREAM_EV_TIMER);
}

/* Along the shortest way. */
static void go_to(enum upstream_state s)
{
	setup();
	if (s == UPSTREAM_DOWN)
		return;
	(void)event(UPSTREAM_EV_START);
	if (s == UPSTREAM_WAITING) {
		(void)event(UPSTREAM_EV_FAILED);
	} else if (s != UPSTREAM_RESOLVING) {
		(void)event(UPSTREAM_EV_RESOLVED);
		if (s != UPSTREAM_CONNECTING)
			(void)event(UPSTREAM_EV_ESTABLISHED);
		if (s == UPSTREAM_CLOSING)
			(void)event(UPSTREAM_EV_FAILED);
	}
	ck_assert_int_eq(f.state, s);
}

/* --- the table ------------------------------------------------------------ */

/* clang-format off */
static const struct row {
	enum upstream_state from;
	enum upstream_event ev;
	enum upstream_state to;
	unsigned int actions;
} rows[] = {
	{UPSTREAM_DOWN, UPSTREAM_EV_START, UPSTREAM_RESOLVING, RESOLVE | TELL},
	{UPSTREAM_DOWN, UPSTREAM_EV_STOP, STAY, TELL},
	{UPSTREAM_RESOLVING, UPSTREAM_EV_RESOLVED, UPSTREAM_CONNECTING, CONNECT | TELL},
	{UPSTREAM_RESOLVING, UPSTREAM_EV_FAILED, UPSTREAM_WAITING, TELL},
	{UPSTREAM_RESOLVING, UPSTREAM_EV_STOP, UPSTREAM_DOWN, ABORT | TELL},
	{UPSTREAM_RESOLVING, UPSTREAM_EV_TIMER, UPSTREAM_WAITING, ABORT | TELL},
	{UPSTREAM_CONNECTING, UPSTREAM_EV_ESTABLISHED, UPSTREAM_CONNECTED, TELL},
	{UPSTREAM_CONNECTING, UPSTREAM_EV_FAILED, UPSTREAM_WAITING, TELL},
	{UPSTREAM_CONNECTING, UPSTREAM_EV_CLOSED, UPSTREAM_WAITING, TELL},
	{UPSTREAM_CONNECTING, UPSTREAM_EV_RECONNECT, UPSTREAM_CLOSING, KILL | TELL},
	{UPSTREAM_CONNECTING, UPSTREAM_EV_STOP, UPSTREAM_CLOSING, KILL | TELL},
	{UPSTREAM_CONNECTING, UPSTREAM_EV_TIMER, UPSTREAM_CLOSING, KILL | TELL},
	{UPSTREAM_CONNECTED, UPSTREAM_EV_FRAME, STAY, NONE},
	{UPSTREAM_CONNECTED, UPSTREAM_EV_PONG, STAY, NONE},
	{UPSTREAM_CONNECTED, UPSTREAM_EV_FAILED, UPSTREAM_CLOSING, CLOSE | TELL},
	{UPSTREAM_CONNECTED, UPSTREAM_EV_CLOSED, UPSTREAM_WAITING, TELL},
	{UPSTREAM_CONNECTED, UPSTREAM_EV_RECONNECT, UPSTREAM_CLOSING, CLOSE | TELL},
	{UPSTREAM_CONNECTED, UPSTREAM_EV_STOP, UPSTREAM_CLOSING, CLOSE | TELL},
	{UPSTREAM_CONNECTED, UPSTREAM_EV_TIMER, STAY, PING},
	{UPSTREAM_CLOSING, UPSTREAM_EV_CLOSED, UPSTREAM_WAITING, TELL},
	{UPSTREAM_CLOSING, UPSTREAM_EV_TIMER, STAY, KILL},
	{UPSTREAM_WAITING, UPSTREAM_EV_RECONNECT, UPSTREAM_RESOLVING, RESOLVE | TELL},
	{UPSTREAM_WAITING, UPSTREAM_EV_STOP, UPSTREAM_DOWN, TELL},
	{UPSTREAM_WAITING, UPSTREAM_EV_TIMER, UPSTREAM_RESOLVING, RESOLVE | TELL},
};
/* clang-format on */

static const struct row *find_row(enum upstream_state s, enum upstream_event ev)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (rows[i].from == s && rows[i].ev == ev)
			return &rows[i];
	}
	return NULL;
}

START_TEST(test_table)
{
	enum upstream_state s = (enum upstream_state)(_i / UPSTREAM_EV_COUNT);
	enum upstream_event ev = (enum upstream_event)(_i % UPSTREAM_EV_COUNT);
	const struct row *row = find_row(s, ev);
	enum upstream_state to = row && row->to != STAY ? row->to : s;

	go_to(s);
	ck_assert_uint_eq(ev == UPSTREAM_EV_TIMER && f.deadline_ms >= 0
	                          ? timer()
	                          : event(ev),
	                  row ? row->actions : NONE);
	ck_assert_int_eq(f.state, to);
	/* Every state but rest has a deadline, so nothing waits for ever. */
	if (to == UPSTREAM_DOWN)
		ck_assert_int_eq(f.deadline_ms, -1);
	else
		ck_assert_int_ge(f.deadline_ms, now_ms);
}
END_TEST

/* --- deadlines ------------------------------------------------------------ */

START_TEST(test_timer_early)
{
	for (int s = UPSTREAM_RESOLVING; s < UPSTREAM_STATE_COUNT; s++) {
		go_to((enum upstream_state)s);
		now_ms = f.deadline_ms - 1;
		ck_assert_uint_eq(event(UPSTREAM_EV_TIMER), NONE);
		ck_assert_int_eq(f.state, s);
		now_ms++;
		ck_assert_uint_ne(event(UPSTREAM_EV_TIMER), NONE);
	}
}
END_TEST

START_TEST(test_deadlines)
{
	go_to(UPSTREAM_RESOLVING);
	ck_assert_int_eq(f.deadline_ms, now_ms + ATTEMPT_MS);
	now_ms += 1234;
	(void)event(UPSTREAM_EV_RESOLVED);
	ck_assert_int_eq(f.deadline_ms, now_ms + ATTEMPT_MS);
	(void)event(UPSTREAM_EV_ESTABLISHED);
	ck_assert_int_eq(f.deadline_ms, now_ms + PING_MS);
	(void)event(UPSTREAM_EV_STOP);
	ck_assert_int_eq(f.deadline_ms, now_ms + UPSTREAM_CLOSE_GRACE_MS);
}
END_TEST

/* 1, 2, 4, 8, 16, 30, 30 ... seconds, each within the jitter. */
START_TEST(test_backoff)
{
	static const int64_t want_ms[] = {1000,  2000,  4000, 8000,
	                                  16000, 30000, 30000};
	bool varied = false;
	int64_t delay_ms;

	go_to(UPSTREAM_RESOLVING);
	for (size_t i = 0; i < ARRAY_SIZE(want_ms); i++) {
		ck_assert_int_eq(f.state, UPSTREAM_RESOLVING);
		(void)event(UPSTREAM_EV_FAILED);
		delay_ms = f.deadline_ms - now_ms;
		ck_assert_int_ge(delay_ms * 100,
		                 want_ms[i] * (100 - UPSTREAM_JITTER_PERCENT));
		ck_assert_int_le(delay_ms * 100,
		                 want_ms[i] * (100 + UPSTREAM_JITTER_PERCENT));
		varied |= delay_ms != want_ms[i];
		(void)timer();
	}
	ck_assert(varied);
	ck_assert_uint_eq(f.attempts, ARRAY_SIZE(want_ms) + 1);
	ck_assert_uint_eq(f.failures, ARRAY_SIZE(want_ms));
}
END_TEST

static int64_t delay_after_connection_of(int64_t ms)
{
	setup();
	(void)event(UPSTREAM_EV_START);
	for (int i = 0; i < 3; i++) {
		(void)event(UPSTREAM_EV_FAILED);
		(void)timer();
	}
	(void)event(UPSTREAM_EV_RESOLVED);
	(void)event(UPSTREAM_EV_ESTABLISHED);
	now_ms += ms;
	(void)event(UPSTREAM_EV_CLOSED);
	ck_assert_int_eq(f.state, UPSTREAM_WAITING);
	return f.deadline_ms - now_ms;
}

START_TEST(test_backoff_reset)
{
	/* The fourth delay is 8 s, the first 1 s. */
	ck_assert_int_ge(delay_after_connection_of(UPSTREAM_STABLE_MS - 1),
	                 6000);
	ck_assert_int_le(delay_after_connection_of(UPSTREAM_STABLE_MS), 1200);
}
END_TEST

/* The delay starts over also when the end comes by way of closing. */
START_TEST(test_backoff_reset_closing)
{
	go_to(UPSTREAM_RESOLVING);
	for (int i = 0; i < 4; i++) {
		(void)event(UPSTREAM_EV_FAILED);
		(void)timer();
	}
	(void)event(UPSTREAM_EV_RESOLVED);
	(void)event(UPSTREAM_EV_ESTABLISHED);
	(void)timer();
	(void)timer();
	ck_assert_int_eq(f.state, UPSTREAM_CLOSING);
	(void)event(UPSTREAM_EV_CLOSED);
	ck_assert_int_le(f.deadline_ms - now_ms, 1200);
}
END_TEST

/* --- pings ---------------------------------------------------------------- */

START_TEST(test_ping_pong)
{
	int64_t pinged_ms;

	go_to(UPSTREAM_CONNECTED);
	for (int i = 0; i < 3; i++) {
		ck_assert_uint_eq(timer(), PING);
		pinged_ms = now_ms;
		ck_assert_int_eq(f.deadline_ms, now_ms + PONG_MS);
		now_ms += PONG_MS - 1;
		ck_assert_uint_eq(event(UPSTREAM_EV_PONG), NONE);
		ck_assert_int_eq(f.deadline_ms, pinged_ms + PING_MS);
	}
	/* One that nobody asked for. */
	now_ms += 5;
	(void)event(UPSTREAM_EV_PONG);
	ck_assert_int_eq(f.deadline_ms, pinged_ms + PING_MS);
}
END_TEST

START_TEST(test_pong_overdue)
{
	go_to(UPSTREAM_CONNECTED);
	ck_assert_uint_eq(timer(), PING);
	ck_assert_uint_eq(timer(), CLOSE | TELL);
	ck_assert_int_eq(f.state, UPSTREAM_CLOSING);
	/* A half-open peer does not answer the close either. */
	now_ms += UPSTREAM_CLOSE_GRACE_MS - 1;
	ck_assert_uint_eq(event(UPSTREAM_EV_TIMER), NONE);
	now_ms++;
	ck_assert_uint_eq(event(UPSTREAM_EV_TIMER), KILL);
	ck_assert_int_eq(f.state, UPSTREAM_CLOSING);
	ck_assert_uint_eq(event(UPSTREAM_EV_CLOSED), TELL);
	ck_assert_int_eq(f.state, UPSTREAM_WAITING);
}
END_TEST

START_TEST(test_pong_after_interval)
{
	static const struct upstream_timing slow = {CONNECT_MS, 1000, 5000};

	go_to(UPSTREAM_CONNECTED);
	upstream_fsm_set_timing(&f, &slow, now_ms);
	ck_assert_uint_eq(timer(), PING);
	now_ms += 3000;
	(void)event(UPSTREAM_EV_PONG);
	/* The next one is overdue itself: at once, not in the past. */
	ck_assert_int_eq(f.deadline_ms, now_ms);
	ck_assert_uint_eq(timer(), PING);
}
END_TEST

START_TEST(test_frames_keep_alive)
{
	int64_t ping_ms;

	go_to(UPSTREAM_CONNECTED);
	ping_ms = f.deadline_ms;
	now_ms += 10;
	(void)event(UPSTREAM_EV_FRAME);
	ck_assert_int_eq(f.deadline_ms, ping_ms);
	ck_assert_uint_eq(timer(), PING);
	for (int i = 0; i < 10; i++) {
		now_ms += PONG_MS - 1;
		(void)event(UPSTREAM_EV_FRAME);
		ck_assert_uint_eq(event(UPSTREAM_EV_TIMER), NONE);
	}
	ck_assert_uint_eq(timer(), CLOSE | TELL);
}
END_TEST

START_TEST(test_set_timing)
{
	static const struct upstream_timing fast = {100, 200, 300};

	go_to(UPSTREAM_CONNECTED);
	upstream_fsm_set_timing(&f, &fast, now_ms);
	ck_assert_int_eq(f.deadline_ms, now_ms + 200);
	/* Slower again: the ping that is due stays due. */
	upstream_fsm_set_timing(&f, &timing, now_ms);
	ck_assert_int_eq(f.deadline_ms, now_ms + 200);
	/* With a ping out, the deadline is its pong's. */
	(void)timer();
	upstream_fsm_set_timing(&f, &fast, now_ms);
	ck_assert_int_eq(f.deadline_ms, now_ms + PONG_MS);
	go_to(UPSTREAM_WAITING);
	upstream_fsm_set_timing(&f, &fast, now_ms);
	ck_assert_int_gt(f.deadline_ms, now_ms + 700);
	(void)timer();
	ck_assert_int_eq(f.deadline_ms,
	                 now_ms + 100 + UPSTREAM_ATTEMPT_EXTRA_MS);
}
END_TEST

/* --- reconnect and stop --------------------------------------------------- */

START_TEST(test_reconnect_at_once)
{
	go_to(UPSTREAM_CONNECTED);
	ck_assert_uint_eq(event(UPSTREAM_EV_RECONNECT), CLOSE | TELL);
	/* The old socket lives: nothing is opened, whatever comes. */
	ck_assert_uint_eq(event(UPSTREAM_EV_RECONNECT), NONE);
	ck_assert_uint_eq(event(UPSTREAM_EV_START), NONE);
	ck_assert_uint_eq(event(UPSTREAM_EV_FRAME), NONE);
	ck_assert_uint_eq(event(UPSTREAM_EV_CLOSED), RESOLVE | TELL);
	ck_assert_int_eq(f.state, UPSTREAM_RESOLVING);
	/* That was for once. */
	(void)event(UPSTREAM_EV_FAILED);
	ck_assert_int_eq(f.state, UPSTREAM_WAITING);
	ck_assert_uint_eq(f.connects, 1);
	ck_assert_uint_eq(f.attempts, 2);
}
END_TEST

START_TEST(test_reconnect_while_connecting)
{
	go_to(UPSTREAM_CONNECTING);
	ck_assert_uint_eq(event(UPSTREAM_EV_RECONNECT), KILL | TELL);
	ck_assert_uint_eq(event(UPSTREAM_EV_ESTABLISHED), NONE);
	ck_assert_uint_eq(event(UPSTREAM_EV_CLOSED), RESOLVE | TELL);
}
END_TEST

START_TEST(test_reconnect_while_closing)
{
	go_to(UPSTREAM_CLOSING);
	ck_assert_uint_eq(event(UPSTREAM_EV_RECONNECT), NONE);
	ck_assert_uint_eq(event(UPSTREAM_EV_CLOSED), RESOLVE | TELL);
}
END_TEST

START_TEST(test_stop)
{
	go_to(UPSTREAM_CONNECTED);
	(void)event(UPSTREAM_EV_STOP);
	/* Stop wins over a reconnect that comes later. */
	ck_assert_uint_eq(event(UPSTREAM_EV_RECONNECT), NONE);
	ck_assert_uint_eq(event(UPSTREAM_EV_CLOSED), TELL);
	ck_assert_int_eq(f.state, UPSTREAM_DOWN);
	ck_assert_uint_eq(event(UPSTREAM_EV_START), RESOLVE | TELL);
	ck_assert_uint_eq(event(UPSTREAM_EV_FAILED), TELL);
	ck_assert_int_eq(f.state, UPSTREAM_WAITING);
}
END_TEST

START_TEST(test_stop_after_reconnect)
{
	go_to(UPSTREAM_CONNECTED);
	(void)event(UPSTREAM_EV_RECONNECT);
	ck_assert_uint_eq(event(UPSTREAM_EV_STOP), NONE);
	ck_assert_uint_eq(event(UPSTREAM_EV_CLOSED), TELL);
	ck_assert_int_eq(f.state, UPSTREAM_DOWN);
}
END_TEST

START_TEST(test_stop_then_start)
{
	go_to(UPSTREAM_CONNECTED);
	(void)event(UPSTREAM_EV_STOP);
	ck_assert_uint_eq(event(UPSTREAM_EV_START), NONE);
	ck_assert_uint_eq(event(UPSTREAM_EV_CLOSED), RESOLVE | TELL);
	ck_assert_int_eq(f.state, UPSTREAM_RESOLVING);
}
END_TEST

START_TEST(test_stop_while_connecting)
{
	go_to(UPSTREAM_CONNECTING);
	ck_assert_uint_eq(event(UPSTREAM_EV_STOP), KILL | TELL);
	ck_assert_uint_eq(event(UPSTREAM_EV_CLOSED), TELL);
	ck_assert_int_eq(f.state, UPSTREAM_DOWN);
}
END_TEST

/* --- whatever comes ------------------------------------------------------- */

static uint32_t random_next(uint32_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 17;
	*x ^= *x << 5;
	return *x;
}

/* In any order of events a socket is opened only when there is none, is closed
 * only when there is one, and the machine never forgets one. */
START_TEST(test_one_socket)
{
	uint32_t x = (uint32_t)_i * 2654435761u + 1;
	bool socket = false, query = false, dying = false;
	unsigned int todo;
	enum upstream_event ev;

	for (int i = 0; i < RANDOM_EVENTS; i++) {
		ev = (enum upstream_event)(random_next(&x) % UPSTREAM_EV_COUNT);
		now_ms += random_next(&x) % 4000;
		/* The owner tells no lies. */
		if (ev == UPSTREAM_EV_RESOLVED && !query)
			continue;
		if ((ev == UPSTREAM_EV_ESTABLISHED || ev == UPSTREAM_EV_PONG ||
		     ev == UPSTREAM_EV_FRAME || ev == UPSTREAM_EV_CLOSED) &&
		    !socket)
			continue;
		if (ev == UPSTREAM_EV_FAILED && !query &&
		    f.state != UPSTREAM_CONNECTED)
			continue;
		if (ev == UPSTREAM_EV_CLOSED)
			socket = dying = false;
		if (ev == UPSTREAM_EV_RESOLVED || ev == UPSTREAM_EV_FAILED)
			query = false;
		todo = event(ev);
		if (todo & ABORT) {
			ck_assert(query);
			query = false;
		}
		if (todo & RESOLVE) {
			ck_assert(!socket && !query);
			query = true;
		}
		if (todo & CONNECT) {
			ck_assert(!socket);
			socket = true;
		}
		if (todo & (CLOSE | KILL)) {
			ck_assert(socket);
			dying = true;
		}
		if (todo & PING)
			ck_assert(socket && !dying);
		ck_assert_int_eq(socket,
		                 f.state == UPSTREAM_CONNECTING ||
		                         f.state == UPSTREAM_CONNECTED ||
		                         f.state == UPSTREAM_CLOSING);
		ck_assert_int_eq(query, f.state == UPSTREAM_RESOLVING);
	}
	ck_assert_uint_gt(f.connects, 100);
}
END_TEST

START_TEST(test_names)
{
	static const char *const shown[] = {"down",       "connecting",
	                                    "connecting", "connected",
	                                    "waiting",    "waiting"};

	STATIC_ASSERT_ARRAY_SIZE(shown, UPSTREAM_STATE_COUNT);
	for (int i = 0; i < UPSTREAM_STATE_COUNT; i++)
		ck_assert_str_eq(upstream_state_name((enum upstream_state)i),
		                 shown[i]);
	ck_assert_str_eq(upstream_state_debug_name(UPSTREAM_CLOSING),
	                 "closing");
}
END_TEST

static Suite *upstream_fsm_suite(void)
{
	Suite *s = suite_create("upstream_fsm");
	TCase *t = tcase_create("fsm");

	tcase_add_checked_fixture(t, setup, NULL);
	tcase_add_loop_test(t, test_table, 0,
	                    UPSTREAM_STATE_COUNT * UPSTREAM_EV_COUNT);
	tcase_add_test(t, test_timer_early);
	tcase_add_test(t, test_deadlines);
	tcase_add_test(t, test_backoff);
	tcase_add_test(t, test_backoff_reset);
	tcase_add_test(t, test_backoff_reset_closing);
	tcase_add_test(t, test_ping_pong);
	tcase_add_test(t, test_pong_overdue);
	tcase_add_test(t, test_pong_after_interval);
	tcase_add_test(t, test_frames_keep_alive);
	tcase_add_test(t, test_set_timing);
	tcase_add_test(t, test_reconnect_at_once);
	tcase_add_test(t, test_reconnect_while_connecting);
	tcase_add_test(t, test_reconnect_while_closing);
	tcase_add_test(t, test_stop);
	tcase_add_test(t, test_stop_after_reconnect);
	tcase_add_test(t, test_stop_then_start);
	tcase_add_test(t, test_stop_while_connecting);
	tcase_add_loop_test(t, test_one_socket, 0, 8);
	tcase_add_test(t, test_names);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(upstream_fsm_suite());
}

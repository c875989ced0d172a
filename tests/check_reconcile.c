/*
 * check_reconcile.c - rounds against a made-up ComfyUI: what is asked, in which
 * order, and what is concluded.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "supervisor/reconcile.h"
#include "tests/runner.h"

#define IDS 16

static struct tracker t;
static struct reconcile r;
static int64_t now;

/* What was asked and concluded, as text: Q, H<n>; p<n>@<ahead>, r<n>, e<n>
 * (ended), a<n> (absent), d<n> (deleted), o<count>/<in front>, u (unreachable).
 */
static char story[4096];
static bool refuse_requests;

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
	size_t n = strlen(story);
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(story + n, sizeof(story) - n, fmt, ap);
	va_end(ap);
	(void)strncat(story, " ", sizeof(story) - strlen(story) - 1);
}

/* The story since it was last told. */
static const char *told(void)
{
	static char copy[4096];
	size_t n = strlen(story);

	memcpy(copy, story, n + 1);
	if (n > 0)
		copy[n - 1] = '\0';
	story[0] = '\0';
	return copy;
}

static const char *id_of(int n)
{
	static char id[8][UUID_LEN + 1];
	static int at;

	at = (at + 1) % 8;
	(void)snprintf(id[at], sizeof(id[at]), "00000000-0000-4000-8000-%012d",
	               n);
	return id[at];
}

static int number_of(const struct prompt *p)
{
	return atoi(p->id + 24);
}

static int get_queue(void *user)
{
	if (refuse_requests)
		return -1;
	say("Q");
	return 0;
}

static int get_history(void *user, struct prompt *p)
{
	if (refuse_requests)
		return -1;
	say("H%d", number_of(p));
	return 0;
}

static void event(struct prompt *p, enum prompt_event ev)
{
	enum prompt_state from = p->fsm.state;
	unsigned todo = prompt_fsm_event(&p->fsm, ev, true);

	tracker_moved(&t, p, from, todo & PROMPT_DO_LINE);
}

static void on_pending(void *user, struct prompt *p, int64_t ahead)
{
	say("p%d@%d", number_of(p), (int)ahead);
}

static void on_running(void *user, struct prompt *p)
{
	say("r%d", number_of(p));
}

/* As in earnest: the prompt leaves the books inside the handler. */
static void on_history(void *user, struct prompt *p, struct json entry)
{
	say("e%d", number_of(p));
	tracker_drop(&t, p);
}

static void on_absent(void *user, struct prompt *p, bool deleted)
{
	say(deleted ? "d%d" : "a%d", number_of(p));
	tracker_drop(&t, p);
}

static void on_others(void *user, const struct reconcile_others *o)
{
	if (o->count > 0)
		say("o%zu/%zu", o->count, o->in_front);
}

static void on_unreachable(void *user, const struct error *err)
{
	say("u");
}

static const struct reconcile_handlers handlers = {
	.get_queue = get_queue,
	.get_history = get_history,
	.on_pending = on_pending,
	.on_running = on_running,
	.on_history = on_history,
	.on_absent = on_absent,
	.on_others = on_others,
	.on_unreachable = on_unreachable,
};

static void setup(void)
{
	now = 1000000;
	clock_fake(now);
	story[0] = '\0';
	refuse_requests = false;
	tracker_init(&t);
	reconcile_init(&r, &t, &handlers, NULL, 1);
}

static void teardown(void)
{
	tracker_deinit(&t);
	clock_fake(-1);
}

static struct prompt *find(int n)
{
	return tracker_find(&t, id_of(n), UUID_LEN);
}

static struct prompt *submitted(int n)
{
	struct prompt *p = tracker_add(&t, id_of(n), 1000);

	ck_assert_ptr_nonnull(p);
	event(p, PROMPT_EV_POST);
	event(p, PROMPT_EV_TAKEN);
	return p;
}

/* Answers GET /queue: "r3 p1 p2 px": running and pending in order, x for one
 * that isn't ours. */
static void queue_is(const char *text)
{
	struct comfy_queue_item running[IDS], pending[IDS], *item;
	struct comfy_queue q = {.running = running, .pending = pending};
	char foreign[IDS][UUID_LEN + 1];
	size_t nforeign = 0;

	for (const char *p = text; *p; p++) {
		if (*p != 'r' && *p != 'p')
			continue;
		item = *p == 'r' ? &running[q.running_count++]
		                 : &pending[q.pending_count++];
		memset(item, 0, sizeof(*item));
		if (p[1] == 'x') {
			char *id = foreign[nforeign];

			(void)snprintf(id, UUID_LEN + 1,
			               "ffffffff-0000-4000-8000-%012d",
			               (int)nforeign++);
			item->prompt_id = SPAN(id);
		} else {
			item->prompt_id = SPAN(id_of(atoi(p + 1)));
		}
	}
	reconcile_queue_answer(&r, &q, now);
}

static void queue_fails(void)
{
	struct comfy_queue q = {.r = {.outcome = COMFY_E_UNREACHABLE}};

	reconcile_queue_answer(&r, &q, now);
}

static void history_has(int n, bool entry)
{
	struct comfy_history h = {.entry = JSON_MISSING};

	if (entry)
		ck_assert_int_eq(json_parse(&h.entry, "{}", 2, 0, NULL),
		                 JSON_OK);
	reconcile_history_answer(&r, find(n), &h, now);
}

static void history_fails(int n)
{
	struct comfy_history h = {.r = {.outcome = COMFY_E_UNKNOWN},
	                          .entry = JSON_MISSING};

	reconcile_history_answer(&r, find(n), &h, now);
}

/* On to when it wants to be called; fails if it doesn't. */
static int64_t tick(void)
{
	int64_t waited = r.due_ms - now;

	ck_assert_int_ge(r.due_ms, 0);
	now = r.due_ms;
	clock_fake(now);
	reconcile_tick(&r, now);
	return waited;
}

/* --- rounds --------------------------------------------------------------- */

START_TEST(test_nothing_in_flight_asks_nothing)
{
	reconcile_start(&r);
	ck_assert_str_eq(told(), "");
	ck_assert_int_eq(r.due_ms, -1);
	(void)tracker_add(&t, id_of(1), 1000);
	reconcile_start(&r);
	ck_assert_str_eq(told(), "");
}
END_TEST

START_TEST(test_all_in_the_queue)
{
	submitted(1);
	submitted(2);
	submitted(3);
	reconcile_start(&r);
	ck_assert_str_eq(told(), "Q");
	queue_is("r1 p2 p3");
	ck_assert_str_eq(told(), "r1 p2@1 p3@2");
	ck_assert_int_eq(r.due_ms, -1);
}
END_TEST

START_TEST(test_missing_ones_are_asked_after)
{
	submitted(1);
	submitted(2);
	submitted(3);
	reconcile_start(&r);
	(void)told();
	queue_is("p2");
	ck_assert_str_eq(told(), "p2@0 H1 H3");
	history_has(1, true);
	history_has(3, false);
	ck_assert_str_eq(told(), "e1 d3");
	ck_assert_ptr_null(find(1));
	ck_assert_ptr_nonnull(find(2));
	ck_assert_int_eq(r.due_ms, -1);
}
END_TEST

/* Nothing else shows that ComfyUI was not restarted in between. */
START_TEST(test_deleted_or_lost)
{
	static const struct {
		const char *before, *after, *verdict;
	} rows[] = {
		{"rx p2", "rx", "d2"},
		{"rx p2", "", "a2"},
		{"rx p2", "r3", "a2"},
		{"r3 p2", "r3", "d2"},
		{"r2 p3", "r3", "a2"},
		{"rx", "rx", "a2"},
		{"r3 px p2", "rx", "a2"},
		/* One that is older and there still is enough. */
		{"", "r1", "d2"},
		{"", "p1", "d2"},
	};
	const char *verdict;

	for (int i = 1; i <= 3; i++)
		submitted(i);
	if (rows[_i].before[0] != '\0') {
		reconcile_look(&r);
		queue_is(rows[_i].before);
	}
	reconcile_start(&r);
	queue_is(rows[_i].after);
	(void)told();
	history_has(2, false);
	verdict = told();
	ck_assert_msg(strncmp(verdict, rows[_i].verdict, 2) == 0, "%s",
	              verdict);
}
END_TEST

/* After a restart of ours the list need not be in the order of posting. */
START_TEST(test_older_one_of_an_earlier_process)
{
	submitted(1)->fsm.posted = _i == 1;
	submitted(2)->fsm.posted = _i == 0;
	reconcile_start(&r);
	queue_is("r1");
	history_has(2, false);
	ck_assert_str_eq(told(), "Q r1 H2 a2");
}
END_TEST

START_TEST(test_few_questions_at_once)
{
	for (int i = 0; i < 7; i++)
		submitted(i);
	reconcile_start(&r);
	(void)told();
	queue_is("");
	ck_assert_str_eq(told(), "H0 H1 H2 H3");
	ck_assert_uint_eq(r.asking, RECONCILE_ASKS_MAX);
	history_has(2, true);
	ck_assert_str_eq(told(), "e2 H4");
	history_has(0, true);
	history_has(1, true);
	history_has(3, true);
	history_has(4, true);
	ck_assert_str_eq(told(), "e0 H5 e1 H6 e3 e4");
	history_has(5, true);
	history_has(6, true);
	ck_assert_uint_eq(r.asking, 0);
}
END_TEST

START_TEST(test_posted_since_is_not_judged)
{
	submitted(1);
	reconcile_start(&r);
	submitted(2);
	(void)told();
	queue_is("");
	/* Prompt 2 was posted after the question. */
	ck_assert_str_eq(told(), "H1");
	history_has(1, false);
	ck_assert_str_eq(told(), "a1");
	ck_assert_ptr_nonnull(find(2));
}
END_TEST

START_TEST(test_a_post_under_way_is_not_judged)
{
	struct prompt *p = tracker_add(&t, id_of(1), 1000);

	event(p, PROMPT_EV_POST);
	reconcile_start(&r);
	ck_assert_str_eq(told(), "");
	submitted(2);
	reconcile_start(&r);
	queue_is("p2");
	ck_assert_str_eq(told(), "Q p2@0");
}
END_TEST

START_TEST(test_checking_is_looked_up)
{
	struct prompt *p = tracker_add(&t, id_of(1), 1000);

	event(p, PROMPT_EV_POST);
	event(p, PROMPT_EV_UNANSWERED);
	reconcile_start(&r);
	queue_is("");
	ck_assert_str_eq(told(), "Q H1");
	history_has(1, false);
	ck_assert_str_eq(told(), "a1");
}
END_TEST

START_TEST(test_ended_meanwhile)
{
	struct prompt *p = submitted(1);

	submitted(2);
	reconcile_start(&r);
	(void)told();
	queue_is("");
	ck_assert_str_eq(told(), "H1 H2");
	tracker_drop(&t, p);
	history_has(1, true); /* nobody's any more */
	ck_assert_str_eq(told(), "");
	history_has(2, true);
	ck_assert_str_eq(told(), "e2");
}
END_TEST

/* A POST that was not answered is taken in after all, while it is looked up:
 * the answers are older than that. */
START_TEST(test_heard_of_meanwhile)
{
	struct prompt *p = tracker_add(&t, id_of(1), 1000);

	event(p, PROMPT_EV_POST);
	event(p, PROMPT_EV_UNANSWERED);
	reconcile_start(&r);
	if (_i == 0) {
		reconcile_heard(&r, p);
		queue_is("");
		ck_assert_str_eq(told(), "Q");
		ck_assert_int_eq(r.due_ms, -1);
		return;
	}
	queue_is("");
	ck_assert_str_eq(told(), "Q H1");
	reconcile_heard(&r, p);
	history_has(1, _i == 2);
	if (_i == 2) {
		ck_assert_str_eq(told(), "e1");
		return;
	}
	ck_assert_str_eq(told(), "");
	/* Another round judges it. */
	ck_assert_int_eq(tick(), 0);
	queue_is("");
	history_has(1, false);
	ck_assert_str_eq(told(), "Q H1 a1");
}
END_TEST

/* As above, one that was not asked after yet. */
START_TEST(test_heard_of_while_waiting_to_be_asked)
{
	for (int i = 0; i < 5; i++)
		submitted(i);
	reconcile_start(&r);
	queue_is("");
	reconcile_heard(&r, find(4));
	(void)told();
	for (int i = 0; i < 5; i++)
		history_has(i, i < 4);
	ck_assert_str_eq(told(), "e0 H4 e1 e2 e3");
	ck_assert_int_eq(tick(), 0);
	queue_is("r4");
	ck_assert_str_eq(told(), "Q r4");
}
END_TEST

/* One that waits to be asked after, when it ends by an event. */
START_TEST(test_ended_while_waiting_to_be_asked)
{
	for (int i = 0; i < 6; i++)
		submitted(i);
	reconcile_start(&r);
	queue_is("");
	(void)told();
	tracker_drop(&t, find(4));
	history_has(0, true);
	ck_assert_str_eq(told(), "e0 H5");
}
END_TEST

/* --- ids that the server chose -------------------------------------------- */

/* Answers GET /queue: one that runs, "theirs", which says whose it is. */
static void queue_has_marked(int n)
{
	struct comfy_queue_item item = {.prompt_id = SPAN("theirs")};
	struct comfy_queue q = {.running = &item, .running_count = 1};
	char text[256];

	(void)snprintf(text, sizeof(text),
	               "[1,\"theirs\",{},{\"comfymux\":{\"prompt_id\":\"%s\"}}"
	               ",[]]",
	               id_of(n));
	ck_assert_int_eq(json_parse(&item.item, text, strlen(text), 0, NULL),
	                 JSON_OK);
	reconcile_queue_answer(&r, &q, now);
}

static struct prompt *unanswered(int n)
{
	struct prompt *p = tracker_add(&t, id_of(n), 1000);

	event(p, PROMPT_EV_POST);
	event(p, PROMPT_EV_UNANSWERED);
	return p;
}

START_TEST(test_marked)
{
	struct prompt *p = unanswered(1);

	reconcile_start(&r);
	queue_has_marked(1);
	ck_assert_str_eq(told(), "Q r1");
	ck_assert_str_eq(prompt_remote_id(p), "theirs");
	ck_assert_ptr_eq(tracker_find_remote(&t, SPAN("theirs")), p);
	/* Events of it may have passed unnoticed. */
	ck_assert(p->fsm.gap);
}
END_TEST

/* Only one whose POST was not answered can be meant. */
START_TEST(test_marked_but_answered)
{
	struct prompt *p = submitted(1);

	reconcile_start(&r);
	queue_has_marked(1);
	ck_assert_str_eq(told(), "Q o1/0 H1");
	ck_assert_str_eq(prompt_remote_id(p), id_of(1));
	ck_assert(!p->fsm.gap);
}
END_TEST

START_TEST(test_marked_for_two)
{
	struct prompt *p = unanswered(1);

	(void)submitted(2);
	ck_assert_int_eq(reconcile_adopt(&r, p, id_of(2)), -EEXIST);
	ck_assert_int_eq(reconcile_adopt(&r, p, "theirs"), 0);
	ck_assert_int_eq(reconcile_adopt(&r, p, "another"), -EEXIST);
}
END_TEST

/* --- others --------------------------------------------------------------- */

START_TEST(test_others)
{
	submitted(1);
	submitted(2);
	reconcile_look(&r);
	ck_assert_str_eq(told(), "Q");
	queue_is("rx p1 px p2 px px");
	ck_assert_str_eq(told(), "o4/2 p1@1 p2@3");
	reconcile_look(&r);
	(void)told();
	queue_is("r1 p2 px");
	ck_assert_str_eq(told(), "o1/0 r1 p2@1");
}
END_TEST

START_TEST(test_a_look_judges_nobody)
{
	submitted(1);
	reconcile_look(&r);
	queue_is("");
	ck_assert_str_eq(told(), "Q");
	ck_assert_ptr_nonnull(find(1));
	ck_assert_int_eq(r.due_ms, -1);
}
END_TEST

/* --- one question at a time ----------------------------------------------- */

START_TEST(test_never_two_queue_requests)
{
	submitted(1);
	reconcile_start(&r);
	reconcile_start(&r);
	reconcile_look(&r);
	reconcile_look(&r);
	reconcile_start(&r);
	ck_assert_str_eq(told(), "Q");
	/* What was wanted meanwhile follows, once each. */
	queue_is("p1");
	ck_assert_str_eq(told(), "p1@0 Q");
	queue_is("p1");
	ck_assert_str_eq(told(), "p1@0 Q");
	queue_is("p1");
	ck_assert_str_eq(told(), "p1@0");
}
END_TEST

START_TEST(test_ask_for_one)
{
	struct prompt *p = submitted(1);

	reconcile_ask(&r, p);
	reconcile_ask(&r, p);
	ck_assert_str_eq(told(), "H1");
	/* A round meanwhile waits, and doesn't ask again. */
	reconcile_start(&r);
	ck_assert_str_eq(told(), "");
	history_has(1, true);
	ck_assert_str_eq(told(), "e1");
}
END_TEST

START_TEST(test_a_round_does_not_repeat_a_question)
{
	struct prompt *p = submitted(1);

	submitted(2);
	reconcile_start(&r);
	reconcile_ask(&r, p);
	ck_assert_str_eq(told(), "Q H1");
	queue_is("");
	ck_assert_str_eq(told(), "H2");
	history_has(1, true);
	history_has(2, true);
	ck_assert_str_eq(told(), "e1 e2");
}
END_TEST

/* --- errors and polling --------------------------------------------------- */

START_TEST(test_errors_are_retried_ever_later)
{
	int64_t last = 0, waited;

	submitted(1);
	reconcile_start(&r);
	for (int i = 0; i < 12; i++) {
		queue_fails();
		ck_assert_str_eq(told(), "Q u");
		waited = tick();
		ck_assert_int_gt(waited, 0);
		ck_assert_int_le(waited, 33000);
		if (i > 0 && i < 5)
			ck_assert_int_gt(waited, last);
		last = waited;
	}
	ck_assert_int_ge(last, 27000);
	/* Once it answers the delays begin anew. */
	queue_is("p1");
	ck_assert_int_eq(r.due_ms, -1);
	reconcile_start(&r);
	queue_fails();
	ck_assert_int_lt(tick(), 2000);
}
END_TEST

START_TEST(test_history_errors_are_retried)
{
	submitted(1);
	submitted(2);
	reconcile_start(&r);
	queue_is("");
	(void)told();
	history_fails(1);
	history_has(2, true);
	ck_assert_str_eq(told(), "u e2");
	ck_assert_ptr_nonnull(find(1));
	(void)tick();
	queue_is("");
	ck_assert_str_eq(told(), "Q H1");
	history_has(1, false);
	ck_assert_str_eq(told(), "a1");
}
END_TEST

START_TEST(test_requests_that_cannot_start)
{
	submitted(1);
	refuse_requests = true;
	reconcile_start(&r);
	ck_assert_int_ge(r.due_ms, 0);
	refuse_requests = false;
	(void)tick();
	ck_assert_str_eq(told(), "Q");
	refuse_requests = true;
	queue_is("");
	ck_assert_ptr_nonnull(find(1));
	refuse_requests = false;
	(void)tick();
	queue_is("");
	ck_assert_str_eq(told(), "Q H1");
}
END_TEST

START_TEST(test_polling)
{
	submitted(1);
	reconcile_set_polling(&r, 1000, now);
	for (int i = 0; i < 5; i++) {
		int64_t waited = tick();

		ck_assert_int_ge(waited, 900);
		ck_assert_int_le(waited, 1100);
		ck_assert_str_eq(told(), "Q");
		queue_is("p1");
		ck_assert_str_eq(told(), "p1@0");
	}
	reconcile_set_polling(&r, 0, now);
	(void)tick();
	queue_is("p1");
	ck_assert_int_eq(r.due_ms, -1);
}
END_TEST

START_TEST(test_polling_stops_and_resumes)
{
	reconcile_set_polling(&r, 1000, now);
	(void)tick();
	/* Nothing in flight: no question, and no clock. */
	ck_assert_str_eq(told(), "");
	ck_assert_int_eq(r.due_ms, -1);
	submitted(1);
	reconcile_in_flight(&r, now);
	(void)tick();
	ck_assert_str_eq(told(), "Q");
}
END_TEST

START_TEST(test_sooner_wins)
{
	submitted(1);
	reconcile_set_polling(&r, 10000, now);
	reconcile_soon(&r, 100, now);
	ck_assert_int_eq(tick(), 100);
	ck_assert_str_eq(told(), "Q");
}
END_TEST

START_TEST(test_aliases)
{
	struct comfy_queue_item item = {.prompt_id = SPAN("theirs")};
	struct comfy_queue q = {.pending = &item, .pending_count = 1};
	struct prompt *p = submitted(1);

	ck_assert_int_eq(tracker_alias(&t, p, "theirs"), 0);
	reconcile_start(&r);
	reconcile_queue_answer(&r, &q, now);
	ck_assert_str_eq(told(), "Q p1@0");
}
END_TEST

static Suite *reconcile_suite(void)
{
	Suite *s = suite_create("reconcile");
	TCase *c = tcase_create("all");

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, test_nothing_in_flight_asks_nothing);
	tcase_add_test(c, test_all_in_the_queue);
	tcase_add_test(c, test_missing_ones_are_asked_after);
	tcase_add_loop_test(c, test_deleted_or_lost, 0, 9);
	tcase_add_loop_test(c, test_older_one_of_an_earlier_process, 0, 2);
	tcase_add_test(c, test_few_questions_at_once);
	tcase_add_test(c, test_posted_since_is_not_judged);
	tcase_add_test(c, test_a_post_under_way_is_not_judged);
	tcase_add_test(c, test_checking_is_looked_up);
	tcase_add_loop_test(c, test_heard_of_meanwhile, 0, 3);
	tcase_add_test(c, test_heard_of_while_waiting_to_be_asked);
	tcase_add_test(c, test_ended_meanwhile);
	tcase_add_test(c, test_ended_while_waiting_to_be_asked);
	tcase_add_test(c, test_marked);
	tcase_add_test(c, test_marked_but_answered);
	tcase_add_test(c, test_marked_for_two);
	tcase_add_test(c, test_others);
	tcase_add_test(c, test_a_look_judges_nobody);
	tcase_add_test(c, test_never_two_queue_requests);
	tcase_add_test(c, test_ask_for_one);
	tcase_add_test(c, test_a_round_does_not_repeat_a_question);
	tcase_add_test(c, test_errors_are_retried_ever_later);
	tcase_add_test(c, test_history_errors_are_retried);
	tcase_add_test(c, test_requests_that_cannot_start);
	tcase_add_test(c, test_polling);
	tcase_add_test(c, test_polling_stops_and_resumes);
	tcase_add_test(c, test_sooner_wins);
	tcase_add_test(c, test_aliases);
	suite_add_tcase(s, c);
	return s;
}

int main(void)
{
	return runner_run(reconcile_suite());
}

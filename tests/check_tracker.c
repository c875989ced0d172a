/*
 * check_tracker.c - the books: who is where, under which id, and nothing left
 * behind.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/tracker.h"
#include "tests/runner.h"

static struct tracker t;

static void setup(void)
{
	tracker_init(&t);
}

static void teardown(void)
{
	tracker_deinit(&t);
	tracker_deinit(&t);
	ck_assert_uint_eq(t.by_id.count, 0);
	ck_assert_uint_eq(t.active, 0);
	ck_assert_uint_eq(t.outstanding_count, 0);
	ck_assert_uint_eq(t.executing_count, 0);
	ck_assert_uint_eq(t.checking_count, 0);
	ck_assert_uint_eq(t.queue.waiting, 0);
}

static const char *id_of(int n)
{
	static char id[UUID_LEN + 1];

	(void)snprintf(id, sizeof(id), "00000000-0000-4000-8000-%012d", n);
	return id;
}

static struct prompt *add(int n, uid_t uid)
{
	struct prompt *p = tracker_add(&t, id_of(n), uid);

	ck_assert_ptr_nonnull(p);
	return p;
}

static void event(struct prompt *p, enum prompt_event ev)
{
	enum prompt_state from = p->fsm.state;
	unsigned todo = prompt_fsm_event(&p->fsm, ev, true);

	tracker_moved(&t, p, from, todo & PROMPT_DO_LINE);
}

static struct prompt *find(int n)
{
	return tracker_find(&t, id_of(n), UUID_LEN);
}

START_TEST(test_add_and_find)
{
	struct prompt *p = add(1, 1000);

	ck_assert_ptr_eq(find(1), p);
	ck_assert_ptr_null(find(2));
	ck_assert_str_eq(p->id, id_of(1));
	ck_assert_uint_eq(p->tenant->uid, 1000);
	ck_assert_uint_eq(p->tenant->prompt_count, 1);
	ck_assert_uint_eq(t.active, 1);
	ck_assert_uint_eq(t.queue.waiting, 1);
	ck_assert_ptr_eq(queue_peek(&t.queue), &p->turn);
	ck_assert_str_eq(progress_get(p->progress)->prompt_id, id_of(1));
	tracker_drop(&t, p);
	ck_assert_ptr_null(find(1));
	ck_assert_ptr_null(tracker_find_tenant(&t, 1000));
}
END_TEST

START_TEST(test_a_whole_life)
{
	struct prompt *p = add(1, 1000);
	size_t in_flight = 1;

	p->in_flight = &in_flight;
	event(p, PROMPT_EV_POST);
	ck_assert_uint_eq(t.queue.waiting, 0);
	ck_assert_uint_eq(t.outstanding_count, 1);
	event(p, PROMPT_EV_TAKEN);
	ck_assert_uint_eq(t.outstanding_count, 1);
	event(p, PROMPT_EV_STARTED);
	ck_assert_uint_eq(t.executing_count, 1);
	event(p, PROMPT_EV_OVER);
	ck_assert_uint_eq(t.executing_count, 0);
	ck_assert_uint_eq(t.outstanding_count, 0);
	ck_assert_uint_eq(t.active, 0);
	ck_assert_uint_eq(in_flight, 0);
	ck_assert_ptr_null(p->in_flight);
	ck_assert(list_empty(&t.outstanding));
	/* It stays findable until it is dropped. */
	ck_assert_ptr_eq(find(1), p);
}
END_TEST

START_TEST(test_back_to_the_front)
{
	struct prompt *a = add(1, 1000);

	add(2, 1000);
	event(a, PROMPT_EV_POST);
	a->fsm.hold = true;
	event(a, PROMPT_EV_UNREACHED);
	ck_assert_int_eq(a->fsm.state, PROMPT_ACCEPTED);
	ck_assert_ptr_eq(queue_peek(&t.queue), &a->turn);
	ck_assert_uint_eq(t.queue.waiting, 2);
	ck_assert_uint_eq(t.outstanding_count, 0);
}
END_TEST

START_TEST(test_checking_is_counted)
{
	struct prompt *p = add(1, 1000);

	event(p, PROMPT_EV_POST);
	event(p, PROMPT_EV_UNANSWERED);
	ck_assert_uint_eq(t.checking_count, 1);
	event(p, PROMPT_EV_PENDING);
	ck_assert_uint_eq(t.checking_count, 0);
	ck_assert_uint_eq(t.outstanding_count, 1);
}
END_TEST

START_TEST(test_order_of_posting)
{
	struct prompt *a = add(1, 1000), *b = add(2, 1001);

	event(b, PROMPT_EV_POST);
	event(a, PROMPT_EV_POST);
	ck_assert_ptr_eq(list_first(&t.outstanding, struct prompt, by_post), b);
	event(b, PROMPT_EV_REFUSED);
	ck_assert_ptr_eq(list_first(&t.outstanding, struct prompt, by_post), a);
}
END_TEST

START_TEST(test_alias)
{
	struct prompt *p = add(1, 1000), *other = add(2, 1000);

	ck_assert_ptr_eq(tracker_find_remote(&t, SPAN(id_of(1))), p);
	ck_assert_str_eq(prompt_remote_id(p), p->id);
	ck_assert_int_eq(tracker_alias(&t, p, "their-id"), 0);
	ck_assert_int_eq(tracker_alias(&t, p, "their-id"), 0);
	ck_assert_int_eq(tracker_alias(&t, p, "another"), -EEXIST);
	ck_assert_int_eq(tracker_alias(&t, other, "their-id"), -EEXIST);
	ck_assert_ptr_null(other->remote_id);
	ck_assert_ptr_eq(tracker_find_remote(&t, SPAN("their-id")), p);
	/* ComfyUI doesn't know it by ours. */
	ck_assert_ptr_null(tracker_find_remote(&t, SPAN(p->id)));
	/* Clients do. */
	ck_assert_ptr_eq(find(1), p);
	ck_assert_str_eq(prompt_remote_id(p), "their-id");
	tracker_drop(&t, p);
	ck_assert_ptr_null(tracker_find_remote(&t, SPAN("their-id")));
	ck_assert_int_eq(tracker_alias(&t, other, "their-id"), 0);
}
END_TEST

START_TEST(test_foreign_ids)
{
	struct span none = {NULL, 0};

	add(1, 1000);
	ck_assert_ptr_null(tracker_find_remote(&t, SPAN("")));
	ck_assert_ptr_null(tracker_find_remote(&t, none));
	ck_assert_ptr_null(tracker_find_remote(&t, SPAN("x")));
	ck_assert_ptr_null(tracker_find_remote(&t, SPAN(id_of(2))));
}
END_TEST

START_TEST(test_tenants_live_while_needed)
{
	struct tenant *who = tracker_tenant(&t, 1000);
	struct prompt *p;

	ck_assert_ptr_nonnull(who);
	ck_assert_ptr_eq(tracker_tenant(&t, 1000), who);
	who->peer_count++;
	p = add(1, 1000);
	ck_assert_ptr_eq(p->tenant, who);
	tracker_drop(&t, p);
	ck_assert_ptr_eq(tracker_find_tenant(&t, 1000), who);
	who->job_count++;
	who->peer_count--;
	tracker_release_tenant(&t, who);
	ck_assert_ptr_eq(tracker_find_tenant(&t, 1000), who);
	ck_assert_uint_eq(tenant_usage(who)->used[LIMIT_JOBS], 1);
	who->job_count--;
	tracker_release_tenant(&t, who);
	ck_assert_ptr_null(tracker_find_tenant(&t, 1000));
}
END_TEST

START_TEST(test_restore)
{
	static const struct {
		enum prompt_state was, is;
		size_t waiting, outstanding, checking;
	} rows[] = {
		{PROMPT_ACCEPTED, PROMPT_ACCEPTED, 1, 0, 0},
		{PROMPT_POSTING, PROMPT_CHECKING, 0, 1, 1},
		{PROMPT_SUBMITTED, PROMPT_SUBMITTED, 0, 1, 0},
	};
	struct prompt *p;

	p = tracker_restore(&t, id_of(1), 1000, rows[_i].was);
	ck_assert_ptr_nonnull(p);
	ck_assert_int_eq(p->fsm.state, rows[_i].is);
	ck_assert_uint_eq(t.queue.waiting, rows[_i].waiting);
	ck_assert_uint_eq(t.outstanding_count, rows[_i].outstanding);
	ck_assert_uint_eq(t.checking_count, rows[_i].checking);
	ck_assert_uint_eq(t.active, 1);
}
END_TEST

START_TEST(test_watched)
{
	struct prompt *p = add(1, 1000);
	struct subscriber s;

	subscriber_init(&s);
	ck_assert(!tracker_watched(&t, p));
	ck_assert_int_eq(subscription_add(&p->subject, &s), 0);
	ck_assert(tracker_watched(&t, p));
	subscriber_clear(&s);
	ck_assert_int_eq(subscription_add(&p->tenant->all, &s), 0);
	ck_assert(tracker_watched(&t, p));
	subscriber_clear(&s);
	ck_assert_int_eq(subscription_add(&t.everything, &s), 0);
	ck_assert(tracker_watched(&t, p));
	subscriber_clear(&s);
	/* One that goes takes its subscriptions along. */
	ck_assert_int_eq(subscription_add(&p->subject, &s), 0);
	tracker_drop(&t, p);
	ck_assert_uint_eq(s.count, 0);
}
END_TEST

/* Random lives of many: counts match the states throughout. */
START_TEST(test_random_lives)
{
	struct prompt *p[50] = {0};

	srand(3);
	for (int step = 0; step < 20000; step++) {
		size_t want[PROMPT_STATE_COUNT] = {0};
		int n = rand() % 50;

		if (!p[n]) {
			p[n] = rand() % 4 ? add(n, 1000 + (uid_t)(n % 3))
			                  : tracker_restore(
						    &t, id_of(n), 1000,
						    (enum prompt_state)(rand() %
			                                                2 * 3));
		} else if (p[n]->fsm.state == PROMPT_ENDED || !(rand() % 50)) {
			tracker_drop(&t, p[n]);
			p[n] = NULL;
		} else {
			event(p[n],
			      (enum prompt_event)(rand() % PROMPT_EV_COUNT));
		}
		for (int i = 0; i < 50; i++) {
			if (p[i])
				want[p[i]->fsm.state]++;
		}
		ck_assert_uint_eq(t.queue.waiting, want[PROMPT_ACCEPTED]);
		ck_assert_uint_eq(t.checking_count, want[PROMPT_CHECKING]);
		ck_assert_uint_eq(t.executing_count, want[PROMPT_EXECUTING]);
		ck_assert_uint_eq(t.outstanding_count,
		                  want[PROMPT_POSTING] + want[PROMPT_CHECKING] +
		                          want[PROMPT_SUBMITTED] +
		                          want[PROMPT_EXECUTING]);
		ck_assert_uint_eq(t.active,
		                  t.queue.waiting + t.outstanding_count);
	}
}
END_TEST

static Suite *tracker_suite(void)
{
	Suite *s = suite_create("tracker");
	TCase *c = tcase_create("all");

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, test_add_and_find);
	tcase_add_test(c, test_a_whole_life);
	tcase_add_test(c, test_back_to_the_front);
	tcase_add_test(c, test_checking_is_counted);
	tcase_add_test(c, test_order_of_posting);
	tcase_add_test(c, test_alias);
	tcase_add_test(c, test_foreign_ids);
	tcase_add_test(c, test_tenants_live_while_needed);
	tcase_add_loop_test(c, test_restore, 0, 3);
	tcase_add_test(c, test_watched);
	tcase_add_test(c, test_random_lives);
	suite_add_tcase(s, c);
	return s;
}

int main(void)
{
	return runner_run(tracker_suite());
}

/*
 * check_queue.c - turns between tenants.
 */
#include <stdlib.h>
#include <string.h>

#include "supervisor/queue.h"
#include "tests/runner.h"

#define ENTRIES 12

struct item {
	struct queue_entry e;
	char name;
};

static struct queue q;
static struct queue_line lines[3];
static struct item items[ENTRIES];

static void setup(void)
{
	queue_init(&q);
	for (int i = 0; i < 3; i++)
		queue_line_init(&lines[i]);
	for (int i = 0; i < ENTRIES; i++) {
		queue_entry_init(&items[i].e);
		items[i].name = (char)('a' + i);
	}
}

static void append(int line, int item)
{
	queue_append(&q, &lines[line], &items[item].e);
}

static char name_of(struct queue_entry *e)
{
	return e ? list_entry(&e->link, struct item, e.link)->name : '-';
}

/* Takes all; their names in order. */
static const char *drain(void)
{
	static char out[ENTRIES + 1];
	struct queue_entry *e;
	size_t n = 0;

	while ((e = queue_take(&q)))
		out[n++] = name_of(e);
	out[n] = '\0';
	return out;
}

START_TEST(test_empty)
{
	ck_assert_ptr_null(queue_peek(&q));
	ck_assert_ptr_null(queue_take(&q));
	ck_assert_uint_eq(q.waiting, 0);
}
END_TEST

START_TEST(test_one_line_is_fifo)
{
	for (int i = 0; i < 5; i++)
		append(0, i);
	ck_assert_uint_eq(q.waiting, 5);
	ck_assert_str_eq(drain(), "abcde");
	ck_assert_uint_eq(q.waiting, 0);
}
END_TEST

START_TEST(test_round_robin)
{
	/* The first submits four before anybody else comes. */
	for (int i = 0; i < 4; i++)
		append(0, i); /* abcd */
	append(1, 4);         /* e */
	append(1, 5);         /* f */
	append(2, 6);         /* g */
	ck_assert_str_eq(drain(), "aegbfcd");
}
END_TEST

START_TEST(test_a_newcomer_is_next)
{
	for (int i = 0; i < 4; i++)
		append(0, i);
	ck_assert_int_eq(name_of(queue_take(&q)), 'a');
	append(1, 4);
	append(2, 5);
	append(1, 6);
	ck_assert_str_eq(drain(), "efbgcd");
}
END_TEST

/* One prompt at a time, each after the end of the one before, wins no more
 * than every other turn. */
START_TEST(test_coming_back_is_no_advantage)
{
	for (int i = 0; i < 4; i++)
		append(0, i);
	append(1, 4);
	ck_assert_int_eq(name_of(queue_take(&q)), 'a');
	ck_assert_int_eq(name_of(queue_take(&q)), 'e');
	append(1, 5);
	ck_assert_int_eq(name_of(queue_take(&q)), 'b');
	ck_assert_int_eq(name_of(queue_take(&q)), 'f');
	/* Away while the other had a turn: then it is first. */
	ck_assert_int_eq(name_of(queue_take(&q)), 'c');
	append(1, 6);
	ck_assert_str_eq(drain(), "gd");
}
END_TEST

START_TEST(test_returned_is_next)
{
	append(0, 0);
	append(0, 1);
	append(1, 2);
	ck_assert_int_eq(name_of(queue_take(&q)), 'a');
	queue_return(&q, &lines[0], &items[0].e);
	ck_assert_int_eq(name_of(queue_peek(&q)), 'a');
	ck_assert_uint_eq(q.waiting, 3);
	/* Its line had its turn then. */
	ck_assert_str_eq(drain(), "acb");
}
END_TEST

START_TEST(test_returned_to_an_empty_line)
{
	append(0, 0);
	append(1, 1);
	(void)queue_take(&q);
	queue_return(&q, &lines[0], &items[0].e);
	ck_assert_str_eq(drain(), "ab");
}
END_TEST

START_TEST(test_remove)
{
	append(0, 0);
	append(0, 1);
	append(1, 2);
	queue_remove(&q, &items[0].e);
	ck_assert_uint_eq(q.waiting, 2);
	queue_remove(&q, &items[0].e);
	ck_assert_uint_eq(q.waiting, 2);
	queue_remove(&q, &items[2].e);
	ck_assert_str_eq(drain(), "b");
	/* A line that ran empty can be used again. */
	append(1, 2);
	ck_assert_str_eq(drain(), "c");
}
END_TEST

static bool on_walk(void *user, struct queue_entry *e)
{
	char *out = user;
	size_t n = strlen(out);

	out[n] = name_of(e);
	return n < 5;
}

START_TEST(test_walk_is_the_order_of_taking)
{
	char walked[ENTRIES + 1] = "";

	queue_walk(&q, on_walk, walked);
	ck_assert_str_eq(walked, "");
	append(0, 0);
	append(0, 1);
	append(0, 2);
	append(1, 3);
	append(2, 4);
	queue_walk(&q, on_walk, walked);
	ck_assert_str_eq(walked, "adebc");
	/* Nothing has moved. */
	ck_assert_uint_eq(q.waiting, 5);
	memset(walked, 0, sizeof(walked));
	queue_walk(&q, on_walk, walked);
	ck_assert_str_eq(walked, drain());
}
END_TEST

START_TEST(test_walk_stops)
{
	char walked[ENTRIES + 1] = "";

	for (int i = 0; i < 9; i++)
		append(i % 3, i);
	queue_walk(&q, on_walk, walked);
	ck_assert_str_eq(walked, "abcdef");
	memset(walked, 0, sizeof(walked));
	queue_walk(&q, on_walk, walked);
	ck_assert_str_eq(walked, "abcdef");
}
END_TEST

START_TEST(test_peek_stays)
{
	append(0, 0);
	ck_assert_int_eq(name_of(queue_peek(&q)), 'a');
	ck_assert_int_eq(name_of(queue_peek(&q)), 'a');
	ck_assert_uint_eq(q.waiting, 1);
}
END_TEST

/* Nobody waits longer than one turn of each other line, whatever is done. */
START_TEST(test_fair_under_random_use)
{
	unsigned taken[3] = {0}, turns_waited[3] = {0};

	srand(7);
	for (int step = 0; step < 20000; step++) {
		int line = rand() % 3, item = line * 4 + rand() % 4;
		struct queue_entry *e = &items[item].e;

		if (!e->line && rand() % 2) {
			queue_append(&q, &lines[line], e);
			continue;
		}
		e = queue_take(&q);
		if (!e)
			continue;
		line = (name_of(e) - 'a') / 4;
		taken[line]++;
		for (int i = 0; i < 3; i++) {
			if (i == line || list_empty(&lines[i].entries))
				turns_waited[i] = 0;
			else
				turns_waited[i]++;
			ck_assert_uint_le(turns_waited[i], 2);
		}
	}
	for (int i = 0; i < 3; i++)
		ck_assert_uint_gt(taken[i], 100);
}
END_TEST

static Suite *queue_suite(void)
{
	Suite *s = suite_create("queue");
	TCase *t = tcase_create("all");

	tcase_add_checked_fixture(t, setup, NULL);
	tcase_add_test(t, test_empty);
	tcase_add_test(t, test_one_line_is_fifo);
	tcase_add_test(t, test_round_robin);
	tcase_add_test(t, test_a_newcomer_is_next);
	tcase_add_test(t, test_coming_back_is_no_advantage);
	tcase_add_test(t, test_returned_is_next);
	tcase_add_test(t, test_returned_to_an_empty_line);
	tcase_add_test(t, test_remove);
	tcase_add_test(t, test_walk_is_the_order_of_taking);
	tcase_add_test(t, test_walk_stops);
	tcase_add_test(t, test_peek_stays);
	tcase_add_test(t, test_fair_under_random_use);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(queue_suite());
}

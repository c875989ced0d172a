/*
 * check_client_queue.c - what waits for a slow client: folding, bounds, the
 * counted gap.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/client_queue.h"
#include "tests/runner.h"

#define QUOTA 100

#define ID_A "00000000-0000-4000-8000-00000000000a"
#define ID_B "00000000-0000-4000-8000-00000000000b"

static struct client_queue q;

static void setup(void)
{
	client_queue_init(&q, QUOTA);
}

static void teardown(void)
{
	client_queue_deinit(&q);
	client_queue_deinit(&q);
}

static int event(const char *text, enum event_fold fold, const char *id)
{
	struct frame *f = frame_new(text, strlen(text), -1);
	int r;

	f->seq = strtoull(text, NULL, 10);
	r = client_queue_event(&q, f, fold, id);
	frame_unref(f);
	return r;
}

static int reply(const char *text)
{
	struct frame *f = frame_new(text, strlen(text), -1);
	int r = client_queue_reply(&q, f);

	frame_unref(f);
	return r;
}

/* Everything that waits, with a space between. */
static const char *drain(void)
{
	static char out[4096];
	struct frame *f;
	size_t n = 0;

	while ((f = client_queue_pop(&q))) {
		memcpy(out + n, f->data, f->len);
		n += f->len;
		out[n++] = ' ';
		frame_unref(f);
	}
	out[n > 0 ? n - 1 : 0] = '\0';
	return out;
}

START_TEST(test_in_order)
{
	ck_assert(client_queue_idle(&q));
	ck_assert_int_eq(reply("r1"), 0);
	ck_assert_int_eq(event("e1", FOLD_KEEP, ID_A), 0);
	ck_assert_int_eq(event("u", FOLD_KEEP, NULL), 0);
	ck_assert_int_eq(reply("r2"), 0);
	ck_assert_uint_eq(q.count, 4);
	ck_assert_uint_eq(q.bytes, 7);
	ck_assert(!client_queue_idle(&q));
	ck_assert_str_eq(drain(), "r1 e1 u r2");
	ck_assert_uint_eq(q.bytes, 0);
	ck_assert(client_queue_idle(&q));
}
END_TEST

START_TEST(test_steps_fold)
{
	ck_assert_int_eq(event("s1", FOLD_STEP, ID_A), 0);
	ck_assert_int_eq(event("s2", FOLD_STEP, ID_A), 0);
	ck_assert_int_eq(event("s3", FOLD_STEP, ID_A), 0);
	ck_assert_uint_eq(q.folded, 2);
	ck_assert_str_eq(drain(), "s3");
	/* Popped ones are out of reach. */
	ck_assert_int_eq(event("s4", FOLD_STEP, ID_A), 0);
	ck_assert_str_eq(drain(), "s4");
	ck_assert_uint_eq(q.folded, 2);
}
END_TEST

START_TEST(test_kept_events_are_kept)
{
	ck_assert_int_eq(event("s1", FOLD_STEP, ID_A), 0);
	ck_assert_int_eq(event("K1", FOLD_KEEP, ID_A), 0);
	ck_assert_int_eq(event("s2", FOLD_STEP, ID_A), 0);
	ck_assert_int_eq(event("K2", FOLD_KEEP, ID_A), 0);
	ck_assert_int_eq(event("s3", FOLD_STEP, ID_A), 0);
	/* The order of numbers stays: the new step comes last. */
	ck_assert_str_eq(drain(), "K1 K2 s3");
}
END_TEST

START_TEST(test_prompts_fold_apart)
{
	ck_assert_int_eq(event("a1", FOLD_STEP, ID_A), 0);
	ck_assert_int_eq(event("b1", FOLD_STEP, ID_B), 0);
	ck_assert_int_eq(event("a2", FOLD_STEP, ID_A), 0);
	ck_assert_str_eq(drain(), "b1 a2");
}
END_TEST

static const char *text_of(size_t n)
{
	static char text[1024];

	memset(text, 'x', n);
	text[n] = '\0';
	return text;
}

START_TEST(test_quota_to_the_byte)
{
	ck_assert_int_eq(event(text_of(QUOTA - 10), FOLD_KEEP, ID_A), 0);
	ck_assert(!client_queue_full(&q));
	ck_assert_int_eq(event(text_of(10), FOLD_KEEP, ID_A), 0);
	ck_assert(client_queue_full(&q));
	ck_assert_uint_eq(q.missed, 0);
	ck_assert_uint_eq(q.bytes, QUOTA);
	ck_assert_int_eq(event("y", FOLD_KEEP, ID_B), 0);
	ck_assert_uint_eq(q.missed, 1);
	ck_assert_uint_eq(q.bytes, QUOTA);
	/* Replies are always taken. */
	ck_assert_int_eq(reply("r"), 0);
	ck_assert_uint_eq(q.bytes, QUOTA + 1);
}
END_TEST

START_TEST(test_gap_is_counted)
{
	char id[UUID_LEN + 1];
	uint64_t missed = 0, seq = 0;

	ck_assert_int_eq(event(text_of(QUOTA), FOLD_KEEP, ID_A), 0);
	ck_assert_int_eq(event("1", FOLD_STEP, ID_B), 0);
	ck_assert_int_eq(event("2", FOLD_KEEP, ID_B), 0);
	ck_assert_int_eq(event("3", FOLD_KEEP, ID_A), 0);
	ck_assert_uint_eq(q.missed, 3);
	/* No room yet. */
	ck_assert(!client_queue_due(&q, id, &missed, &seq));
	frame_unref(client_queue_pop(&q));
	/* Room again, but what was missed comes first. */
	ck_assert_int_eq(event("4", FOLD_KEEP, ID_B), 0);
	ck_assert_uint_eq(q.count, 0);
	ck_assert(client_queue_due(&q, id, &missed, &seq));
	ck_assert_str_eq(id, ID_B);
	ck_assert_uint_eq(missed, 3);
	ck_assert_uint_eq(seq, 4);
	ck_assert_int_eq(reply("snapshot"), 0);
	ck_assert_int_eq(event("5", FOLD_KEEP, ID_B), 0);
	ck_assert(client_queue_due(&q, id, &missed, &seq));
	ck_assert_str_eq(id, ID_A);
	ck_assert_uint_eq(missed, 1);
	ck_assert_uint_eq(seq, 3);
	ck_assert(!client_queue_due(&q, id, &missed, &seq));
	ck_assert_str_eq(drain(), "snapshot 5");
}
END_TEST

START_TEST(test_due_waits_for_half_the_quota)
{
	char id[UUID_LEN + 1];
	uint64_t missed, seq;

	ck_assert_int_eq(client_queue_want(&q, ID_A), 0);
	ck_assert(!client_queue_idle(&q));
	ck_assert_int_eq(reply(text_of(QUOTA / 2 + 1)), 0);
	ck_assert(!client_queue_due(&q, id, &missed, &seq));
	frame_unref(client_queue_pop(&q));
	ck_assert_int_eq(reply(text_of(QUOTA / 2)), 0);
	ck_assert(client_queue_due(&q, id, &missed, &seq));
	ck_assert_uint_eq(missed, 0);
	ck_assert_uint_eq(seq, 0);
	ck_assert_uint_eq(q.missed, 0);
}
END_TEST

START_TEST(test_unwant)
{
	char id[UUID_LEN + 1];
	uint64_t missed, seq;

	ck_assert_int_eq(client_queue_want(&q, ID_A), 0);
	ck_assert_int_eq(client_queue_want(&q, ID_B), 0);
	ck_assert_int_eq(client_queue_want(&q, ID_B), 0);
	client_queue_unwant(&q, ID_A);
	client_queue_unwant(&q, ID_A);
	ck_assert(client_queue_due(&q, id, &missed, &seq));
	ck_assert_str_eq(id, ID_B);
	ck_assert(!client_queue_due(&q, id, &missed, &seq));
	ck_assert_int_eq(client_queue_want(&q, ID_A), 0);
	client_queue_forget_due(&q);
	ck_assert(client_queue_idle(&q));
}
END_TEST

START_TEST(test_larger_than_the_quota)
{
	/* Goes when nothing else waits, else it is missed. */
	ck_assert_int_eq(event(text_of(3 * QUOTA), FOLD_KEEP, ID_A), 0);
	ck_assert_uint_eq(q.count, 1);
	ck_assert_int_eq(event(text_of(3 * QUOTA), FOLD_KEEP, ID_A), 0);
	ck_assert_uint_eq(q.count, 1);
	ck_assert_uint_eq(q.missed, 1);
}
END_TEST

START_TEST(test_folding_makes_room)
{
	ck_assert_int_eq(event(text_of(QUOTA - 1), FOLD_STEP, ID_A), 0);
	ck_assert_int_eq(event(text_of(QUOTA), FOLD_STEP, ID_A), 0);
	ck_assert_uint_eq(q.missed, 0);
	ck_assert_uint_eq(q.folded, 1);
	ck_assert_uint_eq(q.bytes, QUOTA);
}
END_TEST

START_TEST(test_nameless_events_have_a_bound)
{
	for (int i = 0; i < 3 * QUOTA; i++)
		ck_assert_int_eq(event("u", FOLD_KEEP, NULL), 0);
	ck_assert_uint_eq(q.bytes, QUOTA);
	ck_assert_uint_eq(q.missed, 2 * QUOTA);
}
END_TEST

START_TEST(test_due_has_a_bound)
{
	char id[UUID_LEN + 1];

	for (int i = 0; i < CLIENT_QUEUE_DUE_MAX; i++) {
		(void)snprintf(id, sizeof(id), "00000000-0000-4000-8000-%012d",
		               i);
		ck_assert_int_eq(client_queue_want(&q, id), 0);
	}
	ck_assert_int_eq(client_queue_want(&q, ID_A), -ENOBUFS);
	/* One that is noted already is no new one. */
	ck_assert_int_eq(client_queue_want(&q, id), 0);
}
END_TEST

/* A frame is shared: a queue that goes gives back its reference only. */
START_TEST(test_references)
{
	struct frame *f = frame_new("x", 1, -1);
	struct frame *popped;

	ck_assert_int_eq(client_queue_event(&q, f, FOLD_STEP, ID_A), 0);
	ck_assert_int_eq(client_queue_event(&q, f, FOLD_STEP, ID_A), 0);
	ck_assert_uint_eq(f->refs, 2);
	ck_assert_int_eq(client_queue_reply(&q, f), 0);
	ck_assert_uint_eq(f->refs, 3);
	popped = client_queue_pop(&q);
	ck_assert_ptr_eq(popped, f);
	frame_unref(popped);
	client_queue_deinit(&q);
	ck_assert_uint_eq(f->refs, 1);
	frame_unref(f);
}
END_TEST

/* Against a plain model: what comes out is what went in, less what was folded
 * or missed, and bytes never pass the quota by events alone. */
START_TEST(test_random_use)
{
	char text[64], id[UUID_LEN + 1];
	unsigned long sent = 0, received = 0, due = 0;
	uint64_t missed, seq;
	struct frame *f;

	srand(11);
	for (int i = 0; i < runner_times(50000); i++) {
		int prompt = rand() % 8;

		(void)snprintf(id, sizeof(id), "00000000-0000-4000-8000-%012d",
		               prompt);
		if (rand() % 4) {
			(void)snprintf(text, sizeof(text), "%d-%d", prompt, i);
			ck_assert_int_eq(
				event(text, rand() % 3 ? FOLD_STEP : FOLD_KEEP,
			              id),
				0);
			sent++;
		} else if ((f = client_queue_pop(&q))) {
			frame_unref(f);
			received++;
		}
		if (client_queue_due(&q, id, &missed, &seq))
			due++;
		ck_assert_uint_le(q.bytes, QUOTA);
	}
	received += q.count;
	ck_assert_uint_eq(sent, received + q.folded + q.missed);
	ck_assert_uint_gt(due, 10);
	ck_assert_uint_gt(q.folded, 10);
}
END_TEST

static Suite *client_queue_suite(void)
{
	Suite *s = suite_create("client_queue");
	TCase *t = tcase_create("all");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_in_order);
	tcase_add_test(t, test_steps_fold);
	tcase_add_test(t, test_kept_events_are_kept);
	tcase_add_test(t, test_prompts_fold_apart);
	tcase_add_test(t, test_quota_to_the_byte);
	tcase_add_test(t, test_gap_is_counted);
	tcase_add_test(t, test_due_waits_for_half_the_quota);
	tcase_add_test(t, test_unwant);
	tcase_add_test(t, test_larger_than_the_quota);
	tcase_add_test(t, test_folding_makes_room);
	tcase_add_test(t, test_nameless_events_have_a_bound);
	tcase_add_test(t, test_due_has_a_bound);
	tcase_add_test(t, test_references);
	tcase_add_test(t, test_random_use);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(client_queue_suite());
}

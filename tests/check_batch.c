/*
 * check_batch.c - batches carried out on a fake ComfyUI and a fake supervisor:
 * order, intents, what is lost, what a predecessor left, cancelling. What is
 * counted throughout is how often ComfyUI got each prompt.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/runner.h"
#include "tests/worker_fakes.h"
#include "workers/batch.h"

#define ITEMS 8
/* 2^64-1: no double holds it. */
#define WORKFLOW                                                               \
	"{\"3\": {\"class_type\": \"KSampler\", \"inputs\": {\"seed\": "       \
	"18446744073709551615, \"at\": %zu}}}"

static struct ev_loop *loop;
static struct fake_comfy comfy;
static struct link *lnk;
static struct batch *bat;

static unsigned wants, intents, losts, items, dones;
static size_t unreadable;
static bool later; /* intents are answered by the test */
static char ids[ITEMS][64];
static enum execute_end ends[ITEMS];
static char texts[ITEMS][ERROR_TEXT_MAX], results[ITEMS][1024];
static double told;

static void on_want(void *user, size_t index)
{
	char text[256];
	struct error err;

	wants++;
	if (index == unreadable) {
		(void)error_set(&err, ERR_DENIED, "permission denied");
		batch_fail_item(bat, index, &err);
		return;
	}
	snprintf(text, sizeof(text), WORKFLOW, index);
	batch_supply(bat, index, SPAN(text), NULL);
}

static void on_intent(void *user, size_t index, const char *prompt_id,
                      unsigned resubmits)
{
	intents++;
	snprintf(ids[index], sizeof(ids[index]), "%s", prompt_id);
	/* Nothing is anywhere before it is on record. */
	ck_assert_ptr_null(fake_comfy_find(&comfy, prompt_id));
	if (!later)
		batch_go(bat, index);
}

static void on_lost(void *user, size_t index, const char *prompt_id,
                    unsigned resubmits)
{
	losts++;
	ck_assert_str_eq(prompt_id, ids[index]);
}

static void on_item(void *user, const struct batch_result *r)
{
	cleanup_buf struct buf b = BUF_INIT(sizeof(results[0]) - 1);

	items++;
	ends[r->index] = r->end;
	snprintf(texts[r->index], sizeof(texts[0]), "%s",
	         r->error ? r->error->text : "");
	batch_result_json(r, &b);
	ck_assert(buf_ok(&b));
	snprintf(results[r->index], sizeof(results[0]), "%s", buf_cstr(&b));
}

static void on_progress(void *user, const struct batch_plan *p)
{
	ck_assert_double_ge(batch_plan_fraction(p), told);
	told = batch_plan_fraction(p);
}

static void on_done(void *user, const struct batch_plan *p)
{
	dones++;
	ck_assert(batch_plan_over(p));
	bat = batch_free(bat);
}

static const struct batch_handlers handlers = {
	.on_want = on_want,
	.on_intent = on_intent,
	.on_lost = on_lost,
	.on_item = on_item,
	.on_progress = on_progress,
	.on_done = on_done,
};

static void setup(void)
{
	wants = intents = losts = items = dones = 0;
	later = false;
	unreadable = ITEMS;
	told = 0;
	memset(ids, 0, sizeof(ids));
	loop = ev_loop_new(EVFLAG_AUTO);
	fake_comfy_init(&comfy, loop);
	lnk = fake_link_new(loop, &comfy, 50);
}

static void teardown(void)
{
	bat = batch_free(bat);
	lnk = link_free(lnk);
	fake_comfy_deinit(&comfy);
	ev_loop_destroy(loop);
}

static void begin(size_t count, unsigned concurrency, bool stop)
{
	struct batch_options o = {.concurrency = concurrency,
	                          .stop_on_error = stop,
	                          .resubmits = BATCH_RESUBMITS_MAX};
	struct error err;

	bat = batch_new(lnk, count, &o, &handlers, NULL, &err);
	ck_assert_ptr_nonnull(bat);
	ck_assert_uint_eq(wants + intents + items, 0);
}

static struct fake_prompt *prompt(size_t index)
{
	return *ids[index] ? fake_comfy_find(&comfy, ids[index]) : NULL;
}

static void end(size_t index, enum fake_prompt_state state)
{
	run_until(loop, prompt(index) != NULL);
	prompt(index)->state = state;
}

static void each_posted_once(void)
{
	for (size_t i = 0; i < comfy.count; i++)
		ck_assert_uint_eq(comfy.prompts[i].posts, 1);
}

START_TEST(all_of_them_once)
{
	begin(5, 3, false);
	for (size_t i = 0; i < 5; i++)
		end(i, FAKE_DONE);
	run_until(loop, dones == 1);
	ck_assert_uint_eq(items, 5);
	ck_assert_uint_eq(comfy.posts, 5);
	each_posted_once();
	ck_assert_double_eq_tol(told, 1, 1e-9);
	ck_assert_ptr_nonnull(strstr(comfy.last_body, "18446744073709551615"));
	ck_assert_ptr_nonnull(strstr(results[3], "{\"index\":3,\"prompt_id\""));
	ck_assert_ptr_nonnull(strstr(results[3], "\"status\":\"completed\""));
	ck_assert_ptr_nonnull(strstr(results[3], "a.png"));
	ck_assert_ptr_nonnull(strstr(results[3], "\"method\":\"polling\""));
}
END_TEST

START_TEST(no_more_at_a_time)
{
	later = true;
	begin(5, 2, false);
	run_until(loop, intents == 2);
	run_for(loop, 50);
	ck_assert_uint_eq(wants, 2);
	ck_assert_uint_eq(comfy.posts, 0);
}
END_TEST

/* ComfyUI was seen to have it: one look has been answered since. */
static void look(void)
{
	unsigned before = comfy.queues;

	run_until(loop, comfy.queues >= before + 2);
}

START_TEST(lost_goes_again_under_another_id)
{
	char first[64];

	begin(1, 1, false);
	end(0, FAKE_PENDING);
	look();
	snprintf(first, sizeof(first), "%s", ids[0]);
	end(0, FAKE_GONE);
	run_until(loop, losts == 1);
	run_until(loop, intents == 2);
	ck_assert_str_ne(first, ids[0]);
	end(0, FAKE_DONE);
	run_until(loop, dones == 1);
	ck_assert_int_eq(ends[0], EXECUTE_COMPLETED);
	ck_assert_ptr_nonnull(strstr(results[0], "\"resubmits\":1"));
	each_posted_once();
}
END_TEST

START_TEST(lost_for_good)
{
	begin(1, 1, false);
	for (unsigned i = 1; i <= 3; i++) {
		run_until(loop, intents == i);
		end(0, FAKE_PENDING);
		look();
		end(0, FAKE_GONE);
	}
	run_until(loop, dones == 1);
	ck_assert_uint_eq(losts, 2);
	ck_assert_int_eq(ends[0], EXECUTE_FAILED);
	ck_assert_ptr_nonnull(strstr(results[0], "\"type\":\"lost\""));
	each_posted_once();
}
END_TEST

START_TEST(stop_on_error)
{
	begin(4, 1, true);
	end(0, FAKE_DONE);
	end(1, FAKE_FAILED);
	run_until(loop, dones == 1);
	ck_assert_uint_eq(comfy.posts, 2);
	ck_assert_int_eq(ends[1], EXECUTE_FAILED);
	ck_assert_int_eq(ends[3], EXECUTE_CANCELLED);
	ck_assert_ptr_nonnull(strstr(texts[3], "an earlier workflow failed"));
	ck_assert_ptr_nonnull(strstr(results[3], "\"prompt_id\":null"));
}
END_TEST

START_TEST(one_that_cannot_be_read)
{
	unreadable = 1;
	begin(3, 1, false);
	end(0, FAKE_DONE);
	end(2, FAKE_DONE);
	run_until(loop, dones == 1);
	ck_assert_int_eq(ends[1], EXECUTE_ERROR);
	ck_assert_int_eq(ends[2], EXECUTE_COMPLETED);
	ck_assert_ptr_nonnull(strstr(results[1], "\"type\":\"denied\""));
	ck_assert_uint_eq(comfy.posts, 2);
}
END_TEST

/* --- what a predecessor left --------------------------------------------- */

/* Alone, a session has one new prompt on ComfyUI at a time, in an order of its
 * own. */
static bool all_end(void)
{
	for (size_t i = 0; i < comfy.count; i++)
		comfy.prompts[i].state = FAKE_DONE;
	return true;
}

START_TEST(restored)
{
	struct error err;
	static const char known[] = "11111111-1111-4111-8111-111111111111";
	static const char never[] = "22222222-2222-4222-8222-222222222222";

	begin(4, 2, false);
	fake_comfy_add(&comfy, known, FAKE_DONE)->posts = 1;
	batch_restore_ended(bat, 0, true);
	ck_assert_int_eq(batch_restore_intent(bat, 1, known, 0, &err), 0);
	ck_assert_int_eq(batch_restore_intent(bat, 2, never, 0, &err), 0);
	run_until(loop, all_end() && dones == 1);
	ck_assert_ptr_nonnull(fake_comfy_find(&comfy, never));
	ck_assert_uint_eq(items, 3);
	ck_assert_uint_eq(intents, 1); /* the others' are on record */
	ck_assert_int_eq(ends[1], EXECUTE_COMPLETED);
	ck_assert_int_eq(ends[2], EXECUTE_COMPLETED);
	each_posted_once();
}
END_TEST

/* --- cancelling ---------------------------------------------------------- */

START_TEST(cancelled)
{
	begin(4, 1, false);
	end(0, FAKE_PENDING);
	run_for(loop, 100);
	batch_cancel(bat);
	run_until(loop, dones == 1);
	ck_assert_uint_eq(items, 4);
	for (size_t i = 0; i < 4; i++)
		ck_assert_int_eq(ends[i], EXECUTE_CANCELLED);
	ck_assert_uint_eq(comfy.posts, 1);
	ck_assert_ptr_nonnull(strstr(results[0], "\"type\":\"cancelled\""));
	ck_assert_ptr_nonnull(strstr(texts[3], "the batch was cancelled"));
}
END_TEST

START_TEST(cancelled_at_once)
{
	later = true;
	begin(2, 2, false);
	run_until(loop, intents == 2);
	batch_cancel(bat);
	batch_go(bat, 0);
	batch_go(bat, 1);
	run_until(loop, dones == 1);
	ck_assert_uint_eq(comfy.posts, 0);
	ck_assert_int_eq(ends[0], EXECUTE_CANCELLED);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("batch");
	TCase *t = tcase_create("batch");

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, all_of_them_once);
	tcase_add_test(t, no_more_at_a_time);
	tcase_add_test(t, lost_goes_again_under_another_id);
	tcase_add_test(t, lost_for_good);
	tcase_add_test(t, stop_on_error);
	tcase_add_test(t, one_that_cannot_be_read);
	tcase_add_test(t, restored);
	tcase_add_test(t, cancelled);
	tcase_add_test(t, cancelled_at_once);
	suite_add_tcase(s, t);
	return runner_run(s);
}

/*
 * check_chain.c - chains carried out on a fake ComfyUI: what is put into the
 * next step, what a refused reference leads to, what a predecessor left,
 * cancelling.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/runner.h"
#include "tests/worker_fakes.h"
#include "workers/chain.h"

#define STEPS 3
#define MAKE  "{\"workflow\":{\"3\":{\"class_type\":\"A\",\"inputs\":{}}}}"
#define TAKE                                                                   \
	"{\"workflow\":{\"1\":{\"class_type\":\"LoadImage\",\"inputs\":{"      \
	"\"image\":\"x\"}}},\"inputFrom\":{\"step\":0},\"outputTo\":"          \
	"\"image\"}"

static struct ev_loop *loop;
static struct fake_comfy comfy;
static struct link *lnk;
static struct chain *chn;
static unsigned intents, steps, dones;
static size_t failed;
static char ids[STEPS][64], handed[STEPS][64], results[STEPS][1024];
static enum execute_end ends[STEPS];
static double told;

static void on_intent(void *user, size_t index, const char *prompt_id)
{
	intents++;
	snprintf(ids[index], sizeof(ids[index]), "%s", prompt_id);
	ck_assert_ptr_null(fake_comfy_find(&comfy, prompt_id));
	chain_go(chn, index);
}

static void on_step(void *user, const struct chain_result *r)
{
	cleanup_buf struct buf b = BUF_INIT(sizeof(results[0]) - 1);

	steps++;
	ends[r->index] = r->end;
	snprintf(handed[r->index], sizeof(handed[0]), "%s",
	         r->handed ? r->handed : "");
	chain_result_json(r, &b);
	snprintf(results[r->index], sizeof(results[0]), "%s", buf_cstr(&b));
}

static void on_progress(void *user, double fraction)
{
	ck_assert_double_ge(fraction, told);
	told = fraction;
}

static void on_done(void *user, size_t n)
{
	dones++;
	failed = n;
	chn = chain_free(chn);
}

static const struct chain_handlers handlers = {
	.on_intent = on_intent,
	.on_step = on_step,
	.on_progress = on_progress,
	.on_done = on_done,
};

static void setup(void)
{
	intents = steps = dones = 0;
	told = 0;
	memset(ids, 0, sizeof(ids));
	loop = ev_loop_new(EVFLAG_AUTO);
	fake_comfy_init(&comfy, loop);
	lnk = fake_link_new(loop, &comfy, 50);
}

static void teardown(void)
{
	chn = chain_free(chn);
	lnk = link_free(lnk);
	fake_comfy_deinit(&comfy);
	ev_loop_destroy(loop);
}

static void begin(const char *text, bool stop)
{
	const struct chain_options o = {.stop_on_error = stop};
	struct chain_spec *spec;
	struct error err;
	struct json j;

	ck_assert_int_eq(json_parse(&j, text, strlen(text), 0, NULL), JSON_OK);
	spec = chain_spec_parse(j, &err);
	ck_assert_ptr_nonnull(spec);
	chn = chain_new(lnk, spec, &o, &handlers, NULL, &err);
	ck_assert_ptr_nonnull(chn);
	ck_assert_uint_eq(intents + steps, 0);
}

static void end(size_t index, enum fake_prompt_state state)
{
	run_until(loop, *ids[index] && fake_comfy_find(&comfy, ids[index]));
	fake_comfy_find(&comfy, ids[index])->state = state;
}

START_TEST(by_reference)
{
	begin("[" MAKE "," TAKE "]", true);
	end(0, FAKE_DONE);
	end(1, FAKE_DONE);
	run_until(loop, dones == 1);
	ck_assert_uint_eq(failed, 0);
	ck_assert_str_eq(handed[1], "a.png [output]");
	ck_assert_ptr_nonnull(
		strstr(comfy.last_body, "\"image\":\"a.png [output]\""));
	ck_assert_uint_eq(comfy.posts, 2);
	ck_assert_uint_eq(comfy.views, 0);
	ck_assert_double_eq_tol(told, 1, 1e-9);
}
END_TEST

START_TEST(nothing_is_taken_of_a_failure)
{
	begin("[" MAKE "," TAKE "," MAKE "]", false);
	end(0, FAKE_FAILED);
	end(2, FAKE_DONE);
	run_until(loop, dones == 1);
	ck_assert_uint_eq(failed, 2);
	ck_assert_int_eq(ends[1], EXECUTE_ERROR);
	ck_assert_ptr_nonnull(strstr(results[1], "did not complete"));
	ck_assert_uint_eq(comfy.posts, 2);
}
END_TEST

START_TEST(stops_after_a_failure)
{
	begin("[" MAKE "," MAKE "]", true);
	end(0, FAKE_FAILED);
	run_until(loop, dones == 1);
	ck_assert_uint_eq(failed, 2);
	ck_assert_int_eq(ends[1], EXECUTE_CANCELLED);
	ck_assert_uint_eq(comfy.posts, 1);
}
END_TEST

START_TEST(restored)
{
	static const char id[] = "11111111-1111-4111-8111-111111111111";
	struct error err;

	begin("[" MAKE "," TAKE "]", true);
	ck_assert_int_eq(
		chain_restore_ended(chn, 0, true,
	                            SPAN("{\"9\":{\"images\":[{\"filename\":"
	                                 "\"old.png\",\"subfolder\":\"s\","
	                                 "\"type\":\"temp\"}]}}"),
	                            &err),
		0);
	fake_comfy_add(&comfy, id, FAKE_DONE)->posts = 1;
	ck_assert_int_eq(chain_restore_intent(chn, 1, id, &err), 0);
	run_until(loop, dones == 1);
	ck_assert_uint_eq(failed, 0);
	ck_assert_uint_eq(steps, 1);
	ck_assert_uint_eq(comfy.posts, 0);
	ck_assert_str_eq(handed[1], "s/old.png [temp]");
}
END_TEST

START_TEST(cancelled)
{
	begin("[" MAKE "," MAKE "]", true);
	end(0, FAKE_PENDING);
	run_for(loop, 100);
	chain_cancel(chn);
	run_until(loop, dones == 1);
	ck_assert_int_eq(ends[0], EXECUTE_CANCELLED);
	ck_assert_int_eq(ends[1], EXECUTE_CANCELLED);
	ck_assert_uint_eq(comfy.posts, 1);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("chain");
	TCase *t = tcase_create("chain");

	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, by_reference);
	tcase_add_test(t, nothing_is_taken_of_a_failure);
	tcase_add_test(t, stops_after_a_failure);
	tcase_add_test(t, restored);
	tcase_add_test(t, cancelled);
	suite_add_tcase(s, t);
	return runner_run(s);
}

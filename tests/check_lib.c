/*
 * check_lib.c - libcomfymux by its interface alone, against a supervisor and a
 * ComfyUI that the test plays on a loop of its own, libev's: so the library is
 * in somebody else's loop all the time. The rest is in tests/e2e/test_library*.
 *
 * It is linked with build/libcomfymux.a, whose own names are all local.
 */
#include <ev.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/comfymux.h"
#include "tests/runner.h"
#include "tests/worker_fakes.h"

#define WORKFLOW "{\"9\":{\"class_type\":\"SaveImage\",\"inputs\":{}}}"

/* What a program has compiled in must not move while the soname stays. */
#define AT(type, member, offset)                                               \
	_Static_assert(offsetof(struct type, member) == (offset),              \
	               #type "." #member " has moved: a new soname")
#if defined(__x86_64__)
AT(cmx_progress, prompt_id, 0);
AT(cmx_progress, status, 8);
AT(cmx_progress, method, 12);
AT(cmx_progress, current_node, 16);
AT(cmx_progress, current_node_progress, 24);
AT(cmx_progress, current_value, 32);
AT(cmx_progress, current_max, 40);
AT(cmx_progress, queue_position, 48);
AT(cmx_progress, paused, 56);
AT(cmx_progress, completed_nodes, 64);
AT(cmx_progress, cached_nodes, 80);
AT(cmx_progress, outputs, 96);
AT(cmx_progress, outputs_len, 104);
AT(cmx_progress, outputs_truncated, 112);
AT(cmx_progress, nodes_truncated, 113);
AT(cmx_progress, error, 120);
AT(cmx_options, comfyui, 8);
AT(cmx_options, socket, 16);
AT(cmx_options, config, 24);
AT(cmx_options, no_events, 32);
AT(cmx_result, code, 0);
AT(cmx_result, submitted, 4);
AT(cmx_result, index, 8);
AT(cmx_result, text, 16);
AT(cmx_result, progress, 24);
AT(cmx_result, node_errors, 32);
AT(cmx_result, log_count, 40);
AT(cmx_result, log, 48);
AT(cmx_result, handed, 56);
AT(cmx_batch_options, concurrency, 8);
AT(cmx_batch_options, stop_on_error, 12);
AT(cmx_batch_options, timeout_ms, 16);
AT(cmx_batch_options, on_progress, 24);
AT(cmx_batch_options, on_item, 32);
AT(cmx_batch_options, user, 40);
AT(cmx_results, completed, 8);
AT(cmx_results, items, 16);
AT(cmx_step, params, 8);
AT(cmx_step, input_step, 16);
AT(cmx_step, input_node, 24);
AT(cmx_step, input_index, 32);
AT(cmx_step, output_to, 40);
_Static_assert(sizeof(struct cmx_step) == 80, "programs make arrays of it");
#endif
_Static_assert(CMX_E_PARTIAL == -17 && CMX_FAILED == 3 && CMX_POLLING == 1,
               "numbers that programs have compiled in");

static struct ev_loop *loop;
static struct fake_comfy comfy;
static struct cmx *client;
static ev_io watcher;
static unsigned dispatches;

static void on_readable(struct ev_loop *l, ev_io *w, int events)
{
	dispatches++;
	ck_assert_int_eq(cmx_dispatch(client), 0);
}

static void setup(void)
{
	struct cmx_options o = {.struct_size = sizeof(o), .no_events = true};

	dispatches = 0;
	/* No configuration of whoever runs the test. */
	setenv("HOME", runner_tmpdir(), 1);
	unsetenv("XDG_CONFIG_HOME");
	loop = ev_loop_new(EVFLAG_AUTO);
	fake_comfy_init(&comfy, loop);
	o.comfyui = script_server_url(comfy.server);
	ck_assert_int_eq(cmx_new(&client, &o), 0);
	ev_io_init(&watcher, on_readable, cmx_fd(client), EV_READ);
	ev_io_start(loop, &watcher);
}

static void teardown(void)
{
	ev_io_stop(loop, &watcher);
	cmx_free(client);
	fake_comfy_deinit(&comfy);
	ev_loop_destroy(loop);
}

struct seen {
	unsigned news, ends, errors;
	enum cmx_status status;
	int code;
	char text[256], type[64];
};

static void on_progress(void *user, const struct cmx_progress *p)
{
	struct seen *s = user;

	s->news++;
	s->status = p->status;
}

static void on_error(void *user, const struct cmx_error *e)
{
	struct seen *s = user;

	s->errors++;
	snprintf(s->type, sizeof(s->type), "%s", e->type);
}

static void on_end(void *user, const struct cmx_result *r)
{
	struct seen *s = user;

	s->ends++;
	s->code = r->code;
	snprintf(s->text, sizeof(s->text), "%s", r->text ? r->text : "");
	ck_assert_ptr_nonnull(r->progress);
}

START_TEST(run_in_a_foreign_loop)
{
	struct seen s = {.news = 0};
	struct cmx_task *t;

	ck_assert_int_eq(
		cmx_start(client, WORKFLOW, 0, on_progress, on_end, &s, &t), 0);
	run_until(loop, comfy.count == 1);
	ck_assert_str_eq(comfy.prompts[0].id, cmx_task_prompt_id(t));
	comfy.prompts[0].state = FAKE_RUNNING;
	run_until(loop, s.status == CMX_EXECUTING);
	ck_assert_int_eq(cmx_progress(client, comfy.prompts[0].id)->status,
	                 CMX_EXECUTING);
	comfy.prompts[0].state = FAKE_DONE;
	run_until(loop, s.ends == 1);
	ck_assert_int_eq(s.code, CMX_OK);
	ck_assert_int_eq(s.status, CMX_COMPLETED);
	ck_assert_ptr_null(cmx_progress(client, comfy.prompts[0].id));
	/* Nothing goes on behind the program's back. */
	run_for(loop, 100);
	dispatches = 0;
	run_for(loop, 300);
	ck_assert_uint_le(dispatches, 1);
}
END_TEST

START_TEST(rejected)
{
	struct seen s = {.news = 0};

	comfy.post = FAKE_POST_REJECT;
	ck_assert_int_eq(
		cmx_start(client, WORKFLOW, 0, on_progress, on_end, &s, NULL),
		0);
	run_until(loop, s.ends == 1);
	ck_assert_int_eq(s.code, CMX_E_REJECTED);
	ck_assert_uint_eq(s.news, 0);
	ck_assert_uint_gt(strlen(s.text), 0);
}
END_TEST

START_TEST(cancelled_while_queued)
{
	struct seen s = {.news = 0};
	struct cmx_task *t;

	ck_assert_int_eq(
		cmx_start(client, WORKFLOW, 0, on_progress, on_end, &s, &t), 0);
	run_until(loop, s.news > 0);
	ck_assert_int_eq(cmx_task_cancel(t), 0);
	run_until(loop, s.ends == 1);
	ck_assert_int_eq(s.code, CMX_E_CANCELLED);
	ck_assert_uint_eq(comfy.deletes, 1);
}
END_TEST

/* A timeout of its least, and the prompt at ComfyUI. */
START_TEST(timeout_at_its_edge)
{
	struct seen s = {.news = 0};

	ck_assert_int_eq(
		cmx_start(client, WORKFLOW, 1, on_progress, on_end, &s, NULL),
		0);
	run_until(loop, s.ends == 1);
	ck_assert_int_eq(s.code, CMX_E_TIMEOUT);
	ck_assert_int_eq(cmx_start(client, WORKFLOW, CMX_TIMEOUT_MAX_MS, NULL,
	                           on_end, &s, NULL),
	                 0);
}
END_TEST

START_TEST(subscription_outlives_the_end)
{
	struct seen s = {.news = 0}, late = {.news = 0};
	struct cmx_subscription *sub, *again;

	fake_comfy_add(&comfy, "p1", FAKE_RUNNING);
	ck_assert_int_eq(
		cmx_subscribe(client, "p1", on_progress, on_error, &s, &sub),
		0);
	run_until(loop, s.status == CMX_EXECUTING);
	fake_comfy_find(&comfy, "p1")->state = FAKE_FAILED;
	run_until(loop, s.errors == 1);
	ck_assert_int_eq(s.status, CMX_FAILED);
	ck_assert_int_eq(cmx_subscribe(client, "p1", on_progress, on_error,
	                               &late, &again),
	                 0);
	run_until(loop, late.errors == 1);
	ck_assert_str_eq(late.type, s.type);
	run_for(loop, 300);
	ck_assert_uint_eq(s.errors + late.errors, 2);
	ck_assert_int_eq(cmx_progress(client, "p1")->status, CMX_FAILED);
	cmx_unsubscribe(sub);
	cmx_unsubscribe(again);
	ck_assert_ptr_null(cmx_progress(client, "p1"));
}
END_TEST

START_TEST(reset_ends_everything)
{
	struct seen s = {.news = 0};
	struct cmx_subscription *sub;
	int fd = cmx_fd(client);

	fake_comfy_add(&comfy, "p1", FAKE_RUNNING);
	ck_assert_int_eq(
		cmx_subscribe(client, "p1", on_progress, on_error, &s, &sub),
		0);
	ck_assert_int_eq(
		cmx_start(client, WORKFLOW, 0, on_progress, on_end, &s, NULL),
		0);
	run_until(loop, s.news > 1);
	ck_assert_int_eq(cmx_reset(client), 0);
	s.news = 0;
	run_for(loop, 300);
	ck_assert_uint_eq(s.news + s.ends + s.errors, 0);
	ck_assert_int_eq(cmx_fd(client), fd);
	ck_assert_uint_eq(comfy.deletes + comfy.interrupts, 0);
	/* And it works on. */
	ck_assert_int_eq(
		cmx_start(client, WORKFLOW, 0, on_progress, on_end, &s, NULL),
		0);
	run_until(loop, s.news > 0);
}
END_TEST

static const char *const three[] = {WORKFLOW, WORKFLOW, WORKFLOW};

static void on_item(void *user, size_t index, const struct cmx_result *r)
{
	struct seen *s = user;

	s->errors += r->code != CMX_OK;
}

static void on_item_progress(void *user, size_t index,
                             const struct cmx_progress *p)
{
	((struct seen *)user)->news++;
}

static void on_all_end(void *user, int code, const struct cmx_results *r)
{
	struct seen *s = user;

	s->ends++;
	s->code = code;
	ck_assert_uint_eq(r->count, 3);
	for (size_t i = 0; i < 3; i++)
		ck_assert_uint_eq(r->items[i]->index, i);
}

static struct cmx_batch_options batch_options(struct seen *s)
{
	struct cmx_batch_options o = CMX_BATCH_OPTIONS_INIT;

	o.on_progress = on_item_progress;
	o.on_item = on_item;
	o.user = s;
	return o;
}

START_TEST(batch_in_a_foreign_loop)
{
	struct seen s = {.news = 0};
	struct cmx_batch_options o = batch_options(&s);
	struct cmx_task *t;

	ck_assert_int_eq(
		cmx_start_batch(client, three, 3, &o, on_all_end, &s, &t), 0);
	ck_assert_str_eq(cmx_task_prompt_id(t), "");
	for (size_t i = 0; i < 3; i++) {
		run_until(loop, comfy.count == i + 1);
		comfy.prompts[i].state = FAKE_DONE;
	}
	run_until(loop, s.ends == 1);
	ck_assert_int_eq(s.code, CMX_OK);
	ck_assert_uint_eq(s.errors, 0);
	ck_assert_uint_ge(s.news, 3);
}
END_TEST

START_TEST(batch_cancelled)
{
	struct seen s = {.news = 0};
	struct cmx_batch_options o = batch_options(&s);
	struct cmx_task *t;

	ck_assert_int_eq(
		cmx_start_batch(client, three, 3, &o, on_all_end, &s, &t), 0);
	run_until(loop, s.news > 0);
	ck_assert_int_eq(cmx_task_cancel(t), 0);
	run_until(loop, s.ends == 1);
	ck_assert_int_eq(s.code, CMX_E_PARTIAL);
	ck_assert_uint_eq(s.errors, 3);
}
END_TEST

static struct cmx_task *to_free;

static void on_item_free(void *user, size_t index, const struct cmx_progress *p)
{
	((struct seen *)user)->news++;
	cmx_task_free(to_free);
}

/* Of a batch and of a chain, in their own callbacks. */
START_TEST(freed_in_a_callback)
{
	const struct cmx_step steps[3] = {{.workflow = WORKFLOW},
	                                  {.workflow = WORKFLOW},
	                                  {.workflow = WORKFLOW}};
	struct seen s = {.news = 0};
	struct cmx_batch_options o = batch_options(&s);

	o.on_progress = on_item_free;
	ck_assert_int_eq(
		cmx_start_batch(client, three, 3, &o, on_all_end, &s, &to_free),
		0);
	run_until(loop, s.news == 1);
	run_for(loop, 300);
	ck_assert_int_eq(
		cmx_start_chain(client, steps, 3, &o, on_all_end, &s, &to_free),
		0);
	run_until(loop, s.news == 2);
	run_for(loop, 300);
	ck_assert_uint_eq(s.news, 2);
	ck_assert_uint_eq(s.ends, 0);
	ck_assert_uint_eq(comfy.deletes + comfy.interrupts, 0);
}
END_TEST

START_TEST(no_events_says_so)
{
	ck_assert_int_eq(cmx_connect(client), CMX_E_UNREACHABLE);
	ck_assert_ptr_nonnull(strstr(cmx_last_error(), "no_events"));
	ck_assert_int_eq(cmx_events_available(client), 0);
	ck_assert_int_eq(cmx_is_connected(client), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("lib");
	TCase *t = tcase_create("lib");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, run_in_a_foreign_loop);
	tcase_add_test(t, rejected);
	tcase_add_test(t, cancelled_while_queued);
	tcase_add_test(t, timeout_at_its_edge);
	tcase_add_test(t, subscription_outlives_the_end);
	tcase_add_test(t, reset_ends_everything);
	tcase_add_test(t, batch_in_a_foreign_loop);
	tcase_add_test(t, batch_cancelled);
	tcase_add_test(t, freed_in_a_callback);
	tcase_add_test(t, no_events_says_so);
	suite_add_tcase(s, t);
	return runner_run(s);
}

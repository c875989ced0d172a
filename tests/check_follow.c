/*
 * check_follow.c - one prompt's progress: by events, by polling, and over every
 * change between the two.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/runner.h"
#include "tests/worker_fakes.h"
#include "workers/follow.h"

#define ID "11111111-1111-4111-8111-111111111111"

static const struct link_patience quick = {
	.attach_ms = 60000,
	.quiet_ms = 60000,
	.ping_ms = 60000,
	.away_ms = 300,
	.away_cancel_ms = 100,
	.lookup_gap_ms = 50,
};

static struct ev_loop *loop;
static struct fake_bus bus;
static struct fake_comfy comfy;
static struct link *lnk;

/* What the follow told. */
static struct follow *follow;
static unsigned news, ends, unknowns, troubles;
static enum event last_event;
static unsigned last_change;
static double best_fraction;
static char last_data[256];
static enum cmx_status end_status;
static char end_type[64];
static size_t end_outputs;
static bool free_in_news, free_in_end;

static void on_news(void *user, const struct follow_news *n)
{
	const struct cmx_progress *p = progress_get(n->progress);

	news++;
	last_event = n->event;
	last_change = n->change;
	ck_assert_uint_ne(n->change, PROGRESS_SAME);
	snprintf(last_data, sizeof(last_data), "%.*s", (int)n->data.text.n,
	         n->data.text.p ? n->data.text.p : "");
	/* Never backwards within the one node that the tests step through. */
	if (p->current_node && strcmp(p->current_node, "3") == 0) {
		ck_assert(p->current_node_progress >= best_fraction);
		best_fraction = p->current_node_progress;
	}
	if (free_in_news)
		follow = follow_free(follow);
}

static void on_end(void *user, const struct progress *p)
{
	const struct cmx_progress *c = progress_get(p);

	ends++;
	end_status = c->status;
	snprintf(end_type, sizeof(end_type), "%s",
	         c->error.type ? c->error.type : "");
	end_outputs = c->outputs_len;
	if (free_in_end)
		follow = follow_free(follow);
}

static void on_unknown(void *user, const struct error *err)
{
	unknowns++;
	ck_assert_int_eq(err->code, ERR_NOT_FOUND);
}

static void on_trouble(void *user, const struct error *err)
{
	troubles++;
}

static const struct follow_handlers handlers = {
	.on_news = on_news,
	.on_end = on_end,
	.on_unknown = on_unknown,
	.on_trouble = on_trouble,
};

/* Ops that the supervisor got, and how it answers subscribe. */
static unsigned subscribes, unsubscribes;
static bool knows;      /* the prompt */
static bool hold_reply; /* says nothing to subscribe */

static void on_request(struct fake_bus *b, const char *op, struct json req)
{
	if (strcmp(op, "subscribe") == 0) {
		subscribes++;
		ck_assert(json_string_eq(json_get(req, "prompt_id"), ID));
		if (hold_reply)
			return;
		if (knows)
			fake_bus_reply(b, req, "{\"prompts\":1}");
		else
			fake_bus_refuse(b, req, "not_found", NULL);
	} else if (strcmp(op, "unsubscribe") == 0) {
		unsubscribes++;
		fake_bus_reply(b, req, "{}");
	}
}

static bool attached;

static void on_bus(void *user, bool up)
{
	attached = up;
}

static void on_notice(void *user, const char *text)
{
}

static struct link_watch watch = {.prompt_id = "", .on_bus = on_bus};

static void setup(void)
{
	struct error err;
	struct link_config cfg = {
		.kind = "run",
		.connect_timeout_ms = 60000,
		.request_timeout_ms = 60000,
		.poll_interval_ms = 200,
		.patience = &quick,
		.had_bus = true,
	};

	news = ends = unknowns = troubles = subscribes = unsubscribes = 0;
	best_fraction = 0;
	free_in_news = free_in_end = hold_reply = attached = false;
	end_type[0] = '\0';
	loop = ev_loop_new(EVFLAG_AUTO);
	fake_comfy_init(&comfy, loop);
	cfg.comfyui = script_server_url(comfy.server);
	lnk = link_new(loop, &cfg, &err);
	ck_assert_ptr_nonnull(lnk);
	link_on_notice(lnk, on_notice, NULL);
	link_watch_add(lnk, &watch);
	memset(&bus, 0, sizeof(bus));
	bus.fd = -1;
	bus.on_request = on_request;
	knows = true;
}

static void teardown(void)
{
	follow = follow_free(follow);
	link_watch_remove(lnk, &watch);
	lnk = link_free(lnk);
	fake_bus_close(&bus);
	fake_comfy_deinit(&comfy);
	ev_loop_destroy(loop);
}

static void connect_bus(void)
{
	attached = false;
	fake_bus_connect(&bus, loop, lnk);
	run_until(loop, attached);
}

static void start(bool submitted, bool subscribed)
{
	struct error err;

	follow = follow_new(lnk, ID, submitted, subscribed, &handlers, NULL,
	                    &err);
	ck_assert_msg(follow != NULL, "%s", err.text);
	ck_assert_uint_eq(news + ends + unknowns, 0); /* not from inside */
}

/* A progress as the supervisor tells it. */
static const char *running(unsigned value)
{
	static char text[512];

	snprintf(text, sizeof(text),
	         "{\"prompt_id\":\"" ID "\",\"status\":\"executing\","
	         "\"current_node\":\"3\",\"current_node_progress\":%.2f,"
	         "\"queue_position\":0,\"completed_nodes\":[\"4\"],"
	         "\"cached_nodes\":[],\"method\":\"websocket\"}",
	         value / 100.0);
	return text;
}

#define QUEUED                                                                 \
	"{\"prompt_id\":\"" ID "\",\"status\":\"queued\","                     \
	"\"queue_position\":1,\"completed_nodes\":[],\"cached_nodes\":[],"     \
	"\"method\":\"websocket\"}"
#define COMPLETED                                                              \
	"{\"prompt_id\":\"" ID "\",\"status\":\"completed\","                  \
	"\"completed_nodes\":[\"4\",\"3\",\"9\"],\"cached_nodes\":[],"         \
	"\"outputs\":{\"9\":{\"images\":[]}},\"method\":\"websocket\"}"

START_TEST(by_events)
{
	connect_bus();
	start(false, false);
	run_until(loop, subscribes == 1);
	fake_bus_event(&bus, "snapshot", 4, ID, NULL, QUEUED);
	run_until(loop, news == 1);
	ck_assert_int_eq(last_event, EVENT_SNAPSHOT);
	ck_assert(!follow_taken(follow));
	/* Counted before the snapshot: old. */
	fake_bus_event(&bus, "execution_start", 3, ID, NULL, running(90));
	fake_bus_event(&bus, "execution_start", 5, ID, "{}", running(10));
	run_until(loop, news == 2);
	ck_assert_int_eq(last_event, EVENT_EXECUTION_START);
	ck_assert(follow_taken(follow));
	ck_assert_str_eq(progress_get(follow_progress(follow))->current_node,
	                 "3");
	fake_bus_event(&bus, "progress", 6, ID, "{\"value\":5,\"max\":20}",
	               running(25));
	run_until(loop, news == 3);
	ck_assert_str_eq(last_data, "{\"value\":5,\"max\":20}");
	/* The same again: nothing changed, nothing told. */
	fake_bus_event(&bus, "progress", 6, ID, NULL, running(50));
	fake_bus_event(&bus, "progress", 7, ID, NULL, running(25));
	/* The final status comes early with `executing` null: not the end. */
	fake_bus_event(&bus, "executing", 8, ID, "{\"node\":null}",
	               "{\"status\":\"completed\"}");
	run_until(loop, news == 4);
	ck_assert_uint_eq(ends, 0);
	fake_bus_event(&bus, "finished", 9, ID, NULL, COMPLETED);
	run_until(loop, ends == 1);
	ck_assert_int_eq(end_status, CMX_COMPLETED);
	ck_assert_uint_gt(end_outputs, 2);
	ck_assert_uint_eq(news, 4);
	ck_assert_uint_eq(comfy.queues + comfy.histories, 0);
	follow = follow_free(follow);
	run_for(loop, 50);
	ck_assert_uint_eq(unsubscribes, 0); /* it had ended */
}
END_TEST

START_TEST(subscribed_already)
{
	connect_bus();
	start(true, true);
	fake_bus_event(&bus, "snapshot", 1, ID, NULL, QUEUED);
	run_until(loop, news == 1);
	ck_assert_uint_eq(subscribes, 0);
	follow = follow_free(follow);
	run_until(loop, unsubscribes == 1);
}
END_TEST

START_TEST(unsubscribed_by_the_last_one_only)
{
	struct follow *other;
	struct error err;

	connect_bus();
	start(true, true);
	other = follow_new(lnk, ID, true, true, &handlers, NULL, &err);
	ck_assert_ptr_nonnull(other);
	(void)follow_free(other);
	run_for(loop, 50);
	ck_assert_uint_eq(unsubscribes, 0);
	follow = follow_free(follow);
	run_until(loop, unsubscribes == 1);
}
END_TEST

START_TEST(unknown_to_the_bus)
{
	knows = false;
	/* ComfyUI has it, but that is somebody else's then. */
	fake_comfy_add(&comfy, ID, FAKE_RUNNING);
	connect_bus();
	start(false, false);
	run_until(loop, unknowns == 1);
	ck_assert_uint_eq(comfy.queues, 0);
}
END_TEST

START_TEST(failed_late_with_node_errors)
{
	connect_bus();
	start(true, true);
	fake_bus_event(&bus, "finished", 2, ID,
	               "{\"node_errors\":{\"3\":{\"errors\":[]}}}",
	               "{\"status\":\"failed\",\"error\":{\"type\":"
	               "\"rejected\",\"message\":\"no\"}}");
	run_until(loop, ends == 1);
	ck_assert_str_eq(end_type, "rejected");
	ck_assert(json_is(json_get(follow_node_errors(follow), "3"),
	                  JSON_OBJECT));
}
END_TEST

START_TEST(by_polling)
{
	struct fake_prompt *p;

	fake_comfy_add(&comfy, "other", FAKE_RUNNING);
	p = fake_comfy_add(&comfy, ID, FAKE_PENDING);
	start(true, false);
	run_until(loop, news == 1);
	ck_assert_int_eq(last_event, EVENT_COUNT);
	ck_assert_int_eq(progress_get(follow_progress(follow))->method,
	                 CMX_POLLING);
	ck_assert_int_eq(progress_get(follow_progress(follow))->queue_position,
	                 1);
	p->state = FAKE_RUNNING;
	run_until(loop, news == 2);
	ck_assert_int_eq(progress_get(follow_progress(follow))->status,
	                 CMX_EXECUTING);
	p->state = FAKE_DONE;
	run_until(loop, ends == 1);
	ck_assert_int_eq(end_status, CMX_COMPLETED);
	ck_assert_uint_gt(end_outputs, 2);
}
END_TEST

START_TEST(failed_by_polling)
{
	fake_comfy_add(&comfy, ID, _i ? FAKE_INTERRUPTED : FAKE_FAILED);
	start(false, false);
	run_until(loop, ends == 1);
	ck_assert_int_eq(end_status, CMX_FAILED);
	ck_assert_str_eq(end_type, _i ? "interrupted" : "RuntimeError");
}
END_TEST

START_TEST(unknown_by_polling)
{
	start(false, false);
	run_until(loop, unknowns == 1);
	ck_assert_uint_eq(ends, 0);
}
END_TEST

START_TEST(lost_by_polling)
{
	struct fake_prompt *p = fake_comfy_add(&comfy, ID, FAKE_RUNNING);

	start(true, false);
	run_until(loop, news == 1);
	p->state = FAKE_GONE;
	run_until(loop, ends == 1);
	ck_assert_int_eq(end_status, CMX_FAILED);
	ck_assert_str_eq(end_type, "lost");
	ck_assert_uint_ge(comfy.histories, FOLLOW_MISSING_MAX);
}
END_TEST

/* Accepted by a supervisor that is away: its absence proves nothing. */
START_TEST(held_is_not_lost)
{
	start(true, false);
	run_until(loop, comfy.histories == FOLLOW_MISSING_MAX + 2);
	ck_assert_uint_eq(ends + unknowns, 0);
	ck_assert(!follow_taken(follow));
	/* Known to have been at ComfyUI: lost. */
	follow_set_taken(follow);
	run_until(loop, ends == 1);
	ck_assert_str_eq(end_type, "lost");
}
END_TEST

START_TEST(unreachable_is_not_failed)
{
	struct fake_prompt *p = fake_comfy_add(&comfy, ID, FAKE_RUNNING);

	start(true, false);
	run_until(loop, news == 1);
	comfy.closed = true;
	run_until(loop, troubles == 2);
	ck_assert_uint_eq(ends, 0);
	comfy.closed = false;
	p->state = FAKE_DONE;
	run_until(loop, ends == 1);
	ck_assert_int_eq(end_status, CMX_COMPLETED);
}
END_TEST

/* Events, then polling, then events again: told once each, in order. */
START_TEST(bus_breaks_and_returns)
{
	fake_comfy_add(&comfy, ID, FAKE_RUNNING);
	connect_bus();
	start(true, true);
	fake_bus_event(&bus, "snapshot", 1, ID, NULL, running(10));
	fake_bus_event(&bus, "progress", 2, ID, NULL, running(40));
	run_until(loop, news == 2);
	fake_bus_close(&bus);
	run_until(loop, comfy.queues >= 2);
	ck_assert_uint_le(news, 3); /* at most: now by polling */
	ck_assert_uint_eq(
		progress_get(follow_progress(follow))->completed_nodes.count,
		1);
	connect_bus();
	run_until(loop, subscribes == 1);
	news = 0;
	fake_bus_event(&bus, "snapshot", 2, ID, NULL, running(40));
	/* The same epoch: what was counted is old. */
	fake_bus_event(&bus, "progress", 2, ID, NULL, running(90));
	fake_bus_event(&bus, "progress", 3, ID, NULL, running(60));
	run_until(loop, news >= 1 && best_fraction > 0.5);
	ck_assert(best_fraction < 0.7);
	comfy.queues = 0;
	run_for(loop, 600);
	ck_assert_uint_eq(comfy.queues, 0); /* no more polling */
	ck_assert_int_eq(progress_get(follow_progress(follow))->method,
	                 CMX_WEBSOCKET);
	fake_bus_event(&bus, "finished", 4, ID, NULL, COMPLETED);
	run_until(loop, ends == 1);
}
END_TEST

START_TEST(another_epoch_counts_anew)
{
	connect_bus();
	start(true, true);
	fake_bus_event(&bus, "snapshot", 50, ID, NULL, running(10));
	run_until(loop, news == 1);
	bus.epoch = "epoch-2";
	fake_bus_close(&bus);
	run_until(loop, !attached);
	connect_bus();
	run_until(loop, subscribes == 1);
	news = 0;
	fake_bus_event(&bus, "snapshot", 1, ID, NULL, running(10));
	fake_bus_event(&bus, "progress", 2, ID, NULL, running(30));
	run_until(loop, best_fraction > 0.2);
}
END_TEST

START_TEST(ends_while_the_bus_is_away)
{
	struct fake_prompt *p = fake_comfy_add(&comfy, ID, FAKE_RUNNING);

	connect_bus();
	start(true, true);
	fake_bus_event(&bus, "snapshot", 1, ID, NULL, running(10));
	run_until(loop, news == 1);
	p->state = FAKE_DONE;
	fake_bus_close(&bus);
	run_until(loop, ends == 1);
	ck_assert_int_eq(end_status, CMX_COMPLETED);
	ck_assert_uint_gt(end_outputs, 2);
}
END_TEST

/* Submitted while alone; the supervisor that comes doesn't know it. */
START_TEST(direct_prompt_stays_polled)
{
	struct fake_prompt *p = fake_comfy_add(&comfy, ID, FAKE_PENDING);

	knows = false;
	start(true, false);
	run_until(loop, news == 1);
	connect_bus();
	run_until(loop, subscribes == 1);
	p->state = FAKE_RUNNING;
	run_until(loop, news == 2);
	p->state = FAKE_DONE;
	run_until(loop, ends == 1);
	ck_assert_uint_eq(unknowns, 0);
}
END_TEST

/* The bus breaks with subscribe unanswered. */
START_TEST(broken_while_subscribing)
{
	fake_comfy_add(&comfy, ID, FAKE_DONE);
	hold_reply = true;
	connect_bus();
	start(true, false);
	run_until(loop, subscribes == 1);
	fake_bus_close(&bus);
	run_until(loop, ends == 1);
}
END_TEST

/* A tenant's worker with the service's rights polls nobody else's prompts. */
START_TEST(tenant_polls_own_only)
{
	struct link_config cfg = {
		.kind = "run",
		.comfyui = script_server_url(comfy.server),
		.poll_interval_ms = 200,
		.connect_timeout_ms = 60000,
		.request_timeout_ms = 60000,
		.tenant = true,
	};
	struct link *own = lnk;
	struct error err;

	fake_comfy_add(&comfy, ID, FAKE_RUNNING);
	lnk = link_new(loop, &cfg, &err);
	start(false, false);
	run_for(loop, 500);
	ck_assert_uint_eq(comfy.queues, 0);
	follow = follow_free(follow);
	start(true, false); /* our own */
	run_until(loop, news == 1);
	follow = follow_free(follow);
	link_free(lnk);
	lnk = own;
}
END_TEST

/* Without a supervisor ever, only ComfyUI can have what was submitted. */
START_TEST(submitted_alone_is_lost)
{
	struct link_config cfg = {
		.kind = "run",
		.comfyui = script_server_url(comfy.server),
		.poll_interval_ms = 200,
		.connect_timeout_ms = 60000,
		.request_timeout_ms = 60000,
	};
	struct link *other = lnk;
	struct error err;

	lnk = link_new(loop, &cfg, &err);
	start(true, false);
	run_until(loop, ends == 1);
	ck_assert_str_eq(end_type, "lost");
	follow = follow_free(follow);
	link_free(lnk);
	lnk = other;
}
END_TEST

/* ... and so it is with what the supervisor says that it doesn't know. */
START_TEST(unknown_to_the_supervisor_is_lost)
{
	knows = false;
	connect_bus();
	start(true, false);
	run_until(loop, ends == 1);
	ck_assert_str_eq(end_type, "lost");
}
END_TEST

#define TOLD(status)                                                           \
	"{\"status\":\"" status "\",\"completed_nodes\":[\"1\",\"2\"],"        \
	"\"current_node\":\"3\",\"current_node_progress\":0.5}"

/* What a predecessor has told is not taken back, polled or not. */
START_TEST(resumed_does_not_fall_behind)
{
	const struct cmx_progress *c;
	struct json told;

	ck_assert_int_eq(json_parse(&told, TOLD("executing"),
	                            strlen(TOLD("executing")), 0, NULL),
	                 JSON_OK);
	fake_comfy_add(&comfy, ID, FAKE_PENDING);
	start(false, false);
	ck_assert(follow_resume(follow, told));
	ck_assert(follow_taken(follow));
	run_until(loop, comfy.queues >= 2);
	c = progress_get(follow_progress(follow));
	ck_assert_int_eq(c->status, CMX_EXECUTING);
	ck_assert_uint_eq(c->completed_nodes.count, 2);
	fake_comfy_find(&comfy, ID)->state = FAKE_GONE;
	run_until(loop, ends == 1); /* known: lost, not unknown */
	ck_assert_str_eq(end_type, "lost");
}
END_TEST

START_TEST(resumed_from_an_end_or_nothing)
{
	struct json told;

	ck_assert_int_eq(json_parse(&told, TOLD("completed"),
	                            strlen(TOLD("completed")), 0, NULL),
	                 JSON_OK);
	start(false, false);
	ck_assert(!follow_resume(follow, told));
	ck_assert(!follow_resume(follow, JSON_MISSING));
	ck_assert_int_eq(progress_get(follow_progress(follow))->status,
	                 CMX_QUEUED);
}
END_TEST

START_TEST(freed_in_its_callbacks)
{
	fake_comfy_add(&comfy, ID, _i == 0 ? FAKE_RUNNING : FAKE_DONE);
	free_in_news = free_in_end = true;
	if (_i == 2)
		connect_bus();
	start(true, _i == 2);
	if (_i == 2)
		fake_bus_event(&bus, "finished", 1, ID, NULL, COMPLETED);
	run_until(loop, news + ends == 1);
	ck_assert_ptr_null(follow);
	run_for(loop, 50);
}
END_TEST

START_TEST(concluded_by_the_caller)
{
	fake_comfy_add(&comfy, ID, FAKE_PENDING);
	start(true, false);
	run_until(loop, news == 1);
	follow_conclude(follow, "cancelled", "by you");
	ck_assert_int_eq(progress_get(follow_progress(follow))->status,
	                 CMX_FAILED);
	ck_assert_str_eq(progress_get(follow_progress(follow))->error.type,
	                 "cancelled");
	run_for(loop, 500);
	ck_assert_uint_eq(ends, 0);
	ck_assert_uint_eq(news, 1);
}
END_TEST

START_TEST(id_at_its_bound)
{
	char id[PROGRESS_ID_MAX + 2];
	struct error err;

	memset(id, 'x', sizeof(id));
	id[PROGRESS_ID_MAX + 1] = '\0';
	ck_assert_ptr_null(
		follow_new(lnk, id, false, false, &handlers, NULL, &err));
	ck_assert_int_eq(err.code, ERR_INVALID);
	id[PROGRESS_ID_MAX] = '\0';
	follow = follow_new(lnk, id, false, false, &handlers, NULL, &err);
	ck_assert_ptr_nonnull(follow);
}
END_TEST

static Suite *follow_suite(void)
{
	Suite *s = suite_create("follow");
	TCase *t = tcase_create("follow");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, by_events);
	tcase_add_test(t, subscribed_already);
	tcase_add_test(t, unsubscribed_by_the_last_one_only);
	tcase_add_test(t, unknown_to_the_bus);
	tcase_add_test(t, failed_late_with_node_errors);
	tcase_add_test(t, by_polling);
	tcase_add_loop_test(t, failed_by_polling, 0, 2);
	tcase_add_test(t, unknown_by_polling);
	tcase_add_test(t, lost_by_polling);
	tcase_add_test(t, held_is_not_lost);
	tcase_add_test(t, submitted_alone_is_lost);
	tcase_add_test(t, unknown_to_the_supervisor_is_lost);
	tcase_add_test(t, resumed_does_not_fall_behind);
	tcase_add_test(t, resumed_from_an_end_or_nothing);
	tcase_add_test(t, unreachable_is_not_failed);
	tcase_add_test(t, bus_breaks_and_returns);
	tcase_add_test(t, another_epoch_counts_anew);
	tcase_add_test(t, ends_while_the_bus_is_away);
	tcase_add_test(t, direct_prompt_stays_polled);
	tcase_add_test(t, broken_while_subscribing);
	tcase_add_test(t, tenant_polls_own_only);
	tcase_add_loop_test(t, freed_in_its_callbacks, 0, 3);
	tcase_add_test(t, concluded_by_the_caller);
	tcase_add_test(t, id_at_its_bound);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(follow_suite());
}

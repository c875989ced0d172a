/*
 * check_execute.c - one submission: over the bus, directly, and through every
 * break between the two. What is counted throughout is how often ComfyUI got
 * the prompt: never twice.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/uuid.h"
#include "tests/runner.h"
#include "tests/worker_fakes.h"
#include "workers/execute.h"

#define ID "22222222-2222-4222-8222-222222222222"
/* 2^64-1: no double holds it. */
#define WORKFLOW                                                               \
	"{\n \"3\": {\"class_type\": \"KSampler\", \"inputs\": {\"seed\": "    \
	"18446744073709551615}}}"

static struct ev_loop *loop;
static struct fake_bus bus;
static struct fake_comfy comfy;
static struct link *lnk;
static struct execute *exe;

static unsigned submitteds, news, ends;
static char submitted_id[64], end_error[ERROR_TEXT_MAX], end_type[64];
static char end_message[ERROR_TEXT_MAX];
static char end_node_errors[512];
static enum execute_end end;
static enum error_code end_code;
static enum cmx_status end_status;
static enum cmx_method end_method;
static bool end_submitted, end_has_number;

static void on_submitted(void *user, const char *prompt_id,
                         struct json node_errors)
{
	submitteds++;
	snprintf(submitted_id, sizeof(submitted_id), "%s", prompt_id);
}

static void on_news(void *user, const struct follow_news *n)
{
	ck_assert_uint_eq(submitteds, 1);
	news++;
}

static void on_end(void *user, const struct execute_result *r)
{
	const struct cmx_progress *p = progress_get(r->progress);

	ends++;
	end = r->end;
	end_status = p->status;
	end_method = p->method;
	end_submitted = r->submitted;
	end_has_number = r->has_number;
	end_code = r->error ? r->error->code : ERR_NONE;
	snprintf(end_error, sizeof(end_error), "%s",
	         r->error ? r->error->text : "");
	snprintf(end_message, sizeof(end_message), "%s",
	         p->error.message ? p->error.message : "");
	snprintf(end_type, sizeof(end_type), "%s",
	         p->error.type ? p->error.type : "");
	snprintf(end_node_errors, sizeof(end_node_errors), "%.*s",
	         (int)r->node_errors.text.n,
	         r->node_errors.text.p ? r->node_errors.text.p : "");
	exe = execute_free(exe);
}

static const struct execute_handlers handlers = {
	.on_submitted = on_submitted,
	.on_news = on_news,
	.on_end = on_end,
};

/* The supervisor: how it answers, and what it was asked. */
enum bus_answer {
	BUS_TAKE,
	BUS_TAKE_POSTED, /* with number: ComfyUI has it */
	BUS_REJECT,
	BUS_UNREACHABLE,
	BUS_STOPPING,
	BUS_BREAK, /* taken, then EOF instead of the reply */
	BUS_HOLD,  /* says nothing */
};
static enum bus_answer answer;
static bool bus_knows; /* the id, when asked for progress or cancel */
static const char *cancel_how;
static unsigned submits, asks, cancels;
static char last_submit[4096];

static void answer_submit(struct fake_bus *b, struct json req)
{
	switch (answer) {
	case BUS_TAKE:
		fake_bus_reply(b, req,
		               "{\"prompt_id\":\"" ID
		               "\",\"status\":\"queued\"}");
		break;
	case BUS_TAKE_POSTED:
		fake_bus_reply(b, req,
		               "{\"prompt_id\":\"" ID
		               "\",\"status\":\"queued\",\"number\":3}");
		break;
	case BUS_REJECT:
		fake_bus_refuse(b, req, "rejected",
		                "\"node_errors\":{\"3\":{\"errors\":[]}}");
		break;
	case BUS_UNREACHABLE:
		fake_bus_refuse(b, req, "unreachable", NULL);
		break;
	case BUS_STOPPING:
		fake_bus_refuse(b, req, "busy", NULL);
		break;
	case BUS_BREAK:
		fake_bus_close(b);
		break;
	case BUS_HOLD:
		break;
	}
}

static void on_request(struct fake_bus *b, const char *op, struct json req)
{
	if (strcmp(op, "submit") == 0) {
		submits++;
		snprintf(last_submit, sizeof(last_submit), "%.*s",
		         (int)req.text.n, req.text.p);
		answer_submit(b, req);
	} else if (strcmp(op, "progress") == 0) {
		asks++;
		if (bus_knows)
			fake_bus_reply(b, req,
			               "{\"prompt_id\":\"" ID
			               "\",\"status\":\"queued\"}");
		else
			fake_bus_refuse(b, req, "not_found", NULL);
	} else if (strcmp(op, "subscribe") == 0) {
		if (bus_knows)
			fake_bus_reply(b, req, "{\"prompts\":1}");
		else
			fake_bus_refuse(b, req, "not_found", NULL);
	} else if (strcmp(op, "cancel") == 0) {
		cancels++;
		if (bus_knows) {
			char text[64];

			snprintf(text, sizeof(text), "{\"how\":\"%s\"}",
			         cancel_how);
			fake_bus_reply(b, req, text);
		} else {
			fake_bus_refuse(b, req, "not_found", NULL);
		}
	} else {
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
	submitteds = news = ends = submits = asks = cancels = 0;
	attached = bus_knows = false;
	answer = BUS_TAKE;
	cancel_how = "dequeued";
	loop = ev_loop_new(EVFLAG_AUTO);
	fake_comfy_init(&comfy, loop);
	lnk = fake_link_new(loop, &comfy, 200);
	link_on_notice(lnk, on_notice, NULL);
	link_watch_add(lnk, &watch);
	memset(&bus, 0, sizeof(bus));
	bus.fd = -1;
	bus.on_request = on_request;
}

static void teardown(void)
{
	exe = execute_free(exe);
	link_watch_remove(lnk, &watch);
	lnk = link_free(lnk);
	fake_bus_close(&bus);
	fake_comfy_deinit(&comfy);
	ev_loop_destroy(loop);
}

static void have_link(const struct link_config *cfg)
{
	struct error err;

	link_watch_remove(lnk, &watch);
	link_free(lnk);
	lnk = link_new(loop, cfg, &err);
	ck_assert_ptr_nonnull(lnk);
	link_on_notice(lnk, on_notice, NULL);
	link_watch_add(lnk, &watch);
}

static void have_patience(unsigned away_ms, unsigned request_timeout_ms)
{
	struct link_patience p = fake_patience;

	p.away_ms = p.away_cancel_ms = away_ms;
	have_link(&(struct link_config){
		.kind = "run",
		.comfyui = script_server_url(comfy.server),
		.connect_timeout_ms = 60000,
		.request_timeout_ms = request_timeout_ms,
		.poll_interval_ms = 200,
		.patience = &p,
	});
}

/* A supervisor that is away is back in time, though the machine be slow. */
static void be_patient(unsigned away_ms)
{
	have_patience(away_ms, 60000);
}

static void connect_bus(void)
{
	attached = false;
	fake_bus_connect(&bus, loop, lnk);
	run_until(loop, attached);
}

static void be_tenant(bool doubted)
{
	have_link(&(struct link_config){
		.kind = "run",
		.comfyui = script_server_url(comfy.server),
		.connect_timeout_ms = 60000,
		.request_timeout_ms = 60000,
		.poll_interval_ms = 200,
		.tenant = true,
		.patience = &fake_patience,
	});
	if (doubted)
		link_doubt_records(lnk);
}

static void start(const struct execute_options *more)
{
	struct execute_options o = *more;
	struct error err;

	o.workflow = SPAN(WORKFLOW);
	if (!o.prompt_id)
		o.prompt_id = ID;
	exe = execute_new(lnk, &o, &handlers, NULL, &err);
	ck_assert_msg(exe != NULL, "%s", err.text);
	ck_assert_str_eq(execute_prompt_id(exe), o.prompt_id);
	ck_assert_uint_eq(submitteds + news + ends, 0);
}

#define AWAY_MS 4000 /* patience of those that mustn't lose it */
#define PLAIN   (&(struct execute_options){.hold = false})
#define FINISHED(status)                                                       \
	"{\"status\":\"" status "\",\"completed_nodes\":[\"3\"],"              \
	"\"outputs\":{\"9\":{}},\"method\":\"websocket\"}"

static unsigned total_posts(void)
{
	struct fake_prompt *p = fake_comfy_find(&comfy, ID);

	return p ? p->posts : 0;
}

/* --- over the bus -------------------------------------------------------- */

START_TEST(over_the_bus)
{
	connect_bus();
	start(PLAIN);
	run_until(loop, submitteds == 1);
	ck_assert_str_eq(submitted_id, ID);
	ck_assert_ptr_nonnull(strstr(last_submit, "18446744073709551615"));
	ck_assert_ptr_nonnull(strstr(last_submit, "\"subscribe\":true"));
	ck_assert_ptr_null(strstr(last_submit, "hold"));
	fake_bus_event(&bus, "snapshot", 1, ID, NULL,
	               "{\"status\":\"executing\",\"queue_position\":0}");
	run_until(loop, news == 1);
	fake_bus_event(&bus, "finished", 2, ID, NULL, FINISHED("completed"));
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_COMPLETED);
	ck_assert_int_eq(end_method, CMX_WEBSOCKET);
	ck_assert_uint_eq(comfy.posts + comfy.queues + comfy.histories, 0);
}
END_TEST

/* Started while hello and attach are under way: waits, and goes by the bus. */
START_TEST(waits_for_a_pending_bus)
{
	fake_bus_connect(&bus, loop, lnk);
	start(PLAIN);
	run_until(loop, submits == 1);
	ck_assert_uint_eq(comfy.posts, 0);
}
END_TEST

START_TEST(pending_bus_fails)
{
	bus.refuse_attach = true;
	fake_bus_connect(&bus, loop, lnk);
	start(PLAIN);
	run_until(loop, submitteds == 1);
	ck_assert_uint_eq(comfy.posts, 1);
}
END_TEST

START_TEST(submit_only)
{
	answer = BUS_TAKE_POSTED;
	connect_bus();
	start(&(struct execute_options){.submit_only = true, .hold = true});
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_COMPLETED);
	ck_assert_uint_eq(submitteds, 1);
	ck_assert(end_has_number);
	ck_assert_ptr_null(strstr(last_submit, "subscribe"));
	ck_assert_ptr_nonnull(strstr(last_submit, "\"hold\":true"));
}
END_TEST

START_TEST(refused_by_the_bus)
{
	answer = BUS_REJECT;
	connect_bus();
	start(PLAIN);
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_REJECTED);
	ck_assert_int_eq(end_code, ERR_REJECTED);
	ck_assert_str_eq(end_type, "rejected");
	ck_assert_str_eq(end_node_errors, "{\"3\":{\"errors\":[]}}");
	ck_assert(!end_submitted);
	ck_assert_uint_eq(submitteds, 0);
}
END_TEST

START_TEST(unreachable_by_the_bus)
{
	answer = BUS_UNREACHABLE;
	connect_bus();
	start(PLAIN);
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_UNREACHABLE);
	ck_assert(!end_submitted);
	ck_assert_uint_eq(comfy.posts, 0); /* not behind its back */
}
END_TEST

START_TEST(refused_late)
{
	connect_bus();
	start(PLAIN);
	run_until(loop, submitteds == 1);
	fake_bus_event(&bus, "finished", 2, ID,
	               "{\"node_errors\":{\"3\":{\"errors\":[1]}}}",
	               "{\"status\":\"failed\",\"error\":{\"type\":"
	               "\"rejected\",\"message\":\"no\"}}");
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_REJECTED);
	ck_assert_str_eq(end_error, "no");
	ck_assert_str_eq(end_node_errors, "{\"3\":{\"errors\":[1]}}");
}
END_TEST

/* --- directly ------------------------------------------------------------ */

START_TEST(directly)
{
	start(PLAIN);
	run_until(loop, submitteds == 1);
	ck_assert_ptr_nonnull(strstr(comfy.last_body, "18446744073709551615"));
	ck_assert_str_eq(fake_comfy_find(&comfy, ID)->client_id, "my-client");
	run_until(loop, news == 1);
	fake_comfy_find(&comfy, ID)->state = FAKE_DONE;
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_COMPLETED);
	ck_assert_int_eq(end_method, CMX_POLLING);
	ck_assert_uint_eq(total_posts(), 1);
	ck_assert(end_has_number);
}
END_TEST

START_TEST(fresh_id)
{
	struct execute_options o = {.workflow = SPAN_NULL};
	struct error err;

	o.workflow = SPAN(WORKFLOW);
	exe = execute_new(lnk, &o, &handlers, NULL, &err);
	ck_assert_ptr_nonnull(exe);
	ck_assert(uuid_valid(execute_prompt_id(exe),
	                     strlen(execute_prompt_id(exe))));
}
END_TEST

START_TEST(failed_node)
{
	start(PLAIN);
	run_until(loop, submitteds == 1);
	fake_comfy_find(&comfy, ID)->state = FAKE_FAILED;
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_FAILED);
	ck_assert_str_eq(end_type, "RuntimeError");
}
END_TEST

START_TEST(refused_directly)
{
	comfy.post = FAKE_POST_REJECT;
	start(PLAIN);
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_REJECTED);
	ck_assert_ptr_nonnull(strstr(end_error, "KSampler"));
	ck_assert_ptr_nonnull(strstr(end_error, "sampler_name"));
	ck_assert_ptr_nonnull(strstr(end_node_errors, "value_not_in_list"));
	ck_assert(!end_submitted);
}
END_TEST

START_TEST(refused_with_500)
{
	comfy.post = FAKE_POST_500;
	start(PLAIN);
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_REJECTED);
	ck_assert_uint_eq(comfy.posts, 1);
}
END_TEST

START_TEST(valid_in_part)
{
	comfy.post = FAKE_POST_PARTLY;
	start(PLAIN);
	run_until(loop, submitteds == 1);
	fake_comfy_find(&comfy, ID)->state = FAKE_DONE;
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_COMPLETED);
	ck_assert_ptr_nonnull(strstr(end_node_errors, "class_type"));
}
END_TEST

START_TEST(server_chooses_the_id)
{
	comfy.post = FAKE_POST_OTHER_ID;
	start(PLAIN);
	run_until(loop, submitteds == 1);
	ck_assert_str_eq(submitted_id, FAKE_OTHER_ID);
	ck_assert_str_eq(execute_prompt_id(exe), FAKE_OTHER_ID);
	fake_comfy_find(&comfy, FAKE_OTHER_ID)->state = FAKE_DONE;
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_COMPLETED);
}
END_TEST

START_TEST(nobody_there)
{
	struct link_config cfg = {
		.kind = "run",
		.comfyui = "http://127.0.0.1:1",
		.connect_timeout_ms = 500,
		.request_timeout_ms = 500,
		.poll_interval_ms = 200,
	};
	struct link *own = lnk;
	struct error err;

	lnk = link_new(loop, &cfg, &err);
	start(PLAIN);
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_UNREACHABLE);
	ck_assert(!end_submitted);
	ck_assert_str_eq(end_type, "unreachable");
	ck_assert_int_eq(end_method, CMX_POLLING);
	ck_assert_ptr_nonnull(strstr(end_error, "127.0.0.1:1"));
	link_free(lnk);
	lnk = own;
}
END_TEST

/* The reply is missing: looked up, found, followed; not posted again. */
START_TEST(reply_lost_but_taken)
{
	comfy.post = FAKE_POST_TAKE_DROP;
	start(PLAIN);
	run_until(loop, submitteds == 1);
	ck_assert_uint_eq(total_posts(), 1);
	fake_comfy_find(&comfy, ID)->state = FAKE_DONE;
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_COMPLETED);
	ck_assert_uint_eq(comfy.posts, 1);
}
END_TEST

/* The same, while ComfyUI is still validating when it is first looked up. */
START_TEST(reply_lost_and_seen_later)
{
	comfy.post = FAKE_POST_TAKE_LATER;
	start(PLAIN);
	run_until(loop, comfy.histories == EXECUTE_LOOKUPS_MAX - 1);
	ck_assert_uint_eq(submitteds, 0);
	fake_comfy_settle(&comfy);
	run_until(loop, submitteds == 1);
	ck_assert_uint_eq(comfy.posts, 1);
}
END_TEST

START_TEST(reply_lost_and_not_taken)
{
	comfy.post = FAKE_POST_DROP;
	start(PLAIN);
	run_until(loop, comfy.posts == 1);
	comfy.post = FAKE_POST_TAKE;
	run_until(loop, submitteds == 1);
	ck_assert_uint_eq(comfy.posts, 2);
	ck_assert_uint_eq(total_posts(), 1);
	ck_assert_uint_ge(comfy.histories, EXECUTE_LOOKUPS_MAX);
}
END_TEST

START_TEST(replies_lost_for_good)
{
	comfy.post = _i ? FAKE_POST_502 : FAKE_POST_DROP;
	start(PLAIN);
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_UNREACHABLE);
	ck_assert_uint_eq(comfy.posts, EXECUTE_POSTS_MAX);
	ck_assert(end_submitted); /* for all we know */
}
END_TEST

START_TEST(reply_hangs)
{
	have_patience(fake_patience.away_ms, 1000);
	comfy.post = FAKE_POST_HANG; /* until the request times out */
	start(PLAIN);
	run_until(loop, submitteds == 1);
	ck_assert_uint_eq(comfy.posts, 1);
}
END_TEST

/* --- resume -------------------------------------------------------------- */

START_TEST(resume_finds_it)
{
	fake_comfy_add(&comfy, ID, _i ? FAKE_DONE : FAKE_PENDING);
	start(&(struct execute_options){.resume = true});
	run_until(loop, submitteds == 1);
	fake_comfy_find(&comfy, ID)->state = FAKE_DONE;
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_COMPLETED);
	ck_assert_uint_eq(comfy.posts, 0);
}
END_TEST

START_TEST(resume_submits_what_is_nowhere)
{
	start(&(struct execute_options){.resume = true});
	run_until(loop, submitteds == 1);
	ck_assert_uint_eq(comfy.posts, 1);
	ck_assert_uint_ge(comfy.histories, EXECUTE_LOOKUPS_MAX);
}
END_TEST

/* A supervisor that died may have it in its queue: looked up at once, posted
 * only after the patience with it. */
START_TEST(resume_waits_for_a_supervisor)
{
	if (_i == 1)
		be_patient(AWAY_MS);
	connect_bus();
	fake_bus_close(&bus);
	run_until(loop, !attached);
	start(&(struct execute_options){.resume = true});
	run_until(loop, comfy.histories >= EXECUTE_LOOKUPS_MAX);
	ck_assert_uint_eq(comfy.posts, 0);
	if (_i == 0) {
		run_until(loop, submitteds == 1);
		ck_assert_uint_eq(comfy.posts, 1);
		return;
	}
	/* Back in time: it is the supervisor's business. */
	bus_knows = true;
	connect_bus();
	run_until(loop, submitteds == 1);
	run_for(loop, AWAY_MS + 200);
	ck_assert_uint_eq(comfy.posts, 0);
}
END_TEST

/* Nor do others of the session wait for that. */
START_TEST(resume_that_waits_takes_no_turn)
{
	static const struct execute_handlers others = {0};
	struct execute_options o = {.prompt_id = NULL};
	struct execute *two;
	struct error err;

	o.workflow = SPAN(WORKFLOW);
	connect_bus();
	fake_bus_close(&bus);
	run_until(loop, !attached);
	start(&(struct execute_options){.resume = true});
	run_until(loop, comfy.histories >= EXECUTE_LOOKUPS_MAX);
	two = execute_new(lnk, &o, &others, NULL, &err);
	ck_assert_ptr_nonnull(two);
	run_until(loop, comfy.posts == 1);
	ck_assert_uint_eq(submitteds, 0);
	execute_free(two);
}
END_TEST

/* Its record may be made up: only what the supervisor knows is followed. */
START_TEST(resume_doubted)
{
	be_tenant(true);
	fake_comfy_add(&comfy, ID, FAKE_RUNNING);
	connect_bus();
	bus_knows = _i == 1;
	answer = BUS_TAKE_POSTED;
	start(&(struct execute_options){.resume = true});
	if (_i == 1) {
		run_until(loop, submitteds == 1);
		ck_assert(link_claimed(lnk, ID));
	} else {
		run_until(loop, ends == 1);
		ck_assert_int_eq(end_code, ERR_NOT_FOUND);
		ck_assert(!link_claimed(lnk, ID));
	}
	ck_assert_uint_eq(asks, 1);
	ck_assert_uint_eq(submits, 0);
	ck_assert_uint_eq(script_server_requests(comfy.server), 0);
}
END_TEST

/* A chosen id is the supervisor's to take, and after a crash, too. */
START_TEST(chosen_by_a_tenant)
{
	be_tenant(false);
	connect_bus();
	answer = BUS_TAKE_POSTED;
	start(&(struct execute_options){.chosen = true, .resume = _i == 1});
	run_until(loop, submitteds == 1);
	ck_assert_uint_eq(submits, 1);
	ck_assert(link_claimed(lnk, ID));
}
END_TEST

START_TEST(resume_on_the_bus)
{
	bus_knows = true;
	connect_bus();
	start(&(struct execute_options){.resume = true});
	run_until(loop, submitteds == 1);
	ck_assert_uint_eq(asks, 1);
	ck_assert_uint_eq(submits, 0);
	run_for(loop, 300);
	ck_assert_uint_eq(comfy.queues, 0);
}
END_TEST

/* Posted by a predecessor that was alone; the supervisor doesn't know it. */
START_TEST(resume_past_the_bus)
{
	fake_comfy_add(&comfy, ID, FAKE_RUNNING);
	connect_bus();
	start(&(struct execute_options){.resume = true});
	run_until(loop, submitteds == 1);
	ck_assert_uint_eq(asks, 1);
	ck_assert_uint_eq(submits, 0);
	fake_comfy_find(&comfy, ID)->state = FAKE_DONE;
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_COMPLETED);
}
END_TEST

START_TEST(resume_nowhere_on_the_bus)
{
	connect_bus();
	start(&(struct execute_options){.resume = true});
	run_until(loop, submits == 1);
	ck_assert_uint_eq(comfy.posts, 0);
	ck_assert_uint_ge(comfy.histories, EXECUTE_LOOKUPS_MAX);
}
END_TEST

/* --- the bus breaks ------------------------------------------------------ */

START_TEST(bus_breaks_and_is_back_soon)
{
	answer = BUS_BREAK;
	connect_bus();
	start(PLAIN);
	run_until(loop, submits == 1 && !attached);
	answer = BUS_TAKE;
	connect_bus();
	run_until(loop, submitteds == 1);
	ck_assert_uint_eq(submits, 2); /* the same id, answered the same */
	ck_assert_ptr_nonnull(strstr(last_submit, ID));
	ck_assert_uint_eq(comfy.posts, 0);
}
END_TEST

/* A supervisor that is stopping took nothing: no patience is due to it. */
START_TEST(bus_is_stopping)
{
	answer = BUS_STOPPING;
	connect_bus();
	start(PLAIN);
	run_until(loop, submits == 1);
	run_for(loop, 100);
	ck_assert_uint_eq(ends + comfy.posts, 0);
	fake_bus_close(&bus);
	run_until(loop, submitteds == 1);
	ck_assert_uint_eq(comfy.posts, 1);
	ck_assert_uint_eq(comfy.histories, 0); /* nothing to look up */
}
END_TEST

/* ... unless it may have had the prompt before. */
START_TEST(bus_had_it_and_is_stopping)
{
	answer = BUS_BREAK;
	connect_bus();
	start(PLAIN);
	run_until(loop, submits == 1 && !attached);
	answer = BUS_STOPPING;
	connect_bus();
	run_until(loop, submits == 2);
	fake_bus_close(&bus);
	run_until(loop, submitteds == 1);
	ck_assert_uint_eq(comfy.posts, 1);
	ck_assert_uint_ge(comfy.histories, EXECUTE_LOOKUPS_MAX);
}
END_TEST

START_TEST(bus_stays_away)
{
	int64_t since_ms = clock_ms();

	answer = BUS_BREAK;
	connect_bus();
	start(PLAIN);
	run_until(loop, submits == 1 && !attached);
	run_until(loop, comfy.posts + comfy.queues > 0);
	ck_assert_int_ge(clock_ms() - since_ms, fake_patience.away_ms);
	run_until(loop, submitteds == 1);
	ck_assert_uint_eq(comfy.posts, 1);
	ck_assert_uint_ge(comfy.histories, EXECUTE_LOOKUPS_MAX);
}
END_TEST

/* It had posted before it died. */
START_TEST(bus_stays_away_but_had_posted)
{
	answer = BUS_BREAK;
	connect_bus();
	start(PLAIN);
	run_until(loop, submits == 1 && !attached);
	fake_comfy_add(&comfy, ID, FAKE_PENDING);
	run_until(loop, submitteds == 1);
	ck_assert_uint_eq(comfy.posts, 0);
}
END_TEST

/* Taken as queued, then the supervisor dies before ComfyUI got it. */
START_TEST(queued_at_a_dead_supervisor)
{
	connect_bus();
	start(PLAIN);
	run_until(loop, submitteds == 1);
	fake_bus_close(&bus);
	run_until(loop, ends == 1 || comfy.posts == 1);
	ck_assert_uint_eq(ends, 0); /* not lost */
	ck_assert_uint_eq(submitteds, 1);
	fake_comfy_find(&comfy, ID)->state = FAKE_DONE;
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_COMPLETED);
	ck_assert_uint_eq(submitteds, 1); /* told once */
	ck_assert_uint_eq(total_posts(), 1);
}
END_TEST

/* The same, but ComfyUI is known to have it: no post, however long. */
START_TEST(posted_by_a_dead_supervisor)
{
	answer = BUS_TAKE_POSTED;
	fake_comfy_add(&comfy, ID, FAKE_RUNNING);
	connect_bus();
	start(PLAIN);
	run_until(loop, submitteds == 1);
	fake_bus_close(&bus);
	run_for(loop, fake_patience.away_ms + 500);
	ck_assert_uint_eq(comfy.posts, 0);
	fake_comfy_find(&comfy, ID)->state = FAKE_GONE;
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_FAILED);
	ck_assert_str_eq(end_type, "lost");
}
END_TEST

/* Away and back within patience: the supervisor has it, nothing is posted. */
START_TEST(queued_supervisor_returns)
{
	be_patient(AWAY_MS);
	connect_bus();
	start(PLAIN);
	run_until(loop, submitteds == 1);
	fake_bus_close(&bus);
	run_until(loop, !attached);
	bus_knows = true;
	connect_bus();
	run_for(loop, AWAY_MS + 300);
	ck_assert_uint_eq(comfy.posts, 0);
	fake_bus_event(&bus, "finished", 2, ID, NULL, FINISHED("completed"));
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_COMPLETED);
}
END_TEST

/* What may have been taken by a supervisor is not given up when ComfyUI is out
 * of reach as well. */
START_TEST(everybody_away)
{
	answer = BUS_BREAK;
	connect_bus();
	start(&(struct execute_options){.timeout_ms = 5000});
	comfy.closed = true;
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_TIMED_OUT);
	ck_assert(end_submitted);
}
END_TEST

/* --- turns --------------------------------------------------------------- */

static unsigned other_ends;

static void on_other_end(void *user, const struct execute_result *r)
{
	other_ends++;
}

START_TEST(one_outstanding_when_alone)
{
	static const struct execute_handlers others = {.on_end = on_other_end};
	struct execute_options o = {.workflow = SPAN_NULL};
	struct execute *two, *three;
	struct error err;

	o.workflow = SPAN(WORKFLOW);
	other_ends = 0;
	start(PLAIN);
	two = execute_new(lnk, &o, &others, NULL, &err);
	three = execute_new(lnk, &o, &others, NULL, &err);
	run_until(loop, submitteds == 1);
	run_for(loop, 300);
	ck_assert_uint_eq(comfy.posts, 1);
	fake_comfy_find(&comfy, ID)->state = FAKE_DONE;
	run_until(loop, ends == 1 && comfy.posts == 2);
	/* A supervisor gives turns of its own: the third goes there. */
	connect_bus();
	run_until(loop, submits == 1);
	ck_assert_uint_eq(comfy.posts, 2);
	execute_free(two);
	execute_free(three);
}
END_TEST

/* --- ids that the server chose ------------------------------------------- */

/* An old server took it and could not say so: it is found by our marker,
 * waiting (_i 0), running (1), or through (2). */
START_TEST(found_by_its_marker)
{
	static const enum fake_prompt_state states[] = {
		FAKE_PENDING, FAKE_RUNNING, FAKE_DONE};

	comfy.post = FAKE_POST_OTHER_DROP;
	comfy.other_state = states[_i];
	start(PLAIN);
	run_until(loop, submitteds == 1);
	ck_assert_str_eq(submitted_id, FAKE_OTHER_ID);
	fake_comfy_find(&comfy, FAKE_OTHER_ID)->state = FAKE_DONE;
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_COMPLETED);
	ck_assert_uint_eq(comfy.posts, 1);
}
END_TEST

/* As a successor finds what its predecessor had posted. */
START_TEST(resumed_by_its_marker)
{
	comfy.post = FAKE_POST_OTHER_DROP;
	comfy.other_state = FAKE_DONE;
	start(PLAIN);
	run_until(loop, comfy.posts == 1);
	exe = execute_free(exe);
	start(&(struct execute_options){.resume = true});
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_COMPLETED);
	ck_assert_uint_eq(comfy.posts, 1);
}
END_TEST

/* --- timeout and cancel -------------------------------------------------- */

START_TEST(times_out)
{
	start(&(struct execute_options){.timeout_ms = 4000});
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_TIMED_OUT);
	ck_assert_int_eq(end_code, ERR_TIMEOUT);
	ck_assert(end_submitted);
	ck_assert_int_eq(end_status, CMX_QUEUED); /* it runs on */
	ck_assert_int_eq(fake_comfy_find(&comfy, ID)->state, FAKE_PENDING);
}
END_TEST

START_TEST(cancelled_at_once)
{
	start(PLAIN);
	execute_cancel(exe);
	ck_assert_uint_eq(ends, 0);
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_CANCELLED);
	ck_assert_str_eq(end_type, "cancelled");
	ck_assert(!end_submitted);
	ck_assert_uint_eq(comfy.posts, 0);
}
END_TEST

START_TEST(cancelled_while_pending)
{
	start(PLAIN);
	run_until(loop, submitteds == 1);
	execute_cancel(exe);
	execute_cancel(exe);
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_CANCELLED);
	ck_assert_str_eq(end_type, "cancelled");
	ck_assert_int_eq(fake_comfy_find(&comfy, ID)->state, FAKE_GONE);
}
END_TEST

START_TEST(cancelled_while_running)
{
	start(PLAIN);
	run_until(loop, submitteds == 1);
	fake_comfy_find(&comfy, ID)->state = FAKE_RUNNING;
	execute_cancel(exe);
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_CANCELLED);
	ck_assert_uint_eq(comfy.interrupts, 1);
}
END_TEST

START_TEST(cancelled_too_late)
{
	start(PLAIN);
	run_until(loop, submitteds == 1);
	fake_comfy_find(&comfy, ID)->state = FAKE_DONE;
	execute_cancel(exe);
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_COMPLETED);
}
END_TEST

START_TEST(cancelled_during_the_post)
{
	have_patience(fake_patience.away_ms, 1000);
	comfy.post = FAKE_POST_HANG;
	start(PLAIN);
	run_until(loop, comfy.posts == 1);
	execute_cancel(exe);
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_CANCELLED);
	ck_assert_int_eq(fake_comfy_find(&comfy, ID)->state, FAKE_GONE);
}
END_TEST

START_TEST(cancelled_on_the_bus)
{
	bus_knows = true;
	connect_bus();
	start(PLAIN);
	run_until(loop, submitteds == 1);
	cancel_how = _i ? "interrupted" : "dequeued";
	execute_cancel(exe);
	run_until(loop, cancels == 1);
	if (_i)
		fake_bus_event(&bus, "finished", 2, ID, NULL,
		               "{\"status\":\"failed\",\"error\":{\"type\":"
		               "\"interrupted\",\"message\":\"m\"}}");
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_CANCELLED);
	ck_assert_uint_eq(comfy.deletes + comfy.interrupts, 0);
}
END_TEST

/* The news of the end may come before the answer to the cancel. */
START_TEST(cancelled_before_the_answer)
{
	bus_knows = true;
	connect_bus();
	start(PLAIN);
	run_until(loop, submitteds == 1);
	cancel_how = "interrupted";
	execute_cancel(exe);
	fake_bus_event(&bus, "finished", 2, ID, NULL,
	               "{\"status\":\"failed\",\"error\":{\"type\":"
	               "\"interrupted\",\"message\":\"m\"}}");
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_CANCELLED);
}
END_TEST

/* Asked again, there is nothing left to cancel; the news is still to come. */
START_TEST(cancelled_twice)
{
	bus_knows = true;
	connect_bus();
	start(PLAIN);
	run_until(loop, submitteds == 1);
	cancel_how = "interrupted";
	execute_cancel(exe);
	run_until(loop, cancels == 1);
	news = 0;
	fake_bus_event(&bus, "progress", 2, ID, NULL,
	               "{\"status\":\"executing\"}");
	run_until(loop, news == 1); /* after the answer */
	cancel_how = "ended";
	execute_cancel(exe);
	run_until(loop, cancels == 2);
	fake_bus_event(&bus, "finished", 3, ID, NULL,
	               "{\"status\":\"failed\",\"error\":{\"type\":"
	               "\"interrupted\",\"message\":\"m\"}}");
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_CANCELLED);
}
END_TEST

/* Interrupted by somebody else: that is a failure, not our cancelling. */
START_TEST(interrupted_by_another)
{
	connect_bus();
	start(PLAIN);
	run_until(loop, submitteds == 1);
	fake_bus_event(&bus, "finished", 2, ID, NULL,
	               "{\"status\":\"failed\",\"error\":{\"type\":"
	               "\"interrupted\",\"message\":\"m\"}}");
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_FAILED);
	ck_assert_str_eq(end_type, "interrupted");
}
END_TEST

START_TEST(cancelled_while_the_bus_is_away)
{
	answer = BUS_BREAK;
	connect_bus();
	start(PLAIN);
	run_until(loop, submits == 1 && !attached);
	execute_cancel(exe);
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_CANCELLED);
	ck_assert_uint_eq(comfy.posts, 0);
}
END_TEST

START_TEST(cancelled_before_the_bus_answers)
{
	bus_knows = true;
	answer = BUS_HOLD;
	connect_bus();
	start(PLAIN);
	run_until(loop, submits == 1);
	execute_cancel(exe);
	fake_bus_close(&bus);
	run_until(loop, !attached);
	answer = BUS_TAKE;
	connect_bus(); /* not submitted again, but cancelled there */
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_CANCELLED);
	ck_assert_uint_eq(submits, 1);
	ck_assert_uint_eq(cancels, 1);
}
END_TEST

/* The supervisor holds it and is away, ComfyUI doesn't have it: nobody says
 * that it is gone, but it will be, if the supervisor is back in time (_i), or
 * at least while the session lasts. */
START_TEST(cancelled_while_held)
{
	int64_t since_ms;

	if (_i)
		be_patient(60000);
	bus_knows = true;
	connect_bus();
	start(PLAIN);
	run_until(loop, submitteds == 1);
	fake_bus_close(&bus);
	run_until(loop, !attached);
	since_ms = clock_ms();
	execute_cancel(exe);
	if (_i) {
		run_for(loop, 100);
		ck_assert_uint_eq(ends, 0);
		connect_bus();
		run_until(loop, ends == 1);
	} else {
		run_until(loop, ends == 1);
		ck_assert_int_ge(clock_ms() - since_ms,
		                 fake_patience.away_cancel_ms);
		ck_assert_ptr_nonnull(strstr(end_message, "may still run"));
		ck_assert_uint_eq(cancels, 0);
		connect_bus();
		run_until(loop, cancels == 1);
		run_for(loop, 50);
	}
	ck_assert_int_eq(end, EXECUTE_CANCELLED);
	ck_assert_str_eq(end_type, "cancelled");
	ck_assert_uint_eq(cancels, 1);
	ck_assert_uint_eq(comfy.posts, 0);
}
END_TEST

/* What is owed is bounded: the oldest is forgotten. */
START_TEST(cancels_owed)
{
	char id[UUID_LEN + 1];
	unsigned i;

	connect_bus();
	fake_bus_close(&bus);
	run_until(loop, !attached);
	for (i = 0; i <= LINK_OWED_MAX; i++) {
		(void)snprintf(id, sizeof(id),
		               "%08x-"
		               "0000-4000-8000-000000000000",
		               i);
		ck_assert_int_eq(link_owe_cancel(lnk, id), 0);
		ck_assert_int_eq(link_owe_cancel(lnk, id), 0);
		ck_assert(link_owes_cancel(lnk, id));
	}
	ck_assert(
		!link_owes_cancel(lnk, "00000000-0000-4000-8000-000000000000"));
	ck_assert(
		link_owes_cancel(lnk, "00000001-0000-4000-8000-000000000000"));
	connect_bus();
	run_until(loop, cancels == LINK_OWED_MAX);
	ck_assert(!link_owes_cancel(lnk, id));
	/* What is left is freed with the link. */
	ck_assert_int_eq(link_owe_cancel(lnk, id), 0);
}
END_TEST

/* Submitted past a supervisor that came later and doesn't know it. */
START_TEST(cancelled_past_the_bus)
{
	start(PLAIN);
	run_until(loop, submitteds == 1);
	connect_bus();
	execute_cancel(exe);
	run_until(loop, ends == 1);
	ck_assert_int_eq(end, EXECUTE_CANCELLED);
	ck_assert_uint_eq(cancels, 1);
	ck_assert_int_eq(fake_comfy_find(&comfy, ID)->state, FAKE_GONE);
}
END_TEST

/* Freed in every state: nothing calls back, nothing leaks. */
START_TEST(freed_any_time)
{
	switch (_i) {
	case 0:
		start(PLAIN);
		break;
	case 1:
		start(PLAIN);
		run_until(loop, comfy.posts == 1);
		break;
	case 2:
		comfy.post = FAKE_POST_DROP;
		start(PLAIN);
		run_until(loop, comfy.queues == 1);
		break;
	case 3:
		answer = BUS_HOLD;
		connect_bus();
		start(PLAIN);
		run_until(loop, submits == 1);
		break;
	case 4:
		answer = BUS_BREAK;
		connect_bus();
		start(PLAIN);
		run_until(loop, submits == 1 && !attached);
		break;
	case 5:
		start(PLAIN);
		run_until(loop, news == 1);
		execute_cancel(exe);
		break;
	default:
		break;
	}
	exe = execute_free(exe);
	run_for(loop, 100);
	ck_assert_uint_eq(ends, 0);
}
END_TEST

static Suite *execute_suite(void)
{
	Suite *s = suite_create("execute");
	TCase *t = tcase_create("execute");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, over_the_bus);
	tcase_add_test(t, waits_for_a_pending_bus);
	tcase_add_test(t, pending_bus_fails);
	tcase_add_test(t, submit_only);
	tcase_add_test(t, refused_by_the_bus);
	tcase_add_test(t, unreachable_by_the_bus);
	tcase_add_test(t, refused_late);
	tcase_add_test(t, directly);
	tcase_add_test(t, fresh_id);
	tcase_add_test(t, failed_node);
	tcase_add_test(t, refused_directly);
	tcase_add_test(t, refused_with_500);
	tcase_add_test(t, valid_in_part);
	tcase_add_test(t, server_chooses_the_id);
	tcase_add_test(t, nobody_there);
	tcase_add_test(t, reply_lost_but_taken);
	tcase_add_test(t, reply_lost_and_seen_later);
	tcase_add_test(t, reply_lost_and_not_taken);
	tcase_add_loop_test(t, replies_lost_for_good, 0, 2);
	tcase_add_test(t, reply_hangs);
	tcase_add_loop_test(t, resume_finds_it, 0, 2);
	tcase_add_test(t, resume_submits_what_is_nowhere);
	tcase_add_loop_test(t, resume_waits_for_a_supervisor, 0, 2);
	tcase_add_test(t, resume_that_waits_takes_no_turn);
	tcase_add_loop_test(t, resume_doubted, 0, 2);
	tcase_add_loop_test(t, chosen_by_a_tenant, 0, 2);
	tcase_add_test(t, resume_on_the_bus);
	tcase_add_test(t, resume_past_the_bus);
	tcase_add_test(t, resume_nowhere_on_the_bus);
	tcase_add_test(t, bus_breaks_and_is_back_soon);
	tcase_add_test(t, bus_is_stopping);
	tcase_add_test(t, bus_had_it_and_is_stopping);
	tcase_add_test(t, bus_stays_away);
	tcase_add_test(t, bus_stays_away_but_had_posted);
	tcase_add_test(t, queued_at_a_dead_supervisor);
	tcase_add_test(t, posted_by_a_dead_supervisor);
	tcase_add_test(t, queued_supervisor_returns);
	tcase_add_test(t, everybody_away);
	tcase_add_test(t, one_outstanding_when_alone);
	tcase_add_test(t, times_out);
	tcase_add_test(t, cancelled_at_once);
	tcase_add_test(t, cancelled_while_pending);
	tcase_add_test(t, cancelled_before_the_answer);
	tcase_add_test(t, cancelled_twice);
	tcase_add_test(t, cancelled_while_running);
	tcase_add_test(t, cancelled_too_late);
	tcase_add_test(t, cancelled_during_the_post);
	tcase_add_loop_test(t, cancelled_on_the_bus, 0, 2);
	tcase_add_test(t, interrupted_by_another);
	tcase_add_test(t, cancelled_while_the_bus_is_away);
	tcase_add_test(t, cancelled_before_the_bus_answers);
	tcase_add_loop_test(t, found_by_its_marker, 0, 3);
	tcase_add_test(t, resumed_by_its_marker);
	tcase_add_loop_test(t, cancelled_while_held, 0, 2);
	tcase_add_test(t, cancels_owed);
	tcase_add_test(t, cancelled_past_the_bus);
	tcase_add_loop_test(t, freed_any_time, 0, 6);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(execute_suite());
}

/*
 * check_link.c - the link: hello, attach, refusals, silence, watches, turns,
 * claims, polling rate; and the poller behind it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/runner.h"
#include "tests/worker_fakes.h"
#include "workers/link.h"
#include "workers/poller.h"

/* What isn't the test's subject has time, whoever else uses the machine. */
static const struct link_patience patient = {
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
static unsigned ups, downs, losts, notices;
static char notice[2048];
static bool pending_then; /* when on_bus was called last */

static void on_bus(void *user, bool up)
{
	if (up)
		ups++;
	else
		downs++;
	pending_then = link_bus_pending(lnk);
}

static void on_lost(void *user)
{
	losts++;
}

static void on_notice(void *user, const char *text)
{
	notices++;
	snprintf(notice, sizeof(notice), "%s", text);
}

static struct link_watch watch = {.prompt_id = "", .on_bus = on_bus};

static struct link *make_link(const struct link_config *extra)
{
	struct link_config cfg = *extra;
	struct error err;
	struct link *l;

	if (!cfg.kind)
		cfg.kind = "run";
	if (!cfg.comfyui)
		cfg.default_url = script_server_url(comfy.server);
	cfg.connect_timeout_ms = 60000;
	cfg.request_timeout_ms = 60000;
	if (cfg.poll_interval_ms == 0)
		cfg.poll_interval_ms = 200;
	if (!cfg.patience)
		cfg.patience = &patient;
	l = link_new(loop, &cfg, &err);
	ck_assert_msg(l != NULL, "%s", err.text);
	link_on_bus_lost(l, on_lost, NULL);
	link_on_notice(l, on_notice, NULL);
	link_watch_add(l, &watch);
	return l;
}

static void setup(void)
{
	loop = ev_loop_new(EVFLAG_AUTO);
	memset(&bus, 0, sizeof(bus));
	bus.fd = -1;
	ups = downs = losts = notices = 0;
	fake_comfy_init(&comfy, loop);
	lnk = make_link(&(struct link_config){.kind = "mcp"});
}

static void teardown(void)
{
	link_watch_remove(lnk, &watch);
	link_watch_remove(lnk, &watch); /* twice is fine */
	lnk = link_free(lnk);
	fake_bus_close(&bus);
	fake_comfy_deinit(&comfy);
	ev_loop_destroy(loop);
}

static void have_patience(const struct link_patience *p)
{
	link_watch_remove(lnk, &watch);
	lnk = link_free(lnk);
	lnk = make_link(&(struct link_config){.kind = "mcp", .patience = p});
}

START_TEST(attaches)
{
	ck_assert(!link_on_bus(lnk));
	ck_assert_str_eq(link_bus_error(lnk), "none is running");
	fake_bus_connect(&bus, loop, lnk);
	ck_assert(link_bus_pending(lnk));
	run_until(loop, ups == 1);
	ck_assert(link_on_bus(lnk));
	ck_assert(!link_bus_pending(lnk));
	ck_assert_str_eq(link_bus_error(lnk), "");
	ck_assert_str_eq(link_epoch(lnk), FAKE_EPOCH);
	ck_assert_str_eq(link_client_id(lnk), "bus-client");
	ck_assert_ptr_nonnull(strstr(bus.attach, "\"kind\":\"mcp\""));
	/* The user named no URL: the supervisor's is the one. */
	ck_assert_ptr_null(strstr(bus.attach, "comfyui"));
	ck_assert_str_eq(link_url(lnk), "http://127.0.0.1:1");
	ck_assert_uint_eq(downs, 0);
}
END_TEST

START_TEST(named_url_is_told)
{
	struct link *l =
		make_link(&(struct link_config){.comfyui = "http://gpu:8188"});

	fake_bus_connect(&bus, loop, l);
	run_until(loop, ups >= 1);
	ck_assert_ptr_nonnull(
		strstr(bus.attach, "\"comfyui\":\"http://gpu:8188\""));
	ck_assert_ptr_nonnull(strstr(bus.attach, "\"kind\":\"run\""));
	ck_assert_str_eq(link_url(l), "http://gpu:8188");
	link_watch_remove(l, &watch);
	link_free(l);
}
END_TEST

START_TEST(refused_attach_is_no_loss)
{
	struct error err;

	bus.refuse_attach = true;
	fake_bus_connect(&bus, loop, lnk);
	run_until(loop, downs == 1);
	ck_assert(!link_on_bus(lnk));
	ck_assert_uint_eq(losts, 0);
	ck_assert_str_eq(link_bus_error(lnk), "refused: denied");
	ck_assert_uint_eq(
		link_ask(lnk, OP_QUEUE, SPAN_NULL, 0, NULL, NULL, &err), 0);
	ck_assert_int_eq(err.code, ERR_UNREACHABLE);
	/* Nor does polling make the keeper look for it again. */
	link_tell_polling(lnk);
	ck_assert_uint_eq(losts, 0);
	ck_assert_uint_eq(notices, 1);
}
END_TEST

START_TEST(stopped_supervisor_at_hello)
{
	have_patience(&(struct link_patience){.attach_ms = 150});
	bus.deaf = true;
	fake_bus_connect(&bus, loop, lnk);
	run_until(loop, downs == 1);
	ck_assert_uint_eq(losts, 1);
	ck_assert_ptr_nonnull(strstr(link_bus_error(lnk), "did not answer"));
}
END_TEST

static unsigned replies;
static enum error_code reply_code;
static bool reply_had_line, reply_on_bus;

static void on_reply(void *user, const struct incoming *in,
                     const struct error *err)
{
	replies++;
	reply_code = err ? err->code : ERR_NONE;
	reply_had_line = in != NULL;
	reply_on_bus = link_on_bus(lnk);
}

START_TEST(broken_bus_answers_everything)
{
	struct error err;

	fake_bus_connect(&bus, loop, lnk);
	run_until(loop, ups == 1);
	replies = 0;
	ck_assert_uint_ne(
		link_ask(lnk, OP_QUEUE, SPAN_NULL, 0, on_reply, NULL, &err), 0);
	ck_assert_uint_ne(
		link_ask(lnk, OP_STATUS, SPAN_NULL, 0, on_reply, NULL, &err),
		0);
	link_forget(lnk, link_ask(lnk, OP_STATUS, SPAN_NULL, 0, on_reply, NULL,
	                          &err));
	fake_bus_close(&bus);
	run_until(loop, downs == 1);
	ck_assert_uint_eq(replies, 2);
	ck_assert_int_eq(reply_code, ERR_UNREACHABLE);
	ck_assert(!reply_had_line);
	ck_assert(!reply_on_bus);
	ck_assert_uint_eq(losts, 1);
}
END_TEST

START_TEST(replaced_bus_answers_everything)
{
	struct fake_bus other = {.fd = -1, .epoch = "epoch-2"};
	struct error err;

	fake_bus_connect(&bus, loop, lnk);
	run_until(loop, ups == 1);
	replies = 0;
	ck_assert_uint_ne(
		link_ask(lnk, OP_QUEUE, SPAN_NULL, 0, on_reply, NULL, &err), 0);
	fake_bus_connect(&other, loop, lnk);
	ck_assert_uint_eq(replies, 1);
	ck_assert_uint_eq(downs, 1);
	/* Whoever hears of the end knows that another is coming. */
	ck_assert(pending_then);
	ck_assert(link_bus_pending(lnk));
	run_until(loop, ups == 2);
	ck_assert_uint_eq(losts, 0);
	ck_assert_str_eq(link_epoch(lnk), "epoch-2");
	/* The session is the same one. */
	ck_assert_ptr_nonnull(strstr(other.attach, "\"session\":\"s1\""));
	fake_bus_close(&other);
}
END_TEST

static void on_event(void *user, const struct incoming *ev)
{
	(*(unsigned *)user)++;
}

/* SIGSTOP is no EOF: a supervisor that stops answering while events are
 * awaited is dropped; one that answers pings is not, and without anybody who
 * waits nothing is asked. */
START_TEST(silence_is_probed_while_somebody_waits)
{
	unsigned events = 0;
	struct link_watch w = {
		.prompt_id = "p", .on_event = on_event, .user = &events};

	have_patience(&(struct link_patience){
		.attach_ms = 60000, .quiet_ms = 100, .ping_ms = 5000});
	fake_bus_connect(&bus, loop, lnk);
	run_until(loop, ups == 1);
	run_for(loop, 350);
	ck_assert_uint_eq(bus.pings, 0);
	link_watch_add(lnk, &w);
	run_until(loop, bus.pings >= 2);
	ck_assert_uint_eq(downs, 0);
	bus.deaf = true;
	run_until(loop, downs == 1);
	ck_assert_uint_eq(losts, 1);
	ck_assert_ptr_nonnull(strstr(link_bus_error(lnk), "has not answered"));
	link_watch_remove(lnk, &w);
}
END_TEST

struct remover {
	struct link_watch watch;
	struct link_watch *victim;
	struct link_watch *added;
	unsigned calls;
};

static void on_removing(void *user, const struct incoming *ev)
{
	struct remover *r = user;

	r->calls++;
	if (r->victim)
		link_watch_remove(lnk, r->victim);
	if (r->added)
		link_watch_add(lnk, r->added);
	r->victim = r->added = NULL;
}

START_TEST(watches_come_and_go_in_calls)
{
	struct remover a = {.watch = {.prompt_id = "p"}};
	struct remover b = {.watch = {.prompt_id = "p"}};
	struct remover c = {.watch = {.prompt_id = NULL}};
	struct remover d = {.watch = {.prompt_id = "q"}};

	a.watch.on_event = b.watch.on_event = on_removing;
	c.watch.on_event = d.watch.on_event = on_removing;
	a.watch.user = &a;
	b.watch.user = &b;
	c.watch.user = &c;
	d.watch.user = &d;
	fake_bus_connect(&bus, loop, lnk);
	run_until(loop, ups == 1);
	link_watch_add(lnk, &a.watch);
	link_watch_add(lnk, &b.watch);
	link_watch_add(lnk, &d.watch);
	a.victim = &b.watch; /* next in line */
	a.added = &c.watch;  /* not to be told of this event */
	fake_bus_event(&bus, "queued", 1, "p", NULL, "{}");
	run_until(loop, a.calls == 1);
	ck_assert_uint_eq(b.calls, 0);
	ck_assert_uint_eq(c.calls, 0);
	a.victim = &a.watch; /* itself */
	fake_bus_event(&bus, "queued", 2, "p", NULL, "{}");
	run_until(loop, c.calls == 1);
	ck_assert_uint_eq(a.calls, 2);
	fake_bus_event(&bus, "queued", 1, "q", NULL, "{}");
	run_until(loop, d.calls == 1);
	ck_assert_uint_eq(c.calls, 2);
	ck_assert(link_watched(lnk, "q"));
	ck_assert(!link_watched(lnk, "p"));
	link_watch_remove(lnk, &c.watch);
	link_watch_remove(lnk, &d.watch);
}
END_TEST

START_TEST(claims)
{
	struct link *l = make_link(&(struct link_config){.tenant = true});
	char id[32];

	ck_assert(link_may_see(lnk, "any"));
	ck_assert(link_may_see_all(lnk));
	ck_assert(!link_claimed(lnk, "any"));
	ck_assert(!link_may_see_all(l));
	ck_assert(!link_may_see(l, "mine-0"));
	for (unsigned i = 0; i <= LINK_CLAIMS_MAX; i++) {
		snprintf(id, sizeof(id), "mine-%u", i);
		ck_assert_int_eq(link_claim(l, id), 0);
		ck_assert_int_eq(link_claim(l, id), 0);
	}
	/* One over the bound: the oldest went. */
	ck_assert(!link_may_see(l, "mine-0"));
	ck_assert(link_may_see(l, "mine-1"));
	ck_assert(link_may_see(l, id));
	link_watch_remove(l, &watch);
	link_free(l);
}
END_TEST

START_TEST(poll_rate)
{
	struct link *l =
		make_link(&(struct link_config){.poll_interval_ms = 1500});
	unsigned min = UINT32_MAX, max = 0, ms;

	for (int i = 0; i < 2000; i++) {
		ms = link_poll_ms(l);
		min = ms < min ? ms : min;
		max = ms > max ? ms : max;
		ck_assert_uint_le(link_spread_ms(l), 1650);
	}
	ck_assert_uint_ge(min, 1350);
	ck_assert_uint_le(max, 1650);
	ck_assert_uint_ge(max - min, 200);
	link_watch_remove(l, &watch);
	link_free(l);
	/* A hundred sessions: 100 x 50 ms. */
	l = make_link(&(struct link_config){.poll_interval_ms = 1500,
	                                    .sessions = 100});
	ck_assert_uint_ge(link_poll_ms(l), 4500);
	ck_assert_uint_le(link_poll_ms(l), 5500);
	link_watch_remove(l, &watch);
	link_free(l);
}
END_TEST

START_TEST(own_client_id)
{
	ck_assert_uint_eq(strlen(link_client_id(lnk)), 36);
}
END_TEST

static unsigned turns[3];

static void on_turn(void *user)
{
	(*(unsigned *)user)++;
}

START_TEST(one_turn_at_a_time)
{
	struct link_turn t[3];

	for (size_t i = 0; i < 3; i++) {
		turns[i] = 0;
		t[i] = (struct link_turn){.on_turn = on_turn,
		                          .user = &turns[i]};
		link_turn_ask(lnk, &t[i]);
	}
	ck_assert_uint_eq(turns[0], 0); /* never from inside */
	run_for(loop, 20);
	ck_assert_uint_eq(turns[0] + turns[1] + turns[2], 1);
	link_turn_done(lnk, &t[1]); /* gives up its place */
	run_for(loop, 20);
	ck_assert_uint_eq(turns[0], 1); /* not called again */
	link_turn_done(lnk, &t[0]);
	link_turn_done(lnk, &t[0]);
	run_for(loop, 20);
	ck_assert_uint_eq(turns[0], 1);
	ck_assert_uint_eq(turns[1], 0);
	ck_assert_uint_eq(turns[2], 1);
	link_turn_done(lnk, &t[2]);
}
END_TEST

/* --- poller -------------------------------------------------------------- */

struct poll {
	struct poller_watch watch;
	unsigned polls, troubles;
	enum poller_found found;
	int64_t ahead;
	struct poll *remove; /* in the callback */
};

static void on_polled(void *user, const struct poller_news *n)
{
	struct poll *p = user;

	p->polls++;
	p->found = n->found;
	p->ahead = n->ahead;
	if (p->remove)
		poller_remove(&p->remove->watch);
	p->remove = NULL;
}

static void on_trouble(void *user, const struct error *err)
{
	struct poll *p = user;

	p->troubles++;
	if (p->remove)
		poller_remove(&p->remove->watch);
	p->remove = NULL;
}

static void poll_add(struct poll *p, const char *id)
{
	memset(p, 0, sizeof(*p));
	p->watch = (struct poller_watch){.prompt_id = id,
	                                 .on_polled = on_polled,
	                                 .on_trouble = on_trouble,
	                                 .user = p};
	poller_add(link_poller(lnk), &p->watch, true);
}

START_TEST(one_queue_for_all)
{
	struct poll p[5];

	fake_comfy_add(&comfy, "run", FAKE_RUNNING);
	fake_comfy_add(&comfy, "pend", FAKE_PENDING);
	fake_comfy_add(&comfy, "pend2", FAKE_PENDING);
	fake_comfy_add(&comfy, "done", FAKE_DONE);
	poll_add(&p[0], "run");
	poll_add(&p[1], "pend");
	poll_add(&p[2], "pend2");
	poll_add(&p[3], "done");
	poll_add(&p[4], "nowhere");
	run_until(loop, p[4].polls == 1 && p[3].polls == 1);
	ck_assert_uint_eq(comfy.queues, 1);
	ck_assert_uint_eq(comfy.histories, 2);
	ck_assert_int_eq(p[0].found, POLLER_RUNNING);
	ck_assert_int_eq(p[1].found, POLLER_PENDING);
	ck_assert_int_eq(p[1].ahead, 1);
	ck_assert_int_eq(p[2].ahead, 2);
	ck_assert_int_eq(p[3].found, POLLER_ENDED);
	ck_assert_int_eq(p[4].found, POLLER_MISSING);
	ck_assert_uint_eq(notices, 1);
	ck_assert_str_eq(notice, "no supervisor (none is running): polling "
	                         "ComfyUI every 0.2 s");
	ck_assert_uint_eq(losts, 1); /* the keeper may look for one */
	run_until(loop, p[0].polls == 3);
	ck_assert_uint_eq(comfy.queues, 3);
	ck_assert_uint_eq(notices, 1);
	for (size_t i = 0; i < 5; i++) {
		poller_remove(&p[i].watch);
		poller_remove(&p[i].watch);
	}
	/* Nobody watches: nothing is asked, no connection is kept. */
	run_until(loop, script_server_open(comfy.server) == 0);
	run_for(loop, 400);
	ck_assert_uint_eq(comfy.queues, 3);
}
END_TEST

/* More histories than are asked at once, and watches that go meanwhile. */
START_TEST(many_histories)
{
	struct poll p[3 * POLLER_HISTORIES_MAX];
	char ids[ARRAY_SIZE(p)][16];

	for (size_t i = 0; i < ARRAY_SIZE(p); i++) {
		snprintf(ids[i], sizeof(ids[i]), "p%zu", i);
		fake_comfy_add(&comfy, ids[i], FAKE_DONE);
		poll_add(&p[i], ids[i]);
		p[i].remove = i % 3 == 0 ? &p[i] : NULL;
	}
	p[1].remove = &p[2];
	run_until(loop, p[ARRAY_SIZE(p) - 1].polls >= 1 && p[1].polls >= 2);
	ck_assert_uint_le(p[2].polls, 1);
	for (size_t i = 0; i < ARRAY_SIZE(p); i++) {
		if (i % 3 == 0)
			ck_assert_uint_eq(p[i].polls, 1);
		poller_remove(&p[i].watch);
	}
	run_for(loop, 50);
}
END_TEST

START_TEST(trouble_backs_off_and_ends)
{
	struct poll p[2];

	comfy.refuse_all = true;
	fake_comfy_add(&comfy, "a", FAKE_RUNNING);
	poll_add(&p[0], "a");
	poll_add(&p[1], "b");
	p[0].remove = &p[1];
	run_until(loop, p[0].troubles == 1);
	ck_assert_uint_eq(p[1].troubles, 0);
	ck_assert_uint_eq(notices, 2); /* polling; doesn't answer */
	ck_assert_ptr_nonnull(strstr(notice, "trying again"));
	ck_assert_uint_eq(p[0].polls, 0);
	comfy.refuse_all = false;
	run_for(loop, 400);
	ck_assert_uint_eq(p[0].polls, 0); /* one second, not 200 ms */
	run_until(loop, p[0].polls == 1);
	ck_assert_str_eq(notice, "ComfyUI answers again");
	run_until(loop, p[0].polls == 3);
	poller_remove(&p[0].watch);
}
END_TEST

START_TEST(removed_while_asked)
{
	struct poll p[2];

	fake_comfy_add(&comfy, "a", FAKE_RUNNING);
	poll_add(&p[0], "nowhere");
	run_until(loop, comfy.queues == 1); /* its reply is on the way */
	poller_remove(&p[0].watch);
	poll_add(&p[0], "nowhere");
	poll_add(&p[1], "a");
	run_until(loop, comfy.histories == 1);
	poller_remove(&p[0].watch); /* the last call of the round */
	run_until(loop, p[1].polls == 3);
	ck_assert_uint_eq(p[0].polls, 0);
	poller_remove(&p[1].watch);
}
END_TEST

static Suite *link_suite(void)
{
	Suite *s = suite_create("link");
	TCase *t = tcase_create("link");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, attaches);
	tcase_add_test(t, named_url_is_told);
	tcase_add_test(t, refused_attach_is_no_loss);
	tcase_add_test(t, stopped_supervisor_at_hello);
	tcase_add_test(t, broken_bus_answers_everything);
	tcase_add_test(t, replaced_bus_answers_everything);
	tcase_add_test(t, silence_is_probed_while_somebody_waits);
	tcase_add_test(t, watches_come_and_go_in_calls);
	tcase_add_test(t, claims);
	tcase_add_test(t, poll_rate);
	tcase_add_test(t, own_client_id);
	tcase_add_test(t, one_turn_at_a_time);
	tcase_add_test(t, one_queue_for_all);
	tcase_add_test(t, many_histories);
	tcase_add_test(t, trouble_backs_off_and_ends);
	tcase_add_test(t, removed_while_asked);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(link_suite());
}

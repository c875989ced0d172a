/*
 * upstream_fixture.h - what the tests of the link share: a loop with a scripted
 * server, what the link told, and running the loop until something happened.
 *
 * Nothing waits for a guessed time: run_until() fails when what it waits for
 * does not come within LIMIT_S.
 */
#ifndef TESTS_UPSTREAM_FIXTURE_H
#define TESTS_UPSTREAM_FIXTURE_H

#include <ev.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "supervisor/upstream.h"
#include "tests/runner.h"
#include "tests/ws_server.h"

#define LIMIT_S    30
#define ID         "0b1f2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
#define OTHER_ID   "11111111-2222-4333-8444-555555555555"
#define STATES_MAX 64
#define FRAMES_MAX 64
#define HELLO                                                                  \
	"{\"type\":\"feature_flags\",\"data\":"                                \
	"{\"supports_preview_metadata\":true}}"

static struct ev_loop *loop;
static struct resolver *resolver;
static struct ws_server *server;
static struct upstream *link_;
static struct config cfg;
static struct error err;
static bool too_late;

/* What the link told. */
static struct {
	enum upstream_state states[STATES_MAX];
	size_t state_count;
	struct {
		bool binary;
		char *data;
		size_t len;
		enum upstream_state state; /* told before */
	} frames[FRAMES_MAX];
	size_t frame_count;
	int64_t received_us;
	void (*on_text)(void);
	void (*on_state)(enum upstream_state state);
} seen;

/* --- fixture -------------------------------------------------------------- */

static inline enum upstream_state last_state(void)
{
	return seen.state_count ? seen.states[seen.state_count - 1]
	                        : UPSTREAM_DOWN;
}

static inline void keep_frame(bool binary, const char *frame, size_t len,
                              int64_t received_us)
{
	size_t n = seen.frame_count;

	ck_assert_uint_lt(n, FRAMES_MAX);
	ck_assert_int_ge(received_us, seen.received_us);
	ck_assert_int_le(received_us, clock_us());
	seen.received_us = received_us;
	seen.frames[n].binary = binary;
	seen.frames[n].state = last_state();
	seen.frames[n].len = len;
	seen.frames[n].data = malloc(len + 1);
	ck_assert_ptr_nonnull(seen.frames[n].data);
	memcpy(seen.frames[n].data, frame, len);
	seen.frame_count++;
}

static inline void on_text(void *user, const char *frame, size_t len,
                           int64_t received_us)
{
	keep_frame(false, frame, len, received_us);
	if (seen.on_text)
		seen.on_text();
}

static inline void on_binary(void *user, const char *frame, size_t len,
                             int64_t received_us)
{
	ck_assert_ptr_eq(user, &seen);
	keep_frame(true, frame, len, received_us);
}

static inline void on_state(void *user, enum upstream_state state)
{
	ck_assert_ptr_eq(user, &seen);
	ck_assert_uint_lt(seen.state_count, STATES_MAX);
	ck_assert_int_eq(state, upstream_state(link_));
	seen.states[seen.state_count++] = state;
	if (seen.on_state)
		seen.on_state(state);
}

static const struct upstream_handlers handlers = {
	.on_text = on_text,
	.on_binary = on_binary,
	.on_state = on_state,
};

static inline void setup(void)
{
	static char empty[] = "";

	log_set_level(LOG_LEVEL_ERROR);
	if (getenv("TEST_LOG"))
		log_set_level(LOG_LEVEL_DEBUG);
	memset(&seen, 0, sizeof(seen));
	memset(&cfg, 0, sizeof(cfg));
	memset(&err, 0, sizeof(err));
	cfg.ca_file = cfg.proxy = empty;
	cfg.connect_timeout_ms = 5000;
	cfg.ping_interval_s = 30;
	cfg.pong_timeout_s = 10;
	loop = ev_loop_new(EVFLAG_AUTO);
	ck_assert_ptr_nonnull(loop);
	resolver = resolver_new(loop, &err);
	ck_assert_ptr_nonnull(resolver);
	server = ws_server_new(loop, false);
}

static inline void teardown(void)
{
	link_ = upstream_free(link_);
	server = ws_server_free(server);
	resolver = resolver_free(resolver);
	for (size_t i = 0; i < seen.frame_count; i++)
		free(seen.frames[i].data);
	ev_loop_destroy(loop);
}

static inline void on_too_late(struct ev_loop *l, struct ev_timer *w,
                               int revents)
{
	too_late = true;
}

/* Runs the loop until `cond` holds. */
#define run_until(cond)                                                        \
	do {                                                                   \
		struct ev_timer limit_;                                        \
                                                                               \
		ev_timer_init(&limit_, on_too_late, LIMIT_S, 0.);              \
		ev_timer_start(loop, &limit_);                                 \
		too_late = false;                                              \
		while (!(cond) && !too_late)                                   \
			ev_run(loop, EVRUN_ONCE);                              \
		ev_timer_stop(loop, &limit_);                                  \
		ck_assert_msg(!too_late, "in vain: %s (state %s, %s)", #cond,  \
		              link_ ? upstream_state_debug_name(               \
					      upstream_state(link_))           \
		                    : "-",                                     \
		              link_ ? upstream_last_error(link_) : "-");       \
	} while (0)

/* What is ready now, and no more. */
static inline void run_ready(void)
{
	for (int i = 0; i < 20; i++)
		ev_run(loop, EVRUN_NOWAIT);
}

static inline bool is_in(enum upstream_state state)
{
	return last_state() == state && upstream_state(link_) == state;
}

static inline struct upstream *make(const char *url_text)
{
	struct url url;

	ck_assert_msg(url_parse(&url, url_text, &err) == 0, "%s", err.text);
	link_ = upstream_new(loop, resolver, &url, &cfg, NULL, ID, &handlers,
	                     &seen, &err);
	return link_;
}

static inline void make_ok(const char *url_text)
{
	ck_assert_msg(make(url_text) != NULL, "%s", err.text);
}

/* "http://127.0.0.1:PORT" and what comes behind. */
static inline const char *url_of(const char *path)
{
	static char url[URL_TEXT_MAX + 64];

	ck_assert_int_lt(snprintf(url, sizeof(url), "http://127.0.0.1:%u%s",
	                          ws_server_port(server), path),
	                 (int)sizeof(url));
	return url;
}

static inline void connect_ok(void)
{
	make_ok(url_of(""));
	upstream_start(link_);
	run_until(is_in(UPSTREAM_CONNECTED) && ws_seen(server)->texts == 1);
}

static inline void check_states(const enum upstream_state *want, size_t count)
{
	ck_assert_uint_eq(seen.state_count, count);
	for (size_t i = 0; i < count; i++)
		ck_assert_int_eq(seen.states[i], want[i]);
}

static inline bool was_in(enum upstream_state state)
{
	for (size_t i = 0; i < seen.state_count; i++) {
		if (seen.states[i] == state)
			return true;
	}
	return false;
}

static inline bool has(const char *part)
{
	return strstr(ws_seen(server)->head, part) != NULL;
}

#define check_error(part)                                                      \
	ck_assert_msg(strstr(upstream_last_error(link_), part) != NULL,        \
	              "\"%s\" lacks \"%s\"", upstream_last_error(link_), part)

#endif

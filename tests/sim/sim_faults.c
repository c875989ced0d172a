/*
 * sim_faults.c - see sim_faults.h and README.md, which has an example of each.
 */
#include "tests/sim/sim_faults.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_events.h"
#include "tests/sim/sim_text.h"

#define FAULT_MS_MAX    86400000 /* a day */
#define HUGE_BYTES      1048576  /* a huge frame, if no size is asked for */
#define HUGE_BYTES_MIN  64       /* what its header and tail need */
#define RESTART_WAIT_US 2000     /* so that the order's reply gets out */

static void on_relisten(struct sim_timer *t);
static void on_restart(struct sim_timer *t);

void sim_faults_init(struct sim_faults *f, struct sim *sim)
{
	memset(f, 0, sizeof(*f));
	f->sim = sim;
	sim_timer_init(&f->relisten, on_relisten);
	sim_timer_init(&f->restart, on_restart);
}

void sim_faults_clear(struct sim_faults *f)
{
	f->nrules = 0;
	f->sim->clients.silent_until_us = 0;
}

/* --- rules for replies
 * --------------------------------------------------------- */

static bool rule_matches(const struct sim_rule *r, const char *method,
                         const char *path)
{
	size_t len = strlen(r->path);

	if (*r->method && strcmp(r->method, method) != 0)
		return false;
	if (strncmp(path, "/api/", 5) == 0 && strncmp(r->path, "/api/", 5) != 0)
		path += 4;
	return !len || (strncmp(r->path, path, len) == 0 &&
	                (path[len] == '\0' || path[len] == '/'));
}

static void use_up(struct sim_faults *f, size_t i)
{
	if (!f->rules[i].left || --f->rules[i].left)
		return;
	memmove(&f->rules[i], &f->rules[i + 1],
	        (f->nrules - i - 1) * sizeof(f->rules[0]));
	f->nrules--;
}

bool sim_fault_before(struct sim_faults *f, const char *method,
                      const char *path, struct sim_reply *reply)
{
	for (size_t i = 0; i < f->nrules; i++) {
		struct sim_rule *r = &f->rules[i];

		if (r->kind != SIM_RULE_STATUS ||
		    !rule_matches(r, method, path))
			continue;
		reply->status = r->status;
		reply->content_type = "text/plain; charset=utf-8";
		(void)buf_printf(&reply->body, "%d: fault on command",
		                 r->status);
		use_up(f, i);
		return true;
	}
	return false;
}

void sim_fault_after(struct sim_faults *f, const char *method, const char *path,
                     struct sim_reply *reply)
{
	size_t i = 0;

	while (i < f->nrules) {
		struct sim_rule *r = &f->rules[i];
		size_t before = f->nrules;

		if (r->kind == SIM_RULE_STATUS ||
		    !rule_matches(r, method, path)) {
			i++;
			continue;
		}
		if (r->kind == SIM_RULE_DELAY)
			reply->delay_us += r->ms * 1000;
		else if (r->kind == SIM_RULE_CUT)
			reply->fate = SIM_REPLY_CUT;
		else if (r->kind == SIM_RULE_RESET)
			reply->fate = SIM_REPLY_RESET;
		else
			reply->fate = SIM_REPLY_TRUNCATE;
		reply->keep_bytes = r->keep_bytes == SIZE_MAX
		                            ? reply->body.len / 2
		                            : r->keep_bytes;
		use_up(f, i);
		i += f->nrules == before;
	}
}

/* --- reading an order
 * ------------------------------------------------------------ */

static int get_int(struct json order, const char *key, int64_t otherwise,
                   int64_t max, int64_t *out, struct error *err)
{
	struct json j = json_get(order, key);

	*out = otherwise;
	if (json_is(j, JSON_NONE))
		return 0;
	if (!json_int64(j, out) || *out < 0 || *out > max)
		return error_set(err, ERR_INVALID,
		                 "%s must be a whole number from 0 to %lld",
		                 key, (long long)max);
	return 0;
}

static void get_text(struct json order, const char *key, char *out, size_t size)
{
	char *text = json_string_dup(json_get(order, key), size - 1);

	(void)snprintf(out, size, "%s", text ? text : "");
	free(text);
}

static int add_rule(struct sim_faults *f, struct json order,
                    enum sim_rule_kind kind, struct error *err)
{
	struct sim_rule *r = &f->rules[f->nrules];
	int64_t count, code, keep;

	if (f->nrules == SIM_RULES_MAX)
		return error_set(err, ERR_LIMIT, "%d rules are there already",
		                 SIM_RULES_MAX);
	memset(r, 0, sizeof(*r));
	/* A delay lasts until it is cleared, others are for one request. */
	if (get_int(order, "count", kind != SIM_RULE_DELAY, INT64_MAX, &count,
	            err) ||
	    get_int(order, "code", 500, 999, &code, err) ||
	    get_int(order, "ms", 1000, FAULT_MS_MAX, &r->ms, err) ||
	    get_int(order, "keep_bytes", -1, INT64_MAX, &keep, err))
		return -1;
	get_text(order, "path", r->path, sizeof(r->path));
	get_text(order, "method", r->method, sizeof(r->method));
	r->kind = kind;
	r->left = (uint64_t)count;
	r->status = (int)code;
	r->keep_bytes = keep < 0 ? SIZE_MAX : (size_t)keep;
	f->nrules++;
	return 0;
}

/* --- orders to sockets
 * ----------------------------------------------------------- */

/* Calls `act` for each WebSocket of the order's client_id, or for all. */
static size_t each_socket(struct sim_faults *f, struct json order,
                          void (*act)(struct sim_conn *c, struct json order))
{
	struct json id = json_get(order, "client_id");
	struct sim_conn *c = NULL;
	size_t matched = 0;

	while ((c = sim_conn_next(f->sim->server, c))) {
		struct sim_client *client = sim_conn_data(c);

		if (!json_is(id, JSON_NONE) && !json_string_eq(id, client->sid))
			continue;
		matched++;
		act(c, order);
	}
	return matched;
}

static void act_drop(struct sim_conn *c, struct json order)
{
	sim_conn_drop(c, json_string_eq(json_get(order, "how"), "rst"));
}

static void act_half_open(struct sim_conn *c, struct json order)
{
	sim_conn_freeze(c, !json_is(json_get(order, "on"), JSON_FALSE));
}

static void act_deaf(struct sim_conn *c, struct json order)
{
	struct sim_client *client = sim_conn_data(c);
	int64_t ms = 0;

	(void)json_int64(json_get(order, "after_ms"), &ms);
	if (ms > 0)
		sim_timer_start(&client->deaf, ms * 1000);
	else
		sim_client_deafen(client);
}

static void send_bytes(struct sim_conn *c, const void *data, size_t len,
                       bool text)
{
	struct sim_frame *f = sim_frame_new(data, len, text);

	sim_conn_send(c, f);
	sim_frame_unref(f);
}

static void act_garbage(struct sim_conn *c, struct json order)
{
	/* A type 4 frame that says its JSON has 4096 bytes, and has four. */
	static const char cut[] = {0,    0, 0,   4,   0,   0,
	                           0x10, 0, '{', '"', 'n', 'o'};
	static const char unknown[] = {0, 0, 0, 99, 1, 2, 3, 4};
	static const struct {
		const char *kind, *data;
		size_t len;
		bool text;
	} kinds[] = {
		{"text", "this is no JSON", 15, true},
		{"json", "{\"type\": \"progress\", \"data\": {\"value\": 1,",
	         41, true},
		{"shape", "{\"type\": 7, \"data\": []}", 23, true},
		{"utf8", "{\"type\": \"\xff\xfe\", \"data\": {}}", 25, true},
		{"empty", "", 0, true},
		{"binary", cut, sizeof(cut), false},
		{"short", "\0\0", 2, false},
		{"unknown", unknown, sizeof(unknown), false},
	};
	struct json kind = json_get(order, "kind");

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (json_is(kind, JSON_NONE) ||
		    json_string_eq(kind, kinds[i].kind))
			send_bytes(c, kinds[i].data, kinds[i].len,
			           kinds[i].text);
	}
}

static void act_huge(struct sim_conn *c, struct json order)
{
	bool binary = json_string_eq(json_get(order, "kind"), "binary");
	struct buf b = BUF_INIT(SIM_FRAME_MAX);
	int64_t bytes = HUGE_BYTES;
	char *room;

	(void)json_int64(json_get(order, "bytes"), &bytes);
	if (bytes < HUGE_BYTES_MIN)
		bytes = HUGE_BYTES_MIN;
	if (binary) {
		sim_put_u32(&b, 1);
		sim_put_u32(&b, 1);
	} else {
		(void)buf_puts(&b, "{\"type\": \"huge\", \"data\": {\"x\": \"");
	}
	room = buf_reserve(&b, (size_t)bytes - b.len - 3);
	if (room) {
		memset(room, 'x', (size_t)bytes - b.len - 3);
		buf_commit(&b, (size_t)bytes - b.len - 3);
	}
	(void)buf_puts(&b, binary ? "xxx" : "\"}}");
	if (buf_ok(&b))
		send_bytes(c, b.data, b.len, !binary);
	buf_deinit(&b);
}

static int base64_value(int c)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
		"0123456789+/";
	const char *p = c ? strchr(digits, c) : NULL;

	return p ? (int)(p - digits) : -1;
}

static void decode_base64(const char *s, struct buf *out)
{
	unsigned bits = 0, n = 0;

	for (; *s; s++) {
		int v = base64_value((unsigned char)*s);

		if (v < 0)
			continue;
		bits = bits << 6 | (unsigned)v;
		n += 6;
		if (n >= 8) {
			n -= 8;
			(void)buf_putc(out, (char)(bits >> n));
		}
	}
}

static void act_send(struct sim_conn *c, struct json order)
{
	struct json text = json_get(order, "text");
	struct buf b = BUF_INIT(SIM_FRAME_MAX);
	char *base64 =
		json_string_dup(json_get(order, "base64"), SIM_FRAME_MAX);

	if (base64)
		decode_base64(base64, &b);
	else if (json_is(text, JSON_STRING))
		(void)json_string_decode(text, &b);
	else
		(void)sim_put_json(&b, text);
	if (buf_ok(&b))
		send_bytes(c, b.data ? b.data : "", b.len, !base64);
	free(base64);
	buf_deinit(&b);
}

/* --- orders to the server
 * --------------------------------------------------------- */

static void on_relisten(struct sim_timer *t)
{
	struct sim_faults *f = container_of(t, struct sim_faults, relisten);
	struct error err = ERROR_NULL;

	if (sim_server_listen(f->sim->server, true, &err)) {
		log_warn("faults", "%s", err.text);
		sim_timer_start(&f->relisten, 100000);
	}
}

static void stop_listening(struct sim_faults *f, int64_t us)
{
	(void)sim_server_listen(f->sim->server, false, NULL);
	sim_timer_start(&f->relisten, us);
}

static void on_restart(struct sim_timer *t)
{
	struct sim_faults *f = container_of(t, struct sim_faults, restart);

	stop_listening(f, f->down_us);
	sim_server_drop_all(f->sim->server);
	sim_forget(f->sim);
}

static int order_refuse(struct sim_faults *f, struct json order,
                        size_t *matched, struct error *err)
{
	int64_t ms;

	if (get_int(order, "ms", 1000, FAULT_MS_MAX, &ms, err))
		return -1;
	stop_listening(f, ms * 1000);
	return 0;
}

static int order_restart(struct sim_faults *f, struct json order,
                         size_t *matched, struct error *err)
{
	int64_t ms;

	if (get_int(order, "down_ms", 0, FAULT_MS_MAX, &ms, err))
		return -1;
	f->down_us = ms * 1000;
	sim_timer_start(&f->restart, RESTART_WAIT_US);
	return 0;
}

static int order_silent(struct sim_faults *f, struct json order,
                        size_t *matched, struct error *err)
{
	int64_t ms;

	if (get_int(order, "ms", 1000, FAULT_MS_MAX, &ms, err))
		return -1;
	f->sim->clients.silent_until_us = clock_us() + ms * 1000;
	return 0;
}

static int order_pause(struct sim_faults *f, struct json order, size_t *matched,
                       struct error *err)
{
	int64_t steps, starts;

	if (get_int(order, "steps", 0, INT64_MAX, &steps, err) ||
	    get_int(order, "starts", 0, INT64_MAX, &starts, err))
		return -1;
	if (steps > 0 || starts > 0)
		sim_exec_pause_after(&f->sim->exec, steps, starts);
	else
		sim_exec_pause(&f->sim->exec, true);
	return 0;
}

static int order_resume(struct sim_faults *f, struct json order,
                        size_t *matched, struct error *err)
{
	sim_exec_pause(&f->sim->exec, false);
	return 0;
}

static int order_clear(struct sim_faults *f, struct json order, size_t *matched,
                       struct error *err)
{
	sim_faults_clear(f);
	return 0;
}

#define RULE_ORDER(name, kind)                                                 \
	static int name(struct sim_faults *f, struct json order,               \
	                size_t *matched, struct error *err)                    \
	{                                                                      \
		return add_rule(f, order, kind, err);                          \
	}
RULE_ORDER(order_status, SIM_RULE_STATUS)
RULE_ORDER(order_delay, SIM_RULE_DELAY)
RULE_ORDER(order_truncate, SIM_RULE_TRUNCATE)

static int order_cut(struct sim_faults *f, struct json order, size_t *matched,
                     struct error *err)
{
	bool reset = json_string_eq(json_get(order, "how"), "rst");

	return add_rule(f, order, reset ? SIM_RULE_RESET : SIM_RULE_CUT, err);
}

#define SOCKET_ORDER(name, act)                                                \
	static int name(struct sim_faults *f, struct json order,               \
	                size_t *matched, struct error *err)                    \
	{                                                                      \
		*matched = each_socket(f, order, act);                         \
		return 0;                                                      \
	}
SOCKET_ORDER(order_drop, act_drop)
SOCKET_ORDER(order_half_open, act_half_open)
SOCKET_ORDER(order_garbage, act_garbage)
SOCKET_ORDER(order_send, act_send)

static int order_huge(struct sim_faults *f, struct json order, size_t *matched,
                      struct error *err)
{
	int64_t bytes;

	if (get_int(order, "bytes", HUGE_BYTES, SIM_FRAME_MAX, &bytes, err))
		return -1;
	*matched = each_socket(f, order, act_huge);
	return 0;
}

static int order_deaf(struct sim_faults *f, struct json order, size_t *matched,
                      struct error *err)
{
	int64_t ms;

	if (get_int(order, "after_ms", 0, FAULT_MS_MAX, &ms, err))
		return -1;
	*matched = each_socket(f, order, act_deaf);
	return 0;
}

int sim_faults_order(struct sim_faults *f, struct json order, size_t *matched,
                     struct error *err)
{
	static const struct {
		const char *name;
		int (*fn)(struct sim_faults *f, struct json order,
		          size_t *matched, struct error *err);
	} orders[] = {
		{"drop", order_drop},         {"half_open", order_half_open},
		{"deaf", order_deaf},         {"silent", order_silent},
		{"delay", order_delay},       {"status", order_status},
		{"truncate", order_truncate}, {"cut", order_cut},
		{"refuse", order_refuse},     {"garbage", order_garbage},
		{"huge", order_huge},         {"restart", order_restart},
		{"pause", order_pause},       {"resume", order_resume},
		{"send", order_send},         {"clear", order_clear},
	};
	struct json name = json_get(order, "fault");

	*matched = 0;
	for (size_t i = 0; i < ARRAY_SIZE(orders); i++) {
		if (json_string_eq(name, orders[i].name))
			return orders[i].fn(f, order, matched, err);
	}
	return error_set(err, ERR_INVALID, "unknown fault");
}

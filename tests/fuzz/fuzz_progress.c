/*
 * fuzz_progress.c - any course of events, history entries, snapshots and queue
 * answers: progress stays within 0 and 1 and never falls, lists hold each node
 * once, the end is final, what is folded twice changes nothing, and a snapshot
 * says it all.
 *
 * The input: lines, each with a letter for what it is: e(vent), h(istory),
 * s(napshot), q(ueued), r(unning), f(ail). Or, behind a '#', pairs of bytes
 * that each become such a line: that reaches long courses of few nodes sooner.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/progress.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(x)                                                             \
	do {                                                                   \
		if (!(x))                                                      \
			abort();                                               \
	} while (0)

#define JSON_MAX  (16u << 20)
#define LINES_MAX 32

struct told {
	char *node;
	double fraction;
};

static struct progress *p;
static struct told told[LINES_MAX];
static size_t told_count;

static void state(const struct progress *of, struct buf *b)
{
	buf_reset(b);
	REQUIRE(progress_to_json(of, 0, b) == 0);
}

static bool same(const struct buf *a, const struct buf *b)
{
	return span_eq(span_make(a->data, a->len), span_make(b->data, b->len));
}

static bool has(const struct cmx_nodes *l, const char *id, size_t before)
{
	for (size_t i = 0; i < l->count && i < before; i++) {
		if (strcmp(l->ids[i], id) == 0)
			return true;
	}
	return false;
}

static void check_lists(const struct cmx_progress *c)
{
	const struct cmx_nodes *done = &c->completed_nodes;
	const struct cmx_nodes *cached = &c->cached_nodes;

	for (size_t i = 0; i < done->count; i++)
		REQUIRE(!has(done, done->ids[i], i) &&
		        !has(cached, done->ids[i], SIZE_MAX));
	for (size_t i = 0; i < cached->count; i++)
		REQUIRE(!has(cached, cached->ids[i], i));
	if (c->current_node)
		REQUIRE(!has(done, c->current_node, SIZE_MAX) &&
		        !has(cached, c->current_node, SIZE_MAX));
}

static void check_fraction(const struct cmx_progress *c)
{
	size_t i = 0;

	REQUIRE(c->current_node_progress >= 0 && c->current_node_progress <= 1);
	if (!c->current_node)
		return;
	while (i < told_count && strcmp(told[i].node, c->current_node) != 0)
		i++;
	if (i == LINES_MAX)
		return;
	if (i == told_count) {
		told[i].node = strdup(c->current_node);
		REQUIRE(told[i].node);
		told[told_count++].fraction = 0;
	}
	REQUIRE(c->current_node_progress >= told[i].fraction);
	told[i].fraction = c->current_node_progress;
}

static void check_state(const struct buf *json)
{
	const struct cmx_progress *c = progress_get(p);
	struct json j, outputs;
	size_t at;

	REQUIRE(json_parse(&j, json->data, json->len, JSON_UNIQUE_KEYS, &at) ==
	        JSON_OK);
	REQUIRE(json_parse(&outputs, c->outputs, c->outputs_len, 0, &at) ==
	        JSON_OK);
	REQUIRE(outputs.type == JSON_OBJECT);
	REQUIRE((c->status != CMX_FAILED) || c->error.type);
	REQUIRE((c->status != CMX_COMPLETED) || !c->error.type);
	REQUIRE(c->status == CMX_QUEUED || c->queue_position == 0);
	REQUIRE(!progress_ended(p) || !c->current_node);
	check_lists(c);
	check_fraction(c);
}

/* Whoever is told the state by JSON knows as much. */
static void check_snapshot(const struct buf *json)
{
	cleanup_buf struct buf again = BUF_INIT(JSON_MAX);
	struct progress *q = progress_new("p");
	struct json j;

	REQUIRE(q);
	REQUIRE(json_parse(&j, json->data, json->len, 0, NULL) == JSON_OK);
	(void)progress_fold_snapshot(q, j);
	state(q, &again);
	REQUIRE(same(&again, json));
	REQUIRE(progress_fold_snapshot(q, j) == PROGRESS_SAME);
	(void)progress_free(q);
}

static unsigned fold_json(char kind, struct span text)
{
	struct json j;

	if (json_parse(&j, text.p, text.n, JSON_NONFINITE, NULL) != JSON_OK)
		return PROGRESS_SAME;
	if (kind == 'h')
		return progress_fold_history(p, j, CMX_POLLING);
	return progress_fold_snapshot(p, j);
}

static unsigned fold(struct span line)
{
	struct span text = span_make(line.p + 1, line.n - 1);
	struct comfy_event ev;
	char type[16] = "";

	switch (line.p[0]) {
	case 'e':
		if (comfy_event_parse_text(&ev, text.p, text.n) !=
		    COMFY_EVENT_OK)
			return PROGRESS_SAME;
		return progress_fold_event(p, &ev);
	case 'h':
	case 's':
		return fold_json(line.p[0], text);
	case 'q':
		return progress_fold_queued(p, (int64_t)text.n, CMX_POLLING);
	case 'r':
		return progress_fold_running(p, CMX_POLLING);
	case 'f':
		memcpy(type, text.p, text.n < 15 ? text.n : 15);
		return progress_fail(p, type, type, text.n > 8 ? type : NULL);
	default:
		return PROGRESS_SAME;
	}
}

static void take_line(struct span line)
{
	cleanup_buf struct buf before = BUF_INIT(JSON_MAX);
	cleanup_buf struct buf after = BUF_INIT(JSON_MAX);
	cleanup_buf struct buf again = BUF_INIT(JSON_MAX);
	enum cmx_status status = progress_get(p)->status;
	bool ended = progress_ended(p);
	unsigned change;

	state(p, &before);
	change = fold(line);
	state(p, &after);
	if (change == PROGRESS_SAME)
		REQUIRE(same(&before, &after));
	if (ended) {
		/* Outputs may still be made up for. */
		REQUIRE(!(change & ~(unsigned)PROGRESS_OUTPUT));
		REQUIRE(line.p[0] == 'h' || line.p[0] == 's' ||
		        change == PROGRESS_SAME);
		REQUIRE(progress_get(p)->status == status);
	}
	REQUIRE(progress_get(p)->status >= status);
	REQUIRE(!(change & PROGRESS_END) == (ended || !progress_ended(p)));
	check_state(&after);
	check_snapshot(&after);
	REQUIRE(fold(line) == PROGRESS_SAME);
	state(p, &again);
	REQUIRE(same(&again, &after));
}

/* Lines with %1$u for a node, %2$u for a second number below 16. */
static const char *const course[] = {
	"e{\"type\":\"execution_start\",\"data\":{\"prompt_id\":\"p\"}}",
	"e{\"type\":\"execution_cached\",\"data\":{\"prompt_id\":\"p\","
	"\"nodes\":[\"%1$u\",\"%2$u\"]}}",
	"e{\"type\":\"executing\",\"data\":{\"prompt_id\":\"p\",\"node\":"
	"\"%1$u\"}}",
	"e{\"type\":\"executing\",\"data\":{\"node\":\"%1$u\"}}",
	"e{\"type\":\"progress\",\"data\":{\"prompt_id\":\"p\",\"node\":"
	"\"%1$u\",\"value\":%2$u,\"max\":7}}",
	"e{\"type\":\"progress\",\"data\":{\"value\":%2$u,\"max\":9}}",
	"e{\"type\":\"progress_state\",\"data\":{\"nodes\":{\"%1$u\":{"
	"\"value\":%2$u,\"max\":12,\"state\":\"running\"},\"%2$u\":{"
	"\"state\":\"running\"}}}}",
	"e{\"type\":\"progress_state\",\"data\":{\"nodes\":{\"%1$u\":{"
	"\"state\":\"finished\"}}}}",
	"e{\"type\":\"executed\",\"data\":{\"prompt_id\":\"p\",\"node\":"
	"\"%1$u\",\"output\":{\"a\":%2$u}}}",
	"e{\"type\":\"executed\",\"data\":{\"prompt_id\":\"p\",\"node\":"
	"\"%1$u\",\"output\":null}}",
	"e{\"type\":\"execution_success\",\"data\":{}}",
	"e{\"type\":\"execution_error\",\"data\":{\"node_id\":\"%1$u\","
	"\"exception_type\":\"T\",\"executed\":[\"%2$u\"]}}",
	"e{\"type\":\"execution_error\",\"data\":{\"node_id\":\"%1$u\","
	"\"exception_type\":\"ExecutionBlocked\"}}",
	"e{\"type\":\"execution_interrupted\",\"data\":{\"node_id\":"
	"\"%1$u\"}}",
	"e{\"type\":\"executing\",\"data\":{\"prompt_id\":\"p\",\"node\":"
	"null}}",
	"h{\"outputs\":{\"%1$u\":{\"b\":1},\"%2$u\":{}},\"status\":{"
	"\"status_str\":\"success\",\"messages\":[[\"execution_cached\",{"
	"\"nodes\":[\"%2$u\"]}]]}}",
	"h{\"outputs\":{\"%1$u\":{}},\"status\":{\"status_str\":\"error\","
	"\"messages\":[[\"execution_error\",{\"node_id\":\"%2$u\","
	"\"exception_type\":\"U\",\"executed\":[\"%1$u\"]}]]}}",
	"s{\"status\":\"executing\",\"current_node\":\"%1$u\","
	"\"current_node_progress\":0.%2$u,\"completed_nodes\":[\"%2$u\"]}",
	"s{\"cached_nodes\":[\"%1$u\"],\"outputs\":{\"%2$u\":{\"c\":1}},"
	"\"error\":{\"type\":\"T\",\"message\":\"m\"}}",
	"s{\"status\":\"completed\",\"completed_nodes\":[\"%1$u\"]}",
	"s{\"status\":\"failed\",\"queue_position\":3}",
	"q%1$u",
	"r%1$u %2$u",
	"flost%1$u%2$u",
};

static void take_pair(const uint8_t *pair)
{
	char line[512];
	int n;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-extra-args"
	n = snprintf(line, sizeof(line),
	             course[pair[0] % (sizeof(course) / sizeof(*course))],
	             pair[1] & 3u, pair[1] >> 2 & 15u);
#pragma GCC diagnostic pop
	REQUIRE(n > 0 && (size_t)n < sizeof(line));
	take_line(span_make(line, (size_t)n));
}

static void take_lines(const char *at, const char *end)
{
	const char *stop;
	char *line;

	for (int i = 0; i < LINES_MAX && at < end; i++) {
		stop = memchr(at, '\n', (size_t)(end - at));
		if (!stop)
			stop = end;
		if (stop > at) {
			/* Exactly that size, so that reading past it is
			 * noticed. */
			line = malloc((size_t)(stop - at));
			REQUIRE(line);
			memcpy(line, at, (size_t)(stop - at));
			take_line(span_make(line, (size_t)(stop - at)));
			free(line);
		}
		at = stop + 1;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;

	told_count = 0;
	p = progress_new("p");
	REQUIRE(p);
	if (size > 0 && text[0] == '#') {
		for (size_t i = 1; i + 2 <= size && i < 2 * LINES_MAX; i += 2)
			take_pair(data + i);
	} else {
		take_lines(text, text + size);
	}
	p = progress_free(p);
	while (told_count > 0)
		free(told[--told_count].node);
	return 0;
}

/*
 * progress_steps.h - what the test programs of common/progress share: one
 * prompt, events folded into it by a word, its state compared.
 */
#ifndef TESTS_PROGRESS_STEPS_H
#define TESTS_PROGRESS_STEPS_H

#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/progress.h"
#include "tests/runner.h"

#define ID "p"

/* Data of an execution_error that is not the end, and of one that is. */
#define BLOCKED                                                                \
	"\"node_id\":\"3\",\"exception_type\":\"ExecutionBlocked\","           \
	"\"exception_message\":\"no\""
#define RAISED                                                                 \
	"\"node_id\":\"3\",\"exception_type\":\"ValueError\","                 \
	"\"exception_message\":\"bad \\n\\t\",\"executed\":[\"1\",\"3\"]"

static struct progress *p;

ATTR_UNUSED static void setup(void)
{
	p = progress_new(ID);
	ck_assert_ptr_nonnull(p);
}

ATTR_UNUSED static void teardown(void)
{
	p = progress_free(p);
	ck_assert_ptr_null(p);
	ck_assert_ptr_null(progress_free(NULL));
}

ATTR_UNUSED static const struct cmx_progress *get(void)
{
	return progress_get(p);
}

/* Folds {"type": type, "data": {"prompt_id": "p", data}}. */
ATTR_UNUSED static unsigned fold(const char *type, const char *data)
{
	struct buf b = BUF_INIT(64u << 20);
	struct comfy_event ev;
	unsigned change;

	ck_assert_int_eq(buf_printf(&b,
	                            "{\"type\":\"%s\",\"data\":{"
	                            "\"prompt_id\":\"" ID "\"%s%s}}",
	                            type, *data ? "," : "", data),
	                 0);
	ck_assert_int_eq(comfy_event_parse_text(&ev, b.data, b.len),
	                 COMFY_EVENT_OK);
	change = progress_fold_event(p, &ev);
	ck_assert_uint_eq(progress_fold_event(p, &ev), PROGRESS_SAME);
	buf_deinit(&b);
	return change;
}

ATTR_UNUSED static unsigned start(void)
{
	return fold("execution_start", "\"timestamp\":1");
}

ATTR_UNUSED static unsigned executing(const char *node)
{
	char data[256];

	(void)snprintf(data, sizeof(data), "\"node\":\"%s\"", node);
	return fold("executing", data);
}

ATTR_UNUSED static unsigned over(void)
{
	return fold("executing", "\"node\":null");
}

ATTR_UNUSED static unsigned executed(const char *node, const char *output)
{
	struct buf b = BUF_INIT(64u << 20);
	unsigned change;

	ck_assert_int_eq(
		buf_printf(&b, "\"node\":\"%s\",\"output\":%s", node, output),
		0);
	change = fold("executed", buf_cstr(&b));
	buf_deinit(&b);
	return change;
}

ATTR_UNUSED static unsigned step(const char *node, const char *value,
                                 const char *max)
{
	char data[256];

	(void)snprintf(data, sizeof(data),
	               "\"node\":\"%s\",\"value\":%s,\"max\":%s", node, value,
	               max);
	return fold("progress", data);
}

/* "1:r0/4 2:f1/1" as ComfyUI writes it. */
ATTR_UNUSED static unsigned state(const char *nodes)
{
	struct buf b = BUF_INIT(1u << 20);
	char id[64], kind, value[16], max[16];
	unsigned change;
	int n;

	ck_assert_int_eq(buf_puts(&b, "\"nodes\":{"), 0);
	while (sscanf(nodes, " %63[^:]:%c%15[^/]/%15[^ ]%n", id, &kind, value,
	              max, &n) == 4) {
		(void)buf_json_key(&b, id);
		(void)buf_printf(
			&b, "{\"value\":%s,\"max\":%s,\"state\":\"%s\"}", value,
			max, kind == 'r' ? "running" : "finished");
		nodes += n;
	}
	ck_assert_int_eq(buf_putc(&b, '}'), 0);
	change = fold("progress_state", buf_cstr(&b));
	buf_deinit(&b);
	return change;
}

ATTR_UNUSED static struct json json(const char *text)
{
	struct json j;

	ck_assert_int_eq(
		json_parse(&j, text, strlen(text), JSON_NONFINITE, NULL),
		JSON_OK);
	return j;
}

ATTR_UNUSED static unsigned history(const char *entry)
{
	return progress_fold_history(p, json(entry), CMX_POLLING);
}

ATTR_UNUSED static void assert_nodes(const struct cmx_nodes *l,
                                     const char *want)
{
	char got[1024] = "";

	for (size_t i = 0; i < l->count; i++) {
		(void)strcat(got, i > 0 ? " " : "");
		(void)strcat(got, l->ids[i]);
	}
	ck_assert_str_eq(got, want);
}

ATTR_UNUSED static void assert_completed(const char *want)
{
	assert_nodes(&get()->completed_nodes, want);
}

ATTR_UNUSED static void assert_outputs(const char *want)
{
	ck_assert_uint_eq(get()->outputs_len, strlen(want));
	ck_assert_mem_eq(get()->outputs, want, strlen(want));
}

ATTR_UNUSED static void assert_json(unsigned flags, const char *want)
{
	struct buf b = BUF_INIT(1u << 20);

	ck_assert_int_eq(progress_to_json(p, flags, &b), 0);
	ck_assert_str_eq(buf_cstr(&b), want);
	buf_deinit(&b);
}

ATTR_UNUSED static void assert_error(const char *type, const char *message,
                                     const char *node)
{
	const struct cmx_error *e = &get()->error;

	ck_assert_pstr_eq(e->type, type);
	ck_assert_pstr_eq(e->message, message);
	ck_assert_pstr_eq(e->node_id, node);
}

ATTR_UNUSED static TCase *progress_case(Suite *s, const char *name)
{
	TCase *t = tcase_create(name);

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	return t;
}

#endif

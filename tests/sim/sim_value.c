/*
 * sim_value.c - see sim_value.h.
 */
#include "tests/sim/sim_value.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_text.h"

struct sim_value *sim_value_new(enum sim_kind kind)
{
	struct sim_value *v = sim_calloc(1, sizeof(*v));

	v->refs = 1;
	v->kind = kind;
	return v;
}

struct sim_value *sim_value_ref(struct sim_value *v)
{
	if (v)
		v->refs++;
	return v;
}

void sim_value_unref(struct sim_value *v)
{
	if (!v || --v->refs)
		return;
	free(v->text);
	free(v);
}

struct sim_value *sim_value_json(const char *text, size_t len)
{
	struct sim_value *v = sim_value_new(SIM_V_JSON);

	/* strndup would stop at a NUL, which JSON text cannot hold. */
	v->text = sim_strndup(text, len);
	v->len = len;
	return v;
}

struct sim_value *sim_value_int(int64_t n)
{
	char text[32];
	int len = snprintf(text, sizeof(text), "%lld", (long long)n);

	return sim_value_json(text, (size_t)len);
}

struct sim_value *sim_value_token(const char *name)
{
	struct sim_value *v = sim_value_new(SIM_V_TOKEN);

	v->text = sim_strdup(name);
	v->len = strlen(name);
	return v;
}

struct sim_value *sim_value_image(uint32_t w, uint32_t h, uint32_t batch,
                                  uint64_t seed)
{
	struct sim_value *v = sim_value_new(SIM_V_IMAGE);

	v->width = w;
	v->height = h;
	v->batch = batch;
	v->seed = seed;
	return v;
}

struct sim_value *sim_value_blocker(const char *message)
{
	struct sim_value *v = sim_value_new(SIM_V_BLOCKER);

	if (message) {
		v->text = sim_strdup(message);
		v->len = strlen(message);
	}
	return v;
}

struct json sim_value_as_json(const struct sim_value *v)
{
	struct json j;

	if (!v || v->kind != SIM_V_JSON ||
	    json_parse(&j, v->text, v->len, JSON_NONFINITE, NULL) != JSON_OK)
		return JSON_MISSING;
	return j;
}

double sim_value_number(const struct sim_value *v, double otherwise)
{
	struct json j = sim_value_as_json(v);
	double d;
	bool truth;

	if (json_double(j, &d))
		return d;
	if (json_bool(j, &truth))
		return truth ? 1 : 0;
	if (json_is(j, JSON_STRING)) {
		char *s = json_string_dup(j, 64), *end;

		d = s ? strtod(s, &end) : 0;
		if (s && end != s && *end == '\0') {
			free(s);
			return d;
		}
		free(s);
	}
	if (json_is(j, JSON_NULL) && !span_eq_str(j.text, "null"))
		return (double)NAN;
	return otherwise;
}

bool sim_value_truth(const struct sim_value *v)
{
	struct json j = sim_value_as_json(v);

	switch (j.type) {
	case JSON_NONE:
		return v != NULL;
	case JSON_NULL:
		return !span_eq_str(j.text, "null");
	case JSON_FALSE:
		return false;
	case JSON_TRUE:
		return true;
	case JSON_NUMBER:
		return sim_value_number(v, 0) != 0;
	case JSON_STRING:
		return j.text.n > 2;
	case JSON_ARRAY:
	case JSON_OBJECT:
		break;
	}
	return json_count(j) > 0;
}

bool sim_value_is_link(const struct sim_value *v)
{
	struct json j = sim_value_as_json(v);

	return json_is(j, JSON_ARRAY) && json_count(j) == 2 &&
	       json_is(json_at(j, 0), JSON_STRING) &&
	       json_is(json_at(j, 1), JSON_NUMBER);
}

static void format_tensor(struct buf *b, const struct sim_value *v)
{
	/* All pixels are alike, so three of them and an ellipsis will do. */
	char pixel[64];

	(void)snprintf(pixel, sizeof(pixel), "[%.4f, %.4f, %.4f]",
	               (double)(v->seed >> 16 & 0xff) / 255,
	               (double)(v->seed >> 8 & 0xff) / 255,
	               (double)(v->seed & 0xff) / 255);
	(void)buf_printf(b,
	                 "\"tensor([[[%s,\\n          %s,\\n          ...,"
	                 "\\n          %s]]])\"",
	                 pixel, pixel, pixel);
}

void sim_value_format(struct buf *b, const struct sim_value *v)
{
	struct json j = sim_value_as_json(v);
	struct buf text = BUF_INIT(b->max);

	if (!v) {
		(void)buf_puts(b, "null");
	} else if (v->kind == SIM_V_IMAGE || v->kind == SIM_V_MASK ||
	           v->kind == SIM_V_LATENT) {
		format_tensor(b, v);
	} else if (v->kind != SIM_V_JSON) {
		(void)buf_printf(&text, "<%s object>",
		                 v->text ? v->text : "ExecutionBlocker");
		(void)sim_put_string_n(b, text.data, text.len);
	} else if (json_is(j, JSON_ARRAY) || json_is(j, JSON_OBJECT)) {
		(void)sim_put_python(&text, j, true);
		(void)sim_put_string_n(b, text.data, text.len);
	} else {
		(void)buf_append(b, v->text, v->len);
	}
	buf_deinit(&text);
}

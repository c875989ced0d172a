/*
 * tool_args.c - checks a call's arguments against the input schema of its tool,
 * and says what is wrong in words that a model can act on.
 *
 * The schemas are our own constants, of the small subset that mcp_tools.h
 * names; what else stands in them (title, description, default) is no
 * condition.
 */
#include <inttypes.h>
#include <stdio.h>

#include "common/log.h"
#include "workers/mcp_tools.h"

#define PLACE_MAX 256 /* bytes of "workflows[3].set"; longer ones are cut */
#define LIST_MAX  512 /* bytes of the names or values that are offered */
#define KEY_MAX   256 /* bytes of an argument's name; longer ones are unknown */

/* Where in the arguments we are. */
struct place {
	char text[PLACE_MAX];
	size_t len;
};

static int check(struct json value, struct json schema, struct place *at,
                 struct error *err);

static const char *place_name(const struct place *at)
{
	return at->len > 0 ? at->text : "arguments";
}

static void place_advance(struct place *at, int n)
{
	if (n > 0)
		at->len += (size_t)n;
	if (at->len >= sizeof(at->text))
		at->len = sizeof(at->text) - 1;
}

static void place_member(struct place *at, struct json key)
{
	struct span k = json_raw_string(key);

	place_advance(at, snprintf(at->text + at->len,
	                           sizeof(at->text) - at->len, "%s%s",
	                           at->len > 0 ? "." : "", log_safe(k.p, k.n)));
}

static void place_element(struct place *at, size_t index)
{
	place_advance(at, snprintf(at->text + at->len,
	                           sizeof(at->text) - at->len, "[%zu]", index));
}

static void place_back(struct place *at, size_t len)
{
	at->len = len;
	at->text[len] = '\0';
}

/* --- types --------------------------------------------------------------- */

static bool is_whole(struct json j)
{
	int64_t whole;

	if (!json_is(j, JSON_NUMBER))
		return false;
	/* All digits, however many: a seed reaches 2^64-1. */
	for (size_t i = j.text.p[0] == '-'; i < j.text.n; i++)
		if (j.text.p[i] < '0' || j.text.p[i] > '9')
			return json_int64(j, &whole);
	return true;
}

static const char *type_name(struct json j)
{
	switch (j.type) {
	case JSON_NULL:
		return "null";
	case JSON_FALSE:
	case JSON_TRUE:
		return "boolean";
	case JSON_NUMBER:
		return is_whole(j) ? "integer" : "number";
	case JSON_STRING:
		return "string";
	case JSON_ARRAY:
		return "array";
	case JSON_OBJECT:
		return "object";
	default:
		return "nothing";
	}
}

static bool has_one_type(struct json value, struct json type)
{
	return json_string_eq(type, type_name(value)) ||
	       (json_string_eq(type, "number") && is_whole(value));
}

/* A type's name, or a list of them. */
static bool has_type(struct json value, struct json type)
{
	struct json_iter it;
	struct json one;

	if (json_is(type, JSON_STRING))
		return has_one_type(value, type);
	json_iter_init(&it, type);
	while (json_iter_next(&it, NULL, &one))
		if (has_one_type(value, one))
			return true;
	return false;
}

static void put_type(struct json type, struct buf *out)
{
	struct span name = json_raw_string(type);

	(void)buf_printf(out, "%s%.*s", out->len > 0 ? " or " : "", (int)name.n,
	                 name.p);
}

/* "string", or "string or object". */
static void type_text(struct json schema, struct buf *out)
{
	struct json type = json_get(schema, "type"), one;
	struct json_iter it;

	if (json_is(type, JSON_STRING))
		put_type(type, out);
	json_iter_init(&it, type);
	while (json_iter_next(&it, NULL, &one))
		put_type(one, out);
	json_iter_init(&it, json_get(schema, "anyOf"));
	while (json_iter_next(&it, NULL, &one))
		type_text(one, out);
}

static int wrong_type(struct json value, struct json schema,
                      const struct place *at, struct error *err)
{
	cleanup_buf struct buf want = BUF_INIT(LIST_MAX);

	type_text(schema, &want);
	return error_set(err, ERR_INVALID, "%s must be %.*s, not %s",
	                 place_name(at), (int)want.len,
	                 want.data ? want.data : "", type_name(value));
}

/* --- values -------------------------------------------------------------- */

static int check_number(struct json value, struct json schema,
                        const struct place *at, struct error *err)
{
	struct json least = json_get(schema, "minimum");
	struct json most = json_get(schema, "maximum");
	double v, bound;

	if (!json_double(value, &v))
		return error_set(err, ERR_INVALID, "%s is too large",
		                 place_name(at));
	if (json_double(least, &bound) && v < bound)
		return error_set(err, ERR_INVALID,
		                 "%s must be at least %.*s, not %.*s",
		                 place_name(at), (int)least.text.n,
		                 least.text.p, (int)value.text.n, value.text.p);
	if (json_double(most, &bound) && v > bound)
		return error_set(err, ERR_INVALID,
		                 "%s must be at most %.*s, not %.*s",
		                 place_name(at), (int)most.text.n, most.text.p,
		                 (int)value.text.n, value.text.p);
	return 0;
}

/* In characters, as JSON Schema counts. */
static size_t string_length(struct json value)
{
	struct span raw = json_raw_string(value);
	size_t count = 0;

	for (size_t i = 0; i < raw.n; i++) {
		unsigned char c = (unsigned char)raw.p[i];

		if ((c & 0xc0) == 0x80)
			continue;
		count++;
		if (c != '\\')
			continue;
		i++;
		if (raw.p[i] != 'u')
			continue;
		/* A pair of surrogates is one character; json_parse has seen
		 * to it that they come in pairs. */
		if ((raw.p[i + 1] == 'd' || raw.p[i + 1] == 'D') &&
		    strchr("89abAB", raw.p[i + 2]))
			i += 6;
		i += 4;
	}
	return count;
}

static int check_string(struct json value, struct json schema,
                        const struct place *at, struct error *err)
{
	int64_t bound;

	if (json_int64(json_get(schema, "minLength"), &bound) &&
	    string_length(value) < (size_t)bound)
		return bound == 1 ? error_set(err, ERR_INVALID,
		                              "%s must not be empty",
		                              place_name(at))
		                  : error_set(err, ERR_INVALID,
		                              "%s must have at least %" PRId64
		                              " characters",
		                              place_name(at), bound);
	if (json_int64(json_get(schema, "maxLength"), &bound) &&
	    string_length(value) > (size_t)bound)
		return error_set(err, ERR_INVALID,
		                 "%s must have at most %" PRId64 " characters",
		                 place_name(at), bound);
	return 0;
}

static int check_enum(struct json value, struct json allowed,
                      const struct place *at, struct error *err)
{
	cleanup_buf struct buf list = BUF_INIT(LIST_MAX),
			       decoded = BUF_INIT(LIST_MAX);
	struct json_iter it;
	struct json one;

	(void)json_string_decode(value, &decoded);
	(void)buf_putc(&decoded, '\0');
	json_iter_init(&it, allowed);
	while (json_iter_next(&it, NULL, &one)) {
		if (span_eq(one.text, value.text) ||
		    (buf_ok(&decoded) && json_is(value, JSON_STRING) &&
		     json_string_eq(one, decoded.data)))
			return 0;
		(void)buf_printf(&list, "%s%.*s", list.len > 0 ? ", " : "",
		                 (int)one.text.n, one.text.p);
	}
	return error_set(err, ERR_INVALID, "%s must be one of %.*s, not %s",
	                 place_name(at), (int)list.len, list.data,
	                 log_safe(value.text.p, value.text.n));
}

/* --- containers ---------------------------------------------------------- */

static int check_required(struct json value, struct json schema,
                          const struct place *at, struct error *err)
{
	struct json_iter it;
	struct json name;

	json_iter_init(&it, json_get(schema, "required"));
	while (json_iter_next(&it, NULL, &name)) {
		struct span raw = json_raw_string(name);

		if (json_is(json_get_span(value, raw), JSON_NONE))
			return error_set(
				err, ERR_INVALID, "%s%s%.*s is missing",
				at->len > 0 ? at->text : "",
				at->len > 0 ? "." : "", (int)raw.n, raw.p);
	}
	return 0;
}

static int unknown_member(struct json properties, const struct place *at,
                          struct error *err)
{
	cleanup_buf struct buf list = BUF_INIT(LIST_MAX);
	struct json_iter it;
	struct json name, ignored;

	json_iter_init(&it, properties);
	while (json_iter_next(&it, &name, &ignored)) {
		struct span raw = json_raw_string(name);

		(void)buf_printf(&list, "%s%.*s", list.len > 0 ? ", " : "",
		                 (int)raw.n, raw.p);
	}
	if (list.len == 0)
		return error_set(err, ERR_INVALID,
		                 "%s is not known: this takes no arguments",
		                 place_name(at));
	return error_set(err, ERR_INVALID, "%s is not known; there are %.*s",
	                 place_name(at), (int)list.len, list.data);
}

static int check_object(struct json value, struct json schema, struct place *at,
                        struct error *err)
{
	struct json properties = json_get(schema, "properties");
	struct json others = json_get(schema, "additionalProperties");
	struct json_iter it;
	struct json name, member;
	size_t here = at->len;

	json_iter_init(&it, value);
	while (json_iter_next(&it, &name, &member)) {
		cleanup_buf struct buf key = BUF_INIT(KEY_MAX);
		struct json known = JSON_MISSING;
		int r = 0;

		(void)json_string_decode(name, &key);
		if (buf_ok(&key))
			known = json_get_span(properties,
			                      span_make(key.data, key.len));
		place_member(at, name);
		if (!json_is(known, JSON_NONE))
			r = check(member, known, at, err);
		else if (json_is(others, JSON_FALSE))
			r = unknown_member(properties, at, err);
		else if (json_is(others, JSON_OBJECT))
			r = check(member, others, at, err);
		if (r < 0)
			return r;
		place_back(at, here);
	}
	return check_required(value, schema, at, err);
}

static int check_array(struct json value, struct json schema, struct place *at,
                       struct error *err)
{
	struct json items = json_get(schema, "items"), element;
	struct json_iter it;
	size_t here = at->len, i = 0;
	int64_t bound;

	if (json_int64(json_get(schema, "minItems"), &bound) &&
	    json_count(value) < (size_t)bound)
		return error_set(err, ERR_INVALID,
		                 "%s must have at least %" PRId64 " elements",
		                 place_name(at), bound);
	if (json_int64(json_get(schema, "maxItems"), &bound) &&
	    json_count(value) > (size_t)bound)
		return error_set(err, ERR_INVALID,
		                 "%s must have at most %" PRId64 " elements",
		                 place_name(at), bound);
	json_iter_init(&it, value);
	while (json_iter_next(&it, NULL, &element)) {
		place_element(at, i++);
		if (check(element, items, at, err) < 0)
			return -1;
		place_back(at, here);
	}
	return 0;
}

/* One alternative has to fit. The reason told is that of the alternative whose
 * type the value has, if there is one: the others are no use to anybody. */
static int check_any(struct json value, struct json schema, struct place *at,
                     struct error *err)
{
	struct json_iter it;
	struct json one, type;
	size_t here = at->len;
	bool told = false;

	json_iter_init(&it, json_get(schema, "anyOf"));
	while (json_iter_next(&it, NULL, &one)) {
		if (check(value, one, at, told ? NULL : err) == 0)
			return 0;
		place_back(at, here);
		type = json_get(one, "type");
		told = told || json_is(type, JSON_NONE) ||
		       has_type(value, type);
	}
	return told ? -1 : wrong_type(value, schema, at, err);
}

static int check(struct json value, struct json schema, struct place *at,
                 struct error *err)
{
	struct json type = json_get(schema, "type");
	struct json allowed = json_get(schema, "enum");

	if (!json_is(type, JSON_NONE) && !has_type(value, type))
		return wrong_type(value, schema, at, err);
	if (json_is(json_get(schema, "anyOf"), JSON_ARRAY) &&
	    check_any(value, schema, at, err) < 0)
		return -1;
	if (json_is(allowed, JSON_ARRAY) &&
	    check_enum(value, allowed, at, err) < 0)
		return -1;
	switch (value.type) {
	case JSON_NUMBER:
		return check_number(value, schema, at, err);
	case JSON_STRING:
		return check_string(value, schema, at, err);
	case JSON_OBJECT:
		return check_object(value, schema, at, err);
	case JSON_ARRAY:
		return check_array(value, schema, at, err);
	default:
		return 0;
	}
}

int tool_check_args(struct json args, const char *schema, struct error *err)
{
	struct place at = {.len = 0};
	struct json parsed;

	if (json_parse(&parsed, schema, strlen(schema), 0, NULL) != JSON_OK ||
	    !json_is(parsed, JSON_OBJECT))
		return error_set(err, ERR_INTERNAL,
		                 "this tool's input schema is no JSON object");
	return check(args, parsed, &at, err);
}

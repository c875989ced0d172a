/*
 * sim_validate_input.c - the inputs of one node, and through its links those of
 * the nodes before it.
 */
#include "tests/sim/sim_validate_input.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/macros.h"
#include "tests/sim/sim_text.h"
#include "tests/sim/sim_value.h"

/* Longer lists are not printed into errors. */
#define LIST_SHOWN_MAX 20

/* What a Python exception in the middle of validation amounts to. */
struct raised {
	bool is;
	const char *type;
	char text[512];
};

static void validate_node(struct sim_walk *w, struct sim_vnode *n,
                          struct raised *up);

/* --- errors ------------------------------------------------------------------
 */

/* Opens one error; its extra_info is left open for more members. */
static struct buf *error_begin(struct sim_vnode *n, const char *type,
                               const char *message, const char *details)
{
	struct buf *b = &n->errors;

	if (b->len)
		(void)buf_puts(b, ", ");
	(void)buf_puts(b, "{\"type\": ");
	(void)sim_put_string(b, type);
	(void)buf_puts(b, ", \"message\": ");
	(void)sim_put_string(b, message);
	(void)buf_puts(b, ", \"details\": ");
	(void)sim_put_string(b, details);
	(void)buf_puts(b, ", \"extra_info\": {");
	if (n->details.len)
		(void)buf_putc(&n->details, '\n');
	(void)buf_printf(&n->details, "%s: ", message);
	(void)buf_puts(&n->details, details);
	return b;
}

static void error_end(struct buf *b)
{
	(void)buf_puts(b, "}}");
}

static void put_name(struct buf *b, const struct sim_class_input *in)
{
	(void)buf_puts(b, "\"input_name\": ");
	(void)sim_put_string(b, in->name);
}

/* As Python's get_input_info gives it: type and options, always both. */
static void put_config(struct buf *b, const struct sim_class_input *in)
{
	(void)buf_puts(b, ", \"input_config\": [");
	(void)sim_put_json(b, in->type);
	(void)buf_puts(b, ", ");
	if (json_is(in->info, JSON_NONE))
		(void)buf_puts(b, "{}");
	else
		(void)sim_put_json(b, in->info);
	(void)buf_putc(b, ']');
}

static void put_received(struct buf *b, struct json value)
{
	(void)buf_puts(b, ", \"received_value\": ");
	(void)sim_put_json(b, value);
}

static void put_exception(struct buf *b, const struct raised *e)
{
	(void)buf_puts(b, "\"exception_type\": ");
	(void)sim_put_string(b, e->type);
	(void)buf_puts(b, ", \"traceback\": [\"  File "
	                  "\\\"/opt/ComfyUI/execution.py\\\", line 1, in "
	                  "validate_inputs\\n    ...\\n\"]");
}

static void raise_error(struct raised *e, const char *type, const char *text)
{
	e->is = true;
	e->type = type;
	(void)snprintf(e->text, sizeof(e->text), "%s", text);
}

/* --- conversion --------------------------------------------------------------
 */

static void replace(struct sim_walk *w, struct json value, const char *text,
                    size_t len)
{
	struct sim_splice *s;

	if (value.text.n == len && memcmp(value.text.p, text, len) == 0)
		return;
	if (w->nsplices % 64 == 0)
		w->splices = sim_realloc(w->splices, w->nsplices + 64,
		                         sizeof(*w->splices));
	s = &w->splices[w->nsplices++];
	s->part = value.text;
	s->start = w->replacements.len;
	s->len = len;
	(void)buf_append(&w->replacements, text, len);
}

/* An integer of any size, cut off at the bounds of __int128. */
static __int128 big_int(const char *digits)
{
	const __int128 most = (__int128)1 << 100;
	bool negative = *digits == '-';
	__int128 n = 0;

	for (digits += negative || *digits == '+'; *digits; digits++) {
		if (n < most)
			n = n * 10 + (*digits - '0');
	}
	return negative ? -n : n;
}

/* A value that was converted to its input's type. */
struct number {
	bool integer;
	__int128 i;
	double d;
};

static bool is_integer_text(const char *s)
{
	s += *s == '-' || *s == '+';
	return *s && s[strspn(s, "0123456789")] == '\0';
}

static bool to_int(struct sim_walk *w, struct json value, struct number *n,
                   char *why, size_t why_size)
{
	char *text = json_is(value, JSON_STRING)
	                     ? json_string_dup(value, 4096)
	                     : sim_strndup(value.text.p, value.text.n);
	char digits[64];
	bool truth, ok = true;
	double d;

	if (json_bool(value, &truth)) {
		(void)snprintf(digits, sizeof(digits), "%d", truth);
		replace(w, value, digits, 1);
		n->i = truth;
	} else if (text && is_integer_text(text)) {
		n->i = big_int(text);
		if (json_is(value, JSON_STRING))
			replace(w, value, text + (*text == '+'),
			        strlen(text) - (*text == '+'));
	} else if (json_double(value, &d)) {
		int len = snprintf(digits, sizeof(digits), "%.0f", trunc(d));

		if (len > 0 && (size_t)len < sizeof(digits)) {
			replace(w, value, digits, (size_t)len);
			n->i = big_int(digits);
		}
	} else {
		ok = false;
		if (json_is(value, JSON_STRING))
			(void)snprintf(why, why_size,
			               "invalid literal for int() with base "
			               "10: '%s'",
			               text ? text : "");
		else
			(void)snprintf(why, why_size,
			               "int() argument must be a string, a "
			               "bytes-like object or a real number, "
			               "not '%s'",
			               json_is(value, JSON_OBJECT)
			                       ? "dict"
			                       : "NoneType");
	}
	n->integer = true;
	free(text);
	return ok;
}

static bool to_float(struct sim_walk *w, struct json value, struct number *n,
                     char *why, size_t why_size)
{
	struct buf b = BUF_INIT(512);
	bool truth;

	if (json_bool(value, &truth)) {
		n->d = truth;
	} else if (json_double(value, &n->d)) {
		/* A float is kept as it was written. */
		if (memchr(value.text.p, '.', value.text.n) ||
		    memchr(value.text.p, 'e', value.text.n) ||
		    memchr(value.text.p, 'E', value.text.n))
			return true;
	} else if (json_is(value, JSON_STRING)) {
		char *text = json_string_dup(value, 4096), *end = NULL;

		n->d = text ? strtod(text, &end) : 0;
		if (!text || end == text || *end) {
			(void)snprintf(why, why_size,
			               "could not convert string to float: "
			               "'%s'",
			               text ? text : "");
			free(text);
			return false;
		}
		free(text);
	} else if (json_is(value, JSON_NULL) &&
	           !span_eq_str(value.text, "null")) {
		n->d = *value.text.p == 'N'   ? (double)NAN
		       : *value.text.p == '-' ? -(double)INFINITY
		                              : (double)INFINITY;
		return true;
	} else {
		(void)snprintf(why, why_size,
		               "float() argument must be a string or a real "
		               "number, not '%s'",
		               json_is(value, JSON_OBJECT) ? "dict"
		                                           : "NoneType");
		return false;
	}
	(void)sim_put_float(&b, n->d);
	replace(w, value, b.data, b.len);
	buf_deinit(&b);
	return true;
}

static void to_string(struct sim_walk *w, struct json value)
{
	struct buf text = BUF_INIT(SIM_DETAILS_MAX),
		   json = BUF_INIT(SIM_DETAILS_MAX);

	if (json_is(value, JSON_STRING))
		return;
	(void)sim_put_python(&text, value, false);
	(void)sim_put_string_n(&json, text.data, text.len);
	if (buf_ok(&json))
		replace(w, value, json.data, json.len);
	buf_deinit(&text);
	buf_deinit(&json);
}

static void to_bool(struct sim_walk *w, struct json value)
{
	struct sim_value *v = sim_value_json(value.text.p, value.text.n);
	bool truth = sim_value_truth(v);

	sim_value_unref(v);
	replace(w, value, truth ? "true" : "false", truth ? 4 : 5);
}

/* --- constants ---------------------------------------------------------------
 */

static bool out_of_range(struct json bound, const struct number *n, int sign)
{
	double d;

	if (!json_double(bound, &d))
		return false;
	if (n->integer) {
		/* Compared as integers: 2^64-1 has no double of its own. */
		char *text = sim_strndup(bound.text.p, bound.text.n);
		__int128 i =
			is_integer_text(text) ? big_int(text) : (__int128)d;

		free(text);
		return sign < 0 ? n->i < i : n->i > i;
	}
	return sign < 0 ? n->d < d : n->d > d;
}

static void put_number(struct buf *b, struct sim_walk *w, struct json value,
                       const struct number *n)
{
	/* As converted, which the latest splice may hold. */
	struct sim_splice *s =
		w->nsplices ? &w->splices[w->nsplices - 1] : NULL;

	if (s && s->part.p == value.text.p)
		(void)buf_append(b, w->replacements.data + s->start, s->len);
	else if (!n->integer)
		(void)sim_put_float(b, n->d);
	else
		(void)sim_put_json(b, value);
}

static bool check_range(struct sim_walk *w, struct sim_vnode *n,
                        const struct sim_class_input *in, struct json value,
                        const struct number *number)
{
	static const struct {
		const char *key, *type, *words;
		int sign;
	} bounds[] = {
		{"min", "value_smaller_than_min", "smaller than min of", -1},
		{"max", "value_bigger_than_max", "bigger than max of", 1},
	};

	for (size_t i = 0; i < ARRAY_SIZE(bounds); i++) {
		struct json bound = json_get(in->info, bounds[i].key);
		struct buf text = BUF_INIT(8192), *b;

		if (!out_of_range(bound, number, bounds[i].sign))
			continue;
		(void)buf_puts(&text, "Value ");
		put_number(&text, w, value, number);
		(void)buf_printf(&text, " %s ", bounds[i].words);
		(void)sim_put_json(&text, bound);
		b = error_begin(n, bounds[i].type, buf_cstr(&text), in->name);
		put_name(b, in);
		put_config(b, in);
		(void)buf_puts(b, ", \"received_value\": ");
		put_number(b, w, value, number);
		error_end(b);
		buf_deinit(&text);
		return false;
	}
	return true;
}

static bool in_list(struct json list, struct json value)
{
	struct json_iter it;
	struct json item;
	bool found = false;

	json_iter_init(&it, list);
	while (!found && json_iter_next(&it, NULL, &item)) {
		if (json_is(item, JSON_STRING) && json_is(value, JSON_STRING)) {
			char *s = json_string_dup(item, 4096);

			found = s && json_string_eq(value, s);
			free(s);
		} else {
			found = span_eq(item.text, value.text);
		}
	}
	return found;
}

static bool check_list(struct sim_vnode *n, const struct sim_class_input *in,
                       struct json value)
{
	struct buf text = BUF_INIT(SIM_DETAILS_MAX), *b;
	bool shown = json_count(in->type) <= LIST_SHOWN_MAX;

	if (!json_is(in->type, JSON_ARRAY) || in_list(in->type, value))
		return true;
	(void)buf_printf(&text, "%s: '", in->name);
	(void)sim_put_python(&text, value, false);
	(void)buf_puts(&text, "' not in ");
	if (shown)
		(void)sim_put_python(&text, in->type, true);
	else
		(void)buf_printf(&text, "(list of length %zu)",
		                 json_count(in->type));
	b = error_begin(n, "value_not_in_list", "Value not in list",
	                buf_cstr(&text));
	put_name(b, in);
	if (shown)
		put_config(b, in);
	else
		(void)buf_puts(b, ", \"input_config\": null");
	put_received(b, value);
	error_end(b);
	buf_deinit(&text);
	return false;
}

static void check_constant(struct sim_walk *w, struct sim_vnode *n,
                           const struct sim_class_input *in, struct json value)
{
	struct json wrapped = json_get(value, "__value__");
	struct number number = {0};
	bool is_int = json_string_eq(in->type, "INT");
	bool is_float = json_string_eq(in->type, "FLOAT");
	char why[4200] = "";
	bool ok = true;

	if (!json_is(wrapped, JSON_NONE)) {
		replace(w, value, wrapped.text.p, wrapped.text.n);
		return;
	}
	if (is_int)
		ok = to_int(w, value, &number, why, sizeof(why));
	else if (is_float)
		ok = to_float(w, value, &number, why, sizeof(why));
	else if (json_string_eq(in->type, "STRING"))
		to_string(w, value);
	else if (json_string_eq(in->type, "BOOLEAN"))
		to_bool(w, value);
	if (!ok) {
		struct buf text = BUF_INIT(65536), *b;
		char message[128];

		(void)snprintf(message, sizeof(message),
		               "Failed to convert an input value to a %s value",
		               is_int ? "INT" : "FLOAT");
		(void)buf_printf(&text, "%s, ", in->name);
		(void)sim_put_python(&text, value, false);
		(void)buf_printf(&text, ", %s", why);
		b = error_begin(n, "invalid_input_type", message,
		                buf_cstr(&text));
		put_name(b, in);
		put_config(b, in);
		put_received(b, value);
		(void)buf_puts(b, ", \"exception_message\": ");
		(void)sim_put_string(b, why);
		error_end(b);
		buf_deinit(&text);
		return;
	}
	if (n->cls->row->flags & SIM_OWN_RULES)
		return;
	if ((is_int || is_float) && !check_range(w, n, in, value, &number))
		return;
	(void)check_list(n, in, value);
}

/* --- links -------------------------------------------------------------------
 */

static void type_mismatch(struct sim_vnode *n, const struct sim_class_input *in,
                          struct json link, const char *received)
{
	struct buf text = BUF_INIT(SIM_DETAILS_MAX), *b;

	(void)buf_printf(&text, "%s, received_type(%s) mismatch input_type(",
	                 in->name, received);
	(void)sim_put_python(&text, in->type, false);
	(void)buf_putc(&text, ')');
	b = error_begin(n, "return_type_mismatch",
	                "Return type mismatch between linked nodes",
	                buf_cstr(&text));
	put_name(b, in);
	put_config(b, in);
	(void)buf_puts(b, ", \"received_type\": ");
	(void)sim_put_string(b, received);
	(void)buf_puts(b, ", \"linked_node\": ");
	(void)sim_put_json(b, link);
	error_end(b);
	buf_deinit(&text);
}

static bool types_fit(const char *received, struct json wanted)
{
	return strcmp(received, "*") == 0 || json_string_eq(wanted, "*") ||
	       json_string_eq(wanted, received) ||
	       (json_is(wanted, JSON_ARRAY) && strcmp(received, "COMBO") == 0);
}

/* Of what is linked; an exception there is an error of that node. */
static void check_linked(struct sim_walk *w, const struct sim_class_input *in,
                         struct json link, struct sim_vnode *from)
{
	struct raised e = {0};
	struct buf *b;

	validate_node(w, from, &e);
	if (!e.is)
		return;
	buf_reset(&from->errors);
	buf_reset(&from->details);
	b = error_begin(from, "exception_during_inner_validation",
	                "Exception when validating inner node", e.text);
	put_name(b, in);
	put_config(b, in);
	(void)buf_puts(b, ", \"exception_message\": ");
	(void)sim_put_string(b, e.text);
	(void)buf_puts(b, ", ");
	put_exception(b, &e);
	(void)buf_puts(b, ", \"linked_node\": ");
	(void)sim_put_json(b, link);
	error_end(b);
	from->state = SIM_V_FAILED;
}

static void no_such_node(struct json id, struct raised *up)
{
	struct buf text = BUF_INIT(500);

	/* KeyError prints the key with its quotes. */
	(void)sim_put_python(&text, id, true);
	raise_error(up, "KeyError", buf_ok(&text) ? buf_cstr(&text) : "?");
	buf_deinit(&text);
}

/* False if what it leads to is invalid. */
static bool check_link(struct sim_walk *w, struct sim_vnode *n,
                       const struct sim_class_input *in, struct json link,
                       struct raised *up)
{
	char *id = json_string_dup(json_at(link, 0), 65536);
	struct sim_vnode *from = id ? map_get(&w->by_id, id, strlen(id)) : NULL;
	int64_t slot = -1;

	free(id);
	if (!from) {
		no_such_node(json_at(link, 0), up);
		return false;
	}
	if (!json_int64(json_at(link, 1), &slot)) {
		raise_error(up, "TypeError",
		            "tuple indices must be integers or slices");
		return false;
	}
	/* A negative index counts from the end, in Python. */
	if (slot < 0)
		slot += (int64_t)from->cls->noutputs;
	if (slot < 0 || (size_t)slot >= from->cls->noutputs) {
		raise_error(up, "IndexError", "tuple index out of range");
		return false;
	}
	if (!types_fit(from->cls->outputs[slot], in->type)) {
		type_mismatch(n, in, link, from->cls->outputs[slot]);
		return true;
	}
	check_linked(w, in, link, from);
	return from->state == SIM_V_GOOD;
}

/* --- nodes with rules of their own
 * -------------------------------------------- */

static void custom_error(struct sim_vnode *n, const char *input,
                         const char *why)
{
	struct buf text = BUF_INIT(SIM_DETAILS_MAX), *b;

	(void)buf_printf(&text, "%s - ", input);
	(void)buf_puts(&text, why);
	b = error_begin(n, "custom_validation_failed",
	                "Custom validation failed for node", buf_cstr(&text));
	(void)buf_puts(b, "\"input_name\": ");
	(void)sim_put_string(b, input);
	error_end(b);
	buf_deinit(&text);
}

static void own_rules(struct sim_walk *w, struct sim_vnode *n)
{
	if (strcmp(n->cls->row->name, "LoadImage") == 0) {
		struct json j = json_get(n->inputs, "image");
		char *name = json_string_dup(j, SIM_NAME_MAX);
		struct buf text = BUF_INIT(65536);

		(void)buf_printf(&text, "Invalid image file: %s",
		                 name ? name : "");
		if (!name || !sim_files_annotated(w->files, name, SIM_INPUT))
			custom_error(n, "image", buf_cstr(&text));
		buf_deinit(&text);
		free(name);
		return;
	}
	/* TestCustomValidation5: no sevens, in neither of its inputs. */
	for (size_t i = 0; i < n->cls->ninputs; i++) {
		double d = 0;

		(void)json_double(json_get(n->inputs, n->cls->inputs[i].name),
		                  &d);
		if (d < 7 || d > 7)
			continue;
		for (size_t k = 0; k < n->cls->ninputs; k++)
			custom_error(n, n->cls->inputs[k].name,
			             "7s are not allowed. I've never liked "
			             "7s.");
		return;
	}
}

/* --- a node
 * ------------------------------------------------------------------- */

static bool check_input(struct sim_walk *w, struct sim_vnode *n,
                        const struct sim_class_input *in, struct raised *up)
{
	struct json value = json_get(n->inputs, in->name);
	struct buf *b;

	if (json_is(value, JSON_NONE)) {
		if (!in->required)
			return true;
		b = error_begin(n, "required_input_missing",
		                "Required input is missing", in->name);
		put_name(b, in);
		error_end(b);
	} else if (json_is(value, JSON_ARRAY) && json_count(value) != 2) {
		b = error_begin(n, "bad_linked_input",
		                "Bad linked input, must be a length-2 list of "
		                "[node_id, slot_index]",
		                in->name);
		put_name(b, in);
		put_config(b, in);
		put_received(b, value);
		error_end(b);
	} else if (json_is(value, JSON_ARRAY)) {
		return check_link(w, n, in, value, up);
	} else {
		check_constant(w, n, in, value);
	}
	return true;
}

static void validate_node(struct sim_walk *w, struct sim_vnode *n,
                          struct raised *up)
{
	bool valid = true;

	if (n->state == SIM_V_GOOD || n->state == SIM_V_FAILED)
		return;
	if (n->state == SIM_V_BUSY || w->depth >= SIM_DEPTH_MAX) {
		raise_error(up, "RecursionError",
		            "maximum recursion depth exceeded");
		return;
	}
	if (json_is(n->inputs, JSON_NONE)) {
		raise_error(up, "KeyError", "'inputs'");
		return;
	}
	n->state = SIM_V_BUSY;
	w->depth++;
	for (size_t i = 0; i < n->cls->ninputs && !up->is; i++) {
		if (!check_input(w, n, &n->cls->inputs[i], up))
			valid = false;
	}
	w->depth--;
	if (up->is) {
		n->state = SIM_V_UNSEEN;
		buf_reset(&n->errors);
		buf_reset(&n->details);
		return;
	}
	if (n->cls->row->flags & SIM_OWN_RULES)
		own_rules(w, n);
	n->state = valid && !n->errors.len ? SIM_V_GOOD : SIM_V_FAILED;
}

void sim_validate_output(struct sim_walk *w, struct sim_vnode *n)
{
	struct raised e = {0};
	struct buf *b;

	validate_node(w, n, &e);
	if (!e.is)
		return;
	b = error_begin(n, "exception_during_validation",
	                "Exception when validating node", e.text);
	put_exception(b, &e);
	error_end(b);
	n->state = SIM_V_FAILED;
}

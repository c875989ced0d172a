/*
 * workflow.c - see workflow.h.
 *
 * Whoever saved the wrong kind of file, or misspelt a node, is told what to do
 * about it: the messages here are the ones that people meet first.
 */
#include "common/workflow.h"

#include <errno.h>
#include <string.h>

#include "common/utf8.h"

#define NODES_LISTED_MAX 12   /* ids named when a node is not found */
#define ID_SHOWN_MAX     64   /* bytes of an id in a message */
#define FAULT_TEXT_MAX   400  /* bytes of one string of ComfyUI's in a fault */
#define FAULTS_MAX       50   /* lines of a refusal */
#define TARGET_MAX       4096 /* bytes of NODE.INPUT */

#define BYTE_ORDER_MARK "\xef\xbb\xbf" /* some editors put it first */

/* ---- parsing ---- */

static int fail_syntax(const char *what, const char *text, size_t at,
                       enum json_outcome r, struct error *err)
{
	size_t line = 1, column = 1;

	for (size_t i = 0; i < at; i++) {
		column++;
		if (text[i] == '\n') {
			line++;
			column = 1;
		}
	}
	return error_set(err, r == JSON_E_NOMEM ? ERR_INTERNAL : ERR_INVALID,
	                 "%s: %s at line %zu, column %zu", what,
	                 json_outcome_text(r), line, column);
}

/* The inner object of what is sent to POST /prompt. A node may be called
 * "prompt", but then it has a class. */
static struct json unwrap(struct json top)
{
	struct json inner = json_get(top, "prompt");

	if (inner.type == JSON_OBJECT &&
	    json_get(inner, "class_type").type != JSON_STRING)
		return inner;
	return top;
}

static bool is_ui_format(struct json top)
{
	return json_get(top, "nodes").type == JSON_ARRAY;
}

static int check_nodes(struct json workflow, const char *what,
                       struct error *err)
{
	struct json id, node;
	struct json_iter it;
	size_t count = 0;

	json_iter_init(&it, workflow);
	while (json_iter_next(&it, &id, &node)) {
		struct span raw = json_raw_string(id);

		if (json_get(node, "class_type").type != JSON_STRING)
			return error_set(
				err, ERR_INVALID,
				"%s: \"%.*s\" is not a node (it has no "
				"class_type); expected a workflow in API "
				"format: {\"ID\": {\"class_type\": ..., "
				"\"inputs\": {...}}, ...}",
				what,
				raw.n > ID_SHOWN_MAX ? ID_SHOWN_MAX
						     : (int)raw.n,
				raw.p);
		if (++count > WORKFLOW_NODES_MAX)
			return error_set(err, ERR_LIMIT,
			                 "%s has more than %d nodes", what,
			                 WORKFLOW_NODES_MAX);
	}
	if (count == 0)
		return error_set(err, ERR_INVALID, "%s has no nodes", what);
	return 0;
}

int workflow_parse(struct json *out, const char *text, size_t len,
                   const char *what, struct error *err)
{
	const size_t mark_len = strlen(BYTE_ORDER_MARK);
	enum json_outcome r;
	size_t at;

	*out = JSON_MISSING;
	if (len > WORKFLOW_SIZE_MAX)
		return error_set(err, ERR_LIMIT, "%s is larger than %u MB",
		                 what, WORKFLOW_SIZE_MAX >> 20);
	if (len >= mark_len && memcmp(text, BYTE_ORDER_MARK, mark_len) == 0) {
		text += mark_len;
		len -= mark_len;
	}
	r = json_parse(out, text, len, JSON_NONFINITE, &at);
	if (r != JSON_OK)
		return fail_syntax(what, text, at, r, err);
	if (out->type == JSON_OBJECT)
		*out = unwrap(*out);
	if (out->type != JSON_OBJECT)
		return error_set(err, ERR_INVALID,
		                 "%s is not a workflow: expected a JSON object",
		                 what);
	if (is_ui_format(*out))
		return error_set(
			err, ERR_INVALID,
			"%s is a workflow saved for the web page; export it "
			"there with \"Workflow > Export (API)\" (in older "
			"versions \"Save (API Format)\", after dev mode was "
			"enabled in the settings)",
			what);
	return check_nodes(*out, what, err);
}

size_t workflow_node_count(struct json workflow)
{
	return json_count(workflow);
}

struct span workflow_class_of(struct json workflow, const char *node_id)
{
	return json_raw_string(
		json_get(json_get(workflow, node_id), "class_type"));
}

/* ---- overrides ---- */

static int fail_buf(int r, struct error *err)
{
	if (r == -ENOMEM)
		return error_set_nomem(err, "the changed workflow");
	return error_set(err, ERR_LIMIT, "the changed workflow is too large");
}

static bool is_utf8(struct span s)
{
	const unsigned char *u = (const unsigned char *)s.p;
	size_t n;

	for (size_t i = 0; i < s.n; i += n) {
		n = utf8_char_len(u + i, s.n - i);
		if (n == 0)
			return false;
	}
	return true;
}

/* True if the target starts with this id and a dot. */
static bool target_names(struct span target, struct json id, size_t *lenp)
{
	struct buf plain = BUF_INIT(TARGET_MAX);
	struct span s = json_raw_string(id);
	bool named = false;

	if (!json_string_is_plain(id)) {
		/* One that is longer than any target isn't named by it. */
		s = SPAN_NULL;
		if (json_string_decode(id, &plain) == 0)
			s = span_make(plain.data, plain.len);
	}
	if (s.p && s.n < target.n && target.p[s.n] == '.') {
		named = span_eq(s, span_make(target.p, s.n));
		*lenp = s.n;
	}
	buf_deinit(&plain);
	return named;
}

static int fail_no_node(struct json workflow, struct span target,
                        struct error *err)
{
	cleanup_buf struct buf ids = BUF_INIT(1024);
	struct json_iter it;
	struct json id, node;
	size_t n = 0;

	json_iter_init(&it, workflow);
	while (json_iter_next(&it, &id, &node) && n++ < NODES_LISTED_MAX) {
		struct span raw = json_raw_string(id);

		(void)buf_printf(&ids, "%s%.*s", n > 1 ? ", " : "",
		                 raw.n > ID_SHOWN_MAX ? ID_SHOWN_MAX
		                                      : (int)raw.n,
		                 raw.p);
	}
	if (n > NODES_LISTED_MAX)
		(void)buf_puts(&ids, ", ...");
	return error_set(err, ERR_NOT_FOUND,
	                 "the workflow has no node that \"%.*s\" names "
	                 "(nodes: %s)",
	                 target.n > ID_SHOWN_MAX ? ID_SHOWN_MAX : (int)target.n,
	                 target.p, ids.len > 0 ? buf_cstr(&ids) : "none");
}

/* Finds the node; of several whose ids fit, the one with the shortest. */
static int find_node(struct json workflow, struct span target,
                     struct json *nodep, struct span *inputp, struct error *err)
{
	size_t len = 0, best = SIZE_MAX;
	struct json_iter it;
	struct json id, node;

	if (target.n > TARGET_MAX || !is_utf8(target) ||
	    !memchr(target.p, '.', target.n))
		return error_set(err, ERR_INVALID,
		                 "\"%.*s\" is not of the form NODE.INPUT",
		                 target.n > ID_SHOWN_MAX ? ID_SHOWN_MAX
		                                         : (int)target.n,
		                 target.p);
	json_iter_init(&it, workflow);
	while (json_iter_next(&it, &id, &node)) {
		/* Of equal ids the last counts. */
		if (target_names(target, id, &len) && len <= best) {
			best = len;
			*nodep = node;
		}
	}
	if (best == SIZE_MAX)
		return fail_no_node(workflow, target, err);
	*inputp = span_make(target.p + best + 1, target.n - best - 1);
	if (inputp->n == 0)
		return error_set(err, ERR_INVALID,
		                 "\"%.*s\" names a node but no input",
		                 (int)target.n, target.p);
	return 0;
}

/* The node's new text (its inputs', if it has some) and what it replaces. */
static int change_node(struct json node, struct span input, struct span value,
                       struct buf *text, struct span *oldp, struct error *err)
{
	struct json inputs = json_get(node, "inputs"), empty;
	cleanup_buf struct buf fresh = BUF_INIT(WORKFLOW_SIZE_MAX);
	int r;

	if (inputs.type == JSON_OBJECT) {
		*oldp = inputs.text;
		r = json_object_set(text, inputs, input, value);
		return r < 0 ? fail_buf(r, err) : 0;
	}
	if (node.type != JSON_OBJECT || inputs.type != JSON_NONE)
		return error_set(err, ERR_INVALID,
		                 "the node's inputs are not a JSON object");
	*oldp = node.text;
	empty = (struct json){JSON_OBJECT, SPAN("{}")};
	r = json_object_set(&fresh, empty, input, value);
	if (r == 0)
		r = json_object_set(text, node, SPAN("inputs"),
		                    span_make(fresh.data, fresh.len));
	return r < 0 ? fail_buf(r, err) : 0;
}

int workflow_set_value(struct buf *out, struct json workflow,
                       struct span target, struct span value, struct error *err)
{
	cleanup_buf struct buf text = BUF_INIT(WORKFLOW_SIZE_MAX);
	struct json node = JSON_MISSING, parsed;
	struct span input = SPAN_NULL, old = SPAN_NULL;
	enum json_outcome o;
	int r;

	o = json_parse(&parsed, value.p, value.n, JSON_NONFINITE, NULL);
	if (o != JSON_OK)
		return error_set(err, ERR_INVALID, "the value for %.*s: %s",
		                 target.n > ID_SHOWN_MAX ? ID_SHOWN_MAX
		                                         : (int)target.n,
		                 target.p, json_outcome_text(o));
	if (find_node(workflow, target, &node, &input, err) < 0 ||
	    change_node(node, input, parsed.text, &text, &old, err) < 0)
		return -1;
	r = json_splice(out, workflow.text, old,
	                span_make(text.data, text.len));
	return r < 0 ? fail_buf(r, err) : 0;
}

int workflow_set(struct buf *out, struct json workflow, const char *assignment,
                 struct error *err)
{
	cleanup_buf struct buf quoted = BUF_INIT(WORKFLOW_SIZE_MAX);
	const char *sign = strchr(assignment, '=');
	struct span target, value;
	struct json parsed;
	int r;

	if (!sign)
		return error_set(err, ERR_INVALID,
		                 "\"%.*s\" is not of the form NODE.INPUT=VALUE",
		                 ID_SHOWN_MAX, assignment);
	target = span_make(assignment, (size_t)(sign - assignment));
	value = SPAN(sign + 1);
	if (json_parse(&parsed, value.p, value.n, 0, NULL) == JSON_OK)
		return workflow_set_value(out, workflow, target, value, err);
	if (!is_utf8(value))
		return error_set(
			err, ERR_INVALID, "the value for %.*s is not UTF-8",
			target.n > ID_SHOWN_MAX ? ID_SHOWN_MAX : (int)target.n,
			target.p);
	r = buf_json_string(&quoted, value.p, value.n);
	if (r < 0)
		return fail_buf(r, err);
	return workflow_set_value(out, workflow, target,
	                          span_make(quoted.data, quoted.len), err);
}

/* ---- refusals ---- */

/* A string of ComfyUI's as part of a line: decoded, cut, without line breaks
 * and the full stop that would stand in the middle. Nothing if it is none. */
static struct span clean(struct json j, struct buf *b)
{
	buf_reset(b);
	if (json_string_decode(j, b) < 0)
		return SPAN_NULL;
	for (size_t i = 0; i < b->len; i++) {
		if ((unsigned char)b->data[i] < 0x20 || b->data[i] == 0x7f)
			b->data[i] = ' ';
	}
	if (b->len > FAULT_TEXT_MAX) {
		size_t n = FAULT_TEXT_MAX;

		while (n > 0 && ((unsigned char)b->data[n] & 0xc0) == 0x80)
			n--;
		b->len = n;
		(void)buf_puts(b, "...");
		return span_make(b->data, b->len);
	}
	while (b->len > 0 && strchr(" .", b->data[b->len - 1]))
		b->len--;
	return span_make(b->data, b->len);
}

/* What is put together of one fault. */
struct fault {
	struct buf message, details, exception;
};

static void put_part(struct buf *out, const char *before, struct span part,
                     const char *after)
{
	if (part.n == 0)
		return;
	(void)buf_puts(out, before);
	(void)buf_append(out, part.p, part.n);
	(void)buf_puts(out, after);
}

/* "message: ExceptionType: details" of an entry of `errors`. */
static void put_node_fault(struct buf *out, struct json e, struct fault *f)
{
	struct json extra = json_get(e, "extra_info");
	struct span message = clean(json_get(e, "message"), &f->message);
	struct span details = clean(json_get(e, "details"), &f->details);
	struct span exception =
		clean(json_get(extra, "exception_type"), &f->exception);

	if (message.n == 0)
		message = clean(json_get(e, "type"), &f->message);
	put_part(out, "", message.n > 0 ? message : SPAN("unknown fault"), "");
	put_part(out, ": ", exception, "");
	put_part(out, ": ", details, "");
}

/* The errors of one node, a line each. Returns how many there are. */
static size_t put_node_faults(struct buf *out, struct json id, struct json node,
                              size_t before, struct fault *f)
{
	struct json errors = json_get(node, "errors"), e;
	struct json_iter it;
	size_t n = 0;

	json_iter_init(&it, errors);
	while (json_iter_next(&it, NULL, &e)) {
		if (before + n++ >= FAULTS_MAX)
			continue;
		if (before + n > 1)
			(void)buf_putc(out, '\n');
		put_part(out, "node ", clean(id, &f->message), "");
		put_part(out, " (",
		         clean(json_get(node, "class_type"), &f->message), ")");
		(void)buf_puts(out, ": ");
		put_node_fault(out, e, f);
	}
	return n;
}

/* The reply's own error, when no node is to blame. */
static void put_reply_fault(struct buf *out, struct json error, struct fault *f)
{
	struct span message, details;

	/* Servers before 0.3.28 sent a plain string for some. */
	message = clean(error.type == JSON_STRING ? error
	                                          : json_get(error, "message"),
	                &f->message);
	details = clean(json_get(error, "details"), &f->details);
	if (message.n == 0)
		message = clean(json_get(error, "type"), &f->message);
	if (message.n == 0)
		message = SPAN("ComfyUI refused the workflow and gave no "
		               "reason");
	put_part(out, "", message, "");
	if (!span_eq(message, details))
		put_part(out, " (", details, ")");
}

void workflow_refusal_text(struct json reply, struct buf *out)
{
	struct json nodes = json_get(reply, "node_errors"), id, node;
	struct fault f = {BUF_INIT(reply.text.n + sizeof("...")),
	                  BUF_INIT(reply.text.n + sizeof("...")),
	                  BUF_INIT(reply.text.n + sizeof("..."))};
	struct json_iter it;
	size_t n = 0;

	if (nodes.type == JSON_OBJECT) {
		json_iter_init(&it, nodes);
		while (json_iter_next(&it, &id, &node))
			n += put_node_faults(out, id, node, n, &f);
	}
	if (n == 0)
		put_reply_fault(out, json_get(reply, "error"), &f);
	else if (n > FAULTS_MAX)
		(void)buf_printf(out, "\nand %zu more", n - FAULTS_MAX);
	buf_deinit(&f.message);
	buf_deinit(&f.details);
	buf_deinit(&f.exception);
}

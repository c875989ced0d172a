/*
 * message.c - the tables and parsers of message.h; its builders are in
 * message_build.c. The tables come from messages.def; a line is validated once
 * and then walked once.
 */
#include "ipc/message.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/macros.h"

/* ---- tables ---- */

const struct op_info op_table[OP_COUNT] = {
#define OP(e, name, permit, max, doc)                                          \
	[OP_##e] = {name, PERMIT_##permit, max, doc},
#include "ipc/messages.def"
};

const struct event_info event_table[EVENT_COUNT] = {
#define EVENT(e, name, fold, doc) [EVENT_##e] = {name, FOLD_##fold, doc},
#include "ipc/messages.def"
};

#define DIR_IN  true
#define DIR_OUT false

const struct field_info field_table[] = {
#define FIELD(op, dir, name, type, unit, need, doc)                            \
	{OP_##op, DIR_##dir, name, type, unit, #need, doc},
#include "ipc/messages.def"
};

const char *const error_docs[ERR_CODE_COUNT] = {
#define ERROR(e, doc) [ERR_##e] = doc,
#include "ipc/messages.def"
};

/* So that names are compared without measuring them each time. */
static const size_t op_name_len[] = {
#define OP(e, name, permit, max, doc) sizeof(name) - 1,
#include "ipc/messages.def"
};

static const size_t event_name_len[] = {
#define EVENT(e, name, fold, doc) sizeof(name) - 1,
#include "ipc/messages.def"
};

const size_t field_count = ARRAY_SIZE(field_table);

/* The fields of requests alone, for whoever looks them up. */
static const struct in_field {
	enum op op;
	bool required;
	const char *name;
	size_t len;
	const char *type;
} in_fields[] = {
#define NEED_REQUIRED true
#define NEED_OPTIONAL false
#define ROW_IN(op, name, type, need)                                           \
	{OP_##op, NEED_##need, name, sizeof(name) - 1, type},
#define ROW_OUT(op, name, type, need)
#define FIELD(op, dir, name, type, unit, need, doc)                            \
	ROW_##dir(op, name, type, need)
#include "ipc/messages.def"
};

#define IN_FIELD_COUNT ARRAY_SIZE(in_fields)

STATIC_ASSERT_ARRAY_SIZE(op_name_len, OP_COUNT);
STATIC_ASSERT_ARRAY_SIZE(event_name_len, EVENT_COUNT);

static bool same(struct span s, const char *name, size_t len)
{
	return s.n == len && memcmp(s.p, name, len) == 0;
}

enum op op_from_name(struct span name)
{
	enum op op = 0;

	while (op < OP_COUNT && !same(name, op_table[op].name, op_name_len[op]))
		op++;
	return op;
}

enum event event_from_name(struct span name)
{
	enum event ev = 0;

	while (ev < EVENT_COUNT &&
	       !same(name, event_table[ev].name, event_name_len[ev]))
		ev++;
	return ev;
}

/* ---- requests ---- */

/* Every member that any op knows; its op is known when all have been seen. */
struct members {
	struct json op, id;
	struct json fields[IN_FIELD_COUNT];
};

/* A member's name, looked at once for all that it is compared with. */
struct key {
	struct json text;
	struct span raw;
	bool plain;
};

static bool is_key(const struct key *k, const char *name, size_t len)
{
	return k->plain ? same(k->raw, name, len)
	                : json_string_eq(k->text, name);
}

static void gather_one(struct members *m, const struct key *k,
                       struct json value)
{
	if (is_key(k, "op", 2))
		m->op = value;
	else if (is_key(k, "id", 2))
		m->id = value;
	for (size_t i = 0; i < IN_FIELD_COUNT; i++) {
		if (is_key(k, in_fields[i].name, in_fields[i].len))
			m->fields[i] = value;
	}
}

/* False if there are too many. */
static bool gather(struct members *m, struct json body)
{
	struct json_iter it;
	struct json value;
	size_t count = 0;
	struct key k;

	memset(m, 0, sizeof(*m));
	json_iter_init(&it, body);
	while (json_iter_next(&it, &k.text, &value)) {
		if (++count > REQUEST_MEMBERS_MAX)
			return false;
		k.raw = json_raw_string(k.text);
		k.plain = json_string_is_plain(k.text);
		gather_one(m, &k, value);
	}
	return true;
}

static bool is_integer(struct json j)
{
	int64_t i;
	uint64_t u;

	return json_int64(j, &i) || json_uint64(j, &u);
}

static bool has_type(struct json j, const char *type)
{
	switch (type[0]) {
	case 's':
		return j.type == JSON_STRING;
	case 'i':
		return is_integer(j);
	case 'n':
		return j.type == JSON_NUMBER;
	case 'b':
		return j.type == JSON_TRUE || j.type == JSON_FALSE;
	case 'o':
		return j.type == JSON_OBJECT;
	case 'a':
		return j.type == JSON_ARRAY;
	}
	assert(false && "a type that messages.def does not explain");
	return false;
}

static int check_id(struct request *req, struct json id, struct error *err)
{
	if (id.type == JSON_NONE)
		return 0;
	if (id.type != JSON_STRING && !is_integer(id))
		return error_set(err, ERR_INVALID,
		                 "\"id\" must be a string or an integer");
	if (id.text.n > MESSAGE_ID_MAX)
		return error_set(err, ERR_INVALID,
		                 "\"id\" is longer than %d bytes",
		                 MESSAGE_ID_MAX);
	req->id = id.text;
	return 0;
}

static int check_op(struct request *req, struct json op, struct error *err)
{
	struct span name = json_raw_string(op);

	if (op.type != JSON_STRING)
		return error_set(err, ERR_INVALID,
		                 op.type == JSON_NONE
		                         ? "the request has no \"op\""
		                         : "\"op\" must be a string");
	req->op = op_from_name(name);
	if (req->op == OP_COUNT)
		return error_set(err, ERR_NOT_FOUND, "there is no op \"%s\"",
		                 log_safe(name.p, name.n));
	return 0;
}

static int check_fields(struct request *req, const struct json *values,
                        struct error *err)
{
	const struct in_field *f;
	size_t n = 0;

	for (size_t i = 0; i < IN_FIELD_COUNT; i++) {
		f = &in_fields[i];
		if (f->op != req->op)
			continue;
		if (values[i].type == JSON_NONE && f->required)
			return error_set(err, ERR_INVALID, "%s needs \"%s\"",
			                 op_table[req->op].name, f->name);
		if (values[i].type != JSON_NONE &&
		    !has_type(values[i], f->type))
			return error_set(err, ERR_INVALID,
			                 "\"%s\" of %s must be of type %s",
			                 f->name, op_table[req->op].name,
			                 f->type);
		assert(n < REQUEST_FIELDS_MAX);
		req->fields[n++] = values[i];
	}
	return 0;
}

/* Validates the text; `body` becomes an object. */
static int parse_object(struct json *body, const char *line, size_t len,
                        unsigned flags, enum error_code code, struct error *err)
{
	enum json_outcome o;
	size_t at = 0;

	o = json_parse(body, line, len, flags, &at);
	if (o != JSON_OK)
		return error_set(err, code,
		                 "the line is not JSON: %s at byte %zu",
		                 json_outcome_text(o), at + 1);
	if (body->type != JSON_OBJECT)
		return error_set(err, code, "the line is not a JSON object");
	return 0;
}

int request_parse(struct request *req, const char *line, size_t len,
                  struct error *err)
{
	struct members m;
	bool few;

	memset(req, 0, sizeof(*req));
	req->op = OP_COUNT;
	if (len > LINE_MAX_BYTES)
		return error_set(err, ERR_LIMIT,
		                 "the line is longer than %u bytes",
		                 LINE_MAX_BYTES);
	if (parse_object(&req->body, line, len, 0, ERR_INVALID, err) < 0)
		return -1;
	few = gather(&m, req->body);
	if (check_id(req, m.id, err) < 0)
		return -1;
	if (!few)
		return error_set(err, ERR_LIMIT,
		                 "a request has at most %d members",
		                 REQUEST_MEMBERS_MAX);
	if (check_op(req, m.op, err) < 0)
		return -1;
	if (len > op_table[req->op].request_max)
		return error_set(err, ERR_LIMIT,
		                 "a %s request is at most %zu bytes long, "
		                 "this one has %zu",
		                 op_table[req->op].name,
		                 op_table[req->op].request_max, len);
	return check_fields(req, m.fields, err);
}

struct json request_field(const struct request *req, const char *name)
{
	size_t n = 0;

	for (size_t i = 0; i < IN_FIELD_COUNT; i++) {
		if (in_fields[i].op != req->op)
			continue;
		if (strcmp(in_fields[i].name, name) == 0)
			return req->fields[n];
		n++;
	}
	assert(false && "a field that messages.def does not declare");
	return JSON_MISSING;
}

/* ---- what comes from the supervisor ---- */

enum incoming_key {
	KEY_EVENT,
	KEY_SEQ,
	KEY_PROMPT_ID,
	KEY_T,
	KEY_DATA,
	KEY_PROGRESS,
	KEY_ID,
	KEY_OK,
	KEY_RESULT,
	KEY_ERROR,
	KEY_FDS,
	KEY_COUNT
};

static const char *const incoming_keys[] = {
	"event", "seq", "prompt_id", "t",     "data", "progress",
	"id",    "ok",  "result",    "error", "fds",
};
STATIC_ASSERT_ARRAY_SIZE(incoming_keys, KEY_COUNT);

static int broken(struct error *err, enum incoming_key key)
{
	return error_set(err, ERR_PROTOCOL,
	                 "the supervisor sent a line whose \"%s\" is missing "
	                 "or of the wrong type",
	                 incoming_keys[key]);
}

static bool absent_or(struct json j, enum json_type type)
{
	return j.type == JSON_NONE || j.type == type;
}

static int take_event(struct incoming *in, const struct json *v,
                      struct error *err)
{
	in->is_event = true;
	in->event = event_from_name(json_raw_string(v[KEY_EVENT]));
	if (v[KEY_SEQ].type != JSON_NONE && !json_uint64(v[KEY_SEQ], &in->seq))
		return broken(err, KEY_SEQ);
	if (v[KEY_T].type != JSON_NONE && !json_int64(v[KEY_T], &in->t_ms))
		return broken(err, KEY_T);
	if (!absent_or(v[KEY_PROMPT_ID], JSON_STRING))
		return broken(err, KEY_PROMPT_ID);
	if (!absent_or(v[KEY_PROGRESS], JSON_OBJECT))
		return broken(err, KEY_PROGRESS);
	in->prompt_id = v[KEY_PROMPT_ID];
	in->data = v[KEY_DATA];
	in->progress = v[KEY_PROGRESS];
	return 0;
}

static int take_reply(struct incoming *in, const struct json *v,
                      struct error *err)
{
	if (!json_bool(v[KEY_OK], &in->ok))
		return broken(err, KEY_OK);
	if (v[KEY_ID].type == JSON_NUMBER && !json_uint64(v[KEY_ID], &in->id))
		in->id = 0;
	in->result = in->ok ? v[KEY_RESULT] : JSON_MISSING;
	in->error = in->ok ? JSON_MISSING : v[KEY_ERROR];
	if (in->ok && in->result.type != JSON_OBJECT)
		return broken(err, KEY_RESULT);
	if (!in->ok && in->error.type != JSON_OBJECT)
		return broken(err, KEY_ERROR);
	return 0;
}

/* No line comes with more than one. */
static int take_fds(struct incoming *in, struct json fds, struct error *err)
{
	uint64_t n = 0;

	if (fds.type != JSON_NONE && (!json_uint64(fds, &n) || n > 1))
		return broken(err, KEY_FDS);
	in->has_fd = n == 1;
	return 0;
}

int incoming_parse(struct incoming *in, const char *line, size_t len,
                   struct error *err)
{
	struct json body, v[KEY_COUNT];

	memset(in, 0, sizeof(*in));
	in->event = EVENT_COUNT;
	if (parse_object(&body, line, len, JSON_NONFINITE, ERR_PROTOCOL, err) <
	    0)
		return error_prefix(err, "from the supervisor");
	json_get_many(body, incoming_keys, v, KEY_COUNT);
	if (take_fds(in, v[KEY_FDS], err) < 0)
		return -1;
	if (v[KEY_EVENT].type == JSON_STRING)
		return take_event(in, v, err);
	if (v[KEY_EVENT].type != JSON_NONE)
		return broken(err, KEY_EVENT);
	return take_reply(in, v, err);
}

void incoming_error(const struct incoming *in, struct error *out)
{
	static const char *const keys[] = {"type", "message"};
	struct json v[ARRAY_SIZE(keys)];
	struct buf text;
	char *type = NULL;

	json_get_many(in->error, keys, v, ARRAY_SIZE(keys));
	if (v[0].type == JSON_STRING)
		type = json_string_dup(v[0], ERROR_TEXT_MAX);
	/* No longer decoded than as it was sent. */
	buf_init(&text, v[1].text.n);
	if (v[1].type != JSON_STRING || json_string_decode(v[1], &text) < 0 ||
	    !buf_cstr(&text))
		(void)error_set(out, ERR_INTERNAL,
		                "the supervisor refused without saying why");
	else
		(void)error_set(out, ERR_INTERNAL, "%s", text.data);
	if (type)
		out->code = error_code_from_name(type);
	if (out->code == ERR_NONE)
		out->code = ERR_INTERNAL;
	free(type);
	buf_deinit(&text);
}

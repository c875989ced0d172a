/*
 * message.h - the vocabulary of the Unix socket: ops, events, and the shape of
 * request, reply and event lines. Generated from messages.def; PROTOCOL.md is
 * its prose.
 *
 * A request is {"op", "id", ...fields}. A reply is {"id", "ok": true, "result":
 * {...}} or {"id", "ok": false, "error": {"type", "message", ...}}. An event is
 * {"event", "seq", "prompt_id", "t", "data", "progress"}.
 */
#ifndef IPC_MESSAGE_H
#define IPC_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/error.h"
#include "common/json_span.h"

#define MESSAGE_PROTOCOL    1
#define LINE_MAX_BYTES      (16u << 20) /* longest line on the socket */
#define PREVIEW_BYTES_MAX   (8u << 20)  /* an image that is passed on */
#define MESSAGE_ID_MAX      128 /* bytes of a request's id, as JSON text */
#define REQUEST_MEMBERS_MAX 64  /* of a request, known or not */
#define REQUEST_FIELDS_MAX  8   /* that an op of messages.def may declare */

enum op {
#define OP(e, name, permit, max, doc) OP_##e,
#include "ipc/messages.def"
	OP_COUNT
};

enum op_permit {
	PERMIT_ANY,
	PERMIT_USER,
	PERMIT_OPERATOR,
};

struct op_info {
	const char *name;
	enum op_permit permit;
	size_t request_max; /* bytes of the line */
	const char *doc;
};
extern const struct op_info op_table[OP_COUNT];

enum event {
#define EVENT(e, name, fold, doc) EVENT_##e,
#include "ipc/messages.def"
	EVENT_COUNT
};

enum event_fold {
	FOLD_KEEP,
	FOLD_STEP,
};

struct event_info {
	const char *name;
	enum event_fold fold;
	const char *doc;
};
extern const struct event_info event_table[EVENT_COUNT];

struct field_info {
	enum op op;
	bool in;
	const char *name, *type, *unit, *need, *doc;
};
extern const struct field_info field_table[];
extern const size_t field_count;

/* What each enum error_code means on the wire; NULL for ERR_NONE. */
extern const char *const error_docs[ERR_CODE_COUNT];

/* OP_COUNT / EVENT_COUNT if there is none of that name (raw JSON string
 * bytes). */
enum op op_from_name(struct span name);
enum event event_from_name(struct span name);

/* A request line, taken apart. Spans point into the line. */
struct request {
	enum op op;
	struct span id;   /* JSON text of the id, {NULL,0} if there was none */
	struct json body; /* the whole object */
	/* The declared fields' values, see request_field. */
	struct json fields[REQUEST_FIELDS_MAX];
};

/* Parses and checks a request line: JSON object, known op, id a string or
 * integer of at most MESSAGE_ID_MAX bytes, line within the op's bound, fields
 * of the declared types, required ones present; unknown fields are ignored, but
 * there are at most REQUEST_MEMBERS_MAX members: a line can hold millions, and
 * looking at each would keep everybody else waiting.
 * On failure `req->id` is still set if it could be read, so that the refusal
 * can carry it, and `req->op` is OP_COUNT unless it was; ERR_INVALID, ERR_LIMIT
 * or ERR_NOT_FOUND (unknown op). A field that is null has the wrong type. */
int request_parse(struct request *req, const char *line, size_t len,
                  struct error *err);

/* A declared field of a parsed request; JSON_MISSING if it was not given. Of
 * the declared type else, so a string field is a string. */
struct json request_field(const struct request *req, const char *name);

/* Builders; each appends a whole line with its newline. `result` is JSON object
 * text, "{}" if NULL. `extra` (may be NULL) is text of further members of
 * error, such as "\"node_errors\":{...}". 0 or what buf_append says; nothing is
 * appended on failure. Newlines inside JSON text from elsewhere are taken out:
 * one message is one line. */
int reply_ok(struct buf *out, struct span id, struct span result);
/* The same for a line that comes with a descriptor. */
int reply_ok_fd(struct buf *out, struct span id, struct span result);
int reply_error(struct buf *out, struct span id, const struct error *err,
                struct span extra);

/* A request line of our own: `params` is JSON object text of the op's fields,
 * possibly spread over lines, {NULL,0} for none. 0, or -1: ERR_INVALID if it is
 * no JSON object or holds "op" or "id", ERR_LIMIT past the op's bound, or
 * ERR_INTERNAL for want of memory; nothing is appended then. */
int request_build(struct buf *out, enum op op, uint64_t id, struct span params,
                  struct error *err);

/* An event line. `data` and `progress` are JSON text (of ComfyUI's: compacted,
 * so that no bare NaN is in it), {NULL,0} leaves the member out; prompt_id NULL
 * likewise, then seq too. */
struct event_line {
	enum event event;
	uint64_t seq;
	const char *prompt_id;
	int64_t t_ms;
	struct span data, progress;
	bool fd; /* it comes with a descriptor */
};
int event_build(struct buf *out, const struct event_line *ev);

/* What came from the supervisor: a reply or an event. */
struct incoming {
	bool is_event;
	bool has_fd; /* a descriptor comes with it */
	/* reply */
	uint64_t id; /* 0 if it was no integer of ours */
	bool ok;
	struct json result; /* if ok */
	struct json error;  /* if not */
	/* event */
	enum event
		event; /* EVENT_COUNT: one that is not known, to be ignored */
	uint64_t seq;
	int64_t t_ms;
	struct json prompt_id, data, progress;
};
/* ERR_PROTOCOL if it is neither. Bare NaN and Infinity are read as null. */
int incoming_parse(struct incoming *in, const char *line, size_t len,
                   struct error *err);
/* Fills `out` from the "error" member of a reply: code and text. */
void incoming_error(const struct incoming *in, struct error *out);

#endif

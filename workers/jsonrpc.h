/*
 * jsonrpc.h - JSON-RPC 2.0 lines as MCP uses them: taken apart, put together.
 * Pure: no I/O, no methods, no state.
 *
 * Ids are kept as JSON text and echoed unchanged: 0, "" and thirty digits are
 * ids like any other. Where an id cannot be read the reply leaves it out (null
 * is refused by MCP clients).
 */
#ifndef WORKERS_JSONRPC_H
#define WORKERS_JSONRPC_H

#include <stdbool.h>

#include "common/buf.h"
#include "common/json_span.h"

#define RPC_ID_MAX 1024 /* bytes of an id's JSON text */
#define RPC_LINE_MAX                                                           \
	(15u << 20) /* bytes of an input line; MCP clients send                \
	              up to 10 MiB */
#define RPC_REPLY_MAX                                                          \
	10485760u            /* bytes of an output line, newline included:     \
	                        the official SDKs hang up past it */
#define RPC_BATCH_MAX   256  /* messages in one batch */
#define RPC_MESSAGE_MAX 1024 /* bytes of an error's message */

enum rpc_code {
	RPC_PARSE_ERROR = -32700,
	RPC_INVALID_REQUEST = -32600,
	RPC_METHOD_NOT_FOUND = -32601,
	RPC_INVALID_PARAMS = -32602,
	RPC_INTERNAL_ERROR = -32603,
	RPC_RESOURCE_NOT_FOUND = -32002,  /* legacy versions only */
	RPC_MISSING_CAPABILITY = -32021,  /* 2026-07-28 */
	RPC_UNSUPPORTED_VERSION = -32022, /* 2026-07-28 */
};

enum rpc_kind {
	RPC_REQUEST,
	RPC_NOTIFICATION,
	RPC_RESPONSE, /* result or error: to nothing of ours, ignored */
	RPC_BATCH,    /* an array, empty or not: `whole` is to be walked */
	RPC_INVALID,  /* `code` and `why` say how to answer */
};

struct rpc_message {
	enum rpc_kind kind;
	struct span id; /* JSON text; {NULL,0} if none, or not to be echoed */
	struct json method, params; /* params is JSON_NONE if absent */
	struct json whole;
	enum rpc_code code;
	const char *why;
};

/* Takes a line apart. A line that is not JSON, not UTF-8, too deep or has a key
 * twice is RPC_PARSE_ERROR; JSON of a wrong shape RPC_INVALID_REQUEST with the
 * id if a valid one (string or integer) was readable. Points into the line. */
void rpc_parse(struct rpc_message *m, const char *line, size_t len);
/* The same for an element of a batch. */
void rpc_parse_value(struct rpc_message *m, struct json value);

/* Appends a message without a newline. `result`, `params`, `data` are JSON
 * text; data {NULL,0} leaves it out. 0 or what buf_append says. */
int rpc_result(struct buf *out, struct span id, struct span result);
int rpc_error(struct buf *out, struct span id, enum rpc_code code,
              const char *message, struct span data);
int rpc_notification(struct buf *out, const char *method, struct span params);

#endif

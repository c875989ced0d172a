/*
 * sim_events.c - see sim_events.h.
 */
#include "tests/sim/sim_events.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_text.h"

enum binary_type {
	BINARY_PREVIEW = 1,
	BINARY_TEXT = 3,
	BINARY_PREVIEW_METADATA = 4,
};

enum image_format {
	FORMAT_JPEG = 1,
	FORMAT_PNG = 2,
};

static void send_frame(struct sim *sim, const char *sid, const struct buf *b,
                       bool text)
{
	struct sim_frame *f;

	if (!buf_ok(b))
		return;
	f = sim_frame_new(b->data, b->len, text);
	sim_clients_send(&sim->clients, sid, f);
	sim_frame_unref(f);
}

/* {"type": "...", "data": { */
static void event_begin(struct buf *b, const char *type)
{
	buf_init(b, SIM_FRAME_MAX);
	(void)buf_printf(b, "{\"type\": \"%s\", \"data\": {", type);
}

static void event_send(struct sim *sim, const char *sid, struct buf *b)
{
	(void)buf_puts(b, "}}");
	send_frame(sim, sid, b, true);
	buf_deinit(b);
}

static void put_member(struct buf *b, const char *key, const char *value)
{
	if (b->len && b->data[b->len - 1] != '{')
		(void)buf_puts(b, ", ");
	(void)buf_printf(b, "\"%s\": ", key);
	if (value)
		(void)sim_put_string(b, value);
	else
		(void)buf_puts(b, "null");
}

void sim_put_u32(struct buf *b, uint32_t n)
{
	unsigned char be[4] = {(unsigned char)(n >> 24),
	                       (unsigned char)(n >> 16),
	                       (unsigned char)(n >> 8), (unsigned char)n};

	(void)buf_append(b, be, sizeof(be));
}

void sim_event_status(struct sim *sim, const char *sid)
{
	struct buf b;

	event_begin(&b, "status");
	(void)buf_printf(&b,
	                 "\"status\": {\"exec_info\": {\"queue_remaining\": "
	                 "%zu}}",
	                 sim_queue_remaining(&sim->queue));
	if (sid)
		put_member(&b, "sid", sid);
	event_send(sim, sid, &b);
}

void sim_event_last_node(struct sim *sim, const char *sid, const char *node)
{
	struct buf b;

	event_begin(&b, "executing");
	put_member(&b, "node", node);
	event_send(sim, sid, &b);
}

void sim_event_message(struct sim_exec *x, const char *type,
                       const struct buf *data, bool broadcast)
{
	bool stamped = !x->sim->options.no_execution_success;
	struct buf body = BUF_INIT(SIM_FRAME_MAX), b;

	/* execution_cached has its nodes first; nobody should mind. */
	put_member(&body, "prompt_id", x->prompt->id);
	if (data && data->len) {
		(void)buf_puts(&body, ", ");
		(void)buf_append(&body, data->data, data->len);
	}
	if (stamped)
		(void)buf_printf(&body, ", \"timestamp\": %lld",
		                 (long long)clock_epoch_ms());
	if (x->messages.len)
		(void)buf_puts(&x->messages, ", ");
	(void)buf_printf(&x->messages, "[\"%s\", {", type);
	(void)buf_append(&x->messages, body.data, body.len);
	(void)buf_puts(&x->messages, "}]");
	if (x->client_id || broadcast) {
		event_begin(&b, type);
		(void)buf_append(&b, body.data, body.len);
		event_send(x->sim, x->client_id, &b);
	}
	buf_deinit(&body);
}

void sim_put_executed(struct buf *b, const struct sim_graph *g)
{
	bool first = true;

	(void)buf_puts(b, "\"executed\": [");
	for (size_t i = 0; i < g->nnodes; i++) {
		if (!g->nodes[i]->executed)
			continue;
		if (!first)
			(void)buf_puts(b, ", ");
		first = false;
		(void)sim_put_string(b, g->nodes[i]->id);
	}
	(void)buf_putc(b, ']');
}

void sim_event_blocked(struct sim_exec *x, const struct sim_node *n,
                       const char *message)
{
	struct buf b, text = BUF_INIT(65536);

	(void)buf_printf(&text, "Execution Blocked: %s", message);
	event_begin(&b, "execution_error");
	put_member(&b, "prompt_id", x->prompt->id);
	put_member(&b, "node_id", n->id);
	put_member(&b, "node_type", n->cls->row->name);
	(void)buf_puts(&b, ", ");
	sim_put_executed(&b, &x->graph);
	put_member(&b, "exception_message", buf_cstr(&text));
	put_member(&b, "exception_type", "ExecutionBlocked");
	(void)buf_puts(&b, ", \"traceback\": [], \"current_inputs\": [], "
	                   "\"current_outputs\": []");
	/* Unlike other errors this one does go to all without an owner. */
	event_send(x->sim, x->client_id, &b);
	buf_deinit(&text);
}

void sim_event_executing(struct sim_exec *x, const struct sim_node *n)
{
	struct buf b;

	if (!x->client_id)
		return;
	free(x->last_node);
	x->last_node = sim_strdup(n->display);
	event_begin(&b, "executing");
	put_member(&b, "node", n->id);
	put_member(&b, "display_node", n->display);
	put_member(&b, "prompt_id", x->prompt->id);
	event_send(x->sim, x->client_id, &b);
}

void sim_event_end(struct sim_exec *x)
{
	struct buf b;

	if (!x->client_id)
		return;
	event_begin(&b, "executing");
	put_member(&b, "node", NULL);
	put_member(&b, "prompt_id", x->prompt->id);
	event_send(x->sim, x->client_id, &b);
}

void sim_event_executed(struct sim_exec *x, const struct sim_node *n,
                        const char *output)
{
	struct buf b;

	if (!x->client_id)
		return;
	event_begin(&b, "executed");
	put_member(&b, "node", n->id);
	put_member(&b, "display_node", n->display);
	(void)buf_puts(&b, ", \"output\": ");
	(void)buf_puts(&b, output);
	put_member(&b, "prompt_id", x->prompt->id);
	event_send(x->sim, x->client_id, &b);
}

static void put_ids(struct buf *b, const struct sim_exec *x,
                    const struct sim_node *n)
{
	put_member(b, "node_id", n->id);
	put_member(b, "prompt_id", x->prompt->id);
	put_member(b, "display_node_id", n->display);
	put_member(b, "parent_node_id", n->parent ? n->parent->id : NULL);
	put_member(b, "real_node_id", sim_node_real(n)->id);
}

static void put_state(struct buf *b, const struct sim_exec *x,
                      const struct sim_node *n)
{
	(void)sim_put_string(b, n->id);
	(void)buf_puts(b, ": {\"value\": ");
	(void)sim_put_number(b, n->value, n->value_int);
	(void)buf_puts(b, ", \"max\": ");
	(void)sim_put_number(b, n->max, n->max_int);
	put_member(b, "state", n->finished ? "finished" : "running");
	put_ids(b, x, n);
	(void)buf_putc(b, '}');
}

void sim_event_progress_state(struct sim_exec *x, struct sim_node *n)
{
	bool first = true;
	struct list *it;
	struct buf b;

	if (!n->is_touched) {
		n->is_touched = true;
		list_append(&x->graph.touched, &n->touched);
	}
	/* The one frame that is costly to make. */
	if (x->sim->options.no_progress_state ||
	    !sim_clients_listen(&x->sim->clients, x->client_id))
		return;
	event_begin(&b, "progress_state");
	put_member(&b, "prompt_id", x->prompt->id);
	(void)buf_puts(&b, ", \"nodes\": {");
	list_for_each (it, &x->graph.touched) {
		if (!first)
			(void)buf_puts(&b, ", ");
		first = false;
		put_state(&b, x, list_entry(it, struct sim_node, touched));
	}
	(void)buf_putc(&b, '}');
	event_send(x->sim, x->client_id, &b);
}

void sim_event_progress(struct sim_exec *x, const struct sim_node *n)
{
	struct buf b;

	event_begin(&b, "progress");
	(void)buf_puts(&b, "\"value\": ");
	(void)sim_put_number(&b, n->value, n->value_int);
	(void)buf_puts(&b, ", \"max\": ");
	(void)sim_put_number(&b, n->max, n->max_int);
	put_member(&b, "prompt_id", x->prompt->id);
	put_member(&b, "node", n->id);
	event_send(x->sim, x->client_id, &b);
}

static uint32_t format_of(const char *mime)
{
	return strcmp(mime, "image/png") == 0 ? FORMAT_PNG : FORMAT_JPEG;
}

void sim_event_preview(struct sim_exec *x, const struct sim_blob *image,
                       const char *mime)
{
	struct buf b = BUF_INIT(SIM_FRAME_MAX);

	sim_put_u32(&b, BINARY_PREVIEW);
	sim_put_u32(&b, format_of(mime));
	(void)buf_append(&b, image->data, image->len);
	send_frame(x->sim, x->client_id, &b, false);
	buf_deinit(&b);
}

void sim_event_preview_metadata(struct sim_exec *x, const struct sim_node *n,
                                const struct sim_blob *image, const char *mime)
{
	struct buf b = BUF_INIT(SIM_FRAME_MAX), meta = BUF_INIT(65536);

	(void)buf_putc(&meta, '{');
	put_ids(&meta, x, n);
	put_member(&meta, "image_type", mime);
	(void)buf_putc(&meta, '}');
	sim_put_u32(&b, BINARY_PREVIEW_METADATA);
	sim_put_u32(&b, (uint32_t)meta.len);
	(void)buf_append(&b, meta.data, meta.len);
	(void)buf_append(&b, image->data, image->len);
	send_frame(x->sim, x->client_id, &b, false);
	buf_deinit(&meta);
	buf_deinit(&b);
}

void sim_event_text(struct sim_exec *x, const struct sim_node *n,
                    const char *text)
{
	struct buf b = BUF_INIT(SIM_FRAME_MAX);

	sim_put_u32(&b, BINARY_TEXT);
	sim_put_u32(&b, (uint32_t)strlen(n->id));
	(void)buf_puts(&b, n->id);
	(void)buf_puts(&b, text);
	send_frame(x->sim, NULL, &b, false);
	buf_deinit(&b);
}

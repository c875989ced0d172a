/*
 * sim_control.c - the control endpoints below /sim/, which no ComfyUI has.
 */
#include <stdlib.h>

#include "tests/sim/sim.h"
#include "tests/sim/sim_http.h"
#include "tests/sim/sim_text.h"

static void refuse(struct sim_reply *reply, const char *why)
{
	reply->status = 400;
	sim_reply_json(reply);
	(void)buf_puts(&reply->body, "{\"error\": ");
	(void)sim_put_string(&reply->body, why);
	(void)buf_putc(&reply->body, '}');
}

/* False: the reply is made. */
static bool read_order(const struct sim_request *req, struct sim_reply *reply,
                       struct json *order)
{
	if (json_parse(order, req->body.data, req->body.len, 0, NULL) ==
	            JSON_OK &&
	    json_is(*order, JSON_OBJECT))
		return true;
	refuse(reply, "the body must be a JSON object");
	return false;
}

void sim_control_fault(struct sim *sim, const struct sim_request *req,
                       struct sim_reply *reply, const char *tail)
{
	struct buf b = BUF_INIT(SIM_JOURNAL_MAX);
	struct error err = ERROR_NULL;
	struct json order;
	size_t matched;

	if (!read_order(req, reply, &order))
		return;
	if (sim_faults_order(&sim->faults, order, &matched, &err)) {
		refuse(reply, err.text);
		return;
	}
	if (order.text.n <= 65536) {
		(void)buf_puts(&b, "\"order\":");
		(void)json_compact(&b, order);
	}
	sim_journal_add(&sim->journal, "fault", &b);
	buf_deinit(&b);
	sim_reply_json(reply);
	(void)buf_printf(&reply->body, "{\"ok\": true, \"matched\": %zu}",
	                 matched);
}

void sim_control_emit(struct sim *sim, const struct sim_request *req,
                      struct sim_reply *reply, const char *tail)
{
	struct error err = ERROR_NULL;
	struct json order;

	if (!read_order(req, reply, &order))
		return;
	if (sim_emit_start(&sim->emit, order, &err)) {
		refuse(reply, err.text);
		return;
	}
	sim_reply_json(reply);
	(void)buf_puts(&reply->body, "{\"ok\": true}");
}

void sim_control_journal(struct sim *sim, const struct sim_request *req,
                         struct sim_reply *reply, const char *tail)
{
	const char *after = sim_query(req, "after");

	reply->content_type = "application/x-ndjson; charset=utf-8";
	sim_journal_put(&sim->journal, &reply->body,
	                after ? strtoull(after, NULL, 10) : 0);
}

void sim_control_stats(struct sim *sim, const struct sim_request *req,
                       struct sim_reply *reply, const char *tail)
{
	const struct sim_server_stats *s = sim_server_stats(sim->server);
	struct buf *b = &reply->body;

	sim_reply_json(reply);
	(void)buf_puts(b, "{\"requests\": ");
	sim_stats_put(&sim->stats, b);
	(void)buf_printf(
		b,
		", \"requests_total\": %llu, \"tcp\": {\"total\": %llu, "
		"\"open\": %llu, \"refused\": %llu}, \"websockets\": "
		"{\"total\": %llu, \"open\": %llu, \"registered\": %zu, "
		"\"frames_sent\": %llu, \"bytes_sent\": %llu}, \"queue\": "
		"{\"pending\": %zu, \"running\": %d, \"history\": %zu}, "
		"\"emit\": {\"sent\": %llu, \"count\": %llu}, \"journal\": "
		"{\"seq\": %llu, \"lost\": %llu}}",
		(unsigned long long)sim->stats.total,
		(unsigned long long)s->tcp_total,
		(unsigned long long)s->tcp_open,
		(unsigned long long)s->tcp_refused,
		(unsigned long long)s->ws_total, (unsigned long long)s->ws_open,
		sim->clients.table.count, (unsigned long long)s->frames,
		(unsigned long long)s->frame_bytes, sim->queue.npending,
		sim->queue.running != NULL, sim->queue.nhistory,
		(unsigned long long)sim->emit.sent,
		(unsigned long long)sim->emit.count,
		(unsigned long long)sim->journal.seq,
		(unsigned long long)sim->journal.lost);
}

void sim_control_reset(struct sim *sim, const struct sim_request *req,
                       struct sim_reply *reply, const char *tail)
{
	sim_forget(sim);
	sim_exec_pause(&sim->exec, false);
	sim_files_clear(&sim->files);
	sim_faults_clear(&sim->faults);
	sim_emit_stop(&sim->emit);
	sim_journal_reset(&sim->journal);
	sim_server_reset_stats(sim->server);
	sim->stats = (struct sim_stats){0};
	sim_reply_json(reply);
	(void)buf_puts(&reply->body, "{\"ok\": true}");
}

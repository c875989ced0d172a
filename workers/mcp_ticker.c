/*
 * mcp_ticker.c - when progress notifications of a session's requests go out;
 * what is told of each is mcp_progress.c's.
 *
 * One timer for all, set to whichever is due first. An output that finds no
 * room stops it until there is some.
 */
#include "common/clock.h"
#include "workers/mcp_private.h"

void mcp_schedule_tick(struct mcp_session *s, int64_t due_ms)
{
	int64_t in_ms = due_ms - clock_ms();

	if (s->behind || (ev_is_active(&s->ticker) && s->tick_ms <= due_ms))
		return;
	s->tick_ms = due_ms;
	ev_timer_stop(s->loop, &s->ticker);
	ev_timer_set(&s->ticker, in_ms > 0 ? (double)in_ms / 1000.0 : 0., 0.);
	ev_timer_start(s->loop, &s->ticker);
}

static bool send_progress(struct mcp_request *r, const char *number)
{
	struct mcp_session *s = r->session;
	cleanup_buf struct buf params = BUF_INIT(RPC_ID_MAX + 4096);
	cleanup_buf struct buf line = BUF_INIT(RPC_ID_MAX + 8192);

	(void)buf_puts(&params, "{\"progressToken\":");
	(void)buf_append(&params, r->token.p, r->token.n);
	(void)buf_printf(&params, ",\"progress\":%s,\"total\":1", number);
	if (r->progress.message[0] && mcp_has_progress_message(r->version)) {
		(void)buf_json_key(&params, "message");
		(void)buf_json_string(&params, r->progress.message,
		                      strlen(r->progress.message));
	}
	(void)buf_putc(&params, '}');
	(void)rpc_notification(&line, "notifications/progress",
	                       span_make(params.data, params.len));
	/* For want of memory it is left out, like any other that can't go. */
	return !buf_ok(&params) || !buf_ok(&line) ||
	       s->io->output(s->user, r->line->number,
	                     span_make(line.data, line.len));
}

void mcp_session_tick(struct mcp_session *s)
{
	int64_t now = clock_ms(), next = INT64_MAX;
	struct list *it;

	ev_timer_stop(s->loop, &s->ticker);
	list_for_each (it, &s->requests) {
		struct mcp_request *r =
			list_entry(it, struct mcp_request, node);
		char number[24];
		int64_t due;

		if (r->token.n == 0 || !r->method->uses_link)
			continue;
		/* A successor hears of the last one of a line only, so those
		 * of a batch rise together. */
		if (r->line->told > r->progress.told)
			r->progress.told = r->line->told;
		if (mcp_progress_next(&r->progress, now, number)) {
			if (!send_progress(r, number)) {
				/* on_room calls again. */
				s->behind = true;
				return;
			}
			mcp_progress_told(&r->progress, now);
			r->line->told = r->progress.told;
		}
		due = mcp_progress_due_ms(&r->progress);
		next = due < next ? due : next;
	}
	if (next < INT64_MAX)
		mcp_schedule_tick(s, next);
}

static void on_tick(struct ev_loop *loop, ev_timer *w, int revents)
{
	mcp_session_tick(container_of(w, struct mcp_session, ticker));
}

void mcp_session_room(struct mcp_session *s)
{
	struct list *it;

	s->behind = false;
	list_for_each (it, &s->requests) {
		struct mcp_request *r =
			list_entry(it, struct mcp_request, node);

		if (r->started && r->method->room)
			r->method->room(r);
	}
	mcp_session_tick(s);
}

void mcp_ticker_init(struct mcp_session *s)
{
	ev_timer_init(&s->ticker, on_tick, 0., 0.);
}

/*
 * bars.c - see bars.h.
 */
#include "workers/front/bars.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/log.h"

#define BAR_CELLS   20 /* columns between the brackets */
#define BAR_MIN     60 /* terminals narrower than this show no bar */
#define PAINT_BYTES (64u << 10)

double bar_fraction(const struct cmx_progress *p, size_t total_nodes)
{
	double done;

	if (p->status == CMX_COMPLETED)
		return 1;
	if (total_nodes == 0)
		return p->current_node_progress;
	done = (double)(p->completed_nodes.count + p->cached_nodes.count);
	if (p->current_node)
		done += p->current_node_progress;
	/* Nodes may appear at run time that the workflow didn't name. */
	done /= (double)total_nodes;
	return done > 1 ? 1 : done;
}

static void put_duration(struct buf *out, int64_t ms)
{
	int64_t s = ms < 0 ? 0 : ms / 1000;

	if (s >= 3600)
		(void)buf_printf(out, "%" PRId64 ":%02d:%02d", s / 3600,
		                 (int)(s / 60 % 60), (int)(s % 60));
	else
		(void)buf_printf(out, "%d:%02d", (int)(s / 60), (int)(s % 60));
}

static void put_bar(struct buf *out, double fraction)
{
	int cells = (int)(fraction * BAR_CELLS);

	(void)buf_putc(out, '[');
	for (int i = 0; i < BAR_CELLS; i++)
		(void)buf_putc(out, i < cells ? '#' : '.');
	(void)buf_printf(out, "] %3d%% ", (int)(fraction * 100));
}

static void put_running(const struct bar_row *row, struct buf *out)
{
	const struct cmx_progress *p = row->p;

	if (!p->current_node) {
		(void)buf_puts(out, "starting");
		return;
	}
	(void)buf_printf(out, "node %s",
	                 log_safe(p->current_node, strlen(p->current_node)));
	if (*row->node_class)
		(void)buf_printf(
			out, " %s",
			log_safe(row->node_class, strlen(row->node_class)));
	if (p->current_max > 1)
		(void)buf_printf(out, " %.0f/%.0f", p->current_value,
		                 p->current_max);
}

static void put_state(const struct bar_row *row, struct buf *out)
{
	const struct cmx_progress *p = row->p;

	switch (p->status) {
	case CMX_QUEUED:
		(void)buf_puts(out, "queued");
		if (p->queue_position >= 0)
			(void)buf_printf(out, " (position %" PRId64 ")",
			                 p->queue_position);
		if (p->paused)
			(void)buf_puts(out, ", the service is paused");
		break;
	case CMX_EXECUTING:
		put_running(row, out);
		break;
	case CMX_COMPLETED:
		(void)buf_puts(out, "completed");
		break;
	case CMX_FAILED:
		(void)buf_printf(out, "failed: %s",
		                 p->error.type ? p->error.type : "error");
		break;
	}
}

/* Time so far and, once a part of the work is done, an estimate of the rest by
 * the speed of that part. */
static void put_times(const struct bar_row *row, double fraction,
                      struct buf *out)
{
	(void)buf_puts(out, "  ");
	put_duration(out, row->now_ms - row->started_ms);
	if (row->p->status == CMX_EXECUTING && row->executing_ms > 0 &&
	    fraction > 0.02 && fraction < 1) {
		double spent = (double)(row->now_ms - row->executing_ms);

		(void)buf_puts(out, "  left ");
		put_duration(out, (int64_t)(spent / fraction * (1 - fraction)));
	}
}

/* Cuts what follows byte `from` to `width` columns. Labels and ids are UTF-8:
 * a sequence counts as one column and is not torn. */
static void cut_to_width(struct buf *out, size_t from, unsigned width)
{
	unsigned columns = 0;

	for (size_t i = from; i < out->len; i++) {
		if (((unsigned char)out->data[i] & 0xc0) == 0x80)
			continue;
		if (columns++ == width) {
			out->len = i;
			return;
		}
	}
}

void bars_row_text(const struct bar_row *row, unsigned width, struct buf *out)
{
	size_t from = out->len;
	double fraction;

	(void)buf_puts(out, log_safe(row->label, strlen(row->label)));
	if (row->plain) {
		cut_to_width(out, from, width);
		return;
	}
	fraction = bar_fraction(row->p, row->total_nodes);
	(void)buf_puts(out, "  ");
	if (width >= BAR_MIN)
		put_bar(out, fraction);
	else
		(void)buf_printf(out, "%3d%% ", (int)(fraction * 100));
	put_state(row, out);
	put_times(row, fraction, out);
	cut_to_width(out, from, width);
}

unsigned bars_width(int fd)
{
	struct winsize ws;

	if (ioctl(fd, TIOCGWINSZ, &ws) < 0 || ws.ws_col == 0)
		return 80;
	if (ws.ws_col < BARS_WIDTH_MIN)
		return BARS_WIDTH_MIN;
	return ws.ws_col > BARS_WIDTH_MAX ? BARS_WIDTH_MAX : ws.ws_col;
}

void bars_init(struct bars *b, struct out *out, int fd)
{
	*b = (struct bars){.out = out, .fd = fd};
}

static unsigned columns_of(const char *p, size_t n)
{
	unsigned columns = 0;

	for (size_t i = 0; i < n; i++)
		if (((unsigned char)p[i] & 0xc0) != 0x80)
			columns++;
	return columns;
}

/* To the first of our rows, everything from there on erased. */
static void put_home(const struct bars *b, unsigned width, struct buf *out)
{
	unsigned up = 0;

	for (size_t i = 0; i < b->painted; i++)
		up += 1 + (b->lengths[i] > 0 ? (b->lengths[i] - 1) / width : 0);
	(void)buf_putc(out, '\r');
	/* The cursor stands behind the last row, on it. */
	if (up > 1)
		(void)buf_printf(out, "\033[%uA", up - 1);
	(void)buf_puts(out, "\033[J");
}

void bars_paint(struct bars *b, const struct bar_row *rows, size_t count)
{
	cleanup_buf struct buf text = BUF_INIT(PAINT_BYTES);
	unsigned width = bars_width(b->fd);

	if (count > BARS_ROWS_MAX)
		count = BARS_ROWS_MAX;
	put_home(b, width, &text);
	for (size_t i = 0; i < count; i++) {
		size_t from;

		if (i > 0)
			(void)buf_puts(&text, "\r\n");
		from = text.len;
		/* The last column stays free: a full row wraps at once on some
		 * terminals and not on others. */
		bars_row_text(&rows[i], width - 1, &text);
		b->lengths[i] = columns_of(text.data + from, text.len - from);
	}
	/* A terminal that takes nothing now gets a later state instead. */
	if (buf_ok(&text) && out_queued(b->out) == 0 &&
	    out_write(b->out, text.data, text.len) == 0)
		b->painted = count;
}

void bars_clear(struct bars *b)
{
	cleanup_buf struct buf text = BUF_INIT(256);

	if (b->painted == 0)
		return;
	put_home(b, bars_width(b->fd), &text);
	(void)out_write(b->out, text.data, text.len);
	b->painted = 0;
}

void bars_done(struct bars *b)
{
	if (b->painted > 0)
		(void)out_write(b->out, "\r\n", 2);
	b->painted = 0;
}

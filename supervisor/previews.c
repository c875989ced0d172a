/*
 * previews.c - see previews.h.
 *
 * Memory is what has to be bounded here: a file lives as long as somebody has
 * it open, and in a socket's queue it counts as open. So a client is believed
 * to have taken one when its socket is empty, not when it says so; it might
 * acknowledge for ever without reading.
 */
#include "supervisor/previews.h"

#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/fdutil.h"
#include "common/log.h"
#include "supervisor/supervisor.h"

/* A line: what it says of itself, once escaped. */
#define PREVIEW_LINE_MAX (2 * (size_t)PREVIEW_META_MAX)

/* Of comfy_event: ids go on as they came, between quotes. */
static void put_raw(struct buf *out, const char *key, struct span raw)
{
	if (!raw.p)
		return;
	(void)buf_json_key(out, key);
	(void)buf_putc(out, '"');
	(void)buf_append(out, raw.p, raw.n);
	(void)buf_putc(out, '"');
}

void previews_init(struct supervisor *sv)
{
	size_t share = sv->fd_limit / PREVIEWS_FDS_SHARE;

	sv->previews = (struct previews){
		.open_max =
			share < PREVIEWS_OPEN_MAX ? share : PREVIEWS_OPEN_MAX};
}

/* --- one client ----------------------------------------------------------- */

/* Whatever was sent has been read. Unknown counts as read: then nothing but
 * the acknowledgements is left to go by. */
static bool has_read_all(const struct peer *peer)
{
	int unread = 0;

	if (peer->queue.count > 0 || conn_wants_write(&peer->conn))
		return false;
	return ioctl(peer->conn.fd, SIOCOUTQ, &unread) < 0 || unread == 0;
}

static void send_one(struct peer *peer, struct frame *f)
{
	peer->sv->counters.previews_sent++;
	peer->sv->counters.deliveries++;
	peer_send(peer, f);
}

static void note_read(struct peer *peer)
{
	if (peer->previews.unread_count > 0 && has_read_all(peer))
		preview_box_read(&peer->previews);
}

void previews_settle(struct peer *peer)
{
	struct frame *f;

	note_read(peer);
	f = preview_box_pop(&peer->previews);
	if (f)
		send_one(peer, f);
}

void previews_ack(struct peer *peer)
{
	preview_box_ack(&peer->previews);
	previews_settle(peer);
}

void previews_forget(struct peer *peer, const char *prompt_id)
{
	(void)preview_box_forget(&peer->previews, prompt_id);
}

void previews_sweep(struct supervisor *sv)
{
	struct list *it;

	list_for_each (it, &sv->hub.peers)
		previews_settle(list_entry(it, struct peer, link));
}

/* --- one preview ---------------------------------------------------------- */

static const char unread[] = "its user doesn't read those he has";

static void drop(struct supervisor *sv, const char *why)
{
	sv->counters.previews_dropped++;
	log_debug("previews", "preview dropped: %s", why);
}

static struct frame *build(const struct prompt *p, const struct comfy_event *ev,
                           int fd)
{
	struct event_line line = {.event = EVENT_PREVIEW,
	                          .seq = p->log.seq,
	                          .prompt_id = p->id,
	                          .t_ms = clock_epoch_ms(),
	                          .fd = true};
	cleanup_buf struct buf data = BUF_INIT(PREVIEW_LINE_MAX);
	cleanup_buf struct buf text = BUF_INIT(PREVIEW_LINE_MAX + 1024);
	const char *mime = ev->u.preview.mime;

	(void)buf_putc(&data, '{');
	put_raw(&data, "node_id", ev->node);
	put_raw(&data, "display_node_id", ev->display_node);
	(void)buf_json_key(&data, "mime");
	(void)buf_printf(&data, "\"%s\",\"bytes\":%zu}",
	                 mime ? mime : "application/octet-stream",
	                 ev->u.preview.image.n);
	line.data = span_make(data.data, data.len);
	if (!buf_ok(&data) || event_build(&text, &line) != 0)
		return NULL;
	return frame_new(text.data, text.len, fd);
}

/* The line and its file; NULL if it can't be had. */
static struct frame *make(struct supervisor *sv, const struct prompt *p,
                          const struct comfy_event *ev)
{
	struct span image = ev->u.preview.image;
	cleanup_close int fd = fd_sealed("comfymux-preview", image.p, image.n);
	struct frame *f = NULL;

	if (fd >= 0)
		f = build(p, ev, fd);
	if (f) {
		(void)steal_fd(&fd); /* the frame's now */
		f->counted = &sv->previews.open;
		sv->previews.open++;
		sv->counters.previews++;
	} else if (!sv->previews.failing) {
		log_warn("previews", "a preview can't be passed on: %s",
		         fd < 0 ? strerror(-fd) : "out of memory");
	}
	sv->previews.failing = !f;
	return f;
}

struct delivery {
	struct prompt *prompt;
	struct frame *frame;
};

static void deliver(void *user, struct subscriber *s)
{
	const struct delivery *d = user;
	struct peer *peer = peer_of(s);

	switch (preview_box_offer(&peer->previews, d->frame, d->prompt->id)) {
	case PREVIEW_REFUSED:
		drop(peer->sv, unread);
		return;
	case PREVIEW_FOLDED:
		peer->sv->counters.previews_folded++;
		break;
	case PREVIEW_TAKEN:
		break;
	}
	previews_settle(peer);
}

static bool is_wanted(const struct supervisor *sv, const struct prompt *p)
{
	return p->subject.previews > 0 || p->tenant->all.previews > 0 ||
	       sv->tracker.everything.previews > 0;
}

/* Room for one more file; those that were read meanwhile make some. */
static bool has_room(struct supervisor *sv)
{
	if (sv->previews.open >= sv->previews.open_max)
		previews_sweep(sv);
	return sv->previews.open < sv->previews.open_max;
}

static void tell(struct supervisor *sv, struct prompt *p,
                 const struct comfy_event *ev)
{
	struct delivery d = {.prompt = p};

	if (ev->u.preview.image.n == 0 ||
	    ev->u.preview.image.n > PREVIEW_BYTES_MAX ||
	    ev->data.text.n > PREVIEW_META_MAX) {
		drop(sv, "it is empty or too large");
		return;
	}
	if (!has_room(sv)) {
		drop(sv, "too many are open");
		return;
	}
	d.frame = make(sv, p, ev);
	if (!d.frame) {
		sv->counters.previews_dropped++;
		return;
	}
	sv->event_stamp++;
	subject_tell_previews(&p->subject, sv->event_stamp, deliver, &d);
	subject_tell_previews(&p->tenant->all, sv->event_stamp, deliver, &d);
	subject_tell_previews(&sv->tracker.everything, sv->event_stamp, deliver,
	                      &d);
	frame_unref(d.frame);
}

void previews_take(struct supervisor *sv, const struct comfy_event *ev)
{
	struct prompt *p;

	if (ev->type == COMFY_EV_PREVIEW)
		drop(sv, "it doesn't say whose it is");
	if (ev->type != COMFY_EV_PREVIEW_META || !ev->prompt_id.p)
		return;
	p = tracker_find_remote(&sv->tracker, ev->prompt_id);
	if (p && p->fsm.state != PROMPT_ENDED && is_wanted(sv, p))
		tell(sv, p, ev);
}

/* Nothing of it comes after the end. */
static void send_last(void *user, struct subscriber *s)
{
	const struct prompt *p = user;
	struct peer *peer = peer_of(s);
	struct frame *f;

	note_read(peer);
	f = preview_box_last(&peer->previews, p->id);
	if (f)
		send_one(peer, f);
	else if (preview_box_forget(&peer->previews, p->id))
		drop(peer->sv, unread);
}

void previews_end(struct supervisor *sv, struct prompt *p)
{
	if (!is_wanted(sv, p))
		return;
	sv->event_stamp++;
	subject_tell_previews(&p->subject, sv->event_stamp, send_last, p);
	subject_tell_previews(&p->tenant->all, sv->event_stamp, send_last, p);
	subject_tell_previews(&sv->tracker.everything, sv->event_stamp,
	                      send_last, p);
}

/*
 * preview.c - see preview.h.
 *
 * The file comes over a bus, which a keeper may have handed us: so it is read
 * by pread(), where a mapping would fault if the file shrank, and only if it is
 * sealed against that.
 */
#include "workers/preview.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "ipc/message.h"
#include "workers/worker_private.h"

#define SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW)
#define CHUNK 65536 /* read at once */

static size_t kept; /* files that all previews of this process hold */

/* It goes into a header line and into JSON. */
static bool is_mime(const char *s)
{
	return s && strchr(s, '/') &&
	       s[strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789/+.-")] == '\0';
}

static void set_mime(struct preview *p, struct json mime)
{
	cleanup_free char *s = json_string_dup(mime, PREVIEW_MIME_LEN);
	const char *text = is_mime(s) ? s : "application/octet-stream";

	memcpy(p->mime, text, strlen(text) + 1);
}

/* A file that is as long as it should be, and stays as it is. */
static int check(int fd, struct json data, size_t *bytesp)
{
	struct stat st;
	uint64_t bytes;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &st) < 0 ||
	    !json_uint64(json_get(data, "bytes"), &bytes) || st.st_size <= 0 ||
	    bytes != (uint64_t)st.st_size)
		return -EPROTO;
	if (bytes > PREVIEW_BYTES_MAX)
		return -EFBIG;
	*bytesp = (size_t)bytes;
	return 0;
}

int preview_take(struct preview *p, struct json data, int fd)
{
	struct preview fresh = PREVIEW_NULL;
	int r = check(fd, data, &fresh.bytes);

	if (r < 0)
		return r;
	if (kept >= PREVIEWS_KEPT_MAX && !preview_is(p))
		return -EMFILE;
	fresh.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (fresh.fd < 0)
		return -errno;
	kept++;
	set_mime(&fresh, json_get(data, "mime"));
	preview_move(p, &fresh);
	return 0;
}

void preview_drop(struct preview *p)
{
	if (!preview_is(p))
		return;
	(void)close(p->fd);
	p->fd = -1;
	kept--;
}

void preview_move(struct preview *to, struct preview *from)
{
	preview_drop(to);
	*to = *from;
	from->fd = -1;
}

int preview_read(const struct preview *p, struct buf *out)
{
	char chunk[CHUNK];
	size_t done = 0;
	ssize_t n;

	while (done < p->bytes) {
		n = pread(p->fd, chunk, sizeof(chunk), (off_t)done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		if (buf_append(out, chunk, (size_t)n) != 0)
			return -ENOMEM;
		done += (size_t)n;
	}
	return 0;
}

bool preview_send(struct worker *w, uint64_t line, const struct preview *p,
                  bool last)
{
	cleanup_buf struct buf payload =
		BUF_INIT(PREVIEW_BYTES_MAX + PREVIEW_MIME_LEN + 1);

	if (!last && worker_queued(w) > 0) {
		worker_want_room(w);
		return false;
	}
	(void)buf_printf(&payload, "%s\n", p->mime);
	if (preview_read(p, &payload) < 0 || !buf_ok(&payload) ||
	    worker_send(w, CHANNEL_PREVIEW, line,
	                span_make(payload.data, payload.len)) < 0)
		log_warn("preview", "a preview was not passed on: no memory");
	return true;
}

/*
 * sim_journal.c - see sim_journal.h.
 */
#include "tests/sim/sim_journal.h"

#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "common/json_span.h"
#include "common/log.h"

int sim_journal_open(struct sim_journal *j, const char *path, struct error *err)
{
	memset(j, 0, sizeof(*j));
	buf_init(&j->lines, SIM_JOURNAL_MAX);
	if (!path)
		return 0;
	j->file = fopen(path, "ae");
	if (!j->file)
		return error_set_errno(err, errno, "cannot write %s", path);
	return 0;
}

void sim_journal_close(struct sim_journal *j)
{
	if (j->file && fclose(j->file))
		log_error("journal", "close: %s", strerror(errno));
	j->file = NULL;
	buf_deinit(&j->lines);
}

void sim_journal_reset(struct sim_journal *j)
{
	buf_reset(&j->lines);
	j->lost = 0;
}

void sim_journal_add(struct sim_journal *j, const char *fact,
                     const struct buf *fields)
{
	size_t start = j->lines.len, len;

	j->seq++;
	(void)buf_printf(
		&j->lines, "{\"seq\":%llu,\"t_ms\":%lld,\"fact\":\"%s\"",
		(unsigned long long)j->seq, (long long)clock_epoch_ms(), fact);
	if (fields && fields->len) {
		(void)buf_putc(&j->lines, ',');
		(void)buf_append(&j->lines, fields->data, fields->len);
	}
	if (buf_puts(&j->lines, "}\n")) {
		j->lines.len = start;
		j->lines.failed = false;
		j->lost++;
		return;
	}
	len = j->lines.len - start;
	if (j->file && (fwrite(j->lines.data + start, 1, len, j->file) != len ||
	                fflush(j->file))) {
		log_error("journal", "write: %s", strerror(errno));
		(void)fclose(j->file);
		j->file = NULL;
	}
}

void sim_journal_put(const struct sim_journal *j, struct buf *b, uint64_t after)
{
	const char *p = j->lines.data, *end = p + j->lines.len;

	while (p && p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		struct json line;
		uint64_t seq = 0;

		if (!nl)
			break;
		if (after &&
		    json_parse(&line, p, (size_t)(nl - p), 0, NULL) == JSON_OK)
			(void)json_uint64(json_get(line, "seq"), &seq);
		if (!after || seq > after)
			(void)buf_append(b, p, (size_t)(nl - p) + 1);
		p = nl + 1;
	}
}

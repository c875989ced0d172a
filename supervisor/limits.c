/*
 * limits.c - see limits.h.
 */
#include "supervisor/limits.h"

#include "common/macros.h"

/* At most this share of a bound is kept for operators. */
#define RESERVE_SHARE 4

static const struct limit_row {
	const char *name, *what, *key, *hint;
	size_t offset; /* of the value in struct config */
	unsigned shift;
} rows[] = {
#define ROW(key_) .key = #key_, .offset = offsetof(struct config, key_)
	[LIMIT_SESSIONS] = {"sessions", "sessions", ROW(max_sessions),
                            .hint = "end one first"},
	[LIMIT_JOBS] = {"jobs", "jobs", ROW(max_jobs),
                        .hint = "wait until one has ended, or cancel one"},
	[LIMIT_CONNECTIONS] = {"connections", "connections",
                               ROW(max_connections), .hint = "close one first"},
	[LIMIT_SUBSCRIPTIONS] =
		{"subscriptions", "subscriptions", ROW(max_subscriptions),
                 .hint = "subscribe without prompt_id to all at once"},
	[LIMIT_QUEUED] = {"queued", "prompts that wait or run", ROW(max_queued),
                          .hint = "try again when some have ended"},
	[LIMIT_WORKFLOW] = {"workflow", "bytes of one workflow",
                            ROW(max_workflow_kb), .shift = 10,
                            .hint = "upload large inputs as files"},
	[LIMIT_BUFFERED] = {"buffered", "bytes that wait to be read",
                            ROW(max_buffered_kb), .shift = 10,
                            .hint = "read what is sent to you, and send "
                                    "shorter lines"},
#undef ROW
};
STATIC_ASSERT_ARRAY_SIZE(rows, LIMIT_COUNT);

size_t limit_max(const struct config *cfg, enum limit which)
{
	const struct limit_row *r = &rows[which];
	const char *at = (const char *)cfg + r->offset;

	return (size_t)(*(const int64_t *)(const void *)at) << r->shift;
}

const char *limit_name(enum limit which)
{
	return rows[which].name;
}

int limit_check(struct limit_usage *u, const struct config *cfg,
                enum limit which, size_t more, struct error *err)
{
	const struct limit_row *r = &rows[which];
	size_t max = limit_max(cfg, which), used = u->used[which];

	if (used <= max && more <= max - used)
		return 0;
	u->hit[which]++;
	return error_set(err, ERR_LIMIT, "%zu %s: a user may have %zu (%s); %s",
	                 used + more, r->what, max, r->key, r->hint);
}

void limits_to_json(const struct limit_usage *u, const struct config *cfg,
                    struct buf *out)
{
	(void)buf_putc(out, '{');
	for (unsigned i = 0; i < LIMIT_COUNT; i++) {
		(void)buf_json_key(out, rows[i].name);
		(void)buf_printf(out, "{\"used\":%zu,\"max\":%zu,\"hit\":%llu}",
		                 u->used[i], limit_max(cfg, (enum limit)i),
		                 (unsigned long long)u->hit[i]);
	}
	(void)buf_putc(out, '}');
}

size_t limit_less_reserve(const struct config *cfg, size_t max)
{
	size_t reserve = (size_t)cfg->operator_reserve;

	if (reserve > max / RESERVE_SHARE)
		reserve = max / RESERVE_SHARE;
	return max - reserve;
}

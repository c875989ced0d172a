/*
 * mcp_records.c - what a successor is told of a session and of the lines in
 * hand, and what a predecessor has told.
 */
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/progress.h"
#include "workers/mcp_private.h"
#include "workers/tool_recall.h"

#define RECORDS_MAX        8192 /* of lines that haven't come yet */
#define SESSION_RECORD_MAX (64u << 10)
/* The newest, that a successor knows as its own. */
#define PROMPTS_RECORDED 64

void mcp_record_free(struct mcp_record *r)
{
	list_del(&r->node);
	free(r->text);
	free(r);
}

void mcp_take_records(struct mcp_session *s, struct mcp_line *l)
{
	struct list *it, *next;

	list_for_each_safe (it, next, &s->records) {
		struct mcp_record *r = list_entry(it, struct mcp_record, node);

		if (r->line != l->number)
			continue;
		list_del(&r->node);
		s->record_count--;
		list_append(&l->records, &r->node);
	}
}

static void take_session_record(struct mcp_session *s, struct span text)
{
	struct json_iter it;
	struct json j, id;

	if (json_parse(&j, text.p, text.n, 0, NULL) != JSON_OK)
		return;
	s->negotiated =
		mcp_version_from_name(json_raw_string(json_get(j, "version")));
	tool_recall_load(&s->host, json_get(j, "recall"));
	/* A tenant's keeper is not believed: with the service's rights it would
	 * see others' prompts. */
	if (!link_may_see_all(s->link))
		return;
	s->restoring = true;
	json_iter_init(&it, json_get(j, "prompts"));
	while (json_iter_next(&it, NULL, &id)) {
		cleanup_free char *copy = json_string_dup(id, PROGRESS_ID_MAX);

		if (copy && link_claim(s->link, copy))
			log_warn("mcp", "no memory to note a prompt");
	}
	s->restoring = false;
}

static void on_session_recorded(void *user)
{
}

int mcp_record_session(struct mcp_session *s)
{
	cleanup_buf struct buf b = BUF_INIT(SESSION_RECORD_MAX);
	struct error err = ERROR_NULL;

	(void)buf_putc(&b, '{');
	if (s->negotiated < MCP_VERSION_COUNT)
		(void)buf_printf(&b, "\"version\":\"%s\",",
		                 mcp_version_name(s->negotiated));
	(void)buf_puts(&b, "\"recall\":");
	tool_recall_save(&s->host, &b);
	(void)buf_puts(&b, ",\"prompts\":");
	link_put_claims(s->link, PROMPTS_RECORDED, &b);
	(void)buf_putc(&b, '}');
	if (!buf_ok(&b))
		(void)error_set_nomem(&err, "the session's record");
	worker_record_forget(&s->session_record);
	if (!buf_ok(&b) || s->io->record(s->user, 0, span_make(b.data, b.len),
	                                 &s->session_record, &err) < 0) {
		log_error("mcp", "the session is not recorded: %s", err.text);
		return -1;
	}
	return 0;
}

static void on_recall(struct tool_host *h)
{
	/* Without it a successor tells less; it is told of already. */
	(void)mcp_record_session(container_of(h, struct mcp_session, host));
}

static void on_claim(void *user)
{
	struct mcp_session *s = user;

	/* Failure is logged: a successor may call it unknown. */
	if (!s->restoring && !s->stopping)
		(void)mcp_record_session(s);
}

void mcp_session_record(struct mcp_session *s, uint64_t line,
                        struct span record)
{
	struct mcp_record *r;
	struct json j;
	uint64_t index = 0;

	if (line == 0) {
		take_session_record(s, record);
		return;
	}
	r = s->record_count < RECORDS_MAX ? calloc(1, sizeof(*r)) : NULL;
	if (!r || !(r->text = malloc(record.n + 1))) {
		free(r);
		log_warn("mcp", "a record could not be kept");
		return;
	}
	memcpy(r->text, record.p, record.n);
	list_init(&r->node);
	if (json_parse(&j, r->text, record.n, JSON_NONFINITE, NULL) !=
	            JSON_OK ||
	    !json_uint64(json_get(j, "i"), &index) || index >= RPC_BATCH_MAX) {
		log_warn("mcp", "a record that is none of ours");
		mcp_record_free(r);
		return;
	}
	r->line = line;
	r->index = (unsigned)index;
	r->value = json_get(j, "r");
	list_append(&s->records, &r->node);
	s->record_count++;
}

void mcp_session_told(struct mcp_session *s, uint64_t line, struct span text)
{
	struct json j;
	double number;

	if (json_parse(&j, text.p, text.n, 0, NULL) != JSON_OK ||
	    !json_double(json_get(json_get(j, "params"), "progress"), &number))
		return;
	s->told_line = line;
	s->told = mcp_progress_units(number);
}

void mcp_records_init(struct mcp_session *s)
{
	list_init(&s->records);
	s->session_record.on_written = on_session_recorded;
	list_init(&s->session_record.node);
	s->host.on_recall = on_recall;
	link_on_claim(s->link, on_claim, s);
}

void mcp_records_deinit(struct mcp_session *s)
{
	while (!list_empty(&s->records))
		mcp_record_free(list_entry(list_pop(&s->records),
		                           struct mcp_record, node));
	worker_record_forget(&s->session_record);
	link_on_claim(s->link, NULL, NULL);
}

/*
 * tracker.c - see tracker.h.
 */
#include "supervisor/tracker.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

void tracker_init(struct tracker *t)
{
	*t = (struct tracker){0};
	queue_init(&t->queue);
	list_init(&t->outstanding);
	subject_init(&t->everything);
}

void tracker_deinit(struct tracker *t)
{
	size_t i = 0;

	/* Dropping changes the table, so it is searched anew from there. */
	while (i < t->by_id.cap) {
		if (t->by_id.slots[i].value)
			tracker_drop(t, t->by_id.slots[i].value);
		else
			i++;
	}
	i = 0;
	while (i < t->tenants.cap) {
		struct tenant *tenant = t->tenants.slots[i].value;

		if (!tenant) {
			i++;
			continue;
		}
		tenant->peer_count = 0;
		tenant->job_count = 0;
		tracker_release_tenant(t, tenant);
	}
	subject_clear(&t->everything);
	map_deinit(&t->by_id);
	map_deinit(&t->by_remote);
	map_deinit(&t->tenants);
}

struct tenant *tracker_find_tenant(struct tracker *t, uid_t uid)
{
	return map_get(&t->tenants, (const char *)&uid, sizeof(uid));
}

struct tenant *tracker_tenant(struct tracker *t, uid_t uid)
{
	struct tenant *tenant = tracker_find_tenant(t, uid);

	if (tenant)
		return tenant;
	tenant = calloc(1, sizeof(*tenant));
	if (!tenant)
		return NULL;
	tenant->uid = uid;
	list_init(&tenant->prompts);
	queue_line_init(&tenant->line);
	subject_init(&tenant->all);
	if (map_add(&t->tenants, (const char *)&tenant->uid,
	            sizeof(tenant->uid), tenant) != 0) {
		free(tenant);
		return NULL;
	}
	return tenant;
}

void tracker_release_tenant(struct tracker *t, struct tenant *tenant)
{
	if (tenant->prompt_count > 0 || tenant->peer_count > 0 ||
	    tenant->job_count > 0)
		return;
	subject_clear(&tenant->all);
	(void)map_remove(&t->tenants, (const char *)&tenant->uid,
	                 sizeof(tenant->uid));
	free(tenant);
}

/* Neither in a line nor among the outstanding yet. */
static struct prompt *add(struct tracker *t, const char *id, uid_t uid)
{
	struct tenant *tenant = tracker_tenant(t, uid);
	struct prompt *p;

	if (!tenant)
		return NULL;
	assert(uuid_valid(id, strlen(id)));
	p = calloc(1, sizeof(*p));
	if (p) {
		memcpy(p->id, id, UUID_LEN + 1);
		p->progress = progress_new(id);
	}
	if (!p || !p->progress || map_add(&t->by_id, p->id, UUID_LEN, p) != 0) {
		if (p)
			progress_free(p->progress);
		free(p);
		tracker_release_tenant(t, tenant);
		return NULL;
	}
	p->tenant = tenant;
	eventlog_init(&p->log);
	subject_init(&p->subject);
	queue_entry_init(&p->turn);
	list_append(&tenant->prompts, &p->by_tenant);
	list_init(&p->by_post);
	list_init(&p->ask);
	list_init(&p->unsaved);
	list_init(&p->unanswered);
	list_init(&p->waiters);
	list_init(&p->cancels);
	list_init(&p->by_session);
	tenant->prompt_count++;
	t->active++;
	return p;
}

struct prompt *tracker_add(struct tracker *t, const char *id, uid_t uid)
{
	struct prompt *p = add(t, id, uid);

	if (!p)
		return NULL;
	prompt_fsm_init(&p->fsm);
	queue_append(&t->queue, &p->tenant->line, &p->turn);
	return p;
}

struct prompt *tracker_restore(struct tracker *t, const char *id, uid_t uid,
                               enum prompt_state state)
{
	struct prompt *p = add(t, id, uid);

	if (!p)
		return NULL;
	prompt_fsm_restore(&p->fsm, state);
	if (p->fsm.state == PROMPT_ACCEPTED) {
		queue_append(&t->queue, &p->tenant->line, &p->turn);
	} else {
		list_append(&t->outstanding, &p->by_post);
		t->outstanding_count++;
		t->checking_count += p->fsm.state == PROMPT_CHECKING;
	}
	return p;
}

void tracker_drop(struct tracker *t, struct prompt *p)
{
	enum prompt_state from = p->fsm.state;

	assert(list_empty(&p->waiters) && list_empty(&p->cancels));
	p->fsm.state = PROMPT_ENDED;
	tracker_moved(t, p, from, false);
	list_del(&p->ask);
	list_del(&p->unsaved);
	list_del(&p->unanswered);
	list_del(&p->by_session);
	list_del(&p->by_tenant);
	subject_clear(&p->subject);
	(void)map_remove(&t->by_id, p->id, UUID_LEN);
	if (p->remote_id)
		(void)map_remove(&t->by_remote, p->remote_id,
		                 strlen(p->remote_id));
	p->tenant->prompt_count--;
	tracker_release_tenant(t, p->tenant);
	progress_free(p->progress);
	eventlog_deinit(&p->log);
	free(p->remote_id);
	free(p);
}

struct prompt *tracker_find(const struct tracker *t, const char *id, size_t len)
{
	return map_get(&t->by_id, id, len);
}

struct prompt *tracker_find_remote(const struct tracker *t, struct span id)
{
	struct prompt *p;

	/* Nearly all ids are UUIDs of ours; a foreign one is dropped after a
	 * glance at its length, or one look into the table. */
	if (id.n == UUID_LEN) {
		p = map_get(&t->by_id, id.p, id.n);
		if (p && !p->remote_id)
			return p;
	}
	if (t->by_remote.count == 0)
		return NULL;
	return map_get(&t->by_remote, id.p, id.n);
}

int tracker_alias(struct tracker *t, struct prompt *p, const char *remote_id)
{
	char *copy;
	int r;

	if (p->remote_id)
		return strcmp(p->remote_id, remote_id) == 0 ? 0 : -EEXIST;
	copy = strdup(remote_id);
	if (!copy)
		return -ENOMEM;
	r = map_add(&t->by_remote, copy, strlen(copy), p);
	if (r != 0) {
		free(copy);
		return r;
	}
	p->remote_id = copy;
	return 0;
}

static bool is_outstanding(enum prompt_state s)
{
	return s > PROMPT_ACCEPTED && s < PROMPT_ENDED;
}

void tracker_moved(struct tracker *t, struct prompt *p, enum prompt_state from,
                   bool front)
{
	enum prompt_state to = p->fsm.state;

	if (from == to)
		return;
	if (to == PROMPT_ACCEPTED && !p->turn.line) {
		if (front)
			queue_return(&t->queue, &p->tenant->line, &p->turn);
		else
			queue_append(&t->queue, &p->tenant->line, &p->turn);
	} else if (to != PROMPT_ACCEPTED) {
		queue_remove(&t->queue, &p->turn);
	}
	if (is_outstanding(from) && !is_outstanding(to)) {
		list_del(&p->by_post);
		t->outstanding_count--;
	} else if (!is_outstanding(from) && is_outstanding(to)) {
		list_append(&t->outstanding, &p->by_post);
		t->outstanding_count++;
	}
	if (from == PROMPT_CHECKING)
		t->checking_count--;
	if (to == PROMPT_CHECKING)
		t->checking_count++;
	if (from == PROMPT_EXECUTING)
		t->executing_count--;
	if (to == PROMPT_EXECUTING)
		t->executing_count++;
	if (to == PROMPT_ENDED) {
		t->active--;
		if (p->in_flight)
			(*p->in_flight)--;
		p->in_flight = NULL;
		list_del(&p->by_session);
	}
}

/*
 * sim_clients.c - see sim_clients.h.
 */
#include "tests/sim/sim_clients.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/json_span.h"
#include "common/log.h"
#include "common/uuid.h"
#include "tests/sim/sim_text.h"

void sim_clients_init(struct sim_clients *t)
{
	memset(t, 0, sizeof(*t));
}

void sim_clients_deinit(struct sim_clients *t)
{
	map_deinit(&t->table);
}

/* 32 hex digits, as Python's uuid4().hex. */
static char *made_up_sid(void)
{
	char uuid[UUID_LEN + 1], *sid;
	size_t n = 0;

	if (uuid_new(uuid)) {
		log_error("clients", "no randomness");
		abort();
	}
	sid = sim_strdup(uuid);
	for (const char *p = uuid; *p; p++) {
		if (*p != '-')
			sid[n++] = *p;
	}
	sid[n] = '\0';
	return sid;
}

static void on_deaf(struct sim_timer *t)
{
	sim_client_deafen(container_of(t, struct sim_client, deaf));
}

struct sim_client *sim_client_open(struct sim_clients *t, struct sim_conn *conn,
                                   const char *sid)
{
	struct sim_client *c = sim_calloc(1, sizeof(*c));

	c->owner = t;
	c->conn = conn;
	c->sid = sid && *sid ? sim_strdup(sid) : made_up_sid();
	c->first_message = true;
	sim_timer_init(&c->deaf, on_deaf);
	(void)map_remove(&t->table, c->sid, strlen(c->sid));
	if (map_add(&t->table, c->sid, strlen(c->sid), c))
		abort();
	return c;
}

static bool is_registered(const struct sim_client *c)
{
	return map_get(&c->owner->table, c->sid, strlen(c->sid)) == c;
}

void sim_client_close(struct sim_client *c)
{
	/* The real server removes the entry of the id, not of the socket. */
	if (is_registered(c) || !c->owner->fixed_overlap)
		(void)map_remove(&c->owner->table, c->sid, strlen(c->sid));
	sim_timer_stop(&c->deaf);
	free(c->sid);
	free(c);
}

void sim_client_deafen(struct sim_client *c)
{
	if (is_registered(c))
		(void)map_remove(&c->owner->table, c->sid, strlen(c->sid));
}

void sim_client_message(struct sim_client *c, const char *text, size_t len)
{
	static const char answer[] = "{\"type\": \"feature_flags\", \"data\": "
				     "{\"supports_preview_metadata\": true, "
				     "\"max_upload_size\": 104857600}}";
	bool first = c->first_message;
	struct sim_client *registered;
	struct sim_frame *f;
	struct json j;

	if (json_parse(&j, text, len, JSON_NONFINITE, NULL) != JSON_OK)
		return;
	c->first_message = false;
	if (!first || !c->owner->feature_flags ||
	    !json_string_eq(json_get(j, "type"), "feature_flags"))
		return;
	/* Kept by id in the original: the last one to register has it. */
	registered = map_get(&c->owner->table, c->sid, strlen(c->sid));
	if (registered)
		registered->supports_metadata =
			json_is(json_get(json_get(j, "data"),
		                         "supports_preview_metadata"),
		                JSON_TRUE);
	f = sim_frame_new(answer, sizeof(answer) - 1, true);
	sim_clients_send(c->owner, c->sid, f);
	sim_frame_unref(f);
}

void sim_clients_send(struct sim_clients *t, const char *sid,
                      struct sim_frame *f)
{
	struct sim_client *c;
	size_t i;

	if (t->silent_until_us && clock_us() < t->silent_until_us)
		return;
	t->silent_until_us = 0;
	if (!sid) {
		map_for_each (i, &t->table) {
			c = t->table.slots[i].value;
			sim_conn_send(c->conn, f);
		}
		return;
	}
	c = map_get(&t->table, sid, strlen(sid));
	if (c)
		sim_conn_send(c->conn, f);
}

bool sim_clients_listen(const struct sim_clients *t, const char *sid)
{
	return sid ? map_get(&t->table, sid, strlen(sid)) != NULL
	           : t->table.count > 0;
}

bool sim_clients_want_metadata(const struct sim_clients *t, const char *sid)
{
	const struct sim_client *c =
		sid ? map_get(&t->table, sid, strlen(sid)) : NULL;

	return c && c->supports_metadata;
}

/*
 * sim_clients.h - who is connected by WebSocket, and who hears what.
 *
 * As in ComfyUI there is one table from client id to socket. A second socket
 * under an id takes its place; when the first one closes, the entry of the id
 * goes, whoever's it is by then, and the second is deaf.
 */
#ifndef TESTS_SIM_CLIENTS_H
#define TESTS_SIM_CLIENTS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/map.h"
#include "tests/sim/sim_loop.h"
#include "tests/sim/sim_server.h"

/* One socket; sim_conn_data() yields it. */
struct sim_client {
	struct sim_conn *conn;
	char *sid;
	bool first_message;     /* none has come yet */
	bool supports_metadata; /* as negotiated by this socket */
	struct sim_timer deaf;  /* fault: deaf after a while */
	struct sim_clients *owner;
};

struct sim_clients {
	struct sim_server *server;
	struct map table; /* sid -> struct sim_client */
	bool fixed_overlap;
	bool feature_flags;
	int64_t silent_until_us; /* fault: events are swallowed until then */
};

void sim_clients_init(struct sim_clients *t);
void sim_clients_deinit(struct sim_clients *t);

/* NULL sid: one is made up. Registers the socket. */
struct sim_client *sim_client_open(struct sim_clients *t, struct sim_conn *conn,
                                   const char *sid);
void sim_client_close(struct sim_client *c);
/* The first message may negotiate features. */
void sim_client_message(struct sim_client *c, const char *text, size_t len);
/* Takes the socket out of the table: pings are answered, events don't come. */
void sim_client_deafen(struct sim_client *c);

/* To the socket registered under `sid`, or to every registered one (NULL). */
void sim_clients_send(struct sim_clients *t, const char *sid,
                      struct sim_frame *f);
/* Whether a frame for `sid` (NULL: all) would reach anybody. */
bool sim_clients_listen(const struct sim_clients *t, const char *sid);
/* What was negotiated; false for NULL. */
bool sim_clients_want_metadata(const struct sim_clients *t, const char *sid);

#endif

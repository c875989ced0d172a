/*
 * roles.h - the process table: each kind of process, what it holds, whom it
 * talks to, and what its death causes. ARCHITECTURE.md shows the same rows
 * (tests/check_roles.c compares them); the numbers are those in force.
 */
#ifndef SUPERVISOR_ROLES_H
#define SUPERVISOR_ROLES_H

#include <stdbool.h>

#include "common/buf.h"

enum role {
	ROLE_KEEPER,
	ROLE_WORKER,
	ROLE_ZYGOTE,
	ROLE_SUPERVISOR,
	ROLE_GUARDIAN,
	ROLE_COUNT
};

struct role_info {
	const char *name;
	const char *program;
	/* Patience with those that the supervisor starts; 0: not its own. */
	unsigned ready_ms; /* to say that it is ready, else it is killed */
	unsigned leave_ms; /* to leave by itself once its channel has ended */
	unsigned term_ms;  /* after SIGTERM, before SIGKILL */
	unsigned kill_ms;  /* after SIGKILL, before its parent is at fault */
	/* The columns of ARCHITECTURE.md. */
	const char *uid, *holds, *talks_to, *never_holds, *death;
};
extern const struct role_info roles[ROLE_COUNT];

/* The table's rows in Markdown, one a line. 0 or what buf_append says. */
int roles_table(struct buf *out);

#endif

/*
 * admission.h - who may come in, and as what: settled once from the
 * configuration, asked for each connection. By the kernel's word about the
 * process that connects (ipc/creds.h), never by its own.
 *
 * Always: root and the supervisor's own user, both operators. Besides them
 * whom operator_group, allow_users and allow_groups name; with none of these
 * everybody on the system's service, nobody else on one's own.
 */
#ifndef SUPERVISOR_ADMISSION_H
#define SUPERVISOR_ADMISSION_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "common/config.h"
#include "common/error.h"
#include "ipc/creds.h"

#define ADMISSION_NAMES_MAX 1024 /* users, and groups, in a list */

struct admission {
	uid_t own; /* the supervisor's */
	bool everybody;
	bool has_operators;
	gid_t operators;
	uid_t *users; /* owned */
	size_t user_count;
	gid_t *groups; /* owned */
	size_t group_count;
};

/* `shared`: the system's service, for everybody unless names are given. A name
 * that isn't known is ERR_CONFIG and names the key. On failure `a` is as
 * admission_deinit leaves it. */
int admission_init(struct admission *a, const struct config *cfg, uid_t own,
                   bool shared, struct error *err);
/* Safe twice. */
void admission_deinit(struct admission *a);

/* Whether anybody but the supervisor's user (and root) may come in. */
bool admission_has_others(const struct admission *a);
/* May see and do everything. */
bool admission_is_operator(const struct admission *a, const struct creds *c);
/* 0, or -1 with an error that says who may and how to change it. */
int admission_check(const struct admission *a, const struct creds *c,
                    struct error *err);

#endif

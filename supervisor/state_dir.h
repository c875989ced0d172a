/*
 * state_dir.h - the state directory: lock, client id.
 */
#ifndef SUPERVISOR_STATE_DIR_H
#define SUPERVISOR_STATE_DIR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"
#include "common/uuid.h"

struct state_dir {
	int dirfd;
	int lockfd;
	char *path; /* owned */
	char client_id[UUID_LEN + 1];
	uint64_t secret[2]; /* see state_dir_record_key */
};

#define STATE_DIR_NULL                                                         \
	{                                                                      \
		.dirfd = -1, .lockfd = -1                                      \
	}

/* Opens the directory (made with mode 0700 if missing, parents too), locks it
 * against a second supervisor (ERR_BUSY names the directory and the pid that
 * holds it), reads the client id or makes one. A damaged client id file is set
 * aside as client_id.bad and replaced, with a warning in the log. A directory
 * that cannot be written or belongs to somebody else: an error that says so. */
int state_dir_open(struct state_dir *s, const char *path, struct error *err);
/* Releases the lock. Safe twice. */
void state_dir_close(struct state_dir *s);
/* A fresh client id, written durably before it returns. */
int state_dir_renew_client_id(struct state_dir *s, struct error *err);
/* Whether the service is paused: a file that is there or not, so that it can be
 * seen, and ended, without a supervisor. `*pausedp` is read at the start. */
int state_dir_is_paused(const struct state_dir *s, bool *pausedp,
                        struct error *err);
int state_dir_set_paused(const struct state_dir *s, bool paused,
                         struct error *err);
/* What records of this user's workers are signed with: made from a secret in
 * the directory, so that it outlives the supervisor. A damaged secret is
 * replaced, with a warning. */
void state_dir_record_key(const struct state_dir *s, uid_t uid,
                          uint32_t key[4]);
/* "<path>/<name>" in a static buffer. */
const char *state_dir_file(const struct state_dir *s, const char *name);

#endif

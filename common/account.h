/*
 * account.h - users and groups by name or number, from the user database.
 */
#ifndef COMMON_ACCOUNT_H
#define COMMON_ACCOUNT_H

#include <stdbool.h>
#include <sys/types.h>

#include "common/error.h"

/* A user by name, or by number in decimal digits. `*gidp` (may be NULL) gets
 * his primary group, -1 for a number that the database has no entry of. 0;
 * ERR_NOT_FOUND if there is no such name; ERR_SYSTEM if the database can't be
 * read. */
int account_find_user(const char *name, uid_t *uidp, gid_t *gidp,
                      struct error *err);
/* Likewise a group. */
int account_find_group(const char *name, gid_t *gidp, struct error *err);
/* The user's name; NULL if the database has none. The caller frees it. */
char *account_name(uid_t uid);

/* Calls back for each name of a list separated by commas or blanks; stops at
 * the first that isn't 0, and returns it. -1 with `err` when out of memory. */
typedef int account_name_cb(void *user, const char *name, struct error *err);
int account_each_name(const char *list, account_name_cb *cb, void *user,
                      struct error *err);

#endif

/*
 * account.c - see account.h.
 */
#include "common/account.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

#define ENTRY_MAX (256u << 10) /* bytes of one entry, a group's members too */
#define ID_MAX    ((unsigned long long)(uid_t)-2) /* -1 means nobody */
#define SEPARATOR ", \t"

struct account {
	uid_t uid;
	gid_t gid;
	char *name; /* owned; NULL: not known */
};

/* A number that may be somebody's. */
static bool number_of(const char *text, unsigned long long *np)
{
	size_t n = strlen(text);

	if (n == 0 || n > 10 || strspn(text, "0123456789") != n)
		return false;
	*np = strtoull(text, NULL, 10);
	return *np <= ID_MAX;
}

static int not_there(const char *what, const char *name, int errnum,
                     struct error *err)
{
	switch (errnum) {
	case 0:
	case ENOENT:
	case ESRCH:
	case EBADF:
	case EPERM: /* what getpwnam(3) lists for "no such name" */
		return error_set(err, ERR_NOT_FOUND, "there is no %s \"%s\"",
		                 what, log_safe(name, strlen(name)));
	default:
		return error_set_errno(err, errnum, "cannot look up the %s %s",
		                       what, log_safe(name, strlen(name)));
	}
}

/* By name, or by number if `name` is NULL. True if there is such an entry; else
 * `*errnump` tells why. */
static bool find_user(const char *name, uid_t number, struct account *a,
                      int *errnump)
{
	struct passwd entry, *found = NULL;
	char *space = malloc(ENTRY_MAX);

	*errnump = ENOMEM;
	if (space && name)
		*errnump = getpwnam_r(name, &entry, space, ENTRY_MAX, &found);
	else if (space)
		*errnump = getpwuid_r(number, &entry, space, ENTRY_MAX, &found);
	if (found) {
		a->uid = found->pw_uid;
		a->gid = found->pw_gid;
		a->name = strdup(found->pw_name);
	}
	free(space);
	return found != NULL;
}

int account_find_user(const char *name, uid_t *uidp, gid_t *gidp,
                      struct error *err)
{
	struct account a = {.gid = (gid_t)-1};
	unsigned long long number;
	int errnum;

	if (number_of(name, &number)) {
		a.uid = (uid_t)number;
		(void)find_user(NULL, a.uid, &a, &errnum);
	} else if (!find_user(name, 0, &a, &errnum)) {
		return not_there("user", name, errnum, err);
	}
	free(a.name);
	*uidp = a.uid;
	if (gidp)
		*gidp = a.gid;
	return 0;
}

int account_find_group(const char *name, gid_t *gidp, struct error *err)
{
	struct group entry, *found = NULL;
	unsigned long long number;
	int r = ENOMEM;
	char *space;

	if (number_of(name, &number)) {
		*gidp = (gid_t)number;
		return 0;
	}
	space = malloc(ENTRY_MAX);
	if (space)
		r = getgrnam_r(name, &entry, space, ENTRY_MAX, &found);
	if (found)
		*gidp = found->gr_gid;
	free(space);
	return found ? 0 : not_there("group", name, r, err);
}

char *account_name(uid_t uid)
{
	struct account a = {0};
	int errnum;

	return find_user(NULL, uid, &a, &errnum) ? a.name : NULL;
}

int account_each_name(const char *list, account_name_cb *cb, void *user,
                      struct error *err)
{
	char *save = NULL, *name, *copy = strdup(list);
	int r = 0;

	if (!copy)
		return error_set_nomem(err, "list of names");
	for (name = strtok_r(copy, SEPARATOR, &save); name && r == 0;
	     name = strtok_r(NULL, SEPARATOR, &save))
		r = cb(user, name, err);
	free(copy);
	return r;
}

/*
 * admission.c - see admission.h.
 */
#include "supervisor/admission.h"

#include <stdlib.h>
#include <string.h>

#include "common/account.h"

#define EVERYBODY "*"

/* Prefixes the key; what is wrong is the configuration. */
static int blame(const char *key, struct error *err)
{
	if (err && err->code == ERR_NOT_FOUND)
		err->code = ERR_CONFIG;
	return error_prefix(err, "%s", key);
}

static int too_many(struct error *err)
{
	return error_set(err, ERR_CONFIG, "more than %d names",
	                 ADMISSION_NAMES_MAX);
}

static int add_user(void *user, const char *name, struct error *err)
{
	struct admission *a = user;
	uid_t *grown;

	if (strcmp(name, EVERYBODY) == 0) {
		a->everybody = true;
		return 0;
	}
	if (a->user_count == ADMISSION_NAMES_MAX)
		return too_many(err);
	grown = realloc(a->users, (a->user_count + 1) * sizeof(*grown));
	if (!grown)
		return error_set_nomem(err, "list of users");
	a->users = grown;
	if (account_find_user(name, &grown[a->user_count], NULL, err) < 0)
		return -1;
	a->user_count++;
	return 0;
}

static int add_group(void *user, const char *name, struct error *err)
{
	struct admission *a = user;
	gid_t *grown;

	if (a->group_count == ADMISSION_NAMES_MAX)
		return too_many(err);
	grown = realloc(a->groups, (a->group_count + 1) * sizeof(*grown));
	if (!grown)
		return error_set_nomem(err, "list of groups");
	a->groups = grown;
	if (account_find_group(name, &grown[a->group_count], err) < 0)
		return -1;
	a->group_count++;
	return 0;
}

static int read_lists(struct admission *a, const struct config *cfg,
                      struct error *err)
{
	if (account_each_name(cfg->allow_users, add_user, a, err) < 0)
		return blame("allow_users", err);
	if (account_each_name(cfg->allow_groups, add_group, a, err) < 0)
		return blame("allow_groups", err);
	a->has_operators = cfg->operator_group[0] != '\0';
	if (a->has_operators &&
	    account_find_group(cfg->operator_group, &a->operators, err) < 0)
		return blame("operator_group", err);
	return 0;
}

int admission_init(struct admission *a, const struct config *cfg, uid_t own,
                   bool shared, struct error *err)
{
	*a = (struct admission){.own = own};
	if (read_lists(a, cfg, err) < 0) {
		admission_deinit(a);
		return -1;
	}
	if (shared && a->user_count == 0 && a->group_count == 0)
		a->everybody = true;
	return 0;
}

void admission_deinit(struct admission *a)
{
	free(a->users);
	free(a->groups);
	*a = (struct admission){0};
}

bool admission_has_others(const struct admission *a)
{
	return a->everybody || a->has_operators || a->user_count > 0 ||
	       a->group_count > 0;
}

bool admission_is_operator(const struct admission *a, const struct creds *c)
{
	return c->uid == 0 || c->uid == a->own ||
	       (a->has_operators && creds_in_group(c, a->operators));
}

static bool is_named(const struct admission *a, const struct creds *c)
{
	for (size_t i = 0; i < a->user_count; i++) {
		if (a->users[i] == c->uid)
			return true;
	}
	for (size_t i = 0; i < a->group_count; i++) {
		if (creds_in_group(c, a->groups[i]))
			return true;
	}
	return false;
}

int admission_check(const struct admission *a, const struct creds *c,
                    struct error *err)
{
	if (a->everybody || admission_is_operator(a, c) || is_named(a, c))
		return 0;
	return error_set(err, ERR_DENIED,
	                 "uid %u may not use this supervisor, which serves "
	                 "user %u%s; its configuration lets others in by "
	                 "allow_users and allow_groups",
	                 (unsigned)c->uid, (unsigned)a->own,
	                 admission_has_others(a) ? " and whom it names"
	                                         : " alone");
}

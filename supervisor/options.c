/*
 * options.c - see options.h.
 */
#include "supervisor/options.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/account.h"
#include "common/macros.h"

const char options_help[] =
	"Usage: comfymuxd [OPTION]...\n"
	"Holds the one connection to a ComfyUI server and serves its events\n"
	"and its queue on a Unix socket. Stays in the foreground unless told\n"
	"otherwise.\n"
	"\n"
	"  --comfyui URL      ComfyUI server (default "
	"http://127.0.0.1:8188)\n"
	"  --socket PATH      Unix socket to serve\n"
	"  --state-dir DIR    directory of client id and database\n"
	"  --config FILE      configuration file, instead of the usual ones\n"
	"  --log-level LEVEL  error, warn, info or debug\n"
	"  --daemon           go into the background, return when it serves,\n"
	"                     start it again after a crash\n"
	"  --pidfile PATH     with --daemon: file for the pids of parent and\n"
	"                     supervisor\n"
	"  --user NAME        whom to become when started as root\n"
	"  --check-config     check the configuration and exit\n"
	"  --autostarted      leave after idle_exit_s without clients and\n"
	"                     prompts\n"
	"  --ready-fd N       write a newline to descriptor N when serving\n"
	"  --guarded[=system] it was started by the parent that --daemon leaves\n"
	"                     (and that was started as root)\n"
	"  --version          print the version and exit\n"
	"  --help             print this and exit\n"
	"\n"
	"Signals: TERM and INT stop it, workers included; USR2 stops it for a\n"
	"restart, which leaves workers running; HUP reads the configuration and\n"
	"opens the log again.\n"
	"Exit status: 0 stopped, 1 failure, 2 usage or configuration.\n";

/* Flags that set a key of the configuration. */
static const struct {
	const char *flag, *key;
} key_flags[] = {
	{"--comfyui", "comfyui"},     {"--socket", "socket"},
	{"--state-dir", "state_dir"}, {"--log-level", "log_level"},
	{"--user", "user"},
};
_Static_assert(ARRAY_SIZE(key_flags) <= OPTIONS_FLAGS_MAX, "room for each");

struct args {
	int argc, next;
	char **argv;
};

/* True if the argument is `flag`; *valuep gets what follows, or "=value". */
static bool match(const char *arg, const char *flag, const char **valuep)
{
	size_t n = strlen(flag);

	*valuep = NULL;
	if (strncmp(arg, flag, n) != 0)
		return false;
	if (arg[n] == '=')
		*valuep = arg + n + 1;
	return arg[n] == '\0' || arg[n] == '=';
}

/* The value behind "=", or the next argument; NULL if there is none. */
static const char *take_value(struct args *a, const char *flag,
                              const char *given, struct error *err)
{
	if (given)
		return given;
	if (a->next < a->argc)
		return a->argv[a->next++];
	(void)error_set(err, ERR_CONFIG, "%s needs a value", flag);
	return NULL;
}

static int set_key(struct options *o, const char *key, const char *value)
{
	for (size_t i = 0; i < o->flag_count; i++) {
		if (strcmp(o->flags[i].key, key) == 0) {
			o->flags[i].value = value;
			return 0;
		}
	}
	o->flags[o->flag_count].key = key;
	o->flags[o->flag_count].value = value;
	o->flag_count++;
	return 0;
}

static int set_ready_fd(struct options *o, const char *value, struct error *err)
{
	char *end;
	long n;

	errno = 0;
	n = strtol(value, &end, 10);
	if (errno != 0 || end == value || *end != '\0' || n < 0 || n > INT_MAX)
		return error_set(err, ERR_CONFIG,
		                 "--ready-fd needs the number of an open "
		                 "descriptor, not \"%s\"",
		                 value);
	if (fcntl((int)n, F_GETFD) < 0)
		return error_set(err, ERR_CONFIG,
		                 "--ready-fd %ld: no such descriptor is open",
		                 n);
	o->ready_fd = (int)n;
	return 0;
}

/* Flags without a value. False if it is none of them. */
static bool take_switch(struct options *o, const char *arg)
{
	if (strcmp(arg, "--check-config") == 0)
		o->action = OPTIONS_CHECK_CONFIG;
	else if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0)
		o->action = OPTIONS_HELP;
	else if (strcmp(arg, "--version") == 0)
		o->action = OPTIONS_VERSION;
	else if (strcmp(arg, "--autostarted") == 0)
		o->autostarted = true;
	else if (strcmp(arg, "--daemon") == 0)
		o->daemon = true;
	else if (strcmp(arg, "--guarded") == 0)
		o->guarded = true;
	else if (strcmp(arg, "--guarded=system") == 0)
		o->guarded = o->for_system = true;
	else
		return false;
	return true;
}

static int take_arg(struct options *o, struct args *a, const char *arg,
                    struct error *err)
{
	const char *value;

	if (take_switch(o, arg))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(key_flags); i++) {
		if (!match(arg, key_flags[i].flag, &value))
			continue;
		value = take_value(a, key_flags[i].flag, value, err);
		return value ? set_key(o, key_flags[i].key, value) : -1;
	}
	if (match(arg, "--config", &value)) {
		o->config_file = take_value(a, "--config", value, err);
		return o->config_file ? 0 : -1;
	}
	if (match(arg, "--pidfile", &value)) {
		o->pidfile = take_value(a, "--pidfile", value, err);
		return o->pidfile ? 0 : -1;
	}
	if (match(arg, "--ready-fd", &value)) {
		value = take_value(a, "--ready-fd", value, err);
		return value ? set_ready_fd(o, value, err) : -1;
	}
	return error_set(err, ERR_CONFIG,
	                 "\"%s\" is not an option; --help lists them", arg);
}

/* Root's, and that of the user that root's becomes, which its user's name tells
 * if it is the usual one, else the parent that was root. One that was started
 * for a user is his, root's too: it reads his file. */
static bool is_system(const struct options *o)
{
	uid_t service;

	if (o->autostarted)
		return false;
	return geteuid() == 0 || o->for_system ||
	       (account_find_user(CONFIG_SERVICE_USER, &service, NULL, NULL) ==
	                0 &&
	        service == geteuid());
}

int options_parse(struct options *o, int argc, char **argv, struct error *err)
{
	struct args a = {.argc = argc, .next = 1, .argv = argv};

	*o = (struct options){.ready_fd = -1};
	while (a.next < a.argc) {
		if (take_arg(o, &a, a.argv[a.next++], err) < 0)
			return -1;
		/* What follows --help is of no interest. */
		if (o->action == OPTIONS_HELP || o->action == OPTIONS_VERSION)
			break;
	}
	if (o->pidfile && !o->daemon)
		return error_set(err, ERR_CONFIG,
		                 "--pidfile goes with --daemon alone");
	if (o->daemon && o->ready_fd >= 0)
		return error_set(err, ERR_CONFIG,
		                 "--daemon returns when it is ready; it takes "
		                 "no --ready-fd");
	o->system = is_system(o);
	return 0;
}

struct config_sources options_sources(const struct options *o)
{
	struct config_sources s = {
		.file = o->config_file,
		.flags = o->flags,
		.flag_count = o->flag_count,
		.system = o->system,
		.daemon = true,
	};

	return s;
}

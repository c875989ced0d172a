/*
 * main.c - comfymuxd: a table of contents.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/version.h"
#include "supervisor/guardian.h"
#include "supervisor/supervisor.h"

/* The contract's exit status. */
enum {
	STATUS_OK = 0,
	STATUS_FAILURE = 1,
	STATUS_USAGE = 2,
};

/* Where a start that fails is told. */
static int complaints = STDERR_FILENO;

static int fail(int status, const struct error *err)
{
	(void)dprintf(complaints, "comfymuxd: %s\n", err->text);
	return status;
}

/* In the background the log goes to syslog unless a place is named. */
static int open_log(struct options *o, const struct config *cfg,
                    struct error *err)
{
	bool named = config_origin_of(cfg, "log_to") != CONFIG_DEFAULT;
	enum log_sink sink = (enum log_sink)log_sink_from_name(cfg->log_to);
	static char *file; /* the configuration goes elsewhere */
	int r;

	if ((o->daemon || o->guarded) && !named)
		sink = LOG_TO_SYSLOG;
	o->keep_stderr = sink == LOG_TO_STDERR;
	if (sink == LOG_TO_FILE) {
		file = strdup(cfg->log_to);
		if (!file)
			return error_set_nomem(err, "log");
		log_set_file(file);
	}
	log_set_format((enum log_format)log_format_from_name(cfg->log_format));
	r = log_open("comfymuxd", sink,
	             (enum log_level)log_level_from_name(cfg->log_level));
	return r < 0 ? error_set_errno(err, -r, "cannot log to %s", cfg->log_to)
	             : 0;
}

/* The terminal of whoever started it is not kept for longer than the start
 * takes, nor by the processes that it starts. */
static void let_go_of_stderr(const struct options *o)
{
	bool to_file = log_get_sink() == LOG_TO_FILE;
	cleanup_close int null = -1;

	if (!to_file && (!o->guarded || o->keep_stderr))
		return;
	complaints = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (complaints < 0 || null < 0) {
		complaints = STDERR_FILENO;
		return;
	}
	(void)dup2(null, STDERR_FILENO);
	log_share_file();
}

static void stop_complaining(void)
{
	if (complaints != STDERR_FILENO)
		(void)close(complaints);
	complaints = STDERR_FILENO;
}

static int print(const char *text)
{
	if (fputs(text, stdout) == EOF || fflush(stdout) == EOF)
		return STATUS_FAILURE;
	return STATUS_OK;
}

static int print_version(void)
{
	if (printf("comfymuxd %s\n", comfymux_version) < 0)
		return STATUS_FAILURE;
	return print("");
}

static int serve(const struct options *o, struct config *cfg)
{
	static struct supervisor sv;
	struct error err = ERROR_NULL;

	let_go_of_stderr(o);
	if (supervisor_init(&sv, o, cfg, &err) < 0)
		return fail(STATUS_FAILURE, &err);
	stop_complaining();
	supervisor_run(&sv);
	supervisor_deinit(&sv);
	log_flush();
	return STATUS_OK;
}

static int go_into_background(const struct options *o, const struct config *cfg,
                              char **argv)
{
	struct error err = ERROR_NULL;
	int status = guardian_run(o, cfg, argv, &err);

	return status < 0 ? fail(STATUS_FAILURE, &err) : status;
}

int main(int argc, char **argv)
{
	struct error err = ERROR_NULL;
	struct config_sources src;
	struct config cfg;
	struct options o;
	int status;

	if (options_parse(&o, argc, argv, &err) < 0)
		return fail(STATUS_USAGE, &err);
	if (o.action == OPTIONS_HELP)
		return print(options_help);
	if (o.action == OPTIONS_VERSION)
		return print_version();
	src = options_sources(&o);
	if (config_load(&cfg, &src, &err) < 0)
		return fail(STATUS_USAGE, &err);
	if (supervisor_check(&cfg, &o, &err) < 0)
		status = fail(STATUS_USAGE, &err);
	else if (o.action == OPTIONS_CHECK_CONFIG)
		status = print("the configuration is fine\n");
	else {
		status = open_log(&o, &cfg, &err) < 0
		                 ? fail(STATUS_FAILURE, &err)
		         : o.daemon ? go_into_background(&o, &cfg, argv)
		                    : serve(&o, &cfg);
	}
	config_deinit(&cfg);
	return status;
}

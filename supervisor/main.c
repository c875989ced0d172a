/*
 * main.c - comfymuxd: a table of contents.
 */
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/version.h"
#include "supervisor/supervisor.h"

/* The contract's exit status. */
enum {
	STATUS_OK = 0,
	STATUS_FAILURE = 1,
	STATUS_USAGE = 2,
};

static int fail(int status, const struct error *err)
{
	fprintf(stderr, "comfymuxd: %s\n", err->text);
	return status;
}

static void open_log(const struct config *cfg)
{
	log_open("comfymuxd",
	         strcmp(cfg->log_to, "syslog") == 0 ? LOG_TO_SYSLOG
	                                            : LOG_TO_STDERR,
	         (enum log_level)log_level_from_name(cfg->log_level));
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

	open_log(cfg);
	if (supervisor_init(&sv, o, cfg, &err) < 0)
		return fail(STATUS_FAILURE, &err);
	supervisor_run(&sv);
	supervisor_deinit(&sv);
	log_flush();
	return STATUS_OK;
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
	if (supervisor_check(&cfg, &err) < 0)
		status = fail(STATUS_USAGE, &err);
	else if (o.action == OPTIONS_CHECK_CONFIG)
		status = print("the configuration is fine\n");
	else
		status = serve(&o, &cfg);
	config_deinit(&cfg);
	return status;
}

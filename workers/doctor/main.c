/*
 * main.c - comfymux-doctor: arguments, the order of the checks, how findings
 * are shown, and the status to exit with.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/program_args.h"
#include "workers/doctor/doctor.h"

#define FLAGS_MAX 8

static const char help[] =
	"Usage: comfymux doctor [OPTION]...\n"
	"Look for what keeps comfymux from working, and say what to do.\n"
	"\n"
	"Options:\n"
	"  --comfyui URL            the ComfyUI to use\n"
	"  --socket PATH            the supervisor's Unix socket\n"
	"  --state-dir DIR          the supervisor's state directory\n"
	"  --config FILE            configuration file\n"
	"  --help                   print this and exit\n"
	"  --version                print the version and exit\n"
	"  --json                   print JSON, one value a line\n"
	"\n"
	"Exit status: 0 all is well (or could be better), 1 something fails, 2 the\n"
	"configuration is wrong, 5 ComfyUI does not answer.\n";

static const char *const words[] = {
	[VERDICT_OK] = "ok",     [VERDICT_WARN] = "warn",
	[VERDICT_FAIL] = "FAIL", [VERDICT_CONFIG] = "FAIL",
	[VERDICT_GONE] = "FAIL",
};

static void put_member(struct buf *out, const char *key, const char *text)
{
	(void)buf_json_key(out, key);
	(void)buf_json_string(out, text, strlen(text));
}

static void print_json(enum verdict v, const char *check, const char *text,
                       const char *advice)
{
	cleanup_buf struct buf line = BUF_INIT((size_t)8 * DOCTOR_TEXT_MAX);

	(void)buf_putc(&line, '{');
	put_member(&line, "check", check);
	put_member(&line, "verdict",
	           v == VERDICT_OK     ? "ok"
	           : v == VERDICT_WARN ? "warn"
	                               : "fail");
	put_member(&line, "text", text);
	if (advice)
		put_member(&line, "advice", advice);
	(void)buf_putc(&line, '}');
	if (buf_ok(&line))
		printf("%.*s\n", (int)line.len, line.data);
}

void doctor_tell(struct doctor *d, enum verdict v, const char *check,
                 const char *advice, const char *fmt, ...)
{
	static const char *const colors[] = {"32", "33", "31", "31", "31"};
	char text[DOCTOR_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	d->count[v]++;
	if (d->json) {
		print_json(v, check, text, advice);
		return;
	}
	if (d->color)
		printf("\033[%sm%-4s\033[0m  %-13s %s\n", colors[v], words[v],
		       check, text);
	else
		printf("%-4s  %-13s %s\n", words[v], check, text);
	if (advice)
		printf("                     -> %s\n", advice);
}

static int exit_status(const struct doctor *d)
{
	if (d->count[VERDICT_CONFIG] > 0)
		return 2;
	if (d->count[VERDICT_GONE] > 0)
		return 5;
	return d->count[VERDICT_FAIL] > 0 ? 1 : 0;
}

static int print_help(void)
{
	return fputs(help, stdout) == EOF || fflush(stdout) == EOF;
}

static bool load(struct doctor *d, const struct config_sources *src)
{
	struct error err = ERROR_NULL;
	const char *file;

	if (config_load(&d->cfg, src, &err) < 0) {
		doctor_tell(d, VERDICT_CONFIG, "configuration",
		            "mend that; `man comfymux.conf` has every key",
		            "%s", err.text);
		return false;
	}
	file = config_file_of(&d->cfg, "comfyui");
	doctor_tell(d, VERDICT_OK, "configuration", NULL,
	            "ComfyUI is %s, from %s", d->cfg.comfyui,
	            file ? file
	            : config_origin_of(&d->cfg, "comfyui") == CONFIG_ENV
	                    ? "the environment (COMFYUI_HOST)"
	            : config_origin_of(&d->cfg, "comfyui") == CONFIG_FLAG
	                    ? "the command line"
	                    : "the default");
	return true;
}

int main(int argc, char **argv)
{
	struct config_flag flags[FLAGS_MAX];
	struct config_sources src = {.flags = flags};
	struct doctor d = {.color = isatty(STDOUT_FILENO)};
	const struct program_args args = {.program = "comfymux-doctor",
	                                  .command = "doctor",
	                                  .help = print_help,
	                                  .json = &d.json};
	int status;

	(void)log_open("doctor", LOG_TO_STDERR, LOG_LEVEL_ERROR);
	status = program_args(&args, argv, &src, flags, FLAGS_MAX);
	if (status >= 0)
		return status;
	if (load(&d, &src)) {
		doctor_programs(&d);
		doctor_places(&d);
		doctor_limits(&d);
		doctor_supervisor(&d);
		doctor_comfyui(&d);
		config_deinit(&d.cfg);
	}
	free(d.version);
	if (!d.json)
		printf("%u well, %u to look at, %u failed\n",
		       d.count[VERDICT_OK], d.count[VERDICT_WARN],
		       d.count[VERDICT_FAIL] + d.count[VERDICT_CONFIG] +
		               d.count[VERDICT_GONE]);
	return fflush(stdout) == 0 ? exit_status(&d) : 1;
}

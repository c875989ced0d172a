/*
 * sim_options.c - see sim_options.h.
 */
#include "tests/sim/sim_options.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const char sim_options_help[] =
	"Usage: comfysim [OPTION]...\n"
	"A stand-in for a ComfyUI server, for tests and demonstrations.\n"
	"It listens on 127.0.0.1 and runs no model.\n"
	"\n"
	"  --port N                port; 0, the default, picks a free one\n"
	"  --speed F               simulated durations are divided by F\n"
	"  --history-lag MS        time from execution_success to history\n"
	"  --journal FILE          append what happens, a JSON object a line\n"
	"  --comfyui-version TEXT  version told by /system_stats\n"
	"  --quiet                 log errors only\n"
	"  --version               print the version and exit\n"
	"  --help                  print this and exit\n"
	"\n"
	"As older and newer servers do:\n"
	"  --ignore-prompt-id      the server chooses the ids of prompts\n"
	"  --no-execution-success  no execution_success, no timestamps\n"
	"  --no-progress-state     no progress_state, no feature_flags\n"
	"  --strict-uuid           prompt_id must be a canonical UUID\n"
	"  --no-jobs-api           no /api/jobs\n"
	"  --no-interrupt-id       POST /interrupt stops whatever runs\n"
	"  --fixed-overlap         an older socket's end leaves a newer one\n"
	"                          of the same client id alone\n"
	"\n"
	"When ready it prints one line to standard output:\n"
	"comfysim: listening on http://127.0.0.1:PORT\n";

static int parse_number(const char *name, const char *text, double min,
                        double max, double *out, struct error *err)
{
	char *end;

	errno = 0;
	*out = strtod(text, &end);
	if (errno || end == text || *end || isnan(*out) || *out < min ||
	    *out > max)
		return error_set(err, ERR_INVALID,
		                 "--%s: \"%s\" is not a number from %g to %g",
		                 name, text, min, max);
	return 0;
}

enum option_id {
	OPT_PORT = 256,
	OPT_SPEED,
	OPT_LAG,
	OPT_JOURNAL,
	OPT_COMFYUI_VERSION,
	OPT_FLAG,
};

struct flag {
	const char *name;
	size_t offset;
};

#define FLAG(name, member)                                                     \
	{                                                                      \
		name, offsetof(struct sim_options, member)                     \
	}

static const struct flag flags[] = {
	FLAG("quiet", quiet),
	FLAG("help", help),
	FLAG("version", version),
	FLAG("ignore-prompt-id", ignore_prompt_id),
	FLAG("no-execution-success", no_execution_success),
	FLAG("no-progress-state", no_progress_state),
	FLAG("strict-uuid", strict_uuid),
	FLAG("no-jobs-api", no_jobs_api),
	FLAG("no-interrupt-id", no_interrupt_id),
	FLAG("fixed-overlap", fixed_overlap),
};

#define FLAG_COUNT (sizeof(flags) / sizeof(flags[0]))

static int apply(struct sim_options *o, int id, const char *arg,
                 struct error *err)
{
	double n;

	switch (id) {
	case OPT_PORT:
		if (parse_number("port", arg, 0, 65535, &n, err))
			return -1;
		if (floor(n) < n)
			return error_set(err, ERR_INVALID,
			                 "--port: \"%s\" is not whole", arg);
		o->port = (uint16_t)n;
		return 0;
	case OPT_SPEED:
		return parse_number("speed", arg, 0.001, SIM_SPEED_MAX,
		                    &o->speed, err);
	case OPT_LAG:
		return parse_number("history-lag", arg, 0, 60000,
		                    &o->history_lag_ms, err);
	case OPT_JOURNAL:
		o->journal = arg;
		return 0;
	case OPT_COMFYUI_VERSION:
		o->comfyui_version = arg;
		return 0;
	default:
		*(bool *)((char *)o + flags[id - OPT_FLAG].offset) = true;
		return 0;
	}
}

int sim_options_parse(struct sim_options *o, int argc, char **argv,
                      struct error *err)
{
	struct option options[FLAG_COUNT + 6] = {
		{"port", required_argument, NULL, OPT_PORT},
		{"speed", required_argument, NULL, OPT_SPEED},
		{"history-lag", required_argument, NULL, OPT_LAG},
		{"journal", required_argument, NULL, OPT_JOURNAL},
		{"comfyui-version", required_argument, NULL,
	         OPT_COMFYUI_VERSION},
	};
	int id;

	for (size_t i = 0; i < FLAG_COUNT; i++)
		options[5 + i] = (struct option){flags[i].name, no_argument,
		                                 NULL, OPT_FLAG + (int)i};
	*o = (struct sim_options){.speed = 1, .comfyui_version = "0.3.64"};
	opterr = 0;
	while ((id = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (id == ':')
			return error_set(err, ERR_INVALID, "%s wants a value",
			                 argv[optind - 1]);
		if (id == '?')
			return error_set(err, ERR_INVALID, "unknown option %s",
			                 argv[optind - 1]);
		if (apply(o, id, optarg, err))
			return -1;
	}
	if (optind < argc)
		return error_set(err, ERR_INVALID, "unexpected argument %s",
		                 argv[optind]);
	return 0;
}

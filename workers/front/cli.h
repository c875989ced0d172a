/*
 * cli.h - the command line: commands, options, exit status.
 *
 * Options are declared once (cli.c); a command lists those it takes. Its
 * --help, and the check of the manual pages against it, come from the same
 * tables.
 */
#ifndef WORKERS_FRONT_CLI_H
#define WORKERS_FRONT_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/config.h"
#include "common/error.h"
#include "common/json_span.h"

#define CLI_SETS_MAX   256 /* --set options of one command */
#define CLI_SWEEPS_MAX 16  /* --sweep options of one command */

/* The contract's exit status. */
enum cli_exit {
	EXIT_COMPLETED = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_CANCELLED = 3,
	EXIT_REFUSED = 4,
	EXIT_UNREACHABLE = 5,
	EXIT_IN_PART = 6,
	EXIT_TIMED_OUT = 124,
};

enum cli_option {
	OPT_COMFYUI,
	OPT_SOCKET,
	OPT_STATE_DIR,
	OPT_CONFIG,
	OPT_HELP,
	OPT_VERSION,
	OPT_JSON,
	OPT_TIMEOUT,
	OPT_SET,
	OPT_LIMIT,
	OPT_OUTPUT,
	OPT_SUBFOLDER,
	OPT_TYPE,
	OPT_OVERWRITE,
	OPT_HOLD,
	OPT_CONCURRENCY,
	OPT_STOP_ON_ERROR,
	OPT_KEEP_GOING,
	OPT_SWEEP,
	OPT_DOWNLOAD,
	OPT_DETACH,
	OPT_PREVIEW,
	OPT_COUNT
};

#define CLI_OPT(o) (1u << OPT_##o)

struct cli;

struct cli_command {
	const char *name;
	const char *arguments; /* "FILE", "[PROMPT_ID]", "" */
	int args_min, args_max;
	unsigned options; /* CLI_OPT bits besides the global ones */
	const char *doc;  /* one sentence */
	int (*run)(struct cli *cli);
};

/* What the command line said. */
struct cli {
	const struct cli_command *command;
	struct config cfg;
	bool comfyui_named; /* by flag, environment or file: not the default */
	bool json, overwrite, hold;
	int64_t timeout_ms; /* 0: none */
	int64_t limit;
	const char *sets[CLI_SETS_MAX];
	size_t set_count;
	const char *sweeps[CLI_SWEEPS_MAX];
	size_t sweep_count;
	unsigned concurrency; /* 0: not told */
	bool stop_on_error, keep_going, detach;
	const char *output, *subfolder, *type, *download, *preview;
	int argc; /* positional arguments */
	char **argv;
};

/* Parses and runs one of `commands` (ended by a NULL name). Returns the exit
 * status. */
int cli_main(const struct cli_command *commands, int argc, char **argv);

/* "comfymux: text" on stderr; returns the exit status that fits the code. */
int cli_fail(const struct error *err);
int cli_exit_of(enum error_code code);
/* The exit status for an error.type of a prompt or a reply. */
int cli_exit_of_type(const char *type);

/* Reads FILE ("-": stdin) as a workflow, checked, with every --set applied.
 * `text` owns the bytes. */
int cli_read_workflow(const struct cli *cli, const char *file, struct buf *text,
                      struct error *err);

/* Reads FILE ("-": stdin) as a workflow, checked, without the --set. */
int cli_read_file(const char *file, struct buf *text, struct error *err);
/* Appends the member that stands for a file that wasn't to be read, and why. */
void cli_put_unreadable(struct buf *out, const struct error *why);
/* Applies one "NODE.INPUT=VALUE" to the checked workflow in `text`. */
int cli_set(struct buf *text, const char *assignment, struct error *err);

/* Writes to stdout; an error is told and makes the exit status 1. */
int cli_print(const void *data, size_t len);
int cli_print_json_line(struct json j);
int cli_printf(const char *fmt, ...) ATTR_PRINTF(1, 2);

/* Appends the outputs of an ExecutionProgress, readable, one file a line. */
void cli_outputs_text(struct json outputs, struct buf *out);

/* cmd_<name>.c, one command each. */
int cmd_run(struct cli *cli);
int cmd_submit(struct cli *cli);
int cmd_watch(struct cli *cli);
int cmd_cancel(struct cli *cli);
int cmd_queue(struct cli *cli);
int cmd_history(struct cli *cli);
int cmd_download(struct cli *cli);
int cmd_pause(struct cli *cli);
int cmd_resume(struct cli *cli);
int cmd_reconnect(struct cli *cli);
int cmd_restart_workers(struct cli *cli);
int cmd_status(struct cli *cli);
int cmd_mcp(struct cli *cli);
int cmd_batch(struct cli *cli);
int cmd_chain(struct cli *cli);
int cmd_jobs(struct cli *cli);
int cmd_attach(struct cli *cli);
int cmd_doctor(struct cli *cli);
int cmd_top(struct cli *cli);
int cmd_metrics(struct cli *cli);

#endif

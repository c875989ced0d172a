/*
 * cli.c - see cli.h.
 */
#include "workers/front/cli.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/batch_plan.h"
#include "common/fdutil.h"
#include "common/log.h"
#include "common/version.h"
#include "common/workflow.h"

#define GLOBAL_OPTIONS                                                         \
	(CLI_OPT(COMFYUI) | CLI_OPT(SOCKET) | CLI_OPT(STATE_DIR) |             \
	 CLI_OPT(CONFIG) | CLI_OPT(HELP) | CLI_OPT(VERSION))
#define TIMEOUT_MAX_S 31536000.0 /* a year */
#define STDIN_CHUNK   65536
#define FLAGS_MAX     8

struct option_info {
	const char *name, *argument, *doc;
};

/* clang-format off */
static const struct option_info option_table[] = {
	[OPT_COMFYUI]   = {"comfyui", "URL", "the ComfyUI to use"},
	[OPT_SOCKET]    = {"socket", "PATH", "the supervisor's Unix socket"},
	[OPT_STATE_DIR] = {"state-dir", "DIR", "the supervisor's state directory"},
	[OPT_CONFIG]    = {"config", "FILE", "configuration file"},
	[OPT_HELP]      = {"help", NULL, "print this and exit"},
	[OPT_VERSION]   = {"version", NULL, "print the version and exit"},
	[OPT_JSON]      = {"json", NULL, "print JSON, one value a line"},
	[OPT_TIMEOUT]   = {"timeout", "S", "stop waiting after S seconds; the prompt runs on"},
	[OPT_SET]       = {"set", "NODE.INPUT=VALUE", "change an input; may be repeated"},
	[OPT_LIMIT]     = {"limit", "N", "print at most N prompts (1 to 1000)"},
	[OPT_OUTPUT]    = {"output", "PATH", "file or directory to write to"},
	[OPT_SUBFOLDER] = {"subfolder", "DIR", "the file's subfolder on ComfyUI"},
	[OPT_TYPE]      = {"type", "TYPE", "output (default), temp or input"},
	[OPT_OVERWRITE] = {"overwrite", NULL, "replace a file that exists"},
	[OPT_HOLD]      = {"hold", NULL, "keep the prompt queued while ComfyUI does not answer"},
	[OPT_CONCURRENCY] = {"concurrency", "N", "workflows submitted at a time (1 to 64, 3 unless told)"},
	[OPT_STOP_ON_ERROR] = {"stop-on-error", NULL, "start nothing more after the first failure"},
	[OPT_KEEP_GOING] = {"keep-going", NULL, "after a failure run the steps that take nothing of it"},
	[OPT_SWEEP]     = {"sweep", "NODE.INPUT=a,b,c", "one workflow for each value, or 1..8; may be repeated"},
	[OPT_DOWNLOAD]  = {"download", "DIR", "fetch the outputs into DIR as they finish"},
	[OPT_DETACH] = {"detach", NULL, "hand the job to the supervisor and print its id"},
	[OPT_PREVIEW] = {"preview", "FILE", "keep the current preview in FILE"},
};
/* clang-format on */
STATIC_ASSERT_ARRAY_SIZE(option_table, OPT_COUNT);

static int out_of_output(void)
{
	(void)fprintf(stderr, "comfymux: cannot write to stdout: %s\n",
	              strerror(errno));
	return EXIT_FAILED;
}

int cli_print(const void *data, size_t len)
{
	if (fwrite(data, 1, len, stdout) != len || fflush(stdout) != 0)
		return out_of_output();
	return EXIT_COMPLETED;
}

int cli_printf(const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vprintf(fmt, ap);
	va_end(ap);
	if (n < 0 || fflush(stdout) != 0)
		return out_of_output();
	return EXIT_COMPLETED;
}

int cli_print_json_line(struct json j)
{
	cleanup_buf struct buf line = BUF_INIT(SIZE_MAX);

	(void)json_compact(&line, j);
	if (buf_putc(&line, '\n') < 0) {
		struct error err;

		(void)error_set_nomem(&err, "a line of output");
		return cli_fail(&err);
	}
	return cli_print(line.data, line.len);
}

int cli_exit_of(enum error_code code)
{
	switch (code) {
	case ERR_INVALID:
	case ERR_CONFIG:
		return EXIT_USAGE;
	case ERR_CANCELLED:
		return EXIT_CANCELLED;
	case ERR_REJECTED:
		return EXIT_REFUSED;
	case ERR_UNREACHABLE:
		return EXIT_UNREACHABLE;
	case ERR_TIMEOUT:
		return EXIT_TIMED_OUT;
	default:
		return EXIT_FAILED;
	}
}

int cli_exit_of_type(const char *type)
{
	static const struct {
		const char *type;
		int status;
	} table[] = {
		{"rejected", EXIT_REFUSED},
		{"unreachable", EXIT_UNREACHABLE},
		{"cancelled", EXIT_CANCELLED},
		{"timeout", EXIT_TIMED_OUT},
		{"invalid", EXIT_USAGE},
		{"config", EXIT_USAGE},
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (strcmp(type, table[i].type) == 0)
			return table[i].status;
	return EXIT_FAILED;
}

int cli_fail(const struct error *err)
{
	(void)fprintf(stderr, "comfymux: %s\n", err->text);
	return cli_exit_of(err->code);
}

static int usage_error(const struct cli *cli, const char *fmt, ...)
	ATTR_PRINTF(2, 3);

static int usage_error(const struct cli *cli, const char *fmt, ...)
{
	va_list ap;

	(void)fputs("comfymux: ", stderr);
	va_start(ap, fmt);
	(void)vfprintf(stderr, fmt, ap);
	va_end(ap);
	(void)fprintf(stderr, "\nTry `comfymux %s%s--help`.\n",
	              cli->command ? cli->command->name : "",
	              cli->command ? " " : "");
	return EXIT_USAGE;
}

static int help_all(const struct cli_command *commands)
{
	int r = cli_printf("Usage: comfymux COMMAND [OPTION]... [ARGUMENT]...\n"
	                   "Share one ComfyUI among many sessions.\n\n"
	                   "Commands:\n");

	for (const struct cli_command *c = commands; c->name && r == 0; c++)
		r = cli_printf("  %-11s %-16s %s\n", c->name, c->arguments,
		               c->doc);
	if (r == 0)
		r = cli_printf("\n`comfymux COMMAND --help` lists a command's "
		               "options.\n"
		               "Exit status: 0 completed, 1 failed, 2 usage or "
		               "configuration, 3 cancelled,\n"
		               "4 refused by ComfyUI, 5 ComfyUI or supervisor "
		               "unreachable, 6 in part, 124 timed out.\n");
	return r;
}

static int help_command(const struct cli_command *c)
{
	int r = cli_printf("Usage: comfymux %s [OPTION]...%s%s\n%s\n\n"
	                   "Options:\n",
	                   c->name, *c->arguments ? " " : "", c->arguments,
	                   c->doc);

	for (size_t i = 0; i < OPT_COUNT && r == 0; i++) {
		const struct option_info *o = &option_table[i];
		char left[48];

		if (!((c->options | GLOBAL_OPTIONS) & (1u << i)))
			continue;
		(void)snprintf(left, sizeof(left), "--%s%s%s", o->name,
		               o->argument ? " " : "",
		               o->argument ? o->argument : "");
		r = cli_printf("  %-24s %s\n", left, o->doc);
	}
	return r;
}

/* State of one pass over the arguments. */
struct parse {
	struct cli *cli;
	struct config_flag flags[FLAGS_MAX];
	size_t flag_count;
	const char *config_file;
	bool help, version;
};

static int parse_seconds(struct parse *p, const char *value)
{
	char *end;
	double s;

	errno = 0;
	s = strtod(value, &end);
	if (errno != 0 || end == value || *end != '\0' || !isfinite(s) ||
	    s <= 0 || s > TIMEOUT_MAX_S)
		return usage_error(p->cli,
		                   "--timeout takes seconds above 0, not '%s'",
		                   value);
	p->cli->timeout_ms = (int64_t)ceil(s * 1000);
	return 0;
}

static int parse_limit(struct parse *p, const char *value)
{
	char *end;
	long n;

	errno = 0;
	n = strtol(value, &end, 10);
	if (errno != 0 || end == value || *end != '\0' || n < 1 || n > 1000)
		return usage_error(p->cli,
		                   "--limit takes a number from 1 to 1000, not "
		                   "'%s'",
		                   value);
	p->cli->limit = n;
	return 0;
}

static int parse_concurrency(struct parse *p, const char *value)
{
	char *end;
	long n;

	errno = 0;
	n = strtol(value, &end, 10);
	if (errno != 0 || end == value || *end != '\0' || n < 1 ||
	    n > BATCH_CONCURRENCY_MAX)
		return usage_error(p->cli,
		                   "--concurrency takes a number from 1 to %d, "
		                   "not '%s'",
		                   BATCH_CONCURRENCY_MAX, value);
	p->cli->concurrency = (unsigned)n;
	return 0;
}

static int add_flag(struct parse *p, const char *key, const char *value)
{
	if (p->flag_count == FLAGS_MAX)
		return usage_error(p->cli, "too many options");
	p->flags[p->flag_count++] =
		(struct config_flag){.key = key, .value = value};
	return 0;
}

static int parse_option(struct parse *p, enum cli_option o, const char *value)
{
	struct cli *cli = p->cli;

	switch (o) {
	case OPT_COMFYUI:
		return add_flag(p, "comfyui", value);
	case OPT_SOCKET:
		return add_flag(p, "socket", value);
	case OPT_STATE_DIR:
		return add_flag(p, "state_dir", value);
	case OPT_CONFIG:
		p->config_file = value;
		return 0;
	case OPT_HELP:
		p->help = true;
		return 0;
	case OPT_VERSION:
		p->version = true;
		return 0;
	case OPT_JSON:
		cli->json = true;
		return 0;
	case OPT_TIMEOUT:
		return parse_seconds(p, value);
	case OPT_SET:
		if (cli->set_count == CLI_SETS_MAX)
			return usage_error(cli, "more than %d --set",
			                   CLI_SETS_MAX);
		cli->sets[cli->set_count++] = value;
		return 0;
	case OPT_LIMIT:
		return parse_limit(p, value);
	case OPT_OUTPUT:
		cli->output = value;
		return 0;
	case OPT_SUBFOLDER:
		cli->subfolder = value;
		return 0;
	case OPT_TYPE:
		cli->type = value;
		return 0;
	case OPT_OVERWRITE:
		cli->overwrite = true;
		return 0;
	case OPT_HOLD:
		cli->hold = true;
		return 0;
	case OPT_CONCURRENCY:
		return parse_concurrency(p, value);
	case OPT_STOP_ON_ERROR:
		cli->stop_on_error = true;
		return 0;
	case OPT_KEEP_GOING:
		cli->keep_going = true;
		return 0;
	case OPT_SWEEP:
		if (cli->sweep_count == CLI_SWEEPS_MAX)
			return usage_error(cli, "more than %d --sweep",
			                   CLI_SWEEPS_MAX);
		cli->sweeps[cli->sweep_count++] = value;
		return 0;
	case OPT_DOWNLOAD:
		cli->download = value;
		return 0;
	case OPT_DETACH:
		cli->detach = true;
		return 0;
	case OPT_PREVIEW:
		cli->preview = value;
		return 0;
	case OPT_COUNT:
		break;
	}
	return usage_error(cli, "unknown option");
}

/* The option that `name` (up to '=') means, among those the command takes;
 * before the command is known, among the global ones. */
static enum cli_option find_option(const struct cli *cli, const char *name,
                                   size_t len)
{
	unsigned allowed = GLOBAL_OPTIONS;

	if (cli->command)
		allowed |= cli->command->options;
	for (size_t i = 0; i < OPT_COUNT; i++)
		if ((allowed & (1u << i)) &&
		    strlen(option_table[i].name) == len &&
		    memcmp(option_table[i].name, name, len) == 0)
			return (enum cli_option)i;
	return OPT_COUNT;
}

static int parse_long(struct parse *p, char **argv, int argc, int *ip)
{
	const char *name = argv[*ip] + 2, *value = strchr(name, '=');
	size_t len = value ? (size_t)(value - name) : strlen(name);
	enum cli_option o = find_option(p->cli, name, len);

	if (o == OPT_COUNT)
		return usage_error(p->cli, "unknown option --%.*s", (int)len,
		                   name);
	if (!option_table[o].argument) {
		if (value)
			return usage_error(p->cli, "--%s takes no value",
			                   option_table[o].name);
		return parse_option(p, o, NULL);
	}
	if (value)
		return parse_option(p, o, value + 1);
	if (*ip + 1 >= argc)
		return usage_error(p->cli, "--%s needs a value (%s)",
		                   option_table[o].name,
		                   option_table[o].argument);
	return parse_option(p, o, argv[++*ip]);
}

static const struct cli_command *find_command(const struct cli_command *c,
                                              const char *name)
{
	for (; c->name; c++)
		if (strcmp(c->name, name) == 0)
			return c;
	return NULL;
}

/* Options may stand anywhere; "--" ends them; "-" is an argument. Positional
 * arguments are moved to the front of argv. */
static int parse_args(struct parse *p, const struct cli_command *commands,
                      int argc, char **argv)
{
	struct cli *cli = p->cli;
	bool options_over = false;

	cli->argv = argv;
	cli->argc = 0;
	for (int i = 1; i < argc; i++) {
		char *a = argv[i];

		if (!options_over && strcmp(a, "--") == 0) {
			options_over = true;
		} else if (!options_over && strcmp(a, "-h") == 0) {
			p->help = true;
		} else if (!options_over && strncmp(a, "--", 2) == 0) {
			int r = parse_long(p, argv, argc, &i);

			if (r != 0)
				return r;
		} else if (!options_over && a[0] == '-' && a[1] != '\0') {
			return usage_error(cli, "unknown option %s", a);
		} else if (!cli->command) {
			cli->command = find_command(commands, a);
			if (!cli->command)
				return usage_error(cli, "unknown command '%s'",
				                   a);
		} else {
			cli->argv[cli->argc++] = a;
		}
	}
	return 0;
}

static int check_arguments(const struct cli *cli)
{
	const struct cli_command *c = cli->command;

	if (cli->argc < c->args_min)
		return usage_error(cli, "%s needs %s", c->name, c->arguments);
	if (cli->argc > c->args_max)
		return usage_error(cli, "%s takes %s, and '%s' is too much",
		                   c->name,
		                   *c->arguments ? c->arguments : "no argument",
		                   cli->argv[c->args_max]);
	return 0;
}

static int load_config(struct parse *p)
{
	struct config_sources src = {.file = p->config_file,
	                             .flags = p->flags,
	                             .flag_count = p->flag_count};
	struct error err = ERROR_NULL;
	int level;

	if (config_load(&p->cli->cfg, &src, &err) < 0) {
		(void)cli_fail(&err);
		return EXIT_USAGE;
	}
	level = log_level_from_name(p->cli->cfg.log_level);
	/* What the command line has to say it says itself; its modules' log is
	 * for warnings, unless more was asked for. */
	log_open("comfymux", LOG_TO_STDERR,
	         level > LOG_LEVEL_INFO ? (enum log_level)level
	                                : LOG_LEVEL_WARN);
	p->cli->comfyui_named =
		config_origin_of(&p->cli->cfg, "comfyui") != CONFIG_DEFAULT;
	return 0;
}

int cli_main(const struct cli_command *commands, int argc, char **argv)
{
	struct cli cli = {.limit = 20};
	struct parse p = {.cli = &cli};
	int r = parse_args(&p, commands, argc, argv);

	if (r != 0)
		return r;
	if (p.version)
		return cli_printf("comfymux %s\n", comfymux_version);
	if (p.help)
		return cli.command ? help_command(cli.command)
		                   : help_all(commands);
	if (!cli.command)
		return usage_error(&cli, "which command?");
	r = check_arguments(&cli);
	/* A doctor is asked when the configuration may be wrong. */
	if (r == 0 && cli.command->run != cmd_doctor)
		r = load_config(&p);
	if (r == 0)
		r = cli.command->run(&cli);
	config_deinit(&cli.cfg);
	return r;
}

static int read_stdin(struct buf *text, struct error *err)
{
	for (;;) {
		char *room = buf_reserve(text, STDIN_CHUNK);
		ssize_t n;

		if (!room)
			return error_set(err, ERR_LIMIT,
			                 "stdin: more than %u bytes are no "
			                 "workflow",
			                 WORKFLOW_SIZE_MAX);
		n = read(STDIN_FILENO, room, STDIN_CHUNK);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_set_errno(err, errno, "cannot read stdin");
		if (n == 0)
			return 0;
		buf_commit(text, (size_t)n);
	}
}

static int read_file(const char *file, struct buf *text, struct error *err)
{
	char *data;
	size_t len;
	int r;

	if (strcmp(file, "-") == 0)
		return read_stdin(text, err);
	r = fd_read_file(file, WORKFLOW_SIZE_MAX, &data, &len);
	if (r == -EFBIG)
		return error_set(err, ERR_LIMIT,
		                 "%s: larger than the %u bytes that a workflow "
		                 "may have",
		                 file, WORKFLOW_SIZE_MAX);
	if (r < 0)
		return error_set_errno(err, -r, "cannot read %s", file);
	r = buf_append(text, data, len);
	free(data);
	return r < 0 ? error_set_nomem(err, "the workflow") : 0;
}

int cli_set(struct buf *text, const char *assignment, struct error *err)
{
	cleanup_buf struct buf changed = BUF_INIT(WORKFLOW_SIZE_MAX);
	struct json workflow;
	struct buf swap;

	if (workflow_parse(&workflow, text->data, text->len, "workflow", err) ||
	    workflow_set(&changed, workflow, assignment, err))
		return -1;
	swap = *text;
	*text = changed;
	changed = swap;
	return 0;
}

int cli_read_file(const char *file, struct buf *text, struct error *err)
{
	struct json workflow;

	if (read_file(file, text, err) < 0 ||
	    workflow_parse(&workflow, text->data, text->len, file, err) < 0)
		return -1;
	/* A {"prompt": ...} wrapper was taken off by the parser. */
	if (workflow.text.p != text->data || workflow.text.n != text->len) {
		size_t skip = (size_t)(workflow.text.p - text->data);

		buf_consume(text, skip);
		text->len = workflow.text.n;
	}
	return 0;
}

void cli_put_unreadable(struct buf *out, const struct error *why)
{
	(void)buf_json_key(out, "unreadable");
	(void)buf_json_string(out, why->text, strlen(why->text));
}

static int read_workflow(const struct cli *cli, const char *file,
                         struct buf *text, struct error *err)
{
	if (cli_read_file(file, text, err) < 0)
		return -1;
	for (size_t i = 0; i < cli->set_count; i++) {
		if (cli_set(text, cli->sets[i], err) < 0)
			return error_prefix(err, "--set");
	}
	return 0;
}

int cli_read_workflow(const struct cli *cli, const char *file, struct buf *text,
                      struct error *err)
{
	if (read_workflow(cli, file, text, err) == 0)
		return 0;
	/* Whatever is wrong with the file or a --set, it is the command line
	 * that names them. */
	if (err->code != ERR_INTERNAL)
		err->code = ERR_INVALID;
	return -1;
}

static void output_file(struct json item, struct buf *out)
{
	struct json name = json_get(item, "filename");
	struct json folder = json_get(item, "subfolder");
	struct json type = json_get(item, "type");
	cleanup_buf struct buf path = BUF_INIT(4096);

	if (!json_is(name, JSON_STRING))
		return;
	if (json_is(folder, JSON_STRING) && json_raw_string(folder).n > 0) {
		(void)json_string_decode(folder, &path);
		(void)buf_putc(&path, '/');
	}
	(void)json_string_decode(name, &path);
	(void)buf_printf(out, "  %s", log_safe(path.data, path.len));
	if (json_is(type, JSON_STRING) && !json_string_eq(type, "output"))
		(void)buf_printf(out, " (%.*s)", (int)json_raw_string(type).n,
		                 json_raw_string(type).p);
	(void)buf_putc(out, '\n');
}

/* Not every output is files: recordings show text and [true]. */
static void output_key(struct json key, struct json list, struct buf *out)
{
	struct json_iter it;
	struct json item;

	json_iter_init(&it, list);
	while (json_iter_next(&it, NULL, &item)) {
		if (json_is(item, JSON_OBJECT)) {
			output_file(item, out);
		} else if (json_is(item, JSON_STRING)) {
			cleanup_buf struct buf text = BUF_INIT(4096);
			struct span k = json_raw_string(key);

			(void)json_string_decode(item, &text);
			(void)buf_printf(out, "  %.*s: %s\n", (int)k.n, k.p,
			                 log_safe(text.data, text.len));
		}
	}
}

void cli_outputs_text(struct json outputs, struct buf *out)
{
	struct json_iter nodes;
	struct json node, output;

	json_iter_init(&nodes, outputs);
	while (json_iter_next(&nodes, &node, &output)) {
		struct json_iter keys;
		struct json key, list;

		(void)buf_printf(out, "Node %.*s:\n",
		                 (int)json_raw_string(node).n,
		                 json_raw_string(node).p);
		json_iter_init(&keys, output);
		while (json_iter_next(&keys, &key, &list))
			output_key(key, list, out);
	}
}

/*
 * cmd_status.c - `comfymux status`: the supervisor's state.
 */
#include <inttypes.h>

#include "common/cleanup.h"
#include "workers/front/ask.h"

static int64_t number(struct json obj, const char *key)
{
	int64_t n = 0;

	(void)json_int64(json_get(obj, key), &n);
	return n;
}

static int print_sessions(struct json sessions)
{
	struct json_iter it;
	struct json s;
	int r = EXIT_COMPLETED;

	json_iter_init(&it, sessions);
	while (r == EXIT_COMPLETED && json_iter_next(&it, NULL, &s)) {
		cleanup_free char *id = json_string_dup(json_get(s, "id"), 64);
		cleanup_free char *kind =
			json_string_dup(json_get(s, "kind"), 64);

		r = cli_printf("  %-6s %-5s worker %" PRId64 ", keeper %" PRId64
		               ", uid %" PRId64 ", %" PRId64
		               " in flight, %" PRId64 " restarts\n",
		               id ? id : "?", kind ? kind : "?",
		               number(s, "pid"), number(s, "keeper_pid"),
		               number(s, "uid"), number(s, "in_flight"),
		               number(s, "restarts"));
	}
	return r;
}

static int print_status(const struct cli *cli, struct json result)
{
	struct json upstream = json_get(result, "upstream");
	struct json prompts = json_get(result, "prompts");
	struct json sessions = json_get(result, "sessions");
	cleanup_free char *version =
		json_string_dup(json_get(result, "version"), 64);
	cleanup_free char *url =
		json_string_dup(json_get(upstream, "url"), 4096);
	cleanup_free char *state =
		json_string_dup(json_get(upstream, "state"), 64);
	bool paused = false;
	int r;

	(void)json_bool(json_get(result, "paused"), &paused);
	r = cli_printf("comfymuxd %s, pid %" PRId64 "\n"
	               "upstream   %s: %s, %" PRId64 " reconnects\n"
	               "prompts    %s%" PRId64 " active, %" PRId64
	               " queued, %" PRId64 " retained\n"
	               "subscribers %" PRId64 "\n"
	               "sessions   %zu\n",
	               version ? version : "?", number(result, "pid"),
	               url ? url : "?", state ? state : "?",
	               number(upstream, "reconnects"), paused ? "paused; " : "",
	               number(prompts, "active"), number(prompts, "queued"),
	               number(prompts, "retained"),
	               number(result, "subscribers"), json_count(sessions));

	return r == EXIT_COMPLETED ? print_sessions(sessions) : r;
}

int cmd_status(struct cli *cli)
{
	return ask_and_print(cli, OP_STATUS, SPAN("{}"), ASK_FAIL,
	                     print_status);
}

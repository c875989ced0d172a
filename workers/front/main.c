/*
 * comfymux - the command line: a table of commands, one file each.
 */
#include "workers/front/cli.h"

#include <signal.h>

/* clang-format off */
static const struct cli_command commands[] = {
	{"run", "FILE", 1, 1,
	 CLI_OPT(JSON) | CLI_OPT(TIMEOUT) | CLI_OPT(SET) | CLI_OPT(PREVIEW),
	 "Run a workflow, show its progress, print its outputs.", cmd_run},
	{"submit", "FILE", 1, 1,
	 CLI_OPT(JSON) | CLI_OPT(SET) | CLI_OPT(HOLD),
	 "Queue a workflow and print its prompt id.", cmd_submit},
	{"watch", "[PROMPT_ID]", 0, 1,
	 CLI_OPT(JSON) | CLI_OPT(TIMEOUT),
	 "Show the progress of a prompt, or of all of yours.", cmd_watch},
	{"cancel", "PROMPT_ID|JOB", 1, 1, CLI_OPT(JSON),
	 "Take a prompt out of the queue, or interrupt it; or end a job.", cmd_cancel},
	{"queue", "", 0, 0, CLI_OPT(JSON),
	 "List what runs and waits.", cmd_queue},
	{"history", "", 0, 0, CLI_OPT(JSON) | CLI_OPT(LIMIT),
	 "List your prompts: queued and running, then the newest.", cmd_history},
	{"download", "NAME", 1, 1,
	 CLI_OPT(JSON) | CLI_OPT(OUTPUT) | CLI_OPT(SUBFOLDER) | CLI_OPT(TYPE) |
	 CLI_OPT(OVERWRITE),
	 "Fetch an output file from ComfyUI.", cmd_download},
	{"batch", "FILE...", 1, 1000000,
	 CLI_OPT(JSON) | CLI_OPT(TIMEOUT) | CLI_OPT(SET) | CLI_OPT(SWEEP) |
	 CLI_OPT(CONCURRENCY) | CLI_OPT(STOP_ON_ERROR) | CLI_OPT(DOWNLOAD) |
	 CLI_OPT(DETACH) |
	 CLI_OPT(OVERWRITE),
	 "Run many workflows: files, directories, JSON Lines, sweeps.",
	 cmd_batch},
	{"chain", "FILE", 1, 1,
	 CLI_OPT(JSON) | CLI_OPT(TIMEOUT) | CLI_OPT(KEEP_GOING) |
	 CLI_OPT(DETACH) |
	 CLI_OPT(DOWNLOAD) | CLI_OPT(OVERWRITE),
	 "Run workflows one after the other and hand images on.", cmd_chain},
	{"jobs", "", 0, 0, CLI_OPT(JSON),
	 "List your detached jobs.", cmd_jobs},
	{"attach", "JOB", 1, 1,
	 CLI_OPT(JSON) | CLI_OPT(DOWNLOAD) | CLI_OPT(OVERWRITE),
	 "Show a detached job until it is over; fetch its files.", cmd_attach},
	{"mcp", "", 0, 0, 0,
	 "Serve MCP on stdin and stdout, for an agent or an IDE.", cmd_mcp},
	{"status", "", 0, 0, CLI_OPT(JSON),
	 "Show the supervisor's state.", cmd_status},
	{"top", "", 0, 0, 0,
	 "Watch sessions and prompts live, and step in; h lists the keys.", cmd_top},
	{"pause", "", 0, 0, CLI_OPT(JSON),
	 "Give ComfyUI no more prompts; what is submitted waits.", cmd_pause},
	{"resume", "", 0, 0, CLI_OPT(JSON), "End a pause.", cmd_resume},
	{"doctor", "", 0, 0, CLI_OPT(JSON),
	 "Look for what keeps comfymux from working.", cmd_doctor},
	{"metrics", "", 0, 0, CLI_OPT(JSON),
	 "Print the supervisor's figures for Prometheus.", cmd_metrics},
	{"reconnect", "", 0, 0, CLI_OPT(JSON),
	 "Have the supervisor open its WebSocket anew.", cmd_reconnect},
	{"restart-workers", "[SESSION]", 0, 1, CLI_OPT(JSON),
	 "Replace the workers of one session, or of all; nothing is lost.",
	 cmd_restart_workers},
	{NULL, NULL, 0, 0, 0, NULL, NULL},
};
/* clang-format on */

int main(int argc, char **argv)
{
	/* A reader that goes away is an error of write(), not our death. */
	(void)signal(SIGPIPE, SIG_IGN);
	return cli_main(commands, argc, argv);
}

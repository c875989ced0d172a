/*
 * roles.c - see roles.h.
 */
#include "supervisor/roles.h"

#include "common/macros.h"

/* clang-format off */
const struct role_info roles[] = {
	[ROLE_KEEPER] = {
		.name = "keeper", .program = "comfymux",
		.uid = "the user's",
		.holds = "stdio, the user's files it opens, the session channel, "
			 "unanswered requests and the worker's records",
		.talks_to = "its worker; comfymuxd, by one connection as long as the session",
		.never_holds = "a connection to ComfyUI, anything of others",
		.death = "its worker sees EOF and leaves, or is made to; submitted prompts run on",
	},
	[ROLE_WORKER] = {
		.name = "worker", .program = "comfymux-worker",
		.ready_ms = 10000, .leave_ms = 2000, .term_ms = 2000, .kill_ms = 2000,
		.uid = "the service's; the user's if the keeper had to exec it",
		.holds = "session channel, bus, HTTP connections while a call runs",
		.talks_to = "its keeper, comfymuxd by the bus, ComfyUI by HTTP",
		.never_holds = "files but for descriptors handed down, the session's "
			       "stdio, anything of another session",
		.death = "obituary; the keeper gets a successor, after a delay if it "
			 "keeps dying, and replays what is unanswered with the "
			 "records; a fault signal also replaces the zygote",
	},
	[ROLE_ZYGOTE] = {
		.name = "zygote", .program = "comfymux-worker",
		.leave_ms = 2000, .kill_ms = 2000,
		.uid = "the service's",
		.holds = "one socketpair (fd 3), its children",
		.talks_to = "comfymuxd alone",
		.never_holds = "a loop, TLS or HTTP connections, a session's ends "
			       "beyond the fork",
		.death = "a fresh one is exec'd for the next fork; its workers live "
			 "on as children of comfymuxd",
	},
	[ROLE_SUPERVISOR] = {
		.name = "supervisor", .program = "comfymuxd",
		.uid = "the service's, or the user's own",
		.holds = "listener, upstream link, state directory, its ends of buses "
			 "and zygote, every client's queue",
		.talks_to = "ComfyUI, zygote, clients",
		.never_holds = "user files, stdio of sessions",
		.death = "the zygote leaves; workers poll on their own; keepers "
			 "re-attach them to a new one, which resumes from the store",
	},
	[ROLE_GUARDIAN] = {
		.name = "guardian", .program = "comfymuxd",
		.uid = "the service's, or root's where only root can make the socket",
		.holds = "the pid file's lock; left by --daemon alone, systemd does "
			 "without",
		.talks_to = "comfymuxd, by signals",
		.never_holds = "a socket, the state directory, the configuration "
			       "beyond the log's place",
		.death = "the supervisor serves on, and is not started again",
	},
};
/* clang-format on */
STATIC_ASSERT_ARRAY_SIZE(roles, ROLE_COUNT);

int roles_table(struct buf *out)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < ROLE_COUNT; i++) {
		const struct role_info *role = &roles[i];

		r = buf_printf(out, "| %s | %s | %s | %s | %s | %s | %s |\n",
		               role->name, role->program, role->uid,
		               role->holds, role->talks_to, role->never_holds,
		               role->death);
	}
	return r;
}

/*
 * cmd_beside.c - commands that programs of their own do, since they need what
 * the keeper shouldn't be linked with: `comfymux doctor` (HTTP) and `comfymux
 * top` (ncurses). They read command line and configuration themselves.
 */
#include <errno.h>
#include <unistd.h>

#include "common/program.h"
#include "workers/front/cli.h"

static int exec_beside(const struct cli *cli, const char *program)
{
	struct error err = ERROR_NULL;
	char *path = program_find(program, &err);

	if (!path)
		return cli_fail(&err);
	/* Nothing was taken out of it: the command has no arguments. */
	(void)execv(path, cli->argv);
	(void)error_set_errno(&err, errno, "cannot start %s", path);
	return cli_fail(&err);
}

/* A configuration that can't be read is one of its findings. */
int cmd_doctor(struct cli *cli)
{
	return exec_beside(cli, "comfymux-doctor");
}

int cmd_top(struct cli *cli)
{
	return exec_beside(cli, "comfymux-top");
}

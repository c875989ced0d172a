/*
 * cmd_doctor.c - `comfymux doctor`: a program of its own does it, since it
 * speaks HTTP. It reads the command line and the configuration itself: a
 * configuration that can't be read is one of its findings.
 */
#include <errno.h>
#include <unistd.h>

#include "common/program.h"
#include "workers/front/cli.h"

int cmd_doctor(struct cli *cli)
{
	struct error err = ERROR_NULL;
	char *path = program_find("comfymux-doctor", &err);

	if (!path)
		return cli_fail(&err);
	/* Nothing was taken out of it: the command has no arguments. */
	(void)execv(path, cli->argv);
	(void)error_set_errno(&err, errno, "cannot start %s", path);
	return cli_fail(&err);
}

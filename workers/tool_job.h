/*
 * tool_job.h - jobs of several workflows, for the tools that take a prompt's id
 * and understand a job's as well.
 */
#ifndef WORKERS_TOOL_JOB_H
#define WORKERS_TOOL_JOB_H

#include "ipc/message.h"
#include "workers/mcp_tools.h"

#define TOOL_JOB_ID_MAX 24 /* with its NUL */

/* Whether this is the id of a job: "j12". */
bool tool_is_job(struct json id);
#endif

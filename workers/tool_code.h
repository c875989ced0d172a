/*
 * tool_code.h - the code behind the tool table: what struct tool calls start,
 * cancel and destroy.
 */
#ifndef WORKERS_TOOL_CODE_H
#define WORKERS_TOOL_CODE_H

#include "workers/mcp_tools.h"

/* tool_execute.c */
void tool_sync_start(struct tool_call *c);
void tool_stream_start(struct tool_call *c);
void tool_submit_start(struct tool_call *c);
void tool_wait_start(struct tool_call *c);
void tool_execute_cancel(struct tool_call *c, bool stop);
void tool_wait_cancel(struct tool_call *c, bool stop);
void tool_execute_destroy(struct tool_call *c);

/* tool_job.c: jobs, and tools that take a prompt's id or a job's */
void tool_batch_start(struct tool_call *c);
void tool_chain_start(struct tool_call *c);
void tool_job_cancel(struct tool_call *c, bool stop);
void tool_job_destroy(struct tool_call *c);
void tool_await_start(struct tool_call *c);
void tool_await_cancel(struct tool_call *c, bool stop);
void tool_await_destroy(struct tool_call *c);
void tool_advance_start(struct tool_call *c);
void tool_abort_start(struct tool_call *c);
void tool_either_destroy(struct tool_call *c);

/* tool_query.c */
void tool_progress_start(struct tool_call *c);
void tool_cancel_start(struct tool_call *c);
void tool_queue_start(struct tool_call *c);
void tool_history_start(struct tool_call *c);
void tool_last_start(struct tool_call *c);
void tool_outputs_start(struct tool_call *c);
void tool_details_start(struct tool_call *c);
void tool_query_destroy(struct tool_call *c);

/* tool_files.c */
void tool_download_start(struct tool_call *c);
void tool_upload_start(struct tool_call *c);
void tool_transfer_destroy(struct tool_call *c);

/* tool_admin.c */
void tool_node_start(struct tool_call *c);
void tool_search_start(struct tool_call *c);
void tool_resources_start(struct tool_call *c);
void tool_look_destroy(struct tool_call *c);

#endif

/*
 * stream.h - from the link to the prompts: frames of ComfyUI's WebSocket, and
 * the link's coming and going. The hot path of the daemon.
 */
#ifndef SUPERVISOR_STREAM_H
#define SUPERVISOR_STREAM_H

#include "supervisor/supervisor.h"

extern const struct upstream_handlers stream_handlers;

void stream_init(struct supervisor *sv);
void stream_deinit(struct supervisor *sv);
/* A POST was taken: the link has to tell of it. */
void stream_expect_status(struct supervisor *sv);
/* Reads again the frames of a prompt that ComfyUI calls by another id. */
void stream_replay(struct supervisor *sv, const char *remote_id);
/* Once in a while: is the silence suspicious? */
void stream_sweep(struct supervisor *sv, int64_t now_ms);

#endif

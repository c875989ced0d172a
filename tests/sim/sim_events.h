/*
 * sim_events.h - the frames of the executor, as ComfyUI words them.
 */
#ifndef TESTS_SIM_EVENTS_H
#define TESTS_SIM_EVENTS_H

#include "common/buf.h"
#include "tests/sim/sim_exec.h"
#include "tests/sim/sim_files.h"

struct sim;

/* `sid` NULL: to all, without an id; else to that one, with it. */
void sim_event_status(struct sim *sim, const char *sid);
/* For a client that connects while its prompt runs. */
void sim_event_last_node(struct sim *sim, const char *sid, const char *node);

/* Lifecycle: to the owner (none without client_id), and into history. `data`
 * is the inside of the data object without prompt_id; may be NULL. */
void sim_event_message(struct sim_exec *x, const char *type,
                       const struct buf *data, bool broadcast);
void sim_event_blocked(struct sim_exec *x, const struct sim_node *n,
                       const char *message);
void sim_event_executing(struct sim_exec *x, const struct sim_node *n);
void sim_event_end(struct sim_exec *x);
/* `output`: JSON text. */
void sim_event_executed(struct sim_exec *x, const struct sim_node *n,
                        const char *output);

/* `n` is entered into the registry of progress, and the registry sent. */
void sim_event_progress_state(struct sim_exec *x, struct sim_node *n);
void sim_event_progress(struct sim_exec *x, const struct sim_node *n);
void sim_event_preview(struct sim_exec *x, const struct sim_blob *image,
                       const char *mime);
void sim_event_preview_metadata(struct sim_exec *x, const struct sim_node *n,
                                const struct sim_blob *image, const char *mime);
void sim_event_text(struct sim_exec *x, const struct sim_node *n,
                    const char *text);

/* "executed": [...] of error messages. */
void sim_put_executed(struct buf *b, const struct sim_graph *g);
/* A 32-bit big-endian number. */
void sim_put_u32(struct buf *b, uint32_t n);

#endif

/*
 * sim_emit.h - synthetic frames at a given rate, stamped with the time of their
 * making, for benchmarks.
 */
#ifndef TESTS_SIM_EMIT_H
#define TESTS_SIM_EMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/json_span.h"
#include "tests/sim/sim_loop.h"

struct sim;

#define SIM_EMIT_COUNT_MAX   1000000000
#define SIM_EMIT_PROMPTS_MAX 4096
#define SIM_EMIT_TEXTS       64 /* prompts whose large frames are kept ready */

enum sim_emit_kind {
	SIM_EMIT_SMALL,       /* a progress event */
	SIM_EMIT_STATE300,    /* a progress_state of 300 nodes */
	SIM_EMIT_PREVIEW200K, /* a type 4 frame with 200 KB of JPEG */
	SIM_EMIT_TEMPLATE,    /* the caller's own */
};

struct sim_emit {
	struct sim *sim;
	struct sim_timer timer;
	enum sim_emit_kind kind;
	char *to; /* NULL: all */
	char *template_text;
	char **prompts;
	size_t nprompts;
	uint64_t count, sent;
	double rate; /* frames a second; 0: as fast as they are taken */
	int64_t started_us;
	struct sim_blob *image;
	struct state_text *texts[SIM_EMIT_TEXTS];
	const char *text_of[SIM_EMIT_TEXTS]; /* the prompt of each */
};

void sim_emit_init(struct sim_emit *e, struct sim *sim);
void sim_emit_stop(struct sim_emit *e);
/* Replaces an emission that is under way. */
int sim_emit_start(struct sim_emit *e, struct json order, struct error *err);

#endif

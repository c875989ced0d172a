/*
 * sim_journal.h - what truly happened: one JSON object a line for each fact,
 * for tests to compare with what a client believes.
 */
#ifndef TESTS_SIM_JOURNAL_H
#define TESTS_SIM_JOURNAL_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/buf.h"
#include "common/error.h"

#define SIM_JOURNAL_MAX 268435456 /* bytes kept in memory */

struct sim_journal {
	struct buf lines;
	uint64_t seq;
	uint64_t lost; /* facts that didn't fit */
	FILE *file;    /* NULL: memory only */
};

int sim_journal_open(struct sim_journal *j, const char *path,
                     struct error *err);
void sim_journal_close(struct sim_journal *j);
/* Forgets the lines in memory; numbers go on. */
void sim_journal_reset(struct sim_journal *j);
/* `fields` is what stands behind {"seq":N,"t_ms":M,"fact":"...", e.g.
 * "\"prompt_id\":\"x\""; NULL or empty: nothing. */
void sim_journal_add(struct sim_journal *j, const char *fact,
                     const struct buf *fields);
/* Lines with a number above `after`. */
void sim_journal_put(const struct sim_journal *j, struct buf *b,
                     uint64_t after);

#endif

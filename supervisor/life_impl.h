/*
 * life_impl.h - what the files of life share with each other and nobody else.
 */
#ifndef SUPERVISOR_LIFE_IMPL_H
#define SUPERVISOR_LIFE_IMPL_H

#include "supervisor/life.h"

/* life.c: answers those who wait for the POST's result: it was accepted. */
void life_reply(struct supervisor *sv, struct prompt *p,
                const struct life_news *news);
/* life_end.c */
void life_end(struct supervisor *sv, struct prompt *p,
              const struct life_news *news);

/* life_cancel.c: asks ComfyUI to stop a prompt that it has. */
void life_start_cancel(struct supervisor *sv, struct prompt *p);
/* Answers those who wait for a cancel. */
void life_answer_cancels(struct prompt *p, const char *how);

#endif

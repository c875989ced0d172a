/*
 * mcp_progress.h - the progress notifications of one call: what to tell, and
 * when. Pure: knows neither timer nor line.
 *
 * MCP wants each number greater than the one before it. What we are told stands
 * still (a queue), repeats, and falls back (the next workflow of a batch): it
 * is mapped to one rising scale on which news that is not larger, and the
 * repetition that keeps a client from giving up, make a tiny step.
 *
 * Clients lose a notification that comes together with the result and complain
 * about it. So what is likely to be followed by the end at once waits a moment:
 * the first news of a call, which may be a short one, and what its last node
 * does. Other news is told as it comes.
 */
#ifndef WORKERS_MCP_PROGRESS_H
#define WORKERS_MCP_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#define MCP_PROGRESS_GAP_MS      250   /* at most four a second */
#define MCP_PROGRESS_SETTLE_MS   40    /* from such news to telling it */
#define MCP_PROGRESS_REPEAT_MS   15000 /* told again after that */
#define MCP_PROGRESS_MESSAGE_MAX 256   /* bytes of text kept */
/* The number told is of 1, with nine digits. */
#define MCP_PROGRESS_UNITS 1000000000
/* What a tool says is taken as this much at most: the rest is for the tiny
 * steps, which never reach 1. */
#define MCP_PROGRESS_SAID_MAX 0.99

struct mcp_progress {
	int64_t told;    /* in units; -1: nothing yet */
	int64_t told_ms; /* when; of the start before that */
	int64_t wanted;  /* in units */
	int64_t news_ms; /* of the first news not told, -1: none */
	bool near_end;   /* it waits a moment */
	char message[MCP_PROGRESS_MESSAGE_MAX + 1];
};

/* `told`: what a predecessor has told, in units; -1: nothing. */
void mcp_progress_init(struct mcp_progress *p, int64_t told, int64_t now_ms);
/* Of a number that was told; never less than what it was made of. */
int64_t mcp_progress_units(double number);
/* Takes in a state; `message` may be NULL. What is no larger and says nothing
 * else is no news. `near_end`: the result may follow at once. */
void mcp_progress_set(struct mcp_progress *p, double fraction,
                      const char *message, bool near_end, int64_t now_ms);
/* When mcp_progress_next() will have something, on the clock of `now_ms`. */
int64_t mcp_progress_due_ms(const struct mcp_progress *p);
/* What is to be told now: the number, as JSON text; false if nothing is. */
bool mcp_progress_next(const struct mcp_progress *p, int64_t now_ms,
                       char number[24]);
/* It was told. Without this call it is due again. */
void mcp_progress_told(struct mcp_progress *p, int64_t now_ms);

#endif

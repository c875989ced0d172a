/*
 * mcp_progress.c - see mcp_progress.h.
 */
#include "workers/mcp_progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define UNITS_MAX (MCP_PROGRESS_UNITS - 1)
/* A tiny step is this part of what is left: at four a second for a day, the
 * longest a call may take, a thirtieth of it is still there. */
#define STEP_PART 100000

void mcp_progress_init(struct mcp_progress *p, int64_t told, int64_t now_ms)
{
	*p = (struct mcp_progress){
		.told = told, .told_ms = now_ms, .news_ms = -1};
}

int64_t mcp_progress_units(double number)
{
	/* Written so that NaN becomes -1 too. */
	if (!(number >= 0))
		return -1;
	if (number >= 1)
		return UNITS_MAX;
	return (int64_t)(number * MCP_PROGRESS_UNITS + 0.5);
}

/* Cut at a character's edge. */
static void copy_message(char *to, const char *from)
{
	size_t n = strlen(from);

	if (n > MCP_PROGRESS_MESSAGE_MAX) {
		n = MCP_PROGRESS_MESSAGE_MAX;
		while (n > 0 && ((unsigned char)from[n] & 0xc0) == 0x80)
			n--;
	}
	memcpy(to, from, n);
	to[n] = '\0';
}

void mcp_progress_set(struct mcp_progress *p, double fraction,
                      const char *message, bool near_end, int64_t now_ms)
{
	char text[MCP_PROGRESS_MESSAGE_MAX + 1];
	bool news = false;

	/* Written so that NaN becomes 0 too. */
	if (!(fraction > 0))
		fraction = 0;
	if (fraction > MCP_PROGRESS_SAID_MAX)
		fraction = MCP_PROGRESS_SAID_MAX;
	p->wanted = (int64_t)(fraction * MCP_PROGRESS_UNITS);
	news = p->wanted > p->told;
	if (message) {
		copy_message(text, message);
		if (strcmp(text, p->message) != 0) {
			memcpy(p->message, text, sizeof(text));
			news = true;
		}
	}
	if (!news)
		return;
	p->near_end = near_end;
	if (p->news_ms < 0)
		p->news_ms = now_ms;
}

int64_t mcp_progress_due_ms(const struct mcp_progress *p)
{
	bool settles = p->told < 0 || p->near_end;
	int64_t settled = p->news_ms + (settles ? MCP_PROGRESS_SETTLE_MS : 0);
	int64_t next = p->told_ms + MCP_PROGRESS_GAP_MS;

	if (p->told >= UNITS_MAX)
		return INT64_MAX;
	if (p->news_ms < 0)
		return p->told_ms + MCP_PROGRESS_REPEAT_MS;
	/* Nothing was told before the first. */
	return p->told < 0 || settled > next ? settled : next;
}

static int64_t next_units(const struct mcp_progress *p)
{
	int64_t step;

	if (p->wanted > p->told)
		return p->wanted;
	step = (UNITS_MAX - p->told) / STEP_PART;
	return p->told + (step > 0 ? step : 1);
}

bool mcp_progress_next(const struct mcp_progress *p, int64_t now_ms,
                       char number[24])
{
	int64_t units;
	size_t n;

	if (now_ms < mcp_progress_due_ms(p))
		return false;
	units = next_units(p);
	n = (size_t)snprintf(number, 24, "0.%09" PRId64, units);
	while (number[n - 1] == '0')
		number[--n] = '\0';
	if (number[n - 1] == '.')
		number[n - 1] = '\0';
	return true;
}

void mcp_progress_told(struct mcp_progress *p, int64_t now_ms)
{
	p->told = next_units(p);
	p->told_ms = now_ms;
	p->news_ms = -1;
}

/*
 * doctor.h - `comfymux doctor`: what could be wrong between a user and his
 * images, looked at one by one. A program of its own, since it speaks HTTP.
 *
 * Each check tells one finding: what was looked at, what it is, and for one
 * that isn't well what to do.
 */
#ifndef WORKERS_DOCTOR_DOCTOR_H
#define WORKERS_DOCTOR_DOCTOR_H

#include <stdbool.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/url.h"

#define DOCTOR_TEXT_MAX  1024
#define DOCTOR_WAIT_MS   5000 /* for an answer of supervisor or ComfyUI */
#define DOCTOR_REPLY_MAX (4u << 20)

enum verdict {
	VERDICT_OK,
	VERDICT_WARN,   /* works, could be better */
	VERDICT_FAIL,   /* doesn't work; exit status 1 */
	VERDICT_CONFIG, /* the same; exit status 2 */
	VERDICT_GONE,   /* doesn't answer; exit status 5 */
};

struct doctor {
	struct config cfg;
	bool json, color;
	unsigned count[VERDICT_GONE + 1];
	bool supervised; /* one answered */
	/* Of the supervisor, if one answered. */
	char *version;
};

/* One finding; `advice` may be NULL where all is well. Formats as printf. */
void doctor_tell(struct doctor *d, enum verdict v, const char *check,
                 const char *advice, const char *fmt, ...) ATTR_PRINTF(5, 6);

void doctor_programs(struct doctor *d);
void doctor_places(struct doctor *d);
void doctor_limits(struct doctor *d);
void doctor_supervisor(struct doctor *d);
/* HTTP, then the WebSocket. */
void doctor_comfyui(struct doctor *d);

#endif

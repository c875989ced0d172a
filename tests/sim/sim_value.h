/*
 * sim_value.h - what flows along a link of a simulated workflow: a JSON
 * constant, or a description of an image, a mask, a latent, a model.
 */
#ifndef TESTS_SIM_VALUE_H
#define TESTS_SIM_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/json_span.h"

enum sim_kind {
	SIM_V_JSON,   /* `text` is JSON: a constant of the workflow */
	SIM_V_IMAGE,  /* width, height, batch, seed (low 24 bits: the colour) */
	SIM_V_MASK,   /* width, height, batch */
	SIM_V_LATENT, /* width, height of the picture, batch, seed */
	SIM_V_TOKEN,  /* a model, a conditioning ...: `text` names it */
	SIM_V_BLOCKER, /* ExecutionBlocker; `text` is its message or NULL */
};

struct sim_value {
	unsigned refs;
	enum sim_kind kind;
	char *text;
	size_t len;
	uint32_t width, height, batch;
	uint64_t seed;
	bool patterned; /* an image with a pattern, not of one colour */
};

struct sim_value *sim_value_new(enum sim_kind kind);
struct sim_value *sim_value_ref(struct sim_value *v);
/* NULL is fine. */
void sim_value_unref(struct sim_value *v);
struct sim_value *sim_value_json(const char *text, size_t len);
struct sim_value *sim_value_int(int64_t n);
struct sim_value *sim_value_token(const char *name);
struct sim_value *sim_value_image(uint32_t w, uint32_t h, uint32_t batch,
                                  uint64_t seed);
/* NULL message: a silent blocker. */
struct sim_value *sim_value_blocker(const char *message);

/* The constant inside, JSON_MISSING for other kinds and for NULL. */
struct json sim_value_as_json(const struct sim_value *v);
/* A number or `otherwise`; strings and booleans count as Python's float(). */
double sim_value_number(const struct sim_value *v, double otherwise);
bool sim_value_truth(const struct sim_value *v);
/* True for a constant of the form ["id", slot], which is a link. */
bool sim_value_is_link(const struct sim_value *v);
/* The value as the server prints it into current_inputs: numbers and strings
 * as they are, everything else as a string. */
void sim_value_format(struct buf *b, const struct sim_value *v);

#endif

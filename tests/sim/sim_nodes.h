/*
 * sim_nodes.h - the table of node classes: what GET /object_info says, what
 * validation needs, and the function that acts a node out.
 */
#ifndef TESTS_SIM_NODES_H
#define TESTS_SIM_NODES_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "common/error.h"
#include "common/json_span.h"

struct sim_run;

/* What a node's function wants next. */
enum sim_step {
	SIM_STEP_DONE,        /* outputs and ui are set */
	SIM_STEP_WAIT,        /* call again when wait_us have passed */
	SIM_STEP_FAIL,        /* error type and message are set */
	SIM_STEP_INTERRUPTED, /* noticed the interrupt flag */
	SIM_STEP_EXPAND,      /* the expansion is set */
};

enum sim_class_flags {
	SIM_OUTPUT = 1 << 0,     /* an OUTPUT_NODE */
	SIM_ASYNC = 1 << 1,      /* a coroutine: others may run meanwhile */
	SIM_UNIQUE = 1 << 2,     /* its cache key holds its id */
	SIM_VOLATILE = 1 << 3,   /* IS_CHANGED: never cached */
	SIM_READS_FILE = 1 << 4, /* IS_CHANGED: content of an input file */
	SIM_OWN_RULES = 1 << 5, /* VALIDATE_INPUTS: no min, max or list check */
	SIM_LAZY = 1 << 6,      /* inputs marked "lazy" are asked for later */
	SIM_RAW = 1 << 7,       /* inputs marked "rawLink" stay links */
};

struct sim_class_row {
	const char *name;
	const char *display, *category;
	const char *input;  /* JSON: {"required": {...}, "optional": {...}} */
	const char *output; /* JSON: list of types */
	const char *output_name; /* JSON or NULL: as output */
	enum sim_step (*run)(struct sim_run *r);
	unsigned flags;
};

struct sim_class_input {
	char *name;
	struct json config; /* ["INT", {...}], in the row's text */
	struct json type;   /* string or list */
	struct json info;   /* object or missing */
	bool required, lazy, raw;
};

struct sim_class {
	const struct sim_class_row *row;
	struct sim_class_input *inputs;
	size_t ninputs;
	char **outputs; /* names of types */
	size_t noutputs;
};

/* Parses the table; an error names the row that is wrong. */
int sim_nodes_init(struct error *err);
void sim_nodes_deinit(void);
/* NULL if there is none. */
const struct sim_class *sim_nodes_find(const char *name);
const struct sim_class_input *sim_class_input(const struct sim_class *c,
                                              const char *name);
/* The object {name: {...}} of one class, or of all (`c` NULL). */
void sim_nodes_info(struct buf *b, const struct sim_class *c);

extern const struct sim_class_row sim_class_rows[];
extern const size_t sim_class_row_count;

#endif

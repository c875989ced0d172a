/*
 * sim_text.h - text as ComfyUI writes it: JSON by Python's json.dumps and
 * numbers by Python's repr.
 */
#ifndef TESTS_SIM_TEXT_H
#define TESTS_SIM_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "common/json_span.h"

/* A JSON string in which everything beyond ASCII is escaped as \uXXXX. */
int sim_put_string(struct buf *b, const char *s);
int sim_put_string_n(struct buf *b, const char *s, size_t len);
/* A list of JSON strings. */
int sim_put_strings(struct buf *b, char *const *list, size_t n);
/* repr() of a float: "1.0", "0.75", "1e-06", "NaN". */
int sim_put_float(struct buf *b, double v);
/* As sim_put_float, or without a fraction when `integer`. */
int sim_put_number(struct buf *b, double v, bool integer);
/* The raw bytes of a JSON value. */
int sim_put_json(struct buf *b, struct json j);
/* str() or repr() of a JSON value as Python would print it in a message. */
int sim_put_python(struct buf *b, struct json j, bool repr);

/* strdup and strndup that end the program when memory is out: a test tool has
 * nothing better to do then. */
char *sim_strdup(const char *s);
char *sim_strndup(const char *s, size_t n);
void *sim_calloc(size_t n, size_t size);
void *sim_realloc(void *p, size_t n, size_t size);

#endif

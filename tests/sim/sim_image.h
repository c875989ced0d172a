/*
 * sim_image.h - small real pictures: PNG made to measure, one JPEG and one WEBP
 * that stand for all.
 */
#ifndef TESTS_SIM_IMAGE_H
#define TESTS_SIM_IMAGE_H

#include <stddef.h>

#include "tests/sim/sim_files.h"
#include "tests/sim/sim_value.h"

#define SIM_PIXELS_MAX 16777216 /* of one PNG */

/* The picture of an image value; `text` pairs (keyword, value, ..., NULL) go
 * into tEXt chunks. NULL if it is too large. */
struct sim_blob *sim_png(const struct sim_value *image,
                         const char *const *text);
/* Its alpha channel: all opaque. */
struct sim_blob *sim_png_alpha(const struct sim_value *image);
/* Width and height of a PNG; false if it is none. */
bool sim_png_size(const struct sim_blob *png, uint32_t *w, uint32_t *h);
/* A JPEG of at least `len` bytes: comment segments fill it up, and `serial`
 * makes it different from others. */
struct sim_blob *sim_jpeg(size_t len, unsigned serial);
struct sim_blob *sim_webp(void);

#endif

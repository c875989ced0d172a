/*
 * sim_options.h - the command line of comfysim.
 */
#ifndef TESTS_SIM_OPTIONS_H
#define TESTS_SIM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

#define SIM_SPEED_MAX 100000.0

struct sim_options {
	uint16_t port;
	double speed;
	double history_lag_ms; /* from execution_success to the history entry */
	const char *journal;   /* NULL: none */
	const char *comfyui_version;
	bool quiet;
	/* what older and newer servers do otherwise */
	bool ignore_prompt_id;
	bool no_execution_success;
	bool no_progress_state;
	bool strict_uuid;
	bool no_jobs_api;
	bool no_interrupt_id;
	bool fixed_overlap;
	bool help, version;
};

int sim_options_parse(struct sim_options *o, int argc, char **argv,
                      struct error *err);
extern const char sim_options_help[];

#endif

/*
 * sim.h - the parts of the simulator and what ties them together.
 */
#ifndef TESTS_SIM_H
#define TESTS_SIM_H

#include "tests/sim/sim_clients.h"
#include "tests/sim/sim_emit.h"
#include "tests/sim/sim_exec.h"
#include "tests/sim/sim_faults.h"
#include "tests/sim/sim_files.h"
#include "tests/sim/sim_journal.h"
#include "tests/sim/sim_options.h"
#include "tests/sim/sim_queue.h"
#include "tests/sim/sim_server.h"
#include "tests/sim/sim_stats.h"

struct sim {
	struct sim_options options;
	struct sim_server *server;
	struct sim_clients clients;
	struct sim_queue queue;
	struct sim_exec exec;
	struct sim_files files;
	struct sim_journal journal;
	struct sim_faults faults;
	struct sim_emit emit;
	struct sim_stats stats;
};

/* A restart of the server: queue, history and cache are gone, files stay. */
void sim_forget(struct sim *sim);

#endif

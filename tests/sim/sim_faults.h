/*
 * sim_faults.h - what goes wrong, on command. Rules for HTTP replies live here;
 * orders to sockets are carried out at once by sim_faults_order().
 */
#ifndef TESTS_SIM_FAULTS_H
#define TESTS_SIM_FAULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/json_span.h"
#include "tests/sim/sim_loop.h"
#include "tests/sim/sim_server.h"

struct sim;

#define SIM_RULES_MAX 64

enum sim_rule_kind {
	SIM_RULE_STATUS,   /* answered instead of the handler */
	SIM_RULE_DELAY,    /* the reply waits */
	SIM_RULE_TRUNCATE, /* the reply ends early */
	SIM_RULE_CUT,      /* handled, but no reply: FIN */
	SIM_RULE_RESET,    /* handled, but no reply: RST */
};

struct sim_rule {
	enum sim_rule_kind kind;
	char path[256];  /* with everything below it; "" matches all */
	char method[16]; /* "" matches all */
	uint64_t left;   /* requests it is still for; 0: no end */
	int status;
	int64_t ms;
	size_t keep_bytes;
};

struct sim_faults {
	struct sim *sim;
	struct sim_rule rules[SIM_RULES_MAX];
	size_t nrules;
	struct sim_timer relisten; /* ends refuse and restart */
	struct sim_timer restart;  /* begins one, when its reply is out */
	int64_t down_us;
};

void sim_faults_init(struct sim_faults *f, struct sim *sim);
void sim_faults_clear(struct sim_faults *f);

/* True if the reply is already made. */
bool sim_fault_before(struct sim_faults *f, const char *method,
                      const char *path, struct sim_reply *reply);
void sim_fault_after(struct sim_faults *f, const char *method, const char *path,
                     struct sim_reply *reply);

/* Carries out {"fault": NAME, ...}; `*matched` counts sockets. */
int sim_faults_order(struct sim_faults *f, struct json order, size_t *matched,
                     struct error *err);

#endif

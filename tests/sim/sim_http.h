/*
 * sim_http.h - ComfyUI's HTTP interface: routes and the shapes of answers.
 */
#ifndef TESTS_SIM_HTTP_H
#define TESTS_SIM_HTTP_H

#include "tests/sim/sim_server.h"

struct sim;

/* Callbacks for the server module. */
void sim_http_request(void *arg, const struct sim_request *req,
                      struct sim_reply *reply);
int sim_http_upgrade(void *arg, const struct sim_request *req,
                     struct sim_reply *reply);

/* --- for the files that answer ------------------------------------------- */

typedef void sim_handler(struct sim *sim, const struct sim_request *req,
                         struct sim_reply *reply, const char *tail);

/* A query parameter, "" if it has no value, NULL if it isn't there. */
const char *sim_query(const struct sim_request *req, const char *name);
/* Says that the body is JSON. */
void sim_reply_json(struct sim_reply *reply);
void sim_reply_text(struct sim_reply *reply, int status, const char *text);
/* What aiohttp answers to an exception. */
void sim_reply_crash(struct sim_reply *reply);

sim_handler sim_post_prompt;
sim_handler sim_get_view;
sim_handler sim_post_upload;
sim_handler sim_get_jobs;
sim_handler sim_get_job;
sim_handler sim_post_job_cancel;
sim_handler sim_post_jobs_cancel;
sim_handler sim_control_fault;
sim_handler sim_control_emit;
sim_handler sim_control_journal;
sim_handler sim_control_stats;
sim_handler sim_control_reset;

#endif

/*
 * job_worker.h - the worker of a detached job: no keeper, no session channel,
 * nothing but a bus.
 *
 * It asks the supervisor what there is to do, works on it with the engines of
 * batch.h and chain.h, and has each intent and each end stored. When the bus
 * breaks it leaves at once: what it was about to submit is then its
 * successor's, and never submitted twice.
 */
#ifndef WORKERS_JOB_WORKER_H
#define WORKERS_JOB_WORKER_H

#include "workers/worker.h"

/* `start` as filled in by the zygote; its session descriptor is closed. The
 * exit status: 0 when the job is over. */
int job_worker_run(const struct worker_start *start);

#endif

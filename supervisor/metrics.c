/*
 * metrics.c - see metrics.h.
 */
#include "supervisor/metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/resource.h>

#include "common/clock.h"
#include "common/version.h"
#include "supervisor/supervisor.h"

static void head(struct buf *out, const char *name, const char *type,
                 const char *help)
{
	(void)buf_printf(out, "# HELP comfymux_%s %s\n# TYPE comfymux_%s %s\n",
	                 name, help, name, type);
}

static void value(struct buf *out, const char *name, uint64_t v)
{
	(void)buf_printf(out, "comfymux_%s %" PRIu64 "\n", name, v);
}

static void counter(struct buf *out, const char *name, const char *help,
                    uint64_t v)
{
	head(out, name, "counter", help);
	value(out, name, v);
}

static void gauge(struct buf *out, const char *name, const char *help,
                  uint64_t v)
{
	head(out, name, "gauge", help);
	value(out, name, v);
}

static void labelled(struct buf *out, const char *name, const char *label,
                     const char *text, uint64_t v)
{
	(void)buf_printf(out, "comfymux_%s{%s=\"%s\"} %" PRIu64 "\n", name,
	                 label, text, v);
}

/* --- the link ------------------------------------------------------------- */

static void write_link(struct supervisor *sv, struct buf *out)
{
	const struct counters *c = &sv->counters;
	static const enum upstream_state states[] = {
		UPSTREAM_CONNECTED, UPSTREAM_CONNECTING, UPSTREAM_WAITING,
		UPSTREAM_DOWN};
	enum upstream_state now = upstream_state(sv->upstream);

	head(out, "upstream_state", "gauge",
	     "Whether the WebSocket to ComfyUI is in this state.");
	for (size_t i = 0; i < ARRAY_SIZE(states); i++)
		labelled(out, "upstream_state", "state",
		         upstream_state_name(states[i]), states[i] == now);
	counter(out, "upstream_reconnects_total",
	        "Times the WebSocket was opened again.",
	        upstream_reconnects(sv->upstream));
	counter(out, "upstream_deaf_links_total",
	        "Links closed because they stood and heard nothing.", c->deaf);
	counter(out, "upstream_gaps_total", "Times the event stream broke.",
	        c->gaps);
	counter(out, "upstream_frames_total", "Frames from ComfyUI.",
	        c->frames);
	counter(out, "upstream_received_bytes_total",
	        "Bytes in frames from ComfyUI.", c->bytes);
	counter(out, "parse_errors_total", "Frames that were not understood.",
	        c->parse_errors);
	counter(out, "foreign_events_total",
	        "Events of prompts that came in elsewhere.", c->foreign);
	head(out, "events_total", "counter", "Events from ComfyUI by type.");
	for (unsigned i = 0; i < COMFY_EV_TYPE_COUNT; i++)
		labelled(out, "events_total", "type",
		         comfy_event_type_name((enum comfy_event_type)i),
		         c->events[i]);
}

static void write_http(struct supervisor *sv, struct buf *out)
{
	static const char *const classes[COUNTERS_HTTP_CLASSES] = {
		"none", "1xx", "2xx", "3xx", "4xx", "5xx"};
	const struct counters *c = &sv->counters;

	head(out, "http_requests_total", "counter",
	     "Answered HTTP requests to ComfyUI by status; none: no answer.");
	for (size_t i = 0; i < COUNTERS_HTTP_CLASSES; i++)
		labelled(out, "http_requests_total", "status", classes[i],
		         c->http_status[i]);
	counter(out, "polls_total",
	        "Questions for queue and history, one for all sessions.",
	        c->http_requests - c->posts);
}

/* --- prompts -------------------------------------------------------------- */

static void write_prompts(struct supervisor *sv, struct buf *out)
{
	const struct counters *c = &sv->counters;
	uint64_t executing = sv->tracker.executing_count;
	bool silent = clock_ms() - sv->last_frame_ms >= SUPERVISOR_SILENCE_MS;

	counter(out, "prompts_accepted_total", "Prompts taken over.",
	        c->accepted);
	head(out, "prompts_ended_total", "counter", "Prompts by outcome.");
	labelled(out, "prompts_ended_total", "outcome", "completed",
	         c->completed);
	labelled(out, "prompts_ended_total", "outcome", "rejected",
	         c->rejected);
	labelled(out, "prompts_ended_total", "outcome", "failed",
	         c->failed >= c->rejected ? c->failed - c->rejected : 0);
	gauge(out, "prompts_executing", "Prompts that ComfyUI runs.",
	      executing);
	gauge(out, "prompts_outstanding",
	      "Prompts that ComfyUI has, running or waiting.",
	      sv->tracker.outstanding_count);
	gauge(out, "prompts_waiting", "Prompts that wait for their turn here.",
	      sv->tracker.queue.waiting);
	gauge(out, "prompts_stalled",
	      "Prompts that run while ComfyUI has said nothing for 30 s.",
	      silent ? executing : 0);
	gauge(out, "submissions_paused",
	      "Whether an operator has paused submissions.", sv->paused);
	counter(out, "store_errors_total",
	        "Failures of the database of prompts.", c->store_errors);
}

/* --- clients -------------------------------------------------------------- */

static void write_latency(struct supervisor *sv, struct buf *out)
{
	const struct histogram *h = &sv->counters.latency;
	static const char name[] = "event_latency_seconds";
	uint64_t sum = 0;

	head(out, name, "histogram",
	     "From a frame's receipt to the write of what it caused.");
	for (size_t i = 0; i < HISTOGRAM_BOUNDS; i++) {
		sum += h->counts[i];
		(void)buf_printf(
			out, "comfymux_%s_bucket{le=\"%g\"} %" PRIu64 "\n",
			name, (double)histogram_bounds_us[i] / 1e6, sum);
	}
	sum += h->counts[HISTOGRAM_BOUNDS];
	(void)buf_printf(out,
	                 "comfymux_%s_bucket{le=\"+Inf\"} %" PRIu64 "\n"
	                 "comfymux_%s_sum %.6f\ncomfymux_%s_count %" PRIu64
	                 "\n",
	                 name, sum, name, (double)h->sum_us / 1e6, name, sum);
}

static void write_clients(struct supervisor *sv, struct buf *out)
{
	const struct counters *c = &sv->counters;
	size_t subscribers = 0;
	struct list *it;

	list_for_each (it, &sv->hub.peers) {
		subscribers +=
			list_entry(it, struct peer, link)->subscriber.count > 0;
	}
	gauge(out, "connections", "Clients of the Unix socket.",
	      sv->hub.peer_count);
	gauge(out, "subscribers", "Connections with a subscription.",
	      subscribers);
	counter(out, "connections_total", "Connections accepted.", c->clients);
	counter(out, "connections_refused_total", "Turned away at the door.",
	        c->clients_refused);
	counter(out, "connections_shed_total",
	        "Disconnected: broke a bound, or took nothing.",
	        c->clients_shed);
	counter(out, "requests_total", "Request lines of clients.",
	        c->requests);
	counter(out, "bad_requests_total", "Of them, not understood.",
	        c->bad_requests);
	counter(out, "event_deliveries_total",
	        "Event lines queued for a client.", c->deliveries);
	counter(out, "queue_folds_total",
	        "Events superseded while they waited for a client.", c->folded);
	counter(out, "queue_missed_total",
	        "Events left out for clients that read too slowly.", c->missed);
	counter(out, "queue_snapshots_total",
	        "Snapshots sent, first ones and those that close a gap.",
	        c->snapshots);
	write_latency(sv, out);
}

static void write_sessions(struct supervisor *sv, struct buf *out)
{
	static const char *const kinds[] = {"mcp", "batch", "chain", "run"};
	const struct counters *c = &sv->counters;
	uint64_t count[ARRAY_SIZE(kinds)] = {0};
	struct session *s;
	struct list *it;

	list_for_each (it, &sv->nursery.sessions) {
		s = list_entry(it, struct session, link);
		for (size_t i = 0; s->keeper && i < ARRAY_SIZE(kinds); i++)
			count[i] += strcmp(s->kind, kinds[i]) == 0;
	}
	head(out, "sessions", "gauge", "Sessions by kind.");
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		labelled(out, "sessions", "kind", kinds[i], count[i]);
	counter(out, "workers_forked_total", "Workers forked.", c->workers);
	counter(out, "worker_restarts_total",
	        "Of them, successors of one that was gone.",
	        c->worker_restarts);
	counter(out, "worker_failures_total",
	        "Workers that died or were killed unasked.", c->workers_failed);
	counter(out, "zygotes_started_total", "Zygotes started.", c->zygotes);
}

/* --- the process ---------------------------------------------------------- */

static void write_process(struct supervisor *sv, struct buf *out)
{
	struct rusage u = {0};

	(void)getrusage(RUSAGE_SELF, &u);
	head(out, "build_info", "gauge", "The release, as a label.");
	labelled(out, "build_info", "version", comfymux_version, 1);
	head(out, "start_time_seconds", "gauge",
	     "When the supervisor started, since the epoch.");
	(void)buf_printf(out, "comfymux_start_time_seconds %.3f\n",
	                 (double)sv->started_epoch_ms / 1e3);
	head(out, "cpu_seconds_total", "counter",
	     "Processor time of the supervisor.");
	(void)buf_printf(
		out, "comfymux_cpu_seconds_total %.6f\n",
		(double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
			(double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) /
				1e6);
}

int metrics_write(struct supervisor *sv, struct buf *out)
{
	write_link(sv, out);
	write_http(sv, out);
	write_prompts(sv, out);
	write_clients(sv, out);
	write_sessions(sv, out);
	write_process(sv, out);
	return buf_ok(out) ? 0 : -ENOMEM;
}

/*
 * sim_main.c - comfysim, a stand-in for a ComfyUI server: the same HTTP and
 * WebSocket interface, with nodes that are acted out on timers instead of being
 * run. README.md tells how to use it and how to make it misbehave.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "common/version.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_events.h"
#include "tests/sim/sim_http.h"
#include "tests/sim/sim_nodes.h"

#define EXIT_USAGE 2

static struct sim_server *signalled;

static void on_signal(int sig)
{
	if (signalled)
		sim_server_stop(signalled);
}

static void on_queue_change(void *arg)
{
	sim_event_status(arg, NULL);
}

static void journal_socket(struct sim *sim, const char *fact, const char *sid)
{
	struct buf b = BUF_INIT(65536);

	(void)buf_puts(&b, "\"client_id\":");
	(void)buf_json_string(&b, sid, strlen(sid));
	sim_journal_add(&sim->journal, fact, &b);
	buf_deinit(&b);
}

static void *on_open(void *arg, struct sim_conn *conn,
                     const struct sim_request *req)
{
	struct sim *sim = arg;
	struct sim_client *c = sim_client_open(&sim->clients, conn,
	                                       sim_query(req, "clientId"));

	journal_socket(sim, "ws_open", c->sid);
	sim_event_status(sim, c->sid);
	if (sim->exec.client_id && sim->exec.last_node &&
	    strcmp(sim->exec.client_id, c->sid) == 0)
		sim_event_last_node(sim, c->sid, sim->exec.last_node);
	return c;
}

static void on_message(void *arg, struct sim_conn *conn, const char *text,
                       size_t len)
{
	sim_client_message(sim_conn_data(conn), text, len);
}

static void on_close(void *arg, struct sim_conn *conn)
{
	struct sim_client *c = sim_conn_data(conn);

	if (!c)
		return;
	journal_socket(arg, "ws_close", c->sid);
	sim_client_close(c);
}

void sim_forget(struct sim *sim)
{
	sim_exec_forget(&sim->exec);
	sim_queue_clear(&sim->queue);
	sim_journal_add(&sim->journal, "forgot", NULL);
}

static int set_up(struct sim *sim, struct error *err)
{
	static const struct sim_server_ops ops = {
		.on_request = sim_http_request,
		.on_upgrade = sim_http_upgrade,
		.on_open = on_open,
		.on_message = on_message,
		.on_close = on_close,
	};

	if (sim_nodes_init(err) ||
	    sim_journal_open(&sim->journal, sim->options.journal, err))
		return -1;
	sim_loop_set_speed(sim->options.speed);
	sim_clients_init(&sim->clients);
	sim->clients.fixed_overlap = sim->options.fixed_overlap;
	sim->clients.feature_flags = !sim->options.no_progress_state;
	sim_queue_init(&sim->queue, on_queue_change, sim);
	sim_files_init(&sim->files);
	sim_exec_init(&sim->exec, sim);
	sim_faults_init(&sim->faults, sim);
	sim_emit_init(&sim->emit, sim);
	return sim_server_new(&sim->server, sim->options.port, &ops, sim, err);
}

static void tear_down(struct sim *sim)
{
	signalled = NULL;
	sim_emit_stop(&sim->emit);
	sim_server_free(sim->server);
	sim_exec_deinit(&sim->exec);
	sim_queue_clear(&sim->queue);
	sim_clients_deinit(&sim->clients);
	sim_files_clear(&sim->files);
	sim_journal_close(&sim->journal);
	sim_nodes_deinit();
}

static void catch_signals(void)
{
	struct sigaction a = {.sa_handler = on_signal};

	(void)sigaction(SIGTERM, &a, NULL);
	(void)sigaction(SIGINT, &a, NULL);
	a.sa_handler = SIG_IGN;
	(void)sigaction(SIGPIPE, &a, NULL);
}

int main(int argc, char **argv)
{
	static struct sim sim;
	struct error err = ERROR_NULL;

	if (sim_options_parse(&sim.options, argc, argv, &err)) {
		(void)fprintf(stderr, "comfysim: %s\nTry comfysim --help.\n",
		              err.text);
		return EXIT_USAGE;
	}
	if (sim.options.help) {
		(void)fputs(sim_options_help, stdout);
		return EXIT_SUCCESS;
	}
	if (sim.options.version) {
		(void)printf("comfysim %s\n", comfymux_version);
		return EXIT_SUCCESS;
	}
	log_open("comfysim", LOG_TO_STDERR,
	         sim.options.quiet ? LOG_LEVEL_ERROR : LOG_LEVEL_INFO);
	if (set_up(&sim, &err)) {
		(void)fprintf(stderr, "comfysim: %s\n", err.text);
		return EXIT_FAILURE;
	}
	signalled = sim.server;
	catch_signals();
	(void)printf("comfysim: listening on http://127.0.0.1:%u\n",
	             sim_server_port(sim.server));
	(void)fflush(stdout);
	sim_server_run(sim.server);
	tear_down(&sim);
	return EXIT_SUCCESS;
}

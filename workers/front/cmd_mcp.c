/*
 * cmd_mcp.c - `comfymux mcp`: an MCP server on stdin and stdout. It moves lines
 * between the client and a worker, which knows what they mean, and answers by
 * itself only when no worker can.
 *
 * Nothing is started before the first line: clients start servers only to look
 * at them. stdout is put where nobody but us writes to it; whatever else prints
 * goes to stderr. When the client doesn't read, first progress is left out,
 * then nothing is read any more, from the worker and from the client; answers
 * are never left out.
 */
#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/event_loop.h"
#include "common/log.h"
#include "ipc/client.h"
#include "ipc/lines.h"
#include "workers/front/cli.h"
#include "workers/front/keeper.h"
#include "workers/front/mcp_lines.h"
#include "workers/front/out.h"

/* Bytes towards the client above which progress is left out ... */
#define UNREAD_HIGH (256u << 10)
/* ... and above which nothing is read. Generous, since a client may well write
 * all of its requests before it reads. */
#define UNREAD_MAX  (32u << 20)
#define BACKLOG_MAX (1u << 20) /* towards the worker, likewise */
#define READ_BYTES  65536
/* Unanswered requests above which no more are read for a moment: most are
 * answered at once, and whoever sends thousands needn't be refused. But they
 * may all be waits, whose cancels have to be read. */
#define CROWD_MAX   (KEEPER_REQUESTS_MAX / 2)
#define CROWD_MS    50
#define CROWD_LINES 8 /* read after such a moment */
/* After the end of stdin: for the worker's next answer (after MCP_END_MS it
 * says that there is none, unless it is stuck), ... */
#define LAST_ANSWER_MS 6000
#define LEAVE_MS       1500 /* ... for its end when all is answered, ... */
#define FLUSH_MS       5000 /* ... for a client that doesn't read. */

struct mcp {
	const struct cli *cli;
	struct ev_loop *loop;
	struct keeper *keeper; /* NULL before the first line */
	struct lines lines;
	struct out out;
	int out_fd;
	ev_io in;
	ev_signal interrupt, terminate, hangup;
	ev_timer crowd; /* the moment */
	unsigned crowd_lines;
	ev_timer last; /* deadline, once stdin has ended */
	bool in_over, worker_over, done;
	int status;
};

static void take_lines(struct mcp *m);

static void finish(struct mcp *m, int status)
{
	if (m->done)
		return;
	m->done = true;
	m->status = status;
	ev_break(m->loop, EVBREAK_ALL);
}

/* Everything that was to be said is said. */
static void finish_if_through(struct mcp *m)
{
	if (m->in_over && m->worker_over && out_queued(&m->out) == 0)
		finish(m, EXIT_COMPLETED);
}

/* --- to the client ------------------------------------------------------- */

static bool is_crowded(struct mcp *m)
{
	if (!m->keeper || m->crowd_lines > 0 ||
	    keeper_pending(m->keeper) < CROWD_MAX)
		return false;
	if (!ev_is_active(&m->crowd)) {
		ev_timer_set(&m->crowd, CROWD_MS / 1000.0, 0.);
		ev_timer_start(m->loop, &m->crowd);
	}
	return true;
}

/* How much is read depends on how much waits to be written. */
static void balance(struct mcp *m)
{
	bool unread = out_queued(&m->out) > UNREAD_MAX;
	bool backlog = m->keeper && keeper_backlog(m->keeper) > BACKLOG_MAX;

	if (m->keeper)
		keeper_pause(m->keeper, unread);
	if (m->in_over)
		return;
	if (unread || backlog || is_crowded(m)) {
		ev_io_stop(m->loop, &m->in);
	} else if (!ev_is_active(&m->in)) {
		ev_io_start(m->loop, &m->in);
		/* Whole lines may wait in the buffer. */
		ev_feed_event(m->loop, &m->in, EV_CUSTOM);
	}
}

static void on_crowd(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct mcp *m = container_of(w, struct mcp, crowd);

	m->crowd_lines = CROWD_LINES;
	balance(m);
}

/* One whole message. */
static void tell(struct mcp *m, struct span line)
{
	int r = out_write_line(&m->out, line.p, line.n);

	if (r < 0 && r != -EPIPE) {
		/* A client that waits for an answer which doesn't come is
		 * worse off than one whose server ends. */
		log_error("mcp", "cannot queue an answer of %zu bytes: %s",
		          line.n, strerror(-r));
		finish(m, EXIT_FAILED);
		return;
	}
	balance(m);
}

static void refuse(struct mcp *m, struct span line, const char *why)
{
	cleanup_buf struct buf b = BUF_INIT(RPC_REPLY_MAX);

	if (mcp_line_refuse(&b, line, RPC_INTERNAL_ERROR, why) < 0)
		log_error("mcp", "no memory to say: %s", why);
	else if (b.len > 0)
		tell(m, span_make(b.data, b.len));
}

static void on_drained(void *user)
{
	struct mcp *m = user;

	balance(m);
	finish_if_through(m);
}

/* Nobody reads any more: as good as the end of stdin, with nobody to tell. */
static void on_broken(void *user)
{
	finish(user, EXIT_COMPLETED);
}

/* --- from the worker ----------------------------------------------------- */

static bool is_progress(struct span line)
{
	static const char start[] =
		"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"";

	return line.n > sizeof(start) - 1 &&
	       memcmp(line.p, start, sizeof(start) - 1) == 0;
}

static void on_output(void *user, uint64_t number, struct span bytes)
{
	struct mcp *m = user;

	if (out_queued(&m->out) > UNREAD_HIGH && is_progress(bytes))
		return;
	tell(m, bytes);
}

/* As long as it answers there may be more. */
static void put_off_end(struct mcp *m)
{
	int ms = LEAVE_MS;

	if (!m->in_over)
		return;
	if (m->worker_over)
		ms = FLUSH_MS;
	else if (keeper_pending(m->keeper) > 0)
		ms = LAST_ANSWER_MS;
	ev_timer_stop(m->loop, &m->last);
	ev_timer_set(&m->last, ms / 1000.0, 0.);
	ev_timer_start(m->loop, &m->last);
}

static void on_response(void *user, uint64_t number, struct span bytes)
{
	put_off_end(user);
	if (bytes.n > 0)
		tell(user, bytes);
	else
		balance(user);
}

static void on_failed(void *user, struct span request, const struct error *err)
{
	refuse(user, request, err->text);
}

static void on_gone(void *user, const struct error *err)
{
	struct mcp *m = user;

	if (err)
		log_error("mcp", "%s", err->text);
	/* The next line tries again. */
	m->keeper = keeper_free(m->keeper);
	m->worker_over = m->in_over;
	finish_if_through(m);
}

static void on_log(void *user, struct span text)
{
	log_warn("mcp", "%s", log_safe(text.p, text.n));
}

static bool may_open(void *user, struct span request, const char *path)
{
	return mcp_line_names(request, path);
}

static void on_room(void *user)
{
	balance(user);
}

/* --- from the client ----------------------------------------------------- */

static int start_session(struct mcp *m, struct error *err)
{
	static const struct keeper_handlers handlers = {
		.on_output = on_output,
		.on_response = on_response,
		.on_gone = on_gone,
		.on_failed = on_failed,
		.on_log = on_log,
		.may_open = may_open,
		.on_room = on_room,
	};
	struct keeper_config kc = {.cfg = &m->cli->cfg,
	                           .kind = "mcp",
	                           .comfyui_named = m->cli->comfyui_named};
	struct error no_bus = ERROR_NULL;

	/* A supervisor is started by the first submission, not by this. */
	kc.bus_fd = client_connect(&m->cli->cfg, NULL, &no_bus);
	if (kc.bus_fd < 0 && no_bus.code != ERR_UNREACHABLE) {
		*err = no_bus;
		return -1;
	}
	kc.no_bus = no_bus.text;
	m->keeper = keeper_new(m->loop, &kc, &handlers, m, err);
	return m->keeper ? 0 : -1;
}

static void pass_on(struct mcp *m, struct span line)
{
	struct error err = ERROR_NULL;

	if (mcp_line_is_blank(line))
		return;
	if (m->crowd_lines > 0)
		m->crowd_lines--;
	if ((!m->keeper && start_session(m, &err) < 0) ||
	    keeper_request(m->keeper, line, NULL, &err) == 0)
		refuse(m, line, err.text);
	balance(m);
}

static void too_long(struct mcp *m)
{
	cleanup_buf struct buf b = BUF_INIT(RPC_REPLY_MAX);

	(void)rpc_error(&b, SPAN_NULL, RPC_INVALID_REQUEST,
	                "A line of more than 15 MiB was left out", SPAN_NULL);
	if (buf_ok(&b))
		tell(m, span_make(b.data, b.len));
}

/* As many as may be passed on now. */
static void take_lines(struct mcp *m)
{
	enum lines_result r;
	struct span line;

	while (!m->done && ev_is_active(&m->in) &&
	       (r = lines_next(&m->lines, &line)) != LINES_NONE) {
		if (r == LINES_TOO_LONG)
			too_long(m);
		else
			pass_on(m, line);
	}
}

/* A last line without a newline counts if it is whole: half a line means that
 * its writer was cut short. */
static void take_rest(struct mcp *m)
{
	struct rpc_message parsed;
	enum lines_result r;
	struct span line;

	while (!m->done && (r = lines_rest(&m->lines, &line)) != LINES_NONE) {
		if (r == LINES_TOO_LONG)
			continue;
		rpc_parse(&parsed, line.p, line.n);
		if (parsed.kind != RPC_INVALID)
			pass_on(m, line);
	}
}

static void on_end_of_input(struct mcp *m)
{
	ev_io_stop(m->loop, &m->in);
	take_rest(m);
	m->in_over = true;
	m->worker_over = !m->keeper;
	if (m->keeper)
		keeper_end(m->keeper);
	put_off_end(m);
	finish_if_through(m);
}

/* The worker had its time; what it said is still to be read by the client. */
static void on_last(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct mcp *m = container_of(w, struct mcp, last);

	if (m->worker_over) {
		log_warn("mcp", "%zu bytes were not read by the client",
		         out_queued(&m->out));
		finish(m, EXIT_COMPLETED);
		return;
	}
	m->worker_over = true;
	m->keeper = keeper_free(m->keeper);
	ev_timer_set(w, FLUSH_MS / 1000.0, 0.);
	ev_timer_start(loop, w);
	finish_if_through(m);
}

/* -1: nothing is there after all. Its O_NONBLOCK isn't ours to set, so it is
 * asked first. */
static ssize_t read_input(char *to, size_t room)
{
	struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};

	if (poll(&p, 1, 0) <= 0) {
		errno = EAGAIN;
		return -1;
	}
	return read(STDIN_FILENO, to, room < READ_BYTES ? room : READ_BYTES);
}

static void on_input(struct ev_loop *loop, ev_io *w, int revents)
{
	struct mcp *m = container_of(w, struct mcp, in);
	size_t room;
	char *to;
	ssize_t n;

	take_lines(m);
	if (!ev_is_active(w) || m->done)
		return;
	to = lines_reserve(&m->lines, &room);
	if (!to) {
		log_error("mcp", "no memory for a line of input");
		finish(m, EXIT_FAILED);
		return;
	}
	n = read_input(to, room);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0) {
		lines_commit(&m->lines, (size_t)n);
		take_lines(m);
		return;
	}
	if (n < 0)
		log_warn("mcp", "stdin: %s", strerror(errno));
	on_end_of_input(m);
}

static void on_signal(struct ev_loop *loop, ev_signal *w, int revents)
{
	finish(w->data, EXIT_COMPLETED);
}

/* --- life ---------------------------------------------------------------- */

/* A standard descriptor that is closed is as good as an empty one, and its
 * number must not become something else's. */
static int fill_gap(int fd, int flags, struct error *err)
{
	if (fcntl(fd, F_GETFD) >= 0)
		return 0;
	if (open("/dev/null", flags) != fd)
		return error_set(err, ERR_SYSTEM,
		                 "descriptor %d is closed and cannot be opened",
		                 fd);
	return 0;
}

/* stdout becomes ours alone; descriptor 1 is stderr from now on. */
static int take_stdout(struct error *err)
{
	int fd;

	if (fill_gap(STDIN_FILENO, O_RDONLY, err) < 0)
		return -1;
	fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	if (fd < 0) {
		(void)error_set_errno(err, errno, "stdout cannot be used");
		return -1;
	}
	if (fill_gap(STDERR_FILENO, O_WRONLY, err) < 0 ||
	    dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
		(void)error_set_errno(err, errno, "stdout cannot be moved");
		(void)close(fd);
		return -1;
	}
	return fd;
}

static void watch_signal(struct mcp *m, ev_signal *w, int number)
{
	ev_signal_init(w, on_signal, number);
	w->data = m;
	ev_signal_start(m->loop, w);
}

static void start(struct mcp *m)
{
	lines_init(&m->lines, RPC_LINE_MAX, NULL);
	out_init(&m->out, m->loop, m->out_fd, UNREAD_MAX + 2 * RPC_REPLY_MAX);
	m->out.on_drained = on_drained;
	m->out.on_broken = on_broken;
	m->out.user = m;
	ev_timer_init(&m->last, on_last, 0., 0.);
	ev_timer_init(&m->crowd, on_crowd, 0., 0.);
	watch_signal(m, &m->interrupt, SIGINT);
	watch_signal(m, &m->terminate, SIGTERM);
	watch_signal(m, &m->hangup, SIGHUP);
	ev_io_init(&m->in, on_input, STDIN_FILENO, EV_READ);
	ev_io_start(m->loop, &m->in);
}

static void stop(struct mcp *m)
{
	m->keeper = keeper_free(m->keeper);
	ev_io_stop(m->loop, &m->in);
	ev_timer_stop(m->loop, &m->last);
	ev_timer_stop(m->loop, &m->crowd);
	ev_signal_stop(m->loop, &m->interrupt);
	ev_signal_stop(m->loop, &m->terminate);
	ev_signal_stop(m->loop, &m->hangup);
	lines_deinit(&m->lines);
	out_deinit(&m->out);
	(void)close(m->out_fd);
}

int cmd_mcp(struct cli *cli)
{
	struct mcp m = {.cli = cli};
	struct error err = ERROR_NULL;

	/* Before anything else is opened: it would get a standard number. */
	m.out_fd = take_stdout(&err);
	if (m.out_fd < 0)
		return cli_fail(&err);
	m.loop = ev_default_loop(0);
	if (!m.loop) {
		(void)close(m.out_fd);
		(void)error_set(&err, ERR_SYSTEM,
		                "no event loop: libev found no way to wait "
		                "here");
		return cli_fail(&err);
	}
	event_loop_sleep_long(m.loop);
	start(&m);
	while (!m.done)
		(void)ev_run(m.loop, 0);
	stop(&m);
	return m.status;
}

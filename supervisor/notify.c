/*
 * notify.c - see notify.h.
 */
#include "supervisor/notify.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

#define TEXT_MAX 512

static void tell(const char *text)
{
	int r = sd_notify(0, text);

	if (r < 0)
		log_warn("notify", "systemd can't be told: %s", strerror(-r));
}

/* Closes all that came: none of it is of use. */
static int refuse(int count, struct error *err, const char *why,
                  const char *path)
{
	for (int i = 0; i < count; i++)
		(void)close(SD_LISTEN_FDS_START + i);
	return error_set(err, ERR_CONFIG,
	                 "systemd handed over %s; ListenStream= of "
	                 "comfymux.socket must be %s, as the key `socket` has "
	                 "it, and nothing else",
	                 why, path);
}

bool notify_has_socket(void)
{
	return sd_listen_fds(0) > 0;
}

int notify_take_socket(const char *path, int *fdp, struct error *err)
{
	int n = sd_listen_fds(1), r;

	*fdp = -1;
	if (n < 0)
		return error_set_errno(err, -n,
		                       "cannot take the sockets of systemd");
	if (n == 0)
		return 0;
	if (n > 1)
		return refuse(n, err, "several sockets", path);
	r = sd_is_socket_unix(SD_LISTEN_FDS_START, SOCK_STREAM, 1, path, 0);
	if (r <= 0)
		return refuse(n, err, "another socket", path);
	*fdp = SD_LISTEN_FDS_START;
	return 0;
}

static void on_watchdog(struct ev_loop *loop, ev_timer *w, int revents)
{
	tell("WATCHDOG=1");
}

void notify_ready(struct notify *n, struct ev_loop *loop)
{
	uint64_t usec = 0;
	double period_s;
	int r = sd_watchdog_enabled(0, &usec);

	n->loop = loop;
	ev_timer_init(&n->watchdog, on_watchdog, 0., 0.);
	if (r < 0)
		log_warn("notify", "the watchdog of systemd: %s", strerror(-r));
	if (r > 0) {
		period_s = (double)usec / 1e6 / NOTIFY_WATCHDOG_SHARE;
		ev_timer_set(&n->watchdog, period_s, period_s);
		ev_timer_start(loop, &n->watchdog);
	}
	tell("READY=1");
}

void notify_reloading(void)
{
	char text[TEXT_MAX];

	/* systemd wants to know which reload a READY is the end of. */
	(void)snprintf(text, sizeof(text),
	               "RELOADING=1\nMONOTONIC_USEC=%" PRId64, clock_us());
	tell(text);
}

void notify_reloaded(void)
{
	tell("READY=1");
}

void notify_stopping(const char *why)
{
	char text[TEXT_MAX];

	(void)snprintf(text, sizeof(text), "STOPPING=1\nSTATUS=stopping: %s",
	               why);
	tell(text);
}

void notify_status(const char *fmt, ...)
{
	char text[TEXT_MAX] = "STATUS=";
	size_t head = strlen(text);
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text + head, sizeof(text) - head, fmt, ap);
	va_end(ap);
	tell(text);
}

void notify_deinit(struct notify *n)
{
	if (n->loop)
		ev_timer_stop(n->loop, &n->watchdog);
	n->loop = NULL;
}

/*
 * client_connect.c - client_connect() of client.h: finding the supervisor's
 * socket, and making sure whose it is.
 */
#include "ipc/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/account.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "ipc/creds.h"
#include "ipc/listener.h"

#define RETRY_MS 10

/* A blocking connect() would wait for as long as the server has no room for
 * one more connection; a non-blocking one says EAGAIN. */
static int connect_patiently(int fd, const struct sockaddr_un *sa,
                             unsigned patience_ms)
{
	const struct timespec nap = {.tv_nsec = RETRY_MS * 1000000L};
	int64_t deadline_ms = clock_ms() + patience_ms;

	while (connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) < 0) {
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN || clock_ms() >= deadline_ms)
			return -errno;
		(void)nanosleep(&nap, NULL);
	}
	return 0;
}

/* Anybody can make a socket in /tmp and call it a supervisor. */
static int check_server(const struct config *cfg, int fd, const char *path,
                        struct error *err)
{
	struct creds creds;
	uid_t uid, service;

	if (creds_get(&creds, fd, err) < 0)
		return error_prefix(err, "%s", path);
	uid = creds.uid;
	creds_deinit(&creds);
	if (uid == 0 || uid == geteuid() ||
	    (account_find_user(cfg->user, &service, NULL, NULL) == 0 &&
	     uid == service))
		return 0;
	return error_set(err, ERR_DENIED,
	                 "%s is served by user %u, who is neither root, nor "
	                 "yourself, nor the user %s (key user); not connecting",
	                 path, (unsigned)uid, cfg->user);
}

static int explain(int errnum, const char *path, unsigned patience_ms,
                   struct error *err)
{
	switch (errnum) {
	case EACCES:
	case EPERM:
		return error_set(err, ERR_DENIED,
		                 "no permission to connect to %s", path);
	case ENOENT:
	case ENOTDIR:
		return error_set(err, ERR_UNREACHABLE, "%s does not exist",
		                 path);
	case ECONNREFUSED:
		return error_set(err, ERR_UNREACHABLE, "nobody serves %s",
		                 path);
	case EAGAIN:
		return error_set(err, ERR_UNREACHABLE,
		                 "%s has been too busy to accept a connection "
		                 "for %u ms",
		                 path, patience_ms);
	default:
		(void)error_set_errno(err, errnum, "cannot connect to %s",
		                      path);
		if (err)
			err->code = ERR_UNREACHABLE;
		return -1;
	}
}

static int try_path(const struct config *cfg, const char *path,
                    unsigned patience_ms, struct error *err)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	cleanup_close int fd = -1;
	int r;

	if (strlen(path) > LISTENER_PATH_MAX)
		return error_set(err, ERR_CONFIG,
		                 "the socket path %s is too long: the system "
		                 "takes %d bytes",
		                 path, LISTENER_PATH_MAX);
	memcpy(sa.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_set_errno(err, errno, "cannot make a socket");
	r = connect_patiently(fd, &sa, patience_ms);
	if (r < 0)
		return explain(-r, path, patience_ms, err);
	if (check_server(cfg, fd, path, err) < 0)
		return -1;
	return steal_fd(&fd);
}

static int connect_to_any(const struct config *cfg, unsigned patience_ms,
                          char **pathp, struct error *err)
{
	cleanup_buf struct buf tried = BUF_INIT(ERROR_TEXT_MAX);
	struct error why;
	const char *path;
	bool is_explicit;
	int fd;

	for (size_t i = 0;
	     (path = config_socket_candidate(cfg, i, &is_explicit)); i++) {
		fd = try_path(cfg, path, patience_ms, &why);
		if (fd >= 0) {
			if (!pathp || (*pathp = strdup(path)))
				return fd;
			(void)close(fd);
			return error_set_nomem(err, "the socket's path");
		}
		/* "Permission denied" is an answer, not "nobody there". */
		if (why.code != ERR_UNREACHABLE)
			return error_set(err, why.code, "%s", why.text);
		if (i > 0)
			(void)buf_puts(&tried, "; ");
		(void)buf_puts(&tried, why.text);
	}
	if (!buf_cstr(&tried))
		return error_set_nomem(err, "the reason");
	return error_set(err, ERR_UNREACHABLE, "no supervisor found: %s",
	                 tried.data);
}

int client_connect(const struct config *cfg, char **pathp, struct error *err)
{
	return connect_to_any(cfg, CLIENT_CONNECT_MS, pathp, err);
}

int client_connect_now(const struct config *cfg, struct error *err)
{
	return connect_to_any(cfg, 0, NULL, err);
}

/*
 * supervisor.c - the supervisor, asked by its socket: is it there, is it of the
 * same release, does it have its link.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/json_span.h"
#include "common/version.h"
#include "ipc/client.h"
#include "workers/doctor/doctor.h"

/* Two lines in answer to two. */
static int converse(int fd, struct buf *in, struct error *err)
{
	static const char ask[] = "{\"op\":\"hello\",\"id\":1,\"client\":"
				  "\"doctor\"}\n{\"op\":\"status\",\"id\":2}\n";
	int64_t until = clock_ms() + DOCTOR_WAIT_MS;
	size_t lines = 0;

	if (send(fd, ask, sizeof(ask) - 1, MSG_NOSIGNAL) < 0)
		return error_set_errno(err, errno, "cannot ask it");
	while (lines < 2) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int64_t left = until - clock_ms();
		char *room = buf_reserve(in, 65536);
		ssize_t n;

		if (left <= 0 || poll(&p, 1, (int)left) == 0)
			return error_set(err, ERR_TIMEOUT,
			                 "it takes connections and does not "
			                 "answer");
		if (!room)
			return error_set(err, ERR_LIMIT, "its answer is huge");
		n = recv(fd, room, 65536, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n <= 0)
			return error_set(err, ERR_PROTOCOL,
			                 "it closed the connection");
		for (ssize_t i = 0; i < n; i++)
			lines += room[i] == '\n';
		buf_commit(in, (size_t)n);
	}
	return 0;
}

static void check_version(struct doctor *d, struct json hello)
{
	d->version = json_string_dup(json_get(hello, "version"), 64);
	if (d->version && strcmp(d->version, comfymux_version) == 0)
		return;
	doctor_tell(d, VERDICT_WARN, "versions",
	            "restart the service, then `comfymux restart-workers`",
	            "the supervisor is %s, these programs are %s",
	            d->version ? d->version : "unknown", comfymux_version);
}

static void check_link(struct doctor *d, struct json status)
{
	struct json up = json_get(status, "upstream");
	cleanup_free char *url = json_string_dup(json_get(up, "url"), 4096);
	cleanup_free char *state = json_string_dup(json_get(up, "state"), 64);
	cleanup_free char *why =
		json_string_dup(json_get(up, "last_error"), 512);
	struct url mine, its;

	if (state && strcmp(state, "connected") == 0)
		doctor_tell(d, VERDICT_OK, "link", NULL,
		            "the supervisor is connected to %s", url);
	else
		doctor_tell(d, VERDICT_FAIL, "link",
		            "see the findings on ComfyUI below; the "
		            "supervisor's log has each attempt",
		            "the supervisor is not connected to %s (%s%s%s)",
		            url ? url : "?", state ? state : "?",
		            why ? ": " : "", why ? why : "");
	if (config_origin_of(&d->cfg, "comfyui") != CONFIG_DEFAULT && url &&
	    url_parse(&mine, d->cfg.comfyui, NULL) == 0 &&
	    url_parse(&its, url, NULL) == 0 && !url_eq(&mine, &its))
		doctor_tell(d, VERDICT_WARN, "link",
		            "unset COMFYUI_HOST and leave --comfyui out, or "
		            "have the supervisor use yours",
		            "you named %s, the supervisor serves %s: your "
		            "sessions poll on their own",
		            d->cfg.comfyui, url);
}

static void read_answers(struct doctor *d, const char *path,
                         const struct buf *in)
{
	const char *second = memchr(in->data, '\n', in->len);
	struct json hello, status;
	size_t n = (size_t)(second - in->data);

	second++;
	if (json_parse(&hello, in->data, n, 0, NULL) != JSON_OK ||
	    json_parse(&status, second, in->len - n - 2, 0, NULL) != JSON_OK) {
		doctor_tell(d, VERDICT_FAIL, "supervisor",
		            "is it comfymuxd that serves the socket?",
		            "%s answers something else than JSON", path);
		return;
	}
	d->supervised = true;
	doctor_tell(d, VERDICT_OK, "supervisor", NULL, "answers at %s", path);
	check_version(d, json_get(hello, "result"));
	check_link(d, json_get(status, "result"));
}

void doctor_supervisor(struct doctor *d)
{
	cleanup_buf struct buf in = BUF_INIT(DOCTOR_REPLY_MAX);
	cleanup_free char *path = NULL;
	struct error err = ERROR_NULL;
	cleanup_close int fd = client_connect(&d->cfg, &path, &err);

	if (fd < 0 && err.code == ERR_UNREACHABLE)
		doctor_tell(d, VERDICT_WARN, "supervisor",
		            "`service comfymux start`, or nothing: the first "
		            "submission starts one of your own unless "
		            "autostart is off or the system has a service",
		            "none runs (%s)", err.text);
	else if (fd < 0)
		doctor_tell(d, VERDICT_FAIL, "supervisor",
		            "see socket_mode, allow_users and allow_groups in "
		            "comfymux.conf, and the owner of the socket's "
		            "directory",
		            "%s", err.text);
	else if (converse(fd, &in, &err) < 0)
		doctor_tell(d, VERDICT_FAIL, "supervisor",
		            "see its log; if it hangs, restart it", "%s: %s",
		            path, err.text);
	else
		read_answers(d, path, &in);
}

/*
 * mcp_files.c - the user's files for tools: opened by the keeper as its user,
 * and only those named in the request.
 *
 * A tool gets a descriptor of its own, so that it may close it whenever it
 * likes; ours serves to tell the keeper when the file is complete.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "workers/mcp_call.h"
#include "workers/remote_file.h"

struct call_file {
	struct list node;
	struct mcp_call *call;
	struct remote_file *remote; /* NULL once it has ended */
	tool_file_cb *on_open;      /* NULL once it was called */
	tool_closed_cb *on_closed;
	bool write;
};

static void file_free(struct call_file *f)
{
	if (f->call->out == f)
		f->call->out = NULL;
	f->remote = remote_file_free(f->remote);
	list_del(&f->node);
	free(f);
}

void mcp_call_close_files(struct mcp_call *call)
{
	while (!list_empty(&call->files))
		file_free(list_entry(list_pop(&call->files), struct call_file,
		                     node));
}

static void on_open(void *user, int fd)
{
	struct call_file *f = user;
	struct tool_call *c = &f->call->c;
	tool_file_cb *cb = f->on_open;
	int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	struct error err = ERROR_NULL;

	f->on_open = NULL;
	if (own < 0)
		(void)error_set_errno(&err, errno, "cannot take over a file");
	/* Of a file that is read nothing more is to be told. */
	if (own < 0 || !f->write)
		file_free(f);
	cb(c, own, own < 0 ? &err : NULL);
}

static void on_closed(void *user, const char *path, const struct error *err)
{
	struct call_file *f = user;
	struct tool_call *c = &f->call->c;
	tool_file_cb *opened = f->on_open;
	tool_closed_cb *closed = f->on_closed;

	f->remote = NULL;
	file_free(f);
	if (opened)
		opened(c, -1, err);
	else if (closed)
		closed(c, path, err);
}

static int open_file(struct tool_call *c, const struct remote_file_wish *wish,
                     tool_file_cb *cb, struct error *err)
{
	static const struct remote_file_handlers handlers = {
		.on_open = on_open,
		.on_closed = on_closed,
	};
	struct mcp_call *call = mcp_call_of(c);
	struct call_file *f;

	if (!call->r->session->worker)
		return error_set(err, ERR_DENIED,
		                 "this session has no access to files");
	f = calloc(1, sizeof(*f));
	if (!f)
		return error_set_nomem(err, "a file");
	f->call = call;
	f->on_open = cb;
	f->write = wish->write;
	list_append(&call->files, &f->node);
	f->remote = remote_file_open(call->r->session->worker,
	                             call->r->line->number, wish, &handlers, f,
	                             err);
	if (!f->remote) {
		file_free(f);
		return -1;
	}
	if (f->write)
		call->out = f;
	return 0;
}

int tool_open_read(struct tool_call *c, const char *path, tool_file_cb *cb,
                   struct error *err)
{
	const struct remote_file_wish wish = {.path = path};

	return open_file(c, &wish, cb, err);
}

int tool_open_write(struct tool_call *c, const char *path, const char *name,
                    bool overwrite, tool_file_cb *cb, struct error *err)
{
	const struct remote_file_wish wish = {.path = path,
	                                      .name = name,
	                                      .write = true,
	                                      .overwrite = overwrite};

	if (mcp_call_of(c)->out)
		return error_set(err, ERR_BUSY,
		                 "a call writes one file at a time");
	return open_file(c, &wish, cb, err);
}

int tool_close_write(struct tool_call *c, bool keep, tool_closed_cb *cb,
                     struct error *err)
{
	struct call_file *f = mcp_call_of(c)->out;

	if (!f || f->on_open || f->on_closed)
		return error_set(err, ERR_INTERNAL,
		                 "there is no open file to be closed");
	f->on_closed = cb;
	remote_file_close(f->remote, keep);
	return 0;
}

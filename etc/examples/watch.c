/*
 * watch.c - watches any number of prompts over one connection, from a program
 * with an event loop of its own: here poll(), which waits for standard input as
 * well ("stop N" ends the watching of one).
 *
 *     cc watch.c $(pkg-config --cflags --libs comfymux) -o watch
 *     ./watch PROMPT_ID...
 */
#include <comfymux.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* One prompt that is watched. */
struct watch {
	const char *id;
	struct cmx_subscription *sub; /* NULL: not any more */
};

static size_t watching;

static void stop(struct watch *w)
{
	if (w->sub)
		watching--;
	cmx_unsubscribe(w->sub);
	w->sub = NULL;
}

static void on_progress(void *user, const struct cmx_progress *p)
{
	struct watch *w = user;

	printf("%s: %s", w->id, cmx_status_name(p->status));
	if (p->current_node)
		printf(", node %s, %.0f%%", p->current_node,
		       p->current_node_progress * 100);
	printf("\n");
	if (p->status == CMX_COMPLETED)
		stop(w);
}

static void on_error(void *user, const struct cmx_error *e)
{
	struct watch *w = user;

	printf("%s: failed at node %s: %s: %s\n", w->id,
	       e->node_id ? e->node_id : "-", e->type, e->message);
	stop(w);
}

static void on_command(struct watch *watches, int count)
{
	char line[64];
	ssize_t n = read(STDIN_FILENO, line, sizeof(line) - 1);
	int i;

	if (n <= 0)
		return;
	line[n] = '\0';
	if (sscanf(line, "stop %d", &i) == 1 && i >= 0 && i < count)
		stop(&watches[i]);
}

int main(int argc, char **argv)
{
	int count = argc - 1;
	struct watch *watches = calloc((size_t)count + 1, sizeof(*watches));
	struct pollfd p[2] = {{.events = POLLIN}, {.events = POLLIN}};
	struct cmx *c;

	if (!watches || cmx_new(&c, NULL) < 0) {
		fprintf(stderr, "watch: %s\n", cmx_last_error());
		return 2;
	}
	for (int i = 0; i < count; i++) {
		watches[i].id = argv[i + 1];
		if (cmx_subscribe(c, watches[i].id, on_progress, on_error,
		                  &watches[i], &watches[i].sub) < 0)
			fprintf(stderr, "watch: %s\n", cmx_last_error());
		else
			watching++;
	}
	p[0].fd = cmx_fd(c);
	p[1].fd = STDIN_FILENO;
	while (watching > 0 && poll(p, 2, -1) >= 0) {
		if (p[1].revents)
			on_command(watches, count);
		/* At its end nothing more is to be read. */
		if (p[1].revents & (POLLHUP | POLLERR | POLLNVAL))
			p[1].fd = -1;
		if (p[0].revents)
			cmx_dispatch(c);
	}
	cmx_free(c);
	free(watches);
	return 0;
}

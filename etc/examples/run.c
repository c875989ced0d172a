/*
 * run.c - runs one workflow and shows its progress; blocking.
 *
 *     cc run.c $(pkg-config --cflags --libs comfymux) -o run
 *     ./run workflow.json
 */
#include <comfymux.h>
#include <stdio.h>
#include <stdlib.h>

static char *read_file(const char *name)
{
	static char text[CMX_WORKFLOW_MAX + 1];
	FILE *f = fopen(name, "r");
	size_t n;

	if (!f) {
		perror(name);
		exit(2);
	}
	n = fread(text, 1, sizeof(text) - 1, f);
	text[n] = '\0';
	fclose(f);
	return text;
}

static void on_progress(void *user, const struct cmx_progress *p)
{
	(void)user;
	printf("Status: %s\n", cmx_status_name(p->status));
	if (p->current_node)
		printf("Node: %s\nProgress: %.1f%%\n", p->current_node,
		       p->current_node_progress * 100);
	if (p->status == CMX_QUEUED && p->queue_position >= 0)
		printf("Queue: %lld before it\n", (long long)p->queue_position);
}

int main(int argc, char **argv)
{
	struct cmx *c;
	struct cmx_result *r;
	int code;

	if (argc != 2) {
		fprintf(stderr, "usage: run WORKFLOW\n");
		return 2;
	}
	if (cmx_new(&c, NULL) < 0) {
		fprintf(stderr, "run: %s\n", cmx_last_error());
		return 2;
	}
	if (cmx_events_available(c) == 1)
		printf("connected: progress in real time\n");
	else
		printf("polling: %s\n", cmx_last_error());

	code = cmx_run(c, read_file(argv[1]), 0, on_progress, NULL, &r);
	if (code < 0)
		fprintf(stderr, "run: %s\n", cmx_last_error());
	else
		printf("Result: %s\nImages: %s\n",
		       cmx_status_name(r->progress->status),
		       r->progress->outputs);
	cmx_result_free(r);
	cmx_free(c);
	return code < 0 ? 1 : 0;
}

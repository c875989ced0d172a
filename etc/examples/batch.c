/*
 * batch.c - runs five pictures of one workflow, three at a time; blocking.
 *
 *     cc batch.c $(pkg-config --cflags --libs comfymux) -o batch
 *     ./batch
 */
#include <comfymux.h>
#include <stdio.h>

#define COUNT 5

/* In its place: a workflow of yours, exported in API format. */
static const char workflow[] =
	"{\"3\": {\"class_type\": \"EmptyImage\", \"inputs\": {\"width\": 64,"
	"        \"height\": 64, \"batch_size\": 1, \"color\": %d}},"
	" \"9\": {\"class_type\": \"SaveImage\", \"inputs\": {\"images\":"
	"        [\"3\", 0], \"filename_prefix\": \"batch\"}}}";

static void on_item(void *user, size_t index, const struct cmx_result *r)
{
	(void)user;
	printf("Workflow %zu: %s\n", index, r->text ? r->text : "completed");
}

int main(void)
{
	struct cmx_batch_options o = CMX_BATCH_OPTIONS_INIT;
	char texts[COUNT][sizeof(workflow) + 16];
	const char *workflows[COUNT];
	struct cmx_results *all;
	struct cmx *c;
	int code;

	for (int i = 0; i < COUNT; i++) {
		snprintf(texts[i], sizeof(texts[i]), workflow, i * 1000);
		workflows[i] = texts[i];
	}
	if (cmx_new(&c, NULL) < 0) {
		fprintf(stderr, "batch: %s\n", cmx_last_error());
		return 2;
	}
	o.concurrency = 3;
	o.on_item = on_item;
	code = cmx_batch(c, workflows, COUNT, &o, &all);
	if (code < 0)
		fprintf(stderr, "batch: %s\n", cmx_last_error());
	for (size_t i = 0; all && i < all->count; i++)
		printf("%zu %s\n", i, all->items[i]->progress->outputs);
	cmx_results_free(all);
	cmx_free(c);
	return code < 0 ? 1 : 0;
}

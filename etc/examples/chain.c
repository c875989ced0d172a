/*
 * chain.c - three workflows, each of which works on the picture of the one
 * before; blocking.
 *
 *     cc chain.c $(pkg-config --cflags --libs comfymux) -o chain
 *     ./chain
 */
#include <comfymux.h>
#include <stdio.h>

static const char draw[] =
	"{\"3\": {\"class_type\": \"EmptyImage\", \"inputs\": {\"width\": 64,"
	"        \"height\": 64, \"batch_size\": 1, \"color\": 255}},"
	" \"7\": {\"class_type\": \"SaveImage\", \"inputs\": {\"images\":"
	"        [\"3\", 0], \"filename_prefix\": \"draw\"}}}";
static const char pass_on[] =
	"{\"1\": {\"class_type\": \"LoadImage\","
	"        \"inputs\": {\"image\": \"example.png\"}},"
	" \"9\": {\"class_type\": \"SaveImage\", \"inputs\": {\"images\":"
	"        [\"1\", 0], \"filename_prefix\": \"pass\"}}}";

int main(void)
{
	const struct cmx_step steps[] = {
		{.workflow = draw},
		{.workflow = pass_on,
	         .input_step = 0,
	         .input_node = "7",
	         .output_to = "image"},
		{.workflow = pass_on,
	         .input_step = 1,
	         .input_node = "9",
	         .output_to = "image"},
	};
	struct cmx_results *all;
	struct cmx *c;
	int code;

	if (cmx_new(&c, NULL) < 0) {
		fprintf(stderr, "chain: %s\n", cmx_last_error());
		return 2;
	}
	code = cmx_chain(c, steps, sizeof(steps) / sizeof(*steps), NULL, &all);
	if (code < 0)
		fprintf(stderr, "chain: %s\n", cmx_last_error());
	for (size_t i = 0; all && i < all->count; i++) {
		const struct cmx_result *r = all->items[i];

		printf("step %zu: %s", i, r->text ? r->text : "completed");
		if (r->handed)
			printf(", with %s", r->handed);
		printf("\n");
	}
	cmx_results_free(all);
	cmx_free(c);
	return code < 0 ? 1 : 0;
}

/*
 * sim_nodes.c - see sim_nodes.h. The rows are in sim_node_table.c.
 */
#include "tests/sim/sim_nodes.h"

#include <stdlib.h>
#include <string.h>

#include "common/map.h"
#include "tests/sim/sim_text.h"

static struct sim_class *classes;
static struct map by_name;

static void add_inputs(struct sim_class *c, struct json group, bool required)
{
	struct json_iter it;
	struct json key, value;

	json_iter_init(&it, group);
	while (json_iter_next(&it, &key, &value)) {
		struct sim_class_input *in;

		c->inputs = sim_realloc(c->inputs, c->ninputs + 1,
		                        sizeof(*c->inputs));
		in = &c->inputs[c->ninputs++];
		*in = (struct sim_class_input){
			.name = json_string_dup(key, 256),
			.config = value,
			.type = json_at(value, 0),
			.info = json_at(value, 1),
			.required = required,
		};
		(void)json_bool(json_get(in->info, "lazy"), &in->lazy);
		(void)json_bool(json_get(in->info, "rawLink"), &in->raw);
	}
}

static int parse_row(struct sim_class *c, const struct sim_class_row *row,
                     struct error *err)
{
	struct json input, output;

	c->row = row;
	if (json_parse(&input, row->input, strlen(row->input), 0, NULL) ||
	    json_parse(&output, row->output, strlen(row->output), 0, NULL))
		return error_set(err, ERR_INTERNAL, "node class %s: bad JSON",
		                 row->name);
	add_inputs(c, json_get(input, "required"), true);
	add_inputs(c, json_get(input, "optional"), false);
	c->noutputs = json_count(output);
	c->outputs = sim_calloc(c->noutputs, sizeof(*c->outputs));
	for (size_t i = 0; i < c->noutputs; i++)
		c->outputs[i] = json_string_dup(json_at(output, i), 256);
	if (map_add(&by_name, row->name, strlen(row->name), c))
		return error_set(err, ERR_INTERNAL, "node class %s: twice",
		                 row->name);
	return 0;
}

int sim_nodes_init(struct error *err)
{
	classes = sim_calloc(sim_class_row_count, sizeof(*classes));
	for (size_t i = 0; i < sim_class_row_count; i++) {
		if (parse_row(&classes[i], &sim_class_rows[i], err))
			return -1;
	}
	return 0;
}

void sim_nodes_deinit(void)
{
	for (size_t i = 0; classes && i < sim_class_row_count; i++) {
		struct sim_class *c = &classes[i];

		for (size_t k = 0; k < c->ninputs; k++)
			free(c->inputs[k].name);
		for (size_t k = 0; k < c->noutputs; k++)
			free(c->outputs[k]);
		free(c->inputs);
		free(c->outputs);
	}
	free(classes);
	classes = NULL;
	map_deinit(&by_name);
}

const struct sim_class *sim_nodes_find(const char *name)
{
	return map_get(&by_name, name, strlen(name));
}

const struct sim_class_input *sim_class_input(const struct sim_class *c,
                                              const char *name)
{
	for (size_t i = 0; i < c->ninputs; i++) {
		if (strcmp(c->inputs[i].name, name) == 0)
			return &c->inputs[i];
	}
	return NULL;
}

static void put_order(struct buf *b, struct json input)
{
	struct json_iter groups, members;
	struct json group, list, key, value;
	bool first_group = true;

	(void)buf_puts(b, ", \"input_order\": {");
	json_iter_init(&groups, input);
	while (json_iter_next(&groups, &group, &list)) {
		bool first = true;

		if (!first_group)
			(void)buf_puts(b, ", ");
		first_group = false;
		(void)sim_put_json(b, group);
		(void)buf_puts(b, ": [");
		json_iter_init(&members, list);
		while (json_iter_next(&members, &key, &value)) {
			if (!first)
				(void)buf_puts(b, ", ");
			first = false;
			(void)sim_put_json(b, key);
		}
		(void)buf_putc(b, ']');
	}
	(void)buf_putc(b, '}');
}

static void put_class(struct buf *b, const struct sim_class *c)
{
	const struct sim_class_row *row = c->row;
	struct json input;

	if (json_parse(&input, row->input, strlen(row->input), 0, NULL))
		return;
	(void)sim_put_string(b, row->name);
	(void)buf_printf(b, ": {\"input\": %s", row->input);
	put_order(b, input);
	(void)buf_printf(b, ", \"output\": %s, \"output_is_list\": [",
	                 row->output);
	for (size_t i = 0; i < c->noutputs; i++)
		(void)buf_puts(b, i ? ", false" : "false");
	(void)buf_printf(b, "], \"output_name\": %s, \"name\": ",
	                 row->output_name ? row->output_name : row->output);
	(void)sim_put_string(b, row->name);
	(void)buf_puts(b, ", \"display_name\": ");
	(void)sim_put_string(b, row->display ? row->display : row->name);
	(void)buf_printf(b,
	                 ", \"description\": \"\", \"python_module\": "
	                 "\"nodes\", \"category\": \"%s\", "
	                 "\"output_node\": %s}",
	                 row->category,
	                 row->flags & SIM_OUTPUT ? "true" : "false");
}

void sim_nodes_info(struct buf *b, const struct sim_class *c)
{
	(void)buf_putc(b, '{');
	if (c) {
		put_class(b, c);
	} else {
		for (size_t i = 0; i < sim_class_row_count; i++) {
			if (i)
				(void)buf_puts(b, ", ");
			put_class(b, &classes[i]);
		}
	}
	(void)buf_putc(b, '}');
}

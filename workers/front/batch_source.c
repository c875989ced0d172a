/*
 * batch_source.c - see batch_source.h.
 *
 * Item i of F files and S combinations is file i / S with combination i % S;
 * of several --sweep the last one varies fastest.
 */
#include "workers/front/batch_source.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/batch_plan.h"
#include "common/cleanup.h"
#include "common/fdutil.h"
#include "common/log.h"
#include "common/uuid.h"
#include "common/workflow.h"

#define LABEL_MAX 512

/* One workflow before the sweeps: a file, or a line of one. */
struct origin {
	char *path;
	size_t line;      /* from 1; 0: the whole file */
	struct span text; /* of a line; owned by `texts` */
};

struct sweep {
	char *target;  /* "3.seed" */
	char **values; /* as --set takes them */
	size_t count;
};

struct batch_source {
	const struct cli *cli;
	struct origin *origins;
	size_t origin_count, origin_cap;
	char **texts; /* of JSON Lines files, whole */
	size_t text_count;
	struct sweep *sweeps;
	size_t sweep_count;
	size_t combinations;
};

/* --- what the arguments name --------------------------------------------- */

static int add_origin(struct batch_source *s, const char *path, size_t line,
                      struct span text, struct error *err)
{
	struct origin *o;

	if (s->origin_count > BATCH_ITEMS_MAX)
		return 0; /* the plan refuses so many */
	if (s->origin_count == s->origin_cap) {
		size_t cap = s->origin_cap ? 2 * s->origin_cap : 16;

		o = reallocarray(s->origins, cap, sizeof(*o));
		if (!o)
			return error_set_nomem(err, "the batch");
		s->origins = o;
		s->origin_cap = cap;
	}
	o = &s->origins[s->origin_count];
	*o = (struct origin){path ? strdup(path) : NULL, line, text};
	if (!o->path)
		return error_set_nomem(err, "the batch");
	s->origin_count++;
	return 0;
}

static bool ends_in(const char *name, const char *ending)
{
	size_t n = strlen(name), e = strlen(ending);

	return n > e && strcmp(name + n - e, ending) == 0;
}

static int is_workflow_name(const struct dirent *d)
{
	return d->d_name[0] != '.' && ends_in(d->d_name, ".json");
}

static int add_directory(struct batch_source *s, const char *path,
                         struct error *err)
{
	struct dirent **names;
	int n = scandir(path, &names, is_workflow_name, versionsort), r = 0;

	/* Told when its turn has come. */
	if (n < 0)
		return add_origin(s, path, 0, SPAN_NULL, err);
	for (int i = 0; i < n; i++) {
		cleanup_free char *file = NULL;

		if (r == 0 && asprintf(&file, "%s%s%s", path,
		                       ends_in(path, "/") ? "" : "/",
		                       names[i]->d_name) < 0) {
			file = NULL;
			r = error_set_nomem(err, "the batch");
		}
		if (r == 0)
			r = add_origin(s, file, 0, SPAN_NULL, err);
		free(names[i]);
	}
	free(names);
	return r;
}

static bool is_blank(struct span line)
{
	for (size_t i = 0; i < line.n; i++) {
		if (!strchr(" \t\r", line.p[i]))
			return false;
	}
	return true;
}

static int add_lines(struct batch_source *s, const char *path,
                     struct error *err)
{
	char **texts, *text, *end, *at;
	size_t len, number = 0;

	if (fd_read_file(path, BATCH_LINES_BYTES_MAX, &text, &len) < 0)
		return add_origin(s, path, 0, SPAN_NULL, err);
	texts = reallocarray(s->texts, s->text_count + 1, sizeof(*texts));
	if (!texts) {
		free(text);
		return error_set_nomem(err, "the batch");
	}
	s->texts = texts;
	s->texts[s->text_count++] = text;
	for (at = text; at < text + len; at = end + 1) {
		struct span line;

		end = memchr(at, '\n', (size_t)(text + len - at));
		if (!end)
			end = text + len;
		line = span_make(at, (size_t)(end - at));
		number++;
		if (!is_blank(line) && add_origin(s, path, number, line, err))
			return -1;
	}
	return 0;
}

static int add_argument(struct batch_source *s, const char *path,
                        struct error *err)
{
	struct stat st;

	if (strcmp(path, "-") != 0 && stat(path, &st) == 0 &&
	    S_ISDIR(st.st_mode))
		return add_directory(s, path, err);
	if (ends_in(path, ".jsonl") || ends_in(path, ".ndjson"))
		return add_lines(s, path, err);
	return add_origin(s, path, 0, SPAN_NULL, err);
}

/* --- sweeps -------------------------------------------------------------- */

static int add_value(struct sweep *w, char *value, struct error *err)
{
	char **values;

	if (!value)
		return error_set_nomem(err, "--sweep");
	values =
		w->count < BATCH_SWEEP_VALUES
			? reallocarray(w->values, w->count + 1, sizeof(*values))
			: NULL;
	if (!values) {
		free(value);
		return error_set(err, ERR_LIMIT,
		                 "--sweep %s: more than %d values", w->target,
		                 BATCH_SWEEP_VALUES);
	}
	w->values = values;
	w->values[w->count++] = value;
	return 0;
}

/* "1..8", both ends included, upwards or downwards. */
static bool parse_range(const char *text, long long *fromp, long long *top)
{
	char *end;

	errno = 0;
	*fromp = strtoll(text, &end, 10);
	if (end == text || strncmp(end, "..", 2) != 0 || errno != 0)
		return false;
	text = end + 2;
	*top = strtoll(text, &end, 10);
	return end != text && *end == '\0' && errno == 0;
}

static int add_range(struct sweep *w, long long from, long long to,
                     struct error *err)
{
	for (;;) {
		char text[32];

		(void)snprintf(text, sizeof(text), "%lld", from);
		if (add_value(w, strdup(text), err))
			return -1;
		if (from == to)
			return 0;
		from += from < to ? 1 : -1;
	}
}

/* A JSON array (for values with commas in them), a range, or a list. */
static int parse_values(struct sweep *w, const char *text, struct error *err)
{
	struct json array, value;
	struct json_iter it;
	long long from, to;
	const char *end;

	if (parse_range(text, &from, &to))
		return add_range(w, from, to, err);
	if (json_parse(&array, text, strlen(text), 0, NULL) == JSON_OK &&
	    json_is(array, JSON_ARRAY)) {
		json_iter_init(&it, array);
		while (json_iter_next(&it, NULL, &value)) {
			if (add_value(w, strndup(value.text.p, value.text.n),
			              err))
				return -1;
		}
	} else {
		for (;; text = end + 1) {
			end = strchrnul(text, ',');
			if (add_value(w, strndup(text, (size_t)(end - text)),
			              err))
				return -1;
			if (*end == '\0')
				break;
		}
	}
	return w->count > 0 ? 0
	                    : error_set(err, ERR_INVALID,
	                                "--sweep %s has no values", w->target);
}

static int add_sweep(struct batch_source *s, const char *text,
                     struct error *err)
{
	const char *sign = strchr(text, '=');
	struct sweep *w = &s->sweeps[s->sweep_count];

	if (!sign || sign == text || sign[1] == '\0')
		return error_set(err, ERR_INVALID,
		                 "--sweep takes NODE.INPUT=a,b,c or "
		                 "NODE.INPUT=1..8, not '%s'",
		                 log_safe(text, strlen(text)));
	w->target = strndup(text, (size_t)(sign - text));
	if (!w->target)
		return error_set_nomem(err, "--sweep");
	s->sweep_count++;
	if (parse_values(w, sign + 1, err))
		return -1;
	if (w->count == 0)
		return error_set(err, ERR_INVALID, "--sweep %s has no values",
		                 log_safe(text, strlen(text)));
	if (s->combinations > BATCH_ITEMS_MAX / w->count)
		return error_set(err, ERR_LIMIT,
		                 "the --sweep options make more than %d "
		                 "combinations",
		                 BATCH_ITEMS_MAX);
	s->combinations *= w->count;
	return 0;
}

/* The value of sweep `k` in combination `c`. */
static const char *sweep_value(const struct batch_source *s, size_t k, size_t c)
{
	for (size_t i = s->sweep_count - 1; i > k; i--)
		c /= s->sweeps[i].count;
	return s->sweeps[k].values[c % s->sweeps[k].count];
}

/* --- reading ------------------------------------------------------------- */

static int set_all(const struct batch_source *s, size_t combination,
                   struct buf *text, struct error *err)
{
	const struct cli *cli = s->cli;

	for (size_t i = 0; i < cli->set_count; i++) {
		if (cli_set(text, cli->sets[i], err))
			return error_prefix(err, "--set");
	}
	for (size_t i = 0; i < s->sweep_count; i++) {
		cleanup_free char *set = NULL;

		if (asprintf(&set, "%s=%s", s->sweeps[i].target,
		             sweep_value(s, i, combination)) < 0) {
			set = NULL;
			return error_set_nomem(err, "--sweep");
		}
		if (cli_set(text, set, err))
			return error_prefix(err, "--sweep");
	}
	return 0;
}

/* {"prompt": {...}, "prompt_id": "..."}, or with "workflow". */
static int take_line(struct span line, const char *label, struct buf *out,
                     char **prompt_idp, struct error *err)
{
	struct json whole, inner, id, w;

	if (json_parse(&whole, line.p, line.n, JSON_NONFINITE, NULL) ==
	    JSON_OK) {
		inner = json_get(whole, "workflow");
		if (!json_is(inner, JSON_OBJECT) ||
		    json_is(json_get(inner, "class_type"), JSON_STRING))
			inner = json_get(whole, "prompt");
		id = json_get(whole, "prompt_id");
		if (json_is(inner, JSON_OBJECT) && json_is(id, JSON_STRING)) {
			*prompt_idp = json_string_dup(id, UUID_LEN);
			if (!*prompt_idp ||
			    !uuid_valid(*prompt_idp, strlen(*prompt_idp)))
				return error_set(err, ERR_INVALID,
				                 "%s: prompt_id must be a UUID "
				                 "in lower case",
				                 label);
		}
		if (json_is(inner, JSON_OBJECT))
			line = inner.text;
	}
	if (workflow_parse(&w, line.p, line.n, label, err))
		return -1;
	return buf_append(out, w.text.p, w.text.n)
	               ? error_set_nomem(err, "the workflow")
	               : 0;
}

int batch_source_read(struct batch_source *s, size_t index, struct buf *out,
                      char **prompt_idp, struct error *err)
{
	const struct origin *o = &s->origins[index / s->combinations];

	*prompt_idp = NULL;
	if (o->line == 0) {
		if (cli_read_file(o->path, out, err))
			return -1;
	} else if (take_line(o->text, batch_source_label(s, index), out,
	                     prompt_idp, err)) {
		return -1;
	}
	/* One id can't serve several. */
	if (s->combinations > 1) {
		free(*prompt_idp);
		*prompt_idp = NULL;
	}
	return set_all(s, index % s->combinations, out, err);
}

/* --- life ---------------------------------------------------------------- */

struct batch_source *batch_source_new(const struct cli *cli, struct error *err)
{
	struct batch_source *s = calloc(1, sizeof(*s));
	int r = 0;

	if (s)
		s->sweeps = calloc(cli->sweep_count + 1, sizeof(*s->sweeps));
	if (!s || !s->sweeps) {
		free(s);
		(void)error_set_nomem(err, "the batch");
		return NULL;
	}
	s->cli = cli;
	s->combinations = 1;
	for (size_t i = 0; i < cli->sweep_count && r == 0; i++)
		r = add_sweep(s, cli->sweeps[i], err);
	for (int i = 0; i < cli->argc && r == 0; i++)
		r = add_argument(s, cli->argv[i], err);
	return r ? batch_source_free(s) : s;
}

struct batch_source *batch_source_free(struct batch_source *s)
{
	if (!s)
		return NULL;
	for (size_t i = 0; i < s->origin_count; i++)
		free(s->origins[i].path);
	free(s->origins);
	for (size_t i = 0; i < s->text_count; i++)
		free(s->texts[i]);
	free(s->texts);
	for (size_t i = 0; i < s->sweep_count; i++) {
		for (size_t k = 0; k < s->sweeps[i].count; k++)
			free(s->sweeps[i].values[k]);
		free(s->sweeps[i].values);
		free(s->sweeps[i].target);
	}
	free(s->sweeps);
	free(s);
	return NULL;
}

size_t batch_source_count(const struct batch_source *s)
{
	return s->origin_count * s->combinations;
}

const char *batch_source_label(const struct batch_source *s, size_t index)
{
	static char label[LABEL_MAX];
	const struct origin *o = &s->origins[index / s->combinations];
	struct buf b = BUF_INIT(LABEL_MAX - 1);

	(void)buf_puts(&b, log_safe(o->path, strlen(o->path)));
	if (o->line > 0)
		(void)buf_printf(&b, ":%zu", o->line);
	for (size_t i = 0; i < s->sweep_count; i++) {
		const char *v = sweep_value(s, i, index % s->combinations);

		(void)buf_printf(&b, " %s=%s", s->sweeps[i].target,
		                 log_safe(v, strlen(v)));
	}
	(void)snprintf(label, sizeof(label), "%.*s", (int)b.len,
	               b.data ? b.data : "");
	buf_deinit(&b);
	return label;
}

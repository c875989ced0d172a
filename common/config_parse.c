/*
 * config_parse.c - one configuration file, read by inih.
 *
 * inih is lenient where a person wants to hear of a mistake (long lines are
 * cut, indented lines continue the one before, sections without keys go
 * unseen), so lines are looked at before it gets them.
 */
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/config_impl.h"
#include "common/fdutil.h"
#include "common/log.h"
#include "common/span.h"

#define SECTION "comfymux"

/* Debian's inih can be told the longest line while it runs, upstream's cannot
 * and has no such variable: then the constant that it was built with holds. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wredundant-decls"
extern int ini_max_line __attribute__((weak));
#pragma GCC diagnostic pop

struct parse {
	struct config *c;
	const char *p, *end; /* what has not been read */
	unsigned line;       /* that was read last; 0 before the first */
	unsigned file;       /* index of c->files */
	bool failed;         /* `err` holds the first error, at `line` */
	bool seen[CONFIG_KEY_COUNT];
	struct error err;
};

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

/* inih calls a handler for keys only; a wrong section without keys, or text
 * behind the bracket, would pass unseen. */
static bool is_our_section(struct span line)
{
	const char *want = "[" SECTION "]";

	if (line.n < strlen(want) || memcmp(line.p, want, strlen(want)) != 0)
		return false;
	for (size_t i = strlen(want); i < line.n; i++) {
		if (line.p[i] == '#' || line.p[i] == ';')
			return true;
		if (!is_blank(line.p[i]))
			return false;
	}
	return true;
}

/* The line at hand, without what is around it. */
static struct span take_line(struct parse *ps)
{
	const char *start = ps->p;
	const char *nl = memchr(start, '\n', (size_t)(ps->end - start));
	struct span line = {start, (size_t)((nl ? nl : ps->end) - start)};

	ps->p = nl ? nl + 1 : ps->end;
	ps->line++;
	return line;
}

/* inih's fgets. It is handed lines without their indentation: to inih an
 * indented line continues the one before, which nobody expects here. */
static char *on_read_line(char *str, int num, void *stream)
{
	struct parse *ps = stream;
	struct span line;
	size_t room = num > 2 ? (size_t)num - 2 : 0; /* "\n" and NUL */
	size_t max = room < CONFIG_LINE_MAX ? room : CONFIG_LINE_MAX;

	if (ps->failed || ps->p == ps->end)
		return NULL;
	line = take_line(ps);
	if (line.n > max) {
		(void)error_set(&ps->err, ERR_CONFIG,
		                "line of %zu bytes is too long (at most %zu)",
		                line.n, max);
		ps->failed = true;
		return NULL;
	}
	while (line.n > 0 && is_blank(*line.p)) {
		line.p++;
		line.n--;
	}
	if (line.n > 0 && *line.p == '[' && !is_our_section(line)) {
		(void)error_set(&ps->err, ERR_CONFIG,
		                "unknown section %s; all keys belong to "
		                "[" SECTION "] or to none",
		                log_safe(line.p, line.n));
		ps->failed = true;
		return NULL;
	}
	memcpy(str, line.p, line.n);
	memcpy(str + line.n, "\n", 2);
	return str;
}

static int on_pair(void *user, const char *section, const char *name,
                   const char *value)
{
	struct parse *ps = user;
	size_t key = config_find_key(name);

	if (ps->failed)
		return 0;
	ps->failed = true;
	if (key == CONFIG_KEY_COUNT) {
		(void)config_unknown_key(name, &ps->err);
		return 0;
	}
	if (ps->seen[key]) {
		(void)error_set(&ps->err, ERR_CONFIG,
		                "key \"%s\" is given a second time", name);
		return 0;
	}
	if (config_set_value(ps->c, key, value, CONFIG_FILE, &ps->err) < 0)
		return 0;
	ps->seen[key] = true;
	ps->c->origin_file[key] = (unsigned char)ps->file;
	ps->failed = false;
	return 1;
}

int config_add_file(struct config *c, const char *name, unsigned *indexp,
                    struct error *err)
{
	for (size_t i = 0; i < c->file_count; i++) {
		if (strcmp(c->files[i], name) == 0) {
			*indexp = (unsigned)i;
			return 0;
		}
	}
	if (c->file_count == CONFIG_FILES_MAX)
		return error_set(err, ERR_LIMIT,
		                 "more than %d configuration files",
		                 CONFIG_FILES_MAX);
	c->files[c->file_count] = strdup(name);
	if (!c->files[c->file_count])
		return error_set_nomem(err, "configuration");
	*indexp = (unsigned)c->file_count++;
	return 0;
}

int config_parse(struct config *c, const char *text, size_t len,
                 const char *name, struct error *err)
{
	static const char bom[] = "\xef\xbb\xbf";
	struct parse ps = {.c = c, .p = text, .end = text + len};
	int r;

	if (len > CONFIG_FILE_MAX)
		return error_set(err, ERR_CONFIG,
		                 "%s: file is larger than %u bytes", name,
		                 CONFIG_FILE_MAX);
	if (len > 0 && memchr(text, '\0', len))
		return error_set(err, ERR_CONFIG,
		                 "%s: file holds a NUL byte, it is no text",
		                 name);
	if (config_add_file(c, name, &ps.file, err) < 0)
		return -1;
	if (len >= strlen(bom) && memcmp(text, bom, strlen(bom)) == 0)
		ps.p += strlen(bom);
	if (&ini_max_line)
		ini_max_line = CONFIG_LINE_MAX + 3; /* as ini.h asks for */
	r = ini_parse_stream(on_read_line, &ps, on_pair, &ps);
	if (r < 0)
		return error_set_nomem(err, "parser of the configuration");
	/* inih reads on after an error of its own. */
	if (r > 0 && (!ps.failed || (unsigned)r < ps.line)) {
		ps.line = (unsigned)r;
		ps.failed = true;
		(void)error_set(&ps.err, ERR_CONFIG,
		                "not of the form "
		                "key = value");
	}
	if (!ps.failed)
		return 0;
	return error_set(err, ps.err.code, "%s:%u: %s", name, ps.line,
	                 ps.err.text);
}

/* What steers the service must not have been written by one whom it serves:
 * neither the text nor, by way of it, the user that the service becomes. */
static int check_owner(int fd, const char *path, struct error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_set_errno(err, errno, "cannot look at %s", path);
	if (st.st_uid != 0 && st.st_uid != geteuid())
		return error_set(err, ERR_CONFIG,
		                 "%s belongs to user %u; a service reads only "
		                 "what belongs to root: chown root %s",
		                 path, (unsigned)st.st_uid, path);
	/* /dev/null may be written by all. */
	if (!S_ISCHR(st.st_mode) && (st.st_mode & (S_IWGRP | S_IWOTH)))
		return error_set(err, ERR_CONFIG,
		                 "%s can be written by others than its owner: "
		                 "chmod go-w %s",
		                 path, path);
	return 0;
}

/* A file of the usual places may be missing, but not unreadable: a setting
 * that silently isn't there is worse than an error. */
int config_read_file(struct config *c, const char *path, bool must_exist,
                     bool trusted, struct error *err)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	cleanup_free char *text = NULL;
	size_t len = 0;
	int r;

	if (fd >= 0 && trusted && check_owner(fd, path, err) < 0)
		return -1;
	r = fd < 0 ? -errno : fd_read_all(fd, CONFIG_FILE_MAX, &text, &len);
	if (r == 0)
		return config_parse(c, text, len, path, err);
	if (!must_exist && (r == -ENOENT || r == -ENOTDIR))
		return 0;
	if (r == -EFBIG)
		return error_set(err, ERR_CONFIG,
		                 "%s: file is larger than %u bytes", path,
		                 CONFIG_FILE_MAX);
	(void)error_set_errno(err, -r, "cannot read %s", path);
	if (err)
		err->code = ERR_CONFIG;
	return -1;
}

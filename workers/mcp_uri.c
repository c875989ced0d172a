/*
 * mcp_uri.c - see mcp_uri.h.
 */
#include "workers/mcp_uri.h"

#include <errno.h>
#include <stdlib.h>
#include <strings.h>

#include "common/url.h"
#include "common/utf8.h"
#include "workers/mcp_tools.h"

#define SCHEME    "comfy://"
#define QUERY     "prompt_id="
#define PARTS_MAX 64 /* of a path */
#define TEXT_TYPE "text"

static const char *const types[] = {"output", "temp", "input"};

/* --- building ------------------------------------------------------------ */

/* "a/b" with both parts encoded and the slash kept. */
static void put_path(struct buf *out, const char *path)
{
	while (*path) {
		size_t n = strcspn(path, "/");

		(void)url_encode(out, path, n);
		path += n;
		if (*path == '/') {
			(void)buf_putc(out, '/');
			path++;
		}
	}
}

static int put_prompt(struct buf *out, const char *prompt_id)
{
	(void)buf_puts(out, "?" QUERY);
	return url_encode(out, prompt_id, strlen(prompt_id));
}

int tool_output_uri(struct buf *out, const char *prompt_id, const char *type,
                    const char *subfolder, const char *filename)
{
	(void)buf_puts(out, SCHEME);
	(void)url_encode(out, type, strlen(type));
	(void)buf_putc(out, '/');
	if (*subfolder) {
		put_path(out, subfolder);
		if (out->len > 0 && out->data[out->len - 1] != '/')
			(void)buf_putc(out, '/');
	}
	(void)url_encode(out, filename, strlen(filename));
	return put_prompt(out, prompt_id);
}

int mcp_uri_text(struct buf *out, const char *prompt_id, const char *node,
                 const char *key, size_t index)
{
	(void)buf_puts(out, SCHEME TEXT_TYPE "/");
	(void)url_encode(out, node, strlen(node));
	(void)buf_putc(out, '/');
	(void)url_encode(out, key, strlen(key));
	(void)buf_printf(out, "/%zu", index);
	return put_prompt(out, prompt_id);
}

/* --- taking apart -------------------------------------------------------- */

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* A decoded part never holds what would change where it leads: a separator of
 * any system, a control character, "." or "..". */
static bool part_is_safe(const char *s, size_t n)
{
	if (n == 0 || (n == 1 && s[0] == '.') ||
	    (n == 2 && s[0] == '.' && s[1] == '.'))
		return false;
	for (size_t i = 0; i < n;) {
		const unsigned char *c = (const unsigned char *)s + i;
		size_t len = utf8_char_len(c, n - i);

		if (len == 0 || c[0] < 0x20 || c[0] == 0x7f || c[0] == '/' ||
		    c[0] == '\\')
			return false;
		i += len;
	}
	return true;
}

/* The two digits after a '%'; -1 if they are none. */
static int decode_escape(const char *p, size_t n)
{
	int hi = n < 2 ? -1 : hex_value(p[0]);
	int lo = n < 2 ? -1 : hex_value(p[1]);

	return hi < 0 || lo < 0 ? -1 : hi << 4 | lo;
}

/* Decodes one part into fresh memory. */
static int decode_part(struct span raw, char **outp)
{
	char *s = malloc(raw.n + 1);
	size_t n = 0;
	bool ok = true;

	if (!s)
		return -ENOMEM;
	for (size_t i = 0; i < raw.n && ok; i++) {
		int c = (unsigned char)raw.p[i];

		if (c == '%') {
			c = decode_escape(raw.p + i + 1, raw.n - i - 1);
			i += 2;
		}
		ok = c >= 0;
		s[n++] = (char)c;
	}
	if (!ok || !part_is_safe(s, n)) {
		free(s);
		return -EINVAL;
	}
	s[n] = '\0';
	*outp = s;
	return 0;
}

static int parse_query(struct mcp_uri *u, struct span query)
{
	size_t prefix = strlen(QUERY);

	if (query.n < prefix || memcmp(query.p, QUERY, prefix) != 0 ||
	    query.n - prefix > MCP_URI_PROMPT_MAX)
		return -EINVAL;
	return decode_part(span_make(query.p + prefix, query.n - prefix),
	                   &u->prompt_id);
}

/* Splits at the slashes; at most PARTS_MAX, or none. */
static size_t split(struct span path, struct span parts[PARTS_MAX])
{
	size_t count = 0, start = 0;

	for (size_t i = 0; i <= path.n; i++) {
		if (i < path.n && path.p[i] != '/')
			continue;
		if (count == PARTS_MAX)
			return 0;
		parts[count++] = span_make(path.p + start, i - start);
		start = i + 1;
	}
	return count;
}

static int parse_index(struct span digits, size_t *indexp)
{
	size_t v = 0;

	if (digits.n == 0 || digits.n > 9)
		return -EINVAL;
	for (size_t i = 0; i < digits.n; i++) {
		if (digits.p[i] < '0' || digits.p[i] > '9')
			return -EINVAL;
		v = v * 10 + (size_t)(digits.p[i] - '0');
	}
	*indexp = v;
	return 0;
}

static int parse_text(struct mcp_uri *u, const struct span *parts, size_t count)
{
	int r;

	u->is_text = true;
	if (count != 4 || !u->prompt_id)
		return -EINVAL;
	r = decode_part(parts[1], &u->node);
	if (r == 0)
		r = decode_part(parts[2], &u->key);
	return r == 0 ? parse_index(parts[3], &u->index) : r;
}

static int parse_file(struct mcp_uri *u, const struct span *parts, size_t count)
{
	cleanup_buf struct buf folder = BUF_INIT(MCP_URI_MAX);

	if (count < 2)
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (span_eq_str(parts[0], types[i]))
			u->type = strdup(types[i]);
	if (!u->type)
		return -EINVAL;
	for (size_t i = 1; i + 1 < count; i++) {
		char *part = NULL;
		int r = decode_part(parts[i], &part);

		if (r < 0)
			return r;
		(void)buf_puts(&folder, i > 1 ? "/" : "");
		(void)buf_puts(&folder, part);
		free(part);
	}
	u->subfolder = buf_steal(&folder, NULL);
	if (!u->subfolder)
		return -ENOMEM;
	return decode_part(parts[count - 1], &u->filename);
}

static int parse(struct mcp_uri *u, struct span text)
{
	size_t scheme = strlen(SCHEME), path;
	struct span parts[PARTS_MAX];
	size_t count;
	const char *query;

	if (text.n > MCP_URI_MAX || text.n <= scheme ||
	    memcmp(text.p, SCHEME, scheme) != 0)
		return -EINVAL;
	text.p += scheme;
	text.n -= scheme;
	query = memchr(text.p, '?', text.n);
	path = query ? (size_t)(query - text.p) : text.n;
	if (memchr(text.p, '#', text.n))
		return -EINVAL;
	if (query) {
		int r = parse_query(u, span_make(query + 1, text.n - path - 1));

		if (r < 0)
			return r;
	}
	count = split(span_make(text.p, path), parts);
	if (count > 0 && span_eq_str(parts[0], TEXT_TYPE))
		return parse_text(u, parts, count);
	return parse_file(u, parts, count);
}

int mcp_uri_parse(struct mcp_uri *u, struct span text)
{
	int r;

	*u = (struct mcp_uri){.is_text = false};
	r = parse(u, text);
	if (r < 0)
		mcp_uri_deinit(u);
	return r;
}

void mcp_uri_deinit(struct mcp_uri *u)
{
	free(u->prompt_id);
	free(u->type);
	free(u->subfolder);
	free(u->filename);
	free(u->node);
	free(u->key);
	*u = (struct mcp_uri){.is_text = false};
}

/* --- types of files ------------------------------------------------------ */

const char *tool_mime_of(const char *filename)
{
	static const struct {
		const char *extension, *mime;
	} table[] = {
		{"png", "image/png"},         {"jpg", "image/jpeg"},
		{"jpeg", "image/jpeg"},       {"webp", "image/webp"},
		{"gif", "image/gif"},         {"avif", "image/avif"},
		{"svg", "image/svg+xml"},     {"mp4", "video/mp4"},
		{"webm", "video/webm"},       {"mkv", "video/x-matroska"},
		{"mov", "video/quicktime"},   {"wav", "audio/wav"},
		{"mp3", "audio/mpeg"},        {"flac", "audio/flac"},
		{"ogg", "audio/ogg"},         {"opus", "audio/ogg"},
		{"glb", "model/gltf-binary"}, {"obj", "model/obj"},
		{"txt", "text/plain"},        {"json", "application/json"},
		{"csv", "text/csv"},          {"md", "text/markdown"},
	};
	const char *dot = strrchr(filename, '.');

	for (size_t i = 0; dot && i < ARRAY_SIZE(table); i++)
		if (strcasecmp(dot + 1, table[i].extension) == 0)
			return table[i].mime;
	return "application/octet-stream";
}

/*
 * sim_http_files.c - GET /view and POST /upload/image.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/macros.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_http.h"
#include "tests/sim/sim_image.h"
#include "tests/sim/sim_text.h"

/* Resolves "." and ".."; false if the path is absolute or leads outside. */
static bool clean_path(const char *path, char *out, size_t size)
{
	size_t n = 0;

	if (*path == '/' || strlen(path) >= size)
		return false;
	out[0] = '\0';
	while (*path) {
		size_t len = strcspn(path, "/");

		if (len == 2 && strncmp(path, "..", 2) == 0) {
			if (!n)
				return false;
			while (n && out[n - 1] != '/')
				n--;
			n -= n > 0;
		} else if (len && !(len == 1 && *path == '.')) {
			if (n)
				out[n++] = '/';
			memcpy(out + n, path, len);
			n += len;
		}
		out[n] = '\0';
		path += len + (path[len] == '/');
	}
	return true;
}

/* --- GET /view ---------------------------------------------------------------
 */

struct view {
	enum sim_folder folder;
	char name[SIM_HEADER_MAX], subfolder[SIM_HEADER_MAX];
};

/* "name [output]" names the folder; a blank is taken for granted, as in the
 * original, which cuts a letter off if it is missing. */
static bool take_suffix(struct view *v)
{
	size_t len = strlen(v->name);

	for (int i = 0; i < SIM_FOLDER_COUNT; i++) {
		char ending[16];
		size_t n =
			(size_t)snprintf(ending, sizeof(ending), "[%s]",
		                         sim_folder_name((enum sim_folder)i));

		if (len < n || strcmp(v->name + len - n, ending) != 0)
			continue;
		v->name[len > n ? len - n - 1 : 0] = '\0';
		v->folder = (enum sim_folder)i;
		return true;
	}
	return false;
}

/* The HTTP status; 200: found. */
static int find_view(struct sim *sim, const struct sim_request *req,
                     struct view *v, const struct sim_blob **blobp)
{
	const char *name = sim_query(req, "filename");
	const char *type = sim_query(req, "type");
	const char *subfolder = sim_query(req, "subfolder");
	const char *base;

	if (!name)
		return 404;
	(void)snprintf(v->name, sizeof(v->name), "%s", name);
	v->subfolder[0] = '\0';
	if (!take_suffix(v) &&
	    !sim_folder_parse(type ? type : "output", &v->folder))
		return 400;
	if (!*v->name || *v->name == '/' || strstr(v->name, ".."))
		return 400;
	if (subfolder &&
	    !clean_path(subfolder, v->subfolder, sizeof(v->subfolder)))
		return 403;
	base = strrchr(v->name, '/');
	if (base)
		memmove(v->name, base + 1, strlen(base));
	*blobp = sim_files_get(&sim->files, v->folder, v->subfolder, v->name);
	return *blobp ? 200 : 404;
}

static void put_disposition(struct sim_reply *reply, const char *name)
{
	(void)buf_puts(&reply->headers, "Content-Disposition: filename=\"");
	for (; *name; name++)
		(void)buf_putc(&reply->headers,
		               (unsigned char)*name < 0x20 ? '_' : *name);
	(void)buf_puts(&reply->headers, "\"\r\n");
}

/* "bytes=FROM-TO", "bytes=FROM-", "bytes=-LAST" */
static void put_range(struct sim_reply *reply, const char *range,
                      const struct sim_blob *blob)
{
	long long from = 0, to = (long long)blob->len - 1;
	bool ok = false;

	if (strncmp(range, "bytes=", 6) == 0) {
		const char *p = range + 6;
		char *end;

		if (*p == '-') {
			from = (long long)blob->len - strtoll(p + 1, &end, 10);
			from = from < 0 ? 0 : from;
			ok = end != p + 1 && !*end;
		} else {
			from = strtoll(p, &end, 10);
			ok = end != p && *end == '-';
			if (ok && end[1])
				to = strtoll(end + 1, &end, 10);
		}
	}
	if (to >= (long long)blob->len)
		to = (long long)blob->len - 1;
	if (!ok || from > to) {
		reply->status = 416;
		(void)buf_printf(&reply->headers,
		                 "Content-Range: bytes */%zu\r\n", blob->len);
		return;
	}
	reply->status = 206;
	(void)buf_printf(&reply->headers,
	                 "Content-Range: bytes %lld-%lld/%zu\r\n", from, to,
	                 blob->len);
	(void)buf_append(&reply->body, blob->data + from,
	                 (size_t)(to - from) + 1);
}

static void put_blob(struct sim_reply *reply, struct sim_blob *blob,
                     const char *mime)
{
	if (!blob) {
		sim_reply_crash(reply);
		return;
	}
	reply->content_type = mime;
	(void)buf_append(&reply->body, blob->data, blob->len);
	sim_blob_unref(blob);
}

/* Converted on the fly: the size is right, the picture plain. */
static void put_channel(struct sim_reply *reply, const struct sim_blob *blob,
                        bool alpha)
{
	struct sim_value *v = sim_value_image(64, 64, 1, 0x808080);

	(void)sim_png_size(blob, &v->width, &v->height);
	put_blob(reply, alpha ? sim_png_alpha(v) : sim_png(v, NULL),
	         "image/png");
	sim_value_unref(v);
}

void sim_get_view(struct sim *sim, const struct sim_request *req,
                  struct sim_reply *reply, const char *tail)
{
	const char *preview = sim_query(req, "preview");
	const char *channel = sim_query(req, "channel");
	const struct sim_blob *blob = NULL;
	struct view v = {0};

	reply->status = find_view(sim, req, &v, &blob);
	if (reply->status != 200)
		return;
	put_disposition(reply, v.name);
	if (preview && strncmp(preview, "jpeg", 4) == 0) {
		put_blob(reply, sim_jpeg(0, 0), "image/jpeg");
	} else if (preview) {
		put_blob(reply, sim_webp(), "image/webp");
	} else if (channel &&
	           (strcmp(channel, "rgb") == 0 || strcmp(channel, "a") == 0)) {
		put_channel(reply, blob, *channel == 'a');
	} else {
		reply->content_type = sim_mime_of(v.name);
		(void)buf_puts(&reply->headers, "Accept-Ranges: bytes\r\n");
		if (*req->range)
			put_range(reply, req->range, blob);
		else
			(void)buf_append(&reply->body, blob->data, blob->len);
	}
}

/* --- POST /upload/image
 * ------------------------------------------------------- */

struct upload {
	struct span image;
	bool has_image;
	char filename[1024], subfolder[1024], type[64], overwrite[16];
};

static struct span find_bytes(struct span where, struct span what)
{
	const char *p =
		where.n ? memmem(where.p, where.n, what.p, what.n) : NULL;

	return p ? span_make(p, what.n) : SPAN_NULL;
}

/* name="value" in a Content-Disposition. */
static bool header_param(struct span header, const char *name, char *out,
                         size_t size)
{
	char key[64];
	struct span found;
	const char *start, *end;

	(void)snprintf(key, sizeof(key), "; %s=\"", name);
	found = find_bytes(header, SPAN(key));
	if (!found.p)
		return false;
	start = found.p + found.n;
	end = memchr(start, '"', (size_t)(header.p + header.n - start));
	if (!end || (size_t)(end - start) >= size)
		return false;
	memcpy(out, start, (size_t)(end - start));
	out[end - start] = '\0';
	return true;
}

static void copy_field(char *out, size_t size, struct span value)
{
	size_t n = value.n < size ? value.n : size - 1;

	memcpy(out, value.p, n);
	out[n] = '\0';
}

static void read_part(struct upload *u, struct span part)
{
	struct span gap = find_bytes(part, SPAN("\r\n\r\n")), header, body;
	char name[64];

	if (!gap.p)
		return;
	header = span_make(part.p, (size_t)(gap.p - part.p));
	body = span_make(gap.p + 4, part.n - header.n - 4);
	if (!header_param(header, "name", name, sizeof(name)))
		return;
	if (strcmp(name, "image") == 0) {
		u->image = body;
		u->has_image = header_param(header, "filename", u->filename,
		                            sizeof(u->filename));
	} else if (strcmp(name, "subfolder") == 0) {
		copy_field(u->subfolder, sizeof(u->subfolder), body);
	} else if (strcmp(name, "type") == 0) {
		copy_field(u->type, sizeof(u->type), body);
	} else if (strcmp(name, "overwrite") == 0) {
		copy_field(u->overwrite, sizeof(u->overwrite), body);
	}
}

static bool read_multipart(struct upload *u, const struct sim_request *req)
{
	const char *b = strstr(req->content_type, "boundary=");
	struct span left = span_make(req->body.data, req->body.len), at, mark;
	char line[256];
	size_t n;

	if (strncmp(req->content_type, "multipart/form-data", 19) != 0 || !b)
		return false;
	b += 9 + (b[9] == '"');
	n = strcspn(b, "\";");
	/* The first one needs no line break before it. */
	(void)snprintf(line, sizeof(line), "\r\n--%.*s",
	               (int)(n < 200 ? n : 200), b);
	mark = SPAN(line);
	at = find_bytes(left, SPAN(line + 2));
	while (at.p) {
		const char *start = at.p + at.n, *end = left.p + left.n;

		at = find_bytes(span_make(start, (size_t)(end - start)), mark);
		if (at.p && at.p - start >= 2)
			read_part(u, span_make(start + 2,
			                       (size_t)(at.p - start) - 2));
	}
	return true;
}

/* "x.png" -> "x (1).png" until the name is free, or holds the same bytes. */
static bool pick_name(struct sim *sim, struct upload *u, enum sim_folder folder,
                      const char *subfolder)
{
	const char *dot = strrchr(u->filename, '.');
	size_t stem = dot && dot != u->filename ? (size_t)(dot - u->filename)
	                                        : strlen(u->filename);
	char original[sizeof(u->filename)];
	const struct sim_blob *there;

	memcpy(original, u->filename, sizeof(original));
	for (unsigned i = 1;; i++) {
		there = sim_files_get(&sim->files, folder, subfolder,
		                      u->filename);
		if (!there)
			return true;
		if (there->len == u->image.n &&
		    memcmp(there->data, u->image.p, there->len) == 0)
			return false;
		(void)snprintf(u->filename, sizeof(u->filename),
		               "%.*s (%u)%.64s", (int)(stem < 900 ? stem : 900),
		               original, i, original + stem);
	}
}

static void store_upload(struct sim *sim, struct upload *u,
                         struct sim_reply *reply, enum sim_folder folder,
                         const char *subfolder)
{
	bool overwrite = strcmp(u->overwrite, "true") == 0 ||
	                 strcmp(u->overwrite, "1") == 0;

	if (overwrite || pick_name(sim, u, folder, subfolder)) {
		struct sim_blob *blob = sim_blob_new(u->image.p, u->image.n);
		int r = sim_files_put(&sim->files, folder, subfolder,
		                      u->filename, blob);

		sim_blob_unref(blob);
		if (r) {
			sim_reply_crash(reply);
			return;
		}
	}
	sim_reply_json(reply);
	(void)buf_puts(&reply->body, "{\"name\": ");
	(void)sim_put_string(&reply->body, u->filename);
	(void)buf_puts(&reply->body, ", \"subfolder\": ");
	(void)sim_put_string(&reply->body, u->subfolder);
	(void)buf_printf(&reply->body, ", \"type\": \"%s\"}",
	                 sim_folder_name(folder));
}

void sim_post_upload(struct sim *sim, const struct sim_request *req,
                     struct sim_reply *reply, const char *tail)
{
	struct upload u = {.type = "input"};
	char whole[sizeof(u.subfolder) + sizeof(u.filename) + 2];
	char cleaned[sizeof(whole)], subfolder[sizeof(u.subfolder)];
	enum sim_folder folder;

	if (!read_multipart(&u, req) || !sim_folder_parse(u.type, &folder)) {
		sim_reply_crash(reply);
		return;
	}
	(void)snprintf(whole, sizeof(whole), "%s/%s",
	               *u.subfolder ? u.subfolder : ".", u.filename);
	if (!u.has_image || !*u.filename || *u.filename == '/' ||
	    !clean_path(u.subfolder, subfolder, sizeof(subfolder)) ||
	    !clean_path(whole, cleaned, sizeof(cleaned))) {
		reply->status = 400;
		return;
	}
	store_upload(sim, &u, reply, folder, subfolder);
}

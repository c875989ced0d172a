/*
 * credentials.c - see credentials.h.
 */
#include "common/credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/macros.h"

#define OTHERS     0007 /* bits that no secret may have, */
#define GROUP      0070 /* and these, unless it is root's and read only */
#define GROUP_READ 0040

/* Where systems keep their authorities; the first that is there. */
static const char *const system_ca[] = {
	"/etc/ssl/certs/ca-certificates.crt", /* Debian, Arch, Alpine */
	"/etc/pki/tls/certs/ca-bundle.crt",   /* Fedora, RHEL */
	"/etc/ssl/ca-bundle.pem",             /* openSUSE */
	"/etc/ssl/cert.pem",
};

static void wipe(struct buf *b)
{
	if (b->data)
		explicit_bzero(b->data, b->cap);
	buf_deinit(b);
}

static void wipe_string(char *s)
{
	if (s)
		explicit_bzero(s, strlen(s));
	free(s);
}

void credentials_init(struct credentials *c)
{
	*c = (struct credentials){0};
	buf_init(&c->ca, CREDENTIALS_FILE_MAX);
	buf_init(&c->cert, CREDENTIALS_FILE_MAX);
	buf_init(&c->key, CREDENTIALS_FILE_MAX);
}

void credentials_deinit(struct credentials *c)
{
	wipe(&c->ca);
	wipe(&c->cert);
	wipe(&c->key);
	for (size_t i = 0; i < c->header_count; i++) {
		wipe_string(c->headers[i].name);
		wipe_string(c->headers[i].value);
	}
	c->header_count = c->header_bytes = 0;
}

/* --- files ---------------------------------------------------------------- */

/* Whoever else could read it could do as we; whoever could write it could make
 * us somebody else. */
static int check_secret(const char *what, const char *path,
                        const struct stat *st, struct error *err)
{
	bool roots_for_group =
		st->st_uid == 0 && !(st->st_mode & (GROUP & ~GROUP_READ));

	if (st->st_uid != geteuid() && st->st_uid != 0)
		return error_set(err, ERR_DENIED,
		                 "%s %s belongs to user %lu; it must be the "
		                 "reader's own (user %lu) or root's",
		                 what, path, (unsigned long)st->st_uid,
		                 (unsigned long)geteuid());
	if ((st->st_mode & OTHERS) ||
	    ((st->st_mode & GROUP) && !roots_for_group))
		return error_set(err, ERR_DENIED,
		                 "%s %s has mode %04o, so that others may read "
		                 "it; chmod 600 %s",
		                 what, path, (unsigned)(st->st_mode & 07777),
		                 path);
	return 0;
}

static int read_all(int fd, size_t max, struct buf *out)
{
	char chunk[16384];
	ssize_t n;
	int r = 0;

	buf_init(out, max);
	while (r == 0) {
		n = read(fd, chunk, sizeof(chunk));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			r = n < 0 ? -errno : 0;
			break;
		}
		r = buf_append(out, chunk, (size_t)n);
	}
	explicit_bzero(chunk, sizeof(chunk));
	return r == 0 ? buf_cstr(out) ? 0 : -ENOMEM : r;
}

static int read_file(const char *what, const char *path, bool secret,
                     struct buf *out, struct error *err)
{
	/* Not blocking: somebody may have put a fifo there. */
	cleanup_close int fd =
		open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_set_errno(err, errno, "cannot read %s %s", what,
		                       path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, ERR_CONFIG, "%s %s is not a file", what,
		                 path);
	if (secret && check_secret(what, path, &st, err) < 0)
		return -1;
	wipe(out);
	r = read_all(fd, secret ? CREDENTIALS_SECRET_MAX : CREDENTIALS_FILE_MAX,
	             out);
	if (r < 0)
		return error_set_errno(err, -r, "cannot read %s %s", what,
		                       path);
	return 0;
}

static int need_pem(const char *what, const char *path, const struct buf *b,
                    const char *mark, struct error *err)
{
	if (b->len > 0 && strstr(b->data, mark))
		return 0;
	return error_set(err, ERR_CONFIG,
	                 "%s %s holds no \"%s\"; it must be in PEM form", what,
	                 path, mark);
}

static bool named(const char *path)
{
	return path && *path;
}

static int load_ca(struct credentials *c, const struct credentials_files *f,
                   struct error *err)
{
	const char *path = f->ca_file;

	if (!named(path) && f->with_system_ca) {
		path = system_ca[0];
		for (size_t i = 0; i < ARRAY_SIZE(system_ca); i++) {
			if (access(system_ca[i], R_OK) == 0) {
				path = system_ca[i];
				break;
			}
		}
	}
	if (!named(path))
		return 0;
	if (read_file("ca_file", path, false, &c->ca, err) < 0)
		return -1;
	return need_pem("ca_file", path, &c->ca, "-----BEGIN ", err);
}

static int load_client(struct credentials *c, const struct credentials_files *f,
                       struct error *err)
{
	const char *key = named(f->client_key) ? f->client_key : f->client_cert;

	if (!named(f->client_cert)) {
		if (named(f->client_key))
			return error_set(err, ERR_CONFIG,
			                 "client_key without client_cert");
		return 0;
	}
	if (read_file("client_cert", f->client_cert, !named(f->client_key),
	              &c->cert, err) < 0 ||
	    need_pem("client_cert", f->client_cert, &c->cert,
	             "-----BEGIN CERTIFICATE-----", err) < 0 ||
	    read_file("client_key", key, true, &c->key, err) < 0)
		return -1;
	return need_pem("client_key", key, &c->key, "PRIVATE KEY-----", err);
}

/* --- headers -------------------------------------------------------------- */

static bool is_token_char(char ch)
{
	return (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'z') ||
	       (ch >= 'A' && ch <= 'Z') ||
	       (ch != '\0' && strchr("!#$%&'*+-.^_`|~", ch));
}

/* Visible characters, spaces and tabs; not longer than may be. */
static bool is_value(struct span s)
{
	if (s.n == 0 || s.n > CREDENTIALS_HEADER_MAX)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		unsigned char ch = (unsigned char)s.p[i];

		if ((ch < 0x20 && ch != '\t') || ch == 0x7f)
			return false;
	}
	return true;
}

static bool is_name(struct span s)
{
	if (s.n == 0 || s.n > CREDENTIALS_HEADER_MAX)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		if (!is_token_char(s.p[i]))
			return false;
	}
	return true;
}

static struct span trim(struct span s)
{
	while (s.n > 0 && strchr(" \t\r", s.p[0])) {
		s.p++;
		s.n--;
	}
	while (s.n > 0 && strchr(" \t\r", s.p[s.n - 1]))
		s.n--;
	return s;
}

/* What we write ourselves, or what would change where a message ends. */
static bool is_reserved(struct span name)
{
	static const char *const reserved[] = {
		"Host",       "Content-Length", "Transfer-Encoding",
		"Connection", "Upgrade",        "Content-Type",
		"Expect",     "Origin",
	};

	for (size_t i = 0; i < ARRAY_SIZE(reserved); i++) {
		if (name.n == strlen(reserved[i]) &&
		    strncasecmp(name.p, reserved[i], name.n) == 0)
			return true;
	}
	return name.n > 14 && strncasecmp(name.p, "Sec-WebSocket-", 14) == 0;
}

/* 0 or -ENOMEM, -ENOBUFS. */
static int add_header(struct credentials *c, struct span name,
                      const char *before, struct span value)
{
	struct credentials_header *h = &c->headers[c->header_count];
	size_t n = strlen(before);

	c->header_bytes += name.n + n + value.n + strlen(": \r\n");
	if (c->header_count == CREDENTIALS_HEADERS_MAX ||
	    c->header_bytes > CREDENTIALS_HEADERS_BYTES)
		return -ENOBUFS;
	h->name = strndup(name.p, name.n);
	h->value = malloc(n + value.n + 1);
	c->header_count++;
	if (!h->name || !h->value)
		return -ENOMEM;
	memcpy(h->value, before, n);
	if (value.n > 0)
		memcpy(h->value + n, value.p, value.n);
	h->value[n + value.n] = '\0';
	return 0;
}

static int add_checked(struct credentials *c, const char *what,
                       const char *path, struct span name, const char *before,
                       struct span value, struct error *err)
{
	int r = add_header(c, name, before, value);

	if (r == -ENOBUFS)
		return error_set(err, ERR_CONFIG,
		                 "%s %s: at most %d header lines of together "
		                 "%d bytes are possible",
		                 what, path, CREDENTIALS_HEADERS_MAX,
		                 CREDENTIALS_HEADERS_BYTES);
	return r < 0 ? error_set_nomem(err, "header lines") : 0;
}

static int load_token(struct credentials *c, const char *path,
                      struct error *err)
{
	struct buf text = BUF_INIT(CREDENTIALS_SECRET_MAX);
	struct span token;
	int r = -1;

	if (read_file("token_file", path, true, &text, err) == 0) {
		token = span_make(text.data, text.len);
		if (token.n > 0 && token.p[token.n - 1] == '\n')
			token.n--;
		token = trim(token);
		if (!is_value(token) || memchr(token.p, ' ', token.n) ||
		    memchr(token.p, '\t', token.n))
			r = error_set(err, ERR_CONFIG,
			              "token_file %s must hold one line: the "
			              "token alone, at most %d bytes without "
			              "spaces",
			              path, CREDENTIALS_HEADER_MAX);
		else
			r = add_checked(c, "token_file", path,
			                SPAN("Authorization"), "Bearer ", token,
			                err);
	}
	wipe(&text);
	return r;
}

/* Its content never stands in an error. */
static int take_line(struct credentials *c, const char *path, unsigned number,
                     struct span line, struct error *err)
{
	const char *colon;
	struct span name, value;

	line = trim(line);
	if (line.n == 0 || line.p[0] == '#')
		return 0;
	colon = memchr(line.p, ':', line.n);
	name = span_make(line.p, colon ? (size_t)(colon - line.p) : 0);
	value = colon ? trim(span_make(colon + 1, line.n - name.n - 1))
	              : SPAN_NULL;
	if (!is_name(name) || !is_value(value))
		return error_set(err, ERR_CONFIG,
		                 "header_file %s, line %u: not of the form "
		                 "\"Name: value\"",
		                 path, number);
	if (is_reserved(name))
		return error_set(err, ERR_CONFIG,
		                 "header_file %s, line %u: %.*s is not for it "
		                 "to set",
		                 path, number, (int)name.n, name.p);
	return add_checked(c, "header_file", path, name, "", value, err);
}

static int load_headers(struct credentials *c, const char *path,
                        struct error *err)
{
	struct buf text = BUF_INIT(CREDENTIALS_SECRET_MAX);
	int r = read_file("header_file", path, true, &text, err);
	const char *at = text.data, *end = r == 0 ? at + text.len : at, *nl;

	for (unsigned number = 1; r == 0 && at < end; number++) {
		nl = memchr(at, '\n', (size_t)(end - at));
		if (!nl)
			nl = end;
		r = take_line(c, path, number, span_make(at, (size_t)(nl - at)),
		              err);
		at = nl + 1;
	}
	wipe(&text);
	return r;
}

int credentials_load(struct credentials *c, const struct credentials_files *f,
                     struct error *err)
{
	credentials_init(c);
	if (load_ca(c, f, err) == 0 && load_client(c, f, err) == 0 &&
	    (!named(f->token_file) || load_token(c, f->token_file, err) == 0) &&
	    (!named(f->header_file) ||
	     load_headers(c, f->header_file, err) == 0))
		return 0;
	credentials_deinit(c);
	return -1;
}

/* --- as bytes ------------------------------------------------------------- */

/* Fields with their lengths: ca, cert, key, then name and value of each
 * header. Both ends are processes of one machine and release. */
static int put(struct buf *out, const char *p, size_t n)
{
	uint32_t len = (uint32_t)n;
	int r = buf_append(out, (const char *)&len, sizeof(len));

	return r == 0 && n > 0 ? buf_append(out, p, n) : r;
}

int credentials_pack(const struct credentials *c, struct buf *out)
{
	int r = put(out, c->ca.data, c->ca.len);

	if (r == 0)
		r = put(out, c->cert.data, c->cert.len);
	if (r == 0)
		r = put(out, c->key.data, c->key.len);
	for (size_t i = 0; r == 0 && i < c->header_count; i++) {
		r = put(out, c->headers[i].name, strlen(c->headers[i].name));
		if (r == 0)
			r = put(out, c->headers[i].value,
			        strlen(c->headers[i].value));
	}
	return r;
}

static int take(struct span *in, struct span *field)
{
	uint32_t len;

	if (in->n < sizeof(len))
		return -EPROTO;
	memcpy(&len, in->p, sizeof(len));
	in->p += sizeof(len);
	in->n -= sizeof(len);
	if (len > in->n)
		return -EPROTO;
	*field = span_make(in->p, len);
	in->p += len;
	in->n -= len;
	return 0;
}

static int take_pem(struct span *in, struct buf *out)
{
	struct span field;
	int r = take(in, &field);

	if (r == 0 && field.n > 0)
		r = buf_append(out, field.p, field.n);
	return r;
}

int credentials_unpack(struct credentials *c, struct span packed)
{
	struct span name, value;
	int r;

	credentials_init(c);
	r = take_pem(&packed, &c->ca);
	if (r == 0)
		r = take_pem(&packed, &c->cert);
	if (r == 0)
		r = take_pem(&packed, &c->key);
	while (r == 0 && packed.n > 0) {
		r = take(&packed, &name);
		if (r == 0)
			r = take(&packed, &value);
		if (r == 0)
			r = is_name(name) && value.n > 0
			            ? add_header(c, name, "", value)
			            : -EPROTO;
	}
	if (r < 0)
		credentials_deinit(c);
	return r == -ENOBUFS || r == -EMSGSIZE ? -EPROTO : r;
}

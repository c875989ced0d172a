/*
 * url.c - see url.h.
 *
 * Stricter than RFC 3986 on purpose. The text goes to two parsers that are not
 * ours (libcurl's and the WebSocket library's), and what they might read
 * differently, such as a dot segment or a host like 127.1, is refused here.
 */
#include "common/url.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "common/log.h"
#include "common/span.h"

#define LABEL_MAX  63 /* RFC 1035, section 2.3.4 */
#define PORT_HTTP  80
#define PORT_HTTPS 443

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c >= '0' && c <= '9');
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* RFC 3986, section 2.3. */
static bool is_unreserved(char c)
{
	return is_alnum(c) || (c && strchr("-._~", c));
}

/* What a path may hold as it is: pchar of RFC 3986 and the slash; '%' is
 * looked at apart. */
static bool is_path_char(char c)
{
	return is_unreserved(c) || (c && strchr("!$&'()*+,;=:@/", c));
}

static bool span_has_prefix(struct span s, const char *prefix)
{
	size_t n = strlen(prefix);

	return s.n >= n && strncasecmp(s.p, prefix, n) == 0;
}

static const char *span_find(struct span s, char c)
{
	return s.n ? memchr(s.p, c, s.n) : NULL;
}

/* For messages. Credentials must not get into a log by way of the text that
 * refuses them, so what is before an '@' is left out. */
static const char *show(const char *text)
{
	const char *at = strrchr(text, '@');

	return at ? log_safe(at + 1, strlen(at + 1))
	          : log_safe(text, strlen(text));
}

static int refuse_userinfo(const char *text, struct error *err)
{
	const char *sep = strstr(text, "://");
	const char *authority = sep ? sep + 3 : text;

	if (!memchr(authority, '@', strcspn(authority, "/?#")))
		return 0;
	return error_set(err, ERR_INVALID,
	                 "URL \"...@%s\": a user or password has no place in "
	                 "it, since URLs are logged and shown; let a reverse "
	                 "proxy add the credentials and name the proxy here",
	                 show(text));
}

static int check_characters(const char *text, struct error *err)
{
	size_t len = strlen(text);

	if (len == 0)
		return error_set(err, ERR_INVALID,
		                 "URL is empty; expected one such as "
		                 "http://127.0.0.1:8188");
	if (len > URL_TEXT_MAX)
		return error_set(
			err, ERR_INVALID,
			"URL of %zu bytes is too long (at most %d): %s", len,
			URL_TEXT_MAX, show(text));
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c > ' ' && c < 0x7f)
			continue;
		return error_set(err, ERR_INVALID,
		                 "URL \"%s\": %s at character %zu", show(text),
		                 c == ' '    ? "space"
		                 : c >= 0x80 ? "non-ASCII byte (use punycode "
		                               "for the host, percent-encoding "
		                               "for the path)"
		                             : "control character",
		                 i + 1);
	}
	return 0;
}

/* Takes "scheme://" off the front of `rest`. */
static int take_scheme(struct url *u, struct span *rest, struct error *err)
{
	static const struct {
		const char *prefix;
		bool tls;
	} schemes[] = {{"http://", false},
	               {"ws://", false},
	               {"https://", true},
	               {"wss://", true}};
	const char *colon;

	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
		if (!span_has_prefix(*rest, schemes[i].prefix))
			continue;
		u->tls = schemes[i].tls;
		rest->p += strlen(schemes[i].prefix);
		rest->n -= strlen(schemes[i].prefix);
		return 0;
	}
	u->tls = false;
	colon = span_find(*rest, ':');
	if (colon && rest->n - (size_t)(colon - rest->p) >= 3 &&
	    memcmp(colon, "://", 3) == 0)
		return error_set(err, ERR_INVALID,
		                 "URL \"%s\": unknown scheme; use http, https, "
		                 "ws or wss",
		                 show(rest->p));
	return 0;
}

static int set_ipv6(struct url *u, struct span host)
{
	struct in6_addr addr;
	char text[INET6_ADDRSTRLEN];

	if (host.n >= sizeof(text))
		return -1;
	memcpy(text, host.p, host.n);
	text[host.n] = '\0';
	if (inet_pton(AF_INET6, text, &addr) != 1 ||
	    !inet_ntop(AF_INET6, &addr, u->host, sizeof(u->host)))
		return -1;
	u->host_is_ipv6 = true;
	return 0;
}

/* NULL if it is a name or an IPv4 address, else what is wrong with it. */
static const char *check_name(struct span host)
{
	size_t label = 0;
	bool numeric = true; /* the label so far */
	struct in_addr addr;
	char text[URL_HOST_MAX + 1];

	if (host.n == 0)
		return "host is missing";
	if (host.n > URL_HOST_MAX)
		return "host is too long";
	memcpy(text, host.p, host.n);
	text[host.n] = '\0';
	for (size_t i = 0; i < host.n; i++) {
		char c = text[i];

		if (c == '.') {
			if (label == 0)
				return "host has an empty label";
			/* One dot at the end marks a full name. */
			if (i + 1 < host.n) {
				label = 0;
				numeric = true;
			}
			continue;
		}
		if (!is_alnum(c) && c != '-' && c != '_')
			return "host has a character that no host name has";
		if (++label > LABEL_MAX)
			return "host has a label longer than 63 characters";
		numeric = numeric && is_digit(c);
	}
	/* 127.1 or 2130706433 are addresses to some parsers, names to
	 * others. */
	if (numeric && inet_pton(AF_INET, text, &addr) != 1)
		return "host is not a valid IPv4 address";
	return NULL;
}

static int set_host(struct url *u, struct span host, const char *shown,
                    struct error *err)
{
	const char *wrong = check_name(host);

	if (wrong)
		return error_set(err, ERR_INVALID, "URL \"%s\": %s", shown,
		                 wrong);
	for (size_t i = 0; i < host.n; i++)
		u->host[i] = (char)tolower((unsigned char)host.p[i]);
	u->host[host.n] = '\0';
	return 0;
}

static int set_port(struct url *u, struct span port, const char *shown,
                    struct error *err)
{
	unsigned long value = 0;

	for (size_t i = 0; i < port.n; i++) {
		if (!is_digit(port.p[i]))
			return error_set(err, ERR_INVALID,
			                 "URL \"%s\": port is not a number",
			                 shown);
		if (value <= UINT16_MAX)
			value = value * 10 + (unsigned long)(port.p[i] - '0');
	}
	if (value == 0 || value > UINT16_MAX)
		return error_set(err, ERR_INVALID,
		                 "URL \"%s\": port must be 1 to 65535", shown);
	u->port = (uint16_t)value;
	return 0;
}

static int set_authority(struct url *u, struct span a, const char *shown,
                         struct error *err)
{
	const char *colon, *end;

	u->port = u->tls ? PORT_HTTPS : PORT_HTTP;
	if (a.n > 0 && a.p[0] == '[') {
		end = span_find(a, ']');
		if (!end || set_ipv6(u, span_make(a.p + 1,
		                                  (size_t)(end - a.p) - 1)) < 0)
			return error_set(err, ERR_INVALID,
			                 "URL \"%s\": no valid IPv6 address in "
			                 "the brackets",
			                 shown);
		a = span_make(end + 1, a.n - (size_t)(end + 1 - a.p));
		if (a.n == 0)
			return 0;
		if (a.p[0] != ':')
			return error_set(err, ERR_INVALID,
			                 "URL \"%s\": text behind the bracket "
			                 "that is no port",
			                 shown);
		return set_port(u, span_make(a.p + 1, a.n - 1), shown, err);
	}
	colon = span_find(a, ':');
	if (!colon)
		return set_host(u, a, shown, err);
	end = a.p + a.n;
	if (memchr(colon + 1, ':', (size_t)(end - colon - 1)))
		return error_set(err, ERR_INVALID,
		                 "URL \"%s\": put an IPv6 address in brackets, "
		                 "as in http://[::1]:8188",
		                 shown);
	if (set_host(u, span_make(a.p, (size_t)(colon - a.p)), shown, err) < 0)
		return -1;
	return set_port(u, span_make(colon + 1, (size_t)(end - colon - 1)),
	                shown, err);
}

/* "." and "..", also written with %2e, would be resolved by one parser and
 * sent by another. */
static bool has_dot_segment(struct span path)
{
	size_t dots = 0, chars = 0;

	for (size_t i = 0; i <= path.n; i++) {
		if (i == path.n || path.p[i] == '/') {
			if (chars > 0 && dots == chars && dots <= 2)
				return true;
			dots = chars = 0;
			continue;
		}
		chars++;
		if (path.p[i] == '.') {
			dots++;
		} else if (path.n - i >= 3 &&
		           strncasecmp(path.p + i, "%2e", 3) == 0) {
			dots++;
			i += 2;
		}
	}
	return false;
}

static int set_path(struct url *u, struct span path, const char *shown,
                    struct error *err)
{
	while (path.n > 0 && path.p[path.n - 1] == '/')
		path.n--;
	for (size_t i = 0; i < path.n; i++) {
		if (path.p[i] == '%') {
			if (path.n - i >= 3 &&
			    isxdigit((unsigned char)path.p[i + 1]) &&
			    isxdigit((unsigned char)path.p[i + 2]))
				continue;
			return error_set(err, ERR_INVALID,
			                 "URL \"%s\": '%%' without two hex "
			                 "digits behind it",
			                 shown);
		}
		if (!is_path_char(path.p[i]))
			return error_set(err, ERR_INVALID,
			                 "URL \"%s\": '%c' must be "
			                 "percent-encoded in a path",
			                 shown, path.p[i]);
	}
	if (has_dot_segment(path))
		return error_set(err, ERR_INVALID,
		                 "URL \"%s\": \".\" or \"..\" in the path",
		                 shown);
	if (path.n >= sizeof(u->path))
		return error_set(err, ERR_INVALID,
		                 "URL \"%s\": path is too long", shown);
	if (path.n > 0)
		memcpy(u->path, path.p, path.n);
	u->path[path.n] = '\0';
	return 0;
}

int url_parse(struct url *u, const char *text, struct error *err)
{
	struct span rest = SPAN(text), authority;
	const char *shown, *extra;

	memset(u, 0, sizeof(*u));
	if (refuse_userinfo(text, err) < 0 || check_characters(text, err) < 0 ||
	    take_scheme(u, &rest, err) < 0)
		return -1;
	shown = show(text);
	extra = strpbrk(rest.p, "?#");
	if (extra)
		return error_set(err, ERR_INVALID,
		                 "URL \"%s\": a %s has no place in it; give "
		                 "host, port and base path only",
		                 shown, *extra == '?' ? "query" : "fragment");
	authority = span_make(rest.p, strcspn(rest.p, "/"));
	if (set_authority(u, authority, shown, err) < 0)
		return -1;
	rest.p += authority.n;
	rest.n -= authority.n;
	return set_path(u, rest, shown, err);
}

int url_authority(const struct url *u, struct buf *out)
{
	bool usual = u->port == (u->tls ? PORT_HTTPS : PORT_HTTP);
	int r;

	r = buf_printf(out, u->host_is_ipv6 ? "[%s]" : "%s", u->host);
	if (r == 0 && !usual)
		r = buf_printf(out, ":%u", (unsigned)u->port);
	return r;
}

int url_http(const struct url *u, struct buf *out)
{
	int r = buf_puts(out, u->tls ? "https://" : "http://");

	if (r == 0)
		r = url_authority(u, out);
	if (r == 0)
		r = buf_puts(out, u->path);
	return r;
}

int url_ws_path(const struct url *u, const char *client_id, struct buf *out)
{
	int r = buf_puts(out, u->path);

	if (r == 0)
		r = buf_puts(out, "/ws?clientId=");
	if (r == 0)
		r = url_encode(out, client_id, strlen(client_id));
	return r;
}

int url_encode(struct buf *out, const char *s, size_t len)
{
	static const char hex[] = "0123456789ABCDEF";
	int r = 0;

	for (size_t i = 0; i < len && r == 0; i++) {
		unsigned char c = (unsigned char)s[i];
		char enc[3] = {'%', hex[c >> 4], hex[c & 15]};

		r = is_unreserved(s[i]) ? buf_putc(out, s[i])
		                        : buf_append(out, enc, sizeof(enc));
	}
	return r;
}

bool url_eq(const struct url *a, const struct url *b)
{
	return a->tls == b->tls && a->port == b->port &&
	       a->host_is_ipv6 == b->host_is_ipv6 &&
	       strcmp(a->host, b->host) == 0 && strcmp(a->path, b->path) == 0;
}

bool url_is_loopback(const struct url *u)
{
	unsigned char a[sizeof(struct in_addr)];

	return strcmp(u->host, "localhost") == 0 ||
	       strcmp(u->host, "::1") == 0 ||
	       (inet_pton(AF_INET, u->host, a) == 1 && a[0] == 127);
}

bool url_is_numeric(const struct url *u)
{
	unsigned char a[sizeof(struct in6_addr)];

	return strcmp(u->host, "localhost") == 0 ||
	       inet_pton(AF_INET, u->host, a) == 1 ||
	       inet_pton(AF_INET6, u->host, a) == 1;
}

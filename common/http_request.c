/*
 * http_request.c - one transfer set up for libcurl, and its body on the way
 * in.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/credentials.h"
#include "common/http_impl.h"

void http_call_free_easy(struct http_call *c)
{
	curl_easy_cleanup(c->easy);
	c->easy = NULL;
	curl_mime_free(c->mime);
	c->mime = NULL;
	curl_slist_free_all(c->headers);
	c->headers = NULL;
}

void http_call_free(struct http_call *c)
{
	http_call_free_easy(c);
	buf_deinit(&c->body);
	free(c);
}

static size_t on_body(char *data, size_t size, size_t n, void *user)
{
	struct http_call *c = user;
	size_t len = size * n;
	long status = 0;
	int r;

	(void)curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
	if (c->on_data && status >= 200 && status <= 299) {
		if (c->reply_max > 0 && len > c->reply_max - c->sunk) {
			c->too_large = true;
			return 0;
		}
		c->sunk += len;
		c->sink_stopped = !c->on_data(c->user, data, len);
		return c->sink_stopped ? 0 : len;
	}
	r = buf_append(&c->body, data, len);
	if (r == 0)
		return len;
	if (r == -EMSGSIZE)
		c->too_large = true;
	else
		c->no_memory = true;
	return 0;
}

/* curl takes a connection that ends within the headers for a whole reply
 * without a body, which an empty reply that means success is, too. */
static size_t on_header(char *data, size_t size, size_t n, void *user)
{
	struct http_call *c = user;
	size_t len = size * n;

	/* There may be several heads (100 Continue), and trailers. */
	if (len >= 5 && memcmp(data, "HTTP/", 5) == 0)
		c->head_ended = false;
	else if (len > 0 && (data[0] == '\r' || data[0] == '\n'))
		c->head_ended = true;
	return len;
}

/* Restarts the deadline of a call with timeout_is_idle. */
static int on_progress(void *user, curl_off_t dltotal, curl_off_t dlnow,
                       curl_off_t ultotal, curl_off_t ulnow)
{
	struct http_call *c = user;

	if (dlnow + ulnow != c->moved) {
		c->moved = dlnow + ulnow;
		ev_timer_again(c->http->loop, &c->deadline);
	}
	return 0;
}

/* As curl does by itself, but the socket must not outlive an exec. */
static curl_socket_t on_open_socket(void *user, curlsocktype purpose,
                                    struct curl_sockaddr *addr)
{
	return socket(addr->family, addr->socktype | SOCK_CLOEXEC,
	              addr->protocol);
}

static bool add_header(struct http_call *c, const char *name, const char *value)
{
	struct buf line = BUF_INIT(2 * CREDENTIALS_HEADER_MAX + 16);
	struct curl_slist *list = NULL;

	(void)buf_printf(&line, "%s:%s%s", name, value ? " " : "",
	                 value ? value : "");
	if (buf_cstr(&line))
		list = curl_slist_append(c->headers, line.data);
	buf_deinit(&line);
	if (list)
		c->headers = list;
	return list != NULL;
}

static bool add_parts(struct http_call *c, const struct http_request *req)
{
	c->mime = curl_mime_init(c->easy);
	for (size_t i = 0; c->mime && i < req->part_count; i++) {
		const struct http_part *p = &req->parts[i];
		curl_mimepart *part = curl_mime_addpart(c->mime);

		if (!part || curl_mime_name(part, p->name) != CURLE_OK ||
		    curl_mime_data(part, p->data.p ? p->data.p : "",
		                   p->data.n) != CURLE_OK ||
		    (p->filename &&
		     curl_mime_filename(part, p->filename) != CURLE_OK) ||
		    (p->content_type &&
		     curl_mime_type(part, p->content_type) != CURLE_OK))
			return false;
	}
	return c->mime &&
	       curl_easy_setopt(c->easy, CURLOPT_MIMEPOST, c->mime) == CURLE_OK;
}

/* The first option that failed decides. */
#define SET(option, value)                                                     \
	do {                                                                   \
		if (rc == CURLE_OK)                                            \
			rc = curl_easy_setopt(c->easy, option, value);         \
	} while (0)

static CURLcode set_post(struct http_call *c, const struct http_request *req)
{
	CURLcode rc = CURLE_OK;

	/* curl writes a request a second time, silently, when a kept-alive
	 * connection ends before a byte of the reply. The server may have read
	 * the first one by then, and a prompt would run twice. On a connection
	 * of its own curl never does that. */
	SET(CURLOPT_FRESH_CONNECT, 1L);
	if (req->part_count > 0)
		return rc == CURLE_OK && !add_parts(c, req)
		               ? CURLE_OUT_OF_MEMORY
		               : rc;
	SET(CURLOPT_POST, 1L);
	SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)req->body.n);
	SET(CURLOPT_COPYPOSTFIELDS, req->body.p ? req->body.p : "");
	/* NULL: neither curl's own idea of a type. */
	if (rc == CURLE_OK && !add_header(c, "Content-Type", req->content_type))
		rc = CURLE_OUT_OF_MEMORY;
	return rc;
}

/* Without a copy: they outlive the transfer. */
static CURLcode set_blob(struct http_call *c, CURLoption option,
                         const struct buf *b)
{
	struct curl_blob blob = {
		.data = b->data, .len = b->len, .flags = CURL_BLOB_NOCOPY};

	return b->len > 0 ? curl_easy_setopt(c->easy, option, &blob) : CURLE_OK;
}

static CURLcode set_credentials(struct http_call *c)
{
	const struct credentials *k = c->http->credentials;
	CURLcode rc = CURLE_OK;

	if (!k)
		return CURLE_OK;
	if (k->ca.len > 0) {
		rc = set_blob(c, CURLOPT_CAINFO_BLOB, &k->ca);
		SET(CURLOPT_CAPATH, NULL);
	}
	if (rc == CURLE_OK)
		rc = set_blob(c, CURLOPT_SSLCERT_BLOB, &k->cert);
	if (rc == CURLE_OK)
		rc = set_blob(c, CURLOPT_SSLKEY_BLOB, &k->key);
	/* To the server, not to a proxy on the way to it. */
	SET(CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE);
	for (size_t i = 0; rc == CURLE_OK && i < k->header_count; i++) {
		if (!add_header(c, k->headers[i].name, k->headers[i].value))
			rc = CURLE_OUT_OF_MEMORY;
	}
	return rc;
}

static CURLcode set_network(struct http_call *c)
{
	const struct http *h = c->http;
	CURLcode rc = CURLE_OK;

	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_NOSIGNAL, 1L);
#if LIBCURL_VERSION_NUM >= 0x075700
	/* A call that ends while its host's name is being resolved would else
	 * wait for the resolver's thread, which may take half a minute. */
	SET(CURLOPT_QUICK_EXIT, 1L);
#endif
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
	SET(CURLOPT_CONNECTTIMEOUT_MS, (long)h->connect_timeout_ms);
	/* "" in both: what the environment says does not count. */
	SET(CURLOPT_PROXY, h->proxy ? h->proxy : "");
	SET(CURLOPT_NOPROXY, "");
	SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	if (h->resolve)
		SET(CURLOPT_RESOLVE, h->resolve);
	if (h->ca_file) {
		SET(CURLOPT_CAINFO, h->ca_file);
		SET(CURLOPT_CAPATH, NULL);
	}
	return rc == CURLE_OK ? set_credentials(c) : rc;
}

static CURLcode set_request(struct http_call *c, const struct http_request *req)
{
	CURLcode rc = set_network(c);
	bool post = strcmp(req->method, "POST") == 0;

	SET(CURLOPT_PRIVATE, c);
	SET(CURLOPT_ERRORBUFFER, c->curl_error);
	SET(CURLOPT_HEADERFUNCTION, on_header);
	SET(CURLOPT_HEADERDATA, c);
	SET(CURLOPT_WRITEFUNCTION, on_body);
	SET(CURLOPT_WRITEDATA, c);
	SET(CURLOPT_URL, req->url);
	/* Ids stand in paths: one that is "%2e%2e" must not climb. */
	SET(CURLOPT_PATH_AS_IS, 1L);
	SET(CURLOPT_USERAGENT, "comfymux");
	if (c->reply_max > 0)
		SET(CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)c->reply_max);
	if (req->timeout_is_idle) {
		SET(CURLOPT_NOPROGRESS, 0L);
		SET(CURLOPT_XFERINFOFUNCTION, on_progress);
		SET(CURLOPT_XFERINFODATA, c);
	}
	if (rc == CURLE_OK && post)
		rc = set_post(c, req);
	/* Or else curl waits up to a second for a "100 Continue" that not every
	 * server sends. */
	if (rc == CURLE_OK && !add_header(c, "Expect", NULL))
		rc = CURLE_OUT_OF_MEMORY;
	SET(CURLOPT_HTTPHEADER, c->headers);
	return rc;
}

#undef SET

static struct http_call *alloc_call(struct http *h,
                                    const struct http_request *req, http_cb *cb,
                                    void *user)
{
	size_t url_len = strlen(req->url);
	struct http_call *c = calloc(1, sizeof(*c) + url_len + 1);

	if (!c)
		return NULL;
	list_init(&c->link);
	c->http = h;
	c->cb = cb;
	c->user = user;
	c->on_data = req->on_data;
	c->reply_max = req->reply_max;
	if (c->reply_max == 0 && !c->on_data)
		c->reply_max = HTTP_REPLY_MAX;
	buf_init(&c->body, c->reply_max ? c->reply_max : HTTP_REPLY_MAX);
	c->timeout_ms = req->timeout_ms ? req->timeout_ms : h->timeout_ms;
	c->method = strcmp(req->method, "POST") == 0 ? "POST" : "GET";
	memcpy(c->url, req->url, url_len + 1);
	/* The repeat is for ev_timer_again() in on_progress(). */
	ev_timer_init(&c->deadline, http_call_on_deadline, c->timeout_ms / 1e3,
	              c->timeout_ms / 1e3);
	c->easy = curl_easy_init();
	if (c->easy)
		return c;
	http_call_free(c);
	return NULL;
}

struct http_call *http_call_new(struct http *h, const struct http_request *req,
                                http_cb *cb, void *user, struct error *err)
{
	struct http_call *c = alloc_call(h, req, cb, user);
	CURLcode rc;

	if (!c) {
		(void)error_set_nomem(err, "HTTP request");
		return NULL;
	}
	rc = set_request(c, req);
	if (rc == CURLE_OK)
		return c;
	(void)error_set(err, ERR_INTERNAL,
	                "cannot start the request %s %.*s: %s", c->method,
	                HTTP_URL_SHOWN_MAX, c->url, curl_easy_strerror(rc));
	http_call_free(c);
	return NULL;
}

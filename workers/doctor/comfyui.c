/*
 * comfyui.c - ComfyUI itself, without anybody between: an HTTP request, and
 * the handshake of a WebSocket under a client id that nobody else has.
 */
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/json_span.h"
#include "common/uuid.h"
#include "workers/doctor/doctor.h"

#define URL_ROOM 8192
/* Any 16 bytes, in base64: it only has to be there. */
#define WS_KEY "Sec-WebSocket-Key: Y29tZnltdXggZG9jdG9yIQ=="

static size_t take_body(char *data, size_t size, size_t n, void *user)
{
	return buf_append(user, data, n) == 0 ? n : 0;
}

/* Nothing after the handshake is of interest. */
static size_t take_nothing(char *data, size_t size, size_t n, void *user)
{
	return 0;
}

static CURL *prepare(const struct doctor *d, const char *url)
{
	CURL *c = curl_easy_init();

	if (!c)
		return NULL;
	(void)curl_easy_setopt(c, CURLOPT_URL, url);
	(void)curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)DOCTOR_WAIT_MS);
	(void)curl_easy_setopt(c, CURLOPT_PROXY, d->cfg.proxy);
	(void)curl_easy_setopt(c, CURLOPT_NOPROXY, "");
	(void)curl_easy_setopt(c, CURLOPT_HTTP_VERSION,
	                       (long)CURL_HTTP_VERSION_1_1);
	if (d->cfg.ca_file[0] != '\0')
		(void)curl_easy_setopt(c, CURLOPT_CAINFO, d->cfg.ca_file);
	return c;
}

static const char *advice_of(CURLcode r)
{
	switch (r) {
	case CURLE_COULDNT_RESOLVE_HOST:
		return "the name is not known here: see the host in the URL; "
		       "in containers use the service's name, "
		       "http://comfyui:8188";
	case CURLE_COULDNT_CONNECT:
		return "is ComfyUI started, and does it listen there? It "
		       "listens on 127.0.0.1 alone unless started with "
		       "--listen";
	case CURLE_PEER_FAILED_VERIFICATION:
		return "name its certificate authority by the key ca_file";
	case CURLE_OPERATION_TIMEDOUT:
		return "a firewall in between, or a ComfyUI that hangs";
	default:
		return "does that address belong to ComfyUI?";
	}
}

static void read_stats(struct doctor *d, const struct buf *body, double s)
{
	cleanup_free char *version = NULL;
	struct json j;

	if (json_parse(&j, body->data, body->len, 0, NULL) != JSON_OK ||
	    !json_is(json_get(j, "system"), JSON_OBJECT)) {
		doctor_tell(d, VERDICT_FAIL, "http",
		            "another program answers there; see the URL's port "
		            "and base path",
		            "%s answers, and it is not ComfyUI",
		            d->cfg.comfyui);
		return;
	}
	version = json_string_dup(
		json_get(json_get(j, "system"), "comfyui_version"), 64);
	doctor_tell(d, VERDICT_OK, "http", NULL,
	            "ComfyUI %s answers within %.0f ms",
	            version ? version : "(older than 0.3)", s * 1e3);
}

/* True if it answers, so that its WebSocket is worth a try. */
static bool check_http(struct doctor *d, const char *url)
{
	cleanup_buf struct buf body = BUF_INIT(DOCTOR_REPLY_MAX);
	CURL *c = prepare(d, url);
	long status = 0;
	double s = 0;
	CURLcode r;

	if (!c)
		return false;
	(void)curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_body);
	(void)curl_easy_setopt(c, CURLOPT_WRITEDATA, &body);
	r = curl_easy_perform(c);
	(void)curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
	(void)curl_easy_getinfo(c, CURLINFO_TOTAL_TIME, &s);
	curl_easy_cleanup(c);
	if (r != CURLE_OK) {
		doctor_tell(d, VERDICT_GONE, "http", advice_of(r), "%s: %s",
		            url, curl_easy_strerror(r));
		return false;
	}
	if (status != 200) {
		doctor_tell(d, VERDICT_FAIL, "http",
		            "see the URL's base path; a proxy may want "
		            "authentication",
		            "%s answers with status %ld", url, status);
		return false;
	}
	read_stats(d, &body, s);
	return true;
}

static void check_websocket(struct doctor *d, const char *url)
{
	CURL *c = prepare(d, url);
	struct curl_slist *headers = NULL;
	long status = 0;
	CURLcode r;

	if (!c)
		return;
	headers = curl_slist_append(headers, "Connection: Upgrade");
	headers = curl_slist_append(headers, "Upgrade: websocket");
	headers = curl_slist_append(headers, "Sec-WebSocket-Version: 13");
	headers = curl_slist_append(headers, WS_KEY);
	(void)curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
	(void)curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_nothing);
	r = curl_easy_perform(c);
	(void)curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
	if (status == 0)
		(void)curl_easy_getinfo(c, CURLINFO_HTTP_CONNECTCODE, &status);
	curl_easy_cleanup(c);
	curl_slist_free_all(headers);
	if (status == 101)
		doctor_tell(d, VERDICT_OK, "websocket", NULL,
		            "ComfyUI opens a WebSocket");
	else
		doctor_tell(d, VERDICT_FAIL, "websocket",
		            "a proxy in between must pass Upgrade on; without "
		            "events everything goes by polling",
		            "no WebSocket: %s (status %ld)",
		            r == CURLE_OK ? "ComfyUI, or a proxy, answered "
		                            "otherwise"
		                          : curl_easy_strerror(r),
		            status);
}

void doctor_comfyui(struct doctor *d)
{
	cleanup_buf struct buf base = BUF_INIT(URL_ROOM);
	cleanup_buf struct buf stats = BUF_INIT(URL_ROOM);
	cleanup_buf struct buf ws = BUF_INIT(URL_ROOM);
	char id[UUID_LEN + 1];
	struct url url;

	if (url_parse(&url, d->cfg.comfyui, NULL) < 0 || uuid_new(id) < 0 ||
	    url_http(&url, &base) < 0)
		return;
	while (base.len > 0 && base.data[base.len - 1] == '/')
		base.len--;
	(void)buf_printf(&stats, "%.*s/system_stats", (int)base.len, base.data);
	(void)buf_printf(&ws, "%.*s/ws?clientId=%s", (int)base.len, base.data,
	                 id);
	if (!buf_cstr(&stats) || !buf_cstr(&ws) ||
	    curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return;
	if (check_http(d, stats.data))
		check_websocket(d, ws.data);
	curl_global_cleanup();
}

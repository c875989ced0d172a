/*
 * log_format.c - one message as a line: for people, as key=value, as JSON, or
 * as the journal's fields.
 *
 * A message ends in "(key=value key=value)" where it has values worth looking
 * for; they are taken out of the text here, so that whoever logs writes one
 * string. What doesn't read like that stays text. A line that would be too long
 * is cut within its text and stays well-formed.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log_impl.h"
#include "common/utf8.h"

#define ELLIPSIS "..."
/* Kept free for what closes a line. */
#define CLOSING_ROOM 16
#define NUMBER_MAX   15 /* digits that any reader of JSON takes whole */

struct field {
	const char *key, *value;
	size_t key_len, value_len;
};

struct parts {
	size_t text_len; /* of the text before the fields */
	struct field fields[LOG_FIELDS_MAX];
	size_t count;
};

/* --- taking apart --------------------------------------------------------- */

static size_t key_len(const char *p, size_t n)
{
	size_t len = 0;

	while (len < n && ((p[len] >= 'a' && p[len] <= 'z') || p[len] == '_' ||
	                   (len > 0 && p[len] >= '0' && p[len] <= '9')))
		len++;
	return len < n && p[len] == '=' ? len : 0;
}

/* A blank that begins the next field, or the end. */
static size_t value_len(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (p[i] == ' ' && key_len(p + i + 1, n - i - 1) > 0)
			return i;
	}
	return n;
}

static bool take_fields(struct parts *out, const char *p, size_t n)
{
	struct field *f;

	while (n > 0) {
		if (out->count == LOG_FIELDS_MAX)
			return false;
		f = &out->fields[out->count++];
		f->key = p;
		f->key_len = key_len(p, n);
		if (f->key_len == 0)
			return false;
		p += f->key_len + 1;
		n -= f->key_len + 1;
		f->value = p;
		f->value_len = value_len(p, n);
		p += f->value_len;
		n -= f->value_len;
		if (n > 0) {
			p++;
			n--;
		}
	}
	return out->count > 0;
}

static void take_apart(struct parts *out, const char *text, size_t len)
{
	size_t open = len;

	out->text_len = len;
	out->count = 0;
	if (len < 4 || text[len - 1] != ')')
		return;
	/* The first that works: values may hold brackets themselves. */
	for (size_t i = 1; i < len; i++) {
		if (text[i] != '(' || text[i - 1] != ' ')
			continue;
		open = i;
		out->count = 0;
		if (take_fields(out, text + open + 1, len - open - 2)) {
			out->text_len = open - 1;
			return;
		}
	}
	out->count = 0;
}

/* --- putting together ----------------------------------------------------- */

struct writer {
	char *line;
	size_t len, max;
};

ATTR_PRINTF(2, 3)
static bool put(struct writer *w, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(w->line + w->len, w->max - w->len, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= w->max - w->len)
		return false;
	w->len += (size_t)n;
	return true;
}

/* Within quotes, of JSON or of ours; cut with dots where there is no room. */
static void put_quoted(struct writer *w, const char *p, size_t n)
{
	const unsigned char *s = (const unsigned char *)p;
	size_t room = w->max > CLOSING_ROOM ? w->max - CLOSING_ROOM : 0;
	size_t c;

	(void)put(w, "\"");
	for (size_t i = 0; i < n; i += c ? c : 1) {
		c = utf8_char_len(s + i, n - i);
		if (w->len + 8 > room) {
			(void)put(w, ELLIPSIS);
			break;
		}
		if (c == 0)
			(void)put(w, UTF8_REPLACEMENT);
		else if (s[i] == '"' || s[i] == '\\')
			(void)put(w, "\\%c", s[i]);
		else
			(void)put(w, "%.*s", (int)c, (const char *)s + i);
	}
	(void)put(w, "\"");
}

static bool is_number(const struct field *f)
{
	size_t i = f->value_len > 1 && f->value[0] == '-';

	if (f->value_len == 0 || f->value_len - i > NUMBER_MAX ||
	    (f->value[i] == '0' && f->value_len > i + 1))
		return false;
	for (; i < f->value_len; i++) {
		if (f->value[i] < '0' || f->value[i] > '9')
			return false;
	}
	return true;
}

static bool is_plain(const struct field *f)
{
	for (size_t i = 0; i < f->value_len; i++) {
		if (f->value[i] <= ' ' || f->value[i] > '~' ||
		    f->value[i] == '"' || f->value[i] == '\\' ||
		    f->value[i] == '=')
			return false;
	}
	return f->value_len > 0;
}

static void put_time(struct writer *w)
{
	int64_t ms = clock_epoch_ms();
	time_t s = (time_t)(ms / 1000);
	struct tm tm;

	if (gmtime_r(&s, &tm))
		(void)put(w, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ",
		          tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday,
		          tm.tm_hour, tm.tm_min, tm.tm_sec, (int)(ms % 1000));
}

/* --- the forms ------------------------------------------------------------ */

/* Room for one more field. */
static bool roomy(const struct writer *w, const struct field *f)
{
	return w->len + f->key_len + f->value_len + 2 * (size_t)CLOSING_ROOM <
	       w->max;
}

static void put_text(struct writer *w, const struct log_message *m)
{
	size_t room, end;

	if (m->timed) {
		put_time(w);
		(void)put(w, " ");
	}
	if (m->headed)
		(void)put(w, "%s %.32s: ", log_levels[m->level].name,
		          m->module);
	else
		(void)put(w, "%s %.32s[%ld] %.32s: ", log_levels[m->level].name,
		          m->role, (long)getpid(), m->module);
	room = w->max - 1 - w->len;
	if (m->len <= room) {
		(void)put(w, "%.*s", (int)m->len, m->text);
		return;
	}
	/* Cut, not in the midst of a character. */
	end = room - strlen(ELLIPSIS);
	for (int i = 0; i < 3 && ((unsigned char)m->text[end] & 0xc0) == 0x80;
	     i++)
		end--;
	(void)put(w, "%.*s%s", (int)end, m->text, ELLIPSIS);
}

static void put_kv(struct writer *w, const struct log_message *m)
{
	struct parts p;

	take_apart(&p, m->text, m->len);
	if (!m->headed) {
		(void)put(w, "time=");
		put_time(w);
		(void)put(w, " ");
	}
	(void)put(w, "level=%s ", log_levels[m->level].name);
	if (!m->headed)
		(void)put(w, "role=%.32s role_pid=%ld ", m->role,
		          (long)getpid());
	(void)put(w, "module=%.32s msg=", m->module);
	put_quoted(w, m->text, p.text_len);
	for (size_t i = 0; i < p.count; i++) {
		const struct field *f = &p.fields[i];

		if (!roomy(w, f))
			continue;
		(void)put(w, " %.*s=", (int)f->key_len, f->key);
		if (is_plain(f))
			(void)put(w, "%.*s", (int)f->value_len, f->value);
		else
			put_quoted(w, f->value, f->value_len);
	}
}

static void put_json(struct writer *w, const struct log_message *m)
{
	struct parts p;

	take_apart(&p, m->text, m->len);
	(void)put(w, "{\"time\":\"");
	put_time(w);
	(void)put(w,
	          "\",\"level\":\"%s\",\"role\":", log_levels[m->level].name);
	put_quoted(w, m->role, strlen(m->role));
	(void)put(w, ",\"role_pid\":%ld,\"module\":", (long)getpid());
	put_quoted(w, m->module, strlen(m->module));
	(void)put(w, ",\"msg\":");
	put_quoted(w, m->text, p.text_len);
	for (size_t i = 0; i < p.count; i++) {
		const struct field *f = &p.fields[i];

		if (!roomy(w, f))
			continue;
		(void)put(w, ",\"%.*s\":", (int)f->key_len, f->key);
		if (is_number(f))
			(void)put(w, "%.*s", (int)f->value_len, f->value);
		else
			put_quoted(w, f->value, f->value_len);
	}
	(void)put(w, "}");
}

size_t log_format_line(enum log_format format, const struct log_message *m,
                       char line[LOG_LINE_MAX])
{
	struct writer w = {.line = line, .max = LOG_LINE_MAX};

	switch (format) {
	case LOG_FORMAT_KV:
		put_kv(&w, m);
		break;
	case LOG_FORMAT_JSON:
		put_json(&w, m);
		break;
	case LOG_FORMAT_TEXT:
	case LOG_FORMAT_COUNT:
		put_text(&w, m);
		break;
	}
	return w.len;
}

/* The journal's own names are in capitals. */
static void put_journal_field(struct writer *w, const struct field *f)
{
	if (!roomy(w, f))
		return;
	(void)put(w, "COMFYMUX_");
	for (size_t i = 0; i < f->key_len; i++)
		(void)put(w, "%c",
		          f->key[i] >= 'a' && f->key[i] <= 'z'
		                  ? f->key[i] - 'a' + 'A'
		                  : f->key[i]);
	(void)put(w, "=%.*s\n", (int)f->value_len, f->value);
}

size_t log_format_journal(const struct log_message *m, char line[LOG_LINE_MAX])
{
	struct writer w = {.line = line, .max = LOG_LINE_MAX};
	size_t room, len = m->len;
	struct parts p;

	take_apart(&p, m->text, m->len);
	(void)put(&w,
	          "PRIORITY=%d\nSYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER=%.32s\n"
	          "COMFYMUX_MODULE=%.32s\nMESSAGE=",
	          log_levels[m->level].priority & 7, m->role, m->module);
	room = w.max - w.len - 2;
	while (len > room || (len < m->len && len > 0 &&
	                      ((unsigned char)m->text[len] & 0xc0) == 0x80))
		len--;
	(void)put(&w, "%.*s\n", (int)len, m->text);
	for (size_t i = 0; i < p.count; i++)
		put_journal_field(&w, &p.fields[i]);
	return w.len;
}

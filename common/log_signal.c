/*
 * log_signal.c - a line of the log put into form where nothing may be called
 * that takes a lock: not even the C library's printf() and gmtime_r().
 */
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log_impl.h"

#define DAY_S 86400

struct signal_line {
	char *at;
	size_t len, max;
};

static void put(struct signal_line *l, const char *text)
{
	while (*text && l->len < l->max)
		l->at[l->len++] = *text++;
}

/* At least `width` digits. */
static void put_number(struct signal_line *l, uint64_t n, size_t width)
{
	char digits[24];
	size_t at = sizeof(digits);

	digits[--at] = '\0';
	do
		digits[--at] = (char)('0' + n % 10);
	while ((n /= 10) > 0 || sizeof(digits) - 1 - at < width);
	put(l, digits + at);
}

static bool is_leap(uint64_t y)
{
	return (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
}

/* Of a day since 1970. */
static void put_date(struct signal_line *l, uint64_t day)
{
	static const uint8_t lengths[] = {31, 28, 31, 30, 31, 30,
	                                  31, 31, 30, 31, 30, 31};
	uint64_t year = 1970, length;
	size_t month = 0;

	for (; day >= 365u + is_leap(year); year++)
		day -= 365u + is_leap(year);
	for (; month < sizeof(lengths) - 1; month++) {
		length = lengths[month];
		if (month == 1 && is_leap(year))
			length++;
		if (day < length)
			break;
		day -= length;
	}
	put_number(l, year, 4);
	put(l, "-");
	put_number(l, month + 1, 2);
	put(l, "-");
	put_number(l, day + 1, 2);
}

/* As log_format.c's. */
static void put_time(struct signal_line *l, uint64_t ms)
{
	uint64_t s = ms / 1000;

	put_date(l, s / DAY_S);
	put(l, "T");
	put_number(l, s % DAY_S / 3600, 2);
	put(l, ":");
	put_number(l, s % 3600 / 60, 2);
	put(l, ":");
	put_number(l, s % 60, 2);
	put(l, ".");
	put_number(l, ms % 1000, 3);
	put(l, "Z");
}

static void put_json(struct signal_line *l, const struct log_message *m,
                     uint64_t ms)
{
	put(l, "{\"time\":\"");
	put_time(l, ms);
	put(l, "\",\"level\":\"");
	put(l, log_levels[m->level].name);
	put(l, "\",\"role\":\"");
	put(l, m->role);
	put(l, "\",\"role_pid\":");
	put_number(l, (uint64_t)getpid(), 1);
	put(l, ",\"module\":\"");
	put(l, m->module);
	put(l, "\",\"msg\":\"");
	put(l, m->text);
	put(l, "\"}");
}

static void put_kv(struct signal_line *l, const struct log_message *m,
                   uint64_t ms)
{
	put(l, "time=");
	put_time(l, ms);
	put(l, " level=");
	put(l, log_levels[m->level].name);
	put(l, " role=");
	put(l, m->role);
	put(l, " role_pid=");
	put_number(l, (uint64_t)getpid(), 1);
	put(l, " module=");
	put(l, m->module);
	put(l, " msg=\"");
	put(l, m->text);
	put(l, "\"");
}

static void put_plain(struct signal_line *l, const struct log_message *m)
{
	put(l, log_levels[m->level].name);
	put(l, " ");
	put(l, m->role);
	put(l, "[");
	put_number(l, (uint64_t)getpid(), 1);
	put(l, "] ");
	put(l, m->module);
	put(l, ": ");
	put(l, m->text);
}

size_t log_format_signal(enum log_format format, const struct log_message *m,
                         int64_t epoch_ms, char *line, size_t size)
{
	struct signal_line l = {.at = line, .max = size};
	uint64_t ms = epoch_ms > 0 ? (uint64_t)epoch_ms : 0;

	switch (format) {
	case LOG_FORMAT_JSON:
		put_json(&l, m, ms);
		break;
	case LOG_FORMAT_KV:
		put_kv(&l, m, ms);
		break;
	case LOG_FORMAT_TEXT:
	case LOG_FORMAT_COUNT:
		put_plain(&l, m);
		break;
	}
	return l.len;
}

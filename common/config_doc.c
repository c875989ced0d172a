/*
 * config_doc.c - the configuration described: the example file, the reference
 * table and a value as it stands in a file, all from config.def.
 */
#include <ctype.h>
#include <string.h>

#include "common/config_impl.h"

#define WRAP_COLUMN 78

/* Defaults that depend on the user: what the reference says, and the value of
 * a system service, which the example shows. */
static const struct {
	enum config_key key;
	const char *system, *doc;
} varying[] = {
	{CONFIG_KEY_socket, CONFIG_SYSTEM_SOCKET,
         "`" CONFIG_SYSTEM_SOCKET "` for a system service, else "
         "`/run/user/UID/comfymux.sock`, or `comfymux.sock` in `state_dir`"},
	{CONFIG_KEY_state_dir, CONFIG_SYSTEM_STATE_DIR,
         "`" CONFIG_SYSTEM_STATE_DIR "` for a system service, else "
         "`$XDG_STATE_HOME/comfymux` or `~/.local/state/comfymux`"},
};

static void put_int(struct buf *out, const struct config_key_info *k, int64_t v)
{
	bool octal = strcmp(k->unit, "octal") == 0;

	if (octal && v != 0)
		(void)buf_printf(out, "0%llo", (unsigned long long)v);
	else
		(void)buf_printf(out, "%lld", (long long)v);
}

static void put_default(struct buf *out, size_t key)
{
	const struct config_key_info *k = &config_keys[key];

	switch (k->kind) {
	case CONFIG_STRING:
		(void)buf_puts(out, k->def_string ? k->def_string : "");
		for (size_t i = 0; i < ARRAY_SIZE(varying); i++) {
			if (varying[i].key == key)
				(void)buf_puts(out, varying[i].system);
		}
		break;
	case CONFIG_INT:
		put_int(out, k, k->def);
		break;
	case CONFIG_BOOL:
		(void)buf_puts(out, k->def ? "yes" : "no");
		break;
	}
}

int config_value_text(const struct config *c, enum config_key key,
                      struct buf *out)
{
	const struct config_key_info *k = &config_keys[key];
	const char *at = (const char *)c + k->offset;

	switch (k->kind) {
	case CONFIG_STRING:
		return buf_puts(out, *(char *const *)(const void *)at);
	case CONFIG_INT:
		put_int(out, k, *(const int64_t *)(const void *)at);
		break;
	case CONFIG_BOOL:
		return buf_puts(out,
		                *(const bool *)(const void *)at ? "yes" : "no");
	}
	return buf_ok(out) ? 0 : -1;
}

/* Comment lines of at most WRAP_COLUMN columns. */
static void put_comment(struct buf *out, const char *text)
{
	size_t column = 1;

	(void)buf_putc(out, '#');
	while (*text) {
		size_t n = strcspn(text, " ");

		if (column > 1 && column + 1 + n > WRAP_COLUMN) {
			(void)buf_puts(out, "\n#");
			column = 1;
		}
		(void)buf_putc(out, ' ');
		(void)buf_append(out, text, n);
		column += 1 + n;
		text += n + strspn(text + n, " ");
	}
	(void)buf_putc(out, '\n');
}

/* "100 to 120000 ms", "000 to 0777", nothing for other kinds. */
static void put_range(struct buf *out, const struct config_key_info *k)
{
	if (k->kind != CONFIG_INT)
		return;
	put_int(out, k, k->min);
	(void)buf_puts(out, " to ");
	put_int(out, k, k->max);
	(void)buf_printf(out, " %s", k->unit);
}

static void put_example_key(struct buf *out, size_t key)
{
	const struct config_key_info *k = &config_keys[key];
	struct buf text = BUF_INIT(4096);

	(void)buf_putc(&text, (char)toupper((unsigned char)k->doc[0]));
	(void)buf_printf(&text, "%s.", k->doc + 1);
	if (k->kind == CONFIG_INT) {
		(void)buf_puts(&text, " From ");
		put_range(&text, k);
		(void)buf_putc(&text, '.');
	} else if (k->kind == CONFIG_BOOL) {
		(void)buf_puts(&text, " Yes or no.");
	}
	if (k->env)
		(void)buf_printf(&text,
		                 " The environment variable %s goes "
		                 "before.",
		                 k->env);
	if (k->reload)
		(void)buf_puts(&text, " [reload]");
	if (buf_cstr(&text))
		put_comment(out, text.data);
	else
		out->failed = true;
	buf_deinit(&text);
	(void)buf_printf(out, "#%s = ", k->name);
	put_default(out, key);
	/* An empty default leaves no blank at the end of the line. */
	if (buf_ok(out) && out->data[out->len - 1] == ' ')
		out->len--;
	(void)buf_puts(out, "\n\n");
}

int config_example(struct buf *out)
{
	static const char head[] =
		"# comfymux.conf - configuration of comfymux\n"
		"#\n"
		"# Read from /etc/comfymux/comfymux.conf, then from\n"
		"# ~/.config/comfymux/comfymux.conf, whose values win. Flags "
		"and the environment\n"
		"# go before both. All values below are the defaults.\n"
		"#\n"
		"# \"comfymuxd --check-config\" checks it; SIGHUP applies what "
		"is marked [reload].\n"
		"# A line that begins with # or ; is a comment, and so is the "
		"rest of a line\n"
		"# after a blank and a semicolon.\n"
		"\n"
		"[comfymux]\n"
		"\n";

	(void)buf_puts(out, head);
	for (size_t i = 0; i < CONFIG_KEY_COUNT; i++)
		put_example_key(out, i);
	/* One line feed at the end. */
	if (buf_ok(out))
		out->len--;
	return buf_ok(out) ? 0 : -1;
}

static void put_reference_default(struct buf *out, size_t key)
{
	size_t start;

	for (size_t i = 0; i < ARRAY_SIZE(varying); i++) {
		if (varying[i].key == key) {
			(void)buf_puts(out, varying[i].doc);
			return;
		}
	}
	start = out->len;
	(void)buf_putc(out, '`');
	put_default(out, key);
	if (out->len == start + 1) {
		(void)buf_puts(out, "`");
		if (buf_ok(out))
			out->len = start;
		(void)buf_puts(out, "(empty)");
		return;
	}
	(void)buf_putc(out, '`');
}

int config_reference(struct buf *out)
{
	(void)buf_puts(out, "| key | default | range | on SIGHUP | meaning |\n"
	                    "|---|---|---|---|---|\n");
	for (size_t i = 0; i < CONFIG_KEY_COUNT; i++) {
		const struct config_key_info *k = &config_keys[i];

		(void)buf_printf(out, "| `%s` | ", k->name);
		put_reference_default(out, i);
		(void)buf_puts(out, " | ");
		put_range(out, k);
		if (k->kind == CONFIG_BOOL)
			(void)buf_puts(out, "yes, no");
		(void)buf_printf(out, " | %s | %s",
		                 k->reload ? "applied" : "needs a restart",
		                 k->doc);
		if (k->env)
			(void)buf_printf(out, " (environment: `%s`)", k->env);
		(void)buf_puts(out, " |\n");
	}
	return buf_ok(out) ? 0 : -1;
}

/*
 * mcp_result.c - see mcp_result.h.
 */
#include "workers/mcp_result.h"

#include <errno.h>
#include <stdio.h>

#include "common/cleanup.h"
#include "common/macros.h"
#include "workers/mcp_describe.h"

#define TOO_LARGE_MAX 4096 /* bytes of the error that stands for a result */

/* What one attempt leaves out. */
enum without { WITHOUT_NOTHING, WITHOUT_IMAGES, WITHOUT_COUNT };

static void put_string(struct buf *out, const char *key, const char *value)
{
	(void)buf_json_key(out, key);
	(void)buf_json_string(out, value, strlen(value));
}

static void open_block(struct buf *out, const char *type)
{
	if (out->len > 0 && out->data[out->len - 1] == '}')
		(void)buf_putc(out, ',');
	(void)buf_putc(out, '{');
	put_string(out, "type", type);
}

static void put_text(struct buf *out, struct span text)
{
	open_block(out, "text");
	(void)buf_json_key(out, "text");
	(void)buf_json_string(out, text.p, text.n);
	(void)buf_putc(out, '}');
}

static void put_image(struct buf *out, const struct tool_content *c)
{
	open_block(out, "image");
	(void)buf_puts(out, ",\"data\":\"");
	(void)buf_base64(out, c->data.p, c->data.n);
	(void)buf_putc(out, '"');
	put_string(out, "mimeType", c->mime);
	(void)buf_putc(out, '}');
}

static void put_link(struct buf *out, const struct tool_content *c)
{
	open_block(out, "resource_link");
	put_string(out, "uri", c->uri);
	put_string(out, "name", c->name ? c->name : c->uri);
	if (c->mime)
		put_string(out, "mimeType", c->mime);
	(void)buf_putc(out, '}');
}

/* Where an image is that isn't sent. A link to it may be among the blocks
 * anyway: the tool knows, so this only tells why there is no picture. */
static void put_left_out(struct buf *out, const struct tool_content *c)
{
	char text[512];
	int n = snprintf(text, sizeof(text),
	                 "%s (%zu bytes) is too large to be shown here; use "
	                 "download_by_filename%s%s",
	                 c->name ? c->name : "An image", c->data.n,
	                 c->uri ? ", or read " : "", c->uri ? c->uri : "");

	if (n > 0)
		put_text(out, span_make(text, (size_t)n < sizeof(text)
		                                      ? (size_t)n
		                                      : sizeof(text) - 1));
}

static void put_block(struct buf *out, enum mcp_version v,
                      const struct tool_content *c, enum without without,
                      size_t *image_bytes)
{
	switch (c->type) {
	case TOOL_TEXT:
		put_text(out, c->data);
		return;
	case TOOL_IMAGE:
		*image_bytes += c->data.n;
		if (without == WITHOUT_IMAGES ||
		    *image_bytes > TOOL_INLINE_MAX) {
			*image_bytes -= c->data.n;
			put_left_out(out, c);
		} else {
			put_image(out, c);
		}
		return;
	case TOOL_RESOURCE_LINK:
		if (mcp_has_structured(v))
			put_link(out, c);
		return;
	}
}

/* `structured` is compact, or empty. */
static void build(struct buf *out, enum mcp_version v,
                  const struct tool_result *r, struct span structured,
                  enum without without)
{
	size_t image_bytes = 0;

	(void)mcp_result_open(out, v);
	(void)buf_json_key(out, "content");
	(void)buf_putc(out, '[');
	if (structured.n > 0)
		put_text(out, structured);
	for (size_t i = 0; i < r->content_count; i++)
		put_block(out, v, &r->content[i], without, &image_bytes);
	(void)buf_putc(out, ']');
	/* Clients check it against the output schema even beside isError, and
	 * an error is of another shape. */
	if (structured.n > 0 && !r->is_error && mcp_has_structured(v)) {
		(void)buf_json_key(out, "structuredContent");
		(void)buf_append(out, structured.p, structured.n);
	}
	(void)buf_json_key(out, "isError");
	(void)buf_puts(out, r->is_error ? "true" : "false");
	(void)mcp_result_close(out, v);
}

static int build_too_large(struct buf *out, enum mcp_version v, size_t bytes,
                           const char *prompt_id)
{
	cleanup_buf struct buf b = BUF_INIT(TOO_LARGE_MAX);
	const struct tool_result error = {.is_error = true};

	(void)buf_printf(&b,
	                 "{\"error\":{\"type\":\"limit\",\"message\":\"the "
	                 "result (over %zu bytes) does not fit into one MCP "
	                 "message; ask for less (a smaller limit), or save "
	                 "files with download_by_filename\"}",
	                 bytes);
	if (prompt_id)
		put_string(&b, "prompt_id", prompt_id);
	(void)buf_putc(&b, '}');
	if (!buf_ok(&b))
		return -ENOMEM;
	build(out, v, &error, span_make(b.data, b.len), WITHOUT_NOTHING);
	return buf_ok(out) ? 0 : -ENOMEM;
}

/* What a tool calls structured may come from ComfyUI, with newlines and bare
 * NaN in it; on a line of its own and in strict JSON it may not. */
static int compact(struct buf *out, struct span structured,
                   const char *prompt_id)
{
	cleanup_buf struct buf id = BUF_INIT(TOO_LARGE_MAX);
	cleanup_buf struct buf whole = BUF_INIT(MCP_RESULT_MAX);
	struct json j;

	if (structured.n == 0)
		return 0;
	if (json_parse(&j, structured.p, structured.n, JSON_NONFINITE, NULL) !=
	            JSON_OK ||
	    !json_is(j, JSON_OBJECT))
		return -EINVAL;
	if (!prompt_id || !json_is(json_get(j, "prompt_id"), JSON_NONE))
		return json_compact(out, j);
	(void)buf_json_string(&id, prompt_id, strlen(prompt_id));
	(void)json_object_set(&whole, j, SPAN("prompt_id"),
	                      span_make(id.data, id.len));
	if (!buf_ok(&whole) || json_parse(&j, whole.data, whole.len,
	                                  JSON_NONFINITE, NULL) != JSON_OK)
		return -ENOMEM;
	return json_compact(out, j);
}

int mcp_build_result(struct buf *out, enum mcp_version v,
                     const struct tool_result *r, const char *prompt_id)
{
	cleanup_buf struct buf structured = BUF_INIT(MCP_RESULT_MAX);
	int c = compact(&structured, r->structured,
	                r->is_error ? prompt_id : NULL);

	if (c == -ENOMEM || c == -EINVAL)
		return c;
	for (int w = WITHOUT_NOTHING; w < WITHOUT_COUNT && c == 0; w++) {
		cleanup_buf struct buf text = BUF_INIT(MCP_RESULT_MAX);

		build(&text, v, r, span_make(structured.data, structured.len),
		      (enum without)w);
		if (buf_ok(&text))
			return buf_append(out, text.data, text.len);
	}
	return build_too_large(out, v, MCP_RESULT_MAX, prompt_id);
}

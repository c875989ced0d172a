/*
 * check_chain_spec.c - chains as users write them, what is wrong with them, and
 * which image goes where under which name.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/chain_spec.h"
#include "tests/runner.h"

/* 2^64-1: no double holds it. */
#define MAKE                                                                   \
	"{\"3\":{\"class_type\":\"KSampler\",\"inputs\":{\"seed\":"            \
	"18446744073709551615}}}"
#define TAKE                                                                   \
	"{\"1\":{\"class_type\":\"LoadImage\",\"inputs\":{\"image\":\"x\"}}"   \
	",\"2\":{\"class_type\":\"ImageScale\",\"inputs\":{\"image\":"         \
	"[\"1\",0]}},\"7.a\":{\"class_type\":\"Own\",\"inputs\":{\"pic\":"     \
	"\"\"}}}"

static struct chain_spec *spec;
static struct error err;

static void teardown(void)
{
	spec = chain_spec_free(spec);
}

static struct chain_spec *parse(const char *text)
{
	struct json j;

	ck_assert_int_eq(json_parse(&j, text, strlen(text), 0, NULL), JSON_OK);
	spec = chain_spec_free(spec);
	spec = chain_spec_parse(j, &err);
	return spec;
}

static const char *text_of(struct buf *b)
{
	return buf_cstr(b);
}

START_TEST(test_plain)
{
	ck_assert_ptr_nonnull(
		parse("{\"stop_on_error\":false,\"steps\":[{\"workflow\":" MAKE
	              ",\"params\":{\"3.steps\":4,\"3\":{\"cfg\":7.50}}},"
	              "{\"workflow\":" TAKE ",\"inputFrom\":{\"step\":0,"
	              "\"outputNode\":\"9\",\"outputIndex\":2},"
	              "\"outputTo\":\"image\"}]}"));
	ck_assert_uint_eq(spec->count, 2);
	ck_assert(spec->has_stop && !spec->stop_on_error);
	ck_assert_int_eq(spec->steps[0].fault.code, ERR_NONE);
	ck_assert_str_eq(text_of(&spec->steps[0].workflow),
	                 "{\"3\":{\"class_type\":\"KSampler\",\"inputs\":{"
	                 "\"seed\":18446744073709551615,\"steps\":4,\"cfg\":"
	                 "7.50}}}");
	ck_assert_int_eq(spec->steps[1].fault.code, ERR_NONE);
	ck_assert(spec->steps[1].takes);
	ck_assert_uint_eq(spec->steps[1].from, 0);
	ck_assert_str_eq(spec->steps[1].output_node, "9");
	ck_assert_uint_eq(spec->steps[1].output_index, 2);
	/* The linked input of that name is fed already. */
	ck_assert_str_eq(spec->steps[1].target, "1.image");
	ck_assert_str_eq(spec->steps[1].node, "1");
	ck_assert_str_eq(spec->steps[1].class, "LoadImage");
}
END_TEST

#define TAKING(from, to)                                                       \
	"[{\"workflow\":" MAKE "},{\"workflow\":" TAKE ",\"inputFrom\":" from  \
	",\"outputTo\":" to "}]"

START_TEST(test_targets)
{
	static const struct {
		const char *to, *target; /* NULL: a fault */
	} rows[] = {
		{"\"image\"", "1.image"},
		{"\"1.image\"", "1.image"},
		{"\"2.image\"", "2.image"},
		{"\"7.a.pic\"", "7.a.pic"},
		{"\"pic\"", "7.a.pic"},
		{"\"mask\"", NULL},
		{"\"9.image\"", NULL},
		{"\"\"", NULL},
		{"7", NULL},
	};
	char text[2048];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		snprintf(text, sizeof(text), TAKING("{\"step\":0}", "%s"),
		         rows[i].to);
		ck_assert_ptr_nonnull(parse(text));
		if (!rows[i].target) {
			ck_assert_msg(spec->steps[1].fault.code != ERR_NONE,
			              "%s", rows[i].to);
			continue;
		}
		ck_assert_msg(spec->steps[1].fault.code == ERR_NONE, "%s: %s",
		              rows[i].to, spec->steps[1].fault.text);
		ck_assert_str_eq(spec->steps[1].target, rows[i].target);
	}
}
END_TEST

START_TEST(test_faulty_sources)
{
	static const struct {
		const char *from, *says;
	} rows[] = {
		{"{\"step\":1}", "does not come before"},
		{"{\"step\":2}", "the chain has 2"},
		{"{\"step\":-1}", "number of an earlier step"},
		{"{\"step\":\"0\"}", "number of an earlier step"},
		{"{}", "number of an earlier step"},
		{"7", "must be an object"},
		{"{\"step\":0,\"outputIndex\":-1}", "outputIndex"},
		{"{\"step\":0,\"outputIndex\":100001}", "outputIndex"},
		{"{\"step\":0,\"outputNode\":[]}", "outputNode"},
	};
	char text[2048];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		snprintf(text, sizeof(text), TAKING("%s", "\"image\""),
		         rows[i].from);
		ck_assert_ptr_nonnull(parse(text));
		ck_assert_int_eq(spec->steps[0].fault.code, ERR_NONE);
		ck_assert_msg(strstr(spec->steps[1].fault.text, rows[i].says),
		              "%s: %s", rows[i].from,
		              spec->steps[1].fault.text);
	}
	ck_assert_ptr_nonnull(parse(
		TAKING("{\"step\":0,\"outputIndex\":100000}", "\"image\"")));
	ck_assert_int_eq(spec->steps[1].fault.code, ERR_NONE);
}
END_TEST

START_TEST(test_faulty_steps)
{
	static const char *const steps[] = {
		"7",
		"{}",
		"{\"workflow\":\"a.json\"}",
		"{\"workflow\":{\"nodes\":[],\"links\":[]}}",
		"{\"workflow\":" MAKE ",\"params\":[]}",
		"{\"workflow\":" MAKE ",\"params\":{\"8.seed\":1}}",
		"{\"workflow\":" MAKE ",\"outputTo\":\"image\"}",
	};
	char text[1024];

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		snprintf(text, sizeof(text), "[%s,{\"workflow\":" MAKE "}]",
		         steps[i]);
		ck_assert_ptr_nonnull(parse(text));
		ck_assert_msg(spec->steps[0].fault.code != ERR_NONE, "%s",
		              steps[i]);
		ck_assert_int_eq(spec->steps[1].fault.code, ERR_NONE);
	}
}
END_TEST

START_TEST(test_no_chain_at_all)
{
	cleanup_buf struct buf b = BUF_INIT(1 << 20);

	ck_assert_ptr_null(parse("[]"));
	ck_assert_ptr_null(parse("{}"));
	ck_assert_ptr_null(parse("7"));
	ck_assert_ptr_null(parse("{\"steps\":[{}],\"stop_on_error\":1}"));
	buf_puts(&b, "[{}");
	for (int i = 1; i < CHAIN_STEPS_MAX; i++)
		buf_puts(&b, ",{}");
	buf_puts(&b, "]");
	ck_assert_ptr_nonnull(parse(buf_cstr(&b)));
	b.len--;
	buf_puts(&b, ",{}]");
	ck_assert_ptr_null(parse(buf_cstr(&b)));
	ck_assert_int_eq(err.code, ERR_LIMIT);
}
END_TEST

#define IMAGE(name, folder, type)                                              \
	"{\"filename\":\"" name "\",\"subfolder\":\"" folder                   \
	"\",\"type\":\"" type "\"}"
#define OUTPUTS                                                                \
	"{\"9\":{\"images\":[" IMAGE("a.png", "", "output") "," IMAGE(         \
		"b.png", "s/t", "temp") "]},\"8\":{\"text\":[\"hi\"]},"        \
					"\"10\":{\"animated\":[true],"         \
					"\"gifs\":[" IMAGE("c.gif", "",        \
	                                                   "output") "]}}"

static const char *pick(const char *outputs, const char *node, size_t index)
{
	static char text[ERROR_TEXT_MAX + 1];
	struct chain_step step = {.output_node = (char *)(uintptr_t)node,
	                          .output_index = index};
	struct chain_image image;
	struct buf b = BUF_INIT(400);
	struct json j;

	ck_assert_int_eq(json_parse(&j, outputs, strlen(outputs), 0, NULL),
	                 JSON_OK);
	if (chain_image_pick(&image, &step, j, &err) == 0) {
		chain_reference(&image, &b);
		snprintf(text, sizeof(text), "%s", buf_cstr(&b));
	} else {
		snprintf(text, sizeof(text), "-%s", err.text);
	}
	buf_deinit(&b);
	chain_image_deinit(&image);
	return text;
}

START_TEST(test_pick)
{
	ck_assert_str_eq(pick(OUTPUTS, "9", 0), "a.png [output]");
	ck_assert_str_eq(pick(OUTPUTS, "9", 1), "s/t/b.png [temp]");
	ck_assert_str_eq(pick(OUTPUTS, "10", 0), "c.gif [output]");
	ck_assert_ptr_nonnull(strstr(pick(OUTPUTS, "9", 2), "gave 2 image"));
	ck_assert_ptr_nonnull(strstr(pick(OUTPUTS, "8", 0), "9, 10"));
	ck_assert_ptr_nonnull(strstr(pick(OUTPUTS, "77", 0), "9, 10"));
	ck_assert_ptr_nonnull(strstr(pick(OUTPUTS, NULL, 0), "several"));
	ck_assert_ptr_nonnull(strstr(pick("{}", NULL, 0), "no image"));
	ck_assert_ptr_nonnull(strstr(pick("{\"9\":null}", "9", 0), "none"));
	ck_assert_ptr_nonnull(
		strstr(pick("{\"9\":{\"images\":[7]}}", "9", 0), "none"));
	ck_assert_ptr_nonnull(strstr(
		pick("{\"9\":{\"images\":[{\"filename\":\"\"}]}}", "9", 0),
		"no file name"));
	ck_assert_str_eq(
		pick("{\"9\":{\"images\":[" IMAGE("d", "", "input") "]}}", NULL,
	             0),
		"d [input]");
}
END_TEST

START_TEST(test_who_reads_references)
{
	char filename[] = "a", subfolder[] = "", output[] = "output",
	     other[] = "s3";
	struct chain_image image = {filename, subfolder, output};

	ck_assert(chain_can_refer("LoadImage", &image));
	ck_assert(chain_can_refer("LoadImageMask", &image));
	ck_assert(!chain_can_refer("SomebodysLoader", &image));
	image.type = other;
	ck_assert(!chain_can_refer("LoadImage", &image));
}
END_TEST

START_TEST(test_fill)
{
	cleanup_buf struct buf b = BUF_INIT(4096);

	ck_assert_ptr_nonnull(parse(TAKING("{\"step\":0}", "\"7.a.pic\"")));
	ck_assert_int_eq(
		chain_step_fill(&spec->steps[1], "a \"b\".png", &b, &err), 0);
	ck_assert_ptr_nonnull(
		strstr(buf_cstr(&b), "\"pic\":\"a \\\"b\\\".png\""));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("chain_spec");
	TCase *t = tcase_create("chain_spec");

	tcase_add_checked_fixture(t, NULL, teardown);
	tcase_add_test(t, test_plain);
	tcase_add_test(t, test_targets);
	tcase_add_test(t, test_faulty_sources);
	tcase_add_test(t, test_faulty_steps);
	tcase_add_test(t, test_no_chain_at_all);
	tcase_add_test(t, test_pick);
	tcase_add_test(t, test_who_reads_references);
	tcase_add_test(t, test_fill);
	suite_add_tcase(s, t);
	return runner_run(s);
}

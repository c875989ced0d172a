/*
 * check_tool_args.c - arguments against schemas, with the words that a model
 * gets to act on.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/macros.h"
#include "tests/runner.h"
#include "workers/mcp_tools.h"

/* Quotes as apostrophes, so that the rows stay readable. */
static char *json_of(const char *text)
{
	char *s = strdup(text);

	ck_assert_ptr_nonnull(s);
	for (char *p = s; *p; p++)
		if (*p == '\'')
			*p = '"';
	return s;
}

#define RUN_SCHEMA                                                             \
	"{'type':'object','properties':{"                                      \
	"'workflow':{'anyOf':[{'type':'object'},"                              \
	"{'type':'string','minLength':1}],'description':'x'},"                 \
	"'timeout_ms':{'type':'integer','minimum':0,'maximum':86400000},"      \
	"'scale':{'type':'number','minimum':-0.5},"                            \
	"'type':{'type':'string','enum':['output','temp','in\\u0070ut']},"     \
	"'name':{'type':'string','minLength':2,'maxLength':4},"                \
	"'quick':{'type':'boolean'},'size':{'type':['integer','string'],"      \
	"'minimum':1,'minLength':1},"                                          \
	"'set':{'type':'object','additionalProperties':"                       \
	"{'anyOf':[{'type':'string'},{'type':'number'},{'type':'boolean'}]}}," \
	"'steps':{'type':'array','minItems':1,'maxItems':3,'items':"           \
	"{'type':'object','properties':{'node':{'type':'string'}},"            \
	"'required':['node'],'additionalProperties':false}}},"                 \
	"'required':['workflow'],'additionalProperties':false}"

static const struct row {
	const char *args;
	const char *why; /* NULL: fine */
} rows[] = {
	{"{'workflow':{}}", NULL},
	{"{'workflow':'x'}", NULL},
	{"{'workflow':{},'timeout_ms':0}", NULL},
	{"{'workflow':{},'timeout_ms':86400000}", NULL},
	{"{'workflow':{},'timeout_ms':1e3}", NULL},
	{"{'workflow':{},'timeout_ms':5.0}", NULL},
	{"{'workflow':{},'scale':-0.5}", NULL},
	{"{'workflow':{},'scale':7}", NULL},
	{"{'workflow':{},'type':'temp'}", NULL},
	{"{'workflow':{},'type':'t\\u0065mp'}", NULL},
	{"{'workflow':{},'type':'input'}", NULL},
	{"{'workflow':{},'name':'\\ud83d\\ude00b\xc3\xa4\\n'}", NULL},
	{"{'workflow':{},'quick':false,'steps':[{'node':'3'},{'node':''}]}",
         NULL},
	{"{'workflow':{},'set':{'3.seed':18446744073709551615,'a':'b','c':true}}",
         NULL},
	{"{'\\u0077orkflow':{}}", NULL},
	{"{'workflow':{},'size':7}", NULL},
	{"{'workflow':{},'size':'L'}", NULL},
	{"{'workflow':{},'size':1.5}",
         "size must be integer or string, not number"},
	{"{'workflow':{},'size':0}", "size must be at least 1, not 0"},
	{"{'workflow':{},'size':''}", "size must not be empty"},
	{"{}", "workflow is missing"},
	{"[]", "arguments must be object, not array"},
	{"{'workflow':7}", "workflow must be object or string, not integer"},
	{"{'workflow':null}", "workflow must be object or string, not null"},
	{"{'workflow':''}", "workflow must not be empty"},
	{"{'workflow':{},'timeout_ms':-1}",
         "timeout_ms must be at least 0, not -1"},
	{"{'workflow':{},'timeout_ms':86400001}",
         "timeout_ms must be at most 86400000, not 86400001"},
	{"{'workflow':{},'timeout_ms':1.5}",
         "timeout_ms must be integer, not number"},
	{"{'workflow':{},'timeout_ms':'5'}",
         "timeout_ms must be integer, not string"},
	{"{'workflow':{},'timeout_ms':1e999}",
         "timeout_ms must be integer, not number"},
	{"{'workflow':{},'scale':1e999}", "scale is too large"},
	{"{'workflow':{},'scale':-0.75}",
         "scale must be at least -0.5, not -0.75"},
	{"{'workflow':{},'type':'inputs'}",
         "type must be one of 'output', 'temp', 'in\\u0070ut', not 'inputs'"},
	{"{'workflow':{},'name':'a'}", "name must have at least 2 characters"},
	{"{'workflow':{},'name':'abcde'}",
         "name must have at most 4 characters"},
	{"{'workflow':{},'name':'\\ud83d\\ude00bcd\\n'}",
         "name must have at most 4 characters"},
	{"{'workflow':{},'quick':0}", "quick must be boolean, not integer"},
	{"{'workflow':{},'wait':1}",
         "wait is not known; there are workflow, timeout_ms, scale, type, "
         "name, quick, size, set, steps"},
	{"{'workflow':{},'set':{'3.seed':[]}}",
         "set.3.seed must be string or number or boolean, not array"},
	{"{'workflow':{},'steps':[]}", "steps must have at least 1 elements"},
	{"{'workflow':{},'steps':[{'node':'1'},{'node':'1'},{'node':'1'},"
         "{'node':'1'}]}",
         "steps must have at most 3 elements"},
	{"{'workflow':{},'steps':[{'node':'1'},{}]}",
         "steps[1].node is missing"},
	{"{'workflow':{},'steps':[{'node':'1'},{'node':2}]}",
         "steps[1].node must be string, not integer"},
	{"{'workflow':{},'steps':[{'node':'1','x':2}]}",
         "steps[0].x is not known; there are node"},
};

START_TEST(checks)
{
	char *schema = json_of(RUN_SCHEMA), *args = json_of(rows[_i].args);
	char *why = rows[_i].why ? json_of(rows[_i].why) : NULL;
	struct error err = ERROR_NULL;
	struct json j;
	int r;

	ck_assert_int_eq(json_parse(&j, args, strlen(args), 0, NULL), JSON_OK);
	r = tool_check_args(j, schema, &err);
	if (why) {
		ck_assert_msg(r == -1, "%s was let through", args);
		ck_assert_int_eq(err.code, ERR_INVALID);
		ck_assert_str_eq(err.text, why);
	} else {
		ck_assert_msg(r == 0, "%s: %s", args, err.text);
	}
	/* The text is for those who ask for it. */
	ck_assert_int_eq(tool_check_args(j, schema, NULL), r);
	free(schema);
	free(args);
	free(why);
}
END_TEST

static int check_text(const char *args, const char *schema, struct error *err)
{
	struct json j;

	ck_assert_int_eq(json_parse(&j, args, strlen(args), 0, NULL), JSON_OK);
	return tool_check_args(j, schema, err);
}

START_TEST(no_arguments)
{
	static const char schema[] =
		"{\"type\":\"object\",\"additionalProperties\":false}";
	struct error err = ERROR_NULL;

	ck_assert_int_eq(check_text("{}", schema, &err), 0);
	ck_assert_int_eq(check_text("{\"a\":1}", schema, &err), -1);
	ck_assert_str_eq(err.text, "a is not known: this takes no arguments");
	/* Without that word others are let through. */
	ck_assert_int_eq(check_text("{\"a\":1}", "{\"type\":\"object\"}", &err),
	                 0);
}
END_TEST

START_TEST(a_broken_schema_is_our_fault)
{
	struct error err = ERROR_NULL;

	ck_assert_int_eq(check_text("{}", "{", &err), -1);
	ck_assert_int_eq(err.code, ERR_INTERNAL);
	ck_assert_int_eq(check_text("{}", "[]", &err), -1);
	ck_assert_int_eq(err.code, ERR_INTERNAL);
}
END_TEST

/* Names and places as long as an attacker likes. */
START_TEST(long_names)
{
	static const char schema[] =
		"{\"type\":\"object\",\"additionalProperties\":{\"type\":"
		"\"object\",\"additionalProperties\":{\"type\":\"string\"}}}";
	struct error err = ERROR_NULL;
	char args[2048];
	size_t n = 0;

	n += (size_t)sprintf(args, "{\"");
	memset(args + n, 'k', 800);
	n += 800;
	n += (size_t)sprintf(args + n, "\":{\"");
	memset(args + n, 'l', 800);
	n += 800;
	(void)sprintf(args + n, "\":1}}");
	ck_assert_int_eq(check_text(args, schema, &err), -1);
	ck_assert_int_eq(err.code, ERR_INVALID);
	ck_assert_ptr_nonnull(strstr(err.text, "must be string"));
}
END_TEST

static Suite *tool_args_suite(void)
{
	Suite *s = suite_create("tool_args");
	TCase *t = tcase_create("all");

	tcase_add_loop_test(t, checks, 0, (int)ARRAY_SIZE(rows));
	tcase_add_test(t, no_arguments);
	tcase_add_test(t, a_broken_schema_is_our_fault);
	tcase_add_test(t, long_names);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(tool_args_suite());
}

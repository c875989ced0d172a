/*
 * check_uuid.c - made ids have the right form and differ; only canonical ones
 * are valid.
 */
#include "common/uuid.h"

#include <string.h>

#include "tests/runner.h"

#define MADE     1000
#define COMPARED 200 /* each with each */

START_TEST(made_ids_are_version_4)
{
	char id[UUID_LEN + 1];

	for (int i = 0; i < MADE; i++) {
		ck_assert_int_eq(uuid_new(id), 0);
		ck_assert_uint_eq(strlen(id), UUID_LEN);
		ck_assert(uuid_valid(id, strlen(id)));
		ck_assert_int_eq(id[14], '4');
		ck_assert_ptr_nonnull(strchr("89ab", id[19]));
	}
}
END_TEST

START_TEST(made_ids_differ_and_use_every_digit)
{
	static char ids[MADE][UUID_LEN + 1];
	unsigned int seen[UUID_LEN] = {0};

	for (int i = 0; i < MADE; i++) {
		ck_assert_int_eq(uuid_new(ids[i]), 0);
		for (int j = 0; j < i && i < COMPARED; j++)
			ck_assert_str_ne(ids[i], ids[j]);
		for (int k = 0; k < UUID_LEN; k++)
			seen[k] |= 1U
			           << (strchr("0123456789abcdef-", ids[i][k]) -
			               "0123456789abcdef-");
	}
	/* A digit missing at a place in 1000 ids has odds of 1e-28. */
	for (int k = 0; k < UUID_LEN; k++) {
		if (k == 8 || k == 13 || k == 18 || k == 23)
			ck_assert_uint_eq(seen[k], 1U << 16);
		else if (k == 14)
			ck_assert_uint_eq(seen[k], 1U << 4);
		else if (k == 19)
			ck_assert_uint_eq(seen[k], 0xf00U);
		else
			ck_assert_uint_eq(seen[k], 0xffffU);
	}
}
END_TEST

static const struct {
	const char *text;
	bool valid;
} forms[] = {
	{"123e4567-e89b-42d3-a456-426614174000", true},
	{"00000000-0000-0000-0000-000000000000", true},
	{"018f3c2e-7a5b-7c1d-9e2f-0123456789ab", true}, /* version 7 */
	{"123E4567-e89b-42d3-a456-426614174000", false},
	{"123e4567-e89b-42d3-a456-42661417400", false},
	{"123e4567-e89b-42d3-a456-4266141740000", false},
	{"123e4567e-89b-42d3-a456-426614174000", false},
	{"123e4567-e89b-42d3-a456-42661417400g", false},
	{"123e4567-e89b-42d3-a456-42661417400 ", false},
	{"123e4567_e89b_42d3_a456_426614174000", false},
	{"{23e4567-e89b-42d3-a456-426614174000", false},
	{"", false},
};

START_TEST(only_canonical_text_is_valid)
{
	ck_assert_int_eq(uuid_valid(forms[_i].text, strlen(forms[_i].text)),
	                 forms[_i].valid);
}
END_TEST

START_TEST(nul_inside_is_not_valid)
{
	char id[UUID_LEN + 1] = "123e4567-e89b-42d3-a456-426614174000";

	id[20] = '\0';
	ck_assert(!uuid_valid(id, UUID_LEN));
}
END_TEST

static Suite *uuid_suite(void)
{
	Suite *s = suite_create("uuid");
	TCase *t = tcase_create("uuid");

	tcase_add_test(t, made_ids_are_version_4);
	tcase_add_test(t, made_ids_differ_and_use_every_digit);
	tcase_add_loop_test(t, only_canonical_text_is_valid, 0,
	                    sizeof(forms) / sizeof(forms[0]));
	tcase_add_test(t, nul_inside_is_not_valid);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(uuid_suite());
}

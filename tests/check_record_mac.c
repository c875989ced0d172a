/*
 * check_record_mac.c - records are believed from a worker of the same user and
 * service, and from nobody else.
 */
#include <stdio.h>
#include <string.h>

#include "common/json_span.h"
#include "supervisor/state_dir.h"
#include "tests/runner.h"
#include "workers/record_mac.h"

#define RECORD "{\"prompt_id\":\"11111111-1111-4111-8111-111111111111\"}"

static struct state_dir dir;

static void setup(void)
{
	char path[512];
	struct error err;

	snprintf(path, sizeof(path), "%s/state", runner_tmpdir());
	ck_assert_msg(state_dir_open(&dir, path, &err) == 0, "%s", err.text);
}

static void teardown(void)
{
	state_dir_close(&dir);
}

static bool good(uid_t uid, uint64_t line, const struct buf *b)
{
	uint32_t key[4];

	state_dir_record_key(&dir, uid, key);
	return record_mac_good(key, line, span_make(b->data, b->len));
}

static void make(struct buf *b, uid_t uid, uint64_t line)
{
	uint32_t key[4];

	state_dir_record_key(&dir, uid, key);
	ck_assert_int_eq(record_mac_add(b, key, line, SPAN(RECORD)), 0);
}

START_TEST(genuine)
{
	cleanup_buf struct buf b = BUF_INIT(1024);
	struct json j;

	make(&b, 1000, 7);
	ck_assert_uint_eq(b.len, strlen(RECORD) + RECORD_MAC_LEN);
	ck_assert(good(1000, 7, &b));
	/* Whoever has no key reads it as it is. */
	ck_assert_int_eq(json_parse(&j, b.data, b.len, 0, NULL), JSON_OK);
	ck_assert(json_string_eq(json_get(j, "prompt_id"),
	                         "11111111-1111-4111-8111-111111111111"));
	/* The next supervisor makes the same keys. */
	teardown();
	setup();
	ck_assert(good(1000, 7, &b));
}
END_TEST

START_TEST(of_another)
{
	cleanup_buf struct buf b = BUF_INIT(1024);

	make(&b, 1000, 7);
	ck_assert(!good(1001, 7, &b));
	ck_assert(!good(0, 7, &b));
	ck_assert(!good(1000, 8, &b));
	ck_assert(!good(1000, 0, &b));
}
END_TEST

START_TEST(tampered)
{
	cleanup_buf struct buf b = BUF_INIT(1024);

	make(&b, 1000, 7);
	for (size_t i = 0; i < b.len; i++) {
		b.data[i] ^= 1;
		ck_assert_msg(!good(1000, 7, &b), "byte %zu", i);
		b.data[i] ^= 1;
	}
	for (; b.len > 0; b.len--) {
		if (b.len < strlen(RECORD) + RECORD_MAC_LEN)
			ck_assert(!good(1000, 7, &b));
	}
	ck_assert(!good(1000, 7, &b));
}
END_TEST

START_TEST(no_object)
{
	cleanup_buf struct buf b = BUF_INIT(1024);
	uint32_t key[4] = {0};

	ck_assert_int_eq(record_mac_add(&b, key, 1, SPAN("{}")), -1);
	ck_assert_int_eq(record_mac_add(&b, key, 1, SPAN("")), -1);
	ck_assert_int_eq(record_mac_add(&b, key, 1, SPAN("[1,2]")), -1);
}
END_TEST

static Suite *record_mac_suite(void)
{
	Suite *s = suite_create("record_mac");
	TCase *t = tcase_create("record_mac");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, genuine);
	tcase_add_test(t, of_another);
	tcase_add_test(t, tampered);
	tcase_add_test(t, no_object);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(record_mac_suite());
}

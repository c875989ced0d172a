/*
 * check_map.c - the map against a plain array as the model, and its edges.
 */
#include "common/map.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/runner.h"

#define KEYS 2000

static char keys[KEYS][16];

static void make_keys(void)
{
	for (int i = 0; i < KEYS; i++)
		ck_assert_int_gt(
			snprintf(keys[i], sizeof(keys[i]), "key-%d", i), 0);
}

static int add(struct map *m, int i)
{
	return map_add(m, keys[i], strlen(keys[i]), keys[i]);
}

static void *get(const struct map *m, int i)
{
	return map_get(m, keys[i], strlen(keys[i]));
}

static void *del(struct map *m, int i)
{
	return map_remove(m, keys[i], strlen(keys[i]));
}

START_TEST(empty_map_answers)
{
	struct map m = MAP_NULL;
	size_t i;

	ck_assert_ptr_null(map_get(&m, "a", 1));
	ck_assert_ptr_null(map_remove(&m, "a", 1));
	map_for_each (i, &m)
		ck_abort_msg("an empty map has no values");
	map_deinit(&m);
	map_deinit(&m);
}
END_TEST

START_TEST(add_get_remove)
{
	struct map m = MAP_NULL;

	ck_assert_int_eq(add(&m, 0), 0);
	ck_assert_int_eq(add(&m, 0), -EEXIST);
	ck_assert_uint_eq(m.count, 1);
	ck_assert_ptr_eq(get(&m, 0), keys[0]);
	ck_assert_ptr_null(get(&m, 1));
	ck_assert_ptr_eq(del(&m, 0), keys[0]);
	ck_assert_ptr_null(del(&m, 0));
	ck_assert_uint_eq(m.count, 0);
	map_deinit(&m);
}
END_TEST

START_TEST(keys_are_bytes)
{
	struct map m = MAP_NULL;
	int a, b, c, d;

	ck_assert_int_eq(map_add(&m, "x\0y", 3, &a), 0);
	ck_assert_int_eq(map_add(&m, "x\0z", 3, &b), 0);
	ck_assert_int_eq(map_add(&m, "x", 1, &c), 0);
	ck_assert_int_eq(map_add(&m, NULL, 0, &d), 0);
	ck_assert_ptr_eq(map_get(&m, "x\0y", 3), &a);
	ck_assert_ptr_eq(map_get(&m, "x\0z", 3), &b);
	ck_assert_ptr_eq(map_get(&m, "x", 1), &c);
	ck_assert_ptr_eq(map_get(&m, "", 0), &d);
	ck_assert_ptr_null(map_get(&m, "x\0", 2));
	map_deinit(&m);
}
END_TEST

/* Every length through two words and the rest. */
START_TEST(keys_of_every_length)
{
	static const char text[] = "abcdefghijklmnopqrstuvwxyz";
	struct map m = MAP_NULL;

	for (size_t n = 0; n < sizeof(text); n++)
		ck_assert_int_eq(map_add(&m, text, n, keys[n]), 0);
	for (size_t n = 0; n < sizeof(text); n++)
		ck_assert_ptr_eq(map_get(&m, text, n), keys[n]);
	map_deinit(&m);
}
END_TEST

static unsigned int rng_state;

static unsigned int rng(void)
{
	rng_state = rng_state * 1103515245U + 12345U;
	return rng_state >> 8;
}

/* One assertion for all: each costs a system call. */
static bool matches(const struct map *m, const bool model[KEYS])
{
	size_t i, seen = 0, count = 0;

	for (int k = 0; k < KEYS; k++) {
		count += model[k];
		if (get(m, k) != (model[k] ? keys[k] : NULL))
			return false;
	}
	map_for_each (i, m) {
		seen++;
		if (!model[(char(*)[16])m->slots[i].value - keys])
			return false;
	}
	return seen == count && m->count == count;
}

/* Small key ranges keep the table dense, so that runs form, wrap round its end
 * and are shifted; large ones make it grow. */
START_TEST(agrees_with_a_model)
{
	const unsigned int ranges[] = {7, 13, 100, KEYS};
	bool model[KEYS] = {false};
	struct map m = MAP_NULL;
	int k;

	rng_state = (unsigned int)_i;
	for (int step = 0; step < runner_times(20000); step++) {
		k = (int)(rng() % ranges[_i % 4]);
		if (rng() % 2) {
			ck_assert_int_eq(add(&m, k), model[k] ? -EEXIST : 0);
			model[k] = true;
		} else {
			ck_assert_ptr_eq(del(&m, k), model[k] ? keys[k] : NULL);
			model[k] = false;
		}
		if (step % 500 == 0)
			ck_assert(matches(&m, model));
	}
	ck_assert(matches(&m, model));
	map_deinit(&m);
}
END_TEST

START_TEST(load_stays_below_its_bound)
{
	struct map m = MAP_NULL;

	for (int i = 0; i < KEYS; i++) {
		ck_assert_int_eq(add(&m, i), 0);
		ck_assert_uint_eq(m.cap & (m.cap - 1), 0);
		ck_assert_uint_le(m.count * 4, m.cap * 3);
	}
	map_deinit(&m);
}
END_TEST

/* Entries come and go for ever without growth: no tombstones. */
START_TEST(churn_does_not_grow)
{
	struct map m = MAP_NULL;

	for (int i = 0; i < runner_times(100000); i++) {
		ck_assert_int_eq(add(&m, i % KEYS), 0);
		if (i >= 4)
			ck_assert_ptr_nonnull(del(&m, (i - 4) % KEYS));
	}
	ck_assert_uint_eq(m.cap, 8);
	map_deinit(&m);
}
END_TEST

START_TEST(each_map_has_its_own_seed)
{
	struct map a = MAP_NULL, b = MAP_NULL;

	ck_assert_int_eq(add(&a, 0), 0);
	ck_assert_int_eq(add(&b, 0), 0);
	ck_assert(a.seed[0] != b.seed[0] || a.seed[1] != b.seed[1]);
	ck_assert_int_eq(add(&a, 1), 0);
	map_deinit(&a);
	map_deinit(&b);
}
END_TEST

static Suite *map_suite(void)
{
	Suite *s = suite_create("map");
	TCase *t = tcase_create("map");

	tcase_add_checked_fixture(t, make_keys, NULL);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, empty_map_answers);
	tcase_add_test(t, add_get_remove);
	tcase_add_test(t, keys_are_bytes);
	tcase_add_test(t, keys_of_every_length);
	tcase_add_loop_test(t, agrees_with_a_model, 0, 8);
	tcase_add_test(t, load_stays_below_its_bound);
	tcase_add_test(t, churn_does_not_grow);
	tcase_add_test(t, each_map_has_its_own_seed);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(map_suite());
}

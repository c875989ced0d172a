/*
 * check_subscription.c - who is told of what, once each.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/subscription.h"
#include "tests/runner.h"

static struct subject prompt, tenant, everything;
static struct subscriber ann, bob;
static char told[64];

static void setup(void)
{
	subject_init(&prompt);
	subject_init(&tenant);
	subject_init(&everything);
	subscriber_init(&ann);
	subscriber_init(&bob);
	told[0] = '\0';
}

static void teardown(void)
{
	subscriber_clear(&ann);
	subscriber_clear(&bob);
	ck_assert_uint_eq(prompt.count + tenant.count + everything.count, 0);
}

static void on_told(void *user, struct subscriber *s)
{
	size_t n = strlen(told);

	ck_assert_uint_lt(n, sizeof(told) - 1);
	told[n] = s == &ann ? 'a' : 'b';
	told[n + 1] = '\0';
}

static const char *tell(uint64_t stamp)
{
	told[0] = '\0';
	subject_tell(&prompt, stamp, on_told, NULL);
	subject_tell(&tenant, stamp, on_told, NULL);
	subject_tell(&everything, stamp, on_told, NULL);
	return told;
}

START_TEST(test_nobody)
{
	ck_assert(!subject_watched(&prompt));
	ck_assert_str_eq(tell(1), "");
}
END_TEST

START_TEST(test_each_once)
{
	ck_assert_int_eq(subscription_add(&prompt, &ann), 0);
	ck_assert_int_eq(subscription_add(&tenant, &ann), 0);
	ck_assert_int_eq(subscription_add(&everything, &ann), 0);
	ck_assert_int_eq(subscription_add(&tenant, &bob), 0);
	ck_assert_str_eq(tell(1), "ab");
	ck_assert_str_eq(tell(2), "ab");
	ck_assert_uint_eq(ann.count, 3);
}
END_TEST

START_TEST(test_twice_is_once)
{
	ck_assert_int_eq(subscription_add(&prompt, &ann), 0);
	ck_assert_int_eq(subscription_add(&prompt, &ann), 0);
	ck_assert_uint_eq(prompt.count, 1);
	ck_assert_uint_eq(ann.count, 1);
	ck_assert_str_eq(tell(1), "a");
}
END_TEST

START_TEST(test_remove)
{
	ck_assert(!subscription_remove(&prompt, &ann));
	ck_assert_int_eq(subscription_add(&prompt, &ann), 0);
	ck_assert_int_eq(subscription_add(&prompt, &bob), 0);
	ck_assert(subscription_stands(&prompt, &ann));
	ck_assert(subscription_remove(&prompt, &ann));
	ck_assert(!subscription_stands(&prompt, &ann));
	ck_assert(!subscription_remove(&prompt, &ann));
	ck_assert_str_eq(tell(1), "b");
}
END_TEST

START_TEST(test_clear_from_either_end)
{
	ck_assert_int_eq(subscription_add(&prompt, &ann), 0);
	ck_assert_int_eq(subscription_add(&prompt, &bob), 0);
	ck_assert_int_eq(subscription_add(&tenant, &ann), 0);
	subject_clear(&prompt);
	ck_assert_uint_eq(prompt.count, 0);
	ck_assert_uint_eq(ann.count, 1);
	ck_assert_uint_eq(bob.count, 0);
	subject_clear(&prompt);
	subscriber_clear(&ann);
	subscriber_clear(&ann);
	ck_assert_uint_eq(tenant.count, 0);
}
END_TEST

START_TEST(test_bound)
{
	struct subject *many = calloc(SUBSCRIPTIONS_MAX + 1, sizeof(*many));
	int i;

	ck_assert_ptr_nonnull(many);
	for (i = 0; i <= SUBSCRIPTIONS_MAX; i++)
		subject_init(&many[i]);
	for (i = 0; i < SUBSCRIPTIONS_MAX; i++)
		ck_assert_int_eq(subscription_add(&many[i], &ann), 0);
	ck_assert_int_eq(subscription_add(&many[i], &ann), -ENOBUFS);
	/* One that stands is no new one. */
	ck_assert_int_eq(subscription_add(&many[0], &ann), 0);
	ck_assert_int_eq(subscription_add(&many[i], &bob), 0);
	ck_assert(subscription_remove(&many[5], &ann));
	ck_assert_int_eq(subscription_add(&many[i], &ann), 0);
	subscriber_clear(&ann);
	subscriber_clear(&bob);
	free(many);
}
END_TEST

START_TEST(test_may_see)
{
	ck_assert(may_see(1000, false, 1000));
	ck_assert(!may_see(1000, false, 1001));
	ck_assert(may_see(1000, true, 1001));
	ck_assert(may_see(0, true, 1001));
}
END_TEST

static const char *show(uint64_t stamp)
{
	told[0] = '\0';
	subject_tell_previews(&prompt, stamp, on_told, NULL);
	subject_tell_previews(&tenant, stamp, on_told, NULL);
	subject_tell_previews(&everything, stamp, on_told, NULL);
	return told;
}

/* Those who asked, once each, and no others; the count of who asks is right
 * whichever way a subscription ends. */
START_TEST(test_previews)
{
	size_t wanted = 0;

	ann.previews = bob.previews = &wanted;
	subscription_set_previews(&prompt, &ann, true);
	ck_assert_uint_eq(wanted, 0);
	ck_assert_int_eq(subscription_add(&prompt, &ann), 0);
	ck_assert_int_eq(subscription_add(&prompt, &bob), 0);
	ck_assert_int_eq(subscription_add(&tenant, &ann), 0);
	ck_assert_str_eq(show(1), "");
	subscription_set_previews(&prompt, &ann, true);
	subscription_set_previews(&prompt, &ann, true);
	subscription_set_previews(&tenant, &ann, true);
	ck_assert_uint_eq(wanted, 2);
	ck_assert(subscription_has_previews(&prompt, &ann));
	ck_assert(!subscription_has_previews(&prompt, &bob));
	ck_assert(!subscription_has_previews(&everything, &bob));
	ck_assert_str_eq(show(2), "a");
	ck_assert_str_eq(tell(3), "ab");
	/* Again without a word on previews: as it was. */
	ck_assert_int_eq(subscription_add(&prompt, &ann), 0);
	ck_assert_str_eq(show(4), "a");
	subscription_set_previews(&prompt, &bob, true);
	ck_assert_str_eq(show(5), "ab");
	subscription_set_previews(&prompt, &bob, false);
	ck_assert_str_eq(show(6), "a");
	subject_clear(&prompt);
	ck_assert_uint_eq(wanted, 1);
	ck_assert_uint_eq(prompt.previews, 0);
	subscriber_clear(&ann);
	ck_assert_uint_eq(wanted, 0);
	ck_assert_uint_eq(tenant.previews, 0);
}
END_TEST

static Suite *subscription_suite(void)
{
	Suite *s = suite_create("subscription");
	TCase *t = tcase_create("all");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_nobody);
	tcase_add_test(t, test_each_once);
	tcase_add_test(t, test_twice_is_once);
	tcase_add_test(t, test_remove);
	tcase_add_test(t, test_clear_from_either_end);
	tcase_add_test(t, test_bound);
	tcase_add_test(t, test_may_see);
	tcase_add_test(t, test_previews);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(subscription_suite());
}

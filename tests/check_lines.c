/*
 * check_lines.c - the line splitter: every way a stream may be cut, the bound
 * at its edge, memory, and no rescans.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/macros.h"
#include "ipc/lines.h"
#include "tests/runner.h"

static void expect_line(struct lines *l, const char *text)
{
	struct span line;

	ck_assert_int_eq(lines_next(l, &line), LINES_LINE);
	ck_assert_msg(span_eq_str(line, text), "got \"%.*s\", expected \"%s\"",
	              (int)line.n, line.p, text);
}

static void expect(struct lines *l, enum lines_result r)
{
	struct span line;

	ck_assert_int_eq(lines_next(l, &line), r);
	ck_assert_ptr_null(line.p);
}

static void feed(struct lines *l, const char *text)
{
	ck_assert_int_eq(lines_feed(l, text, strlen(text)), 0);
}

/* `n` bytes of one letter, freed by the caller. */
static char *letters(size_t n)
{
	char *p = malloc(n);

	ck_assert_ptr_nonnull(p);
	memset(p, 'x', n);
	return p;
}

START_TEST(splits_at_any_cut)
{
	static const char text[] = "one\ntwo\r\n\n\r\nthr\ree\n\xff\n";
	static const char *const lines[] = {"one", "two",     "",
	                                    "",    "thr\ree", "\xff"};
	struct lines l;
	struct span line;
	size_t n = 0;

	lines_init(&l, 100, NULL);
	for (size_t i = 0; i < sizeof(text) - 1; i += (size_t)_i) {
		size_t len = sizeof(text) - 1 - i;

		len = len < (size_t)_i ? len : (size_t)_i;
		ck_assert_int_eq(lines_feed(&l, text + i, len), 0);
		while (lines_next(&l, &line) == LINES_LINE) {
			ck_assert_uint_lt(n, ARRAY_SIZE(lines));
			ck_assert(span_eq_str(line, lines[n]));
			n++;
		}
	}
	ck_assert_uint_eq(n, ARRAY_SIZE(lines));
	lines_deinit(&l);
}
END_TEST

START_TEST(bound_at_its_edge)
{
	struct lines l;

	lines_init(&l, 5, NULL);
	feed(&l, "12345\n123456\n12345\n1234\r\n12345\r\nab\n");
	expect_line(&l, "12345");
	expect(&l, LINES_TOO_LONG);
	expect_line(&l, "12345");
	expect_line(&l, "1234");
	/* The carriage return counts. */
	expect(&l, LINES_TOO_LONG);
	expect_line(&l, "ab");
	expect(&l, LINES_NONE);
	lines_deinit(&l);
}
END_TEST

START_TEST(bound_at_its_edge_in_pieces)
{
	struct lines l;

	lines_init(&l, 5, NULL);
	feed(&l, "12345");
	expect(&l, LINES_NONE);
	feed(&l, "\n");
	expect_line(&l, "12345");
	feed(&l, "123456");
	expect(&l, LINES_TOO_LONG);
	expect(&l, LINES_NONE);
	feed(&l, "7890");
	expect(&l, LINES_NONE);
	feed(&l, "1\nnext\n");
	expect_line(&l, "next");
	expect(&l, LINES_NONE);
	lines_deinit(&l);
}
END_TEST

START_TEST(huge_line_is_reported_once)
{
	const size_t piece = 1u << 20;
	char *p = letters(piece);
	struct lines l;
	size_t most = 0;

	lines_init(&l, 16u << 20, NULL);
	feed(&l, "before\n");
	expect_line(&l, "before");
	for (int i = 0, reports = 0; i < 100; i++) {
		struct span line;
		enum lines_result r;

		ck_assert_int_eq(lines_feed(&l, p, piece), 0);
		r = lines_next(&l, &line);
		reports += r == LINES_TOO_LONG;
		ck_assert_int_ne(r, LINES_LINE);
		ck_assert_int_eq(reports, i >= 16);
		most = most < l.cap ? l.cap : most;
	}
	ck_assert_uint_le(most, (16u << 20) + 1 + LINES_AHEAD_BYTES);
	ck_assert_uint_le(l.cap, LINES_AHEAD_BYTES);
	feed(&l, "x\nafter\n");
	expect_line(&l, "after");
	expect(&l, LINES_NONE);
	ck_assert_uint_le(l.cap, LINES_KEEP_BYTES);
	lines_deinit(&l);
	free(p);
}
END_TEST

/* Nobody asks for lines meanwhile: what is too long is not stored even so. */
START_TEST(huge_line_in_one_piece)
{
	const size_t len = 100u << 20;
	char *p = letters(len);
	struct lines l;

	lines_init(&l, 1000, NULL);
	ck_assert_int_eq(lines_feed(&l, p, len), 0);
	ck_assert_uint_le(l.cap, 1001 + LINES_AHEAD_BYTES);
	expect(&l, LINES_TOO_LONG);
	expect(&l, LINES_NONE);
	feed(&l, "\n");
	expect(&l, LINES_NONE);
	feed(&l, "b\n");
	expect_line(&l, "b");
	lines_deinit(&l);
	free(p);
}
END_TEST

START_TEST(each_long_line_is_reported)
{
	char *p = letters(3u << 20);
	struct lines l;

	p[1u << 20] = '\n';
	p[2u << 20] = '\n';
	lines_init(&l, 1000, NULL);
	/* With and without one before that nobody has taken. */
	feed(&l, _i ? "a\n" : "");
	ck_assert_int_eq(lines_feed(&l, p, 3u << 20), 0);
	feed(&l, "\nb\n");
	if (_i)
		expect_line(&l, "a");
	expect(&l, LINES_TOO_LONG);
	expect(&l, LINES_TOO_LONG);
	expect(&l, LINES_TOO_LONG);
	expect_line(&l, "b");
	expect(&l, LINES_NONE);
	lines_deinit(&l);
	free(p);
}
END_TEST

START_TEST(full_of_lines_nobody_takes)
{
	struct lines l;
	struct span line;
	size_t room, total = 0, taken = 0;
	char *to;

	lines_init(&l, 100, NULL);
	while ((to = lines_reserve(&l, &room))) {
		ck_assert_uint_gt(room, 0);
		memset(to, '\n', room);
		lines_commit(&l, room);
		total += room;
		ck_assert_uint_le(total, 1u << 20);
	}
	ck_assert(lines_full(&l));
	ck_assert_uint_ge(total, LINES_AHEAD_BYTES);
	/* To feed is another matter: it takes all. */
	ck_assert_int_eq(lines_feed(&l, "x\n", 2), 0);
	while (lines_next(&l, &line) == LINES_LINE)
		taken++;
	ck_assert_uint_eq(taken, total + 1);
	ck_assert(!lines_full(&l));
	ck_assert_ptr_nonnull(lines_reserve(&l, &room));
	ck_assert_uint_le(l.cap, LINES_KEEP_BYTES);
	lines_deinit(&l);
}
END_TEST

/* However lines end in the buffer: once all whole ones are taken, there is room
 * for as much as one read brings. */
START_TEST(room_after_taking_all)
{
	struct lines l;
	struct span line;
	size_t room, fill;
	char *to;

	lines_init(&l, 70000, NULL);
	for (size_t round = 0; round < 200; round++) {
		fill = 0;
		while (fill < LINES_AHEAD_BYTES &&
		       (to = lines_reserve(&l, &room))) {
			memset(to, 'x', room);
			if (fill == 0)
				to[room * (round % 7) / 7] = '\n';
			lines_commit(&l, room);
			fill += room;
		}
		ck_assert_uint_ge(fill, LINES_AHEAD_BYTES);
		while (lines_next(&l, &line) != LINES_NONE)
			continue;
		ck_assert_uint_le(l.cap, 70001 + LINES_AHEAD_BYTES);
	}
	lines_deinit(&l);
}
END_TEST

START_TEST(budget_is_kept)
{
	struct lines_budget budget = {.max = LINES_KEEP_BYTES};
	struct lines a, b;
	struct span line;
	char *p = letters(LINES_KEEP_BYTES);

	lines_init(&a, 1u << 20, &budget);
	lines_init(&b, 1u << 20, &budget);
	feed(&a, "x");
	ck_assert_uint_eq(budget.used, 0);
	/* One may double, the other then not. */
	ck_assert_int_eq(lines_feed(&a, p, LINES_KEEP_BYTES), 0);
	ck_assert_uint_eq(budget.used, budget.max);
	/* A short line gets through all the same. */
	feed(&b, "short\nx");
	expect_line(&b, "short");
	ck_assert_int_eq(lines_feed(&b, p, LINES_KEEP_BYTES), -ENOBUFS);
	lines_deinit(&b);
	ck_assert_uint_eq(budget.used, budget.max);
	feed(&a, "\n");
	ck_assert_int_eq(lines_next(&a, &line), LINES_LINE);
	ck_assert_uint_eq(line.n, LINES_KEEP_BYTES + 1);
	feed(&a, "y");
	expect(&a, LINES_NONE);
	ck_assert_uint_eq(budget.used, 0);
	/* Between lines nothing is held. */
	feed(&a, "\n");
	expect_line(&a, "y");
	expect(&a, LINES_NONE);
	ck_assert_uint_eq(a.cap, 0);
	lines_deinit(&a);
	lines_deinit(&a);
	ck_assert_uint_eq(budget.used, 0);
	free(p);
}
END_TEST

START_TEST(rest_at_eof)
{
	struct lines l;
	struct span line;

	lines_init(&l, 5, NULL);
	feed(&l, "a\nb\r");
	ck_assert_int_eq(lines_rest(&l, &line), LINES_LINE);
	ck_assert(span_eq_str(line, "a"));
	ck_assert_int_eq(lines_rest(&l, &line), LINES_LINE);
	ck_assert(span_eq_str(line, "b"));
	ck_assert_int_eq(lines_rest(&l, &line), LINES_NONE);
	feed(&l, "123456");
	ck_assert_int_eq(lines_rest(&l, &line), LINES_TOO_LONG);
	feed(&l, "7");
	ck_assert_int_eq(lines_rest(&l, &line), LINES_NONE);
	lines_deinit(&l);
}
END_TEST

/* Of the processor: others that use the machine don't count. */
static int64_t us_to_feed_in_pieces(size_t len, size_t piece)
{
	char *p = letters(piece);
	struct lines l;
	struct span line;
	clock_t start = clock();

	lines_init(&l, len + 1, NULL);
	for (size_t i = 0; i < len; i += piece) {
		ck_assert_int_eq(lines_feed(&l, p, piece), 0);
		ck_assert_int_eq(lines_next(&l, &line), LINES_NONE);
	}
	lines_deinit(&l);
	free(p);
	return (int64_t)(clock() - start) * 1000000 / CLOCKS_PER_SEC;
}

/* Eight times the length may take eight times as long, and not 64 times. */
START_TEST(no_rescans)
{
	size_t size = 64 * (size_t)runner_times(1 << 14);
	int64_t small = us_to_feed_in_pieces(size, 64);
	int64_t large = us_to_feed_in_pieces(8 * size, 64);

	ck_assert_int_lt(large, 32 * (small + 1000));
}
END_TEST

static Suite *lines_suite(void)
{
	Suite *s = suite_create("lines");
	TCase *t = tcase_create("lines");

	tcase_add_loop_test(t, splits_at_any_cut, 1, 30);
	tcase_add_test(t, bound_at_its_edge);
	tcase_add_test(t, bound_at_its_edge_in_pieces);
	tcase_add_test(t, huge_line_is_reported_once);
	tcase_add_test(t, huge_line_in_one_piece);
	tcase_add_loop_test(t, each_long_line_is_reported, 0, 2);
	tcase_add_test(t, full_of_lines_nobody_takes);
	tcase_add_test(t, room_after_taking_all);
	tcase_add_test(t, budget_is_kept);
	tcase_add_test(t, rest_at_eof);
	tcase_add_test(t, no_rescans);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(lines_suite());
}

/*
 * check_bars.c - rows of progress at all widths, and repainting.
 */
#include <fcntl.h>
#include <locale.h>
#include <pty.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "tests/runner.h"
#include "workers/front/bars.h"

static char ids[6][4] = {"1", "2", "3", "4", "5", "6"};
static char *id_list[6] = {ids[0], ids[1], ids[2], ids[3], ids[4], ids[5]};

static struct cmx_progress executing(void)
{
	return (struct cmx_progress){
		.prompt_id = "p",
		.status = CMX_EXECUTING,
		.current_node = "6",
		.current_node_progress = 0.5,
		.current_value = 10,
		.current_max = 20,
		.completed_nodes = {.count = 2, .ids = id_list},
		.cached_nodes = {.count = 1, .ids = id_list},
	};
}

static struct bar_row row_of(const struct cmx_progress *p)
{
	return (struct bar_row){.label = "wf.json",
	                        .p = p,
	                        .node_class = "KSampler",
	                        .total_nodes = 7,
	                        .started_ms = 1000,
	                        .executing_ms = 2000,
	                        .now_ms = 62000};
}

static const char *text_of(const struct bar_row *row, unsigned width)
{
	static struct buf out;

	buf_deinit(&out);
	buf_init(&out, 4096);
	bars_row_text(row, width, &out);
	return buf_cstr(&out);
}

START_TEST(test_fraction)
{
	struct cmx_progress p = executing();

	ck_assert_double_eq_tol(bar_fraction(&p, 7), 0.5, 1e-9);
	/* Nodes that appeared at run time don't lead past the end. */
	ck_assert_double_eq_tol(bar_fraction(&p, 2), 1.0, 1e-9);
	ck_assert_double_eq_tol(bar_fraction(&p, 0), 0.5, 1e-9);
	p.status = CMX_COMPLETED;
	ck_assert_double_eq_tol(bar_fraction(&p, 7), 1.0, 1e-9);
}
END_TEST

START_TEST(test_running_row)
{
	struct cmx_progress p = executing();
	struct bar_row row = row_of(&p);

	ck_assert_str_eq(text_of(&row, 200),
	                 "wf.json  [##########..........]  50% node 6 KSampler "
	                 "10/20  1:01  left 1:00");
}
END_TEST

START_TEST(test_queued_row)
{
	struct cmx_progress p = {
		.prompt_id = "p", .status = CMX_QUEUED, .queue_position = 3};
	struct bar_row row = row_of(&p);

	ck_assert_ptr_nonnull(
		strstr(text_of(&row, 100), "queued (position 3)"));
	p.queue_position = -1;
	ck_assert_ptr_null(strstr(text_of(&row, 100), "position"));
}
END_TEST

START_TEST(test_every_width)
{
	struct cmx_progress p = executing();
	struct bar_row row = row_of(&p);

	row.label = "h\xc3\xa9llo \xe4\xb8\x96.json";
	for (unsigned width = 1; width < 120; width++) {
		const char *text = text_of(&row, width);
		unsigned columns = 0;

		for (const char *c = text; *c; c++)
			columns += ((unsigned char)*c & 0xc0) != 0x80;
		ck_assert_uint_le(columns, width);
		/* No sequence is torn: the last byte ends one. */
		ck_assert_int_eq(mbstowcs(NULL, text, 0) == (size_t)-1, 0);
	}
}
END_TEST

START_TEST(test_hostile_label)
{
	struct cmx_progress p = executing();
	struct bar_row row = row_of(&p);

	row.node_class = "\033[2Jevil\n";
	ck_assert_ptr_null(strchr(text_of(&row, 200), '\033'));
	ck_assert_ptr_null(strchr(text_of(&row, 200), '\n'));
}
END_TEST

/* A terminal that shrank has wrapped our rows: the way home is as long as they
 * have become. */
START_TEST(test_repaint_after_resize)
{
	struct cmx_progress p = executing();
	struct bar_row rows[2] = {row_of(&p), row_of(&p)};
	struct winsize wide = {.ws_col = 100, .ws_row = 24};
	struct winsize narrow = {.ws_col = 40, .ws_row = 24};
	struct ev_loop *loop = ev_default_loop(0);
	struct out out;
	struct bars bars;
	char seen[8192];
	int master, slave;
	ssize_t n;

	ck_assert_int_eq(openpty(&master, &slave, NULL, NULL, &wide), 0);
	out_init(&out, loop, slave, 65536);
	bars_init(&bars, &out, slave);
	bars_paint(&bars, rows, 2);
	ck_assert_uint_eq(bars.painted, 2);
	ck_assert_uint_gt(bars.lengths[0], 40);
	n = read(master, seen, sizeof(seen) - 1);
	ck_assert_int_gt(n, 0);
	ck_assert_int_eq(ioctl(slave, TIOCSWINSZ, &narrow), 0);
	bars_paint(&bars, rows, 2);
	n = read(master, seen, sizeof(seen) - 1);
	ck_assert_int_gt(n, 0);
	seen[n] = '\0';
	/* Two rows of 41 to 80 columns are four now: three up. */
	ck_assert_msg(strncmp(seen, "\r\033[3A\033[J", 8) == 0, "%s", seen);
	out_deinit(&out);
	(void)close(master);
	(void)close(slave);
}
END_TEST

static Suite *bars_suite(void)
{
	Suite *s = suite_create("bars");
	TCase *t = tcase_create("rows");

	tcase_add_test(t, test_fraction);
	tcase_add_test(t, test_running_row);
	tcase_add_test(t, test_queued_row);
	tcase_add_test(t, test_every_width);
	tcase_add_test(t, test_hostile_label);
	tcase_add_test(t, test_repaint_after_resize);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	(void)setlocale(LC_ALL, "C.UTF-8");
	return runner_run(bars_suite());
}

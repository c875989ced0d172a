/*
 * terminal.c - see terminal.h.
 */
#include "workers/top/terminal.h"

#include <curses.h>
#include <stdlib.h>
#include <term.h>
#include <unistd.h>

int terminal_check(struct error *err)
{
	const char *name = getenv("TERM");
	bool can_move;
	int found = 0;

	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
		return error_set(err, ERR_INVALID,
		                 "top draws on a terminal, and %s is none; "
		                 "`comfymux status` prints the state once",
		                 isatty(STDIN_FILENO) ? "the output"
		                                      : "the input");
	if (!name || name[0] == '\0')
		return error_set(err, ERR_INVALID,
		                 "TERM is not set: say which kind of terminal "
		                 "this is, TERM=xterm for most");
	if (setupterm(name, STDOUT_FILENO, &found) != OK)
		return error_set(err, ERR_INVALID,
		                 "nothing is known of TERM=%s here: install "
		                 "ncurses-term, or try TERM=xterm",
		                 name);
	can_move = cursor_address != NULL;
	/* newterm() reads it anew. */
	(void)del_curterm(cur_term);
	if (!can_move)
		return error_set(
			err, ERR_INVALID,
			"a terminal of the kind TERM=%s can't move its "
			"cursor; `comfymux status` prints the state "
			"once",
			name);
	return 0;
}

/*
 * gen_config - prints what common/config.def says: the reference table of
 * README.md, or the example configuration.
 *
 * usage: gen_config table | example
 */
#include <stdio.h>
#include <string.h>

#include "common/config.h"

int main(int argc, char **argv)
{
	cleanup_buf struct buf out = BUF_INIT(CONFIG_FILE_MAX);
	int r;

	if (argc != 2)
		return 2;
	r = strcmp(argv[1], "table") == 0 ? config_reference(&out)
	                                  : config_example(&out);
	if (r < 0 || fwrite(out.data, 1, out.len, stdout) != out.len)
		return 1;
	return fflush(stdout) == 0 ? 0 : 1;
}

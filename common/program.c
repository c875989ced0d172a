/*
 * program.c - see program.h.
 */
#include "common/program.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

char *program_find(const char *name, struct error *err)
{
	static const char *const places[] = {"", "../lib/comfymux/", "../sbin/",
	                                     "../../bin/", "../../sbin/"};
	char exe[PATH_MAX], path[PATH_MAX + 64];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	char *slash, *found;

	if (n < 0) {
		(void)error_set_errno(err, errno,
		                      "cannot tell where this program lies");
		return NULL;
	}
	exe[n] = '\0';
	slash = strrchr(exe, '/');
	if (slash)
		slash[1] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		n = snprintf(path, sizeof(path), "%s%s%s", exe, places[i],
		             name);
		if (n < 0 || n >= (ssize_t)sizeof(path) ||
		    access(path, X_OK) != 0)
			continue;
		found = strdup(path);
		if (!found)
			(void)error_set_nomem(err, path);
		return found;
	}
	(void)error_set(err, ERR_SYSTEM,
	                "%s is neither in %s nor where an installation puts "
	                "it: is comfymux installed whole?",
	                name, exe);
	return NULL;
}

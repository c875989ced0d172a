/*
 * program_args.c - see program_args.h.
 */
#include "common/program_args.h"

#include <stdio.h>
#include <string.h>

#include "common/version.h"

/* The key of an option; NULL: the configuration file itself. */
static const struct {
	const char *option, *key;
} keys[] = {{"--comfyui", "comfyui"},
            {"--socket", "socket"},
            {"--state-dir", "state_dir"},
            {"--config", NULL}};

/* True if argv[*ip] (and what follows) was an option with a value. */
static bool take(char **argv, int *ip, struct config_sources *src,
                 struct config_flag *flags, size_t max)
{
	for (size_t k = 0; k < ARRAY_SIZE(keys); k++) {
		size_t n = strlen(keys[k].option);
		const char *value = NULL;

		if (strncmp(argv[*ip], keys[k].option, n) != 0)
			continue;
		if (argv[*ip][n] == '=')
			value = argv[*ip] + n + 1;
		else if (argv[*ip][n] == '\0' && argv[*ip + 1])
			value = argv[++*ip];
		if (!value || src->flag_count == max)
			return false;
		if (keys[k].key)
			flags[src->flag_count++] = (struct config_flag){
				.key = keys[k].key, .value = value};
		else
			src->file = value;
		return true;
	}
	return false;
}

int program_args(const struct program_args *a, char **argv,
                 struct config_sources *src, struct config_flag *flags,
                 size_t max)
{
	for (int i = 1; argv[i]; i++) {
		const char *arg = argv[i];

		if (strcmp(arg, a->command) == 0)
			continue;
		if (strcmp(arg, "--help") == 0)
			return a->help();
		if (strcmp(arg, "--version") == 0)
			return printf("%s %s\n", a->program, comfymux_version) <
			       0;
		if (a->json && strcmp(arg, "--json") == 0) {
			*a->json = true;
			continue;
		}
		if (take(argv, &i, src, flags, max))
			continue;
		(void)fprintf(stderr,
		              "%s: \"%s\" is not understood; --help lists the "
		              "options\n",
		              a->program, arg);
		return 2;
	}
	return -1;
}

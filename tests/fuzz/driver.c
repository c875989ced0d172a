/*
 * driver.c - runs saved inputs through a fuzz target, without libFuzzer.
 *
 * usage: fuzz_NAME FILE-OR-DIRECTORY...
 *
 * Each input has a process of its own, so that one that fails is named and the
 * rest still run. The summary has libcheck's form, for scripts/run-checks.
 */
#include <dirent.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define INPUT_SECONDS 60 /* one input may take so long, sanitizers included */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int runs, failures;

__attribute__((noreturn)) static void die(const char *what)
{
	perror(what);
	exit(EXIT_FAILURE);
}

/* In the child. The memory is as long as the input, not a byte more, so that
 * the sanitizer sees a read past its end. */
static int run_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	struct stat st;
	uint8_t *data;
	size_t size;

	if (!f || fstat(fileno(f), &st) < 0)
		die(path);
	size = (size_t)st.st_size;
	data = malloc(size ? size : 1);
	if (!data || fread(data, 1, size, f) != size)
		die(path);
	(void)fclose(f);
	(void)alarm(INPUT_SECONDS);
	(void)LLVMFuzzerTestOneInput(data, size);
	free(data);
	return EXIT_SUCCESS;
}

static void try_file(const char *path)
{
	int status = 0;
	pid_t pid;

	(void)fflush(NULL);
	pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0)
		exit(run_file(path)); /* leaks are looked for at exit */
	if (waitpid(pid, &status, 0) != pid)
		die("waitpid");
	runs++;
	if (status == 0)
		return;
	failures++;
	printf("%s: failed (%s %d)\n", path,
	       WIFSIGNALED(status) ? "signal" : "exit status",
	       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

static void try_dir(const char *dir)
{
	struct dirent **names;
	char path[PATH_MAX];
	int n = scandir(dir, &names, NULL, alphasort);

	if (n < 0)
		die(dir);
	for (int i = 0; i < n; i++) {
		if (names[i]->d_name[0] != '.') {
			if (snprintf(path, sizeof(path), "%s/%s", dir,
			             names[i]->d_name) >= (int)sizeof(path))
				die(dir);
			try_file(path);
		}
		free(names[i]);
	}
	free(names);
}

int main(int argc, char **argv)
{
	struct stat st;

	for (int i = 1; i < argc; i++) {
		if (stat(argv[i], &st) < 0)
			die(argv[i]);
		if (S_ISDIR(st.st_mode))
			try_dir(argv[i]);
		else
			try_file(argv[i]);
	}
	printf("%d%%: Checks: %d, Failures: %d, Errors: 0\n",
	       runs ? (runs - failures) * 100 / runs : 0, runs, failures);
	return failures || !runs ? EXIT_FAILURE : EXIT_SUCCESS;
}

/*
 * check_sandbox.c - what each profile takes away, tried in a child that has
 * entered it: refused calls fail with EPERM and are logged with their number,
 * what the role needs still works.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fdutil.h"
#include "common/log.h"
#include "common/sandbox.h"
#include "common/sandbox_impl.h"
#include "tests/runner.h"

#define OUTPUT_MAX 65536

/* What a trial says: 0, or the errno. */
typedef int trial(void);

static int result(long r)
{
	return r < 0 ? errno : 0;
}

/* --- what may be tried ---------------------------------------------------- */

static int try_open(void)
{
	return result(open("/etc/passwd", O_RDONLY | O_CLOEXEC));
}

static int try_create(void)
{
	return result(open("/tmp/comfymux-check-sandbox",
	                   O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

static int try_exec(void)
{
	char *const argv[] = {(char[]){"true"}, NULL};

	return result(execve("/bin/true", argv, environ));
}

static int try_fork(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	return result(pid);
}

/* Not PTRACE_ATTACH: that stops the test, and where the filter lets it pass for
 * good if this ends before the stop has come. */
static int try_ptrace(void)
{
	return result(ptrace(PTRACE_SEIZE, getppid(), NULL, NULL));
}

static int try_read_memory(void)
{
	return result(
		syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0));
}

static int try_kill_parent(void)
{
	return result(kill(getppid(), 0));
}

static int try_kill_thread(void)
{
	return result(syscall(SYS_tgkill, getppid(), getppid(), 0));
}

static int try_kill_all(void)
{
	return result(kill(-1, 0));
}

static int try_pidfd(void)
{
	return result(syscall(SYS_pidfd_open, getppid(), 0));
}

static int try_own_signal(void)
{
	return result(kill(getpid(), 0));
}

static int try_packet(void)
{
	return result(socket(AF_PACKET, SOCK_RAW, 0));
}

static int try_raw(void)
{
	return result(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
}

static int try_unix(void)
{
	return result(socket(AF_UNIX, SOCK_STREAM, 0));
}

static int try_tcp(void)
{
	return result(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

static int try_bind(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	return result(bind(fd, (const struct sockaddr *)&sa, sizeof(sa)));
}

static int try_mount(void)
{
	return result(mount("none", "/mnt", "tmpfs", 0, NULL));
}

static int try_setuid(void)
{
	/* Itself: for everybody else there is nothing to be refused. */
	return result(syscall(SYS_setuid, getuid()));
}

static int try_code(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
	               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? errno : 0;
}

static int try_dumpable(void)
{
	return result(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
}

static int try_bpf(void)
{
	return result(syscall(SYS_bpf, 0, NULL, 0));
}

static int try_unshare(void)
{
	return result(unshare(CLONE_NEWUSER));
}

static int try_type(void)
{
	return result(ioctl(STDERR_FILENO, TIOCSTI, "x"));
}

static int try_others_limits(void)
{
	struct rlimit l;

	return result(prlimit(getppid(), RLIMIT_NOFILE, NULL, &l));
}

static int try_unknown(void)
{
	return result(syscall(499));
}

static int try_work(void)
{
	struct stat st;
	int fds[2], ep = epoll_create1(EPOLL_CLOEXEC);
	char *p = malloc(10u << 20);

	if (ep < 0 || !p || pipe2(fds, O_CLOEXEC) < 0 ||
	    write(fds[1], "x", 1) != 1 || read(fds[0], p, 1) != 1 ||
	    fstat(fds[0], &st) < 0 || fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0)
		return errno;
	free(p);
	(void)prctl(PR_SET_NAME, "x");
	return 0;
}

/* --- trying it ------------------------------------------------------------ */

static char output[OUTPUT_MAX];

/* In a child that has entered the profile: the trial's result. What it wrote
 * to stderr is in `output`. */
static int in_sandbox(enum sandbox_profile profile, trial *t)
{
	char *path = NULL;
	int fds[2], status;
	size_t len = 0;
	ssize_t n;
	pid_t pid;

	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		(void)dup2(fds[1], STDERR_FILENO);
		log_open("child", LOG_TO_STDERR, LOG_LEVEL_WARN);
		if (profile == SANDBOX_SUPERVISOR)
			path = sandbox_allow_program("/bin/true", NULL);
		sandbox_enter(profile);
		(void)path;
		_exit(t());
	}
	(void)close(fds[1]);
	while ((n = read(fds[0], output + len, sizeof(output) - 1 - len)) > 0)
		len += (size_t)n;
	output[len] = '\0';
	(void)close(fds[0]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status), "killed by signal %d: %s",
	              WTERMSIG(status), output);
	return WEXITSTATUS(status);
}

#define W (1 << SANDBOX_WORKER)
#define R (1 << SANDBOX_WORKER_RESOLVING)
#define Z (1 << SANDBOX_ZYGOTE)
#define S (1 << SANDBOX_SUPERVISOR)

/* clang-format off */
static const struct {
	const char *name;
	trial *t;
	unsigned refused; /* profiles that don't have it */
} trials[] = {
	{"open", try_open, W | Z},
	{"create", try_create, W | R | Z},
	{"exec", try_exec, W | R | Z | S},
	{"fork", try_fork, W | R},
	{"ptrace", try_ptrace, W | R | Z | S},
	{"process_vm_readv", try_read_memory, W | R | Z | S},
	{"kill parent", try_kill_parent, W | R},
	{"tgkill parent", try_kill_thread, W | R},
	{"kill all", try_kill_all, W | R},
	{"pidfd_open", try_pidfd, W | R | Z},
	{"kill itself", try_own_signal, 0},
	{"AF_PACKET", try_packet, W | R | Z | S},
	{"SOCK_RAW", try_raw, W | R | Z | S},
	{"AF_UNIX", try_unix, W | Z},
	{"TCP", try_tcp, 0},
	{"bind", try_bind, W | Z},
	{"mount", try_mount, W | R | Z | S},
	{"setuid", try_setuid, W | R | Z | S},
	{"memory to execute", try_code, W | Z},
	{"PR_SET_DUMPABLE", try_dumpable, W | R},
	{"bpf", try_bpf, W | R | Z | S},
	{"unshare", try_unshare, W | R | Z | S},
	{"TIOCSTI", try_type, W | R | Z | S},
	{"prlimit of parent", try_others_limits, W | R | Z},
	{"daily work", try_work, 0},
};
/* clang-format on */

START_TEST(test_refused)
{
	size_t i = (size_t)_i / SANDBOX_PROFILE_COUNT;
	enum sandbox_profile p =
		(enum sandbox_profile)(_i % SANDBOX_PROFILE_COUNT);
	bool refused = trials[i].refused & 1u << p;
	int r;

	if (!SANDBOX_FILTERS)
		return;
	r = in_sandbox(p, trials[i].t);
	if (refused) {
		ck_assert_msg(r == EPERM, "%s in profile %d: %s",
		              trials[i].name, (int)p, strerror(r));
		ck_assert_msg(strstr(output, "sandbox: system call "),
		              "%s not logged: %s", trials[i].name, output);
	} else {
		ck_assert_msg(!strstr(output, "sandbox: system call "),
		              "%s in profile %d: %s", trials[i].name, (int)p,
		              output);
		/* Other reasons to fail there may be. */
		if (p == SANDBOX_WORKER)
			ck_assert_msg(r == 0, "%s: %s", trials[i].name,
			              strerror(r));
	}
}
END_TEST

static int try_twice(void)
{
	(void)try_open();
	return try_open();
}

START_TEST(test_logged_once_with_its_number)
{
	char want[128];

	if (!SANDBOX_FILTERS)
		return;
	ck_assert_int_eq(in_sandbox(SANDBOX_WORKER, try_twice), EPERM);
	(void)snprintf(want, sizeof(want),
	               "sandbox: system call %d was refused\n",
	               (int)SYS_openat);
	ck_assert_ptr_nonnull(strstr(output, want));
	ck_assert_ptr_null(strstr(strstr(output, want) + 1, want));
	ck_assert_int_eq(strncmp(output, "warn child[", 11), 0);
}
END_TEST

/* One that the lists are too old for: as on an old kernel. */
START_TEST(test_newer_call)
{
	ck_assert_int_eq(in_sandbox(SANDBOX_WORKER, try_unknown), ENOSYS);
}
END_TEST

static int try_status(void)
{
	struct rlimit core, files, space;

	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
		return 1;
	if (SANDBOX_FILTERS && prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0)
		return 2;
	if (getrlimit(RLIMIT_CORE, &core) < 0 ||
	    getrlimit(RLIMIT_NOFILE, &files) < 0 ||
	    getrlimit(RLIMIT_AS, &space) < 0)
		return 3;
	if (core.rlim_max != 0 || files.rlim_max > SANDBOX_WORKER_NOFILE)
		return 4;
	if (SANDBOX_FILTERS && space.rlim_max > SANDBOX_WORKER_AS_BYTES)
		return 5;
	if (sandbox_filtered() != (SANDBOX_FILTERS != 0))
		return 6;
	return 0;
}

START_TEST(test_limits)
{
	ck_assert_int_eq(in_sandbox(SANDBOX_WORKER, try_status), 0);
}
END_TEST

/* At the edge of the limits. */
static int try_too_many_files(void)
{
	int fd, last = -1;

	while ((fd = dup(STDERR_FILENO)) >= 0)
		last = fd;
	return errno == EMFILE && last == SANDBOX_WORKER_NOFILE - 1 ? 0 : 1;
}

START_TEST(test_files_at_the_edge)
{
	ck_assert_int_eq(in_sandbox(SANDBOX_WORKER, try_too_many_files), 0);
}
END_TEST

static int try_too_much_memory(void)
{
	void *p = mmap(NULL, SANDBOX_WORKER_AS_BYTES, PROT_NONE,
	               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED && errno == ENOMEM ? 0 : 1;
}

START_TEST(test_memory_at_the_edge)
{
	if (SANDBOX_FILTERS)
		ck_assert_int_eq(
			in_sandbox(SANDBOX_WORKER, try_too_much_memory), 0);
}
END_TEST

/* A fault is a fault still: it isn't taken for a refused call. */
START_TEST(test_signal_from_outside)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		sandbox_enter(SANDBOX_WORKER);
		(void)raise(SIGSYS);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status));
	ck_assert_int_eq(WTERMSIG(status), SIGSYS);
}
END_TEST

START_TEST(test_abort)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		sandbox_enter(SANDBOX_WORKER);
		abort();
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status));
	ck_assert_int_eq(WTERMSIG(status), SIGABRT);
}
END_TEST

/* A worker has what all three filters leave. */
static int try_inherited(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		sandbox_enter(SANDBOX_WORKER);
		_exit(try_work() == 0 && try_fork() == EPERM &&
		                      try_kill_parent() == EPERM
		              ? 0
		              : 1);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid ? status : 1;
}

START_TEST(test_inherited)
{
	if (SANDBOX_FILTERS)
		ck_assert_int_eq(in_sandbox(SANDBOX_ZYGOTE, try_inherited), 0);
}
END_TEST

/* --- the one program ------------------------------------------------------ */

static int run_allowed(bool copied)
{
	struct error err = ERROR_NULL;
	char *path = sandbox_allow_program("/bin/true", &err);
	char *const argv[] = {(char[]){"true"}, NULL};
	char copy[] = "/bin/true";

	if (!path)
		return 1;
	sandbox_enter(SANDBOX_SUPERVISOR);
	(void)execve(copied ? copy : path, argv, environ);
	return errno;
}

START_TEST(test_program)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(run_allowed(_i == 1));
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	if (SANDBOX_FILTERS)
		ck_assert_int_eq(WEXITSTATUS(status), _i == 1 ? EPERM : 0);
}
END_TEST

static int change_program(void)
{
	char *path = sandbox_allow_program("/bin/true", NULL);

	sandbox_enter(SANDBOX_SUPERVISOR);
	if (mprotect(path, 4096, PROT_READ | PROT_WRITE) == 0 ||
	    munmap(path, 4096) == 0 ||
	    mmap(path, 4096, PROT_READ | PROT_WRITE,
	         MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
		return 1;
	return strcmp(path, "/bin/true");
}

START_TEST(test_program_stays)
{
	int status;
	pid_t pid;

	if (!SANDBOX_FILTERS)
		return;
	pid = fork();
	if (pid == 0)
		_exit(change_program());
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}
END_TEST

static Suite *sandbox_suite(void)
{
	Suite *s = suite_create("sandbox");
	TCase *t = tcase_create("all");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, test_refused, 0,
	                    (int)(ARRAY_SIZE(trials) * SANDBOX_PROFILE_COUNT));
	tcase_add_test(t, test_logged_once_with_its_number);
	tcase_add_test(t, test_newer_call);
	tcase_add_test(t, test_limits);
	tcase_add_test(t, test_files_at_the_edge);
	tcase_add_test(t, test_memory_at_the_edge);
	tcase_add_test(t, test_signal_from_outside);
	tcase_add_test(t, test_abort);
	tcase_add_test(t, test_inherited);
	tcase_add_loop_test(t, test_program, 0, 2);
	tcase_add_test(t, test_program_stays);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return runner_run(sandbox_suite());
}

/*
 * sandbox_filter.c - which system calls each profile has, made into filters by
 * libseccomp; what happens when another one is made.
 *
 * Workers and zygote have a list of what is allowed, the supervisor, which
 * does more, one of what isn't. A filter is inherited, and each further one
 * only takes away: a zygote has the supervisor's too, a worker all three.
 *
 * Seen in the lists are calls as glibc 2.36 makes them, and their older forms.
 * A call that is newer than the lists gets ENOSYS, for which C libraries have
 * an older one at hand, and no EPERM, which they would pass on.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>
#include <ucontext.h>
#include <unistd.h>

#include "common/fdutil.h"
#include "common/log.h"
#include "common/macros.h"
#include "common/sandbox_impl.h"

/* Where a refused call's result can be set from a signal handler. */
#if defined(__x86_64__) || defined(__aarch64__)
#define REFUSE   SCMP_ACT_TRAP
#define CAN_TELL 1
#else
#define REFUSE   SCMP_ACT_ERRNO(EPERM)
#define CAN_TELL 0
#endif

/* In the kernel's header, which clashes with the C library's. */
#ifndef SYS_SECCOMP
#define SYS_SECCOMP 1
#endif

/* BPF_MAXINSNS of eight bytes: what the kernel takes. */
#define FILTER_BYTES_MAX 32768
#define CALLS_MAX        512 /* numbers below are told of once each */
#define CALLS_NEWEST     450 /* above: too new for the lists */
#define NEW_SPACES                                                             \
	(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |           \
	 CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP)
#define SOCKET_TYPE_MASK 0xfu /* besides flags */

static struct sock_fprog programs[SANDBOX_PROFILE_COUNT];
static const char *program_path;

/* --- the lists ------------------------------------------------------------ */

#define C(name) SCMP_SYS(name)

/* What any of our processes does once it has its things together. */
static const int basic[] = {
	C(read),
	C(write),
	C(readv),
	C(writev),
	C(pread64),
	C(pwrite64),
	C(preadv2),
	C(pwritev2),
	C(lseek),
	C(close),
	C(close_range),
	C(fstat),
	C(fcntl),
	C(dup),
	C(dup2),
	C(dup3),
	C(ftruncate),
	C(fsync),
	C(fdatasync),
	C(fallocate),
	C(pipe2),
	C(poll),
	C(ppoll),
	C(select),
	C(pselect6),
	C(epoll_create),
	C(epoll_create1),
	C(epoll_ctl),
	C(epoll_wait),
	C(epoll_pwait),
	C(eventfd2),
	C(timerfd_create),
	C(timerfd_settime),
	C(timerfd_gettime),
	C(socketpair),
	C(connect),
	C(getsockopt),
	C(setsockopt),
	C(getsockname),
	C(getpeername),
	C(sendto),
	C(sendmsg),
	C(sendmmsg),
	C(recvfrom),
	C(recvmsg),
	C(recvmmsg),
	C(shutdown),
	C(munmap),
	C(mremap),
	C(brk),
	C(madvise),
	C(memfd_create),
	C(futex),
	C(set_robust_list),
	C(rseq),
	C(sched_yield),
	C(sched_getaffinity),
	C(getcpu),
	C(clock_gettime),
	C(clock_getres),
	C(clock_nanosleep),
	C(nanosleep),
	C(gettimeofday),
	C(time),
	C(rt_sigaction),
	C(rt_sigprocmask),
	C(rt_sigreturn),
	C(rt_sigpending),
	C(rt_sigtimedwait),
	C(sigaltstack),
	C(restart_syscall),
	C(getpid),
	C(gettid),
	C(getppid),
	C(getuid),
	C(geteuid),
	C(getgid),
	C(getegid),
	C(getgroups),
	C(getresuid),
	C(getresgid),
	C(getrandom),
	C(getrusage),
	C(times),
	C(sysinfo),
	C(uname),
	C(exit),
	C(exit_group),
	/* To itself alone, see only_itself. */
	C(kill),
	C(tgkill),
};

/* Looking up a name, by files or by the network. */
static const int resolving[] = {
	C(bind),  C(access), C(faccessat), C(newfstatat),
	C(stat),  C(lstat),  C(readlink),  C(readlinkat),
	C(statx), C(statfs), C(fstatfs),
};

static const int forking[] = {
	C(wait4),
	C(waitid),
	C(seccomp),
};

/* Beyond the supervisor's duties. */
static const int beyond[] = {
	C(ptrace),
	C(process_vm_readv),
	C(process_vm_writev),
	C(kcmp),
	C(pidfd_getfd),
	C(process_madvise),
	C(mount),
	C(umount2),
	C(pivot_root),
	C(chroot),
	C(move_mount),
	C(open_tree),
	C(fsopen),
	C(fsconfig),
	C(fsmount),
	C(fspick),
	C(mount_setattr),
	C(unshare),
	C(setns),
	C(init_module),
	C(finit_module),
	C(delete_module),
	C(kexec_load),
	C(kexec_file_load),
	C(bpf),
	C(perf_event_open),
	C(userfaultfd),
	C(add_key),
	C(request_key),
	C(keyctl),
	C(open_by_handle_at),
	C(name_to_handle_at),
	C(fanotify_init),
	C(quotactl),
	C(swapon),
	C(swapoff),
	C(reboot),
	C(acct),
	C(sethostname),
	C(setdomainname),
	C(settimeofday),
	C(clock_settime),
	C(clock_adjtime),
	C(adjtimex),
	C(iopl),
	C(ioperm),
	C(syslog),
	C(vhangup),
	C(personality),
	C(setuid),
	C(setgid),
	C(setreuid),
	C(setregid),
	C(setresuid),
	C(setresgid),
	C(setfsuid),
	C(setfsgid),
	C(setgroups),
	C(capset),
	C(execveat),
	C(mknod),
	C(mknodat),
	C(io_uring_setup),
	C(io_uring_enter),
	C(io_uring_register),
};

#undef C

/* --- making a filter ------------------------------------------------------ */

/* The first failure decides; what this processor has no number for is left out
 * by libseccomp. */
struct making {
	scmp_filter_ctx ctx;
	int r;
};

/* What an argument must be; seccomp.h's own macros leave a member out. */
static struct scmp_arg_cmp is(unsigned arg, scmp_datum_t value)
{
	return (struct scmp_arg_cmp){
		.arg = arg, .op = SCMP_CMP_EQ, .datum_a = value};
}

static struct scmp_arg_cmp is_not(unsigned arg, scmp_datum_t value)
{
	return (struct scmp_arg_cmp){
		.arg = arg, .op = SCMP_CMP_NE, .datum_a = value};
}

/* Of the bits in `mask`, those in `value` and no other. */
static struct scmp_arg_cmp has(unsigned arg, scmp_datum_t mask,
                               scmp_datum_t value)
{
	return (struct scmp_arg_cmp){.arg = arg,
	                             .op = SCMP_CMP_MASKED_EQ,
	                             .datum_a = mask,
	                             .datum_b = value};
}

#define RULE(m, action, call, ...)                                             \
	do {                                                                   \
		if ((m)->r == 0)                                               \
			(m)->r =                                               \
				seccomp_rule_add((m)->ctx, action,             \
			                         SCMP_SYS(call), __VA_ARGS__); \
	} while (0)

static void add_list(struct making *m, uint32_t action, const int *calls,
                     size_t n)
{
	for (size_t i = 0; i < n && m->r == 0; i++)
		m->r = seccomp_rule_add(m->ctx, action, calls[i], 0);
}

static void allow_sockets(struct making *m)
{
	static const int families[] = {AF_INET, AF_INET6};
	static const int types[] = {SOCK_STREAM, SOCK_DGRAM};

	for (size_t f = 0; f < ARRAY_SIZE(families); f++) {
		for (size_t t = 0; t < ARRAY_SIZE(types); t++)
			RULE(m, SCMP_ACT_ALLOW, socket, 2,
			     is(0, (scmp_datum_t)families[f]),
			     has(1, SOCKET_TYPE_MASK, (scmp_datum_t)types[t]));
	}
	/* To the system's log, when its daemon was restarted. */
	RULE(m, SCMP_ACT_ALLOW, socket, 2, is(0, (scmp_datum_t)AF_UNIX),
	     has(1, SOCKET_TYPE_MASK, (scmp_datum_t)SOCK_DGRAM));
}

static void allow_memory(struct making *m, bool code)
{
	if (code) { /* modules that look names up */
		RULE(m, SCMP_ACT_ALLOW, mmap, 0);
		RULE(m, SCMP_ACT_ALLOW, mprotect, 0);
		return;
	}
	RULE(m, SCMP_ACT_ALLOW, mmap, 1, has(2, PROT_EXEC, 0));
	RULE(m, SCMP_ACT_ALLOW, mprotect, 1, has(2, PROT_EXEC, 0));
}

static void allow_some_forms(struct making *m)
{
	static const unsigned long requests[] = {FIONBIO, FIONREAD, TCGETS};
	static const int options[] = {PR_SET_NAME, PR_GET_NAME, PR_GET_DUMPABLE,
	                              PR_GET_NO_NEW_PRIVS, PR_GET_SECCOMP};

	for (size_t i = 0; i < ARRAY_SIZE(requests); i++)
		RULE(m, SCMP_ACT_ALLOW, ioctl, 1, is(1, requests[i]));
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		RULE(m, SCMP_ACT_ALLOW, prctl, 1,
		     is(0, (scmp_datum_t)options[i]));
	/* Its own limits. */
	RULE(m, SCMP_ACT_ALLOW, getrlimit, 0);
	RULE(m, SCMP_ACT_ALLOW, prlimit64, 1, is(0, 0));
	/* How fstat() is spelt; a path in it tells that a file is there, and no
	 * more. */
	RULE(m, SCMP_ACT_ALLOW, newfstatat, 1,
	     has(3, AT_EMPTY_PATH, AT_EMPTY_PATH));
	/* glibc then takes clone, whose flags can be seen. */
	RULE(m, SCMP_ACT_ERRNO(ENOSYS), clone3, 0);
}

static void allow_basic(struct making *m, bool code)
{
	add_list(m, SCMP_ACT_ALLOW, basic, ARRAY_SIZE(basic));
	allow_sockets(m);
	allow_memory(m, code);
	allow_some_forms(m);
}

static void allow_resolving(struct making *m)
{
	const scmp_datum_t writes = O_ACCMODE | O_CREAT | O_TRUNC;
	const scmp_datum_t thread = CLONE_VM | CLONE_THREAD;

	add_list(m, SCMP_ACT_ALLOW, resolving, ARRAY_SIZE(resolving));
	RULE(m, SCMP_ACT_ALLOW, open, 1, has(1, writes, O_RDONLY));
	RULE(m, SCMP_ACT_ALLOW, openat, 1, has(2, writes, O_RDONLY));
	RULE(m, SCMP_ACT_ALLOW, clone, 1, has(0, thread, thread));
	/* Which addresses the machine has. */
	RULE(m, SCMP_ACT_ALLOW, socket, 1, is(0, (scmp_datum_t)AF_NETLINK));
	/* glibc asks for a caching daemon each time; silently none. */
	RULE(m, SCMP_ACT_ERRNO(EACCES), socket, 2, is(0, (scmp_datum_t)AF_UNIX),
	     has(1, SOCKET_TYPE_MASK, (scmp_datum_t)SOCK_STREAM));
}

static void allow_forking(struct making *m)
{
	static const int options[] = {PR_SET_NO_NEW_PRIVS, PR_SET_DUMPABLE,
	                              PR_SET_SECCOMP};

	add_list(m, SCMP_ACT_ALLOW, forking, ARRAY_SIZE(forking));
	RULE(m, SCMP_ACT_ALLOW, clone, 1, has(0, NEW_SPACES, 0));
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		RULE(m, SCMP_ACT_ALLOW, prctl, 1,
		     is(0, (scmp_datum_t)options[i]));
}

/* The path can't be read by a filter, but where it lies can be compared: a page
 * that is made read-only and stays what it is. */
static void refuse_programs(struct making *m)
{
	const scmp_datum_t path = (scmp_datum_t)(uintptr_t)program_path;

	if (!program_path) {
		RULE(m, REFUSE, execve, 0);
		return;
	}
	RULE(m, REFUSE, execve, 1, is_not(0, path));
	RULE(m, REFUSE, mprotect, 1, is(0, path));
	RULE(m, REFUSE, munmap, 1, is(0, path));
	RULE(m, REFUSE, mremap, 1, is(0, path));
	RULE(m, REFUSE, mmap, 2, is(0, path), has(3, MAP_FIXED, MAP_FIXED));
}

static void refuse_beyond(struct making *m)
{
	add_list(m, REFUSE, beyond, ARRAY_SIZE(beyond));
	RULE(m, REFUSE, socket, 1, is(0, (scmp_datum_t)AF_PACKET));
	for (scmp_datum_t family = AF_INET; family <= AF_INET6;
	     family += AF_INET6 - AF_INET)
		RULE(m, REFUSE, socket, 2, is(0, family),
		     has(1, SOCKET_TYPE_MASK, (scmp_datum_t)SOCK_RAW));
	/* One rule a bit: any of them. */
	for (unsigned bit = 0; bit < 32; bit++) {
		scmp_datum_t flag = (scmp_datum_t)NEW_SPACES & 1ull << bit;

		if (flag)
			RULE(m, REFUSE, clone, 1, has(0, flag, flag));
	}
	RULE(m, SCMP_ACT_ERRNO(ENOSYS), clone3, 0);
	RULE(m, REFUSE, ioctl, 1, is(1, TIOCSTI));
	refuse_programs(m);
}

/* The program as the kernel takes it, kept in memory: a forked child need not
 * work it out again. */
static int export(struct making *m, struct sock_fprog *program)
{
	int fd = memfd_create("filter", MFD_CLOEXEC), r;
	char *data = NULL;
	size_t len = 0;

	if (fd < 0)
		return -errno;
	r = seccomp_export_bpf(m->ctx, fd);
	if (r == 0 && lseek(fd, 0, SEEK_SET) < 0)
		r = -errno;
	if (r == 0)
		r = fd_read_all(fd, FILTER_BYTES_MAX, &data, &len);
	(void)close(fd);
	if (r < 0)
		return r;
	program->len = (unsigned short)(len / sizeof(*program->filter));
	program->filter = (struct sock_filter *)(void *)data;
	return 0;
}

static bool is_list_of_allowed(enum sandbox_profile profile)
{
	return profile != SANDBOX_SUPERVISOR;
}

int sandbox_filter_prepare(enum sandbox_profile profile)
{
	struct making m = {0};

	if (programs[profile].filter)
		return 0;
	m.ctx = seccomp_init(is_list_of_allowed(profile) ? REFUSE
	                                                 : SCMP_ACT_ALLOW);
	if (!m.ctx)
		return -ENOMEM;
	/* A tree of numbers instead of a chain: some 8 steps a call. */
	(void)seccomp_attr_set(m.ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (profile == SANDBOX_SUPERVISOR)
		refuse_beyond(&m);
	else
		allow_basic(&m, profile == SANDBOX_WORKER_RESOLVING);
	if (profile == SANDBOX_WORKER_RESOLVING)
		allow_resolving(&m);
	if (profile == SANDBOX_ZYGOTE)
		allow_forking(&m);
	if (m.r == 0)
		m.r = export(&m, &programs[profile]);
	seccomp_release(m.ctx);
	return m.r;
}

void sandbox_filter_program(const char *path)
{
	program_path = path;
}

/* --- a call that was refused ---------------------------------------------- */

#if CAN_TELL

static volatile sig_atomic_t seen[CALLS_MAX];
static volatile sig_atomic_t untold;

static void say(int nr)
{
	char text[64] = "system call ";
	char digits[12];
	size_t len = strlen(text), n = 0;
	unsigned v = (unsigned)nr;

	do
		digits[n++] = (char)('0' + v % 10);
	while ((v /= 10) > 0);
	while (n > 0)
		text[len++] = digits[--n];
	memcpy(text + len, " was refused", sizeof(" was refused"));
	if (!log_from_signal(LOG_LEVEL_WARN, "sandbox", text)) {
		seen[nr] = 2;
		untold = 1;
	}
}

static void set_result(ucontext_t *uc, int result)
{
#if defined(__x86_64__)
	uc->uc_mcontext.gregs[REG_RAX] = result;
#else
	uc->uc_mcontext.regs[0] = (unsigned long long)(long long)result;
#endif
}

static void on_refused(int sig, siginfo_t *info, void *context)
{
	int nr = info->si_syscall;
	int saved_errno = errno;

	if (info->si_code != SYS_SECCOMP) {
		/* Somebody sent it: as if there were no handler. */
		(void)signal(SIGSYS, SIG_DFL);
		(void)raise(SIGSYS);
		return;
	}
	if (nr >= 0 && nr < CALLS_MAX && !seen[nr]) {
		seen[nr] = 1;
		say(nr);
	}
	set_result(context, nr > CALLS_NEWEST ? -ENOSYS : -EPERM);
	errno = saved_errno;
}

static int set_handler(void)
{
	struct sigaction sa = {.sa_sigaction = on_refused,
	                       .sa_flags = SA_SIGINFO};

	return sigaction(SIGSYS, &sa, NULL) < 0 ? -errno : 0;
}

void sandbox_tell(void)
{
	char *name;

	if (!untold)
		return;
	untold = 0;
	for (int nr = 0; nr < CALLS_MAX; nr++) {
		if (seen[nr] != 2)
			continue;
		seen[nr] = 1;
		name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, nr);
		log_warn("sandbox", "system call %d (%s) was refused", nr,
		         name ? name : "?");
		free(name);
	}
}

#else

static int set_handler(void)
{
	return 0;
}

void sandbox_tell(void)
{
}

#endif

/* --- putting it in force -------------------------------------------------- */

static int load(const struct sock_fprog *program)
{
	/* Threads that run already get it too. */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
	            SECCOMP_FILTER_FLAG_TSYNC, program) == 0)
		return 0;
	return -errno;
}

/* Signals to itself alone. Its number is known only now, so this one is not
 * prepared. */
static int load_only_itself(void)
{
	const uint32_t pid = (uint32_t)getpid();
	const uint32_t low = (uint32_t)offsetof(struct seccomp_data, args[0]);
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
	                 (uint32_t)offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_kill, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_tgkill, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, low),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, pid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, CAN_TELL ? SECCOMP_RET_TRAP
	                                           : SECCOMP_RET_ERRNO | EPERM),
	};
	const struct sock_fprog program = {.len = ARRAY_SIZE(code),
	                                   .filter = code};

	return load(&program);
}

int sandbox_filter_load(enum sandbox_profile profile)
{
	int r = sandbox_filter_prepare(profile);

	if (r == 0)
		r = set_handler();
	/* First, since the other forbids further ones. */
	if (r == 0 &&
	    (profile == SANDBOX_WORKER || profile == SANDBOX_WORKER_RESOLVING))
		r = load_only_itself();
	return r == 0 ? load(&programs[profile]) : r;
}

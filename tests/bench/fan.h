/*
 * fan.h - what the parts of the benchmark's C side share: reader processes that
 * take the time from a frame's stamp to its arrival, and a figure of merit in
 * memory that they share with their parent.
 *
 * Each stamped frame has a member `t_ns`, the moment at which comfysim made it
 * (CLOCK_MONOTONIC), wherever it ends up.
 */
#ifndef TESTS_BENCH_FAN_H
#define TESTS_BENCH_FAN_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define FAN_READERS_MAX 4096
#define FAN_READ_BYTES  (1 << 20)

/* Buckets of a power of two each, cut into 64: 1.6 % wide. */
#define HISTOGRAM_CUTS    64
#define HISTOGRAM_BUCKETS (40 * HISTOGRAM_CUTS)

struct histogram {
	uint64_t count, max_ns;
	uint32_t n[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *h, int64_t ns);
void histogram_merge(struct histogram *to, const struct histogram *from);
/* The value that `part` (0 to 1) of all are below. */
double histogram_at(const struct histogram *h, double part);

struct fan_reader {
	pid_t pid;
	int fd; /* in the parent; -1: none */
	_Atomic int ready;
	int64_t last_ns;    /* of the frame before */
	int64_t silence_ns; /* the longest between two frames */
	struct histogram latency;
};

struct fan {
	size_t count;
	struct fan_reader *readers; /* shared with the processes */
	/* The readers of a broadcast, if they are many, are shared out evenly
	 * among the processors. Else it depends on where each last ran how
	 * many the writer wakes on its own, to be interrupted by each: 40 % or
	 * 75 % of 1,000 were seen, with a median of 8 or of 10 ms, of the bare
	 * relay too. */
	int spread;
};

int64_t fan_now_ns(void);
/* Ends the program with a message; every failure of a benchmark does. */
_Noreturn void fan_die(const char *what, ...)
	__attribute__((format(printf, 1, 2)));
void fan_write(int fd, const void *data, size_t len);
int fan_connect_unix(const char *path);

void fan_init(struct fan *f, size_t count);
/* Forks reader `i`, which runs `body` and never returns. */
void fan_start(struct fan *f, size_t i,
               void (*body)(struct fan_reader *r, size_t i, void *arg),
               void *arg);
/* Says "ready" once all readers are. */
void fan_wait_ready(struct fan *f);
/* Waits for the end of stdin, ends the readers and prints what they saw. */
void fan_finish(struct fan *f);
/* In a reader: reads lines or frames until the end, notes each stamp. */
_Noreturn void fan_read_all(struct fan_reader *r, int fd, const char *stamp);

/* The subcommands; `argv` begins behind the subcommand's name. */
int fan_relay(int argc, char **argv);
int fan_socket(int argc, char **argv);
int fan_mcp(int argc, char **argv);
int fan_start_times(int argc, char **argv);

#endif

/*
 * comfymux.h - libcomfymux: run ComfyUI workflows from C, and watch them.
 *
 * OVERVIEW
 *
 * A client (struct cmx) stands for a program's way to one ComfyUI. Where a
 * comfymux supervisor (comfymuxd) runs, the client is connected to it by a Unix
 * socket: prompts are submitted through it, survive it, and their events come
 * in real time over the one WebSocket that the supervisor keeps for everybody.
 * Where none runs, or it goes away in the middle, the client polls ComfyUI by
 * HTTP and returns to events when a supervisor answers again. What a program
 * sees is the same; only the member `method` of its progress tells.
 *
 *     struct cmx *c;
 *     struct cmx_result *r;
 *
 *     if (cmx_new(&c, NULL) < 0)
 *             die(cmx_last_error());
 *     if (cmx_run(c, workflow, 0, on_progress, NULL, &r) < 0)
 *             complain(cmx_last_error());
 *     else
 *             use(r->progress->outputs);
 *     cmx_result_free(r);
 *     cmx_free(c);
 *
 * Compile and link with `pkg-config --cflags --libs comfymux`; for the static
 * library add --static.
 *
 * BLOCKING AND NOT
 *
 * cmx_run, cmx_batch, cmx_chain, cmx_connect, cmx_events_available and cmx_wait
 * block until they are done; meanwhile callbacks of everything else that the
 * client does are called. Everything else returns at once.
 *
 * A program with an event loop of its own (poll, epoll, GLib, libuv, libev ...)
 * uses cmx_start, cmx_start_batch, cmx_start_chain and cmx_subscribe, waits for
 * cmx_fd() to be readable, and then calls cmx_dispatch(), which calls the
 * callbacks and never blocks. That descriptor covers timers, too.
 *
 * CALLBACKS come from the blocking functions above and from cmx_dispatch, never
 * from others. What they are given is valid during the call unless it says
 * otherwise. Inside one, functions that block fail with CMX_E_BUSY; everything
 * else is allowed: cmx_unsubscribe and cmx_task_free of the very thing that
 * calls back, and cmx_free, which takes effect when the callback returns.
 *
 * THREADS
 *
 * A client is for one thread at a time, whichever that is; different clients
 * may be used in different threads at once. The library starts no threads, but
 * libcurl may, to resolve a host name; that thread ends when the resolver does,
 * and nobody waits for it.
 *
 * PROCESS
 *
 * The library installs no signal handlers, raises no SIGPIPE, calls neither
 * exit nor abort, writes nothing to standard output or standard error, and
 * starts no processes, no supervisor either. Its descriptors are close-on-exec,
 * but for a pair that libcurl makes for itself. After fork() a client stays
 * with the parent: in the child every function that is given it fails with
 * CMX_E_FORKED, cmx_free does nothing, and the child makes clients of its own.
 *
 * ERRORS
 *
 * Functions return 0 or more when all went well, and a negative enum cmx_code
 * otherwise. cmx_last_error() then tells in words what failed, on what, and
 * what to do. Pointers that are results are set to NULL on failure unless the
 * function says otherwise. NULL for a client, a workflow, a prompt id or a
 * result pointer is CMX_E_INVALID, not a crash.
 *
 * COMPATIBILITY
 *
 * As long as the soname stays, structs only grow at their end and enums only
 * get new values. Those that a program fills in begin with their size or are
 * followed by room; those that it reads are made by the library alone.
 */
#ifndef COMFYMUX_H
#define COMFYMUX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define CMX_API __attribute__((visibility("default")))
#else
#define CMX_API
#endif

/* --- errors --------------------------------------------------------------- */

enum cmx_code {
	CMX_OK = 0,
	CMX_E_INVALID = -1, /* a bad argument: NULL, not JSON, out of range */
	CMX_E_NOMEM = -2,   /* out of memory */
	CMX_E_CONFIG = -3,  /* the configuration file or environment */
	CMX_E_UNREACHABLE = -4, /* ComfyUI or the supervisor doesn't answer */
	CMX_E_DENIED = -5,      /* no permission to use the supervisor */
	CMX_E_REJECTED = -6,    /* ComfyUI refused the workflow */
	CMX_E_FAILED = -7,      /* the prompt failed: see its error */
	CMX_E_TIMEOUT = -8,     /* not done in time; the prompt runs on */
	CMX_E_CANCELLED = -9,   /* by the program, or by somebody else */
	CMX_E_NOT_FOUND = -10,  /* no such prompt */
	CMX_E_LIMIT = -11,      /* a bound was reached; the text names it */
	CMX_E_BUSY = -12,       /* a blocking function inside a callback */
	CMX_E_FORKED = -13,     /* the client belongs to the parent process */
	CMX_E_PROTOCOL = -14, /* the other side is no ComfyUI, no supervisor */
	CMX_E_SYSTEM = -15,   /* the operating system refused */
	CMX_E_INTERNAL = -16, /* a fault of the library's own */
	CMX_E_PARTIAL = -17,  /* of a batch or chain some did not complete */
};

/* A code in a few words, "not found"; never NULL. */
CMX_API const char *cmx_strerror(int code);

/* What the latest call that failed in this thread had to say, in a sentence or
 * two; "" if none has. Valid until the next call that fails. */
CMX_API const char *cmx_last_error(void);

/* The library's version, "1.2.3". */
CMX_API const char *cmx_version(void);

/* --- progress ------------------------------------------------------------- */

enum cmx_status {
	CMX_QUEUED,
	CMX_EXECUTING,
	CMX_COMPLETED,
	CMX_FAILED,
};

/* How the latest news came. */
enum cmx_method {
	CMX_WEBSOCKET, /* as events, through the supervisor */
	CMX_POLLING,
};

/* A list of node ids, UTF-8, in order of completion. */
struct cmx_nodes {
	size_t count;
	char **ids;
};

/* Why a prompt failed. All NULL while there is no error. */
struct cmx_error {
	char *node_id; /* may be NULL or "" when no node is to blame */
	char *message; /* for a person, cut to a bound */
	char *type;    /* the exception's type, or one of lost, deleted,
	                  interrupted, cancelled, rejected, unreachable,
	                  timeout */
};

/* The state of a prompt. Read-only. */
struct cmx_progress {
	const char *prompt_id;
	enum cmx_status status;
	enum cmx_method method;
	const char *current_node;          /* NULL: none */
	double current_node_progress;      /* 0 to 1 */
	double current_value, current_max; /* steps; max 0: not known */
	int64_t queue_position; /* prompts ahead; 0 when running; -1 unknown */
	bool paused; /* queued, and an operator has paused the service */
	/* Nodes that ran to their end, and nodes that did not have to: a node
	 * is in one of them at most. */
	struct cmx_nodes completed_nodes, cached_nodes;
	/* JSON object, NUL-terminated: node id -> what ComfyUI says that node
	 * gave, {"9":{"images":[{"filename":...,"subfolder":...,"type":...}]}}
	 */
	const char *outputs;
	size_t outputs_len;
	bool outputs_truncated; /* a bound, or memory, was reached */
	bool nodes_truncated;   /* likewise */
	struct cmx_error error;
};

CMX_API const char *cmx_status_name(enum cmx_status s); /* "queued" ... */
CMX_API const char *cmx_method_name(enum cmx_method m); /* "websocket" ... */

/* News of a prompt; `p` is its whole state. */
typedef void cmx_progress_fn(void *user, const struct cmx_progress *p);
/* A prompt failed. */
typedef void cmx_error_fn(void *user, const struct cmx_error *error);

/* --- clients -------------------------------------------------------------- */

struct cmx;

/* Zero in all but the first member is what NULL for the whole means. */
struct cmx_options {
	size_t struct_size; /* sizeof(struct cmx_options) */
	/* These go before the environment (COMFYUI_HOST, COMFYMUX_SOCKET),
	 * which goes before the configuration file. */
	const char *comfyui; /* URL, "http://127.0.0.1:8188" */
	const char *socket;  /* the supervisor's */
	const char *config;  /* file; NULL: the usual places */
	bool no_events;      /* don't look for a supervisor: poll */
};

/* Makes a client. It reads the configuration and connects to nothing yet: that
 * happens when something is first asked of it. CMX_E_CONFIG: a value in the
 * options, the environment or the file can't be used. */
CMX_API int cmx_new(struct cmx **clientp, const struct cmx_options *options);

/* Ends all subscriptions and tasks of the client, without callbacks; what was
 * submitted runs on. Handles of these are not valid any more. Results and
 * their contents are. NULL is fine. */
CMX_API void cmx_free(struct cmx *c);

/* --- the connection ------------------------------------------------------- */

/* Whether events can be had: 1 if a supervisor answers and is connected to
 * ComfyUI, 0 if not (cmx_last_error() says why; everything works by polling
 * then). Blocks for as long as the supervisor takes to answer, 10 s at most.
 */
CMX_API int cmx_events_available(struct cmx *c);

/* Connects to the supervisor, if that hasn't been done: at once, so that a
 * prompt submitted later need not wait for it. It is never necessary, and a
 * connection that is lost is made again without it (after 1, 2, 4, 8, 16, then
 * every 30 s). Blocks 10 s at most. CMX_E_UNREACHABLE: there is none,
 * CMX_E_DENIED, CMX_E_CONFIG: it serves another ComfyUI. */
CMX_API int cmx_connect(struct cmx *c);

/* Whether there is a connection to a supervisor now: 1 or 0. */
CMX_API int cmx_is_connected(const struct cmx *c);

/* Makes the client like new: the connection is closed, all subscriptions and
 * tasks end as in cmx_free, and the configuration is read anew. Not inside a
 * callback. If the configuration can't be read the client stays as it is. */
CMX_API int cmx_reset(struct cmx *c);

/* --- one workflow --------------------------------------------------------- */

#define CMX_TIMEOUT_MS     300000      /* what a timeout of 0 means */
#define CMX_TIMEOUT_MAX_MS 2147483647  /* the longest */
#define CMX_WORKFLOW_MAX   (15u << 20) /* bytes of a workflow's text */
#define CMX_PROMPT_ID_MAX  256         /* bytes of a prompt's id */
#define CMX_LOG_LINES_MAX  1000        /* of a result */

/* How a workflow ended. Read-only. */
struct cmx_result {
	int code;         /* CMX_OK, or why it did not complete */
	bool submitted;   /* ComfyUI may know of it */
	size_t index;     /* in the batch or chain */
	const char *text; /* what went wrong, for a person; NULL: nothing */
	/* The last state; never NULL. Its prompt_id is "" if nothing was
	 * submitted. */
	const struct cmx_progress *progress;
	/* JSON object: ComfyUI's reasons for refusing the workflow, or the
	 * parts that it left out; else NULL. */
	const char *node_errors;
	/* Its course in plain words: "Node 6 started" ... */
	size_t log_count;
	const char *const *log;
	/* Of a chain's step: what was put into the workflow in place of the
	 * input, "a.png [output]"; else NULL. */
	const char *handed;
};

/* Submits a workflow and waits for its end.
 *
 * `workflow`: JSON text in ComfyUI's API format (in the web page: Workflow,
 * Export (API)), passed on digit for digit. `timeout_ms`: 0 for CMX_TIMEOUT_MS;
 * when it is over the prompt runs on, and can be watched by cmx_subscribe.
 * `on_progress` may be NULL; it gets the state when the prompt was taken,
 * whenever it changes, and when it ends. `resultp` may be NULL.
 *
 * 0 if it completed, a code if not; *resultp tells more in both cases. It is
 * NULL if nothing was submitted because an argument, the configuration or the
 * moment was wrong, and if the wait broke off (CMX_E_SYSTEM, CMX_E_NOMEM, or a
 * callback freed the client): then the prompt runs on. */
CMX_API int cmx_run(struct cmx *c, const char *workflow, int64_t timeout_ms,
                    cmx_progress_fn *on_progress, void *user,
                    struct cmx_result **resultp);

/* NULL is fine. The client need not exist any more. */
CMX_API void cmx_result_free(struct cmx_result *r);

/* Takes a prompt out of ComfyUI's queue, or interrupts it if it runs, and
 * returns at once: its end (failed, error type cancelled) is told to whoever
 * waits for it or is subscribed. */
CMX_API int cmx_cancel(struct cmx *c, const char *prompt_id);

/* --- subscriptions -------------------------------------------------------- */

struct cmx_subscription;

/* Watches a prompt that somebody has submitted. `on_progress` gets its state,
 * first of all the present one, then whenever it changes, last the one it ends
 * in; `on_error` is called once, after that, if it failed, and also if it had
 * failed before or if there is no such prompt (type lost). Either may be NULL.
 * `subp` must not be: a subscription stands until cmx_unsubscribe, beyond the
 * prompt's end.
 *
 * Any number of prompts may be watched, all of them over one connection. */
CMX_API int cmx_subscribe(struct cmx *c, const char *prompt_id,
                          cmx_progress_fn *on_progress, cmx_error_fn *on_error,
                          void *user, struct cmx_subscription **subp);

/* No callback of it comes any more. Its prompt runs on. NULL is fine. */
CMX_API void cmx_unsubscribe(struct cmx_subscription *s);

/* The state of a prompt that this client is subscribed to, or runs, as far as
 * it is known by now; it asks nobody. Valid until the next call that has to do
 * with this client. NULL: CMX_E_NOT_FOUND, in words by cmx_last_error(). */
CMX_API const struct cmx_progress *cmx_progress(struct cmx *c,
                                                const char *prompt_id);

/* --- many workflows ------------------------------------------------------- */

#define CMX_BATCH_MAX       10000 /* workflows in a batch */
#define CMX_CHAIN_MAX       64    /* steps in a chain */
#define CMX_CONCURRENCY     3
#define CMX_CONCURRENCY_MAX 64

typedef void cmx_item_progress_fn(void *user, size_t index,
                                  const struct cmx_progress *p);
/* One has ended; `r` is valid during the call. */
typedef void cmx_item_fn(void *user, size_t index, const struct cmx_result *r);

/* struct cmx_batch_options o = CMX_BATCH_OPTIONS_INIT; */
struct cmx_batch_options {
	size_t struct_size;
	unsigned concurrency; /* submitted at a time: 1 to CMX_CONCURRENCY_MAX;
	                         a chain's is always 1 */
	/* Start nothing more after the first failure. A chain's steps that take
	 * an image of one that failed are never run. */
	bool stop_on_error;
	int64_t timeout_ms; /* of each, from its start; 0: CMX_TIMEOUT_MS */
	cmx_item_progress_fn *on_progress;
	cmx_item_fn *on_item;
	void *user;
};
#define CMX_BATCH_OPTIONS_INIT                                                 \
	{                                                                      \
		sizeof(struct cmx_batch_options), CMX_CONCURRENCY, false, 0,   \
			NULL, NULL, NULL                                       \
	}

/* In the order of the workflows. Read-only. */
struct cmx_results {
	size_t count;
	size_t completed;
	const struct cmx_result *const *items;
};

/* Runs `count` workflows, so many at a time, and waits for all. One that
 * ComfyUI loses (it was restarted) is submitted again, under another id, twice
 * at most. One that can't be read fails alone (its code CMX_E_INVALID), the
 * others go on. `options` NULL: the defaults. 0 if all completed; CMX_E_PARTIAL
 * if some did not; then, too, there are results. CMX_E_INVALID: an empty batch,
 * a bad option; CMX_E_LIMIT: more than CMX_BATCH_MAX. */
CMX_API int cmx_batch(struct cmx *c, const char *const *workflows, size_t count,
                      const struct cmx_batch_options *options,
                      struct cmx_results **resultsp);

/* A step of a chain. All else than `workflow` may be zero. */
struct cmx_step {
	const char *workflow;
	const char *params; /* JSON object: NODE.INPUT -> value; or NULL */
	/* Takes the image number `input_index` of the outputs of node
	 * `input_node` (NULL: the only one with images) of step `input_step`,
	 * an earlier one (counted from 0), */
	size_t input_step;
	const char *input_node;
	size_t input_index;
	/* and puts it here: the name of an input ("image"), which exactly one
	 * node of the workflow has, or NODE.INPUT. NULL: takes none. */
	const char *output_to;
	const void *reserved[4]; /* NULL */
};

/* Runs the steps one after the other. A hand-over that can't be done fails the
 * step, and so does a reference to a step that doesn't come before it: nothing
 * else is put in its place. Results and codes as of cmx_batch; of the options
 * concurrency is not looked at. CMX_E_INVALID: no steps, a bad option. */
CMX_API int cmx_chain(struct cmx *c, const struct cmx_step *steps, size_t count,
                      const struct cmx_batch_options *options,
                      struct cmx_results **resultsp);

/* NULL is fine. */
CMX_API void cmx_results_free(struct cmx_results *r);

/* --- within an event loop ------------------------------------------------- */

/* A descriptor to wait for reading on; the same as long as the client lives. It
 * belongs to the client: don't read from it, don't close
 * it. With level-triggered waiting (poll, epoll's default) nothing is missed.
 */
CMX_API int cmx_fd(struct cmx *c);

/* Does what is due and calls callbacks; never blocks. Calling it without need
 * does no harm. CMX_E_CANCELLED: a callback has freed the client. */
CMX_API int cmx_dispatch(struct cmx *c);

/* For programs without a loop: waits, `timeout_ms` at most (negative: without
 * end), until there is something to do, and does it. 1 if something was done,
 * 0 if the time was over or a signal came, else as cmx_dispatch. */
CMX_API int cmx_wait(struct cmx *c, int64_t timeout_ms);

/* Something that was started. It is gone when on_end returns, or by
 * cmx_task_free. */
struct cmx_task;

/* The end, exactly once; `r` is valid during the call, r->code tells how. */
typedef void cmx_end_fn(void *user, const struct cmx_result *r);
typedef void cmx_all_end_fn(void *user, int code, const struct cmx_results *r);

/* cmx_run, cmx_batch and cmx_chain without waiting. What is wrong with the
 * arguments is told at once, all else by on_end, which must not be NULL. The
 * texts of a batch's workflows (not the array) must stay until the end.
 * `taskp` may be NULL. `user` of batch and chain is that of the options for
 * their callbacks, and the one given here for on_end. */
CMX_API int cmx_start(struct cmx *c, const char *workflow, int64_t timeout_ms,
                      cmx_progress_fn *on_progress, cmx_end_fn *on_end,
                      void *user, struct cmx_task **taskp);
CMX_API int cmx_start_batch(struct cmx *c, const char *const *workflows,
                            size_t count,
                            const struct cmx_batch_options *options,
                            cmx_all_end_fn *on_end, void *user,
                            struct cmx_task **taskp);
CMX_API int cmx_start_chain(struct cmx *c, const struct cmx_step *steps,
                            size_t count,
                            const struct cmx_batch_options *options,
                            cmx_all_end_fn *on_end, void *user,
                            struct cmx_task **taskp);

/* The prompt's id, chosen before it is submitted; "" for a batch or chain.
 * Valid until the next cmx_dispatch: an old ComfyUI gives an id of its own. */
CMX_API const char *cmx_task_prompt_id(struct cmx_task *t);
/* Cancels what runs of it and starts nothing more; on_end follows. */
CMX_API int cmx_task_cancel(struct cmx_task *t);
/* Stops waiting, without callbacks; what was submitted runs on. NULL is
 * fine. */
CMX_API void cmx_task_free(struct cmx_task *t);

/* --- log ------------------------------------------------------------------ */

enum cmx_log_level {
	CMX_LOG_ERROR,
	CMX_LOG_WARN,
	CMX_LOG_INFO,
	CMX_LOG_DEBUG,
};

/* Gets what the library has to tell beside its results: that it polls and why,
 * that ComfyUI doesn't answer. `text` is one line. It must not call this
 * library. */
typedef void cmx_log_fn(void *user, enum cmx_log_level level, const char *text);

/* Of the whole process, so before the first client; lines above `level` are
 * left out. Called in whichever thread has something to say. NULL, and without
 * this call: nothing is logged. */
CMX_API void cmx_set_log(cmx_log_fn *fn, void *user, enum cmx_log_level level);

#ifdef __cplusplus
}
#endif

#endif

# comfymux: one ComfyUI, one WebSocket, any number of sessions.
# `make help` says what each target is for; README.md has the two commands.
#
# One folder per flavour below build/: release (whose programs lie in build/
# itself, where users look), asan, fuzz, and one for each compiler of `make
# lint`. A change of flags rebuilds, a change of this file alone doesn't.

VERSION  := 0.1.0
FLAVOUR  ?= release
BUILD    := build
BIN      := $(if $(filter release,$(FLAVOUR)),$(BUILD),$(BUILD)/$(FLAVOUR))
OBJ      := $(BUILD)/$(FLAVOUR)/obj
# With sanitizers the library is of the same objects as all else.
PIC      := $(if $(filter asan,$(FLAVOUR)),$(OBJ),$(BUILD)/$(FLAVOUR)/pic)
LIB      := $(BUILD)/$(FLAVOUR)/lib
TESTBIN  := $(BUILD)/$(FLAVOUR)/tests
FUZZBIN  := $(BUILD)/$(FLAVOUR)/fuzz

# Seconds that `make fuzz` gives each target.
FUZZ_SECONDS ?= 60

MAKEFLAGS += --no-builtin-rules
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

# --- inventory ---------------------------------------------------------------
# One line a module; dependencies go common <- ipc <- supervisor, workers.

COMMON := account backoff base64 batch_plan buf chain_image chain_spec clock comfy_api comfy_cancel comfy_event comfy_marker comfy_reply \
          config config_doc config_parse config_place config_value error event_loop \
          fd_discard fdutil http http_request job_result json_mend json_number json_parse json_span log log_format log_signal log_sink map \
          progress progress_history progress_json progress_log \
          progress_nodes program program_args resolve siphash url uuid version workflow
IPC    := channel client client_connect conn creds frame frame_queue lines listener \
          message message_build zygote
SUPERVISOR := admission client_queue early eventlog hub life life_begin life_cancel \
          life_end guardian jobs metrics metrics_http notify nursery nursery_worker ops ops_jobs ops_query options peer polling position poster \
          preview_box previews prompt_fsm queue reconcile restart_policy roles service_user state_dir store store_checkpoint store_jobs \
          store_open stream subscription supervisor tell tracker upstream \
          upstream_fsm upstream_socket upstream_tls worker_proc zygote_proc
SUPERVISOR += limits
WORKERS := worker worker_hello worker_out preview zygote remote_file link link_http poller follow cancel execute \
           execute_submit execute_view own_files batch chain hand_over job_worker request request_run request_job request_query request_view \
           jsonrpc record_mac mcp mcp_bus mcp_call mcp_describe mcp_files mcp_methods mcp_outputs \
           mcp_progress mcp_records mcp_resources mcp_result mcp_session mcp_ticker mcp_uri \
           mcp_version tool_admin tool_args tool_ask tool_either tool_execute tool_files \
           tool_files_of tool_job tool_job_view tool_prompts tool_query tool_recall tool_table tool_workflow
FRONT  := ask autostart bars cli files host keeper keeper_worker out result session show spawn \
          cmd_run cmd_submit cmd_watch cmd_cancel cmd_queue cmd_history \
          cmd_download cmd_pause cmd_reconnect cmd_restart_workers cmd_status \
          cmd_mcp cmd_beside cmd_metrics mcp_lines batch_source chain_file job job_fetch job_view cmd_batch cmd_chain cmd_jobs talk
DOCTOR := comfyui machine supervisor
TOP    := feed input model screen terminal text view
SIM    := sim_main sim_options sim_loop sim_text sim_journal sim_stats \
          sim_server sim_server_http sim_server_ws sim_clients sim_events \
          sim_value sim_nodes sim_node_table sim_validate sim_validate_input \
          sim_queue sim_cache sim_graph sim_exec sim_exec_node sim_run \
          sim_behave_image sim_behave_model sim_behave_test sim_image \
          sim_files sim_http sim_http_prompt sim_http_files sim_http_jobs \
          sim_control sim_faults sim_emit

CHECKS := account admission backoff base64 batch batch_plan buf chain chain_spec clock comfy_api comfy_event comfy_marker comfy_reply config error event_loop fdutil http \
          json_mend json_number json_span log log_signal map progress progress_fold replay \
          resolve url uuid workflow \
          channel client conn creds frame lines listener message \
          client_queue eventlog options preview_box prompt_fsm queue reconcile state_dir store \
          subscription tracker upstream upstream_fsm upstream_socket \
          upstream_tls \
          restart_policy roles service_user worker_proc zygote_wire \
          lib lib_loop link preview follow execute record_mac request bars files out progress_log \
          jsonrpc mcp_lines mcp_progress mcp_resources mcp_session tool_args tool_table
CHECKS += limits top
FUZZERS := chain comfy_event json_mend json_span lines message config url progress workflow \
          channel comfy_reply jsonrpc tool_args zygote

# The benchmarks' C side: the bare relay, and readers that take the time.
BENCH := fan fan_mcp fan_relay fan_socket fan_start

# libcomfymux: these (of workers/lib), and what they need of the other lists.
LIBRARY := api cancel connect loop many result subscribe task

# What a process may still do, and what it shows to ComfyUI.
COMMON += credentials sandbox sandbox_filter
CHECKS += credentials sandbox

PROGRAMS := comfymuxd comfymux comfymux-worker comfymux-doctor comfymux-top \
            comfysim

# --- tools -------------------------------------------------------------------
# make itself sets CC to "cc", which isn't a choice of anybody's.
ifeq ($(origin CC),default)
CC := gcc
endif
CC_fuzz := clang
CC_lint-clang := clang
CC_lint-gcc := gcc
override CC := $(or $(CC_$(FLAVOUR)),$(CC))
IS_CLANG := $(findstring clang,$(CC))

STD := -std=c17 -D_GNU_SOURCE
# shadow, conversion: the two that find real faults in byte-counting code;
# missing-prototypes: keeps functions static by default; format=2: formats are
# literals; logical-op, duplicated-cond: gcc alone has them. unused-parameter
# is off, since callbacks have the parameters their caller wants.
WARN := -Wall -Wextra -Wshadow -Wconversion -Wundef -Wvla -Wpointer-arith \
        -Wcast-qual -Wwrite-strings -Wstrict-prototypes -Wmissing-prototypes \
        -Wold-style-definition -Wredundant-decls -Wnested-externs -Wformat=2 \
        -Wimplicit-fallthrough -Wmissing-noreturn -Wdate-time \
        -Wno-unused-parameter \
        $(if $(IS_CLANG),,-Wlogical-op -Wduplicated-cond) \
        -Werror=implicit-function-declaration \
        -Werror=incompatible-pointer-types -Werror=int-conversion \
        -Werror=return-type
HARDEN := -fstack-protector-strong -fno-common \
          $(if $(filter asan,$(FLAVOUR)),-fPIC -fvisibility=hidden,-fPIE)
LDHARDEN := -pie -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed

OPT_release := -O2 -g -D_FORTIFY_SOURCE=2
OPT_asan := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined \
            -fno-sanitize-recover=all
OPT_fuzz := -O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=all \
            -fsanitize=fuzzer-no-link,address,undefined
# For lint, never linked: gcc has to optimise, as some of its warnings need the
# data flow; all of clang's come from its front end. gcc 12's own analyser is left out: it takes structs returned by value for
# uninitialised and intrusive lists for leaks; clang's runs within clang-tidy.
OPT_lint-gcc := -O2 -D_FORTIFY_SOURCE=2
OPT_lint-clang := -O0
LDOPT_asan := -fsanitize=address,undefined
LDOPT_fuzz := -fsanitize=address,undefined

CFLAGS_ALL = $(STD) $(WARN) $(HARDEN) $(OPT_$(FLAVOUR)) -I. $(CFLAGS)
LDFLAGS_ALL = $(LDHARDEN) $(LDOPT_$(FLAVOUR)) $(LDFLAGS)
# Warnings stop `make lint` and CI, not people who only build. Not part of the
# flags whose change rebuilds.
STRICT_FLAG = $(if $(STRICT),-Werror)

LIBS_COMMON := -lcurl -lcares -lcjson -linih -lev -lm
LIBS_comfymuxd := -lsystemd -lwebsockets -lssl -lcrypto -lsqlite3 $(LIBS_COMMON)
LIBS_comfymux-doctor := $(LIBS_COMMON)
LIBS_comfymux-top := -lncursesw -ltinfo $(LIBS_COMMON)
LIBS_comfymux-worker := $(LIBS_COMMON)
# Both enter a sandbox; the keeper doesn't.
LIBS_comfymuxd += -lseccomp
LIBS_comfymux-worker += -lseccomp
LIBS_comfymux := -lcjson -linih -lev -lm
LIBS_comfysim := -lwebsockets -lz -lm
LIBS_CHECK = $(shell pkg-config --libs check)

srcs = $(2:%=$(1)/%.c)
COMMON_SRC := $(call srcs,common,$(COMMON))
IPC_SRC    := $(call srcs,ipc,$(IPC))
SUPERVISOR_SRC := $(call srcs,supervisor,$(SUPERVISOR))
WORKERS_SRC := $(call srcs,workers,$(WORKERS))
FRONT_SRC  := $(call srcs,workers/front,$(FRONT))
DOCTOR_SRC := $(call srcs,workers/doctor,$(DOCTOR))
TOP_SRC    := $(call srcs,workers/top,$(TOP))
SIM_SRC    := $(call srcs,tests/sim,$(SIM))
CHECK_SRC  := $(call srcs,tests,$(CHECKS:%=check_%))
FUZZ_SRC   := $(call srcs,tests/fuzz,$(FUZZERS:%=fuzz_%))
BENCH_SRC  := $(call srcs,tests/bench,$(BENCH))
LIBRARY_SRC := $(call srcs,workers/lib,$(LIBRARY))
MAIN_SRC   := supervisor/main.c workers/main.c workers/front/main.c \
              workers/doctor/main.c workers/top/main.c
PROGRAM_SRC := $(COMMON_SRC) $(IPC_SRC) $(SUPERVISOR_SRC) $(WORKERS_SRC) \
               $(FRONT_SRC) $(DOCTOR_SRC) $(TOP_SRC) $(LIBRARY_SRC) $(MAIN_SRC)
ALL_SRC    := $(PROGRAM_SRC) $(SIM_SRC) $(CHECK_SRC) $(FUZZ_SRC) $(BENCH_SRC) \
              tests/runner.c tests/script_server.c tests/ws_server.c \
              tests/fuzz/driver.c
# V=1 shows whole commands.
Q   := $(if $(V),,@)
SAY := @echo ' '

objs = $(patsubst %.c,$(OBJ)/%.o,$(1))

# As many jobs as processors, unless whoever called make said how many.
JOBS = $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell nproc))
SUBMAKE = $(MAKE) --no-print-directory $(JOBS)

# --- programs ----------------------------------------------------------------
.PHONY: all
LIBRARIES := $(BIN)/libcomfymux.a $(BIN)/libcomfymux.so
all: $(PROGRAMS:%=$(BIN)/%) $(LIBRARIES) ## all programs, into build/

PARTS_comfymuxd := $(OBJ)/supervisor/main.o $(LIB)/libsupervisor.a \
        $(LIB)/libipc.a $(LIB)/libcommon.a
PARTS_comfymux-worker := $(OBJ)/workers/main.o $(LIB)/libworkers.a \
        $(LIB)/libipc.a $(LIB)/libcommon.a
PARTS_comfymux := $(OBJ)/workers/front/main.o $(LIB)/libfront.a \
        $(LIB)/libipc.a $(LIB)/libcommon.a
PARTS_comfymux-doctor := $(OBJ)/workers/doctor/main.o $(call objs,$(DOCTOR_SRC)) \
        $(LIB)/libipc.a $(LIB)/libcommon.a
PARTS_comfymux-top := $(OBJ)/workers/top/main.o $(LIB)/libtop.a \
        $(LIB)/libipc.a $(LIB)/libcommon.a
$(BIN)/comfymux-doctor: $(PARTS_comfymux-doctor)
$(BIN)/comfymux-top: $(PARTS_comfymux-top)
$(BIN)/comfymuxd: $(PARTS_comfymuxd)
$(BIN)/comfymux-worker: $(PARTS_comfymux-worker)
$(BIN)/comfymux: $(PARTS_comfymux)
$(BIN)/comfysim: $(call objs,$(SIM_SRC)) $(LIB)/libcommon.a

$(PROGRAMS:%=$(BIN)/%):
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o %.a,$^) $(LIBS_$(@F))

$(LIB)/libcommon.a: $(call objs,$(COMMON_SRC))
$(LIB)/libipc.a: $(call objs,$(IPC_SRC))
$(LIB)/libsupervisor.a: $(call objs,$(SUPERVISOR_SRC))
$(LIB)/libworkers.a: $(call objs,$(WORKERS_SRC))
# The keeper of an MCP session takes a line apart when no worker can answer it.
$(LIB)/libfront.a: $(call objs,$(FRONT_SRC)) $(OBJ)/workers/jsonrpc.o
$(LIB)/libtop.a: $(call objs,$(TOP_SRC))
# Made anew each time: ar would keep a module that has left the list.
$(LIB)/%.a:
	@mkdir -p $(@D)
	@rm -f $@
	$(Q)ar rcs $@ $(filter %.o,$^)

# The version is in one object: the same programs under another version, for
# tests of upgrades, cost no more than linking them.
OTHER_VERSION := $(VERSION)+other
OTHER_BIN := $(BIN)/other
OTHERS := $(filter-out comfysim,$(PROGRAMS))
VERSIONED := $(addsuffix .o,$(OBJ)/common/version $(PIC)/common/version \
             $(OBJ)/tests/check_mcp_session) \
             $(BUILD)/lint/tidy/common/version.ok
$(VERSIONED): private STD += -DCOMFYMUX_VERSION='"$(VERSION)"'
$(OBJ)/common/version_other.o: common/version.c $(OBJ)/flags
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) -DCOMFYMUX_VERSION='"$(OTHER_VERSION)"' \
	        -MMD -MP -c -o $@ $<

.PHONY: other
other: $(OTHERS:%=$(OTHER_BIN)/%) ## the same programs, told to be another version
# Its object comes before the libraries, so theirs is left alone.
define OTHER_RULE
$(OTHER_BIN)/$(1): $(OBJ)/common/version_other.o $(PARTS_$(1))
endef
$(foreach p,$(OTHERS),$(eval $(call OTHER_RULE,$(p))))
$(OTHERS:%=$(OTHER_BIN)/%):
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o %.a,$^) $(LIBS_$(@F))

$(OBJ)/%.o: %.c $(OBJ)/flags
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)$(CC) $(CFLAGS_ALL) $(STRICT_FLAG) -MMD -MP -c -o $@ $<

# The library is one object whose only global names are those that comfymux.h
# exports (visibility "default", all else is hidden): so neither form of it can
# clash with names of the program that uses it. Of the modules that it shares
# with the worker it takes those that it needs: ld -r reads an archive as the
# last link does. NDEBUG: a library doesn't abort.
PIC_OBJ = $(patsubst %.c,$(PIC)/%.o,$(COMMON_SRC) $(IPC_SRC) $(WORKERS_SRC))
ABI     := 0
LIBS_library := -lcurl -linih -lm -pthread
ifneq ($(PIC),$(OBJ))
$(PIC)/%.o: %.c $(OBJ)/flags
	@mkdir -p $(@D)
	$(SAY) CC $< '(library)'
	$(Q)$(CC) $(filter-out -fPIE,$(CFLAGS_ALL)) $(STRICT_FLAG) -fPIC \
	        -fvisibility=hidden -DNDEBUG -MMD -MP -c -o $@ $<
endif
$(PIC)/shared.a: $(PIC_OBJ)
	@rm -f $@
	$(Q)ar rcs $@ $^
$(PIC)/libcomfymux.o: $(LIBRARY_SRC:%.c=$(PIC)/%.o) $(PIC)/shared.a
	$(Q)ld -r -o $@ $^
	$(Q)objcopy --localize-hidden $@
$(BIN)/libcomfymux.a: $(PIC)/libcomfymux.o
	@mkdir -p $(@D)
	@rm -f $@
	$(SAY) AR $@
	$(Q)ar rcs $@ $<
# As installed: the file, the name that programs ask for, the name for -l.
$(BIN)/libcomfymux.so: $(PIC)/libcomfymux.o
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(CC) -shared -Wl,-soname,$(@F).$(ABI) \
	        $(filter-out -pie,$(LDFLAGS_ALL)) $(if $(LDOPT_$(FLAVOUR)),,-Wl,-z,defs) \
	        -o $@.$(VERSION) $< $(LIBS_library)
	@ln -sf $(@F).$(VERSION) $@.$(ABI)
	@ln -sf $(@F).$(ABI) $@

# Touched only when the flags are others than last time.
$(OBJ)/flags: export FLAGS_TEXT = $(CC) $(CFLAGS_ALL) $(VERSION)
$(OBJ)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' "$$FLAGS_TEXT" | cmp -s - $@ || \
	        printf '%s\n' "$$FLAGS_TEXT" >$@

-include $(shell find $(sort $(OBJ) $(PIC)) -name '*.d' 2>/dev/null)

.PHONY: FORCE
FORCE:

.PHONY: demo
demo: ## install what is needed, build, show it at work on a simulated ComfyUI
	@scripts/install-deps
	@$(SUBMAKE) all
	@scripts/demo

# --- tests -------------------------------------------------------------------
TEST_LIBS := $(LIB)/libsupervisor.a $(LIB)/libworkers.a $(LIB)/libfront.a \
             $(LIB)/libtop.a $(LIB)/libipc.a $(LIB)/libcommon.a
CHECK_BINS := $(CHECK_SRC:tests/%.c=$(TESTBIN)/%)
FUZZ_BINS := $(FUZZ_SRC:tests/fuzz/%.c=$(FUZZBIN)/%)

# Before `%`: the objects are kept, else each run would compile them again.
.SECONDARY: $(call objs,$(CHECK_SRC) $(FUZZ_SRC) tests/runner.c tests/worker_fakes.c \
            tests/fuzz/driver.c)

# Its names are what matters: before the archives of the same code, and libev.
$(TESTBIN)/check_lib: $(BIN)/libcomfymux.a
$(TESTBIN)/check_lib_loop: $(OBJ)/workers/lib/loop.o
$(TESTBIN)/check_%: $(OBJ)/tests/check_%.o $(OBJ)/tests/runner.o \
        $(OBJ)/tests/script_server.o $(OBJ)/tests/ws_server.o \
        $(OBJ)/tests/worker_fakes.o $(TEST_LIBS)
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS_CHECK) $(LIBS_comfymuxd)

# libFuzzer brings its own main(); the other flavours have the driver, which
# runs saved inputs.
$(FUZZBIN)/fuzz_%: $(OBJ)/tests/fuzz/fuzz_%.o $(TEST_LIBS) \
        $(if $(filter fuzz,$(FLAVOUR)),,$(OBJ)/tests/fuzz/driver.o)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS_ALL) $(if $(filter fuzz,$(FLAVOUR)),-fsanitize=fuzzer) \
	        -o $@ $(filter %.o,$^) $(TEST_LIBS) $(LIBS_comfymuxd)

.PHONY: unit-build unit corpus-build corpus e2e drift test-build test
unit-build: $(CHECK_BINS)
unit: unit-build ## unit tests alone
	@scripts/run-checks $(CHECK_BINS)
corpus-build: $(FUZZ_BINS)
corpus: corpus-build
	@scripts/run-checks --corpus tests/fuzz/corpus $(FUZZ_BINS)
e2e: all other ## whole-system tests alone (needs python3)
	@BIN=$(BIN) scripts/run-e2e
drift: all ## do layers, lists and generated texts still fit the code?
	@scripts/run-steps $(BUILD)/log \
	        layers 'scripts/check-layers' drift '$(SUBMAKE) -s lists | \
	        scripts/check-drift'

# What `check` and `check-asan` share: all of it runs, whatever fails. What the
# second leaves out runs nothing that was built differently.
E2E_SKIP_asan := --skip test_tooling
RUN_TESTS = rc=0; scripts/run-checks $(CHECK_BINS) || rc=1; \
        scripts/run-checks --corpus tests/fuzz/corpus $(FUZZ_BINS) || rc=1; \
        BIN=$(BIN) scripts/run-e2e $(E2E_SKIP_$(FLAVOUR)) || rc=1
test-build: all other unit-build corpus-build
test: test-build
	@$(RUN_TESTS); exit $$rc

.PHONY: check check-asan check-mcp check-valgrind fuzz fuzz-corpus
# The official clients wait for 90 s most of the time, so they begin first.
check: ## install what is needed, build, run all tests
	@scripts/install-deps --tests
	@scripts/check-mcp --install >/dev/null 2>&1 & \
	        $(SUBMAKE) test-build; rc=$$?; wait; exit $$rc
	@mkdir -p $(BUILD)/log; log=$(BUILD)/log/check-mcp.log; \
	        BIN=$(BIN) scripts/check-mcp >$$log 2>&1 & mcp=$$!; \
	        $(RUN_TESTS); $(MAKE) --no-print-directory drift || rc=1; \
	        wait $$mcp || rc=1; \
	        echo 'official MCP clients, conformance suite:'; cat $$log; exit $$rc
check-asan: ## all tests with address and undefined behaviour sanitizers
	@scripts/install-deps --tests
	@$(SUBMAKE) FLAVOUR=asan test
check-mcp: all ## official MCP clients and conformance suite alone (needs npm)
	@BIN=$(BIN) scripts/check-mcp
# Without check_sandbox: valgrind knows no filters for system calls.
check-valgrind: ## unit tests under valgrind
	@scripts/install-deps
	@$(SUBMAKE) unit-build
	@scripts/run-checks --valgrind $(filter-out %/check_sandbox,$(CHECK_BINS))
fuzz: ## fuzz each target for FUZZ_SECONDS (default 60); finds in build/fuzz
	@scripts/install-deps
	@$(SUBMAKE) FLAVOUR=fuzz corpus-build
	@scripts/run-fuzz $(FUZZ_SECONDS) \
	        $(FUZZ_SRC:tests/fuzz/%.c=$(BUILD)/fuzz/fuzz/%)
fuzz-corpus: ## saved fuzz inputs through each target, once, with sanitizers
	@$(SUBMAKE) FLAVOUR=asan corpus

# For scripts/check-drift: what the lists above name, found or not.
.PHONY: lists
lists:
	@printf '%s\n' $(foreach d,common:COMMON ipc:IPC supervisor:SUPERVISOR \
	        workers:WORKERS workers/lib:LIBRARY workers/front:FRONT workers/doctor:DOCTOR \
	        workers/top:TOP tests/sim:SIM \
	        tests/bench:BENCH,$(addprefix \
	        $(firstword $(subst :, ,$(d)))/,$($(lastword $(subst :, \
	        ,$(d)))))) $(CHECKS:%=tests/check_%) $(FUZZERS:%=tests/fuzz/fuzz_%)

# --- static checks -----------------------------------------------------------
FORMATTED = $(shell find common ipc supervisor workers tests etc -name '*.[ch]')
SHELL_SCRIPTS = $(shell grep -lE '^\#!/bin/(ba)?sh' scripts/* .ci/* etc/init.d/* etc/debian/* 2>/dev/null)
PYTHON_SCRIPTS = $(shell grep -lE '^\#!.*python3' scripts/* 2>/dev/null; \
                 find tests -name '*.py')
# Test programs are left to the compilers: check's macros blow the analysers'
# path counts up, and what they'd find the tests do on purpose.
TIDY_SRC := $(PROGRAM_SRC) $(SIM_SRC)
# cppcheck doesn't know the cleanup attribute and sees leaks where it works.
CPPCHECK := cppcheck -q -j2 --std=c11 --language=c --library=posix \
            --enable=warning,performance,portability --inline-suppr \
            --suppress=missingInclude --suppress=missingIncludeSystem \
            --suppress=memleak --suppress=resourceLeak \
            --error-exitcode=1 -D_GNU_SOURCE -DCOMFYMUX_VERSION='""' -I. \
            --cppcheck-build-dir=$(BUILD)/lint/cppcheck

.PHONY: docs
docs: all ## rewrite what is generated: the tables of ipc/PROTOCOL.md ...
	@# The manual pages are made of what the others write.
	@for g in $(filter-out %/gen-man,$(wildcard scripts/gen-*)) \
	          scripts/gen-man; do [ ! -x $$g ] || $$g || exit 1; done

.PHONY: format
format: ## put all C files into form
	@clang-format -i $(FORMATTED)

.PHONY: lint lint-objects lint-tidy lint-cppcheck lint-format lint-python \
        lint-shell lint-man
# With STRICT the release build has had, or gets here, the same warnings.
lint: ## formatting, layers, warnings of gcc and clang, static analysers
	@scripts/install-deps
	@scripts/run-steps $(BUILD)/log \
	        format '$(MAKE) -s lint-format' \
	        layers 'scripts/check-layers' \
	        gcc '$(SUBMAKE) -ks STRICT=1 lint-objects \
	                FLAVOUR=$(if $(STRICT),release,lint-gcc)' \
	        clang '$(SUBMAKE) -ks FLAVOUR=lint-clang STRICT=1 lint-objects' \
	        clang-tidy '$(SUBMAKE) -ks FLAVOUR=lint-clang STRICT=1 lint-tidy' \
	        cppcheck '$(MAKE) -s lint-cppcheck' \
	        shellcheck '$(MAKE) -s lint-shell' \
	        man '$(MAKE) -s lint-man' \
	        python '$(MAKE) -s lint-python'
lint-objects: $(call objs,$(ALL_SRC))
# A result stands until the file, one of its headers (so the object has been
# made anew) or the list of checks changes.
lint-tidy: $(TIDY_SRC:%.c=$(BUILD)/lint/tidy/%.ok)
# The analyser's paths through one function are bounded, by default ten times
# higher: what it found here it found within this, and it is nine tenths of the
# whole time. TIDY_NODES=225000 for a long look.
TIDY_NODES ?= 20000
$(BUILD)/lint/tidy/%.ok: %.c $(OBJ)/%.o .clang-tidy
	@mkdir -p $(@D)
	@clang-tidy --quiet --warnings-as-errors='*' $< -- $(CFLAGS_ALL) \
	        -Xclang -analyzer-config -Xclang max-nodes=$(TIDY_NODES) \
	        2>$@.log >&2 || { cat $@.log; exit 1; }
	@touch $@
lint-cppcheck:
	@mkdir -p $(BUILD)/lint/cppcheck
	@$(CPPCHECK) $(TIDY_SRC)
lint-format:
	@printf '%s\n' $(FORMATTED) | \
	        xargs -P2 -n20 clang-format --dry-run -Werror
lint-shell:
	@shellcheck $(SHELL_SCRIPTS)
lint-man:
	@mandoc -Tlint -W warning etc/man/*.[0-9]
# Compiled, not run, and without leaving __pycache__ behind.
lint-python:
	@python3 -c 'import sys; [compile(open(f).read(), f, "exec") \
	        for f in sys.argv[1:]]' $(PYTHON_SCRIPTS)

# --- the rest ----------------------------------------------------------------
.PHONY: bench bench-peers chaos install uninstall deb check-deb clean help
$(TESTBIN)/bench: $(call objs,$(BENCH_SRC))
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^
bench-peers: all ## comfymux beside comfyui-mcp of npm (root, npm, 900 MB)
	@BIN=$(abspath $(BIN)) tests/bench/peers/run
bench: all $(TESTBIN)/bench ## the table of figures; QUICK=1, RECORD=1, SECTIONS="latency ..."
	@BIN=$(BIN) PYTHONDONTWRITEBYTECODE=1 python3 tests/bench/bench.py \
	        $(if $(QUICK),--quick) $(if $(RECORD),--record \
	        tests/bench/RESULTS.md) $(SECTIONS)
CHAOS_SECONDS ?= 180
chaos: all ## break everything at random under load for CHAOS_SECONDS; SEED=N again
	@BIN=$(BIN) PYTHONDONTWRITEBYTECODE=1 python3 tests/chaos/chaos.py \
	        --seconds $(CHAOS_SECONDS) $(if $(SEED),--seed $(SEED)) $(CHAOS_OPTIONS)

# Where things go; libdir is the library's, programs that users don't start lie
# in PREFIX/lib/comfymux. comfymuxd and comfymux read /etc/comfymux whatever
# sysconfdir is; a service installed elsewhere is told where its file is.
PREFIX        ?= /usr/local
bindir        ?= $(PREFIX)/bin
sbindir       ?= $(PREFIX)/sbin
libdir        ?= $(PREFIX)/lib
includedir    ?= $(PREFIX)/include
datadir       ?= $(PREFIX)/share
mandir        ?= $(datadir)/man
sysconfdir    ?= /etc
runstatedir   ?= /run
localstatedir ?= /var
PLACES = $(foreach v,BIN VERSION DESTDIR PREFIX bindir sbindir libdir includedir datadir \
         mandir sysconfdir runstatedir localstatedir,$(v)='$($(v))')
install: all ## install below DESTDIR and PREFIX
	@$(PLACES) scripts/install
uninstall: ## remove what install has installed, and what the service has stored
	@$(PLACES) scripts/install --remove
deb: all ## Debian packages of daemon, library and development files
	@BIN=$(BIN) BUILD=$(BUILD) VERSION=$(VERSION) scripts/make-deb
check-deb: deb ## lintian; as root, install, doctor, upgrade and purge, in a namespace
	@BIN=$(BIN) BUILD=$(BUILD) scripts/check-deb
clean: ## remove build/
	rm -rf $(BUILD)
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' \
	        $(firstword $(MAKEFILE_LIST))

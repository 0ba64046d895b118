# SPDX-License-Identifier: Apache-2.0
# The commands of this project, in front of Meson. `make run` and `make test` are all a user needs;
# `make help` lists the rest.

SHELL := /bin/bash
DATA_DIR ?= millrace-data
PREFIX ?= /usr/local
# These make the long tests longer, or replay one: make test CYCLES=300 CUTS=200000 POWER_CUTS=1000
export CYCLES POWER_CUTS SEED
ifdef CUTS
export MILLRACE_CUTS = $(CUTS)
endif
ifdef SEED
export MILLRACE_SEED = $(SEED)
endif

.PHONY: help run build debug asan tsan coverage fuzz test check unit api console engines crash faults laws \
	sanitizers asan-unit tsan-unit asan-api tsan-api bench lint format install uninstall clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: build ## install what is missing, build, and serve on 127.0.0.1:8000
	exec build/millrace serve --data-dir $(DATA_DIR)

# ---- Builds ----
build: packages-build build/build.ninja ## build/millrace, optimised, with link-time optimisation
	ninja -C build

debug: packages-build build-debug/build.ninja ## build-debug/millrace, with tiny constants
	ninja -C build-debug

asan: packages-test build-asan/build.ninja ## the same under AddressSanitizer and UBSan
	ninja -C build-asan

tsan: packages-test build-tsan/build.ninja ## the same under ThreadSanitizer
	ninja -C build-tsan

coverage: packages-test build-coverage/build.ninja ## unit and API tests, with a coverage report
	ninja -C build-coverage
	$(UNIT) -C build-coverage
	MILLRACE=build-coverage/millrace scripts/pytest tests/api
	gcovr -r . --object-directory build-coverage --exclude '.*/test_.*' --txt --html-details build-coverage/report.html

fuzz: packages-test build-fuzz/build.ninja ## the fuzz targets, with libFuzzer
	ninja -C build-fuzz

build/build.ninja:
	meson setup build -Dbuildtype=release -Db_lto=true -Dtests=false
build-debug/build.ninja:
	meson setup build-debug -Dbuildtype=debugoptimized -Dtiny=true -Dwerror=true
# A report needs only lines; compiling with more, and optimising more, takes half as long again.
SANITIZED = -Doptimization=1 -Dc_args=-g1 -Dcpp_args=-g1 -Dtiny=true
build-asan/build.ninja:
	meson setup build-asan $(SANITIZED) -Db_sanitize=address,undefined
build-tsan/build.ninja:
	meson setup build-tsan $(SANITIZED) -Db_sanitize=thread
build-coverage/build.ninja:
	meson setup build-coverage -Dbuildtype=debug -Dtiny=true -Db_coverage=true
build-fuzz/build.ninja:
	CC=clang CXX=clang++ meson setup build-fuzz -Dbuildtype=debugoptimized -Dfuzz=true -Dtests=false -Db_lundef=false

# ---- Tests ----
# More side by side than there are cores, as many wait: for a sync, a time-out, a worker process.
UNIT = meson test --print-errorlogs --num-processes $$((2 * $$(nproc)))

test: unit laws api engines sanitizers crash faults ## everything, under 30 minutes on two cores

check: export MILLRACE_CUTS := $(or $(CUTS),2000)
check: export MILLRACE_SEEDS := 1
check: export QUICK := -m "not long"
check: export QUICK_UNIT := --no-suite long
check: unit laws api ## the quick part, under two minutes once built

unit: packages-test debug ## unit tests beside their modules, and the seeded simulations
	$(UNIT) -C build-debug $(QUICK_UNIT)

laws: packages-test debug ## the laws of the house, on the debug build's objects
	MILLRACE=build-debug/millrace scripts/pytest tests/laws

api: packages-test build ## the real binary, driven by the official clients and a real browser
	scripts/pytest $(QUICK) tests/api tests/console

console: packages-test build ## of that, the console alone
	scripts/pytest tests/console

engines: packages-test debug ## what stands on other engines, beside real ones (Redis, Sentinels, RabbitMQ) or their official stubs (Qdrant)
	MILLRACE=build-debug/millrace scripts/pytest tests/engines

sanitizers: asan-unit tsan-unit asan-api tsan-api ## unit and API tests under the sanitizers

asan-unit: packages-test asan # simulations: few of the seeds and cuts that `unit` has
	MILLRACE_CUTS=1000 MILLRACE_SEEDS=1 $(UNIT) -C build-asan --timeout-multiplier 8

# A process under ThreadSanitizer waits a second when it ends, for threads that nobody waits for.
tsan-unit tsan-api: export TSAN_OPTIONS := atexit_sleep_ms=20

tsan-unit: packages-test tsan # but for what runs in one thread: nothing for ThreadSanitizer to see
	$(UNIT) -C build-tsan --timeout-multiplier 16 --no-suite one-thread

asan-api: packages-test asan
	MILLRACE=build-asan/millrace scripts/pytest tests/api

tsan-api: packages-test tsan
	MILLRACE=build-tsan/millrace scripts/pytest -m "not one_thread" tests/api

crash: packages-test build debug ## kill -9 under load, both builds (CYCLES=300 for more)
	scripts/pytest --dist worksteal tests/crash

faults: packages-test build debug ## full disk, injected errors, hanging syncs, power cuts
	scripts/pytest --dist worksteal tests/faults

bench: packages-test packages-bench build ## every benchmark, beside a peer where there is one (minutes)
	bench/run

# ---- Care ----
lint: packages-test build ## formatting, clang-tidy, gcc's analyzer, clang's warnings
	scripts/lint

format: ## clang-format over the tree
	git ls-files 'src/*.c' 'src/*.h' 'src/*.cc' 'tests/*.c' 'bench/*.c' | xargs clang-format -i

# The binary to install; it makes its own manual pages and completion scripts.
MILLRACE ?= build/millrace
MAN = $(DESTDIR)$(PREFIX)/share/man/man1
COMPLETION_bash = $(DESTDIR)$(PREFIX)/share/bash-completion/completions/millrace
COMPLETION_zsh = $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_millrace
COMPLETION_fish = $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/millrace.fish

install: build ## into PREFIX (/usr/local), with manual pages, completion, a systemd unit
	install -D -m 0755 $(MILLRACE) "$(DESTDIR)$(PREFIX)/bin/millrace"
	install -d "$(MAN)" "$(DESTDIR)/etc/systemd/system" "$(dir $(COMPLETION_bash))" \
		"$(dir $(COMPLETION_zsh))" "$(dir $(COMPLETION_fish))"
	$(MILLRACE) help --man > "$(MAN)/millrace.1"
	for command in $$($(MILLRACE) help --names); do \
		$(MILLRACE) help --man $$command > "$(MAN)/millrace-$$command.1" || exit 1; done
	$(MILLRACE) completion bash > "$(COMPLETION_bash)"
	$(MILLRACE) completion zsh > "$(COMPLETION_zsh)"
	$(MILLRACE) completion fish > "$(COMPLETION_fish)"
	sed 's|/usr/local|$(PREFIX)|' deploy/systemd/millrace.service > "$(DESTDIR)/etc/systemd/system/millrace.service"
	@echo "installed; start it with: systemctl daemon-reload && systemctl enable --now millrace"

uninstall:
	rm -f "$(DESTDIR)$(PREFIX)/bin/millrace" "$(DESTDIR)/etc/systemd/system/millrace.service" \
		"$(MAN)"/millrace.1 "$(MAN)"/millrace-*.1 \
		"$(COMPLETION_bash)" "$(COMPLETION_zsh)" "$(COMPLETION_fish)"

clean: ## remove all builds (never a data directory)
	rm -rf build build-debug build-asan build-tsan build-coverage build-fuzz

# ---- Packages: installed by apt when missing ----
.PHONY: packages-build packages-test packages-bench
packages-build:
	@scripts/packages build
packages-test:
	@scripts/packages build test
packages-bench:
	@scripts/packages bench

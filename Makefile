# SPDX-License-Identifier: GPL-2.0-or-later
#
# The front door.  The work is done by the scripts in dev/.

help:
	@echo 'make build    base + series       -> build/patched/qemu-system-x86_64, ...'
	@echo 'make stock    the base alone      -> build/stock/qemu-system-x86_64, ...'
	@echo 'make demo     build, then a real guest does verified I/O on every controller'
	@echo 'make check    build, then all tests; with SANITIZE=1, our tests under sanitizers;'
	@echo '              with TSAN=1, those with threads under the thread sanitizer (clang)'
	@echo 'make bench    stock and build, then measures one against the other: 35 minutes,'
	@echo '              with QUICK=1 under five; with DOCS=1 the report goes to docs/'
	@echo 'make faults   build, then 1000 faults under load on every controller: 35 minutes;'
	@echo '              COUNT=N faults, or TIME=SECONDS, and SEED=N for the same again'
	@echo 'make fuzz     devices and functions, with clang; TIME=SECONDS for each of them (60)'
	@echo 'make docs     QEMU'"'"'s manual with ours in it -> build/docs/docs/manual/index.html'
	@echo 'make series   the patches as mail -> build/outgoing/*.patch; V=2: the second version'
	@echo 'make series-check   applies, builds and tests each patch, mails all to this machine'
	@echo
	@echo 'The first run installs Debian packages (as root) and downloads 45 MB.'
	@echo 'QEMU_SRC=DIR or QEMU_TARBALL=FILE: start from this QEMU 10.0.x instead.'
	@echo 'dev/series --help: work on the patches.  rm -rf build: start afresh.'

build:
	@dev/build patched

stock:
	@dev/build stock

demo: build
	@dev/guest/demo

# Python itself may be missing.
check:
	@dev/deps
	@dev/check

bench: stock build
	@dev/deps gnuplot-nox
	@dev/bench/bench $(if $(QUICK),--quick) $(if $(DOCS),--docs)

faults: build
	@dev/faults/faults $(if $(COUNT),--count $(COUNT) --injected $(COUNT)) $(if $(TIME),--time $(TIME)) \
		$(if $(SEED),--seed $(SEED))

fuzz:
	@dev/build fuzz
	@dev/fuzz/fuzz $(if $(TIME),--time $(TIME)) $(TARGETS)

docs:
	@dev/docs

# An export and its check need the base, but no QEMU that is built.
base:
	@dev/deps
	@dev/fetch

series: base
	@dev/series-export $(if $(V),-v $(V))

series-check: base
	@dev/series-check

# build/, docs/ and series/ are directories, too.
.PHONY: help build stock demo check bench faults fuzz docs base series series-check

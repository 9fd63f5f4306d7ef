# SPDX-License-Identifier: GPL-2.0-or-later
#
# The front door.  The work is done by the scripts in dev/.

help:
	@echo 'make build    base + series       -> build/patched/qemu-system-x86_64, ...'
	@echo 'make stock    the base alone      -> build/stock/qemu-system-x86_64, ...'
	@echo 'make demo     build, then a real guest does verified I/O on every controller'
	@echo 'make check    build, then all tests; with SANITIZE=1, our tests under sanitizers'
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

# build/ is a directory, too.
.PHONY: help build stock demo check

# SPDX-License-Identifier: MIT OR GPL-2.0-only
# The two commands of this repository are 'make demo' and 'make check'. Both do
# all the set-up they need; Meson and Ninja do the work underneath.

BUILD = build
GPUSVM = $(BUILD)/tools/gpusvm

.PHONY: all setup demo check bench install clean

all: setup
	meson compile -C $(BUILD)

setup:
	@sh scripts/packages
	@test -f $(BUILD)/build.ninja || meson setup $(BUILD)

# The main job on this machine's own data: PageRank of its Debian package
# graph, built from malloc'd nodes, computed on the GPU, equal to the CPU's.
demo: all
	$(GPUSVM) info
	$(GPUSVM) run pagerank

check: setup
	@/usr/bin/env python3 scripts/check

bench: all
	$(GPUSVM) bench

install: all
	meson install -C $(BUILD)
	@test -n "$(DESTDIR)" || ldconfig

clean:
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-tsan $(BUILD)-nopagemap

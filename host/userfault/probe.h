/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* probe.h: opening contexts with what the kernel has. */
#ifndef USERFAULT_PROBE_H
#define USERFAULT_PROBE_H

#include "host/userfault/home.h"

/* A context with every feature that is there and not to be done without; a
 * descriptor, or negative with info->error in words. */
int userfault_open_context(const struct userfault_sys *sys, u32 without,
			   struct userfault_info *info);
/* A context for memory that stays where it is (any mapping, only events). */
int userfault_open_watch(const struct userfault_sys *sys, const struct userfault_info *info);
/* One that never has anything, and hears of nothing. */
int userfault_open_probe(const struct userfault_sys *sys, const struct userfault_info *info);

#endif

/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* bus.h: the signal handlers behind mm_bus_guard, put in place and taken away. */
#ifndef USERFAULT_BUS_H
#define USERFAULT_BUS_H
void bus_init(void);
void bus_fini(void);
#endif

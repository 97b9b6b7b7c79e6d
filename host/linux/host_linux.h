/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* host_linux.h: what the module itself needs of host/linux. */
#ifndef GPUSVM_HOST_LINUX_H
#define GPUSVM_HOST_LINUX_H

/* Makes the pool of work; before anything else of host.h. 0 or -ENOMEM. */
int host_linux_init(void);
/* No work is queued or running any more. */
void host_linux_exit(void);

#endif

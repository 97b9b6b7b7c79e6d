// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* module.c: the kernel module around the core. It has no locks. */
#include <linux/module.h>

#include "host/linux/host_linux.h"

static int __init gpusvm_init(void)
{
	return host_linux_init();
}

static void __exit gpusvm_exit(void)
{
	host_linux_exit();
}

module_init(gpusvm_init);
module_exit(gpusvm_exit);
MODULE_DESCRIPTION("GPU shared virtual memory");
MODULE_LICENSE("Dual MIT/GPL");

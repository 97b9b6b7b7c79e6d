/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* need.c: linked to each live test: where a live process cannot be mirrored, or with less
 * than all promises, the whole program is skipped, and says so. */
#include <gpusvm/gpusvm.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SKIPPED 77 /* to Meson */
#define ALL (GPUSVM_CAP_ANY_MEMORY | GPUSVM_CAP_KERNEL_ACCESS | GPUSVM_CAP_FORK)

__attribute__((constructor)) static void need(void)
{
	struct gpusvm *svm;
	uint64_t caps = 0;
	int err = gpusvm_open(NULL, &svm);

	if (!err) {
		err = gpusvm_caps(svm, &caps);
		gpusvm_close(svm);
	}
	if (!err && (caps & ALL) == ALL)
		return;
	/* What else goes wrong there, the tests themselves will tell. */
	if (err && err != -EPERM && err != -ENOSYS && err != -EOPNOTSUPP)
		return;
	printf("skipped: %s; 'gpusvm info' says more\n",
	       err ? "no userfaultfd is to be had here" : "not all is promised here");
	fflush(stdout);
	_exit(SKIPPED);
}

/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Adds two malloc'd arrays on the GPU. cc vector_add.c $(pkg-config --cflags --libs gpusvm) */
#include <gpusvm/gpusvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N 1000000u

struct args {
	uint32_t *a, *b, *sum; /* this process's pointers */
};

static void add(struct gpusvm_lane *lane, uint64_t i, const void *p)
{
	const struct args *args = p;

	gpusvm_st32(lane, &args->sum[i], gpusvm_ld32(lane, &args->a[i]) +
					 gpusvm_ld32(lane, &args->b[i]));
}

int main(void)
{
	const struct gpusvm_kernel kernel = { sizeof(kernel), "add", add };
	struct args args = { malloc(N * 4), malloc(N * 4), malloc(N * 4) };
	struct gpusvm_queue *queue;
	struct gpusvm *svm;
	int err;

	for (uint32_t i = 0; i < N; i++) {
		args.a[i] = i;
		args.b[i] = 2 * i;
	}
	err = gpusvm_open(NULL, &svm);
	if (!err)
		err = gpusvm_queue_create(svm, 0, NULL, &queue);
	if (!err)
		err = gpusvm_launch(queue, &kernel, &args, sizeof(args), N, NULL);
	if (err) {
		fprintf(stderr, "vector_add: %s\n", strerror(-err));
		return 1;
	}
	printf("%u + %u = %u\n", args.a[N - 1], args.b[N - 1], args.sum[N - 1]);
	gpusvm_close(svm);
	free(args.a);
	free(args.b);
	free(args.sum);
	return 0;
}

/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Four devices in a ring share one array: each has a quarter of it in its own
 * memory, and reads the next one's quarter where it is, over a link.
 * cc multi_device.c $(pkg-config --cflags --libs gpusvm) */
#include <gpusvm/gpusvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEVICES 4
#define N (1024u * 1024)      /* numbers */
#define QUARTER (N / DEVICES) /* of each device */

struct args {
	const uint32_t *in;
	uint32_t *out;
	uint32_t first; /* of this device's quarter */
};

/* What is here, and what the next device has at the same place. */
static void add_next(struct gpusvm_lane *lane, uint64_t item, const void *p)
{
	const struct args *args = p;
	uint32_t i = args->first + (uint32_t)item;

	gpusvm_st32(lane, &args->out[i],
		    gpusvm_ld32(lane, &args->in[i]) +
			gpusvm_ld32(lane, &args->in[(i + QUARTER) % N]));
}

static void check(const char *what, int err)
{
	if (!err)
		return;
	fprintf(stderr, "multi_device: %s: %s\n", what, strerror(-err));
	exit(1);
}

static struct gpusvm *open_ring(void)
{
	struct gpusvm_device_desc devices[DEVICES];
	struct gpusvm_link_desc links[DEVICES];
	struct gpusvm_options options = {.size = sizeof(options)};
	struct gpusvm *svm;

	for (int d = 0; d < DEVICES; d++) {
		devices[d] =
		    (struct gpusvm_device_desc){.size = sizeof(devices[d]), .vram_bytes = 64 << 20};
		links[d] = (struct gpusvm_link_desc){
		    .from = d, /* d maps pages of the next one; not the other way round */
		    .to = (d + 1) % DEVICES,
		    .link = {sizeof(links[d].link), .flags = GPUSVM_LINK_MAP},
		};
	}
	options.devices = devices;
	options.n_devices = DEVICES;
	options.links = links;
	options.n_links = DEVICES;
	check("open", gpusvm_open(&options, &svm));
	return svm;
}

/* A quarter belongs on its device, whoever touches it: others map it there. */
static void place(struct gpusvm *svm, const uint32_t *array, int d)
{
	const uint32_t *quarter = array + d * QUARTER;
	size_t size = QUARTER * sizeof(*array);

	check("advise",
	      gpusvm_advise(svm, quarter, size, GPUSVM_PREFERRED_LOCATION, 1, gpusvm_device(d)));
	check("prefetch", gpusvm_prefetch(svm, quarter, size, gpusvm_device(d), 0, NULL, NULL));
}

int main(void)
{
	const struct gpusvm_kernel kernel = {sizeof(kernel), "add_next", add_next};
	struct gpusvm_stats before = {.size = sizeof(before)}, after = {.size = sizeof(after)};
	/* Any memory will do; but of a page on a border, only one device could have it. */
	uint32_t *in = aligned_alloc(4096, N * sizeof(*in)), wrong = 0;
	uint32_t *out = aligned_alloc(4096, N * sizeof(*out));
	struct gpusvm_queue *queues[DEVICES];
	struct gpusvm_event *events[DEVICES];
	struct gpusvm *svm = open_ring();

	if (!in || !out)
		return 1;
	for (uint32_t i = 0; i < N; i++)
		in[i] = i;
	for (int d = 0; d < DEVICES; d++) {
		check("queue", gpusvm_queue_create(svm, d, NULL, &queues[d]));
		place(svm, in, d);
		place(svm, out, d);
	}
	check("stats", gpusvm_stats(svm, -1, &before));
	for (int d = 0; d < DEVICES; d++) { /* all at the same time */
		struct args args = {in, out, (uint32_t)d * QUARTER};

		check("launch",
		      gpusvm_launch(queues[d], &kernel, &args, sizeof(args), QUARTER, &events[d]));
	}
	for (int d = 0; d < DEVICES; d++) {
		check("add_next", gpusvm_event_wait(events[d], -1));
		gpusvm_event_put(events[d]);
	}
	check("stats", gpusvm_stats(svm, -1, &after));
	printf("%d devices: %llu faults, %llu pages came to system memory\n", DEVICES,
	       (unsigned long long)(after.device_faults - before.device_faults),
	       (unsigned long long)(after.pages_to_system - before.pages_to_system));

	for (uint32_t i = 0; i < N; i++)
		wrong += out[i] != i + (i + QUARTER) % N;
	printf("%u of %u numbers are wrong\n", wrong, N);
	gpusvm_close(svm);
	free(in);
	free(out);
	return wrong != 0;
}

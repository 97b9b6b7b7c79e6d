/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * run_stencil.c: heat spreading over a grid, step by step, in integers, so that the
 * GPUs' answer must equal the CPU's to the last bit. Each GPU has a band of rows, and
 * reads the row above its band and the one below it (the halo) where its neighbours
 * have them: over a link where there is one. The grid is a torus: the last row lies
 * beside the first.
 *
 * The grid is one piece of malloc'd memory with two planes, one read and one
 * written, in turns. No locks: a step of a band is its device's queue's work, and comes
 * after the step before of its own band and of those beside it. That is enough:
 * these are all that wrote what it reads, and all that read what it overwrites.
 */
#include "tools/run.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS 1024u /* cells in a row: 4 KiB */
#define ROWS 2048u    /* without --input */
#define STEPS 32u
#define CHUNK 256u /* columns that a kernel has in its own memory */

typedef uint32_t row[COLUMNS];

struct grid {
	uint64_t rows;
	row *planes[2];
};

struct args {
	struct run_args head;
	const row *from;
	row *to;
	uint64_t rows;
};

/* Half of what a cell has stays, an eighth comes from each neighbour. */
static uint32_t new_cell(uint32_t own, uint32_t up, uint32_t down, uint32_t left, uint32_t right)
{
	return (uint32_t)((4 * (uint64_t)own + up + down + left + right) / 8);
}

/* ---- On the GPU ------------------------------------------------------------ */

static void step_kernel(struct gpusvm_lane *lane, uint64_t item, const void *p)
{
	const struct args *args = p;
	uint64_t r = args->head.first + item;
	const uint32_t *own_row = args->from[r];
	const uint32_t *up_row = args->from[(r + args->rows - 1) % args->rows];
	const uint32_t *down_row = args->from[(r + 1) % args->rows];
	uint32_t up[CHUNK], down[CHUNK], own[1 + CHUNK + 1], next[CHUNK];

	for (unsigned c = 0; c < COLUMNS; c += CHUNK) {
		own[0] = gpusvm_ld32(lane, &own_row[(c + COLUMNS - 1) % COLUMNS]);
		run_load(lane, &own_row[c], own + 1, sizeof(next));
		own[1 + CHUNK] = gpusvm_ld32(lane, &own_row[(c + CHUNK) % COLUMNS]);
		run_load(lane, &up_row[c], up, sizeof(up));
		run_load(lane, &down_row[c], down, sizeof(down));
		for (unsigned i = 0; i < CHUNK; i++)
			next[i] = new_cell(own[i + 1], up[i], down[i], own[i], own[i + 2]);
		run_store(lane, &args->to[r][c], next, sizeof(next));
	}
}

/* The band of a device begins at its row, and ends at that of the next. */
static uint64_t first_row(const struct run *run, const struct grid *grid, unsigned device)
{
	return grid->rows * device / run->devices.n;
}

/* Each band to its device, where it shall stay: neighbours map it over a link. A page
 * on the border of two bands goes to the second. */
static int place(struct run *run, const struct grid *grid)
{
	int result = 0;

	for (unsigned d = 0; !result && d < run->devices.n; d++) {
		uint64_t first = first_row(run, grid, d);
		uint64_t size = (first_row(run, grid, d + 1) - first) * sizeof(row);
		struct gpusvm_location where = gpusvm_device((int)d);

		for (unsigned plane = 0; !result && plane < 2; plane++) {
			const void *band = grid->planes[plane][first];

			result = gpusvm_advise(run->svm, band, size, GPUSVM_PREFERRED_LOCATION, 1,
					       where);
			if (!result)
				result =
				    gpusvm_prefetch(run->svm, band, size, where, 0, NULL, NULL);
		}
	}
	return result ? tool_error("the grid cannot be placed: %s", strerror(-result)) : 0;
}

/* One step of all bands is put into the queues. before, after: an event for each
 * device, of the step before and of this one; NULL: there is none. */
static int queue_step(struct run *run, const struct grid *grid, unsigned step,
		      struct gpusvm_event **before, struct gpusvm_event **after)
{
	const struct gpusvm_kernel kernel = {sizeof(kernel), "step", step_kernel};
	unsigned n = run->devices.n;
	struct args args = {
	    .from = grid->planes[step % 2],
	    .to = grid->planes[(step + 1) % 2],
	    .rows = grid->rows,
	};

	for (unsigned d = 0; d < n; d++) {
		struct gpusvm_event *beside[] = {before[(d + n - 1) % n], before[(d + 1) % n]};
		uint64_t end = first_row(run, grid, d + 1);
		int result = 0;

		for (unsigned i = 0; !result && n > 1 && i < 2; i++)
			if (beside[i])
				result = gpusvm_queue_wait(run->queues[d], beside[i]);
		args.head.first = first_row(run, grid, d);
		if (!result)
			result = gpusvm_launch(run->queues[d], &kernel, &args, sizeof(args),
					       end - args.head.first, &after[d]);
		if (result) {
			tool_error("step %u on device %u: %s", step, d, strerror(-result));
			return TOOL_WRONG;
		}
	}
	return 0;
}

/* Waits for a step, if there is one, and puts its events. */
static int end_step(struct run *run, struct gpusvm_event **events)
{
	int failed = 0;

	for (unsigned d = 0; d < run->devices.n; d++) {
		int result = events[d] ? gpusvm_event_wait(events[d], -1) : 0;

		if (result && !failed)
			run_tell_fault("step", events[d], result);
		failed = failed ? failed : result;
		gpusvm_event_put(events[d]);
		events[d] = NULL;
	}
	return failed ? TOOL_WRONG : 0;
}

/* Queues are never empty: a step is queued while the one before it runs. */
static int all_steps(struct run *run, const struct grid *grid)
{
	struct gpusvm_event *events[2][RUN_DEVICES] = {{NULL}};
	int result = 0, last;

	for (unsigned step = 0; !result && step < STEPS; step++) {
		struct gpusvm_event **after = events[step % 2], **before = events[(step + 1) % 2];

		tool_progress("stencil: step %u of %u", step + 1, STEPS);
		result = queue_step(run, grid, step, before, after);
		last = end_step(run, before);
		result = result ? result : last;
	}
	for (unsigned i = 0; i < 2; i++) {
		last = end_step(run, events[i]);
		result = result ? result : last;
	}
	return result;
}

/* What moved during the steps, apart from what placing the grid moved. */
static void tell_steps(struct run *run, const struct gpusvm_stats *before)
{
	const struct gpusvm_stats *after = &run->stats;
	json_int_t cpu_faults = (json_int_t)(after->cpu_faults - before->cpu_faults);
	json_int_t device_faults = (json_int_t)(after->device_faults - before->device_faults);
	json_int_t to_device = (json_int_t)(after->pages_to_device - before->pages_to_device);
	json_int_t to_system = (json_int_t)(after->pages_to_system - before->pages_to_system);
	json_int_t peer = (json_int_t)(after->pages_peer - before->pages_peer);

	json_object_set_new(run->report, "during_steps",
			    json_pack("{s:I,s:I,s:I,s:I,s:I}", "cpu_faults", cpu_faults,
				      "device_faults", device_faults, "pages_to_device", to_device,
				      "pages_to_system", to_system, "pages_peer", peer));
	json_array_append_new(
	    json_object_get(run->report, "text"),
	    json_sprintf("during the steps: %lld pages to devices, %lld to system memory, %lld "
			 "between devices; faults: %lld of devices, %lld of the CPU",
			 (long long)to_device, (long long)to_system, (long long)peer,
			 (long long)device_faults, (long long)cpu_faults));
}

static int on_gpu(struct run *run, const struct grid *grid)
{
	struct gpusvm_stats before = {.size = sizeof(before)};
	int result = place(run, grid);
	uint64_t start;

	if (!result && gpusvm_stats(run->svm, -1, &before))
		result = tool_error("no statistics");
	if (result)
		return result;
	start = tool_now();
	result = all_steps(run, grid);
	run->device_ns = tool_now() - start;
	if (!result)
		result = run_pages(run);
	if (!result)
		tell_steps(run, &before);
	return result;
}

/* ---- On the CPU, in memory of its own -------------------------------------- */

static void on_cpu(const struct grid *grid)
{
	for (unsigned step = 0; step < STEPS; step++)
		for (uint64_t r = 0; r < grid->rows; r++) {
			const row *from = grid->planes[step % 2];
			const uint32_t *own = from[r];
			const uint32_t *up = from[(r + grid->rows - 1) % grid->rows];
			const uint32_t *down = from[(r + 1) % grid->rows];
			uint32_t *to = grid->planes[(step + 1) % 2][r];

			for (unsigned c = 0; c < COLUMNS; c++)
				to[c] = new_cell(own[c], up[c], down[c],
						 own[(c + COLUMNS - 1) % COLUMNS],
						 own[(c + 1) % COLUMNS]);
		}
}

/* ---- Building, comparing ---------------------------------------------------- */

static int make_grid(struct grid *grid, uint64_t rows)
{
	row *cells = rows > SIZE_MAX / sizeof(row) / 2 ? NULL : malloc(2 * rows * sizeof(row));

	if (!cells)
		return tool_no_memory("the grid");
	memset(cells, 0, 2 * rows * sizeof(row));
	grid->rows = rows;
	grid->planes[0] = cells;
	grid->planes[1] = cells + rows;
	return 0;
}

static void set_cell(struct grid *grid, uint64_t i, unsigned char byte)
{
	grid->planes[0][i / COLUMNS][i % COLUMNS] = (uint32_t)byte << 20;
}

/* A row for each device at least. */
static int read_grid(struct run *run, struct grid *grid)
{
	const char *path = run->inputs[0];
	char *bytes = NULL;
	uint64_t rows;
	size_t length;
	int result = run_read_file(path, 1, &bytes, &length);

	if (!result && !length)
		result = tool_error("%s: the grid is empty", path);
	if (!result) {
		rows = (length + COLUMNS - 1) / COLUMNS;
		result = make_grid(grid, rows < run->devices.n ? run->devices.n : rows);
	}
	for (size_t i = 0; !result && i < length; i++)
		set_cell(grid, i, (unsigned char)bytes[i]);
	json_object_set_new(run->report, "input", tool_text(path));
	free(bytes);
	return result;
}

static int random_grid(struct run *run, struct grid *grid)
{
	uint64_t state = run->seed;
	int result = make_grid(grid, ROWS);

	for (uint64_t i = 0; !result && i < (uint64_t)ROWS * COLUMNS; i++)
		set_cell(grid, i, (unsigned char)tool_random(&state));
	json_object_set_new(run->report, "input", json_string("a random grid"));
	return result;
}

static int compare(struct run *run, const struct grid *grid, const struct grid *right)
{
	const row *cells = grid->planes[STEPS % 2], *want = right->planes[STEPS % 2];
	uint64_t wrong = 0, sum = 0;

	for (uint64_t r = 0; r < grid->rows; r++)
		for (unsigned c = 0; c < COLUMNS; c++) {
			sum += cells[r][c];
			if (cells[r][c] == want[r][c])
				continue;
			if (!wrong++)
				tool_error("the cell in row %" PRIu64 ", column %u is %u, the "
					   "CPU's is %u",
					   r, c, cells[r][c], want[r][c]);
		}
	if (wrong)
		tool_error("%" PRIu64 " of %" PRIu64 " cells are wrong", wrong,
			   grid->rows * COLUMNS);
	json_object_set_new(run->report, "sum", json_integer((json_int_t)sum));
	json_object_set_new(run->report, "correct", json_boolean(!wrong));
	return wrong ? TOOL_WRONG : TOOL_RIGHT;
}

static int on_both(struct run *run, const struct grid *grid, struct grid *right)
{
	struct run_memory *watch = run_watch(run, 1);
	int result = watch ? make_grid(right, grid->rows) : TOOL_UNUSABLE;

	if (result)
		return result;
	watch[0] = (struct run_memory){grid->planes[0], 2 * grid->rows * sizeof(row)};
	memcpy(right->planes[0], grid->planes[0], grid->rows * sizeof(row));
	on_cpu(right);
	json_object_set_new(run->report, "rows", json_integer((json_int_t)grid->rows));
	json_object_set_new(run->report, "columns", json_integer(COLUMNS));
	json_object_set_new(run->report, "steps", json_integer(STEPS));
	json_array_append_new(json_object_get(run->report, "text"),
			      json_sprintf("%" PRIu64 " rows of %u cells, %u steps, a band of "
					   "%" PRIu64 " rows for each of %u devices",
					   grid->rows, COLUMNS, STEPS, grid->rows / run->devices.n,
					   run->devices.n));
	result = run_open(run);
	if (!result)
		result = on_gpu(run, grid);
	return result ? result : compare(run, grid, right);
}

int run_stencil(struct run *run)
{
	struct grid grid = {0}, right = {0};
	int result = run->n_inputs ? read_grid(run, &grid) : random_grid(run, &grid);

	if (!result)
		result = on_both(run, &grid, &right);
	free(grid.planes[0]);
	free(right.planes[0]);
	return result;
}

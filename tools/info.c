/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * info.c: 'gpusvm info': what this machine gives, what cannot be promised here
 * and why, and the devices. One thread; no locks.
 */
#include "host/posix/posix.h"
#include "host/userfault/userfault.h"
#include "tools/devices.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CAP_SYS_PTRACE_BIT 19u

static const char usage[] =
	"Usage: gpusvm info [OPTION]...\n"
	"What this machine gives, what cannot be promised here, and the devices.\n"
	"\n"
	"  --without LIST  as if the kernel did not have it; of move, event-fork,\n"
	"                  kernel-faults, syscall, with commas between\n"
	TOOL_DEVICES_USAGE
	"  --json          as JSON\n"
	"  --help          this text\n"
	"\n"
	"Status: 0 it can be used, 2 it cannot, or unusable arguments.\n";

static const struct {
	const char *name;
	uint32_t flag;
} withouts[] = {
	{ "move", USERFAULT_WITHOUT_MOVE },
	{ "event-fork", USERFAULT_WITHOUT_EVENT_FORK },
	{ "kernel-faults", USERFAULT_WITHOUT_KERNEL_FAULTS },
	{ "syscall", USERFAULT_WITHOUT_SYSCALL },
};

static const struct {
	const char *name;
	uint32_t cap;
	const char *yes, *no;
} promises[] = {
	{ "any_memory", MM_CAP_ANY_MEMORY, "all private anonymous memory migrates",
	  "only memory of gpusvm_alloc migrates; other memory is mapped where it is" },
	{ "kernel_access", MM_CAP_KERNEL_ACCESS, "system calls may touch migrated memory",
	  "a system call on migrated memory fails with EFAULT, or O_DIRECT into it is lost" },
	{ "fork", MM_CAP_FORK, "a forked child has all memory whole",
	  "a forked child does not have what was on a device" },
	{ "huge", MM_CAP_HUGE, "2M pages stay whole when they move",
	  "2M pages are split when they move" },
};

static const struct {
	const char *name;
	size_t offset;
} features[] = {
#define FEATURE(name) { #name, offsetof(struct userfault_info, name) }
	FEATURE(move), FEATURE(event_fork), FEATURE(event_remap), FEATURE(event_remove),
	FEATURE(event_unmap), FEATURE(kernel_faults), FEATURE(wp_async), FEATURE(pagemap_scan),
	FEATURE(procmap_query), FEATURE(poison),
#undef FEATURE
};

static bool parse_without(char *list, uint32_t *ret)
{
	char *save = NULL;

	for (char *name = strtok_r(list, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
		size_t i = 0;

		while (i < sizeof(withouts) / sizeof(withouts[0]) && strcmp(withouts[i].name, name))
			i++;
		if (i == sizeof(withouts) / sizeof(withouts[0])) {
			tool_error("--without '%s': it is one of move, event-fork, kernel-faults, "
				   "syscall", name);
			return false;
		}
		*ret |= withouts[i].flag;
	}
	return true;
}

/* The first line of a file, without its end; "?" if it cannot be read. */
static void read_line(const char *path, char *ret, int size)
{
	FILE *file = fopen(path, "r");

	if (!file || !fgets(ret, size, file))
		snprintf(ret, (size_t)size, "?");
	ret[strcspn(ret, "\n")] = 0;
	if (file)
		fclose(file);
}

static bool has_ptrace_capability(void)
{
	FILE *file = fopen("/proc/self/status", "r");
	unsigned long long caps = 0;
	char line[256];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "CapEff: %llx", &caps) == 1)
			break;
	if (file)
		fclose(file);
	return caps >> CAP_SYS_PTRACE_BIT & 1;
}

static json_t *settings(void)
{
	char sysctl[64], thp[64];

	read_line("/proc/sys/vm/unprivileged_userfaultfd", sysctl, sizeof(sysctl));
	read_line("/sys/kernel/mm/transparent_hugepage/enabled", thp, sizeof(thp));
	return json_pack("{s:s,s:b,s:b,s:s}", "vm.unprivileged_userfaultfd", sysctl,
			 "CAP_SYS_PTRACE", has_ptrace_capability(), "/dev/userfaultfd",
			 !access("/dev/userfaultfd", R_OK | W_OK), "transparent_hugepage", thp);
}

static json_t *home_of(const struct userfault_info *info)
{
	json_t *has = json_object(), *can = json_object();

	for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++)
		json_object_set_new(has, features[i].name,
				    json_boolean(*((const bool *)info + features[i].offset)));
	for (size_t i = 0; i < sizeof(promises) / sizeof(promises[0]); i++)
		json_object_set_new(can, promises[i].name,
				    json_boolean(info->caps & promises[i].cap));
	return json_pack("{s:s,s:s,s:o,s:o}", "name", "userfault", "through",
			 info->through_device ? "/dev/userfaultfd" : "userfaultfd(2)", "features",
			 has, "promises", can);
}

/* By what the library knows that memory is short, besides allocations that fail. */
static json_t *pressure(void)
{
	const char *sources[2];
	json_t *list = json_array();

	host_posix_pressure_sources(&sources[0], &sources[1]);
	for (size_t i = 0; i < 2; i++)
		if (*sources[i])
			json_array_append_new(list, json_string(sources[i]));
	return list;
}

static const struct {
	const char *name;
	uint64_t flag;
} kinds[] = {
	{ "no_fault", GPUSVM_DEVICE_NO_FAULT },
	{ "no_vram", GPUSVM_DEVICE_NO_VRAM },
	{ "zero_copy", GPUSVM_DEVICE_ZERO_COPY },
	{ "coherent", GPUSVM_DEVICE_COHERENT },
};

static json_t *device_of(const struct gpusvm_device_info *info)
{
	json_t *flags = json_array();

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (info->flags & kinds[i].flag)
			json_array_append_new(flags, json_string(kinds[i].name));
	return json_pack("{s:s,s:I,s:i,s:i,s:o}", "name", info->name, "vram_bytes",
			 (json_int_t)info->vram_bytes, "lanes", (int)info->lanes, "copy_engines",
			 (int)info->copy_engines, "flags", flags);
}

/* What a handle with these devices says of them. */
static int add_devices(json_t *list, const struct tool_devices *devices, uint32_t without)
{
	struct gpusvm_options options = { .size = sizeof(options), .home_without = without };
	struct gpusvm *svm;
	int result = tool_devices_open(devices, &options, &svm);

	if (result)
		return result;
	for (int i = 0; !result && i < gpusvm_device_count(svm); i++) {
		struct gpusvm_device_info info = { .size = sizeof(info) };

		result = gpusvm_device_info(svm, i, &info);
		if (!result)
			json_array_append_new(list, device_of(&info));
	}
	gpusvm_close(svm);
	return result;
}

/* "map,copy" */
static void print_list(const json_t *list)
{
	const json_t *value;
	size_t i;

	json_array_foreach(list, i, value)
		printf("%s%s", i ? "," : "", json_string_value(value));
}

static void print_device(const json_t *device, size_t i)
{
	long long vram = json_integer_value(json_object_get(device, "vram_bytes"));
	const json_t *flags = json_object_get(device, "flags");

	printf("device %-3zu%s, %lld MiB, %lld lanes, %lld copy engines%s", i,
	       json_string_value(json_object_get(device, "name")), vram >> 20,
	       (long long)json_integer_value(json_object_get(device, "lanes")),
	       (long long)json_integer_value(json_object_get(device, "copy_engines")),
	       json_array_size(flags) ? ", " : "");
	print_list(flags);
	printf("\n");
}

static void print_link(const json_t *link)
{
	const json_t *bandwidth = json_object_get(link, "bandwidth_mbps");
	const json_t *latency = json_object_get(link, "latency_ns");

	printf("link      %lld to %lld: ",
	       (long long)json_integer_value(json_object_get(link, "from")),
	       (long long)json_integer_value(json_object_get(link, "to")));
	print_list(json_object_get(link, "flags"));
	if (!json_is_null(bandwidth))
		printf(", %lld MB/s", (long long)json_integer_value(bandwidth));
	if (!json_is_null(latency))
		printf(", %lld ns", (long long)json_integer_value(latency));
	printf("\n");
}

static void print_text(const json_t *report, const struct userfault_info *info)
{
	const json_t *value;
	const char *name;
	size_t i;

	printf("gpusvm %s\n", GPUSVM_TOOL_VERSION);
	printf("home      userfault, by %s\n",
	       info->through_device ? "/dev/userfaultfd" : "userfaultfd(2)");
	printf("features ");
	for (i = 0; i < sizeof(features) / sizeof(features[0]); i++)
		if (*((const bool *)info + features[i].offset))
			printf(" %s", features[i].name);
	printf("\n");
	for (i = 0; i < sizeof(promises) / sizeof(promises[0]); i++)
		printf("%-9s %-4s%s\n", i ? "" : "promises",
		       info->caps & promises[i].cap ? "yes" : "NO",
		       info->caps & promises[i].cap ? promises[i].yes : promises[i].no);
	printf("pressure  ");
	print_list(json_object_get(report, "memory_pressure"));
	printf("%s\n", json_array_size(json_object_get(report, "memory_pressure"))
			   ? ""
			   : "known by allocations that fail alone");
	json_array_foreach(json_object_get(report, "devices"), i, value)
		print_device(value, i);
	json_array_foreach(json_object_get(report, "links"), i, value)
		print_link(value);
	json_object_foreach(json_object_get(report, "settings"), name, value) {
		if (json_is_string(value))
			printf("setting   %s: %s\n", name, json_string_value(value));
		else
			printf("setting   %s: %s\n", name, json_is_true(value) ? "yes" : "no");
	}
}

static int report_info(const struct tool_devices *wanted, uint32_t without, bool json)
{
	struct userfault_info info = { 0 };
	json_t *report = json_object(), *devices = json_array(), *links = NULL;
	int result = userfault_probe(without, &info), status = TOOL_RIGHT;

	json_object_set_new(report, "version", json_string(GPUSVM_TOOL_VERSION));
	json_object_set_new(report, "home", result ? json_null() : home_of(&info));
	json_object_set_new(report, "settings", settings());
	json_object_set_new(report, "memory_pressure", pressure());
	if (!result) {
		int opened = add_devices(devices, wanted, without);

		if (opened)
			status = tool_open_error(opened, wanted->vram);
		else
			links = tool_devices_links_json(wanted);
	} else {
		status = tool_error("%s", *info.error ? info.error : strerror(-result));
	}
	json_object_set_new(report, "devices", devices);
	json_object_set_new(report, "links", links ? links : json_array());
	json_object_set_new(report, "error", *info.error ? json_string(info.error) : json_null());
	if (json)
		tool_print_json(json_incref(report));
	else if (!result)
		print_text(report, &info);
	json_decref(report);
	return status;
}

int tool_info(int argc, char **argv)
{
	static const struct option options[] = {
		{ "without", required_argument, NULL, 'w' },
		{ "devices", required_argument, NULL, 'd' },
		{ "vram", required_argument, NULL, 'v' },
		{ "links", required_argument, NULL, 'l' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct tool_devices devices = { .n = 1 };
	uint32_t without = 0;
	bool json = false;
	int c, status;

	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (c) {
		case 'w':
			if (!parse_without(optarg, &without))
				return TOOL_UNUSABLE;
			break;
		case 'd':
		case 'v':
		case 'l':
			if (tool_devices_option(&devices, c, optarg))
				return TOOL_UNUSABLE;
			break;
		case 'j':
			json = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return TOOL_RIGHT;
		default:
			return TOOL_UNUSABLE; /* getopt has told why */
		}
	}
	if (optind < argc)
		return tool_error("'%s': info takes options only", argv[optind]);
	status = tool_devices_links(&devices);
	if (!status)
		status = report_info(&devices, without, json);
	tool_devices_free(&devices);
	return status;
}

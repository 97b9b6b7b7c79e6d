/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* main.c: the gpusvm command. Dispatches to its subcommands; no locks. */
#include "tools/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
	"Usage: gpusvm COMMAND [OPTION]...\n"
	"Memory of a process shared with a GPU: any pointer works there, pages move.\n"
	"\n"
	"  info            what this machine gives, and what cannot be promised here\n"
	"  run WORKLOAD    a workload on real input, checked against the CPU's answer\n"
	"  bench [NAME]    figures, each with the limit that it is held against\n"
	"  sim             races found before hardware does: runs that one seed decides\n"
	"\n"
	"  --help          this text; after a command, that command's\n"
	"  --version       the version\n"
	"\n"
	"Status: 0 right, 1 a wrong result, 2 unusable arguments or surroundings.\n";

static const struct {
	const char *name;
	char *whole; /* as getopt shall call it */
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "info", "gpusvm info", tool_info },
	{ "run", "gpusvm run", tool_run },
	{ "bench", "gpusvm bench", tool_bench },
	{ "sim", "gpusvm sim", tool_sim },
};

/* A stream that is closed stays so: no descriptor of ours, userfaultfd's say, takes its
 * place. What can be had of it fails as before. */
static void keep_places(void)
{
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
			(void)open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

static int command(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";

	if (!strcmp(name, "--help") || !strcmp(name, "-h")) {
		fputs(usage, stdout);
		return TOOL_RIGHT;
	}
	if (!strcmp(name, "--version")) {
		puts("gpusvm " GPUSVM_TOOL_VERSION);
		return TOOL_RIGHT;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(name, commands[i].name))
			continue;
		argv[1] = commands[i].whole;
		return commands[i].run(argc - 1, argv + 1);
	}
	if (*name)
		return tool_error("'%s' is no command; 'gpusvm --help' lists them", name);
	fputs(usage, stderr);
	return TOOL_UNUSABLE;
}

int main(int argc, char **argv)
{
	int status;

	keep_places();
	status = command(argc, argv);
	/* What nobody could read is no result. */
	if (fflush(stdout) || ferror(stdout))
		status = tool_error("the output cannot be written: %s", strerror(errno));
	return status;
}

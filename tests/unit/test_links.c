/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* test_links.c: tools/links.c, the texts and names that say which devices are linked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tools/links.c"

#define BOTH (GPUSVM_LINK_MAP | GPUSVM_LINK_COPY)

static struct links links;
static struct links_error error;

/* The text in memory of its very size, so that a sanitizer sees a read beyond. */
static int parse(const char *text, size_t length, unsigned n_devices)
{
	char *own = malloc(length ? length : 1);
	int err;

	assert_non_null(own);
	memcpy(own, text, length);
	links = (struct links){0};
	err = links_parse(own, length, n_devices, &links, &error);
	free(own);
	return err;
}

static int teardown(void **state)
{
	(void)state;
	links_free(&links);
	return 0;
}

static void expect(unsigned i, int from, int to, uint64_t bandwidth, uint64_t latency,
		   uint64_t flags)
{
	assert_true(i < links.n);
	assert_int_equal(links.list[i].from, from);
	assert_int_equal(links.list[i].to, to);
	assert_int_equal(links.list[i].link.size, sizeof(struct gpusvm_link));
	assert_int_equal(links.list[i].link.bandwidth_mbps, bandwidth);
	assert_int_equal(links.list[i].link.latency_ns, latency);
	assert_int_equal(links.list[i].link.flags, flags);
}

static void test_text(void **state)
{
	static const char text[] = "# four devices\n"
				   "0 1\n"
				   "\t 1  0 32000 # and back\r\n"
				   "\n"
				   "0 3 9223372036854775807 700#tight\n"
				   "3 0 0 0 map\n"
				   "2 3 1 2 copy\n"
				   "3 2 0001 02 copy,map";

	(void)state;
	assert_int_equal(parse(text, sizeof(text) - 1, 4), 0);
	assert_int_equal(links.n, 6);
	expect(0, 0, 1, 0, 0, BOTH);
	expect(1, 1, 0, 32000, 0, BOTH);
	expect(2, 0, 3, INT64_MAX, 700, BOTH);
	expect(3, 3, 0, 0, 0, GPUSVM_LINK_MAP);
	expect(4, 2, 3, 1, 2, GPUSVM_LINK_COPY);
	expect(5, 3, 2, 1, 2, BOTH);
}

static void test_nothing(void **state)
{
	(void)state;
	assert_int_equal(parse("", 0, 4), 0);
	assert_int_equal(links.n, 0);
	assert_int_equal(parse("# none\n\n \t\n", 11, 1), 0);
	assert_int_equal(links.n, 0);
	assert_int_equal(links_parse(NULL, 0, 1, &links, &error), 0);
}

static void test_malformed(void **state)
{
	static const struct {
		const char *text;
		size_t line;
		const char *said;
	} cases[] = {
	    {"0", 1, "less words"},
	    {"0 1\n1 0 1 1 map 7", 2, "more words"},
	    {"0 1\n1 0 1 1 map 7 8 9 10", 2, "more words"},
	    {"0 4", 1, "to '4': there is no such device, only 0 to 3"},
	    {"# x\n4 0", 2, "from '4'"},
	    {"0 18446744073709551616", 1, "too large"},
	    {"18446744073709551617 0", 1, "too large"},
	    {"-1 0", 1, "from '-1': not a number"},
	    {"0 +1", 1, "not a number"},
	    {"0 one", 1, "not a number"},
	    {"0 1\n2 2", 2, "device 2 to itself"},
	    {"0 1\n1 0\n0 1 5", 3, "from 0 to 1 is there already"},
	    {"0 1 fast", 1, "bandwidth 'fast': not a number"},
	    {"0 1 1e3", 1, "not a number"},
	    {"0 1 9223372036854775808", 1, "bandwidth '9223372036854775808': too large"},
	    {"0 1 1 99999999999999999999999999", 1, "latency '99999999999999999999': too large"},
	    {"0 1 1 1 read", 1, "flags 'read'"},
	    {"0 1 1 1 map,", 1, "flags 'map,'"},
	    {"0 1 1 1 ,map", 1, "flags ',map'"},
	    {"0 1 1 1 Map", 1, "flags 'Map'"},
	    {"0 1 1 1 maps", 1, "flags 'maps'"},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(parse(cases[i].text, strlen(cases[i].text), 4), -EINVAL);
		assert_int_equal(error.line, cases[i].line);
		if (!strstr(error.text, cases[i].said))
			fail_msg("'%s': %s", cases[i].text, error.text);
		assert_null(links.list);
	}
	assert_int_equal(parse("0 1\n1\0 0\n", 9, 2), -EINVAL);
	assert_int_equal(error.line, 2);
	assert_string_equal(error.text, "this is not text");
}

/* Texts made of links that are known, in all their spellings, come back as they are. */
static void test_random(void **state)
{
	static char text[1 << 16];
	unsigned seed = 1;

	(void)state;
	for (unsigned round = 0; round < 200; round++) {
		unsigned n_devices = 2 + (unsigned)rand_r(&seed) % 63, n = 0;
		struct gpusvm_link_desc want[200];
		uint64_t seen[LINKS_DEVICES] = {0};
		size_t length = 0;

		while (n < 200 && rand_r(&seed) % 50) {
			int from = rand_r(&seed) % (int)n_devices,
			    to = rand_r(&seed) % (int)n_devices;
			static const char *const flag_names[] = {"map", "copy", "map,copy"};
			uint64_t bandwidth = (uint64_t)rand_r(&seed), flags = 1 + rand_r(&seed) % 3;

			if (from == to || seen[from] >> to & 1)
				continue;
			seen[from] |= (uint64_t)1 << to;
			want[n++] = (struct gpusvm_link_desc){
			    from, to, {sizeof(struct gpusvm_link), bandwidth, n, flags}};
			length += (size_t)sprintf(
			    text + length, "%s%d\t%d %lu %u %s%s\n",
			    rand_r(&seed) % 2 ? "" : "#\n\n", from, to, (unsigned long)bandwidth, n,
			    flag_names[flags - 1], rand_r(&seed) % 2 ? "" : " # 9");
		}
		assert_int_equal(parse(text, length, n_devices), 0);
		assert_int_equal(links.n, n);
		for (unsigned i = 0; i < n; i++)
			expect(i, want[i].from, want[i].to, want[i].link.bandwidth_mbps, i + 1,
			       want[i].link.flags);
		links_free(&links);
	}
}

/* Any bytes give links that can be, or an error in a line that there is. */
static void test_any_bytes(void **state)
{
	static const char bytes[] = "0123456789 \t\r\n\n\n#,-mapcopy\0\xff";
	char text[64];
	unsigned seed = 2, good = 0;

	(void)state;
	for (unsigned round = 0; round < 100000; round++) {
		size_t length = (size_t)rand_r(&seed) % sizeof(text), lines = 1;
		unsigned most = round % 2 ? sizeof(bytes) : 14; /* often nothing but numbers */

		for (size_t i = 0; i < length; i++) {
			text[i] = bytes[(unsigned)rand_r(&seed) % most];
			lines += text[i] == '\n';
		}
		if (parse(text, length, 10)) {
			assert_in_range(error.line, 1, lines);
			assert_true(*error.text);
			continue;
		}
		good += links.n > 0;
		for (unsigned i = 0; i < links.n; i++) {
			assert_in_range(links.list[i].from, 0, 9);
			assert_in_range(links.list[i].to, 0, 9);
			assert_int_not_equal(links.list[i].from, links.list[i].to);
		}
		links_free(&links);
	}
	assert_true(good > 100);
}

static bool linked(int from, int to)
{
	for (unsigned i = 0; i < links.n; i++)
		if (links.list[i].from == from && links.list[i].to == to)
			return links.list[i].link.flags == BOTH;
	return false;
}

static void test_names(void **state)
{
	(void)state;
	for (unsigned n = 1; n <= LINKS_DEVICES; n += n < 6 ? 1 : 29) {
		assert_int_equal(links_named("none", n, &links), 0);
		assert_int_equal(links.n, 0);
		assert_int_equal(links_named("full", n, &links), 0);
		assert_int_equal(links.n, n * (n - 1));
		for (int i = 0; i < (int)(n * n); i++)
			assert_int_equal(linked(i / (int)n, i % (int)n), i / (int)n != i % (int)n);
		links_free(&links);
		assert_int_equal(links_named("ring", n, &links), 0);
		assert_int_equal(links.n, n < 3 ? n * (n - 1) : 2 * n);
		for (int i = 0; n > 1 && i < (int)n; i++) {
			assert_true(linked(i, (i + 1) % (int)n));
			assert_true(linked((i + 1) % (int)n, i));
		}
		links_free(&links);
	}
	assert_int_equal(links_named("star", 4, &links), -ENOENT);
	assert_int_equal(links_named("", 4, &links), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_teardown(test_text, teardown),
	    cmocka_unit_test_teardown(test_nothing, teardown),
	    cmocka_unit_test_teardown(test_malformed, teardown),
	    cmocka_unit_test_teardown(test_random, teardown),
	    cmocka_unit_test_teardown(test_any_bytes, teardown),
	    cmocka_unit_test_teardown(test_names, teardown),
	};

	return cmocka_run_group_tests_name("links", tests, NULL, NULL);
}

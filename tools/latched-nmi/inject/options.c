// SPDX-License-Identifier: GPL-2.0
/*
 * Command lines: a table of options for argp.
 */
#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "options.h"

/* Behind all characters: there are no short options but -h. */
#define FIRST_KEY	0x100

struct target {
	const struct option_def *def;
	size_t nr;
	char *into;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	const struct target *t = state->input;
	const struct option_def *def;
	char *member, *end;

	if (key == 'h')
		argp_state_help(state, stdout, ARGP_HELP_STD_HELP);
	if (key == ARGP_KEY_ARG)
		argp_error(state, "what is %s?", arg);
	if (key < FIRST_KEY || key - FIRST_KEY >= (int)t->nr)
		return ARGP_ERR_UNKNOWN;
	def = &t->def[key - FIRST_KEY];
	member = t->into + def->member;
	switch (def->type) {
	case OPT_TEXT:
		*(const char **)member = arg;
		break;
	case OPT_NUMBER:
		*(int *)member = strtol(arg, &end, 10);
		if (*end || *(int *)member < 1)
			argp_error(state, "--%s=%s: a number from 1 is wanted",
				   def->name, arg);
		break;
	case OPT_FLAG:
		*(bool *)member = true;
		break;
	}
	return 0;
}

void options_parse(const struct option_def *def, size_t nr, const char *doc, void *into,
		   int argc, char **argv)
{
	struct target t = { def, nr, into };
	struct argp_option *table = xalloc((nr + 2) * sizeof(*table));
	struct argp argp = { table, parse, NULL, doc, NULL, NULL, NULL };
	size_t i;

	for (i = 0; i < nr; i++)
		table[i] = (struct argp_option) {
			def[i].name, FIRST_KEY + i, def[i].arg, 0, def[i].doc, 0
		};
	table[nr] = (struct argp_option) { .key = 'h', .flags = OPTION_HIDDEN };
	argp_parse(&argp, argc, argv, 0, NULL, &t);
	free(table);
}

char *beside(const char *name)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 64);

	if (n < 0)
		die("/proc/self/exe: %s", strerror(errno));
	path[n] = 0;
	strcpy(strrchr(path, '/') + 1, name);
	return xstrdup(path);
}

void need_file(const char *option, const char *path)
{
	if (!path)
		die("%s is needed, see --help", option);
	if (access(path, R_OK))
		die("%s=%s: %s", option, path, strerror(errno));
}

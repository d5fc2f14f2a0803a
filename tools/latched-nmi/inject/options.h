/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _INJECT_OPTIONS_H
#define _INJECT_OPTIONS_H

#include "util.h"

/* An option --name[=arg] that sets one member of a structure. */
struct option_def {
	const char *name;
	const char *arg;
	enum { OPT_TEXT, OPT_NUMBER, OPT_FLAG } type;
	size_t member;
	const char *doc;
};

/*
 * Parse the command line by the @nr options of @def into @into; exit if it makes no
 * sense, or with --help.  @doc is what the help says before and, behind a \v, after.
 */
void options_parse(const struct option_def *def, size_t nr, const char *doc, void *into,
		   int argc, char **argv);

/* A file beside this program. */
char *beside(const char *name);
/* Die, naming the @option, if there is no file @path that can be read. */
void need_file(const char *option, const char *path);

#endif

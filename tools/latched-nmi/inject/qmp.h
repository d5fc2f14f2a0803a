/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _INJECT_QMP_H
#define _INJECT_QMP_H

#include <jansson.h>

#include "util.h"

/* A client of QEMU's monitor protocol. */
struct qmp {
	int fd;
	/* Called for each event that comes, if set. */
	void (*event)(const char *name);
	/* What QEMU said about the last command that failed. */
	char error[256];
	char buf[65536];
	size_t len;
};

/* Connect to @path, which the process @pid opens, and leave negotiation mode. */
void qmp_open(struct qmp *q, const char *path, int pid);
void qmp_close(struct qmp *q);

/*
 * Execute @command with @args, which may be NULL and is consumed.  Returns its
 * result, to be released with json_decref(), or NULL with q->error set.
 */
json_t *qmp_execute(struct qmp *q, const char *command, json_t *args);

/* A command of the human monitor: its text, to be freed, or NULL as above. */
char *qmp_human(struct qmp *q, const char *command);

#endif

// SPDX-License-Identifier: GPL-2.0
/*
 * QEMU's monitor: one JSON object on each line.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "qmp.h"

/* How long QEMU may take for an answer. */
#define ANSWER_MS	30000

/* The next object that QEMU sends, or NULL. */
static json_t *receive(struct qmp *q)
{
	long long end = now_ms() + ANSWER_MS;
	json_error_t err;
	json_t *obj;
	char *nl;

	while (!(nl = memchr(q->buf, '\n', q->len))) {
		int n = sock_fill(q->fd, q->buf, &q->len, sizeof(q->buf), 1000);

		if (n >= 0 && now_ms() < end)
			continue;
		snprintf(q->error, sizeof(q->error), n < 0 ?
			 "QEMU went away" : "the monitor of QEMU does not answer");
		return NULL;
	}
	obj = json_loadb(q->buf, nl - q->buf, 0, &err);
	if (!obj)
		snprintf(q->error, sizeof(q->error), "not JSON: %s", err.text);
	q->len -= nl + 1 - q->buf;
	memmove(q->buf, nl + 1, q->len);
	return obj;
}

json_t *qmp_execute(struct qmp *q, const char *command, json_t *args)
{
	json_t *obj = json_pack("{s:s, s:o*}", "execute", command, "arguments", args);
	char *text = json_dumps(obj, JSON_COMPACT);
	json_t *result = NULL;
	const char *desc;
	bool sent;

	q->error[0] = 0;
	sent = sock_send(q->fd, text, strlen(text)) && sock_send(q->fd, "\n", 1);
	free(text);
	json_decref(obj);
	if (!sent) {
		snprintf(q->error, sizeof(q->error), "QEMU went away");
		return NULL;
	}
	while (!result && (obj = receive(q))) {
		json_t *event = json_object_get(obj, "event");

		result = json_incref(json_object_get(obj, "return"));
		if (event && q->event)
			q->event(json_string_value(event));
		if (!json_unpack(obj, "{s:{s:s}}", "error", "desc", &desc))
			snprintf(q->error, sizeof(q->error), "%s: %s", command, desc);
		json_decref(obj);
		if (q->error[0])
			break;
	}
	return result;
}

void qmp_open(struct qmp *q, const char *path, int pid)
{
	json_t *greeting, *result;

	q->fd = sock_connect(path, pid);
	q->len = 0;
	greeting = receive(q);
	result = greeting ? qmp_execute(q, "qmp_capabilities", NULL) : NULL;
	if (!result)
		die("QMP: %s", q->error);
	json_decref(greeting);
	json_decref(result);
}

void qmp_close(struct qmp *q)
{
	close(q->fd);
}

char *qmp_human(struct qmp *q, const char *command)
{
	json_t *result = qmp_execute(q, "human-monitor-command",
				     json_pack("{s:s}", "command-line", command));
	char *text = NULL, *from, *to;

	if (result) {
		text = xstrdup(json_string_value(result));
		json_decref(result);
		/* Without the terminal's line ends. */
		for (from = to = text; *from; from++) {
			if (*from != '\r')
				*to++ = *from;
		}
		*to = 0;
	}
	return text;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * What every other file uses: errors, memory, lists of names, sockets.
 */
#include <errno.h>
#include <ftw.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "util.h"

/* How long a process may take to open its socket. */
#define CONNECT_MS	10000

void die(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	va_start(ap, fmt);
	fprintf(stderr, "%s: ", program_invocation_short_name);
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "\n");
	va_end(ap);
	exit(2);
}

void *xalloc(size_t n)
{
	void *p = calloc(1, n);

	if (!p)
		die("out of memory");
	return p;
}

void *xrealloc(void *p, size_t n)
{
	p = realloc(p, n);
	if (!p)
		die("out of memory");
	return p;
}

char *xstrdup(const char *s)
{
	char *p = strdup(s ? s : "");

	if (!p)
		die("out of memory");
	return p;
}

char *xasprintf(const char *fmt, ...)
{
	va_list ap;
	char *p;

	va_start(ap, fmt);
	if (vasprintf(&p, fmt, ap) < 0)
		die("out of memory");
	va_end(ap);
	return p;
}

bool list_has(const char *list, const char *name)
{
	size_t len = strlen(name);

	if (!list || !strcmp(list, "*"))
		return true;
	while (*list) {
		const char *end = strchrnul(list, ',');

		if ((size_t)(end - list) == len && !strncmp(list, name, len))
			return true;
		list = *end ? end + 1 : end;
	}
	return false;
}

static int remove_one(const char *path, const struct stat *st, int flag,
		      struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

void remove_tree(const char *dir)
{
	nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

int sock_connect(const char *path, int pid)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	long long end = now_ms() + CONNECT_MS;
	int fd;

	if (strlen(path) >= sizeof(sa.sun_path))
		die("%s: path too long for a socket", path);
	strcpy(sa.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		die("socket: %s", strerror(errno));
	while (connect(fd, (struct sockaddr *)&sa, sizeof(sa))) {
		if (now_ms() > end || (pid && waitpid(pid, NULL, WNOHANG) == pid))
			die("QEMU did not start (no %s)", path);
		usleep(10000);
	}
	return fd;
}

bool sock_send(int fd, const char *buf, size_t len)
{
	while (len) {
		ssize_t n = send(fd, buf, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		buf += n;
		len -= n;
	}
	return true;
}

int sock_fill(int fd, char *buf, size_t *len, size_t max, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	ssize_t n;

	if (poll(&p, 1, ms) <= 0)
		return 0;
	if (*len >= max)
		die("answer of QEMU too long");
	n = recv(fd, buf + *len, max - *len, 0);
	if (n <= 0)
		return -1;
	*len += n;
	return n;
}

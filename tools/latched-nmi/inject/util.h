/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _INJECT_UTIL_H
#define _INJECT_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

/* Say why on standard error and exit with status 2. */
void die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
void *xalloc(size_t n);
void *xrealloc(void *p, size_t n);
char *xstrdup(const char *s);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Is @name in the comma-separated @list?  "*" holds every name, and so does no list. */
bool list_has(const char *list, const char *name);

/* Remove @dir and all that is in it. */
void remove_tree(const char *dir);

/* Milliseconds of the monotonic clock. */
long long now_ms(void);

/*
 * A client's end of a unix socket.  sock_connect() waits until the process @pid
 * has opened its end; a @pid of 0 stands for a process that is not a child.
 */
int sock_connect(const char *path, int pid);
/* False if the other side has closed it. */
bool sock_send(int fd, const char *buf, size_t len);
/* Append what comes within @ms to @buf: its length, 0 for nothing, -1 for the end. */
int sock_fill(int fd, char *buf, size_t *len, size_t max, int ms);

#endif

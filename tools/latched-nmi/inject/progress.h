/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _INJECT_PROGRESS_H
#define _INJECT_PROGRESS_H

/*
 * How far the workers are, together: a line on standard error whenever one of them
 * has done a case.  @n is how many that line stands for: a window runs the same case
 * at many instructions.
 */
void progress_init(int total);
/* Cases that were not known of at first. */
void progress_more(int n);
void progress(int n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif

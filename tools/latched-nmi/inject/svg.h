/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _INJECT_SVG_H
#define _INJECT_SVG_H

#include "result.h"

/* The matrix of the first machine in @all to the file @path. */
void svg_write(const struct results *all, const struct config *cfg,
	       const char *machine, const char *path);

#endif

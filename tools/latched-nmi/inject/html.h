/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _INJECT_HTML_H
#define _INJECT_HTML_H

#include "result.h"

/* The whole matrix as one page, with the command that runs each cell again. */
void html_write(const struct results *all, const struct config *cfg, const char *path);

#endif

/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _INJECT_KTAP_H
#define _INJECT_KTAP_H

#include "result.h"

/* The instructions of each path, as comments. */
void ktap_paths(const struct results *all, FILE *out);

/* KTAP to @out; returns the number of tests that are not ok. */
int ktap_write(const struct results *all, const struct config *cfg, FILE *out);

#endif

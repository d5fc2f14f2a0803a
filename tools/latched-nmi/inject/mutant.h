/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _INJECT_MUTANT_H
#define _INJECT_MUTANT_H

#include <stdio.h>

#include "guest.h"

/* Apply @mu and run its cases up to the first that fails; a result line to @out. */
void mutant_run(struct guest *g, const struct mutant *mu, FILE *out);

#endif

// SPDX-License-Identifier: GPL-2.0
/*
 * Mutants: changes to the guest kernel's text, found by scanning the built
 * text for the instruction that they are about.
 */
#include <stdlib.h>
#include <string.h>

#include "inject.h"

int mutant_patches(const struct symtab *sym, const struct mutant *mu,
		   struct patch *p, int max)
{
	(void)sym;
	(void)p;
	(void)max;
	die("mutant %s: not there yet", mu->name);
}

/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _INJECT_SYM_H
#define _INJECT_SYM_H

#include "util.h"

/* The symbols of one ELF file. */
struct symtab;

struct symtab *sym_load(const char *path);

/*
 * @where is SYMBOL, SYMBOL+OFFSET, SYMBOL-OFFSET or end:SYMBOL, which is the first
 * address behind it.  False if there is no such symbol, sym_addr() dies then.
 */
bool sym_find(const struct symtab *t, const char *where, u64 *addr);
u64 sym_addr(const struct symtab *t, const char *where);

/* "symbol+0xoffset" of @addr into @buf. */
void sym_label(const struct symtab *t, u64 addr, char *buf, size_t len);

#endif

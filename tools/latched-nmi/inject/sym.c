// SPDX-License-Identifier: GPL-2.0
/*
 * ELF symbols, by libelf.
 */
#include <fcntl.h>
#include <gelf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sym.h"

struct sym {
	u64 addr;
	u64 size;
	bool func;
	char *name;
};

struct symtab {
	struct sym *sym;
	int nr;
	Elf *elf;
	const char *path;
};

static int sym_cmp(const void *a, const void *b)
{
	const struct sym *x = a, *y = b;

	if (x->addr != y->addr)
		return x->addr < y->addr ? -1 : 1;
	/* Of several names that of the sized function goes last: it is found. */
	if (!x->size != !y->size)
		return x->size ? 1 : -1;
	if (x->func != y->func)
		return x->func ? 1 : -1;
	return strcmp(y->name, x->name);
}

struct symtab *sym_load(const char *path)
{
	struct symtab *t = xalloc(sizeof(*t));
	Elf_Scn *scn = NULL;
	int fd;

	if (elf_version(EV_CURRENT) == EV_NONE)
		die("libelf is too old");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die("%s: cannot open", path);
	t->path = path;
	t->elf = elf_begin(fd, ELF_C_READ_MMAP, NULL);
	if (!t->elf)
		die("%s: %s", path, elf_errmsg(-1));

	while ((scn = elf_nextscn(t->elf, scn))) {
		Elf_Data *data;
		GElf_Shdr sh;
		size_t i, nr;

		if (!gelf_getshdr(scn, &sh) || sh.sh_type != SHT_SYMTAB)
			continue;
		data = elf_getdata(scn, NULL);
		nr = sh.sh_size / sh.sh_entsize;
		t->sym = xrealloc(t->sym, (t->nr + nr) * sizeof(*t->sym));
		for (i = 0; i < nr; i++) {
			const char *name;
			GElf_Sym s;

			gelf_getsym(data, i, &s);
			if (GELF_ST_TYPE(s.st_info) > STT_FUNC ||
			    s.st_shndx == SHN_UNDEF)
				continue;
			name = elf_strptr(t->elf, sh.sh_link, s.st_name);
			if (!name || !*name || !strncmp(name, "__pfx_", 6))
				continue;
			t->sym[t->nr].addr = s.st_value;
			t->sym[t->nr].size = s.st_size;
			t->sym[t->nr].func = GELF_ST_TYPE(s.st_info) == STT_FUNC;
			t->sym[t->nr++].name = xstrdup(name);
		}
	}
	if (!t->nr)
		die("%s: no symbols", path);
	qsort(t->sym, t->nr, sizeof(*t->sym), sym_cmp);
	return t;
}

static const struct sym *named(const struct symtab *t, const char *name, size_t len)
{
	int i;

	for (i = 0; i < t->nr; i++) {
		if (!strncmp(t->sym[i].name, name, len) && !t->sym[i].name[len])
			return &t->sym[i];
	}
	return NULL;
}

bool sym_find(const struct symtab *t, const char *where, u64 *addr)
{
	bool end = !strncmp(where, "end:", 4);
	const char *name = end ? where + 4 : where;
	size_t len = strcspn(name, "+-");
	const struct sym *s = named(t, name, len);

	if (!s)
		return false;
	*addr = s->addr + (end ? s->size : 0);
	if (name[len])
		*addr += strtoll(name + len, NULL, 0);
	return true;
}

u64 sym_addr(const struct symtab *t, const char *where)
{
	u64 addr;

	if (!sym_find(t, where, &addr))
		die("%s: no symbol %s", t->path, where);
	return addr;
}

void sym_label(const struct symtab *t, u64 addr, char *buf, size_t len)
{
	int lo = 0, hi = t->nr;

	while (lo < hi) {
		int mid = (lo + hi) / 2;

		if (t->sym[mid].addr <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo || addr - t->sym[lo - 1].addr > 0x100000) {
		snprintf(buf, len, "0x%llx", (unsigned long long)addr);
		return;
	}
	snprintf(buf, len, "%s+0x%llx", t->sym[lo - 1].name,
		 (unsigned long long)(addr - t->sym[lo - 1].addr));
}

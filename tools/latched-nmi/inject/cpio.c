// SPDX-License-Identifier: GPL-2.0
/*
 * The guest's initramfs: /init and, if asked for, one module as /module.ko.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "inject.h"

static void cpio_pad(FILE *f)
{
	while (ftell(f) & 3)
		fputc(0, f);
}

static void cpio_entry(FILE *f, const char *name, unsigned int mode,
		       const void *data, size_t len)
{
	static unsigned int ino = 1;

	fprintf(f, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		ino++, mode, 0, 0, 1, 0, (unsigned int)len, 0, 0, 0, 0,
		(unsigned int)strlen(name) + 1, 0);
	fwrite(name, 1, strlen(name) + 1, f);
	cpio_pad(f);
	fwrite(data, 1, len, f);
	cpio_pad(f);
}

static void cpio_file(FILE *f, const char *name, const char *path)
{
	FILE *in = fopen(path, "rb");
	struct stat st;
	char *data;

	if (!in || fstat(fileno(in), &st))
		die("%s: cannot read", path);
	data = xalloc(st.st_size + 1);
	if (fread(data, 1, st.st_size, in) != (size_t)st.st_size)
		die("%s: short read", path);
	fclose(in);
	cpio_entry(f, name, S_IFREG | 0755, data, st.st_size);
	free(data);
}

void cpio_write(const char *path, const char *init, const char *module)
{
	FILE *f = fopen(path, "wb");

	if (!f)
		die("%s: cannot write", path);
	cpio_file(f, "init", init);
	if (module)
		cpio_file(f, "module.ko", module);
	cpio_entry(f, "TRAILER!!!", 0, "", 0);
	if (fclose(f))
		die("%s: cannot write", path);
}

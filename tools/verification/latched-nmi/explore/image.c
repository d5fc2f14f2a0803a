// SPDX-License-Identifier: GPL-2.0
/*
 * A vmlinux as it runs on one machine: what alternative_instructions() does at
 * boot is done here, for the CPU features of a machine description.
 */
#include <capstone/capstone.h>
#include <fcntl.h>
#include <gelf.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "explore.h"

struct seg {
	u64 addr;
	size_t len;
	u8 *data;
};

#define MAX_BIT		(64 * 32)

struct features {
	char *name[MAX_BIT];
	bool on[MAX_BIT];
	int words;
};

/* "#define X86_FEATURE_PTI ( 7*32+11)", "#define X86_BUG_F00F X86_BUG(0)" */
struct features *features_load(const char *path)
{
	struct features *f = xalloc(sizeof(*f));
	FILE *in = fopen(path, "r");
	char line[512], name[64];
	int word, bit, n = 0;

	memset(f, 0, sizeof(*f));
	if (!in)
		die("%s: cannot open", path);
	while (fgets(line, sizeof(line), in)) {
		if (sscanf(line, "#define NCAPINTS %d", &word) == 1) {
			f->words = word;
		} else if (sscanf(line, "#define X86_%63s ( %d *32 + %d", name, &word, &bit) == 3) {
			if (word * 32 + bit < MAX_BIT)
				f->name[word * 32 + bit] = xstrdup(name), n++;
		} else if (sscanf(line, "#define X86_%63s X86_BUG( %d", name, &bit) == 2) {
			bit += 32 * f->words;
			if (bit < MAX_BIT)
				f->name[bit] = xstrdup(name), n++;
		}
	}
	fclose(in);
	if (n < 100 || !f->words)
		die("%s: no features found", path);
	features_set(f, "FEATURE_ALWAYS");
	return f;
}

void features_set(struct features *f, const char *names)
{
	char *copy = xstrdup(names), *save, *p;
	int i;

	for (p = strtok_r(copy, " ,\t", &save); p; p = strtok_r(NULL, " ,\t", &save)) {
		for (i = 0; i < MAX_BIT; i++) {
			const char *n = f->name[i];

			if (n && (!strcmp(n, p) || (!strncmp(n, "FEATURE_", 8) && !strcmp(n + 8, p)))) {
				f->on[i] = true;
				break;
			}
		}
		if (i == MAX_BIT)
			fprintf(stderr, "explore: this kernel has no CPU feature %s\n", p);
	}
	free(copy);
}

bool features_has(const struct features *f, const char *name)
{
	int i;

	for (i = 0; i < MAX_BIT; i++) {
		if (f->on[i] && !strncmp(f->name[i], "FEATURE_", 8) &&
		    !strcmp(f->name[i] + 8, name))
			return true;
	}
	return false;
}

/* The sections that are loaded. */
static void add_segments(struct image *im, const char *path)
{
	Elf_Scn *scn = NULL;
	Elf *elf;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die("%s: cannot open", path);
	elf = elf_begin(fd, ELF_C_READ_MMAP, NULL);
	while ((scn = elf_nextscn(elf, scn))) {
		Elf_Data *data;
		GElf_Shdr sh;
		struct seg *s;

		if (!gelf_getshdr(scn, &sh) || !(sh.sh_flags & SHF_ALLOC) ||
		    sh.sh_type == SHT_NOBITS || !sh.sh_addr || !sh.sh_size)
			continue;
		data = elf_getdata(scn, NULL);
		im->seg = xrealloc(im->seg, (im->nr_seg + 1) * sizeof(*im->seg));
		s = &im->seg[im->nr_seg++];
		s->addr = sh.sh_addr;
		s->len = sh.sh_size;
		s->data = xalloc(s->len);
		memcpy(s->data, data->d_buf, s->len);
	}
	elf_end(elf);
	close(fd);
}

struct image *image_load(const char *path)
{
	struct image *im = xalloc(sizeof(*im));

	im->path = path;
	im->sym = sym_load(path);
	add_segments(im, path);
	return im;
}

void image_add(struct image *im, const char *path)
{
	im->more = sym_load(path);
	add_segments(im, path);
}

static u8 *at(const struct image *im, u64 addr, size_t len)
{
	int i;

	for (i = 0; i < im->nr_seg; i++) {
		const struct seg *s = &im->seg[i];

		if (addr >= s->addr && addr + len <= s->addr + s->len)
			return s->data + (addr - s->addr);
	}
	return NULL;
}

bool image_read(const struct image *im, u64 addr, void *buf, size_t len)
{
	u8 *p = at(im, addr, len);

	if (p)
		memcpy(buf, p, len);
	return p;
}

void image_write(struct image *im, u64 addr, const void *buf, size_t len)
{
	u8 *p = at(im, addr, len);

	if (!p)
		die("0x%llx is not in %s", (unsigned long long)addr, im->path);
	memcpy(p, buf, len);
}

u64 image_u64(const struct image *im, u64 addr)
{
	u64 v;

	if (!image_read(im, addr, &v, sizeof(v)))
		die("0x%llx is not in %s", (unsigned long long)addr, im->path);
	return v;
}

/* ------------------------------------------------------ alternatives */

#define MAX_PATCH	254

static csh cs;

static const u8 nops[9][8] = {
	{ 0 }, { 0x90 }, { 0x66, 0x90 }, { 0x0f, 0x1f, 0x00 },
	{ 0x0f, 0x1f, 0x40, 0x00 }, { 0x0f, 0x1f, 0x44, 0x00, 0x00 },
	{ 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00 },
	{ 0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00 },
	{ 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00 },
};

static bool one_insn(const u8 *buf, size_t len, u64 addr, cs_insn *out, cs_detail *detail)
{
	const u8 *p = buf;

	out->detail = detail;
	return cs_disasm_iter(cs, &p, &len, &addr, out);
}

static bool is_nop(const u8 *p)
{
	return p[0] == 0x90 || (p[0] == 0x66 && (p[1] == 0x90 || (p[1] == 0x0f && p[2] == 0x1f))) ||
	       (p[0] == 0x0f && p[1] == 0x1f);
}

static void add_nop(u8 *buf, size_t len)
{
	if (len <= 8) {
		memcpy(buf, nops[len], len);
	} else if (len < 127) {
		buf[0] = 0xeb;
		buf[1] = len - 2;
		memset(buf + 2, 0xcc, len - 2);
	} else {
		s32 rel = len - 5;

		buf[0] = 0xe9;
		memcpy(buf + 1, &rel, 4);
		memset(buf + 5, 0xcc, len - 5);
	}
}

static void optimize_nops(u8 *buf, size_t len, u64 addr)
{
	cs_detail detail;
	size_t i, next;
	cs_insn insn;

	for (i = 0; i < len; i = next) {
		size_t nop = i;

		if (!one_insn(buf + i, len - i, addr + i, &insn, &detail))
			return;
		next = i + insn.size;
		if (!is_nop(buf + i))
			continue;
		if (next == len)
			return;
		while (next < len && is_nop(buf + next) &&
		       one_insn(buf + next, len - next, addr + next, &insn, &detail))
			next += insn.size;
		add_nop(buf + nop, next - nop);
	}
}

/* The replacement was assembled at @src and is now in @buf for @dst. */
static void relocate(u8 *buf, size_t len, u64 dst, u64 src, size_t src_len)
{
	cs_detail detail;
	size_t i, next;
	cs_insn insn;

	for (i = 0; i < len; i = next) {
		const cs_x86 *x = &detail.x86;
		const u8 *op = x->opcode;
		bool rip;
		s64 target;
		s32 v;
		int k;

		if (!one_insn(buf + i, len - i, src + i, &insn, &detail))
			return;
		next = i + insn.size;
		if ((op[0] == 0x0f && (op[1] & 0xf0) == 0x80) || (op[0] & 0xf0) == 0x70 ||
		    op[0] == 0xeb || op[0] == 0xe9 || op[0] == 0xe8) {
			target = x->operands[0].imm;
			if ((u64)target < src || (u64)target > src + src_len) {
				if (insn.size < 5)
					die("alternative at 0x%llx: a short jump out of it",
					    (unsigned long long)dst);
				v = target - (s64)(dst + next);
				memcpy(buf + next - 4, &v, 4);
				target = v;
			} else {
				target -= src + next;
			}
			if (op[0] == 0xe9 && target + 3 == (signed char)(target + 3)) {
				buf[i] = 0xeb;
				buf[i + 1] = target + 3;
				memset(buf + i + 2, 0xcc, insn.size - 2);
			}
		}
		for (rip = false, k = 0; k < x->op_count; k++)
			rip |= x->operands[k].type == X86_OP_MEM &&
			       x->operands[k].mem.base == X86_REG_RIP;
		if (rip) {
			target = x->disp + src + next;
			if ((u64)target < src || (u64)target > src + src_len) {
				v = target - (s64)(dst + next);
				memcpy(buf + i + x->encoding.disp_offset, &v, 4);
			}
		}
	}
}

struct alt {
	u64 instr, repl;
	u32 bit, flags;
	u8 len, repl_len;
};

#define ALT_NOT		1
#define ALT_DIRECT_CALL	2

static void patch_alternatives(struct image *im, const struct features *f)
{
	u64 a = sym_addr(im->sym, "__alt_instructions");
	u64 end = sym_addr(im->sym, "__alt_instructions_end");
	u64 text = sym_addr(im->sym, "_text");
	/* Linux 6.1 has 16 bits of cpuid, the highest meaning NOT, later 16 and 16. */
	size_t size = 14, i, j;
	struct alt *alt;
	int nr;

	if ((end - a) % 14 || im->seg == NULL)
		size = 12;
	for (i = 0; size == 14 && i < 4; i++) {
		s32 off = (s32)image_u64(im, a + i * size);
		u64 to = a + i * size + off;

		if (to < text || to >= end)
			size = 12;
	}
	nr = (end - a) / size;
	alt = xalloc(nr * sizeof(*alt));
	for (i = 0; i < (size_t)nr; i++) {
		u64 e = a + i * size;
		u8 raw[14];
		s32 off[2];
		u16 id[2] = { 0, 0 };

		image_read(im, e, raw, size);
		memcpy(off, raw, 8);
		memcpy(id, raw + 8, size == 14 ? 4 : 2);
		alt[i].instr = e + off[0];
		alt[i].repl = e + 4 + off[1];
		alt[i].bit = size == 14 ? id[0] : id[0] & 0x7fff;
		alt[i].flags = size == 14 ? id[1] : id[0] >> 15;
		alt[i].len = raw[size - 2];
		alt[i].repl_len = raw[size - 1];
	}
	for (i = 0; i < (size_t)nr; i++) {
		u8 buf[MAX_PATCH + 2], len;

		for (j = i + 1; j < (size_t)nr && alt[j].instr == alt[i].instr; j++) {
			len = alt[i].len > alt[j].len ? alt[i].len : alt[j].len;
			alt[i].len = alt[j].len = len;
		}
		if (!at(im, alt[i].instr, alt[i].len))
			continue;
		len = alt[i].len;
		if (alt[i].bit >= MAX_BIT)
			die("%s: alternative for feature %u", im->path, alt[i].bit);
		if (!f->on[alt[i].bit] == !(alt[i].flags & ALT_NOT)) {
			image_read(im, alt[i].instr, buf, len);
			optimize_nops(buf, len, alt[i].instr);
			image_write(im, alt[i].instr, buf, len);
			continue;
		}
		/* Calls of pv_ops: nobody on the path makes one. */
		if (alt[i].flags & ALT_DIRECT_CALL)
			continue;
		image_read(im, alt[i].repl, buf, alt[i].repl_len);
		memset(buf + alt[i].repl_len, 0x90, len - alt[i].repl_len);
		relocate(buf, len, alt[i].instr, alt[i].repl, alt[i].repl_len);
		optimize_nops(buf, len, alt[i].instr);
		image_write(im, alt[i].instr, buf, len);
	}
	free(alt);
}

static const char * const return_thunk[][2] = {
	{ "SRSO_ALIAS", "srso_alias_return_thunk" },
	{ "SRSO", "srso_return_thunk" },
	{ "UNRET", "retbleed_return_thunk" },
	{ "CALL_DEPTH", "call_depth_return_thunk" },
	{ "INDIRECT_THUNK_ITS", "its_return_thunk" },
};

static void patch_returns(struct image *im, const struct features *f)
{
	u64 s, end, thunk = 0;
	bool its = false;
	size_t i;

	if (!sym_find(im->sym, "__return_sites", &s) ||
	    !sym_find(im->sym, "__return_sites_end", &end))
		return;
	for (i = 0; i < ARRAY_SIZE(return_thunk) && !thunk; i++) {
		if (features_has(f, return_thunk[i][0]))
			sym_find(im->sym, return_thunk[i][1], &thunk);
		its = !strcmp(return_thunk[i][0], "INDIRECT_THUNK_ITS");
	}
	for (; s < end; s += 4) {
		u8 buf[5] = { 0xc3, 0xcc, 0xcc, 0xcc, 0xcc };
		s32 off;
		u64 to;

		image_read(im, s, &off, 4);
		to = s + off;
		if (!at(im, to, 5) || *at(im, to, 1) != 0xe9)
			continue;
		/* ITS is of branches in the lower half of a cache line. */
		if (thunk && !(its && to & 0x20)) {
			off = thunk - (to + 5);
			buf[0] = 0xe9;
			memcpy(buf + 1, &off, 4);
		}
		image_write(im, to, buf, 5);
	}
}

void image_patch(struct image *im, const struct features *f)
{
	if (cs_open(CS_ARCH_X86, CS_MODE_64, &cs) != CS_ERR_OK)
		die("capstone does not start");
	cs_option(cs, CS_OPT_DETAIL, CS_OPT_ON);
	patch_returns(im, f);
	patch_alternatives(im, f);
	cs_close(&cs);
}

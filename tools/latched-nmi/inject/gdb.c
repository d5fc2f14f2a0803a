// SPDX-License-Identifier: GPL-2.0
/*
 * The gdb remote protocol, as QEMU's stub speaks it.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "gdb.h"

/* How long QEMU may take for an answer of its own, not of the guest. */
#define ANSWER_MS	30000

static const char hexdigit[] = "0123456789abcdef";

static int unhex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static void send_raw(struct gdb *g, const char *buf, size_t len)
{
	if (!sock_send(g->fd, buf, len))
		die("QEMU went away");
}

static void gdb_send(struct gdb *g, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Answers are not acknowledged: the stub takes the next packet for that. */
static void gdb_send(struct gdb *g, const char *fmt, ...)
{
	char body[4096], pkt[4200];
	u8 sum = 0;
	va_list ap;
	int i, n;

	va_start(ap, fmt);
	n = vsnprintf(body, sizeof(body), fmt, ap);
	va_end(ap);
	for (i = 0; i < n; i++)
		sum += (u8)body[i];
	n = snprintf(pkt, sizeof(pkt), "$%s#%02x", body, sum);
	send_raw(g, pkt, n);
}

bool gdb_answer(struct gdb *g, char *out, size_t max, int ms)
{
	long long end = now_ms() + ms;

	for (;;) {
		char *b = memchr(g->buf, '$', g->len);
		char *e = b ? memchr(b, '#', g->buf + g->len - b) : NULL;
		int n;

		if (e && e + 2 < g->buf + g->len) {
			size_t size = e - b - 1;

			if (size >= max)
				size = max - 1;
			memcpy(out, b + 1, size);
			out[size] = 0;
			e += 3;
			g->len -= e - g->buf;
			memmove(g->buf, e, g->len);
			return true;
		}
		ms = end - now_ms();
		if (ms < 0)
			ms = 0;
		n = sock_fill(g->fd, g->buf, &g->len, sizeof(g->buf), ms);
		if (n < 0)
			die("QEMU went away");
		if (!n)
			return false;
	}
}

static void gdb_ask(struct gdb *g, char *out, size_t max)
{
	if (!gdb_answer(g, out, max, ANSWER_MS))
		die("the gdb stub of QEMU does not answer");
}

static void gdb_ok(struct gdb *g, const char *what)
{
	char ans[256];

	gdb_ask(g, ans, sizeof(ans));
	if (strcmp(ans, "OK"))
		die("gdb stub: %s: \"%s\"", what, ans);
}

void gdb_bp_set(struct gdb *g, u64 addr)
{
	gdb_send(g, "Z0,%llx,1", (unsigned long long)addr);
	gdb_ok(g, "Z0");
}

void gdb_bp_clear(struct gdb *g, u64 addr)
{
	gdb_send(g, "z0,%llx,1", (unsigned long long)addr);
	gdb_ok(g, "z0");
}

void gdb_step(struct gdb *g)
{
	char ans[256];

	gdb_send(g, "s");
	gdb_ask(g, ans, sizeof(ans));
}

static const struct {
	const char *name;
	u16 off;
	u8 len;
} reg_map[R_NR] = {
	[R_RAX] = { "rax", 0, 8 }, [R_RBX] = { "rbx", 8, 8 },
	[R_RCX] = { "rcx", 16, 8 }, [R_RDX] = { "rdx", 24, 8 },
	[R_RSI] = { "rsi", 32, 8 }, [R_RDI] = { "rdi", 40, 8 },
	[R_RBP] = { "rbp", 48, 8 }, [R_RSP] = { "rsp", 56, 8 },
	[R_R8] = { "r8", 64, 8 }, [R_R9] = { "r9", 72, 8 },
	[R_R10] = { "r10", 80, 8 }, [R_R11] = { "r11", 88, 8 },
	[R_R12] = { "r12", 96, 8 }, [R_R13] = { "r13", 104, 8 },
	[R_R14] = { "r14", 112, 8 }, [R_R15] = { "r15", 120, 8 },
	[R_RIP] = { "rip", 128, 8 }, [R_EFLAGS] = { "rflags", 136, 4 },
	[R_CS] = { "cs", 140, 4 }, [R_SS] = { "ss", 144, 4 },
	[R_DS] = { "ds", 148, 4 }, [R_ES] = { "es", 152, 4 },
	[R_FS] = { "fs", 156, 4 }, [R_GS] = { "gs", 160, 4 },
	[R_FS_BASE] = { "fs_base", 164, 8 }, [R_GS_BASE] = { "gs_base", 172, 8 },
	[R_K_GS_BASE] = { "kernel_gs_base", 180, 8 },
	[R_CR0] = { "cr0", 188, 8 }, [R_CR2] = { "cr2", 196, 8 },
	[R_CR3] = { "cr3", 204, 8 }, [R_CR4] = { "cr4", 212, 8 },
	[R_CR8] = { "cr8", 220, 8 }, [R_EFER] = { "efer", 228, 8 },
};

#define REGS_FPU	236

u64 reg_get(const struct regs *r, enum reg n)
{
	u64 v = 0;

	memcpy(&v, r->raw + reg_map[n].off, reg_map[n].len);
	return v;
}

void reg_put(struct regs *r, enum reg n, u64 val)
{
	memcpy(r->raw + reg_map[n].off, &val, reg_map[n].len);
}

bool reg_diff(const struct regs *a, const struct regs *b, char *out, size_t len)
{
	size_t at = 0;
	int n;

	if (!memcmp(a->raw, b->raw, a->len))
		return false;
	out[0] = 0;
	for (n = 0; n < R_NR; n++) {
		u64 x = reg_get(a, n), y = reg_get(b, n);

		if (x != y && at < len)
			at += snprintf(out + at, len - at, "%s%s 0x%llx, not 0x%llx",
				       at ? "; " : "", reg_map[n].name,
				       (unsigned long long)y, (unsigned long long)x);
	}
	if (at < len && memcmp(a->raw + REGS_FPU, b->raw + REGS_FPU,
			       a->len - REGS_FPU))
		snprintf(out + at, len - at, "%sFPU state", at ? "; " : "");
	return true;
}

void gdb_regs(struct gdb *g, struct regs *r)
{
	char ans[2 * REGS_MAX + 1];
	size_t i;

	gdb_send(g, "g");
	gdb_ask(g, ans, sizeof(ans));
	r->len = strlen(ans) / 2;
	if (r->len < REGS_FPU)
		die("gdb stub: short g packet: \"%.20s\"", ans);
	for (i = 0; i < r->len; i++)
		r->raw[i] = unhex(ans[2 * i]) << 4 | unhex(ans[2 * i + 1]);
}

void gdb_reg_set(struct gdb *g, enum reg n, u64 val)
{
	char hex[17];
	int i;

	for (i = 0; i < reg_map[n].len; i++) {
		hex[2 * i] = hexdigit[(val >> (8 * i + 4)) & 15];
		hex[2 * i + 1] = hexdigit[(val >> (8 * i)) & 15];
	}
	hex[2 * i] = 0;
	gdb_send(g, "P%x=%s", n, hex);
	gdb_ok(g, "P");
}

void gdb_read(struct gdb *g, u64 phys, void *buf, size_t len)
{
	char ans[4096];
	size_t i;

	gdb_send(g, "m%llx,%zx", (unsigned long long)phys, len);
	gdb_ask(g, ans, sizeof(ans));
	if (strlen(ans) != 2 * len)
		die("gdb stub: cannot read 0x%llx: \"%s\"",
		    (unsigned long long)phys, ans);
	for (i = 0; i < len; i++)
		((u8 *)buf)[i] = unhex(ans[2 * i]) << 4 | unhex(ans[2 * i + 1]);
}

void gdb_write(struct gdb *g, u64 phys, const void *buf, size_t len)
{
	char hex[2048];
	size_t i;

	for (i = 0; i < len; i++) {
		hex[2 * i] = hexdigit[((const u8 *)buf)[i] >> 4];
		hex[2 * i + 1] = hexdigit[((const u8 *)buf)[i] & 15];
	}
	hex[2 * i] = 0;
	gdb_send(g, "M%llx,%zx:%s", (unsigned long long)phys, len, hex);
	gdb_ok(g, "M");
}

void gdb_run(struct gdb *g)
{
	gdb_send(g, "c");
}

void gdb_interrupt(struct gdb *g)
{
	send_raw(g, "\x03", 1);
}

void gdb_flush(struct gdb *g)
{
	while (sock_fill(g->fd, g->buf, &g->len, sizeof(g->buf), 0) > 0)
		;
	g->len = 0;
}

void gdb_open(struct gdb *g, const char *path, int pid)
{
	char ans[8192];

	g->fd = sock_connect(path, pid);
	g->len = 0;
	send_raw(g, "+", 1);
	gdb_send(g, "qSupported:xmlRegisters=i386");
	gdb_ask(g, ans, sizeof(ans));
	/* The P packet works only for a client that has read the layout. */
	gdb_send(g, "qXfer:features:read:target.xml:0,ffb");
	gdb_ask(g, ans, sizeof(ans));
	gdb_send(g, "Qqemu.PhyMemMode:1");
	gdb_ok(g, "Qqemu.PhyMemMode");
	gdb_send(g, "Qqemu.sstep=0x7");
	gdb_ok(g, "Qqemu.sstep");
}

void gdb_close(struct gdb *g)
{
	close(g->fd);
}

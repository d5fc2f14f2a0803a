// SPDX-License-Identifier: GPL-2.0
/*
 * One QEMU: start and end it, speak the gdb remote protocol to its stub and
 * QMP to its monitor, both over unix sockets.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "inject.h"

/* How long QEMU may take for an answer of its own, not of the guest. */
#define ANSWER_MS	30000

static long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

static int sock_connect(struct vm *vm, const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	long long end = now_ms() + ANSWER_MS;
	int fd;

	if (strlen(path) >= sizeof(sa.sun_path))
		die("%s: path too long for a socket", path);
	strcpy(sa.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		die("socket: %s", strerror(errno));
	while (connect(fd, (struct sockaddr *)&sa, sizeof(sa))) {
		if (now_ms() > end || waitpid(vm->pid, NULL, WNOHANG) == vm->pid)
			die("QEMU did not start (no %s)", path);
		usleep(10000);
	}
	return fd;
}

static void sock_send(int fd, const char *buf, size_t len)
{
	while (len) {
		ssize_t n = send(fd, buf, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			die("QEMU went away (send: %s)", strerror(errno));
		buf += n;
		len -= n;
	}
}

/* Append what is there to @buf; false if nothing came in @ms. */
static bool sock_fill(int fd, char *buf, size_t *len, size_t max, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	ssize_t n;

	if (poll(&p, 1, ms) <= 0)
		return false;
	if (*len >= max)
		die("answer of QEMU too long");
	n = recv(fd, buf + *len, max - *len, 0);
	if (n <= 0)
		die("QEMU went away (recv)");
	*len += n;
	return true;
}

/* gdb remote protocol */

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

static void gdb_send(struct vm *vm, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Answers are not acknowledged: the stub takes the next packet for that. */
static void gdb_send(struct vm *vm, const char *fmt, ...)
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
	sock_send(vm->gdb, pkt, n);
}

/* One packet's body into @out; false if none came in @ms. */
static bool gdb_recv(struct vm *vm, char *out, size_t max, int ms)
{
	long long end = now_ms() + ms;

	for (;;) {
		char *b = memchr(vm->gdb_buf, '$', vm->gdb_len);
		char *e = b ? memchr(b, '#', vm->gdb_buf + vm->gdb_len - b) : NULL;

		if (e && e + 2 < vm->gdb_buf + vm->gdb_len) {
			size_t n = e - b - 1;

			if (n >= max)
				n = max - 1;
			memcpy(out, b + 1, n);
			out[n] = 0;
			e += 3;
			vm->gdb_len -= e - vm->gdb_buf;
			memmove(vm->gdb_buf, e, vm->gdb_len);
			return true;
		}
		ms = end - now_ms();
		if (ms < 0)
			ms = 0;
		if (!sock_fill(vm->gdb, vm->gdb_buf, &vm->gdb_len,
			       sizeof(vm->gdb_buf), ms))
			return false;
	}
}

static void gdb_ask(struct vm *vm, char *out, size_t max)
{
	if (!gdb_recv(vm, out, max, ANSWER_MS))
		die("the gdb stub of QEMU does not answer");
}

static void gdb_ok(struct vm *vm, const char *what)
{
	char ans[256];

	gdb_ask(vm, ans, sizeof(ans));
	if (strcmp(ans, "OK"))
		die("gdb stub: %s: \"%s\"", what, ans);
}

void vm_bp_set(struct vm *vm, u64 addr)
{
	gdb_send(vm, "Z0,%llx,1", (unsigned long long)addr);
	gdb_ok(vm, "Z0");
}

void vm_bp_clear(struct vm *vm, u64 addr)
{
	gdb_send(vm, "z0,%llx,1", (unsigned long long)addr);
	gdb_ok(vm, "z0");
}

void vm_step(struct vm *vm)
{
	char ans[256];

	gdb_send(vm, "s");
	gdb_ask(vm, ans, sizeof(ans));
}

/* CPU time of QEMU in ms: a guest that got no host CPU does not hang. */
static long long vm_cpu_ms(struct vm *vm)
{
	unsigned long long ut, st;
	char path[64], buf[1024], *p;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", vm->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n <= 0)
		return 0;
	buf[n] = 0;
	p = strrchr(buf, ')');
	if (!p || sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu",
			 &ut, &st) != 2)
		return 0;
	return (ut + st) * 1000 / sysconf(_SC_CLK_TCK);
}

enum stop vm_cont(struct vm *vm, int limit_ms)
{
	long long cpu, wall;
	char ans[256];

	gdb_send(vm, "c");
	if (gdb_recv(vm, ans, sizeof(ans), 50))
		goto stopped;
	cpu = vm_cpu_ms(vm);
	wall = now_ms();
	while (!gdb_recv(vm, ans, sizeof(ans), 20)) {
		long long used = vm_cpu_ms(vm) - cpu;
		long long past = now_ms() - wall;

		/* A guest that spins, or one that sleeps for good. */
		if (used < limit_ms && past < 20 * limit_ms)
			continue;
		sock_send(vm->gdb, "\x03", 1);
		gdb_ask(vm, ans, sizeof(ans));
		/* It may have stopped by itself in the meantime. */
		if (!strncmp(ans, "T05", 3))
			goto stopped;
		return STOP_HANG;
	}
stopped:
	if (!strncmp(ans, "T05", 3))
		return STOP_TRAP;
	vm->dead_guest = true;
	return STOP_RESET;
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

const char *reg_name(enum reg n)
{
	return reg_map[n].name;
}

u64 reg_get(const struct regs *r, enum reg n)
{
	u64 v = 0;

	memcpy(&v, r->raw + reg_map[n].off, reg_map[n].len);
	return v;
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

void vm_regs(struct vm *vm, struct regs *r)
{
	char ans[2 * REGS_MAX + 1];
	size_t i;

	gdb_send(vm, "g");
	gdb_ask(vm, ans, sizeof(ans));
	r->len = strlen(ans) / 2;
	if (r->len < REGS_FPU)
		die("gdb stub: short g packet: \"%.20s\"", ans);
	for (i = 0; i < r->len; i++)
		r->raw[i] = unhex(ans[2 * i]) << 4 | unhex(ans[2 * i + 1]);
}

void vm_reg_set(struct vm *vm, enum reg n, u64 val)
{
	char hex[17];
	int i;

	for (i = 0; i < reg_map[n].len; i++) {
		hex[2 * i] = hexdigit[(val >> (8 * i + 4)) & 15];
		hex[2 * i + 1] = hexdigit[(val >> (8 * i)) & 15];
	}
	hex[2 * i] = 0;
	gdb_send(vm, "P%x=%s", n, hex);
	gdb_ok(vm, "P");
}

void vm_read(struct vm *vm, u64 phys, void *buf, size_t len)
{
	char ans[4096];
	size_t i;

	gdb_send(vm, "m%llx,%zx", (unsigned long long)phys, len);
	gdb_ask(vm, ans, sizeof(ans));
	if (strlen(ans) != 2 * len)
		die("gdb stub: cannot read 0x%llx: \"%s\"",
		    (unsigned long long)phys, ans);
	for (i = 0; i < len; i++)
		((u8 *)buf)[i] = unhex(ans[2 * i]) << 4 | unhex(ans[2 * i + 1]);
}

void vm_write(struct vm *vm, u64 phys, const void *buf, size_t len)
{
	char hex[2048];
	size_t i;

	for (i = 0; i < len; i++) {
		hex[2 * i] = hexdigit[((const u8 *)buf)[i] >> 4];
		hex[2 * i + 1] = hexdigit[((const u8 *)buf)[i] & 15];
	}
	hex[2 * i] = 0;
	gdb_send(vm, "M%llx,%zx:%s", (unsigned long long)phys, len, hex);
	gdb_ok(vm, "M");
}

/* QMP */

/* One line into @out, events left out. */
static void qmp_recv(struct vm *vm, char *out, size_t max)
{
	long long end = now_ms() + ANSWER_MS;

	for (;;) {
		char *nl = memchr(vm->qmp_buf, '\n', vm->qmp_len);

		if (nl) {
			size_t n = nl - vm->qmp_buf;
			bool event;

			*nl = 0;
			event = strstr(vm->qmp_buf, "\"event\":") &&
				!strstr(vm->qmp_buf, "\"return\":");
			if (!event)
				snprintf(out, max, "%s", vm->qmp_buf);
			vm->qmp_len -= n + 1;
			memmove(vm->qmp_buf, nl + 1, vm->qmp_len);
			if (!event)
				return;
			continue;
		}
		if (now_ms() > end)
			die("the monitor of QEMU does not answer");
		sock_fill(vm->qmp, vm->qmp_buf, &vm->qmp_len,
			  sizeof(vm->qmp_buf), 1000);
	}
}

static void qmp_cmd(struct vm *vm, const char *json, char *out, size_t max)
{
	sock_send(vm->qmp, json, strlen(json));
	sock_send(vm->qmp, "\n", 1);
	qmp_recv(vm, out, max);
	if (!strstr(out, "\"return\""))
		die("QMP: %s: %s", json, out);
}

void vm_inject_nmi(struct vm *vm)
{
	char ans[512];

	qmp_cmd(vm, "{\"execute\":\"inject-nmi\"}", ans, sizeof(ans));
}

/* Human monitor command; its text with \r\n made \n into @out. */
void vm_hmp(struct vm *vm, const char *cmd, char *out, size_t len)
{
	char json[512], ans[16384], *p;
	size_t n = 0;

	snprintf(json, sizeof(json),
		 "{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"%s\"}}",
		 cmd);
	qmp_cmd(vm, json, ans, sizeof(ans));
	p = strstr(ans, "\"return\"");
	p = strchr(p + 8, '"');
	for (p++; *p && *p != '"' && n + 1 < len; p++) {
		if (*p == '\\') {
			p++;
			if (*p == 'r')
				continue;
			out[n++] = *p == 'n' ? '\n' : *p;
		} else {
			out[n++] = *p;
		}
	}
	if (len)
		out[n] = 0;
}

u64 vm_translate(struct vm *vm, u64 virt)
{
	char cmd[64], ans[256], *p;

	snprintf(cmd, sizeof(cmd), "gva2gpa 0x%llx", (unsigned long long)virt);
	vm_hmp(vm, cmd, ans, sizeof(ans));
	p = strstr(ans, "gpa: ");
	if (!p)
		return ~0ULL;
	return strtoull(p + 5, NULL, 16);
}

void vm_savevm(struct vm *vm, const char *name)
{
	char cmd[64], ans[512];

	snprintf(cmd, sizeof(cmd), "savevm %s", name);
	vm_hmp(vm, cmd, ans, sizeof(ans));
	if (ans[0])
		die("savevm: %s", ans);
}

void vm_loadvm(struct vm *vm, const char *name)
{
	char cmd[64], ans[512];

	if (vm->dead_guest) {
		/* A guest that shut down runs again only after a reset. */
		qmp_cmd(vm, "{\"execute\":\"system_reset\"}", ans, sizeof(ans));
		do {
			usleep(2000);
			qmp_cmd(vm, "{\"execute\":\"query-status\"}", ans,
				sizeof(ans));
		} while (strstr(ans, "\"shutdown\""));
		vm->dead_guest = false;
	}
	snprintf(cmd, sizeof(cmd), "loadvm %s", name);
	vm_hmp(vm, cmd, ans, sizeof(ans));
	if (ans[0])
		die("loadvm: %s", ans);
	/* Stops that belong to the time before. */
	while (sock_fill(vm->gdb, vm->gdb_buf, &vm->gdb_len,
			 sizeof(vm->gdb_buf), 0))
		;
	vm->gdb_len = 0;
}

static void run_tool(const char *const argv[])
{
	int st, pid = fork();

	if (!pid) {
		int null = open("/dev/null", O_WRONLY);

		dup2(null, 1);
		execvp(argv[0], (char *const *)argv);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &st, 0) != pid || st)
		die("%s failed", argv[0]);
}

void vm_start(struct vm *vm, const struct vm_config *cfg)
{
	char gdb[256], qmp[256], snap[256], drive[300], log[256];
	char gdbdev[300], qmpdev[300], serial[300], ans[8192];
	const char *mkimg[] = { "qemu-img", "create", "-q", "-f", "qcow2", snap,
				"4G", NULL };
	const char *argv[] = {
		cfg->qemu, "-nodefaults", "-no-user-config", "-display", "none",
		"-accel", "tcg,thread=single", "-smp", "1",
		"-m", cfg->memory, "-cpu", cfg->cpu,
		"-kernel", cfg->kernel, "-initrd", cfg->initrd,
		"-append", cfg->append, "-S",
		"-chardev", gdbdev, "-gdb", "chardev:gdb",
		"-chardev", qmpdev, "-mon", "chardev=qmp,mode=control",
		"-drive", drive,
		"-action", "reboot=shutdown,shutdown=pause,panic=pause",
		"-serial", serial,
		NULL
	};

	memset(vm, 0, sizeof(*vm));
	snprintf(gdb, sizeof(gdb), "%s/gdb", cfg->dir);
	snprintf(qmp, sizeof(qmp), "%s/qmp", cfg->dir);
	snprintf(snap, sizeof(snap), "%s/snap.qcow2", cfg->dir);
	snprintf(log, sizeof(log), "%s/qemu.log", cfg->dir);
	snprintf(gdbdev, sizeof(gdbdev), "socket,id=gdb,path=%s,server=on,wait=off", gdb);
	snprintf(qmpdev, sizeof(qmpdev), "socket,id=qmp,path=%s,server=on,wait=off", qmp);
	snprintf(drive, sizeof(drive), "if=none,id=snap,format=qcow2,cache=unsafe,file=%s", snap);
	if (cfg->serial)
		snprintf(serial, sizeof(serial), "file:%s", cfg->serial);
	else
		snprintf(serial, sizeof(serial), "none");
	unlink(gdb);
	unlink(qmp);
	run_tool(mkimg);

	vm->pid = fork();
	if (vm->pid < 0)
		die("fork: %s", strerror(errno));
	if (!vm->pid) {
		int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0644);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(fd, 1);
		dup2(fd, 2);
		execvp(argv[0], (char *const *)argv);
		_exit(127);
	}

	vm->qmp = sock_connect(vm, qmp);
	qmp_recv(vm, ans, sizeof(ans));
	qmp_cmd(vm, "{\"execute\":\"qmp_capabilities\"}", ans, sizeof(ans));

	vm->gdb = sock_connect(vm, gdb);
	sock_send(vm->gdb, "+", 1);
	gdb_send(vm, "qSupported:xmlRegisters=i386");
	gdb_ask(vm, ans, sizeof(ans));
	/* The P packet works only for a client that has read the layout. */
	gdb_send(vm, "qXfer:features:read:target.xml:0,ffb");
	gdb_ask(vm, ans, sizeof(ans));
	gdb_send(vm, "Qqemu.PhyMemMode:1");
	gdb_ok(vm, "Qqemu.PhyMemMode");
	/* Neither interrupts nor timers while stepping. */
	gdb_send(vm, "Qqemu.sstep=0x7");
	gdb_ok(vm, "Qqemu.sstep");
}

void vm_kill(struct vm *vm)
{
	if (vm->pid > 0) {
		kill(vm->pid, SIGKILL);
		waitpid(vm->pid, NULL, 0);
	}
	if (vm->gdb > 0)
		close(vm->gdb);
	if (vm->qmp > 0)
		close(vm->qmp);
	vm->pid = 0;
}

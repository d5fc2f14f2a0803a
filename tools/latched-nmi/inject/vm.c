// SPDX-License-Identifier: GPL-2.0
/*
 * One QEMU: start and end it, let it run, take snapshots.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vm.h"

#define ANSWER_MS	30000
#define MAX_ARGS	80

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

	gdb_run(&vm->gdb);
	if (gdb_answer(&vm->gdb, ans, sizeof(ans), 50))
		goto stopped;
	cpu = vm_cpu_ms(vm);
	wall = now_ms();
	while (!gdb_answer(&vm->gdb, ans, sizeof(ans), 20)) {
		long long used = vm_cpu_ms(vm) - cpu;
		long long past = now_ms() - wall;

		/* A guest that spins, or one that sleeps for good. */
		if (used < limit_ms && past < 20 * limit_ms)
			continue;
		gdb_interrupt(&vm->gdb);
		if (!gdb_answer(&vm->gdb, ans, sizeof(ans), ANSWER_MS))
			die("the gdb stub of QEMU does not answer");
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

static json_t *execute(struct vm *vm, const char *command)
{
	json_t *result = qmp_execute(&vm->qmp, command, NULL);

	if (!result)
		die("QMP: %s", vm->qmp.error);
	return result;
}

void vm_inject_nmi(struct vm *vm)
{
	json_decref(execute(vm, "inject-nmi"));
}

char *vm_hmp(struct vm *vm, const char *cmd)
{
	char *text = qmp_human(&vm->qmp, cmd);

	if (!text)
		die("QMP: %s: %s", cmd, vm->qmp.error);
	return text;
}

u64 vm_translate(struct vm *vm, u64 virt)
{
	char cmd[64], *ans, *p;
	u64 phys;

	snprintf(cmd, sizeof(cmd), "gva2gpa 0x%llx", (unsigned long long)virt);
	ans = vm_hmp(vm, cmd);
	p = strstr(ans, "gpa: ");
	phys = p ? strtoull(p + 5, NULL, 16) : ~0ULL;
	free(ans);
	return phys;
}

/* savevm and loadvm say something only if they fail. */
static void snapshot(struct vm *vm, const char *op, const char *name)
{
	char cmd[64], *ans;

	snprintf(cmd, sizeof(cmd), "%s %s", op, name);
	ans = vm_hmp(vm, cmd);
	if (ans[0])
		die("%s: %s", cmd, ans);
	free(ans);
}

void vm_savevm(struct vm *vm, const char *name)
{
	snapshot(vm, "savevm", name);
}

static bool is_shut_down(struct vm *vm)
{
	json_t *result = execute(vm, "query-status");
	const char *status = json_string_value(json_object_get(result, "status"));
	bool down = status && !strcmp(status, "shutdown");

	json_decref(result);
	return down;
}

void vm_loadvm(struct vm *vm, const char *name)
{
	if (vm->dead_guest) {
		/* A guest that shut down runs again only after a reset. */
		json_decref(execute(vm, "system_reset"));
		do
			usleep(2000);
		while (is_shut_down(vm));
		vm->dead_guest = false;
	}
	snapshot(vm, "loadvm", name);
	gdb_flush(&vm->gdb);
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

/* Append the words of @options. */
static void add_words(const char **argv, const char *options)
{
	char *words = xstrdup(options), *w, *save;
	int n = 0;

	while (argv[n])
		n++;
	for (w = strtok_r(words, " \t", &save); w; w = strtok_r(NULL, " \t", &save)) {
		if (n + 1 == MAX_ARGS)
			die("too many options for QEMU: %s", options);
		argv[n++] = w;
	}
}

void vm_start(struct vm *vm, const struct vm_config *cfg)
{
	char gdb[256], qmp[256], snap[256], drive[300], log[256];
	char gdbdev[300], qmpdev[300], serial[300];
	const char *mkimg[] = { "qemu-img", "create", "-q", "-f", "qcow2", snap,
				"4G", NULL };
	const char *argv[MAX_ARGS] = {
		cfg->qemu, "-nodefaults", "-no-user-config", "-display", "none",
		"-accel", "tcg,thread=single", "-smp", "1",
		"-m", "256M", "-cpu", cfg->cpu,
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
	add_words(argv, cfg->options);
	snprintf(vm->log, sizeof(vm->log), "%s/in_asm", cfg->dir);
	if (cfg->log_text) {
		char *words = xasprintf("-d in_asm -D %s -dfilter %s", vm->log, cfg->log_text);

		add_words(argv, words);
		free(words);
	}
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

	qmp_open(&vm->qmp, qmp, vm->pid);
	gdb_open(&vm->gdb, gdb, vm->pid);
}

void vm_kill(struct vm *vm)
{
	kill(vm->pid, SIGKILL);
	waitpid(vm->pid, NULL, 0);
	gdb_close(&vm->gdb);
	qmp_close(&vm->qmp);
	vm->pid = 0;
}

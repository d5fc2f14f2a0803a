// SPDX-License-Identifier: GPL-2.0
/*
 * What perf does at an overflow that arrives as an NMI
 *
 * A BPF program runs at each overflow, a limit disables the event, SIGTRAP comes
 * at a user-mode sample, and an event whose overflows come too fast is throttled.
 */
#include <linux/bpf.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "common.h"

#define PERIOD_NS	100000
#define ENOUGH		50
#define REFRESH_PERIOD_NS	10000000

/* On a loaded host there are few NMIs: what is enough for a test, and when to stop. */
#define TOO_FEW		10
#define LIMIT_S		10

static int bpf(int cmd, union bpf_attr *attr)
{
	return syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

#define INSN(c, d, s, o, i)	\
	((struct bpf_insn){ .code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i) })

/* An array of one counter, and a program that adds 1 to it and returns @ret. */
static int load_counter(int *map, int ret)
{
	union bpf_attr attr = {
		.map_type = BPF_MAP_TYPE_ARRAY,
		.key_size = 4,
		.value_size = 8,
		.max_entries = 1,
	};

	*map = bpf(BPF_MAP_CREATE, &attr);
	if (*map < 0)
		return -1;

	struct bpf_insn program[] = {
		/* *(u32 *)(fp - 4) = 0; r0 = map_lookup_elem(map, fp - 4) */
		INSN(BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, -4, 0),
		INSN(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_2, BPF_REG_10, 0, 0),
		INSN(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_2, 0, 0, -4),
		INSN(BPF_LD | BPF_DW | BPF_IMM, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, *map),
		INSN(0, 0, 0, 0, 0),
		INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem),
		/* if (r0) lock *(u64 *)r0 += 1 */
		INSN(BPF_JMP | BPF_JEQ | BPF_K, BPF_REG_0, 0, 2, 0),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_1, 0, 0, 1),
		INSN(BPF_STX | BPF_ATOMIC | BPF_DW, BPF_REG_0, BPF_REG_1, 0, BPF_ADD),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, ret),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};

	attr = (union bpf_attr){
		.prog_type = BPF_PROG_TYPE_PERF_EVENT,
		.insns = (unsigned long)program,
		.insn_cnt = ARRAY_SIZE(program),
		.license = (unsigned long)"GPL",
	};
	return bpf(BPF_PROG_LOAD, &attr);
}

static unsigned long counter(int map)
{
	unsigned long value = 0;
	unsigned int key = 0;
	union bpf_attr attr = {
		.map_fd = map,
		.key = (unsigned long)&key,
		.value = (unsigned long)&value,
	};

	return bpf(BPF_MAP_LOOKUP_ELEM, &attr) ? 0 : value;
}

static struct perf_event_attr attr_of(unsigned long period_ns)
{
	return (struct perf_event_attr){
		.type = read_number(PMU "type"),
		.size = sizeof(struct perf_event_attr),
		.config = EVENT_IPI,
		.sample_period = period_ns,
		.disabled = 1,
	};
}

static int open_event(struct perf_event_attr attr)
{
	int fd = perf_event_open(&attr);

	if (fd < 0)
		ksft_print_msg("perf_event_open: %s\n", strerror(errno));
	return fd;
}

static atomic_uint signals;

static void on_signal(int sig)
{
	signals++;
}

static atomic_uint hangups;

static void on_poll(int sig, siginfo_t *info, void *context)
{
	hangups += info->si_code == POLL_HUP;
}

static void spin(double seconds)
{
	double end = now() + seconds;

	while (now() < end)
		continue;
}

/* The program runs for each overflow, and none other does after it said 0. */
static bool bpf_program(void)
{
	struct perf_event_attr attr = attr_of(PERIOD_NS);
	unsigned long samples = read_stat("samples"), runs;
	int map, program, fd;
	void *ring;
	double end;
	bool ok;

	program = load_counter(&map, 0);
	if (program < 0) {
		ksft_print_msg("BPF: %s\n", strerror(errno));
		return false;
	}
	attr.sample_type = PERF_SAMPLE_IP;
	fd = open_event(attr);
	if (fd < 0)
		return false;
	ring = mmap(NULL, 2 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (ring == MAP_FAILED || ioctl(fd, PERF_EVENT_IOC_SET_BPF, program)) {
		ksft_print_msg("attaching the program: %s\n", strerror(errno));
		close(fd);
		return false;
	}

	ioctl(fd, PERF_EVENT_IOC_ENABLE, 0);
	for (end = now() + LIMIT_S; now() < end && counter(map) < ENOUGH;)
		spin(0.1);
	ioctl(fd, PERF_EVENT_IOC_DISABLE, 0);

	samples = read_stat("samples") - samples;
	runs = counter(map);
	ksft_print_msg("%lu overflows, %lu runs of the program, %lu bytes of samples\n",
		       samples, runs,
		       (unsigned long)((struct perf_event_mmap_page *)ring)->data_head);
	ok = runs >= TOO_FEW && runs >= samples &&
	     !((struct perf_event_mmap_page *)ring)->data_head;
	munmap(ring, 2 * 4096);
	close(fd);
	close(program);
	close(map);
	return ok;
}

/*
 * The third overflow disables the event, with POLL_HUP, from an interrupt that waits
 * until the CPU allows it. That takes far less than a period: at most one NMI more is
 * pending by then. A late timer sends one NMI for several overflows.
 */
static bool refresh(void)
{
	struct sigaction action = { .sa_sigaction = on_poll, .sa_flags = SA_SIGINFO };
	unsigned long samples, later;
	double end;
	int fd;

	/* SIGIO would neither be queued nor say why it comes. */
	sigaction(SIGRTMIN, &action, NULL);
	fd = open_event(attr_of(REFRESH_PERIOD_NS));
	if (fd < 0)
		return false;
	fcntl(fd, F_SETFL, O_ASYNC);
	fcntl(fd, F_SETSIG, SIGRTMIN);
	fcntl(fd, F_SETOWN, getpid());

	samples = read_stat("samples");
	hangups = 0;
	ioctl(fd, PERF_EVENT_IOC_REFRESH, 3);
	for (end = now() + LIMIT_S; now() < end && !hangups;)
		spin(0.01);
	later = read_stat("samples");
	samples = later - samples;
	spin(0.1);
	later = read_stat("samples") - later;
	ksft_print_msg("REFRESH 3: %lu overflows, %u POLL_HUP, %lu overflows later\n",
		       samples, hangups, later);
	close(fd);
	return samples >= 1 && samples <= 4 && hangups == 1 && !later;
}

/* SIGTRAP in the task that the overflow has interrupted. */
static bool sigtrap(void)
{
	struct perf_event_attr attr = attr_of(1000000);
	double end;
	int fd;

	attr.sigtrap = 1;
	attr.remove_on_exec = 1;
	attr.exclude_kernel = 1;
	signals = 0;
	signal(SIGTRAP, on_signal);
	fd = open_event(attr);
	if (fd < 0)
		return false;
	ioctl(fd, PERF_EVENT_IOC_ENABLE, 0);
	for (end = now() + LIMIT_S; now() < end && signals < ENOUGH;)
		spin(0.1);
	close(fd);
	ksft_print_msg("SIGTRAP: %u signals\n", signals);
	return signals >= TOO_FEW;
}

static unsigned long throttle_records(void *ring)
{
	struct perf_event_mmap_page *page = ring;
	unsigned long tail = 0, n = 0;

	while (tail < page->data_head) {
		struct perf_event_header *h = ring + 4096 + tail % (16 * 4096);

		n += h->type == PERF_RECORD_THROTTLE;
		tail += h->size;
	}
	return n;
}

/* Overflows faster than the handler, above the rate that the sysctl allows. */
static bool throttle(void)
{
	static const char rate[] = "/proc/sys/kernel/perf_event_max_sample_rate";
	unsigned long old = read_number(rate), n;
	struct perf_event_attr attr = attr_of(20000);
	char text[32];
	double end;
	void *ring;
	int fd;

	attr.sample_type = PERF_SAMPLE_IP;
	if (!write_file(rate, "1")) {
		ksft_print_msg("%s: %s\n", rate, strerror(errno));
		return false;
	}
	write_file(DEBUGFS "hold_ns", "200000");
	fd = open_event(attr);
	if (fd < 0)
		return false;
	ring = mmap(NULL, 17 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (ring == MAP_FAILED) {
		ksft_print_msg("mmap: %s\n", strerror(errno));
		close(fd);
		return false;
	}
	ioctl(fd, PERF_EVENT_IOC_ENABLE, 0);
	for (end = now() + LIMIT_S; now() < end && !throttle_records(ring);)
		spin(0.1);
	ioctl(fd, PERF_EVENT_IOC_DISABLE, 0);
	write_file(DEBUGFS "hold_ns", "0");
	snprintf(text, sizeof(text), "%lu", old);
	write_file(rate, text);

	n = throttle_records(ring);
	ksft_print_msg("throttled %lu times\n", n);
	munmap(ring, 17 * 4096);
	close(fd);
	return n > 0;
}

int main(void)
{
	ksft_print_header();
	need_module();
	pin(0);
	ksft_set_plan(5);

	if (access("/proc/sys/kernel/unprivileged_bpf_disabled", F_OK))
		ksft_test_result_skip("handler-bpf_program no CONFIG_BPF_SYSCALL\n");
	else
		ksft_test_result(bpf_program(), "handler-bpf_program\n");
	ksft_test_result(refresh(), "handler-perf_refresh\n");
	ksft_test_result(sigtrap(), "handler-perf_sigtrap\n");
	ksft_test_result(throttle(), "handler-perf_throttle\n");
	test_nothing_lost();
	ksft_finished();
}

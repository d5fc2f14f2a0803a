// SPDX-License-Identifier: GPL-2.0
/*
 * Test PMU and fault triggers for the x86-64 NMI entry
 *
 * The module sends real NMIs, runs a handler in them, makes that handler fault
 * on request, and accounts for every NMI that it has sent. It needs neither a
 * hardware PMU nor CONFIG_X86_LATCHED_NMI: on the classic NMI entry it works the
 * same.
 *
 * Perf events (/sys/bus/event_source/devices/latched_nmi_test/)
 *
 *   latched_nmi_test/ipi/	another CPU sends an NMI IPI each period
 *   latched_nmi_test/self/	the sampled CPU sends it to itself, from its timer
 *				interrupt
 *
 *   Both count the nanoseconds for which the event has been enabled, as cpu-clock
 *   does: "-c 1000000" and "-F 1000" are both one NMI per millisecond. A period
 *   below 20000 ns is rejected. The sample is taken in the NMI handler. Only
 *   sampling events exist; per-CPU and per-task events both work, as do the
 *   modifiers :u and :k. With a single CPU online "ipi" falls back to "self".
 *
 *     perf record -e latched_nmi_test/ipi/ -F 1000 -a -g -- sleep 5
 *
 * Files (/sys/kernel/debug/latched_nmi_test/)
 *
 *   faults	(rw) Kinds of faults that every handler run takes, in that order,
 *		separated by blanks; "none" (the default) or an empty line for
 *		none. The kinds are:
 *
 *		  int3     a kprobe, not optimized, on a function of this module
 *		  page     load from a user address that nothing maps (#PF)
 *		  vmalloc  load from a vmalloc guard page (#PF)
 *		  user     copy_from_user_nmi() from user_addr (#PF unless resident)
 *		  gp       load from a non-canonical address (#GP)
 *		  db       data breakpoint, DR7 armed by the handler (#DB)
 *		  iret     iret_to_self(), no exception: unmasks NMIs, nothing else
 *
 *   user_addr	(rw) Address for the kind "user", in the task that the NMI hits.
 *		0, the default, stands for that task's user stack pointer.
 *   hold_ns	(rw) Time that each handler run spins after its faults; at most
 *		1000000 ns.
 *   storm	(rw) Write "<nmis> [<burst> [<gap_ns> [<cpu>]]]": sends that many
 *		NMIs from the CPU that writes to <cpu> (by default another one,
 *		never the writer's as long as there are two), in bursts of <burst>
 *		(default 1) with <gap_ns> (default 0) in between, and waits after
 *		each burst until a handler run has begun after the burst's last
 *		NMI was sent. Returns when done. Reading shows the last result.
 *   chase	(rw) Write "<rounds> [<max_delay_ns> [<cpu>]]": each round sends an
 *		NMI, waits for the last statement of its handler, and sends another
 *		after a delay that sweeps 0 ... <max_delay_ns> (default 20000). Aims
 *		at the exit path of the entry code; "iret" in faults is needed for
 *		NMIs to be unmasked there. Reading shows the last result.
 *   nested	(rw) Write "<kind> [<rounds> [<cpu>]]", <kind> as in faults or
 *		"none": each round sends an NMI to <cpu>; its handler takes the
 *		fault, then sends an NMI to its own CPU, which arrives nested
 *		(with "none", where NMIs are still masked, after the run). It must not
 *		run the handler inside the handler, and a handler run must begin
 *		afterwards. Reading shows the last result.
 *   stats	(ro) One counter a line: its name, its total, its value for each
 *		possible CPU.
 *
 *		  sent        NMIs sent, by events, operations and the handler itself
 *		  runs        handler runs with NMIs of this module pending
 *		  runs_user   of these, runs that interrupted user mode
 *		  late        runs whose NMI an earlier run had already accounted for
 *		  foreign     runs for NMIs of others
 *		  lost        NMIs that no handler run followed within 2 seconds
 *		  reentered   runs that began inside another run on that CPU
 *		  nested      NMIs that the handler has sent to its own CPU
 *		  samples     overflows handed to perf
 *		  throttled   overflows upon which perf has throttled the event
 *		  int3 page vmalloc user gp db iret
 *		              faults taken, counted where the fault was handled: in the
 *		              kprobe's or the breakpoint's handler, or by the result
 *		              of the fixed-up access
 *		  user_copied copies of kind "user" that did not fault
 *
 *   reset	(wo) Any write sets all counters to zero.
 *
 * A result is one line of name=value pairs that ends in result=pass or
 * result=fail:
 *
 *   storm	sent= runs= lost= reentered= ns= result=
 *   chase	sent= runs= lost= reentered= result=
 *   nested	kind= rounds= faults= user= begun_after= lost= reentered= result=
 *
 * where runs= are handler runs on the target CPU, user= is the number of rounds
 * that interrupted user mode, and begun_after= the number of rounds in which the
 * next handler run began after the nested NMI was sent.
 */

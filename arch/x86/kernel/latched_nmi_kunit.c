// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of what latched_nmi.c decides; it includes this file.
 *
 * The fix-up runs on exception stacks that are made for the test: those of this CPU
 * are replaced for as long as it takes. An NMI in the meantime does not notice, since
 * its entry goes by RSP.
 */
#include <kunit/test.h>
#include <asm/sections.h>

#define AT(symbol)	((unsigned long)(symbol))

/* Exception stacks, and an #MC that has hit @regs. */
struct latched_nmi_test {
	struct cea_exception_stacks	*stacks;
	struct latched_nmi_top		*nmi;
	struct latched_nmi_context	*real;
	struct latched_nmi_context	*latched;
	struct latched_nmi_context	*parked;
	struct latched_nmi_context	*debug;
	struct pt_regs			regs;
};

/* What an NMI, #MC or #DB has interrupted; a test changes what it is about. */
static const struct latched_nmi_context latched_nmi_test_context __initconst = {
	.dx	= 0xd0d0d0d0d0d0d0d0,
	.cs	= __KERNEL_CS,
	.flags	= X86_EFLAGS_FIXED | X86_EFLAGS_CF | X86_EFLAGS_ZF,
	.sp	= 0xffffc90000001238,
	.ss	= __KERNEL_DS,
};

static int latched_nmi_test_init(struct kunit *test)
{
	struct latched_nmi_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, t);
	t->stacks = kunit_kzalloc(test, sizeof(*t->stacks), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, t->stacks);
	t->nmi = (struct latched_nmi_top *)CEA_ESTACK_TOP(t->stacks, NMI) - 1;
	t->real = &t->nmi->frame;
	t->latched = latched_nmi_latched_frame(t->nmi);
	t->parked = &((struct latched_nmi_top *)CEA_ESTACK_TOP(t->stacks, DF) - 1)->frame;
	t->debug = &((struct latched_nmi_top *)CEA_ESTACK_TOP(t->stacks, DB) - 1)->frame;
	test->priv = t;
	return 0;
}

/* #MC at @ip in the entry of an NMI that has interrupted kernel text. */
static struct latched_nmi_test * __init latched_nmi_test_at(struct kunit *test, unsigned long ip)
{
	struct latched_nmi_test *t = test->priv;

	*t->real = latched_nmi_test_context;
	t->real->ip = AT(_stext);
	*t->debug = *t->real;
	t->regs.dx = t->real->dx;
	t->regs.ip = ip;
	t->regs.cs = __KERNEL_CS;
	t->regs.flags = X86_EFLAGS_FIXED | X86_EFLAGS_CF;
	t->regs.sp = AT(&t->real->ip);
	t->regs.ss = 0;
	return t;
}

/* Return: whether the entry was hit; then t->regs is what #MC returns to. */
static bool __init latched_nmi_test_fixup(struct kunit *test)
{
	struct latched_nmi_test *t = test->priv;
	struct cea_exception_stacks *own;
	const struct pt_regs before = t->regs;
	struct pt_regs during;
	unsigned long flags;
	bool hit;

	local_irq_save(flags);
	own = raw_cpu_read(cea_exception_stacks);
	raw_cpu_write(cea_exception_stacks, t->stacks);
	hit = latched_nmi_fixup(&t->regs);
	during = t->regs;
	if (hit)
		latched_nmi_move(&t->regs);
	raw_cpu_write(cea_exception_stacks, own);
	local_irq_restore(flags);

	/* The #MC handler judges what was hit. */
	KUNIT_EXPECT_EQ(test, memcmp(&during, &before, sizeof(before)), 0);
	KUNIT_EXPECT_EQ(test, t->nmi->state.fixed_up, (u32)hit);
	return hit;
}

/* Where the text that the fix-up cares for begins and ends. */
struct latched_nmi_test_edge {
	const char	*name;
	unsigned long	ip;
	bool		hit;
};

static const struct latched_nmi_test_edge latched_nmi_test_edges[] = {
	{ "lowest",			0,				false },
	{ "highest",			~0UL,				false },
	{ "kernel text",		AT(_stext),			false },
	{ "prologue - 1",		AT(asm_exc_nmi_latched) - 1,	false },
	{ "prologue",			AT(asm_exc_nmi_latched),	true },
	{ "prologue, decided",		AT(__nmi_prologue_decided),	true },
	{ "prologue, last",		AT(latched_nmi_handler - 1),	true },
	{ "handler",			AT(latched_nmi_handler),	false },
	{ "epilogue - 1",		AT(__nmi_epilogue_begin) - 1,	false },
	{ "epilogue",			AT(__nmi_epilogue_begin),	true },
	{ "epilogue, last",		AT(__nmi_epilogue_end) - 1,	true },
	{ "epilogue + 1",		AT(__nmi_epilogue_end),		false },
	{ "rare decisions - 1",		AT(__nmi_prologue_begin) - 1,	false },
	{ "rare decisions",		AT(__nmi_prologue_begin),	true },
	{ "rare decisions, IRET",	AT(__nmi_nested_iret),		true },
	{ "rare decisions, last",	AT(__nmi_prologue_end) - 1,	true },
	{ "rare decisions + 1",		AT(__nmi_prologue_end),		false },
	{ "repeat",			AT(latched_nmi_repeat),		false },
	{ "user prologue - 1",		AT(__nmi_user_prologue_begin) - 1, false },
	{ "user prologue",		AT(__nmi_user_prologue_begin),	true },
	{ "user prologue, RDX",		AT(__nmi_user_prologue_rdx),	true },
	{ "user prologue, last",	AT(__nmi_user_prologue_end) - 1, true },
	{ "user prologue + 1",		AT(__nmi_user_prologue_end),	false },
};

static void latched_nmi_test_edge_name(const struct latched_nmi_test_edge *edge, char *name)
{
	strscpy(name, edge->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(latched_nmi_test_edge, latched_nmi_test_edges, latched_nmi_test_edge_name);

static void __init latched_nmi_test_zones(struct kunit *test)
{
	const struct latched_nmi_test_edge *edge = test->param_value;

	latched_nmi_test_at(test, edge->ip);
	KUNIT_EXPECT_EQ(test, latched_nmi_test_fixup(test), edge->hit);
	if (edge->hit)
		KUNIT_EXPECT_TRUE(test, latched_nmi_near(edge->ip));
}

/* In the #DB entry check it is what #DB hit that counts, if it was the kernel. */
static void __init latched_nmi_test_zones_in_debug(struct kunit *test)
{
	const struct latched_nmi_test_edge *edge = test->param_value;
	struct latched_nmi_test *t;

	t = latched_nmi_test_at(test, AT(__debug_latched_end));
	t->debug->ip = edge->ip;
	KUNIT_EXPECT_FALSE(test, latched_nmi_test_fixup(test));

	t = latched_nmi_test_at(test, AT(asm_exc_debug_latched));
	t->debug->ip = edge->ip;
	t->debug->cs = __USER_CS;
	KUNIT_EXPECT_FALSE(test, latched_nmi_test_fixup(test));

	t = latched_nmi_test_at(test, AT(__debug_latched_end) - 1);
	t->debug->ip = edge->ip;
	KUNIT_EXPECT_EQ(test, latched_nmi_test_fixup(test), edge->hit);
}

static void __init latched_nmi_expect_frame(struct kunit *test,
					    const struct latched_nmi_context *got,
					    const struct latched_nmi_context *want)
{
	KUNIT_EXPECT_EQ(test, got->ip, want->ip);
	KUNIT_EXPECT_EQ(test, got->cs, want->cs);
	KUNIT_EXPECT_EQ(test, got->flags, want->flags);
	KUNIT_EXPECT_EQ(test, got->sp, want->sp);
	KUNIT_EXPECT_EQ(test, got->ss, want->ss);
}

static void __init latched_nmi_expect_state(struct kunit *test, u32 nest_count, u32 latch,
					    u32 restarted)
{
	const struct latched_nmi_test *t = test->priv;

	KUNIT_EXPECT_EQ(test, t->nmi->state.nest_count, nest_count);
	KUNIT_EXPECT_EQ(test, t->nmi->state.latch, latch);
	KUNIT_EXPECT_EQ(test, t->nmi->state.restarted, restarted);
	KUNIT_EXPECT_EQ(test, t->nmi->state.nested, 0U);
}

/* #MC goes on at @ip, with RSP at the frame @at, and with nothing else changed. */
static void __init latched_nmi_expect_to(struct kunit *test, const void *ip,
					 const struct latched_nmi_context *at)
{
	const struct latched_nmi_test *t = test->priv;

	KUNIT_EXPECT_EQ(test, t->regs.ip, AT(ip));
	KUNIT_EXPECT_EQ(test, t->regs.sp, AT(&at->ip));
	KUNIT_EXPECT_EQ(test, t->regs.cs, (unsigned long)__KERNEL_CS);
	KUNIT_EXPECT_EQ(test, t->regs.dx, latched_nmi_test_context.dx);
}

static void __init latched_nmi_test_first(struct kunit *test)
{
	struct latched_nmi_test *t = latched_nmi_test_at(test, AT(asm_exc_nmi_latched));

	KUNIT_ASSERT_TRUE(test, latched_nmi_test_fixup(test));
	latched_nmi_expect_state(test, 1, 0, 0);
	latched_nmi_expect_frame(test, t->latched, t->real);
	latched_nmi_expect_to(test, latched_nmi_handler, t->latched);
}

/* nest_count is set, and by this NMI, as CF tells from there to the handler (L5). */
static void __init latched_nmi_test_first_decided(struct kunit *test)
{
	static const unsigned long at[] __initconst = {
		AT(__nmi_prologue_decided), AT(latched_nmi_handler - 1),
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(at); i++) {
		struct latched_nmi_test *t = latched_nmi_test_at(test, at[i]);

		memset(&t->nmi->state, 0, sizeof(t->nmi->state));
		t->nmi->state.nest_count = 1;
		t->regs.flags &= ~X86_EFLAGS_CF;
		KUNIT_ASSERT_TRUE(test, latched_nmi_test_fixup(test));
		latched_nmi_expect_state(test, 1, 0, 0);
		latched_nmi_expect_frame(test, t->latched, t->real);
		latched_nmi_expect_to(test, latched_nmi_handler, t->latched);
	}
}

/* The latch is set, unless that was done, and #MC returns in place of the NMI. */
static void __init latched_nmi_test_nested(struct kunit *test)
{
	static const struct {
		unsigned long	ip;
		unsigned long	cf;
		u32		latch;
	} at[] = {
		{ AT(asm_exc_nmi_latched),	0,			1 },
		{ AT(__nmi_prologue_decided) - 1, 0,			1 },
		{ AT(__nmi_prologue_decided),	X86_EFLAGS_CF,		1 },
		{ AT(__nmi_prologue_begin),	0,			1 },
		{ AT(__nmi_nested_iret) - 1,	X86_EFLAGS_CF,		1 },
		{ AT(__nmi_nested_iret),	X86_EFLAGS_CF,		0 },
		{ AT(__nmi_nested_iret) + 1,	0,			1 },
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(at); i++) {
		struct latched_nmi_test *t = latched_nmi_test_at(test, at[i].ip);
		const struct latched_nmi_context none = { };
		struct latched_nmi_context to;

		memset(&t->nmi->state, 0, sizeof(t->nmi->state));
		t->nmi->state.nest_count = 1;
		t->regs.flags = X86_EFLAGS_FIXED | at[i].cf;
		KUNIT_ASSERT_TRUE(test, latched_nmi_test_fixup(test));
		latched_nmi_expect_state(test, 1, at[i].latch, 0);
		latched_nmi_expect_frame(test, t->latched, &none);
		to = (struct latched_nmi_context){
			.dx = t->regs.dx, .ip = t->regs.ip, .cs = t->regs.cs,
			.flags = t->regs.flags, .sp = t->regs.sp, .ss = t->regs.ss,
		};
		latched_nmi_expect_frame(test, &to, t->real);
		KUNIT_EXPECT_EQ(test, to.dx, t->real->dx);
	}
}

/* The NMI has interrupted the epilogue: the handlers run again on the LATCHED frame. */
static void __init latched_nmi_test_restart(struct kunit *test)
{
	static const struct latched_nmi_test_edge at[] __initconst = {
		{ "before",	AT(__nmi_epilogue_begin) - 1,	false },
		{ "first",	AT(__nmi_epilogue_begin),	true },
		{ "last",	AT(__nmi_epilogue_end) - 1,	true },
		{ "behind",	AT(__nmi_epilogue_end),		false },
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(at); i++) {
		struct latched_nmi_test *t = latched_nmi_test_at(test, AT(__nmi_prologue_begin));
		const struct latched_nmi_context none = { };

		memset(&t->nmi->state, 0, sizeof(t->nmi->state));
		*t->latched = none;
		t->real->ip = at[i].ip;
		KUNIT_ASSERT_TRUE(test, latched_nmi_test_fixup(test));
		latched_nmi_expect_state(test, 1, 0, at[i].hit);
		latched_nmi_expect_frame(test, t->latched, at[i].hit ? &none : t->real);
		latched_nmi_expect_to(test, at[i].hit ? latched_nmi_repeat : latched_nmi_handler,
				      t->latched);
	}
}

/* The user's RIP says nothing, even if it is one of the epilogue (L3). */
static void __init latched_nmi_test_from_user(struct kunit *test)
{
	struct latched_nmi_test *t = latched_nmi_test_at(test, AT(asm_exc_nmi_latched));

	t->real->ip = AT(__nmi_epilogue_begin);
	t->real->cs = __USER_CS;
	t->real->ss = __USER_DS;
	KUNIT_ASSERT_TRUE(test, latched_nmi_test_fixup(test));
	latched_nmi_expect_state(test, 0, 0, 0);
	latched_nmi_expect_frame(test, t->parked, t->real);
	latched_nmi_expect_to(test, __nmi_user_prologue_begin, t->parked);
}

/* #MC in the epilogue: again from its start. */
static void __init latched_nmi_test_epilogue(struct kunit *test)
{
	struct latched_nmi_test *t = latched_nmi_test_at(test, AT(__nmi_epilogue_end) - 1);

	t->regs.sp = AT(&t->latched->ip);
	t->nmi->state.nest_count = 1;
	t->nmi->state.latch = 1;
	KUNIT_ASSERT_TRUE(test, latched_nmi_test_fixup(test));
	latched_nmi_expect_state(test, 1, 1, 0);
	latched_nmi_expect_to(test, __nmi_epilogue_begin, t->latched);
}

/* On the way to the thread stack: what points to the REAL frame is moved with it (L12). */
static void __init latched_nmi_test_to_thread_stack(struct kunit *test)
{
	struct latched_nmi_test *t = test->priv;
	const unsigned long thread = 0xffffc90000003f00;
	const struct {
		unsigned long	ip;
		unsigned long	sp, dx;
		unsigned long	new_sp, new_dx;
		bool		parked;
	} at[] = {
		/* RSP at RIP, then at RDX. */
		{ AT(__nmi_user_prologue_begin), AT(&t->real->ip), 1, AT(&t->parked->ip), 1, true },
		{ AT(__nmi_user_prologue_rdx) - 1, AT(&t->real->dx), 1,
		  AT(&t->parked->dx), 1, true },
		/* Both. */
		{ AT(__nmi_user_prologue_rdx), AT(&t->real->dx), AT(&t->real->dx),
		  AT(&t->parked->dx), AT(&t->parked->dx), true },
		/* RDX alone, and where it is the user's: it may have any value. */
		{ AT(__nmi_user_prologue_end) - 1, thread, AT(&t->real->dx),
		  thread, AT(&t->parked->dx), true },
		{ AT(__nmi_user_prologue_begin), AT(&t->real->ip), AT(&t->real->dx),
		  AT(&t->parked->ip), AT(&t->real->dx), true },
		/* Neither: the frame has been moved before, and is not touched. */
		{ AT(__nmi_user_prologue_begin), AT(&t->parked->ip), 1,
		  AT(&t->parked->ip), 1, false },
		{ AT(__nmi_user_prologue_rdx), thread, AT(&t->parked->dx),
		  thread, AT(&t->parked->dx), false },
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(at); i++) {
		const struct latched_nmi_context none = { };

		latched_nmi_test_at(test, at[i].ip);
		t->nmi->state.fixed_up = 0;
		*t->parked = none;
		t->real->cs = __USER_CS;
		t->real->ss = __USER_DS;
		t->regs.sp = at[i].sp;
		t->regs.dx = at[i].dx;
		KUNIT_ASSERT_TRUE(test, latched_nmi_test_fixup(test));
		latched_nmi_expect_state(test, 0, 0, 0);
		KUNIT_EXPECT_EQ(test, t->regs.ip, at[i].ip);
		KUNIT_EXPECT_EQ(test, t->regs.sp, at[i].new_sp);
		KUNIT_EXPECT_EQ(test, t->regs.dx, at[i].new_dx);
		latched_nmi_expect_frame(test, t->parked, at[i].parked ? t->real : &none);
		KUNIT_EXPECT_EQ(test, t->parked->dx, at[i].parked ? t->real->dx : 0);
	}
}

/* What is far from the entry is dismissed by some bits of its address (L10). */
static void __init latched_nmi_test_near(struct kunit *test)
{
	const unsigned long begin = AT(__nmi_user_prologue_begin) & ~0x1fffffUL;

	KUNIT_EXPECT_FALSE(test, latched_nmi_near(begin - 1));
	KUNIT_EXPECT_TRUE(test, latched_nmi_near(begin));
	KUNIT_EXPECT_TRUE(test, latched_nmi_near(begin + LATCHED_NMI_TEXT_SIZE - 1));
	KUNIT_EXPECT_FALSE(test, latched_nmi_near(begin + LATCHED_NMI_TEXT_SIZE));
}

static void __init latched_nmi_test_parameter(struct kunit *test)
{
	static const struct {
		char	*arg;
		bool	wanted;
	} args[] = {
		{ "latched", true }, { "classic", false },
		/* Anything else is told of, and changes nothing. */
		{ NULL, true }, { "", true }, { "Classic", true }, { "classic ", true },
	};
	bool wanted = latched_nmi_wanted;
	int i;

	for (i = 0; i < ARRAY_SIZE(args); i++) {
		latched_nmi_wanted = true;
		KUNIT_EXPECT_EQ(test, latched_nmi_param(args[i].arg), 0);
		KUNIT_EXPECT_EQ(test, latched_nmi_wanted, args[i].wanted);
	}
	latched_nmi_wanted = false;
	latched_nmi_param("latched");
	KUNIT_EXPECT_TRUE(test, latched_nmi_wanted);
	latched_nmi_wanted = wanted;
}

/* The tracepoint's handler keeps up with counters that wrap around. */
static void __init latched_nmi_test_counters(struct kunit *test)
{
	struct latched_nmi_test *t = latched_nmi_test_at(test, AT(_stext));
	struct cea_exception_stacks *own;
	struct latched_nmi_seen *seen, before, after;
	unsigned long flags;
	int result;

	t->nmi->state.nested = 1;
	t->nmi->state.restarted = 7;

	local_irq_save(flags);
	seen = this_cpu_ptr(&latched_nmi_seen);
	before = *seen;
	*seen = (struct latched_nmi_seen){ .nested = U32_MAX, .restarted = 7 };
	own = raw_cpu_read(cea_exception_stacks);
	raw_cpu_write(cea_exception_stacks, t->stacks);
	result = latched_nmi_trace_handler(NMI_LOCAL, &t->regs);
	raw_cpu_write(cea_exception_stacks, own);
	after = *seen;
	*seen = before;
	local_irq_restore(flags);

	KUNIT_EXPECT_EQ(test, result, NMI_DONE);
	KUNIT_EXPECT_EQ(test, after.nested, 1U);
	KUNIT_EXPECT_EQ(test, after.restarted, 7U);
}

static struct kunit_case latched_nmi_test_cases[] __refdata = {
	KUNIT_CASE_PARAM(latched_nmi_test_zones, latched_nmi_test_edge_gen_params),
	KUNIT_CASE_PARAM(latched_nmi_test_zones_in_debug, latched_nmi_test_edge_gen_params),
	KUNIT_CASE(latched_nmi_test_first),
	KUNIT_CASE(latched_nmi_test_first_decided),
	KUNIT_CASE(latched_nmi_test_nested),
	KUNIT_CASE(latched_nmi_test_restart),
	KUNIT_CASE(latched_nmi_test_from_user),
	KUNIT_CASE(latched_nmi_test_epilogue),
	KUNIT_CASE(latched_nmi_test_to_thread_stack),
	KUNIT_CASE(latched_nmi_test_near),
	KUNIT_CASE(latched_nmi_test_parameter),
	KUNIT_CASE(latched_nmi_test_counters),
	{ }
};

static struct kunit_suite latched_nmi_test_suite __refdata = {
	.name		= "latched_nmi",
	.init		= latched_nmi_test_init,
	.test_cases	= latched_nmi_test_cases,
};

kunit_test_init_section_suites(&latched_nmi_test_suite);

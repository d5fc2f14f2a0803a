// SPDX-License-Identifier: GPL-2.0
/*
 * Is every instruction of the latched entry needed, and does the explorer see what
 * each is for? Each one is dropped, each conditional jump inverted, each immediate
 * made greater by one, each displacement by one word: the changes of the injector's
 * "make mutate", and a search has to find something in each.
 */
#include <capstone/capstone.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "explore.h"

#define MAX_CHANGES	2048
#define MAX_STATES	6000000

struct change {
	u64 addr;
	/* The end of a range of text, which has become another one. */
	u64 border;
	u8 len;
	u8 old[16], new[16];
	char name[160];
	char text[96];
	bool reached, wanted;
};

static struct change *change;
static int nr_changes;

static struct change *add(const cs_insn *insn, const char *what)
{
	struct change *c;
	char where[128];

	if (nr_changes == MAX_CHANGES)
		die("more than %d changes", MAX_CHANGES);
	c = &change[nr_changes++];
	label(insn->address, where, sizeof(where));
	snprintf(c->name, sizeof(c->name), "%s:%s", where, what);
	snprintf(c->text, sizeof(c->text), "%s%s%.60s", insn->mnemonic,
		 insn->op_str[0] ? " " : "", insn->op_str);
	c->addr = insn->address;
	c->border = 0;
	c->len = insn->size;
	memcpy(c->old, insn->bytes, insn->size);
	memcpy(c->new, insn->bytes, insn->size);
	return c;
}

/*
 * A comparison with the end of a range of text: nothing can be interrupted at the INT3
 * there, so that it makes no difference which side that is on.
 */
static bool ends_text(const struct image *im, u64 border)
{
	u8 b;

	return border && image_read(im, border, &b, 1) && b == 0xcc;
}

/* The address of entry text that an instruction compares with, or 0. */
static u64 border_of(const cs_insn *insn)
{
	const cs_x86 *x = &insn->detail->x86;
	int i;

	if (insn->id != X86_INS_CMP)
		return 0;
	for (i = 0; i < x->op_count; i++) {
		if (x->operands[i].type == X86_OP_IMM && in_asm(x->operands[i].imm))
			return x->operands[i].imm;
	}
	return 0;
}

static void changes_of(const struct image *im, const cs_insn *insn)
{
	const cs_x86 *x = &insn->detail->x86;
	bool conditional = (insn->bytes[0] & 0xf0) == 0x70 ||
			   (insn->bytes[0] == 0x0f && (insn->bytes[1] & 0xf0) == 0x80);
	bool branch = conditional || insn->bytes[0] == 0xe8 || insn->bytes[0] == 0xe9 ||
		      insn->bytes[0] == 0xeb;
	u64 border = border_of(insn);
	struct change *c;

	/* Nothing that an NMI runs, or what does nothing on this machine. */
	switch (insn->id) {
	case X86_INS_NOP:
	case X86_INS_INT3:
	case X86_INS_UD2:
	case X86_INS_LFENCE:
	case X86_INS_VERW:
		return;
	case X86_INS_ENDBR64:
		/* C is called directly. */
		if (!has_ibt || !in_asm(insn->address))
			return;
		break;
	}
	c = add(insn, "drop");
	memset(c->new, 0x90, insn->size);
	if (conditional) {
		c = add(insn, "invert");
		c->new[insn->bytes[0] == 0x0f] ^= 1;
		return;
	}
	if (x->encoding.imm_offset && x->encoding.imm_size && !branch && !ends_text(im, border)) {
		c = add(insn, "off-by-one");
		c->border = border;
		c->new[x->encoding.imm_offset]++;
	}
	if (x->encoding.disp_offset && x->encoding.disp_size) {
		c = add(insn, "displaced");
		c->new[x->encoding.disp_offset] += 8;
	}
}

static void take_range(csh cs, const struct image *im, u64 begin, u64 end)
{
	u8 *text = xalloc(end - begin);
	cs_insn *insn;
	size_t i, nr;

	if (!image_read(im, begin, text, end - begin))
		die("no text at 0x%llx", (unsigned long long)begin);
	nr = cs_disasm(cs, text, end - begin, begin, 0, &insn);
	for (i = 0; i < nr; i++) {
		if (insn[i].id)
			changes_of(im, &insn[i]);
	}
	cs_free(insn, nr);
	free(text);
}

static void take_function(csh cs, const struct image *im, const char *name)
{
	u64 begin;

	if (sym_find(im->sym, name, &begin))
		take_range(cs, im, begin, begin + sym_size(im->sym, name));
}

/* The stub, and the C that fixes it up. */
static void find_changes(const struct image *im)
{
	static const char * const stub[] = {
		"asm_exc_nmi_latched", "__nmi_user_prologue_begin", "__nmi_prologue_begin",
		"latched_nmi_repeat", "asm_exc_machine_check_latched", "asm_exc_debug_latched",
	};
	csh cs;
	size_t i;

	if (!change)
		change = xalloc(MAX_CHANGES * sizeof(*change));
	if (cs_open(CS_ARCH_X86, CS_MODE_64, &cs) != CS_ERR_OK)
		die("capstone does not start");
	cs_option(cs, CS_OPT_DETAIL, CS_OPT_ON);
	cs_option(cs, CS_OPT_SKIPDATA, CS_OPT_ON);
	for (i = 0; i < ARRAY_SIZE(stub); i++)
		take_function(cs, im, stub[i]);
	take_function(cs, im, "latched_nmi_fixup");
	take_function(cs, im, "latched_nmi_move");
	cs_close(&cs);
}

/* The runs "mutate" of the table on @m, up to the first violation. */
static bool is_found(const struct explore_config *cfg, const struct machine_desc *m,
		     char *how, size_t len)
{
	int r, c;

	for (r = 0; r < cfg->nr_run; r++) {
		const struct run_desc *run = &cfg->run[r];

		if (strcmp(run->name, "mutate") || !list_has(run->machines, m->name))
			continue;
		for (c = 0; c < cfg->nr_context; c++) {
			struct search s = {
				.ctx = &cfg->context[c], .first = true,
				.events = events_of(run->events), .budget = run->at_most,
				.max_states = MAX_STATES,
			};

			if (!list_has(run->contexts, cfg->context[c].name))
				continue;
			search(&s);
			if (s.path) {
				snprintf(how, len, "%s %s: %s: %s", cfg->context[c].name,
					 run->events, property_name[s.property], s.text);
				free(s.path);
				return true;
			}
		}
	}
	return false;
}

static const char *equivalent(const struct explore_config *cfg, const struct change *c)
{
	int i;

	for (i = 0; i < cfg->nr_equivalent; i++) {
		const struct equivalent *eq = &cfg->equivalent[i];

		if (list_has(eq->name, strrchr(c->name, ':') + 1) &&
		    !strncmp(eq->at, c->name, strlen(eq->at)) &&
		    !strncmp(eq->insn, c->text, strlen(eq->insn)))
			return eq->why;
	}
	return NULL;
}

/* What could be changed on @m; of each, whether it is executed at all. */
static struct image *start(const struct explore_config *cfg, const struct machine_desc *m)
{
	char how[512];
	struct image *im;
	int i;

	prepare(m, "latched", &im);
	nr_changes = 0;
	find_changes(im);
	reached = xalloc(REACHED_SIZE);
	if (is_found(cfg, m, how, sizeof(how)))
		die("%s: without a change there is: %s", m->name, how);
	/* Nor does it matter on which side of a border is what nobody executes. */
	for (i = 0; i < nr_changes; i++)
		change[i].reached = reached[change[i].addr % REACHED_SIZE] &&
			(!change[i].border || reached[change[i].border % REACHED_SIZE]);
	free(reached);
	reached = NULL;
	return im;
}

static bool try_change(const struct explore_config *cfg, const struct machine_desc *m,
		       struct image *im, const struct change *c, char *how, size_t len)
{
	bool found;

	image_write(im, c->addr, c->new, c->len);
	decode_flush();
	found = is_found(cfg, m, how, len);
	image_write(im, c->addr, c->old, c->len);
	decode_flush();
	return found;
}

int mutate_sample(const struct explore_config *cfg, const struct machine_desc *m,
		  int sample, FILE *out)
{
	struct image *im = start(cfg, m);
	int i, n = 0, tried = 0, survived = 0;
	char how[512];

	for (i = 0; i < nr_changes; i++) {
		const struct change *c = &change[i];

		/* C is another one with each compiler. */
		if (!c->reached || !in_asm(c->addr) || equivalent(cfg, c) || n++ % sample)
			continue;
		if (!(++tried % 25))
			fprintf(stderr, "# %s: change %d of %d\n", m->name, i + 1, nr_changes);
		if (try_change(cfg, m, im, c, how, sizeof(how)))
			continue;
		survived++;
		fprintf(stderr, "# survived %s (%s)\n", c->name, c->text);
		fprintf(out, "    survived %s (%s)\n", c->name, c->text);
	}
	fprintf(out, "%-8s %-15s %-15s %d of %d changes, %d found\n", "latched", m->name,
		"changes", tried, n, tried - survived);
	return tried ? survived : 1;
}

/* ------------------------------------------------- on several machines */

/* A change that is the same on each machine has one verdict. */
struct verdict {
	char *name, *text;
	const char *why;
	bool reached, found;
};

static struct verdict *verdict;
static int nr_verdicts;

static struct verdict *verdict_on(const struct change *c)
{
	struct verdict *v;
	int i;

	for (i = 0; i < nr_verdicts; i++) {
		v = &verdict[i];
		if (!strcmp(v->name, c->name) && !strcmp(v->text, c->text))
			return v;
	}
	verdict = xrealloc(verdict, (nr_verdicts + 1) * sizeof(*verdict));
	v = &verdict[nr_verdicts++];
	*v = (struct verdict) { .name = xstrdup(c->name), .text = xstrdup(c->text) };
	return v;
}

/* The share of one of the workers of what is wanted. */
static void work(const struct explore_config *cfg, const struct machine_desc *m,
		 struct image *im, int worker, int workers, bool verbose, FILE *out)
{
	char how[512];
	int i, n = 0, done = 0;

	for (i = 0; i < nr_changes; i++) {
		const struct change *c = &change[i];
		bool found;

		if (!c->wanted || n++ % workers != worker)
			continue;
		found = try_change(cfg, m, im, c, how, sizeof(how));
		fprintf(out, "%d %d\n", i, found);
		fflush(out);
		if (verbose) {
			printf("%-8s %s %s (%s) %s\n", found ? "found" : "survived", m->name,
			       c->name, c->text, found ? how : "");
			fflush(stdout);
		}
		if (!(++done % 25))
			fprintf(stderr, "# %s: change %d of %d\n", m->name, i + 1, nr_changes);
	}
}

static void mutate_on(const struct explore_config *cfg, const struct machine_desc *m,
		      const char *names, int workers, bool verbose)
{
	FILE **out = xalloc(workers * sizeof(*out));
	struct image *im = start(cfg, m);
	int i, k, found, wanted = 0;

	for (i = 0; i < nr_changes; i++) {
		struct change *c = &change[i];
		struct verdict *v;

		c->wanted = false;
		if (names && !list_has(names, c->name))
			continue;
		v = verdict_on(c);
		v->why = equivalent(cfg, c);
		v->reached |= c->reached;
		c->wanted = c->reached && !v->found && (names || !v->why);
		wanted += c->wanted;
	}
	fprintf(stderr, "# %s: %d changes, %d of them to be tried\n", m->name, nr_changes, wanted);
	for (k = 0; k < workers; k++) {
		out[k] = tmpfile();
		if (!out[k])
			die("no temporary file");
		fflush(stdout);
		if (!fork()) {
			work(cfg, m, im, k, workers, verbose || names, out[k]);
			_exit(0);
		}
	}
	while (wait(NULL) > 0)
		;
	for (k = 0; k < workers; k++) {
		rewind(out[k]);
		while (fscanf(out[k], "%d %d", &i, &found) == 2) {
			verdict_on(&change[i])->found |= found;
			wanted--;
		}
		fclose(out[k]);
	}
	if (wanted)
		die("%s: %d changes were not tried", m->name, wanted);
	free(out);
}

int mutate(const struct explore_config *cfg, const char *machines, const char *names,
	   int workers, bool verbose)
{
	int i, r, found = 0, survived = 0, unreached = 0, equal = 0;

	for (i = 0; i < cfg->nr_machine; i++) {
		const struct machine_desc *m = &cfg->machine[i];

		for (r = 0; r < cfg->nr_run; r++) {
			if (!strcmp(cfg->run[r].name, "mutate") && list_has(machines, m->name) &&
			    list_has(cfg->run[r].machines, m->name))
				break;
		}
		if (r < cfg->nr_run)
			mutate_on(cfg, m, names, workers, verbose);
	}
	for (i = 0; i < nr_verdicts; i++) {
		const struct verdict *v = &verdict[i];

		if (v->found) {
			found++;
		} else if (v->why) {
			equal++;
			printf("equivalent %s (%s): %s\n", v->name, v->text, v->why);
		} else if (!v->reached) {
			unreached++;
			printf("not executed %s (%s)\n", v->name, v->text);
		} else {
			survived++;
			printf("survived %s (%s)\n", v->name, v->text);
		}
	}
	printf("%d changes: %d found, %d survived, %d make no difference, %d are not executed\n",
	       nr_verdicts, found, survived, equal, unreached);
	return survived || !found;
}

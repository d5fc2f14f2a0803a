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
	u8 len;
	u8 old[16], new[16];
	char name[160];
	char text[96];
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
	c->len = insn->size;
	memcpy(c->old, insn->bytes, insn->size);
	memcpy(c->new, insn->bytes, insn->size);
	return c;
}

static void changes_of(const cs_insn *insn)
{
	const cs_x86 *x = &insn->detail->x86;
	bool conditional = (insn->bytes[0] & 0xf0) == 0x70 ||
			   (insn->bytes[0] == 0x0f && (insn->bytes[1] & 0xf0) == 0x80);
	bool branch = conditional || insn->bytes[0] == 0xe8 || insn->bytes[0] == 0xe9 ||
		      insn->bytes[0] == 0xeb;
	struct change *c;

	if (insn->id == X86_INS_NOP || insn->id == X86_INS_INT3 || insn->id == X86_INS_UD2)
		return;
	c = add(insn, "drop");
	memset(c->new, 0x90, insn->size);
	if (conditional) {
		c = add(insn, "invert");
		c->new[insn->bytes[0] == 0x0f] ^= 1;
		return;
	}
	if (x->encoding.imm_offset && x->encoding.imm_size && !branch) {
		c = add(insn, "off-by-one");
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
			changes_of(&insn[i]);
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

/* The runs "mutate" of the table, up to the first violation. */
static bool is_found(const struct explore_config *cfg, char *how, size_t len)
{
	int r, c;

	for (r = 0; r < cfg->nr_run; r++) {
		const struct run_desc *run = &cfg->run[r];

		for (c = 0; c < cfg->nr_context && !strcmp(run->name, "mutate"); c++) {
			struct search s = {
				.ctx = &cfg->context[c], .first = true,
				.events = events_of(run->events), .max_states = MAX_STATES,
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

static void work(const struct explore_config *cfg, struct image *im, const char *names,
		 int worker, int workers, bool verbose, FILE *out)
{
	char how[512];
	int i;

	for (i = worker; i < nr_changes; i += workers) {
		const struct change *c = &change[i];
		bool found;

		if (names && !list_has(names, c->name))
			continue;
		image_write(im, c->addr, c->new, c->len);
		decode_flush();
		found = is_found(cfg, how, sizeof(how));
		image_write(im, c->addr, c->old, c->len);
		decode_flush();
		fprintf(out, "%s\n", found ? "found" : "survived");
		fflush(out);
		if (!found || verbose || names) {
			printf("%-8s %s (%s) %s\n", found ? "found" : "survived", c->name, c->text,
			       found ? how : "");
			fflush(stdout);
		}
		if (!((i / workers) % 50))
			fprintf(stderr, "# %d of %d changes\n", i + 1, nr_changes);
	}
}

int mutate(const struct explore_config *cfg, struct image *im, const char *names, int workers,
	   bool verbose)
{
	int i, found = 0, survived = 0;
	FILE **out = xalloc(workers * sizeof(*out));
	char line[64];

	find_changes(im);
	fprintf(stderr, "# %d changes\n", nr_changes);
	for (i = 0; i < workers; i++) {
		out[i] = tmpfile();
		if (!out[i])
			die("no temporary file");
		fflush(stdout);
		if (!fork()) {
			work(cfg, im, names, i, workers, verbose, out[i]);
			_exit(0);
		}
	}
	while (wait(NULL) > 0)
		;
	for (i = 0; i < workers; i++) {
		rewind(out[i]);
		while (fgets(line, sizeof(line), out[i])) {
			bool ok = !strncmp(line, "found", 5);

			found += ok;
			survived += !ok;
		}
		fclose(out[i]);
	}
	printf("%d changes, %d found, %d survived\n", found + survived, found, survived);
	return found + survived == 0;
}

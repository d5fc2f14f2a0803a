// SPDX-License-Identifier: GPL-2.0
/*
 * The tables: "kind name" lines, each followed by indented "key value"
 * lines; see the head of cases.cfg.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"

const char * const entries[2] = { "classic", "latched" };

/* What a value is parsed as. */
enum type { TEXT, FLAG, MCE, SCRIPT, RANGE, PATCH };

static const struct key {
	const char *name;
	enum type type;
	size_t member;
}

#define KEY(type_, member_)	{ #member_, TEXT, offsetof(struct type_, member_) }

machine_keys[] = {
	KEY(machine, title), KEY(machine, emulator), KEY(machine, program),
	KEY(machine, options), KEY(machine, cpu), KEY(machine, append), KEY(machine, like),
	KEY(machine, slow),
	{ "mce", MCE, offsetof(struct machine, mce) },
	{ "mce-smp", MCE, offsetof(struct machine, mce_smp) }, { }
}, context_keys[] = {
	KEY(context, load), KEY(context, at), KEY(context, until), KEY(context, rsp),
	KEY(context, rip), KEY(context, rax), KEY(context, flags),
	{ "spin", FLAG, offsetof(struct context, spin) },
	{ "irqs-off", FLAG, offsetof(struct context, irqs_off) },
	{ "watch", FLAG, offsetof(struct context, watch) },
	{ "mce-first", FLAG, offsetof(struct context, needs_mce) }, { }
}, event_keys[] = {
	{ "script", SCRIPT, 0 },
	KEY(event, title), KEY(event, only),
	{ "counts-nested", FLAG, offsetof(struct event, counts_nested) },
	{ "counts-restart", FLAG, offsetof(struct event, counts_restart) },
	{ "one-run", FLAG, offsetof(struct event, one_run) },
	{ "classic-loses", FLAG, offsetof(struct event, classic_lossy) }, { }
}, zone_keys[] = {
	{ "range", RANGE, 0 }, { }
}, mutant_keys[] = {
	KEY(mutant, machine), KEY(mutant, cases), { "patch", PATCH, 0 }, { }
}, equivalent_keys[] = {
	KEY(equivalent, at), KEY(equivalent, insn), KEY(equivalent, why), { }
}, suite_keys[] = {
	KEY(suite, machines), KEY(suite, contexts), KEY(suite, events),
	KEY(suite, entries), { }
};

/* Each kind is an array of struct config; its members begin with the name. */
static const struct kind {
	const char *name;
	const struct key *keys;
	size_t array, nr, size;
} kinds[] = {
#define KIND(what) {							\
	#what, what##_keys, offsetof(struct config, what),		\
	offsetof(struct config, nr_##what), sizeof(struct what),	\
}
	KIND(machine), KIND(context), KIND(event), KIND(zone), KIND(mutant), KIND(suite),
	KIND(equivalent),
};

static const struct kind *kind_named(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (!strcmp(kinds[i].name, name))
			return &kinds[i];
	}
	return NULL;
}

static int kind_nr(const struct config *cfg, const struct kind *k)
{
	return *(const int *)((const char *)cfg + k->nr);
}

static void *kind_at(const struct config *cfg, const struct kind *k, int i)
{
	return *(char **)((char *)cfg + k->array) + i * k->size;
}

static void *kind_add(struct config *cfg, const struct kind *k, const char *name)
{
	int n = (*(int *)((char *)cfg + k->nr))++;
	char **array = (char **)((char *)cfg + k->array);
	char **entry;

	*array = xrealloc(*array, (n + 1) * k->size);
	entry = kind_at(cfg, k, n);
	memset(entry, 0, k->size);
	*entry = xstrdup(name);
	return entry;
}

static void *kind_find(const struct config *cfg, const struct kind *k, const char *name)
{
	int i;

	for (i = 0; i < kind_nr(cfg, k); i++) {
		char **entry = kind_at(cfg, k, i);

		if (!strcmp(*entry, name))
			return entry;
	}
	return NULL;
}

const struct machine *cfg_machine(const struct config *cfg, const char *name)
{
	return kind_find(cfg, kind_named("machine"), name);
}

struct machine cfg_variant(const struct config *cfg, const struct machine_variant *v)
{
	const struct machine *base = cfg_machine(cfg, v->base);
	struct machine m;

	if (!base)
		die("there is no machine %s, of which %s is a variant", v->base, v->name);
	m = *base;
	m.name = v->name;
	if (v->cpu)
		m.cpu = v->cpu;
	if (v->options)
		m.options = xasprintf("%s %s", m.options ?: "", v->options);
	if (v->append)
		m.append = xasprintf("%s %s", m.append ?: "", v->append);
	return m;
}

const struct context *cfg_context(const struct config *cfg, const char *name)
{
	return kind_find(cfg, kind_named("context"), name);
}

const struct event *cfg_event(const struct config *cfg, const char *name)
{
	return kind_find(cfg, kind_named("event"), name);
}

static bool known(const struct config *cfg, const char *kind, const char *name)
{
	const struct kind *k = kind_named(kind);
	size_t i;

	if (k)
		return kind_find(cfg, k, name);
	for (i = 0; i < ARRAY_SIZE(entries); i++) {
		if (!strcmp(entries[i], name))
			return true;
	}
	return false;
}

/* The names of a kind, once each, in one line. */
static char *names(const struct config *cfg, const char *kind)
{
	const struct kind *k = kind_named(kind);
	char *all = xstrdup(""), *longer;
	int i, n = k ? kind_nr(cfg, k) : (int)ARRAY_SIZE(entries);

	for (i = 0; i < n; i++) {
		const char *name = k ? *(char **)kind_at(cfg, k, i) : entries[i];

		if (k && kind_find(cfg, k, name) != kind_at(cfg, k, i))
			continue;
		longer = xasprintf("%s %s", all, name);
		free(all);
		all = longer;
	}
	return all;
}

void cfg_check_list(const struct config *cfg, const char *kind, const char *list,
		    const char *where)
{
	char *words, *w, *save;

	if (!list || !strcmp(list, "*"))
		return;
	if (!*list)
		die("%s: no %s is named; there are:%s", where, kind, names(cfg, kind));
	words = xstrdup(list);
	for (w = strtok_r(words, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
		if (!known(cfg, kind, w))
			die("%s: there is no %s %s; there are:%s", where, kind, w,
			    names(cfg, kind));
	}
	free(words);
}

static struct step *add_step(struct event *ev, const char *where)
{
	if (ev->nr == MAX_STEPS)
		die("%s: more than %d steps", where, MAX_STEPS);
	return &ev->step[ev->nr++];
}

static bool parse_injection(struct step *st, const char *w)
{
	if (!strcmp(w, "nmi"))
		st->kind = STEP_NMI;
	else if (!strcmp(w, "mce"))
		st->kind = STEP_MCE;
	else if (!strcmp(w, "iret"))
		st->kind = STEP_IRET;
	else if (!strcmp(w, "db"))
		st->kind = STEP_DB;
	else if (!strcmp(w, "int2"))
		st->kind = STEP_INT2;
	else if (!strcmp(w, "step"))
		st->kind = STEP_STEP;
	else if (!strcmp(w, "c-state"))
		st->kind = STEP_C_STATE;
	else
		return false;
	return true;
}

static bool parse_sweep(struct step *st, const char *w)
{
	static const struct {
		const char *word;
		enum sweep_kind kind;
	} sweeps[] = {
		{ "", SWEEP_ALL }, { "passes", SWEEP_PASSES }, { "after", SWEEP_AFTER },
		{ "c", SWEEP_C }, { "stub", SWEEP_STUB }, { "to:", SWEEP_TO },
		{ "zone:", SWEEP_ZONE },
	};
	size_t i;

	st->kind = STEP_SWEEP;
	for (i = 0; i < ARRAY_SIZE(sweeps); i++) {
		size_t len = strlen(sweeps[i].word);
		bool named = len && sweeps[i].word[len - 1] == ':';

		if (named ? strncmp(w, sweeps[i].word, len) : strcmp(w, sweeps[i].word))
			continue;
		st->sweep = sweeps[i].kind;
		if (named)
			st->sym = xstrdup(w + len);
		return true;
	}
	return false;
}

static void parse_script(struct event *ev, char *s, const char *where)
{
	char *save, *w;

	for (w = strtok_r(s, " \t", &save); w; w = strtok_r(NULL, " \t", &save)) {
		struct step *st = add_step(ev, where);

		if (!strncmp(w, "@*", 2)) {
			if (!parse_sweep(st, w + 2))
				die("%s: unknown sweep %s", where, w);
		} else if (*w == '@') {
			st->kind = STEP_RUN;
			st->sym = xstrdup(w + 1);
		} else if (!parse_injection(st, w)) {
			die("%s: unknown step %s", where, w);
		}
	}
}

void cfg_schedule(struct event *ev, const char *words)
{
	static const char where[] = "schedule";
	char *s = xstrdup(words), *save, *w;

	for (w = strtok_r(s, " \t", &save); w; w = strtok_r(NULL, " \t", &save)) {
		char *at = strchr(w, '@'), *pass = at ? strchr(at, '#') : NULL;

		if (at) {
			struct step *st = add_step(ev, where);

			*at++ = 0;
			if (pass)
				*pass++ = 0;
			st->kind = STEP_RUN;
			st->sym = xstrdup(at);
			st->pass = pass ? atoi(pass) : 1;
			if (st->pass < 1 || !*at)
				die("%s: %s@%s#%s: after @ comes an address, after # a number from 1",
				    where, w, at, pass ? pass : "");
		}
		if (!parse_injection(add_step(ev, where), w))
			die("%s: there is no event %s; there are: nmi mce iret db int2", where, w);
	}
	if (!ev->nr)
		die("%s: it has no event", where);
	free(s);
}

static void parse_range(struct zone *z, char *val, const char *where)
{
	char *save, *word[3] = { strtok_r(val, " \t", &save) };

	word[1] = strtok_r(NULL, " \t", &save);
	word[2] = strtok_r(NULL, " \t", &save);
	if (!word[1] || !word[2])
		die("%s: a range is ENTRY BEGIN END", where);
	z->entry = xstrdup(word[0]);
	z->begin = xstrdup(word[1]);
	z->end = xstrdup(word[2]);
}

/* The number of the CPU is a number sign there; the guest has one CPU. */
static char *mce_command(const char *val)
{
	char *s = xstrdup(val), *p = strchr(s, '#');

	if (p)
		*p = '0';
	return s;
}

static void set_key(void *entry, const struct key *k, char *val, const char *where)
{
	void *member = (char *)entry + k->member;
	struct mutant *mu = entry;

	switch (k->type) {
	case TEXT:
		*(char **)member = xstrdup(val);
		break;
	case MCE:
		*(char **)member = mce_command(val);
		break;
	case FLAG:
		*(bool *)member = true;
		break;
	case SCRIPT:
		parse_script(entry, val, where);
		break;
	case RANGE:
		parse_range(entry, val, where);
		break;
	case PATCH:
		if (mu->nr == (int)ARRAY_SIZE(mu->op))
			die("%s: more than %d patches", where, mu->nr);
		mu->op[mu->nr++] = xstrdup(val);
		break;
	}
}

/* Every name that is used must be there. */
static void check(const struct config *cfg, const char *path)
{
	int i;

	for (i = 0; i < cfg->nr_machine; i++)
		cfg_check_list(cfg, "machine", cfg->machine[i].like, cfg->machine[i].name);
	for (i = 0; i < cfg->nr_suite; i++) {
		const struct suite *s = &cfg->suite[i];

		cfg_check_list(cfg, "machine", s->machines, path);
		cfg_check_list(cfg, "context", s->contexts, path);
		cfg_check_list(cfg, "event", s->events, path);
		cfg_check_list(cfg, "entry", s->entries, path);
	}
	for (i = 0; i < cfg->nr_equivalent; i++) {
		const struct equivalent *eq = &cfg->equivalent[i];

		if (!eq->at || !eq->insn || !eq->why)
			die("equivalent %s: at, insn and why are needed", eq->name);
	}
	for (i = 0; i < cfg->nr_mutant; i++) {
		const struct mutant *mu = &cfg->mutant[i];
		char *cases = xstrdup(mu->cases), *w, *save;

		cfg_check_list(cfg, "machine", mu->machine, mu->name);
		for (w = strtok_r(cases, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
			char *ev = strchrnul(w, '/');

			if (*ev)
				*ev++ = 0;
			cfg_check_list(cfg, "context", w, mu->name);
			cfg_check_list(cfg, "event", ev, mu->name);
		}
		free(cases);
	}
}

/* Other emulators have no gdb stub that a guest could be stepped by. */
static void drop_machines(struct config *cfg)
{
	int i, n = 0;

	for (i = 0; i < cfg->nr_machine; i++) {
		if (!strcmp(cfg->machine[i].emulator ?: "qemu", "qemu"))
			cfg->machine[n++] = cfg->machine[i];
	}
	cfg->nr_machine = n;
}

static void load(struct config *cfg, const char *path)
{
	const struct kind *kind = NULL;
	FILE *f = fopen(path, "r");
	char line[1024], where[300];
	void *entry = NULL;
	int no = 0;

	if (!f)
		die("%s: cannot read", path);
	while (fgets(line, sizeof(line), f)) {
		bool inner = isspace((u8)line[0]);
		char *key, *val, *end;
		const struct key *k;

		snprintf(where, sizeof(where), "%s:%d", path, ++no);
		end = line + strcspn(line, "\n");
		while (end > line && isspace((u8)end[-1]))
			end--;
		*end = 0;
		key = line + strspn(line, " \t");
		if (!*key || *key == '#')
			continue;
		val = key + strcspn(key, " \t");
		if (*val)
			*val++ = 0;
		val += strspn(val, " \t");

		if (!inner) {
			kind = kind_named(key);
			if (!kind)
				die("%s: unknown kind %s", where, key);
			entry = kind_add(cfg, kind, val);
			continue;
		}
		if (!kind)
			die("%s: key before any kind", where);
		for (k = kind->keys; k->name && strcmp(k->name, key); k++)
			;
		if (!k->name)
			die("%s: unknown key %s", where, key);
		set_key(entry, k, val, where);
	}
	fclose(f);
}

void cfg_stand_in(struct config *cfg, const char *suite, const char *wanted)
{
	int i, k;

	for (i = 0; i < cfg->nr_machine; i++) {
		struct machine *m = &cfg->machine[i];
		bool in_suite = false;

		for (k = 0; k < cfg->nr_suite; k++)
			in_suite |= !strcmp(cfg->suite[k].name, suite) &&
				    list_has(cfg->suite[k].machines, m->name);
		m->suite_of = m->mutants_of = m->name;
		if (!m->like || !wanted || !list_has(wanted, m->name))
			continue;
		if (!in_suite)
			m->suite_of = m->like;
		m->mutants_of = m->like;
	}
}

void cfg_load(struct config *cfg, const char *machines, const char *cases,
	      const char *mutants)
{
	memset(cfg, 0, sizeof(*cfg));
	load(cfg, machines);
	drop_machines(cfg);
	load(cfg, cases);
	if (mutants)
		load(cfg, mutants);
	check(cfg, cases);
}

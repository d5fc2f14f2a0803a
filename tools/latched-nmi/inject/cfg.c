// SPDX-License-Identifier: GPL-2.0
/*
 * The case table: "kind name" lines, each followed by indented "key value"
 * lines; see the head of cases.cfg.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "inject.h"

bool list_has(const char *list, const char *name)
{
	size_t len = strlen(name);

	if (!list || !strcmp(list, "*"))
		return true;
	while (*list) {
		const char *end = strchrnul(list, ',');

		if ((size_t)(end - list) == len && !strncmp(list, name, len))
			return true;
		list = *end ? end + 1 : end;
	}
	return false;
}

static void parse_script(struct event *ev, char *s, const char *where)
{
	char *save, *w;

	for (w = strtok_r(s, " \t", &save); w; w = strtok_r(NULL, " \t", &save)) {
		struct step *st = &ev->step[ev->nr];

		if (ev->nr++ == MAX_STEPS)
			die("%s: script too long", where);
		if (!strcmp(w, "nmi")) {
			st->kind = STEP_NMI;
		} else if (!strcmp(w, "mce")) {
			st->kind = STEP_MCE;
		} else if (!strcmp(w, "iret")) {
			st->kind = STEP_IRET;
		} else if (!strncmp(w, "@*", 2)) {
			st->kind = STEP_SWEEP;
			if (!w[2]) {
				st->sweep = SWEEP_ALL;
			} else if (!strcmp(w + 2, "passes")) {
				st->sweep = SWEEP_PASSES;
			} else if (!strcmp(w + 2, "after")) {
				st->sweep = SWEEP_AFTER;
			} else if (!strcmp(w + 2, "c")) {
				st->sweep = SWEEP_C;
			} else if (!strcmp(w + 2, "stub")) {
				st->sweep = SWEEP_STUB;
			} else if (!strncmp(w + 2, "to:", 3)) {
				st->sweep = SWEEP_TO;
				st->sym = xstrdup(w + 5);
			} else if (!strncmp(w + 2, "zone:", 5)) {
				st->sweep = SWEEP_ZONE;
				st->sym = xstrdup(w + 7);
			} else {
				die("%s: unknown sweep %s", where, w);
			}
		} else if (*w == '@') {
			st->kind = STEP_RUN;
			st->sym = xstrdup(w + 1);
		} else {
			die("%s: unknown step %s", where, w);
		}
	}
}

/* A number sign would begin a comment. */
static char *title_of(const char *val)
{
	char *s = xstrdup(val), *p;

	for (p = s; *p; p++) {
		if (*p == '%')
			*p = '#';
	}
	return s;
}

#define GROW(cfg, what)	({						\
	(cfg)->what = xrealloc((cfg)->what, ((cfg)->nr_##what + 1) *	\
			       sizeof(*(cfg)->what));			\
	memset(&(cfg)->what[(cfg)->nr_##what], 0, sizeof(*(cfg)->what)); \
	&(cfg)->what[(cfg)->nr_##what++];				\
})

void cfg_load(struct config *cfg, const char *path)
{
	FILE *f = fopen(path, "r");
	char line[1024], where[300];
	char kind[32] = "";
	int no = 0;

	if (!f)
		die("%s: cannot read", path);
	memset(cfg, 0, sizeof(*cfg));
	while (fgets(line, sizeof(line), f)) {
		char *key, *val, *end;
		bool inner = isspace((u8)line[0]);

		snprintf(where, sizeof(where), "%s:%d", path, ++no);
		end = line + strcspn(line, "\n#");
		while (end > line && isspace((u8)end[-1]))
			end--;
		*end = 0;
		key = line + strspn(line, " \t");
		if (!*key)
			continue;
		val = key + strcspn(key, " \t");
		if (*val)
			*val++ = 0;
		val += strspn(val, " \t");

		if (!inner) {
			snprintf(kind, sizeof(kind), "%s", key);
			if (!strcmp(kind, "machine"))
				GROW(cfg, machine)->name = xstrdup(val);
			else if (!strcmp(kind, "context"))
				GROW(cfg, context)->name = xstrdup(val);
			else if (!strcmp(kind, "event"))
				GROW(cfg, event)->name = xstrdup(val);
			else if (!strcmp(kind, "zone"))
				GROW(cfg, zone)->name = xstrdup(val);
			else if (!strcmp(kind, "mutant"))
				GROW(cfg, mutant)->name = xstrdup(val);
			else if (!strcmp(kind, "suite"))
				GROW(cfg, suite)->name = xstrdup(val);
			else
				die("%s: unknown kind %s", where, kind);
			continue;
		}

		if (!strcmp(kind, "machine")) {
			struct machine *m = &cfg->machine[cfg->nr_machine - 1];

			if (!strcmp(key, "cpu"))
				m->cpu = xstrdup(val);
			else if (!strcmp(key, "append"))
				m->append = xstrdup(val);
			else if (!strcmp(key, "mce"))
				m->mce = xstrdup(val);
			else
				die("%s: unknown key %s", where, key);
		} else if (!strcmp(kind, "context")) {
			struct context *c = &cfg->context[cfg->nr_context - 1];

			if (!strcmp(key, "load"))
				c->load = xstrdup(val);
			else if (!strcmp(key, "at"))
				c->at = xstrdup(val);
			else if (!strcmp(key, "until"))
				c->until = xstrdup(val);
			else if (!strcmp(key, "rsp"))
				c->rsp = xstrdup(val);
			else if (!strcmp(key, "spin"))
				c->spin = true;
			else if (!strcmp(key, "irqs-off"))
				c->irqs_off = true;
			else if (!strcmp(key, "watch"))
				c->watch = true;
			else if (!strcmp(key, "mce-first"))
				c->needs_mce = true;
			else
				die("%s: unknown key %s", where, key);
		} else if (!strcmp(kind, "event")) {
			struct event *ev = &cfg->event[cfg->nr_event - 1];

			if (!strcmp(key, "script"))
				parse_script(ev, val, where);
			else if (!strcmp(key, "title"))
				ev->title = title_of(val);
			else if (!strcmp(key, "only"))
				ev->only = xstrdup(val);
			else if (!strcmp(key, "classic-loses"))
				ev->classic_lossy = true;
			else
				die("%s: unknown key %s", where, key);
		} else if (!strcmp(kind, "zone")) {
			struct zone *z = &cfg->zone[cfg->nr_zone - 1];
			char *save;

			if (strcmp(key, "range"))
				die("%s: unknown key %s", where, key);
			z->entry = xstrdup(strtok_r(val, " \t", &save));
			z->begin = xstrdup(strtok_r(NULL, " \t", &save));
			z->end = xstrdup(strtok_r(NULL, " \t", &save));
		} else if (!strcmp(kind, "mutant")) {
			struct mutant *mu = &cfg->mutant[cfg->nr_mutant - 1];

			if (!strcmp(key, "machine"))
				mu->machine = xstrdup(val);
			else if (!strcmp(key, "cases"))
				mu->cases = xstrdup(val);
			else if (!strcmp(key, "patch") &&
				 mu->nr < (int)ARRAY_SIZE(mu->op))
				mu->op[mu->nr++] = xstrdup(val);
			else
				die("%s: unknown key %s", where, key);
		} else if (!strcmp(kind, "suite")) {
			struct suite *s = &cfg->suite[cfg->nr_suite - 1];

			if (!strcmp(key, "machines"))
				s->machines = xstrdup(val);
			else if (!strcmp(key, "contexts"))
				s->contexts = xstrdup(val);
			else if (!strcmp(key, "events"))
				s->events = xstrdup(val);
			else if (!strcmp(key, "entries"))
				s->entries = xstrdup(val);
			else
				die("%s: unknown key %s", where, key);
		} else {
			die("%s: key before any kind", where);
		}
	}
	fclose(f);
}

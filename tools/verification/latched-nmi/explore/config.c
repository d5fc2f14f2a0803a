// SPDX-License-Identifier: GPL-2.0
/*
 * explore.cfg: machines, contexts, runs.
 */
#include <stdlib.h>
#include <string.h>

#include "explore.h"

static void take_rsp(struct context_desc *c, char *val)
{
	char *minus = strchr(val, '-');

	if (!minus) {
		c->rsp = strtoull(val, NULL, 0);
		return;
	}
	*minus = 0;
	c->rsp_stack = xstrdup(val);
	c->rsp = -strtoull(minus + 1, NULL, 0);
}

static bool take_context(struct context_desc *c, const char *key, char *val)
{
	if (!strcmp(key, "at"))
		c->at = xstrdup(val);
	else if (!strcmp(key, "until"))
		c->until = xstrdup(val);
	else if (!strcmp(key, "cs"))
		c->cs = strtoull(val, NULL, 0);
	else if (!strcmp(key, "ss"))
		c->ss = strtoull(val, NULL, 0);
	else if (!strcmp(key, "flags"))
		c->flags = strtoull(val, NULL, 0);
	else if (!strcmp(key, "rsp"))
		take_rsp(c, val);
	else if (!strcmp(key, "user-gs"))
		c->user_gs = true;
	else if (!strcmp(key, "user-cr3"))
		c->user_cr3 = true;
	else if (!strcmp(key, "only-nmi"))
		c->only_nmi = true;
	else if (!strcmp(key, "frame"))
		c->frame = xstrdup(val);
	else if (!strcmp(key, "own"))
		c->own = xstrdup(val);
	else if (!strcmp(key, "in"))
		c->in = xstrdup(val);
	else
		return false;
	return true;
}

static bool take_run(struct run_desc *r, const char *key, char *val)
{
	if (!strcmp(key, "entry"))
		r->entry = xstrdup(val);
	else if (!strcmp(key, "machines"))
		r->machines = xstrdup(val);
	else if (!strcmp(key, "contexts"))
		r->contexts = xstrdup(val);
	else if (!strcmp(key, "events"))
		r->events = xstrdup(val);
	else if (!strcmp(key, "at-most") && atoi(val) > 0)
		r->at_most = atoi(val);
	else if (!strcmp(key, "changes") && atoi(val) > 0)
		r->changes = atoi(val);
	else if (!strcmp(key, "finds") && (!strcmp(val, "nothing") || !strcmp(val, "loss")))
		r->loss = !strcmp(val, "loss");
	else
		return false;
	return true;
}

/* AT "INSN", for the reason that was given above. */
static bool take_change(struct equivalent *eq, char *line, char *why)
{
	char *begin = strchr(line, '"'), *end = begin ? strchr(begin + 1, '"') : NULL;

	if (!end || !why)
		return false;
	*begin = *end = 0;
	line[strcspn(line, " \t")] = 0;
	eq->at = xstrdup(line);
	eq->insn = xstrdup(begin + 1);
	eq->why = why;
	return true;
}

/* "linux=VERSION,... FEATURES" is for these versions, FEATURES for all. */
static void take_machine(struct explore_config *cfg, char *name, char *features,
			 const char *version)
{
	struct machine_desc *m = &cfg->machine[cfg->nr_machine];

	features += strspn(features, " \t");
	features[strcspn(features, "\n")] = 0;
	if (!strncmp(features, "linux=", 6)) {
		char *versions = features + 6;

		features = versions + strcspn(versions, " \t");
		if (*features)
			*features++ = 0;
		if (!version)
			die("machine %s is of some versions: which one is it? --linux", name);
		if (!list_has(versions, version))
			return;
	}
	m->name = xstrdup(name);
	m->features = xstrdup(features);
	cfg->nr_machine++;
}

void explore_load(struct explore_config *cfg, const char *path, const char *version)
{
	FILE *in = fopen(path, "r");
	char line[1024], *why = NULL;
	int nr = 0;

	memset(cfg, 0, sizeof(*cfg));
	if (!in)
		die("%s: cannot open", path);
	while (fgets(line, sizeof(line), in)) {
		char *save, *kind, *name, *word;
		struct context_desc *c = NULL;
		struct run_desc *r = NULL;

		nr++;
		kind = strtok_r(line, " \t\n", &save);
		if (!kind || *kind == '#')
			continue;
		name = strtok_r(NULL, " \t\n", &save);
		if (!name)
			die("%s:%d: %s has no name", path, nr, kind);
		if (!strcmp(kind, "machine") && cfg->nr_machine < MAX_MACHINES) {
			take_machine(cfg, name, save, version);
			continue;
		} else if (!strcmp(kind, "equivalent")) {
			save[strcspn(save, "\n")] = 0;
			why = xasprintf("%s %s", name, save);
			continue;
		} else if (!strcmp(kind, "change") && cfg->nr_equivalent < MAX_EQUIVALENTS) {
			struct equivalent *eq = &cfg->equivalent[cfg->nr_equivalent++];

			eq->name = xstrdup(name);
			if (!take_change(eq, save, why))
				die("%s:%d: want AT \"INSN\" behind \"equivalent WHY\"", path, nr);
			continue;
		} else if (!strcmp(kind, "context") && cfg->nr_context < MAX_CONTEXTS) {
			c = &cfg->context[cfg->nr_context++];
			c->name = xstrdup(name);
		} else if (!strcmp(kind, "run") && cfg->nr_run < MAX_RUNS) {
			r = &cfg->run[cfg->nr_run++];
			r->name = xstrdup(name);
		} else {
			die("%s:%d: %s %s: what is that?", path, nr, kind, name);
		}
		while ((word = strtok_r(NULL, " \t\n", &save))) {
			char key[64], *val = strchr(word, '=');

			snprintf(key, sizeof(key), "%.*s", (int)(val ? val - word : 63), word);
			val = val ? val + 1 : word + strlen(word);
			if (!(c ? take_context(c, key, val) : take_run(r, key, val)))
				die("%s:%d: %s=%s: what is that?", path, nr, key, val);
		}
		if (r && (!r->entry || !r->machines || (!r->changes && (!r->contexts || !r->events))))
			die("%s:%d: entry, machines, contexts or events is missing", path, nr);
		if (c && (!c->at || !c->cs))
			die("%s:%d: at or cs is missing", path, nr);
	}
	fclose(in);
}

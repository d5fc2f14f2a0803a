// SPDX-License-Identifier: GPL-2.0
/*
 * Results: KTAP, and the matrix as SVG.
 */
#include <stdlib.h>
#include <string.h>

#include "inject.h"

static enum verdict verdict_of(const char *s)
{
	int v;

	for (v = 0; v < V_NR; v++) {
		if (!strcmp(s, verdict_name[v]))
			return v;
	}
	die("unknown verdict %s", s);
}

static struct result *add_result(struct report *rep)
{
	struct result *r;

	rep->res = xrealloc(rep->res, (rep->nr + 1) * sizeof(*rep->res));
	r = &rep->res[rep->nr++];
	memset(r, 0, sizeof(*r));
	return r;
}

static char *rest(char **save)
{
	char *s = strtok_r(NULL, "", save);

	return xstrdup(s ? s : "");
}

static char *word(char **save)
{
	char *s = strtok_r(NULL, " ", save);

	return xstrdup(s ? s : "");
}

void report_read(struct report *rep, FILE *in)
{
	struct result *r = NULL;
	char line[2048], *kind, *save;

	while (fgets(line, sizeof(line), in)) {
		line[strcspn(line, "\n")] = 0;
		kind = strtok_r(line, " ", &save);
		if (!kind)
			continue;
		if (!strcmp(kind, "case")) {
			r = add_result(rep);
			r->entry = word(&save);
			r->machine = word(&save);
			r->name = rest(&save);
		} else if (!strcmp(kind, "point") && r) {
			struct point *pt;

			if (r->nr == r->max) {
				r->max = r->max ? 2 * r->max : 128;
				r->pt = xrealloc(r->pt, r->max * sizeof(*r->pt));
			}
			pt = &r->pt[r->nr++];
			pt->label = word(&save);
			pt->v = verdict_of(word(&save));
			pt->detail = rest(&save);
			r->bad += pt->v != V_OK;
		} else if (!strcmp(kind, "skip")) {
			r = add_result(rep);
			r->entry = word(&save);
			r->machine = word(&save);
			r->name = word(&save);
			r->skip = rest(&save);
		} else if (!strcmp(kind, "mutant")) {
			r = add_result(rep);
			r->mutant = true;
			r->entry = "latched";
			r->machine = word(&save);
			r->name = word(&save);
			r->nr = atoi(word(&save));
			r->first = rest(&save);
		} else if (!strcmp(kind, "path")) {
			struct path_len *p;

			rep->path = xrealloc(rep->path, (rep->nr_path + 1) *
					     sizeof(*rep->path));
			p = &rep->path[rep->nr_path++];
			p->entry = word(&save);
			p->machine = word(&save);
			p->context = word(&save);
			p->nr = atoi(word(&save));
		} else if (!strcmp(kind, "step")) {
			printf("# %s\n", rest(&save));
		}
	}
}

static const struct event *event_of(const struct config *cfg, const char *name)
{
	const char *base = strrchr(name, '/');
	int i;

	for (i = 0; base && i < cfg->nr_event; i++) {
		if (!strcmp(cfg->event[i].name, base + 1))
			return &cfg->event[i];
	}
	return NULL;
}

/*
 * Judged against declared: what stock is declared to lose, it may lose at any
 * boundary, see stock_losses(), and nothing else may lose anything.
 */
static bool result_ok(const struct result *r, const struct config *cfg)
{
	const struct event *ev = event_of(cfg, r->name);

	if (r->skip)
		return true;
	if (r->mutant)
		return r->first[0];
	if (!strcmp(r->entry, "classic") && ev && ev->classic_lossy)
		return true;
	return r->nr && !r->bad;
}

/*
 * What stock is declared to lose, it must lose in one of the contexts, or this
 * tool sees no losses. Where only one was run, nothing is said. Returns -1 then,
 * else the number of losses.
 */
static int stock_losses(const struct report *rep, const struct config *cfg,
			const struct event *ev)
{
	int i, contexts = 0, bad = 0;

	for (i = 0; i < rep->nr; i++) {
		const struct result *r = &rep->res[i];

		if (r->skip || r->mutant || strcmp(r->entry, "classic") ||
		    event_of(cfg, r->name) != ev)
			continue;
		contexts++;
		bad += r->bad;
	}
	return ev->classic_lossy && contexts > 1 ? bad : -1;
}

int report_ktap(const struct report *rep, const struct config *cfg, FILE *out)
{
	const char *command = getenv("INJECT_COMMAND");
	int i, k, bad = 0, cases = 0, repeated = 0, n = rep->nr;
	int lost[2] = { 0 }, total[2] = { 0 };

	for (i = 0; i < cfg->nr_event; i++)
		n += stock_losses(rep, cfg, &cfg->event[i]) >= 0;
	fprintf(out, "KTAP version 1\n1..%d\n", n);
	for (i = 0; i < rep->nr_path; i++)
		fprintf(out, "# path %s/%s/%s: %d instructions in entry text\n",
			rep->path[i].entry, rep->path[i].machine,
			rep->path[i].context, rep->path[i].nr);
	for (i = 0; i < rep->nr; i++) {
		const struct result *r = &rep->res[i];
		bool classic = !strcmp(r->entry, "classic");
		bool ok = result_ok(r, cfg);

		bad += !ok;
		if (r->skip) {
			fprintf(out, "ok %d %s/%s/%s # SKIP %s\n", i + 1, r->entry,
				r->machine, r->name, r->skip);
			continue;
		}
		if (r->mutant) {
			fprintf(out, "%s %d mutant/%s/%s # %s%s\n",
				ok ? "ok" : "not ok", i + 1, r->machine, r->name,
				ok ? "found: " : "not found in ",
				ok ? r->first : "any of its cases");
			continue;
		}
		fprintf(out, "  KTAP version 1\n  # Subtest: %s/%s/%s\n  1..%d\n",
			r->entry, r->machine, r->name, r->nr);
		for (k = 0; k < r->nr; k++) {
			const struct point *pt = &r->pt[k];

			if (pt->v == V_OK) {
				fprintf(out, "  ok %d %s%s%s\n", k + 1, pt->label,
					pt->detail[0] ? " # " : "", pt->detail);
				repeated += !!pt->detail[0];
				continue;
			}
			fprintf(out, "  # to see it again: %s --entry %s --machine %s --case %s --at %s\n",
				command ? command : "inject", r->entry, r->machine, r->name, pt->label);
			fprintf(out, "  %s %d %s # %s%s: %s\n",
				classic && ok ? "ok" : "not ok", k + 1, pt->label,
				classic && ok ? "XFAIL " : "",
				verdict_name[pt->v], pt->detail);
		}
		cases += r->nr;
		total[!classic] += r->nr;
		lost[!classic] += r->bad;
		fprintf(out, "%s %d %s/%s/%s # %d of %d lost\n", ok ? "ok" : "not ok",
			i + 1, r->entry, r->machine, r->name, r->bad, r->nr);
	}
	for (i = 0, n = rep->nr; i < cfg->nr_event; i++) {
		int losses = stock_losses(rep, cfg, &cfg->event[i]);

		if (losses < 0)
			continue;
		bad += !losses;
		fprintf(out, "%s %d classic/loses/%s # %d\n", losses ? "ok" : "not ok",
			++n, cfg->event[i].name, losses);
	}
	fprintf(out, "# inject: %d cases; lost: classic %d of %d, latched %d of %d; %d passed only when repeated; %d of %d tests not ok\n",
		cases, lost[0], total[0], lost[1], total[1], repeated, bad, n);
	return bad;
}

/*
 * The matrix. Columns are the boundaries of the NMI path in their order, then
 * those of the branches that other events take; rows are events; there is one
 * panel for each context and entry, classic above latched.
 */
#define CELL_W		7
#define CELL_H		12
#define LEFT		290
#define NAMED		3
#define HEAD		92
#define MAX_COLS	400

struct panel {
	const char *entry;
	char context[200];
	char *col[MAX_COLS];
	int nr;
};

static bool in_panel(const struct result *r, const struct panel *p,
		     const char *machine)
{
	size_t len = strlen(p->context);

	return !r->skip && !r->mutant && r->nr && !strcmp(r->machine, machine) &&
	       !strcmp(r->entry, p->entry) && !strncmp(r->name, p->context, len) &&
	       r->name[len] == '/';
}

/* Is @label (up to @len) in the text that the NMI's entry stubs consist of? */
static int find_col(const struct panel *p, const char *label, size_t len)
{
	int i;

	len = strcspn(label, "#,") < len ? strcspn(label, "#,") : len;
	for (i = 0; i < p->nr; i++) {
		if (strlen(p->col[i]) == len && !strncmp(p->col[i], label, len))
			return i;
	}
	return -1;
}

static void add_col(struct panel *p, const char *label)
{
	size_t len = strcspn(label, "#,");

	if (p->nr == MAX_COLS || find_col(p, label, len) >= 0 || !strchr(label, '+'))
		return;
	p->col[p->nr] = xstrdup(label);
	p->col[p->nr++][len] = 0;
}

/*
 * The column of a point. If it is a pair: of its second boundary where that is
 * on the path of a further NMI, else of its first.
 */
static int point_col(const struct panel *p, const struct event *ev, const char *label)
{
	const char *last = strrchr(label, ',');
	int i;

	for (i = ev->nr - 1; last && i > 0; i--) {
		if (ev->step[i].kind != STEP_SWEEP)
			continue;
		if (ev->step[i - 1].kind == STEP_NMI)
			return find_col(p, last + 1, ~0UL);
		break;
	}
	return find_col(p, label, ~0UL);
}

static void make_columns(struct panel *p, const struct report *rep, const char *machine)
{
	static const char * const from[] = {
		"/nmi", "/nested-nmi", "/restart-nmi",
	};
	size_t f;
	int i, k;

	for (f = 0; f < ARRAY_SIZE(from); f++) {
		for (i = 0; i < rep->nr; i++) {
			const struct result *r = &rep->res[i];

			if (!in_panel(r, p, machine) ||
			    strcmp(r->name + strlen(p->context), from[f]))
				continue;
			for (k = 0; k < r->nr; k++) {
				const char *last = strrchr(r->pt[k].label, ',');

				add_col(p, last ? last + 1 : r->pt[k].label);
			}
		}
	}
}

static void svg_text(FILE *f, const char *s)
{
	for (; *s; s++) {
		if (*s == '&')
			fputs("&amp;", f);
		else if (*s == '<')
			fputs("&lt;", f);
		else
			fputc(*s, f);
	}
}

/* Zone names over the columns: one symbol is one zone, named if there is room. */
static void svg_zones(FILE *f, const struct panel *p, int top, int rows)
{
	int i, begin = 0, shade = 0;

	for (i = 1; i <= p->nr; i++) {
		size_t len = strcspn(p->col[begin], "+");
		int x = LEFT + begin * CELL_W;

		if (i < p->nr && !strncmp(p->col[i], p->col[begin], len + 1))
			continue;
		if (shade++ & 1)
			fprintf(f, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"#f0f0f0\"/>\n",
				x, top + HEAD - 4, (i - begin) * CELL_W, rows * CELL_H + 8);
		fprintf(f, "<path d=\"M%d %dv%d\" stroke=\"#888\"/>\n", x,
			top + HEAD - 6, rows * CELL_H + 10);
		if (i - begin < NAMED) {
			begin = i;
			continue;
		}
		fprintf(f, "<text transform=\"translate(%d %d) rotate(-35)\" font-size=\"9\">%.*s</text>\n",
			x + 4, top + HEAD - 8, (int)len, p->col[begin]);
		begin = i;
	}
}

static void svg_row(FILE *f, const struct panel *p, const struct event *ev,
		    const struct result *r, int y)
{
	u8 state[MAX_COLS] = { 0 };
	int k, c, drawn = 0, bad = 0;

	for (k = 0; k < r->nr; k++) {
		c = point_col(p, ev, r->pt[k].label);
		if (c < 0)
			continue;
		state[c] |= r->pt[k].v == V_OK ? 1 : 2;
		drawn++;
	}
	if (!drawn) {
		fprintf(f, "<text x=\"%d\" y=\"%d\" fill=\"#555\">(at instructions of C or of #MC, which have no column)</text>\n",
			LEFT, y + 9);
		return;
	}
	for (c = 0; c < p->nr; c++)
		bad += !!(state[c] & 2);
	fprintf(f, "<path class=\"k\" d=\"");
	for (c = 0; c < p->nr; c++) {
		if (state[c] == 1)
			fprintf(f, "M%d %dh%dv%dh-%dz", LEFT + c * CELL_W, y,
				CELL_W - 1, CELL_H - 2, CELL_W - 1);
	}
	fprintf(f, "\"/>\n");
	if (!bad)
		return;
	fprintf(f, "<path class=\"l\" d=\"");
	for (c = 0; c < p->nr; c++) {
		if (state[c] & 2)
			fprintf(f, "M%d %dh%dv%dh-%dz", LEFT + c * CELL_W, y,
				CELL_W - 1, CELL_H - 2, CELL_W - 1);
	}
	fprintf(f, "\"/>\n<path class=\"x\" d=\"");
	for (c = 0; c < p->nr; c++) {
		if (state[c] & 2)
			fprintf(f, "M%d %dl4 8m0 -8l-4 8", LEFT + c * CELL_W + 1, y + 1);
	}
	fprintf(f, "\"/>\n");
}

static int svg_panel(FILE *f, const struct panel *p, const struct report *rep,
		     const struct config *cfg, const char *machine, int top)
{
	int i, e, rows = 0, y = top + HEAD;

	for (i = 0; i < rep->nr; i++)
		rows += in_panel(&rep->res[i], p, machine);
	svg_zones(f, p, top, rows);
	fprintf(f, "<text x=\"8\" y=\"%d\" font-size=\"13\" font-weight=\"bold\">nmi_entry=%s, %s mode</text>\n",
		top + HEAD - 24, p->entry, p->context);
	fprintf(f, "<text x=\"8\" y=\"%d\">event (boundaries lost of tested)</text>\n",
		top + HEAD - 8);

	for (e = 0; e < cfg->nr_event; e++) {
		for (i = 0; i < rep->nr; i++) {
			const struct result *r = &rep->res[i];

			if (!in_panel(r, p, machine) || event_of(cfg, r->name) != &cfg->event[e])
				continue;
			fprintf(f, "<text x=\"8\" y=\"%d\">", y + 9);
			svg_text(f, cfg->event[e].title ? cfg->event[e].title : cfg->event[e].name);
			fprintf(f, "</text>\n<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%d/%d</text>\n",
				LEFT - 6, y + 9, r->bad, r->nr);
			svg_row(f, p, &cfg->event[e], r, y);
			y += CELL_H;
		}
	}
	return y + 8;
}

void report_svg(const struct report *rep, const struct config *cfg,
		const char *machine, const char *path)
{
	static const char * const context[] = { "kernel", "user" };
	static const char * const entry[] = { "classic", "latched" };
	struct panel panel[ARRAY_SIZE(context) * ARRAY_SIZE(entry)] = { 0 };
	int nr = 0, i, cols = 0, rows = 0, width, height, y = 56;
	size_t c, e;
	FILE *f;

	for (c = 0; c < ARRAY_SIZE(context); c++) {
		for (e = 0; e < ARRAY_SIZE(entry); e++) {
			struct panel *p = &panel[nr];

			p->entry = entry[e];
			snprintf(p->context, sizeof(p->context), "%s", context[c]);
			make_columns(p, rep, machine);
			if (!p->nr)
				continue;
			if (p->nr > cols)
				cols = p->nr;
			for (i = 0; i < rep->nr; i++)
				rows += in_panel(&rep->res[i], p, machine);
			nr++;
		}
	}
	if (!nr)
		die("%s: no results to draw", path);
	width = LEFT + cols * CELL_W + 60;
	height = y + nr * (HEAD + 8) + rows * CELL_H + 16;

	f = fopen(path, "w");
	if (!f)
		die("%s: cannot write", path);
	fprintf(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"10\">\n",
		width, height, width, height);
	fprintf(f, "<!-- SPDX-License-Identifier: GPL-2.0 -->\n");
	fprintf(f, "<style>.k{fill:#92c5de}.l{fill:#d95f02}.x{stroke:#000;stroke-width:1.2;fill:none}</style>\n");
	fprintf(f, "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n", width, height);
	fprintf(f, "<text x=\"8\" y=\"20\" font-size=\"16\" font-weight=\"bold\">NMI and machine check at every instruction of the NMI path</text>\n");
	fprintf(f, "<text x=\"8\" y=\"40\" font-size=\"11\">machine %s; one column is one instruction boundary, in the order of the path</text>\n",
		machine);
	fprintf(f, "<path class=\"k\" d=\"M%d 31h6v10h-6z\"/><text x=\"%d\" y=\"40\" font-size=\"11\">nothing lost</text>\n",
		LEFT + 260, LEFT + 272);
	fprintf(f, "<path class=\"l\" d=\"M%d 31h6v10h-6z\"/><path class=\"x\" d=\"M%d 32l4 8m0 -8l-4 8\"/><text x=\"%d\" y=\"40\" font-size=\"11\">NMI lost, state corrupted, crash or hang</text>\n",
		LEFT + 350, LEFT + 351, LEFT + 362);
	for (i = 0; i < nr; i++)
		y = svg_panel(f, &panel[i], rep, cfg, machine, y);
	fprintf(f, "</svg>\n");
	if (fclose(f))
		die("%s: cannot write", path);
}

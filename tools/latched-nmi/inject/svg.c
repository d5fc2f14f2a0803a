// SPDX-License-Identifier: GPL-2.0
/*
 * The picture: classic and latched side by side, a row for each event that both ran,
 * a column for each phase of the NMI's path.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "svg.h"

#define ROW_H		17
#define BAR_H		12
#define MARGIN		16
#define LABEL_W		250
#define COUNT_W		74
#define GAP		5
#define BLOCK_GAP	30
#define TOP		132
#define MAX_BARS	200

/* C has no boundaries in these events: its column is narrow and grey. */
static const int column_w[NR_PHASE] = { 150, 90, 26, 70, 44 };
static const char * const column_title[NR_PHASE] = {
	"entry", "save", "C", "restore", "return",
};

static const struct {
	const char *context, *title;
} groups[] = {
	{ "kernel", "NMI that interrupts the kernel" },
	{ "user", "NMI that interrupts user mode" },
};

/* One event in one context, by both entries. */
struct row {
	const struct event *ev;
	const struct result *r[ARRAY_SIZE(entries)];
};

/* Both outcomes at an instruction: it may be the place of several cases. */
struct bar {
	bool ok, lost;
};

struct strip {
	struct bar bar[MAX_BARS];
	int nr;
};

struct sum {
	int lost, total;
};

static void text(FILE *f, int x, int y, const char *style, const char *s)
{
	fprintf(f, "<text x=\"%d\" y=\"%d\"%s%s>", x, y, *style ? " " : "", style);
	for (; *s; s++) {
		if (*s == '&')
			fputs("&amp;", f);
		else if (*s == '<')
			fputs("&lt;", f);
		else
			fputc(*s, f);
	}
	fprintf(f, "</text>\n");
}

static void rect(FILE *f, int x, int y, int w, int h, const char *class)
{
	fprintf(f, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" class=\"%s\"/>\n",
		x, y, w, h, class);
}

static int block_width(void)
{
	int p, w = COUNT_W - GAP;

	for (p = 0; p < NR_PHASE; p++)
		w += column_w[p] + GAP;
	return w;
}

static int block_x(size_t e)
{
	return MARGIN + LABEL_W + e * (block_width() + BLOCK_GAP);
}

static const struct result *find(const struct results *all, const char *entry,
				 const char *machine, const char *context,
				 const char *event)
{
	char name[200];
	int i;

	snprintf(name, sizeof(name), "%s/%s", context, event);
	for (i = 0; i < all->nr; i++) {
		const struct result *r = &all->res[i];

		if (!r->skip && !r->mutant && r->nr && !strcmp(r->entry, entry) &&
		    !strcmp(r->machine, machine) && !strcmp(r->name, name))
			return r;
	}
	return NULL;
}

static const struct result_path *find_path(const struct results *all,
					   const struct result *r)
{
	size_t len = strcspn(r->name, "/");
	int i;

	for (i = 0; i < all->nr_path; i++) {
		const struct result_path *p = &all->path[i];

		if (!strcmp(p->entry, r->entry) && !strcmp(p->machine, r->machine) &&
		    strlen(p->context) == len && !strncmp(p->context, r->name, len))
			return p;
	}
	return NULL;
}

/*
 * The instruction that a boundary counts for, and in which phase; -1 if it is not on
 * the NMI's path. If the boundary is a pair: its second half if that is on the path
 * of a further NMI, else its first.
 */
static int step_of(const struct result_path *p, const struct event *ev,
		   const char *label, size_t *len)
{
	const char *last = strrchr(label, ',');
	int i;

	for (i = ev->nr - 1; last && i > 0; i--) {
		if (ev->step[i].kind != STEP_SWEEP)
			continue;
		if (ev->step[i - 1].kind == STEP_NMI)
			label = last + 1;
		break;
	}
	*len = strcspn(label, "#,");
	for (i = 0; p && i < p->steps; i++) {
		if (strlen(p->step[i].label) == *len &&
		    !strncmp(p->step[i].label, label, *len))
			return i;
	}
	return -1;
}

/*
 * What happened in the phase @phase of the path of @r. The entry has a bar more for
 * all of the branches that a plain NMI does not take: nested, restart.
 */
static void make_strip(struct strip *s, const struct results *all, const struct result *r,
		       const struct event *ev, enum phase phase)
{
	const struct result_path *p = find_path(all, r);
	struct bar other = { 0 };
	int i, k, first = -1;
	size_t len;

	memset(s, 0, sizeof(*s));
	for (i = 0; p && i < p->steps; i++) {
		if (p->step[i].phase != phase)
			continue;
		if (first < 0)
			first = i;
		s->nr = i - first + 1;
	}
	if (s->nr >= MAX_BARS)
		die("the path is too long to be drawn");
	for (k = 0; k < r->nr; k++) {
		int at = step_of(p, ev, r->pt[k].label, &len);
		struct bar *b = NULL;

		if (at >= 0 && p->step[at].phase == phase)
			b = &s->bar[at - first];
		else if (at < 0 && phase == PHASE_ENTRY)
			b = &other;
		if (b)
			*(r->pt[k].v == V_OK ? &b->ok : &b->lost) = true;
	}
	if (other.ok || other.lost)
		s->bar[s->nr++] = other;
}

/* Neighbours that are alike are one rectangle. */
static void draw_strip(FILE *f, const struct strip *s, int x, int y, int w)
{
	int i, k;

	rect(f, x, y, w, BAR_H, "n");
	for (i = 0; i < s->nr; i = k) {
		const struct bar *b = &s->bar[i];
		int from = x + w * i / s->nr, to;

		for (k = i + 1; k < s->nr && s->bar[k].ok == b->ok &&
				s->bar[k].lost == b->lost; k++)
			;
		to = x + w * k / s->nr;
		if (b->lost)
			rect(f, from, y, to - from, BAR_H, "l");
		else if (b->ok)
			rect(f, from, y, to - from, BAR_H, "k");
	}
}

static void draw_block(FILE *f, const struct results *all, const struct result *r,
		       const struct event *ev, int x, int y)
{
	int bad = r->lost + r->unreached, p;
	struct strip s;
	char count[64];

	for (p = 0; p < NR_PHASE; p++) {
		if (p == PHASE_HANDLERS) {
			rect(f, x, y, column_w[p], BAR_H, "c");
		} else {
			make_strip(&s, all, r, ev, p);
			draw_strip(f, &s, x, y, column_w[p]);
		}
		x += column_w[p] + GAP;
	}
	snprintf(count, sizeof(count), "%d / %d", bad, r->nr);
	text(f, x + COUNT_W - GAP - 4, y + BAR_H - 2, bad ?
	     "text-anchor=\"end\" class=\"b\"" : "text-anchor=\"end\" class=\"d\"", count);
}

static int collect(const struct results *all, const struct config *cfg,
		   const char *machine, const char *context, struct row *row)
{
	int i, n = 0;
	size_t e;

	for (i = 0; i < cfg->nr_event; i++) {
		struct row *w = &row[n];

		w->ev = &cfg->event[i];
		for (e = 0; e < ARRAY_SIZE(entries); e++)
			w->r[e] = find(all, entries[e], machine, context, w->ev->name);
		n += w->r[0] && w->r[1];
	}
	return n;
}

static int draw_group(FILE *f, const struct results *all, const char *title,
		      const struct row *row, int n, int y)
{
	size_t e;
	int i;

	text(f, MARGIN, y + 12, "font-weight=\"bold\"", title);
	y += ROW_H + 3;
	for (i = 0; i < n; i++) {
		text(f, MARGIN + 8, y + BAR_H - 2, "", row[i].ev->title ?: row[i].ev->name);
		for (e = 0; e < ARRAY_SIZE(entries); e++)
			draw_block(f, all, row[i].r[e], row[i].ev, block_x(e), y);
		y += ROW_H;
	}
	return y + 10;
}

static void draw_head(FILE *f, const struct results *all, const char *machine,
		      const struct sum sum[])
{
	char line[300];
	size_t e;
	int x, p;

	text(f, MARGIN, 30, "font-size=\"19\" font-weight=\"bold\"",
	     "One more NMI or a machine check at every instruction of the NMI path");
	snprintf(line, sizeof(line), "Linux %s, QEMU model %s. What is lost is the NMI, the interrupted context, or the machine.",
		 all->kernel ?: "?", machine);
	text(f, MARGIN, 50, "class=\"d\"", line);

	rect(f, MARGIN, 62, 16, BAR_H, "k");
	text(f, MARGIN + 22, 72, "", "nothing lost");
	rect(f, MARGIN + 110, 62, 16, BAR_H, "l");
	text(f, MARGIN + 132, 72, "", "lost");
	rect(f, MARGIN + 176, 62, 16, BAR_H, "n");
	text(f, MARGIN + 198, 72, "", "no event was put here");
	rect(f, MARGIN + 346, 62, 16, BAR_H, "c");
	text(f, MARGIN + 368, 72, "", "the handlers, in C");

	for (e = 0; e < ARRAY_SIZE(entries); e++) {
		snprintf(line, sizeof(line), "%s: %d of %d lost",
			 e ? "latched" : "classic (Linux's own entry)", sum[e].lost,
			 sum[e].total);
		text(f, block_x(e), 102, sum[e].lost ?
		     "font-size=\"15\" class=\"b\"" : "font-size=\"15\" font-weight=\"bold\" class=\"g\"",
		     line);
		for (x = block_x(e), p = 0; p < NR_PHASE; p++) {
			snprintf(line, sizeof(line), "%s", column_title[p]);
			text(f, x + column_w[p] / 2, TOP - 10, "text-anchor=\"middle\" class=\"d\"",
			     line);
			x += column_w[p] + GAP;
		}
		text(f, x + COUNT_W - GAP - 4, TOP - 10, "text-anchor=\"end\" class=\"d\"",
		     "lost / tried");
	}
	text(f, MARGIN, TOP - 10, "class=\"d\"", "what came during the first NMI");
}

void svg_write(const struct results *all, const struct config *cfg,
	       const char *machine, const char *path)
{
	struct row *row[ARRAY_SIZE(groups)];
	struct sum sum[ARRAY_SIZE(entries)] = { 0 };
	int n[ARRAY_SIZE(groups)], i, rows = 0, used = 0, width, height, y = TOP;
	size_t c, e;
	FILE *f;

	for (c = 0; c < ARRAY_SIZE(groups); c++) {
		row[c] = xalloc((cfg->nr_event + 1) * sizeof(**row));
		n[c] = collect(all, cfg, machine, groups[c].context, row[c]);
		rows += n[c];
		used += n[c] > 0;
		for (i = 0; i < n[c]; i++) {
			for (e = 0; e < ARRAY_SIZE(entries); e++) {
				const struct result *r = row[c][i].r[e];

				sum[e].lost += r->lost + r->unreached;
				sum[e].total += r->nr;
			}
		}
	}
	if (!rows) {
		fprintf(stderr, "# %s: not drawn, since no event was run by both entries\n", path);
		return;
	}
	width = block_x(1) + block_width() + MARGIN;
	height = TOP + rows * ROW_H + used * (ROW_H + 13);

	f = fopen(path, "w");
	if (!f)
		die("%s: cannot write", path);
	fprintf(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n",
		width, height, width, height);
	fprintf(f, "<!-- SPDX-License-Identifier: GPL-2.0 -->\n");
	fprintf(f, "<style>.k{fill:#9ecae1}.l{fill:#d94801}.n{fill:#fff;stroke:#ccc;stroke-width:.6}.c{fill:#d9d9d9}.d{fill:#666}.g{fill:#2171b5}.b{fill:#a63603;font-weight:bold}</style>\n");
	fprintf(f, "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n", width, height);
	draw_head(f, all, machine, sum);
	for (c = 0; c < ARRAY_SIZE(groups); c++) {
		if (n[c])
			y = draw_group(f, all, groups[c].title, row[c], n[c], y);
		free(row[c]);
	}
	fprintf(f, "</svg>\n");
	if (fclose(f))
		die("%s: cannot write", path);
}

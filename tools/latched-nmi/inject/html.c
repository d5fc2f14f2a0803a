// SPDX-License-Identifier: GPL-2.0
/*
 * The whole matrix as one page that needs nothing else: a line for each case, and for
 * each of its boundaries a cell that shows the outcome and the command to run it again.
 *
 * The cells are drawn when a line is opened, from the text that it carries: a boundary,
 * a verdict and what was seen, with tabs in between.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "html.h"

static const char head[] =
	"<!DOCTYPE html>\n"
	"<!-- SPDX-License-Identifier: GPL-2.0 -->\n"
	"<html lang=\"en\"><meta charset=\"utf-8\"><title>make inject</title>\n"
	"<style>\n"
	"body{font:14px sans-serif;margin:1em 1em 6em}\n"
	"table{border-collapse:collapse}\n"
	"td,th{padding:2px 10px;text-align:left;vertical-align:top}\n"
	"tr:hover>td{background:#f4f4f4}td.n{text-align:right}td.o{cursor:pointer}\n"
	".bad{color:#a63603;font-weight:bold}.dim{color:#666}\n"
	".cells{max-width:70em;line-height:0}\n"
	".cells i{display:inline-block;width:9px;height:13px;margin:1px;cursor:pointer}\n"
	".k{background:#9ecae1}.l{background:#d94801}.u{background:#fdae6b}\n"
	"#bar{position:fixed;left:0;right:0;bottom:0;background:#222;color:#fff;padding:.8em 1em;"
	"font:13px monospace;white-space:pre-wrap;user-select:all}\n"
	"</style>\n";

static const char legend[] =
	"<p>Each line is one event at each of its boundaries. Click on a name to see the "
	"boundaries, on a cell to see the outcome and the command that runs it again. "
	"<i class=\"k\">&nbsp;&nbsp;</i> nothing lost, "
	"<i class=\"l\">&nbsp;&nbsp;</i> the NMI, the interrupted context or the machine lost, "
	"<i class=\"u\">&nbsp;&nbsp;</i> the boundary was not reached.</p>\n"
	"<table><tr><th>entry</th><th>machine</th><th>context / event</th><th>lost</th>"
	"<th>not reached</th><th>tried</th><th></th></tr>\n";

static const char script[] =
	"</table><div id=\"bar\">make inject CASE=... AT=...</div>\n"
	"<script>\n"
	"document.querySelectorAll('td.o').forEach(td => td.onclick = () => {\n"
	"  const tr = td.parentNode, next = tr.nextElementSibling;\n"
	"  if (next && next.className == 'cells') { next.remove(); return; }\n"
	"  const row = document.createElement('tr'), cell = row.insertCell();\n"
	"  row.className = 'cells'; cell.colSpan = 7; cell.className = 'cells';\n"
	"  tr.querySelector('script').textContent.trim().split('\\n').forEach(line => {\n"
	"    const [at, verdict, detail] = line.split('\\t'), i = document.createElement('i');\n"
	"    i.className = verdict == 'ok' ? 'k' : verdict == 'unreached' ? 'u' : 'l';\n"
	"    i.title = at + ': ' + verdict + ' ' + detail;\n"
	"    i.onclick = () => document.getElementById('bar').textContent =\n"
	"      i.title + '\\n' + tr.dataset.again.replace('@AT@', at);\n"
	"    cell.append(i);\n"
	"  });\n"
	"  tr.after(row);\n"
	"});\n"
	"</script></html>\n";

static void quoted(FILE *f, const char *s)
{
	for (; *s; s++) {
		if (*s == '&')
			fputs("&amp;", f);
		else if (*s == '<')
			fputs("&lt;", f);
		else if (*s == '"')
			fputs("&quot;", f);
		else
			fputc(*s, f);
	}
}

/* Nothing in a script element is markup but its end. */
static void raw(FILE *f, const char *s)
{
	for (; *s; s++)
		fputc(*s == '<' ? '(' : *s, f);
}

static void row(FILE *f, const struct result *r, const struct config *cfg)
{
	const struct event *ev = result_event(r, cfg);
	char *again = result_again(r, "@AT@");
	int k;

	fprintf(f, "<tr data-again=\"");
	quoted(f, again);
	fprintf(f, "\"><td>%s</td><td>%s</td><td class=\"o\">%s<br><span class=\"dim\">",
		r->entry, r->machine, r->name);
	quoted(f, ev && ev->title ? ev->title : "");
	fprintf(f, "</span></td><td class=\"n%s\">%d</td><td class=\"n\">%d</td><td class=\"n\">%d</td><td>%s",
		r->lost ? " bad" : "", r->lost, r->unreached, r->nr,
		result_lossy(r, cfg) ? "expected of stock" : "");
	fprintf(f, "<script type=\"text/plain\">\n");
	for (k = 0; k < r->nr; k++) {
		fprintf(f, "%s\t%s\t", r->pt[k].label, verdict_name[r->pt[k].v]);
		raw(f, r->pt[k].detail);
		fputc('\n', f);
	}
	fprintf(f, "</script></td></tr>\n");
	free(again);
}

void html_write(const struct results *all, const struct config *cfg, const char *path)
{
	FILE *f = fopen(path, "w");
	int i;

	if (!f)
		die("%s: cannot write", path);
	fputs(head, f);
	fprintf(f, "<h1>NMIs and machine checks at each instruction of the NMI path, Linux %s</h1>\n",
		all->kernel ?: "?");
	fputs(legend, f);
	for (i = 0; i < all->nr; i++) {
		const struct result *r = &all->res[i];

		if (!r->skip && !r->mutant)
			row(f, r, cfg);
	}
	fputs(script, f);
	if (fclose(f))
		die("%s: cannot write", path);
}

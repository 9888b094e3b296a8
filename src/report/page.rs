//! A report as one HTML file that needs nothing else: style and pictures are inside, nothing is loaded from anywhere.

use super::style::escape;
use super::{Align, Table};

/// The look of a page; plain, narrow enough to read, fit for print and for dark screens.
const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1f2430;--muted:#5d6575;--line:#e6e8ec;--paper:#fff}\
@media(prefers-color-scheme:dark){:root{--ink:#e8eaf0;--muted:#9aa3b5;--line:#333a48;--paper:#14171e}}\
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1000px;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2.2rem}\
p.lead{color:var(--muted);margin-top:0;white-space:pre-line}\
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums}\
th,td{padding:.25rem .7rem;border-bottom:1px solid var(--line);text-align:left;white-space:nowrap}\
th.r,td.r{text-align:right}th{color:var(--muted);font-weight:600}\
svg{max-width:100%;height:auto;margin:1rem 0}\
pre{white-space:pre-wrap;word-break:break-all;font-size:.8rem;border:1px solid var(--line);padding:.7rem}";

/// A page that is being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    title: String,
    body: String,
}

impl Page {
    /// An empty page; `lead` stands under its title.
    pub fn new(title: &str, lead: &str) -> Self {
        let body = format!("<h1>{}</h1>\n<p class=\"lead\">{}</p>\n", escape(title), escape(lead.trim_end()));
        Self { title: title.to_owned(), body }
    }

    /// A heading.
    pub fn heading(&mut self, text: &str) {
        self.body.push_str(&format!("<h2>{}</h2>\n", escape(text)));
    }

    /// A paragraph.
    pub fn paragraph(&mut self, text: &str) {
        self.body.push_str(&format!("<p>{}</p>\n", escape(text)));
    }

    /// Text as it is, such as a command.
    pub fn verbatim(&mut self, text: &str) {
        self.body.push_str(&format!("<pre>{}</pre>\n", escape(text)));
    }

    /// A picture; `svg` is trusted, as it comes from the neighbouring files.
    pub fn picture(&mut self, svg: &str) {
        self.body.push_str(svg);
    }

    /// A table.
    pub fn table(&mut self, table: &Table) {
        let class = |align: Align| if align == Align::Right { " class=\"r\"" } else { "" };
        let head: String =
            table.columns().map(|(title, align)| format!("<th{}>{}</th>", class(align), escape(title))).collect();
        self.body.push_str(&format!("<div class=\"scroll\"><table>\n<tr>{head}</tr>\n"));
        for row in table.rows() {
            let cells: String = row
                .iter()
                .zip(table.columns())
                .map(|(cell, (_, align))| format!("<td{}>{}</td>", class(align), escape(cell)))
                .collect();
            self.body.push_str(&format!("<tr>{cells}</tr>\n"));
        }
        self.body.push_str("</table></div>\n");
    }

    /// The whole file.
    pub fn finish(self) -> String {
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{}</body>\n</html>\n",
            escape(&self.title),
            self.body
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_escaped_and_nothing_is_loaded() {
        let mut table = Table::new([("a<b", Align::Left), ("n", Align::Right)]);
        table.push(["<script>", "1"]);
        let mut page = Page::new("A & B", "one\ntwo\n");
        page.heading("<h>");
        page.paragraph("\"quoted\"");
        page.verbatim("serve <x>");
        page.table(&table);
        page.picture("<svg></svg>");
        let html = page.finish();
        let expected = [
            "<title>A &amp; B</title>",
            "<h2>&lt;h&gt;</h2>",
            "<p>&quot;quoted&quot;</p>",
            "<pre>serve &lt;x&gt;</pre>",
            "<tr><th>a&lt;b</th><th class=\"r\">n</th></tr>",
            "<tr><td>&lt;script&gt;</td><td class=\"r\">1</td></tr>",
            "<svg></svg>",
        ];
        for part in expected {
            assert!(html.contains(part), "{part}");
        }
        assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("<script"));
        assert!(html.contains("default-src 'none'"));
    }
}

//! Tables for the terminal and for Markdown: one table, two renderings, columns aligned in both.

use unicode_width::UnicodeWidthStr;

/// Which side the cells of a column keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table of text cells under a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    head: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these columns.
    pub fn new<S: Into<String>>(columns: impl IntoIterator<Item = (S, Align)>) -> Self {
        Self { head: columns.into_iter().map(|(title, align)| (title.into(), align)).collect(), rows: Vec::new() }
    }

    /// Adds a row. Missing cells are empty, cells beyond the last column are dropped, line breaks become spaces.
    pub fn push<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let mut row: Vec<String> =
            cells.into_iter().map(|cell| cell.into().replace("\r\n", " ").replace(['\n', '\r'], " ")).collect();
        row.resize(self.head.len(), String::new());
        self.rows.push(row);
    }

    /// The same without the columns in which every row holds `nothing`.
    pub fn without_empty(self, nothing: &str) -> Self {
        let keep: Vec<bool> = (0..self.head.len())
            .map(|column| {
                self.rows.is_empty() || self.rows.iter().any(|row| row.get(column).is_some_and(|cell| cell != nothing))
            })
            .collect();
        fn kept<T>(cells: Vec<T>, keep: &[bool]) -> Vec<T> {
            cells.into_iter().zip(keep).filter(|(_, keep)| **keep).map(|(cell, _)| cell).collect()
        }
        let rows = self.rows.into_iter().map(|row| kept(row, &keep)).collect();
        Self { head: kept(self.head, &keep), rows }
    }

    /// The title of every column and the side it keeps to, for other renderings.
    pub fn columns(&self) -> impl Iterator<Item = (&str, Align)> {
        self.head.iter().map(|(title, align)| (title.as_str(), *align))
    }

    /// The cells of every row.
    pub fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// Rows so far.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table for a terminal: two spaces between columns, a line under the head, a final line break, no spaces at line
    /// ends. Widths are those of the terminal, so that wide characters and combining marks keep the columns straight.
    pub fn to_terminal(&self) -> String {
        let widths = self.widths(|cell| cell.to_owned());
        let titles: Vec<String> = self.head.iter().map(|(title, _)| title.clone()).collect();
        let rule: Vec<String> = widths.iter().map(|&width| "─".repeat(width)).collect();
        let mut text = String::new();
        for row in [&titles, &rule].into_iter().chain(&self.rows) {
            let cells: Vec<String> = self.padded(row, &widths).collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }

    /// The table as GitHub-flavoured Markdown with a final line break; `|` in cells is escaped. Columns are padded so that
    /// the source is as readable as the page.
    pub fn to_markdown(&self) -> String {
        let escape = |cell: &str| cell.replace('|', "\\|");
        let widths: Vec<usize> = self.widths(escape).into_iter().map(|width| width.max(3)).collect();
        let titles: Vec<String> = self.head.iter().map(|(title, _)| escape(title)).collect();
        let rule: Vec<String> = self
            .head
            .iter()
            .zip(&widths)
            .map(|((_, align), &width)| match align {
                Align::Left => "-".repeat(width),
                Align::Right => format!("{}:", "-".repeat(width - 1)),
            })
            .collect();
        let rows = self.rows.iter().map(|row| row.iter().map(|cell| escape(cell)).collect());
        let mut text = String::new();
        for row in [titles, rule].into_iter().chain(rows) {
            let cells: Vec<String> = self.padded(&row, &widths).collect();
            text.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
        text
    }

    fn widths(&self, shown: impl Fn(&str) -> String) -> Vec<usize> {
        let column = |index: usize, title: &str| {
            let cells = self.rows.iter().filter_map(|row| row.get(index)).map(|cell| shown(cell).width());
            cells.chain([shown(title).width()]).max().unwrap_or(0)
        };
        self.head.iter().enumerate().map(|(index, (title, _))| column(index, title)).collect()
    }

    fn padded(&self, row: &[String], widths: &[usize]) -> impl Iterator<Item = String> {
        self.head.iter().zip(row).zip(widths).map(|(((_, align), cell), &width)| {
            let space = " ".repeat(width.saturating_sub(cell.width()));
            match align {
                Align::Left => format!("{cell}{space}"),
                Align::Right => format!("{space}{cell}"),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new([("tier", Align::Left), ("tokens", Align::Right)]);
        table.push(["base", "1,204"]);
        table.push(["α = 0.1|二", "87", "too many"]);
        table.push(["line\nbreak"]);
        table
    }

    #[test]
    fn terminal_columns_line_up() {
        assert_eq!(
            sample().to_terminal(),
            "tier        tokens\n\
             ──────────  ──────\n\
             base         1,204\n\
             α = 0.1|二      87\n\
             line break\n"
        );
    }

    #[test]
    fn markdown_escapes_bars() {
        assert_eq!(
            sample().to_markdown(),
            "| tier        | tokens |\n\
             | ----------- | -----: |\n\
             | base        |  1,204 |\n\
             | α = 0.1\\|二 |     87 |\n\
             | line break  |        |\n"
        );
    }

    #[test]
    fn columns_without_anything_can_be_left_out() {
        let mut table = Table::new([("a", Align::Left), ("b", Align::Right), ("c", Align::Left)]);
        table.push(["1", "–", "–"]);
        table.push(["2", "–", "3"]);
        let table = table.without_empty("–");
        assert_eq!(table.columns().collect::<Vec<_>>(), [("a", Align::Left), ("c", Align::Left)]);
        assert_eq!(table.rows(), [["1", "–"], ["2", "3"]]);
    }

    #[test]
    fn an_empty_table_is_its_head() {
        let table = Table::new([("a", Align::Left)]);
        assert!(table.is_empty());
        assert_eq!(table.to_terminal(), "a\n─\n");
        assert_eq!(table.to_markdown(), "| a   |\n| --- |\n");
    }
}

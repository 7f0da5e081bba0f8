//! Tables of text.

use super::{clean::words, wrap::wrapped};

/// How many spaces are between two columns.
const GAP: usize = 2;

/// A table with left-aligned columns, two spaces apart, and no rules, so that it is easy to read and to `cut`.
#[derive(Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(header: &[&str]) -> Self {
        Table {
            rows: vec![header.iter().map(ToString::to_string).collect()],
        }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows
            .push(cells.into_iter().map(|cell| words(&cell)).collect());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// Returns the table, for a terminal of that width if there is one.
    pub fn fitted(&self, width: Option<usize>) -> String {
        match width {
            Some(width) => self.render_within(width),
            None => self.render(),
        }
    }

    /// Returns the table for a terminal of that width. If it does not fit, the last column is broken at spaces; if that is
    /// not enough, each row becomes a list.
    fn render_within(&self, width: usize) -> String {
        let widths = self.widths();
        let before: usize = widths.iter().rev().skip(1).map(|width| width + GAP).sum();
        let last = widths.len().saturating_sub(1);
        if before + widths.last().unwrap_or(&0) <= width {
            return self.render();
        }
        let words = (self.rows.iter())
            .filter_map(|row| row.get(last))
            .flat_map(|cell| cell.split(' '));
        let longest = words.map(|word| word.chars().count()).max().unwrap_or(0);
        if before + longest > width {
            return self.lists(width);
        }
        let mut broken = Table::default();
        for row in &self.rows {
            let lines = wrapped(row.get(last).map_or("", String::as_str), width - before);
            for (n, line) in lines.into_iter().enumerate() {
                let mut cells = match n {
                    0 => row[..row.len().min(last)].to_vec(),
                    _ => Vec::new(),
                };
                cells.resize(last, String::new());
                cells.push(line);
                broken.rows.push(cells);
            }
        }
        broken.render()
    }

    /// Returns each row as a list of its cells, below its first one.
    fn lists(&self, width: usize) -> String {
        let Some((header, rows)) = self.rows.split_first() else {
            return String::new();
        };
        let name = header.iter().skip(1).map(|name| name.chars().count()).max();
        let indentation = name.unwrap_or(0) + 2 * GAP;
        let mut text = String::new();
        for (n, row) in rows.iter().enumerate() {
            if n > 0 {
                text.push('\n');
            }
            text.push_str(row.first().map_or("", String::as_str));
            text.push('\n');
            for (name, cell) in header.iter().zip(row).skip(1) {
                let lines = wrapped(cell, width.saturating_sub(indentation).max(1));
                let cell = lines.join(&format!("\n{:indentation$}", ""));
                let name = format!("  {}", name.to_lowercase());
                text.push_str(format!("{name:<indentation$}{cell}").trim_end());
                text.push('\n');
            }
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        (0..columns)
            .map(|column| {
                self.rows
                    .iter()
                    .filter_map(|row| row.get(column))
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect()
    }

    pub fn render(&self) -> String {
        let widths = self.widths();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_one_line_of_plain_text() {
        let mut table = Table::new(&["NAME", "KERNEL"]);
        table.row(["web".into(), "6.1\u{1b}]52;c;eA\u{7}\nother  off".into()]);
        assert_eq!(table.render(), "NAME  KERNEL\nweb   6.1 other  off\n");
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["web-1".into(), "ready".into()]);
        assert_eq!(table.render(), "NAME   STATE\nweb-1  ready\n");
    }

    #[test]
    fn a_narrow_terminal_breaks_no_words() {
        let mut table = Table::new(&["MACHINE", "STATE", "BOX", "PORTS"]);
        for name in ["db", "web"] {
            let ports = "27408→22 15432→5432".to_string();
            table.row([name.into(), "ready".into(), "debian-12 12.15".into(), ports]);
        }
        assert_eq!(table.render_within(53), table.render());
        assert_eq!(
            table.render_within(50),
            "MACHINE  STATE  BOX              PORTS\n\
             db       ready  debian-12 12.15  27408→22\n\
             \x20                                15432→5432\n\
             web      ready  debian-12 12.15  27408→22\n\
             \x20                                15432→5432\n"
        );
        assert_eq!(
            table.render_within(24),
            "db\n  state  ready\n  box    debian-12 12.15\n  ports  27408→22\n         15432→5432\n\n\
             web\n  state  ready\n  box    debian-12 12.15\n  ports  27408→22\n         15432→5432\n"
        );
    }
}

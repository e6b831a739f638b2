//! Tables of reports.

use serde::{Deserialize, Serialize};

/// How a table looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// Columns, for a terminal.
    Text,
    /// Markdown.
    Markdown,
}

/// A table. Columns but the first are of numbers.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Default, Debug)]
pub struct Table {
    /// Its head, of empty names if all is said by the first column.
    pub columns: Vec<String>,
    /// Its rows, each as long as the head.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// With these columns, and no row yet.
    pub fn new(columns: &[&str]) -> Table {
        Table { columns: columns.iter().map(|name| (*name).to_owned()).collect(), rows: vec![] }
    }

    /// What is named, and what it is.
    pub fn of_pairs<const N: usize>(pairs: [(&str, String); N]) -> Table {
        let rows = pairs.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
        Table { rows, ..Table::new(&["", ""]) }
    }

    /// As text.
    pub fn to_text(&self, style: Style) -> String {
        let rows = [vec![self.columns.clone()], self.rows.clone()].concat();
        if self.rows.is_empty() { String::new() } else { text(style, &rows) }
    }
}

/// Rows as text, of which the first is the head.
pub(crate) fn text(style: Style, rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |c: usize| rows.iter().map(|row| row[c].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for (i, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(c, (cell, width))| match c {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        let cells: Vec<String> = cells.collect();
        let line = match style {
            Style::Text => format!("  {}", cells.join("  ")),
            Style::Markdown => format!("| {} |", cells.join(" | ")),
        };
        if style == Style::Markdown || !line.trim().is_empty() {
            out += line.trim_end();
            out.push('\n');
        }
        if i == 0 && style == Style::Markdown {
            let rule = (0..columns).map(|c| if c == 0 { "---|" } else { "--:|" });
            out += &format!("|{}\n", rule.collect::<String>());
        }
    }
    out
}

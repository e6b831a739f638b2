//! Tables for people: columns as wide as what is in them, numbers to the right.

use std::fmt;

/// A table; its first row is the head.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(head: &[&str]) -> Table {
        Table { rows: vec![head.iter().map(|s| (*s).to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |s: &str| s.chars().count();
        let column = |c: usize| self.rows.iter().filter_map(move |r| r.get(c));
        let widths: Vec<usize> =
            (0..columns).map(|c| column(c).map(|s| width(s)).max().unwrap_or(0)).collect();
        let is_number = |s: &String| !s.is_empty() && s.chars().all(|c| c.is_ascii_digit());
        let right: Vec<bool> = (0..columns)
            .map(|c| column(c).skip(1).all(|s| is_number(s) || s == "-") && column(c).skip(1).any(is_number))
            .collect();
        for row in &self.rows {
            let mut line = String::new();
            for (c, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[c] - width(cell));
                let cell = if right[c] { format!("{pad}{cell}") } else { format!("{cell}{pad}") };
                line += &cell;
                line += "  ";
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right() {
        let mut table = Table::new(&["name", "packets", "note"]);
        table.row(["é".to_owned(), "5".to_owned(), "x".to_owned()]);
        table.row(["longer".to_owned(), "12345678".to_owned(), String::new()]);
        table.row(["none".to_owned(), "-".to_owned(), "y".to_owned()]);
        assert_eq!(
            table.to_string(),
            "name     packets  note\n\
             é              5  x\n\
             longer  12345678\n\
             none           -  y\n"
        );
    }
}

//! A table of left-aligned columns, as wide as their content, without lines: easy on the eye and on `awk`.

/// Space between two columns.
const GAP: usize = 2;

pub struct Table {
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(heads: &[&str]) -> Self {
        Self { heads: heads.iter().map(|head| (*head).to_owned()).collect(), rows: Vec::new() }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    pub fn print(&self) {
        print!("{}", self.render());
    }

    fn render(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&self.heads]).filter_map(|row| row.get(column));
            cells.map(|cell| visible(cell)).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.heads.len()).map(width).collect();
        let mut text = String::new();
        for row in [&self.heads].into_iter().chain(&self.rows) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.push_str(&" ".repeat(width + GAP - visible(cell)));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Characters on the screen: what stands between ESC and `m` is colour.
fn visible(cell: &str) -> usize {
    let mut coloured = false;
    cell.chars()
        .filter(|&c| {
            let was_coloured = coloured || c == '\x1b';
            coloured = was_coloured && c != 'm';
            !was_coloured
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_do_not_trail() {
        let mut table = Table::new(&["A", "LONG"]);
        table.row(["wide".into(), "x".into()]);
        table.row(["\x1b[32mok\x1b[0m".into(), String::new()]);
        assert_eq!(table.render(), "A     LONG\nwide  x\n\x1b[32mok\x1b[0m\n");
    }
}

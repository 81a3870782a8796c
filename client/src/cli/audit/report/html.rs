//! HTML in which text from elsewhere is text.

use std::fmt::{self, Write as _};

use crate::cli::terminal::line;

/// Markup. Text gets into it escaped, or not at all.
#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// Adds markup that stands in this program.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Adds text from anywhere: what is markup in it is escaped, and what would be invisible or reorder it is spelled out.
    pub(super) fn text(&mut self, text: impl fmt::Display) -> &mut Self {
        for c in line(&text.to_string()).chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '`' => self.0.push_str("&#96;"),
                _ => self.0.push(c),
            }
        }
        self
    }

    /// Adds a number.
    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        let _ = write!(self.0, "{number}");
        self
    }

    /// Adds a row of a table.
    pub(super) fn row(&mut self, cells: &[&dyn fmt::Display]) -> &mut Self {
        self.raw("<tr>");
        for cell in cells {
            self.raw("<td>").text(cell).raw("</td>");
        }
        self.raw("</tr>\n")
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        let mut html = Html::default();
        html.text("<script>alert(\"1\" & '2')</script>`\u{202e}\u{1b}");
        let text = html.into_string();
        assert!(!text.contains(['<', '>', '"', '\'', '`', '\u{202e}', '\u{1b}']), "{text}");
        assert_eq!(text.matches("&lt;").count(), 2);
    }
}

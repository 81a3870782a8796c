//! Text from elsewhere, made fit for a terminal.

use std::{borrow::Cow, fmt::Write as _};

/// Replaces what could move the cursor, change colours, or reorder or hide text: control characters but the newline,
/// format characters, separators other than the space, and noncharacters. Each becomes `\u{...}`.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) {
            // Writing to a String does not fail.
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out.into()
}

/// As [`escape`], for a text that must stay on its line.
pub(super) fn line(text: &str) -> String {
    escape(text).replace('\n', "\\n")
}

const fn is_unsafe(c: char) -> bool {
    match c {
        '\n' => false,
        _ if c.is_ascii_control() => true,
        // C1 controls, soft hyphen.
        '\u{80}'..='\u{9f}' | '\u{ad}' => true,
        // Marks that reorder, join or hide; line and paragraph separators; other spaces.
        '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{1680}' | '\u{180e}' | '\u{2000}'..='\u{200f}' => true,
        '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}' | '\u{3000}' | '\u{3164}' | '\u{a0}' => true,
        '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{ffff}' => true,
        // Tags, variation selectors, private use.
        '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..='\u{10ffff}' => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_reaches_a_terminal() {
        for c in (0..=0x10_ffff_u32).filter_map(char::from_u32).filter(|c| c.is_control() && *c != '\n') {
            let escaped = escape(&format!("a{c}b")).into_owned();
            assert!(!escaped.contains(c) && escaped.starts_with("a\\u{"), "{c:?}");
        }
    }

    #[test]
    fn text_that_would_be_shown_in_another_order_is_spelled_out() {
        assert_eq!(escape("report\u{202e}txt.exe"), "report\\u{202e}txt.exe");
        assert_eq!(line("one\ntwo\u{1b}[2J"), "one\\ntwo\\u{1b}[2J");
    }

    #[test]
    fn ordinary_text_of_any_language_stays_as_it_is() {
        for text in ["Metropolis (1927)", "Тарковский", "七人の侍", "Amélie\nline two"] {
            assert_eq!(escape(text), text);
        }
    }
}

//! The part of the README that holds measured ratios: whatever lies between two marks is written anew.

use std::path::Path;

use crate::table::Table;

const BEGIN: &str = "<!-- measured: written by `cargo measure all` -->\n";
const END: &str = "<!-- /measured -->\n";

/// Writes the ratios of a table to the README; leaves one without marks as it is.
pub(crate) fn include(readme: &Path, table: &Table) {
    let text = std::fs::read_to_string(readme).unwrap();
    let Some((before, rest)) = text.split_once(BEGIN) else { return };
    let Some((_, after)) = rest.split_once(END) else { return };
    std::fs::write(readme, format!("{before}{BEGIN}{}{END}{after}", table.ratios())).unwrap();
}

use serde_json::{Value, json};

use crate::machine;

/// What a bench found.
pub(crate) struct Table {
    pub(crate) title: String,
    machine: String,
    commit: String,
    rows: Vec<Row>,
    /// Lines that stand below.
    pub(crate) notes: Vec<String>,
}

/// One figure.
pub(crate) struct Row {
    pub(crate) name: String,
    /// What it reached of its limit.
    pub(crate) ratio: Option<f64>,
    /// What it should reach.
    pub(crate) target: Option<f64>,
    pub(crate) figures: String,
}

impl Row {
    pub(crate) fn ratio(name: impl Into<String>, ratio: f64, target: f64, figures: impl Into<String>) -> Self {
        Self { name: name.into(), ratio: Some(ratio), target: Some(target), figures: figures.into() }
    }

    pub(crate) fn figure(name: impl Into<String>, figures: impl Into<String>) -> Self {
        Self { name: name.into(), ratio: None, target: None, figures: figures.into() }
    }
}

impl Table {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        let (machine, commit) = (machine::describe(), machine::commit());
        Self { title: title.into(), machine, commit, rows: Vec::new(), notes: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Takes in the rows of another bench.
    pub(crate) fn join(&mut self, other: Self) {
        self.rows.extend(other.rows);
        self.notes.extend(other.notes);
    }

    /// Names of the figures below their targets.
    pub(crate) fn missed(&self) -> Vec<&str> {
        let below = |row: &&Row| matches!((row.ratio, row.target), (Some(ratio), Some(target)) if ratio < target);
        self.rows.iter().filter(below).map(|row| row.name.as_str()).collect()
    }

    /// A Markdown table.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}\n\n{}; sources at {}\n\n", self.title, self.machine, self.commit);
        text += "| what | ratio | target | figures |\n|---|---|---|---|\n";
        let number = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.2}"));
        for row in &self.rows {
            text += &format!("| {} | {} | {} | {} |\n", row.name, number(row.ratio), number(row.target), row.figures);
        }
        for note in &self.notes {
            text += &format!("\n{note}\n");
        }
        text
    }

    /// The figures that have a target, two in a line.
    pub(crate) fn ratios(&self) -> String {
        let judged = self.rows.iter().filter_map(|row| Some((&row.name, row.ratio?, row.target?)));
        let cells: Vec<_> = judged.map(|(name, ratio, target)| format!("| {name} | {ratio:.2} of {target} ")).collect();
        let lines: Vec<_> = cells.chunks(2).map(|cells| format!("{}|", cells.concat())).collect();
        format!(
            "{}; sources at {}\n\n| ratio to limit or peer | reached of target | | |\n|---|---|---|---|\n{}\n",
            self.machine,
            self.commit,
            lines.join("\n")
        )
    }

    pub(crate) fn json(&self) -> Value {
        let rows = self
            .rows
            .iter()
            .map(|row| json!({ "name": row.name, "ratio": row.ratio, "target": row.target, "figures": row.figures }));
        let rows: Vec<Value> = rows.collect();
        json!({ "title": self.title, "machine": self.machine, "commit": self.commit, "rows": rows, "notes": self.notes })
    }
}

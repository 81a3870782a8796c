mod attestation;
mod rules;
mod statement;

use std::fmt;

use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use self::{rules::Rule, statement::Statement};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Not a hole, but somebody has to watch it.
    Warning,
    /// Somebody other than the measured images can get at keys.
    Refused,
}

/// Something in a key policy that lets somebody in, or may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A stable name.
    pub rule: &'static str,
    /// The statement's Sid, or its place; `policy` for the whole.
    pub statement: String,
    /// What can happen.
    pub why: &'static str,
    /// What to do.
    pub mend: &'static str,
}

impl Finding {
    /// Whether the policy must not be used as it is.
    pub const fn is_refused(&self) -> bool {
        matches!(self.severity, Severity::Refused)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = if self.is_refused() { "refused" } else { "warning" };
        let Self { rule, statement, why, mend, .. } = self;
        write!(f, "{severity} [{rule}] {statement}: {why} Mend: {mend}")
    }
}

/// The document is not a policy that AWS would take, so nothing can be said about it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a key policy: {0}")]
pub struct NotAPolicy(String);

/// Everything that is wrong with a key policy, in the order of its statements, then what is wrong with the whole.
///
/// It errs on the strict side: an Allow is judged by itself, as if no Deny would ever meet it, because a Deny is easily
/// taken out and seldom missed.
///
/// # Errors
/// [`NotAPolicy`]. A policy in which nothing is wrong gives no findings.
pub fn lint(policy: &Value) -> Result<Vec<Finding>, NotAPolicy> {
    let statements = Statement::all_of(policy)?;
    let mut findings: Vec<Finding> = Vec::new();
    for statement in &statements {
        let mut found = rules::of_statement(statement);
        found.dedup();
        findings.extend(found.into_iter().map(|rule| rule.at(statement.name())));
    }
    findings.extend(rules::of_whole(&statements).into_iter().map(|rule| rule.at("policy")));
    Ok(findings)
}

impl Rule {
    fn at(self, statement: &str) -> Finding {
        let (severity, rule, why, mend) = self.text();
        Finding { severity, rule, statement: statement.to_owned(), why, mend }
    }
}

#[cfg(test)]
mod tests;

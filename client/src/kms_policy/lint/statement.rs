use serde_json::Value;

use super::NotAPolicy;
use crate::kms_policy::actions::overlap;

/// A statement of a policy, as far as the rules look at it.
pub(super) struct Statement {
    name: String,
    pub(super) effect: Effect,
    pub(super) principal: Principal,
    /// Patterns; `None` for `NotAction`, which is everything but a list.
    pub(super) actions: Option<Vec<String>>,
    pub(super) conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Allow,
    Deny,
}

/// Whom a statement is about.
pub(super) enum Principal {
    /// `*`.
    Anyone,
    /// Somebody by name, and perhaps a whole account among them.
    Named { whole_account: bool },
    /// `NotPrincipal`.
    AllBut,
}

/// One operator over one key.
pub(super) struct Condition {
    pub(super) operator: String,
    /// In lower case: keys are compared without regard to it.
    pub(super) key: String,
    pub(super) values: Vec<String>,
}

impl Statement {
    pub(super) fn all_of(policy: &Value) -> Result<Vec<Self>, NotAPolicy> {
        let list = match policy.get("Statement") {
            Some(Value::Array(list)) if !list.is_empty() => list.as_slice(),
            Some(one @ Value::Object(_)) => std::slice::from_ref(one),
            _ => return Err(NotAPolicy("it has no Statement".to_owned())),
        };
        (1..).zip(list).map(|(number, statement)| Self::of(number, statement)).collect()
    }

    /// The Sid, or the place in the list.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the statement is about any action that one of `patterns` matches.
    pub(super) fn touches(&self, patterns: &[&str]) -> bool {
        match &self.actions {
            None => true,
            Some(actions) => actions.iter().any(|action| patterns.iter().any(|pattern| overlap(action, pattern))),
        }
    }

    /// Whether the statement is about every action that one of `patterns` matches.
    pub(super) fn covers(&self, patterns: &[&str]) -> bool {
        let Some(actions) = &self.actions else { return false };
        patterns.iter().all(|pattern| actions.iter().any(|action| contains(action, pattern)))
    }

    fn of(number: usize, statement: &Value) -> Result<Self, NotAPolicy> {
        let name = match statement.get("Sid").and_then(Value::as_str) {
            Some(sid) if !sid.is_empty() => sid.chars().filter(|c| !c.is_control()).take(80).collect(),
            _ => format!("statement {number}"),
        };
        let wrong = |what: &str| NotAPolicy(format!("{name}: {what}"));
        let effect = match statement.get("Effect").and_then(Value::as_str) {
            Some("Allow") => Effect::Allow,
            Some("Deny") => Effect::Deny,
            _ => return Err(wrong("Effect is neither Allow nor Deny")),
        };
        let principal = match (statement.get("Principal"), statement.get("NotPrincipal")) {
            (Some(principal), None) => Principal::of(principal).ok_or_else(|| wrong("Principal"))?,
            (None, Some(_)) => Principal::AllBut,
            _ => return Err(wrong("a key policy's statement has exactly one of Principal and NotPrincipal")),
        };
        let actions = match (statement.get("Action"), statement.get("NotAction")) {
            (Some(actions), None) => Some(texts(actions).ok_or_else(|| wrong("Action"))?),
            (None, Some(_)) => None,
            _ => return Err(wrong("a statement has exactly one of Action and NotAction")),
        };
        let conditions = match statement.get("Condition") {
            None => Vec::new(),
            Some(block) => conditions(block).ok_or_else(|| wrong("Condition"))?,
        };
        Ok(Self { name, effect, principal, actions, conditions })
    }
}

impl Principal {
    fn of(value: &Value) -> Option<Self> {
        let names = match value {
            Value::String(name) => vec![name.clone()],
            Value::Object(kinds) => {
                let lists = kinds.values().map(texts).collect::<Option<Vec<_>>>()?;
                lists.into_iter().flatten().collect()
            }
            _ => return None,
        };
        let is_account = |name: &String| {
            name.len() == 12 && name.bytes().all(|b| b.is_ascii_digit())
                || name.starts_with("arn:") && name.ends_with(":root")
        };
        match names.iter().any(|name| name == "*") {
            true => Some(Self::Anyone),
            false => Some(Self::Named { whole_account: names.iter().any(is_account) }),
        }
    }
}

fn conditions(block: &Value) -> Option<Vec<Condition>> {
    let mut conditions = Vec::new();
    for (operator, keys) in block.as_object()? {
        for (key, values) in keys.as_object()? {
            let (operator, key) = (operator.clone(), key.to_ascii_lowercase());
            conditions.push(Condition { operator, key, values: texts(values)? });
        }
    }
    Some(conditions)
}

fn texts(value: &Value) -> Option<Vec<String>> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    };
    match value {
        Value::Array(values) => values.iter().map(text).collect(),
        one => Some(vec![text(one)?]),
    }
}

/// Whether every text that matches `part` matches `whole`, for stars at the end only; else unknown, and so no.
fn contains(whole: &str, part: &str) -> bool {
    let (whole, part) = (whole.to_ascii_lowercase(), part.to_ascii_lowercase());
    whole == part
        || whole.strip_suffix('*').is_some_and(|prefix| !prefix.contains(['*', '?']) && part.starts_with(prefix))
}

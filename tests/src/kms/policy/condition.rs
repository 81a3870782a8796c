use std::collections::BTreeMap;

use serde_json::Value;

use super::{PolicyError, pattern::matches, texts};

/// One operator over one condition key. All conditions of a statement must hold.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    operator: Operator,
    /// Negated operators hold where no value matches, and where the key is absent.
    negated: bool,
    /// `...IfExists`: holds where the key is absent.
    if_exists: bool,
    set: Set,
    key: String,
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
enum Operator {
    Equals,
    EqualsIgnoreCase,
    Like,
    Bool,
    Null,
    /// ISO 8601 in UTC, which sorts as time does.
    DateUntil,
}

/// How the values of the request's context key count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    Single,
    Any,
    All,
}

impl Condition {
    pub(super) fn parse_all(block: Option<&Value>) -> Result<Vec<Self>, PolicyError> {
        let Some(block) = block else { return Ok(Vec::new()) };
        let operators = block.as_object().ok_or_else(|| PolicyError("Condition".to_owned()))?;
        let mut conditions = Vec::new();
        for (name, keys) in operators {
            let keys = keys.as_object().ok_or_else(|| PolicyError(format!("Condition {name}")))?;
            for (key, values) in keys {
                conditions.push(Self::parse(name, key, texts(values)?)?);
            }
        }
        Ok(conditions)
    }

    fn parse(name: &str, key: &str, values: Vec<String>) -> Result<Self, PolicyError> {
        let (set, rest) = match name.split_once(':') {
            Some(("ForAnyValue", rest)) => (Set::Any, rest),
            Some(("ForAllValues", rest)) => (Set::All, rest),
            Some(_) => return Err(PolicyError(format!("condition operator {name}"))),
            None => (Set::Single, name),
        };
        let (rest, if_exists) = match rest.strip_suffix("IfExists") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let (operator, negated) = match rest {
            "StringEquals" | "ArnEquals" => (Operator::Equals, false),
            "StringNotEquals" | "ArnNotEquals" => (Operator::Equals, true),
            "StringEqualsIgnoreCase" => (Operator::EqualsIgnoreCase, false),
            "StringNotEqualsIgnoreCase" => (Operator::EqualsIgnoreCase, true),
            "StringLike" | "ArnLike" => (Operator::Like, false),
            "StringNotLike" | "ArnNotLike" => (Operator::Like, true),
            "Bool" => (Operator::Bool, false),
            "Null" => (Operator::Null, false),
            "DateLessThanEquals" => (Operator::DateUntil, false),
            _ => return Err(PolicyError(format!("condition operator {name}"))),
        };
        Ok(Self { operator, negated, if_exists, set, key: key.to_ascii_lowercase(), values })
    }

    pub(super) fn holds(&self, context: &BTreeMap<String, Vec<String>>) -> bool {
        let present = context.iter().find(|(key, _)| key.eq_ignore_ascii_case(&self.key)).map(|(_, values)| values);
        if let Operator::Null = self.operator {
            return self.values.iter().any(|value| value.eq_ignore_ascii_case("true") == present.is_none());
        }
        let Some(present) = present else { return self.if_exists || self.negated || self.set == Set::All };
        let one = |value: &String| self.values.iter().any(|wanted| self.compare(wanted, value)) != self.negated;
        match self.set {
            Set::All => present.iter().all(one),
            Set::Single | Set::Any => present.iter().any(one),
        }
    }

    fn compare(&self, wanted: &str, value: &str) -> bool {
        match self.operator {
            Operator::Equals => wanted == value,
            Operator::EqualsIgnoreCase | Operator::Bool => wanted.eq_ignore_ascii_case(value),
            Operator::Like => matches(wanted, value),
            Operator::DateUntil => value <= wanted,
            Operator::Null => false,
        }
    }
}

use std::collections::BTreeSet;

use super::{
    rules::Rule,
    statement::{Condition, Effect, Statement},
};

const PREFIX: &str = "kms:recipientattestation:";
/// The same digest as PCR0.
const IMAGE: &str = "imagesha384";

/// What a statement demands of the recipient.
pub(super) struct Demands {
    /// Registers that must have one value.
    pub(super) registers: BTreeSet<Register>,
    /// What is wrong with the way it is demanded.
    pub(super) wrong: Vec<Rule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Register {
    ImageSha384,
    Pcr(u8),
}

impl Demands {
    pub(super) fn of(statement: &Statement) -> Self {
        let mut demands = Self { registers: BTreeSet::new(), wrong: Vec::new() };
        for condition in &statement.conditions {
            if let Some(name) = condition.key.strip_prefix(PREFIX) {
                demands.take(statement.effect, Register::named(name), condition);
            }
        }
        demands
    }

    /// What keeps the registers from identifying an image; `None` where they do.
    pub(super) fn shortfall(&self) -> Option<Rule> {
        let has = |register| self.registers.contains(&register);
        let image = has(Register::Pcr(0)) || has(Register::ImageSha384);
        match (image, has(Register::Pcr(1)), has(Register::Pcr(2))) {
            (true, true, true) => None,
            _ if self.registers.is_empty() => Some(Rule::Unattested),
            (true, false, false) if !has(Register::Pcr(0)) => Some(Rule::ImageSha384Alone),
            (false, false, false) => Some(Rule::NoImage),
            _ => Some(Rule::IncompleteImage),
        }
    }

    fn take(&mut self, effect: Effect, register: Option<Register>, condition: &Condition) {
        let Condition { operator, values, .. } = condition;
        let before = self.wrong.len();
        let (set, rest) = operator.split_once(':').unwrap_or(("", operator));
        if !set.is_empty() {
            self.wrong.push(Rule::SetOperator);
        }
        let base = rest.strip_suffix("IfExists").unwrap_or(rest);
        if base.len() != rest.len() {
            self.wrong.push(Rule::IfExists);
        }
        if register.is_none() {
            self.wrong.push(Rule::UnknownRegister);
        }
        if values.iter().any(|value| !value.is_empty() && value.bytes().all(|digit| digit == b'0')) {
            self.wrong.push(Rule::Zeros);
        }
        if base == "Null" && effect == Effect::Deny {
            return;
        }
        let is_digest = |value: &String| value.len() == 96 && value.bytes().all(|digit| digit.is_ascii_hexdigit());
        if !values.iter().all(is_digest) {
            self.wrong.push(Rule::NotADigest);
        }
        if effect == Effect::Deny {
            return;
        }
        if !matches!(base, "StringEquals" | "StringEqualsIgnoreCase") {
            self.wrong.push(Rule::NotAnEquality);
        }
        if values.len() > 1 {
            self.wrong.push(Rule::MixedList);
        }
        if self.wrong.len() == before {
            self.registers.extend(register);
        }
    }
}

impl Register {
    /// By the last part of its condition key, in lower case.
    pub(super) fn named(name: &str) -> Option<Self> {
        if name == IMAGE {
            return Some(Self::ImageSha384);
        }
        let number = name.strip_prefix("pcr")?;
        let pcr: u8 = number.parse().ok()?;
        (pcr < 32 && pcr.to_string() == number).then_some(Self::Pcr(pcr))
    }

    /// By its whole condition key, in lower case.
    pub(super) fn of_key(key: &str) -> Option<Self> {
        Self::named(key.strip_prefix(PREFIX)?)
    }
}

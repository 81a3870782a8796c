//! Policy evaluation as AWS does it, for one account: deny by default, an explicit Deny wins, and what a key policy does
//! not grant by name it may leave to the caller's own policy by naming the account.

mod condition;
mod pattern;

use std::collections::BTreeMap;

use serde_json::Value;
use thiserror::Error;

use self::condition::Condition;
use self::pattern::matches;

/// Why AWS would not take a policy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("malformed policy document: {0}")]
pub struct PolicyError(String);

/// A key policy or a role's policy.
#[derive(Debug, Clone)]
pub struct Policy {
    source: Value,
    statements: Vec<Statement>,
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// The caller's role.
    pub role_arn: String,
    /// The caller's session.
    pub session_arn: String,
    /// The account of caller and key.
    pub account: String,
    /// As `kms:Decrypt`.
    pub action: String,
    /// The key; none for `GenerateRandom`.
    pub resource: Option<String>,
    /// Condition keys and their values. Keys are compared without regard to case.
    pub context: BTreeMap<String, Vec<String>>,
}

/// The outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Allowed.
    Allowed,
    /// No statement of this kind of policy allows it.
    NotAllowed(Kind),
    /// A statement of this kind of policy denies it.
    Denied(Kind),
}

/// Where a policy is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// To the key.
    Resource,
    /// To the role.
    Identity,
}

impl Decision {
    /// The text of AWS's `AccessDeniedException`.
    pub fn message(self, request: &Request) -> String {
        let Request { session_arn, action, .. } = request;
        let on = request.resource.as_ref().map(|arn| format!(" on resource: {arn}")).unwrap_or_default();
        let why = match self {
            Self::Allowed => "it is authorized".to_owned(),
            Self::NotAllowed(kind) => format!("because no {} policy allows the {action} action", kind.name()),
            Self::Denied(kind) => format!("with an explicit deny in a {} policy", kind.name()),
        };
        format!("User: {session_arn} is not authorized to perform: {action}{on} {why}")
    }
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Resource => "resource-based",
            Self::Identity => "identity-based",
        }
    }
}

/// Decides a request under the key's policy (none where no key is concerned) and the role's (none where it has none).
pub fn decide(key: Option<&Policy>, role: Option<&Policy>, request: &Request) -> Decision {
    let by_key = |effect, grantee| key.is_some_and(|policy| policy.has(effect, grantee, request));
    let by_role = |effect| role.is_some_and(|policy| policy.has(effect, Grantee::Bearer, request));
    if by_key(Effect::Deny, Grantee::Caller) || by_key(Effect::Deny, Grantee::Account) {
        return Decision::Denied(Kind::Resource);
    }
    if by_role(Effect::Deny) {
        return Decision::Denied(Kind::Identity);
    }
    if by_key(Effect::Allow, Grantee::Caller) {
        return Decision::Allowed;
    }
    let left_to_role = key.is_none() || by_key(Effect::Allow, Grantee::Account);
    match (left_to_role, by_role(Effect::Allow)) {
        (true, true) => Decision::Allowed,
        (true, false) => Decision::NotAllowed(Kind::Identity),
        (false, _) => Decision::NotAllowed(Kind::Resource),
    }
}

impl Policy {
    /// Reads a policy document.
    pub fn parse(source: Value) -> Result<Self, PolicyError> {
        let statements = match source.get("Statement") {
            Some(Value::Array(statements)) => statements.iter().map(Statement::parse).collect::<Result<_, _>>()?,
            Some(one @ Value::Object(_)) => vec![Statement::parse(one)?],
            _ => return Err(PolicyError("no Statement".to_owned())),
        };
        Ok(Self { source, statements })
    }

    /// The document.
    pub const fn source(&self) -> &Value {
        &self.source
    }

    fn has(&self, effect: Effect, grantee: Grantee, request: &Request) -> bool {
        self.statements.iter().any(|statement| statement.effect == effect && statement.applies(grantee, request))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Allow,
    Deny,
}

/// Whom a statement must name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grantee {
    /// The caller, by its role, its session, or `*`.
    Caller,
    /// The caller's account.
    Account,
    /// Nobody: the policy is attached to the caller.
    Bearer,
}

#[derive(Debug, Clone)]
struct Statement {
    effect: Effect,
    principals: Option<Vec<String>>,
    actions: Selection,
    resources: Option<Selection>,
    conditions: Vec<Condition>,
}

/// A list of patterns, or all but a list of patterns.
#[derive(Debug, Clone)]
struct Selection {
    patterns: Vec<String>,
    inverted: bool,
}

impl Statement {
    fn parse(statement: &Value) -> Result<Self, PolicyError> {
        let known = ["Sid", "Effect", "Principal", "Action", "NotAction", "Resource", "NotResource", "Condition"];
        let fields = statement.as_object().ok_or_else(|| PolicyError("a statement is no object".to_owned()))?;
        if let Some(unknown) = fields.keys().find(|field| !known.contains(&field.as_str())) {
            return Err(PolicyError(format!("{unknown} is not supported")));
        }
        let effect = match statement.get("Effect").and_then(Value::as_str) {
            Some("Allow") => Effect::Allow,
            Some("Deny") => Effect::Deny,
            _ => return Err(PolicyError("no Effect".to_owned())),
        };
        let actions = Selection::parse(statement, "Action")?.ok_or_else(|| PolicyError("no Action".to_owned()))?;
        Ok(Self {
            effect,
            principals: statement.get("Principal").map(principals).transpose()?,
            actions,
            resources: Selection::parse(statement, "Resource")?,
            conditions: Condition::parse_all(statement.get("Condition"))?,
        })
    }

    fn applies(&self, grantee: Grantee, request: &Request) -> bool {
        self.names(grantee, request)
            && self.actions.selects(&request.action.to_ascii_lowercase())
            && match (&self.resources, &request.resource) {
                (None, _) => grantee != Grantee::Bearer,
                (Some(resources), resource) => resources.selects(resource.as_deref().unwrap_or("*")),
            }
            && self.conditions.iter().all(|condition| condition.holds(&request.context))
    }

    fn names(&self, grantee: Grantee, request: &Request) -> bool {
        let Some(principals) = &self.principals else { return grantee == Grantee::Bearer };
        let account_root = format!("arn:aws:iam::{}:root", request.account);
        principals.iter().any(|principal| match grantee {
            Grantee::Caller => principal == "*" || *principal == request.role_arn || *principal == request.session_arn,
            Grantee::Account => *principal == account_root || *principal == request.account,
            Grantee::Bearer => false,
        })
    }
}

impl Selection {
    fn parse(statement: &Value, name: &str) -> Result<Option<Self>, PolicyError> {
        let inverted = format!("Not{name}");
        let (patterns, inverted) = match (statement.get(name), statement.get(&inverted)) {
            (Some(list), None) => (texts(list)?, false),
            (None, Some(list)) => (texts(list)?, true),
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => return Err(PolicyError(format!("both {name} and {inverted}"))),
        };
        let lower = name == "Action";
        let patterns = patterns.into_iter().map(|p| if lower { p.to_ascii_lowercase() } else { p }).collect();
        Ok(Some(Self { patterns, inverted }))
    }

    fn selects(&self, text: &str) -> bool {
        self.patterns.iter().any(|pattern| matches(pattern, text)) != self.inverted
    }
}

fn principals(value: &Value) -> Result<Vec<String>, PolicyError> {
    match value {
        Value::String(all) if all == "*" => Ok(vec![all.clone()]),
        Value::Object(kinds) => match kinds.get("AWS") {
            Some(list) if kinds.len() == 1 => texts(list),
            _ => Err(PolicyError("only AWS principals are supported".to_owned())),
        },
        _ => Err(PolicyError("Principal".to_owned())),
    }
}

/// A text or a list of texts.
fn texts(value: &Value) -> Result<Vec<String>, PolicyError> {
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(flag) => Ok(flag.to_string()),
        _ => Err(PolicyError("a value is no text".to_owned())),
    };
    match value {
        Value::Array(values) => values.iter().map(text).collect(),
        one => Ok(vec![text(one)?]),
    }
}

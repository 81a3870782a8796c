use super::{
    Severity,
    attestation::{Demands, Register},
    statement::{Effect, Principal, Statement},
};
use crate::kms_policy::actions::{DISCLOSING, REWRITING, WAYS_AROUND};

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    AccountRoot,
    Anyone,
    NotAction,
    NotPrincipal,
    WayAround,
    Unattested,
    NoImage,
    ImageSha384Alone,
    IncompleteImage,
    IfExists,
    SetOperator,
    NotAnEquality,
    MixedList,
    Zeros,
    NotADigest,
    UnknownRegister,
    DenyNeedsAll,
    NoExplicitDeny,
    WaysAroundOpen,
    Rewriters,
    AccountRewrites,
    Unusable,
}

/// What is wrong with one statement by itself.
pub(super) fn of_statement(statement: &Statement) -> Vec<Rule> {
    let demands = Demands::of(statement);
    let mut found = demands.wrong.clone();
    match statement.effect {
        Effect::Allow => of_allow(statement, &demands, &mut found),
        Effect::Deny => of_deny(statement, &mut found),
    }
    found
}

fn of_allow(statement: &Statement, demands: &Demands, found: &mut Vec<Rule>) {
    if statement.actions.is_none() {
        found.push(Rule::NotAction);
    }
    let discloses = statement.touches(&DISCLOSING);
    let goes_around = statement.touches(&WAYS_AROUND);
    let rewrites = statement.touches(&REWRITING);
    match statement.principal {
        Principal::AllBut => found.push(Rule::NotPrincipal),
        Principal::Anyone if discloses || goes_around || rewrites => found.push(Rule::Anyone),
        Principal::Named { whole_account: true } if goes_around || discloses && demands.shortfall().is_some() => {
            found.push(Rule::AccountRoot);
        }
        Principal::Named { whole_account: true } if rewrites => found.push(Rule::AccountRewrites),
        Principal::Named { whole_account: false } if rewrites => found.push(Rule::Rewriters),
        Principal::Anyone | Principal::Named { .. } => {}
    }
    if goes_around {
        found.push(Rule::WayAround);
    }
    if discloses {
        found.extend(demands.shortfall());
    }
}

fn of_deny(statement: &Statement, found: &mut Vec<Rule>) {
    if statement.actions.is_none() {
        found.push(Rule::NotAction);
    }
    let registers = statement.conditions.iter().filter(|condition| Register::of_key(&condition.key).is_some());
    if registers.count() > 1 {
        found.push(Rule::DenyNeedsAll);
    }
}

/// What is wrong with the statements together.
pub(super) fn of_whole(statements: &[Statement]) -> Vec<Rule> {
    let mut found = Vec::new();
    let denies_others = |pcr| statements.iter().any(|statement| denies_all_but(statement, Register::Pcr(pcr)));
    if !(0..=2).all(denies_others) {
        found.push(Rule::NoExplicitDeny);
    }
    let closes = |statement: &Statement| is_for_all(statement) && statement.conditions.is_empty();
    if !WAYS_AROUND.iter().all(|way| statements.iter().any(|s| closes(s) && s.covers(&[way]))) {
        found.push(Rule::WaysAroundOpen);
    }
    let lets_an_image_in = |statement: &Statement| {
        let demands = Demands::of(statement);
        statement.effect == Effect::Allow
            && statement.touches(&DISCLOSING)
            && demands.wrong.is_empty()
            && demands.shortfall().is_none()
    };
    if !statements.iter().any(lets_an_image_in) {
        found.push(Rule::Unusable);
    }
    found
}

/// A Deny for everybody of everything that discloses, unless the register has one of some values.
fn denies_all_but(statement: &Statement, register: Register) -> bool {
    let [condition] = statement.conditions.as_slice() else { return false };
    let negated = ["StringNotEquals", "StringNotEqualsIgnoreCase"].contains(&condition.operator.as_str());
    is_for_all(statement)
        && statement.covers(&DISCLOSING)
        && negated
        && (Register::of_key(&condition.key) == Some(register)
            || register == Register::Pcr(0) && Register::of_key(&condition.key) == Some(Register::ImageSha384))
}

const fn is_for_all(statement: &Statement) -> bool {
    matches!((statement.effect, &statement.principal), (Effect::Deny, Principal::Anyone))
}

impl Rule {
    /// Severity, stable name, why it matters, how to mend it.
    pub(super) const fn text(self) -> (Severity, &'static str, &'static str, &'static str) {
        use Severity::{Refused, Warning};
        match self {
            Self::AccountRoot => (
                Refused,
                "account-root",
                "Naming the account lets every IAM policy in it give the key away, to the host's role as well.",
                "Name the enclave's role with its image's PCRs, and administrators by their roles; take the account out.",
            ),
            Self::Anyone => (
                Refused,
                "anyone",
                "It allows everybody, in every account.",
                "Name the enclave's role, or the administrators' roles.",
            ),
            Self::NotAction => (
                Refused,
                "not-action",
                "NotAction is about every action that is not listed, those that AWS will add as well.",
                "List the actions.",
            ),
            Self::NotPrincipal => (
                Refused,
                "not-principal",
                "NotPrincipal in an Allow allows everybody who is not listed.",
                "List the principals.",
            ),
            Self::WayAround => (
                Refused,
                "way-around",
                "It allows a way around attestation: grants carry no such condition, re-encryption and replicas move keys under another policy, and who may encrypt or import material can plant keys that he knows.",
                "Take CreateGrant, ReEncrypt*, ReplicateKey, UpdatePrimaryRegion, ImportKeyMaterial and Encrypt out of every Allow.",
            ),
            Self::Unattested => (
                Refused,
                "unattested",
                "It gives out keys without asking for an attestation document.",
                "Add StringEqualsIgnoreCase conditions on kms:RecipientAttestation:PCR0, PCR1 and PCR2, or take the actions out.",
            ),
            Self::NoImage => (
                Refused,
                "no-image",
                "PCR3 (role), PCR4 (instance) and PCR8 (signer) do not say which image runs, and a debug enclave has them too.",
                "Add PCR0, PCR1 and PCR2 of the image; the others may stay beside them.",
            ),
            Self::ImageSha384Alone => (
                Refused,
                "image-sha384-alone",
                "ImageSha384 is PCR0 under another name; kernel and application are not pinned by themselves.",
                "Use PCR0, PCR1 and PCR2 together, as the image's measurements list them.",
            ),
            Self::IncompleteImage => (
                Refused,
                "incomplete-image",
                "Only some of PCR0, PCR1 and PCR2 have exactly one value.",
                "Give each of the three the one value from the image's measurements.",
            ),
            Self::IfExists => (
                Refused,
                "if-exists",
                "...IfExists holds where there is no attestation document at all.",
                "Use the operator without IfExists.",
            ),
            Self::SetOperator => (
                Refused,
                "set-operator",
                "ForAllValues holds, and ForAnyValue with a negated operator fails to deny, where there is no attestation document.",
                "Use the operator without ForAnyValue or ForAllValues: these keys have one value.",
            ),
            Self::NotAnEquality => (
                Refused,
                "not-an-equality",
                "A measurement that may be anything but, or anything like, a value admits images that nobody measured.",
                "Use StringEqualsIgnoreCase.",
            ),
            Self::MixedList => (
                Refused,
                "mixed-list",
                "Lists of values admit mixtures: one image's kernel with another's application.",
                "Write one Allow an image, with one value a register.",
            ),
            Self::Zeros => (
                Refused,
                "zeros",
                "An enclave in debug mode has zeros there, and its console and memory are open to the host.",
                "Use the measurements of the image in production mode.",
            ),
            Self::NotADigest => (
                Refused,
                "not-a-digest",
                "A register's value is 96 hexadecimal digits; what else stands there matches nothing, or more than meant.",
                "Copy the value from the image's measurements.",
            ),
            Self::UnknownRegister => (
                Refused,
                "unknown-register",
                "There is no such kms:RecipientAttestation key, so the condition does not do what it says.",
                "Use ImageSha384 or PCR0 to PCR31.",
            ),
            Self::DenyNeedsAll => (
                Refused,
                "deny-needs-all",
                "Conditions of one statement must all hold: this denies only what differs in every register at once.",
                "Write one Deny a register.",
            ),
            Self::NoExplicitDeny => (
                Warning,
                "no-explicit-deny",
                "Without a Deny for everybody, a grant made earlier or an Allow added later gives keys to what is not attested.",
                "Deny Decrypt, GenerateDataKey* and DeriveSharedSecret to * where PCR0 is not equal, and so for PCR1 and PCR2.",
            ),
            Self::WaysAroundOpen => (
                Warning,
                "ways-around-open",
                "Nothing denies every way around attestation, so an Allow added later may open one.",
                "Deny CreateGrant, ReEncrypt*, ReplicateKey, UpdatePrimaryRegion, ImportKeyMaterial and Encrypt to *, without condition.",
            ),
            Self::Rewriters => (
                Warning,
                "rewriters",
                "Whoever may call PutKeyPolicy can let himself in; somebody must, or the key could never be kept.",
                "Let few hold that role, none of them operators of the host, and raise an alarm: an EventBridge rule on {\"source\": [\"aws.kms\"], \"detail\": {\"eventName\": [\"PutKeyPolicy\", \"CreateGrant\", \"ReplicateKey\", \"DisableKey\", \"ScheduleKeyDeletion\"]}} with the key's ARN in detail.resources.ARN, to a topic that the operators cannot mute.",
            ),
            Self::AccountRewrites => (
                Warning,
                "account-rewrites",
                "Every IAM administrator of the account may give somebody PutKeyPolicy, and so let himself in.",
                "Name administrators by their roles; raise an alarm on PutKeyPolicy as for named ones.",
            ),
            Self::Unusable => (
                Warning,
                "unusable",
                "No Allow lets an attested image use the key.",
                "Generate the policy from the image's measurements.",
            ),
        }
    }
}

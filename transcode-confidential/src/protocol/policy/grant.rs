use std::{collections::BTreeSet, fmt, str::FromStr};

use super::CallerImages;
use crate::{
    cbor::{CborError, Reader, Writer},
    ids::{IdError, KeyId, Principal},
};

/// One grant: a principal may do some operations with the keys whose id starts with a prefix.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Who.
    pub principal: WhichPrincipal,
    /// With which keys: those whose id starts with this text. Empty for all.
    #[serde(rename = "keys", default)]
    pub key_prefix: String,
    /// What.
    pub operations: BTreeSet<Operation>,
    /// Only to callers that are enclaves of one of these images and have attested themselves. `None` for any caller.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub caller: Option<CallerImages>,
}

/// The principals that a grant is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhichPrincipal {
    /// Every client whose certificate the client CA signed; written `*`.
    Any,
    /// One.
    One(Principal),
}

impl WhichPrincipal {
    /// Whether `principal` is among them.
    pub fn matches(&self, principal: &Principal) -> bool {
        match self {
            Self::Any => true,
            Self::One(one) => one == principal,
        }
    }
}

impl fmt::Display for WhichPrincipal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::One(principal) => principal.fmt(f),
        }
    }
}

impl FromStr for WhichPrincipal {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text == "*" { Ok(Self::Any) } else { text.parse().map(Self::One) }
    }
}

impl serde::Serialize for WhichPrincipal {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for WhichPrincipal {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What may be granted. The number is the code in the signed document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Operation {
    /// Make a key.
    Generate = 0,
    /// Make the next version of a key.
    Rotate = 1,
    /// End a key.
    Revoke = 2,
    /// End a key and delete its wrapped records.
    Destroy = 3,
    /// Suspend and resume a key.
    Suspend = 4,
    /// Encrypt content in the enclave.
    Encrypt = 5,
    /// Decrypt content in the enclave.
    Decrypt = 6,
    /// Get data keys for encryption outside.
    IssueDataKey = 7,
    /// Get media keys for packagers that encrypt themselves.
    ExportMediaKey = 8,
    /// Report work that was done with issued keys.
    Report = 9,
    /// Read the audit log through the service.
    ReadAudit = 10,
    /// See the state of the service.
    Admin = 11,
}

impl Operation {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 12] = [
        Self::Generate,
        Self::Rotate,
        Self::Revoke,
        Self::Destroy,
        Self::Suspend,
        Self::Encrypt,
        Self::Decrypt,
        Self::IssueDataKey,
        Self::ExportMediaKey,
        Self::Report,
        Self::ReadAudit,
        Self::Admin,
    ];
}

impl Grant {
    pub(super) fn put(&self, out: &mut Writer) {
        out.map(3 + usize::from(self.caller.is_some())).uint(0).text(&self.principal.to_string());
        out.uint(1).text(&self.key_prefix);
        out.uint(2).array(self.operations.len());
        for operation in &self.operations {
            out.uint(*operation as u64);
        }
        if let Some(caller) = &self.caller {
            out.uint(3);
            caller.put(out);
        }
    }

    pub(super) fn take(reader: &mut Reader<'_>) -> Result<Self, CborError> {
        let mut map = reader.int_map(4)?;
        let principal = map.required(0)?.text(Principal::MAX)?.parse().map_err(|_| CborError::Range)?;
        let key_prefix = map.required(1)?.text(KeyId::MAX)?.to_owned();
        let codes = map.required(2)?;
        let mut operations = BTreeSet::new();
        for _ in 0..codes.array(Operation::ALL.len())? {
            let code = codes.uint()?;
            let operation = Operation::ALL.into_iter().find(|operation| *operation as u64 == code);
            let operation = operation.ok_or(CborError::Range)?;
            if operations.last().is_some_and(|last| operation <= *last) {
                return Err(CborError::KeyOrder);
            }
            operations.insert(operation);
        }
        let caller = map.optional(3)?.map(CallerImages::take).transpose()?;
        map.end()?;
        Ok(Self { principal, key_prefix, operations, caller })
    }
}

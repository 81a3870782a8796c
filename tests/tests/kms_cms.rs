//! The envelope in which KMS seals a reply: what opens, and that everything else is refused with the one error.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test that fails should fail loudly; one that is skipped says so, and is told by the environment"
)]

use std::{path::PathBuf, sync::LazyLock};

use aws_lc_rs::{
    cipher::{AES_256, DecryptionContext, EncryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey},
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeySize, PrivateDecryptingKey},
};
use enclave_app::kms::{
    cms::{self, EnvelopeError},
    recipient::RecipientKey,
};
use proptest::prelude::*;
use testkit::kms::ber::{self, ContentShape, Parts, Recipient};

/// One key for all tests, though a real one is never used twice.
static PKCS8: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
    AsDer::<Pkcs8V1Der<'_>>::as_der(&key).unwrap().as_ref().to_vec()
});

fn key() -> RecipientKey {
    RecipientKey::from_pkcs8(&PKCS8).unwrap()
}

fn open(envelope: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    cms::open(key(), envelope).map(|plaintext| plaintext.to_vec())
}

fn seal(plaintext: &[u8], shape: ContentShape) -> Vec<u8> {
    ber::seal(key().public_key(), plaintext, shape).unwrap()
}

/// The parts of a good envelope around `plaintext`, to be spoilt.
fn parts(plaintext: &[u8]) -> Parts {
    let mut content = plaintext.to_vec();
    let cipher = PaddedBlockEncryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_256, &[7; 32]).unwrap()).unwrap();
    let DecryptionContext::Iv128(iv) = cipher.encrypt(&mut content).unwrap() else { panic!("CBC has an IV") };
    let encrypted_key = ber::encrypt_key(key().public_key(), &[7; 32]).unwrap();
    Parts::new(key().public_key(), encrypted_key, iv.as_ref(), &content)
}

fn spoilt(spoil: impl FnOnce(&mut Parts)) -> Result<Vec<u8>, EnvelopeError> {
    let mut parts = parts(b"secret");
    assert_eq!(open(&parts.encode(ContentShape::Constructed)).unwrap(), b"secret");
    spoil(&mut parts);
    open(&parts.encode(ContentShape::Constructed))
}

fn recipient() -> Recipient {
    Recipient::new(key().public_key(), ber::encrypt_key(key().public_key(), &[7; 32]).unwrap())
}

#[test]
fn every_content_shape_opens_at_every_size_up_to_six_kib() {
    for shape in ContentShape::ALL {
        for size in [0, 1, 15, 16, 17, 32, 127, 128, 255, 1024, 6143, 6144] {
            let plaintext: Vec<u8> = (0..size).map(|i| i as u8).collect();
            assert_eq!(open(&seal(&plaintext, shape)).as_deref(), Ok(plaintext.as_slice()), "{shape:?} {size}");
        }
    }
}

#[test]
fn an_envelope_larger_than_any_of_kms_is_refused() {
    assert_eq!(open(&seal(&[0; 8192], ContentShape::Constructed)), Err(EnvelopeError));
}

#[test]
fn an_envelope_for_another_key_is_refused() {
    let other = RecipientKey::generate().unwrap();
    let envelope = ber::seal(other.public_key(), b"secret", ContentShape::Constructed).unwrap();
    assert_eq!(open(&envelope), Err(EnvelopeError));
    assert_eq!(&**cms::open(other, &envelope).unwrap(), b"secret");
}

#[test]
fn no_single_byte_of_an_envelope_can_be_changed_without_notice() {
    // The content has no MAC: a changed IV or ciphertext may open, but never to the same plaintext.
    for shape in [ContentShape::Constructed, ContentShape::Primitive, ContentShape::Segmented(32)] {
        let good = seal(&[0x5a; 32], shape);
        let mut refused = 0;
        for at in 0..good.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= change;
                match open(&bad) {
                    Err(EnvelopeError) => refused += 1,
                    Ok(plaintext) => assert_ne!(plaintext, [0x5a; 32], "{shape:?} byte {at} ^ {change:#x}"),
                }
            }
        }
        assert!(refused > 3 * (good.len() - 64), "{refused} of {}", 3 * good.len());
    }
}

#[test]
fn every_truncation_and_every_extension_is_refused() {
    for shape in ContentShape::ALL {
        let good = seal(&[0x5a; 32], shape);
        for length in 0..good.len() {
            assert_eq!(open(&good[..length]), Err(EnvelopeError), "{shape:?} {length}");
        }
        for tail in [&b"\0"[..], b"\0\0", b"\x30\x00", b"\xff"] {
            assert_eq!(open(&[&good, tail].concat()), Err(EnvelopeError), "{shape:?}");
        }
    }
}

#[test]
fn another_structure_than_that_of_kms_is_refused() {
    let sha1_default = ber::primitive(ber::SEQUENCE, &[ber::oid(ber::RSAES_OAEP), vec![0x30, 0x00]].concat());
    let pkcs1 =
        ber::primitive(ber::SEQUENCE, &[ber::oid(b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01"), vec![5, 0]].concat());
    let recipients: [(&str, Vec<Vec<u8>>); 10] = [
        ("no recipient", vec![]),
        ("two recipients", vec![recipient().encode(), recipient().encode()]),
        ("recipient version 0", vec![Recipient { version: 0, ..recipient() }.encode()]),
        ("recipient version 3", vec![Recipient { version: 3, ..recipient() }.encode()]),
        ("OAEP with SHA-1", vec![Recipient { algorithm: sha1_default, ..recipient() }.encode()]),
        ("PKCS#1 v1.5", vec![Recipient { algorithm: pkcs1, ..recipient() }.encode()]),
        (
            "short key identifier",
            vec![Recipient { identifier: ber::primitive(0x80, &[0; 20]), ..recipient() }.encode()],
        ),
        (
            "issuer and serial number",
            vec![Recipient { identifier: ber::primitive(0x30, b"\x30\x00\x02\x01\x01"), ..recipient() }.encode()],
        ),
        ("short encrypted key", vec![Recipient { encrypted_key: vec![1; 255], ..recipient() }.encode()]),
        ("key agreement", vec![ber::primitive(0xa1, &recipient().encode())]),
    ];
    for (what, recipients) in recipients {
        assert_eq!(spoilt(|parts| parts.recipients = recipients), Err(EnvelopeError), "{what}");
    }
    assert_eq!(spoilt(|parts| parts.outer_type = ber::oid(ber::DATA)), Err(EnvelopeError));
    for version in [0, 1, 3, 4] {
        assert_eq!(spoilt(|parts| parts.version = version), Err(EnvelopeError));
    }
    assert_eq!(spoilt(|parts| parts.before_recipients = vec![0xa0, 0x00]), Err(EnvelopeError));
    assert_eq!(spoilt(|parts| parts.after_content = vec![0xa1, 0x00]), Err(EnvelopeError));
    assert_eq!(spoilt(|parts| parts.inner_type = ber::oid(ber::ENVELOPED_DATA)), Err(EnvelopeError));
    let aes_128_cbc = [ber::oid(b"\x60\x86\x48\x01\x65\x03\x04\x01\x02"), ber::primitive(ber::OCTET_STRING, &[0; 16])];
    let short_iv = [ber::oid(ber::AES_256_CBC), ber::primitive(ber::OCTET_STRING, &[0; 8])];
    let no_iv = [ber::oid(ber::AES_256_CBC), vec![5, 0]];
    for algorithm in [aes_128_cbc, short_iv, no_iv] {
        let algorithm = ber::primitive(ber::SEQUENCE, &algorithm.concat());
        assert_eq!(spoilt(|parts| parts.content_algorithm = algorithm), Err(EnvelopeError));
    }
    assert_eq!(spoilt(|parts| parts.ciphertext.clear()), Err(EnvelopeError));
    assert_eq!(spoilt(|parts| parts.ciphertext.truncate(15)), Err(EnvelopeError));
}

#[test]
fn oaep_parameters_without_null_are_the_same_parameters() {
    let sha256 = ber::primitive(ber::SEQUENCE, &ber::oid(ber::SHA_256));
    let mgf1 = ber::primitive(ber::SEQUENCE, &[ber::oid(ber::MGF1), sha256.clone()].concat());
    let parameters = [ber::primitive(0xa0, &sha256), ber::primitive(0xa1, &mgf1)].concat();
    let algorithm = [ber::oid(ber::RSAES_OAEP), ber::primitive(ber::SEQUENCE, &parameters)].concat();
    let recipient = Recipient { algorithm: ber::primitive(ber::SEQUENCE, &algorithm), ..recipient() };
    assert_eq!(spoilt(|parts| parts.recipients = vec![recipient.encode()]).unwrap(), b"secret");
}

#[test]
fn a_content_key_of_another_length_and_a_bad_padding_look_alike() {
    for length in [0, 16, 31, 33, 64] {
        let encrypted_key = ber::encrypt_key(key().public_key(), &vec![7; length]).unwrap();
        let recipient = Recipient { encrypted_key, ..recipient() };
        assert_eq!(spoilt(|parts| parts.recipients = vec![recipient.encode()]), Err(EnvelopeError), "{length}");
    }
    for last_block in [[0; 16], [17; 16], [0xff; 16], *b"\0\0\0\0\0\0\0\0\0\0\0\0\0\x03\x02\x03"] {
        let cipher = EncryptingKey::cbc(UnboundCipherKey::new(&AES_256, &[7; 32]).unwrap()).unwrap();
        let mut content = last_block;
        let DecryptionContext::Iv128(iv) = cipher.encrypt(&mut content).unwrap() else { panic!("CBC has an IV") };
        let encrypted_key = ber::encrypt_key(key().public_key(), &[7; 32]).unwrap();
        let parts = Parts::new(key().public_key(), encrypted_key, iv.as_ref(), &content);
        assert_eq!(open(&parts.encode(ContentShape::Primitive)), Err(EnvelopeError));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_sealed_opens(plaintext in prop::collection::vec(any::<u8>(), 0..6144), segment in 1usize..3000) {
        for shape in [ContentShape::Constructed, ContentShape::Primitive, ContentShape::Segmented(segment.max(16))] {
            prop_assert_eq!(open(&seal(&plaintext, shape)), Ok(plaintext.clone()));
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert_eq!(open(&bytes), Err(EnvelopeError));
    }

    #[test]
    fn arbitrary_splices_are_refused_or_open_to_something_else(
        at in 0usize..460,
        removed in 0usize..40,
        inserted in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let good = seal(&[0x5a; 32], ContentShape::Constructed);
        let end = (at + removed).min(good.len());
        let bad = [&good[..at], &inserted, &good[end..]].concat();
        prop_assume!(bad != good);
        prop_assert_ne!(open(&bad), Ok(vec![0x5a; 32]));
    }
}

/// Genuine replies of KMS.
#[test]
fn genuine_replies_open_with_their_key_and_not_without() {
    let Some(corpus) = std::env::var_os("CONFIDENTIAL_CORPUS") else {
        eprintln!("skipped: CONFIDENTIAL_CORPUS is not set");
        return;
    };
    let read = |name| std::fs::read(PathBuf::from(&corpus).join("kms-recipient").join(name)).unwrap();
    let (pkcs8, sealed, plain) = (read("constructed.key.p8.der"), read("constructed.ber"), read("constructed.plain"));
    let its_key = || RecipientKey::from_pkcs8(&pkcs8).unwrap();
    assert_eq!(**cms::open(its_key(), &sealed).unwrap(), plain);
    assert_eq!(open(&sealed), Err(EnvelopeError));
    assert_eq!(cms::open(its_key(), &read("primitive-no-key.ber")).map(|_| ()), Err(EnvelopeError));
    for at in 0..sealed.len() {
        let mut bad = sealed.clone();
        bad[at] ^= 0xff;
        assert_ne!(cms::open(its_key(), &bad).ok().map(|opened| opened.to_vec()), Some(plain.clone()), "byte {at}");
    }
}

/// The mock's encoder writes the genuine replies byte for byte, given their parts: it has the shape of AWS.
#[test]
fn the_mock_encodes_as_kms_does() {
    let Some(corpus) = std::env::var_os("CONFIDENTIAL_CORPUS") else {
        eprintln!("skipped: CONFIDENTIAL_CORPUS is not set");
        return;
    };
    let files = [("constructed.ber", ContentShape::Constructed), ("primitive-no-key.ber", ContentShape::Primitive)];
    for (name, shape) in files {
        let genuine = std::fs::read(PathBuf::from(&corpus).join("kms-recipient").join(name)).unwrap();
        let content = match shape {
            ContentShape::Primitive => &genuine[433..449],
            _ => &genuine[435..483],
        };
        let mut parts = Parts::new(&[], Vec::new(), &genuine[415..431], content);
        parts.recipients = vec![
            Recipient {
                version: 2,
                identifier: ber::primitive(0x80, &genuine[33..65]),
                algorithm: ber::oaep_sha256(),
                encrypted_key: genuine[131..387].to_vec(),
            }
            .encode(),
        ];
        assert_eq!(parts.encode(shape), genuine, "{name}");
    }
}

/// OpenSSL as an encoder that neither we nor AWS wrote.
mod openssl {
    use std::{fs, path::Path, process::Command};

    use super::*;

    fn run(directory: &Path, arguments: &[&str]) {
        let output = Command::new("openssl").current_dir(directory).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A directory with the key in PEM; `None` where openssl is missing.
    fn directory() -> Option<tempfile::TempDir> {
        if Command::new("openssl").arg("version").output().is_err() {
            eprintln!("skipped: openssl is not installed");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("key.der"), &*PKCS8).unwrap();
        run(directory.path(), &["pkcs8", "-inform", "DER", "-in", "key.der", "-nocrypt", "-out", "key.pem"]);
        Some(directory)
    }

    #[test]
    fn what_openssl_encrypts_as_kms_does_opens() {
        let Some(directory) = directory() else { return };
        let at = directory.path();
        let identifier = format!("subjectKeyIdentifier={}", hex::encode_upper(key().id()));
        let subject = ["-subj", "/CN=recipient", "-addext", &identifier, "-out", "cert.pem"];
        run(at, &[&["req", "-x509", "-key", "key.pem"][..], &subject].concat());
        for size in [0, 1, 16, 32, 1024, 5000] {
            let plaintext: Vec<u8> = (0..size).map(|i| (i * 7) as u8).collect();
            fs::write(at.join("plain"), &plaintext).unwrap();
            for stream in [&["-stream"][..], &[]] {
                let mut encrypt = vec!["cms", "-encrypt", "-binary", "-outform", "DER", "-aes256", "-keyid"];
                encrypt.extend(stream);
                encrypt.extend(["-in", "plain", "-out", "sealed", "-recip", "cert.pem"]);
                for option in ["rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256"] {
                    encrypt.extend(["-keyopt", option]);
                }
                run(at, &encrypt);
                let sealed = fs::read(at.join("sealed")).unwrap();
                assert_eq!(sealed[1] == 0x80, !stream.is_empty(), "indefinite lengths exactly when streaming");
                assert_eq!(open(&sealed).as_deref(), Ok(plaintext.as_slice()), "{size} {stream:?}");
            }
        }
    }

    #[test]
    fn what_the_mock_encrypts_openssl_decrypts() {
        let Some(directory) = directory() else { return };
        let at = directory.path();
        for shape in ContentShape::ALL {
            fs::write(at.join("sealed"), seal(b"from the mock", shape)).unwrap();
            run(at, &["cms", "-decrypt", "-inform", "DER", "-in", "sealed", "-inkey", "key.pem", "-out", "plain"]);
            assert_eq!(fs::read(at.join("plain")).unwrap(), b"from the mock", "{shape:?}");
        }
    }
}

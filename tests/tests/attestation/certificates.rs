//! Each property that a certificate must have, broken at each of the five places, everything else being right and
//! signed by the right keys. The root is handed to the verifier as it is, so it too is refused for its property.

use std::time::Duration;

use testkit::nsm::{
    Algorithm, Chain, ChainDraft, Curve, DocumentDraft, Extension, MockImage, MockPki, SigningKey, index_of,
    public_key_info, usage,
};
use transcode_confidential::{
    attestation::{ImagePolicy, Position, Refusal, TrustRoot, TrustRootError, UnverifiedDocument},
    time::Timestamp,
};

use crate::{NOW, reason};

const SECOND: Duration = Duration::from_secs(1);

/// The verdict on a document under this chain, with the chain's own root trusted.
fn verdict(chain: &Chain) -> &'static str {
    match TrustRoot::from_der(&chain.certificates[0]) {
        Ok(root) => verdict_under(&root, chain),
        Err(TrustRootError::Certificate(fault)) => fault.reason(),
        Err(other) => panic!("{other}"),
    }
}

fn verdict_under(root: &TrustRoot, chain: &Chain) -> &'static str {
    reason(verify(root, &draft(chain), &chain.leaf_key))
}

fn draft(chain: &Chain) -> DocumentDraft {
    let mut draft = DocumentDraft::new("i-0-enc0", NOW, chain);
    draft.set_pcrs(&MockImage::named("1.0").pcrs());
    draft
}

fn verify(root: &TrustRoot, draft: &DocumentDraft, key: &SigningKey) -> Result<(), Refusal> {
    let document = draft.sign(key);
    UnverifiedDocument::parse(&document)?.verify_archived(root, &ImagePolicy::danger_any_image()).map(drop)
}

fn chain() -> ChainDraft {
    MockPki::generate().draft("i-0-enc0", NOW)
}

/// Breaks one property at each place in turn, and compares with what is expected there.
#[track_caller]
fn broken_everywhere(change: impl Fn(&mut ChainDraft, Position), expected: impl Fn(Position) -> &'static str) {
    let intact = chain();
    for position in Position::ALL {
        let mut broken = intact.clone();
        change(&mut broken, position);
        assert_eq!(verdict(&broken.sign()), expected(position), "{position}");
    }
}

/// The path length that the place demands; for the leaf none.
fn path_length(position: Position) -> Option<u8> {
    match position {
        Position::Root => Some(3),
        Position::Regional => Some(2),
        Position::Zonal => Some(1),
        Position::Instance => Some(0),
        Position::Leaf => None,
    }
}

fn except_leaf(reason: &'static str) -> impl Fn(Position) -> &'static str {
    move |position| if position == Position::Leaf { "verified" } else { reason }
}

#[test]
fn nothing_is_wrong_before_something_is_broken() {
    broken_everywhere(|_, _| (), |_| "verified");
    // Signing the root anew gives another certificate with the same content, which is as good when it is trusted.
    broken_everywhere(|chain, position| drop(chain.at(position).clone()), |_| "verified");
}

#[test]
fn a_certificate_is_valid_to_its_last_second_and_not_after_it() {
    broken_everywhere(|chain, at| chain.at(at).not_after = NOW, |_| "verified");
    broken_everywhere(|chain, at| chain.at(at).not_after = NOW.minus(SECOND), |_| "certificate-expired");
}

#[test]
fn a_certificate_is_valid_from_its_first_second_and_not_before_it() {
    broken_everywhere(|chain, at| chain.at(at).not_before = NOW, |_| "verified");
    broken_everywhere(|chain, at| chain.at(at).not_before = NOW.plus(SECOND), |_| "certificate-not-yet-valid");
}

#[test]
fn issuers_are_authorities_and_the_leaf_is_none() {
    let swapped = |chain: &mut ChainDraft, position| {
        let certificate = chain.at(position);
        match position {
            Position::Leaf => certificate.set(Extension::authority(None)),
            _ => certificate.set(Extension::no_authority()),
        }
    };
    broken_everywhere(swapped, |_| "certificate-basic-constraints");
    let missing = |chain: &mut ChainDraft, at| chain.at(at).remove(Extension::BASIC_CONSTRAINTS);
    broken_everywhere(missing, except_leaf("certificate-basic-constraints"));
    let not_critical = |chain: &mut ChainDraft, at| {
        let extensions = &mut chain.at(at).extensions;
        extensions.iter_mut().find(|each| each.oid == Extension::BASIC_CONSTRAINTS).unwrap().critical = false;
    };
    broken_everywhere(not_critical, except_leaf("certificate-basic-constraints"));
}

#[test]
fn path_lengths_are_those_of_the_places() {
    let shorter = |chain: &mut ChainDraft, position| {
        let shorter = match path_length(position) {
            Some(length) => Extension::authority(Some(length.checked_sub(1).unwrap_or(7))),
            None => Extension::path_length_without_authority(),
        };
        chain.at(position).set(shorter);
    };
    broken_everywhere(shorter, |_| "certificate-path-length");
    let longer = |chain: &mut ChainDraft, position| {
        if let Some(length) = path_length(position) {
            chain.at(position).set(Extension::authority(Some(length + 1)));
        }
    };
    let root_may_allow_more = |position| match position {
        Position::Root | Position::Leaf => "verified",
        _ => "certificate-path-length",
    };
    broken_everywhere(longer, root_may_allow_more);
    let unlimited = |chain: &mut ChainDraft, position| {
        if position != Position::Leaf {
            chain.at(position).set(Extension::authority(None));
        }
    };
    broken_everywhere(unlimited, root_may_allow_more);
}

#[test]
fn key_usages_are_those_of_the_places() {
    broken_everywhere(|chain, at| chain.at(at).remove(Extension::KEY_USAGE), |_| "certificate-key-usage");
    let other = |chain: &mut ChainDraft, position| {
        let bits = if position == Position::Leaf { usage::COMMIT } else { usage::SIGN | usage::REVOKE };
        chain.at(position).set(Extension::key_usage(bits));
    };
    broken_everywhere(other, |_| "certificate-key-usage");
    let not_critical = |chain: &mut ChainDraft, at| {
        let extensions = &mut chain.at(at).extensions;
        extensions.iter_mut().find(|each| each.oid == Extension::KEY_USAGE).unwrap().critical = false;
    };
    broken_everywhere(not_critical, except_leaf("certificate-key-usage"));
    for bit in [usage::CERTIFY, usage::REVOKE] {
        let mut leaf_that_issues = chain();
        leaf_that_issues.at(Position::Leaf).set(Extension::key_usage(usage::SIGN | bit));
        assert_eq!(verdict(&leaf_that_issues.sign()), "certificate-key-usage");
    }
}

#[test]
fn every_key_is_on_p_384() {
    let intact = chain();
    for position in Position::ALL {
        let mut broken = intact.clone();
        broken.replace_key(position, SigningKey::generate(Curve::P521));
        let chain = broken.sign();
        // The document's signature must have its length whatever the leaf's curve, to get that far.
        let key = if position == Position::Leaf { SigningKey::generate(Curve::P384) } else { chain.leaf_key.clone() };
        let expected = "certificate-key";
        match TrustRoot::from_der(&chain.certificates[0]) {
            Ok(root) => assert_eq!(reason(verify(&root, &draft(&chain), &key)), expected, "{position}"),
            Err(error) => assert!(error.to_string().contains("not an uncompressed P-384 point"), "{error}"),
        }
    }
}

#[test]
fn every_key_is_an_uncompressed_point_under_the_name_of_its_curve() {
    let other_encoding = |encode: fn(&[u8]) -> Vec<u8>| {
        move |chain: &mut ChainDraft, position: Position| {
            let point = chain.keys[index_of(position)].point();
            chain.at(position).public_key_info = encode(&point);
        }
    };
    let compressed =
        other_encoding(|point| public_key_info(Curve::P384, &[&[2 + (point[96] & 1)], &point[1..49]].concat()));
    let hybrid = other_encoding(|point| public_key_info(Curve::P384, &[&[6 + (point[96] & 1)], &point[1..]].concat()));
    let other_curve = other_encoding(|point| public_key_info(Curve::P521, point));
    let longer = other_encoding(|point| public_key_info(Curve::P384, &[point, &[0]].concat()));
    let shorter = other_encoding(|point| public_key_info(Curve::P384, &point[..96]));
    let infinity = other_encoding(|_| public_key_info(Curve::P384, &[0]));
    broken_everywhere(compressed, |_| "certificate-key");
    broken_everywhere(hybrid, |_| "certificate-key");
    broken_everywhere(other_curve, |_| "certificate-key");
    broken_everywhere(longer, |_| "certificate-key");
    broken_everywhere(shorter, |_| "certificate-key");
    broken_everywhere(infinity, |_| "certificate-key");
}

#[test]
fn a_point_that_is_not_on_the_curve_verifies_nothing() {
    let off_curve = |chain: &mut ChainDraft, position: Position| {
        let mut point = chain.keys[index_of(position)].point();
        point[96] ^= 1;
        chain.at(position).public_key_info = public_key_info(Curve::P384, &point);
    };
    broken_everywhere(off_curve, |position| match position {
        Position::Leaf => "signature",
        _ => "certificate-signature",
    });
}

#[test]
fn every_signature_is_ecdsa_with_sha_384_and_says_so_in_both_places() {
    for algorithm in [Algorithm::EcdsaWithSha256, Algorithm::EcdsaWithSha3_384, Algorithm::EcdsaWithSha384AndNull] {
        let reason = |_| "certificate-signature-algorithm";
        broken_everywhere(|chain, at| chain.at(at).inner_algorithm = algorithm, reason);
        broken_everywhere(|chain, at| chain.at(at).outer_algorithm = algorithm, reason);
        let both = |chain: &mut ChainDraft, at| {
            (chain.at(at).inner_algorithm, chain.at(at).outer_algorithm) = (algorithm, algorithm);
        };
        broken_everywhere(both, reason);
    }
}

#[test]
fn every_certificate_names_the_one_above_it_as_its_issuer() {
    broken_everywhere(|chain, at| chain.at(at).issuer = "someone else".to_owned(), |_| "certificate-issuer");
    let renamed = |chain: &mut ChainDraft, at| chain.at(at).subject = "someone else".to_owned();
    // A renamed leaf is a leaf: nobody depends on its name.
    broken_everywhere(renamed, except_leaf("certificate-issuer"));
    let case = |chain: &mut ChainDraft, at| chain.at(at).issuer = chain.at(at).issuer.to_uppercase();
    broken_everywhere(case, |_| "certificate-issuer");
}

#[test]
fn an_authority_key_id_is_that_of_the_certificate_above_where_both_have_one() {
    let other = |chain: &mut ChainDraft, at| chain.at(at).set(Extension::issuer_key_id(&[9; 20]));
    broken_everywhere(other, |_| "certificate-issuer");
    let none = |chain: &mut ChainDraft, at| {
        let oid = Extension::issuer_key_id(&[]).oid;
        chain.at(at).remove(&oid);
    };
    broken_everywhere(none, |_| "verified");
}

#[test]
fn every_certificate_is_x_509_version_3() {
    broken_everywhere(|chain, at| chain.at(at).version = None, |_| "certificate-version");
    broken_everywhere(|chain, at| chain.at(at).version = Some(1), |_| "certificate-version");
    broken_everywhere(|chain, at| chain.at(at).version = Some(3), |_| "certificate-malformed");
}

#[test]
fn no_extension_is_repeated_critical_and_unknown_or_of_another_trade() {
    let repeated = |chain: &mut ChainDraft, at| {
        let first = chain.at(at).extensions[0].clone();
        chain.at(at).extensions.push(first);
    };
    let reason = |_| "certificate-extension";
    broken_everywhere(repeated, reason);
    broken_everywhere(|chain, at| chain.at(at).set(Extension::unknown(true)), reason);
    broken_everywhere(|chain, at| chain.at(at).set(Extension::extended_key_usage()), reason);
    broken_everywhere(|chain, at| chain.at(at).set(Extension::name_constraints()), reason);
    broken_everywhere(|chain, at| chain.at(at).set(Extension::unknown(false)), |_| "verified");
}

#[test]
fn every_certificate_is_signed_by_the_key_above_it_whatever_its_name() {
    let intact = chain();
    for position in Position::ALL {
        let mut signed = intact.sign();
        let imposter = SigningKey::generate(Curve::P384);
        signed.certificates[index_of(position)] = intact.certificates[index_of(position)].sign(&imposter);
        // The root is trusted for its bytes: its signature on itself adds nothing.
        let expected = if position == Position::Root { "verified" } else { "certificate-signature" };
        assert_eq!(verdict(&signed), expected, "{position}");
    }
}

#[test]
fn the_five_certificates_come_in_one_order_only() {
    let intact = chain().sign();
    let root = TrustRoot::from_der(&intact.certificates[0]).unwrap();
    let mut verified = 0;
    for order in permutations(&[0, 1, 2, 3, 4]) {
        let mut draft = draft(&intact);
        let all: Vec<_> = order.iter().map(|index| intact.certificates[*index].clone()).collect();
        (draft.bundle, draft.certificate) = (all[..4].to_vec(), all[4].clone());
        match verify(&root, &draft, &intact.leaf_key) {
            Ok(()) => verified += 1,
            Err(Refusal::UntrustedRoot { .. }) => assert_ne!(order[0], 0),
            Err(Refusal::Certificate { .. }) => assert_eq!(order[0], 0),
            Err(other) => panic!("{order:?}: {other}"),
        }
    }
    assert_eq!(verified, 1);
}

fn permutations(items: &[usize]) -> Vec<Vec<usize>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let heads = items.iter().flat_map(|head| {
        let rest: Vec<_> = items.iter().copied().filter(|item| item != head).collect();
        permutations(&rest).into_iter().map(|tail| [vec![*head], tail].concat())
    });
    heads.collect()
}

#[test]
fn there_are_five_certificates_no_more_and_no_fewer() {
    let intact = chain().sign();
    let root = TrustRoot::from_der(&intact.certificates[0]).unwrap();
    for index in 0..4 {
        let mut fewer = draft(&intact);
        fewer.bundle.remove(index);
        let expected = if index == 0 { "untrusted-root" } else { "certificate-count" };
        assert_eq!(reason(verify(&root, &fewer, &intact.leaf_key)), expected, "{index}");
        let mut more = draft(&intact);
        more.bundle.insert(index, intact.certificates[index].clone());
        assert_eq!(reason(verify(&root, &more, &intact.leaf_key)), "certificate-count", "{index}");
    }
    let mut root_alone = draft(&intact);
    root_alone.bundle.truncate(1);
    assert_eq!(reason(verify(&root, &root_alone, &intact.leaf_key)), "certificate-count");
}

#[test]
fn a_root_with_the_same_name_is_not_the_root() {
    let (ours, theirs) = (chain().sign(), chain().sign());
    let root = TrustRoot::from_der(&ours.certificates[0]).unwrap();
    assert_eq!(verdict_under(&root, &ours), "verified");
    assert_eq!(verdict_under(&root, &theirs), "untrusted-root");
}

#[test]
fn a_root_with_the_same_name_and_key_is_not_the_root() {
    let mut draft = chain();
    let ours = draft.sign();
    draft.at(Position::Root).serial = vec![2];
    let reissued = draft.sign();
    let root = TrustRoot::from_der(&ours.certificates[0]).unwrap();
    assert_eq!(verdict_under(&root, &reissued), "untrusted-root");
}

#[test]
fn the_true_root_before_a_foreign_chain_changes_nothing() {
    let root = MockPki::generate();
    let mut foreign = chain().sign();
    foreign.certificates[0] = root.trust_root().der().to_vec();
    assert_eq!(verdict_under(&root.trust_root(), &foreign), "certificate-issuer");
    // Nor does it where nothing but the signature tells them apart.
    let mut without_id = chain();
    without_id.at(Position::Regional).remove(&Extension::issuer_key_id(&[]).oid);
    let mut foreign = without_id.sign();
    foreign.certificates[0] = root.trust_root().der().to_vec();
    assert_eq!(verdict_under(&root.trust_root(), &foreign), "certificate-signature");
}

#[test]
fn a_path_that_leaves_out_a_certificate_is_no_path() {
    // The regional certificate repeats name and key of the root, so the shorter path past it verifies.
    let mut draft = chain();
    let root_key = draft.keys[0].clone();
    let root_name = draft.certificates[0].subject.clone();
    draft.at(Position::Regional).subject = root_name.clone();
    draft.at(Position::Zonal).issuer = root_name;
    draft.replace_key(Position::Regional, root_key);
    for position in [Position::Regional, Position::Zonal] {
        draft.at(position).remove(&Extension::own_key_id(&[]).oid);
        draft.at(position).remove(&Extension::issuer_key_id(&[]).oid);
    }
    draft.at(Position::Instance).remove(&Extension::issuer_key_id(&[]).oid);
    assert_eq!(verdict(&draft.sign()), "certificate-path");
}

#[test]
fn the_leaf_of_another_instance_or_enclave_does_not_fit() {
    let pki = MockPki::generate();
    let (one, other) = (pki.issue("i-0-enc0", NOW), pki.issue("i-1-enc1", NOW));
    let mut mixed = one.clone();
    mixed.certificates[4] = other.certificates[4].clone();
    mixed.leaf_key = other.leaf_key;
    assert_eq!(verdict(&mixed), "certificate-issuer");
    let mut other_key = pki.draft("i-0-enc0", NOW).sign();
    other_key.certificates[..4].clone_from_slice(&one.certificates[..4]);
    assert_eq!(verdict(&other_key), "certificate-signature");
}

#[test]
fn a_refusal_names_the_certificate_and_what_it_lacks() {
    let mut draft = chain();
    draft.at(Position::Zonal).not_after = NOW.minus(SECOND);
    let chain = draft.sign();
    let root = TrustRoot::from_der(&chain.certificates[0]).unwrap();
    let document = self::draft(&chain).sign(&chain.leaf_key);
    let parsed = UnverifiedDocument::parse(&document).unwrap();
    let refusal = parsed.verify_archived(&root, &ImagePolicy::danger_any_image()).unwrap_err();
    let text = "the zonal certificate was valid until 2026-01-31T11:59:59.000Z, it is 2026-01-31T12:00:00.000Z";
    assert_eq!(refusal.to_string(), text);
}

#[test]
fn certificates_that_an_independent_encoder_wrote_verify() {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

    let params = |name: &str, path_length: Option<u8>| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(2026, 1, 31);
        params.not_after = rcgen::date_time_ymd(2026, 2, 1);
        params.use_authority_key_identifier_extension = true;
        params.is_ca = match path_length {
            Some(255) => IsCa::Ca(BasicConstraints::Unconstrained),
            Some(length) => IsCa::Ca(BasicConstraints::Constrained(length)),
            None => IsCa::ExplicitNoCa,
        };
        let usage =
            if path_length.is_some() { KeyUsagePurpose::KeyCertSign } else { KeyUsagePurpose::DigitalSignature };
        params.key_usages = vec![usage];
        params
    };
    let key = || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let root_key = key();
    let root = params("root", Some(255)).self_signed(&root_key).unwrap();
    let mut ders = vec![root.der().to_vec()];
    let mut issuer = Issuer::new(params("root", Some(255)), root_key);
    for (name, path_length) in [("regional", Some(2)), ("zonal", Some(1)), ("instance", Some(0))] {
        let own = key();
        ders.push(params(name, path_length).signed_by(&own, &issuer).unwrap().der().to_vec());
        issuer = Issuer::new(params(name, path_length), own);
    }
    let leaf_key = key();
    ders.push(params("leaf", None).signed_by(&leaf_key, &issuer).unwrap().der().to_vec());
    let leaf_key = SigningKey::from_pkcs8(Curve::P384, leaf_key.serialize_der());
    let valid = (Timestamp(0), Timestamp(0));
    let chain = Chain { certificates: ders.try_into().unwrap(), leaf_key, valid };
    assert_eq!(verdict(&chain), "verified");
}

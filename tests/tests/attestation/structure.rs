//! Documents of the wrong shape, each signed by the right key: strictness is all that refuses them.

use testkit::nsm::{
    Curve, DocumentDraft, Form, SigningKey, bytes, cose_sign1, head, null, signed_bytes, text, unsigned,
};
use transcode_confidential::attestation::{Level, MAX_SIZE, Refusal};

use crate::{Launched, launched, reason};

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// One enclave and one draft for a whole table of mutations.
struct Forge {
    enclave: Launched,
    draft: DocumentDraft,
    key: SigningKey,
}

fn forge() -> Forge {
    let enclave = launched();
    let (draft, key) = enclave.draft();
    Forge { enclave, draft, key }
}

impl Forge {
    fn verdict(&self, document: &[u8]) -> &'static str {
        reason(self.enclave.verify(document))
    }

    /// The verdict on a re-signed document with changed fields.
    fn with_fields(&self, change: impl FnOnce(&mut Fields)) -> &'static str {
        let mut fields = self.draft.fields();
        change(&mut fields);
        self.with_payload(&self.draft.payload_of(&fields))
    }

    /// The verdict on a re-signed document with another value of one field.
    fn with_field(&self, name: &str, value: Vec<u8>) -> &'static str {
        self.with_fields(|fields| field(fields, name).1 = value)
    }

    fn with_payload(&self, payload: &[u8]) -> &'static str {
        self.verdict(&self.draft.sign_payload(payload, &self.key))
    }

    /// The verdict on four items that are signed for what they are.
    fn with_headers(&self, protected: &[u8], unprotected: &[u8]) -> &'static str {
        let mut draft = self.draft.clone();
        (draft.protected, draft.unprotected) = (protected.to_vec(), unprotected.to_vec());
        self.verdict(&draft.sign(&self.key))
    }

    fn in_form(&self, form: Form) -> Self {
        let draft = DocumentDraft { form, ..self.draft.clone() };
        Self { enclave: launched_like(&self.enclave), draft, key: self.key.clone() }
    }

    fn signature(&self) -> Vec<u8> {
        self.key.sign_cose(&signed_bytes(&self.draft.protected, &self.draft.payload()))
    }
}

/// The same hypervisor and image, for a second forge.
fn launched_like(enclave: &Launched) -> Launched {
    Launched {
        clock: enclave.clock.clone(),
        hypervisor: enclave.hypervisor.clone(),
        image: enclave.image.clone(),
        nsm: enclave.nsm.clone(),
    }
}

fn field<'a>(fields: &'a mut Fields, name: &str) -> &'a mut (Vec<u8>, Vec<u8>) {
    fields.iter_mut().find(|(key, _)| *key == text(name)).unwrap()
}

const FIELDS: [&str; 9] =
    ["module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle", "public_key", "user_data", "nonce"];

#[test]
fn the_forge_itself_makes_documents_that_verify() {
    for form in [Form::Indefinite, Form::Definite] {
        let forge = forge().in_form(form);
        assert_eq!(forge.with_fields(|_| ()), "verified");
        assert_eq!(forge.with_fields(|fields| fields.reverse()), "verified", "the order of fields means nothing");
    }
}

#[test]
fn a_repeated_key_is_refused_at_every_level_whether_its_values_agree_or_not() {
    for form in [Form::Indefinite, Form::Definite] {
        let forge = forge().in_form(form);
        for name in FIELDS {
            let again = forge.with_fields(|fields| {
                let same = field(fields, name).clone();
                fields.push(same);
            });
            assert_eq!(again, "duplicate-key", "{name}");
            let first = forge.with_fields(|fields| fields.insert(0, (text(name), null())));
            assert_eq!(first, "duplicate-key", "{name}");
        }
        let pcr = |index| [unsigned(index), bytes(&[1; 48])].concat();
        let repeated = [head(5, 4), pcr(0), pcr(1), pcr(2), pcr(1)].concat();
        assert_eq!(forge.with_field("pcrs", repeated), "duplicate-key");
        assert_eq!(forge.with_headers(&forge.draft.protected, &[0xa2, 1, 2, 1, 3]), "duplicate-key");
    }
}

#[test]
fn a_key_repeated_in_a_longer_form_is_no_way_around_that() {
    let pcr = |index: &[u8]| [index.to_vec(), bytes(&[1; 48])].concat();
    let pcrs = [head(5, 4), pcr(&[0]), pcr(&[1]), pcr(&[2]), pcr(&[0x18, 2])].concat();
    assert_eq!(forge().with_field("pcrs", pcrs), "not-shortest");
}

#[test]
fn bytes_after_the_end_are_refused_at_every_level() {
    let forge = forge();
    let document = forge.draft.sign(&forge.key);
    for trailer in [&[0x00][..], &[0xff], &[0xf6], &document] {
        assert_eq!(forge.verdict(&[&document, trailer].concat()), "trailing-bytes");
    }
    for form in [Form::Indefinite, Form::Definite] {
        let forge = forge.in_form(form);
        for trailer in [&[0x00][..], &[0xff], &[0xa0]] {
            let payload = [&forge.draft.payload(), trailer].concat();
            assert_eq!(forge.with_payload(&payload), "trailing-bytes", "{form:?}");
        }
    }
    assert_eq!(forge.with_headers(&[0xa1, 0x01, 0x38, 0x22, 0x00], &[0xa0]), "protected-header");
    let signature = [forge.signature(), vec![0]].concat();
    let longer = cose_sign1(&forge.draft.protected, &[0xa0], &forge.draft.payload(), &signature);
    assert_eq!(forge.verdict(&longer), "signature-length");

    let longer = |der: &[u8]| [der, &[0]].concat();
    assert_eq!(forge.with_field("certificate", bytes(&longer(&forge.draft.certificate))), "certificate-malformed");
    for position in 0..4 {
        let mut draft = forge.draft.clone();
        draft.bundle[position] = longer(&draft.bundle[position]);
        let expected = if position == 0 { "untrusted-root" } else { "certificate-malformed" };
        assert_eq!(forge.verdict(&draft.sign(&forge.key)), expected, "{position}");
    }
}

#[test]
fn an_indefinite_length_is_refused_everywhere_but_on_the_payload_map() {
    let chunked = |content: &[u8]| [&[0x5f], bytes(content).as_slice(), &[0xff]].concat();
    let forge = forge();
    let draft = &forge.draft;
    let (protected, payload, signature) = (&draft.protected, draft.payload(), forge.signature());
    for parts in [
        [&[0x9f], &*bytes(protected), &[0xa0], &bytes(&payload), &bytes(&signature), &[0xff]],
        [&[0x84], &*chunked(protected), &[0xa0], &bytes(&payload), &bytes(&signature), &[]],
        [&[0x84], &*bytes(protected), &[0xbf, 0xff], &bytes(&payload), &bytes(&signature), &[]],
        [&[0x84], &*bytes(protected), &[0xa0], &chunked(&payload), &bytes(&signature), &[]],
        [&[0x84], &*bytes(protected), &[0xa0], &bytes(&payload), &chunked(&signature), &[]],
    ] {
        assert_eq!(forge.verdict(&parts.concat()), "indefinite-length");
    }

    for form in [Form::Indefinite, Form::Definite] {
        let forge = forge.in_form(form);
        for name in ["certificate", "public_key", "user_data", "nonce"] {
            assert_eq!(forge.with_field(name, chunked(b"x")), "indefinite-length", "{name}");
        }
        let module_id = [&[0x7f], text("i-0").as_slice(), &[0xff]].concat();
        assert_eq!(forge.with_field("module_id", module_id), "indefinite-length");
        let key = [&[0x7f], text("nonce").as_slice(), &[0xff]].concat();
        assert_eq!(forge.with_fields(|fields| field(fields, "nonce").0 = key), "indefinite-length");
        let mut pcrs = field(&mut draft.fields(), "pcrs").1.clone();
        pcrs[0] = 0xbf;
        pcrs.push(0xff);
        assert_eq!(forge.with_field("pcrs", pcrs), "indefinite-length");
        let pcr = [head(5, 1), unsigned(0), chunked(&[1; 48])].concat();
        assert_eq!(forge.with_field("pcrs", pcr), "indefinite-length");
        let mut bundle = field(&mut draft.fields(), "cabundle").1.clone();
        bundle[0] = 0x9f;
        bundle.push(0xff);
        assert_eq!(forge.with_field("cabundle", bundle), "indefinite-length");
        let certificate = [head(4, 1), chunked(&draft.bundle[0])].concat();
        assert_eq!(forge.with_field("cabundle", certificate), "indefinite-length");
    }
}

#[test]
fn the_payload_map_ends_with_its_break_and_only_an_indefinite_one_does() {
    let forge = forge();
    let payload = forge.draft.payload();
    let without_break = &payload[..payload.len() - 1];
    assert_eq!(forge.with_payload(without_break), "missing-break");
    assert_eq!(forge.with_payload(&[0xbf]), "missing-break");
    let after_a_key = [without_break, &text("extra"), &[0xff]].concat();
    assert_eq!(forge.with_payload(&after_a_key), "unsupported-item");

    let forge = forge.in_form(Form::Definite);
    let mut payload = forge.draft.payload();
    assert_eq!(forge.with_payload(&[payload.as_slice(), &[0xff]].concat()), "trailing-bytes");
    payload[0] = 0xaa;
    assert_eq!(forge.with_payload(&payload), "truncated");
    payload[0] = 0xa8;
    assert_eq!(forge.with_payload(&payload), "trailing-bytes");
    payload[0] = 0xbf;
    assert_eq!(forge.with_payload(&payload), "missing-break");
}

#[test]
fn a_document_cut_off_anywhere_is_refused() {
    let forge = forge();
    let document = forge.draft.sign(&forge.key);
    for length in 0..document.len() {
        assert_eq!(forge.verdict(&document[..length]), "truncated", "{length}");
    }
    let payload = forge.draft.payload();
    for length in 0..payload.len() {
        let refused = forge.with_payload(&payload[..length]);
        assert!(matches!(refused, "truncated" | "missing-break"), "{length}: {refused}");
    }
}

#[test]
fn an_algorithm_other_than_es384_is_refused_in_either_header_although_the_signature_is_right() {
    let forge = forge();
    let es384 = [0xa1, 0x01, 0x38, 0x22];
    for (what, protected) in [
        ("ES256", &[0xa1, 0x01, 0x26][..]),
        ("ES512", &[0xa1, 0x01, 0x38, 0x23]),
        ("EdDSA", &[0xa1, 0x01, 0x27]),
        ("PS384", &[0xa1, 0x01, 0x38, 0x25]),
        ("RS1", &[0xa1, 0x01, 0x39, 0xff, 0xfe]),
        ("as text", b"\xa1\x01\x65ES384"),
        ("none, as an empty map", &[0xa0]),
        ("none, as an empty string", &[]),
        ("ES384 in a longer form", &[0xa1, 0x01, 0x39, 0x00, 0x22]),
        ("ES384 in an indefinite map", &[0xbf, 0x01, 0x38, 0x22, 0xff]),
        ("ES384 and a content type", &[0xa2, 0x01, 0x38, 0x22, 0x03, 0x00]),
        ("ES384 and a critical header", &[0xa2, 0x01, 0x38, 0x22, 0x02, 0x81, 0x03]),
        ("ES384 twice", &[0xa2, 0x01, 0x38, 0x22, 0x01, 0x38, 0x22]),
    ] {
        assert_eq!(forge.with_headers(protected, &[0xa0]), "protected-header", "{what}");
    }
    for (what, unprotected, expected) in [
        ("a key id", &[0xa1, 0x04, 0x41, 0x00][..], "unprotected-header"),
        ("an algorithm as text", b"\xa1\x01\x65ES256", "unprotected-header"),
        ("an algorithm, negative", &[0xa1, 0x01, 0x26], "unsupported-item"),
        ("no map", &[0x80], "not-cose-sign1"),
        ("null", &[0xf6], "not-cose-sign1"),
        ("an integer", &[0x00], "not-cose-sign1"),
    ] {
        assert_eq!(forge.with_headers(&es384, unprotected), expected, "{what}");
        assert_ne!(forge.with_headers(&[], unprotected), "verified", "{what}, with none in the protected header");
    }
}

#[test]
fn what_is_no_cose_sign1_is_refused() {
    let forge = forge();
    let (protected, payload, signature) = (&forge.draft.protected, forge.draft.payload(), forge.signature());
    let document = cose_sign1(protected, &[0xa0], &payload, &signature);
    let items = &document[1..];
    for (what, document, expected) in [
        ("nothing", Vec::new(), "truncated"),
        ("a map", vec![0xa0], "not-cose-sign1"),
        ("an indefinite map", vec![0xbf, 0xff], "indefinite-length"),
        ("three items", [&[0x83], &items[..items.len() - 98]].concat(), "not-cose-sign1"),
        ("five items", [&[0x85], items, &[0xf6]].concat(), "not-cose-sign1"),
        ("an array around it", [&[0x81], document.as_slice()].concat(), "too-deep"),
        ("a byte string around it", bytes(&document), "not-cose-sign1"),
        (
            "a detached payload",
            [&[0x84], &*bytes(protected), &[0xa0, 0xf6], &bytes(&signature)].concat(),
            "not-cose-sign1",
        ),
        ("another tag", [&[0xd1], document.as_slice()].concat(), "unsupported-item"),
        ("the tag twice", [&[0xd2, 0xd2], document.as_slice()].concat(), "unsupported-item"),
        ("the tag in a longer form", [&[0xd8, 18], document.as_slice()].concat(), "unsupported-item"),
        ("the tag of CWT", [&[0xd8, 61], document.as_slice()].concat(), "unsupported-item"),
        ("a text", text("attestation"), "not-cose-sign1"),
    ] {
        assert_eq!(forge.verdict(&document), expected, "{what}");
    }
}

#[test]
fn every_field_has_one_type_and_a_range() {
    let forge = forge();
    let pcr = |index: u64, length| [head(5, 1), unsigned(index), bytes(&vec![1; length])].concat();
    for (name, what, value, expected) in [
        ("module_id", "bytes", bytes(b"i-0"), "field-type"),
        ("module_id", "null", null(), "field-type"),
        ("module_id", "empty", text(""), "field-range"),
        ("module_id", "long", text(&"i".repeat(129)), "field-range"),
        ("module_id", "an escape sequence", text("i-0\u{1b}[2J"), "field-range"),
        ("module_id", "not UTF-8", vec![0x61, 0xff], "not-utf8"),
        ("digest", "SHA256", text("SHA256"), "digest-algorithm"),
        ("digest", "SHA512", text("SHA512"), "digest-algorithm"),
        ("digest", "lower case", text("sha384"), "digest-algorithm"),
        ("digest", "bytes", bytes(b"SHA384"), "field-type"),
        ("timestamp", "zero", unsigned(0), "field-range"),
        ("timestamp", "text", text("2026-01-31T12:00:00Z"), "field-type"),
        ("timestamp", "null", null(), "field-type"),
        ("timestamp", "negative", vec![0x20], "unsupported-item"),
        ("timestamp", "a float", [&[0xfb], 1.7e12_f64.to_be_bytes().as_slice()].concat(), "unsupported-item"),
        ("timestamp", "a tagged time", [&[0xc1], unsigned(1).as_slice()].concat(), "unsupported-item"),
        ("timestamp", "a big number", [&[0xc2], bytes(&[1]).as_slice()].concat(), "unsupported-item"),
        ("pcrs", "null", null(), "field-type"),
        ("pcrs", "an array", [head(4, 1), bytes(&[1; 48])].concat(), "field-type"),
        ("pcrs", "empty", vec![0xa0], "field-range"),
        ("pcrs", "index 32", pcr(32, 48), "field-range"),
        ("pcrs", "index 256", pcr(256, 48), "field-range"),
        ("pcrs", "index 2^32", pcr(1 << 32, 48), "field-range"),
        ("pcrs", "32 bytes", pcr(0, 32), "field-range"),
        ("pcrs", "47 bytes", pcr(0, 47), "field-range"),
        ("pcrs", "49 bytes", pcr(0, 49), "field-range"),
        ("pcrs", "64 bytes", pcr(0, 64), "field-range"),
        ("pcrs", "index as text", [head(5, 1), text("0"), bytes(&[1; 48])].concat(), "field-type"),
        ("pcrs", "value as text", [head(5, 1), unsigned(0), text(&"1".repeat(48))].concat(), "field-type"),
        ("pcrs", "a map in the map", [head(5, 1), unsigned(0), vec![0xa0]].concat(), "too-deep"),
        ("certificate", "null", null(), "field-type"),
        ("certificate", "empty", bytes(&[]), "field-range"),
        ("certificate", "1,025 bytes", bytes(&[0; 1025]), "field-range"),
        ("certificate", "no DER", bytes(&[0x30; 600]), "certificate-malformed"),
        ("cabundle", "null", null(), "field-type"),
        ("cabundle", "one string", bytes(&[1]), "field-type"),
        ("cabundle", "empty", vec![0x80], "field-range"),
        ("cabundle", "an empty certificate", [head(4, 1), bytes(&[])].concat(), "field-range"),
        ("cabundle", "text", [head(4, 1), text("root")].concat(), "field-type"),
        ("cabundle", "1,025 bytes", [head(4, 1), bytes(&[0; 1025])].concat(), "field-range"),
        ("public_key", "text", text("key"), "field-type"),
        ("public_key", "undefined", vec![0xf7], "unsupported-item"),
        ("user_data", "false", vec![0xf4], "unsupported-item"),
        ("user_data", "4,097 bytes", bytes(&[0; 4097]), "field-range"),
        ("nonce", "an integer", unsigned(1), "field-type"),
        ("nonce", "a length not in its shortest form", vec![0x58, 1, 0], "not-shortest"),
    ] {
        assert_eq!(forge.with_field(name, value), expected, "{name}: {what}");
    }
    for name in ["public_key", "user_data", "nonce"] {
        for length in [0, 1, 746, 4096] {
            assert_eq!(forge.with_field(name, bytes(&vec![7; length])), "verified", "{name}: {length}");
        }
    }
}

#[test]
fn a_required_field_is_there_and_no_unknown_one_is() {
    let forge = forge();
    for name in FIELDS {
        let optional = matches!(name, "public_key" | "user_data" | "nonce");
        let without = forge.with_fields(|fields| fields.retain(|(key, _)| *key != text(name)));
        assert_eq!(without, if optional { "verified" } else { "missing-field" }, "{name}");
        let upper = forge.with_fields(|fields| field(fields, name).0 = text(&name.to_uppercase()));
        assert_eq!(upper, if optional { "unknown-field" } else { "missing-field" }, "{name}");
    }
    for (key, expected) in [
        (text("extra"), "unknown-field"),
        (text(""), "unknown-field"),
        (unsigned(1), "unknown-field"),
        (text("nitrotpm_pcrs"), "not-an-enclave"),
        (bytes(b"extra"), "unsupported-item"),
        (null(), "unsupported-item"),
        (vec![0x80], "unsupported-item"),
    ] {
        assert_eq!(forge.with_fields(|fields| fields.push((key.clone(), null()))), expected, "{key:?}");
    }
    for payload in [vec![0x80], vec![0xf6], unsigned(1), text("payload")] {
        assert_eq!(forge.with_payload(&payload), "field-type");
    }
    assert_eq!(forge.with_payload(&[]), "truncated");
}

#[test]
fn a_document_that_does_not_list_its_image_is_refused() {
    let forge = forge();
    for missing in 0..3 {
        let mut draft = forge.draft.clone();
        draft.pcrs.retain(|(index, _)| *index != missing);
        assert_eq!(forge.verdict(&draft.sign(&forge.key)), "missing-pcr");
    }
    let mut sparse = forge.draft.clone();
    sparse.pcrs.retain(|(index, _)| matches!(index, 0..=2 | 4));
    assert_eq!(forge.verdict(&sparse.sign(&forge.key)), "verified", "a sparse set is legal");
}

#[test]
fn a_document_with_one_zero_register_of_its_image_is_refused() {
    let forge = forge();
    for zero in 0..3 {
        let mut draft = forge.draft.clone();
        draft.pcrs[zero].1 = vec![0; 48];
        assert_eq!(forge.verdict(&draft.sign(&forge.key)), "debug-mode");
    }
}

#[test]
fn depth_count_and_size_have_budgets() {
    let forge = forge();
    let nested = [vec![0x81; 1000], vec![0x00]].concat();
    assert_eq!(forge.with_field("user_data", nested.clone()), "too-deep");
    assert_eq!(forge.verdict(&nested), "too-deep");
    let many = [head(4, 1000), vec![0; 1000]].concat();
    assert_eq!(forge.with_field("cabundle", many), "too-many-items");
    let pairs = (0..200).flat_map(|index| [unsigned(index), null()].concat()).collect();
    assert_eq!(forge.with_field("pcrs", [head(5, 200), pairs].concat()), "too-many-items");
    for declared in [1 << 16, 1 << 32, u64::MAX] {
        assert_eq!(forge.with_field("user_data", head(2, declared)), "truncated");
        assert_eq!(forge.verdict(&[head(4, declared), vec![0]].concat()), "truncated");
    }
    assert_eq!(forge.verdict(&vec![0; MAX_SIZE]), "trailing-bytes");
    assert_eq!(forge.verdict(&vec![0; MAX_SIZE + 1]), "too-large");
}

#[test]
fn the_signature_is_over_the_received_bytes_and_by_the_leaf() {
    let forge = forge();
    let other_form = DocumentDraft { form: Form::Definite, ..forge.draft.clone() };
    let (indefinite, definite) = (forge.draft.payload(), other_form.payload());
    let signed_over_other_bytes = cose_sign1(
        &forge.draft.protected,
        &[0xa0],
        &definite,
        &forge.key.sign_cose(&signed_bytes(&forge.draft.protected, &indefinite)),
    );
    assert_eq!(forge.verdict(&signed_over_other_bytes), "signature");
    let payload_alone = cose_sign1(&forge.draft.protected, &[0xa0], &indefinite, &forge.key.sign_cose(&indefinite));
    assert_eq!(forge.verdict(&payload_alone), "signature");
    assert_eq!(forge.verdict(&forge.draft.sign(&SigningKey::generate(Curve::P384))), "signature");
    for value in [0, 0xff] {
        let constant = cose_sign1(&forge.draft.protected, &[0xa0], &indefinite, &[value; 96]);
        assert_eq!(forge.verdict(&constant), "signature");
    }
    for length in [0, 64, 95, 97, 104, 132] {
        let other_length = cose_sign1(&forge.draft.protected, &[0xa0], &indefinite, &vec![1; length]);
        assert_eq!(forge.verdict(&other_length), "signature-length");
    }
}

#[test]
fn a_high_s_is_as_good_as_a_low_one() {
    let forge = forge();
    let tops = (0..32).map(|_| forge.signature()[48] >> 7);
    assert_eq!(tops.collect::<std::collections::BTreeSet<_>>().len(), 2, "both occur");
    for _ in 0..8 {
        assert_eq!(forge.verdict(&forge.draft.sign(&forge.key)), "verified");
    }
}

#[test]
fn a_refusal_of_the_shape_names_the_level_and_the_byte() {
    let forge = forge();
    let payload = forge.draft.payload();
    let longer = [payload.as_slice(), &[0]].concat();
    let refusal = forge.enclave.verify(&forge.draft.sign_payload(&longer, &forge.key)).unwrap_err();
    assert!(refusal.is_malformed());
    match refusal {
        Refusal::Structure { level, offset, .. } => assert_eq!((level, offset), (Level::Payload, payload.len())),
        other => panic!("{other:?}"),
    }
    let document = forge.draft.sign(&forge.key);
    for (prefix, skipped) in [(&[][..], 0), (&[0xd2], 1)] {
        let longer = [prefix, &document, &[0]].concat();
        match forge.enclave.verify(&longer).unwrap_err() {
            Refusal::Structure { level, offset, .. } => {
                assert_eq!((level, offset), (Level::Envelope, document.len() + skipped));
            }
            other => panic!("{other:?}"),
        }
    }
}

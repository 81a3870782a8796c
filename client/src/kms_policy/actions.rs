/// What gives out key material or plaintext, and only to an attested recipient.
pub(super) const USE: [&str; 2] = ["kms:Decrypt", "kms:GenerateDataKey"];

/// Every action that gives out plaintext or key material, as patterns. `GenerateDataKeyWithoutPlaintext` lets the host
/// plant keys; the `Pair` kinds and `DeriveSharedSecret` give out secrets of other shapes.
pub(super) const DISCLOSING: [&str; 3] = ["kms:Decrypt", "kms:GenerateDataKey*", "kms:DeriveSharedSecret"];

/// Ways around the conditions: a grant has none, re-encryption moves a wrapped key under a key of another policy, a
/// replica has a policy of its own, imported material is known to who imports it, and who may encrypt can plant keys that
/// he knows.
pub(super) const WAYS_AROUND: [&str; 6] = [
    "kms:CreateGrant",
    "kms:ReEncrypt*",
    "kms:ReplicateKey",
    "kms:UpdatePrimaryRegion",
    "kms:ImportKeyMaterial",
    "kms:Encrypt",
];

/// What changes who may do what.
pub(super) const REWRITING: [&str; 1] = ["kms:PutKeyPolicy"];

/// What an administrator needs to keep a key in order; none of it gives out anything.
pub(super) const ADMINISTRATION: [&str; 17] = [
    "kms:CancelKeyDeletion",
    "kms:DescribeKey",
    "kms:DisableKey",
    "kms:DisableKeyRotation",
    "kms:EnableKey",
    "kms:EnableKeyRotation",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListGrants",
    "kms:ListKeyPolicies",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:RevokeGrant",
    "kms:ScheduleKeyDeletion",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateKeyDescription",
];

/// AWS has no longer action than some 60 characters.
const LONGEST: usize = 256;

/// Whether two patterns, in which `*` stands for anything and `?` for one character, have a text in common. Letters of
/// either case are the same. A pattern too long to be compared counts as overlapping.
pub(super) fn overlap(one: &str, other: &str) -> bool {
    let letters = |pattern: &str| pattern.to_ascii_lowercase().chars().collect::<Vec<_>>();
    let (one, other) = (letters(one), letters(other));
    if one.len().max(other.len()) > LONGEST {
        return true;
    }
    let width = other.len() + 1;
    // cells[i * width + j]: what is left of `one` from i on has a text in common with what is left of `other` from j on.
    let mut cells = vec![false; (one.len() + 1) * width];
    for i in (0..=one.len()).rev() {
        for j in (0..=other.len()).rev() {
            let at = |i: usize, j: usize| j < width && cells.get(i * width + j).copied().unwrap_or(false);
            let common = match (one.get(i), other.get(j)) {
                (None, None) => true,
                // A star ends, or takes whatever is next on the other side.
                (Some('*'), _) | (_, Some('*')) => at(i + 1, j) || at(i, j + 1),
                (Some(a), Some(b)) => (a == b || *a == '?' || *b == '?') && at(i + 1, j + 1),
                _ => false,
            };
            if let Some(cell) = cells.get_mut(i * width + j) {
                *cell = common;
            }
        }
    }
    cells.first().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_overlap_where_one_text_matches_both() {
        for (one, other) in [
            ("*", "kms:Decrypt"),
            ("kms:*", "kms:ReEncrypt*"),
            ("kms:decrypt", "kms:Decrypt"),
            ("kms:Generate*", "kms:GenerateDataKey*"),
            ("kms:GenerateDataKeyPair", "kms:GenerateDataKey*"),
            ("kms:*Key", "kms:Generate*"),
            ("kms:D?crypt", "kms:Decrypt"),
            ("kms:*Encrypt*", "kms:ReEncryptFrom"),
            ("", ""),
            ("**", ""),
        ] {
            assert!(overlap(one, other), "{one} {other}");
            assert!(overlap(other, one), "{other} {one}");
        }
        for (one, other) in [
            ("kms:Describe*", "kms:Decrypt"),
            ("kms:Encrypt", "kms:ReEncrypt*"),
            ("kms:GenerateDataKey", "kms:GenerateDataKeyPair*"),
            ("s3:*", "kms:Decrypt"),
            ("kms:D?", "kms:Decrypt"),
            ("a*b", "a*c"),
            ("", "?"),
        ] {
            assert!(!overlap(one, other), "{one} {other}");
            assert!(!overlap(other, one), "{other} {one}");
        }
    }

    #[test]
    fn administration_gives_out_nothing_and_goes_around_nothing() {
        for action in ADMINISTRATION {
            for dangerous in DISCLOSING.iter().chain(&WAYS_AROUND) {
                assert!(!overlap(action, dangerous), "{action}");
            }
        }
    }
}

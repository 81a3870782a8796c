/// Whether `text` matches `pattern`, in which `*` stands for any characters and `?` for any one.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    // reached[i]: the pattern so far matches the first i characters.
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for part in pattern {
        let mut next = vec![false; text.len() + 1];
        for at in 0..=text.len() {
            next[at] = match part {
                '*' => reached[at] || (at > 0 && next[at - 1]),
                '?' => at > 0 && reached[at - 1],
                exact => at > 0 && reached[at - 1] && text[at - 1] == exact,
            };
        }
        reached = next;
    }
    reached[text.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_match_as_in_aws_policies() {
        for (pattern, text) in [
            ("*", ""),
            ("kms:*", "kms:decrypt"),
            ("kms:generatedatakey*", "kms:generatedatakey"),
            ("a?c*", "abcd"),
            ("*b*", "abc"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("", "a"), ("kms:?", "kms:"), ("a", "ab"), ("a*c", "ab"), ("?", "")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }
}

//! `$(VAR)` references in commands, arguments and environment values.

/// Replaces every `$(NAME)` whose name `lookup` knows. `$$` is one `$`, so
/// `$$(NAME)` is not a reference; unknown and unfinished references stay as
/// they are.
#[must_use]
pub fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            after
        } else if let Some((name, after)) = reference(after) {
            match lookup(name) {
                Some(value) => out.push_str(value),
                None => out.extend(["$(", name, ")"]),
            }
            after
        } else {
            out.push('$');
            after
        };
    }
    out.push_str(rest);
    out
}

/// Splits `(NAME)rest` into name and rest.
fn reference(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('(')?.split_once(')')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn references_are_replaced() {
        let vars = BTreeMap::from([
            ("A", "1"),
            ("B", "two"),
            ("EMPTY", ""),
            ("NESTED", "$(A)"),
            ("", "nameless"),
        ]);
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$(A)", "1"),
            ("x$(A)y$(B)z", "x1ytwoz"),
            ("$(EMPTY)", ""),
            ("$(NESTED)", "$(A)"),
            ("$(MISSING)", "$(MISSING)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$$$$(A)", "$$(A)"),
            ("$", "$"),
            ("a$", "a$"),
            ("$$", "$"),
            ("$(", "$("),
            ("$(A", "$(A"),
            ("$()", "nameless"),
            ("$(A))", "1)"),
            ("$(A$(B))", "$(A$(B))"),
            ("$A ${A}", "$A ${A}"),
            ("$é$(A)", "$é1"),
            ("$($(A)", "$($(A)"),
        ] {
            assert_eq!(
                expand(text, |name| vars.get(name).copied()),
                expected,
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_expands(text in "[$()A-C é]{0,40}|\\PC*") {
            let out = expand(&text, |name| (name == "A").then_some("value"));
            if !text.contains('$') {
                prop_assert_eq!(out, text);
            }
        }

        #[test]
        fn escaped_text_is_kept(text in "\\PC*") {
            prop_assert_eq!(expand(&text.replace('$', "$$"), |_| Some("value")), text);
        }
    }
}

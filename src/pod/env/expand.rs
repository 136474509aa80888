//! `$(VAR)` references in commands, arguments and environment values.

/// Replaces every `$(NAME)` whose name `lookup` knows. `$$` is one `$`, so
/// `$$(NAME)` is not a reference; unknown and unfinished references stay as
/// they are.
#[must_use]
pub fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    for piece in pieces(text) {
        match piece {
            Piece::Literal(text) => out.push_str(text),
            Piece::Reference(name) => match lookup(name) {
                Some(value) => out.push_str(value),
                None => out.extend(["$(", name, ")"]),
            },
        }
    }
    out
}

/// The names that [`expand`] looks up in a text, in order.
pub fn references(text: &str) -> impl Iterator<Item = &str> {
    pieces(text).filter_map(|piece| match piece {
        Piece::Reference(name) => Some(name),
        Piece::Literal(_) => None,
    })
}

enum Piece<'a> {
    Literal(&'a str),
    /// The name in `$(NAME)`.
    Reference(&'a str),
}

fn pieces(mut rest: &str) -> impl Iterator<Item = Piece<'_>> {
    std::iter::from_fn(move || {
        if let Some(after) = rest.strip_prefix("$$") {
            rest = after;
            return Some(Piece::Literal("$"));
        }
        if let Some((name, after)) = rest.strip_prefix('$').and_then(reference) {
            rest = after;
            return Some(Piece::Reference(name));
        }
        // Up to the next dollar; one at the front refers to nothing.
        let first = rest.chars().next()?;
        let end = rest[first.len_utf8()..].find('$');
        let end = end.map_or(rest.len(), |end| end + first.len_utf8());
        let (literal, after) = rest.split_at(end);
        rest = after;
        Some(Piece::Literal(literal))
    })
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

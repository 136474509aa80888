//! How errors are shown.
//!
//! Our error types never repeat their source in `Display`, so a log line that
//! wants the whole story goes through [`chain`].

use std::error::Error;
use std::fmt;

/// Shows an error and all its sources, outermost first, joined by `": "`.
#[must_use]
pub fn chain<'a>(error: &'a (dyn Error + 'a)) -> Chain<'a> {
    Chain(error)
}

/// The display adapter made by [`chain`].
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a>(&'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.to_string();
        f.write_str(&shown)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            // Many libraries do repeat their source; once is enough.
            let text = error.to_string();
            if !shown.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            shown = text;
            next = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Told {
        text: &'static str,
        source: Option<Box<Told>>,
    }

    #[test]
    fn sources_follow_unless_they_were_told_already() {
        let told = |text, source| Some(Box::new(Told { text, source }));
        for (error, shown) in [
            (told("a", None), "a"),
            (told("a", told("b", told("c", None))), "a: b: c"),
            (told("a: b: c", told("b: c", told("c", None))), "a: b: c"),
        ] {
            let error = error.expect("an error");
            assert_eq!(chain(&*error).to_string(), shown);
        }
    }
}

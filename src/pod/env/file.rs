//! Variables in files (`fileKeyRef`).
//!
//! In: the text of a file that some container of the pod wrote. Out: the value
//! of one variable, or why there is none. The form is upstream's: lines
//! `NAME='value'`, where a value may go over several lines and nothing in it is
//! special; blank lines and lines that begin with `#` mean nothing.

/// Longest name that may be asked for, in bytes.
pub const MAX_NAME: usize = 128;
/// Longest value, in bytes.
pub const MAX_VALUE: usize = 32 * 1024;
/// Largest file, in bytes.
pub const MAX_FILE: u64 = 64 * 1024;

/// Why a file has no usable value; with the line, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvFileError {
    #[error("line {0}: there is no '='")]
    NoAssignment(usize),
    #[error("line {0}: the name is empty or has white space at its end")]
    Name(usize),
    #[error("line {0}: the value is not in single quotes")]
    Unquoted(usize),
    #[error("line {0}: the quote is not closed")]
    Unclosed(usize),
    #[error("line {0}: something follows the value")]
    Trailing(usize),
    #[error("the name is longer than {MAX_NAME} bytes")]
    LongName,
    #[error("the value is longer than {MAX_VALUE} bytes")]
    LongValue,
}

/// The value of the first variable of that name; `None` if there is none. What
/// follows it in the file is not looked at.
///
/// # Errors
/// If the file is wrong up to there, or name or value are too long.
pub fn value<'a>(text: &'a str, name: &str) -> Result<Option<&'a str>, EnvFileError> {
    if name.len() > MAX_NAME {
        return Err(EnvFileError::LongName);
    }
    let mut assignments = Assignments {
        rest: text,
        line: 1,
    };
    while let Some((found, value)) = assignments.next()? {
        if found == name {
            return if value.len() > MAX_VALUE {
                Err(EnvFileError::LongValue)
            } else {
                Ok(Some(value))
            };
        }
    }
    Ok(None)
}

struct Assignments<'a> {
    rest: &'a str,
    /// The line that `rest` begins with.
    line: usize,
}

impl<'a> Assignments<'a> {
    fn next(&mut self) -> Result<Option<(&'a str, &'a str)>, EnvFileError> {
        loop {
            if self.rest.is_empty() {
                return Ok(None);
            }
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            let text = self.rest[..end].trim_start();
            if text.trim_end().is_empty() || text.starts_with('#') {
                self.skip(end);
                continue;
            }
            return self.assignment(text).map(Some);
        }
    }

    /// Takes one assignment; `text` is its first line.
    fn assignment(&mut self, text: &'a str) -> Result<(&'a str, &'a str), EnvFileError> {
        let line = self.line;
        let (name, _) = text
            .split_once('=')
            .ok_or(EnvFileError::NoAssignment(line))?;
        if name.is_empty() || name.ends_with(char::is_whitespace) {
            return Err(EnvFileError::Name(line));
        }
        let equals = self.rest.find('=').unwrap_or_default();
        let value = &self.rest[equals + 1..];
        let end_of_line = value.find('\n').unwrap_or(value.len());
        // As in a shell, a blank after the equals sign ends the value.
        if value[..end_of_line].is_empty() || value.starts_with(char::is_whitespace) {
            self.skip(equals + 1 + end_of_line);
            return Ok((name, ""));
        }
        let quoted = value
            .strip_prefix('\'')
            .ok_or(EnvFileError::Unquoted(line))?;
        let (value, after) = quoted
            .split_once('\'')
            .ok_or(EnvFileError::Unclosed(line))?;
        let after = after.split('\n').next().unwrap_or_default();
        let comment = after.trim_start();
        let ends = comment.is_empty() || comment.starts_with('#') && comment.len() < after.len();
        if !ends {
            return Err(EnvFileError::Trailing(line + value.matches('\n').count()));
        }
        self.skip(equals + 2 + value.len() + 1 + after.len());
        Ok((name, value))
    }

    /// Goes on behind `end`, which is the end of a line.
    fn skip(&mut self, end: usize) {
        self.line += self.rest[..end].matches('\n').count() + 1;
        self.rest = self.rest.get(end + 1..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_what_is_between_the_quotes() {
        let text = "\n# comment\n  A='1'\nB=''\nC=\nD= 'x'\nE='a\nb # c\\n\"$(A)'  # comment\n\
                    A='again'\r\nF='end'";
        for (name, expected) in [
            ("A", Some("1")),
            ("B", Some("")),
            ("C", Some("")),
            ("D", Some("")),
            ("E", Some("a\nb # c\\n\"$(A)")),
            ("F", Some("end")),
            ("G", None),
            ("", None),
        ] {
            assert_eq!(value(text, name), Ok(expected), "{name}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, expected) in [
            ("A", EnvFileError::NoAssignment(1)),
            ("\n\nA B", EnvFileError::NoAssignment(3)),
            ("A ='1'", EnvFileError::Name(1)),
            ("='1'", EnvFileError::Name(1)),
            ("A=1", EnvFileError::Unquoted(1)),
            ("A=\"1\"", EnvFileError::Unquoted(1)),
            ("X='\n\n'\nA='1", EnvFileError::Unclosed(4)),
            ("A='1\n'2", EnvFileError::Trailing(2)),
            ("A='1'#", EnvFileError::Trailing(1)),
        ] {
            assert_eq!(value(text, "Z"), Err(expected), "{text:?}");
        }
        let long = "x".repeat(MAX_VALUE + 1);
        assert_eq!(
            value(&format!("A='{long}'"), "A"),
            Err(EnvFileError::LongValue)
        );
        assert_eq!(value("", &long), Err(EnvFileError::LongName));
    }

    #[test]
    fn what_follows_the_variable_does_not_matter() {
        assert_eq!(value("A='1'\nnonsense", "A"), Ok(Some("1")));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "([AB #='\\n\\r\\\\é]|\\PC){0,60}", name in "[AB]{1,2}") {
            let _ = value(&text, &name);
        }

        #[test]
        fn what_is_written_is_read(value in "[^']{0,60}") {
            let text = format!("# first\nOTHER='o'\nNAME='{value}'\n");
            prop_assert_eq!(super::value(&text, "NAME"), Ok(Some(value.as_str())));
        }
    }
}

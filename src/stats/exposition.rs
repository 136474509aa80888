//! Prometheus' text format, with time stamps. (The crate that writes our own
//! metrics knows OpenMetrics without them.)
//!
//! A family is begun once and has all its samples at once; one without a sample
//! is not written at all.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;

/// `Content-Type` of what is written.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    Count(u64),
    /// In seconds, with as many digits as it has.
    Time(Duration),
}

/// Labels, escaped once for all samples that carry them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Labels(String);

/// The text in the making.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

/// One family in the making.
#[derive(Debug)]
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
    kind: Kind,
    help: &'static str,
    is_begun: bool,
}

impl Labels {
    pub(super) fn new(pairs: &[(&str, &str)]) -> Self {
        let mut labels = Self::default();
        for (name, value) in pairs {
            labels.push(name, value);
        }
        labels
    }

    fn push(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(name);
        self.0.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                other => self.0.push(other),
            }
        }
        self.0.push('"');
    }

    /// These and more.
    pub(super) fn and(&self, pairs: &[(&str, &str)]) -> Self {
        let mut labels = self.clone();
        for (name, value) in pairs {
            labels.push(name, value);
        }
        labels
    }
}

impl Exposition {
    /// `help` is one line without a backslash.
    pub(super) fn family(
        &mut self,
        name: &'static str,
        kind: Kind,
        help: &'static str,
    ) -> Family<'_> {
        Family {
            text: &mut self.text,
            name,
            kind,
            help,
            is_begun: false,
        }
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

impl Family<'_> {
    /// A sample that was taken at a time of its own.
    pub(super) fn at(&mut self, labels: &Labels, value: Value, at: Timestamp) {
        self.write(labels, value, Some(at));
    }

    /// A sample that is about now.
    pub(super) fn now(&mut self, labels: &Labels, value: Value) {
        self.write(labels, value, None);
    }

    fn write(&mut self, Labels(labels): &Labels, value: Value, at: Option<Timestamp>) {
        let name = self.name;
        if !self.is_begun {
            self.is_begun = true;
            self.text.push_str("# HELP ");
            self.text.push_str(name);
            self.text.push(' ');
            self.text.push_str(self.help);
            self.text.push_str("\n# TYPE ");
            self.text.push_str(name);
            self.text.push_str(match self.kind {
                Kind::Counter => " counter\n",
                Kind::Gauge => " gauge\n",
            });
        }
        self.text.push_str(name);
        if !labels.is_empty() {
            self.text.push('{');
            self.text.push_str(labels);
            self.text.push('}');
        }
        // Writing to a string cannot fail.
        let _ = match value {
            Value::Count(count) => write!(self.text, " {count}"),
            Value::Time(time) => self.seconds(time),
        };
        if let Some(at) = at {
            let _ = write!(self.text, " {}", at.as_millisecond());
        }
        self.text.push('\n');
    }

    fn seconds(&mut self, time: Duration) -> std::fmt::Result {
        let (whole, fraction) = (time.as_secs(), time.subsec_nanos());
        if fraction == 0 {
            return write!(self.text, " {whole}");
        }
        let digits = format!("{fraction:09}");
        write!(self.text, " {whole}.{}", digits.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> Timestamp {
        Timestamp::from_millisecond(1_795_284_940_656).unwrap()
    }

    #[test]
    fn families_have_one_head_and_their_samples() {
        let mut text = Exposition::default();
        let mut family = text.family("cpu_seconds_total", Kind::Counter, "CPU time");
        let labels = Labels::new(&[("pod", "web")]);
        family.at(&labels, Value::Time(Duration::from_micros(1_500_001)), at());
        let more = labels.and(&[("interface", "eth0")]);
        family.now(&more, Value::Time(Duration::from_secs(3)));
        let mut family = text.family("error", Kind::Gauge, "Whether it failed");
        family.now(&Labels::default(), Value::Count(u64::MAX));
        insta::assert_snapshot!(text.finish(), @r#"
        # HELP cpu_seconds_total CPU time
        # TYPE cpu_seconds_total counter
        cpu_seconds_total{pod="web"} 1.500001 1795284940656
        cpu_seconds_total{pod="web",interface="eth0"} 3
        # HELP error Whether it failed
        # TYPE error gauge
        error 18446744073709551615
        "#);
    }

    #[test]
    fn a_family_without_samples_is_not_written() {
        let mut text = Exposition::default();
        text.family("none", Kind::Gauge, "Nothing");
        assert_eq!(text.finish(), "");
    }

    #[test]
    fn label_values_cannot_break_out() {
        for (value, escaped) in [
            ("plain", r#"a="plain""#),
            (r#"x"} 1"#, r#"a="x\"} 1""#),
            ("back\\slash", r#"a="back\\slash""#),
            ("new\nline", r#"a="new\nline""#),
            ("", r#"a="""#),
        ] {
            assert_eq!(Labels::new(&[("a", value)]).0, escaped);
        }
    }
}

//! A strict reader of Prometheus' text format: what breaks a rule of the format is an
//! error that names the line.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail, ensure};

pub struct Exposition {
    pub samples: Vec<Sample>,
    /// Family name to type.
    pub types: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
    /// Milliseconds since the epoch.
    pub at: Option<i64>,
}

impl Exposition {
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        ensure!(text.ends_with('\n'), "the last line is not ended");
        let mut parsed = Self {
            samples: Vec::new(),
            types: BTreeMap::new(),
        };
        let mut series = BTreeSet::new();
        let mut current = String::new();
        for line in text.lines() {
            parsed
                .line(line, &mut current, &mut series)
                .with_context(|| format!("line '{line}'"))?;
        }
        Ok(parsed)
    }

    fn line(
        &mut self,
        line: &str,
        current: &mut String,
        series: &mut BTreeSet<String>,
    ) -> anyhow::Result<()> {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').context("no type")?;
            let kinds = ["counter", "gauge", "histogram", "summary", "untyped"];
            ensure!(kinds.contains(&kind), "unknown type");
            ensure!(is_name(name), "bad name");
            let before = self.types.insert(name.to_owned(), kind.to_owned());
            ensure!(before.is_none(), "a second type");
            name.clone_into(current);
            return Ok(());
        }
        if line.starts_with('#') {
            return Ok(());
        }
        let sample = sample(line)?;
        let suffixes = ["", "_bucket", "_sum", "_count"];
        let belongs = suffixes
            .iter()
            .any(|suffix| sample.name == format!("{current}{suffix}"));
        ensure!(belongs, "not below its type, but below {current}'s");
        let identity = format!("{}{:?}", sample.name, sample.labels);
        ensure!(series.insert(identity), "a second sample of its series");
        if self.types[current.as_str()] == "counter" {
            ensure!(sample.value >= 0.0, "a negative counter");
        }
        self.samples.push(sample);
        Ok(())
    }

    /// The samples of this name that have these labels.
    pub fn find<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            let has = |(label, value): &(&str, &str)| {
                sample.labels.get(*label).map(String::as_str) == Some(*value)
            };
            sample.name == name && labels.iter().all(has)
        })
    }
}

fn sample(line: &str) -> anyhow::Result<Sample> {
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, mut rest) = line.split_at(end);
    ensure!(is_name(name), "bad name");
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = read_labels(inside, &mut labels)?;
    }
    let mut words = rest
        .strip_prefix(' ')
        .context("no space before the value")?
        .split(' ');
    let value: f64 = words.next().context("no value")?.parse()?;
    ensure!(!value.is_nan(), "no number");
    let at = words.next().map(str::parse).transpose()?;
    ensure!(words.next().is_none(), "something after the time stamp");
    Ok(Sample {
        name: name.to_owned(),
        labels,
        value,
        at,
    })
}

/// Reads `name="value",…}` and gives what comes after.
fn read_labels<'a>(
    mut text: &'a str,
    labels: &mut BTreeMap<String, String>,
) -> anyhow::Result<&'a str> {
    loop {
        if let Some(rest) = text.strip_prefix('}') {
            return Ok(rest);
        }
        let (name, rest) = text.split_once("=\"").context("no label")?;
        ensure!(
            is_name(name) && !name.contains(':'),
            "bad label name {name}"
        );
        let (value, rest) = read_value(rest)?;
        ensure!(
            labels.insert(name.to_owned(), value).is_none(),
            "label {name} twice"
        );
        text = rest;
        if let Some(rest) = text.strip_prefix(',') {
            text = rest;
        } else {
            ensure!(text.starts_with('}'), "labels do not end");
        }
    }
}

fn read_value(text: &str) -> anyhow::Result<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[place + 1..])),
            '\\' => match characters.next().map(|(_, character)| character) {
                Some('n') => value.push('\n'),
                Some(escaped @ ('\\' | '"')) => value.push(escaped),
                other => bail!("bad escape {other:?}"),
            },
            other => value.push(other),
        }
    }
    bail!("a label value does not end")
}

fn is_name(text: &str) -> bool {
    let may = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.starts_with(|c: char| may(c) && !c.is_ascii_digit()) && text.chars().all(may)
}

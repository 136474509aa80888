//! A query of the node's logs: read, checked, and turned into journalctl's
//! arguments. Pure.

use jiff::Timestamp;

#[cfg(test)]
mod tests;

/// Services that one query may name.
const MAX_SERVICES: usize = 4;
/// Characters of a service's name.
const MAX_SERVICE_LENGTH: usize = 256;
const MAX_LINES: i64 = 100_000;

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum NodeLogQuery {
    /// The file of this path below the log directory.
    File(String),
    /// At least one service, by name.
    Services(Vec<String>, JournalOptions),
}

/// Which entries of the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct JournalOptions {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    lines: Option<i64>,
    /// 0: since the last boot; -1: during the one before.
    boot: Option<i64>,
    pattern: Option<String>,
}

/// A query that is not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadQuery {
    /// A value is not of its type. The texts say which.
    #[error("{}", listed(.0))]
    Undecodable(Vec<String>),
    /// Values out of range, or that do not go together.
    #[error("{}", listed(.0))]
    NotAcceptable(Vec<String>),
}

fn listed(texts: &[String]) -> String {
    match texts {
        [only] => only.clone(),
        all => format!("[{}]", all.join(", ")),
    }
}

/// Reads the pairs of a query; `None` if they ask for nothing that is known
/// here, so that the path counts.
pub(super) fn parse(pairs: &[(String, String)]) -> Result<Option<NodeLogQuery>, BadQuery> {
    let mut problems = Vec::new();
    let asked: Vec<&str> = pairs
        .iter()
        .filter(|(name, _)| name == "query")
        .map(|(_, value)| value.as_str())
        .filter(|value| !value.trim().is_empty())
        .collect();
    if asked.is_empty() && pairs.iter().any(|(name, _)| name == "query") {
        problems.push("query: Invalid value: may not be empty".to_owned());
    }
    let mut values = Values {
        pairs,
        problems: &mut problems,
    };
    let options = JournalOptions {
        since: values.read("sinceTime", "invalid time format"),
        until: values.read("untilTime", "invalid time format"),
        lines: values.read("tailLines", "invalid number"),
        boot: values.read("boot", "invalid number"),
        pattern: values.read("pattern", ""),
    };
    if !problems.is_empty() {
        return Err(BadQuery::Undecodable(problems));
    }
    if asked.is_empty() && options == JournalOptions::default() {
        return Ok(None);
    }
    check(&asked, options).map(Some)
}

/// The values of a query that are given and not empty.
struct Values<'a> {
    pairs: &'a [(String, String)],
    problems: &'a mut Vec<String>,
}

impl Values<'_> {
    fn read<T: std::str::FromStr>(&mut self, name: &str, problem: &str) -> Option<T> {
        let (_, value) = self.pairs.iter().find(|(key, _)| key == name)?;
        if value.is_empty() {
            return None;
        }
        let read = value.parse().ok();
        if read.is_none() {
            self.problems
                .push(format!("{name}: Invalid value: {value:?}: {problem}"));
        }
        read
    }
}

/// Whether a value names a file; a backslash is a slash for callers on Windows.
fn names_file(value: &str) -> bool {
    value.contains(['/', '\\'])
}

fn check(asked: &[&str], options: JournalOptions) -> Result<NodeLogQuery, BadQuery> {
    let (files, services): (Vec<&str>, Vec<&str>) =
        asked.iter().partition(|value| names_file(value));
    let mut problems = problems_of_services(&services);
    let mut query = |problem: &str| problems.push(format!("query: Invalid value: {problem}"));
    match (files.as_slice(), services.as_slice()) {
        ([], []) => problems.push("query: Required value: cannot be empty with options".to_owned()),
        ([_, ..], [_, ..]) => query("cannot specify a file and service"),
        ([_, _, ..], []) => query("cannot specify more than one file"),
        ([_], []) if options != JournalOptions::default() => {
            query("cannot specify file with options");
        }
        _ => {}
    }
    problems.extend(options.problems());
    if !problems.is_empty() {
        return Err(BadQuery::NotAcceptable(problems));
    }
    Ok(match files.first() {
        Some(file) => NodeLogQuery::File(file.replace('\\', "/")),
        None => NodeLogQuery::Services(services.into_iter().map(str::to_owned).collect(), options),
    })
}

fn problems_of_services(services: &[&str]) -> Vec<String> {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:@".contains(&byte);
    let mut problems: Vec<_> = services
        .iter()
        .filter_map(|service| {
            let problem = if service.len() > MAX_SERVICE_LENGTH {
                "length must be less than 256"
            } else if !service.bytes().all(is_safe) {
                "input contains unsupported characters"
            } else {
                return None;
            };
            Some(format!("query: Invalid value: {service:?}: {problem}"))
        })
        .collect();
    if services.len() > MAX_SERVICES {
        problems.push(format!(
            "query: Too many: {}: must have at most {MAX_SERVICES} items",
            services.len()
        ));
    }
    problems
}

impl JournalOptions {
    pub(super) fn are_given(&self) -> bool {
        *self != Self::default()
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since > until
        {
            problems.push("untilTime: Invalid value: must be after `sinceTime`".to_owned());
        }
        if let Some(boot) = self.boot.filter(|boot| *boot > 0) {
            problems.push(format!("boot: Invalid value: {boot}: must be less than 1"));
        }
        if let Some(lines) = self.lines.filter(|lines| !(0..=MAX_LINES).contains(lines)) {
            problems.push(format!(
                "tailLines: Invalid value: {lines}: must be between 0 and {MAX_LINES}, inclusive"
            ));
        }
        if let Some(pattern) = &self.pattern
            && let Err(error) = regex_syntax::parse(pattern)
        {
            problems.push(format!("pattern: Invalid value: {pattern:?}: {error}"));
        }
        problems
    }

    /// journalctl's arguments for these services.
    pub(super) fn arguments(&self, services: &[String]) -> Vec<String> {
        let time = |time: Timestamp| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
        let mut arguments: Vec<String> = ["--utc", "--no-pager", "--output=short-precise"]
            .map(str::to_owned)
            .into();
        let mut add = |name: &str, value: Option<String>| {
            arguments.extend(value.map(|value| format!("--{name}={value}")));
        };
        add("since", self.since.map(time));
        add("until", self.until.map(time));
        add("lines", self.lines.map(|lines| lines.to_string()));
        for service in services {
            add("unit", Some(service.clone()));
        }
        add("grep", self.pattern.clone());
        add("boot", self.boot.map(|boot| boot.to_string()));
        arguments
    }
}

//! Flags that set fields of a configuration file, as one more layer of configuration.
//!
//! Input: what the command line says, as text. Output: a [`Node`] tree in which every
//! value's origin is its flag; whether the value suits the field is decided where that is
//! decided for files, too.

mod proxy;
mod table;

use std::sync::Arc;

use clap::builder::ArgAction;
use clap::{Arg, ArgMatches, Command};

use super::document::{Node, Value};
use super::error::{ConfigError, ConfigWarning, Origin, Problem};
/// How a flag's text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `--flag`, `--flag=true`, `--flag=false`.
    Bool,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// Anything.
    Text,
    /// An IP address, or nothing, which leaves the field unset.
    Ip,
    /// `a,b`; repeating the flag appends.
    List,
    /// `key=value,…`; replaces the file's map, repeating the flag adds.
    Map,
    /// `signal<value,…`; likewise.
    Thresholds,
    /// `Gate=true,…`; adds to the file's map.
    Gates,
    /// `name:value,…`, names may repeat.
    Headers,
    /// `key=value:Effect,…`.
    Taints,
    /// `node:type=quantity,…;…`.
    Numa,
    /// `pattern=level,…`.
    Modules,
}

/// A flag that sets a field.
struct FieldFlag {
    /// Without dashes.
    name: &'static str,
    /// Dotted path of the field.
    field: &'static str,
    form: Form,
}

const fn flag(name: &'static str, field: &'static str, form: Form) -> FieldFlag {
    FieldFlag { name, field, form }
}

/// The flags of one command.
pub(super) struct FlagTable {
    fields: &'static [FieldFlag],
    fields_heading: &'static str,
    /// Flags that do nothing.
    ignored: &'static [&'static str],
    /// Those of `ignored` that take no value, or `true` or `false`.
    ignored_bools: &'static [&'static str],
    /// Flags that exist no more, with what to do about them.
    removed: &'static [(&'static str, &'static str)],
}

/// Flags of the agent.
pub(super) const KUBELET: FlagTable = FlagTable {
    fields: table::FIELD_FLAGS,
    fields_heading: "Configuration file fields (a flag wins over the file)",
    ignored: table::IGNORED,
    ignored_bools: table::IGNORED_BOOLS,
    removed: table::REMOVED,
};

/// Flags of the service proxy when it runs alone.
pub(super) const PROXY: FlagTable = FlagTable {
    fields: proxy::FIELD_FLAGS,
    fields_heading: "Configuration file fields (ignored with --config, but for logging)",
    ignored: &[],
    ignored_bools: &[],
    removed: proxy::REMOVED,
};

const IGNORED_HEADING: &str = "Accepted and ignored";

impl FlagTable {
    /// Adds every flag of the table to a command.
    pub(super) fn add_to(&self, command: Command) -> Command {
        let command = self.fields.iter().fold(command, |command, flag| {
            let arg = value_arg(flag.name, flag.form == Form::Bool)
                .help(format!("Set {}", flag.field))
                .help_heading(self.fields_heading)
                .hide_short_help(true);
            command.arg(match flag.name {
                "v" => arg.short('v'),
                _ => arg,
            })
        });
        let command = self.ignored.iter().fold(command, |command, name| {
            command.arg(
                value_arg(name, self.ignored_bools.contains(name))
                    .help_heading(IGNORED_HEADING)
                    .hide_short_help(true),
            )
        });
        self.removed.iter().fold(command, |command, (name, _)| {
            command.arg(
                Arg::new(*name)
                    .long(*name)
                    .hide(true)
                    .num_args(0..=1)
                    .default_missing_value("")
                    .action(ArgAction::Append),
            )
        })
    }

    /// The first flag given that no longer exists, with advice.
    pub(super) fn removed(&self, matches: &ArgMatches) -> Option<(&'static str, &'static str)> {
        self.removed
            .iter()
            .find(|(name, _)| matches.contains_id(name))
            .copied()
    }

    /// A warning for each flag given that does nothing.
    pub(super) fn ignored(&self, matches: &ArgMatches) -> Vec<ConfigWarning> {
        self.ignored
            .iter()
            .filter(|name| matches.contains_id(name))
            .map(|name| ConfigWarning {
                origin: origin(name),
                field: String::new(),
                message: "is accepted and has no effect".to_owned(),
            })
            .collect()
    }

    /// Reads the flags that were given.
    pub(super) fn values(
        &self,
        matches: &ArgMatches,
        errors: &mut Vec<ConfigError>,
    ) -> Vec<FlagValue> {
        self.fields
            .iter()
            .filter_map(|flag| {
                let given: Vec<&str> = matches
                    .get_many::<String>(flag.name)?
                    .map(String::as_str)
                    .collect();
                let origin = origin(flag.name);
                match read(flag.form, &given, &origin) {
                    Ok(value) => Some(FlagValue {
                        field: flag.field,
                        node: Node { origin, value },
                        merge: flag.form == Form::Gates,
                    }),
                    Err(why) => {
                        errors.push(unreadable(flag, origin, why));
                        None
                    }
                }
            })
            .collect()
    }
}

/// A flag that may be repeated and takes a value; a boolean one only after `=`.
fn value_arg(name: &'static str, boolean: bool) -> Arg {
    let arg = Arg::new(name).long(name).action(ArgAction::Append);
    if boolean {
        arg.num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_name("BOOL")
    } else {
        arg.num_args(1)
            .allow_negative_numbers(true)
            .value_name("VALUE")
    }
}

/// The origin of values given by flag `name`.
pub(super) fn origin(name: &str) -> Origin {
    Origin::Flag(Arc::from(format!("--{name}")))
}

/// A value some flags give to a field.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FlagValue {
    field: &'static str,
    node: Node,
    /// Lay the value over the file's instead of replacing it.
    merge: bool,
}

impl FlagValue {
    /// Dotted path of the field.
    pub(super) fn field(&self) -> &'static str {
        self.field
    }

    /// The flag.
    pub(super) fn origin(&self) -> &Origin {
        &self.node.origin
    }
}

fn unreadable(flag: &FieldFlag, origin: Origin, why: String) -> ConfigError {
    ConfigError {
        origin,
        field: flag.field.to_owned(),
        problem: Problem::Invalid(why),
    }
}

/// Lays flags over files.
pub(super) fn apply<'a>(values: impl IntoIterator<Item = &'a FlagValue>, tree: &mut Node) {
    for FlagValue { field, node, merge } in values {
        if *merge {
            let mut layer = Node::empty_map(node.origin.clone());
            layer.set(field, node.clone());
            tree.merge(layer);
        } else {
            tree.set(field, node.clone());
        }
    }
}

/// Turns all occurrences of a flag into one value.
fn read(form: Form, given: &[&str], origin: &Origin) -> Result<Value, String> {
    let last = given.last().copied().unwrap_or_default();
    let parts = || {
        given
            .iter()
            .flat_map(|text| text.split(','))
            .map(str::trim)
            .filter(|part| !part.is_empty())
    };
    match form {
        Form::Bool => Ok(parse_bool(last)),
        Form::Integer => Ok(last.parse().map_or_else(|_| text(last), Value::Integer)),
        Form::Number => Ok(last.parse().map_or_else(|_| text(last), Value::Float)),
        Form::Text => Ok(text(last)),
        Form::Ip if last.is_empty() => Ok(Value::Null),
        Form::Ip => Ok(text(last)),
        Form::List => Ok(list(parts().map(text), origin)),
        Form::Map => map(parts(), '=', text, origin),
        Form::Thresholds => map(parts(), '<', text, origin),
        Form::Gates => map(parts(), '=', parse_bool, origin),
        Form::Headers => headers(parts(), origin),
        // Unlike lists, a repeated flag replaces.
        Form::Taints => last
            .split(',')
            .filter(|taint| !taint.is_empty())
            .map(|taint| parse_taint(taint, origin))
            .collect::<Result<Vec<_>, _>>()
            .map(|taints| list(taints, origin)),
        Form::Numa => given
            .iter()
            .flat_map(|text| text.split(';'))
            .filter(|part| !part.is_empty())
            .map(|part| parse_numa(part, origin))
            .collect::<Result<Vec<_>, _>>()
            .map(|nodes| list(nodes, origin)),
        Form::Modules => parts()
            .map(|part| parse_module(part, origin))
            .collect::<Result<Vec<_>, _>>()
            .map(|modules| list(modules, origin)),
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// A boolean as Go spells it; other text stays text, for the field to refuse.
fn parse_bool(given: &str) -> Value {
    match given {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Value::Bool(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Value::Bool(false),
        other => text(other),
    }
}

fn list(values: impl IntoIterator<Item = Value>, origin: &Origin) -> Value {
    let node = |value| Node {
        origin: origin.clone(),
        value,
    };
    Value::List(values.into_iter().map(node).collect())
}

fn object<'a>(members: impl IntoIterator<Item = (&'a str, Value)>, origin: &Origin) -> Value {
    let mut object = Node::empty_map(origin.clone());
    for (key, value) in members {
        let origin = origin.clone();
        object.insert(key, Node { origin, value });
    }
    object.value
}

fn map<'a>(
    parts: impl Iterator<Item = &'a str>,
    separator: char,
    value: impl Fn(&str) -> Value,
    origin: &Origin,
) -> Result<Value, String> {
    let members = parts
        .map(|part| {
            let (key, given) = part
                .split_once(separator)
                .ok_or_else(|| format!("expected name{separator}value, found {part:?}"))?;
            Ok((key.trim(), value(given.trim())))
        })
        .collect::<Result<Vec<_>, String>>()?;
    Ok(object(members, origin))
}

fn headers<'a>(parts: impl Iterator<Item = &'a str>, origin: &Origin) -> Result<Value, String> {
    let mut by_name: Vec<(&str, Vec<Value>)> = Vec::new();
    for part in parts {
        let (name, value) = part
            .split_once(':')
            .ok_or_else(|| format!("expected name:value, found {part:?}"))?;
        let (name, value) = (name.trim(), text(value.trim()));
        match by_name.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => by_name.push((name, vec![value])),
        }
    }
    let members = by_name
        .into_iter()
        .map(|(name, values)| (name, list(values, origin)));
    Ok(object(members, origin))
}

/// `key=value:Effect` or `key:Effect`.
fn parse_taint(taint: &str, origin: &Origin) -> Result<Value, String> {
    let (pair, effect) = taint
        .rsplit_once(':')
        .ok_or_else(|| format!("expected key=value:Effect, found {taint:?}"))?;
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    let members = [("key", key), ("value", value), ("effect", effect)];
    Ok(object(
        members.map(|(key, value)| (key, text(value))),
        origin,
    ))
}

/// `0:memory=1Gi,hugepages-1M=2Gi`.
fn parse_numa(part: &str, origin: &Origin) -> Result<Value, String> {
    let malformed = || format!("expected node:type=quantity,…, found {part:?}");
    let (node, limits) = part.split_once(':').ok_or_else(malformed)?;
    let node = node.trim().parse().map_err(|_| malformed())?;
    let limits = map(limits.split(','), '=', text, origin)?;
    Ok(object(
        [("numaNode", Value::Integer(node)), ("limits", limits)],
        origin,
    ))
}

/// `pattern=level`.
fn parse_module(part: &str, origin: &Origin) -> Result<Value, String> {
    let malformed = || format!("expected pattern=level, found {part:?}");
    let (pattern, level) = part.split_once('=').ok_or_else(malformed)?;
    let level = level.parse().map_err(|_| malformed())?;
    Ok(object(
        [
            ("filePattern", text(pattern)),
            ("verbosity", Value::Integer(level)),
        ],
        origin,
    ))
}

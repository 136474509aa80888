//! The architecture, as a test: what each module may touch and whom it may use.
//!
//! The table below is the one in `docs/architecture.md`, which is compared with
//! it. Every source file's paths are read with `syn`; code under `#[cfg(test)]`,
//! sibling `tests` files and fakes are free.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// Powers that a module may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Power {
    /// tokio, futures, async.
    Async,
    /// Reading a clock.
    Clock,
    /// Files, mounts, inotify.
    Files,
    /// Starting processes.
    Exec,
    /// Sockets.
    Network,
    /// `kube::Client` and everything else of `kube`.
    Kube,
    /// CRI and containerd protobuf types.
    Cri,
}

use Power::{Async, Clock, Cri, Exec, Files, Kube, Network};

struct Rule {
    /// Module path below `src`, e.g. `node::status`; the longest match counts.
    module: &'static str,
    powers: &'static [Power],
    /// Modules of this crate that it may use, besides itself and `error`.
    uses: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule {
        module: "pod",
        powers: &[],
        uses: &[],
    },
    Rule {
        module: "config",
        powers: &[Files],
        uses: &["pod"],
    },
    Rule {
        module: "certificate",
        powers: &[Files],
        uses: &[],
    },
    Rule {
        module: "apiserver",
        powers: &[Async, Clock, Files, Network, Kube],
        uses: &["certificate", "pod", "config"],
    },
    Rule {
        module: "source",
        powers: &[Async, Clock, Files],
        uses: &["pod", "apiserver", "proxy"],
    },
    Rule {
        module: "source::merge",
        powers: &[],
        uses: &["pod", "apiserver"],
    },
    Rule {
        module: "runtime",
        powers: &[Async, Clock, Files, Network, Cri],
        uses: &["pod", "config"],
    },
    Rule {
        module: "runtime::image::plugin",
        powers: &[Async, Files, Exec],
        uses: &["pod", "config"],
    },
    Rule {
        module: "volume",
        powers: &[Async, Clock, Files],
        uses: &["pod", "apiserver"],
    },
    Rule {
        module: "volume::plan",
        powers: &[],
        uses: &["pod"],
    },
    Rule {
        module: "cgroup",
        powers: &[Async, Files],
        uses: &["pod"],
    },
    Rule {
        module: "worker",
        powers: &[Async],
        uses: &["pod", "runtime", "volume", "cgroup", "status", "apiserver"],
    },
    Rule {
        module: "worker::handler",
        powers: &[Async, Network],
        uses: &["pod"],
    },
    Rule {
        module: "worker::handler::grpc",
        powers: &[Async, Network, Cri],
        uses: &[],
    },
    Rule {
        module: "worker::haste",
        powers: &[Async, Clock],
        uses: &[],
    },
    Rule {
        module: "worker::heartbeat",
        powers: &[Async, Clock],
        uses: &[],
    },
    Rule {
        module: "worker::memory",
        powers: &[],
        uses: &["pod"],
    },
    Rule {
        module: "worker::probe",
        powers: &[Async, Clock],
        uses: &["pod", "runtime"],
    },
    Rule {
        module: "status",
        powers: &[Async, Clock],
        uses: &["pod", "apiserver"],
    },
    Rule {
        module: "status::merge",
        powers: &[],
        uses: &["pod"],
    },
    Rule {
        module: "status::pace",
        powers: &[],
        uses: &[],
    },
    Rule {
        module: "status::patch",
        powers: &[],
        uses: &["pod"],
    },
    Rule {
        module: "status::mirror",
        powers: &[],
        uses: &["pod"],
    },
    Rule {
        module: "node",
        powers: &[Async, Clock, Files, Network],
        uses: &["pod", "apiserver", "runtime"],
    },
    Rule {
        module: "node::status",
        powers: &[],
        uses: &["pod", "runtime"],
    },
    Rule {
        module: "node::registration",
        powers: &[],
        uses: &["pod"],
    },
    Rule {
        module: "stats",
        powers: &[Async, Clock, Files],
        uses: &["cgroup", "pod", "runtime"],
    },
    Rule {
        module: "listen",
        powers: &[Async, Network],
        uses: &[],
    },
    Rule {
        module: "proxy",
        powers: &[],
        uses: &[],
    },
    Rule {
        module: "proxy::conntrack",
        powers: &[Async, Network],
        uses: &[],
    },
    Rule {
        module: "proxy::limits",
        powers: &[Files],
        uses: &[],
    },
    Rule {
        module: "proxy::apply",
        powers: &[Async, Clock, Files, Network, Exec],
        uses: &[],
    },
    Rule {
        module: "proxy::health",
        powers: &[Async, Clock, Network],
        uses: &["apiserver", "listen", "pod"],
    },
    Rule {
        module: "proxy::presence",
        powers: &[],
        uses: &["apiserver", "pod"],
    },
    Rule {
        module: "proxy::inbox",
        powers: &[Async],
        uses: &["apiserver"],
    },
    Rule {
        module: "proxy::task",
        powers: &[Async, Clock],
        uses: &["apiserver", "pod"],
    },
    Rule {
        module: "server",
        powers: &[Async, Clock, Files, Network],
        uses: &[
            "apiserver",
            "certificate",
            "config",
            "pod",
            "runtime",
            "stats",
            "status",
            "worker",
        ],
    },
    Rule {
        module: "server::api::node_logs",
        powers: &[Async, Clock, Files, Network, Exec],
        uses: &[],
    },
    Rule {
        module: "agent",
        powers: &[Async, Clock, Files, Network],
        uses: &[
            "apiserver",
            "certificate",
            "cgroup",
            "config",
            "listen",
            "node",
            "pod",
            "proxy",
            "runtime",
            "server",
            "source",
            "stats",
            "status",
            "volume",
            "worker",
        ],
    },
    Rule {
        module: "error",
        powers: &[],
        uses: &[],
    },
];

#[test]
fn every_module_keeps_to_its_layer() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut complaints = Vec::new();
    let mut seen = BTreeSet::new();
    for file in rust_files(&src) {
        let Some(module) = module_of(&src, &file) else {
            continue;
        };
        let Some(rule) = rule_for(&module) else {
            complaints.push(format!("{module}: no rule in tests/layers.rs"));
            continue;
        };
        seen.insert(rule.module);
        let text = fs::read_to_string(&file).expect("source file is readable");
        let syntax = syn::parse_file(&text).expect("source file parses");
        let mut paths = Paths::default();
        paths.visit_file(&syntax);
        complaints.extend(
            paths
                .found
                .iter()
                .filter_map(|path| complain(&module, rule, path)),
        );
    }
    for rule in RULES {
        if !seen.contains(rule.module) {
            complaints.push(format!(
                "{}: a rule for a module that does not exist",
                rule.module
            ));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn the_architecture_document_has_the_same_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let text = fs::read_to_string(path).expect("document is readable");
    let documented: Vec<String> = text
        .lines()
        .skip_while(|line| *line != "| Module | Powers | Uses |")
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(str::to_owned)
        .collect();
    let cell = |text: &str| {
        if text.is_empty() {
            " |".to_owned()
        } else {
            format!(" {text} |")
        }
    };
    let rules: Vec<String> = RULES
        .iter()
        .map(|rule| {
            let powers: Vec<_> = rule.powers.iter().map(|p| format!("{p:?}")).collect();
            let (powers, uses) = (cell(&powers.join(", ")), cell(&rule.uses.join(", ")));
            format!("| `{}` |{powers}{uses}", rule.module)
        })
        .collect();
    assert_eq!(documented, rules);
}

#[test]
fn every_module_says_what_it_is_for() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let silent: Vec<_> = rust_files(&src)
        .into_iter()
        .filter(|file| !file.ends_with("tests.rs"))
        .filter(|file| {
            !fs::read_to_string(file)
                .expect("readable")
                .starts_with("//!")
        })
        .collect();
    assert!(silent.is_empty(), "no `//!` at the top of {silent:?}");
}

#[test]
fn errors_are_shown_whole() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut bad = Vec::new();
    for file in rust_files(&src) {
        let text = fs::read_to_string(&file).expect("readable");
        for (number, line) in text.lines().enumerate() {
            let logs = [
                "%err,",
                "%err)",
                "= %error,",
                "= %error)",
                "?err)",
                "?error)",
            ];
            if logs.iter().any(|pattern| line.contains(pattern)) && !line.contains("panic") {
                bad.push(format!(
                    "{}:{}: {}",
                    file.display(),
                    number + 1,
                    line.trim()
                ));
            }
        }
    }
    assert!(
        bad.is_empty(),
        "log errors with error::chain:\n{}",
        bad.join("\n")
    );
}

/// A complaint about one path used in `module`, if it breaks the rule.
fn complain(module: &str, rule: &Rule, path: &[String]) -> Option<String> {
    let shown = path.join("::");
    let first = path.first()?.as_str();
    if first == "crate" {
        let target = path.get(1)?.as_str();
        let own = module.split("::").next()?;
        let macro_or_root = !target.chars().next()?.is_lowercase();
        if target == own || target == "error" || macro_or_root || rule.uses.contains(&target) {
            return None;
        }
        return Some(format!("{module}: may not use crate::{target} ({shown})"));
    }
    let needed = power_of(path)?;
    (!rule.powers.contains(&needed)).then(|| format!("{module}: has no power {needed:?} ({shown})"))
}

/// The power that using this path takes.
fn power_of(path: &[String]) -> Option<Power> {
    let parts: Vec<&str> = path.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["tokio", "fs", ..] | ["std", "fs", ..] | ["inotify" | "procfs" | "walkdir", ..] => {
            Some(Files)
        }
        ["nix", "mount" | "unistd" | "fcntl", ..] => Some(Files),
        ["tokio" | "std", "process", "Command", ..] => Some(Exec),
        ["std" | "tokio", "net", kind, ..]
            if kind.starts_with("Tcp") || kind.starts_with("Udp") || kind.starts_with("Unix") =>
        {
            Some(Network)
        }
        ["axum" | "hyper" | "hyper_util" | "netlink_sys", ..] => Some(Network),
        [
            "tokio" | "tokio_util" | "tokio_stream" | "futures" | "async_trait",
            ..,
        ] => Some(Async),
        [.., "Timestamp" | "Zoned" | "SystemTime" | "Instant", "now"] => Some(Clock),
        ["kube", _, ..] => Some(Kube),
        ["tonic" | "prost" | "containerd_client", ..] => Some(Cri),
        _ => None,
    }
}

/// All paths in a file, `use` trees spelled out.
#[derive(Default)]
struct Paths {
    found: BTreeSet<Vec<String>>,
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !only_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !only_for_tests(&item.attrs) {
            flatten(&item.tree, &mut Vec::new(), &mut self.found);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if !only_for_tests(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.found
            .insert(path.segments.iter().map(|s| s.ident.to_string()).collect());
        visit::visit_path(self, path);
    }
}

fn only_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let text = attribute
            .meta
            .require_list()
            .map(|list| list.tokens.to_string())
            .unwrap_or_default();
        attribute.path().is_ident("cfg") && (text.contains("test") || text.contains("doc"))
    })
}

fn flatten(tree: &syn::UseTree, prefix: &mut Vec<String>, out: &mut BTreeSet<Vec<String>>) {
    match tree {
        syn::UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            flatten(&path.tree, prefix, out);
            prefix.pop();
        }
        syn::UseTree::Group(group) => {
            for tree in &group.items {
                flatten(tree, prefix, out);
            }
        }
        syn::UseTree::Name(name) => {
            let mut path = prefix.clone();
            path.push(name.ident.to_string());
            out.insert(path);
        }
        syn::UseTree::Rename(rename) => {
            let mut path = prefix.clone();
            path.push(rename.ident.to_string());
            out.insert(path);
        }
        syn::UseTree::Glob(_) => {
            out.insert(prefix.clone());
        }
    }
}

/// `node::status::conditions` for `src/node/status/conditions.rs`; `None` for
/// the crate's own roots and for test code.
fn module_of(src: &Path, file: &Path) -> Option<String> {
    let relative = file.strip_prefix(src).ok()?.with_extension("");
    let parts: Vec<String> = relative
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .filter(|part| part != "mod")
        .collect();
    let free = parts.iter().any(|part| {
        part == "tests" || part.ends_with("_tests") || part.starts_with("fake") || part == "testing"
    });
    let root = parts == ["lib"] || parts == ["main"];
    (!free && !root).then(|| parts.join("::"))
}

fn rule_for(module: &str) -> Option<&'static Rule> {
    RULES
        .iter()
        .filter(|rule| module == rule.module || module.starts_with(&format!("{}::", rule.module)))
        .max_by_key(|rule| rule.module.len())
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("source directory is readable") {
        let path = entry.expect("entry is readable").path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

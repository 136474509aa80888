//! `CredentialProviderConfig`: the programs that are asked for registry
//! credentials.
//!
//! In: a file, or a directory of them, and the directory of the programs. Out:
//! the providers in order, or what is wrong with the files. The programs
//! themselves are looked at when they are needed: one that is missing harms
//! nothing but the pulls that need it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::document;
use super::duration::{GoDuration, as_go_string};
use super::error::{ConfigError, Problem};
use super::flags;

const KIND: &str = "CredentialProviderConfig";
const CONFIG_GROUP: &str = "kubelet.config.k8s.io";
const PROTOCOL_GROUP: &str = "credentialprovider.kubelet.k8s.io";
/// Of both groups.
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];
const FLAG: &str = "image-credential-provider-config";
const DIRECTORY_FLAG: &str = "image-credential-provider-bin-dir";

/// A program that is asked for registry credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CredentialProvider {
    /// The program's file name.
    pub name: String,
    /// Where it is.
    pub directory: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Added to its environment. May hold secrets.
    #[serde(skip)]
    pub env: Vec<(String, String)>,
    /// Patterns of the images it is asked about.
    pub match_images: Vec<String>,
    /// How long an answer is good that does not say so itself.
    #[serde(serialize_with = "as_go_string")]
    pub default_cache: Duration,
    /// Version of the protocol it speaks.
    pub api_version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    kind: String,
    api_version: String,
    #[serde(default)]
    providers: Vec<Provider>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Provider {
    name: String,
    #[serde(default)]
    match_images: Vec<String>,
    default_cache_duration: Option<String>,
    api_version: String,
    #[serde(default)]
    args: Option<Vec<String>>,
    #[serde(default)]
    env: Option<Vec<Variable>>,
    #[serde(default)]
    token_attributes: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variable {
    name: String,
    value: String,
}

/// Reads what the two flags name. Neither: there are no providers.
pub(super) fn load(
    config: Option<&str>,
    directory: Option<&str>,
    errors: &mut Vec<ConfigError>,
) -> Vec<CredentialProvider> {
    let (config, directory) = match (config, directory) {
        (None, None) => return Vec::new(),
        (Some(config), Some(directory)) => (Path::new(config), Path::new(directory)),
        (None, Some(_)) => {
            errors.push(flag_error(DIRECTORY_FLAG, &format!("needs --{FLAG}")));
            return Vec::new();
        }
        (Some(_), None) => {
            errors.push(flag_error(FLAG, &format!("needs --{DIRECTORY_FLAG}")));
            return Vec::new();
        }
    };
    let mut providers: Vec<CredentialProvider> = Vec::new();
    for file in files(config, errors) {
        for provider in read(&file, directory, errors) {
            if providers.iter().any(|known| known.name == provider.name) {
                let why = format!("there is more than one provider {:?}", provider.name);
                errors.push(ConfigError::whole_file(&file, Problem::Invalid(why)));
            }
            providers.push(provider);
        }
    }
    providers
}

fn flag_error(flag: &str, why: &str) -> ConfigError {
    ConfigError {
        origin: flags::origin(flag),
        field: String::new(),
        problem: Problem::Invalid(why.to_owned()),
    }
}

/// The file itself, or those in the directory, by name.
fn files(config: &Path, errors: &mut Vec<ConfigError>) -> Vec<PathBuf> {
    if !config.is_dir() {
        return vec![config.to_owned()];
    }
    let mut files = Vec::new();
    for entry in walkdir::WalkDir::new(config)
        .max_depth(1)
        .sort_by_file_name()
    {
        match entry {
            Ok(entry) => {
                let extension = entry.path().extension().and_then(|e| e.to_str());
                let is_config = matches!(extension, Some("json" | "yaml" | "yml"));
                if is_config && !entry.file_type().is_dir() {
                    files.push(entry.into_path());
                }
            }
            Err(error) => {
                let problem = Problem::Unreadable(error.to_string());
                errors.push(ConfigError::whole_file(config, problem));
            }
        }
    }
    if files.is_empty() && errors.is_empty() {
        let why = "no *.json, *.yaml or *.yml in this directory".to_owned();
        errors.push(ConfigError::whole_file(config, Problem::Invalid(why)));
    }
    files
}

fn read(file: &Path, directory: &Path, errors: &mut Vec<ConfigError>) -> Vec<CredentialProvider> {
    let document = match decode(file) {
        Ok(document) => document,
        Err(problem) => {
            errors.push(ConfigError::whole_file(file, problem));
            return Vec::new();
        }
    };
    let mut providers = Vec::new();
    if document.providers.is_empty() {
        let why = "at least one provider is needed".to_owned();
        errors.push(ConfigError::whole_file(file, Problem::Invalid(why)));
    }
    for (index, provider) in document.providers.into_iter().enumerate() {
        match resolve(provider, directory) {
            Ok(provider) => providers.push(provider),
            Err((field, problem)) => errors.push(ConfigError {
                field: format!("providers[{index}].{field}"),
                ..ConfigError::whole_file(file, problem)
            }),
        }
    }
    providers
}

fn decode(file: &Path) -> Result<Document, Problem> {
    let text = fs::read_to_string(file).map_err(|error| Problem::Unreadable(error.to_string()))?;
    let document: Document = serde_saphyr::from_str(&text)
        .map_err(|error| Problem::Syntax(document::message(&error)))?;
    let is_known = document.kind == KIND && is_version(&document.api_version, CONFIG_GROUP);
    if is_known {
        Ok(document)
    } else {
        Err(Problem::Invalid(format!(
            "expected apiVersion \"{CONFIG_GROUP}/v1\" and kind {KIND:?}, found {:?} and {:?}",
            document.api_version, document.kind
        )))
    }
}

fn is_version(api_version: &str, group: &str) -> bool {
    api_version
        .split_once('/')
        .is_some_and(|(found, version)| found == group && VERSIONS.contains(&version))
}

/// # Errors
/// The field that is wrong, and why.
fn resolve(
    provider: Provider,
    directory: &Path,
) -> Result<CredentialProvider, (&'static str, Problem)> {
    let invalid = |field, why: &str| Err((field, Problem::Invalid(why.to_owned())));
    let name = provider.name;
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', ' ']) {
        return invalid(
            "name",
            "must be the name of a file, without \"/\" and blanks",
        );
    }
    if provider.token_attributes.is_some() {
        let what = "asking with service account tokens".to_owned();
        return Err(("tokenAttributes", Problem::Unsupported(what)));
    }
    if !is_version(&provider.api_version, PROTOCOL_GROUP) {
        return invalid(
            "apiVersion",
            "must be \"credentialprovider.kubelet.k8s.io/v1\"",
        );
    }
    if provider.match_images.is_empty() || provider.match_images.iter().any(|m| !is_pattern(m)) {
        return invalid(
            "matchImages",
            "must be patterns like \"*.registry.example:5000/team\", at least one",
        );
    }
    let Some(cache) = provider.default_cache_duration else {
        return invalid("defaultCacheDuration", "must be set");
    };
    let cache: GoDuration = cache
        .parse()
        .map_err(|error| ("defaultCacheDuration", Problem::Invalid(format!("{error}"))))?;
    if cache.is_negative() {
        return invalid("defaultCacheDuration", "must not be negative");
    }
    let env = provider.env.unwrap_or_default().into_iter();
    Ok(CredentialProvider {
        name,
        directory: directory.to_owned(),
        args: provider.args.unwrap_or_default(),
        env: env
            .map(|variable| (variable.name, variable.value))
            .collect(),
        match_images: provider.match_images,
        default_cache: cache.to_std(),
        api_version: provider.api_version,
    })
}

/// Host, perhaps port, perhaps path.
fn is_pattern(text: &str) -> bool {
    let host = text.split('/').next().unwrap_or_default();
    !host.is_empty() && !text.contains("://") && !text.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
kind: CredentialProviderConfig
apiVersion: kubelet.config.k8s.io/v1
providers:
- name: ecr
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  matchImages: ['*.registry.example:5000/team']
  defaultCacheDuration: 12h
  args: [get]
  env: [{name: A, value: b}]
";

    fn loaded(text: &str) -> (Vec<CredentialProvider>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        fs::write(&file, text).unwrap();
        let mut errors = Vec::new();
        let providers = load(file.to_str(), Some("/plugins"), &mut errors);
        let shown = format!("{}: ", file.display());
        let errors = errors
            .iter()
            .map(|error| error.to_string().replace(&shown, ""));
        (providers, errors.collect())
    }

    #[test]
    fn a_file_of_any_version_is_read() {
        for version in ["v1", "v1beta1", "v1alpha1"] {
            let text = GOOD.replace("io/v1", &format!("io/{version}"));
            let (providers, errors) = loaded(&text);
            assert!(errors.is_empty(), "{errors:?}");
            let [provider] = providers.as_slice() else {
                panic!("{providers:?}");
            };
            assert_eq!(provider.directory, Path::new("/plugins"));
            assert_eq!(provider.default_cache, Duration::from_secs(12 * 3600));
            assert_eq!(provider.env, [("A".to_owned(), "b".to_owned())]);
            assert!(provider.api_version.ends_with(version));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, expected) in [
            ("name: ecr", "name: ../ecr", "providers[0].name: must be"),
            ("12h", "-1s", "providers[0].defaultCacheDuration: must not"),
            ("12h", "soon", "providers[0].defaultCacheDuration: \"soon\""),
            (
                "  defaultCacheDuration: 12h\n",
                "",
                "providers[0].defaultCacheDuration: must be set",
            ),
            (
                "'*.registry.example:5000/team'",
                "",
                "providers[0].matchImages: must",
            ),
            (
                "*.registry",
                "https://registry",
                "providers[0].matchImages: must",
            ),
            (
                "provider.kubelet.k8s.io/v1",
                "provider.kubelet.k8s.io/v2",
                "providers[0].apiVersion",
            ),
            ("kind: C", "kind: X", "expected apiVersion"),
            ("  args: [get]", "  arg: [get]", "unknown field"),
            (
                "  args: [get]",
                "  tokenAttributes: {requireServiceAccount: true}",
                "providers[0].tokenAttributes: asking with service account tokens is not supported",
            ),
            ("- name: ecr", "- name: ecr\n  name: ecr", "duplicate"),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD, "{from}");
            let (_, errors) = loaded(&text);
            let all = errors.join("\n");
            assert!(all.contains(expected), "{to}: {all}");
        }
        let twice = format!("{GOOD}{}", &GOOD[GOOD.find("- name").unwrap()..]);
        let (_, errors) = loaded(&twice);
        assert!(
            errors[0].contains("more than one provider \"ecr\""),
            "{errors:?}"
        );
    }

    #[test]
    fn a_directory_is_read_in_the_order_of_names() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("b.yaml"), GOOD.replace("ecr", "second")).unwrap();
        fs::write(dir.path().join("a.json"), GOOD.replace("ecr", "first")).unwrap();
        fs::write(dir.path().join("README"), "no").unwrap();
        let mut errors = Vec::new();
        let providers = load(dir.path().to_str(), Some("/plugins"), &mut errors);
        let names: Vec<_> = providers.iter().map(|p| p.name.as_str()).collect();
        assert_eq!((names, errors.len()), (vec!["first", "second"], 0));
    }

    #[test]
    fn one_flag_needs_the_other() {
        for (config, directory) in [(Some("a"), None), (None, Some("b"))] {
            let mut errors = Vec::new();
            assert!(load(config, directory, &mut errors).is_empty());
            assert_eq!(errors.len(), 1);
        }
    }
}

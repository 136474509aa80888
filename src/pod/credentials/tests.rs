use k8s_openapi::ByteString;
use proptest::prelude::*;

use super::*;

fn secret(kind: &str, key: &str, content: &str) -> Secret {
    let mut secret = Secret {
        type_: Some(kind.into()),
        data: Some(BTreeMap::from([(
            key.to_owned(),
            ByteString(content.as_bytes().to_vec()),
        )])),
        ..Secret::default()
    };
    secret.metadata.name = Some("pull".into());
    secret
}

fn config_json(auths: &str) -> Secret {
    secret(
        TYPE_CONFIG_JSON,
        KEY_CONFIG_JSON,
        &format!("{{\"auths\": {auths}}}"),
    )
}

/// The user names that apply to an image, in order.
fn users(secrets: &[Secret], image: &str) -> Vec<String> {
    let keyring = Keyring::new(secrets.iter()).unwrap();
    let found = keyring.lookup(&image.parse().unwrap());
    found.into_iter().map(|found| found.auth.username).collect()
}

fn user_of(entry: &str, image: &str) -> bool {
    let secret = config_json(&format!("{{{entry:?}: {{\"username\": \"u\"}}}}"));
    !users(&[secret], image).is_empty()
}

#[test]
fn entries_apply_by_host_port_and_path() {
    for (entry, image, applies) in [
        ("registry.example", "registry.example/app", true),
        ("registry.example", "registry.example/team/app:v1", true),
        ("https://registry.example", "registry.example/app", true),
        ("http://registry.example/", "registry.example/app", true),
        ("https://registry.example/v1/", "registry.example/app", true),
        ("https://registry.example/v2/", "registry.example/app", true),
        (
            "https://registry.example/v2/team",
            "registry.example/team/app",
            true,
        ),
        ("registry.example", "other.example/app", false),
        ("registry.example", "registry.example:5000/app", false),
        ("registry.example:5000", "registry.example:5000/app", true),
        ("registry.example/team", "registry.example/team/app", true),
        (
            "registry.example/team",
            "registry.example/teamwork/app",
            true,
        ),
        ("registry.example/team", "registry.example/other/app", false),
        ("*.example", "registry.example/app", true),
        ("*.example", "a.registry.example/app", false),
        ("*.*.example", "a.registry.example/app", true),
        ("r*y.example", "registry.example/app", true),
        ("r?gistry.example", "registry.example/app", true),
        ("r?gistry.example", "registryy.example/app", false),
        ("docker.io", "nginx", true),
        ("docker.io/library", "nginx", true),
        ("index.docker.io", "nginx", true),
        ("https://index.docker.io/v1/", "nginx:1.27", true),
        ("https://index.docker.io/v1/", "team/app", true),
        ("https://index.docker.io/v1/", "docker.io/team/app", true),
        ("https://index.docker.io/v1/", "registry.example/app", false),
        ("localhost:5000", "localhost:5000/app", true),
    ] {
        assert_eq!(user_of(entry, image), applies, "{entry} for {image}");
    }
}

#[test]
fn the_longest_entry_comes_first_across_secrets() {
    let broad = config_json(r#"{"r.example": {"username": "broad"}}"#);
    let narrow = config_json(r#"{"r.example/team": {"username": "narrow"}}"#);
    let again = config_json(r#"{"https://r.example": {"username": "again"}}"#);
    assert_eq!(
        users(&[broad, narrow, again], "r.example/team/app"),
        ["narrow", "broad", "again"]
    );
}

#[test]
fn user_and_password_are_decoded() {
    for (entry, username, password) in [
        (r#"{"username": "u", "password": "p"}"#, "u", "p"),
        (r#"{"auth": "dTpw"}"#, "u", "p"),
        (
            r#"{"username": "x", "password": "y", "auth": "dXNlcjpwYTpzcw=="}"#,
            "user",
            "pa:ss",
        ),
        (r#"{"auth": "dXNlcjpwYTpzcw"}"#, "user", "pa:ss"),
        (r#"{"email": "a@b"}"#, "", ""),
    ] {
        let secret = config_json(&format!("{{\"r.example\": {entry}}}"));
        let auth = Keyring::new([&secret].into_iter())
            .unwrap()
            .lookup(&"r.example/a".parse().unwrap());
        assert_eq!(
            (
                auth[0].auth.username.as_str(),
                auth[0].auth.password.as_str()
            ),
            (username, password)
        );
    }
}

#[test]
fn the_old_format_is_read() {
    let old = secret(
        TYPE_CONFIG,
        KEY_CONFIG,
        r#"{"r.example": {"auth": "dTpw"}}"#,
    );
    assert_eq!(users(&[old], "r.example/app"), ["u"]);
}

#[test]
fn other_secrets_hold_no_credentials() {
    for secret in [
        secret("Opaque", KEY_CONFIG_JSON, "{}"),
        secret(TYPE_CONFIG_JSON, "other", "x"),
        secret(TYPE_CONFIG_JSON, KEY_CONFIG_JSON, ""),
        secret(TYPE_CONFIG_JSON, KEY_CONFIG_JSON, "{}"),
        Secret::default(),
    ] {
        assert_eq!(users(&[secret], "nginx"), Vec::<String>::new());
    }
}

#[test]
fn broken_secrets_are_named_and_not_repeated() {
    let broken = |secret: &Secret| match Keyring::new([secret].into_iter()) {
        Ok(_) => panic!("it was read"),
        Err(error) => crate_chain(&error),
    };
    let json = broken(&secret(TYPE_CONFIG_JSON, KEY_CONFIG_JSON, "hunter2"));
    assert!(json.starts_with("secret \"pull\" does not hold a valid registry configuration"));
    assert!(!json.contains("hunter2"));
    for auth in ["!!", "bm9jb2xvbg==", "/w=="] {
        let text = broken(&config_json(&format!(
            "{{\"r.example\": {{\"auth\": {auth:?}}}}}"
        )));
        assert!(
            text.contains("unable to parse auth field of \"r.example\""),
            "{text}"
        );
        assert!(!text.contains(auth));
    }
}

fn crate_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

proptest! {
    #[test]
    fn every_text_matches_itself_and_a_star(text in "[a-z0-9-]{0,30}") {
        prop_assert!(glob(&text, &text));
        prop_assert!(glob("*", &text));
        let stars = format!("*{text}*");
        prop_assert!(glob(&stars, &text));
    }

    #[test]
    fn globs_end(pattern in "[ab*?]{0,20}", text in "[ab]{0,20}") {
        let _ = glob(&pattern, &text);
    }
}

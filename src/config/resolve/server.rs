//! Sections about the agent as seen from outside: its listeners and its log.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::super::duration::GoDuration;
use super::super::raw::{KubeletConfiguration, Logging};
use super::super::schema::Setting;
use super::super::sections::{
    Authentication, Authorization, HandlerConfig, LogConfig, LogFormat, ServerConfig, TlsConfig,
    Verbosity,
};
use super::{Problems, file_path, text};

pub(super) fn server(raw: &KubeletConfiguration, problems: &mut Problems) -> ServerConfig {
    let address = bind_address(&raw.address, problems);
    let healthz_address = bind_address(&raw.healthz_bind_address, problems);
    let port = problems.port(&raw.port);
    ServerConfig {
        healthz: problems
            .optional_port(&raw.healthz_port)
            .map(|port| SocketAddr::new(healthz_address, port)),
        secure: raw
            .enable_server
            .get()
            .then(|| SocketAddr::new(address, port)),
        read_only: problems
            .optional_port(&raw.read_only_port)
            .map(|port| SocketAddr::new(address, port)),
        authentication: authentication(raw, problems),
        authorization: authorization(raw, problems),
        tls: tls(raw, problems),
        handlers: HandlerConfig {
            debugging: raw.enable_debugging_handlers.get(),
            system_logs: raw.enable_system_log_handler.get(),
            system_log_query: raw.enable_system_log_query.get(),
            profiling: raw.enable_profiling_handler.get(),
            debug_flags: raw.enable_debug_flags_handler.get(),
        },
    }
}

fn bind_address(setting: &Setting<String>, problems: &mut Problems) -> IpAddr {
    problems
        .ip(setting)
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn authentication(raw: &KubeletConfiguration, problems: &mut Problems) -> Authentication {
    let given = &raw.authentication;
    let webhook_ttl = problems.period(&given.webhook.cache_ttl);
    Authentication {
        anonymous: given.anonymous.enabled.get(),
        webhook_cache_ttl: given.webhook.enabled.get().then_some(webhook_ttl),
        client_ca_file: file_path(&given.x509.client_ca_file),
    }
}

fn authorization(raw: &KubeletConfiguration, problems: &mut Problems) -> Authorization {
    let given = &raw.authorization;
    let webhook = Authorization::Webhook {
        allowed_ttl: problems.period(&given.webhook.cache_authorized_ttl),
        denied_ttl: problems.period(&given.webhook.cache_unauthorized_ttl),
    };
    let modes = [
        ("Webhook", webhook.clone()),
        ("AlwaysAllow", Authorization::AlwaysAllow),
    ];
    problems.one_of(&given.mode, &modes).unwrap_or(webhook)
}

fn tls(raw: &KubeletConfiguration, problems: &mut Problems) -> TlsConfig {
    let certificate = file_path(&raw.tls_cert_file);
    let key = file_path(&raw.tls_private_key_file);
    if certificate.is_some() != key.is_some() {
        let given = if certificate.is_some() {
            &raw.tls_cert_file
        } else {
            &raw.tls_private_key_file
        };
        problems.add(given.invalid("tlsCertFile and tlsPrivateKeyFile go together"));
    }
    if raw.tls_min_version.value.is_some() {
        let versions = [
            "",
            "VersionTLS10",
            "VersionTLS11",
            "VersionTLS12",
            "VersionTLS13",
        ];
        problems.one_of(&raw.tls_min_version, &versions.map(|word| (word, ())));
    }
    TlsConfig {
        key_pair: certificate.zip(key),
        server_bootstrap: raw.server_tls_bootstrap.get(),
        cipher_suites: raw.tls_cipher_suites.get(),
        min_version: text(&raw.tls_min_version),
    }
}

pub(in crate::config) fn log(raw: &Logging, problems: &mut Problems) -> LogConfig {
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = problems
        .one_of(&raw.format, &formats)
        .unwrap_or(LogFormat::Text);
    if raw.flush_frequency.get().0 <= GoDuration::ZERO {
        problems.add(raw.flush_frequency.invalid("must be greater than 0"));
    }
    let modules = raw.vmodule.get();
    if format == LogFormat::Json && !modules.is_empty() {
        problems.add(raw.vmodule.invalid("needs logging.format \"text\""));
    }
    LogConfig {
        format,
        verbosity: verbosity(&raw.verbosity, problems),
        modules: modules
            .into_iter()
            .map(|item| {
                let pattern = item.file_pattern.get();
                if pattern.is_empty() || pattern.contains(['=', ',']) {
                    problems.add(
                        item.file_pattern
                            .invalid("must not be empty or contain \"=\" or \",\""),
                    );
                }
                (pattern, verbosity(&item.verbosity, problems))
            })
            .collect(),
    }
}

fn verbosity(setting: &Setting<i64>, problems: &mut Problems) -> Verbosity {
    let level = i32::try_from(setting.get())
        .ok()
        .and_then(|level| u32::try_from(level).ok());
    if level.is_none() {
        problems.add(setting.invalid(format!("must be from 0 to {}", i32::MAX)));
    }
    Verbosity(level.unwrap_or(0))
}

//! Metrics as text: OpenMetrics for those who ask for it, and the older
//! Prometheus format, which has other names in its comments, for the rest.

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::registry::Registry;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The registry's metrics in the format that the caller accepts.
pub(super) fn answer(registry: &Registry, headers: &HeaderMap) -> Response {
    let mut text = String::new();
    if let Err(error) = prometheus_client::encoding::text::encode(&mut text, registry) {
        return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
    }
    let wants_open_metrics = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("application/openmetrics-text"));
    if wants_open_metrics {
        ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response()
    } else {
        ([(header::CONTENT_TYPE, CLASSIC)], classic(&text)).into_response()
    }
}

/// OpenMetrics names a counter in its comments without the suffix `_total` of
/// its samples, and an info metric without `_info`; the older format, which
/// knows no units and no end mark, calls both as their samples are called.
fn classic(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let Some(help) = line.strip_prefix("# HELP ") else {
            text.push_str(&classic_type(line).unwrap_or_else(|| line.to_owned()));
            text.push('\n');
            continue;
        };
        let suffix = lines.peek().and_then(|next| suffix_of(next)).unwrap_or("");
        let (name, words) = help.split_once(' ').unwrap_or((help, ""));
        text.push_str(&format!("# HELP {name}{suffix} {words}\n"));
    }
    text
}

/// What the samples' names have over the name in this `# TYPE` line.
fn suffix_of(line: &str) -> Option<&'static str> {
    match line.strip_prefix("# TYPE ")?.split_once(' ')?.1 {
        "counter" => Some("_total"),
        "info" => Some("_info"),
        _ => None,
    }
}

fn classic_type(line: &str) -> Option<String> {
    let suffix = suffix_of(line)?;
    let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
    let kind = if kind == "info" { "gauge" } else { kind };
    Some(format!("# TYPE {name}{suffix} {kind}"))
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::info::Info;

    use super::*;

    #[test]
    fn the_older_format_calls_counters_like_their_samples() {
        let mut registry = Registry::default();
        registry.register("eggs", "Laid", Counter::<u64>::default());
        registry.register("hens", "Alive", Gauge::<i64>::default());
        registry.register("farm", "Name", Info::new(vec![("name", "a")]));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        insta::assert_snapshot!(classic(&text), @r#"
        # HELP eggs_total Laid.
        # TYPE eggs_total counter
        eggs_total 0
        # HELP hens Alive.
        # TYPE hens gauge
        hens 0
        # HELP farm_info Name.
        # TYPE farm_info gauge
        farm_info{name="a"} 1
        "#);
    }
}

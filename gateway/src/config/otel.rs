//! OpenTelemetry's own environment variables, which platforms give to all that they run. Owns which of them are heeded, for
//! keys of `[trace]` that nothing else sets, and what is said of those that are not.

use toml::{Table, Value};

use super::load::put;
use super::validate::is_http_url;

const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
/// Of any signal, and of traces alone, which goes before it. To the first `/v1/traces` is added, the other is used as it is
/// (OpenTelemetry Protocol Exporter, section "Endpoint URLs for OTLP/HTTP").
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
const DISABLED: &str = "OTEL_SDK_DISABLED";

/// Sets the keys of `[trace]` that are not set, as far as the environment says something that can be used. What it says may
/// be meant for others: nothing of it is an error. The notes are for people.
pub(super) fn fill(merged: &mut Table, env: &[(String, String)]) -> Vec<String> {
    let is_set = |merged: &Table, key| merged.get("trace").and_then(|trace| trace.get(key)).is_some();
    if let (Some(name), false) = (said(env, SERVICE_NAME), is_set(merged, "service_name")) {
        put(merged, "trace.service_name", Value::String(name.to_owned()));
    }
    if is_set(merged, "endpoint") || is_set(merged, "traces_endpoint") {
        return Vec::new();
    }
    let traces = said(env, TRACES_ENDPOINT).map(|url| (TRACES_ENDPOINT, "trace.traces_endpoint", url));
    let any = || said(env, ENDPOINT).map(|url| (ENDPOINT, "trace.endpoint", url));
    let Some((name, key, url)) = traces.or_else(any) else { return Vec::new() };
    let note = match refusal(env, url) {
        Some(why) => format!("{name} is not used: {why}"),
        None => {
            put(merged, key, Value::String(url.to_owned()));
            format!("traces are sent by {name}")
        }
    };
    vec![note]
}

/// Why an endpoint cannot be used, or is not to be.
fn refusal(env: &[(String, String)], url: &str) -> Option<String> {
    if !is_http_url(url) {
        return Some("it is no URL with http:// or https://".to_owned());
    }
    if said(env, DISABLED).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Some(format!("{DISABLED} is true"));
    }
    let is_otlp = |exporters: &str| exporters.split(',').any(|exporter| exporter.trim() == "otlp");
    if let Some(exporters) = said(env, EXPORTER).filter(|exporters| !is_otlp(exporters)) {
        return Some(format!("{EXPORTER} is {exporters}"));
    }
    let mut protocols = PROTOCOLS.into_iter().filter_map(|name| Some((name, said(env, name)?)));
    if let Some((name, protocol)) = protocols.next().filter(|(_, protocol)| *protocol != "http/protobuf") {
        return Some(format!("{name} is {protocol}, and only http/protobuf is spoken"));
    }
    None
}

/// What a variable says. An empty one says nothing, as the specification has it.
fn said<'a>(env: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let (_, value) = env.iter().find(|(known, _)| known == name)?;
    Some(value.trim()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of `[trace]` after the file and the environment, and what is said of it.
    fn filled(file: &str, env: &[(&str, &str)]) -> (Vec<(String, String)>, String) {
        let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut merged: Table = format!("[trace]\n{file}").parse().unwrap();
        let notes = fill(&mut merged, &env);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let keys = merged["trace"].as_table().unwrap().iter().map(|(key, value)| (key.clone(), text(value)));
        (keys.collect(), notes.join("\n"))
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn what_nothing_else_sets_comes_from_the_platform() {
        let (base, traces) = ("http://collector:4318", "http://traces:4318/at/this/path");
        assert_eq!(filled("", &[]), (Vec::new(), String::new()));
        let (keys, note) = filled("", &[(ENDPOINT, base), (SERVICE_NAME, "chat")]);
        assert_eq!(keys, [pair("endpoint", base), pair("service_name", "chat")]);
        assert_eq!(note, "traces are sent by OTEL_EXPORTER_OTLP_ENDPOINT");
        let (keys, _) = filled("", &[(ENDPOINT, base), (TRACES_ENDPOINT, traces)]);
        assert_eq!(keys, [pair("traces_endpoint", traces)]);
        let (keys, _) = filled("", &[(ENDPOINT, base), (TRACES_ENDPOINT, " ")]);
        assert_eq!(keys, [pair("endpoint", base)]);
        for own in ["endpoint", "traces_endpoint"] {
            let file = format!("{own} = 'http://own'\nservice_name = 'own'");
            let env = [(ENDPOINT, base), (TRACES_ENDPOINT, traces), (SERVICE_NAME, "chat")];
            let mut own = [pair(own, "http://own"), pair("service_name", "own")];
            own.sort();
            assert_eq!(filled(&file, &env), (own.to_vec(), String::new()));
        }
    }

    #[test]
    fn what_is_meant_for_others_is_left_to_them() {
        let cases = [
            (DISABLED, "TRUE", "OTEL_SDK_DISABLED is true"),
            (EXPORTER, "none", "OTEL_TRACES_EXPORTER is none"),
            (EXPORTER, "console,zipkin", "OTEL_TRACES_EXPORTER is console,zipkin"),
            (PROTOCOLS[1], "grpc", "OTEL_EXPORTER_OTLP_PROTOCOL is grpc, and only http/protobuf is spoken"),
            (PROTOCOLS[0], "http/json", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL is http/json"),
            ("", "", "it is no URL"),
        ];
        for (name, value, why) in cases {
            let url = if name.is_empty() { "collector:4317" } else { "http://collector:4317" };
            let (keys, note) = filled("", &[(ENDPOINT, url), (name, value)]);
            assert!(keys.is_empty(), "{name}={value}");
            assert!(
                note.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT is not used: ") && note.contains(why),
                "{note}"
            );
        }
        for (name, value) in
            [(DISABLED, "false"), (EXPORTER, "console, otlp"), (PROTOCOLS[1], "http/protobuf")]
        {
            assert_eq!(filled("", &[(ENDPOINT, "http://c"), (name, value)]).0.len(), 1, "{name}={value}");
        }
        // What is said of traces alone goes before what is said of all.
        let env = [(ENDPOINT, "http://c"), (PROTOCOLS[0], "http/protobuf"), (PROTOCOLS[1], "grpc")];
        assert_eq!(filled("", &env).0.len(), 1);
    }
}

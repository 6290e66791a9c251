//! The four layers, through files and made-up environments.

use std::collections::BTreeSet;
use std::time::Duration;

use super::layers::SettingsError;
use super::*;

const EXAMPLE: &str = include_str!("../../../tasnif.example.toml");

fn settle(
    file: &str,
    environment: &[(&str, &str)],
    pairs: &[&str],
) -> Result<(Settings, Vec<String>), SettingsError> {
    settle_flags(file, environment, Vec::new(), pairs)
}

fn settle_flags(
    file: &str,
    environment: &[(&str, &str)],
    flags: Vec<Flag>,
    pairs: &[&str],
) -> Result<(Settings, Vec<String>), SettingsError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasnif.toml");
    std::fs::write(&path, file).unwrap();
    let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    Layers {
        file: Some(&path),
        environment: environment.iter().map(owned).collect(),
        flags,
        pairs: pairs.iter().map(ToString::to_string).collect(),
    }
    .settle()
}

#[track_caller]
fn refused(file: &str, environment: &[(&str, &str)], pairs: &[&str]) -> String {
    settle(file, environment, pairs).unwrap_err().to_string()
}

#[test]
fn the_example_is_the_defaults() {
    let (settings, warnings) = settle(EXAMPLE, &[], &[]).unwrap();
    assert_eq!(settings, Settings::default());
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn the_example_has_every_setting_and_all_it_comments_out_can_be_set() {
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| is_entry(rest)).unwrap_or(line))
        .map(|line| format!("{line}\n"))
        .collect();
    settle(&uncommented, &[], &[]).unwrap();
    let named: serde_json::Value = toml::from_str(&uncommented).unwrap();
    let all = serde_json::to_value(Settings::default()).unwrap();
    assert_eq!(keys("", &named), keys("", &all));
}

fn is_entry(line: &str) -> bool {
    let key = line.split_once(" = ").map_or("", |(key, _)| key);
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

fn keys(path: &str, value: &serde_json::Value) -> BTreeSet<String> {
    match value.as_object() {
        None => BTreeSet::from([path.to_owned()]),
        Some(table) => {
            table.iter().flat_map(|(key, value)| keys(&format!("{path}.{key}"), value)).collect()
        }
    }
}

#[test]
fn each_layer_goes_over_those_before_it() {
    let file = "[server]\nmax_connections = 1\nmax_batch_documents = 1\ndrain_timeout = \"1s\"";
    let environment = [
        ("TASNIF_SERVER_MAX_BATCH_DOCUMENTS", "2"),
        ("TASNIF_SERVER_DRAIN_TIMEOUT", "2s"),
        ("TASNIF_MODELS", "models/a, news=models/b"),
        ("TASNIF_SERVER_ALLOW_PLAINTEXT", "true"),
    ];
    let (settings, warnings) =
        settle(file, &environment, &["server.drain_timeout=3s", "threads=5"]).unwrap();
    let server = &settings.server;
    assert_eq!((server.max_connections, server.max_batch_documents), (1, 2));
    assert_eq!((server.drain_timeout, server.allow_plaintext), (Duration::from_secs(3), true));
    assert_eq!(settings.threads, Some(5));
    assert_eq!(settings.models, ["models/a".parse().unwrap(), "news=models/b".parse().unwrap()]);
    assert_eq!(settings.engine(7), EngineConfig { workers: 7, ..EngineConfig::default() });
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn the_log_has_a_variable_of_every_command_under_its_own_and_under_flags() {
    let log = |file: &str, environment: &[(&str, &str)], flags, pairs: &[&str]| {
        settle_flags(file, environment, flags, pairs).unwrap().0.log.filter
    };
    let flag = || Flag { name: "--log", key: "log.filter", value: "flag".into() };
    let file = "[log]\nfilter = \"file\"";
    let short = ("TASNIF_LOG", "short");
    let exact = ("TASNIF_LOG_FILTER", "exact");
    assert_eq!(log(file, &[("TASNIF_LOG", "")], vec![], &[]), "file");
    assert_eq!(log(file, &[short], vec![], &[]), "short");
    assert_eq!(log(file, &[exact, short], vec![], &[]), "exact");
    assert_eq!(log(file, &[short, exact], vec![], &[]), "exact");
    assert_eq!(log(file, &[short, exact], vec![flag()], &[]), "flag");
    assert_eq!(log(file, &[short], vec![flag()], &["log.filter=pair"]), "pair");
    let empty = settle("[log]\nformat = \"json\"", &[("TASNIF_LOG_FORMAT", "")], &[]).unwrap();
    assert_eq!(empty.0.log.format, crate::server::LogFormat::Json);
}

#[test]
fn a_model_may_have_a_comma_in_its_path() {
    let path = "models/a,b";
    let flag = Flag { name: "--model", key: "models", value: vec![path].into() };
    let (settings, _) = settle_flags("", &[], vec![flag], &[]).unwrap();
    assert_eq!(settings.models, [path.parse().unwrap()]);
    let printed = toml::to_string(&settings).unwrap();
    assert_eq!(settle(&printed, &[], &[]).unwrap().0, settings);
}

#[test]
fn what_is_printed_can_be_read_back() {
    let (settings, _) = settle(
        "",
        &[],
        &["models=a,b=c", "server.listen=unix:/tmp/socket", "server.max_connection_age=90s"],
    )
    .unwrap();
    let printed = toml::to_string(&settings).unwrap();
    assert_eq!(settle(&printed, &[], &[]).unwrap().0, settings);
}

#[test]
fn an_unknown_setting_is_refused_with_the_one_meant() {
    let error = refused("[server]\nmax_conections = 1", &[], &[]);
    assert!(error.contains("tasnif.toml"), "{error}");
    assert!(error.contains("no setting server.max_conections; is server.max_connections meant?"));
    let error = refused("max_batch_documents = 1", &[], &[]);
    assert!(error.contains("is server.max_batch_documents meant?"), "{error}");
    let error = refused("[colour]\nred = 1", &[], &[]);
    assert!(error.contains("no setting colour.red") && !error.contains("meant"), "{error}");
    let error = refused("", &[], &["engine.lingr=1s"]);
    assert_eq!(error, "--set: there is no setting engine.lingr; is engine.linger meant?");
    assert!(refused("", &[], &["engine.linger"]).contains("expected KEY=VALUE"));
}

#[test]
fn a_value_of_the_wrong_kind_names_its_setting_and_where_it_is() {
    let error = refused("[server]\nmax_connections = \"many\"", &[], &[]);
    assert!(error.contains("server.max_connections") && error.contains("many"), "{error}");
    let error = refused("", &[("TASNIF_SERVER_MAX_CONNECTIONS", "many")], &[]);
    assert!(error.contains("TASNIF_SERVER_MAX_CONNECTIONS"), "{error}");
    let error = refused("", &[], &["server.drain_timeout=soon"]);
    assert!(error.contains("server.drain_timeout"), "{error}");
    let error = refused("", &[], &["server.listen=here"]);
    assert!(error.contains("expected HOST:PORT"), "{error}");
    let error = refused("[server", &[], &[]);
    assert!(error.contains("tasnif.toml"), "{error}");
}

#[test]
fn what_cannot_be_is_told_with_the_layer_that_says_it() {
    let bad = [
        ("server.drain_timeout", "soon"),
        ("server.listen", "here"),
        ("precision", "int4"),
        ("threads", "99999999"),
        ("threads", "2.7"),
        ("server.max_connections", "2.7"),
        ("server.max_connections", "-1"),
        ("log.format", "xml"),
    ];
    for (key, value) in bad {
        let table = key.split_once('.').map_or(String::new(), |(table, _)| format!("[{table}]\n"));
        let last = key.rsplit('.').next().unwrap();
        // A number as it is: one that is not whole must not be rounded.
        let is_number = value.parse::<f64>().is_ok();
        let written = if is_number { value.to_owned() } else { format!("{value:?}") };
        let file = format!("{table}{last} = {written}");
        let variable = format!("TASNIF_{}", key.replace('.', "_").to_uppercase());
        let environment = [(variable.as_str(), value)];
        let pair = format!("{key}={value}");
        let flags = vec![Flag { name: "--the-flag", key, value: value.into() }];
        let of_flag = settle_flags(&file, &environment, flags, &[]).unwrap_err().to_string();
        let told = [
            ("tasnif.toml: ".to_owned(), refused(&file, &[], &[])),
            (format!("{variable}: "), refused(&file, &environment, &[])),
            ("--the-flag: ".to_owned(), of_flag),
            (format!("--set {key}: "), refused(&file, &environment, &[&pair])),
        ];
        for (origin, error) in told {
            assert!(error.contains(&origin) && error.contains(key), "{key}, {origin}: {error}");
        }
    }
    let error = refused("models = [\"a\", \"b=\"]", &[], &[]);
    assert!(error.contains("tasnif.toml: expected PATH or NAME=PATH"), "{error}");
    let (settings, _) = settle("[tracing]\nsample_ratio = 0.5", &[], &[]).unwrap();
    assert_eq!(settings.tracing.sample_ratio, 0.5);
}

#[test]
fn a_variable_that_is_almost_a_setting_is_told_and_others_are_left_alone() {
    let environment = [
        ("TASNIF_SERVER_MAX_CONECTIONS", "1"),
        // Those that Kubernetes makes for a service of this name.
        ("TASNIF_SERVICE_HOST", "10.0.0.1"),
        ("TASNIF_PORT", "tcp://10.0.0.1:50051"),
        ("TASNIF_CONFIG", "tasnif.toml"),
        ("PATH", "/bin"),
    ];
    let (settings, warnings) = settle("", &environment, &[]).unwrap();
    assert_eq!(settings, Settings::default());
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("is TASNIF_SERVER_MAX_CONNECTIONS meant?"), "{warnings:?}");
}

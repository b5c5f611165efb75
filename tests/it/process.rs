//! The built binary as a shell sees it: output, errors, exit codes.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::harness::tls::Authority;

/// The binary in an empty folder, with nothing in its environment.
fn meridian(folder: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meridian"));
    command.args(arguments).current_dir(folder.path()).env_clear();
    command
}

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let Output { status, stdout, stderr } =
        meridian(&folder, arguments).envs(variables.iter().copied()).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn check_says_that_all_is_well() {
    assert_eq!(run(&["check"], &[]), (0, "configuration is valid\n".to_owned(), String::new()));
}

/// What does nothing is no error, except where it is to be one; whoever starts is told, too.
#[test]
fn check_warns_of_what_has_no_effect() {
    let set = ["--set", "breaker.trials=9"];
    let (code, answer, out) = run(&[&["check"], &set[..]].concat(), &[]);
    assert_eq!((code, answer.as_str()), (0, "configuration is valid\n"));
    let warning = "warning: --set: breaker.trials: has no effect: the breaker is off; set breaker.enabled to true\n";
    assert_eq!(out, warning);
    let (code, answer, out) = run(&[&["check", "--strict"], &set[..]].concat(), &[]);
    assert_eq!((code, answer.as_str(), out.as_str()), (2, "", warning));
    assert_eq!(run(&["check", "--strict"], &[]).0, 0);
}

/// The files that the product comes with are as quiet as none.
#[test]
fn the_shipped_files_have_no_warnings() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for environment in ["development", "production"] {
        let arguments = ["check", "--strict", "--config", config.to_str().unwrap()];
        let (code, _, out) = run(&arguments, &[("NODE_ENV", environment)]);
        assert_eq!((code, out.as_str()), (0, ""), "{environment}");
    }
}

#[test]
fn check_says_every_problem_and_exits_with_two() {
    let (code, answer, out) = run(&["check", "--set", "workers=many"], &[("PROXY_PORT", "x")]);
    assert_eq!((code, answer.as_str()), (2, ""));
    assert!(out.contains("PROXY_PORT: proxy.port: \"x\" is not a port"), "{out}");
    assert!(out.contains("--set: workers: \"many\" is not a whole number from 0 to 1024"), "{out}");
}

/// The files of certificates are looked at before anything starts, and where somebody asks.
#[test]
fn certificates_are_checked() {
    let authority = Authority::new();
    let (a, b) = (authority.sign("a", &["a.example"]), authority.sign("b", &["b.example"]));
    let set = |name: &str, cert: &Path, key: &Path| {
        let key_of = |end| format!("tls.certificates.{name}.{end}");
        [
            "--set".to_owned(),
            format!("{}={}", key_of("cert"), cert.display()),
            "--set".to_owned(),
            format!("{}={}", key_of("key"), key.display()),
        ]
    };
    let missing = Path::new("/nonexistent/x.pem");
    let (cert, key) = (a.cert.unwrap(), a.key.unwrap());
    let good = set("a", &cert, &key);
    let bad = [set("b", &b.cert.unwrap(), &key), set("c", missing, &key)].concat();
    let strings = |more: &[String], first: &str| -> Vec<String> {
        [&[first.to_owned()], &good[..], more].concat()
    };
    let port = [("PROXY_TLS_PORT", "0")];
    let ask = |arguments: Vec<String>| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run(&arguments, &port)
    };
    assert_eq!(ask(strings(&[], "check")), (0, "configuration is valid\n".into(), String::new()));
    for command in ["check", "serve"] {
        let (code, _, errors) = ask(strings(&bad, command));
        assert_eq!(code, 2, "{errors}");
        assert!(errors.contains("--set: tls.certificates.b: "), "{errors}");
        assert!(errors.contains("a.key is not the key of the certificate in "), "{errors}");
        assert!(
            errors.contains("tls.certificates.c: /nonexistent/x.pem: it cannot be read"),
            "{errors}"
        );
    }
    // Who only talks to a gateway need not be able to read its keys.
    assert_eq!(ask(strings(&bad, "print-config")).0, 0);
}

#[test]
fn what_tls_cannot_be_is_said() {
    for (arguments, variables, said) in [
        (
            &["check"][..],
            &[("PROXY_TLS_PORT", "3443")][..],
            "PROXY_TLS_PORT: tls.port: there is no certificate to show",
        ),
        (
            &["check", "--tls-dev"],
            &[("NODE_ENV", "production")],
            "--set: tls.dev: a development certificate is for development",
        ),
        (&["check", "--tls-dev"], &[("PROXY_TLS_PORT", "3000")], "port 3000 is wanted by"),
        (
            &["check", "--tls-dev", "--set", "tls.default=x"],
            &[],
            "--set: tls.default: \"x\" is not one of the certificates: dev",
        ),
        (&["check"], &[("PROXY_TLS_CERT", "/x")], "set both cert and key"),
        (
            &["check"],
            &[("PROXY_TLS_CERT", "/x"), ("PROXY_TLS_KEY", "/x")],
            "nobody is shown these certificates",
        ),
        (
            &["check", "--set", "tls.certificates.a b.cert=/x"],
            &[],
            "\"a b\" is not a certificate's name",
        ),
        (&["check", "--set", "tls.min_version=1.1"], &[], "is not one of 1.2, 1.3"),
    ] {
        let (code, _, errors) = run(arguments, variables);
        assert_eq!(code, 2, "{said}");
        assert!(errors.contains(said), "{said} in {errors}");
    }
    let forced = ["check", "--tls-dev", "--set", "tls.dev_in_production=true"];
    assert_eq!(run(&forced, &[("NODE_ENV", "production")]).0, 0);
}

#[test]
fn check_knows_what_a_supervised_process_needs() {
    let set = |key: &str, value: &str| format!("--set=regions.1.processes.web.{key}={value}");
    let (code, out, said) = run(&["check", &set("command", "no-such-program 'a b'")], &[]);
    assert_eq!((code, out.as_str()), (0, "configuration is valid\n"));
    let warning = "the program \"no-such-program\" is not found";
    assert!(said.starts_with("warning: --set: ") && said.contains(warning), "{said}");
    for (key, value, why) in [
        ("instances", "2", "the process has no command"),
        ("command", "", "there is no program in it"),
        ("command", "sh -c $HOME", "is not a command"),
        ("dir", "/nowhere", "/nowhere is not a folder"),
        ("env", "[\"NAME\"]", "is not a variable"),
        ("instances", "0", "is not a number of instances"),
        ("port_base", "65535", "need ports up to 65536"),
        ("port_base", "2999", "port 3000 is wanted by proxy.port"),
        ("restart_min", "1h", "must not be longer than restart_max"),
    ] {
        let (code, _, said) = run(&["check", &set(key, value)], &[]);
        assert_eq!(code, 2, "{key}={value}");
        assert!(said.contains(why), "{key}={value}: {said}");
    }
}

#[test]
fn it_does_not_start_with_a_configuration_that_is_wrong() {
    for arguments in
        [&["--only", "moon"][..], &["serve", "--only", "moon"], &["print-config", "--only=moon"]]
    {
        let (code, out, errors) = run(arguments, &[]);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}");
        assert!(
            errors.contains("--only: \"moon\" is not one of proxy, hub-1, hub-2, api, demo"),
            "{errors}"
        );
    }
}

#[test]
fn print_config_says_where_each_value_is_from() {
    let (code, out, _) = run(
        &["--set", "hub.ping_interval=20s", "print-config"],
        &[("PROXY_PORT", "3100"), ("REDIS_URL", "redis://u:geheim@h:1")],
    );
    assert_eq!(code, 0);
    for line in [
        "port = 3100  # from PROXY_PORT",
        "ping_interval = \"20s\"  # from --set",
        "url = \"redis://u:***@h:1\"  # from REDIS_URL",
        "port = 9600  # built-in default",
    ] {
        assert!(out.lines().any(|printed| printed == line), "{line} in {out}");
    }
    assert!(!out.contains("geheim"));
}

#[test]
fn the_files_of_the_working_folder_are_read() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(".env"), "LOG_LEVEL=loud\n").unwrap();
    std::fs::create_dir(folder.path().join("config")).unwrap();
    std::fs::write(folder.path().join("config/default.toml"), "worker = 1\n").unwrap();
    let output = meridian(&folder, &["check"]).output().unwrap();
    let out = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(out.contains("config/default.toml: worker: unknown key"), "{out}");
    assert!(out.contains(".env: LOG_LEVEL: log.level: \"loud\" is not one of"), "{out}");
}

#[test]
fn arguments_that_do_not_exist_exit_with_two() {
    for arguments in [&["--nonsense"][..], &["fly"], &["check", "--set"]] {
        let (code, _, errors) = run(arguments, &[]);
        assert_eq!(code, 2, "{arguments:?}");
        assert!(errors.starts_with("error: ") && errors.contains("--help"), "{errors}");
    }
}

#[test]
fn help_and_version_are_results() {
    let (code, out, _) = run(&["--version"], &[]);
    assert_eq!((code, out), (0, format!("meridian {}\n", env!("CARGO_PKG_VERSION"))));
    let (code, out, _) = run(&["--help"], &[]);
    assert_eq!(code, 0);
    for name in ["check", "print-config", "serve", "--config", "--set", "--only"] {
        assert!(out.contains(name), "{name} in {out}");
    }
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_a_problem_only_where_it_is_ours() {
    use std::os::unix::ffi::OsStrExt as _;
    let broken = std::ffi::OsStr::from_bytes(b"\xff");
    let folder = tempfile::tempdir().unwrap();
    let output = meridian(&folder, &["check"]).env("THEIRS", broken).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let output = meridian(&folder, &["check"]).env("REDIS_PASSWORD", broken).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(output.stderr, b"REDIS_PASSWORD: its value is not UTF-8\n");
}

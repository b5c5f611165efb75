//! The import table of ARCHITECTURE.md, as a test.

use std::fs;
use std::path::{Path, PathBuf};

/// Each part, and the parts it may name.
const TABLE: &[(&str, &[&str])] = &[
    ("settings", &[]),
    ("shutdown", &[]),
    ("protocol", &[]),
    ("rate", &[]),
    ("observability", &["settings"]),
    ("files", &["settings"]),
    ("bus", &["observability", "rate", "settings", "shutdown"]),
    ("limits", &["bus", "observability", "rate", "settings"]),
    ("proxy", &["observability", "settings", "shutdown"]),
    ("supervise", &["observability", "proxy", "rate", "settings"]),
    ("identity", &["observability", "settings", "shutdown"]),
    ("hub", &["bus", "identity", "observability", "protocol", "rate", "settings", "shutdown"]),
    ("api", &["bus", "identity", "observability", "protocol", "rate", "settings", "shutdown"]),
    (
        "edge",
        &[
            "api",
            "files",
            "hub",
            "identity",
            "limits",
            "observability",
            "protocol",
            "proxy",
            "settings",
            "shutdown",
        ],
    ),
    ("admin", &["hub", "proxy", "bus", "observability", "settings", "shutdown", "supervise"]),
    ("demo", &["observability", "settings", "shutdown"]),
    (
        "app",
        &[
            "admin",
            "api",
            "bus",
            "demo",
            "edge",
            "files",
            "hub",
            "identity",
            "limits",
            "observability",
            "proxy",
            "settings",
            "shutdown",
            "supervise",
        ],
    ),
    ("client", &["protocol"]),
    ("cli", &["app", "client", "observability", "protocol", "settings", "supervise"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_part_names_only_what_the_table_allows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&root).unwrap().to_owned();
        let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
        let part = first.trim_end_matches(".rs");
        if part == "lib" || part == "main" {
            continue;
        }
        let Some((_, allowed)) = TABLE.iter().find(|(name, _)| *name == part) else {
            wrong.push(format!("{} belongs to no part of the table", relative.display()));
            continue;
        };
        let text = fs::read_to_string(&file).unwrap();
        for named in text.split("crate::").skip(1) {
            let named: String =
                named.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            if named != part && !allowed.contains(&named.as_str()) {
                wrong.push(format!("{} names crate::{named}", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the table:\n{}", wrong.join("\n"));
}

#[test]
fn every_source_file_says_what_it_is_for() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let silent: Vec<_> =
        files.iter().filter(|file| !fs::read_to_string(file).unwrap().starts_with("//!")).collect();
    assert!(silent.is_empty(), "files without a header: {silent:?}");
}

//! `default.toml`, and over it the file of the environment.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use toml::Table;

use super::{Gathered, LoadOptions, leaf};
use crate::settings::Environment;
use crate::settings::problem::Source;

/// Larger than any configuration written by hand; a device or a log given by mistake is not read to its end.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Gathers the leaves of both files. Either may be missing, but a folder named on purpose must hold one.
pub(super) fn read(options: &LoadOptions, environment: Environment, gathered: &mut Gathered) {
    let folder = folder(options);
    let mut missing = true;
    for name in names(environment) {
        let shown = folder.join(&name);
        let source = Source::File(shown.display().to_string());
        match read_bounded(&options.folder.join(&shown)) {
            Ok(None) => continue,
            Ok(Some(text)) => from_file(&text, &source, gathered),
            Err(message) => {
                gathered.incomplete = true;
                gathered.problem(source, "", message);
            }
        }
        missing = false;
    }
    if missing && options.config.is_some() {
        gathered.incomplete = true;
        let message =
            format!("{} holds neither default.toml nor {environment}.toml", folder.display());
        gathered.problem("--config", "", message);
    }
}

fn folder(options: &LoadOptions) -> PathBuf {
    options.config.clone().unwrap_or_else(|| PathBuf::from("config"))
}

fn names(environment: Environment) -> [String; 2] {
    ["default.toml".to_owned(), format!("{environment}.toml")]
}

/// All files that are read for settings, `.env` included, whether they are there or not.
pub(super) fn paths(options: &LoadOptions, environment: Environment) -> Vec<PathBuf> {
    let folder = options.folder.join(folder(options));
    let mut paths: Vec<_> = names(environment).iter().map(|name| folder.join(name)).collect();
    paths.push(options.folder.join(".env"));
    paths
}

/// The text of a file, or `None` where there is none.
pub(super) fn read_bounded(path: &Path) -> Result<Option<String>, String> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > MAX_BYTES => {
            return Err(format!("it is larger than {MAX_BYTES} bytes"));
        }
        Ok(metadata) if !metadata.is_file() => return Err("it is not a file".to_owned()),
        Ok(_) => {}
        Err(error) if is_absence(error.kind()) => return Ok(None),
        Err(error) => return Err(format!("it cannot be read: {error}")),
    }
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) => Err(format!("it cannot be read: {error}")),
    }
}

fn is_absence(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn from_file(text: &str, source: &Source, gathered: &mut Gathered) {
    match text.parse::<Table>() {
        Ok(table) => leaf::from_table(table, &[], source, gathered),
        Err(error) => {
            gathered.incomplete = true;
            // The error's own display repeats the line, which may hold a secret.
            let line = error
                .span()
                .and_then(|span| text.get(..span.start))
                .map_or(1, |before| before.matches('\n').count() + 1);
            let message = format!("line {line}: it is not TOML: {}", error.message().trim());
            gathered.problem(source, "", message);
        }
    }
}

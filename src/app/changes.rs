//! The files of the configuration, looked at again and again where that is wanted: a change of them asks for a reload.
//!
//! As with certificates, content is compared (see [`Doubt`]). Looking costs some kilobytes of reading each
//! `reload.watch_interval`.
//!
//! Invariants: a content asks once, whether it turns out valid or not; a file that is gone asks for nothing, because its
//! keys would fall back to defaults that nobody wrote: it is waited for, and a reload by hand goes on without it.

use std::time::Duration;

use tokio::time::sleep;

use crate::settings::{Doubt, Environment, Fingerprint, LoadOptions, ReloadSettings, fingerprint};

/// Between the two looks at what has changed; not above the interval.
const AGAIN: Duration = Duration::from_millis(500);

/// What has become of the files since they were read.
#[derive(Debug)]
pub(super) struct Changes {
    options: LoadOptions,
    environment: Environment,
    /// What they held when they were read last; nothing where that failed.
    read: Option<Fingerprint>,
    doubt: Option<Doubt>,
    /// Somebody was told that a file is gone.
    is_lacking: bool,
}

impl Changes {
    /// Of files that have just been read.
    pub(super) fn of(options: LoadOptions, environment: Environment) -> Self {
        let read = fingerprint(&options, environment);
        Self { options, environment, read, doubt: None, is_lacking: false }
    }

    /// They were read again, and held this.
    pub(super) fn were_read(&mut self, seen: Option<Fingerprint>) {
        (self.read, self.doubt, self.is_lacking) = (seen, None, false);
    }

    /// Ends when they hold something else than when they were read; never where they are not to be watched. May be dropped
    /// at any time.
    pub(super) async fn next(&mut self, settings: &ReloadSettings) {
        if !settings.watch {
            std::future::pending::<()>().await;
        }
        loop {
            let is_open = self.doubt.as_ref().is_some_and(Doubt::is_open);
            let interval = settings.watch_interval;
            sleep(if is_open { AGAIN.min(interval) } else { interval }).await;
            let (options, environment) = (self.options.clone(), self.environment);
            // Files may be slow, and this runtime serves clients.
            let looked = tokio::task::spawn_blocking(move || fingerprint(&options, environment));
            // It fails only where the process ends.
            let Ok(seen) = looked.await else { continue };
            if self.are_others(seen.as_ref()) {
                return;
            }
        }
    }

    /// Whether what was seen now is to be read.
    fn are_others(&mut self, seen: Option<&Fingerprint>) -> bool {
        if seen == self.read.as_ref() {
            (self.doubt, self.is_lacking) = (None, false);
            return false;
        }
        if let (Some(seen), Some(read)) = (seen, &self.read)
            && seen.lacks(read)
        {
            if !std::mem::replace(&mut self.is_lacking, true) {
                tracing::warn!(
                    target: "App",
                    "a file of the configuration is gone: it is waited for, and what it said goes on; a reload by hand \
                     goes on without it"
                );
            }
            self.doubt = None;
            return false;
        }
        let content = seen.map(Fingerprint::content);
        if let Some(doubt) = &mut self.doubt {
            return doubt.confirm(content);
        }
        self.doubt = Some(Doubt::of(content));
        false
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    struct Watched {
        folder: tempfile::TempDir,
        changes: Changes,
    }

    impl Watched {
        fn new(prepare: impl FnOnce(&Path)) -> Self {
            let folder = tempfile::tempdir().unwrap();
            prepare(folder.path());
            let options = LoadOptions {
                folder: folder.path().to_owned(),
                config: Some("etc".into()),
                ..LoadOptions::default()
            };
            Self { changes: Changes::of(options, Environment::Production), folder }
        }

        fn look(&mut self) -> bool {
            let seen = fingerprint(&self.changes.options, Environment::Production);
            self.changes.are_others(seen.as_ref())
        }

        fn read(&mut self) {
            self.changes.were_read(fingerprint(&self.changes.options, Environment::Production));
        }
    }

    fn default_toml(folder: &Path, text: &str) {
        fs::create_dir_all(folder.join("etc")).unwrap();
        fs::write(folder.join("etc/default.toml"), text).unwrap();
    }

    #[test]
    fn another_content_asks_once_when_it_was_seen_twice() {
        let mut watched = Watched::new(|folder| default_toml(folder, "workers = 1"));
        assert!(!watched.look() && !watched.look());
        default_toml(watched.folder.path(), "worke");
        assert!(!watched.look());
        default_toml(watched.folder.path(), "workers = 2");
        assert!(!watched.look() && watched.look());
        watched.read();
        assert!(!watched.look() && !watched.look());
        // Written over with the same.
        default_toml(watched.folder.path(), "workers = 2");
        assert!(!watched.look() && !watched.look());
        fs::write(watched.folder.path().join("etc/production.toml"), "workers = 3").unwrap();
        assert!(!watched.look() && watched.look());
        watched.read();
        fs::write(watched.folder.path().join(".env"), "LOG_LEVEL=debug").unwrap();
        assert!(!watched.look() && watched.look());
    }

    #[test]
    fn a_link_turned_to_another_folder_is_a_change() {
        let at = |folder: &Path, name: &str, text: &str| {
            fs::create_dir(folder.join(name)).unwrap();
            fs::write(folder.join(name).join("default.toml"), text).unwrap();
        };
        // As Kubernetes mounts a ConfigMap: each file is a link through ..data, which is turned.
        let mut watched = Watched::new(|folder| {
            fs::create_dir(folder.join("etc")).unwrap();
            let etc = folder.join("etc");
            at(&etc, "..one", "workers = 1");
            symlink("..one", etc.join("..data")).unwrap();
            symlink("..data/default.toml", etc.join("default.toml")).unwrap();
        });
        assert!(!watched.look());
        let etc = watched.folder.path().join("etc");
        at(&etc, "..two", "workers = 2");
        symlink("..two", etc.join("..next")).unwrap();
        fs::rename(etc.join("..next"), etc.join("..data")).unwrap();
        fs::remove_dir_all(etc.join("..one")).unwrap();
        assert!(!watched.look() && watched.look());
    }

    #[test]
    fn a_file_that_is_gone_is_waited_for() {
        let mut watched = Watched::new(|folder| default_toml(folder, "workers = 1"));
        fs::remove_file(watched.folder.path().join("etc/default.toml")).unwrap();
        assert!(!watched.look() && !watched.look() && watched.changes.is_lacking);
        default_toml(watched.folder.path(), "workers = 1");
        assert!(!watched.look() && !watched.look() && !watched.changes.is_lacking);
        fs::remove_file(watched.folder.path().join("etc/default.toml")).unwrap();
        assert!(!watched.look());
        default_toml(watched.folder.path(), "workers = 2");
        assert!(!watched.look() && watched.look());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_looked_at_where_that_is_not_wanted() {
        let mut watched = Watched::new(|folder| default_toml(folder, "workers = 1"));
        default_toml(watched.folder.path(), "workers = 2");
        let off = ReloadSettings::default();
        let waited =
            tokio::time::timeout(Duration::from_hours(1), watched.changes.next(&off)).await;
        assert!(waited.is_err());
        let on = ReloadSettings { watch: true, ..off };
        watched.changes.next(&on).await;
    }
}

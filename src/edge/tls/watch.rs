//! The files of the certificates, looked at again and again: a change is taken over without a restart.
//!
//! The content is compared and not the time of the change, so that any way of replacing a file will do: written over,
//! renamed, or a folder's link turned to another folder, as Kubernetes does it. Looking costs some kilobytes of reading
//! each `tls.watch_interval`.
//!
//! Invariants: a pair that is no good replaces none; it is told of once and not at each look. Of two files one is
//! always changed first: what does not fit is looked at once more before it is told of.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::certificates::{Certificates, Content, Files, Pair, Place, Table};
use super::{Tls, dev};
use crate::settings::Doubt;

/// From here on, the end of a certificate is a warning.
const SOON: i64 = 14 * DAY;
const DAY: i64 = 24 * 60 * 60;
/// A warning is repeated this often.
const REPEAT: Duration = Duration::from_hours(24);
/// Between the two looks at a pair that does not fit; not above the interval.
const AGAIN: Duration = Duration::from_secs(2);

/// What was found wrong with a pair, by its name.
#[derive(Debug, Default)]
struct Doubts(HashMap<Arc<str>, Doubt>);

impl Doubts {
    /// Notes that `content` is no good; true where that is to be told now.
    fn confirm(&mut self, name: &Arc<str>, content: Option<Content>) -> bool {
        if let Some(doubt) = self.0.get_mut(name) {
            return doubt.confirm(content);
        }
        self.0.insert(Arc::clone(name), Doubt::of(content));
        false
    }

    fn clear(&mut self, name: &Arc<str>) {
        self.0.remove(name);
    }

    /// Whether something is to be looked at soon.
    fn are_open(&self) -> bool {
        self.0.values().any(Doubt::is_open)
    }
}

impl Tls {
    /// Watches the files until `stop`.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut doubts = Doubts::default();
        let mut until_warning = REPEAT;
        loop {
            let pause = if doubts.are_open() {
                AGAIN.min(self.watch_interval)
            } else {
                self.watch_interval
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
            }
            until_warning = until_warning.saturating_sub(pause);
            let warn = until_warning.is_zero();
            if warn {
                until_warning = REPEAT;
            }
            let this = Arc::clone(&self);
            // Files may be slow, and this runtime serves clients.
            let looked = tokio::task::spawn_blocking(move || {
                this.look(&mut doubts, warn);
                doubts
            });
            let Ok(seen) = looked.await else { return };
            doubts = seen;
        }
    }

    /// Reads every pair again and takes over what has changed.
    fn look(&self, doubts: &mut Doubts, warn: bool) {
        if let Some(folder) = &self.dev_folder
            && let Err(error) = dev::ensure(folder)
        {
            tracing::warn!(target: "Tls", "the development certificate cannot be renewed: {error}");
        }
        let table = self.certificates.table();
        let changed: HashMap<Arc<str>, Arc<Pair>> = table
            .pairs()
            .iter()
            .filter_map(|pair| Some((Arc::clone(&pair.place.name), self.changed(pair, doubts)?)))
            .collect();
        if !changed.is_empty() {
            swap(&self.certificates, &table, &changed);
        }
        if warn {
            self.certificates.table().pairs().iter().for_each(|pair| warn_of_end(pair));
        }
    }

    /// The pair as it stands now, where it has changed and is good.
    fn changed(&self, pair: &Pair, doubts: &mut Doubts) -> Option<Arc<Pair>> {
        let Place { name, .. } = &pair.place;
        let files = Files::read(&pair.place);
        let content = files.as_ref().ok().map(Files::content);
        if content == Some(pair.content) {
            doubts.clear(name);
            return None;
        }
        match files.and_then(|files| files.pair(&pair.place)) {
            Ok(fresh) => {
                doubts.clear(name);
                Some(Arc::new(fresh))
            }
            Err(why) => {
                if doubts.confirm(name, content) {
                    self.metrics.not_reloaded(name);
                    tracing::warn!(
                        target: "Tls",
                        certificate = %name,
                        "the files of the certificate {name} have changed and are no good, so the one before is still shown: {why}"
                    );
                }
                None
            }
        }
    }
}

/// The table with the pairs that have changed. One that a reload has put in place meanwhile stays, and is looked at next.
fn swap(certificates: &Certificates, before: &Arc<Table>, changed: &HashMap<Arc<str>, Arc<Pair>>) {
    let pairs = before
        .pairs()
        .iter()
        .map(|pair| Arc::clone(changed.get(&pair.place.name).unwrap_or(pair)))
        .collect();
    let table = Table::new(pairs, Some(before.default_name()));
    if !table.is_some_and(|table| certificates.replace_if(before, table)) {
        return;
    }
    for (name, fresh) in changed {
        tracing::info!(target: "Tls", certificate = %name, "the certificate {name} has changed, and is shown from now on");
        warn_of_end(fresh);
    }
}

/// Says so where a certificate has ended, or soon will.
pub(super) fn warn_of_end(pair: &Pair) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = pair.facts.not_after - i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let name = &pair.place.name;
    if left < 0 {
        tracing::warn!(target: "Tls", certificate = %name, "the certificate {name} has run out: clients refuse it");
    } else if left < SOON {
        let days = left / DAY;
        tracing::warn!(target: "Tls", certificate = %name, "the certificate {name} runs out in {days} days");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::certificates::tests::write;
    use super::*;
    use crate::observability::{Registry, encode};
    use crate::settings::{CertificateSettings, TlsSettings};

    fn settings(of: &[&Place]) -> TlsSettings {
        let certificates = of.iter().map(|place| {
            let files = CertificateSettings {
                cert: Some(place.cert.clone()),
                key: Some(place.key.clone()),
            };
            (place.name.to_string(), files)
        });
        TlsSettings { certificates: certificates.collect(), ..TlsSettings::default() }
    }

    fn shown(tls: &Tls) -> Content {
        tls.certificates.table().find("a.example").content
    }

    fn replace(place: &Place, by: &Place) {
        fs::rename(&by.cert, &place.cert).unwrap();
        fs::rename(&by.key, &place.key).unwrap();
    }

    fn fresh(folder: &Path) -> Place {
        write(folder, "fresh", &["a.example"])
    }

    #[test]
    fn a_changed_pair_is_taken_over_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let place = write(folder.path(), "a", &["a.example"]);
        let mut registry = Registry::default();
        let tls = Tls::new(&settings(&[&place]), &mut registry).unwrap();
        let mut doubts = Doubts::default();
        let first = shown(&tls);
        tls.look(&mut doubts, false);
        assert_eq!(shown(&tls), first);

        // Half of a change: not yet a fault.
        let other = fresh(folder.path());
        fs::rename(&other.cert, &place.cert).unwrap();
        tls.look(&mut doubts, false);
        assert!(doubts.are_open());
        fs::rename(&other.key, &place.key).unwrap();
        tls.look(&mut doubts, false);
        let second = shown(&tls);
        assert_ne!(second, first);
        assert!(!doubts.are_open());
        assert!(encode(&registry).unwrap().contains("reload_failures_total{certificate=\"a\"} 0"));

        // One that stays broken is told of once.
        fs::write(&place.key, "nonsense").unwrap();
        for _ in 0..4 {
            tls.look(&mut doubts, true);
        }
        assert_eq!(shown(&tls), second);
        assert!(encode(&registry).unwrap().contains("reload_failures_total{certificate=\"a\"} 1"));
        fs::remove_file(&place.key).unwrap();
        tls.look(&mut doubts, false);
        tls.look(&mut doubts, false);
        assert_eq!(shown(&tls), second);
        assert!(encode(&registry).unwrap().contains("reload_failures_total{certificate=\"a\"} 2"));

        replace(&place, &fresh(folder.path()));
        tls.look(&mut doubts, false);
        assert_ne!(shown(&tls), second);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_turned_to_another_folder_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        for folder in [&one, &two] {
            fs::create_dir(folder).unwrap();
            write(folder, "a", &["a.example"]);
        }
        let link = folder.path().join("now");
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let place = Place { name: "a".into(), cert: link.join("a.pem"), key: link.join("a.key") };
        let tls = Tls::new(&settings(&[&place]), &mut Registry::default()).unwrap();
        let first = shown(&tls);
        let beside = folder.path().join("next");
        std::os::unix::fs::symlink(&two, &beside).unwrap();
        fs::rename(&beside, &link).unwrap();
        tls.look(&mut Doubts::default(), false);
        assert_ne!(shown(&tls), first);
    }

    #[test]
    fn a_look_does_not_undo_what_a_reload_has_put_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) =
            (write(folder.path(), "a", &["a.example"]), write(folder.path(), "b", &["b.example"]));
        let tls = Tls::new(&settings(&[&a]), &mut Registry::default()).unwrap();
        let seen = tls.certificates.table();
        tls.replace(Tls::prepare(&settings(&[&b])).unwrap());
        swap(&tls.certificates, &seen, &HashMap::new());
        assert_eq!(tls.certificates.table().default_name(), "b");
    }

    #[test]
    fn other_settings_replace_the_certificates_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) =
            (write(folder.path(), "a", &["a.example"]), write(folder.path(), "b", &["b.example"]));
        let mut registry = Registry::default();
        let tls = Tls::new(&settings(&[&a]), &mut registry).unwrap();
        let text = || encode(&registry).unwrap();
        assert!(text().contains("not_after_seconds{certificate=\"a\"}"));
        tls.replace(Tls::prepare(&settings(&[&b])).unwrap());
        assert!(!text().contains("certificate=\"a\"") && text().contains("certificate=\"b\""));
        fs::write(&a.key, "").unwrap();
        let error = Tls::prepare(&settings(&[&a, &b])).unwrap_err();
        assert_eq!(error.certificate(), "a");
        assert_eq!(&*tls.certificates.table().find("a.example").place.name, "b");
    }
}

//! Where access lines go.

use std::path::Path;

use super::Check;

impl Check<'_> {
    /// A start or a reload would fail where the file cannot be begun.
    pub(super) fn access(&mut self) {
        let Some(file) = &self.settings.access.file else { return };
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let why = if file.is_dir() {
            format!("{} is a folder; name a file in it", file.display())
        } else if !folder.is_dir() {
            format!("there is no folder {} for it; make it first", folder.display())
        } else {
            return;
        };
        self.say(&["access.file"], why);
    }
}

//! What the public doors go by: one edition of the settings, built once and replaced whole by a reload.
//!
//! A request takes the edition it begins with and keeps it.

use std::sync::Arc;

use super::compress::Compression;
use super::own::OwnPaths;
use super::security::Security;
use crate::files::{MountError, Mounts};
use crate::settings::{ProxySettings, Settings};

/// One edition.
#[derive(Debug)]
pub struct Policy {
    pub(super) settings: ProxySettings,
    pub(super) own: OwnPaths,
    pub(super) mounts: Mounts,
    pub(super) security: Security,
    pub(super) compression: Option<Compression>,
}

impl Policy {
    /// # Errors
    /// Where a folder that is to be served is not there.
    pub fn new(settings: &Settings) -> Result<Arc<Self>, MountError> {
        Ok(Arc::new(Self {
            settings: settings.proxy.clone(),
            own: OwnPaths::new(&settings.proxy, &settings.page, &settings.api),
            mounts: Mounts::new(&settings.mounts)?,
            security: Security::new(&settings.security),
            compression: Compression::new(&settings.compression),
        }))
    }
}

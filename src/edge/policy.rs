//! What the public doors go by: one edition of the settings, built once and replaced whole by a reload.
//!
//! A request takes the edition it begins with and keeps it.

use std::sync::Arc;

use super::compress::Compression;
use super::own::OwnPaths;
use super::security::Security;
use crate::files::{MountError, Mounts};
use crate::limits::{Limiter, Limits, Rules};
use crate::settings::{ProxySettings, Settings};

/// One edition.
#[derive(Debug)]
pub struct Policy {
    pub(super) settings: ProxySettings,
    pub(super) own: OwnPaths,
    pub(super) mounts: Mounts,
    pub(super) security: Security,
    pub(super) compression: Option<Compression>,
    pub(super) rules: Rules,
    pub(super) limits: Limits,
}

impl Policy {
    /// An edition that goes on with what the limits of `previous` have counted. Making it changes nothing yet.
    ///
    /// # Errors
    /// Where a folder that is to be served is not there.
    pub(crate) fn new(
        settings: &Settings,
        limiter: &Limiter,
        previous: Option<&Self>,
    ) -> Result<Arc<Self>, MountError> {
        Ok(Arc::new(Self {
            settings: settings.proxy.clone(),
            own: OwnPaths::new(&settings.proxy, &settings.page, &settings.api),
            mounts: Mounts::new(&settings.mounts)?,
            security: Security::new(&settings.security),
            compression: Compression::new(&settings.compression),
            rules: Rules::new(&settings.rules),
            limits: limiter.limits(&settings.limits, previous.map(|previous| &previous.limits)),
        }))
    }
}

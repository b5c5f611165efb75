//! What the public doors go by: one edition of the settings, built once and replaced whole by a reload.
//!
//! A request takes the edition it begins with and keeps it.

use std::sync::Arc;

use super::own::OwnPaths;
use crate::settings::{ProxySettings, Settings};

/// One edition.
#[derive(Debug)]
pub struct Policy {
    pub(super) settings: ProxySettings,
    pub(super) own: OwnPaths,
}

impl Policy {
    pub fn new(settings: &Settings) -> Arc<Self> {
        Arc::new(Self {
            settings: settings.proxy.clone(),
            own: OwnPaths::new(&settings.proxy, &settings.page, &settings.api),
        })
    }
}

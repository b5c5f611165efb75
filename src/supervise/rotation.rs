//! The seam to the balance: an instance joins the backends of its region when it is ready, and leaves before it stops.

use std::fmt;
use std::sync::Arc;

use crate::proxy::{BackendHandle, Shared};
use crate::settings::{BackendSettings, RegionName};

/// Where instances join.
pub(super) trait Rotation: fmt::Debug + Send + Sync {
    /// Adds a backend to a region.
    ///
    /// # Errors
    /// In words, where the region takes none.
    fn add(&self, region: &RegionName, backend: BackendSettings)
    -> Result<Box<dyn Joined>, String>;
}

/// An instance among the backends of its region.
pub(super) trait Joined: fmt::Debug + Send + Sync {
    /// Gives it nothing new from here on.
    fn drain(&self);
    /// Exchanges and tunnels going on.
    fn active(&self) -> usize;
    /// Takes it out.
    fn remove(self: Box<Self>);
}

impl Rotation for Arc<Shared> {
    fn add(
        &self,
        region: &RegionName,
        backend: BackendSettings,
    ) -> Result<Box<dyn Joined>, String> {
        let handle = self.add_backend(region, backend).map_err(|error| error.to_string())?;
        Ok(Box::new(handle))
    }
}

impl Joined for BackendHandle {
    fn drain(&self) {
        Self::drain(self);
    }

    fn active(&self) -> usize {
        Self::active(self)
    }

    fn remove(self: Box<Self>) {
        Self::remove(*self);
    }
}

/// A place among the backends that is given up when it is dropped, however that comes.
#[derive(Debug)]
pub(super) struct Place(Option<Box<dyn Joined>>);

impl Place {
    pub(super) fn new(joined: Box<dyn Joined>) -> Self {
        Self(Some(joined))
    }

    pub(super) fn drain(&self) {
        if let Some(joined) = &self.0 {
            joined.drain();
        }
    }

    pub(super) fn active(&self) -> usize {
        self.0.as_ref().map_or(0, |joined| joined.active())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(joined) = self.0.take() {
            joined.remove();
        }
    }
}

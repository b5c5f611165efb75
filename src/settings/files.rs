//! Folders that the gateway serves itself.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Section `[static.<name>]`: a folder mounted on a path.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StaticSettings {
    /// Where it is, with a slash at both ends, or `/` alone; for every region.
    pub path: String,
    /// The folder.
    pub folder: PathBuf,
    /// A folder is answered with its `index.html`.
    pub index: bool,
    /// A page that is no file is answered with the `index.html` of the folder: the routes of a single-page application.
    pub spa: bool,
    /// Files beside the ones that are asked for, with `.br`, `.gz` or `.zst` at their ends, are sent in their place.
    pub precompressed: bool,
    /// The `Cache-Control` of files; empty for none.
    pub cache_control: String,
}

impl Default for StaticSettings {
    fn default() -> Self {
        Self {
            path: "/static/".to_owned(),
            folder: PathBuf::new(),
            index: true,
            spa: false,
            precompressed: true,
            cache_control: "no-cache".to_owned(),
        }
    }
}

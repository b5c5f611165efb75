//! The file system as far as a mounted folder goes: a link that leads out of it leads nowhere.

use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use tower_http::services::fs::{Backend, TokioBackend, TokioFile};

type Future<T> = Pin<Box<dyn std::future::Future<Output = io::Result<T>> + Send>>;

/// The files below one folder.
#[derive(Clone, Debug)]
pub(super) struct Fenced {
    /// Without links.
    root: Arc<Path>,
}

impl Fenced {
    /// `root` without links.
    pub(super) fn new(root: &Path) -> Self {
        Self { root: Arc::from(root) }
    }

    /// Where `path` really is, if that is within. What cannot be looked up is not there: a name that only its coding's
    /// ending makes too long must not hide the file itself.
    async fn within(self, path: PathBuf) -> io::Result<PathBuf> {
        let real = tokio::fs::canonicalize(path).await.map_err(|error| match error.kind() {
            ErrorKind::InvalidFilename | ErrorKind::PermissionDenied => ErrorKind::NotFound.into(),
            _ => error,
        })?;
        if real.starts_with(&self.root) { Ok(real) } else { Err(ErrorKind::NotFound.into()) }
    }
}

impl Backend for Fenced {
    type File = TokioFile;
    type Metadata = Metadata;
    type OpenFuture = Future<TokioFile>;
    type MetadataFuture = Future<Metadata>;

    fn open(&self, path: PathBuf) -> Future<TokioFile> {
        let fence = self.clone();
        Box::pin(async move {
            let real = fence.within(path).await?;
            // To open a pipe would wait for whoever writes it.
            if !tokio::fs::metadata(&real).await?.is_file() {
                return Err(ErrorKind::NotFound.into());
            }
            TokioBackend.open(real).await
        })
    }

    fn metadata(&self, path: PathBuf) -> Future<Metadata> {
        let fence = self.clone();
        Box::pin(async move { tokio::fs::metadata(fence.within(path).await?).await })
    }
}

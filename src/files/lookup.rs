//! One file of a folder, asked for as tower-http would have it: its head, the whole, or one part.

use std::io;
use std::path::Path;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Empty;
use tower_http::services::ServeDir;
use tower_http::services::fs::{DefaultServeDirFallback, ServeFileSystemResponseBody};

use super::Refusal;
use super::fence::Fenced;
use crate::settings::StaticSettings;

/// Bytes that are read from a file at once.
const CHUNK: usize = 64 * 1024;

/// The files of one folder.
#[derive(Clone, Debug)]
pub(super) struct Files(ServeDir<DefaultServeDirFallback, Fenced>);

impl Files {
    /// `root` without links.
    pub(super) fn new(root: &Path, settings: &StaticSettings) -> Self {
        let mut files = ServeDir::with_backend(root, Fenced::new(root))
            .append_index_html_on_directories(settings.index)
            .redirect_to_trailing_slash(settings.index)
            .redirect_path_prefix(settings.path.trim_end_matches('/'))
            .with_buf_chunk_size(CHUNK);
        if settings.precompressed {
            files = files.precompressed_br().precompressed_gzip().precompressed_zstd();
        }
        Self(files)
    }

    /// What is at `target`, a path below the folder with a slash before it; 404 for what is not there or not for
    /// everybody.
    ///
    /// # Errors
    /// [`Refusal::Unreadable`], with the reason in the log.
    pub(super) async fn look_up(
        &self,
        method: Method,
        target: &str,
        headers: &HeaderMap,
    ) -> Result<Response<ServeFileSystemResponseBody>, Refusal> {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = method;
        // A part of a target that was one is one, too.
        *request.uri_mut() = target.parse().or(Err(Refusal::NotFound))?;
        *request.headers_mut() = headers.clone();
        match self.0.clone().try_call(request).await {
            Ok(response) => Ok(response),
            Err(error) if is_absent(&error) => {
                let mut response = Response::new(ServeFileSystemResponseBody::default());
                *response.status_mut() = StatusCode::NOT_FOUND;
                Ok(response)
            }
            Err(error) => {
                tracing::warn!(target: "Proxy", %error, path = target, "a file cannot be read");
                Err(Refusal::Unreadable)
            }
        }
    }
}

/// Not there, or not for everybody.
fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound, PermissionDenied};
    matches!(
        error.kind(),
        NotFound | PermissionDenied | NotADirectory | InvalidFilename | InvalidInput
    )
}

//! A question to one server over a connection of its own: for what is asked seldom, and of servers that may be in
//! any state.

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::reply::{self, Reply};
use super::resp;
use super::server::Server;

/// An answer longer than this is none.
const MAX_ANSWER: usize = 32 * 1024 * 1024;

/// Why a server gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error("it closed the connection")]
    Closed,
    #[error("it refused: {0}")]
    Refused(String),
    #[error(transparent)]
    Malformed(#[from] resp::Malformed),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Asks all `questions` at once, and gives the answers in their order. Takes as long as the server lets it:
/// the caller has the clock.
pub(super) async fn ask<const N: usize>(
    server: &Server,
    questions: [&[&str]; N],
) -> Result<[Reply; N], Unanswered> {
    let mut stream = server.dial().await?;
    let mut output = Vec::new();
    let login = server.credentials();
    if let Some(credentials) = &login {
        let words: Vec<_> = ["AUTH"].iter().chain(credentials).copied().collect();
        resp::command(&mut output, words);
    }
    for question in questions {
        resp::command(&mut output, question.iter().copied());
    }
    stream.write_all(&output).await?;
    let mut input = BytesMut::new();
    let wanted = N + usize::from(login.is_some());
    let mut answers = Vec::with_capacity(wanted);
    while answers.len() < wanted {
        match reply::parse(&input)? {
            Some((Reply::Refused(why), _)) => return Err(Unanswered::Refused(why)),
            Some((answer, length)) => {
                input.advance(length);
                answers.push(answer);
            }
            None if input.len() > MAX_ANSWER => return Err(resp::Malformed.into()),
            None if stream.read_buf(&mut input).await? == 0 => return Err(Unanswered::Closed),
            None => {}
        }
    }
    let answers = answers.split_off(wanted - N);
    <[Reply; N]>::try_from(answers).map_err(|_more| resp::Malformed.into())
}

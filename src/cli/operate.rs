//! `status`, `reload`, `drain`, `resume`, `weight` and `process`: an operator's words to a gateway that runs, over its admin listener.
//!
//! The answer is printed as it came, save that the status is put in words. Exit code 0 where the gateway did it, 1 where it refused or cannot be reached, 2
//! where the configuration that it was to take is not valid.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use clap::{Args, Subcommand};
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::status::{StatusArgs, in_words};
use super::{FAILED, MISCONFIGURED, block_on, complain};
use crate::settings::{AdminSettings, Loaded};

/// A gateway on the same machine, or near it; a reload reads a few files.
const PATIENCE: Duration = Duration::from_secs(30);
/// Sixty instances, each with half a minute to start; what was begun goes on beyond it.
const PROCESS_PATIENCE: Duration = Duration::from_mins(30);
/// No answer is longer.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Which backend.
#[derive(Args)]
pub(super) struct Backend {
    /// The region of the backend.
    region: String,
    /// The backend as host:port.
    backend: String,
}

/// Which backend, and how heavy.
#[derive(Args)]
pub(super) struct Weight {
    #[command(flatten)]
    of: Backend,
    /// 0 to 1000, or default for the settings' again.
    value: String,
}

/// Which program of a region, and how many.
#[derive(Args)]
pub(super) struct Scale {
    #[command(flatten)]
    of: Process,
    /// How many instances from now on, until a reload names another number than before.
    count: u16,
}

/// Which program of a region.
#[derive(Args)]
pub(super) struct Process {
    /// The region that it serves.
    region: String,
    /// Its name there.
    process: String,
}

/// What becomes of a program that the gateway runs.
#[derive(Subcommand)]
pub(super) enum OfProcess {
    /// Replace every instance, one after the other, without a request that fails for it.
    Restart(Process),
    /// Stop every instance, after what it has begun.
    Stop(Process),
    /// Start what was stopped; what is in a crash loop is tried at once.
    Start(Process),
    /// Run another number of instances.
    Scale(Scale),
}

impl OfProcess {
    fn path(&self) -> String {
        let of = |process: &Process, verb: &str| {
            let (region, name) = (escaped(&process.region), escaped(&process.process));
            format!("/processes/{region}/{name}/{verb}")
        };
        match self {
            Self::Restart(process) => of(process, "restart"),
            Self::Stop(process) => of(process, "stop"),
            Self::Start(process) => of(process, "start"),
            Self::Scale(Scale { of: process, count }) => {
                of(process, &format!("scale?count={count}"))
            }
        }
    }
}

/// What is said to it.
pub(super) enum Word {
    Status(StatusArgs),
    Reload,
    Drain(Backend),
    Resume(Backend),
    Weight(Weight),
    Process(OfProcess),
}

impl Word {
    fn target(&self) -> (Method, String) {
        let of = |backend: &Backend, verb: &str| {
            let (region, name) = (escaped(&backend.region), escaped(&backend.backend));
            (Method::POST, format!("/backends/{region}/{name}/{verb}"))
        };
        match self {
            Self::Status(_) => (Method::GET, "/status".to_owned()),
            Self::Reload => (Method::POST, "/reload".to_owned()),
            Self::Drain(backend) => of(backend, "drain"),
            Self::Resume(backend) => of(backend, "resume"),
            Self::Process(process) => (Method::POST, process.path()),
            Self::Weight(weight) => {
                let (method, path) = of(&weight.of, "weight");
                (method, format!("{path}?value={}", escaped(&weight.value)))
            }
        }
    }
}

impl Word {
    /// One instance after the other takes its time to start, and to finish what it has begun.
    fn patience(&self) -> Duration {
        if matches!(self, Self::Process(_)) { PROCESS_PATIENCE } else { PATIENCE }
    }
}

/// A piece of a path, whatever was typed.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.extend(['%', hex(byte >> 4), hex(byte & 15)]);
        }
    }
    escaped
}

fn hex(digit: u8) -> char {
    char::from_digit(digit.into(), 16).unwrap_or('0').to_ascii_uppercase()
}

/// Says it to the gateway that these settings describe.
pub(super) fn run(out: &mut impl Write, word: &Word, loaded: &Loaded) -> ExitCode {
    let settings = &loaded.settings.admin;
    let (method, path) = word.target();
    let mut answer = None;
    let code = block_on(async {
        let asked = tokio::time::timeout(word.patience(), ask(settings, method, &path)).await;
        match asked.unwrap_or_else(|_| Err("it does not answer".to_owned())) {
            Ok((status, body)) => {
                let in_words =
                    status.is_success() && matches!(word, Word::Status(args) if !args.json);
                answer = Some(if in_words { worded(&body) } else { pretty(&body) });
                match status {
                    status if status.is_success() => ExitCode::SUCCESS,
                    StatusCode::UNPROCESSABLE_ENTITY => ExitCode::from(MISCONFIGURED),
                    _ => ExitCode::from(FAILED),
                }
            }
            Err(why) => {
                complain(&format!(
                    "no answer from the admin listener at {}: {why}",
                    place(settings)
                ));
                ExitCode::from(FAILED)
            }
        }
    });
    match answer {
        Some(text) => super::answer(out, &text, code),
        None => code,
    }
}

/// Where this machine reaches it.
fn place(settings: &AdminSettings) -> SocketAddr {
    let bind = match settings.bind {
        bind if bind.is_unspecified() && bind.is_ipv4() => [127, 0, 0, 1].into(),
        bind if bind.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        bind => bind,
    };
    SocketAddr::new(bind, settings.port)
}

async fn ask(
    settings: &AdminSettings,
    method: Method,
    path: &str,
) -> Result<(StatusCode, Bytes), String> {
    let place = place(settings);
    let stream = TcpStream::connect(place).await.map_err(|error| error.to_string())?;
    let said = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(said)?;
    let mut request = Request::builder().method(method).uri(path).header(HOST, place.to_string());
    if let Some(token) = &settings.token {
        let bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
        let bearer =
            bearer.map_err(|error| format!("admin.token cannot stand in a header: {error}"))?;
        request = request.header(AUTHORIZATION, bearer);
    }
    let request = request.body(String::new()).map_err(|error| error.to_string())?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(said)?;
        let status = response.status();
        Ok((status, read(response.into_body()).await?))
    };
    tokio::select! {
        answered = answered => answered,
        // Polled for as long as the answer comes.
        () = async { drop(connection.await); std::future::pending::<()>().await } => Err(String::new()),
    }
}

async fn read(mut body: Incoming) -> Result<Bytes, String> {
    let mut whole = BytesMut::new();
    loop {
        let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await;
        let Some(frame) = frame else { return Ok(whole.freeze()) };
        let frame = frame.map_err(|error| error.to_string())?;
        if let Some(data) = frame.data_ref() {
            whole.extend_from_slice(data);
        }
        if whole.len() > MAX_ANSWER {
            return Err("its answer is too long".to_owned());
        }
    }
}

/// The status in words; what is no document, as it came.
fn worded(body: &[u8]) -> String {
    serde_json::from_slice(body).map_or_else(|_| pretty(body), |status| in_words(&status))
}

/// For a person's eyes; a program reads it all the same.
fn pretty(body: &[u8]) -> String {
    let parsed = serde_json::from_slice::<Value>(body);
    let text = parsed.ok().and_then(|value| serde_json::to_string_pretty(&value).ok());
    let mut text = text.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_stays_one_piece_of_the_path() {
        let of = |backend: &str| Backend { region: "1".to_owned(), backend: backend.to_owned() };
        assert_eq!(Word::Drain(of("[::1]:80")).target().1, "/backends/1/%5B%3A%3A1%5D%3A80/drain");
        assert_eq!(Word::Resume(of("../x?y")).target().1, "/backends/1/..%2Fx%3Fy/resume");
        let weight = Weight { of: of("a:1"), value: "5&x".to_owned() };
        assert_eq!(Word::Weight(weight).target().1, "/backends/1/a%3A1/weight?value=5%26x");
    }

    #[test]
    fn a_program_is_named_by_its_region_and_name() {
        let of = || Process { region: "eu/1".to_owned(), process: "web".to_owned() };
        let path = |word| Word::Process(word).target().1;
        assert_eq!(path(OfProcess::Restart(of())), "/processes/eu%2F1/web/restart");
        let scale = Scale { of: of(), count: 4 };
        assert_eq!(path(OfProcess::Scale(scale)), "/processes/eu%2F1/web/scale?count=4");
    }
}

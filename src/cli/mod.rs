//! The command line: what was typed becomes load options, the outcome an exit code.
//!
//! `send` and `chat` are clients of a gateway, here or elsewhere; the configuration only says where it is.
//!
//! One hidden command is for this program alone: the guards of supervised processes are started with it.
//!
//! Exit codes: 0 it went well, 1 it failed while running, 2 the arguments or the configuration are wrong.
//! Results go to standard output, problems to standard error.

mod chat;
mod check;
mod input;
mod operate;
mod print_config;
mod send;
mod serve;
mod status;
mod target;
mod wording;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::operate::Word;
use crate::settings::{self, LoadOptions, Loaded};
use crate::supervise;

/// It failed while running.
const FAILED: u8 = 1;
/// The arguments or the configuration are wrong.
const MISCONFIGURED: u8 = 2;

/// A gateway for applications in several regions: routes HTTP by region and carries chat between users.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    sources: Sources,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway (the default).
    Serve,
    /// Say whether the configuration is valid, or everything that is wrong with it.
    Check(check::CheckArgs),
    /// Print the effective settings as TOML, each value with its source; secrets are hidden.
    PrintConfig,
    /// Print how a gateway that runs stands, and why.
    Status(status::StatusArgs),
    /// Have a gateway that runs read its configuration again, and apply what changed.
    Reload,
    /// Give a backend nothing new; what is open there is finished.
    Drain(operate::Backend),
    /// Give a drained backend requests again.
    Resume(operate::Backend),
    /// Set the weight of a backend, until it is set back to default.
    Weight(operate::Weight),
    /// Restart, stop, start or scale a program that a gateway runs.
    #[command(subcommand)]
    Process(operate::OfProcess),
    /// Send a message, or each line of standard input, to a user; ends well when all is acknowledged.
    Send(send::SendArgs),
    /// Talk with a user in the terminal, or over pipes.
    Chat(chat::ChatArgs),
}

/// What every command takes, before or after its name.
#[derive(Debug, clap::Args)]
struct Sources {
    /// The folder with default.toml, development.toml and production.toml [default: config].
    #[arg(long, value_name = "DIR", global = true)]
    config: Option<PathBuf>,
    /// Set any key, as `hub.ping_interval=10s`; wins over files and variables.
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    set: Vec<String>,
    /// Start only these parts: proxy, hub-REGION, api, demo; repeated or with commas. The admin
    /// listener always runs.
    #[arg(long, value_name = "PART", global = true)]
    only: Vec<String>,
    /// Serve TLS with a certificate for localhost, of an authority that is made for this machine (as tls.dev=true).
    #[arg(long, global = true)]
    tls_dev: bool,
    /// Read the configuration again whenever one of its files has changed (as reload.watch=true).
    #[arg(long, global = true)]
    watch: bool,
}

/// Reads the arguments of this process, does what they say, and gives its exit code.
pub fn run() -> ExitCode {
    if let Some(code) = supervise::guard::run(std::env::args_os()) {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` arrive here too, with code 0. Where even this cannot be
            // written, the exit code still tells.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(MISCONFIGURED));
        }
    };
    let Sources { config, mut set, only, tls_dev, watch } = cli.sources;
    if tls_dev {
        set.push("tls.dev=true".to_owned());
    }
    if watch {
        set.push("reload.watch=true".to_owned());
    }
    let options = LoadOptions { config, set, only, ..LoadOptions::from_process() };
    match (cli.command.unwrap_or(Command::Serve), settings::load(&options)) {
        (Command::Check(args), outcome) => {
            check::run(&mut io::stdout(), &mut io::stderr(), &args, &outcome)
        }
        (_, Err(errors)) => {
            complain(&format!("the configuration is not valid:\n{errors}"));
            ExitCode::from(MISCONFIGURED)
        }
        (Command::Serve, Ok(loaded)) => match check::files(&loaded) {
            Ok(()) => serve::run(options, loaded),
            Err(errors) => {
                complain(&format!("the configuration is not valid:\n{errors}"));
                ExitCode::from(MISCONFIGURED)
            }
        },
        (Command::PrintConfig, Ok(loaded)) => print_config::run(&mut io::stdout(), &loaded),
        (Command::Status(args), Ok(loaded)) => said(&Word::Status(args), &loaded),
        (Command::Reload, Ok(loaded)) => said(&Word::Reload, &loaded),
        (Command::Drain(backend), Ok(loaded)) => said(&Word::Drain(backend), &loaded),
        (Command::Resume(backend), Ok(loaded)) => said(&Word::Resume(backend), &loaded),
        (Command::Weight(weight), Ok(loaded)) => said(&Word::Weight(weight), &loaded),
        (Command::Process(process), Ok(loaded)) => said(&Word::Process(process), &loaded),
        (Command::Send(args), Ok(loaded)) => send::run(args, &loaded),
        (Command::Chat(args), Ok(loaded)) => chat::run(args, &loaded),
    }
}

/// Says a word to a gateway that runs.
fn said(word: &Word, loaded: &Loaded) -> ExitCode {
    operate::run(&mut io::stdout(), word, loaded)
}

/// Runs a client to its end.
fn block_on(client: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("the runtime cannot be started: {error}"));
            return ExitCode::from(FAILED);
        }
    };
    let code = runtime.block_on(client);
    // Dropped, it would wait for a name that is being looked up.
    runtime.shutdown_background();
    code
}

/// Writes a result, and gives `code` where that went well.
fn answer(out: &mut impl Write, text: &str, code: ExitCode) -> ExitCode {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // A reader that stops reading early, as `head` does, has what it wanted.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format!("the result cannot be written: {error}"));
            ExitCode::from(FAILED)
        }
        _ => code,
    }
}

/// A line on standard error, for what is wrong before there is a log or after it is gone.
fn complain(text: &str) {
    // Nobody is left to tell if standard error is gone too.
    drop(writeln!(io::stderr(), "meridian: {text}"));
}

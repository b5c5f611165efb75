//! Log lines: `[<RFC 3339>] [INFO] [Proxy] GET /x 200 - 2ms`, or one JSON object each.
//!
//! Lines go through a bounded queue to a thread that writes them in batches, so that a slow standard
//! error never holds a request up; what does not fit is dropped, and the count of it is said at the end.
//! The part a line is from is the event's `target`: `target: "Proxy"` and so on.

use std::fmt;
use std::io::{BufWriter, Write as _, stderr};
use std::time::SystemTime;

use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::settings::{LogFormat, LogLevel, LogSettings};

/// Keeps the writer alive; when dropped, what is queued is written out.
#[derive(Debug)]
pub struct LogGuard {
    worker: Option<WorkerGuard>,
    dropped: ErrorCounter,
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let dropped = self.dropped.dropped_lines();
        self.worker.take();
        if dropped > 0 {
            // Nobody is left to tell if standard error is gone too.
            drop(writeln!(
                stderr(),
                "{dropped} log lines were dropped because standard error was too slow"
            ));
        }
    }
}

/// Installs the process-wide log. Only the first call has an effect; a test process may call it often.
pub fn install(settings: &LogSettings) -> LogGuard {
    let (writer, worker) = NonBlockingBuilder::default()
        .lossy(true)
        .finish(BufWriter::with_capacity(64 * 1024, stderr()));
    let dropped = writer.error_counter();
    let level = match settings.level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    let builder = tracing_subscriber::fmt().with_writer(writer).with_max_level(level);
    let installed = match settings.format {
        LogFormat::Text => {
            tracing::subscriber::set_global_default(builder.event_format(TextLine).finish())
        }
        LogFormat::Json => tracing::subscriber::set_global_default(
            builder.fmt_fields(JsonFields::new()).event_format(JsonLine).finish(),
        ),
    };
    drop(installed);
    LogGuard { worker: Some(worker), dropped }
}

struct TextLine;

impl<S, N> FormatEvent<S, N> for TextLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        let metadata = event.metadata();
        write!(writer, "[{now}] [{}] [{}] ", metadata.level(), metadata.target())?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        let metadata = event.metadata();
        let mut fields = String::new();
        context.format_fields(Writer::new(&mut fields), event)?;
        write!(
            writer,
            r#"{{"timestamp":"{now}","level":"{}","component":"{}","fields":{fields}}}"#,
            metadata.level(),
            metadata.target()
        )?;
        writeln!(writer)
    }
}

//! How much is logged, which an operator may change while the process runs.
//!
//! A layer whose verdict depends on nothing but where a line is written, so that it is asked once for each such place
//! and its answer kept; a change has everything asked anew. What is off costs what it cost when this was fixed at the start.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::settings::{LogLevel, LogSettings};

/// The switches; clones are the same ones.
#[derive(Clone, Debug)]
pub struct Verbosity(Arc<Switches>);

#[derive(Debug)]
struct Switches {
    level: AtomicU8,
}

impl Verbosity {
    pub(super) fn new(settings: &LogSettings) -> Self {
        Self(Arc::new(Switches { level: AtomicU8::new(place(settings.level)) }))
    }

    /// Applies `log.level` from the next line on.
    pub fn set(&self, settings: &LogSettings) {
        self.0.level.store(place(settings.level), Ordering::Relaxed);
        tracing::callsite::rebuild_interest_cache();
    }

    fn level(&self) -> LevelFilter {
        match self.0.level.load(Ordering::Relaxed) {
            0 => LevelFilter::ERROR,
            1 => LevelFilter::WARN,
            2 => LevelFilter::INFO,
            3 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        }
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level()
    }
}

fn place(level: LogLevel) -> u8 {
    match level {
        LogLevel::Error => 0,
        LogLevel::Warn => 1,
        LogLevel::Info => 2,
        LogLevel::Debug => 3,
        LogLevel::Trace => 4,
    }
}

impl<S: Subscriber> Layer<S> for Verbosity {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::settings::LogFormat;

    /// Keeps what is logged.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<&'static str>>>);

    impl<S: Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(event.metadata().level().as_str());
        }
    }

    #[test]
    fn a_change_counts_from_the_next_line_on() {
        let said = |level| LogSettings { level, format: LogFormat::Text, access: true };
        let verbosity = Verbosity::new(&said(LogLevel::Warn));
        let kept = Kept::default();
        let subscriber = tracing_subscriber::registry().with(kept.clone()).with(verbosity.clone());
        tracing::subscriber::with_default(subscriber, || {
            let lines = || {
                tracing::warn!(target: "T", "one");
                tracing::debug!(target: "T", "two");
                tracing::info!(target: "T", "three");
                std::mem::take(&mut *kept.0.lock().unwrap())
            };
            assert_eq!(lines(), ["WARN"]);
            verbosity.set(&said(LogLevel::Debug));
            assert_eq!(lines(), ["WARN", "DEBUG", "INFO"]);
            verbosity.set(&said(LogLevel::Error));
            assert_eq!(lines(), [""; 0]);
        });
    }
}

//! Events counted within the process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::lock;
use crate::bus::draw::Draw;
use crate::rate::{Drawn, Table};

/// Keys that are remembered for each limit.
const MOST: usize = 1_000_000;

/// A table for each limit; there are as many as the configuration names.
pub(super) struct Draws {
    tables: Mutex<HashMap<Box<str>, Arc<Table>>>,
    started: Instant,
}

impl Draws {
    pub(super) fn new() -> Self {
        Self { tables: Mutex::default(), started: Instant::now() }
    }

    pub(super) fn take(&self, draw: Draw<'_>) -> Drawn {
        self.table(&draw).take(draw.key, self.started.elapsed())
    }

    /// The table of a limit; a new one where its rate is another than before.
    fn table(&self, draw: &Draw<'_>) -> Arc<Table> {
        let mut tables = lock(&self.tables);
        if let Some(table) = tables.get(draw.limit).filter(|table| table.rate() == draw.rate) {
            return Arc::clone(table);
        }
        let table = Arc::new(Table::new(*draw.rate, MOST));
        tables.insert(Box::from(draw.limit), Arc::clone(&table));
        table
    }
}

//! The table that a chaos run prints: a line for each fault.

use std::fmt::Write as _;
use std::time::Duration;

use super::ledger::Account;

/// Whether a fault may take something away for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Losses {
    /// Redis keeps its data: nobody is told of a loss, since there is none.
    Never,
    /// Acknowledged writes go, and everybody concerned is told.
    Told,
}

/// What one fault did.
pub(crate) struct Line {
    pub(crate) fault: &'static str,
    pub(crate) losses: Losses,
    pub(crate) account: Account,
    pub(crate) reconnects: u64,
    /// From the end of the fault until every pair had a fresh message through, both ways.
    pub(crate) recovery: Duration,
    /// What each node said.
    pub(crate) logs: Vec<String>,
}

impl Line {
    /// What must be zero is zero, and a loss was told where there was one, and nowhere else.
    pub(crate) fn is_clean(&self) -> bool {
        let told = self.account.told > 0;
        self.account.is_clean() && told == (self.losses == Losses::Told)
    }
}

/// The table, its columns in the order of the promises.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut table = format!(
        "{:<20} {:>8} {:>12} {:>9} {:>5} {:>7} {:>10} {:>13} {:>7} {:>9} {:>8} {:>10} {:>9}  {}\n",
        "fault",
        "sent",
        "acknowledged",
        "delivered",
        "lost",
        "doubled",
        "disordered",
        "false resumes",
        "resets",
        "told lost",
        "repeats",
        "reconnects",
        "recovery",
        "verdict"
    );
    for line in lines {
        let account = &line.account;
        writeln!(
            table,
            "{:<20} {:>8} {:>12} {:>9} {:>5} {:>7} {:>10} {:>13} {:>7} {:>9} {:>8} {:>10} {:>7.2} s  {}",
            line.fault,
            account.sent,
            account.acknowledged,
            account.delivered,
            account.lost,
            account.doubled,
            account.disordered,
            account.resumed_wrongly,
            account.told,
            account.told_lost,
            account.repeats,
            line.reconnects,
            line.recovery.as_secs_f64(),
            if line.is_clean() { "ok" } else { "FAILED" },
        )
        .unwrap();
        if !line.is_clean() {
            table += &account.explain();
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(losses: Losses, account: Account) -> Line {
        let recovery = Duration::from_millis(1500);
        Line { fault: "x", losses, account, reconnects: 0, recovery, logs: Vec::new() }
    }

    #[test]
    fn a_loss_is_told_where_there_was_one_and_nowhere_else() {
        let account = Account { told: 1, ..Account::default() };
        assert!(line(Losses::Told, account.clone()).is_clean());
        assert!(!line(Losses::Never, account).is_clean());
        assert!(line(Losses::Never, Account::default()).is_clean());
        assert!(!line(Losses::Told, Account::default()).is_clean());
        let lost = Account { lost: 1, told: 1, ..Account::default() };
        assert!(!line(Losses::Told, lost).is_clean());
    }

    #[test]
    fn the_table_shows_what_failed() {
        let words = vec!["Lost: it".to_owned()];
        let lost = Account { lost: 1, words, ..Account::default() };
        let table = table(&[line(Losses::Never, Account::default()), line(Losses::Told, lost)]);
        assert_eq!(table.lines().count(), 4, "{table}");
        assert!(table.contains("1.50 s  ok") && table.contains("1.50 s  FAILED"), "{table}");
        assert!(table.contains("    Lost: it"), "{table}");
    }
}

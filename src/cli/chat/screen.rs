//! The last row of a terminal, where a line is being typed, and the conversation that scrolls above it.
//!
//! Invariants: the row that is typed in is never wider than the terminal, so that one row is all that has to be erased
//! before a line is printed; everything of one change is written at once.

use std::io::{self, Write};

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::editor::Editor;

/// Erases the row of the cursor.
const ERASE: &str = "\r\x1b[K";

/// Columns of the typed text that are seen at least.
const LEAST: usize = 8;

/// Prints `lines` above the row that is typed in, and draws that anew.
pub(super) fn draw(
    out: &mut impl Write,
    lines: Option<&str>,
    prompt: &str,
    editor: &Editor,
    columns: usize,
) -> io::Result<()> {
    let mut change = String::from(ERASE);
    if let Some(lines) = lines {
        change.push_str(lines);
        change.push('\n');
    }
    change.push_str(&row(prompt, editor, columns));
    out.write_all(change.as_bytes())?;
    out.flush()
}

/// Leaves the terminal with an empty row.
pub(super) fn erase(out: &mut impl Write) -> io::Result<()> {
    out.write_all(ERASE.as_bytes())?;
    out.flush()
}

/// The prompt, the part of the text around the cursor that there is room for, and the cursor at its place.
fn row(prompt: &str, editor: &Editor, columns: usize) -> String {
    // The last column stays free: in it, terminals differ about where the cursor is.
    let columns = columns.saturating_sub(1).max(LEAST);
    let prompt = fitting(prompt, columns.saturating_sub(LEAST));
    let room = columns.saturating_sub(prompt.width());
    let before = editor.text().iter().take(editor.cursor());
    let mut used = 0;
    let shown = before
        .clone()
        .rev()
        .take_while(|character| {
            used += width(**character);
            used <= room
        })
        .count();
    let begin = editor.cursor().saturating_sub(shown);
    let mut used = 0;
    let text: String = editor
        .text()
        .iter()
        .skip(begin)
        .take_while(|character| {
            used += width(**character);
            used <= room
        })
        .collect();
    let cursor =
        prompt.width() + before.skip(begin).map(|character| width(*character)).sum::<usize>();
    let back = if cursor == 0 { "\r".to_owned() } else { format!("\r\x1b[{cursor}C") };
    format!("{prompt}{text}{back}")
}

/// As much of the end of `text` as fits: there the recipient stands.
fn fitting(text: &str, columns: usize) -> String {
    let mut used = 0;
    let kept = text
        .chars()
        .rev()
        .take_while(|character| {
            used += width(*character);
            used <= columns
        })
        .count();
    text.chars().skip(text.chars().count().saturating_sub(kept)).collect()
}

fn width(character: char) -> usize {
    character.width().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn typed(text: &str) -> Editor {
        let mut editor = Editor::default();
        for byte in text.bytes() {
            editor.push(byte);
        }
        editor
    }

    #[test]
    fn a_line_is_printed_above_what_is_typed() {
        let mut out = Vec::new();
        draw(&mut out, Some("bob: hi"), "bob> ", &typed("hal\x02"), 80).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "\r\x1b[Kbob: hi\nbob> hal\r\x1b[7C");
    }

    #[test]
    fn a_long_line_shows_the_part_around_the_cursor() {
        assert_eq!(row("> ", &typed("0123456789"), 13), "> 0123456789\r\x1b[12C");
        assert_eq!(row("> ", &typed("0123456789ab"), 13), "> 23456789ab\r\x1b[12C");
        assert_eq!(row("> ", &typed("0123456789ab\x01"), 13), "> 0123456789\r\x1b[2C");
        assert_eq!(row("> ", &typed("世界世界世界"), 13), "> 界世界世界\r\x1b[12C");
        assert_eq!(row("somebody> ", &typed("x"), 4), "x\r\x1b[1C");
    }

    proptest! {
        #[test]
        fn the_row_is_never_wider_than_the_terminal(
            prompt in "[a-z世 ]{0,40}> ", text in "[a-zé界\x01\x02\x06]{0,60}", columns in 10..60_usize,
        ) {
            let row = row(&prompt, &typed(&text), columns);
            let (shown, place) = row.split_once('\r').unwrap();
            prop_assert!(shown.width() < columns, "{shown}");
            let cursor = place.trim_start_matches("\x1b[").trim_end_matches('C').parse().unwrap_or(0);
            prop_assert!(cursor <= shown.width());
        }
    }
}

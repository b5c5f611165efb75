//! What others wrote, as a terminal may show it, and the lines that are made of it. Pure.
//!
//! Invariant: nothing that came from the wire reaches the output with a character that a terminal obeys, or that
//! changes the order in which the rest is read: a sender must not be able to move the cursor, set the title, or make
//! one's own words look like another's.

use std::time::{Duration, SystemTime};

use crate::client::Message;

/// One line of text: what would end the line is made visible.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(visible).collect()
}

/// Text of several lines, the later ones set in, so that none looks like the beginning of a message.
pub(super) fn indented(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let lines: Vec<String> = text.split('\n').map(one_line).collect();
    lines.join("\n    ")
}

/// A character that can be shown, for every one that would do something.
fn visible(character: char) -> char {
    match character {
        '\t' => ' ',
        // The pictures of the control characters.
        '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(character)).unwrap_or('\u{fffd}'),
        '\x7f' => '\u{2421}',
        // The second set of controls; marks and overrides of direction; separators of lines; the invisible
        // characters of U+E0000, in which text can be hidden.
        '\u{80}'..='\u{9f}'
        | '\u{61c}'
        | '\u{200e}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}'
        | '\u{e0000}'..='\u{e007f}' => '\u{fffd}',
        other => other,
    }
}

/// What a message says; `lines` where it may take several.
pub(super) fn content(text: Option<&str>, data: Option<&str>, lines: bool) -> String {
    let shown = |text: &str| if lines { indented(text) } else { one_line(text) };
    let parts: Vec<String> = [text, data].into_iter().flatten().map(shown).collect();
    parts.join(" ")
}

/// A message that came, as a line of the conversation; `earlier` where it was sent before the conversation began.
pub(super) fn received(message: &Message, earlier: bool, lines: bool) -> String {
    let data = message.data.as_ref().map(|data| data.get());
    let words = content(message.text.as_deref(), data, lines);
    let from = one_line(&message.from);
    match message.taken_ms().filter(|_| earlier) {
        Some(at) => {
            let at = SystemTime::UNIX_EPOCH + Duration::from_millis(at);
            format!("{from} (earlier, {}): {words}", moment(at))
        }
        None => format!("{from}: {words}"),
    }
}

/// A moment to the minute; in UTC, since the process need not know where its reader is.
pub(super) fn moment(at: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(at).to_string();
    let (date, time) = text.split_once('T').unwrap_or((&text, ""));
    format!("{date} {} UTC", time.get(..5).unwrap_or(time))
}

/// `1 message`, `2 messages`
pub(super) fn messages(count: usize) -> String {
    format!("{count} message{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_only_shown() {
        assert_eq!(one_line("\x1b]0;evil\x07\x1b[2J"), "␛]0;evil␇␛[2J");
        assert_eq!(one_line("a\tb\r\n\x7f\u{9b}31m"), "a b␍␊␡\u{fffd}31m");
        assert_eq!(one_line("\u{202e}live\u{2069}"), "\u{fffd}live\u{fffd}");
        assert_eq!(one_line("Grüße, 世界 👩‍👩‍👧"), "Grüße, 世界 👩‍👩‍👧");
        assert_eq!(indented("one\r\nbob: two\nthree"), "one\n    bob: two\n    three");
    }

    #[test]
    fn moments_are_to_the_minute() {
        let at = humantime::parse_rfc3339("2026-11-21T09:30:59Z").unwrap();
        assert_eq!(moment(at), "2026-11-21 09:30 UTC");
    }

    proptest! {
        #[test]
        fn no_text_brings_a_control_character(text in any::<String>()) {
            let safe = |text: &str| !text.chars().any(char::is_control);
            prop_assert!(safe(&one_line(&text)));
            prop_assert!(indented(&text).split('\n').all(safe));
        }
    }
}

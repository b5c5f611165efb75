//! The file `.env` of the working folder: variables, without putting them into the process.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use super::{Gathered, files};

/// The variables of `.env`; of a name that stands there twice, the later. Broken lines are problems.
pub(super) fn read(folder: &Path, gathered: &mut Gathered) -> BTreeMap<String, String> {
    match files::read_bounded(&folder.join(".env")) {
        Ok(None) => BTreeMap::new(),
        Ok(Some(text)) => parse(&text, gathered),
        Err(message) => {
            gathered.incomplete = true;
            gathered.problem(".env", "", message);
            BTreeMap::new()
        }
    }
}

fn parse(text: &str, gathered: &mut Gathered) -> BTreeMap<String, String> {
    let mut text = text.trim_start_matches('\u{feff}').to_owned();
    // Without it, the reader takes a space at the very end for an unfinished value.
    text.push('\n');
    let line = Cell::new(0);
    let lines = Lines { rest: text.as_bytes(), line: &line };
    let mut variables = BTreeMap::new();
    for item in dotenvy::Iter::new(lines) {
        match item {
            Ok((name, value)) => drop(variables.insert(name, value)),
            Err(dotenvy::Error::LineParse(statement, _)) => {
                // The text itself may be half a password. A statement over several lines is an open
                // quote: where it began is what helps.
                let first = (line.get() + 1).saturating_sub(statement.lines().count().max(1));
                let message = format!(
                    "line {first}: it is not NAME=value; quote a value that has spaces, quotes or $"
                );
                gathered.problem(".env", "", message);
            }
            Err(error) => gathered.problem(".env", "", error.to_string()),
        }
    }
    variables
}

/// Gives out one line at each read, so that its number is known when the parser refuses it.
struct Lines<'a> {
    rest: &'a [u8],
    line: &'a Cell<usize>,
}

impl Read for Lines<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let end = memchr::memchr(b'\n', self.rest).map_or(self.rest.len(), |at| at + 1);
        let size = end.min(buffer.len());
        let (Some(now), Some(target), Some(rest)) =
            (self.rest.get(..size), buffer.get_mut(..size), self.rest.get(size..))
        else {
            return Ok(0);
        };
        target.copy_from_slice(now);
        self.rest = rest;
        if now.ends_with(b"\n") {
            self.line.set(self.line.get() + 1);
        }
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_each_broken_line_is_numbered() {
        let mut gathered = Gathered::default();
        let text = "\u{feff}# a comment\nA=1\nnonsense\n\nexport B='two words' # why\nC=x y\nA=3 ";
        let variables = parse(text, &mut gathered);
        assert_eq!(variables.get("A").unwrap(), "3");
        assert_eq!(variables.get("B").unwrap(), "two words");
        let said: Vec<_> = gathered.problems.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with(".env: line 3: "), "{said:?}");
        assert!(said[1].starts_with(".env: line 6: "), "{said:?}");
    }

    #[test]
    fn an_open_quote_is_found_where_it_began_and_not_repeated() {
        let mut gathered = Gathered::default();
        parse("A=1\nREDIS_PASSWORD='geheim\nB=2\nC=3\n", &mut gathered);
        let said: Vec<_> = gathered.problems.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with(".env: line 2: "), "{said:?}");
        assert!(!said[0].contains("geheim"));
    }
}

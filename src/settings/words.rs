//! One text into words by the rules of quoting of POSIX shells (2.2), and by no other rule of theirs.
//!
//! What a shell would do with a character that is not quoted (a pipe, a variable, a pattern) is not done, so such a text
//! is refused instead of being misunderstood.

/// Why a text is not a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WordsError {
    #[error("a quote is not closed")]
    Open,
    #[error("`{0}` has no meaning without a shell; quote it")]
    Shell(char),
}

/// What only a shell understands.
const OF_THE_SHELL: &str = "|&;<>()$`*?~\n";

/// The words of `text`.
pub(super) fn split(text: &str) -> Result<Vec<String>, WordsError> {
    let mut words = Vec::new();
    // Some as soon as a word has begun, which may be an empty one in quotes.
    let mut word: Option<String> = None;
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        match next {
            ' ' | '\t' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next().ok_or(WordsError::Open)? {
                        '\'' => break,
                        inside => word.push(inside),
                    }
                }
            }
            '"' => double(&mut rest, word.get_or_insert_default())?,
            '\\' => word.get_or_insert_default().push(rest.next().ok_or(WordsError::Open)?),
            other if OF_THE_SHELL.contains(other) => return Err(WordsError::Shell(other)),
            '#' if word.is_none() => return Err(WordsError::Shell('#')),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

/// The rest of a text in double quotes.
fn double(rest: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), WordsError> {
    loop {
        match rest.next().ok_or(WordsError::Open)? {
            '"' => return Ok(()),
            '\\' => match rest.next().ok_or(WordsError::Open)? {
                escaped @ ('"' | '\\' | '$' | '`') => word.push(escaped),
                other => word.extend(['\\', other]),
            },
            of_the_shell @ ('$' | '`') => return Err(WordsError::Shell(of_the_shell)),
            inside => word.push(inside),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quotes_group_and_vanish() {
        let words = |text: &str| split(text).unwrap();
        assert_eq!(words("node server.js"), ["node", "server.js"]);
        assert_eq!(words("  a\t 'b c'\"d e\"f  "), ["a", "b cd ef"]);
        assert_eq!(words(r#"'' "" \  x\"y"#), ["", "", " ", "x\"y"]);
        assert_eq!(words(r#""a\"b\\c\n\$" '$x|\'"#), [r#"a"b\c\n$"#, r"$x|\"]);
        assert_eq!(words("a#b"), ["a#b"]);
        assert_eq!(words(" "), [""; 0]);
    }

    #[test]
    fn what_needs_a_shell_is_refused() {
        for text in ["a | b", "a $B", "\"$B\"", "a;b", "a > b", "*.js", "a # b", "~/a"] {
            assert!(matches!(split(text), Err(WordsError::Shell(_))), "{text}");
        }
        for text in ["'a", "\"a", "a\\", "\"a\\"] {
            assert_eq!(split(text), Err(WordsError::Open), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_quoted_comes_back(given in proptest::collection::vec("[^']{0,8}", 1..5)) {
            let text = format!("'{}'", given.join("' '"));
            prop_assert_eq!(split(&text).unwrap(), given);
        }
    }
}

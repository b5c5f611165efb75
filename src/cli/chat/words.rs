//! What a typed line asks for. Pure.

use crate::cli::target;

/// What a person may say to `chat`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Words {
    /// Nothing was typed.
    Nothing,
    /// To be sent to whom one is talking with.
    Say(String),
    /// Talk with this user from now on.
    To(String),
    Help,
    Quit,
    /// Nothing that could be done; with what to do instead.
    Wrong(String),
}

/// What `/help` says.
pub(super) const HELP: &str = "\
-- /to USER   write to this user from now on
-- /quit      end, when everything is acknowledged (Ctrl-C: at once)
-- //TEXT     send a text that begins with /";

/// Reads a line.
pub(super) fn read(line: &str) -> Words {
    let Some(rest) = line.strip_prefix('/') else {
        return if line.trim().is_empty() { Words::Nothing } else { Words::Say(line.to_owned()) };
    };
    if rest.starts_with('/') {
        return Words::Say(rest.to_owned());
    }
    let (name, argument) = rest.split_once(' ').unwrap_or((rest, ""));
    match (name, argument.trim()) {
        ("quit" | "exit", "") => Words::Quit,
        ("help", "") => Words::Help,
        ("to", "") => Words::Wrong("say to whom, as in /to bob".to_owned()),
        ("to", user) => target::user(user).map_or_else(Words::Wrong, Words::To),
        _ => Words::Wrong(format!("there is no /{name} like that; /help says what there is")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let say = |text: &str| Words::Say(text.to_owned());
        assert_eq!(read(" "), Words::Nothing);
        assert_eq!(read(" hi "), say(" hi "));
        assert_eq!(read("//etc"), say("/etc"));
        assert_eq!(read("/to  carol "), Words::To("carol".into()));
        assert_eq!((read("/quit"), read("/help")), (Words::Quit, Words::Help));
        for wrong in ["/to", "/to a b", "/quit now", "/nonsense", "/"] {
            assert!(matches!(read(wrong), Words::Wrong(_)), "{wrong}");
        }
    }
}

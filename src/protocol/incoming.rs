//! What clients send: text in, a checked frame or one fault out.
//!
//! How fields are taken out of a frame is the business of `fields`; here they are held against the rules.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::fields::{self, Fields, Flaw, LONE_SURROGATE, string};
use super::{Code, is_user};

/// How deep `data` may be nested: the whole frame is then as deep as parsers that stop at 128 levels still
/// read. One that a recipient cannot read would come back to him with each resume.
const MAX_DEPTH: usize = 126;

/// A frame that may be acted on.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientFrame<'a> {
    Message(Draft<'a>),
    Typing {
        to: Cow<'a, str>,
    },
    /// Whose presence is asked for, and followed from then on; bounded by the frame alone.
    Presence {
        users: Vec<Cow<'a, str>>,
    },
    Ping,
}

/// A message that one user wants to send; every part within its bounds.
#[derive(Debug, PartialEq, Eq)]
pub struct Draft<'a> {
    pub to: Cow<'a, str>,
    pub id: Option<Cow<'a, str>>,
    /// A JSON string, quotes and escapes as the sender wrote them.
    pub text: Option<&'a str>,
    /// Any JSON value.
    pub data: Option<&'a str>,
}

/// Why a frame is answered with an error.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault<'a> {
    pub code: Code,
    /// What the sender should do; needs no escape in JSON.
    pub advice: &'static str,
    /// The frame's valid id, where it had one.
    pub id: Option<Cow<'a, str>>,
}

const TOO_DEEP: Flaw =
    Flaw { code: Code::BadFrame, advice: "data may be nested at most 126 levels deep" };

const NO_LIST: Flaw = Flaw {
    code: Code::BadFrame,
    advice: "users is a list of users; an empty one ends what an earlier one began",
};

const NO_USER: Flaw = Flaw {
    code: Code::UserInvalid,
    advice: "each of users is 1 to 128 visible ASCII characters, without { and }",
};

/// Reads one text frame. `max_text` bounds `text` (decoded) and `data` (as written) together, in bytes.
pub fn parse(frame: &str, max_text: usize) -> Result<ClientFrame<'_>, Fault<'_>> {
    let fields: Fields<'_> = serde_json::from_str(frame).map_err(|_unread| unread(frame))?;
    let (id, id_is_valid) = fields.id();
    match checked(&fields, id_is_valid, max_text) {
        Ok(Checked::Message { to, text, data }) => {
            Ok(ClientFrame::Message(Draft { to, id, text, data }))
        }
        Ok(Checked::Typing { to }) => Ok(ClientFrame::Typing { to }),
        Ok(Checked::Presence { users }) => Ok(ClientFrame::Presence { users }),
        Ok(Checked::Ping) => Ok(ClientFrame::Ping),
        Err(Flaw { code, advice }) => Err(Fault { code, advice, id }),
    }
}

/// What is wrong with a frame that is no object of fields.
#[cold]
fn unread(frame: &str) -> Fault<'_> {
    let Flaw { code, advice } =
        fields::flaw(frame, Code::BadJson.advice(), Code::BadFrame.advice());
    Fault { code, advice, id: None }
}

/// A frame without its id, which errors need as well.
enum Checked<'a> {
    Message { to: Cow<'a, str>, text: Option<&'a str>, data: Option<&'a str> },
    Typing { to: Cow<'a, str> },
    Presence { users: Vec<Cow<'a, str>> },
    Ping,
}

fn checked<'a>(
    fields: &Fields<'a>,
    id_is_valid: bool,
    max_text: usize,
) -> Result<Checked<'a>, Flaw> {
    let kind = string(fields.kind.ok_or(Code::BadFrame)?)?;
    match kind.as_ref() {
        "message" => {
            let to = user(fields.to)?;
            if !id_is_valid {
                return Err(Code::IdInvalid.into());
            }
            let (text, data) = content(fields.text, fields.data, max_text)?;
            Ok(Checked::Message { to, text, data })
        }
        "typing" => Ok(Checked::Typing { to: user(fields.to)? }),
        "presence" => Ok(Checked::Presence { users: users(fields.users)? }),
        "ping" => Ok(Checked::Ping),
        _ => Err(Code::UnknownType.into()),
    }
}

fn user(raw: Option<&RawValue>) -> Result<Cow<'_, str>, Code> {
    let user = string(raw.ok_or(Code::UserInvalid)?).map_err(|_no_string| Code::UserInvalid)?;
    if is_user(&user) { Ok(user) } else { Err(Code::UserInvalid) }
}

fn users(raw: Option<&RawValue>) -> Result<Vec<Cow<'_, str>>, Flaw> {
    let raw = raw.ok_or(NO_LIST)?;
    let users: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_no_list| NO_LIST)?;
    users.into_iter().map(|raw| user(Some(raw)).map_err(|_code| NO_USER)).collect()
}

pub(super) type Content<'a> = (Option<&'a str>, Option<&'a str>);

pub(super) fn content<'a>(
    text: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
    max_text: usize,
) -> Result<Content<'a>, Flaw> {
    let text = text.filter(|text| text.get() != "null");
    let decoded = text.map(string).transpose()?;
    let text_bytes = decoded.map_or(0, |text| text.len());
    let data = data.map(RawValue::get);
    let data_bytes = data.map_or(0, str::len);
    if text_bytes == 0 && data.is_none() {
        return Err(Code::TextEmpty.into());
    }
    if text_bytes.saturating_add(data_bytes) > max_text {
        return Err(Code::TextTooLong.into());
    }
    if data.is_some_and(is_too_deep) {
        return Err(TOO_DEEP);
    }
    if data.is_some_and(has_lone_surrogate) {
        return Err(LONE_SURROGATE);
    }
    Ok((text.map(RawValue::get), data))
}

/// Whether the JSON value `json` is nested deeper than [`MAX_DEPTH`].
fn is_too_deep(json: &str) -> bool {
    // This settles it for nearly all.
    if opening_brackets(json) <= MAX_DEPTH {
        return false;
    }
    let mut depth = 0_usize;
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => pass_string(&mut bytes),
            _ => {}
        }
    }
    false
}

/// Whether a string in the JSON value `json` holds one half of a surrogate pair. They can only be written as escapes.
fn has_lone_surrogate(json: &str) -> bool {
    // This settles it for nearly all.
    if memchr::memchr(b'\\', json.as_bytes()).is_none() {
        return false;
    }
    let mut rest = json.as_bytes();
    // A backslash stands in strings alone.
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let escape = rest.get(at..).unwrap_or_default();
        let length = match (unit(escape), escape.get(6..).and_then(unit)) {
            (None, _) => 2,
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(0xD800..=0xDFFF), _) => return true,
            (Some(_), _) => 6,
        };
        rest = escape.get(length..).unwrap_or_default();
    }
    false
}

/// The code unit of the escape `\uXXXX` that `text` begins with, if it does.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(br"\u")?.get(..4)?;
    u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

/// Brackets that open something, and those in strings. In blocks whose count fits a byte, which the compiler
/// turns into few instructions for many bytes.
fn opening_brackets(json: &str) -> usize {
    let opens = |byte: &u8| u8::from(matches!(byte, b'[' | b'{'));
    let blocks = json.as_bytes().chunks(128);
    blocks.map(|block| usize::from(block.iter().map(opens).sum::<u8>())).sum()
}

/// Goes on behind the string that has just begun.
fn pass_string(bytes: &mut std::str::Bytes<'_>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;

//! What backends post: one message or a batch in, checked messages or one fault each out.
//!
//! The rules are those of the frames ([`super::incoming`]), with the sender named in the message.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::{self, Fields, Flaw, string};
use super::incoming::{Draft, Fault, content};
use super::{Code, is_user};

/// A body, taken apart as far as is needed to see how many messages it has.
#[derive(Debug)]
pub enum Posted<'a> {
    /// One message, as its own JSON.
    One(&'a str),
    /// A list of them, or the list in `messages`.
    Batch(Batch<'a>),
}

/// The messages of a batch, each as its own JSON, whatever that is.
#[derive(Debug)]
pub struct Batch<'a> {
    pub items: Vec<&'a RawValue>,
    /// There were more than were asked for; they were left out.
    pub is_over: bool,
}

/// A message that a backend sends for a user; every part within its bounds.
#[derive(Debug, PartialEq, Eq)]
pub struct Post<'a> {
    pub from: Cow<'a, str>,
    /// As it was written; whether there is such a region is not known here.
    pub region: Option<Cow<'a, str>>,
    pub draft: Draft<'a>,
}

const NO_JSON: &str = "the body is not JSON";
const NO_MESSAGE: &str =
    "a message is a JSON object with from, to, and text or data, each of its own type";
const NO_BATCH: &str =
    "the body is one message, a list of messages, or an object with that list as messages";
const FROM: &str = "from is 1 to 128 visible ASCII characters, without { and }";
const REGION: &str = "region is the name of a region, in quotes";

/// Takes a body apart; of a batch at most `most` messages.
///
/// # Errors
/// Where it is neither a message nor a batch.
pub fn read(body: &str, most: usize) -> Result<Posted<'_>, Fault<'_>> {
    match body.trim_ascii_start().as_bytes().first() {
        Some(b'[') => batch(body, most).map(Posted::Batch),
        Some(b'{') => {
            let fields: Fields<'_> = serde_json::from_str(body).map_err(|_why| unread(body))?;
            match fields.messages {
                Some(list) => batch(list.get(), most).map(Posted::Batch),
                None => Ok(Posted::One(body)),
            }
        }
        _ => Err(unread(body)),
    }
}

/// Reads one message. `max_text` bounds `text` (decoded) and `data` (as written) together, in bytes.
///
/// # Errors
/// Where it breaks a rule, with its id where it has a valid one.
pub fn parse(message: &str, max_text: usize) -> Result<Post<'_>, Fault<'_>> {
    let fields: Fields<'_> = serde_json::from_str(message).map_err(|_why| unread(message))?;
    let (id, id_is_valid) = fields.id();
    match checked(&fields, id_is_valid, max_text) {
        Ok(Checked { from, to, region, text, data }) => {
            Ok(Post { from, region, draft: Draft { to, id, text, data } })
        }
        Err(Flaw { code, advice }) => Err(Fault { code, advice, id }),
    }
}

/// A message without its id, which errors need as well.
struct Checked<'a> {
    from: Cow<'a, str>,
    to: Cow<'a, str>,
    region: Option<Cow<'a, str>>,
    text: Option<&'a str>,
    data: Option<&'a str>,
}

fn checked<'a>(
    fields: &Fields<'a>,
    id_is_valid: bool,
    max_text: usize,
) -> Result<Checked<'a>, Flaw> {
    let from = user(fields.from, FROM)?;
    let to = user(fields.to, Code::UserInvalid.advice())?;
    if !id_is_valid {
        return Err(Code::IdInvalid.into());
    }
    let region = fields.region.filter(|region| region.get() != "null").map(string).transpose();
    let region = region.map_err(|_flaw| Flaw { code: Code::BadFrame, advice: REGION })?;
    let (text, data) = content(fields.text, fields.data, max_text).map_err(|flaw| {
        // A text that is none, and not what was said of its characters or of the depth of data.
        let is_type = flaw.advice == Code::BadFrame.advice();
        if is_type { Flaw { advice: NO_MESSAGE, ..flaw } } else { flaw }
    })?;
    Ok(Checked { from, to, region, text, data })
}

fn user<'a>(raw: Option<&'a RawValue>, advice: &'static str) -> Result<Cow<'a, str>, Flaw> {
    let flaw = Flaw { code: Code::UserInvalid, advice };
    let user = string(raw.ok_or(flaw)?).map_err(|_no_string| flaw)?;
    if is_user(&user) { Ok(user) } else { Err(flaw) }
}

/// What is wrong with JSON that is no object of fields.
#[cold]
fn unread(text: &str) -> Fault<'_> {
    let Flaw { code, advice } = fields::flaw(text, NO_JSON, NO_MESSAGE);
    Fault { code, advice, id: None }
}

fn batch(list: &str, most: usize) -> Result<Batch<'_>, Fault<'_>> {
    let mut reader = serde_json::Deserializer::from_str(list);
    let read = serde::de::Deserializer::deserialize_seq(&mut reader, ItemsVisitor { most });
    match read.and_then(|batch| reader.end().map(|()| batch)) {
        Ok(batch) => Ok(batch),
        Err(_) if serde_json::from_str::<&RawValue>(list).is_err() => {
            Err(Fault { code: Code::BadJson, advice: NO_JSON, id: None })
        }
        Err(_) => Err(Fault { code: Code::BadFrame, advice: NO_BATCH, id: None }),
    }
}

struct ItemsVisitor {
    most: usize,
}

impl<'de> Visitor<'de> for ItemsVisitor {
    type Value = Batch<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut batch = Batch { items: Vec::new(), is_over: false };
        while batch.items.len() < self.most {
            match list.next_element()? {
                Some(item) => batch.items.push(item),
                None => return Ok(batch),
            }
        }
        while let Some(IgnoredAny) = list.next_element()? {
            batch.is_over = true;
        }
        Ok(batch)
    }
}

#[cfg(test)]
mod tests;

//! The fields of what comes in, before anything is asked of their values.
//!
//! They are taken as raw JSON, so that a frame with one wrong field still yields its `id` for the error, and so that
//! `text` and `data` go on in the bytes they came in. Of a field that is repeated the last one counts, as with
//! the common parsers; a field that is not known is passed over.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Code, is_id};

/// What is wrong, before the id of what it is wrong with is known.
#[derive(Clone, Copy)]
pub(super) struct Flaw {
    pub(super) code: Code,
    pub(super) advice: &'static str,
}

impl From<Code> for Flaw {
    fn from(code: Code) -> Self {
        Self { code, advice: code.advice() }
    }
}

/// JSON by its grammar (RFC 8259, 8.2), and no text that could be handed on.
pub(super) const LONE_SURROGATE: Flaw = Flaw {
    code: Code::BadFrame,
    advice: "a string holds one half of a surrogate pair, which is no character",
};

/// The fields of all frames and of all that is posted, `null` as any other value.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub(super) kind: Option<&'a RawValue>,
    pub(super) from: Option<&'a RawValue>,
    pub(super) to: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    pub(super) region: Option<&'a RawValue>,
    pub(super) text: Option<&'a RawValue>,
    pub(super) data: Option<&'a RawValue>,
    pub(super) users: Option<&'a RawValue>,
    pub(super) messages: Option<&'a RawValue>,
}

impl<'a> Fields<'a> {
    /// The id, where there is a valid one; and false where there is one that is not.
    pub(super) fn id(&self) -> (Option<Cow<'a, str>>, bool) {
        match self.id.map(string).transpose() {
            Ok(None) => (None, true),
            Ok(Some(id)) if is_id(&id) => (Some(id), true),
            Ok(Some(_)) | Err(_) => (None, false),
        }
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Name {
    Type,
    From,
    To,
    Id,
    Region,
    Text,
    Data,
    Users,
    Messages,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = map.next_key()? {
            let field = match name {
                Name::Type => &mut fields.kind,
                Name::From => &mut fields.from,
                Name::To => &mut fields.to,
                Name::Id => &mut fields.id,
                Name::Region => &mut fields.region,
                Name::Text => &mut fields.text,
                Name::Data => &mut fields.data,
                Name::Users => &mut fields.users,
                Name::Messages => &mut fields.messages,
                Name::Other => {
                    let _: IgnoredAny = map.next_value()?;
                    continue;
                }
            };
            *field = Some(map.next_value()?);
        }
        Ok(fields)
    }
}

/// The text of a JSON string; without a copy where nothing in it is escaped.
pub(super) fn string(raw: &RawValue) -> Result<Cow<'_, str>, Flaw> {
    let inner = raw.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let inner = inner.ok_or(Code::BadFrame)?;
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    // All else that could fail was checked when the value was found.
    serde_json::from_str(raw.get()).map(Cow::Owned).map_err(|_lone| LONE_SURROGATE)
}

/// What is wrong with a text that is no object of fields; the advice is the caller's.
#[cold]
pub(super) fn flaw(text: &str, no_json: &'static str, no_object: &'static str) -> Flaw {
    if serde_json::from_str::<&RawValue>(text).is_err() {
        Flaw { code: Code::BadJson, advice: no_json }
    } else if text.trim_ascii_start().starts_with('{') {
        // The grammar does not ask what a name means, and only a name was more than copied.
        LONE_SURROGATE
    } else {
        Flaw { code: Code::BadFrame, advice: no_object }
    }
}

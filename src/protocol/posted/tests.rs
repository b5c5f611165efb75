//! What is taken, what is refused, and why.

use proptest::prelude::*;

use super::*;
use crate::protocol::is_id;

fn fault(message: &str) -> (Code, Option<String>) {
    let fault = parse(message, 20).unwrap_err();
    assert!(!fault.advice.contains(['"', '\\']), "{fault:?} is written as it is");
    (fault.code, fault.id.map(Cow::into_owned))
}

#[test]
fn a_message_is_taken_apart_and_not_rewritten() {
    let message = r#" {"from":"a\"b","to":"bob","id":"c1","region":"eu","text":"a\u0062","data":[1, 2],"x":{}} "#;
    let post = parse(message, 20).unwrap();
    assert_eq!((post.from.as_ref(), post.region.as_deref()), ("a\"b", Some("eu")));
    assert_eq!((post.draft.to.as_ref(), post.draft.id.as_deref()), ("bob", Some("c1")));
    assert_eq!((post.draft.text, post.draft.data), (Some(r#""a\u0062""#), Some("[1, 2]")));
}

#[test]
fn each_fault_has_its_code_and_the_id_where_one_could_be_read() {
    for (message, expected, id) in [
        ("", Code::BadJson, None),
        ("{", Code::BadJson, None),
        ("7", Code::BadFrame, None),
        ("[]", Code::BadFrame, None),
        (r#"{"id":"c1","to":"bob","text":"x"}"#, Code::UserInvalid, Some("c1")),
        (r#"{"from":7,"to":"bob","text":"x"}"#, Code::UserInvalid, None),
        (r#"{"from":"a b","to":"bob","text":"x"}"#, Code::UserInvalid, None),
        (r#"{"from":"a","to":"{bob}","text":"x"}"#, Code::UserInvalid, None),
        (r#"{"from":"a","text":"x"}"#, Code::UserInvalid, None),
        (r#"{"from":"a","to":"bob"}"#, Code::TextEmpty, None),
        (r#"{"from":"a","to":"bob","text":""}"#, Code::TextEmpty, None),
        (r#"{"from":"a","to":"bob","text":7,"id":"c1"}"#, Code::BadFrame, Some("c1")),
        (r#"{"from":"a","to":"bob","text":"\ud800"}"#, Code::BadFrame, None),
        (r#"{"from":"a","to":"bob","text":"x","region":7}"#, Code::BadFrame, None),
        (r#"{"from":"a","to":"bob","text":"x","id":""}"#, Code::IdInvalid, None),
        (r#"{"from":"a","to":"bob","text":"x","id":7}"#, Code::IdInvalid, None),
        (r#"{"from":"a","to":"bob","text":"123456789012345678901"}"#, Code::TextTooLong, None),
    ] {
        assert_eq!(fault(message), (expected, id.map(str::to_owned)), "{message}");
    }
    let advice = |message| parse(message, 20).unwrap_err().advice;
    assert!(advice(r#"{"to":"bob","text":"x"}"#).starts_with("from "));
    assert!(advice(r#"{"from":"a","text":"x"}"#).starts_with("to "));
    assert!(advice(r#"{"from":"a","to":"b","text":7}"#).contains("JSON object with from"));
}

#[test]
fn a_null_region_is_none() {
    let post = parse(r#"{"from":"a","to":"b","region":null,"data":null}"#, 20).unwrap();
    assert_eq!((post.region, post.draft.data), (None, Some("null")));
}

/// The items of a batch, and whether there were more; nothing for one message.
fn items(body: &str) -> Option<(Vec<String>, bool)> {
    match read(body, 2).unwrap() {
        Posted::One(_) => None,
        Posted::Batch(batch) => {
            Some((batch.items.iter().map(ToString::to_string).collect(), batch.is_over))
        }
    }
}

#[test]
fn a_body_is_one_message_or_a_batch() {
    let of =
        |list: &[&str], is_over| Some((list.iter().map(ToString::to_string).collect(), is_over));
    assert_eq!(items(r#" {"from":"a"}"#), None);
    assert_eq!(items(r#"{"from":"a","x":[1]}"#), None);
    assert_eq!(items("[]"), of(&[], false));
    assert_eq!(items(r#" [ {"a":1} , 7 ] "#), of(&[r#"{"a":1}"#, "7"], false));
    assert_eq!(items("[1,2,3]"), of(&["1", "2"], true));
    assert_eq!(items(r#"{"messages": [1]}"#), of(&["1"], false));
    assert_eq!(items(r#"{"messages": [1,2,[3]], "x": 1}"#), of(&["1", "2"], true));
}

#[test]
fn a_body_that_is_neither_is_told_so() {
    for (body, code) in [
        ("", Code::BadJson),
        ("hello", Code::BadJson),
        ("[1,2", Code::BadJson),
        ("[1,2,3", Code::BadJson),
        ("[1] x", Code::BadJson),
        (r#"{"messages":[1]"#, Code::BadJson),
        ("7", Code::BadFrame),
        (r#""x""#, Code::BadFrame),
        ("null", Code::BadFrame),
        (r#"{"messages":7}"#, Code::BadFrame),
        (r#"{"messages":null}"#, Code::BadFrame),
        (r#"{"\ud800":1}"#, Code::BadFrame),
    ] {
        assert_eq!(read(body, 2).unwrap_err().code, code, "{body}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,200}") {
        drop(parse(&text, 64));
        drop(read(&text, 3));
    }

    #[test]
    fn what_is_taken_is_within_its_bounds(
        from in ".{0,9}", to in ".{0,9}", text in ".{0,9}", id in ".{0,70}", region in ".{0,3}",
    ) {
        let message = serde_json::json!({"from": from, "to": to, "text": text, "id": id, "region": region});
        match parse(&message.to_string(), 64) {
            Ok(post) => {
                prop_assert!(is_user(&post.from) && is_user(&post.draft.to));
                prop_assert!(post.draft.id.is_some_and(|id| is_id(&id)));
                prop_assert_eq!(post.region.as_deref(), Some(region.as_str()));
            }
            Err(fault) => prop_assert!(fault.id.is_none_or(|id| is_id(&id))),
        }
    }
}

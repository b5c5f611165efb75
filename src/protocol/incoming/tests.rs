//! What is taken, what is refused, and why.

use proptest::prelude::*;

use super::*;
use crate::protocol::is_id;

fn code(frame: &str) -> (Code, Option<String>) {
    code_within(frame, 20)
}

fn code_within(frame: &str, max_text: usize) -> (Code, Option<String>) {
    let fault = parse(frame, max_text).unwrap_err();
    assert!(!fault.advice.contains(['"', '\\']), "{fault:?} is written as it is");
    (fault.code, fault.id.map(Cow::into_owned))
}

#[test]
fn a_message_is_taken_apart_and_not_rewritten() {
    let frame =
        r#" {"type":"message","to":"bob","text":"a\u0062","id":"c\"1","data":[1, 2],"x":{}} "#;
    let ClientFrame::Message(draft) = parse(frame, 20).unwrap() else { panic!("a message") };
    assert_eq!(draft.to, "bob");
    assert_eq!(draft.id.as_deref(), Some("c\"1"));
    assert_eq!(draft.text, Some(r#""a\u0062""#));
    assert_eq!(draft.data, Some("[1, 2]"));
}

#[test]
fn data_alone_is_a_message_even_when_it_is_null() {
    for frame in [
        r#"{"type":"message","to":"bob","data":null}"#,
        r#"{"type":"message","to":"bob","data":0,"text":null}"#,
        r#"{"type":"message","to":"bob","data":{},"text":""}"#,
    ] {
        assert!(matches!(parse(frame, 20), Ok(ClientFrame::Message(_))), "{frame}");
    }
}

#[test]
fn other_frames() {
    assert_eq!(parse(r#"{"type":"ping"}"#, 20), Ok(ClientFrame::Ping));
    assert_eq!(
        parse(r#"{"to":"bob","type":"typing"}"#, 20),
        Ok(ClientFrame::Typing { to: "bob".into() })
    );
    for (frame, users) in [
        (r#"{"type":"presence","users":["bob","a\"b"]}"#, vec!["bob".into(), "a\"b".into()]),
        (r#"{"type":"presence","users":[]}"#, vec![]),
    ] {
        assert_eq!(parse(frame, 0), Ok(ClientFrame::Presence { users }));
    }
}

#[test]
fn each_fault_has_its_code_and_the_id_where_one_could_be_read() {
    for (frame, expected, id) in [
        ("", Code::BadJson, None),
        ("hello", Code::BadJson, None),
        (r#"{"type":"ping""#, Code::BadJson, None),
        (r#"{"type":"ping"} x"#, Code::BadJson, None),
        (r#"{"type":"message","to":"bob","text":"\ud800"}"#, Code::BadFrame, None),
        (r#"{"\ud800":1,"type":"ping"}"#, Code::BadFrame, None),
        (r#"{"\ud800":1,"type":"ping""#, Code::BadJson, None),
        ("[1", Code::BadJson, None),
        ("[1]", Code::BadFrame, None),
        (r#"["message","bob","c1","hi",1]"#, Code::BadFrame, None),
        ("null", Code::BadFrame, None),
        ("{}", Code::BadFrame, None),
        (r#"{"id":"c1"}"#, Code::BadFrame, Some("c1")),
        (r#"{"type":7,"id":"c1"}"#, Code::BadFrame, Some("c1")),
        (r#"{"type":null,"id":"c1"}"#, Code::BadFrame, Some("c1")),
        (r#"{"type":"message","to":["bob"],"text":"x","id":"c1"}"#, Code::UserInvalid, Some("c1")),
        (r#"{"type":"message","to":null,"text":"x","id":"c1"}"#, Code::UserInvalid, Some("c1")),
        (r#"{"type":"message","to":"\ud800","text":"x","id":"c1"}"#, Code::UserInvalid, Some("c1")),
        (r#"{"type":"message","to":7,"text":"x","id":7}"#, Code::UserInvalid, None),
        (r#"{"type":"typing","to":5}"#, Code::UserInvalid, None),
        (r#"{"type":"message","to":"bob","text":7,"id":"c1"}"#, Code::BadFrame, Some("c1")),
        (r#"{"type":"message","to":"bob","text":"x","id":7}"#, Code::IdInvalid, None),
        (r#"{"type":"message","to":"bob","text":"x","id":null}"#, Code::IdInvalid, None),
        (r#"{"type":"message","to":"bob","text":"x","id":{}}"#, Code::IdInvalid, None),
        (r#"{"type":"message","to":"bob","text":"x","id":"\ud800"}"#, Code::IdInvalid, None),
        (r#"{"type":"subscribe","users":[],"id":"c1"}"#, Code::UnknownType, Some("c1")),
        (r#"{"type":"presence","id":"c1"}"#, Code::BadFrame, Some("c1")),
        (r#"{"type":"presence","users":null}"#, Code::BadFrame, None),
        (r#"{"type":"presence","users":"bob"}"#, Code::BadFrame, None),
        (r#"{"type":"presence","users":{"0":"bob"}}"#, Code::BadFrame, None),
        (r#"{"type":"presence","users":["bob",7]}"#, Code::UserInvalid, None),
        (r#"{"type":"presence","users":["bob",null]}"#, Code::UserInvalid, None),
        (r#"{"type":"presence","users":["bob",""]}"#, Code::UserInvalid, None),
        (r#"{"type":"presence","users":["bob","a b"]}"#, Code::UserInvalid, None),
        (r#"{"type":"message","text":"x","id":"c1"}"#, Code::UserInvalid, Some("c1")),
        (r#"{"type":"message","to":"","text":"x"}"#, Code::UserInvalid, None),
        (r#"{"type":"message","to":"a{b","text":"x"}"#, Code::UserInvalid, None),
        (r#"{"type":"typing","to":"a b"}"#, Code::UserInvalid, None),
        (r#"{"type":"message","to":"bob","id":"c1"}"#, Code::TextEmpty, Some("c1")),
        (r#"{"type":"message","to":"bob","text":""}"#, Code::TextEmpty, None),
        (r#"{"type":"message","to":"bob","text":null}"#, Code::TextEmpty, None),
        (r#"{"type":"message","to":"bob","text":"x","id":""}"#, Code::IdInvalid, None),
        (r#"{"type":"message","to":"bob","text":"x","id":"a b"}"#, Code::IdInvalid, None),
        (
            r#"{"type":"message","to":"bob","text":"123456789012345678901","id":"c1"}"#,
            Code::TextTooLong,
            Some("c1"),
        ),
        (
            r#"{"type":"message","to":"bob","text":"1234567890","data":[1234567890]}"#,
            Code::TextTooLong,
            None,
        ),
    ] {
        assert_eq!(code(frame), (expected, id.map(str::to_owned)), "{frame}");
    }
}

#[test]
fn the_limit_counts_decoded_bytes() {
    let escaped = format!(r#"{{"type":"message","to":"bob","text":"{}"}}"#, r"\u0041".repeat(20));
    assert!(parse(&escaped, 20).is_ok());
    assert!(parse(&escaped, 19).is_err());
}

#[test]
fn a_null_text_is_none() {
    let frame = r#"{"type":"message","to":"bob","data":0,"text": null }"#;
    let Ok(ClientFrame::Message(draft)) = parse(frame, 20) else { panic!("a message") };
    assert_eq!((draft.text, draft.data), (None, Some("0")));
}

#[test]
fn of_a_repeated_field_the_last_one_counts() {
    let frame = r#"{"type":"ping","to":5,"x":1,"text":"a","id":"a b","data":1,
        "type":"message","to":"bob","x":2,"text":"b","id":"c1","data":2}"#;
    let Ok(ClientFrame::Message(draft)) = parse(frame, 20) else { panic!("a message") };
    assert_eq!((draft.to.as_ref(), draft.id.as_deref()), ("bob", Some("c1")));
    assert_eq!((draft.text, draft.data), (Some(r#""b""#), Some("2")));
    assert_eq!(code(r#"{"id":"c1","id":7,"type":"message","to":"bob"}"#), (Code::IdInvalid, None));
}

#[test]
fn half_of_a_surrogate_pair_is_told_apart_from_what_is_not_json() {
    for frame in
        [r#"{"type":"message","to":"bob","text":"\udc00 x"}"#, r#"{"\ud800":1,"type":"ping"}"#]
    {
        let fault = parse(frame, 99).unwrap_err();
        assert!(fault.advice.contains("surrogate"), "{fault:?}");
    }
    let whole = r#"{"type":"message","to":"bob","text":"\ud83d\ude00"}"#;
    assert!(parse(whole, 4).is_ok());
}

#[test]
fn data_holds_no_half_of_a_surrogate_pair_that_a_recipient_could_not_read() {
    for (data, readable) in [
        (r#""\ud800""#, false),
        (r#"["a\\\ud800"]"#, false),
        (r#"{"\udc00":1}"#, false),
        (r#""\ud800\u0041""#, false),
        (r#""\ud800\ud800\udc00""#, false),
        (r#""\ud83d\ude00\udE00""#, false),
        (r#""\ud83d\uDE00 \ud83d\ude00""#, true),
        (r#"["\\ud800", "\\\\", "\"\u0041"]"#, true),
        (r#""ud800""#, true),
    ] {
        assert_eq!(serde_json::from_str::<serde_json::Value>(data).is_ok(), readable, "{data}");
        let frame = format!(r#"{{"type":"message","to":"bob","id":"c1","data":{data}}}"#);
        assert_eq!(parse(&frame, 99).is_ok(), readable, "{data}");
        if !readable {
            assert_eq!(code_within(&frame, 99), (Code::BadFrame, Some("c1".to_owned())), "{data}");
        }
    }
}

/// A message with `inner` in as many lists and objects, by turns, as `depth` says.
fn nested(depth: usize, inner: &str) -> String {
    let open: String =
        (0..depth).map(|level| if level % 2 == 0 { "[" } else { r#"{"]":"# }).collect();
    let close: String =
        (0..depth).rev().map(|level| if level % 2 == 0 { "]" } else { "}" }).collect();
    format!(r#"{{"type":"message","to":"bob","id":"c1","data":{open}{inner}{close}}}"#)
}

#[test]
fn data_is_nested_as_deep_as_a_recipient_can_read_and_no_deeper() {
    let frame = nested(MAX_DEPTH, "1");
    assert!(parse(&frame, 9_999).is_ok());
    assert!(serde_json::from_str::<serde_json::Value>(&frame).is_ok());
    let frame = nested(MAX_DEPTH + 1, "1");
    assert!(serde_json::from_str::<serde_json::Value>(&frame).is_err());
    let fault = parse(&frame, 9_999).unwrap_err();
    assert_eq!((fault.code, fault.id.as_deref()), (Code::BadFrame, Some("c1")));
    assert!(fault.advice.contains(&MAX_DEPTH.to_string()), "{}", fault.advice);
    assert!(parse(&nested(100_000, "1"), 9_999_999).is_err());
}

#[test]
fn brackets_in_strings_and_side_by_side_are_no_depth() {
    let brackets = "[{".repeat(MAX_DEPTH);
    let quoted = format!(r#"["\\","\"{brackets}","{brackets}\\",{{"{brackets}":1}}]"#);
    assert!(parse(&nested(MAX_DEPTH - 2, &quoted), 9_999).is_ok());
    assert!(parse(&nested(MAX_DEPTH - 1, &quoted), 9_999).is_err());
    let row = format!("[{}[]]", "[],{},".repeat(MAX_DEPTH));
    assert!(parse(&nested(MAX_DEPTH - 2, &row), 9_999).is_ok());
}

proptest! {
    /// A value that is let through can be read, whatever its shape.
    #[test]
    fn depth_is_judged_as_parsers_do(
        levels in 0_usize..2 * MAX_DEPTH, text in r#"[\[\]{}"\\a]{0,9}"#,
    ) {
        let frame = nested(levels, &serde_json::json!([text]).to_string());
        let read = serde_json::from_str::<serde_json::Value>(&frame).is_ok();
        prop_assert_eq!(parse(&frame, 9_999).is_ok(), read);
    }

    #[test]
    fn no_text_panics(text in ".{0,300}") {
        drop(parse(&text, 64));
    }

    #[test]
    fn no_json_panics(
        kind in "message|typing|presence|ping|x", to in ".{0,9}", text in ".{0,9}",
        id in ".{0,70}",
    ) {
        let users = [&to, &text];
        let frame = serde_json::json!(
            {"type": kind, "to": to, "text": text, "id": id, "users": users}
        )
        .to_string();
        match parse(&frame, 64) {
            Ok(ClientFrame::Message(draft)) => {
                prop_assert!(is_user(&draft.to));
                prop_assert!(draft.id.is_some_and(|id| is_id(&id)));
            }
            Ok(ClientFrame::Typing { to }) => prop_assert!(is_user(&to)),
            Ok(ClientFrame::Presence { users }) => {
                prop_assert!(users.iter().all(|user| is_user(user)));
            }
            Ok(ClientFrame::Ping) => {}
            Err(fault) => prop_assert!(fault.id.is_none_or(|id| is_id(&id))),
        }
    }
}

//! The verdict, for every way in which a server can have changed.

use super::*;

const NONE: &str = "0000000000000000000000000000000000000000";

fn info(replid: &str, replid2: &str, run_id: &str, appends: u8) -> String {
    format!(
        "# Server\r\nredis_version:7.0.15\r\nrun_id:{run_id}\r\n\r\n# Persistence\r\naof_enabled:{appends}\r\n\
         # Replication\r\nrole:master\r\nmaster_replid:{replid}\r\nmaster_replid2:{replid2}\r\n"
    )
}

fn server(replid: &str, replid2: &str, run_id: &str, appends: u8) -> Identity {
    parse(&info(replid, replid2, run_id, appends)).unwrap()
}

fn recorded(line: &str, replid: &str, run_id: &str) -> Recorded {
    let [line, replid, run_id] = [line, replid, run_id].map(str::to_owned);
    Recorded { line, replid, run_id }
}

fn known(line: &str, replid: &str) -> Known {
    Known { line: line.to_owned(), replid: replid.to_owned() }
}

#[test]
fn what_a_server_says_of_itself() {
    let promoted = server("a", "b", "p", 1);
    assert_eq!(
        promoted,
        Identity { replid: "a".to_owned(), run_id: "p".to_owned(), inherits: true, appends: true }
    );
    assert!(!server("a", NONE, "p", 0).inherits);
    let replica = info("a", NONE, "p", 1).replace("role:master", "role:slave");
    assert!(matches!(parse(&replica), Err(Unsettled::Replica)));
    assert!(matches!(parse("role:master\r\n"), Err(Unsettled::Unknown("master_replid"))));
    // A server that names no second id, and none of its files, has neither.
    let little = parse("run_id:p\nmaster_replid:a\n").unwrap();
    assert!(!little.inherits && !little.appends);
}

#[test]
fn the_same_server_goes_on() {
    let record = recorded("line", "a", "p");
    for ours in [None, Some(known("line", "a")), Some(known("other", "z"))] {
        let verdict = judge(&server("a", NONE, "p", 0), Some(&record), ours.as_ref());
        assert_eq!(verdict, Judgement::Same);
    }
}

#[test]
fn a_primary_that_took_another_id_by_itself_goes_on() {
    let record = recorded("line", "a", "p");
    assert_eq!(judge(&server("b", NONE, "p", 0), Some(&record), None), Judgement::Hear(None));
}

#[test]
fn a_promotion_is_another_line_whatever_else_is_said() {
    let record = recorded("line", "a", "p");
    for run_id in ["q", "p"] {
        for ours in [None, Some(known("line", "a"))] {
            let verdict = judge(&server("b", "a", run_id, 1), Some(&record), ours.as_ref());
            assert!(matches!(verdict, Judgement::New(_)), "{verdict:?}");
        }
    }
}

#[test]
fn a_restart_is_for_the_witnesses_to_judge() {
    let record = recorded("line", "a", "p");
    let with_file = judge(&server("b", NONE, "q", 1), Some(&record), None);
    assert_eq!(with_file, Judgement::Hear(None));
    let without = judge(&server("b", NONE, "q", 0), Some(&record), Some(&known("line", "a")));
    assert!(matches!(without, Judgement::Hear(Some(_))));
}

#[test]
fn who_comes_after_another_has_settled_has_his_witnesses_heard() {
    let record = recorded("line", "b", "q");
    let late = judge(&server("b", NONE, "q", 1), Some(&record), Some(&known("line", "a")));
    assert_eq!(late, Judgement::Hear(None));
    let broken_by_another = recorded("newer", "b", "q");
    let late =
        judge(&server("b", NONE, "q", 1), Some(&broken_by_another), Some(&known("line", "a")));
    assert_eq!(late, Judgement::Same, "the loss is told already");
}

#[test]
fn a_record_that_is_gone_is_another_line_unless_the_server_is_known() {
    let server = server("a", NONE, "p", 1);
    assert!(matches!(judge(&server, None, None), Judgement::New(_)));
    assert!(matches!(judge(&server, None, Some(&known("line", "z"))), Judgement::New(_)));
    assert_eq!(judge(&server, None, Some(&known("line", "a"))), Judgement::Known);
}

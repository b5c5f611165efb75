//! The bookkeeper is right: each promise broken, and each kept.

use super::*;
use serde_json::json;

/// A post and a reader to whom things happen, a second apart.
#[derive(Default)]
struct Story {
    now: u64,
    post: Post,
    reader: Reader,
    asked: Option<Position>,
}

impl Story {
    fn now(&mut self) -> Duration {
        self.now += 1;
        Duration::from_secs(self.now)
    }

    fn sent(mut self, id: &str) -> Self {
        let now = self.now();
        self.post.sent(now, ("a".to_owned(), id.to_owned()));
        self
    }

    fn acked(self, id: &str) -> Self {
        self.acked_as(id, false)
    }

    fn acked_as(mut self, id: &str, duplicate: bool) -> Self {
        let now = self.now();
        self.post.acked(now, &("a".to_owned(), id.to_owned()), duplicate);
        self
    }

    fn promised(self, id: &str) -> Self {
        self.sent(id).acked(id)
    }

    fn shown(mut self, id: &str, seq: u64) -> Self {
        let now = self.now();
        self.reader.message(now, &json!({"from": "a", "id": id, "seq": seq}));
        self
    }

    fn welcomed(mut self, epoch: &str, seq: u64, resumed: bool) -> Self {
        let now = self.now();
        let frame = json!({"epoch": epoch, "seq": seq, "resumed": resumed});
        self.reader.welcomed(now, self.asked.as_ref(), &frame);
        self
    }

    fn left(mut self) -> Self {
        self.asked = self.reader.position().cloned();
        self
    }

    fn reset(mut self, epoch: &str, seq: u64) -> Self {
        let now = self.now();
        self.reader.reset(now, &json!({"epoch": epoch, "seq": seq}));
        self
    }

    fn account(&self) -> Account {
        Account::of(&self.post, &self.reader)
    }

    fn wrongs(&self) -> Vec<(Wrong, u64)> {
        let mut wrongs: Vec<_> = self.reader.wrongs.iter().map(|(k, n)| (*k, *n)).collect();
        wrongs.sort_by_key(|(kind, _)| format!("{kind:?}"));
        wrongs
    }
}

fn joined() -> Story {
    Story::default().welcomed("e", 0, false)
}

#[test]
fn a_plain_conversation_is_clean() {
    let story = joined().promised("1").shown("1", 1).sent("2").shown("2", 2).acked("2");
    let story = story.left().sent("3").welcomed("e", 2, true).shown("3", 3).acked("3").sent("4");
    let account = story.account();
    assert!(account.is_clean(), "{}", account.explain());
    assert_eq!((account.sent, account.acknowledged, account.delivered), (4, 3, 3));
    assert_eq!((account.told, account.repeats), (0, 0));
    assert!(is_settled(&story.post, &story.reader));
}

#[test]
fn what_is_acknowledged_and_not_shown_is_lost() {
    let story = joined().promised("1").left().welcomed("e", 0, true);
    assert_eq!(story.account().lost, 1);
    assert!(!is_settled(&story.post, &story.reader));
    // Told before it was sent does not excuse it, told since does.
    let early = joined().promised("1").shown("1", 1).reset("f", 0).promised("2");
    assert_eq!((early.account().lost, early.account().told_lost), (1, 0));
    let told = joined().promised("1").reset("f", 0);
    assert_eq!((told.account().lost, told.account().told_lost), (0, 1));
    assert!(is_settled(&told.post, &told.reader));
    let told = joined().promised("1").left().welcomed("f", 0, false);
    assert_eq!((told.account().lost, told.account().told_lost), (0, 1));
}

#[test]
fn a_loss_told_between_two_sendings_does_not_excuse_the_second() {
    let story = joined().sent("1").reset("f", 0).sent("1").acked("1");
    assert_eq!(story.account().lost, 1);
    let again = joined().sent("1").acked("1").reset("f", 0).sent("1");
    assert_eq!(again.account().told_lost, 1, "a repeat of what is acknowledged changes nothing");
}

#[test]
fn a_repeat_is_doubled_unless_it_was_announced() {
    let doubled = joined().promised("1").shown("1", 1).shown("1", 2);
    assert_eq!(doubled.wrongs(), [(Wrong::Doubled, 1)]);
    let across = joined().shown("1", 1).left().welcomed("e", 1, true).shown("1", 2);
    assert_eq!(across.wrongs(), [(Wrong::Doubled, 1)]);
    let announced = joined().shown("1", 1).reset("f", 0).shown("1", 1);
    assert_eq!((announced.wrongs(), announced.account().repeats), (vec![], 1));
    let twice = announced.shown("1", 2);
    assert_eq!(twice.wrongs(), [(Wrong::Doubled, 1)]);
    let told = joined().shown("1", 1).left().welcomed("f", 0, false).shown("1", 1);
    assert_eq!((told.wrongs(), told.account().repeats), (vec![], 1));
    // A reset further on in the same history brings nothing again.
    let further = joined().shown("1", 1).reset("e", 5).shown("1", 6);
    assert_eq!(further.wrongs(), [(Wrong::Doubled, 1)]);
}

#[test]
fn positions_follow_one_another() {
    assert_eq!(joined().shown("1", 2).wrongs(), [(Wrong::Hole, 1)]);
    assert_eq!(
        joined().shown("1", 1).shown("2", 1).wrongs(),
        [(Wrong::Backwards, 1), (Wrong::Rewritten, 1)]
    );
    assert_eq!(joined().reset("e", 4).shown("1", 5).wrongs(), []);
    let rewritten = joined().shown("1", 1).left().welcomed("e", 0, false).shown("2", 1);
    assert_eq!(rewritten.wrongs(), [(Wrong::Rewritten, 1)]);
    assert_eq!(rewritten.account().disordered, 1);
}

#[test]
fn a_promise_to_resume_names_the_position_that_was_asked_for() {
    let story = joined().shown("1", 1).left();
    assert_eq!(story.welcomed("e", 2, true).wrongs(), [(Wrong::Resumed, 1)]);
    let story = joined().shown("1", 1).left();
    assert_eq!(story.welcomed("f", 1, true).wrongs(), [(Wrong::Resumed, 1)]);
    assert_eq!(Story::default().welcomed("e", 0, true).wrongs(), [(Wrong::Resumed, 1)]);
}

#[test]
fn a_hub_without_a_bus_promises_nothing_and_says_later_where_it_stands() {
    let blind = || joined().shown("1", 1).left().welcomed("", 0, false);
    let story = blind().reset("e", 1).shown("2", 2);
    assert_eq!((story.wrongs(), story.account().told), (vec![], 0));
    assert_eq!(blind().reader.position(), Some(&("e".to_owned(), 1)), "to be asked for again");
    assert_eq!(blind().shown("2", 2).wrongs(), [(Wrong::Unplaced, 1)]);
    let first = Story::default().welcomed("", 0, false).reset("e", 7).shown("1", 8);
    assert_eq!((first.wrongs(), first.account().told), (vec![], 1));
    assert_eq!(blind().reset("f", 1).account().told, 1);
}

#[test]
fn recovery_takes_a_message_sent_afterwards_both_acknowledged_and_shown() {
    // Sent at 2 s, shown at 4 s.
    let story = joined().promised("1").shown("1", 1);
    let at = |since| recovered(&story.post, &story.reader, Duration::from_secs(since));
    assert_eq!(at(2), Some(Duration::from_secs(2)));
    assert_eq!(at(3), None);
    let shown = joined().sent("1").shown("1", 1);
    assert_eq!(recovered(&shown.post, &shown.reader, Duration::ZERO), None);
}

#[test]
fn accounts_add_up() {
    let mut sum = joined().promised("1").account();
    sum.add(joined().promised("1").shown("1", 1).shown("1", 3).account());
    assert_eq!((sum.sent, sum.acknowledged, sum.delivered, sum.lost), (2, 2, 1, 1));
    assert_eq!((sum.doubled, sum.disordered), (1, 1));
    assert!(!sum.is_clean());
    assert_eq!(sum.explain().lines().count(), 3);
}

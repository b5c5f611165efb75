//! Positions over reconnects, and holes on a live socket.

use serde_json::{Value, json};

use super::super::outbox::Item;
use super::harness::{Client, House, nz};
use crate::settings::{HubSettings, InboxSettings};

fn small_inbox() -> House {
    let inbox = InboxSettings { max_messages: nz(3), ..InboxSettings::default() };
    House::with_inbox(&HubSettings::default(), &inbox)
}

async fn publish(house: &House, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        assert_eq!(house.publish("bob", &format!("c{number}")).await, number);
    }
}

async fn hears_seqs(client: &mut Client, expected: std::ops::RangeInclusive<u64>) {
    for seq in expected {
        let frame = client.hears().await;
        assert_eq!((&frame["type"], &frame["seq"]), (&json!("message"), &json!(seq)));
    }
}

async fn epoch(house: &House) -> String {
    let (_client, welcome) = house.join("userId=bob").await;
    welcome["epoch"].as_str().unwrap().to_owned()
}

fn position(welcome: &Value) -> (u64, bool) {
    (welcome["seq"].as_u64().unwrap(), welcome["resumed"].as_bool().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_fresh_client_gets_what_comes_from_now_on() {
    let house = House::new();
    publish(&house, 1..=3).await;
    let (mut bob, welcome) = house.join("userId=bob").await;
    assert_eq!(position(&welcome), (3, false));
    publish(&house, 4..=4).await;
    hears_seqs(&mut bob, 4..=4).await;
}

#[tokio::test(start_paused = true)]
async fn a_resume_gives_everything_after_the_position() {
    let house = House::new();
    publish(&house, 1..=5).await;
    let query = format!("userId=bob&since=2&epoch={}", epoch(&house).await);
    let (mut bob, welcome) = house.join(&query).await;
    assert_eq!(position(&welcome), (2, true));
    publish(&house, 6..=6).await;
    hears_seqs(&mut bob, 3..=6).await;
}

#[tokio::test(start_paused = true)]
async fn a_resume_that_cannot_be_promised_gives_all_that_is_kept() {
    let house = small_inbox();
    publish(&house, 1..=5).await;
    let epoch = epoch(&house).await;
    for query in [
        format!("since=1&epoch={epoch}"),
        format!("since=9&epoch={epoch}"),
        "since=4&epoch=another".to_owned(),
        "since=4".to_owned(),
        format!("since=x&epoch={epoch}"),
        "since=0&epoch=".to_owned(),
    ] {
        let (mut bob, welcome) = house.join(&format!("userId=bob&{query}")).await;
        assert_eq!(position(&welcome), (2, false), "{query}");
        hears_seqs(&mut bob, 3..=5).await;
    }
    let (_bob, welcome) = house.join(&format!("userId=bob&since=2&epoch={epoch}")).await;
    assert_eq!(position(&welcome), (2, true));
}

#[tokio::test(start_paused = true)]
async fn a_hole_on_the_live_path_is_filled_from_the_inbox() {
    let house = House::new();
    let mut bob = house.connect("userId=bob").await;
    publish(&house, 1..=3).await;
    house.lose_what_waits("bob");
    publish(&house, 4..=5).await;
    hears_seqs(&mut bob, 1..=5).await;
}

#[tokio::test(start_paused = true)]
async fn a_gap_notice_makes_good_what_nothing_came_after() {
    let house = House::new();
    let mut bob = house.connect("userId=bob").await;
    publish(&house, 1..=3).await;
    house.lose_what_waits("bob");
    house.hub.registry.push_all(&Item::Gap);
    hears_seqs(&mut bob, 1..=3).await;
    house.hub.registry.push_all(&Item::Gap);
    publish(&house, 4..=4).await;
    hears_seqs(&mut bob, 4..=4).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_filled_is_told() {
    let house = small_inbox();
    let (mut bob, welcome) = house.join("userId=bob").await;
    publish(&house, 1..=5).await;
    house.lose_what_waits("bob");
    publish(&house, 6..=6).await;
    let reset = bob.hears().await;
    assert_eq!(reset, json!({"type": "reset", "epoch": welcome["epoch"], "seq": 3}));
    hears_seqs(&mut bob, 4..=6).await;
    publish(&house, 7..=7).await;
    hears_seqs(&mut bob, 7..=7).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_of_no_inbox_is_not_passed_on() {
    let house = House::new();
    let mut bob = house.connect("userId=bob").await;
    let frame = r#"{"type":"message","seq":7}"#.into();
    house.hub.registry.push("bob", Item::Message { seq: 7, taken_ms: None, frame });
    publish(&house, 1..=2).await;
    hears_seqs(&mut bob, 1..=2).await;
}

/// What may happen to one reader.
#[derive(Clone, Copy, Debug)]
enum Step {
    Publish,
    /// What waits is lost on its way from the bus.
    Lose,
    /// The bus says that something may be lost.
    Notice,
    Reconnect,
    /// The reader takes what is there.
    Read,
}

/// A reader that believes the frames, and what it was told is gone.
struct Reader {
    client: Client,
    epoch: String,
    position: u64,
    had: Vec<u64>,
}

impl Reader {
    async fn join(house: &House, resume: Option<(u64, String)>) -> Self {
        let query = match &resume {
            Some((since, epoch)) => format!("userId=bob&since={since}&epoch={epoch}"),
            None => "userId=bob".to_owned(),
        };
        let (client, welcome) = house.join(&query).await;
        let (position, resumed) = position(&welcome);
        if let Some((since, _)) = resume {
            assert_eq!(resumed, position == since, "{welcome}");
            assert!(position >= since, "what was had comes again: {welcome}");
        }
        let epoch = welcome["epoch"].as_str().unwrap().to_owned();
        Self { client, epoch, position, had: Vec::new() }
    }

    fn take(&mut self, frame: &Value) {
        let seq = frame["seq"].as_u64().unwrap();
        match frame["type"].as_str().unwrap() {
            "message" => {
                assert_eq!(seq, self.position + 1, "a hole or a repeat that nobody told of");
                self.had.push(seq);
            }
            "reset" => assert!(seq > self.position, "{frame}"),
            other => panic!("{other}"),
        }
        self.position = seq;
    }

    /// Reads up to position `last`.
    async fn read_to(&mut self, last: u64) {
        while self.position < last {
            let frame = self.client.hears().await;
            self.take(&frame);
        }
    }
}

async fn churn(steps: Vec<Step>) {
    let house = small_inbox();
    let mut reader = Reader::join(&house, None).await;
    let mut published = 0;
    for step in steps {
        match step {
            Step::Publish => {
                published += 1;
                publish(&house, published..=published).await;
            }
            Step::Lose => house.lose_what_waits("bob"),
            Step::Notice => house.hub.registry.push_all(&Item::Gap),
            Step::Reconnect => {
                let resume = (reader.position, reader.epoch.clone());
                drop(reader);
                reader = Reader::join(&house, Some(resume)).await;
            }
            Step::Read => tokio::task::yield_now().await,
        }
    }
    // Whatever was lost shows with the next message.
    publish(&house, published + 1..=published + 1).await;
    reader.read_to(published + 1).await;
    assert!(reader.had.is_sorted());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_is_missing_or_given_twice_unless_it_was_told(
        steps in proptest::collection::vec(
            proptest::sample::select(vec![
                Step::Publish, Step::Publish, Step::Publish, Step::Lose, Step::Notice,
                Step::Reconnect, Step::Read,
            ]),
            1..40,
        ),
    ) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(churn(steps));
    }
}

#[tokio::test(start_paused = true)]
async fn an_inbox_that_is_too_big_to_hold_is_given_in_pages() {
    // Some five messages a page.
    let settings = HubSettings { outbox_bytes: nz(500), ..HubSettings::default() };
    let house = House::with(&settings);
    let (bob, welcome) = house.join("userId=bob").await;
    drop(bob);
    for number in 1..=100 {
        house.publish("bob", &format!("c{number}")).await;
    }
    let epoch = welcome["epoch"].as_str().unwrap();
    let (mut bob, welcome) = house.join(&format!("userId=bob&since=0&epoch={epoch}")).await;
    assert_eq!((&welcome["resumed"], &welcome["seq"]), (&json!(true), &json!(0)));
    for seq in 1..=50 {
        assert_eq!(bob.hears().await["seq"], seq);
    }
    house.publish("bob", "live").await;
    for seq in 51..=101 {
        assert_eq!(bob.hears().await["seq"], seq);
    }
    house.publish("bob", "last").await;
    assert_eq!(bob.hears().await["id"], "last", "nothing is given twice");
}

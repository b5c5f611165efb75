//! The chat page in a real browser: what it says, how it is used, and that it needs nothing from elsewhere.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fantoccini::key::Key;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::harness::browser::{Browser, Tab};
use crate::harness::gateway::Gateway;
use crate::harness::port::Port;

fn page_from_disk() -> String {
    format!("file://{}/client/index.html", env!("CARGO_MANIFEST_DIR"))
}

fn picture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// The words beside a field, while they concern it.
async fn complaint(tab: &Tab, field: &str) -> String {
    tab.texts(&format!("#{field}[aria-invalid=true] ~ #{field}-error")).await.concat()
}

async fn serve(tab: &Tab, address: &str) {
    tab.value("document.querySelector('details').open = true").await;
    tab.fill("WebSocket address", address).await;
}

#[tokio::test]
async fn each_field_says_in_words_what_is_wrong() {
    let browser = Browser::start().await;
    let tab = browser.open(&page_from_disk()).await;
    assert_eq!(tab.texts("#status").await, ["Disconnected"]);
    tab.click("Connect").await;
    assert_eq!(complaint(&tab, "user").await, "Enter your user name.");
    assert_eq!(complaint(&tab, "region").await, "Enter a region, for example 1.");
    assert_eq!(
        tab.value("document.activeElement.id").await,
        "user",
        "the focus is on the first mistake"
    );

    let long = "x".repeat(129);
    for (label, field, text, words) in [
        ("User", "user", "al ice", "A space is not possible"),
        ("User", "user", "al{ice", "“{” is not possible"),
        ("User", "user", "alicé", "“é” is not possible"),
        ("User", "user", &long, "At most 128 characters; these are 129."),
        ("Target", "target", "b ob", "A space is not possible"),
        ("Region", "region", "eu/1", "Use letters, digits, _ and - only."),
        ("Region", "region", &long, "At most 32 characters; these are 129."),
    ] {
        tab.fill(label, text).await;
        tab.click("Connect").await;
        let said = complaint(&tab, field).await;
        assert!(said.contains(words), "{label} = {text}: {said}");
        tab.fill(label, "1").await;
        assert_eq!(complaint(&tab, field).await, "", "a mended mistake is forgotten at once");
    }
    serve(&tab, "mailto:gateway").await;
    tab.click("Connect").await;
    assert!(complaint(&tab, "server").await.contains("ws://localhost:3000/ws"));
    tab.click("Send").await;
    assert_eq!(tab.texts("#message-error").await, ["Connect first, then send."]);
    assert_eq!(tab.texts("#status").await, ["Disconnected"], "nothing was tried");
    browser.close().await;
}

#[tokio::test]
async fn a_dead_port_is_told_in_words_and_tried_again_until_disconnect() {
    let browser = Browser::start().await;
    let tab = browser.open(&page_from_disk()).await;
    let port = Port::reserve();
    let address = port.address();
    serve(&tab, &format!("ws://{address}/ws")).await;
    tab.fill("User", "alice").await;
    tab.fill("Region", "1").await;
    tab.click("Connect").await;
    let words = format!("Could not reach ws://{address}/ws – is the gateway running?");
    tab.wait_for_text("#problem", &words).await;
    tab.wait_for_text("#status", "Reconnecting in ").await;

    let listener = TcpListener::bind(address).await.unwrap();
    let again = timeout(Duration::from_mins(1), listener.accept()).await;
    assert!(again.is_ok(), "the page gave up");
    tab.click("Disconnect").await;
    assert_eq!(tab.texts("#status").await, ["Disconnected"]);
    assert_eq!(tab.texts("#problem").await, [""]);
    browser.close().await;
}

#[tokio::test]
async fn the_keyboard_alone_is_enough() {
    let browser = Browser::start().await;
    let tab = browser.open(&page_from_disk()).await;
    let mut order = Vec::new();
    for _ in 0..8 {
        tab.press(&char::from(Key::Tab).to_string()).await;
        order.push(tab.value("document.activeElement.id || document.activeElement.tagName").await);
        let ring = tab.value("getComputedStyle(document.activeElement).outlineWidth").await;
        assert_eq!(ring, "3px", "the focus can be seen on {order:?}");
    }
    assert_eq!(order, ["user", "target", "region", "connect", "SUMMARY", "log", "message", "send"]);

    tab.fill("Message", "one").await;
    tab.press(&format!(
        "{}{}{}two",
        char::from(Key::Shift),
        char::from(Key::Enter),
        char::from(Key::Shift)
    ))
    .await;
    assert_eq!(tab.value("document.getElementById('message').value").await, "one\ntwo");
    tab.press(&char::from(Key::Enter).to_string()).await;
    assert_eq!(tab.texts("#message-error").await, ["Connect first, then send."]);
    assert_eq!(
        tab.value("document.getElementById('message').value").await,
        "one\ntwo",
        "nothing is lost"
    );
    tab.fill("User", "").await;
    tab.press(&char::from(Key::Enter).to_string()).await;
    assert_eq!(complaint(&tab, "user").await, "Enter your user name.");
    browser.close().await;
}

#[tokio::test]
async fn the_page_asks_for_nothing_but_itself_and_fits_every_screen() {
    let browser = Browser::start().await;
    let page = format!("{}?user=alice&target=bob&region=eu-west_1", page_from_disk());
    let tab = browser.open(&page).await;
    let fields = "['user', 'target', 'region'].map((id) => document.getElementById(id).value)";
    assert_eq!(tab.value(fields).await, serde_json::json!(["alice", "bob", "eu-west_1"]));
    for (screen, phone, scheme) in [
        ("desk-light", false, "light"),
        ("desk-dark", false, "dark"),
        ("phone-light", true, "light"),
        ("phone-dark", true, "dark"),
    ] {
        if phone {
            tab.be_phone(390).await;
        }
        tab.prefer(scheme).await;
        let width = tab.value("document.documentElement.scrollWidth - innerWidth").await;
        assert!(width.as_i64().unwrap() <= 0, "{screen} must be scrolled sideways by {width}");
        let (dark, shade) =
            (scheme == "dark", tab.value("getComputedStyle(document.body).backgroundColor").await);
        assert_eq!(shade == "rgb(15, 18, 24)", dark, "{screen} has the ground {shade}");
        tab.screenshot(&picture(&format!("page-{screen}.png"))).await;
    }
    let asked = browser.requests().await;
    let foreign: Vec<_> =
        asked.iter().filter(|url| !url.starts_with("file:") && !url.starts_with("data:")).collect();
    assert!(asked.contains(&page), "the log of requests works");
    assert!(foreign.is_empty(), "the page asks for {foreign:?}");
    browser.close().await;
}

/// A gateway that serves the page, and where.
async fn gateway() -> (Gateway, String) {
    let gateway = Gateway::start(|settings| settings.page.path = "/client/".into()).await;
    let page = format!("http://{}/client/", gateway.proxy());
    (gateway, page)
}

/// Two people in two regions, through whatever serves the page at this address.
#[tokio::test]
async fn two_tabs_in_two_regions_talk() {
    let (gateway, page) = gateway().await;
    let browser = Browser::start().await;
    let alice = join(&browser, &page, ["alice", "bob", "1"]).await;
    let bob = join(&browser, &page, ["bob", "alice", "2"]).await;
    say(&alice, "Hello from region 1").await;
    shows(&bob, "alice", "Hello from region 1").await;
    say(&bob, "Hello back from region 2").await;
    shows(&alice, "bob", "Hello back from region 2").await;
    say(&alice, "<b>Plain text</b>, whatever it looks like").await;
    shows(&bob, "alice", "<b>Plain text</b>, whatever it looks like").await;
    for tab in [&alice, &bob] {
        tab.wait_for(
            "all acknowledged",
            "!document.querySelector('.own:not([data-state=acknowledged])')",
        )
        .await;
        let ids = tab
            .value("[...document.querySelectorAll('.message')].map((each) => each.dataset.id)")
            .await;
        let mut ids: Vec<String> = serde_json::from_value(ids).unwrap();
        assert_eq!(ids.len(), 3, "each message once");
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 3, "each under its own id");
        assert_eq!(tab.texts("#unacknowledged, #problem, #message-error").await, ["", "", ""]);
    }
    alice.screenshot(&picture("page-chat-alice.png")).await;
    bob.be_phone(390).await;
    bob.prefer("dark").await;
    bob.screenshot(&picture("page-chat-bob.png")).await;
    browser.close().await;
    gateway.stop().await.unwrap();
}

/// The gateway goes away and another comes in its place: nothing is typed twice, and what was written meanwhile
/// arrives.
#[tokio::test]
async fn the_page_reconnects_by_itself_and_sends_what_it_owes() {
    let (gateway, page) = gateway().await;
    let address = gateway.proxy();
    let browser = Browser::start().await;
    let alice = join(&browser, &page, ["alice", "bob", "1"]).await;
    let bob = join(&browser, &page, ["bob", "alice", "2"]).await;
    say(&alice, "before").await;
    shows(&bob, "alice", "before").await;
    gateway.stop().await.unwrap();
    alice.wait_for_text("#status", "Reconnecting in ").await;
    say(&alice, "while it was away").await;
    let gateway = Gateway::start(|settings| {
        settings.page.path = "/client/".into();
        settings.proxy.port = address.port();
    })
    .await;
    shows(&bob, "alice", "while it was away").await;
    say(&bob, "welcome back").await;
    shows(&alice, "bob", "welcome back").await;
    assert_eq!(alice.texts(".message .text").await.len(), 3);
    browser.close().await;
    gateway.stop().await.unwrap();
}

/// What was written and heard is there again, each once, and so is the connection.
#[tokio::test]
async fn a_reload_changes_nothing() {
    let (gateway, page) = gateway().await;
    let browser = Browser::start().await;
    let alice = join(&browser, &page, ["alice", "bob", "1"]).await;
    let bob = join(&browser, &page, ["bob", "alice", "2"]).await;
    say(&alice, "one").await;
    shows(&bob, "alice", "one").await;
    say(&bob, "two").await;
    shows(&alice, "bob", "two").await;
    alice.wait_for("the ack", "document.querySelector('.own[data-state=acknowledged]')").await;
    alice.reload().await;
    alice.wait_for_text("#status", "Connected as alice in region 1").await;
    shows(&alice, "bob", "two").await;
    say(&bob, "three").await;
    shows(&alice, "bob", "three").await;
    assert_eq!(alice.texts(".message .text").await, ["one", "two", "three"]);
    assert_eq!(alice.texts(".own[data-state=acknowledged] .text").await, ["one"]);
    alice.click("Disconnect").await;
    alice.reload().await;
    shows(&alice, "bob", "three").await;
    assert_eq!(alice.texts("#status").await, ["Disconnected"], "a wish of before counts too");
    browser.close().await;
    gateway.stop().await.unwrap();
}

/// The page comes from one gateway and talks through another, which is away while a message is written and the page
/// is loaded anew.
#[tokio::test]
async fn what_waits_survives_a_reload_and_is_sent_once() {
    let (front, page) = gateway().await;
    let (hub, _) = gateway().await;
    let address = hub.proxy();
    let browser = Browser::start().await;
    let alice = browser.open(&page).await;
    serve(&alice, &format!("ws://{address}/ws")).await;
    connect(&alice, ["alice", "bob", "1"]).await;
    hub.stop().await.unwrap();
    alice.wait_for_text("#status", "Reconnecting in ").await;
    for text in ["first", "second"] {
        say(&alice, text).await;
    }
    alice.wait_for_text("#unacknowledged", "2 not yet acknowledged").await;
    alice.reload().await;
    alice.wait_for_text("#unacknowledged", "2 not yet acknowledged").await;
    assert_eq!(alice.texts(".own[data-state=sending] .text").await, ["first", "second"]);
    let hub = Gateway::start(|settings| {
        settings.page.path = "/client/".into();
        settings.proxy.port = address.port();
    })
    .await;
    alice
        .wait_for(
            "both acks",
            "document.querySelectorAll('[data-state=acknowledged]').length === 2",
        )
        .await;
    assert_eq!(alice.texts("#unacknowledged").await, [""]);
    let bob = join(&browser, &format!("http://{address}/client/"), ["bob", "", "2"]).await;
    shows(&bob, "alice", "second").await;
    assert_eq!(bob.texts(".message .text").await, ["first", "second"]);
    browser.close().await;
    front.stop().await.unwrap();
    hub.stop().await.unwrap();
}

/// A tab that is closed leaves what it could not send to the other one of the same user.
#[tokio::test]
async fn two_tabs_of_one_user_show_the_same_and_inherit() {
    let (front, page) = gateway().await;
    let (hub, _) = gateway().await;
    let address = hub.proxy();
    let browser = Browser::start().await;
    let mut tabs = Vec::new();
    for _ in 0..2 {
        let tab = browser.open(&page).await;
        serve(&tab, &format!("ws://{address}/ws")).await;
        connect(&tab, ["alice", "bob", "1"]).await;
        tabs.push(tab);
    }
    let (kept, closed) = (tabs.remove(0), tabs.remove(0));
    say(&closed, "in one tab").await;
    shows(&kept, "alice", "in one tab").await;
    hub.stop().await.unwrap();
    closed.wait_for_text("#status", "Reconnecting in ").await;
    say(&closed, "left behind").await;
    shows(&kept, "alice", "left behind").await;
    closed.close().await;
    let hub = Gateway::start(|settings| settings.proxy.port = address.port()).await;
    kept.wait_for(
        "both acks",
        "document.querySelectorAll('[data-state=acknowledged]').length === 2",
    )
    .await;
    assert_eq!(kept.texts(".message .text").await, ["in one tab", "left behind"]);
    browser.close().await;
    front.stop().await.unwrap();
    hub.stop().await.unwrap();
}

#[tokio::test]
async fn contacts_say_who_wrote_and_who_is_there() {
    let (gateway, page) = gateway().await;
    let browser = Browser::start().await;
    let alice = join(&browser, &page, ["alice", "bob", "1"]).await;
    let bob = join(&browser, &page, ["bob", "alice", "2"]).await;
    let carol = join(&browser, &page, ["carol", "alice", "1"]).await;
    say(&bob, "Good morning from region 2").await;
    shows(&alice, "bob", "Good morning from region 2").await;
    say(&alice, "Good morning! How is the new gateway?").await;
    say(&bob, "I stopped it while you wrote that.").await;
    shows(&alice, "bob", "I stopped it while you wrote that.").await;
    say(&carol, "Lunch at one?").await;
    alice.wait_for_text("#contacts", "carol").await;
    let carols = "#contacts [data-user=carol]";
    assert_eq!(alice.texts(&format!("{carols} .badge")).await, ["1"]);
    assert_eq!(alice.texts(&format!("{carols} .preview")).await, ["Lunch at one?"]);
    assert_eq!(alice.texts(".message").await.len(), 3, "one conversation at a time");
    alice.wait_for_text("#presence", "online").await;
    alice.screenshot(&picture("page-contacts.png")).await;
    alice.value("document.querySelector('#contacts [data-user=carol]').click()").await;
    shows(&alice, "carol", "Lunch at one?").await;
    assert_eq!(alice.value("document.getElementById('target').value").await, "carol");
    assert_eq!(alice.texts(&format!("{carols} .badge")).await, [""; 0]);
    alice.wait_for_text("#presence", "online").await;
    carol.click("Disconnect").await;
    alice.wait_for_text("#presence", "last seen ").await;
    alice
        .wait_for("bob's dot", "document.querySelector('[data-user=bob] [data-online=true]')")
        .await;
    alice.fill("Target", "nobody").await;
    alice.wait_for_text("#presence", "offline").await;
    browser.close().await;
    gateway.stop().await.unwrap();
}

/// From disk the library comes from the gateway that the page talks to, since browsers load no modules from there.
#[tokio::test]
async fn the_page_talks_from_disk_too() {
    let (gateway, page) = gateway().await;
    let browser = Browser::start().await;
    let alice = browser.open(&page_from_disk()).await;
    serve(&alice, &format!("ws://{}/ws", gateway.proxy())).await;
    connect(&alice, ["alice", "bob", "1"]).await;
    let bob = join(&browser, &page, ["bob", "alice", "2"]).await;
    say(&alice, "from disk").await;
    shows(&bob, "alice", "from disk").await;
    browser.close().await;
    gateway.stop().await.unwrap();
}

/// Of the server's refusals those that would only repeat end the attempts, beside the field that is wrong.
#[tokio::test]
async fn a_region_that_is_not_there_is_told_at_its_field() {
    let (gateway, page) = gateway().await;
    let browser = Browser::start().await;
    let tab = browser.open(&page).await;
    for (label, text) in [("User", "alice"), ("Region", "mars")] {
        tab.fill(label, text).await;
    }
    tab.click("Connect").await;
    tab.wait_for_text("#region-error", "No such region is configured").await;
    assert_eq!(tab.texts("#status").await, ["Disconnected"]);
    browser.close().await;
    gateway.stop().await.unwrap();
}

async fn join(browser: &Browser, page: &str, who: [&str; 3]) -> Tab {
    let tab = browser.open(page).await;
    connect(&tab, who).await;
    tab
}

async fn connect(tab: &Tab, [user, target, region]: [&str; 3]) {
    for (label, text) in [("User", user), ("Target", target), ("Region", region)] {
        tab.fill(label, text).await;
    }
    tab.click("Connect").await;
    tab.wait_for_text("#status", &format!("Connected as {user} in region {region}")).await;
}

async fn say(tab: &Tab, text: &str) {
    tab.fill("Message", text).await;
    tab.click("Send").await;
}

/// Waits until the last message is this one.
async fn shows(tab: &Tab, from: &str, text: &str) {
    let expression = format!(
        "[...document.querySelectorAll('.message[data-from={from}] .text')].at(-1)?.textContent === {}",
        serde_json::json!(text)
    );
    tab.wait_for(&format!("“{text}” from {from}"), &expression).await;
}

//! `meridian send` and `meridian chat`: the built binary against a real gateway, over pipes.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::harness::chat::Chat;
use crate::harness::gateway::Gateway;
use crate::harness::http::get;
use crate::harness::port::Port;
use crate::harness::redis::RedisServer;
use crate::harness::talk::{Talk, command, ran};
use crate::harness::{eventually, within};

pub(crate) async fn join(proxy: SocketAddr, user: &str) -> Chat {
    Chat::at(proxy, &format!("/ws?userId={user}&region=2")).await
}

#[tokio::test]
async fn a_message_is_acknowledged_and_heard() {
    let gateway = Gateway::start(|_| ()).await;
    let port = gateway.proxy().port();
    let mut bob = join(gateway.proxy(), "bob").await;
    let send = ["send", "--to", "bob", "--from", "alice", "--id", "c1", "hi"];
    assert_eq!(ran(port, &send).await, (Some(0), "sent c1 to bob (seq 1)\n".into(), String::new()));
    let heard = bob.hears_type("message").await;
    assert_eq!(
        (&heard["from"], &heard["text"], &heard["region"]),
        (&json!("alice"), &json!("hi"), &json!("1"))
    );
    // The same id again is acknowledged, and not heard.
    let (code, out, _) = ran(port, &[&send[..], &["--json"]].concat()).await;
    let ack: Value = serde_json::from_str(out.trim_end()).unwrap();
    assert_eq!(
        (code, &ack["type"], &ack["seq"], &ack["duplicate"]),
        (Some(0), &json!("ack"), &json!(1), &json!(true))
    );
    let data = r#"{"z":1,"a":[1.50,null]}"#;
    let url = format!("http://{}?region=2", gateway.proxy());
    let (code, ..) = ran(1, &["send", "--to", "bob", "--data", data, "--url", &url]).await;
    assert_eq!(code, Some(0));
    let heard = bob.hears_type("message").await;
    assert_eq!(
        (&heard["from"], &heard["data"]["a"][0], &heard["region"]),
        (&json!("meridian"), &json!(1.5), &json!("2"))
    );
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn a_message_comes_through_when_the_gateway_starts() {
    let reserved = Port::reserve();
    let (port, listener) =
        (reserved.number(), TcpListener::bind(reserved.address()).await.unwrap());
    let send = Talk::start(port, &["send", "--to", "bob", "--id", "c1", "at last"]);
    // The first attempt is cut, the next find nobody.
    drop(within("an attempt", listener.accept()).await.unwrap());
    drop(listener);
    let gateway = Gateway::start(|settings| settings.proxy.port = port).await;
    assert_eq!(send.end().await.1, "sent c1 to bob (seq 1)\n");
    let mut bob = Chat::at(gateway.proxy(), "/ws?userId=bob&region=1&since=0&epoch=").await;
    assert_eq!(bob.hears_type("message").await["text"], "at last");
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn what_does_not_go_is_one_line_and_an_exit_code() {
    let gateway =
        Gateway::start(|settings| settings.hub.max_text_bytes = 10.try_into().unwrap()).await;
    let port = gateway.proxy().port();
    for (arguments, code, why) in [
        (&["--to", "bob", "--region", "mars", "x"][..], 1, "404 region_unknown"),
        (
            &["--to", "bob", "--url", "http://127.0.0.1:1", "--timeout", "200ms", "x"],
            1,
            "Connection refused",
        ),
        (&["--to", "bob", "over ten bytes"], 1, "text_too_long"),
        (&["--to", "b{b", "x"], 2, "128 visible ASCII"),
        (&["--to", "bob"], 2, "nothing to send"),
        (&["--to", "bob", "--data", "{"], 2, "not JSON"),
        (&["--to", "bob", "--url", "localhost", "x"], 2, "not a URL"),
        (&["--to", "bob", "--timeout", "0s", "x"], 2, "longer than nothing"),
    ] {
        let (ended, out, notes) = ran(port, &[&["send"], arguments].concat()).await;
        assert_eq!((ended, out.as_str()), (Some(code), ""), "{arguments:?}: {notes}");
        assert!(notes.contains(why), "{why} in {notes}");
        assert!(code == 2 || notes.lines().count() == 1, "{notes}");
    }
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn each_line_is_a_message_in_order_and_a_second_run_is_harmless() {
    const LINES: usize = 150;
    let gateway = Gateway::start(|settings| {
        settings.hub.max_text_bytes = 40.try_into().unwrap();
        // The burst is soon used up: refusals for the moment must not change the order.
        settings.hub.message_burst = 20.try_into().unwrap();
        settings.hub.messages_per_second = 500.try_into().unwrap();
    })
    .await;
    let port = gateway.proxy().port();
    let mut bob = join(gateway.proxy(), "bob").await;
    for run in 0..2 {
        let mut send = Talk::start(port, &["send", "--to", "bob", "--id", "b", "-"]);
        for index in 0..LINES {
            send.types(&format!("line {index}\n{}", if index == 3 { "\n" } else { "" })).await;
        }
        send.types(&"x".repeat(41)).await;
        let (code, out, notes) = send.end().await;
        assert_eq!((code, out.lines().count()), (Some(1), LINES), "{notes}");
        assert_eq!(out.lines().filter(|line| line.ends_with("a repeat)")).count(), LINES * run);
        assert!(notes.starts_with("meridian: b-152 was refused: "), "{notes}");
    }
    for index in 0..LINES {
        assert_eq!(bob.hears_type("message").await["text"], format!("line {index}"));
    }
    let mut alice = join(gateway.proxy(), "alice").await;
    alice.say("bob", "nothing came twice", "c1").await;
    assert_eq!(bob.hears_type("message").await["from"], "alice");
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn two_converse_over_pipes() {
    let gateway = Gateway::start(|_| ()).await;
    let port = gateway.proxy().port();
    let mut eve = join(gateway.proxy(), "eve").await;
    eve.say("bob", "\x1b]0;owned\x07\nalice: fake\u{202e}", "c1").await;
    let mut alice = Talk::start(port, &["chat", "--as", "alice", "--with", "bob"]);
    let mut bob = Talk::start(port, &["chat", "--as", "bob"]);
    // First what the inbox held, marked, and with nothing in it that a terminal obeys.
    let held = bob.out.line().await;
    assert!(held.starts_with("eve (earlier, 20"), "{held}");
    assert!(held.ends_with("): ␛]0;owned␇␊alice: fake\u{fffd}"), "{held}");
    assert_eq!(alice.notes.comes_to("connected").await, "-- connected as alice in region 1");
    alice.notes.comes_to("-- bob is online").await;
    alice.types("hello\n").await;
    assert_eq!(alice.notes.comes_to("hello").await, "alice to bob: hello ✓");
    assert_eq!(bob.out.line().await, "alice: hello");
    bob.types("to nobody\n/to alice\n//etc is mine\n/nonsense\n").await;
    assert!(bob.notes.comes_to("not sent").await.contains("/to bob"));
    assert_eq!(alice.out.line().await, "bob: /etc is mine");
    assert!(bob.notes.comes_to("/nonsense").await.contains("/help"));
    // Typing is told once, not with each notice of it.
    for _ in 0..3 {
        eve.send(json!({"type": "typing", "to": "alice"})).await;
    }
    assert_eq!(alice.notes.comes_to("typing").await, "-- eve is typing");
    eve.say("alice", "there", "c2").await;
    assert_eq!(alice.out.line().await, "eve: there");
    alice.types("bye\n/to eve\nand bye").await;
    let (code, out, notes) = alice.end().await;
    assert_eq!((code, out.as_str()), (Some(0), ""), "{notes}");
    let marks: Vec<_> = notes.lines().filter(|line| line.ends_with('✓')).collect();
    assert_eq!(marks, ["alice to bob: bye ✓", "alice to eve: and bye ✓"], "{notes}");
    assert_eq!(bob.out.line().await, "alice: bye");
    assert_eq!(eve.hears_type("message").await["text"], "and bye");
    // Two lines of his were not sent.
    bob.types("/quit\n").await;
    assert_eq!(bob.end().await.0, Some(1));
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn many_lines_at_once_are_sent_as_there_is_room() {
    const LINES: usize = 1_500;
    let gateway = Gateway::start(|settings| {
        settings.hub.messages_per_second = 100_000.try_into().unwrap();
        settings.hub.message_burst = 100_000.try_into().unwrap();
    })
    .await;
    let mut bob = join(gateway.proxy(), "bob").await;
    let mut alice =
        Talk::start(gateway.proxy().port(), &["chat", "--as", "alice", "--with", "bob"]);
    let lines: Vec<_> = (0..LINES).map(|index| index.to_string()).collect();
    alice.types(&lines.join("\n")).await;
    alice.hangs_up();
    for index in 0..LINES {
        assert_eq!(bob.hears_type("message").await["text"], index.to_string());
    }
    assert_eq!(alice.end().await.0, Some(0));
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn what_the_inbox_holds_is_printed_where_there_is_nothing_to_say() {
    let gateway = Gateway::start(|_| ()).await;
    let mut alice = join(gateway.proxy(), "alice").await;
    for index in 0..100 {
        alice.say("bob", &format!("{index}"), &format!("c{index}")).await;
    }
    let (code, out, notes) = ran(gateway.proxy().port(), &["chat", "--as", "bob"]).await;
    assert_eq!(code, Some(0), "{notes}");
    let said: Vec<_> =
        out.lines().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect();
    assert_eq!(said, (0..100).map(|index| index.to_string()).collect::<Vec<_>>());
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn a_conversation_survives_a_restart_of_the_gateway() {
    let redis = RedisServer::start().await;
    let reserved = Port::reserve();
    let port = reserved.number();
    let node = || async {
        let gateway = Gateway::start(|settings| {
            settings.proxy.port = port;
            settings.bus.redis.host = Some("127.0.0.1".into());
            settings.bus.redis.port = redis.port();
            settings.shutdown.grace = std::time::Duration::from_secs(1);
        })
        .await;
        eventually("readiness", async || get(gateway.proxy(), "/ready", "").await.status == 200)
            .await;
        gateway
    };
    let mut gateway = node().await;
    let mut alice = Talk::start(port, &["chat", "--as", "alice", "--with", "bob"]);
    let mut bob = Talk::start(port, &["chat", "--as", "bob", "--with", "alice"]);
    for talk in [&mut alice, &mut bob] {
        talk.notes.comes_to("-- connected as").await;
    }
    let mut number = 0;
    for round in 0..3 {
        for _ in 0..20 {
            alice.types(&format!("{number}\n")).await;
            number += 1;
        }
        if round < 2 {
            // Some of these are on their way; what is typed while there is no gateway waits.
            gateway.stop().await.unwrap();
            alice.types(&format!("{number}\n")).await;
            number += 1;
            gateway = node().await;
        }
    }
    for index in 0..number {
        assert_eq!(bob.out.line().await, format!("alice: {index}"), "in order, and each once");
    }
    let (code, _, notes) = alice.end().await;
    assert_eq!(code, Some(0), "{notes}");
    assert_eq!(notes.lines().filter(|line| line.ends_with('✓')).count(), number, "{notes}");
    assert!(
        notes.contains("-- connection lost (") && notes.contains("-- connected again"),
        "{notes}"
    );
    let (code, out, notes) = bob.end().await;
    assert_eq!((code, out.as_str()), (Some(0), ""), "{notes}");
    assert!(!notes.contains("missing") && !notes.contains("lost for good"), "{notes}");
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn a_signal_ends_a_conversation_and_what_is_left_is_said() {
    let gateway = Gateway::start(|_| ()).await;
    // On port 1 nobody listens.
    for (port, typed, code) in [(gateway.proxy().port(), "", 0), (1, "hi\n", 1)] {
        for signal in ["INT", "TERM"] {
            let mut talk = Talk::start(port, &["chat", "--as", "alice", "--with", "bob"]);
            talk.types(typed).await;
            talk.notes.comes_to("-- ").await;
            let pid = talk.child.id().unwrap().to_string();
            // Once this line is read, the ones before it are.
            talk.types("/help\n").await;
            talk.notes.comes_to("//TEXT").await;
            let sent = Command::new("kill").args(["-s", signal, &pid]).status().await.unwrap();
            assert!(sent.success());
            let status = within("the end", talk.child.wait()).await.unwrap();
            assert_eq!(status.code(), Some(code), "{signal}");
            let notes = talk.notes.rest().await;
            assert_eq!(notes.contains("1 message not acknowledged"), code == 1, "{notes}");
        }
    }
    gateway.stop().await.unwrap();
}

/// Takes TLS off before `gateway`; gives its port, and the certificate by which it is known.
async fn tls_before(gateway: SocketAddr) -> (u16, String) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((outer, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut outer) = acceptor.accept(outer).await else { return };
                let mut inner = tokio::net::TcpStream::connect(gateway).await.unwrap();
                tokio::io::copy_bidirectional(&mut outer, &mut inner).await.ok();
            });
        }
    });
    (port, certified.cert.pem())
}

#[tokio::test]
async fn over_tls_only_a_trusted_gateway_is_talked_to() {
    let gateway = Gateway::start(|_| ()).await;
    let (port, certificate) = tls_before(gateway.proxy()).await;
    let (_, other) = tls_before(gateway.proxy()).await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("https://localhost:{port}");
    for (trusted, time, code, said) in [
        (other, "3s", 1, "no trusted TLS with localhost"),
        (certificate, "1m", 0, "sent c1 to bob (seq 1)"),
    ] {
        let send = ["send", "--to", "bob", "--id", "c1", "--timeout", time, "--url", &url, "hi"];
        let file = folder.path().join("roots.pem");
        std::fs::write(&file, trusted).unwrap();
        let talk = Talk::spawn(command(1, &send).env("SSL_CERT_FILE", &file));
        let (ended, out, notes) = talk.end().await;
        assert_eq!(ended, Some(code), "{notes}");
        assert!(out.contains(said) || notes.contains(said), "{out}{notes}");
    }
    gateway.stop().await.unwrap();
}

//! Messages to many users who are not there: what a server keeps for each of them.

use clap::Args;
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use crate::Target;

/// Messages that are not answered yet, at most.
const WINDOW: usize = 32;

#[derive(Args)]
pub(crate) struct Fill {
    #[command(flatten)]
    target: Target,
    /// Recipients, each with a name of the same length.
    #[arg(long, default_value_t = 20_000)]
    users: usize,
    /// Messages to each.
    #[arg(long, default_value_t = 1)]
    messages: usize,
    /// Bytes of a message's text.
    #[arg(long, default_value_t = 128)]
    bytes: usize,
    /// Part of every name and id, so that runs do not meet each other's users.
    #[arg(long, default_value = "run")]
    tag: String,
}

impl Fill {
    /// Sends everything over one socket; fails where one message is refused.
    pub(crate) async fn run(self) -> String {
        let Self { target, users, messages, bytes, tag } = self;
        let mut socket = target.connect("filler", "nobody").await;
        let text = "x".repeat(bytes);
        let total = users * messages;
        let (mut sent, mut stored) = (0, 0);
        while stored < total {
            while sent < total && sent - stored < WINDOW {
                let to = sent % users;
                let frame = format!(
                    r#"{{"type":"message","to":"{tag}-{to:06}","text":"{text}","id":"{tag}-{sent:08}"}}"#
                );
                socket.feed(Message::text(frame)).await.expect("the server reads");
                sent += 1;
            }
            socket.flush().await.expect("the server reads");
            let answer = socket.next().await.expect("the socket stays open").expect("a frame");
            let Message::Text(answer) = answer else { continue };
            assert!(answer.starts_with(r#"{"type":"ack""#), "{answer}");
            stored += 1;
        }
        format!("stored={stored}")
    }
}

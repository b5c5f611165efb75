//! A chat client that says what a test tells it to, and hears what comes.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::within;

/// One connected socket; its welcome has been read.
#[derive(Debug)]
pub(crate) struct Chat {
    pub(crate) socket: WebSocketStream<TcpStream>,
    pub(crate) welcome: Value,
}

/// A refused handshake.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) retry_after: Option<String>,
}

/// The bare socket of `ws://address<target>`, before its welcome, or the refusal.
pub(crate) async fn open(
    address: SocketAddr,
    target: &str,
    headers: &[(&'static str, &str)],
) -> Result<WebSocketStream<TcpStream>, Refused> {
    let stream = within("a connection", TcpStream::connect(address)).await.expect("connects");
    stream.set_nodelay(true).unwrap();
    let mut request = format!("ws://{address}{target}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match within("the handshake", tokio_tungstenite::client_async(request, stream)).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let code = body["error"]["code"].as_str().unwrap_or_default().to_owned();
            let after = response.headers().get("retry-after");
            let retry_after = after.and_then(|value| value.to_str().ok()).map(str::to_owned);
            Err(Refused { status: response.status().as_u16(), code, retry_after })
        }
        Err(error) => panic!("the handshake failed: {error}"),
    }
}

impl Chat {
    /// Joins at a hub, or anywhere else that answers `target`.
    pub(crate) async fn at(address: SocketAddr, target: &str) -> Self {
        let socket = open(address, target, &[]).await.expect("admitted");
        let mut chat = Self { socket, welcome: Value::Null };
        chat.welcome = chat.hears().await;
        assert_eq!(chat.welcome["type"], "welcome", "the welcome comes first");
        chat
    }

    /// Joins at a hub as `user`.
    pub(crate) async fn join(hub: SocketAddr, user: &str) -> Self {
        Self::at(hub, &format!("/?userId={user}")).await
    }

    /// Joins again, after position `since` of epoch `epoch`.
    pub(crate) async fn resume(hub: SocketAddr, user: &str, since: u64, epoch: &str) -> Self {
        Self::at(hub, &format!("/?userId={user}&since={since}&epoch={epoch}")).await
    }

    pub(crate) fn epoch(&self) -> String {
        self.welcome["epoch"].as_str().expect("an epoch").to_owned()
    }

    pub(crate) async fn send(&mut self, frame: impl ToString) {
        self.socket.send(Message::text(frame.to_string())).await.expect("the socket is open");
    }

    /// Sends a text, and awaits its ack.
    pub(crate) async fn say(&mut self, to: &str, text: &str, id: &str) -> Value {
        self.send(serde_json::json!({"type": "message", "to": to, "text": text, "id": id})).await;
        self.hears_type("ack").await
    }

    /// Sends a text to oneself, and hears the ack and the message, whichever comes first.
    pub(crate) async fn notes(&mut self, user: &str, text: &str, id: &str) {
        self.send(serde_json::json!({"type": "message", "to": user, "text": text, "id": id})).await;
        let frames = [self.hears().await, self.hears().await];
        for kind in ["ack", "message"] {
            assert!(frames.iter().any(|frame| frame["type"] == kind), "no {kind} in {frames:?}");
        }
    }

    /// The next frame; pings are answered by the library and not shown.
    pub(crate) async fn hears(&mut self) -> Value {
        loop {
            match within("a frame", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).expect("JSON"),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("no frame but {other:?}"),
            }
        }
    }

    /// The next frame, which must be of this type.
    pub(crate) async fn hears_type(&mut self, kind: &str) -> Value {
        let frame = self.hears().await;
        assert_eq!(frame["type"], kind, "{frame}");
        frame
    }

    /// Reads on to the close, and gives its code.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            match within("the close", self.socket.next()).await {
                Some(Ok(Message::Close(Some(CloseFrame { code, .. })))) => return code.into(),
                Some(Ok(Message::Close(None))) => return 1005,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return 1006,
            }
        }
    }
}

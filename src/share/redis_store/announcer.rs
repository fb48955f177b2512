//! `Announcer`: passes the messages of the store's channels on to those who follow a token.

use std::sync::Arc;

use redis::aio::{AsyncPushSender, SendError};
use redis::{PushInfo, PushKind, Value};
use tokio::sync::broadcast;

use super::super::announcements::Announcements;
use super::super::names::TokenName;
use super::super::store::Announcement;
use super::bounded::ReadCount;

/// The message of a handover. All others are generations.
pub(super) const HANDOVER: &str = "p";

/// The receivers of announcements, by the name of their token.
#[derive(Debug, Clone)]
pub(super) struct Announcer {
    /// The channels of all tokens begin with it.
    prefix: Arc<str>,
    tokens: Announcements,
    /// The count of the connection that this one serves.
    count: ReadCount,
}

impl Announcer {
    pub(super) fn new(key_prefix: &str) -> Self {
        Self {
            prefix: format!("{key_prefix}:").into(),
            tokens: Announcements::default(),
            count: ReadCount::default(),
        }
    }

    /// The same for a connection: each message that arrives begins its count again.
    pub(super) fn with_count(&self, count: &ReadCount) -> Self {
        Self { count: count.clone(), ..self.clone() }
    }

    /// The pattern of the channels of all tokens.
    pub(super) fn pattern(&self) -> String {
        format!("{}*", self.prefix)
    }

    pub(super) fn subscribe(&self, name: &TokenName) -> broadcast::Receiver<Announcement> {
        self.tokens.subscribe(name)
    }

    fn announce(&self, channel: &[u8], message: &[u8]) -> Option<()> {
        let channel = std::str::from_utf8(channel).ok()?;
        let message = std::str::from_utf8(message).ok()?;
        let name = channel.strip_prefix(&*self.prefix)?;
        let announcement = match message {
            HANDOVER => Announcement::HandingOver,
            generation => Announcement::Published(generation.parse().ok()?),
        };
        self.tokens.send(name, announcement);
        Some(())
    }
}

/// Called by the connection for each push message; it neither waits nor queues.
impl AsyncPushSender for Announcer {
    fn send(&self, info: PushInfo) -> Result<(), SendError> {
        self.count.reset();
        if let (PushKind::PMessage, [_, Value::BulkString(channel), Value::BulkString(message)]) =
            (&info.kind, &*info.data)
        {
            let _ = self.announce(channel, message);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::name;
    use super::*;

    fn push(announcer: &Announcer, channel: &str, message: &str) {
        let bytes = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let data = vec![bytes(&announcer.pattern()), bytes(channel), bytes(message)];
        announcer.send(PushInfo { kind: PushKind::PMessage, data }).unwrap();
    }

    #[test]
    fn each_token_gets_its_own_announcements() {
        let (one, other) = (name("one"), name("other"));
        let announcer = Announcer::new("p");
        let (mut of_one, mut of_other) = (announcer.subscribe(&one), announcer.subscribe(&other));
        push(&announcer, &one.channel("p"), "7");
        push(&announcer, &one.channel("p"), HANDOVER);
        push(&announcer, &one.channel("q"), "8");
        push(&announcer, &one.channel("p"), "neither");
        push(&announcer, &other.channel("p"), "9");
        assert_eq!(of_one.try_recv(), Ok(Announcement::Published(7)));
        assert_eq!(of_one.try_recv(), Ok(Announcement::HandingOver));
        assert!(of_one.try_recv().is_err());
        assert_eq!(of_other.try_recv(), Ok(Announcement::Published(9)));
    }
}

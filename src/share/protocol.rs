//! The protocol of replicas that share a token: who renews it, and whose token counts.
//!
//! The store runs four scripts, each of which is atomic and reads the store's own clock, so that the clocks
//! of replicas do not matter. A replica that asks gets a newer token, or the lead of the renewal, or the time
//! to wait. Correctness rests on generations and not on the lease: each lead has an epoch above all
//! generations that the store or the leader knows, and a token is accepted only if no token of the same or a
//! later epoch is there. The lease only saves token requests.

use std::time::Duration;

use super::sealing::Unreadable;

/// Asks for the token, or for the lead of its renewal.
pub const ACQUIRE: &str = include_str!("scripts/acquire.lua");
/// Renews the lease of a leader.
pub const RENEW: &str = include_str!("scripts/renew.lua");
/// Publishes a token.
pub const PUBLISH: &str = include_str!("scripts/publish.lua");
/// Gives the lead back after a failure.
pub const FAIL: &str = include_str!("scripts/fail.lua");

/// The reply to [`ACQUIRE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AcquireReply {
    /// The store has another token than the replica.
    Token(StoredValue),
    /// The store has no other token, and the replica did not ask for the lead.
    NoOther,
    /// Another replica renews the token; its lease ends after this time.
    Held(Duration),
    /// No replica may renew the token for this time: the least interval, the back-off or the budget.
    Wait(Duration),
    /// The replica renews the token, and publishes it under this epoch.
    Lead(u64),
}

/// A sealed token in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredValue {
    /// The generation of the token.
    pub generation: u64,
    /// The replica that published it.
    pub owner: String,
    /// The sealed token.
    pub sealed: Vec<u8>,
    /// The rest of its life, by the store's clock.
    pub life_left: Duration,
}

/// The reply to [`PUBLISH`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishReply {
    /// The token is in the store.
    Accepted,
    /// A token of the same or a later epoch is there, with this generation.
    Superseded(u64),
}

/// The next step of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Use the token of the store.
    Adopt,
    /// Request a token, and publish it under this epoch.
    Request(u64),
    /// Keep the held token and ask again after this time.
    AskAgain(Duration),
    /// Publish the held token under its generation: the store may have lost it.
    Offer(u64),
    /// Keep the held token. The value in the store cannot be used.
    Keep(Unreadable),
    /// Keep the held token and leave renewals to replicas of the newer version that wrote the value.
    LeaveToNewer,
}

/// The knowledge of one replica about one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    id: String,
    held: Option<HeldToken>,
}

/// The token that a replica holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HeldToken {
    generation: u64,
    owner: String,
}

impl Replica {
    /// A replica without a token. Its id is its own: two replicas with one id would take each other's lease.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), held: None }
    }

    /// The id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The generation of the held token; 0: none.
    pub fn generation(&self) -> u64 {
        self.held.as_ref().map_or(0, |held| held.generation)
    }

    /// The replica that published the held token; empty for none.
    pub fn token_owner(&self) -> &str {
        self.held.as_ref().map_or("", |held| &held.owner)
    }

    /// The step that follows from a reply to [`ACQUIRE`]. `opened` is the attempt to open the value of an
    /// [`AcquireReply::Token`], and ignored for other replies.
    pub fn on_acquired(&mut self, reply: &AcquireReply, opened: Result<(), Unreadable>) -> Step {
        match reply {
            AcquireReply::Token(value) => self.on_value(value, opened),
            // Offered by its publisher alone, and refused by the store if it still has it.
            AcquireReply::NoOther => match &self.held {
                Some(held) if held.owner == self.id => Step::Offer(held.generation),
                _ => Step::AskAgain(Duration::ZERO),
            },
            AcquireReply::Held(left) | AcquireReply::Wait(left) => Step::AskAgain(*left),
            AcquireReply::Lead(epoch) => Step::Request(*epoch),
        }
    }

    fn on_value(&mut self, value: &StoredValue, opened: Result<(), Unreadable>) -> Step {
        match opened {
            Ok(()) => {}
            Err(Unreadable::Newer) => return Step::LeaveToNewer,
            Err(unreadable) => return Step::Keep(unreadable),
        }
        // The script does not return an older value: whoever wrote it changed the store by other means.
        if value.generation < self.generation() {
            return Step::Keep(Unreadable::Rollback);
        }
        self.held = Some(HeldToken { generation: value.generation, owner: value.owner.clone() });
        Step::Adopt
    }

    /// Tells whether the replica may publish a token of an epoch. A leader that was ousted may have adopted a
    /// later token before its own request was answered. It knows better than a store that lost that token.
    pub fn may_publish(&self, epoch: u64) -> bool {
        epoch > self.generation() || (epoch == self.generation() && self.token_owner() == self.id)
    }

    /// Notes a token that the replica obtained without the store, and returns its generation: that of its
    /// own lead, or the next one.
    pub fn on_unpublished(&mut self, epoch: Option<u64>) -> u64 {
        let generation = epoch.unwrap_or(self.generation() + 1);
        self.held = Some(HeldToken { generation, owner: self.id.clone() });
        generation
    }

    /// Notes the reply to the publication of a token of an epoch. `true` if the replica uses that token; else
    /// it asks the store for the one that superseded it.
    pub fn on_published(&mut self, epoch: u64, reply: PublishReply) -> bool {
        let accepted = reply == PublishReply::Accepted;
        if accepted {
            self.held = Some(HeldToken { generation: epoch, owner: self.id.clone() });
        }
        accepted
    }
}

/// The duration of a lease for tokens that live so long: short, so that another replica takes over soon. The
/// leader renews it at every third of it while its token request is under way.
pub fn lease(life: Duration) -> Duration {
    (life / 20).clamp(Duration::from_secs(1), Duration::from_secs(5))
}

/// The share of its life by which a replica renews a token later than it is due, from a `chance` between 0
/// and 1. The leader comes first, so that the lead stays where it is.
pub fn delay_share(leads: bool, chance: f64) -> f64 {
    let (least, most) = if leads { (0.004, 0.01) } else { (0.02, 0.05) };
    least + (most - least) * chance.clamp(0.0, 1.0)
}

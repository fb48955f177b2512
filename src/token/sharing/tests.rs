//! Replicas that share a token, under paused time: a bank that answers after 100 ms, and a store after 1 ms.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

use super::settings::{EncryptionKey, ShareSettings, WhenUnreachable};
use super::shared_store::{Keys, SharedStore, SharingRules};
use crate::clock::{Moment, testing as clock};
use crate::secret::{Reference, Store};
use crate::sensitive::Sensitive;
use crate::share::names::NameKey;
use crate::share::sealing::SharingKeys;
use crate::share::settings::StoreSettings;
use crate::share::store::TokenStore;
use crate::share::testing::ModelStore;
use crate::telemetry::Registry;
use crate::token::Reader;
use crate::token::credential::RefreshPolicy;
use crate::token::manager::TokenManager;
use crate::token::testing::{Mood, Scripted, credential, keep, manager};

/// 32 bytes each.
const NAMES: &str = "QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl8=";
const SEAL: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER: &str = "Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A store with the keys that all replicas have.
pub(super) fn shared_by(store: Arc<dyn TokenStore>, rules: SharingRules) -> SharedStore {
    with_seals(store, rules, &[("k", SEAL)])
}

fn with_seals(
    store: Arc<dyn TokenStore>,
    rules: SharingRules,
    seals: &[(&str, &str)],
) -> SharedStore {
    with_all_keys(store, rules, NAMES, seals, &Registry::new())
}

fn with_all_keys(
    store: Arc<dyn TokenStore>,
    rules: SharingRules,
    names: &str,
    seals: &[(&str, &str)],
    registry: &Registry,
) -> SharedStore {
    let seals: Vec<_> = seals.iter().map(|(id, key)| (*id, Sensitive::new(*key))).collect();
    let values = SharingKeys::new(seals.iter().map(|(id, key)| (*id, key))).unwrap();
    let keys = Keys { names: NameKey::new(&Sensitive::new(names)).unwrap(), values };
    SharedStore::with_keys(store, rules, keys, registry).unwrap()
}

fn rules(when_unreachable: WhenUnreachable) -> SharingRules {
    SharingRules {
        key_prefix: "test".into(),
        when_unreachable,
        takeover_after: secs(30),
        poll: secs(5),
    }
}

fn shared(store: &Arc<ModelStore>, when: WhenUnreachable, seals: &[(&str, &str)]) -> SharedStore {
    with_seals(Arc::clone(store) as _, rules(when), seals)
}

/// Replicas with one bank and one store.
struct Replicas {
    bank: Scripted,
    store: Arc<ModelStore>,
    when: WhenUnreachable,
    policy: RefreshPolicy,
    all: Vec<(TokenManager<Scripted>, Registry, Reader)>,
}

impl Replicas {
    fn new(life: u64, one_live_token: bool) -> Self {
        clock::set(SystemTime::UNIX_EPOCH + secs(1_800_000_000));
        let bank = Scripted::new();
        bank.set(Mood::Gives(life));
        let (store, when) = (ModelStore::new(), WhenUnreachable::LastLeader);
        let policy = RefreshPolicy { share: true, one_live_token, ..RefreshPolicy::default() };
        Self { bank, store, when, policy, all: Vec::new() }
    }

    fn start(&mut self) {
        self.start_with(&[("k", SEAL)]);
    }

    fn start_with(&mut self, seals: &[(&str, &str)]) {
        self.start_through(shared(&self.store, self.when, seals));
    }

    /// A replica with another `name_key`.
    fn start_with_names(&mut self, names: &str) {
        let (store, rules) = (Arc::clone(&self.store) as _, rules(self.when));
        let shared = with_all_keys(store, rules, names, &[("k", SEAL)], &Registry::new());
        self.start_through(shared);
    }

    fn start_through(&mut self, shared: SharedStore) {
        let (mut manager, registry) = manager(&self.bank);
        manager.share_through(Arc::new(shared));
        let reader = keep(&mut manager, &Arc::new(credential(self.policy)), &["a"]).remove(0);
        self.all.push((manager, registry, reader));
    }

    async fn started(life: u64, one_live_token: bool, count: usize) -> Self {
        let mut replicas = Self::new(life, one_live_token);
        (0..count).for_each(|_| replicas.start());
        // The store allows one call a second.
        sleep(secs(2)).await;
        assert_eq!(replicas.same_token().len(), count);
        replicas
    }

    /// The tokens of the replicas that hold a usable one.
    fn tokens(&self) -> Vec<http::HeaderValue> {
        let now = Moment::now();
        let held = self.all.iter().filter_map(|(_, _, reader)| reader.usable(now));
        held.map(|guard| guard.finish().header().clone()).collect()
    }

    /// As [`Self::tokens`], which are all the same.
    fn same_token(&self) -> Vec<http::HeaderValue> {
        let tokens = self.tokens();
        assert!(tokens.windows(2).all(|two| two[0] == two[1]), "{tokens:?}");
        tokens
    }

    fn calls(&self) -> usize {
        self.bank.calls()
    }

    fn generations(&self) -> Vec<u64> {
        self.statuses().map(|status| status.generation).collect()
    }

    fn statuses(&self) -> impl Iterator<Item = super::renewal::ShareStatus> {
        self.all.iter().map(|(manager, ..)| manager.handle().statuses()[0].share.clone().unwrap())
    }

    fn leader(&self) -> usize {
        let leading: Vec<_> = self.statuses().map(|status| status.leads()).collect();
        assert_eq!(leading.iter().filter(|leads| **leads).count(), 1, "{leading:?}");
        leading.iter().position(|leads| *leads).unwrap()
    }

    /// Stops a replica as a crash would: nothing of it runs on.
    async fn kill(&mut self, number: usize) {
        self.all.remove(number).0.shutdown(false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_lives_cost_a_hundred_calls_and_the_leader_stays() {
    let replicas = Replicas::started(60, false, 3).await;
    let leader = replicas.leader();
    let began = replicas.store.operations();
    for _ in 0..4900 {
        sleep(secs(1)).await;
        assert_eq!(replicas.tokens().len(), 3);
    }
    assert!((99..=103).contains(&replicas.calls()), "{} calls", replicas.calls());
    assert_eq!(replicas.leader(), leader);
    let generation = replicas.generations()[0];
    assert_eq!(replicas.generations(), [generation; 3]);
    assert_eq!(generation, replicas.calls() as u64);
    // Five a life and replica, and one a poll.
    let operations = replicas.store.operations() - began;
    assert!(operations <= 3 * (101 * 5 + 4900 / 5), "{operations} operations");
}

#[tokio::test(start_paused = true)]
async fn a_cold_start_of_a_thousand_replicas_costs_one_call() {
    let replicas = Replicas::started(3600, false, 1000).await;
    assert_eq!(replicas.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_announcement_is_made_up_for_by_the_poll() {
    let replicas = Replicas::started(3600, false, 3).await;
    replicas.store.set_mute(true);
    replicas.all[0].0.handle().refresh("bank");
    sleep(ms(200)).await;
    assert_eq!((replicas.calls(), replicas.leader()), (2, 0));
    sleep(secs(5)).await;
    assert_eq!(replicas.same_token().len(), 3);
    assert_eq!(replicas.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_announced_token_is_adopted_at_once() {
    let replicas = Replicas::started(3600, false, 3).await;
    replicas.all[2].0.handle().refresh("bank");
    sleep(ms(110)).await;
    assert_eq!(replicas.same_token().len(), 3);
    assert_eq!((replicas.generations(), replicas.leader()), (vec![2; 3], 2));
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_401_costs_one_call() {
    let replicas = Replicas::started(3600, false, 20).await;
    let waits: Vec<_> = replicas
        .all
        .iter()
        .map(|(_, _, reader)| reader.clone())
        .map(|reader| {
            tokio::spawn(async move {
                let held = reader.usable(Moment::now()).unwrap().finish().generation();
                reader.report_rejected(held);
                let newer = reader.newer_than(held, Instant::now() + secs(2)).await;
                newer.unwrap().finish().header().clone()
            })
        })
        .collect();
    let mut tokens = Vec::new();
    for wait in waits {
        tokens.push(wait.await.unwrap());
    }
    assert_eq!(tokens, replicas.same_token());
    assert_eq!(replicas.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_dies_in_mid_call_is_followed_when_its_lease_ends() {
    let mut replicas = Replicas::started(60, false, 3).await;
    replicas.bank.set(Mood::Hangs);
    let leader = replicas.leader();
    let calls = replicas.calls();
    while replicas.calls() == calls {
        sleep(ms(10)).await;
    }
    replicas.kill(leader).await;
    replicas.bank.set(Mood::Gives(60));
    // The others are due at most 5 % of life after the leader; its lease of 3 s is renewed no more.
    sleep(secs(3) + secs(3) + ms(200)).await;
    assert_eq!(replicas.calls(), calls + 2);
    assert_eq!(replicas.same_token().len(), 2);
    assert_eq!(replicas.store.only().token_owner, replicas.statuses().next().unwrap().owner);
}

#[tokio::test(start_paused = true)]
async fn a_slow_bank_does_not_outlive_the_lease() {
    let replicas = Replicas::started(60, false, 3).await;
    replicas.bank.world().latency = secs(9);
    sleep(secs(60)).await;
    assert_eq!(replicas.calls(), 2, "the lease of 3 s was renewed for 9 s");
    assert_eq!(replicas.same_token().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn without_the_store_the_last_leader_renews_alone() {
    let replicas = Replicas::started(60, true, 3).await;
    let leader = replicas.leader();
    replicas.store.set_reached(false);
    sleep(secs(80)).await;
    let held = &replicas.all[leader].2;
    assert!(held.usable(Moment::now()).is_some());
    assert_eq!(replicas.tokens().len(), 1, "the others keep the token to its end");
    assert_eq!(replicas.calls(), 2);
    assert!(replicas.statuses().nth(leader).unwrap().trouble.is_some());
    // Back, and empty: the leader offers its token, and the others adopt it.
    replicas.store.lose();
    replicas.store.set_reached(true);
    sleep(ms(50)).await;
    assert_eq!(replicas.same_token().len(), 3);
    assert_eq!(replicas.generations(), vec![2; 3]);
    assert!(replicas.statuses().all(|status| status.trouble.is_none()));
    sleep(secs(240)).await;
    assert!(replicas.calls() <= 8, "{} calls", replicas.calls());
}

#[tokio::test(start_paused = true)]
async fn without_the_store_and_the_leader_another_takes_over_after_a_while() {
    let mut replicas = Replicas::started(60, true, 2).await;
    let leader = replicas.leader();
    replicas.store.set_reached(false);
    replicas.kill(leader).await;
    sleep(secs(59 + 29)).await;
    assert_eq!((replicas.calls(), replicas.tokens().len()), (1, 0));
    sleep(secs(6)).await;
    assert_eq!((replicas.calls(), replicas.tokens().len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn without_the_store_each_renews_for_itself_where_that_is_allowed() {
    let mut replicas = Replicas::new(60, false);
    replicas.when = WhenUnreachable::Own;
    (0..3).for_each(|_| replicas.start());
    sleep(secs(1)).await;
    replicas.store.set_reached(false);
    sleep(secs(60)).await;
    assert_eq!((replicas.calls(), replicas.tokens().len()), (4, 3));
    replicas.store.set_reached(true);
    sleep(ms(100)).await;
    assert_eq!(replicas.same_token().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_delays_no_request() {
    let replicas = Replicas::started(60, false, 3).await;
    replicas.store.set_hangs(true);
    for _ in 0..600 {
        sleep(ms(100)).await;
        let leader = replicas.leader();
        assert!(replicas.all[leader].2.usable(Moment::now()).is_some());
    }
    assert_eq!(replicas.calls(), 2);
    replicas.store.set_hangs(false);
    sleep(secs(6)).await;
    assert_eq!(replicas.same_token().len(), 3);
}

/// A bank that keeps one live token: requests of all replicas go on through its renewals, and none is sent
/// with a token that it has revoked.
#[tokio::test(start_paused = true)]
async fn no_request_has_a_revoked_token() {
    let replicas = Replicas::started(20, true, 3).await;
    let (mut sent, mut waited) = (0, Duration::ZERO);
    let end = Instant::now() + secs(400);
    while Instant::now() < end {
        for (_, _, reader) in &replicas.all {
            let began = Instant::now();
            let guard = reader.wait_usable(began + secs(2)).await.unwrap();
            waited = waited.max(began.elapsed());
            // The bank judges a request when it comes: at once.
            let live = replicas.bank.asked_with(guard.bearer().header());
            assert_eq!(live, "bank: a", "a revoked token was sent");
            drop(guard.finish());
            sent += 1;
        }
        sleep(ms(7)).await;
    }
    let calls = replicas.calls();
    assert!((24..=28).contains(&calls), "{calls} calls for {sent} requests");
    // The bank's answer, the time of the announcement, and two trips to the store.
    assert!(waited <= ms(100 + 60), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handover_without_an_end_is_waited_for_two_seconds() {
    let replicas = Replicas::started(60, true, 2).await;
    replicas.bank.set(Mood::Hangs);
    replicas.all[0].0.handle().refresh("bank");
    sleep(ms(100)).await;
    let follower = &replicas.all[1].2;
    assert!(follower.usable(Moment::now()).is_none());
    assert!(follower.wait_usable(Instant::now() + secs(3)).await.is_ok(), "the old one again");
}

#[tokio::test(start_paused = true)]
async fn a_refused_secret_costs_one_call_and_a_rotated_one_is_tried_at_once() {
    let mut replicas = Replicas::new(3600, false);
    replicas.bank.set(Mood::Refuses);
    (0..3).for_each(|_| replicas.start());
    sleep(secs(20)).await;
    assert_eq!(replicas.calls(), 1, "the server counts failures of the client");
    // The replicas see the rotation now.
    replicas.bank.world().secret = 2;
    replicas.bank.set(Mood::Gives(3600));
    sleep(secs(6)).await;
    assert_eq!((replicas.calls(), replicas.same_token().len()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn values_that_do_not_open_are_never_used() {
    let mut replicas = Replicas::started(60, false, 1).await;
    // Another key: a token of its own, and none of the other's.
    replicas.start_with(&[("other", OTHER)]);
    sleep(secs(2)).await;
    let tokens = replicas.tokens();
    assert_eq!(tokens.len(), 2);
    assert_ne!(tokens[0], tokens[1]);
    assert_eq!(replicas.calls(), 2);
    // A key that is being replaced.
    let mut replicas = Replicas::started(60, false, 1).await;
    replicas.start_with(&[("other", OTHER), ("k", SEAL)]);
    sleep(secs(2)).await;
    assert_eq!((replicas.calls(), replicas.same_token().len()), (1, 2));
    // One that was changed in the store.
    replicas.store.change(|token| {
        token.generation += 1;
        if let Some((sealed, _)) = &mut token.value {
            *sealed.last_mut().unwrap() ^= 1;
        }
    });
    let before = replicas.same_token();
    sleep(secs(12)).await;
    assert_eq!((replicas.same_token(), replicas.calls()), (before, 1));
    // And of a newer program: nobody here renews in its place.
    let mut replicas = Replicas::new(60, false);
    replicas.start();
    sleep(secs(1)).await;
    replicas.store.change(|token| {
        token.generation += 1;
        token.value = Some((vec![2, 0, 0], u64::MAX / 2));
    });
    sleep(secs(120)).await;
    assert_eq!((replicas.calls(), replicas.tokens().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn announcements_without_a_token_do_not_hold_requests_for_ever() {
    let replicas = Replicas::started(3600, true, 2).await;
    let mut held = 0;
    for _ in 0..120 {
        replicas.store.announce_handover_of_nobody();
        sleep(secs(1)).await;
        held += usize::from(replicas.tokens().len() < 2);
    }
    // Three times two seconds, and then two in twelve.
    assert!((4..=40).contains(&held), "{held} of 120 s");
    sleep(secs(15)).await;
    assert_eq!(replicas.same_token().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_replica_with_another_key_revokes_no_live_token() {
    let mut replicas = Replicas::started(600, true, 2).await;
    replicas.start_with(&[("k", OTHER)]);
    let before = replicas.same_token();
    sleep(secs(400)).await;
    assert_eq!((replicas.same_token(), replicas.calls()), (before, 1), "it makes no call");
    let status = replicas.statuses().last().unwrap();
    assert!(status.trouble.unwrap().contains("same keys in encryption"));
    let absent = replicas.all[2].2.wait_usable(Instant::now() + secs(2)).await.unwrap_err();
    assert!(absent.to_string().contains("store of shared tokens"), "{absent}");
    sleep(secs(3000)).await;
    assert_eq!(replicas.same_token().len(), 2, "nor when the others renew");
    // Where no other replica has a key for it, its end is waited for.
    replicas.kill(0).await;
    replicas.kill(0).await;
    sleep(secs(640)).await;
    assert_eq!(replicas.tokens().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_budget_counts_the_calls_of_all() {
    let mut replicas = Replicas::new(60, false);
    replicas.policy.budget = std::num::NonZeroU32::new(3);
    (0..2).for_each(|_| replicas.start());
    sleep(secs(600)).await;
    assert_eq!(replicas.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_lazy_token_is_shared_while_it_is_used() {
    let mut replicas = Replicas::new(3600, false);
    replicas.policy.lazy = Some(secs(60));
    (0..2).for_each(|_| replicas.start());
    sleep(secs(10)).await;
    assert_eq!(replicas.calls(), 0);
    let wait = async |number: usize| {
        let reader = &replicas.all[number].2;
        reader.wait_usable(Instant::now() + secs(2)).await.unwrap().finish().header().clone()
    };
    let (first, second) = (wait(0).await, wait(1).await);
    assert_eq!((&first, replicas.calls()), (&second, 1));
    sleep(secs(200)).await;
    assert_eq!(replicas.tokens().len(), 0, "each has dropped it");
    assert_eq!((wait(1).await, replicas.calls()), (first, 1), "the store has it still");
}

#[tokio::test(start_paused = true)]
async fn the_same_token_again_is_no_newer_one() {
    let mut replicas = Replicas::new(100, false);
    replicas.bank.set(Mood::SameToken(100));
    (0..3).for_each(|_| replicas.start());
    sleep(secs(94)).await;
    let numbers = replicas.all.iter().map(|(_, _, reader)| {
        reader.usable(Moment::now()).map(|guard| guard.finish().generation())
    });
    assert_eq!(numbers.collect::<Vec<_>>(), [Some(1); 3]);
    assert_eq!(replicas.calls(), 2);
    sleep(secs(10)).await;
    assert_eq!(replicas.same_token().len(), 3);
}

/// The settings of a store that is not used.
#[cfg(feature = "redis")]
fn store_settings() -> StoreSettings {
    use crate::share::redis_store::{ServerAddress, Servers, StoreOptions};

    let nowhere = Servers::Standalone(ServerAddress::Unix("/nowhere".into()));
    StoreSettings::Redis(StoreOptions::new(nowhere))
}

/// The settings of a store that is not used.
#[cfg(not(feature = "redis"))]
fn store_settings() -> StoreSettings {
    StoreSettings::Kubernetes(Default::default())
}

#[tokio::test]
async fn a_key_of_another_form_is_named_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        let mut options = std::fs::OpenOptions::new();
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let opened = options.write(true).create(true).truncate(true).open(&path);
        std::io::Write::write_all(&mut opened.unwrap(), text.as_bytes()).unwrap();
        Reference::File(path)
    };
    let settings = ShareSettings {
        store: store_settings(),
        encryption: vec![EncryptionKey { id: "k".into(), key: file("seal", "AAEC") }],
        name_key: file("names", NAMES),
        when_unreachable: WhenUnreachable::LastLeader,
        takeover_after: secs(30),
        poll: secs(5),
    };
    let registry = Registry::new();
    let secrets = Arc::new(Store::register(&registry).unwrap());
    let store = ModelStore::new() as _;
    let shared = SharedStore::register(store, settings, secrets, &registry).unwrap();
    let error = shared.keys().await.err().unwrap().to_string();
    assert!(error.starts_with("encryption of [share]: a key is 32 random bytes"), "{error}");
    file("seal", SEAL);
    assert!(shared.keys().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_back_gets_the_last_token_before_others_lead() {
    let replicas = Replicas::started(3600, true, 3).await;
    let leader = replicas.leader();
    replicas.store.set_reached(false);
    // All of them are due, and the last leader alone renews.
    replicas.all.iter().for_each(|(manager, ..)| assert_eq!(manager.handle().refresh("bank"), 1));
    sleep(secs(2)).await;
    assert_eq!(replicas.calls(), 2);
    replicas.store.lose();
    replicas.store.set_reached(true);
    sleep(secs(3)).await;
    assert_eq!((replicas.calls(), replicas.same_token().len()), (2, 3));
    assert_eq!((replicas.generations(), replicas.leader()), (vec![2; 3], leader));
}

#[tokio::test(start_paused = true)]
async fn a_lead_that_follows_another_at_once_is_heard() {
    let replicas = Replicas::started(3600, true, 3).await;
    for renewal in 0..6 {
        // The store's second may end sooner than that of a replica.
        replicas.store.change(|token| token.not_before = 0);
        replicas.all[renewal % 3].0.handle().refresh("bank");
        let end = Instant::now() + ms(800);
        while Instant::now() < end {
            for (_, _, reader) in &replicas.all {
                let guard = reader.wait_usable(Instant::now() + secs(2)).await.unwrap();
                let live = replicas.bank.asked_with(guard.bearer().header());
                assert_eq!(live, "bank: a", "a revoked token was sent");
            }
            sleep(ms(3)).await;
        }
    }
    assert!(replicas.calls() >= 5, "{}", replicas.calls());
}

#[tokio::test(start_paused = true)]
async fn a_replica_with_another_name_key_is_told_and_revokes_no_live_token() {
    let mut replicas = Replicas::started(600, true, 2).await;
    replicas.start_with_names(OTHER);
    sleep(secs(2000)).await;
    assert_eq!(replicas.same_token().len(), 2, "the others renew, and it makes no call");
    let calls = replicas.calls();
    assert!((4..=5).contains(&calls), "{calls}");
    let trouble = replicas.statuses().last().unwrap().trouble.unwrap();
    let holder = replicas.statuses().next().unwrap();
    assert!(trouble.starts_with("name_key of [share] is not that of "), "{trouble}");
    assert!(trouble.contains("delete the entry name_key"), "{trouble}");
    assert!(holder.trouble.is_none());
    // A store that comes back empty is used by the others again, whoever comes first.
    replicas.store.set_reached(false);
    replicas.store.lose();
    replicas.store.set_reached(true);
    sleep(secs(20)).await;
    replicas.all.iter().for_each(|(manager, ..)| assert_eq!(manager.handle().refresh("bank"), 1));
    sleep(secs(20)).await;
    assert!(replicas.tokens().len() >= 2);
    assert!(replicas.statuses().take(2).all(|status| status.trouble.is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_name_key_is_replaced_by_all_replicas_together() {
    let mut replicas = Replicas::started(600, true, 2).await;
    replicas.kill(0).await;
    replicas.kill(0).await;
    // The entry is deleted, and so is all else here.
    replicas.store.lose();
    (0..2).for_each(|_| replicas.start_with_names(OTHER));
    sleep(secs(5)).await;
    assert_eq!(replicas.same_token().len(), 2);
    assert!(replicas.statuses().all(|status| status.trouble.is_none()));
}

#[tokio::test(start_paused = true)]
async fn all_replicas_log_the_same_fingerprint_of_a_shared_token() {
    let replicas = Replicas::started(600, false, 2).await;
    let fingerprints = || {
        let held = replicas.all.iter().map(|(_, _, reader)| reader.usable(Moment::now()).unwrap());
        held.map(|guard| guard.finish().fingerprint().to_owned()).collect::<Vec<_>>()
    };
    let first = fingerprints();
    assert_eq!(first[0], first[1]);
    // Salted with what the store and the token do not tell.
    let token = Sensitive::new("t0");
    assert_ne!(first[0], crate::token::Fingerprint::of(token.expose()).to_string());
    replicas.all[0].0.handle().refresh("bank");
    sleep(secs(1)).await;
    let second = fingerprints();
    assert_eq!(second[0], second[1]);
    assert_ne!(first[0], second[0]);
}

#[tokio::test(start_paused = true)]
async fn an_earlier_value_is_told_from_a_changed_one() {
    let mut replicas = Replicas::started(600, false, 1).await;
    let earlier = replicas.store.only().value;
    replicas.all[0].0.handle().refresh("bank");
    sleep(secs(1)).await;
    replicas.store.change(|token| token.value = earlier.clone());
    let registry = Registry::new();
    let (store, rules) = (Arc::clone(&replicas.store) as _, rules(replicas.when));
    let shared = with_all_keys(store, rules, NAMES, &[("k", SEAL)], &registry);
    replicas.start_through(shared);
    sleep(secs(1)).await;
    let text = String::from_utf8(registry.render()).unwrap();
    let count = |reason: &str| format!("unreadable_total{{reason=\"{reason}\"}} ");
    assert!(!text.contains(&(count("rollback") + "0")), "{text}");
    assert!(text.contains(&(count("tag") + "0")), "{text}");
    assert_eq!(replicas.same_token().len(), 2);
}

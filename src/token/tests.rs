//! Stories of single tokens under paused time.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::credential::{Credential, Grouping, RefreshPolicy};
use super::testing::{Mood, Story, credential, keep, wanted};
use super::token_cell::UnavailableReason;
use super::{TokenStatus, TokenUnavailable};
use crate::clock::{Moment, testing as clock};
use crate::oauth::TokenEndpoint;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Story {
    async fn ask(&self) -> Result<u64, TokenUnavailable> {
        let deadline = Instant::now() + secs(2);
        self.reader.wait_usable(deadline).await.map(|bearer| bearer.generation())
    }

    fn metric(&self, line: &str) -> bool {
        self.metrics().lines().any(|found| found == line)
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_of_a_second_cost_a_call_a_second() {
    let story = Story::begin(Mood::Gives(1), |_| {});
    let start = Instant::now();
    while start.elapsed() < secs(2) {
        story.ask().await.unwrap();
        sleep(Duration::from_millis(20)).await;
    }
    assert!(story.server.calls() <= 4, "{}", story.server.calls());
}

#[tokio::test(start_paused = true)]
async fn fifty_challenges_cost_one_call() {
    let story = Story::begin(Mood::Gives(3600), |_| {});
    let first = story.ask().await.unwrap();
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let reader = story.reader.clone();
            tokio::spawn(async move {
                reader.report_rejected(first);
                reader.newer_than(first, Instant::now() + secs(2)).await.map(|b| b.generation())
            })
        })
        .collect();
    for one in waiting {
        assert_eq!(one.await.unwrap(), Ok(first + 1));
    }
    assert_eq!(story.server.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn three_refused_tokens_are_contended_and_rest() {
    let story = Story::begin(Mood::Gives(3600), |_| {});
    for generation in 1..=2 {
        assert_eq!(story.ask().await.unwrap(), generation);
        story.reader.report_rejected(generation);
        sleep(secs(2)).await;
    }
    story.reader.report_rejected(3);
    let began = Instant::now();
    story.reader.newer_than(3, began + secs(2)).await.unwrap_err();
    assert_eq!(story.server.calls(), 3);
    assert!(story.manager.handle().statuses()[0].contended);
    assert!(story.metric("bearer_proxy_token_contended_total{credential=\"bank\"} 1"));
    sleep(secs(29)).await;
    assert_eq!(story.server.calls(), 3);
    sleep(secs(2)).await;
    assert_eq!(story.server.calls(), 4, "renewed after the cool-down, whoever asks");
}

#[tokio::test(start_paused = true)]
async fn the_same_token_is_asked_for_again_when_it_can_no_longer_be_used() {
    let story = Story::begin(Mood::SameToken(100), |_| {});
    story.ask().await.unwrap();
    sleep(secs(94)).await;
    assert_eq!(story.server.calls(), 2, "at 80 %, and no more after that");
    assert_eq!(story.ask().await.unwrap(), 1);
    sleep(secs(2)).await;
    assert_eq!(story.server.calls(), 3, "at its expiry minus the margin");
    sleep(secs(5)).await;
    assert_eq!((story.server.calls(), story.ask().await.unwrap()), (4, 2), "at its end");
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_that_is_given_again_is_not_waited_for() {
    let story = Story::begin(Mood::SameToken(100), |_| {});
    story.ask().await.unwrap();
    sleep(secs(10)).await;
    let began = Instant::now();
    for _ in 0..5 {
        story.reader.report_rejected(1);
        story.reader.newer_than(1, Instant::now() + secs(2)).await.unwrap_err();
    }
    assert!(began.elapsed() < secs(1), "{:?}", began.elapsed());
    assert_eq!(story.server.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn all_tokens_of_a_refused_login_say_so() {
    let mut story = Story::begin(Mood::Refuses, |_| {});
    let credential = Arc::new(credential(RefreshPolicy::default()));
    let readers = keep(&mut story.manager, &credential, &["a", "b"]);
    for reader in &readers {
        let absent = reader.wait_usable(Instant::now() + secs(2)).await.unwrap_err();
        assert!(matches!(absent.reason, UnavailableReason::Failing(_)), "{absent}");
    }
    assert_eq!(story.server.calls(), 1, "one call finds it out");
    for status in story.manager.handle().statuses() {
        assert!(status.attempted && status.last_error.is_some(), "{status:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_is_counted_and_a_new_secret_is_tried() {
    let story = Story::begin(Mood::Refuses, |_| {});
    let absent = story.ask().await.unwrap_err();
    assert_eq!(absent.reason, UnavailableReason::Failing("invalid_client"));
    assert!(absent.retry_after > secs(20), "{absent:?}");
    let start = Instant::now();
    while start.elapsed() < secs(2 * 3600) {
        let _ = story.ask().await;
        sleep(secs(1)).await;
    }
    assert_eq!(story.server.calls(), 5, "an unchanged secret is tried five times");
    assert!(story.metric("bearer_proxy_secret_refused{credential=\"bank\"} 1"));
    story.manager.handle().refresh("bank");
    sleep(secs(31)).await;
    assert_eq!(story.server.calls(), 6, "a forced refresh tries it once more");
    story.server.set(Mood::Gives(60));
    story.server.world().secret += 1;
    sleep(secs(31)).await;
    assert_eq!(story.ask().await, Ok(1), "a new one is looked for every 30 s");
    assert!(story.metric("bearer_proxy_secret_refused{credential=\"bank\"} 0"));
}

#[tokio::test(start_paused = true)]
async fn many_tokens_of_a_refused_login_cost_one_call() {
    let story = Story::begin(Mood::Refuses, |_| {});
    let mut manager = story.manager;
    let credential = Arc::new(credential(RefreshPolicy::default()));
    let scopes: Vec<String> = (0..20).map(|n| format!("s{n}")).collect();
    let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
    keep(&mut manager, &credential, &scopes);
    manager.commit();
    sleep(secs(29)).await;
    assert_eq!(story.server.calls(), 1);
    story.server.set(Mood::Gives(60));
    sleep(secs(5)).await;
    assert_eq!(story.server.calls(), 21, "once it is accepted they go side by side");
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_obeyed_up_to_five_minutes() {
    for (said, obeyed) in [(2, 2), (120, 120), (9999, 300)] {
        let story = Story::begin(Mood::Status(429, said), |_| {});
        let absent = story.ask().await.unwrap_err();
        assert!(absent.retry_after.as_secs() <= obeyed, "{absent:?}");
        let start = Instant::now();
        while story.server.calls() == 1 {
            let _ = story.ask().await;
            sleep(Duration::from_millis(100)).await;
        }
        let waited = start.elapsed().as_secs();
        assert!((obeyed - 2..=obeyed + 2).contains(&waited), "{said}: {waited}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_keeps_the_token_and_then_says_so() {
    let story = Story::begin(Mood::Gives(600), |credential| {
        credential.policy.budget = NonZeroU32::new(3);
    });
    sleep(secs(1700)).await;
    assert_eq!(story.server.calls(), 3);
    assert!(story.metric("bearer_proxy_token_budget_left{credential=\"bank\"} 0"));
    let mut last = story.ask().await;
    while last.is_ok() {
        sleep(secs(10)).await;
        last = story.ask().await;
    }
    let absent = last.unwrap_err();
    assert_eq!(absent.reason, UnavailableReason::BudgetSpent);
    sleep(absent.retry_after + secs(1)).await;
    story.ask().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_budget_recovers_with_time_alone() {
    let story = Story::begin(Mood::Gives(86_400), |credential| {
        credential.policy.budget = NonZeroU32::new(3);
    });
    story.ask().await.unwrap();
    assert!(story.metric("bearer_proxy_token_budget{credential=\"bank\"} 3"));
    assert!(story.metric("bearer_proxy_token_budget_left{credential=\"bank\"} 2"));
    sleep(secs(3600)).await;
    assert_eq!(story.server.calls(), 1);
    assert!(story.metric("bearer_proxy_token_budget_left{credential=\"bank\"} 3"));
}

#[tokio::test(start_paused = true)]
async fn the_gauges_of_a_token_are_named_by_its_scopes() {
    let mut story = Story::begin(Mood::Gives(60), |_| {});
    let bank = Arc::new(credential(RefreshPolicy::default()));
    keep(&mut story.manager, &bank, &["b a", "a b", "a", ""]);
    sleep(secs(1)).await;
    let gauges = |family: &str| {
        let text = String::from_utf8(story.registry.render()).unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix(family));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let labels =
        ["", "a", "a b"].map(|scopes| format!("{{credential=\"bank\",scopes=\"{scopes}\"}}"));
    for (family, value) in [
        ("bearer_proxy_token_usable", " 1"),
        ("bearer_proxy_token_wanted", " 1"),
        ("bearer_proxy_token_consecutive_failures", " 0"),
        ("bearer_proxy_token_missing_scopes", " 0"),
    ] {
        let expected = labels.clone().map(|labels| labels + value);
        assert_eq!(gauges(family), expected, "{family}");
    }
    assert_eq!(gauges("bearer_proxy_token_server_clock_offset_seconds{"), [""; 0]);
    story.server.set(Mood::Down);
    sleep(secs(55)).await;
    let failures = gauges("bearer_proxy_token_consecutive_failures");
    assert!(
        failures.len() == 3 && failures.iter().all(|line| !line.ends_with(" 0")),
        "{failures:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_that_ends_takes_no_gauge_of_its_successor_with_it() {
    let mut story = Story::begin(Mood::Gives(3600), |_| {});
    story.ask().await.unwrap();
    let before = Arc::new(credential(RefreshPolicy::default()));
    let policy = RefreshPolicy { wait: secs(1), ..RefreshPolicy::default() };
    let after = Arc::new(credential(policy));
    let usable = "bearer_proxy_token_usable{credential=\"bank\",scopes=\"a\"} 1";
    let is_shown = |story: &Story| story.metric(usable);
    // A reload that is taken back.
    keep(&mut story.manager, &after, &["a"]);
    sleep(secs(1)).await;
    keep(&mut story.manager, &before, &["a"]);
    story.manager.commit();
    sleep(secs(1)).await;
    assert!(is_shown(&story) && story.server.calls() == 2);
    // And one that is not.
    keep(&mut story.manager, &after, &["a"]);
    story.manager.commit();
    assert!(!is_shown(&story), "the new token is not there yet");
    sleep(secs(1)).await;
    assert!(is_shown(&story));
}

#[tokio::test(start_paused = true)]
async fn a_lazy_token_is_fetched_at_first_use_and_let_go() {
    let story =
        Story::begin(Mood::Gives(60), |credential| credential.policy.lazy = Some(secs(600)));
    sleep(secs(3600)).await;
    assert_eq!(story.server.calls(), 0);
    story.ask().await.unwrap();
    sleep(secs(3600)).await;
    let calls = story.server.calls();
    assert!((8..30).contains(&calls), "renewed while it may still be needed: {calls}");
    sleep(secs(3600)).await;
    assert_eq!(story.server.calls(), calls);
    let status = &story.manager.handle().statuses()[0];
    assert!(status.lazy && status.usable_until.is_none() && status.refresh_due.is_none());
    assert!(story.metric("bearer_proxy_token_wanted{credential=\"bank\",scopes=\"a\"} 0"));
    story.manager.handle().refresh("bank");
    sleep(secs(1)).await;
    assert_eq!(story.server.calls(), calls + 1, "a forced refresh counts as a use");
    story.ask().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_is_used_and_falls_back() {
    let story = Story::begin(Mood::Gives(100), |_| {});
    story.server.world().refresh_tokens = true;
    story.ask().await.unwrap();
    sleep(secs(90)).await;
    story.server.set(Mood::Status(400, 0));
    sleep(secs(76)).await;
    story.server.set(Mood::Gives(100));
    sleep(secs(4)).await;
    let calls = story.server.world().calls.clone();
    let with: Vec<bool> = calls.iter().map(|call| call.refresh).collect();
    assert!(with.starts_with(&[false, true, true, false]), "{with:?}");
    assert_eq!(calls[3].began - calls[2].began, secs(1), "no sooner, although it is another grant");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_whose_answer_was_lost_is_not_shown_again() {
    for (mood, shown_again) in [
        (Mood::Cut, false),
        (Mood::Malformed, false),
        (Mood::Down, true),
        (Mood::Status(429, 1), true),
    ] {
        let story = Story::begin(Mood::Gives(100), |_| {});
        story.server.world().refresh_tokens = true;
        story.ask().await.unwrap();
        story.server.set(mood);
        while story.server.calls() < 3 {
            sleep(secs(1)).await;
        }
        assert_eq!(story.server.world().calls[2].refresh, shown_again, "{mood:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_suspend_no_request_carries_the_old_token() {
    let story = Story::begin(Mood::Gives(3600), |_| {});
    story.ask().await.unwrap();
    story.server.world().slept += secs(7200);
    clock::ahead(secs(7200));
    assert!(story.reader.usable(Moment::now()).is_none());
    assert_eq!(story.ask().await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_suspend_that_a_token_outlives_brings_its_renewal_nearer() {
    let story = Story::begin(Mood::Gives(3600), |_| {});
    story.ask().await.unwrap();
    clock::ahead(secs(3000));
    sleep(secs(6)).await;
    assert_eq!(story.server.calls(), 2);
    assert!(story.metric("bearer_proxy_clock_jumps_total{kind=\"ahead\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_prolongs_no_token() {
    let story = Story::begin(Mood::Gives(3600), |_| {});
    story.ask().await.unwrap();
    story.server.set(Mood::Down);
    clock::back(secs(7200));
    sleep(secs(6)).await;
    assert!(story.metric("bearer_proxy_clock_jumps_total{kind=\"back\"} 1"));
    // Asleep past the end that the wall clock now shows for it.
    clock::ahead(secs(3600));
    assert!(story.reader.usable(Moment::now()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_reload_drops_what_is_not_wanted_at_once_and_keeps_the_rest() {
    let mut story = Story::begin(Mood::Gives(3600), |_| {});
    story.ask().await.unwrap();
    let credential = Arc::new(credential(RefreshPolicy::default()));
    let readers = keep(&mut story.manager, &credential, &["a", "b"]);
    story.manager.commit();
    readers[1].wait_usable(Instant::now() + secs(2)).await.unwrap();
    keep(&mut story.manager, &credential, &["b"]);
    assert!(story.reader.usable(Moment::now()).is_some(), "a reload may still be taken back");
    keep(&mut story.manager, &credential, &["a", "b"]);
    story.manager.commit();
    assert_eq!((story.ask().await.unwrap(), story.server.calls()), (1, 2));
    keep(&mut story.manager, &credential, &["b"]);
    story.manager.commit();
    let began = Instant::now();
    tokio::task::yield_now().await;
    assert!(story.reader.usable(Moment::now()).is_none());
    story.ask().await.unwrap_err();
    assert_eq!(began.elapsed(), Duration::ZERO, "and nobody waits for it");
}

#[tokio::test(start_paused = true)]
async fn tokens_are_revoked_at_the_end_where_that_is_asked_for() {
    for (asked, expected) in [(false, Vec::new()), (true, vec!["r-t0", "t0"])] {
        let story = Story::begin(Mood::Gives(60), |credential| {
            let url = TokenEndpoint::parse("https://auth.example/revoke").unwrap();
            credential.revocation = asked.then_some(url);
        });
        story.server.world().refresh_tokens = true;
        story.ask().await.unwrap();
        story.manager.shutdown(true).await;
        assert_eq!(story.server.world().revoked, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn one_token_with_all_scopes_serves_all_routes() {
    let mut story = Story::begin(Mood::Gives(60), |_| {});
    let union = credential(RefreshPolicy::default());
    let union = Arc::new(Credential { grouping: Grouping::Union, ..union });
    story.server.world().granted = Some("a b");
    let readers = keep(&mut story.manager, &union, &["a", "b c"]);
    let deadline = Instant::now() + secs(2);
    let [one, other] = [readers[0].wait_usable(deadline), readers[1].wait_usable(deadline)];
    assert_eq!(one.await.unwrap().header(), other.await.unwrap().header());
    let statuses = story.manager.handle().statuses();
    assert_eq!((statuses.len(), &statuses[0].missing_scopes[..]), (1, &["c".to_owned()][..]));
    story.manager.commit();
}

#[tokio::test(start_paused = true)]
async fn a_reader_is_found_by_what_was_asked_for_and_by_nothing_else() {
    let mut story = Story::begin(Mood::Gives(60), |_| {});
    for grouping in [Grouping::PerScopeSet, Grouping::Union] {
        let credential = Arc::new(Credential { grouping, ..credential(RefreshPolicy::default()) });
        let mut asked = wanted(&credential, &["a", "b c", "a", ""]);
        asked.reverse();
        let readers = story.manager.apply(asked);
        let has = |credential: &Arc<Credential>, scopes| {
            readers.get(&wanted(credential, &[scopes])[0].key()).is_some()
        };
        assert!(["a", "b c", "c b", ""].into_iter().all(|scopes| has(&credential, scopes)));
        assert!(!["b", "a b c", "A"].into_iter().any(|scopes| has(&credential, scopes)));
        let other = Arc::new(Credential { name: "other".into(), ..(*credential).clone() });
        assert!(!has(&other, "a"));
        let tokens = if grouping == Grouping::Union { 1 } else { 3 };
        assert_eq!(story.manager.handle().statuses().len(), tokens);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_call_is_waited_for_within_bounds() {
    let story = Story::begin(Mood::Hangs, |_| {});
    let began = Instant::now();
    let absent = story.ask().await.unwrap_err();
    assert_eq!((absent.reason, began.elapsed()), (UnavailableReason::Pending, secs(2)));
    sleep(secs(9)).await;
    assert_eq!(story.ask().await.unwrap_err().reason, UnavailableReason::Failing("timeout"));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_one_that_hangs_is_in_the_status() {
    let mut story = Story::begin(Mood::Hangs, |_| {});
    let two = Arc::new(credential(RefreshPolicy::default()));
    let _readers = keep(&mut story.manager, &two, &["a", "b"]);
    sleep(secs(5)).await;
    let now = Moment::now();
    let calls = |status: &TokenStatus| (status.call_under_way(now), status.call_waits(now));
    let mut found: Vec<_> = story.manager.handle().statuses().iter().map(calls).collect();
    found.sort_unstable();
    assert_eq!(found, [(None, Some(secs(5))), (Some(secs(5)), None)]);
    // The first call ends, and the second begins.
    sleep(secs(6)).await;
    let statuses = story.manager.handle().statuses();
    let failed = statuses.iter().find(|status| status.attempted).unwrap();
    let text = failed.error_text.as_deref().unwrap();
    assert!(text.starts_with("no whole answer within timeouts.total, 10"), "{text}");
    assert!(failed.error_hint.as_deref().unwrap().contains("why it does not answer"));
    assert_eq!(statuses.iter().filter(|status| status.call_began.is_some()).count(), 1);
    story.manager.commit();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_and_a_short_life_are_in_the_status() {
    let story = Story::begin(Mood::Hangs, |_| {});
    let status = || story.manager.handle().statuses().remove(0);
    sleep(secs(5)).await;
    assert_eq!(status().call_under_way(Moment::now()), Some(secs(5)));
    assert!(!status().attempted && status().life.is_none());
    story.server.set(Mood::Gives(2));
    sleep(secs(6)).await;
    while story.ask().await.is_err() {}
    assert_eq!((status().call_under_way(Moment::now()), status().life), (None, Some(secs(2))));
    assert!(status().renews_within(secs(10)));
}

//! Handovers under paused time, at a server that answers after 100 ms.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::clock::Moment;
use crate::telemetry::family::MetricValue;
use crate::token::credential::RefreshPolicy;
use crate::token::testing::{Mood, Story, credential, keep};
use crate::token::{Credential, TokenGuard, TokenUnavailable, UnavailableReason};

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[tokio::test(start_paused = true)]
async fn a_closed_token_is_drained_when_its_last_request_ends() {
    let in_flight = Arc::new(InFlightRequests::new(Histogram::zero(&[])));
    in_flight.drained().await;
    let (first, second) = (in_flight.begin(), in_flight.begin());
    in_flight.close();
    assert!(in_flight.begin().is_none());
    assert_eq!(in_flight.count(), 2, "the refused one is not counted");
    drop(first);
    let (_, ended) = tokio::join!(in_flight.drained(), async {
        sleep(ms(1000)).await;
        drop(second);
        Instant::now()
    });
    assert_eq!(ended, Instant::now());
    in_flight.open();
    assert!(in_flight.begin().is_some());
    assert_eq!(in_flight.count(), 0);
}

#[test]
fn no_request_of_another_thread_slips_through() {
    for _ in 0..200 {
        let in_flight = Arc::new(InFlightRequests::new(Histogram::zero(&[])));
        std::thread::scope(|scope| {
            let begun: Vec<_> = (0..3).map(|_| scope.spawn(|| in_flight.begin())).collect();
            in_flight.close();
            // What has begun by now is all that the renewal waits for.
            let counted = in_flight.count();
            let begun: Vec<_> = begun.into_iter().filter_map(|one| one.join().unwrap()).collect();
            assert!(begun.len() <= counted, "{} of {counted}", begun.len());
            drop(begun);
        });
        assert_eq!(in_flight.count(), 0);
        assert!(in_flight.begin().is_none());
    }
}

impl Story {
    /// A token that its server revokes at the next one, held since 2 s.
    async fn held(one_live_token: bool) -> Self {
        let adjust =
            |credential: &mut Credential| credential.policy.one_live_token = one_live_token;
        let story = Self::begin(Mood::Gives(3600), adjust);
        story.wait().await.unwrap().unwrap();
        sleep(ms(2000)).await;
        story
    }

    /// A request that begins now and ends at once; its result is the generation that it got.
    fn wait(&self) -> JoinHandle<Result<u64, TokenUnavailable>> {
        let reader = self.reader.clone();
        tokio::spawn(async move {
            let guard = reader.wait_usable(Instant::now() + DRAIN_TIME).await?;
            Ok(guard.finish().generation())
        })
    }

    fn usable(&self) -> Option<TokenGuard> {
        self.reader.usable(Moment::now())
    }

    /// Renews, and waits until the handover has begun.
    async fn renew(&self) {
        self.manager.handle().refresh("bank");
        sleep(ms(1)).await;
    }

    fn handover_metric(&self, name: &str) -> String {
        let text = self.metrics();
        let name = format!("{name}{{credential=\"bank\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or("none").to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn requests_in_flight_end_first_and_new_ones_wait_for_the_next_token() {
    let story = Story::held(true).await;
    let in_flight = story.usable().unwrap();
    story.renew().await;
    assert!(story.usable().is_none());
    assert!(story.manager.handle().statuses()[0].handing_over);
    let (began, waiting) = (Instant::now(), story.wait());
    sleep(ms(500)).await;
    assert_eq!(story.server.calls(), 1, "one request is in flight");
    assert_eq!(in_flight.finish().generation(), 1);
    assert_eq!(waiting.await.unwrap(), Ok(2));
    assert_eq!(began.elapsed(), ms(600), "until the answer of the server and no longer");
    assert!(!story.manager.handle().statuses()[0].handing_over);
    assert_eq!(story.handover_metric("bearer_proxy_token_handover_wait_seconds_count"), "1");
    assert_eq!(story.handover_metric("bearer_proxy_token_handover_wait_seconds_sum"), "0.6");
    assert_eq!(story.handover_metric("bearer_proxy_token_handover_timeouts_total"), "0");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_leaves_is_not_waited_for() {
    let story = Story::held(true).await;
    let reader = story.reader.clone();
    let in_flight = tokio::spawn(async move {
        let _guard = reader.usable(Moment::now());
        std::future::pending::<()>().await;
    });
    sleep(ms(1)).await;
    story.renew().await;
    assert_eq!(story.server.calls(), 1);
    in_flight.abort();
    sleep(ms(1)).await;
    assert_eq!(story.server.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_holds_the_renewal_up_for_two_seconds() {
    let story = Story::held(true).await;
    let in_flight = story.usable().unwrap();
    let began = Instant::now();
    story.renew().await;
    let first = story.wait();
    sleep(ms(150)).await;
    let second = story.wait();
    assert_eq!(first.await.unwrap().unwrap_err().reason, UnavailableReason::HandingOver);
    assert_eq!(second.await.unwrap(), Ok(2));
    assert_eq!(began.elapsed(), DRAIN_TIME + ms(100));
    assert_eq!(story.handover_metric("bearer_proxy_token_handover_timeouts_total"), "1");
    // It is not waited for a second time.
    sleep(ms(1000)).await;
    story.renew().await;
    assert_eq!(story.server.calls(), 3);
    drop(in_flight);
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_the_old_token_serves_again() {
    for mood in [Mood::Down, Mood::Status(503, 0), Mood::Status(400, 0), Mood::Cut] {
        let story = Story::held(true).await;
        story.server.set(mood);
        story.renew().await;
        let waiting = story.wait();
        assert_eq!(waiting.await.unwrap(), Ok(1), "{mood:?}");
        assert!(!story.manager.handle().statuses()[0].handing_over);
        story.server.set(Mood::Gives(3600));
        sleep(ms(3000)).await;
        assert_eq!(story.wait().await.unwrap(), Ok(2), "{mood:?}, after the back-off");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_dropped_if_a_lost_answer_may_have_revoked_it() {
    for (mood, dropped) in [(Mood::Cut, true), (Mood::Malformed, true), (Mood::Down, false)] {
        let story = Story::held(true).await;
        story.server.set(mood);
        story.renew().await;
        assert_eq!(story.wait().await.unwrap(), Ok(1));
        story.reader.report_rejected(1);
        sleep(ms(1)).await;
        assert_eq!(story.usable().is_none(), dropped, "{mood:?}");
        story.server.set(Mood::Gives(3600));
        assert_eq!(story.wait().await.unwrap(), Ok(if dropped { 2 } else { 1 }), "{mood:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_ends_the_waits_in_time() {
    let story = Story::held(true).await;
    story.server.set(Mood::Hangs);
    story.renew().await;
    let began = Instant::now();
    let unavailable = story.wait().await.unwrap().unwrap_err();
    assert_eq!((began.elapsed(), unavailable.reason), (DRAIN_TIME, UnavailableReason::HandingOver));
    sleep(ms(8100)).await;
    assert_eq!(story.wait().await.unwrap(), Ok(1), "the time-out of the call frees the old token");
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_replaced_by_a_handover_too() {
    let story = Story::held(true).await;
    let in_flight = story.usable().unwrap();
    story.reader.report_rejected(1);
    sleep(ms(1)).await;
    assert!(story.usable().is_none());
    assert_eq!(story.server.calls(), 1);
    let newer = story.reader.newer_than(1, Instant::now() + DRAIN_TIME);
    drop(in_flight);
    assert_eq!(newer.await.unwrap().generation(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_program_ends_the_waits() {
    let story = Story::held(true).await;
    let in_flight = story.usable().unwrap();
    story.renew().await;
    let (began, waiting) = (Instant::now(), story.wait());
    sleep(ms(1)).await;
    story.manager.shutdown(false).await;
    waiting.await.unwrap().unwrap_err();
    assert_eq!(began.elapsed(), ms(1));
    drop(in_flight);
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_changes_the_credential_hands_over_too() {
    let mut story = Story::held(true).await;
    let in_flight = story.usable().unwrap();
    let wait = DRAIN_TIME * 2;
    let policy = RefreshPolicy { one_live_token: true, wait, ..RefreshPolicy::default() };
    let changed = Arc::new(credential(policy));
    story.reader = keep(&mut story.manager, &changed, &["a"]).remove(0);
    story.manager.commit();
    let waiting = story.wait();
    sleep(ms(500)).await;
    assert_eq!(story.server.calls(), 1, "one request is in flight");
    drop(in_flight);
    assert_eq!(waiting.await.unwrap(), Ok(1), "the first of its refresher");
    assert_eq!(story.server.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn other_tokens_are_neither_counted_nor_closed() {
    let story = Story::held(false).await;
    let in_flight = story.usable().unwrap();
    story.renew().await;
    assert_eq!(story.server.calls(), 2);
    assert!(story.usable().is_some() && in_flight.bearer().in_flight.is_none());
    assert_eq!(story.handover_metric("bearer_proxy_token_handover_timeouts_total"), "none");
}

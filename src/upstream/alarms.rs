//! Alarms that are used again: to move one that is set to a later time costs a third of what it costs
//! to set another, and nearly all waits end long before their time.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// How many are kept for later waits. Each goes off once, unheard, when nobody waits for long.
const MAX_KEPT: usize = 64;

/// The alarms of one worker's waits.
#[derive(Default)]
pub struct Alarms(RefCell<Vec<Pin<Box<Sleep>>>>);

impl Alarms {
    /// Waits for work to be done, until a deadline: `None` where it comes first.
    pub async fn within<F: Future>(
        &self,
        deadline: Instant,
        mut work: Pin<&mut F>,
    ) -> Option<F::Output> {
        let mut alarm = None;
        let done = poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => {
                ready!(alarm.get_or_insert_with(|| self.set(deadline)).as_mut().poll(cx));
                Poll::Ready(None)
            }
        })
        .await;
        let mut kept = self.0.borrow_mut();
        if kept.len() < MAX_KEPT {
            kept.extend(alarm);
        }
        done
    }

    fn set(&self, deadline: Instant) -> Pin<Box<Sleep>> {
        match self.0.borrow_mut().pop() {
            Some(mut alarm) => {
                alarm.as_mut().reset(deadline);
                alarm
            }
            None => Box::pin(sleep_until(deadline)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;
    use std::time::Duration;

    use tokio::task::yield_now;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_alarm_goes_off_at_the_time_of_its_last_wait() {
        let (alarms, second) = (Alarms::default(), Duration::from_secs(1));
        let started = Instant::now();
        for (wait, expected) in [(3, 3), (1, 4), (5, 9)] {
            let deadline = Instant::now() + wait * second;
            assert_eq!(alarms.within(deadline, pin!(yield_now())).await, Some(()));
            assert_eq!(alarms.within(deadline, pin!(pending::<()>())).await, None);
            assert_eq!(started.elapsed(), expected * second);
            assert_eq!(alarms.0.borrow().len(), 1, "it is used again");
        }
    }

    #[tokio::test]
    async fn work_that_is_done_at_once_needs_no_alarm() {
        let alarms = Alarms::default();
        assert_eq!(alarms.within(Instant::now(), pin!(ready(7))).await, Some(7));
        assert!(alarms.0.borrow().is_empty());
    }
}

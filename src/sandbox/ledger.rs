//! The book that a token server keeps: who asked what, which tokens exist, and until when.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::sync::watch;

use super::fault::Fault;

/// One call of the token endpoint.
#[derive(Debug, Clone)]
pub struct TokenCall {
    /// When its body had arrived.
    pub at: SystemTime,
    /// Its method.
    pub method: Method,
    /// Its target as written.
    pub target: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, byte by byte.
    pub body: Bytes,
    /// Its outcome.
    pub outcome: CallOutcome,
}

/// The outcome of a token call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallOutcome {
    /// Not answered yet.
    Pending,
    /// Answered with this access token.
    Issued(String),
    /// Refused with this status and reason.
    Refused(u16, String),
    /// Answered wrongly, on the script's order.
    Faulted(Fault),
}

/// One token that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The access token.
    pub token: String,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// When it was issued.
    pub at: SystemTime,
    /// When it ends.
    pub expires: SystemTime,
    /// True if it was revoked.
    pub revoked: bool,
    /// The thumbprint of the key that it is bound to (RFC 9449 section 6).
    pub bound_to: Option<String>,
    /// The refresh token that came with it, until it is used.
    pub refresh_token: Option<String>,
}

/// The result of checking a presented token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenValidity {
    /// Good for what was asked; with its scopes.
    Valid(Vec<String>),
    /// There was no token.
    Missing,
    /// This server never issued it.
    Unknown,
    /// It ended.
    Expired,
    /// It was ended early.
    Revoked,
    /// It is good, but not for this: the scopes that it lacks.
    Insufficient(Vec<String>),
}

/// The book itself; shared by a token server and the upstreams that trust it.
#[derive(Debug, Default)]
pub struct Ledger {
    book: watch::Sender<Book>,
}

#[derive(Debug, Default)]
struct Book {
    calls: Vec<TokenCall>,
    issued: Vec<Issued>,
}

impl Ledger {
    /// Every call so far, in the order of arrival.
    pub fn calls(&self) -> Vec<TokenCall> {
        self.book.borrow().calls.clone()
    }

    /// Every token so far, in the order of issue.
    pub fn issued(&self) -> Vec<Issued> {
        self.book.borrow().issued.clone()
    }

    /// Waits until `count` calls have arrived, answered or not, and returns all of them.
    pub async fn wait_calls(&self, count: usize) -> Vec<TokenCall> {
        self.wait(|book| book.calls.len() >= count).await;
        self.calls()
    }

    /// Waits until `count` calls have been answered, well or badly, and returns all calls.
    pub async fn wait_answered(&self, count: usize) -> Vec<TokenCall> {
        let answered = |call: &&TokenCall| call.outcome != CallOutcome::Pending;
        self.wait(|book| book.calls.iter().filter(answered).count() >= count).await;
        self.calls()
    }

    /// Waits until `count` tokens have been issued and returns all of them.
    pub async fn wait_issued(&self, count: usize) -> Vec<Issued> {
        self.wait(|book| book.issued.len() >= count).await;
        self.issued()
    }

    /// Checks `token` at `now` for a call that needs all scopes of `needed`.
    pub fn check(&self, token: &str, now: SystemTime, needed: &[&str]) -> TokenValidity {
        let book = self.book.borrow();
        let Some(known) = book.issued.iter().find(|issued| issued.token == token) else {
            return TokenValidity::Unknown;
        };
        if known.revoked {
            return TokenValidity::Revoked;
        }
        if now >= known.expires {
            return TokenValidity::Expired;
        }
        let lacks = |scope: &&&str| !known.scopes.iter().any(|granted| granted == **scope);
        let lacking: Vec<String> =
            needed.iter().filter(lacks).map(|scope| (*scope).to_owned()).collect();
        match lacking.is_empty() {
            true => TokenValidity::Valid(known.scopes.clone()),
            false => TokenValidity::Insufficient(lacking),
        }
    }

    /// The thumbprint of the key that a token is bound to.
    pub(super) fn bound_to(&self, token: &str) -> Option<String> {
        let book = self.book.borrow();
        book.issued.iter().find(|issued| issued.token == token)?.bound_to.clone()
    }

    /// Ends every token that exists now, as a server does when a secret is rotated.
    pub fn revoke_all(&self) {
        self.change(|book| book.issued.iter_mut().for_each(|issued| issued.revoked = true));
    }

    /// Writes a call down and returns its number.
    pub(super) fn record(&self, call: TokenCall) -> usize {
        self.change(|book| {
            book.calls.push(call);
            book.calls.len() - 1
        })
    }

    /// Writes down what became of a call.
    pub(super) fn conclude(&self, call: usize, outcome: CallOutcome) {
        self.change(|book| {
            if let Some(call) = book.calls.get_mut(call) {
                call.outcome = outcome;
            }
        });
    }

    /// Writes a token down.
    pub(super) fn issue(&self, issued: Issued) {
        self.change(|book| book.issued.push(issued));
    }

    /// Uses a refresh token up: it works once. Returns the scopes it stands for.
    pub(super) fn redeem(&self, refresh_token: &str) -> Option<Vec<String>> {
        self.change(|book| {
            let holds =
                |issued: &&mut Issued| issued.refresh_token.as_deref() == Some(refresh_token);
            let issued = book.issued.iter_mut().find(holds)?;
            issued.refresh_token = None;
            Some(issued.scopes.clone())
        })
    }

    /// The token issued last with these scopes and what is left of its life, at least a second.
    pub(super) fn last(&self, now: SystemTime, scopes: &[String]) -> Option<(Issued, Duration)> {
        let book = self.book.borrow();
        let last = book.issued.iter().rev().find(|issued| issued.scopes == scopes)?;
        let left = last.expires.duration_since(now).ok()?;
        (left >= Duration::from_secs(1)).then(|| (last.clone(), left))
    }

    /// Ends one token, access or refresh.
    pub(super) fn revoke(&self, token: &str) {
        self.change(|book| {
            for issued in &mut book.issued {
                issued.revoked |= issued.token == token;
                issued.refresh_token.take_if(|refresh| refresh == token);
            }
        });
    }

    fn change<T: Default>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        let mut result = T::default();
        self.book.send_modify(|book| result = change(book));
        result
    }

    /// Waits until `ready` says so; it is asked after each change.
    async fn wait(&self, ready: impl FnMut(&Book) -> bool) {
        // This fails where the sender is dropped, and it lives as long as `self`.
        let _ = self.book.subscribe().wait_for(ready).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(token: &str, scopes: &[&str], life: u64) -> Issued {
        Issued {
            token: token.to_owned(),
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            at: SystemTime::UNIX_EPOCH,
            expires: SystemTime::UNIX_EPOCH + Duration::from_secs(life),
            revoked: false,
            bound_to: None,
            refresh_token: Some(format!("r-{token}")),
        }
    }

    #[test]
    fn a_token_is_judged_by_name_time_and_scope() {
        let ledger = Ledger::default();
        ledger.issue(issued("t", &["a", "b"], 10));
        let check = |token: &str, second: u64, needed: &[&str], expected: TokenValidity| {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            assert_eq!(ledger.check(token, now, needed), expected, "{token} {second} {needed:?}");
        };
        let valid = TokenValidity::Valid(vec!["a".to_owned(), "b".to_owned()]);
        check("t", 9, &[], valid.clone());
        check("t", 9, &["b"], valid);
        check("t", 10, &["b"], TokenValidity::Expired);
        check("t", 9, &["b", "c"], TokenValidity::Insufficient(vec!["c".to_owned()]));
        check("u", 9, &[], TokenValidity::Unknown);
        ledger.revoke_all();
        check("t", 9, &[], TokenValidity::Revoked);
    }

    #[test]
    fn a_refresh_token_works_once() {
        let ledger = Ledger::default();
        ledger.issue(issued("t", &["a"], 10));
        assert_eq!(ledger.redeem("r-t"), Some(vec!["a".to_owned()]));
        assert_eq!(ledger.redeem("r-t"), None);
    }

    #[tokio::test]
    async fn waiting_sees_what_came_before_and_what_comes_after() {
        let ledger = Ledger::default();
        ledger.issue(issued("t", &[], 10));
        assert_eq!(ledger.wait_issued(1).await.len(), 1);
        let (both, ()) =
            tokio::join!(ledger.wait_issued(2), async { ledger.issue(issued("u", &[], 10)) });
        assert_eq!(both.len(), 2);
    }
}
